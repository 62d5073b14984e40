"""Parquet in and out: one file is one request, or one answer; columns keep their own types."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as parquet

from modelpack.audits.parquet_bounds import Weight, weigh
from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.signature import Signature, Table
from modelpack_server.codecs import Decoded, answers, shapes
from modelpack_server.codecs.arrow_bounds import check_names, dense
from modelpack_server.codecs.arrow_tensors import tensors

__all__ = ["MAX_EXPANSION", "decode", "encode"]

# A few bytes of Parquet can stand for gigabytes; a body may grow to this many times its size, or to the floor.
MAX_EXPANSION = 10
FLOOR = 256 * 1024 * 1024
# Rows that are read at a time where it matters, and the bytes that they may take.
_MOST_ROWS = 65_536
_PIECE = 16 * 1024 * 1024


def decode(body: bytes, signature: Signature) -> Decoded:
    """Return the rows of a Parquet body as an Arrow table, without the columns that the model ignores."""
    limit = max(len(body) * MAX_EXPANSION, FLOOR)
    try:
        with parquet.ParquetFile(pa.BufferReader(body)) as file:
            check_names(file.schema_arrow)
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise InputError("the Parquet file has two columns of one name", code="parquet-duplicate-column")
            table = _read(body, file, _wanted(names, signature), limit)
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as exc:
        raise InputError("the body is not a Parquet file that can be read", code="parquet-invalid") from exc
    return Decoded(data=tensors(table, signature.inputs), wire="python")


def _wanted(names: list[str], signature: Signature) -> list[str]:
    """Return the columns to read: those of the signature, unless others are to be refused."""
    inputs = signature.inputs
    if not isinstance(inputs, Table) or inputs.extra_columns == "reject":
        return names
    known = {column.name for column in inputs.columns}
    found = [name for name in names if name in known]
    # Without any the number of rows would be lost, and the fault is told better from all of them.
    return found or names


def _read(body: bytes, file: parquet.ParquetFile, names: list[str], limit: int) -> pa.Table:
    """Return these columns of the file, read at once if they can only fit, else piece by piece."""
    weight = weigh(memoryview(body), set(names))
    if weight.kept > limit:
        raise _too_large()
    if weight.plain <= limit:
        table = file.read(columns=names, use_threads=False)
    else:
        table = _read_pieces(body, _schema(file.schema_arrow, names), weight, limit)
    table = table.select(names)
    table.validate(full=True)
    return table


def _read_pieces(body: bytes, schema: pa.Schema, weight: Weight, limit: int) -> pa.Table:
    """Return the columns of the schema, read with their dictionaries until it is known that they fit without."""
    step = max(1, min(_MOST_ROWS, _PIECE // max(1, weight.longest)))
    batches, size, names = [], 0, schema.names
    with parquet.ParquetFile(pa.BufferReader(body), read_dictionary=weight.texts) as file:
        # One group after another: Arrow joins no dictionaries inside of lists.
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(step, row_groups=[group], columns=names, use_threads=False):
                size += sum(dense(column) for column in batch.columns)
                if size > limit:
                    raise _too_large()
                batches.append(batch.select(names).cast(schema))
    return pa.Table.from_batches(batches, schema)


def _schema(schema: pa.Schema, names: list[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names])


def _too_large() -> InputError:
    return InputError(
        "the Parquet body is too large once decoded", code="parquet-size", hint="Send fewer rows at a time."
    )


def encode(frame: Frame) -> bytes:
    """Return the answer as a Parquet file, its columns called as in files that batches write."""
    sink = pa.BufferOutputStream()
    table = answers.table_of(frame, shapes.PARQUET)
    # Floats seldom repeat: a dictionary of them costs time and saves nothing.
    repeating = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
    parquet.write_table(table, sink, use_dictionary=repeating)
    body: bytes = sink.getvalue().to_pybytes()
    return body
