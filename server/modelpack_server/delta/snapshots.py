"""A Delta table as it was at one version: all its files, in an order that is the same every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack.errors import InputError
from modelpack_server.delta.log import Add, Shape, check_features, data_path
from modelpack_server.delta.naming import naming
from modelpack_server.delta.storage import Root
from modelpack_server.delta.tables import open_table, reading

__all__ = ["Snapshot", "files_of", "shape_of", "snapshot"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One version of a table, and its files."""

    version: int
    shape: Shape
    adds: Sequence[Add]


def snapshot(root: Root, version: int | None = None) -> Snapshot:
    """Return the table as it is now, or was at a version.

    Raises:
        UsageError: there is no table.
        InputError: it cannot be read, or needs more than we can (``table-unsupported``).
    """
    table = open_table(root, version)
    return Snapshot(version=table.version(), shape=shape_of(table, root), adds=files_of(table, root))


def shape_of(table: Any, root: Root) -> Shape:
    """Return what an open table is."""
    metadata, protocol = table.metadata(), table.protocol()
    check_features(protocol.reader_features or (), root)
    return Shape(
        id=metadata.id,
        schema=pa.schema(table.schema().to_arrow()),
        partitions=tuple(metadata.partition_columns),
        configuration=metadata.configuration,
        naming=naming(table.schema(), metadata.configuration, root),
    )


def files_of(table: Any, root: Root) -> list[Add]:
    """Return the files of an open table, sorted by path."""
    found = pa.table(table.get_add_actions()).to_pylist()
    vectors = _vectors(table, root, [data_path(entry["path"], root) for entry in found])
    adds = []
    for entry in sorted(found, key=lambda entry: str(entry["path"])):
        path = data_path(entry["path"], root)
        adds.append(
            Add(
                path=path,
                rows=entry.get("num_records"),
                partition=entry.get("partition") or {},
                alive=vectors.get(path),
                size=entry.get("size_bytes"),
            )
        )
    return adds


def _vectors(table: Any, root: Root, paths: Sequence[str]) -> Mapping[str, np.ndarray[Any, Any]]:
    """Return which rows are alive in the files that have a deletion vector."""
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return {}
    with reading(root, "has a deletion vector that cannot be read"):
        batches = list(pa.RecordBatchReader.from_stream(table.deletion_vectors()))
    found = {
        data_path(uri.removeprefix(table.table_uri), root): np.array(alive, dtype=bool)
        for batch in batches
        for uri, alive in zip(batch["filepath"].to_pylist(), batch["selection_vector"].to_pylist(), strict=True)
    }
    if not found.keys() <= set(paths):
        message = "has a deletion vector of a file that it does not list"
        raise InputError(message, code="table-unreadable", path=str(root))
    return found
