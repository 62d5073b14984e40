"""Lock files: `pylock.toml` (PEP 751) and, without hashes, plain requirements; read strictly, written without hosts."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

from modelpack import addresses
from modelpack.environments.wanted import Pin, pin
from modelpack.errors import EnvironmentMismatch

__all__ = ["WHEELS", "Artifact", "Locked", "artifacts", "read", "read_requirements", "write", "write_requirements"]

# Where vendored wheels lie, beside the lock.
WHEELS = "wheels"
MAX_BYTES = 16 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One file of a distribution: its name, digest, and public address if it has one."""

    name: str
    sha256: str
    size: int | None = None
    url: str | None = None

    @property
    def wheel(self) -> bool:
        return self.name.endswith(".whl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """One package of a lock, and the versions of Python that it is for, if it says so."""

    pin: Pin
    files: tuple[Artifact, ...]
    python: str | None = None


def artifacts(raw: bytes, path: str) -> tuple[str | None, list[Locked]]:
    """Return the Python that a lock needs and its packages; addresses and paths in it are not followed by anybody.

    Raises:
        EnvironmentMismatch: it is no lock that we can use (``lock-invalid``), or ``requirement-refused``.
    """
    if len(raw) > MAX_BYTES:
        raise _invalid(path, "it is too large")
    try:
        document = tomllib.loads(raw.decode())
        if not str(document.get("lock-version", "")).startswith("1."):
            raise _invalid(path, "its lock-version is not 1.x")
        needs = _python(document, path)
        found = [_package(one, f"{path}: packages[{i}]") for i, one in enumerate(document.get("packages", []))]
    except (ValueError, TypeError, AttributeError, KeyError) as exc:
        raise _invalid(path, type(exc).__name__) from exc
    return needs, found


def read(raw: bytes, path: str) -> list[Pin]:
    """Return the pins of a lock; each has a hash.

    Raises:
        EnvironmentMismatch: as for :func:`artifacts`; a package without a file that has a hash (``lock-invalid``).
    """
    pins = []
    for i, one in enumerate(artifacts(raw, path)[1]):
        if not one.files:
            raise _invalid(f"{path}: packages[{i}]", "it has no file with a sha256")
        wheels = [file for file in one.files if file.wheel]
        hashes = tuple(sorted({file.sha256 for file in wheels or one.files}))
        pins.append(replace(one.pin, hashes=hashes, builds=not wheels))
    return pins


def _package(one: Mapping[str, Any], path: str) -> Locked:
    if any(kind in one for kind in ("vcs", "directory", "archive")):
        raise _invalid(path, "it is not from an index")
    listed = [*one.get("wheels", []), *([one["sdist"]] if "sdist" in one else [])]
    files = tuple(file for entry in listed if (file := _file(entry, path)) is not None)
    known = pin(one["name"], one["version"], path, marker=one.get("marker"))
    return Locked(pin=known, files=files, python=_python(one, path))


def _python(table: Mapping[str, Any], path: str) -> str | None:
    found = table.get("requires-python")
    if found is not None and not isinstance(found, str):
        raise _invalid(path, "its requires-python is no text")
    return found


def _file(entry: Mapping[str, Any], path: str) -> Artifact | None:
    digest = entry.get("hashes", {}).get("sha256")
    if digest is None:
        return None
    place = entry.get("name") or entry.get("url") or entry.get("path") or ""
    name = unquote(urlsplit(place).path.rpartition("/")[2])
    try:
        parse_wheel_filename(name) if name.endswith(".whl") else parse_sdist_filename(name)
    except (InvalidWheelFilename, InvalidSdistFilename):
        raise _invalid(path, "a file's name is not that of a wheel or a source distribution") from None
    if not _SHA256.fullmatch(digest):
        raise _invalid(path, "a sha256 is not 64 hex digits")
    size = entry.get("size")
    url = public(entry.get("url"))
    return Artifact(name=name, sha256=digest, size=size if isinstance(size, int) else None, url=url)


def public(url: object) -> str | None:
    """Return an address that others can use too, without a password, a query or a fragment; None for any other."""
    if not isinstance(url, str):
        return None
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" or not addresses.public(host):
        return None
    port = f":{parts.port}" if parts.port else ""
    return f"https://{host}{port}{parts.path}"


def write(packages: Iterable[Locked], *, python: str | None) -> bytes:
    """Return a lock as bytes, the same for the same packages. A file without a public address is named by its place
    beside the lock, where `modelpack env vendor` puts it.
    """
    lines = ['lock-version = "1.0"', 'created-by = "modelpack"']
    lines += [f"requires-python = {_text(python)}"] if python else []
    ordered = sorted(packages, key=lambda one: (one.pin.name, one.pin.version, one.pin.marker or ""))
    # The key is there although there is nothing to install.
    lines += [] if ordered else ["packages = []"]
    for one in ordered:
        lines += ["", "[[packages]]", f"name = {_text(one.pin.name)}", f"version = {_text(one.pin.version)}"]
        lines += [f"marker = {_text(one.pin.marker)}"] if one.pin.marker else []
        lines += _files(one.files)
    return ("\n".join(lines) + "\n").encode()


def _files(files: Iterable[Artifact]) -> Iterator[str]:
    ordered = sorted(files, key=lambda file: file.name)
    for file in (file for file in ordered if not file.wheel):
        yield f"sdist = {_entry(file)}"
    wheels = [file for file in ordered if file.wheel]
    if wheels:
        yield "wheels = ["
        yield from (f"  {_entry(file)}," for file in wheels)
        yield "]"


def _entry(file: Artifact) -> str:
    place = f"url = {_text(file.url)}" if file.url else f"path = {_text(f'{WHEELS}/{file.name}')}"
    size = f", size = {file.size}" if file.size is not None else ""
    return f"{{ name = {_text(file.name)}, {place}{size}, hashes = {{ sha256 = {_text(file.sha256)} }} }}"


def _text(value: str) -> str:
    # A JSON string is a TOML basic string.
    return json.dumps(value, ensure_ascii=False)


_HEAD = "# A partial lock: versions without hashes.\n"


def write_requirements(pins: Iterable[Pin]) -> bytes:
    """Return a partial lock as bytes: one pin a line."""
    lines = [replace(one, hashes=()).line() for one in sorted(pins, key=lambda one: one.name)]
    return (_HEAD + "".join(f"{line}\n" for line in lines)).encode()


def read_requirements(raw: bytes, path: str) -> list[Pin]:
    """Return the pins of a partial lock.

    Raises:
        EnvironmentMismatch: a line is no ``name==version`` with a marker at most (``requirement-refused``).
    """
    pins = []
    for i, line in enumerate(raw.decode(errors="replace").splitlines()):
        if line.strip() and not line.startswith("#"):
            head, _, marker = line.partition(" ; ")
            name, _, version = head.partition("==")
            pins.append(pin(name, version, f"{path}: line {i + 1}", marker=marker or None))
    return pins


def _invalid(path: str, why: str) -> EnvironmentMismatch:
    return EnvironmentMismatch(
        f"the lock cannot be used: {why}", code="lock-invalid", path=path, hint="Lock it anew: modelpack env lock."
    )
