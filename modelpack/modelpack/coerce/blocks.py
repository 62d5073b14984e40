"""Tables of floats as one matrix: taken at once when they come as the signature has them and nothing is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from modelpack.coerce import whole
from modelpack.coerce.scalars import EXACT_BITS
from modelpack.coerce.sources import Split
from modelpack.frame import Block, Frame
from modelpack.once import Once
from modelpack.signature import Table

__all__ = ["read"]

Array = np.ndarray[Any, Any]


class _Plan(NamedTuple):
    """What a table of one float type wants."""

    dtype: str
    names: list[str]
    places: Mapping[str, int]
    strict: Array  # which columns take no nulls


def _plan(table: Table) -> _Plan | None:
    kinds = {column.type for column in table.columns if isinstance(column.type, str)}
    if len(kinds) != 1 or not all(isinstance(column.type, str) for column in table.columns):
        return None
    (dtype,) = kinds
    if dtype not in EXACT_BITS:
        return None
    names = [column.name for column in table.columns]
    strict = np.array([not column.nullable for column in table.columns])
    return _Plan(dtype, names, {name: place for place, name in enumerate(names)}, strict)


_plans = Once(_plan)


def read(data: Split, table: Table) -> Frame | None:
    """Return the rows, or None where there may be something to say about them."""
    plan = _plans(table)
    if plan is None or not (data.columns is None or (type(data.columns) is list and data.columns == plan.names)):
        return None
    rows = _rows(data.data, len(plan.names), plan.dtype)
    found = None if rows is None else whole.floats(rows, None, plan.dtype)
    if found is None:
        return None
    matrix, missing = found
    if missing is not None and (missing.any(axis=0) & plan.strict).any():
        return None
    return Frame(rows=len(matrix), columns=Block(plan.dtype, plan.places, matrix, missing))


def _rows(rows: Sequence[Sequence[Any]] | Array, width: int, dtype: str) -> Array | None:
    """Return rows as one matrix of float64."""
    if isinstance(rows, np.ndarray):
        return rows if rows.dtype == np.float64 and rows.ndim == 2 and rows.shape[1] == width else None
    if not set(map(type, rows)) <= {list, tuple} or set(map(len, rows)) != {width}:
        return None
    return whole.numbers(rows, set(map(type, chain.from_iterable(rows))), dtype)
