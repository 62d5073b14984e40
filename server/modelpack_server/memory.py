"""How much memory there is for us: of the machine, and by the limits of the cgroup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from modelpack_server.cores import groups, text

__all__ = ["usable_memory"]

# What is taken for the memory of a machine that does not say.
UNKNOWN = 4 * 2**30


def usable_memory(root: Path = Path("/")) -> int:
    """Return how many bytes of memory this process and those beside it may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else UNKNOWN
    return min(machine, *_limits(root))


def _limits(root: Path) -> Iterator[int]:
    """Yield the limits of the cgroup that this process is in and of those around it; without any, one too large."""
    yield 2**63
    for unified, group in groups(root, "memory"):
        said = text(group / ("memory.max" if unified else "memory.limit_in_bytes")).strip()
        if said.isdigit() and int(said) > 0:
            yield int(said)
