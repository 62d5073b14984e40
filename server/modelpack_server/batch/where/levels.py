"""Numbers of a column that nothing gives a type, by where they stand among the numbers they are compared with.

A comparison is exact, whatever other rows there are: floats tell most of it, and of those that are the float of what
they are compared with, the numbers themselves tell the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["Levels"]

_Exact = int | Decimal
_Floats = np.ndarray[Any, Any]
# Of the rows with these numbers, the values that there are, and for each row which one it has.
_Tell = Callable[[_Floats], tuple[Sequence[_Exact], _Floats]]


class Levels:
    """The numbers that a column is compared with; what is between two of them is all the same."""

    def __init__(self, values: Iterable[Any]) -> None:
        self._values: list[Any] = sorted(set(values))
        self._floats = np.array([_float(value) for value in self._values])

    def place(self, value: Any) -> float:
        """Return where one of these numbers stands: what :meth:`texts` and :meth:`cells` give for the same one."""
        return 2.0 * bisect_left(self._values, value) + 1

    def texts(self, texts: pa.Array) -> pa.Array:
        """Return where the numbers written in texts stand; NaN stays NaN, and missing what is missing.

        Raises:
            ArrowException: a text is no number.
        """

        def tell(rows: _Floats) -> tuple[list[Decimal], _Floats]:
            found = texts.take(pa.array(rows)).dictionary_encode()
            return [_decimal(text) for text in found.dictionary.to_pylist()], found.indices.to_numpy()

        floats = texts.cast(pa.float64())
        missing = floats.is_null().to_numpy(zero_copy_only=False)
        return self._standing(floats.fill_null(np.nan).to_numpy(), missing, tell)

    def cells(self, cells: Sequence[Any]) -> pa.Array:
        """Return where numbers of JSON stand; None is missing."""

        def tell(rows: _Floats) -> tuple[list[_Exact], _Floats]:
            found = [cells[row] for row in rows]
            exact = [Decimal(repr(cell)) if isinstance(cell, float) else cell for cell in found]
            return exact, np.arange(len(exact))

        missing = np.array([cell is None for cell in cells], bool)
        floats = np.array([np.nan if cell is None else _float(cell) for cell in cells], np.float64)
        return self._standing(floats, missing, tell)

    def _standing(self, floats: _Floats, missing: _Floats, tell: _Tell) -> pa.Array:
        first, last = (np.searchsorted(self._floats, floats, side) for side in ("left", "right"))
        found = 2.0 * first
        found[np.isnan(floats)] = np.nan
        rows = np.flatnonzero(first < last)
        if len(rows):
            values, which = tell(rows)
            found[rows] = np.array([self._of(value) for value in values])[which]
        return pa.array(found, pa.float64(), mask=missing)

    def _of(self, value: _Exact) -> float:
        below = bisect_left(self._values, value)
        return 2.0 * below + (below < len(self._values) and self._values[below] == value)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # An exponent of more digits than a decimal has.
        return Decimal(float(text))
