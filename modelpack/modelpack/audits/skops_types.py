"""The reviewed types of skops files: what may be built, and by which kind of node (``skops_types.txt``).

The list is ours: it is read from the installed modelpack and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

__all__ = ["Listed", "listed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """The list: for each kind of node the names it may carry, and which of these are native.

    A native type keeps state that compiled code trusts; a flavor must have a validator for it.
    """

    version: int
    names: Mapping[str, frozenset[str]]
    native: frozenset[str]

    def holds(self, loader: str, name: str) -> bool:
        """Say whether a node of this kind may build this name."""
        return name in self.names.get(loader, ())


@cache
def listed() -> Listed:
    """Return the list, read once."""
    names: dict[str, set[str]] = {}
    native: set[str] = set()
    version, loader, marks = 0, "", ""
    for raw in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("version "):
            version = int(line.removeprefix("version "))
        elif line.startswith("["):
            loader, _, marks = line.strip("[]").partition(" ")
        elif line:
            names.setdefault(loader, set()).add(line)
            if marks == "native":
                native.add(line)
    frozen = {key: frozenset(value) for key, value in names.items()}
    return Listed(version=version, names=MappingProxyType(frozen), native=frozenset(native))
