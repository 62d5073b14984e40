"""One column against one type: the vectorised ways that are provably lossless, else value by value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelpack.coerce import whole
from modelpack.coerce.cells import cell, is_missing
from modelpack.coerce.faults import Misfit
from modelpack.coerce.lanes import Lane, lane
from modelpack.coerce.scalars import Wire
from modelpack.dtypes import DictionaryType, DurationType, Item, TimestampType, describe
from modelpack.frame import Vector

__all__ = ["Report", "objects", "physical", "slow", "vector"]

# report(row, code, message, path below the cell)
Report = Callable[[int, str, str, str], None]


def objects(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return an object array of the values, without looking into lists."""
    return np.fromiter(values, dtype=object, count=len(values))


def physical(dtype: Item) -> tuple[np.dtype[Any], Any]:
    """Return the numpy dtype that holds a column of the type, and the filler for a missing value."""
    match dtype:
        case DictionaryType():
            return physical(dtype.values)
        case TimestampType():
            return np.dtype(f"M8[{dtype.unit}]"), np.datetime64("NaT", dtype.unit)
        case DurationType():
            return np.dtype(f"m8[{dtype.unit}]"), np.timedelta64("NaT", dtype.unit)
        case "date32":
            return np.dtype("M8[D]"), np.datetime64("NaT", "D")
        case "float16" | "float32" | "float64":
            return np.dtype(dtype), np.nan
        case "bool":
            return np.dtype(bool), False
        case str() if dtype not in ("utf8", "binary", "any"):
            return np.dtype(dtype), 0
    return np.dtype(object), None


def vector(raw: Any, dtype: Item, nullable: bool, wire: Wire, report: Report) -> Vector:
    """Return the column coerced; every value that does not fit is reported and replaced by the filler."""
    source = lane(raw)
    if wire == "text" and dtype == "utf8" and not nullable and not isinstance(source.data, np.ndarray):
        # An empty CSV cell of a text column that has no nulls can only be the empty text.
        source = Lane(["" if value is None else value for value in source.data])
    out = whole.typed(source, dtype, wire)
    if out is None:
        out = slow(source, dtype, wire, report)
    if out.missing is not None and not nullable:
        for row in np.flatnonzero(out.missing).tolist():
            report(row, "null-not-allowed", f"a missing value where {describe(dtype)} is expected", "")
    return out


def slow(source: Lane, dtype: Item, wire: Wire, report: Report) -> Vector:
    """Coerce value by value, reporting each misfit."""
    physical_dtype, filler = physical(dtype)
    values: list[Any] = []
    unset: list[int] = []
    for row, value in enumerate(source.objects()):
        out = filler
        try:
            if is_missing(value, dtype, wire):
                unset.append(row)
            else:
                out = cell(value, dtype, wire)
        except Misfit as misfit:
            report(row, misfit.code, misfit.message, misfit.path)
        values.append(out)
    data = objects(values) if physical_dtype.kind == "O" else np.array(values, dtype=physical_dtype)
    if not unset:
        return Vector(type=dtype, data=data)
    missing = np.zeros(len(values), dtype=bool)
    missing[unset] = True
    return Vector(type=dtype, data=data, missing=missing)
