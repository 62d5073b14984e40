"""The environment that an MLflow directory asks for, out of the documents that MLflow and its users write into it.

What is no plain requirement (an option for an installer, an address, a path, a distribution that only conda has) is
kept as text that is none, so that it is seen, and refused before anything is given to an installer; see
:mod:`modelpack.environments.wanted`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from modelpack.errors import PackageError
from modelpack.known import KNOWN
from modelpack.manifest import Environment, Python
from modelpack_flavors._mlflow import mlmodel

__all__ = ["NAMES", "read"]

NAMES = frozenset({"conda.yaml", "python_env.yaml", "requirements.txt", "constraints.txt", "uv.lock"})
MAX_BYTES = 1024 * 1024
LONGEST = 256
# What conda installs to install the rest; environments here are made without them.
_TOOLS = frozenset({"python", "pip"})
# Names that conda has for distributions of the index; others that are known are called the same.
_CONDA = {"pytorch": "torch", "py-xgboost": "xgboost"}
_SPEC = re.compile(r"([A-Za-z0-9._-]+)(.*)")
# What conda takes without an operator: a version, or how it begins; and the build that may follow it.
_BARE = re.compile(r"[0-9][A-Za-z0-9._!+]*\*?|\*")
_BUILD = re.compile(r"[A-Za-z0-9_.*]+")


def read(root: Path, paths: tuple[str, ...], versions: Mapping[str, str], python: str | None) -> Environment:
    """Return the environment. ``versions`` and ``python`` are those that MLmodel tells, which are critical.

    Raises:
        PackageError: a document is not what its name says, or too large (``mlmodel-invalid``).
    """
    texts = {name: _text(root, name) for name in NAMES.intersection(paths) - {"uv.lock"}}
    conda = mlmodel.parse(texts["conda.yaml"].encode(), "conda.yaml") if "conda.yaml" in texts else {}
    venv = mlmodel.parse(texts["python_env.yaml"].encode(), "python_env.yaml") if "python_env.yaml" in texts else {}
    lines = list(_lines(texts.get("requirements.txt", "")))
    lines += [one for one in _strings(venv.get("dependencies"), "python_env.yaml") if one != "-r requirements.txt"]
    if "requirements.txt" not in texts:
        lines += _nested(conda.get("dependencies"))
    specs = _strings(conda.get("dependencies"), "conda.yaml")
    lines += [found for one in specs if (found := _from_conda(one)) is not None]
    wanted, pinned = _resolve(lines, texts.get("constraints.txt"))
    named = {canonicalize_name(name) for name in versions}
    return Environment(
        python=Python(captured=python or _python(venv, specs)),
        dependencies=tuple(dict.fromkeys(wanted)),
        critical=tuple(sorted(versions)),
        captured={**versions, **{name: version for name, version in pinned.items() if name not in named}},
    )


def _text(root: Path, name: str) -> str:
    raw = (root / name).read_bytes()
    if len(raw) > MAX_BYTES:
        raise PackageError(f"the file is larger than {MAX_BYTES} bytes", code="mlmodel-invalid", path=name)
    return raw.decode("utf-8", errors="replace")


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file as pip reads them: continued ones joined, without comments."""
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        found = re.sub(r"(^|\s)#.*$", "", line).strip()
        if found:
            yield found


def _strings(value: Any, path: str) -> list[str]:
    """Return the texts of a list; the nested lists of conda.yaml are looked at elsewhere."""
    if value is not None and not isinstance(value, list):
        raise PackageError("the dependencies are no list", code="mlmodel-invalid", path=path)
    return [one.strip() for one in value or () if isinstance(one, str) and one.strip()]


def _nested(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield from _strings(one.get("pip"), "conda.yaml")


def _resolve(lines: list[str], constraints: str | None) -> tuple[list[str], dict[str, str]]:
    """Return the dependencies, and the versions that are fixed by them and by a file of constraints."""
    wanted: list[str] = []
    pinned: dict[str, str] = {}
    for line in lines:
        if line == "-c constraints.txt" and constraints is not None:
            for one in _lines(constraints):
                name, version = _pin(one)
                # A constraint that is no pin can be said neither as a requirement nor as a version.
                wanted += [] if version else [_kept(f"-c constraints.txt: {one}")]
                pinned |= {name: version} if version else {}
            continue
        wanted.append(_kept(line))
        name, version = _pin(line)
        pinned |= {name: version} if version else {}
    return wanted, pinned


def _pin(line: str) -> tuple[str, str]:
    """Return the name and the one version that a requirement allows; empty texts if it is no such one."""
    try:
        found = Requirement(line)
    except InvalidRequirement:
        return "", ""
    (only, *more) = found.specifier or (None,)
    if found.url or found.marker or only is None or more or only.operator != "==" or only.version.endswith(".*"):
        return "", ""
    return canonicalize_name(found.name), only.version


def _kept(line: str) -> str:
    # Cut so that it stays what it is: none.
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _from_conda(spec: str) -> str | None:
    """Return what a distribution that conda installs is called on an index; None for conda's own tools."""
    name, versions = _conda(spec)
    name = _CONDA.get(name, name)
    if name in _TOOLS and versions is not None:
        return None
    # Anybody can have registered what is not known elsewhere.
    return f"conda::{spec}" if versions is None or name not in KNOWN else f"{name}{versions}"


def _conda(spec: str) -> tuple[str, str | None]:
    """Return the name in a spec of conda's, and its versions in the words of PEP 440; None if they have none."""
    match = _SPEC.fullmatch(spec.rpartition("::")[2].strip())
    if match is None:
        return "", None
    rest = re.sub(r"\s*([=<>!~,|]+)\s*", r"\1", match[2].strip())
    versions, *builds = rest.split() or [""]
    if builds and not (len(builds) == 1 and _BARE.fullmatch(versions.lstrip("=")) and _BUILD.fullmatch(builds[0])):
        return canonicalize_name(match[1]), None
    written = ",".join(filter(None, map(_clause, versions.split(","))))
    try:
        # A name that goes on where the versions should begin would be another distribution's.
        SpecifierSet(written)
    except InvalidSpecifier:
        return canonicalize_name(match[1]), None
    return canonicalize_name(match[1]), written


def _clause(text: str) -> str:
    """Return one condition on a version as PEP 440 has it; what has no such form as it is."""
    number = text.lstrip("=").partition("=")[0]
    if number == "*" or not _BARE.fullmatch(number):
        return "" if number == "*" else text
    if number.endswith("*"):
        return f"=={number.rstrip('.*')}.*"
    # In conda `=1.2` means 1.2 and all that begins so; MLflow writes whole versions in this way.
    begins = text[:1] == "=" and text[:2] != "==" and number.count(".") < 2
    return f"=={number}.*" if begins else f"=={number}"


def _python(venv: Mapping[str, Any], specs: list[str]) -> str | None:
    """Return the Python that the documents name: the version, or the newest series where they set an end to them."""
    found = venv.get("python")
    if isinstance(found, str) and found:
        return found
    for name, versions in map(_conda, specs):
        if name == "python" and versions:
            exact = re.fullmatch(r"==([0-9]+\.[0-9]+(\.[0-9]+)?)(\.\*)?", versions)
            return exact[1] if exact else _newest(SpecifierSet(versions))
    return None


def _newest(versions: SpecifierSet) -> str | None:
    """Return the newest minor version of Python 3 among these; None if they go on without end."""
    fitting = [minor for minor in range(100) if any(versions.contains(f"3.{minor}.{micro}") for micro in range(40))]
    return f"3.{fitting[-1]}" if fitting and fitting[-1] < 99 else None
