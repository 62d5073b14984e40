"""Parquet and Arrow files: only the columns that are needed, row group by row group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modelpack.errors import InputError
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.inputs import Source
from modelpack_server.delta import rows

__all__ = ["read_file", "read_parquet", "read_raw", "read_stream", "refuse_more"]


def read_parquet(source: Source, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of a Parquet file."""
    with source.open_seekable() as raw:
        # Behind a URL each piece would be a request of its own.
        file = pq.ParquetFile(raw, pre_buffer=False, buffer_size=0 if source.remote else rows.PIECE)
        schema = file.schema_arrow
        names = _pick(source, wanted, schema)
        groups = None if wanted.sieve is None else wanted.sieve.groups(file, source.name)
        before, total = 0, file.metadata.num_rows
        if source.piece is not None:
            groups, before, total = source.piece.groups(groups), source.piece.before, source.piece.rows
        batches = rows.batches(file, names, size, groups)
        yield from _chunks(source, schema, names, batches, size, before=before, total=total)


def read_file(source: Source, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of an Arrow IPC file."""
    with source.open_seekable() as raw:
        schema = pa.ipc.open_file(raw).schema
        names = _pick(source, wanted, schema)
        options = pa.ipc.IpcReadOptions(included_fields=_indices(schema, names))
        file = pa.ipc.open_file(raw, options=options)
        batches = _counted(file.get_batch(i) for i in range(file.num_record_batches))
        yield from _chunks(source, schema, names, batches, size)


def read_stream(source: Source, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of an Arrow IPC stream, as they come."""
    with source.open_raw() as raw:
        yield from read_raw(source, raw, wanted, size)
        refuse_more(source, raw)


def read_raw(source: Source, raw: Any, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of an Arrow IPC stream that is open already; ``source`` is what it is called."""
    with pa.ipc.open_stream(raw) as stream:
        names = _pick(source, wanted, stream.schema)
        yield from _chunks(source, stream.schema, names, _counted(stream), size)


def refuse_more(source: Source, raw: Any) -> None:
    """Refuse what comes behind the end of an Arrow IPC stream, as another stream does (``arrow-invalid``)."""
    if raw.read(1):
        raise InputError(
            "something follows the end of the Arrow stream",
            code="arrow-invalid",
            path=source.name,
            hint="Two streams are not made one by putting one behind the other: write their batches to one.",
        )


def _pick(source: Source, wanted: Wanted, schema: pa.Schema) -> list[str]:
    """Return the columns to read; all of them when none is needed, since a table without columns has no rows."""
    names = wanted.pick(schema.names) or list(schema.names)
    for name in names:
        if schema.names.count(name) > 1:
            raise InputError(f"has two columns called {name!r}", code="column-duplicate", path=source.name)
    return names


def _indices(schema: pa.Schema, names: list[str]) -> list[int]:
    return [schema.get_field_index(name) for name in names]


def _counted(batches: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    row = 0
    for batch in batches:
        yield row, batch
        row += batch.num_rows


def _chunks(
    source: Source,
    schema: pa.Schema,
    names: list[str],
    batches: Iterable[tuple[int, Any]],
    size: int,
    *,
    before: int = 0,
    total: int | None = None,
) -> Iterator[Chunk]:
    """Cut batches into chunks of at most ``size`` rows, each with the count of rows before it.

    ``total`` rows, after those ``before``, tell how far we are in the file.
    """
    # The schema's own metadata (pandas' index description) would not be true of what is written.
    wanted = pa.schema([schema.field(name) for name in names])
    seen, length = False, source.size or 0
    for row, batch in batches:
        table = _decoded(pa.Table.from_batches([batch]).select(names).replace_schema_metadata(None))
        for start in range(0, table.num_rows, size):
            part = table.slice(start, size)
            end = row + start + part.num_rows
            numbers = np.arange(row + start + 1, end + 1)
            seen = True
            position = length * (end - before) // total if total else 0
            yield Chunk(source=source, wire="python", data=part, numbers=numbers, position=position)
    if not seen:
        yield Chunk(source=source, wire="python", data=_decoded(wanted.empty_table()), numbers=np.arange(0))


def _decoded(table: pa.Table) -> pa.Table:
    """Return the table without run-end encoding: no format but Arrow has it, and Arrow can take no rows out of it."""
    for place, field in enumerate(table.schema):
        if pa.types.is_run_end_encoded(field.type):
            kind = field.type.value_type
            chunks = [pc.run_end_decode(chunk) for chunk in table.column(place).chunks]
            table = table.set_column(place, field.with_type(kind), pa.chunked_array(chunks, kind))
    return table
