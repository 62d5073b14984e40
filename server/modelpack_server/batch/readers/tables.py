"""Delta tables: the rows of one data file, as the table has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack.errors import InputError
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.inputs import Source
from modelpack_server.delta import rows

__all__ = ["read"]


def read(source: Source, wanted: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the rows of one data file, those that are deleted left out."""
    table = source.table
    assert table is not None
    schema, naming, sieve, piece = table.shape.schema, table.shape.naming, wanted.sieve, source.piece
    names = wanted.pick(schema.names) or list(schema.names)

    def groups(metadata: Any, inside: set[str]) -> Sequence[int] | None:
        # What the file knows of its row groups, it knows by its own names.
        chosen = None if sieve is None or not naming.plain else sieve.some_groups(metadata, schema, inside)
        return chosen if piece is None else piece.groups(chosen)

    length, seen = source.size or 0, False
    if table.add is not None:
        try:
            before, total = (piece.before, piece.rows) if piece is not None else (0, _length(source))
            for part, numbers in rows.read(table.root, table.add, table.shape, names, size, groups):
                if part.num_rows:
                    seen = True
                    position = length * (int(numbers[-1]) - before) // total if total else 0
                    yield Chunk(source=source, wire="python", data=part, numbers=numbers, position=position)
        except FileNotFoundError as exc:
            message = f"is gone, though version {table.version} of the table has it"
            hint = "It was vacuumed. Choose a newer version."
            raise InputError(message, code="table-file-missing", path=source.name, hint=hint) from exc
    if not seen:
        empty = pa.schema([schema.field(name) for name in names]).remove_metadata().empty_table()
        yield Chunk(source=source, wire="python", data=empty, numbers=np.arange(0))


def _length(source: Source) -> int:
    """Return how many rows the data file has, deleted ones among them."""
    table = source.table
    assert table is not None
    assert table.add is not None
    alive = table.add.alive
    return rows.count(table.root, table.add) if alive is None else len(alive)
