"""What is kept in the cache: listed, and removed when nobody has used it for a while. What is not ours stays."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modelpack.environments import places, quick, uv
from modelpack.environments.quick import MARKER, folder

__all__ = ["listed", "prune"]

_KEY = re.compile(r"[0-9a-f]{32}")
# What is beside environments: staging directories and locks, by the environment; layers; notes about packages.
_STAGING = re.compile(r"\.([0-9a-f]{32})\.[0-9a-f]{8}")
_LOCK = re.compile(r"\.([0-9a-f]{32})\.lock")
_LAYER = re.compile(r"\.layer-[0-9a-f]{16}")
_NOTE = re.compile(r"\.package-[0-9a-f]{64}\.json")
# Layers and notes that somebody began to write.
_BEGUN = re.compile(rf"({_LAYER.pattern}|{_NOTE.pattern})\.[0-9a-f]{{8}}")
_DAY = 86400


def listed() -> list[dict[str, Any]]:
    """Return what the cache holds: path, facts, and when it was last used."""
    found = []
    for place in _environments():
        with contextlib.suppress(FileNotFoundError):
            used = (place / MARKER).stat().st_mtime
            facts = quick.facts(place) or {"package": "damaged, built anew when it is needed", "pins": []}
            found.append({**facts, "path": str(place), "used": used})
    return found


def prune(*, days: float = 0) -> list[str]:
    """Remove the environments that were not used for so many days and that nobody runs in; return their paths.

    What is left beside them of no use goes too: half of what killed processes built, locks, runtimes and notes.

    Raises:
        EnvironmentMismatch: others can write there (``cache-unsafe``), or this user cannot (``cache-unwritable``).
    """
    removed = []
    places.cache(make=False)
    for place in _environments():
        with contextlib.suppress(BlockingIOError), uv.room(), places.locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB):
            marker = place / MARKER
            if not marker.is_file() or _unused(marker, days):
                # Without the marker, it is whole for nobody, however far this gets.
                marker.unlink(missing_ok=True)
                shutil.rmtree(place, ignore_errors=True)
                removed += [] if place.exists() else [str(place)]
    for pattern, remove in _REMOVED.items():
        for path in _named(pattern):
            with contextlib.suppress(OSError):
                remove(path, days)
    return removed


def _named(pattern: re.Pattern[str]) -> Iterator[Path]:
    """Yield what bears a name of ours, and is what it says: no link to something else."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from sorted(one for one in folder().iterdir() if pattern.fullmatch(one.name) and not one.is_symlink())


def _environments() -> list[Path]:
    """Return what is ours by its name, and by a file of ours in it or beside it."""
    found = [place for place in _named(_KEY) if place.is_dir()]
    return [one for one in found if (one / MARKER).is_file() or (one.parent / f".{one.name}.lock").is_file()]


def _unused(path: Path, days: float) -> bool:
    return time.time() - path.stat().st_mtime >= days * _DAY


def _of(pattern: re.Pattern[str], path: Path) -> Path:
    match = pattern.fullmatch(path.name)
    assert match is not None
    return path.with_name(match[1])


def _remove_staging(path: Path, _: float) -> None:
    places.sweep(_of(_STAGING, path))


def _remove_lock(path: Path, _: float) -> None:
    place = _of(_LOCK, path)
    if not place.exists():
        with places.locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if not place.exists():
                path.unlink()


def _remove_layer(path: Path, days: float) -> None:
    """Remove a runtime, which is a directory of links, unless somebody runs with it."""
    if not _unused(path, days) or any(not one.is_symlink() for one in path.iterdir()):
        return
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        path.rename(gone)
        shutil.rmtree(gone)
    finally:
        os.close(file)


def _remove_note(path: Path, _: float) -> None:
    try:
        found = json.loads(path.read_text())
        of_use = (path.parent / found["environment"]).is_dir() and (path.parent / found["layer"]).is_dir()
    except (ValueError, KeyError, TypeError):
        of_use = False
    if not of_use:
        path.unlink()


def _remove_begun(path: Path, days: float) -> None:
    if not _unused(path, max(days, 1)):
        return
    if path.is_file():
        path.unlink()
    elif all(one.is_symlink() for one in path.iterdir()):
        shutil.rmtree(path)


# In this order: a lock goes after what it locks, a note after what it names.
_REMOVED: dict[re.Pattern[str], Callable[[Path, float], None]] = {
    _STAGING: _remove_staging,
    _LOCK: _remove_lock,
    _LAYER: _remove_layer,
    _BEGUN: _remove_begun,
    _NOTE: _remove_note,
}
