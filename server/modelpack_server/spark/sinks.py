"""Rows of Spark on their way into a Delta table: executors write files that no log lists, the driver commits them."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import datasource
from pyspark.sql.types import StructType

from modelpack.errors import SaveError
from modelpack_server.delta.commit import Conflict, Part, Target, fit
from modelpack_server.delta.kinds import storable
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

    def write(self, batches: Iterator[pa.RecordBatch], unique: str) -> str | None:
        """Write the rows of a task, and return the name of the file; None if there is no row."""
        batches = (batch for batch in batches if batch.num_rows)
        first = next(batches, None)
        if first is None:
            return None
        context = TaskContext.get()
        number = context.partitionId() if context is not None else 0
        name = f"part-{number:05d}-{unique}{_OWN}snappy.parquet"
        table = self.target.open()
        schema = self.schema if table is None else pa.schema(table.schema().to_arrow())
        with self.target.part(name) as part:
            for batch in itertools.chain([first], batches):
                part.write(fit(pa.Table.from_batches([batch]), schema, self.target.root))
        return name

    def parts(self, messages: Sequence[Any]) -> list[Part]:
        """Return the files that tasks tell of; a task that failed tells nothing."""
        names = [message.name for message in messages if message is not None and message.name is not None]
        return [Part.existing(self.target.root / name) for name in names]

    def table(self) -> Any:
        """Return the table, made if there is none."""
        table = self.target.open()
        return self.target.create(self.schema) if table is None else table

    def remove(self, messages: Sequence[Any]) -> None:
        """Remove the files that tasks tell of, unless a commit has them."""
        self._remove([message.name for message in messages if message is not None and message.name is not None])

    def sweep(self, pattern: str) -> None:
        """Remove the files of a pattern that are in no commit."""
        self._remove([path.name for path in self.target.root.glob(pattern)])

    def _remove(self, names: Sequence[str]) -> None:
        if names:
            self.target.discard(self.target.root / name for name in names)


class Writer(datasource.DataSourceArrowWriter):
    def __init__(self, sink: Sink, overwrite: bool) -> None:
        self._sink = sink
        self._overwrite = overwrite

    def write(self, iterator: Iterator[pa.RecordBatch]) -> _Written:
        return _Written(name=self._sink.write(iterator, str(uuid.uuid4())))

    def commit(self, messages: Sequence[Any]) -> None:
        table, parts = self._sink.table(), self._sink.parts(messages)
        try:
            self._sink.target.commit(table, parts, {}, {}, mode="overwrite" if self._overwrite else "append")
        except Conflict as exc:
            raise _contended(self._sink.target.root) from exc

    def abort(self, messages: Sequence[Any]) -> None:
        self._sink.remove(messages)


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
        # A task that is done again writes another file; those of a batch are known by their name.
        unique = f"{_mark(query, int(batch))}.{secrets.token_hex(4)}"
        return _Written(name=self._sink.write(iterator, unique), query=query)

    def commit(self, messages: Sequence[Any], batchId: int) -> None:  # noqa: N803 - Spark calls it so
        query = next((message.query for message in messages if message is not None), None)
        if query is None:
            return  # no task, and so no row
        job = f"modelpack/spark/{query}"
        table = self._sink.table()
        if _reached(table, job) >= batchId:
            self._sink.remove(messages)
            return
        try:
            parts = self._sink.parts(messages)
            # From the snapshot that told how far it is: who has moved it since makes this fail.
            self._sink.target.commit(table, parts, {job: batchId}, {"query": query, "batch": batchId})
        except (Conflict, FileNotFoundError) as exc:
            self._sink.remove(messages)
            # Who was faster with this batch has removed files of ours, which were in no commit.
            if _reached(self._sink.table(), job) < batchId:
                raise _contended(self._sink.target.root) from exc
            return
        # Tasks that were lost may have written files, and tasks of a driver that was killed.
        self._sink.sweep(f"part-*-{_mark(query, batchId)}.*.parquet")

    def abort(self, messages: Sequence[Any], batchId: int) -> None:  # noqa: N803 - Spark calls it so
        self._sink.remove(messages)


def _contended(root: Path) -> SaveError:
    message = f"{root} cannot be written: others changed it at the same time"
    return SaveError(message, code="output-contended", hint="Start the query again.")


def _mark(query: str, batch: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{query} {batch}"))


def _reached(table: Any, job: str) -> int:
    """Return the number of the last batch that is in the table; -1 if there is none."""
    found = table.transaction_version(job)
    return -1 if found is None else int(found)
