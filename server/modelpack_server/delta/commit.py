"""Appending to a Delta table: files of our own, committed together with application transactions."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from modelpack.errors import OutputError, SaveError, UsageError
from modelpack_server.columnar import ParquetWriter
from modelpack_server.delta.kinds import lacking, storable, stored
from modelpack_server.delta.log import stamp
from modelpack_server.delta.tables import LOG, open_table, reason, require
from modelpack_server.wholefile import whole_file

__all__ = ["Conflict", "Part", "Target", "check_replaceable", "fit", "properties", "unwritable"]

# What a writer must know of that changes nothing about appending plain files, as long as nobody has set it to work.
_WRITER_FEATURES = frozenset({"appendOnly", "invariants", "checkConstraints", "changeDataFeed", "timestampNtz",
                              "deletionVectors", "v2Checkpoint", "vacuumProtocolCheck"})  # fmt: skip
_RULES = ("delta.invariants", "delta.generationExpression", "delta.identity.start")
_RETRIES = 15


class Conflict(Exception):
    """Somebody else has moved the same position meanwhile; nothing was committed."""


class Part:
    """One data file while it is written, and then its entry in the log."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.rows = 0
        self._writer = ParquetWriter(file)

    def write(self, table: pa.Table) -> None:
        """Append rows that fit the table."""
        self.rows += table.num_rows
        self._writer.write(table)

    @classmethod
    def existing(cls, path: Path) -> Part:
        """Return a data file that is whole already."""
        part = cls(path, io.BytesIO())
        part.rows = int(pq.read_metadata(path).num_rows)
        return part

    def close(self, error: BaseException | None) -> None:
        """Write the end of the file, unless there was an error."""
        (self._writer.abandon if error else self._writer.close)()

    def action(self) -> Any:
        """Return the entry for the log."""
        stat = self.path.stat()
        actions = require("deltalake.transaction")
        stats = orjson.dumps(_statistics(self.path)).decode()
        return actions.AddAction(self.path.name, stat.st_size, {}, int(stat.st_mtime * 1000), True, stats)


class Target:
    """A Delta table that rows are appended to.

    ``family``: which hidden files are leftovers of ours. ``own``: what names of data files that are ours have in them,
    though no log lists them yet.
    """

    def __init__(self, root: Path, *, family: str, own: str | None = None) -> None:
        self.root = root
        self._family = family
        self._own = own
        self._stamp: tuple[int, int] | None = None

    def open(self) -> Any | None:
        """Return a fresh snapshot of the table; None if there is none yet.

        Raises:
            UsageError: the table asks more of a writer than is done here (``table-unwritable``).
        """
        log = self.root / LOG
        if not _has_commits(log):
            if not self.root.exists() or (self.root.is_dir() and all(map(self._is_ours, self.root.iterdir()))):
                return None
            # What is there may be of somebody who makes the table at this moment.
            if not _has_commits(log):
                message = f"{self.root} holds something, and is no Delta table"
                raise UsageError(message, code="output-foreign", hint="Choose another output.")
        return self._checked(open_table(self.root))

    def _is_ours(self, path: Path) -> bool:
        ours = path.name.startswith(".modelpack-") or (self._own is not None and self._own in path.name)
        return ours or path.name == LOG

    def refresh(self, table: Any | None) -> Any | None:
        """Return the table as it is now, as :meth:`open` does but sooner: what is new is read, and nothing else."""
        if table is None or self._stamp is None or stamp(self.root, table.version()) != self._stamp:
            return self.open()
        table.update_incremental()
        return self._checked(table)

    def _checked(self, table: Any) -> Any:
        _check_writable(table, self.root)
        self._stamp = stamp(self.root, table.version())
        return table

    def create(self, schema: pa.Schema) -> Any:
        """Create the table, unless somebody else has done it meanwhile, and return it."""
        errors = require("deltalake.exceptions")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            require().DeltaTable.create(str(self.root), schema=schema, mode="ignore")
        except errors.DeltaError as exc:
            # Two that create it at once: the second finds it there.
            if not (self.root / LOG / f"{0:020d}.json").is_file():
                raise unwritable(self.root, exc) from exc
        except OSError as exc:
            raise unwritable(self.root, exc) from exc
        return self.open()

    @contextmanager
    def part(self, name: str | None = None) -> Iterator[Part]:
        """Yield a data file to write; when the block ends well it has its name, but is not yet in the log."""
        path = self.root / (name or f"part-00000-{uuid.uuid4()}-c000.snappy.parquet")
        with whole_file(path, overwrite=False, family=self._family) as file:
            part = Part(path, file)
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
    ) -> None:
        """Add the parts and move the transactions, both or neither; ``overwrite`` removes all rows that were there.

        ``table`` must be the very object from which the transactions' old values were read: delta-rs looks for
        conflicts since that snapshot, and a path or a later one would hide them.

        Raises:
            Conflict: one of the transactions was moved since; the parts are removed, unless ``keep`` is set.
            OutputError: a part has other columns than the table (``output-columns``); the parts are removed.
            SaveError: the commit failed for another reason (``output-unwritable``).
        """
        errors = require("deltalake.exceptions")
        self._check_columns(table, parts)
        chosen = properties(transactions, facts)
        actions = [part.action() for part in parts if part.rows]
        try:
            table.create_write_transaction(actions, mode, table.schema(), commit_properties=chosen)
        except errors.CommitFailedError as exc:
            if not keep:
                self.discard(part.path for part in parts)
            raise Conflict(reason(exc)) from exc
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
            self.root.mkdir(parents=True, exist_ok=True)
            actions.create_table_with_add_actions(
                str(self.root),
                deltalake.Schema.from_arrow(schema),
                [part.action() for part in parts if part.rows],
                # A second one that tried again would found the table once more, on top of the first.
                commit_properties=properties(transactions, facts, retries=0),
            )
        except (require("deltalake.exceptions").DeltaError, OSError) as exc:
            if (self.root / LOG / f"{0:020d}.json").is_file():
                raise Conflict(reason(exc)) from exc
            raise unwritable(self.root, exc) from exc
        self.withdraw([part for part in parts if not part.rows])

    @staticmethod
    def withdraw(parts: Sequence[Part]) -> None:
        """Remove files that no commit was tried with."""
        for part in parts:
            part.path.unlink(missing_ok=True)

    def discard(self, paths: Iterable[Path]) -> None:
        """Remove files, except those that the log lists: a commit may be there though it was said to have failed."""
        listed: set[str] = set()
        if _has_commits(self.root / LOG):
            listed = {str(path) for path in pa.table(open_table(self.root).get_add_actions())["path"].to_pylist()}
        for path in paths:
            if path.name not in listed:
                path.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process of this machine do the same at the same time; the directory must be there."""
        lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _check_columns(self, table: Any, parts: Sequence[Part]) -> None:
        """Refuse files that were made when the table had other columns, or none."""
        wanted = _kinds(pa.schema(table.schema().to_arrow()))
        for part in parts:
            if part.rows and _kinds(pq.read_schema(part.path)) != wanted:
                self.discard(part.path for part in parts)
                raise _columns(self.root, "has other columns, or of other types, than when the rows were scored")


def check_replaceable(table: Any, root: Path) -> None:
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


def fit(table: pa.Table, schema: pa.Schema, root: Path) -> pa.Table:
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


def _columns(root: Path, what: str) -> OutputError:
    hint = "Write to another table, or keep other columns (--keep)."
    return OutputError(what, code="output-columns", path=str(root), hint=hint)


def _has_commits(log: Path) -> bool:
    """Say whether a log has begun: one without a commit is one that is being made, or never was."""
    try:
        with os.scandir(log) as entries:
            return any(entry.name.endswith((".json", ".parquet")) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _check_writable(table: Any, root: Path) -> None:
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


def _statistics(path: Path) -> Mapping[str, Any]:
    """Return what the log says of a file: rows, missing values, and bounds where these are whole numbers."""
    found = pq.read_metadata(path)
    nulls: dict[str, int] = {}
    least: dict[str, int] = {}
    most: dict[str, int] = {}
    for index in range(found.num_columns):
        column = found.schema.column(index)
        if column.path != column.name or column.max_repetition_level:
            continue
        groups = [found.row_group(group).column(index).statistics for group in range(found.num_row_groups)]
        if groups and all(group is not None and group.has_null_count for group in groups):
            nulls[column.name] = sum(group.null_count for group in groups)
        bounds = [(group.min, group.max) for group in groups if group is not None and group.has_min_max]
        if bounds and len(bounds) == len(groups) and all(type(end) is int for pair in bounds for end in pair):
            least[column.name], most[column.name] = min(low for low, _ in bounds), max(high for _, high in bounds)
    return {"numRecords": found.num_rows, "minValues": least, "maxValues": most, "nullCount": nulls}


def unwritable(root: Path, error: Exception) -> SaveError:
    """Return the error for a table that another library could not write."""
    return SaveError(f"{root} cannot be written: {reason(error)}", code="output-unwritable")
