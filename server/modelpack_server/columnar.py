"""Parquet and Arrow files out, columns in their own types."""

from __future__ import annotations

import io
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modelpack.errors import OutputError

__all__ = ["FileWriter", "ParquetWriter", "StreamWriter"]

ROW_GROUP = 131_072


class _Sink:
    """The file as Arrow's writers see it: it counts, since a pipe cannot tell where it is, and it can be shut.

    Arrow's writers write their end when they are dropped, even after an error, when it would make half a stream look
    whole.
    """

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file: IO[bytes] | None = file
        self._count = 0

    def write(self, data: Any) -> int:
        """Write all of the data."""
        if self._file is not None:
            self._file.write(data)
        size = memoryview(data).nbytes
        self._count += size
        return size

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._count

    def flush(self) -> None:
        """Pass on what is buffered."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Leave the file open: it is not ours."""

    def shut(self) -> None:
        """Write nothing more."""
        self._file = None


class _TableWriter:
    """Opens the real writer with the first table's schema."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = _Sink(file)
        self._writer: Any = None

    def write(self, rows: Any) -> None:
        """Append the rows of a table."""
        if self._writer is None:
            self._writer = self._open(rows.schema)
        for batch in rows.combine_chunks().to_batches():
            self._append(batch)

    @property
    def size(self) -> int:
        """How many bytes the file has so far."""
        return self._file.tell()

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """Let go of the file without writing to it."""
        self._file.shut()
        if self._writer is not None:
            self._writer.close()

    def _open(self, schema: pa.Schema) -> Any:
        raise NotImplementedError

    def _append(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)


class ParquetWriter(_TableWriter):
    """Writes Parquet with row groups of a useful size, however small the batches are.

    ``metadata``: what the end of the file says, once it is written (None: nothing was).
    """

    metadata: Any = None

    def _open(self, schema: pa.Schema) -> Any:
        self._held: list[pa.RecordBatch] = []
        self._schema = schema
        # A dictionary of floats, hardly two of which are the same, takes most of the time and makes the file larger.
        repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
        try:
            return pq.ParquetWriter(self._file, schema, use_dictionary=repeating)
        except pa.ArrowNotImplementedError as exc:
            raise _refused(schema) from exc

    def _append(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        if sum(map(len, self._held)) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            table = pa.Table.from_batches(self._held, self._schema)
            self._held = []
            try:
                self._writer.write_table(table, row_group_size=len(table))
            except pa.ArrowNotImplementedError as exc:
                raise _refused(self._schema) from exc

    def close(self) -> None:
        """Write the last row group and the end of the file."""
        if self._writer is not None:
            self._flush()
        super().close()
        if self._writer is not None:
            self.metadata = self._writer.writer.metadata


def _refused(schema: pa.Schema) -> OutputError:
    """Return the error that names the first column whose type Parquet does not have."""
    field = next(field for field in schema if _is_alien(field.type))
    message = f"the column {field.name!r} is of the type {field.type}, which Parquet files do not have"
    return OutputError(message, code="type-not-parquet", hint="Keep other columns, or write another format.")


def _is_alien(kind: pa.DataType) -> bool:
    try:
        pq.write_table(pa.table([pa.nulls(1, kind)], ["column"]), io.BytesIO())
    except pa.ArrowException:
        return True
    return False


class StreamWriter(_TableWriter):
    """Writes an Arrow IPC stream."""

    def _open(self, schema: pa.Schema) -> Any:
        return pa.ipc.new_stream(self._file, schema)


class FileWriter(_TableWriter):
    """Writes an Arrow IPC file.

    The file format cannot replace a dictionary, only add to it, so each column's grows by the values that are new.
    """

    def _open(self, schema: pa.Schema) -> Any:
        self._dictionaries: dict[int, pa.Array] = {}
        return pa.ipc.new_file(self._file, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True))

    def _append(self, batch: pa.RecordBatch) -> None:
        columns = [self._grown(i, column) for i, column in enumerate(batch.columns)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=batch.schema))

    def _grown(self, index: int, column: pa.Array) -> pa.Array:
        if not pa.types.is_dictionary(column.type):
            return column
        known = self._dictionaries.get(index, column.dictionary)
        fresh = column.dictionary.filter(pc.invert(pc.is_in(column.dictionary, value_set=known)))
        whole = pa.concat_arrays([known, fresh]) if len(fresh) else known
        self._dictionaries[index] = whole
        places = pc.index_in(column.dictionary, value_set=whole)
        indices = places.take(column.indices).cast(column.type.index_type)
        return pa.DictionaryArray.from_arrays(indices, whole, ordered=column.type.ordered)
