"""The rows of a Delta table on their way to Spark: as they are in a batch, and as they come in a stream."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import datasource
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from modelpack.errors import InputError, UsageError
from modelpack_server.delta import rows
from modelpack_server.delta.log import Add, Shape
from modelpack_server.delta.position import Position, fingerprint
from modelpack_server.delta.tables import open_table
from modelpack_server.spark.kinds import arrow, holds
from modelpack_server.stream.follow import Follower
from modelpack_server.stream.options import Options

__all__ = ["Files", "Reader", "StreamReader"]

_ROWS = 16_384

_INSTEAD = {
    "source-changed": "With the option changes set to append it goes on: new and changed rows are read.",
    "source-columns": "Start the query again, if it takes the column like that.",
    "source-gap": "Begin anew, with another checkpoint.",
    "source-replaced": "Begin anew, with another checkpoint and another output.",
}


class _File(datasource.InputPartition):
    """One data file, for one task."""

    def __init__(self, add: Add) -> None:
        super().__init__(add.path)
        self.add = add


class Files:
    """Reads data files in the columns and types that Spark asks for."""

    def __init__(self, root: Path, shape: Shape, schema: StructType) -> None:
        self.root = root
        self._shape = shape
        self.schema = arrow(schema)
        own = arrow(from_arrow_schema(shape.schema, prefer_timestamp_ntz=True))
        for wanted in self.schema:
            if wanted.name not in own.names:
                raise InputError(f"has no column {wanted.name!r}", code="column-missing", path=str(root))
            found = own.field(wanted.name)
            if not holds(wanted.type, found.type):
                message = f"the column {wanted.name!r} is {found.type}, not all of which is exact as {wanted.type}"
                hint = "Read it as it is, and cast it in the query."
                raise InputError(message, code="not-exact", path=str(root), hint=hint)

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


class Reader(datasource.DataSourceReader):
    def __init__(self, files: Files, adds: Sequence[Add]) -> None:
        self._files = files
        self._adds = adds

    def partitions(self) -> Sequence[_File]:
        return [_File(add) for add in self._adds]

    def read(self, partition: datasource.InputPartition) -> Iterator[pa.RecordBatch]:
        # Of a table without files, Spark asks for one partition all the same.
        return self._files.read(partition.add) if isinstance(partition, _File) else iter(())


class StreamReader(datasource.DataSourceStreamReader):
    """Offsets tell which version comes next; `base` is the version of which the whole table is read first, if any."""

    def __init__(self, files: Files, options: Options) -> None:
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
        try:
            return self._offset(self._follower.first())
        except UsageError as exc:
            path = "fromVersion" if exc.code == "version-absent" else exc.path
            raise UsageError(exc.message, code=exc.code, path=path, hint=exc.hint) from exc

    def latestOffset(self) -> dict[str, int]:  # noqa: N802 - Spark calls it so
        # Whatever is there now, which need not be the table that is followed.
        table = open_table(self._files.root)
        return {**self._offset(Position(version=table.version() + 1)), "table": fingerprint(table.metadata().id)}

    def partitions(self, start: Mapping[str, int], end: Mapping[str, int]) -> Sequence[_File]:
        try:
            return self._between(start, end)
        except InputError as exc:
            # What it says to do is about the command `modelpack stream`.
            raise InputError(exc.message, code=exc.code, path=exc.path, hint=_INSTEAD.get(exc.code, "")) from exc

    def _between(self, start: Mapping[str, int], end: Mapping[str, int]) -> list[_File]:
        for offset in (start, end):
            self._follower.belongs(offset["table"], "what is in the checkpoint")
        if end["version"] < start["version"]:
            message = f"went back from version {start['version'] - 1} to {end['version'] - 1}"
            raise InputError(message, code="source-replaced", path=str(self._files.root))
        found: list[_File] = []
        at = Position(version=start["version"], base=start["base"])
        self._follower.check(at)
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
