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
from collections.abc import Sequence
from pathlib import Path

__all__ = ["MARKER", "RUNTIME", "become", "fingerprint", "folder", "hold", "inside", "note", "start"]

MARKER = "modelpack-environment.json"
# The variable that names the directory appended to sys.path behind all that is installed (see layer.py).
RUNTIME = "MODELPACK_RUNTIME_LAYER"


def folder() -> Path:
    """Return the directory environments are kept in: ``MODELPACK_ENVIRONMENTS``, or one in the user's cache."""
    named = os.environ.get("MODELPACK_ENVIRONMENTS")
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "modelpack" / "environments"


def inside() -> bool:
    """Say whether this Python runs in an environment that was made for a package."""
    return Path(sys.prefix, MARKER).is_file()


def fingerprint() -> str:
    """Return a name for the runtime as it is installed: it changes when a distribution is installed or removed."""
    site = [path for path in sys.path if path.endswith("site-packages")]
    stamps = [str(Path(path).stat().st_mtime_ns) for path in site if Path(path).is_dir()]
    return hashlib.sha256("\0".join([sys.version, __file__, *site, *stamps]).encode()).hexdigest()[:16]


def start(package: str | os.PathLike[str], arguments: Sequence[str]) -> None:
    """Become the command in the package's environment if a note says which that is; else return."""
    try:
        raw = Path(package, "modelpack.json").read_bytes()
        found = json.loads(_note(hashlib.sha256(raw).hexdigest()).read_text())
        place, layer = folder() / found["environment"], folder() / found["layer"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if layer.name == f".layer-{fingerprint()}" and layer.is_dir() and hold(place):
        become(place, layer, arguments)


def note(digest: str, place: Path, layer: Path) -> None:
    """Write down which environment and which runtime the package with this digest is run in."""
    target = _note(digest.removeprefix("sha256:"))
    with contextlib.suppress(OSError):
        written = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        written.write_text(json.dumps({"environment": place.name, "layer": layer.name}))
        written.replace(target)


def _note(digest: str) -> Path:
    return folder() / f".package-{digest}.json"


def hold(place: Path) -> bool:
    """Keep an environment from being pruned for as long as this process and what becomes of it live, if it is there."""
    if not (place / MARKER).is_file():
        return False
    file = os.open(place.parent / f".{place.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_SH)
    if not (place / MARKER).is_file():
        os.close(file)
        return False
    os.set_inheritable(file, True)
    os.utime(place / MARKER)
    return True


def become(place: Path, layer: Path, arguments: Sequence[str]) -> None:
    """Become the command ``modelpack`` with these arguments, run by the environment's Python."""
    environment = {**os.environ, RUNTIME: str(layer), "PYTHONSAFEPATH": "1"}
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONHOME", None)
    python = str(place / "bin" / "python")
    os.execve(python, [python, "-P", "-m", "modelpack", *arguments], environment)  # noqa: S606 - no shell
