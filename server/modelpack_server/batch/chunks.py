"""What readers give and writers take: some rows of one file, whatever its format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from modelpack_server.batch.inputs import Source
from modelpack_server.codecs import cells

if TYPE_CHECKING:
    from modelpack_server.batch.sifting import Sieve

__all__ = ["Broken", "Chunk", "Wanted", "Wire"]

Wire = Literal["python", "json", "text"]
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The columns to read: those of the signature (``inputs``), and those to write beside the answers (``keep``).

    None stands for all of them. ``whole``: numbers in JSON must be read so that a fraction too small for a float is not
    lost, because they are written again, get into a column of integers or are compared with what a filter says.
    ``sieve``: which rows count (None: all).
    """

    inputs: Sequence[str] | None
    keep: Sequence[str] | None
    whole: bool = True
    sieve: Sieve | None = None

    def pick(self, names: Iterable[str]) -> list[str]:
        """Return those of a file's columns that are needed, in the file's order."""
        if self.inputs is None or self.keep is None:
            return list(names)
        needed = {*self.inputs, *self.keep, *(self.sieve.columns if self.sieve else ())}
        return [name for name in names if name in needed]

    @property
    def used(self) -> list[str] | None:
        """The columns that are needed once it is known which rows count; None for all."""
        return None if self.inputs is None or self.keep is None else [*self.inputs, *self.keep]

    def kept(self, names: Iterable[str]) -> list[str]:
        """Return those of a file's columns that are written beside the answers."""
        return list(names) if self.keep is None else [name for name in self.keep if name in set(names)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A row that could not even be taken apart: too few cells, not JSON."""

    row: int
    line: int | None
    code: str
    message: str
    record: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Rows of one file.

    ``data`` is a table (of text cells where ``wire`` is "text"), or a list of decoded JSON values. ``numbers`` are
    the 1-based numbers of its rows in the file, broken ones counted; ``lines`` the lines they start at, for formats
    that have lines and know them. ``position`` is how many bytes of the file are behind us.
    """

    source: Source
    wire: Wire
    data: pa.Table | list[Any]
    numbers: np.ndarray[Any, Any]
    lines: np.ndarray[Any, Any] | None = None
    broken: Sequence[Broken] = field(default=())
    position: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def before(self, number: int) -> Chunk:
        """Return the rows before the one with this number in the file."""
        count = int(np.searchsorted(self.numbers, number))
        return replace(
            self,
            data=self.data[:count],
            numbers=self.numbers[:count],
            lines=None if self.lines is None else self.lines[:count],
            broken=[broken for broken in self.broken if broken.row < number],
        )

    def record(self, row: int) -> Any:
        """Return the row with this 0-based number as it was read, in JSON."""
        if isinstance(self.data, list):
            return self.data[row]
        cut = self.data.slice(row, 1)
        return {name: cells.plain(column)[0] for name, column in zip(cut.column_names, cut.columns, strict=True)}
