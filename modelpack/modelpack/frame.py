"""The form in which values are held between the wire and the model: numpy columns or tensors, checked.

A :class:`Frame` is what coercion makes and what flavors and encoders take. Nothing in it is ever lossy: each column
has the one physical form its type has.

=====================  ====================================================================
type                   physical form of ``Vector.data``
=====================  ====================================================================
bool, ints, floats     numpy array of that dtype
utf8, binary           object array of str, bytes
date32                 ``datetime64[D]``
timestamp              ``datetime64[unit]``; with a zone the instant in UTC
duration               ``timedelta64[unit]``
decimal                object array of ``decimal.Decimal`` with exactly ``scale`` places
list, struct, map      object array of list, dict, dict, their items canonical Python values
dictionary             the physical form of its value type
any                    object array of whatever was sent
=====================  ====================================================================

A missing value is marked in ``Vector.missing``; ``data`` then holds a filler there: NaN for floats (a missing float
and NaN are one thing: every NaN is marked), NaT for times, None for objects, 0 or False for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack.dtypes import Item

__all__ = ["Block", "Frame", "Vector"]


@dataclass(kw_only=True, slots=True)
class Vector:
    """One column: its type, its values in physical form, and which of them are missing (None: none).

    Never changed once it is made; not frozen, because that would be most of what making one costs.
    """

    type: Item
    data: np.ndarray[Any, Any]
    missing: np.ndarray[Any, Any] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def slice(self, start: int, stop: int) -> Vector:
        """Return rows ``start`` to ``stop``, sharing memory."""
        missing = None if self.missing is None else self.missing[start:stop]
        return Vector(type=self.type, data=self.data[start:stop], missing=missing)

    def take(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> Vector:
        """Return the rows with these numbers, copied."""
        index = np.asarray(rows, dtype=np.intp)
        missing = None if self.missing is None else self.missing[index]
        return Vector(type=self.type, data=self.data[index], missing=missing)


class Block(Mapping[str, Vector]):
    """Columns of one float type as the rows of one matrix; a vector is made of a column when it is asked for.

    ``index`` is the place of each column, in order, and is shared by all frames of a model. ``missing`` marks the
    values that are missing (None: none), which are NaN in the matrix.
    """

    __slots__ = ("index", "matrix", "missing", "type")

    def __init__(
        self,
        dtype: Item,
        index: Mapping[str, int],
        matrix: np.ndarray[Any, Any],
        missing: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self.type = dtype
        self.index = index
        self.matrix = matrix
        self.missing = missing

    def __getitem__(self, name: str) -> Vector:
        """Return a column, sharing memory."""
        place = self.index[name]
        missing = None if self.missing is None else self.missing[:, place]
        if missing is not None and not missing.any():
            missing = None
        return Vector(type=self.type, data=self.matrix[:, place], missing=missing)

    def __contains__(self, name: object) -> bool:
        return name in self.index

    def __iter__(self) -> Iterator[str]:
        return iter(self.index)

    def __len__(self) -> int:
        return len(self.index)

    def pick(self, rows: Any) -> Block:
        """Return some of the rows: shared for a slice, copied for an array of numbers."""
        missing = None if self.missing is None else self.missing[rows]
        return Block(self.type, self.index, self.matrix[rows], missing)


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Coerced data: either ``columns`` of one length, or ``tensors``; never both.

    ``rows`` is the number of rows (the tensors' first dimension; 1 for a tensor without dimensions).
    """

    rows: int
    columns: Mapping[str, Vector] | None = None
    tensors: Mapping[str, np.ndarray[Any, Any]] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns if self.columns is not None else self.tensors or {})

    def __len__(self) -> int:
        return self.rows

    def slice(self, start: int, stop: int) -> Frame:
        """Return rows ``start`` to ``stop``, sharing memory."""
        if self.columns is not None:
            return Frame(rows=min(stop, self.rows) - start, columns=_sliced(self.columns, start, stop))
        tensors = {name: array[start:stop] for name, array in (self.tensors or {}).items()}
        return Frame(rows=min(stop, self.rows) - start, tensors=tensors)

    def take(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> Frame:
        """Return the rows with these numbers, copied."""
        index = np.asarray(rows, dtype=np.intp)
        if isinstance(self.columns, Block):
            return Frame(rows=len(index), columns=self.columns.pick(index))
        if self.columns is not None:
            columns = {name: vector.take(index) for name, vector in self.columns.items()}
            return Frame(rows=len(index), columns=columns)
        return Frame(rows=len(index), tensors={k: array[index] for k, array in (self.tensors or {}).items()})


def _sliced(columns: Mapping[str, Vector], start: int, stop: int) -> Mapping[str, Vector]:
    if isinstance(columns, Block):
        return columns.pick(slice(start, stop))
    return {name: vector.slice(start, stop) for name, vector in columns.items()}
