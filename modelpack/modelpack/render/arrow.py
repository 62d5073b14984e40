"""Frames as Arrow tables, with the exact types of the signature."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from modelpack.coerce.written import loose
from modelpack.dtypes import (
    DecimalType,
    DictionaryType,
    DurationType,
    Item,
    ListType,
    MapType,
    StructField,
    StructType,
    TimestampType,
)
from modelpack.errors import OutputError
from modelpack.frame import Frame, Vector
from modelpack.optional import require
from modelpack.render.inside import Converter, each, every, fields

__all__ = ["OPTIONAL", "arrow_type", "to_arrow"]

# Metadata of a field of a struct in which null says that there is no such field.
OPTIONAL = {b"modelpack": b"optional"}


def _pyarrow() -> Any:
    return require("pyarrow", what="Arrow data")


def arrow_type(dtype: Item, *, counts: bool = False) -> Any:
    """Return the Arrow type of an element or composite type; ``any`` is JSON text.

    ``counts``: with integers in the place of dates, timestamps and durations, as which they are built.
    """
    pa = _pyarrow()
    match dtype:
        case "any" | "json":
            return pa.string()
        case "date32":
            return pa.int32() if counts else pa.date32()
        case str():
            return pa.type_for_alias("string" if dtype == "utf8" else dtype)
        case TimestampType():
            return pa.int64() if counts else pa.timestamp(dtype.unit, dtype.tz)
        case DurationType():
            return pa.int64() if counts else pa.duration(dtype.unit)
        case DecimalType():
            make = pa.decimal128 if dtype.precision <= 38 else pa.decimal256
            return make(dtype.precision, dtype.scale)
        case ListType():
            items = pa.field("item", arrow_type(dtype.items.type, counts=counts), dtype.items.nullable)
            return pa.list_(items) if dtype.length is None else pa.list_(items, dtype.length)
        case StructType():
            return pa.struct([_field(part, arrow_type(part.type, counts=counts), pa) for part in dtype.fields])
        case MapType():
            values = pa.field("value", arrow_type(dtype.values.type, counts=counts), dtype.values.nullable)
            return pa.map_(pa.string(), values)
        case DictionaryType():
            return pa.dictionary(pa.int32(), arrow_type(dtype.values), dtype.ordered)


def _field(part: StructField, kind: Any, pa: Any) -> Any:
    absent = part.optional and not part.nullable
    return pa.field(part.name, kind, part.nullable or part.optional, metadata=OPTIONAL if absent else None)


def to_arrow(frame: Frame) -> Any:
    """Return the frame as a table.

    Columns have the Arrow type of their type, nullable if a value is missing. A tensor of one dimension is a column,
    of more a column of fixed-size lists. Values of type ``any``, which Arrow does not have, are JSON text.
    """
    pa = _pyarrow()
    if frame.columns is None:
        arrays = {name: _tensor(part, pa) for name, part in (frame.tensors or {}).items()}
        return pa.table(list(arrays.values()), names=list(arrays))
    parts = [_array(vector, pa) for vector in frame.columns.values()]
    if not parts:
        return pa.table({})
    return pa.table(parts, names=list(frame.columns))


def _array(vector: Vector, pa: Any) -> Any:
    dtype = vector.type
    if isinstance(dtype, DictionaryType):
        return _dictionary(vector, dtype, pa)
    kind = arrow_type(dtype)
    if vector.data.dtype.kind in "mM":
        width = "i4" if dtype == "date32" else "i8"
        counts = vector.data.astype(np.int64).astype(width)
        return pa.array(counts, mask=vector.missing).view(kind)
    if vector.data.dtype.kind != "O":
        return pa.array(vector.data, kind, mask=vector.missing)
    convert = _converter(dtype)
    values = vector.data.tolist()
    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    built = pa.array(values, arrow_type(dtype, counts=True))
    return built if built.type == kind else built.cast(kind)


def _converter(dtype: Item) -> Converter | None:
    """Return what makes the value Arrow builds of a canonical one; None where it is that already."""
    match dtype:
        case "any" | "json":
            return _json_text
        case "date32" | TimestampType() | DurationType():
            return _count
        case ListType():
            return each(_converter(dtype.items.type))
        case MapType():
            return every(_converter(dtype.values.type))
        case StructType():
            return fields({part.name: _converter(part.type) for part in dtype.fields})
    return None


def _json_text(value: Any) -> str:
    try:
        return json.dumps(loose(value), ensure_ascii=False)
    except TypeError as exc:
        raise OutputError("the answer holds something JSON cannot say", code="output-not-json") from exc


def _count(value: np.datetime64 | np.timedelta64) -> int:
    return int(value.astype(np.int64))


def _dictionary(vector: Vector, dtype: DictionaryType, pa: Any) -> Any:
    values = pa.array(vector.data.tolist(), arrow_type(dtype.values), mask=vector.missing)
    if dtype.categories is None:
        encoded = values.dictionary_encode()
        return pa.DictionaryArray.from_arrays(encoded.indices, encoded.dictionary, ordered=dtype.ordered)
    categories = pa.array(list(dtype.categories), arrow_type(dtype.values))
    places = {value: place for place, value in enumerate(categories.to_pylist())}
    codes = pa.array([None if value is None else places[value] for value in values.to_pylist()], pa.int32())
    return pa.DictionaryArray.from_arrays(codes, categories, ordered=dtype.ordered)


def _tensor(array: np.ndarray[Any, Any], pa: Any) -> Any:
    if array.ndim == 0:
        array = array.reshape(1)
    flat = np.ascontiguousarray(array).reshape(-1)
    out = pa.array(flat.tolist() if flat.dtype == np.dtype(object) else flat)
    for size in reversed(array.shape[1:]):
        out = pa.FixedSizeListArray.from_arrays(out, size)
    return out
