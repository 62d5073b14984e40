"""Values of Arrow columns as text and as JSON: what CSV cells and JSON members of kept columns hold.

Times are RFC 3339, durations ISO 8601, binary base64, decimals plain digits; the same as in an HTTP reply.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelpack.coerce import times
from modelpack_server.codecs.json_body import Number

__all__ = ["JSON", "dump", "plain", "texts"]

# Metadata of a field whose text is JSON, so that JSON Lines can hold the value itself.
JSON = {b"modelpack": b"json"}


def dump(value: Any) -> bytes:
    """Return a value as one line of JSON, exactly: integers of any size, NaN as null, infinity as its name in text."""
    try:
        text = orjson.dumps(value, default=_default)
        # orjson makes null of an infinity too, which would mean that it is missing.
        return orjson.dumps(_spelled(value), default=_default) if b"null" in text and _has_infinity(value) else text
    except TypeError:
        # Integers beyond 64 bits and lone surrogates, which only the standard library writes.
        return json.dumps(_spelled(value), default=_default, separators=(",", ":")).encode()


def _has_infinity(value: Any) -> bool:
    """Say whether there is an infinite number in a value."""
    kind = type(value)
    if kind is float:
        return math.isinf(value)
    if kind is dict:
        return any(map(_has_infinity, value.values()))
    return kind is list and any(map(_has_infinity, value))


def _spelled(value: Any) -> Any:
    """Return the value with what JSON cannot say about floats written as HTTP replies write it."""
    if isinstance(value, Number):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return value


def _default(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Number):
        return orjson.Fragment(str(value))
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dt.timedelta):
        return times.duration_text((value.days * 86400 + value.seconds) * 10**6 + value.microseconds, "us")
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    return str(value)


def plain(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values as what :func:`dump` writes; missing values are None."""
    kind = column.type
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or _is_binary(kind):
        values: list[Any] = texts(column).to_pylist()
    else:
        values = column.to_pylist()
    return values


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column's values as text; missing values, NaN among them, stay missing."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return texts(column.cast(kind.value_type))
    if pa.types.is_floating(kind):
        wide = column.cast(pa.float32()) if kind == pa.float16() else column
        return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.string()), wide.cast(pa.string()))
    if pa.types.is_timestamp(kind):
        return _timestamps(column)
    if pa.types.is_nested(kind):
        return _each(column.to_pylist(), lambda value: dump(value).decode())
    if pa.types.is_duration(kind):
        counts = column.cast(pa.int64()).to_pylist()
        return _each(counts, lambda count: times.duration_text(count, kind.unit))
    if _is_binary(kind) or pa.types.is_decimal(kind):
        return _each(column.to_pylist(), _default)
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        # Types that Arrow cannot write itself, such as intervals.
        return _each(column.to_pylist(), str)


def _timestamps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cut what Arrow writes, ``2020-01-01 01:02:03.000000``, to the shortest RFC 3339 text."""
    zone = column.type.tz
    if zone is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC")).cast(pa.timestamp(column.type.unit))
    text = pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
    text = pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1")
    text = pc.replace_substring_regex(text, r"\.$", "")
    return text if zone is None else pc.binary_join_element_wise(text, "Z", "")


def _each(values: list[Any], convert: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([None if v is None else convert(v) for v in values], pa.string())])


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))
