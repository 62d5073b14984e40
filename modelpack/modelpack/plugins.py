"""What installed distributions offer under a group of entry points; nothing of it is imported.

All distributions are asked once, and again when a directory on ``sys.path`` has changed, as installing changes it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
from importlib.metadata import EntryPoint

__all__ = ["offered"]


def offered(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group, as the standard library finds them."""
    return _offered(group, _places(), tuple(map(id, sys.meta_path)))


@functools.lru_cache(maxsize=8)
def _offered(group: str, places: object, finders: object) -> tuple[EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=group))


def _places() -> tuple[tuple[str, int], ...]:
    return tuple((path, _changed(path or ".")) for path in sys.path)


def _changed(path: str) -> int:
    """Return when what lies in a directory changed last (-1: there is none)."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1
