"""What distributions are installed here, and what they offer; nothing of it is imported.

It is looked up once, and again when a directory on ``sys.path`` has changed, as installing changes it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

__all__ = ["offered", "version"]


def offered(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group, as the standard library finds them."""
    return _offered(group, _state())


def version(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    return _version(name, _state())


@functools.lru_cache(maxsize=8)
def _offered(group: str, state: object) -> tuple[EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=group))


@functools.lru_cache(maxsize=1024)
def _version(name: str, state: object) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _state() -> object:
    return *((path, _changed(path)) for path in sys.path), *map(id, sys.meta_path)


def _changed(path: str) -> int:
    """Return when what lies in a directory changed last (-1: there is none)."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return -1
