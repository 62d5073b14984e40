"""Delta tables in sessions of Spark that lack Delta's jars: a Python Data Source over our own reading and committing.

It is registered by `modelpack.spark.register(spark)` under the name `modelpack_delta` (docs/spark.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyspark.sql import datasource
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from modelpack.errors import UsageError
from modelpack_server.delta.history import When, snapshot_at
from modelpack_server.delta.log import Shape
from modelpack_server.delta.snapshots import shape_of
from modelpack_server.delta.storage import local
from modelpack_server.delta.tables import open_table
from modelpack_server.spark.sinks import Sink, StreamWriter, Writer
from modelpack_server.spark.sources import Files, Reader, StreamReader
from modelpack_server.stream.options import Options

__all__ = ["DeltaSource"]

NAME = "modelpack_delta"

# What others call options of ours.
_CALLED = {"versionasof": "version", "startingversion": "fromVersion"}
# Spark hands its own options for the sink of a query to the sink too.
_OF_QUERIES = ("checkpointLocation", "queryName")


class DeltaSource(datasource.DataSource):
    """A Delta table at a local path, as source and sink, of batches and of streams."""

    @classmethod
    def name(cls) -> str:
        """Return what stands in `format(...)`."""
        return NAME

    def schema(self) -> StructType:
        """Return the table's columns, as they were at the option `version`, in Spark's types."""
        version = self._number("version")
        shape = _shape(self._root()) if version is None else snapshot_at(self._root(), When(version=version)).shape
        return from_arrow_schema(shape.schema, prefer_timestamp_ntz=True)

    def reader(self, schema: StructType) -> Reader:
        """Return what reads the table as it is, or was at the option `version`."""
        self._only("a batch that is read", ["version"])
        found = snapshot_at(self._root(), When(version=self._number("version")))
        return Reader(Files(self._root(), found.shape, schema), found.adds)

    def streamReader(self, schema: StructType) -> StreamReader:  # noqa: N802 - Spark calls it so
        """Return what reads the table and then what is added to it, from the option `fromVersion` on."""
        self._only("a stream that is read", ["fromVersion", "changes"])
        changes = self.options.get("changes", "fail")
        if changes not in ("fail", "append"):
            raise UsageError(f"{changes!r} is not 'fail' or 'append'", code="source-option", path="changes")
        options = Options(from_version=self._number("fromVersion"), changes="append" if changes == "append" else "fail")
        return StreamReader(Files(self._root(), _shape(self._root()), schema), options)

    def writer(self, schema: StructType, overwrite: bool) -> Writer:
        """Return what adds rows to the table, or replaces those there, in one commit."""
        self._only("a batch that is written", [])
        return Writer(Sink(self._root(), schema), overwrite)

    def streamWriter(self, schema: StructType, overwrite: bool) -> StreamWriter:  # noqa: N802 - Spark calls it so
        """Return what adds the rows of each batch in one commit, which tells the batch too."""
        if overwrite:
            raise UsageError("a stream can only append", code="output-mode", hint="Use outputMode('append').")
        self._only("a stream that is written", [], _OF_QUERIES)
        return StreamWriter(Sink(self._root(), schema))

    def _root(self) -> Path:
        if "path" not in self.options:
            raise UsageError("a Delta table needs a path", code="path-missing", hint="load(PATH), or start(PATH).")
        return local(str(self.options["path"])).absolute()

    def _only(self, what: str, known: Sequence[str], others: Sequence[str] = ()) -> None:
        """Refuse options that would do nothing, as whoever gives one counts on it; Spark has them in small letters."""
        taken = {name.lower() for name in ("path", *known, *others)}
        for name in sorted(self.options):
            if name.lower() not in taken:
                meant = _CALLED.get(name.lower())
                hint = f"It has: {', '.join(known)}." if known else "It has none."
                hint = f"Here it is called {meant}." if meant in known else hint
                raise UsageError(f"{what} has no option {name!r}", code="source-option", path=name, hint=hint)

    def _number(self, name: str) -> int | None:
        if name not in self.options:
            return None
        text = str(self.options[name])
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise UsageError(f"{text!r} is not the number of a version", code="source-option", path=name)
        return int(text)


def _shape(root: Path) -> Shape:
    return shape_of(open_table(root), root)
