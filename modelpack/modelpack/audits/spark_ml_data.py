"""The tables of a Spark ML model: parquet files of bounded size, whose schema names no classes but Spark's vectors."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modelpack import optional
from modelpack.audits.parquet_bounds import weigh
from modelpack.audits.skops_archive import malformed
from modelpack.errors import PackageError

__all__ = ["Array", "Row", "matrix", "rows", "table", "vector"]

Row = dict[str, Any]
Array = np.ndarray[Any, Any]

# A file may grow to so many times its size, or to the floor, and never beyond the most.
MAX_EXPANSION = 64
FLOOR = 2**28
MAX_BYTES = 2**32
MAX_CELLS = 2**28
_SCHEMA = b"org.apache.spark.sql.parquet.row.metadata"
_KNOWN = {_SCHEMA, b"org.apache.spark.version"}
_UDTS = {f"{home}.ml.linalg.{kind}UDT" for home in ("org.apache.spark", "pyspark") for kind in ("Vector", "Matrix")}


def table(files: Sequence[bytes], entry: str) -> Any:
    """Return the rows of the part files as one Arrow table.

    Raises:
        PackageError: they are not parquet files as Spark writes them (``payload-invalid``).
    """
    pa = optional.require("pyarrow", what="Reading a Spark ML model")
    pq = optional.require("pyarrow.parquet", what="Reading a Spark ML model")
    tables = []
    try:
        readers = [pq.ParquetFile(io.BytesIO(raw)) for raw in files]
        for reader in readers:
            _check_schema(reader.metadata.metadata or {}, entry)
        _check_size(files, [reader.schema_arrow.names for reader in readers], entry)
        tables = [reader.read() for reader in readers]
        return pa.concat_tables([one.replace_schema_metadata(None) for one in tables])
    except (pa.ArrowException, OSError, ValueError, OverflowError) as exc:
        message = f"a Spark ML model whose data cannot be read: {type(exc).__name__}"
        raise PackageError(message, code="payload-invalid", path=entry) from exc


def _check_size(files: Sequence[bytes], names: Sequence[Sequence[str]], entry: str) -> None:
    """Refuse what a few bytes can claim to be, before any of it is decoded."""
    limit = min(max(FLOOR, MAX_EXPANSION * sum(map(len, files))), MAX_BYTES)
    if sum(weigh(memoryview(raw), set(kept)).plain for raw, kept in zip(files, names, strict=True)) > limit:
        malformed("a Spark ML model with more data than is read", entry)


def _check_schema(metadata: dict[bytes, bytes], entry: str) -> None:
    """Refuse a schema that names a class: Spark builds the classes that are named there."""
    strange = sorted(set(metadata) - _KNOWN)
    if strange:
        malformed("a Spark ML model with a parquet file that says more than Spark does", entry)
    try:
        schema = json.loads(metadata.get(_SCHEMA, b"{}"))
        named = {str(value) for key, value in _pairs(schema) if key.casefold().endswith("class")}
    except (ValueError, RecursionError):
        malformed("a Spark ML model with a parquet file whose schema cannot be read", entry)
    if not named <= _UDTS:
        malformed("a Spark ML model with a parquet file whose schema names a class", entry)


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _pairs(inner)


def rows(files: Sequence[bytes], entry: str) -> tuple[Row, ...]:
    """Return the rows of the part files as Python values, every vector and matrix in them checked."""
    found = tuple(table(files, entry).to_pylist())
    for row in found:
        for value in row.values():
            _checked(value, entry)
    return found


def _checked(value: Any, entry: str) -> None:
    if isinstance(value, dict) and "isTransposed" in value:
        matrix(value, entry)
    elif isinstance(value, dict) and {"type", "size", "indices", "values"} <= set(value):
        vector(value, entry)
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _checked(inner, entry)


def vector(value: Any, entry: str) -> Array:
    """Return a vector as Spark keeps it, dense or sparse, as an array."""
    try:
        values = np.array(value["values"], dtype=np.float64)
        return values if value["type"] == 1 else _sparse_vector(value, values)
    except (KeyError, TypeError, ValueError, OverflowError, IndexError):
        return malformed("a Spark ML model with a vector that contradicts itself", entry)


def _sparse_vector(value: Any, values: Array) -> Array:
    indices = np.array(value["indices"], dtype=np.int64)
    size = int(value["size"])
    if value["type"] != 0 or indices.shape != values.shape or size > MAX_CELLS or (indices < 0).any():
        raise ValueError(size)
    whole = np.zeros(size)
    whole[indices] = values
    return whole


def matrix(value: Any, entry: str) -> Array:
    """Return a matrix as Spark keeps it, dense or sparse, by column or by row, as an array."""
    try:
        count, width = int(value["numRows"]), int(value["numCols"])
        values = np.array(value["values"], dtype=np.float64)
        shape = (count, width) if value["isTransposed"] else (width, count)
        if min(count, width) < 0 or count * width > MAX_CELLS:
            raise ValueError(shape)
        whole = values.reshape(shape) if value["type"] == 1 else _sparse(value, values, shape)
        return whole if value["isTransposed"] else whole.T
    except (KeyError, TypeError, ValueError, OverflowError, IndexError):
        return malformed("a Spark ML model with a matrix that contradicts itself", entry)


def _sparse(value: Any, values: Array, shape: tuple[int, int]) -> Array:
    starts = np.array(value["colPtrs"], dtype=np.int64)
    inner = np.array(value["rowIndices"], dtype=np.int64)
    good = len(starts) == shape[0] + 1 and starts[0] == 0 and starts[-1] == len(inner) == len(values)
    if value["type"] != 0 or not good or (np.diff(starts) < 0).any() or (inner < 0).any():
        raise ValueError(value["type"])
    whole = np.zeros(shape)
    whole[np.repeat(np.arange(shape[0]), np.diff(starts)), inner] = values
    return whole
