"""Canonical values written as JSON: what :func:`modelpack.coerce.cells.cell` reads back unchanged."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from modelpack.coerce import times
from modelpack.coerce.cells import is_missing
from modelpack.coerce.faults import Misfit
from modelpack.coerce.scalars import plain_scalar
from modelpack.dtypes import DictionaryType, DurationType, Item, ListType, MapType, StructType, TimestampType

__all__ = ["json_value", "loose"]


def json_value(value: Any, dtype: Item, *, lenient: bool = False) -> Any:
    """Return the JSON form of a canonical value of the type, None for a missing one.

    ``lenient``: write what JSON does not have as :func:`loose` does.

    Raises:
        ValueError: it has none (an infinity, or an object in a column of type ``any``).
    """
    if value is None:
        return None
    if isinstance(dtype, str):
        if lenient and dtype != "binary" and dtype != "date32":
            return loose(value)
        return _ELEMENTS.get(dtype, plain_scalar)(value)
    match dtype:
        case TimestampType():
            return times.timestamp_text(int(value.astype(np.int64)), dtype.unit, dtype.tz)
        case DurationType():
            return times.duration_text(int(value.astype(np.int64)), dtype.unit)
        case DictionaryType():
            return json_value(value, dtype.values, lenient=lenient)
        case ListType():
            return [json_value(part, dtype.items.type, lenient=lenient) for part in value]
        case StructType():
            present = [part for part in dtype.fields if part.name in value]
            return {part.name: json_value(value[part.name], part.type, lenient=lenient) for part in present}
        case MapType():
            return {key: json_value(part, dtype.values.type, lenient=lenient) for key, part in value.items()}
    return format(value, "f")  # a decimal, all its places


def _float(value: Any) -> float | None:
    number = float(value)
    if math.isinf(number):
        raise ValueError("JSON has no infinity")
    return None if number != number else number


def _date(value: Any) -> str:
    return times.date_text(int(value.astype(np.int64)))


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _any(value: Any) -> Any:
    """Return JSON data as it is; refuse what JSON does not have."""
    value = plain_scalar(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("JSON has no infinity and no NaN")
        return value
    if isinstance(value, list | tuple):
        return [_any(part) for part in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _any(part) for key, part in value.items()}
    raise ValueError(f"a value of type {type(value).__name__} has no JSON form")


_ELEMENTS: dict[str, Callable[[Any], Any]] = {
    "float16": _float,
    "float32": _float,
    "float64": _float,
    "binary": _base64,
    "date32": _date,
    "any": _any,
}


def loose(value: Any) -> Any:
    """Return the best JSON for any Python value, for answers: NaN is null, an infinity its name as text.

    An object that has no text but where it is in memory stays what it is: whoever writes JSON refuses it.
    """
    value = plain_scalar(value)
    if is_missing(value, "any", "python"):
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes | bytearray | memoryview):
        return _base64(bytes(value))
    if isinstance(value, Mapping):
        return {str(plain_scalar(key)): loose(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        return [loose(part) for part in value]
    return _loose_object(value)


def _loose_object(value: Any) -> Any:
    if isinstance(value, dt.timedelta | np.timedelta64):
        return _loose_duration(value)
    if isinstance(value, dt.date):  # and datetime
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    for name in ("model_dump", "to_dict", "tolist"):
        convert = getattr(value, name, None)
        if callable(convert):
            return loose(convert())
    text = str(value)
    return value if f"0x{id(value):x}" in text else text


def _loose_duration(value: Any) -> str:
    for unit in ("ns", "s"):
        try:
            return times.duration_text(times.duration_count(value, unit), unit)
        except Misfit:
            continue
    return str(value)
