"""Delta tables in sessions of Spark that lack Delta's jars: a Python Data Source over our own reading and committing.

It is registered by `modelpack.spark.register(spark)` under the name `modelpack_delta` (docs/spark.md).
"""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import datasource
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from modelpack.errors import UsageError
from modelpack_server.delta.history import When, snapshot_at
from modelpack_server.delta.log import Shape
from modelpack_server.delta.snapshots import shape_of
from modelpack_server.delta.tables import local, open_table
from modelpack_server.spark.sinks import Sink, StreamWriter, Writer
from modelpack_server.spark.sources import Files, Reader, StreamReader
from modelpack_server.stream.options import Options

__all__ = ["DeltaSource"]

NAME = "modelpack_delta"


class DeltaSource(datasource.DataSource):
    """A Delta table at a local path, as source and sink, of batches and of streams."""

    @classmethod
    def name(cls) -> str:
        """Return what stands in `format(...)`."""
        return NAME

    def schema(self) -> StructType:
        """Return the table's columns in Spark's types."""
        return from_arrow_schema(_shape(self._root()).schema, prefer_timestamp_ntz=True)

    def reader(self, schema: StructType) -> Reader:
        """Return what reads the table as it is, or was at the option `version`."""
        version = self.options.get("version")
        found = snapshot_at(self._root(), When(version=None if version is None else self._number("version")))
        return Reader(Files(self._root(), found.shape, schema), found.adds)

    def streamReader(self, schema: StructType) -> StreamReader:  # noqa: N802 - Spark calls it so
        """Return what reads the table and then what is added to it, from the option `fromVersion` on."""
        changes = self.options.get("changes", "fail")
        if changes not in ("fail", "append"):
            raise UsageError(f"{changes!r} is not 'fail' or 'append'", code="source-option", path="changes")
        begin = None if "fromVersion" not in self.options else self._number("fromVersion")
        options = Options(from_version=begin, changes="append" if changes == "append" else "fail")
        return StreamReader(Files(self._root(), _shape(self._root()), schema), options)

    def writer(self, schema: StructType, overwrite: bool) -> Writer:
        """Return what adds rows to the table, or replaces those there, in one commit."""
        return Writer(Sink(self._root(), schema), overwrite)

    def streamWriter(self, schema: StructType, overwrite: bool) -> StreamWriter:  # noqa: N802 - Spark calls it so
        """Return what adds the rows of each batch in one commit, which tells the batch too."""
        if overwrite:
            raise UsageError("a stream can only append", code="output-mode", hint="Use outputMode('append').")
        return StreamWriter(Sink(self._root(), schema))

    def _root(self) -> Path:
        if "path" not in self.options:
            raise UsageError("a Delta table needs a path", code="path-missing", hint="load(PATH), or start(PATH).")
        return local(str(self.options["path"])).absolute()

    def _number(self, name: str) -> int:
        try:
            return int(self.options[name])
        except ValueError as exc:
            raise UsageError("is not a number", code="source-option", path=name) from exc


def _shape(root: Path) -> Shape:
    return shape_of(open_table(root), root)
