"""The file formats of batch scoring, and how a name tells which one a file has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Literal, get_args

from modelpack.errors import UsageError

__all__ = ["FILES", "FORMATS", "SUFFIXES", "Format", "Kind", "has_suffix", "of", "parse"]

Format = Literal["csv", "jsonl", "parquet", "arrow", "arrows", "delta"]
FORMATS: tuple[Format, ...] = get_args(Format)

# The first suffix of each format is the one its output files get.
SUFFIXES: Mapping[str, Format] = MappingProxyType(
    {
        ".csv": "csv",
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".parquet": "parquet",
        ".arrow": "arrow",
        ".feather": "arrow",
        ".arrows": "arrows",
    }
)
FILES: tuple[Format, ...] = tuple(dict.fromkeys(SUFFIXES.values()))
_TEXT = frozenset({"csv", "jsonl"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """The format of one file, and whether it is packed with gzip."""

    format: Format
    gzip: bool = False

    @property
    def suffix(self) -> str:
        """The end of the name of a file of this kind."""
        first = next(suffix for suffix, name in SUFFIXES.items() if name == self.format)
        return f"{first}.gz" if self.gzip else first


def parse(name: str) -> Format:
    """Return the format called ``name``.

    Raises:
        UsageError: there is none (``format-unknown``).
    """
    for known in FORMATS:
        if name == known:
            return known
    raise UsageError(f"{name!r} is not a format", code="format-unknown", hint=f"Formats: {', '.join(FORMATS)}.")


def of(path: PurePath, override: Format | None = None) -> Kind | None:
    """Return the kind of the file with this name (None: the name does not tell), ``override`` saying the format."""
    name = path.name.lower()
    packed = name.endswith(".gz")
    found = override or SUFFIXES.get(PurePath(name.removesuffix(".gz") if packed else name).suffix)
    if found is None or (packed and found not in _TEXT):
        return None
    return Kind(format=found, gzip=packed)


def has_suffix(path: PurePath) -> bool:
    """Say whether the name ends as one of the formats does."""
    return of(path) is not None
