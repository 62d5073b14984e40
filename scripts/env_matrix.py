"""Environments captured by modelpack and by MLflow for the same models, built from nothing and tested.

``python scripts/env_matrix.py PYTHON [--only NAME,...]``, PYTHON being one that has MLflow and everything that this
one has. What was found is kept in .bench/env-matrix and not looked for again, but with ``--anew``. The table
in docs/environment.md gets the models that both tools are through with.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "environment.md"
BEGIN, END = "<!-- written by scripts/env-matrix -->\n", "<!-- end -->\n"
KEPT = HERE.parent / ".bench" / "env-matrix"
TOOLS = ("modelpack", "MLflow")
UV = str(Path(sys.executable).with_name("uv"))
MODELPACK = str(Path(sys.executable).with_name("modelpack"))
# Answers of the same bytes in the same versions; matrix products may still be added up in another order.
DIGITS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one tool captured for one model, and what the environment made of it is worth."""

    captured: Sequence[str]
    total: int
    seconds: float
    capture: float | None
    green: bool
    missing: Sequence[str]
    superfluous: Sequence[str]
    other: Sequence[str]
    error: str = ""


def main() -> None:
    """Try every model with both tools and print the table, or write it into the page."""
    from env_matrix_models import CASES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="an interpreter that has MLflow and all that this one has")
    parser.add_argument("--only", help="names of models, with commas")
    parser.add_argument("--tools", default=",".join(TOOLS), help="one of the tools only")
    parser.add_argument("--anew", action="store_true", help="forget what was found before")
    given = parser.parse_args()
    if given.anew:
        shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    for tool in given.tools.split(","):
        for name in given.only.split(",") if given.only else CASES:
            _find(tool, name, given.python)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table(CASES)}{END}{rest.partition(END)[2]}")


def _find(tool: str, name: str, python: str) -> None:
    """Try one model with one tool, unless that is known."""
    kept = KEPT / f"{tool}-{name}.json"
    if not kept.is_file():
        with tempfile.TemporaryDirectory(prefix="env-matrix-") as folder:
            found = ours(name, Path(folder)) if tool == "modelpack" else theirs(name, Path(folder), python)
        kept.write_text(json.dumps(asdict(found), indent=1))
    print(tool, name, kept.read_text().replace("\n", ""), flush=True)


def ours(name: str, folder: Path) -> Finding:
    """Save with modelpack, lock, build, and test in what was built."""
    environ = {
        **os.environ,
        "MODELPACK_TRUST_STORE": str(folder / "trust"),
        "MODELPACK_ENVIRONMENTS": str(folder / "built"),
        # uv does not read pip's settings; wheels that pip finds in a directory it shall find too.
        "UV_FIND_LINKS": os.environ.get("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", "")),
    }
    saved = spoken([sys.executable, __file__, "--save", "modelpack", name, str(folder)], environ)
    package = str(folder / "modelpack")
    required = [line for line in done([MODELPACK, "env", "show", package], environ).splitlines() if line]
    try:
        done([MODELPACK, "env", "lock", package, "--in-place"], environ)
        built = spoken([MODELPACK, "env", "create", package, "--json"], environ)
        tested = subprocess.run([MODELPACK, "test", package, "--env", "isolated"], env=environ, capture_output=True)
    except subprocess.CalledProcessError as exc:
        return _failed(required, saved, exc.stderr)
    (layer,) = (folder / "built").glob(".layer-*")
    python = [str(Path(built["path"], "bin", "python")), "-P", str(HERE / "env_matrix_probe.py"), "modelpack", package]
    inside = {**environ, "MODELPACK_RUNTIME_LAYER": str(layer)}
    first = spoken(python, inside)
    needless = _needless(map(_name, required), first, [*python], inside, built["path"])
    lacking = sorted({*first["borrowed"], *re.findall(r"No module named '(\w+)", first["error"])})
    return Finding(
        captured=list(map(_name, required)),
        total=built["packages"],
        seconds=saved["seconds"],
        capture=saved["capture"],
        green=tested.returncode == 0 and first["answer"] is not None,
        missing=[one for one in lacking if one not in _installed(built["path"])],
        superfluous=needless,
        other=_others(required, saved["installed"]),
        error=first["error"] or tested.stderr.decode()[-400:] * (tested.returncode != 0),
    )


def theirs(name: str, folder: Path, python: str) -> Finding:
    """Save with MLflow, install its requirements.txt, and score in what was installed."""
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
    # MLflow starts other programs of its environment by their names.
    environ["PATH"] = f"{Path(python).parent}{os.pathsep}{environ['PATH']}"
    try:
        saved = spoken([python, __file__, "--save", "mlflow", name, str(folder)], environ)
    except subprocess.CalledProcessError as exc:
        return _failed((), {"seconds": 0.0, "installed": {}}, "not saved: " + exc.stderr.strip().splitlines()[-1])
    place = str(folder / "mlflow")
    required = [line for line in Path(place, "requirements.txt").read_text().splitlines() if line]
    built = folder / "theirs"
    try:
        done([UV, "venv", "--quiet", "--python", sys.executable, str(built)], environ)
        install = [UV, "pip", "install", "--quiet", "--python", str(built / "bin" / "python"), "--requirements"]
        done([*install, str(Path(place, "requirements.txt"))], environ)
    except subprocess.CalledProcessError as exc:
        return _failed(required, saved, exc.stderr)
    call = [str(built / "bin" / "python"), "-P", str(HERE / "env_matrix_probe.py"), "mlflow", place]
    first = spoken(call, environ)
    named = [one for one in map(_name, required) if one != "mlflow"]
    needless = _needless(named, first, call, environ, str(built))
    return Finding(
        captured=list(map(_name, required)),
        total=len(_installed(str(built))),
        seconds=saved["seconds"],
        capture=None,
        green=first["answer"] is not None and _rounded(first["answer"]) == _rounded(saved["answer"]),
        missing=sorted(set(re.findall(r"No module named '(\w+)", first["error"]))),
        superfluous=needless,
        other=_others(required, saved["installed"]),
        error=first["error"],
    )


def save(tool: str, name: str, folder: Path) -> None:
    """Save a model twice with a tool and print what the second time took, when all is imported already."""
    from env_matrix_models import CASES

    subject = CASES[name][1](folder)
    # What stands first on the path is what is imported.
    facts: dict[str, Any] = {"installed": _versions()}
    for _ in range(2):
        place = folder / tool
        shutil.rmtree(place, ignore_errors=True)
        start = _spent()
        if tool == "modelpack":
            facts["capture"] = _save(subject, place)
        else:
            subject.mlflow(place)
        facts["seconds"] = _spent() - start
    if tool == "mlflow":
        from env_matrix_probe import _mlflow

        facts["answer"] = _mlflow(str(place))
    print(json.dumps(facts))


def _spent() -> float:
    """Return the processor's time that this process and those it started took: other work does not count."""
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime


def _versions() -> dict[str, str]:
    import importlib.metadata

    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for one in importlib.metadata.distributions():
        found.setdefault(canonicalize_name(one.metadata["Name"]), one.version)
    return found


def _save(subject: Any, place: Path) -> float:
    """Save with modelpack; return how long it took to find out what the model needs."""
    import modelpack
    from modelpack import recording

    spent, real = [], recording.needed

    def timed(*given: Any) -> Any:
        start = _spent()
        found = real(*given)
        spent.append(_spent() - start)
        return found

    recording.needed = timed
    try:
        modelpack.save(subject.model, place, example=subject.example, name="matrix", version="1", **subject.more)
    finally:
        recording.needed = real
    return sum(spent)


def table(cases: Mapping[str, tuple[str, Any]]) -> str:
    """Return what is kept as Markdown."""
    lines = [
        "| model | by | captured | installed | missing | superfluous | other version | seconds | works |",
        "| --- | --- | --- | ---: | --- | --- | --- | ---: | --- |",
    ]
    for name, (title, _) in cases.items():
        known = [tool for tool in TOOLS if (KEPT / f"{tool}-{name}.json").is_file()]
        for tool in known:
            one = json.loads((KEPT / f"{tool}-{name}.json").read_text())
            capture = f" ({one['capture']:.3f})" if one["capture"] is not None else ""
            lists = [", ".join(sorted(one[key])) or "-" for key in ("missing", "superfluous", "other")]
            seconds = f"{one['seconds']:.2f}{capture}" if one["seconds"] else "-"
            cells = [title if tool == known[0] else "", tool, ", ".join(sorted(one["captured"])),
                     str(one["total"] or "-"), *lists, seconds, _verdict(one)]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _verdict(one: Mapping[str, Any]) -> str:
    if one["error"].startswith("not saved"):
        return f"no ({one['error']})"
    return "yes" if one["green"] else "no"


def _failed(required: Sequence[str], saved: Mapping[str, Any], error: str) -> Finding:
    return Finding(
        captured=list(map(_name, required)), total=0, seconds=saved["seconds"], capture=saved.get("capture"),
        green=False, missing=(), superfluous=(), other=_others(required, saved["installed"]), error=error[-600:],
    )  # fmt: skip


def _same(first: Mapping[str, Any], again: Mapping[str, Any]) -> bool:
    return again["answer"] is not None and _rounded(first["answer"]) == _rounded(again["answer"])


def _rounded(answer: Any) -> Any:
    if isinstance(answer, float):
        return float(f"%.{DIGITS}g" % answer)
    if isinstance(answer, dict):
        return {key: _rounded(value) for key, value in answer.items()}
    return [_rounded(one) for one in answer] if isinstance(answer, list) else answer


def _needless(
    names: Iterable[str], first: Mapping[str, Any], call: Sequence[str], environ: Mapping[str, str], place: str
) -> list[str]:
    """Return which distributions could have been left out: nobody else brings them, and without them it answers too."""
    brought = _brought(place)
    return [
        one
        for one in names
        if one not in brought and (one not in first["imported"] or _same(first, spoken([*call, one], environ)))
    ]


def _brought(place: str) -> set[str]:
    """Return the distributions of an environment that another one in it requires."""
    import importlib.metadata

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    (site,) = Path(place).glob("lib/python*/site-packages")
    found = set()
    for distribution in importlib.metadata.distributions(path=[str(site)]):
        for text in distribution.requires or []:
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                found.add(canonicalize_name(one.name))
    return found


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    return canonicalize_name(Requirement(requirement).name)


def _others(required: Sequence[str], installed: Mapping[str, str]) -> list[str]:
    """Return the requirements that exclude the very version that was installed when the model was saved."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found = []
    for text in required:
        one = Requirement(text)
        version = installed.get(canonicalize_name(one.name))
        if str(one.specifier).startswith("==") and str(one.specifier) != f"=={version}":
            found.append(text)
    return found


def _installed(place: str) -> set[str]:
    """Return the names of the distributions in a virtual environment."""
    from packaging.utils import canonicalize_name

    (site,) = Path(place).glob("lib/python*/site-packages")
    return {canonicalize_name(path.name.partition("-")[0]) for path in site.glob("*.dist-info")}


def done(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Run a command and return what it prints."""
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout


def spoken(command: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Run a command that prints JSON at last; its complaints are shown if it fails."""
    process = subprocess.run(command, env=environ, capture_output=True, text=True)
    if process.returncode:
        print(process.stderr[-3000:], file=sys.stderr)
        process.check_returncode()
    text = process.stdout[process.stdout.index("{") :] if command[0] == MODELPACK else process.stdout.splitlines()[-1]
    found: dict[str, Any] = json.loads(text)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--save"]:
        save(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
