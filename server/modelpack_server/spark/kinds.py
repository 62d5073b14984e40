"""Spark's types as Arrow has them on the way to and from Spark."""

from __future__ import annotations

import inspect
from typing import Any

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

__all__ = ["arrow"]


def arrow(schema: StructType) -> pa.Schema:
    """Return columns in Arrow's types; from 4.2 on Spark asks for the zone."""
    zone: dict[str, Any] = {"timezone": "UTC"} if "timezone" in inspect.signature(to_arrow_schema).parameters else {}
    return to_arrow_schema(schema, **zone)
