"""The short way into an environment: by the digest of the manifest alone, with nothing imported that takes time.

What was found out the long way is written down in the user's own cache. A package whose environment needs a grant has
no such note: the trust store is asked each time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "MARKER",
    "RUNTIME",
    "become",
    "digest",
    "facts",
    "fingerprint",
    "folder",
    "hold",
    "hold_layer",
    "inside",
    "note",
    "running_in",
    "start",
    "unsafe",
    "whole",
]

MARKER = "modelpack-environment.json"
# The variable that names the directory appended to sys.path behind all that is installed (see layer.py).
RUNTIME = "MODELPACK_RUNTIME_LAYER"
# The variable that names the package, by its digest, for which an environment was entered.
_ENTERED = "MODELPACK_RUNTIME_PACKAGE"


def folder() -> Path:
    """Return the directory environments are kept in: ``MODELPACK_ENVIRONMENTS``, or one in the user's cache."""
    named = os.environ.get("MODELPACK_ENVIRONMENTS")
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "modelpack" / "environments"


def unsafe(place: Path) -> str | None:
    """Say why nothing in a directory or a file is believed or run; None if nothing speaks against it or it is missing.

    It must belong to this user or to root, as the caches of images do, and nobody else may write to it.
    """
    try:
        states = (place.lstat(), place.stat())
    except OSError:
        return None
    if any(one.st_uid not in (0, os.geteuid()) for one in states):
        return "it belongs to another user"
    return "others can write to it" if states[1].st_mode & 0o022 else None


def inside(digest: str) -> bool:
    """Say whether this Python runs in an environment, and was started in it for the package with this digest."""
    return os.environ.get(_ENTERED) == digest and Path(sys.prefix, MARKER).is_file()


def running_in(place: Path) -> bool:
    """Say whether this Python is the environment's own."""
    return place.is_dir() and Path(sys.prefix).samefile(place)


def digest(package: str | os.PathLike[str]) -> str | None:
    """Return the digest of a package by its manifest alone; None if it has none that can be read."""
    try:
        return f"sha256:{hashlib.sha256(Path(package, 'modelpack.json').read_bytes()).hexdigest()}"
    except OSError:
        return None


def fingerprint() -> str:
    """Return a name for the runtime as it is installed: it changes when a distribution is installed or removed."""
    site = [path for path in sys.path if path.endswith("site-packages")]
    stamps = [str(Path(path).stat().st_mtime_ns) for path in site if Path(path).is_dir()]
    return hashlib.sha256("\0".join([sys.version, __file__, *site, *stamps]).encode()).hexdigest()[:16]


def start(package: str | os.PathLike[str], arguments: Sequence[str]) -> None:
    """Become the command in the package's environment if a note says which that is; else return."""
    known = digest(package)
    try:
        found = _noted(known or "")
        place, layer = folder() / found["environment"], folder() / found["layer"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if place.parent != folder() or unsafe(folder()) or unsafe(layer):
        return
    if known and layer.name == f".layer-{fingerprint()}" and hold_layer(layer) and hold(place):
        become(place, layer, known, arguments)


def note(package: str, place: Path, layer: Path) -> None:
    """Write down which environment and which runtime the package with this digest is run in."""
    target = _note(package)
    with contextlib.suppress(OSError):
        written = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        with open(written, "x", opener=lambda path, flags: os.open(path, flags, 0o644)) as stream:
            json.dump({"environment": place.name, "layer": layer.name}, stream)
        written.replace(target)


def _noted(package: str) -> dict[str, str]:
    note = _note(package)
    if reason := unsafe(note):
        raise ValueError(reason)
    found: dict[str, str] = json.loads(note.read_text())
    return found


def _note(package: str) -> Path:
    return folder() / f".package-{package.removeprefix('sha256:')}.json"


def facts(place: Path) -> dict[str, Any] | None:
    """Return what is written down of an environment that was built to its end; None if that cannot be read."""
    try:
        found = json.loads((place / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and isinstance(found.get("package"), str) and isinstance(found.get("pins"), list)
    return found if known else None


def whole(place: Path) -> bool:
    """Say whether an environment is there: built to its end, nobody else's, and its Python is still installed."""
    return facts(place) is not None and not unsafe(place) and (place / "bin" / "python").exists()


def hold(place: Path) -> bool:
    """Keep an environment from being pruned for as long as this process and what becomes of it live, if it is there.

    One that this user cannot write to, nobody prunes as this user; it is run in all the same.
    """
    return _held(place.parent / f".{place.name}.lock", place / MARKER, lambda: whole(place))


def hold_layer(layer: Path) -> bool:
    """Keep a runtime from being pruned, in the same way."""
    return _held(layer, layer, layer.is_dir)


def _held(lock: Path, used: Path, there: Callable[[], bool]) -> bool:
    while there():
        file = _opened(lock, os.O_RDONLY) if lock == used else _opened(lock, os.O_RDWR | os.O_CREAT, os.O_RDONLY)
        if file is None:
            break
        fcntl.flock(file, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            # Who prunes removes the lock with what it locks; then somebody may have made both anew.
            if os.path.samestat(os.fstat(file), lock.stat()) and there():
                os.set_inheritable(file, True)
                break
        os.close(file)
    else:
        return False
    with contextlib.suppress(OSError):
        os.utime(used)
    return True


def _opened(lock: Path, *ways: int) -> int | None:
    for how in ways:
        with contextlib.suppress(OSError):
            return os.open(lock, how, 0o600)
    return None


def become(place: Path, layer: Path, package: str, arguments: Sequence[str]) -> None:
    """Become the command ``modelpack`` with these arguments, run by the environment's Python for this digest."""
    environment = {**os.environ, RUNTIME: str(layer), _ENTERED: package, "PYTHONSAFEPATH": "1"}
    # What starts further programs finds those of this environment, not of one that was active before.
    environment |= {"VIRTUAL_ENV": str(place), "PATH": os.pathsep.join([str(place / "bin"), *os.get_exec_path()])}
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV_PROMPT"):
        environment.pop(name, None)
    python = str(place / "bin" / "python")
    os.execve(python, [python, "-P", "-m", "modelpack", *arguments], environment)  # noqa: S606 - no shell
