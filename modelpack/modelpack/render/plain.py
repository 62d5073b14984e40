"""Predictions as plain JSON data, in the shapes that MLflow's clients expect."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from modelpack.coerce import times
from modelpack.coerce.calls import JSON
from modelpack.coerce.written import json_value, loose
from modelpack.dtypes import DurationType, Item, TimestampType
from modelpack.frame import Frame, Vector

__all__ = ["plain"]

Array = np.ndarray[Any, Any]


def plain(frame: Frame) -> Any:
    """Return the frame as JSON data: a tensor as nested lists, several by name, a table as records.

    NaN and missing values are null. An infinity, which JSON does not have, is the text ``Infinity`` or
    ``-Infinity``: a client that expects a number stumbles over it, where null would pass for a missing value. Bytes
    are base64, times RFC 3339 (a zone as UTC), durations ISO 8601, decimals text with all their places.
    """
    if frame.columns is None:
        tensors = {name: _tensor(array) for name, array in (frame.tensors or {}).items()}
        return next(iter(tensors.values())) if len(tensors) == 1 else tensors
    vectors = frame.columns
    if len(vectors) == 1 and (whole := next(iter(vectors.values()))).type == JSON:
        return loose(whole.data[0])
    names = list(vectors)
    parts = [_column(vector) for vector in vectors.values()]
    return [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)]


def _tensor(array: Array) -> Any:
    kind = array.dtype.kind
    if kind == "O":
        return loose(array.tolist() if array.ndim else array[()])
    if kind == "f" and not np.isfinite(array).all():
        flat = [_number(value) for value in array.reshape(-1).tolist()]
        return np.fromiter(flat, object, len(flat)).reshape(array.shape).tolist()
    return array.tolist()


def _number(value: float) -> float | str | None:
    if value != value:
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _column(vector: Vector) -> list[Any]:
    values = _values(vector)
    if vector.missing is not None:
        for row in np.flatnonzero(vector.missing).tolist():
            values[row] = None
    return values


def _values(vector: Vector) -> list[Any]:
    kind = vector.data.dtype.kind
    if kind in "mM":
        write = _times(vector.type)
        return [write(count) for count in vector.data.astype(np.int64).tolist()]
    if kind == "f" and not np.isfinite(vector.data).all():
        return [_number(value) for value in vector.data.tolist()]
    if kind == "O" and vector.type != "utf8":
        return [json_value(value, vector.type, lenient=True) for value in vector.data.tolist()]
    values: list[Any] = vector.data.tolist()
    return values


def _times(dtype: Item) -> Callable[[int], str]:
    match dtype:
        case TimestampType():
            return lambda count: times.timestamp_text(count, dtype.unit, dtype.tz)
        case DurationType():
            return lambda count: times.duration_text(count, dtype.unit)
    return times.date_text
