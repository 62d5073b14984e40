"""Data files of ours: written, and then what the log says of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import IO, Any

import orjson
import pyarrow as pa

from modelpack_server.columnar import ParquetWriter
from modelpack_server.delta.storage import Storage
from modelpack_server.delta.tables import require

__all__ = ["Part"]


class Part:
    """One data file while it is written, and then its entry in the log. ``name``: its path in the table."""

    def __init__(self, name: str, file: IO[bytes] | None = None) -> None:
        self.name = name
        self.rows = 0
        self._writer = None if file is None else ParquetWriter(file)
        self._metadata: Any = None
        self._size = 0
        self._modified = 0.0

    @classmethod
    def existing(cls, files: Storage, name: str) -> Part:
        """Return a data file that is whole already.

        Raises:
            FileNotFoundError: it is not there.
        """
        part, look = cls(name), files.look(name)
        if look is None:
            raise FileNotFoundError(name)
        with files.parquet(name) as file:
            part._metadata = file.metadata
        part.rows, part._size, part._modified = int(part._metadata.num_rows), look.size, look.modified
        return part

    def write(self, table: pa.Table) -> None:
        """Append rows that fit the table."""
        assert self._writer is not None
        self.rows += table.num_rows
        self._writer.write(table)

    def close(self, error: BaseException | None) -> None:
        """Write the end of the file, unless there was an error."""
        assert self._writer is not None
        (self._writer.abandon if error else self._writer.close)()
        self._metadata, self._size, self._modified = self._writer.metadata, self._writer.size, time.time()
        self._writer = None

    @property
    def schema(self) -> pa.Schema:
        """The columns of the file."""
        return self._metadata.schema.to_arrow_schema()

    def action(self) -> Any:
        """Return the entry for the log."""
        actions, stats = require("deltalake.transaction"), orjson.dumps(_statistics(self._metadata)).decode()
        return actions.AddAction(self.name, self._size, {}, int(self._modified * 1000), True, stats)


def _statistics(found: Any) -> Mapping[str, Any]:
    """Return what the log says of a file: rows, missing values, and bounds where these are whole numbers."""
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
