"""Appending to a Delta table: files of our own, committed together with application transactions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import orjson
import pyarrow as pa

from modelpack.errors import OutputError, UsageError
from modelpack_server.delta.kinds import lacking, storable, stored
from modelpack_server.delta.log import look
from modelpack_server.delta.parts import Part
from modelpack_server.delta.storage import Look, Root, storage
from modelpack_server.delta.tables import LOG, location, open_table, options, reading, reason, require, unwritable
from modelpack_server.delta.transactions import Transactions

__all__ = ["Conflict", "Target", "check_replaceable", "fit", "properties"]

# What a writer must know of that changes nothing about appending plain files, as long as nobody has set it to work.
_WRITER_FEATURES = frozenset({"appendOnly", "invariants", "checkConstraints", "changeDataFeed", "timestampNtz",
                              "deletionVectors", "v2Checkpoint", "vacuumProtocolCheck"})  # fmt: skip
_RULES = ("delta.invariants", "delta.generationExpression", "delta.identity.start")
_RETRIES = 15


class Conflict(Exception):
    """Somebody else has moved the same position meanwhile; nothing was committed."""


class Target:
    """A Delta table that rows are appended to.

    ``family``: which hidden files are leftovers of ours. ``own``: what names of data files that are ours have in them,
    though no log lists them yet.
    """

    def __init__(self, root: Root, *, family: str, own: str | None = None) -> None:
        location(root)  # said before anything is made
        self.root = root
        self.files = storage(root)
        self._family = family
        self._own = own
        self._seen: tuple[int, Look | None] | None = None
        self._transactions = Transactions(root)

    def open(self) -> Any | None:
        """Return a fresh snapshot of the table; None if there is none yet.

        Raises:
            UsageError: the table asks more of a writer than is done here (``table-unwritable``).
        """
        if not self.files.begun(LOG):
            if all(map(self._is_ours, self.files.names())):
                return None
            # What is there may be of somebody who makes the table at this moment.
            if not self.files.begun(LOG):
                message = f"{self.root} holds something, and is no Delta table"
                raise UsageError(message, code="output-foreign", hint="Choose another output.")
        if not self._is_as_seen():
            self._transactions.forget()
        return self._checked(open_table(self.root))

    def moved(self, table: Any, name: str) -> int | None:
        """Return where an application is in a snapshot; None if it was never there."""
        return self._transactions.of(table, name)

    def _is_as_seen(self) -> bool:
        """Say whether it is still the same table: the commit that was the last one when it was seen is still there."""
        if self._seen is None or self._seen[1] is None:
            return False
        return look(self.root, self._seen[0]) == self._seen[1]

    def _is_ours(self, name: str) -> bool:
        return name.startswith(".modelpack-") or (self._own is not None and self._own in name) or name == LOG

    def refresh(self, table: Any | None) -> Any | None:
        """Return the table as it is now, as :meth:`open` does but sooner: what is new is read, and nothing else."""
        if table is None or not self._is_as_seen():
            return self.open()
        with reading(self.root):
            table.update_incremental()
        return self._checked(table)

    def _checked(self, table: Any) -> Any:
        _check_writable(table, self.root)
        self._seen = table.version(), look(self.root, table.version())
        return table

    def create(self, schema: pa.Schema) -> Any:
        """Create the table, unless somebody else has done it meanwhile, and return it."""
        errors = require("deltalake.exceptions")
        try:
            self.files.make()
            create = require().DeltaTable.create
            create(location(self.root), schema=schema, mode="ignore", storage_options=options(self.root))
        except (errors.DeltaError, OSError) as exc:
            # Two that create it at once: the second finds it there.
            if look(self.root, 0) is None:
                raise unwritable(self.root, exc) from exc
        return self.open()

    @contextmanager
    def part(self, name: str | None = None) -> Iterator[Part]:
        """Yield a data file to write; when the block ends well it has its name, but is not yet in the log."""
        unique = f"part-00000-{uuid.uuid4()}-c000.snappy.parquet"
        with self.files.write(name or unique, unique=name is None, family=self._family) as file:
            part = Part(name or unique, file)
            try:
                yield part
            except BaseException as exc:
                part.close(exc)
                raise
            part.close(None)

    def commit(
        self,
        table: Any,
        parts: Sequence[Part],
        transactions: Mapping[str, int],
        facts: Mapping[str, Any],
        *,
        mode: Literal["append", "overwrite"] = "append",
        keep: bool = False,
        alone: bool = False,
    ) -> None:
        """Add the parts and move the transactions, both or neither; ``overwrite`` removes all rows that were there.

        ``table`` must be the very object from which the transactions' old values were read: delta-rs looks for
        conflicts since that snapshot, and a path or a later one would hide them. ``alone``: any commit is one.

        Raises:
            Conflict: one of the transactions was moved since; the parts are removed, unless ``keep`` is set.
            OutputError: a part has other columns than the table (``output-columns``); the parts are removed.
            SaveError: the commit failed for another reason (``output-unwritable``).
        """
        errors = require("deltalake.exceptions")
        self._check_columns(table, parts)
        chosen = properties(transactions, facts, retries=0 if alone else _RETRIES)
        actions = [part.action() for part in parts if part.rows]
        try:
            table.create_write_transaction(actions, mode, table.schema(), commit_properties=chosen)
        except errors.CommitFailedError as exc:
            if not keep:
                self.discard(part.name for part in parts)
            raise Conflict(reason(exc, self.root)) from exc
        except (errors.DeltaError, OSError) as exc:
            # It may be there all the same (a checkpoint failed behind it): the parts stay, the next look will tell.
            raise unwritable(self.root, exc) from exc
        self.withdraw([part for part in parts if not part.rows])

    def found(
        self, schema: pa.Schema, parts: Sequence[Part], transactions: Mapping[str, int], facts: Mapping[str, Any]
    ) -> None:
        """Create the table with the parts and the transactions in its first commit.

        Raises:
            Conflict: there is a table already; the parts stay.
            SaveError: it cannot be created (``output-unwritable``).
        """
        deltalake, actions = require(), require("deltalake.transaction")
        try:
            self.files.make()
            actions.create_table_with_add_actions(
                location(self.root),
                deltalake.Schema.from_arrow(schema),
                [part.action() for part in parts if part.rows],
                storage_options=options(self.root),
                # A second one that tried again would found the table once more, on top of the first.
                commit_properties=properties(transactions, facts, retries=0),
            )
        except (require("deltalake.exceptions").DeltaError, OSError) as exc:
            if look(self.root, 0) is not None:
                raise Conflict(reason(exc, self.root)) from exc
            raise unwritable(self.root, exc) from exc
        self.withdraw([part for part in parts if not part.rows])

    def withdraw(self, parts: Sequence[Part]) -> None:
        """Remove files that no commit was tried with."""
        for part in parts:
            self.files.remove(part.name)

    def existing(self, name: str) -> Part:
        """Return a data file that is whole already (FileNotFoundError: it is not there)."""
        return Part.existing(self.files, name)

    def discard(self, names: Iterable[str]) -> None:
        """Remove files, except those that the log lists: a commit may be there though it was said to have failed."""
        listed: set[str] = set()
        if self.files.begun(LOG):
            listed = {str(path) for path in pa.table(open_table(self.root).get_add_actions())["path"].to_pylist()}
        for name in names:
            if name not in listed:
                self.files.remove(name)

    def _check_columns(self, table: Any, parts: Sequence[Part]) -> None:
        """Refuse files that were made when the table had other columns, or none."""
        wanted = _kinds(pa.schema(table.schema().to_arrow()))
        for part in parts:
            if part.rows and _kinds(part.schema) != wanted:
                self.discard(part.name for part in parts)
                raise _columns(self.root, "has other columns, or of other types, than when the rows were scored")


def check_replaceable(table: Any, root: Root) -> None:
    """Refuse a table whose rows must stay (``table-unwritable``)."""
    if table.metadata().configuration.get("delta.appendOnly", "").lower() == "true":
        message = f"{root} takes new rows only, because of delta.appendOnly"
        raise UsageError(message, code="table-unwritable", hint="Append to it, or write to another table.")


def properties(transactions: Mapping[str, int], facts: Mapping[str, Any], retries: int = _RETRIES) -> Any:
    """Return what a commit carries beside its files."""
    deltalake = require()
    return deltalake.CommitProperties(
        app_transactions=[deltalake.Transaction(name, value) for name, value in transactions.items()],
        custom_metadata={"modelpack": orjson.dumps(facts).decode()},
        max_commit_retries=retries,
    )


def fit(table: pa.Table, schema: pa.Schema, root: Root) -> pa.Table:
    """Return the rows with the columns and types of a Delta table.

    Raises:
        OutputError: the table has other columns (``output-columns``), or a value is none of its type.
    """
    wanted, found = set(schema.names), set(table.column_names)
    if wanted != found:
        lacks, more = sorted(wanted - found), sorted(found - wanted)
        words = [f"has {', '.join(map(repr, lacks))}, which the answers have not"] if lacks else []
        words += [f"lacks {', '.join(map(repr, more))}"] if more else []
        raise _columns(root, " and ".join(words))
    given = storable(table)
    columns = []
    for field in schema:
        column, kind = table.column(field.name), given.field(field.name).type
        # What may be missing inside of values is a matter of these values, not of the type.
        if kind != stored(field.type) and not pa.types.is_null(column.type):
            raise _columns(root, f"has {field.name!r} as {field.type}, here it is {column.type}")
        if any(lacking(chunk, field) for chunk in column.chunks):
            raise _columns(root, f"takes no missing values in {field.name!r}, and there is one")
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as exc:
            message = f"the column {field.name!r} has a value that is not exact as {field.type}"
            raise OutputError(message, code="not-exact", path=str(root)) from exc
    return pa.table(columns, schema=pa.schema([pa.field(field.name, field.type) for field in schema]))


def _kinds(schema: pa.Schema) -> Mapping[str, pa.DataType]:
    known = storable(schema.remove_metadata().empty_table())
    return dict(zip(known.names, known.types, strict=True))


def _columns(root: Root, what: str) -> OutputError:
    hint = "Write to another table, or keep other columns (--keep)."
    return OutputError(what, code="output-columns", path=str(root), hint=hint)


def _check_writable(table: Any, root: Root) -> None:
    """Refuse tables whose rules our files would get around."""
    metadata, protocol = table.metadata(), table.protocol()
    found = sorted(set(protocol.writer_features or ()) - _WRITER_FEATURES)
    found += sorted(key for key in metadata.configuration if key.startswith("delta.constraints."))
    found += [key for key in _RULES if f'"{key}"' in table.schema().to_json()]
    if metadata.configuration.get("delta.columnMapping.mode", "none") != "none":
        found.append("delta.columnMapping.mode")
    if "delta.setTransactionRetentionDuration" in metadata.configuration:
        found.append("delta.setTransactionRetentionDuration")  # the position would be forgotten
    if metadata.partition_columns:
        found.append(f"partitions by {', '.join(metadata.partition_columns)}")
    if found:
        message = f"{root} cannot be appended to, because of {', '.join(found)}"
        raise UsageError(message, code="table-unwritable", hint="Write to a plain table of its own.")
