"""Every hostile package at every door: nothing of it runs, it is refused with its code and path, the process lives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "spec" / "vectors" / "invalid"
COMMANDS = ("serve", "predict", "test")


def sibling(path: Path) -> Any:
    """Import a file beside the tests."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


foreign = sibling(HERE / "foreign.py")
do = sibling(HERE.parent / "spec" / "conftest.py").do


def vectors() -> dict[str, dict[str, Any]]:
    cases = (json.loads(path.read_bytes()) for path in sorted(VECTORS.glob("*/case.json")))
    return {case["id"]: case for case in cases}


def expected() -> dict[str, tuple[str, str, str]]:
    """Return stage, code and path of every package; the stage is ``load`` or one of those of opening."""
    found = {name: (case["stage"], case["code"], case["path"]) for name, case in vectors().items()}
    return found | {f"mlflow {name}": (stage, *where) for name, (_, _, stage, where) in foreign.CASES.items()}


def laid_out(root: Path) -> dict[str, Path]:
    """Write every package below a directory."""
    found = {}
    for name, case in vectors().items():
        place = found[name] = root / name / "pkg"
        if (VECTORS / name / "pkg").is_dir():
            shutil.copytree(VECTORS / name / "pkg", place)
        place.mkdir(parents=True, exist_ok=True)
        for step in case.get("build", ()):
            do(place, step)
    for number, (name, (described, files, _, _)) in enumerate(foreign.CASES.items()):
        place = found[f"mlflow {name}"] = root / f"mlflow-{number}"
        for path, raw in {"MLmodel": described, **files}.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return found


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "MODELPACK_TRUST_STORE": str(home / "trust"), "HOME": str(home), "OMP_NUM_THREADS": "1"}


def at_the_doors(places: list[Path], home: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what the doors said of each package, tried by one process in a directory of its own."""
    work = home / "work"
    work.mkdir(parents=True)
    (home / "list.json").write_text(json.dumps([str(place) for place in places]), "utf-8")
    done = subprocess.run(
        [sys.executable, str(HERE / "doors.py"), str(home / "list.json")],
        cwd=work, env=environment(home), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"package"')]
    for line in lines:
        yield line["package"], line["answers"]
    # A process that a package has ended has said nothing of it.
    assert done.returncode == 0, (done.returncode, places[len(lines) : len(lines) + 1], done.stderr[-2000:])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    root = tmp_path_factory.mktemp("hostile")
    places = laid_out(root / "packages")
    names = {str(place): name for name, place in places.items()}
    halves = [list(places.values())[i::2] for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        parts = pool.map(lambda i: list(at_the_doors(halves[i], root / str(i))), range(2))
        return {names[place]: said for part in parts for place, said in part}


def test_there_are_enough_of_them() -> None:
    of_payloads = [name for name, (stage, _, _) in expected().items() if stage == "load"]
    assert len(of_payloads) > 200


@pytest.mark.slow
@pytest.mark.parametrize("name", expected())
def test_it_is_refused_at_every_door(name: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
    stage, code, path = expected()[name]
    said = answers[name]
    assert [door for door, answer in said.items() if "trace" in answer] == []
    where = {"code": code, "path": path}
    assert said["load"] == where
    assert said["open"] == ({} if stage == "load" else where)
    for door in COMMANDS:
        assert (said[door]["exit"], said[door]["code"], said[door]["path"]) == (1, code, path), door
    if stage == "load":
        assert said["verify"]["exit"] == 0
        inspected = said["inspect"]
        if code == "code-not-allowed":
            assert (inspected["exit"], "code" in inspected["classes"]) == (0, True)
        elif code == "payload-invalid" and not name.startswith("load-state-"):
            assert (inspected["exit"], inspected["code"], inspected["path"]) == (1, code, path)
    else:
        assert (said["verify"]["exit"], said["inspect"]["exit"]) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "load-mark-pickle",
        "load-mark-source",
        "load-onnx-external-absolute",
        "load-pt2-system",
        "load-safetensors-overlap",
        "load-state-tree-child",
        "load-xgboost-child",
    ],
)
def test_a_real_server_does_not_start_with_it(name: str, tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    shutil.copytree(VECTORS / name / "pkg", package)
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "modelpack", "serve", str(package), "--port", "0"],
        cwd=work, env=environment(tmp_path), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, list(work.iterdir())) == (1, "", [])
    assert f"[{vectors()[name]['code']}]" in done.stderr
    assert "Traceback" not in done.stderr
