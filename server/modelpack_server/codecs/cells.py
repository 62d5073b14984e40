"""Values of Arrow columns as text and as JSON: what CSV cells and JSON members of kept columns hold.

Times are RFC 3339, durations ISO 8601, binary base64, decimals plain digits; the same as in an HTTP reply. Of extension
types UUIDs are their text and bool8 is true or false, all others are what they are stored as.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from modelpack import render
from modelpack.coerce import arrow, times
from modelpack_server.codecs.json_body import Number

__all__ = ["JSON", "dump", "plain", "texts"]

# Metadata of a field whose text is JSON, so that JSON Lines can hold the value itself.
JSON = {b"modelpack": b"json"}
# Days from 1970 to the first one of the year 0 and of the year 10000.
_FIRST_DAY, _PAST_DAY = -719_528, 2_932_897


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
    """Return a column's values as what :func:`dump` writes; missing values are None.

    A map whose keys are text is an object, any other the list of its pairs, as is one with a key twice.
    """
    return [value for chunk in column.chunks for value in _values(chunk)]


def _values(array: pa.Array) -> list[Any]:
    kind = array.type
    if (plainer := _plainer(array)) is not None:
        return _values(plainer)
    if pa.types.is_union(kind):
        return _united(array, _values)
    if pa.types.is_struct(kind):
        return _structs(array)
    if pa.types.is_map(kind):
        text = _is_text(kind.key_type)
        return [None if pairs is None else _map(pairs, text) for pairs in arrow.nested(array, _values)]
    if pa.types.is_nested(kind):
        return arrow.nested(array, _values)
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or _is_binary(kind):
        array = texts(pa.chunked_array([array]))
    # As coercion has it: what is no UTF-8 in a text are surrogates, which are written as escapes.
    return arrow.objects(array)


def _plainer(array: pa.Array) -> pa.Array | None:
    """Return the values of an array that only says how they are kept, or what they are, as an array of another type."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _meant(array.storage, kind.extension_name)
    if pa.types.is_dictionary(kind):
        return array.dictionary_decode()
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_decode(array)
    return None


def _meant(storage: pa.Array, name: str) -> pa.Array:
    if name == "arrow.uuid" and storage.type == pa.binary(16):
        texts = [None if value is None else str(uuid.UUID(bytes=value)) for value in storage.to_pylist()]
        return pa.array(texts, pa.string())
    if name == "arrow.bool8" and storage.type == pa.int8():
        return pc.not_equal(storage, pa.scalar(0, pa.int8()))
    return storage


def _united(array: pa.UnionArray, read: Callable[[pa.Array], list[Any]]) -> list[Any]:
    """Return the values of a union: ``read`` gives those of the arrays it is made of."""
    kind, buffers, here = array.type, array.buffers(), slice(array.offset, array.offset + len(array))
    if not len(array):
        return []
    parts = {code: read(array.field(place)) for place, code in enumerate(kind.type_codes)}
    # Not type_codes and offsets of the array, which begin where the memory does, not where a slice does.
    codes = np.frombuffer(buffers[1], np.int8)[here].tolist()
    dense = kind.mode == "dense"
    places = np.frombuffer(buffers[2], np.int32)[here].tolist() if dense else range(len(array))
    return [parts[code][place] for code, place in zip(codes, places, strict=True)]


def _structs(array: pa.StructArray) -> list[Any]:
    values: list[Any] = arrow.nested(array, _values)
    fields = [array.type.field(place) for place in range(array.type.num_fields)]
    optional = {field.name for field in fields if field.metadata == render.OPTIONAL}
    if not optional:
        return values
    return [
        None if value is None else {k: part for k, part in value.items() if part is not None or k not in optional}
        for value in values
    ]


def _map(pairs: list[tuple[Any, Any]], text: bool) -> Any:
    members = dict(pairs) if text else {}
    return members if len(members) == len(pairs) else [list(pair) for pair in pairs]


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column's values as text; missing values, NaN among them, stay missing."""
    kind = column.type
    if not column.num_chunks:
        return pa.chunked_array([], pa.string())
    plainer = [_plainer(chunk) for chunk in column.chunks]
    if plainer[0] is not None:
        return texts(pa.chunked_array(plainer))
    if pa.types.is_union(kind):
        found = [value for chunk in column.chunks for value in _united(chunk, _listed)]
        return pa.chunked_array([pa.array(found, pa.string())])
    if pa.types.is_interval(kind):
        return _each(column.to_pylist(), lambda value: times.interval_text(*value))
    if pa.types.is_floating(kind):
        wide = column.cast(pa.float32()) if kind == pa.float16() else column
        return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.string()), wide.cast(pa.string()))
    if pa.types.is_timestamp(kind):
        return _timestamps(column)
    if pa.types.is_date(kind):
        return _dates(column)
    if pa.types.is_nested(kind):
        return _each(plain(column), lambda value: dump(value).decode())
    if pa.types.is_duration(kind):
        counts = column.cast(pa.int64()).to_pylist()
        return _each(counts, lambda count: times.duration_text(count, kind.unit))
    if _is_binary(kind) or pa.types.is_decimal(kind):
        return _each(column.to_pylist(), _default)
    return column.cast(pa.string())


def _listed(array: pa.Array) -> list[Any]:
    found: list[Any] = texts(pa.chunked_array([array])).to_pylist()
    return found


def _timestamps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cut what Arrow writes, ``2020-01-01 01:02:03.000000``, to the shortest RFC 3339 text."""
    unit, zone = column.type.unit, column.type.tz
    counts = column.cast(pa.int64())
    if not _in_four_digits(counts, 86400 * times.PER_SECOND[unit]):
        return _each(counts.to_pylist(), lambda count: times.timestamp_text(count, unit, zone))
    text = pc.replace_substring(counts.cast(pa.timestamp(unit)).cast(pa.string()), " ", "T", max_replacements=1)
    text = pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1")
    text = pc.replace_substring_regex(text, r"\.$", "")
    return text if zone is None else pc.binary_join_element_wise(text, "Z", "")


def _dates(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.type == pa.date32():
        counts, day = column.cast(pa.int32()), 1
    else:
        counts, day = column.cast(pa.int64()), 86_400_000
    if _in_four_digits(counts, day):
        return column.cast(pa.string())
    return _each(counts.to_pylist(), lambda count: times.date_text(count // day))


def _in_four_digits(counts: pa.ChunkedArray, day: int) -> bool:
    """Say whether the years of all counts have four digits: others Arrow writes in a way of its own, or not at all."""
    ends = pc.min_max(counts)
    first, last = ends["min"].as_py(), ends["max"].as_py()
    return first is None or (first >= _FIRST_DAY * day and last < _PAST_DAY * day)


def _each(values: list[Any], convert: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([None if v is None else convert(v) for v in values], pa.string())])


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    tests = types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
