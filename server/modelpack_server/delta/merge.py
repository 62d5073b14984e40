"""Replacing and removing rows of a Delta table by their keys, in the commit that moves a position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modelpack_server.delta import rows
from modelpack_server.delta.commit import Conflict, properties
from modelpack_server.delta.log import Add, data_path
from modelpack_server.delta.snapshots import files_of, shape_of
from modelpack_server.delta.storage import Root
from modelpack_server.delta.tables import reason, require, unwritable

__all__ = ["Upsert", "merge", "touches"]

# Keys of the table that are compared at a time.
_BATCH = 2**18
# From so many rows on delta-rs takes them as they come. It reads all files of the table then; of fewer rows it looks at
# the bounds first, and leaves out the files that cannot hold one of them.
_MANY = 1_000_000
_ACTION = "modelpack action"


class Upsert:
    """Rows that replace those with the same key, and keys whose rows go: each key once, in one or the other."""

    def __init__(self, key: Sequence[str], new: Iterable[pa.Table], old: pa.Table, size: int) -> None:
        self.key = key
        self.size = size
        self._new = new
        self._old = old

    def reader(self, schema: pa.Schema, action: str) -> pa.RecordBatchReader:
        """Return all of it with the columns of the table, and one that is true for rows to be there afterwards."""
        whole = pa.schema([*(pa.field(field.name, field.type) for field in schema), pa.field(action, pa.bool_())])
        return pa.RecordBatchReader.from_batches(whole, self._batches(whole))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for table, stays in [*((table, True) for table in self._new), (self._old, False)]:
            columns = [
                table.column(field.name) if field.name in table.column_names else pa.nulls(len(table), field.type)
                for field in list(schema)[:-1]
            ]
            flags = pa.repeat(pa.scalar(stays), len(table))
            yield from pa.table([*columns, flags], schema=schema).to_batches()


def touches(root: Root, table: Any, keys: pa.Table) -> bool:
    """Say whether an open table has a row with one of these keys; only the columns of the key are read."""
    if not keys.num_rows:
        return False
    shape, names = shape_of(table, root), keys.column_names
    for add in _near(table, root, keys):
        for found, _ in rows.read(root, add, shape, names, _BATCH):
            if found.join(keys, keys=names, join_type="left semi").num_rows:
                return True
    return False


def _near(table: Any, root: Root, keys: pa.Table) -> Iterator[Add]:
    """Yield the files whose bounds do not rule out all keys; only bounds of whole numbers are sure to be exact."""
    found = pa.table(table.get_add_actions(flatten=True))
    paths = [data_path(path, root) for path in found.column("path").to_pylist()]
    far: set[str] = set()
    for name in keys.column_names:
        if not pa.types.is_integer(keys.schema.field(name).type) or f"min.{name}" not in found.column_names:
            continue
        ends = pc.min_max(keys.column(name)).as_py()
        least, most = (found.column(f"{end}.{name}").to_pylist() for end in ("min", "max"))
        bounds = zip(paths, least, most, strict=True)
        far |= {path for path, low, high in bounds
                if low is not None and high is not None and (low > ends["max"] or high < ends["min"])}  # fmt: skip
    return (add for add in files_of(table, root) if add.path not in far)


def merge(root: Root, table: Any, upsert: Upsert, transactions: Mapping[str, int], facts: Mapping[str, Any]) -> None:
    """Replace, add and remove rows by their key, and move the transactions, all or nothing.

    ``table`` is the object from which the transactions' old values were read, as for
    :meth:`modelpack_server.delta.commit.Target.commit`. A merge that changes no row would not commit: see
    :func:`touches`.

    Raises:
        Conflict: one of the transactions was moved since, or rows that were looked at were changed.
        SaveError: the commit failed for another reason (``output-unwritable``).
    """
    errors = require("deltalake.exceptions")
    schema = pa.schema(table.schema().to_arrow())
    action = _ACTION
    while action in schema.names:
        action += "_"
    here = {_quoted(name): f"new.{_quoted(name)}" for name in schema.names}
    stays = f"new.{_quoted(action)}"
    reader = upsert.reader(schema, action)
    try:
        (
            table.merge(
                reader if upsert.size > _MANY else reader.read_all(),
                " and ".join(f"old.{_quoted(name)} = new.{_quoted(name)}" for name in upsert.key),
                source_alias="new",
                target_alias="old",
                streamed_exec=upsert.size > _MANY,
                commit_properties=properties(transactions, facts),
            )
            .when_matched_delete(f"not {stays}")
            .when_matched_update(here, stays)
            .when_not_matched_insert(here, stays)
            .execute()
        )
    except errors.CommitFailedError as exc:
        raise Conflict(reason(exc, root)) from exc
    except (errors.DeltaError, OSError) as exc:
        raise unwritable(root, exc) from exc


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
