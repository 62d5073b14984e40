"""Spark's types as Arrow has them on the way to and from Spark, and which of them hold all values of another."""

from __future__ import annotations

import inspect
from typing import Any

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

__all__ = ["arrow", "holds"]

_INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
# Whole numbers that each of these floats has.
_FLOATS = {pa.float32(): _INTEGERS[:2], pa.float64(): (*_INTEGERS[:3], pa.float32())}


def arrow(schema: StructType) -> pa.Schema:
    """Return columns in Arrow's types; from 4.2 on Spark asks for the zone."""
    zone: dict[str, Any] = {"timezone": "UTC"} if "timezone" in inspect.signature(to_arrow_schema).parameters else {}
    return to_arrow_schema(schema, **zone)


def holds(wanted: pa.DataType, found: pa.DataType) -> bool:
    """Say whether a type is another one, or has all its values as the same numbers."""
    if wanted in _INTEGERS and found in _INTEGERS:
        return bool(wanted.bit_width >= found.bit_width)
    if pa.types.is_decimal(wanted) and pa.types.is_decimal(found):
        whole = wanted.precision - wanted.scale >= found.precision - found.scale
        return bool(whole and wanted.scale >= found.scale)
    if pa.types.is_nested(wanted) and wanted.id == found.id and wanted.num_fields == found.num_fields:
        return all(_inside(wanted.field(place), found.field(place), wanted) for place in range(wanted.num_fields))
    return bool(wanted == found) or found in _FLOATS.get(wanted, ())


def _inside(wanted: pa.Field, found: pa.Field, whole: pa.DataType) -> bool:
    named = wanted.name == found.name or not pa.types.is_struct(whole)
    return named and (wanted.nullable or not found.nullable) and holds(wanted.type, found.type)
