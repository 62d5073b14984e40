"""Tables of floats as one matrix: taken at once when they come as the signature has them and nothing is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from modelpack.coerce import arrow, whole
from modelpack.coerce.scalars import EXACT_BITS
from modelpack.coerce.sources import Split
from modelpack.frame import Block, Frame
from modelpack.once import Once
from modelpack.optional import loaded
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


def read(data: Any, table: Table) -> Frame | None:
    """Return the rows, or None where there may be something to say about them."""
    if type(data) is not Split and not _is_arrow(data):
        return None
    plan = _plans(table)
    rows = None if plan is None else _split(data, plan) if type(data) is Split else _arrow(data, plan)
    found = None if plan is None or rows is None else whole.floats(rows, None, plan.dtype)
    if plan is None or found is None:
        return None
    matrix, missing = found
    if missing is not None and (missing.any(axis=0) & plan.strict).any():
        return None
    return Frame(rows=len(matrix), columns=Block(plan.dtype, plan.places, matrix, missing))


def _is_arrow(data: Any) -> bool:
    pyarrow = loaded("pyarrow")
    return pyarrow is not None and isinstance(data, pyarrow.Table | pyarrow.RecordBatch)


def _arrow(data: Any, plan: _Plan) -> Array | None:
    return arrow.matrix(data, plan.dtype) if data.schema.names == plan.names else None


def _split(data: Split, plan: _Plan) -> Array | None:
    """Return rows as one matrix of float64."""
    if not (data.columns is None or (type(data.columns) is list and data.columns == plan.names)):
        return None
    rows, width = data.data, len(plan.names)
    if isinstance(rows, np.ndarray):
        return rows if rows.dtype == np.float64 and rows.ndim == 2 and rows.shape[1] == width else None
    if not set(map(type, rows)) <= {list, tuple} or set(map(len, rows)) != {width}:
        return None
    return whole.numbers(rows, set(map(type, chain.from_iterable(rows))), plan.dtype)
