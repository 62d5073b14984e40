"""The model's answers as columns, called the same in files that batches write and in replies over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack import coerce, render
from modelpack.errors import OutputError
from modelpack.frame import Frame
from modelpack.signature import IO, Tensors
from modelpack_server.codecs import cells, shapes

__all__ = ["empty", "records", "rename", "table_of", "to_arrow", "to_table"]

SINGLE = "prediction"


def to_table(frame: Frame, rows: int) -> pa.Table:
    """Return the answers for ``rows`` rows as an Arrow table.

    One tensor is ``prediction``, its second dimension ``prediction_0``, ``prediction_1``…; several tensors and the
    columns of a table go by their own names; a name that is taken gets ``_prediction`` behind it. A list of JSON values
    is ``prediction``, as JSON text.

    Raises:
        OutputError: there is not one answer for each row (``output-rows``).
    """
    if frame.columns is not None and [vector.type for vector in frame.columns.values()] == [coerce.JSON]:
        return _json(render.plain(frame), rows)
    if frame.columns is not None:
        return to_arrow(frame)
    for array in (frame.tensors or {}).values():
        if array.shape[:1] != (rows,):
            raise _wrong(f"{len(array)} rows" if array.ndim else "one answer", rows)
    return _tensors(frame.tensors or {}, frozenset())


def table_of(frame: Frame, media: str) -> pa.Table:
    """Return an answer that goes over HTTP as a table.

    Raises:
        HttpProblem: 406 for what is no table: free JSON, or tensors that have no or not the same rows.
    """
    count = shapes.rows(frame)
    if count is None:
        raise shapes.refuse(frame, media, f"this answer is no table, as which {media} would say it")
    return to_table(frame, count)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table as records ready for :func:`cells.dump`."""
    names = table.column_names
    columns = [
        [None if text is None else json.loads(text) for text in column.to_pylist()]
        if field.metadata == cells.JSON
        else cells.plain(column)
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def to_arrow(frame: Frame) -> pa.Table:
    """Return the columns of a frame; those of any type are JSON text, and say so."""
    table = render.to_arrow(frame)
    for place, (name, vector) in enumerate((frame.columns or {}).items()):
        if vector.type == "any":
            field = pa.field(name, pa.string(), metadata=cells.JSON)
            table = table.set_column(place, field, table.column(place))
    return table


def _tensors(tensors: Mapping[str, np.ndarray[Any, Any]], binary: frozenset[str]) -> pa.Table:
    columns: dict[str, Any] = {}
    for name, array in tensors.items():
        shown = SINGLE if len(tensors) == 1 else name
        for column, values in _spread(shown, array, pa.binary() if name in binary else None).items():
            while column in columns:
                column = f"{column}_{SINGLE}"
            columns[column] = values
    return pa.table(columns)


def _json(value: Any, rows: int) -> pa.Table:
    if not isinstance(value, list) or len(value) != rows:
        raise _wrong("one answer" if not isinstance(value, list) else f"{len(value)} answers", rows)
    texts = pa.array([None if item is None else cells.dump(item).decode() for item in value], pa.string())
    return pa.table([texts], schema=pa.schema([pa.field(SINGLE, pa.string(), metadata=cells.JSON)]))


def _wrong(found: str, rows: int) -> OutputError:
    return OutputError(f"the model gave {found} for {rows} rows", code="output-rows")


def _spread(name: str, array: np.ndarray[Any, Any], kind: pa.DataType | None) -> dict[str, Any]:
    if array.ndim == 2:
        return {f"{name}_{i}": _column(np.ascontiguousarray(array[:, i]), kind) for i in range(array.shape[1])}
    if array.ndim < 2:
        return {name: _column(array, kind)}
    column = _column(np.ascontiguousarray(array).reshape(-1), kind)
    if array.size:
        for size in reversed(array.shape[1:]):
            column = pa.FixedSizeListArray.from_arrays(column, size)
        return {name: column}
    kind = column.type
    for size in reversed(array.shape[1:]):
        kind = pa.list_(kind, size)
    return {name: pa.array(array.tolist(), type=kind)}


def _column(array: np.ndarray[Any, Any], kind: pa.DataType | None) -> pa.Array:
    if array.dtype == object and kind is None:
        kind = pa.binary() if any(isinstance(value, bytes) for value in array) else pa.string()
    return pa.array(array, type=kind, from_pandas=True)  # NaN is a missing value, as everywhere


def empty(outputs: IO | None) -> pa.Table:
    """Return the columns that answers will have as far as the signature tells, without a row."""
    if isinstance(outputs, Tensors):
        shapes = {t.name: [0, *(size for size in t.shape[1:] if isinstance(size, int))] for t in outputs.tensors}
        if all(len(shapes[t.name]) == len(t.shape) for t in outputs.tensors):
            tensors = {t.name: np.empty(shapes[t.name], _physical(t.dtype)) for t in outputs.tensors}
            return _tensors(tensors, frozenset(t.name for t in outputs.tensors if t.dtype == "binary"))
    elif outputs is not None and outputs.kind == "table":
        return to_arrow(coerce.outputs({column.name: [] for column in outputs.columns}, outputs, rows=0))
    return pa.table({})


def _physical(dtype: str) -> str:
    return "object" if dtype in ("utf8", "binary") else dtype


def rename(table: pa.Table, taken: Iterable[str], *, same: Callable[[str], str] = str) -> pa.Table:
    """Rename the columns whose name a kept column has: ``x`` becomes ``x_prediction``.

    ``same`` makes one of names that are the same to whom they are for, though spelt otherwise.
    """
    used = set(map(same, taken))
    names = []
    for name in table.column_names:
        while same(name) in used:
            name = f"{name}_{SINGLE}"
        used.add(same(name))
        names.append(name)
    return table.rename_columns(names)
