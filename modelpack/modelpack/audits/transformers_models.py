"""The models of transformers that may be built, and the keys of their configurations (``transformers_models.txt``).

The list is ours: it is read from the installed modelpack and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

__all__ = ["Family", "Listed", "listed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One ``model_type``: the class of its configuration, and those of its models."""

    config: str
    models: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """The list: families by ``model_type``, and the names that plain values of a configuration may have."""

    families: Mapping[str, Family]
    keys: frozenset[str]


@cache
def listed() -> Listed:
    """Return the list, read once."""
    found: dict[tuple[str, ...], list[str]] = {}
    section: list[str] = []
    for raw in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("["):
            section = found.setdefault(tuple(line.strip("[]").split()), [])
        elif line:
            section.append(line)
    keys = frozenset(found.pop(("keys",)))
    families = {head[1]: Family(config=head[2], models=tuple(models)) for head, models in found.items()}
    return Listed(families=MappingProxyType(families), keys=keys)
