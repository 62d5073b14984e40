"""Every conformance vector, against the code and against the JSON Schema."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import modelpack
from modelpack.errors import ModelpackError

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
LayOut = Callable[[Path, dict[str, Any]], Path]

# What a package could make happen while it is only opened; "open" and "os.*" are what opening is.
ALARMS = ("import", "exec", "compile", "subprocess", "os.system", "os.exec", "os.fork", "pickle", "socket", "ctypes")


def folders(kind: str) -> list[Any]:
    return [pytest.param(path.parent, id=path.parent.name) for path in sorted(VECTORS.glob(f"{kind}/*/case.json"))]


def read(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "case.json").read_bytes())
    return value


class Watch:
    """Notes what the interpreter is asked to do while it is on (an audit hook cannot be removed, only ignored)."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, _: tuple[Any, ...]) -> None:
        if self.on and event.startswith(ALARMS):
            self.seen.append(event)

    def __enter__(self) -> None:
        self.seen.clear()
        self.on = True

    def __exit__(self, *_: object) -> None:
        self.on = False


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    # Opening one package first: modules of ours and of Python that are imported once are no news.
    modelpack.open(VECTORS / "valid" / "minimal" / "pkg").verify()
    watching = Watch()
    yield watching
    watching.on = False


@pytest.mark.parametrize("folder", folders("valid"))
def test_a_valid_package_opens_and_nothing_of_it_runs(folder: Path, lay_out: LayOut, watch: Watch) -> None:
    case = read(folder)
    root = lay_out(folder, case)
    modules = set(sys.modules)
    with watch:
        package = modelpack.open(root)
        package.verify()
    assert package.digest == case["digest"]
    assert (watch.seen, set(sys.modules) - modules) == ([], set())


@pytest.mark.parametrize("folder", folders("invalid"))
def test_an_invalid_package_is_refused_with_its_code_and_path(folder: Path, lay_out: LayOut, watch: Watch) -> None:
    case = read(folder)
    root = lay_out(folder, case)
    if case["stage"] == "load":
        package = modelpack.open(root)
        with pytest.raises(ModelpackError) as caught:
            modelpack.load(package)
    else:
        with watch, pytest.raises(ModelpackError) as caught:
            modelpack.open(root)
        assert watch.seen == []
    assert (case["code"], case["path"]) == (caught.value.code, caught.value.path)
    str(caught.value).encode()  # can be printed


@pytest.mark.parametrize("folder", folders("valid") + folders("invalid"))
def test_the_schema_says_of_the_manifest_what_the_vector_says(
    folder: Path, lay_out: LayOut, schema: Callable[[str], Any]
) -> None:
    case = read(folder)
    schema("case").validate(case)
    if case["schema"] != "n/a":
        manifest = json.loads((lay_out(folder, case) / "modelpack.json").read_bytes())
        errors = list(schema("manifest-1.0").iter_errors(manifest))
        assert case["schema"] == ("reject" if errors else "accept"), errors


@pytest.mark.parametrize("folder", folders("valid") + folders("invalid"))
def test_a_vector_is_named_for_its_directory_and_cites_a_section_that_exists(folder: Path, spec: Path) -> None:
    case = read(folder)
    assert (case["id"], case["expect"]) == (folder.name, {"valid": "accept", "invalid": "reject"}[folder.parent.name])
    chapter, _, anchor = case["spec"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (spec / chapter).read_text("utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_enough_vectors() -> None:
    assert len(folders("valid")) >= 15
    assert len(folders("invalid")) >= 40


def test_released_vectors_are_frozen() -> None:
    """SHA256SUMS lists every file of every vector; tests/spec/make_vectors.py adds new ones to it."""
    listed = dict(reversed(line.split("  ", 1)) for line in (VECTORS / "SHA256SUMS").read_text("utf-8").splitlines())
    there = {
        path.relative_to(VECTORS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VECTORS.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert listed == there
