"""One contract, run on every flavor that is discovered.

A flavor brings ``tests/flavors/cases/<name>.py`` with ``CASES``: a mapping from a case's name to a function that
returns a :class:`Case`-like object (model, example, answer, options, code). A flavor without cases fails the suite.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import modelpack
from modelpack import coerce, document, examples, flavor, forms, render
from modelpack.errors import IntegrityError, SaveError, TrustError
from modelpack.trust import Store, default_store
from modelpack_server.app import build
from modelpack_server.batch import Options, predict_files

# pyspark leaves the closing of its sockets to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

FOLDER = Path(__file__).parent / "cases"
SHARED = Path(tempfile.mkdtemp(prefix="contract-"))
atexit.register(shutil.rmtree, SHARED, ignore_errors=True)


@functools.cache
def cases_of(name: str) -> Mapping[str, Callable[[], Any]]:
    spec = importlib.util.spec_from_file_location(f"cases_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    # Other tests of the flavor find its fitted models there.
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cases: Mapping[str, Callable[[], Any]] = module.CASES
    return cases


def discovered() -> list[Any]:
    return [
        pytest.param((name, case), id=f"{name}-{case}")
        for name in flavor.available()
        if (FOLDER / f"{name}.py").exists()
        for case in cases_of(name)
    ]


def documented() -> list[Any]:
    """Return flavor, case and class of each row in docs/flavors/index.md that a case stands for."""
    page = (FOLDER.parent.parent.parent / "docs" / "flavors" / "index.md").read_text(encoding="utf-8")
    cell = r'\[`(\w+)`\]\(\S+ "test_the_class_is_the_one_in_the_docs\[(\w+)-([\w-]+)\]"\)'
    return [pytest.param(name, case, trust, id=f"{name}-{case}") for trust, name, case in re.findall(cell, page)]


@functools.cache
def made(name: str, case: str) -> Any:
    found = cases_of(name)[case]()
    found.flavor = name
    return found


@functools.cache
def saved(name: str, case: str, parent: Path) -> tuple[Path, str]:
    package = save(made(name, case), parent / f"{name}-{case}")
    return package.path, package.digest


@pytest.fixture(params=discovered())
def case(request: pytest.FixtureRequest) -> Any:
    return made(*request.param)


@pytest.fixture
def package(request: pytest.FixtureRequest, case: Any, tmp_path: Path) -> modelpack.Package:
    """Give the case's package, saved once and copied, and granted to this test's user if it was by saving."""
    path, digest = saved(*request.node.callspec.params["case"], SHARED)
    shutil.copytree(path, tmp_path / "pkg")
    package = modelpack.open(tmp_path / "pkg")
    if package.plan().candidates[0].trust == "code":
        default_store().add(digest, name="case", version="1", source="saved")
    return package


def save(case: Any, path: Path, **more: Any) -> modelpack.Package:
    return modelpack.save(
        case.model, path, example=case.example, options=case.options, code=case.code, version="1.0.0", **more
    )


def same(one: Any, other: Any) -> None:
    """Assert that two answers are the same, bit for bit and of the same kind."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    elif hasattr(one, "equals"):
        assert one.equals(other)
    elif hasattr(one, "toarray"):
        np.testing.assert_array_equal(one.toarray(), other.toarray())
    else:
        np.testing.assert_array_equal(one, other)


def test_every_flavor_has_cases() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(flavor.available())


def test_the_flavor_is_found_from_the_object(case: Any, package: modelpack.Package) -> None:
    assert [entry.name for entry in package.manifest.flavors] == [*getattr(case, "twins", ()), case.flavor]


def test_a_loaded_model_answers_as_the_live_one(case: Any, package: modelpack.Package) -> None:
    same(modelpack.load(package.path).predict(case.example), case.answer)


def test_the_package_is_whole(package: modelpack.Package) -> None:
    assert modelpack.open(package.path).digest == package.digest


def test_saving_twice_gives_the_same_content(case: Any, package: modelpack.Package, tmp_path: Path) -> None:
    again = save(case, tmp_path / "again")
    same_bytes = again.manifest.content_digest == package.manifest.content_digest
    assert same_bytes or not case.reproducible


def test_the_example_tests_the_package(package: modelpack.Package) -> None:
    model = modelpack.load(package.path)
    outcomes = [examples.check(model, example) for example in model.manifest.examples]
    assert [outcome.differences for outcome in outcomes] == [()]


def test_a_changed_answer_is_noticed(package: modelpack.Package, tmp_path: Path) -> None:
    model = modelpack.load(package.path)
    (example,) = model.manifest.examples
    assert example.output is not None
    recorded = document.parse((package.path / example.output).read_bytes(), max_integer=2**64)
    changed = json.dumps({"predictions": [recorded["predictions"], "more"]}).encode()

    class Files:
        def read(self, path: str) -> bytes:
            return changed if path == example.output else (package.path / path).read_bytes()

    model.package.files = lambda prefix="": Files()  # type: ignore[assignment, method-assign, return-value]
    assert examples.check(model, example).differences


def test_the_json_request_gives_the_same_answer(case: Any, package: modelpack.Package) -> None:
    model = modelpack.load(package.path)
    body = json.loads((package.path / "examples/example.input.json").read_bytes())
    parsed = forms.parse(body, signature=model.signature)
    frame = coerce.inputs(parsed.data, model.signature, wire="json", at=parsed.at)
    answer = model.score(frame, coerce.params(None, model.signature))
    again = model.score(coerce.inputs(case.example, model.signature), coerce.params(None, model.signature))
    assert render.plain(answer) == render.plain(again)
    json.dumps(render.plain(answer), allow_nan=False)


def test_over_http_it_gives_the_recorded_answer(package: modelpack.Package) -> None:
    app = build(modelpack.load(package.path))
    body = (package.path / "examples/example.input.json").read_bytes()

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://model") as client:
            return await client.post("/invocations", content=body, headers={"Content-Type": "application/json"})

    reply = asyncio.run(ask())
    app.state.invocations.close()
    assert reply.status_code == 200, reply.text
    assert reply.json() == recorded(package)


def test_in_batch_it_gives_the_recorded_answer(package: modelpack.Package, tmp_path: Path) -> None:
    body = json.loads((package.path / "examples/example.input.json").read_bytes())
    split, inputs = body.get("dataframe_split"), body.get("inputs")
    rows = [dict(zip(split["columns"], row, strict=True)) for row in split["data"]] if split else turned(inputs)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    predict_files(modelpack.load(package.path), [tmp_path / "in.jsonl"], tmp_path / "out.jsonl", Options(keep=()))

    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    predictions = recorded(package)["predictions"]
    wanted = turned(predictions) if isinstance(predictions, dict) else predictions
    assert [list(flat(row)) for row in answers] == [list(flat(row)) for row in wanted]


def recorded(package: modelpack.Package) -> Any:
    return json.loads((package.path / "examples/example.output.json").read_bytes())


def turned(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return rows by name, from values by row by name."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def flat(value: Any) -> Iterator[Any]:
    """Yield what is in one row, whatever the columns are called."""
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from flat(one)
    if not isinstance(value, dict | list):
        yield value


def test_code_needs_a_grant_and_nothing_else_does(package: modelpack.Package, tmp_path: Path) -> None:
    stranger = Store(tmp_path / "stranger")
    candidate, *_ = package.plan(store=stranger).candidates
    if candidate.trust != "code":
        assert modelpack.load(package.path, store=stranger).candidate.trust in ("data", "graph", "objects")
        return
    with pytest.raises(TrustError) as info:
        modelpack.load(package.path, store=stranger)
    assert info.value.code == "code-not-allowed"
    assert package.digest not in str(info.value)  # nothing to paste that would allow it
    assert modelpack.load(package.path, allow_code=package.digest, store=stranger).digest == package.digest


@pytest.mark.parametrize(("name", "case", "trust"), documented())
def test_the_class_is_the_one_in_the_docs(name: str, case: str, trust: str) -> None:
    path, _ = saved(name, case, SHARED)
    assert {one.name: one.trust for one in modelpack.open(path).plan().candidates}[name] == trust


def test_the_grant_of_one_package_is_not_the_grant_of_another(package: modelpack.Package, tmp_path: Path) -> None:
    with pytest.raises(TrustError) as info:
        modelpack.load(package.path, allow_code="sha256:" + "0" * 64, store=Store(tmp_path / "stranger"))
    assert info.value.code == "grant-mismatch"


def test_a_payload_swapped_after_opening_is_refused(package: modelpack.Package) -> None:
    opened = modelpack.open(package.path)
    for entry in opened.manifest.files:
        if entry.role in ("payload", "code") and entry.size:
            file = package.path / entry.path
            raw = bytearray(file.read_bytes())
            raw[len(raw) // 2] ^= 1
            file.write_bytes(raw)
    with pytest.raises(IntegrityError) as info:
        modelpack.load(opened)
    assert info.value.code == "digest-mismatch"


def test_a_moved_package_is_the_same_package(package: modelpack.Package, tmp_path: Path) -> None:
    shutil.move(package.path, tmp_path / "moved")
    assert modelpack.load(tmp_path / "moved").digest == package.digest


def test_without_an_example_it_saves_and_loads(case: Any, tmp_path: Path) -> None:
    package = modelpack.save(case.model, tmp_path / "bare", options=case.options, code=case.code)
    assert package.manifest.examples == ()
    same(modelpack.load(package.path).predict(case.example), case.answer)


def test_an_example_the_model_cannot_take_leaves_nothing(case: Any, tmp_path: Path) -> None:
    with pytest.raises(SaveError) as info:
        modelpack.save(case.model, tmp_path / "bad", example=case.bad_example, options=case.options, code=case.code)
    assert info.value.code == "example-failed"
    assert os.listdir(tmp_path) == []


def test_an_unknown_option_is_refused(case: Any, tmp_path: Path) -> None:
    with pytest.raises(modelpack.UsageError) as info:
        modelpack.save(case.model, tmp_path / "bad", options={"no-such-option": 1}, code=case.code)
    assert info.value.code == "option-unknown"
    assert os.listdir(tmp_path) == []
