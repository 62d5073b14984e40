"""Replacing and removing rows of a Delta table by their keys, in the commit that moves a position."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from modelpack_server.delta.commit import Conflict, properties
from modelpack_server.delta.storage import Root
from modelpack_server.delta.tables import reason, require, unwritable

__all__ = ["Upsert", "merge"]

# From so many rows on delta-rs takes them as they come. It reads all files of the table then; of fewer rows it looks at
# the bounds first, and leaves out the files that cannot hold one of them.
_MANY = 1_000_000


class Upsert:
    """Rows to be there afterwards, and keys of which all rows go that are there before, also those of new rows."""

    def __init__(self, key: Sequence[str], new: Iterable[pa.Table], old: pa.Table, size: int) -> None:
        self.key = key
        self.size = size
        self._new = new
        self._old = old

    def reader(self, schema: pa.Schema, gone: Sequence[str]) -> pa.RecordBatchReader:
        """Return all of it: the columns of the table for new rows, the columns ``gone`` for keys, and nothing else."""
        fields = [schema.field(name).with_name(other) for name, other in zip(self.key, gone, strict=True)]
        whole = pa.schema([pa.field(field.name, field.type) for field in [*schema, *fields]])
        return pa.RecordBatchReader.from_batches(whole, self._batches(whole, gone))

    def _batches(self, schema: pa.Schema, gone: Sequence[str]) -> Iterator[pa.RecordBatch]:
        old = self._old.select(self.key).rename_columns(gone)
        for table in itertools.chain([old], self._new):
            columns = [
                table.column(field.name) if field.name in table.column_names else pa.nulls(len(table), field.type)
                for field in schema
            ]
            yield from pa.table(columns, schema=schema).to_batches()


def merge(root: Root, table: Any, upsert: Upsert, transactions: Mapping[str, int], facts: Mapping[str, Any]) -> None:
    """Remove all rows with these keys, add the new ones, and move the transactions, all or nothing.

    ``table`` is the object from which the transactions' old values were read, as for
    :meth:`modelpack_server.delta.commit.Target.commit`. A merge that changes no row would not commit: see
    :func:`modelpack_server.delta.keys.touches`.

    Raises:
        Conflict: one of the transactions was moved since, or rows like those that were looked at were changed or added.
        SaveError: the commit failed for another reason (``output-unwritable``).
    """
    errors = require("deltalake.exceptions")
    schema = pa.schema(table.schema().to_arrow())
    gone = [f"modelpack gone {number}" for number in range(len(upsert.key))]
    while set(gone) & set(schema.names):
        gone = [f"{name}_" for name in gone]
    here = {_quoted(name): f"new.{_quoted(name)}" for name in schema.names}
    pairs = zip(upsert.key, gone, strict=True)
    reader = upsert.reader(schema, gone)
    try:
        (
            # A new row has no value there, so it meets no old one: what it replaces is removed, however many rows.
            table.merge(
                reader if upsert.size > _MANY else reader.read_all(),
                " and ".join(f"old.{_quoted(name)} = new.{_quoted(other)}" for name, other in pairs),
                source_alias="new",
                target_alias="old",
                streamed_exec=upsert.size > _MANY,
                commit_properties=properties(transactions, facts),
            )
            .when_matched_delete()
            .when_not_matched_insert(here, f"new.{_quoted(gone[0])} is null")
            .execute()
        )
    except errors.CommitFailedError as exc:
        raise Conflict(reason(exc, root)) from exc
    except (errors.DeltaError, OSError) as exc:
        raise unwritable(root, exc) from exc


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
