"""The rows of one data file of a Delta table, in the table's own types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelpack.errors import InputError
from modelpack_server.delta.kinds import alike
from modelpack_server.delta.log import Add, Shape
from modelpack_server.delta.storage import PIECE, Root, inside, storage

__all__ = ["PIECE", "Groups", "batches", "constant", "count", "count_new", "read"]

Groups = Callable[[Any, set[str]], Sequence[int] | None]

# The column of the change data feed that says what a row is, and the words that stand for a row that is there
# afterwards, and for one that was there before.
_CHANGE = "_change_type"
_NEW = pa.array(["insert", "update_postimage"])
_OLD = pa.array(["delete", "update_preimage"])
# Rows of which only that column is read at a time.
_MANY = 100_000


def count(root: Root, add: Add) -> int:
    """Return how many rows a file has: as the log tells, or else as the file does."""
    rows = add.rows
    if rows is None:
        with storage(root).parquet(add.path) as file:
            rows = int(file.metadata.num_rows)
    return rows if add.alive is None else rows - int((~add.alive).sum())


def count_new(root: Root, add: Add) -> int:
    """Return how many rows of a file are new, or became what they are."""
    if add.old or not add.change:
        return 0 if add.old else count(root, add)
    with storage(root).parquet(add.path) as file:
        return sum(int(_is_change(batch, add).sum()) for _, batch in batches(file, [_CHANGE], _MANY))


def read(
    root: Root, add: Add, shape: Shape, names: Sequence[str], size: int, groups: Groups | None = None
) -> Iterator[tuple[pa.Table, np.ndarray[Any, Any]]]:
    """Yield tables of at most ``size`` rows with the columns ``names``, and the 1-based numbers of the rows.

    Columns that the file does not have are missing; those the table was partitioned by, when the file came, have the
    file's one value.
    ``groups`` says which row groups are read (None: all), given the file's metadata and its columns.

    Raises:
        FileNotFoundError: the file is gone.
        InputError: the file cannot be read as the table says (``file-unreadable``), or has a column in a type whose
            values are others (``source-columns``).
    """
    path, layout = inside(root, add.path), add.layout or shape
    try:
        with storage(root).parquet(add.path) as file:
            layout.naming.check(shape.schema, names, root)
            known = layout.naming.inside(file.schema_arrow, path)
            there = {name: known[name] for name in known if name not in layout.partitions}
            _check(file.schema_arrow, there, replace(layout, schema=shape.schema), names, path)
            columns = [there[name] for name in names if name in there] + ([_CHANGE] if add.change else [])
            chosen = None if groups is None else groups(file.metadata, set(there))
            for first, batch in batches(file, columns, size, chosen):
                numbers = np.arange(first + 1, first + 1 + batch.num_rows)
                table = _table(batch, add, shape, names, there, path)
                mask = _mask(batch, add, numbers)
                if mask is not None:
                    table, numbers = table.filter(pa.array(mask)), numbers[mask]
                yield table, numbers
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as exc:
        reason = " ".join(str(exc).split())[:200]
        message = f"cannot be read as the table's log says: {reason}"
        raise InputError(message, code="file-unreadable", path=str(path)) from exc


def _check(schema: pa.Schema, known: Mapping[str, str], table: Shape, names: Sequence[str], path: Root) -> None:
    """Refuse values that would have to become others, as text that happens to be digits would, or be overlooked."""
    others = {name.lower(): name for name in known}
    for name in names:
        if name not in known:
            other = others.get(name.lower())
            if other is not None and name not in table.partitions:
                raise InputError(
                    f"has the column {other!r}, and the table {name!r}: only the case of letters is not the same",
                    code="source-columns",
                    path=str(path),
                    hint="Write the file anew, with the table's names.",
                )
            continue
        found, kind = schema.field(known[name]).type, table.schema.field(name).type
        if not alike(found, kind):
            raise InputError(
                f"has the column {name!r} as {found}, and the table as {kind}",
                code="source-columns",
                path=str(path),
                hint="It is from before the table was given other columns.",
            )


def batches(
    file: Any, columns: Sequence[str], size: int, groups: Sequence[int] | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches of a Parquet file's row groups (None: all), each with the number of rows in the file before it."""
    starts = [0]
    for number in range(file.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(number).num_rows)
    for run in [[]] if groups is None else _runs(groups):
        row = starts[run[0]] if run else 0
        for batch in file.iter_batches(batch_size=size, columns=columns, row_groups=run or None):
            yield row, batch
            row += batch.num_rows


def _runs(groups: Sequence[int]) -> list[list[int]]:
    """Return ascending numbers as runs without a gap."""
    runs: list[list[int]] = []
    for number in groups:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _mask(batch: pa.RecordBatch, add: Add, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return which rows count; None if all do."""
    if add.change:
        return _is_change(batch, add)
    if add.alive is None or not len(numbers):
        return None
    known = add.alive[numbers[0] - 1 : numbers[-1]]
    # What a deletion vector is too short to speak of is alive.
    return np.concatenate([known, np.ones(len(numbers) - len(known), dtype=bool)])


def _is_change(batch: pa.RecordBatch, add: Add) -> np.ndarray[Any, Any]:
    words = pc.is_in(batch.column(_CHANGE), value_set=_OLD if add.old else _NEW)
    found: np.ndarray[Any, Any] = words.to_numpy(zero_copy_only=False)
    return found


def _table(
    batch: pa.RecordBatch, add: Add, shape: Shape, names: Sequence[str], there: Mapping[str, str], path: Root
) -> pa.Table:
    columns = []
    for name in names:
        kind = shape.schema.field(name).type
        if name in (add.layout or shape).partitions:
            columns.append(constant(add.partition.get(name), kind, batch.num_rows))
        elif name in there:
            column = batch.column(there[name])
            columns.append(column if column.type == kind else _cast(column, kind, name, path))
        else:
            columns.append(pa.nulls(batch.num_rows, kind))
    return pa.table(columns, schema=pa.schema([pa.field(name, shape.schema.field(name).type) for name in names]))


def _cast(column: pa.Array, kind: pa.DataType, name: str, path: Root) -> pa.Array:
    try:
        return column.cast(kind)
    except pa.ArrowException as exc:
        # Arrow may quote the value in its message; ours must not.
        message = (
            f"has a value in the column {name!r}, which is {column.type}, that the table's type {kind} does not have"
        )
        raise InputError(message, code="file-unreadable", path=str(path)) from exc


def constant(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    """Return a column of one partition value: text as the log has it, or of its own type."""
    if value is None or value == "":
        return pa.nulls(rows, kind)
    if isinstance(value, str) and pa.types.is_timestamp(kind):
        # Without an offset such values are UTC, in columns that have a zone.
        scalar = pa.array([value.removesuffix("Z")]).cast(pa.timestamp(kind.unit)).cast(kind)[0]
    elif isinstance(value, str):
        scalar = pa.array([value]).cast(kind)[0]
    else:
        scalar = pa.scalar(value, kind)
    return pa.repeat(scalar, rows)
