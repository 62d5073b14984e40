"""The gate has one door, and every loader goes through it: enumerated from the code, so that a new one is noticed."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import json
import os
import pickle
import re
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import modelpack
from modelpack import flavor, trust
from modelpack.audits import Audit
from modelpack.errors import FlavorError, ModelpackError, TrustError
from modelpack.flavor import LoadContext
from modelpack.package import Package

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "modelpack" / "modelpack"
FLAVORS = ROOT / "flavors" / "modelpack_flavors"
SERVER = ROOT / "server" / "modelpack_server"
SOURCES = sorted(path for room in (CORE, FLAVORS, SERVER) for path in room.rglob("*.py"))

BUILTIN = sorted(flavor.builtin())
# Formats that load nothing but what somebody has allowed, whatever is in the file.
CODE = {"cloudpickle", "mlflow-pyfunc", "pickle", "python-source", "torch-pickle", "torchscript"}


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def manifest(name: str, format_id: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return a manifest that says of itself all that might make a reader careless."""
    innocent = {"trust": "data", "class": "data", "safe": True, "code_allowed": True, "trust_remote_code": True}
    entries = [
        {
            "path": path,
            "size": len(raw),
            "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}",
            "role": {"payloads": "payload", "code": "code", "examples": "example"}[path.partition("/")[0]],
        }
        for path, raw in sorted(files.items())
    ]
    lines = "".join(f"{entry['digest'][7:]}  {entry['path']}\n" for entry in entries)
    entry: dict[str, Any] = {"name": name, "config": innocent}
    value: dict[str, Any] = {
        "modelpack": "1.0",
        "name": "forged",
        "version": "1",
        "tags": {"trust": "data", "class": "data"},
        "provenance": innocent,
        "extensions": {"org.modelpack/trust": innocent},
        "examples": [{"name": "one", "input": "examples/one.json"}],
        "signature": {"inputs": {"kind": "table", "columns": [{"name": "x", "type": "float64"}]}},
        "flavors": [entry],
        "content_digest": f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}",
        "files": entries,
    }
    payload = next((path for path in files if path.startswith("payloads/")), None)
    if payload:
        facts = {"format": format_id, "files": [payload], "entry": payload, "declares": innocent}
        value["payloads"] = {"model": facts}
        entry["payloads"] = {"model": "model"}
    else:
        entry |= {"entrypoint": "evil:Model", "code": ["code/evil.py"]}
    return value


def forge(folder: Path, name: str, format_id: str, files: Mapping[str, bytes]) -> Path:
    """Write a package as anybody could, without any flavor."""
    files = {**files, "examples/one.json": b'{"dataframe_records": [{"x": 1.0}]}'}
    for path, raw in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    (folder / "modelpack.json").write_text(json.dumps(manifest(name, format_id, files)))
    return folder


def tried(name: str) -> list[str]:
    """Return the formats that a flavor is forged with: all for two of them, else its own, each class, and none."""
    if name in {"python", "nobody"}:
        return [*trust.FORMATS, "unheard-of"]
    return sorted({*flavor.get(name).formats, "pickle", "onnx", "safetensors", "skops", "unheard-of"})


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every flavor with its formats and some that are not; a pickle that calls itself safetensors; and source code."""
    folder = tmp_path_factory.mktemp("forged")
    bomb = pickle.dumps(Bomb(folder / "exploded"))
    for name in [*BUILTIN, "nobody"]:
        for format_id in tried(name):
            place = folder / f"{name}+{format_id}"
            forge(place, name, format_id, {"payloads/model/model.safetensors": bomb})
        source = f"open({str(folder / 'exploded')!r}, 'w')".encode()
        forge(folder / f"{name}+source", name, "", {"code/evil.py": source})
    (folder / "rows.jsonl").write_text('{"x": 1.0}\n')
    return folder


def probe(*arguments: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("gate_doors.py")), *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout


def test_every_door_is_known() -> None:
    """Whoever adds a function or a command that takes a grant adds it to gate_doors.py as well."""
    found = json.loads(probe("doors"))
    known = {"load", "Package.granted", "Package.plan", "optimize"}
    assert {"load", "Package.plan"} <= set(found["functions"]) <= known
    assert {"test", "serve", "predict"} <= set(found["commands"]) == set(found["commands"]) & set(found["known"])


def named_variables() -> set[str]:
    """Return the environment variables that our sources name, and some that frameworks read."""
    found = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TRUST_REMOTE_CODE", "MODELPACK_ALLOW_CODE", "MODELPACK_TRUST"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", node.value) else set()
    # Where a user's own grants are is the user's to say; there are none anywhere in these tests.
    return found - {"MODELPACK_TRUST_STORE", "XDG_CONFIG_HOME"}


@pytest.mark.slow
def test_by_no_door_does_a_strangers_code_come_in(forged: Path) -> None:
    """Whatever a package calls its pickle, and whatever the environment says, the verdict is the same by every door.

    No flavor is imported for it.
    """
    # This one takes three words only; the most careless of them.
    careless = dict.fromkeys(named_variables(), "1") | {"MODELPACK_ENVIRONMENT_POLICY": "ignore"}
    outcomes = [json.loads(line) for line in probe(str(forged), **careless).splitlines()]
    wanted = {f"{name}+{one}" for name in [*BUILTIN, "nobody"] for one in [*tried(name), "source"]}
    assert {package for package, *_ in outcomes} == wanted
    assert {"load", "test", "serve", "predict"} <= {door for _, door, *_ in outcomes}
    wrong = []
    for package, door, code, noted, exploded in outcomes:
        name, _, format_id = package.partition("+")
        imported = [one for one in noted if one.partition(".")[0] == "modelpack_flavors" or one.startswith("pickle: ")]
        # What an audit reads is not what it calls itself, and so refused, or code.
        expected = {"code-not-allowed"} if format_id in CODE | {"source"} else {"code-not-allowed", "payload-invalid"}
        if door == "optimize":
            expected |= {"twin-present"}  # said of a package that has the flavor, before anything is loaded
        if name == "nobody" or format_id == "unheard-of":
            expected = {"flavor-unavailable"} | (expected - {"code-not-allowed"})
        if code not in expected or imported or exploded:
            wrong.append((package, door, code, imported, exploded))
    assert wrong == []


def contexts() -> list[Any]:
    return [pytest.param(name, one, id=f"{name}-{one}") for name in BUILTIN for one in flavor.get(name).formats]


def test_every_format_that_a_flavor_claims_has_its_audit() -> None:
    claimed = {one for name in BUILTIN for one in flavor.get(name).formats}
    assert claimed - trust.FORMATS.keys() == set()
    assert trust.FORMATS.keys() - claimed == set()


def test_the_formats_that_are_always_code() -> None:
    """A format leaves this list only if somebody has written an audit for it, and then this test is changed."""
    nothing: Any = object()
    found = set()
    for format_id, audit in trust.FORMATS.items():
        try:
            found |= {format_id} if audit(nothing, "model").trust == "code" else set()
        except (AttributeError, ModelpackError):
            continue  # it reads the file
    assert found == CODE


class Untouchable:
    """The package's own modules, which must not be imported."""

    modules = frozenset({"evil"})
    touched: tuple[str, ...] = ()

    def owns(self, name: str) -> bool:
        return name.partition(".")[0] == "evil"

    def __getattr__(self, name: str) -> Any:
        def touch(*_: Any) -> Any:
            self.touched += (name,)
            raise AssertionError(f"{name} was called")

        return touch


@pytest.mark.parametrize(("name", "format_id"), contexts())
@pytest.mark.parametrize(
    "config",
    [{}, {"form": "numpy"}, {"loader_module": "evil"}, {"loader_module": "mlflow.pyfunc.model", "python_model": "m"}],
    ids=["bare", "form", "own-loader", "mlflow-loader"],
)
def test_a_flavor_asked_directly_runs_nothing_that_is_not_allowed(
    name: str, format_id: str, config: dict[str, Any], tmp_path: Path
) -> None:
    namespace = Untouchable()
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    package = Package.open(forge(tmp_path / "package", name, format_id, {"payloads/model/model.safetensors": bomb}))
    payload = package.manifest.payloads["model"]
    context = LoadContext(
        format=format_id,
        entry=package.payload_entry(payload),
        files=package.payload_files(payload),
        config=config,
        entrypoint="evil:Model",
        code_allowed=False,
        namespace=namespace,
        signature=None,
    )
    with pytest.raises(ModelpackError) as info:
        flavor.get(name).load(context)
    if format_id in CODE and info.value.code != "config-invalid":
        assert isinstance(info.value, TrustError), info.value
        assert info.value.code == "code-not-allowed"
    assert namespace.touched == ()
    assert not (tmp_path / "exploded").exists()


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put spies in the place of all flavors; return what they were asked to load, imports first."""
    seen: list[Any] = []
    real = {name: tuple(flavor.get(name).formats) for name in BUILTIN}

    def get(name: str) -> Any:
        seen.append(name)
        load = lambda context: seen.append(context) or types.SimpleNamespace(form="columns")  # noqa: E731
        return types.SimpleNamespace(name=name, version="1", formats=real[name], load=load)

    monkeypatch.setattr(flavor, "get", get)
    return seen


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize("format_id", sorted(trust.FORMATS))
def test_a_flavor_is_reached_after_the_gate_only(
    name: str, format_id: str, spied: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an audit that passes everything there is still the format to match; with one that says code, a grant."""
    path = forge(tmp_path / "package", name, format_id, {"payloads/model/model.bin": b"bytes"})
    monkeypatch.setattr(
        trust, "FORMATS", {format_id: lambda files, entry: Audit(trust="code", reasons=("it says so",))}
    )
    with pytest.raises(TrustError, match="it says so") as info:
        modelpack.load(path)
    assert info.value.code == "code-not-allowed"
    assert spied == []

    claimed = format_id in flavor.get(name).formats
    spied.clear()
    audit = Audit(trust="data")
    monkeypatch.setattr(trust, "FORMATS", {format_id: lambda files, entry: audit})
    assert _outcome(path) == ("loaded" if claimed else "format-unsupported")
    imported, *loads = spied
    assert imported == name
    assert [context.code_allowed for context in loads] == ([False] if claimed else [])


def _outcome(path: Path) -> str:
    try:
        modelpack.load(path)
    except FlavorError as exc:
        return exc.code
    return "loaded"


# What the source may say about loading. Whoever adds a line here has seen that the gate is not gone round.

# The gate's front door, and readers of plain data.
FRONT = {"modelpack.load", "modelpack.loading.load", "json.load", "tomllib.load"}
# The one place where a flavor loads, after `_choose`; and an audit that is installed, by its name (spec/08-flavors.md).
GATE = {
    ("modelpack/modelpack/loading.py", "_build", "chosen.load"),
    ("modelpack/modelpack/trust.py", "_offered", "point.load"),
}
# Where flavors are imported by name.
IMPORTERS = {
    ("modelpack/modelpack/loading.py", "_build", "flavors.get"),
    ("modelpack/modelpack/optimizing.py", "_converter", "flavor.get"),
    ("modelpack/modelpack/saving.py", "find_flavor", "flavor.get"),
    ("modelpack/modelpack/saving.py", "_twin", "flavor.get"),
}


@functools.cache
def calls(path: Path) -> Sequence[tuple[str, str]]:
    """Return the calls in a module: the function they are in, and what is called."""
    return list(_calls(path))


def _calls(path: Path) -> Iterator[tuple[str, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for outer in tree.body:
        name = getattr(outer, "name", "")
        for node in ast.walk(outer):
            if isinstance(node, ast.Call):
                yield name, ast.unparse(node.func)


def imported(path: Path) -> dict[str, str]:
    """Return what the imported names of a module mean, in full."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def outside() -> list[Path]:
    """Return the modules of the core and of the server."""
    return [path for path in SOURCES if FLAVORS not in path.parents]


def test_only_the_gate_calls_the_load_of_a_flavor() -> None:
    found = set()
    for path in outside():
        names = imported(path)
        for function, called in calls(path):
            first, dot, rest = called.partition(".")
            if called.rpartition(".")[2] == "load" and f"{names.get(first)}{dot}{rest}" not in FRONT:
                found.add((path.relative_to(ROOT).as_posix(), function, called))
    assert found == GATE
    assert modelpack.load is importlib.import_module("modelpack.loading").load


def test_only_the_gate_makes_what_a_flavor_loads_from() -> None:
    found = {(path.relative_to(ROOT).as_posix(), f) for path in SOURCES for f, c in calls(path) if "LoadContext" in c}
    assert found == {("modelpack/modelpack/loading.py", "_build")}


def test_flavors_are_imported_in_known_places_only() -> None:
    found = set()
    for path in outside():
        for function, called in calls(path):
            if re.fullmatch(r"(modelpack\.)?flavors?\.get", called):
                found.add((path.relative_to(ROOT).as_posix(), function, called))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "modelpack.flavor":
                assert "get" not in {alias.name for alias in node.names}, path
    assert found - IMPORTERS == set()


def test_nobody_but_discovery_names_the_package_of_flavors() -> None:
    """The exception reads directories of other formats, and is held to import nothing by test_mlflow.py."""
    found = set()
    for path in outside():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                found |= (
                    {(path.relative_to(ROOT).as_posix(), node.value)} if "modelpack_flavors" in node.value else set()
                )
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "modelpack_flavors" not in ast.unparse(node)
    assert {where for where, _ in found} == {"modelpack/modelpack/flavor.py", "modelpack/modelpack/foreign.py"}
    assert {text.partition(":")[0] for where, text in found if where.endswith("foreign.py")} <= {
        "modelpack_flavors._mlflow.reading",
        "modelpack_flavors._mlflow.writing",
    }


def test_nothing_that_decides_reads_the_environments_variables() -> None:
    deciding = ["trust", "package", "loading", "flavor", "sources", "files", "foreign", "manifest", "pathrules"]
    found = set()
    for path in [*(CORE / f"{name}.py" for name in deciding), *(CORE / "audits").glob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if re.search(r"\b(environ|getenv)\b", ast.unparse(node)):
                found.add((path.stem, getattr(node, "name", ast.unparse(node))))
    assert found == {("trust", "default_store")}
