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
    StructType,
    TimestampType,
)
from modelpack.frame import Frame, Vector
from modelpack.optional import require

__all__ = ["arrow_type", "to_arrow"]


def _pyarrow() -> Any:
    return require("pyarrow", what="Arrow data")


def arrow_type(dtype: Item) -> Any:
    """Return the Arrow type of an element or composite type; ``any`` is JSON text."""
    pa = _pyarrow()
    match dtype:
        case "any" | "json":
            return pa.string()
        case str():
            return pa.type_for_alias({"utf8": "string", "date32": "date32"}.get(dtype, dtype))
        case TimestampType():
            return pa.timestamp(dtype.unit, dtype.tz)
        case DurationType():
            return pa.duration(dtype.unit)
        case DecimalType():
            make = pa.decimal128 if dtype.precision <= 38 else pa.decimal256
            return make(dtype.precision, dtype.scale)
        case ListType():
            items = pa.field("item", arrow_type(dtype.items.type), dtype.items.nullable)
            return pa.list_(items) if dtype.length is None else pa.list_(items, dtype.length)
        case StructType():
            return pa.struct([pa.field(f.name, arrow_type(f.type), f.nullable or f.optional) for f in dtype.fields])
        case MapType():
            return pa.map_(pa.string(), pa.field("value", arrow_type(dtype.values.type), dtype.values.nullable))
        case DictionaryType():
            return pa.dictionary(pa.int32(), arrow_type(dtype.values), dtype.ordered)


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
    if dtype in ("any", "json"):
        texts = [None if value is None else json.dumps(loose(value), ensure_ascii=False) for value in vector.data]
        return pa.array(texts, pa.string())
    if isinstance(dtype, DictionaryType):
        return _dictionary(vector, dtype, pa)
    kind = arrow_type(dtype)
    if vector.data.dtype.kind in "mM":
        counts = vector.data.astype(np.int64)
        if dtype == "date32":
            return pa.array(counts.astype(np.int32), pa.int32(), mask=vector.missing).view(kind)
        return pa.array(counts, pa.int64(), mask=vector.missing).view(kind)
    if vector.data.dtype.kind == "O":
        return pa.array(_for_arrow(vector.data.tolist(), dtype), kind)
    return pa.array(vector.data, kind, mask=vector.missing)


def _for_arrow(values: list[Any], dtype: Item) -> list[Any]:
    """Put ``any`` inside composite values into JSON text."""
    convert = _any_inside(dtype)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _any_inside(dtype: Item) -> Any:
    match dtype:
        case "any":
            return lambda value: json.dumps(loose(value), ensure_ascii=False)
        case ListType():
            inner = _any_inside(dtype.items.type)
            return inner and (lambda value: [v if v is None else inner(v) for v in value])
        case MapType():
            inner = _any_inside(dtype.values.type)
            return inner and (lambda value: {k: v if v is None else inner(v) for k, v in value.items()})
        case StructType():
            parts = {part.name: convert for part in dtype.fields if (convert := _any_inside(part.type))}
            if parts:
                return lambda value: {k: parts[k](v) if k in parts and v is not None else v for k, v in value.items()}
    return None


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
