"""Looking for rows by their keys in a Delta table; only the columns of the key are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from modelpack_server.delta import rows
from modelpack_server.delta.log import Add, Shape, data_path
from modelpack_server.delta.snapshots import files_of, shape_of
from modelpack_server.delta.storage import Root

__all__ = ["found", "repeated", "touches"]

# Rows of the table that are compared at a time.
_BATCH = 2**18


def touches(root: Root, table: Any, keys: pa.Table) -> bool:
    """Say whether an open table has a row with one of these keys."""
    return any(True for _ in _rows(root, table, keys))


def found(root: Root, table: Any, keys: pa.Table) -> pa.Table:
    """Return those of these keys that an open table has a row with, each once."""
    return _counted(root, table, keys).select(range(keys.num_columns)).rename_columns(keys.column_names)


def repeated(root: Root, table: Any, keys: pa.Table) -> bool:
    """Say whether an open table has more than one row with one of these keys."""
    return bool((pc.max(_counted(root, table, keys).column("count_all")).as_py() or 0) > 1)


def _counted(root: Root, table: Any, keys: pa.Table) -> pa.Table:
    """Return the keys that there are rows with, by names that they never have, and how many."""
    names = [f"key{number}" for number in range(keys.num_columns)]
    pieces = [keys.slice(0, 0), *_rows(root, table, keys)]
    whole = pa.concat_tables([piece.rename_columns(names) for piece in pieces], promote_options="permissive")
    return whole.group_by(names).aggregate([([], "count_all")])


def _rows(root: Root, table: Any, keys: pa.Table) -> Iterator[pa.Table]:
    """Yield the keys of the rows of a table that have one of these, where there are any."""
    if not keys.num_rows:
        return
    shape, names = shape_of(table, root), keys.column_names
    keys = keys.cast(pa.schema([pa.field(name, shape.schema.field(name).type) for name in names]))
    for add in _near(table, root, shape, keys):
        for part, _ in rows.read(root, add, shape, names, _BATCH):
            met = part.join(keys, keys=names, join_type="left semi")
            if met.num_rows:
                yield met


def _near(table: Any, root: Root, shape: Shape, keys: pa.Table) -> Iterator[Add]:
    """Yield the files whose bounds do not rule out all keys; only bounds of whole numbers are sure to be exact."""
    known = pa.table(table.get_add_actions(flatten=True))
    paths = [data_path(path, root) for path in known.column("path").to_pylist()]
    far: set[str] = set()
    for name in keys.column_names if shape.naming.plain else ():
        if not pa.types.is_integer(keys.schema.field(name).type) or f"min.{name}" not in known.column_names:
            continue
        ends = pc.min_max(keys.column(name)).as_py()
        least, most = (known.column(f"{end}.{name}").to_pylist() for end in ("min", "max"))
        bounds = zip(paths, least, most, strict=True)
        far |= {path for path, low, high in bounds
                if low is not None and high is not None and (low > ends["max"] or high < ends["min"])}  # fmt: skip
    return (add for add in files_of(table, root) if add.path not in far)
