"""Rows of Spark on their way into a Delta table: executors write files that no log lists, the driver commits them."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import datasource
from pyspark.sql.types import StructType

from modelpack.errors import InputError, SaveError
from modelpack_server.delta.commit import Conflict, Target, check_replaceable, fit
from modelpack_server.delta.kinds import storable
from modelpack_server.delta.log import first_version, read_commit
from modelpack_server.delta.parts import Part
from modelpack_server.delta.storage import Root, storage
from modelpack_server.delta.tables import LOG
from modelpack_server.spark.kinds import arrow

__all__ = ["Sink", "StreamWriter", "Writer"]

_OWN = "-modelpack."
# What Spark tells the tasks of a streaming query: its id, which a restart from the checkpoint keeps, and the batch.
_QUERY, _BATCH = "sql.streaming.queryId", "streaming.sql.batchId"

# Spark hands Arrow batches to a streaming sink of this class. Before 4.2 it has none, and looks for the other one.
_Streaming: Any = getattr(datasource, "DataSourceStreamArrowWriter", None) or type(
    "_Streaming", (datasource.DataSourceStreamWriter, datasource.DataSourceArrowWriter), {}
)


@dataclass(frozen=True, kw_only=True)
class _Written(datasource.WriterCommitMessage):
    """What a task wrote: a file, unless it had no row; and for which query."""

    name: str | None
    query: str | None = None


class Sink:
    """Writes data files that no log lists yet."""

    def __init__(self, root: Path, schema: StructType) -> None:
        # There are files before there is a table: its name says that they are ours.
        self.target = Target(root, family="spark", own=_OWN)
        self.schema = storable(arrow(schema).empty_table())

    def write(self, batches: Iterator[pa.RecordBatch], mark: str) -> str | None:
        """Write the rows of a task, and return the name of the file, which has the mark; None if there is no row."""
        batches = (batch for batch in batches if batch.num_rows)
        first = next(batches, None)
        if first is None:
            return None
        context = TaskContext.get()
        number = context.partitionId() if context is not None else 0
        # A task that is done again writes another file.
        name = f"part-{number:05d}-{mark}.{secrets.token_hex(4)}{_OWN}snappy.parquet"
        table = self.target.open()
        schema = self.schema if table is None else pa.schema(table.schema().to_arrow())
        with self.target.part(name) as part:
            for batch in itertools.chain([first], batches):
                part.write(fit(pa.Table.from_batches([batch]), schema, self.target.root))
        return name

    def parts(self, messages: Sequence[Any]) -> list[Part]:
        """Return the files that tasks tell of."""
        return [self.target.existing(name) for name in sorted(_names(messages))]

    def table(self) -> Any:
        """Return the table, made if there is none."""
        table = self.target.open()
        return self.target.create(self.schema) if table is None else table

    def marked(self, mark: str) -> set[str]:
        """Return the names of all files with a mark, those of tasks included that were lost."""
        names = self.target.files.names()
        return {name for name in names if fnmatch(name, f"part-*-{mark}.*.parquet")}

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of which it is known that no commit lists them: what older versions need stays."""
        for name in names:
            self.target.files.remove(name)


class Writer(datasource.DataSourceArrowWriter):
    """One write of a batch, of which all files have one mark in their names."""

    def __init__(self, sink: Sink, overwrite: bool) -> None:
        self._sink = sink
        self._overwrite = overwrite
        self._mark = str(uuid.uuid4())
        table = sink.target.open()
        self._before = -1 if table is None else int(table.version())
        if overwrite and table is not None:
            check_replaceable(table, sink.target.root)

    def write(self, iterator: Iterator[pa.RecordBatch]) -> _Written:
        return _Written(name=self._sink.write(iterator, self._mark))

    def commit(self, messages: Sequence[Any]) -> None:
        table, parts = self._sink.table(), self._sink.parts(messages)
        mode: Literal["append", "overwrite"] = "overwrite" if self._overwrite else "append"
        try:
            self._sink.target.commit(table, parts, {}, {}, mode=mode, keep=True)
        except Conflict as exc:
            raise _contended(self._sink.target.root, exc) from exc
        self._sink.remove(self._sink.marked(self._mark) - _names(messages))

    def abort(self, messages: Sequence[Any]) -> None:
        # A commit may be there though it was said to have failed.
        listed = _added_since(self._sink.target.root, self._before)
        if listed is not None:
            self._sink.remove((self._sink.marked(self._mark) | _names(messages)) - listed)


class StreamWriter(_Streaming):  # type: ignore[misc] # which class it is depends on the version of Spark
    """Each batch of a query is in the table once: its number is in the same commit as its rows."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, iterator: Iterator[pa.RecordBatch]) -> _Written:
        context = TaskContext.get()
        query = context.getLocalProperty(_QUERY) if context is not None else None
        batch = context.getLocalProperty(_BATCH) if context is not None else None
        if query is None or batch is None:
            raise SaveError("Spark does not tell which query it is", code="spark-query")
        return _Written(name=self._sink.write(iterator, _mark(query, int(batch))), query=query)

    def commit(self, messages: Sequence[Any], batchId: int) -> None:  # noqa: N803 - Spark calls it so
        query = _query(messages)
        if query is None:
            return  # no task, and so no row
        job = _job(query)
        table = self._sink.table()
        if _reached(table, job) >= batchId:
            self._tidy(messages, query, batchId)
            return
        try:
            parts = self._sink.parts(messages)
            # From the snapshot that told how far it is: who has moved it since makes this fail.
            self._sink.target.commit(table, parts, {job: batchId}, {"query": query, "batch": batchId}, keep=True)
        except (Conflict, FileNotFoundError) as exc:
            self._tidy(messages, query, batchId)
            # Who was faster with this batch has removed files of ours, which were in no commit.
            if _reached(self._sink.table(), job) < batchId:
                raise _contended(self._sink.target.root, exc) from exc
            return
        # Tasks that were lost may have written files, and tasks of a driver that was killed. A batch has one commit.
        self._sink.remove(self._sink.marked(_mark(query, batchId)) - _names(messages))

    def abort(self, messages: Sequence[Any], batchId: int) -> None:  # noqa: N803 - Spark calls it so
        if (query := _query(messages)) is not None:
            self._tidy(messages, query, batchId)

    def _tidy(self, messages: Sequence[Any], query: str, batch: int) -> None:
        """Remove what tasks have written for a batch, and once it is in the table all that others wrote for it."""
        names, listed = _names(messages), set[str]()
        table = self._sink.target.open()
        if table is not None and _reached(table, _job(query)) >= batch:
            found = _added_by(self._sink.target.root, table.version(), _job(query), batch)
            if found is None:
                return  # its commit was cleaned out of the log
            names, listed = names | self._sink.marked(_mark(query, batch)), found
        self._sink.remove(names - listed)


def _names(messages: Sequence[Any]) -> set[str]:
    """Return the files that tasks tell of; a task that failed tells nothing."""
    return {message.name for message in messages if message is not None and message.name is not None}


def _query(messages: Sequence[Any]) -> str | None:
    return next((message.query for message in messages if message is not None), None)


def _job(query: str) -> str:
    return f"modelpack/spark/{query}"


def _added_since(root: Root, version: int) -> set[str] | None:
    """Return the files that commits behind a version have added; None if that cannot be known."""
    found: set[str] = set()
    if LOG not in storage(root).names():
        return found
    for number in itertools.count(version + 1):
        try:
            commit = read_commit(root, number)
        except InputError:
            return None
        if commit is None:
            return found if first_version(root, number) is None else None
        found.update(add.path for add in commit.adds)
    raise AssertionError("there is no last number")


def _added_by(root: Root, newest: int, job: str, batch: int) -> set[str] | None:
    """Return the files that the commit of a batch has added; None if it is not in the log, or cannot be read."""
    for number in range(newest, -1, -1):
        try:
            commit = read_commit(root, number)
        except InputError:
            return None
        if commit is None:
            return None
        if commit.transactions.get(job) == batch:
            return {add.path for add in commit.adds}
    return None


def _contended(root: Root, error: Exception) -> SaveError:
    message = f"{root} cannot be written: others changed it at the same time ({error})"
    return SaveError(message, code="output-contended", hint="Start the query again.")


def _mark(query: str, batch: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{query} {batch}"))


def _reached(table: Any, job: str) -> int:
    """Return the number of the last batch that is in the table; -1 if there is none."""
    found = table.transaction_version(job)
    return -1 if found is None else int(found)
