"""Columns as numpy arrays and as Python values."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any

import numpy as np

from modelpack.coerce.columns import objects
from modelpack.dtypes import DurationType, Item, ListType, MapType, StructType, TimestampType
from modelpack.frame import Block, Frame, Vector
from modelpack.render.inside import Converter, each, every, fields

__all__ = ["array", "columns", "matrix", "python_values", "records"]

Array = np.ndarray[Any, Any]


def array(vector: Vector) -> Array:
    """Return a column as one array in which missing values show: NaN, NaT, or None among objects."""
    if vector.missing is None or vector.data.dtype.kind in "fmMO":
        return vector.data
    out = vector.data.astype(object)
    out[vector.missing] = None
    return out


def columns(frame: Frame) -> dict[str, Array]:
    """Return arrays by name."""
    if frame.columns is None:
        return dict(frame.tensors or {})
    return {name: array(vector) for name, vector in frame.columns.items()}


def matrix(frame: Frame) -> Array:
    """Return a table as one array of rows: numbers of their common type if it holds them all, else objects."""
    if isinstance(frame.columns, Block):
        found = frame.columns.matrix
        return found if found.flags.writeable else np.array(found, order="C")
    vectors = list((frame.columns or {}).values())
    kinds = {vector.data.dtype.kind for vector in vectors}
    if vectors and kinds <= set("iuf"):
        return _numbers(vectors)
    if kinds == {"b"} and all(vector.missing is None for vector in vectors):
        return np.column_stack([vector.data for vector in vectors])
    return _objects(frame, [array(vector) for vector in vectors])


def _objects(frame: Frame, arrays: list[Array]) -> Array:
    out: Array = np.empty((frame.rows, len(arrays)), dtype=object)
    for place, part in enumerate(arrays):
        out[:, place] = objects(part.tolist() if part.dtype.kind not in "mM" else list(part))
    return out


def _numbers(vectors: list[Vector]) -> Array:
    common = np.result_type(*(vector.data.dtype for vector in vectors))
    if common.kind != "f" and any(vector.missing is not None for vector in vectors):
        common = np.dtype(np.float64)
    out: Array = np.empty((len(vectors[0]), len(vectors)), dtype=common)
    for place, vector in enumerate(vectors):
        out[:, place] = vector.data
        if vector.data.dtype.kind != "f" and common.kind == "f":
            # An integer that the common float type would round: then objects keep it.
            back = out[:, place].astype(object) == vector.data.astype(object)
            if not back.all():
                return _objects(Frame(rows=len(vector), columns={}), [array(part) for part in vectors])
            if vector.missing is not None:
                out[vector.missing, place] = np.nan
    return out


def python_values(vector: Vector) -> list[Any]:
    """Return Python's own values, None where missing.

    Times become date, datetime and timedelta where their unit fits (datetimes in the column's zone); nanoseconds
    stay numpy scalars, because Python's types would cut them.
    """
    values = list(vector.data) if vector.data.dtype.kind in "mM" else vector.data.tolist()
    convert = _converter(vector.type)
    if convert is not None:
        values = [value if value is None else convert(value) for value in values]
    if vector.missing is not None:
        for row in np.flatnonzero(vector.missing).tolist():
            values[row] = None
    return values


def _converter(dtype: Item) -> Converter | None:
    """Return what makes Python's own value of a canonical one; None where it is that already."""
    match dtype:
        case "date32":
            return _date
        case TimestampType(unit="s" | "ms" | "us"):
            return lambda value: _datetime(value, dtype.tz)
        case DurationType(unit="s" | "ms" | "us"):
            return _timedelta
        case ListType():
            return each(_converter(dtype.items.type))
        case MapType():
            return every(_converter(dtype.values.type))
        case StructType():
            return fields({part.name: _converter(part.type) for part in dtype.fields})
    return None


def _date(value: np.datetime64) -> Any:
    # Beyond the years of Python's date, item() gives a bare number.
    out = value.item()
    return out if isinstance(out, dt.date) else value


def _datetime(value: np.datetime64, tz: str | None) -> Any:
    out = value.item()
    if not isinstance(out, dt.datetime):
        return value
    if tz is None:
        return out
    try:
        return out.replace(tzinfo=dt.UTC).astimezone(dt.UTC if tz == "UTC" else zoneinfo.ZoneInfo(tz))
    except (zoneinfo.ZoneInfoNotFoundError, OverflowError, ValueError):
        return out.replace(tzinfo=dt.UTC)


def _timedelta(value: np.timedelta64) -> Any:
    out = value.item()
    return out if isinstance(out, dt.timedelta) else value


def records(frame: Frame) -> list[dict[str, Any]]:
    """Return rows as dicts of Python values; of a tensor, a row is its slice along the first dimension."""
    if frame.columns is None:
        tensors = frame.tensors or {}
        return [
            {name: part[row] if part.ndim else part[()] for name, part in tensors.items()} for row in range(frame.rows)
        ]
    names = list(frame.columns)
    parts = [python_values(vector) for vector in frame.columns.values()]
    return [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)] if names else [{}] * frame.rows
