"""Delta tables in sessions of Spark that lack Delta's jars: a Python Data Source over our own reading and committing.

It is registered by `modelpack.spark.register(spark)` under the name `modelpack_delta` (docs/spark.md).
"""

from __future__ import annotations

import functools
import inspect
import itertools
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import datasource
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructType

from modelpack.errors import InputError, SaveError, UsageError
from modelpack_server.delta import rows
from modelpack_server.delta.commit import Conflict, Part, Target, fit
from modelpack_server.delta.history import When, snapshot_at
from modelpack_server.delta.kinds import storable
from modelpack_server.delta.log import Add, Shape
from modelpack_server.delta.position import Position
from modelpack_server.delta.snapshots import shape_of
from modelpack_server.delta.tables import local, open_table
from modelpack_server.stream.follow import Follower
from modelpack_server.stream.options import Options

__all__ = ["DeltaSource"]

NAME = "modelpack_delta"
_ROWS = 16_384
_OWN = "-modelpack."
# What Spark tells the tasks of a streaming query: its id, which a restart from the checkpoint keeps, and the batch.
_QUERY, _BATCH = "sql.streaming.queryId", "streaming.sql.batchId"

_INSTEAD = {
    "source-changed": "With the option changes set to append it goes on: new and changed rows are read.",
    "source-columns": "Start the query again, if it takes the column like that.",
    "source-gap": "Begin anew, with another checkpoint.",
    "source-replaced": "Begin anew, with another checkpoint and another output.",
}

# Spark hands Arrow batches to a streaming sink of this class. Before 4.2 it has none, and looks for the other one.
_StreamWriter: Any = getattr(datasource, "DataSourceStreamArrowWriter", None) or type(
    "_StreamWriter", (datasource.DataSourceStreamWriter, datasource.DataSourceArrowWriter), {}
)


class DeltaSource(datasource.DataSource):
    """A Delta table at a local path, as source and sink, of batches and of streams."""

    @classmethod
    def name(cls) -> str:
        """Return what stands in `format(...)`."""
        return NAME

    def schema(self) -> StructType:
        """Return the table's columns in Spark's types."""
        return from_arrow_schema(_shape(self._root()).schema, prefer_timestamp_ntz=True)

    def reader(self, schema: StructType) -> _Reader:
        """Return what reads the table as it is, or was at the option `version`."""
        version = self.options.get("version")
        found = snapshot_at(self._root(), When(version=None if version is None else self._number("version")))
        return _Reader(_Files(self._root(), found.shape, schema), found.adds)

    def streamReader(self, schema: StructType) -> _StreamReader:  # noqa: N802 - Spark calls it so
        """Return what reads the table and then what is added to it, from the option `fromVersion` on."""
        changes = self.options.get("changes", "fail")
        if changes not in ("fail", "append"):
            raise UsageError(f"{changes!r} is not 'fail' or 'append'", code="source-option", path="changes")
        begin = None if "fromVersion" not in self.options else self._number("fromVersion")
        options = Options(from_version=begin, changes="append" if changes == "append" else "fail")
        return _StreamReader(_Files(self._root(), _shape(self._root()), schema), options)

    def writer(self, schema: StructType, overwrite: bool) -> _Writer:
        """Return what adds rows to the table, or replaces those there, in one commit."""
        return _Writer(_Sink(self._root(), schema), overwrite)

    def streamWriter(self, schema: StructType, overwrite: bool) -> _StreamSink:  # noqa: N802 - Spark calls it so
        """Return what adds the rows of each batch in one commit, which tells the batch too."""
        if overwrite:
            raise UsageError("a stream can only append", code="output-mode", hint="Use outputMode('append').")
        return _StreamSink(_Sink(self._root(), schema))

    def _root(self) -> Path:
        if "path" not in self.options:
            raise UsageError("a Delta table needs a path", code="path-missing", hint="load(PATH), or start(PATH).")
        return local(str(self.options["path"])).absolute()

    def _number(self, name: str) -> int:
        try:
            return int(self.options[name])
        except ValueError as exc:
            raise UsageError("is not a number", code="source-option", path=name) from exc


def _arrow(schema: StructType) -> pa.Schema:
    """Return Spark's columns as Arrow has them on the way to and from Spark; from 4.2 on it asks for the zone."""
    zone: dict[str, Any] = {"timezone": "UTC"} if "timezone" in inspect.signature(to_arrow_schema).parameters else {}
    return to_arrow_schema(schema, **zone)


def _shape(root: Path) -> Shape:
    return shape_of(open_table(root), root)


class _File(datasource.InputPartition):
    """One data file, for one task."""

    def __init__(self, add: Add) -> None:
        super().__init__(add.path)
        self.add = add


class _Files:
    """Reads data files in the columns and types that Spark asks for."""

    def __init__(self, root: Path, shape: Shape, schema: StructType) -> None:
        self.root = root
        self._shape = shape
        self.schema = _arrow(schema)
        for name in self.schema.names:
            if name not in shape.schema.names:
                raise InputError(f"has no column {name!r}", code="column-missing", path=str(root))

    def read(self, add: Add) -> Iterator[pa.RecordBatch]:
        path = str(self.root / add.path)
        try:
            for table, _ in rows.read(self.root, add, self._shape, self.schema.names, _ROWS):
                yield from self._cast(table, path)
        except FileNotFoundError as exc:
            raise InputError("is gone: the table was vacuumed", code="table-file-missing", path=path) from exc

    def _cast(self, table: pa.Table, path: str) -> list[pa.RecordBatch]:
        try:
            return list(table.cast(self.schema).to_batches())
        except (pa.ArrowException, ValueError) as exc:
            message = "has a value that is not exact in the type that was asked for"
            raise InputError(message, code="not-exact", path=path) from exc


class _Reader(datasource.DataSourceReader):
    def __init__(self, files: _Files, adds: Sequence[Add]) -> None:
        self._files = files
        self._adds = adds

    def partitions(self) -> Sequence[_File]:
        return [_File(add) for add in self._adds]

    def read(self, partition: datasource.InputPartition) -> Iterator[pa.RecordBatch]:
        # Of a table without files, Spark asks for one partition all the same.
        return self._files.read(partition.add) if isinstance(partition, _File) else iter(())


class _StreamReader(datasource.DataSourceStreamReader):
    """Offsets tell which version comes next; `base` is the version of which the whole table is read first, if any."""

    def __init__(self, files: _Files, options: Options) -> None:
        self._files = files
        self._options = options

    @functools.cached_property
    def _follower(self) -> Follower:
        follower = Follower(self._files.root, self._options)
        follower.needed = self._files.schema.names
        return follower

    def __getstate__(self) -> dict[str, Any]:
        """Tasks read files, and follow nothing."""
        return {"_files": self._files, "_options": self._options}

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark calls it so
        return self._offset(self._follower.first())

    def latestOffset(self) -> dict[str, int]:  # noqa: N802 - Spark calls it so
        return self._offset(Position(version=open_table(self._files.root).version() + 1))

    def partitions(self, start: Mapping[str, int], end: Mapping[str, int]) -> Sequence[_File]:
        try:
            return self._between(start, end)
        except InputError as exc:
            # What it says to do is about the command `modelpack stream`.
            raise InputError(exc.message, code=exc.code, path=exc.path, hint=_INSTEAD.get(exc.code, "")) from exc

    def _between(self, start: Mapping[str, int], end: Mapping[str, int]) -> list[_File]:
        for offset in (start, end):
            self._follower.belongs(offset["table"], Path("what is in the checkpoint"))
        found: list[_File] = []
        at = Position(version=start["version"], base=start["base"])
        while at.version < end["version"]:
            work = self._follower.gather(at)
            found += [_File(piece.add) for piece in work.pieces if piece.place.version < end["version"]]
            if work.end == at:
                raise InputError("has not got so far", code="source-gap", path=str(self._files.root))
            at = work.end
        return found

    def read(self, partition: datasource.InputPartition) -> Iterator[pa.RecordBatch]:
        return self._files.read(partition.add) if isinstance(partition, _File) else iter(())

    def _offset(self, place: Position) -> dict[str, int]:
        return {"version": place.version, "base": place.base, "table": self._follower.fingerprint}


@dataclass(frozen=True, kw_only=True)
class _Written(datasource.WriterCommitMessage):
    """What a task wrote: a file, unless it had no row; and for which query."""

    name: str | None
    query: str | None = None


class _Sink:
    """Writes data files that no log lists yet."""

    def __init__(self, root: Path, schema: StructType) -> None:
        # There are files before there is a table: its name says that they are ours.
        self.target = Target(root, family="spark", own=_OWN)
        self.schema = storable(_arrow(schema).empty_table())

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


class _Writer(datasource.DataSourceArrowWriter):
    def __init__(self, sink: _Sink, overwrite: bool) -> None:
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


class _StreamSink(_StreamWriter):  # type: ignore[misc] # which class it is depends on the version of Spark
    """Each batch of a query is in the table once: its number is in the same commit as its rows."""

    def __init__(self, sink: _Sink) -> None:
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
