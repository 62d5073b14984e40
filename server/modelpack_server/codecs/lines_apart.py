"""Rows that cannot go to the model together, as they lack an optional column or have lists of another length.

An optional column that is not sent is left out (spec/06-coercion.md#tables), a size that a shape leaves free is that of
what is sent (#tensors), and each row of a file, and each line, is sent by itself. So which rows happen to be read
together changes neither whether one is taken nor what the model sees of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelpack import coerce
from modelpack.errors import Fault, OutputError
from modelpack.fieldpath import join
from modelpack.frame import Frame, Vector
from modelpack.signature import Signature, Table, Tensors

__all__ = ["Places", "at_row", "groups", "joined", "part", "told"]

# Numbers of rows among those that came together.
Places = np.ndarray[Any, Any]


def groups(rows: Any, signature: Signature) -> list[Places]:
    """Return the rows that go to the model together, group by group; no group if all do.

    Of a table of Arrow's, in which all rows have the same columns, it is sizes that may tell rows apart.
    """
    if isinstance(rows, pa.Table):
        return _alike(list(zip(*(_lengths(rows, name, levels) for name, levels in _free(signature)), strict=True)))
    optional, free = _optional(signature), _free(signature)
    if not (optional or free) or not isinstance(rows, list):
        return []
    return _alike([_kind(row, optional, free) for row in rows])


def part(rows: Any, places: Places) -> Any:
    """Return those rows, in the form in which they are."""
    return rows.take(pa.array(places)) if isinstance(rows, pa.Table) else [rows[place] for place in places]


def _alike(kinds: Sequence[Any]) -> list[Places]:
    found: dict[Any, list[int]] = {}
    for number, kind in enumerate(kinds):
        found.setdefault(kind, []).append(number)
    return [np.array(places, dtype=np.intp) for places in found.values()] if len(found) > 1 else []


def _optional(signature: Signature) -> frozenset[str]:
    match signature.inputs:
        case Table(columns=parts) | Tensors(tensors=parts):
            return frozenset(it.name for it in parts if it.optional)
    return frozenset()


def _free(signature: Signature) -> list[tuple[str, int]]:
    """Return the tensors whose shape leaves the sizes of a row free, and how many sizes a row of each has."""
    tensors = signature.inputs.tensors if isinstance(signature.inputs, Tensors) else ()
    # Symbols too: they stand for one size in each row.
    return [(it.name, len(it.shape) - 1) for it in tensors if not all(isinstance(size, int) for size in it.shape[1:])]


def _kind(row: Any, optional: frozenset[str], free: Sequence[tuple[str, int]]) -> Any:
    if type(row) is dict:
        return optional.intersection(row), tuple(_sizes(row.get(name), levels) for name, levels in free)
    # What stands without a name is of the only tensor.
    return frozenset(), tuple(_sizes(row, levels) for _, levels in free)


def _sizes(cell: Any, levels: int) -> tuple[int, ...]:
    """Return how long nested lists are, told by the first of each; whether all are as long is for coercion to say."""
    found: list[int] = []
    while type(cell) is list and len(found) < levels:
        found.append(len(cell))
        cell = cell[0] if cell else None
    return tuple(found)


def _lengths(table: pa.Table, name: str, levels: int) -> Iterable[Any]:
    """Return the sizes of the rows of a column; of one that is not there, or has no lists, all are alike."""
    kind = table.schema.field(name).type if table.schema.names.count(name) == 1 else None
    if kind is None or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return [()] * len(table)
    if levels == 1:
        return cast("list[Any]", pc.list_value_length(table.column(name)).to_pylist())
    return [_sizes(cell, levels) for cell in table.column(name).to_pylist()]


def told(faults: Iterable[Fault], places: Places) -> list[Fault]:
    """Return what is wrong in one group, said of the rows as they came."""
    return [fault if fault.row is None else at_row(fault, int(places[fault.row])) for fault in faults]


def at_row(fault: Fault, row: int) -> Fault:
    """Return the same fault in another row."""
    path = fault.path
    # Rows of JSON come first in a path, and in tables their columns do.
    for before in ("", join("", fault.column or "")):
        here = f"{before}[{fault.row}]"
        if path.startswith(here):
            path = f"{before}[{row}]{path.removeprefix(here)}"
            break
    return replace(fault, path=path, row=row)


def joined(frames: Sequence[Frame], places: Sequence[Places]) -> Frame:
    """Return the answers to all groups as one, in the order of the rows.

    Raises:
        OutputError: an answer is not row by row (``output-rows``), or they are not alike (``output-changed``).
    """
    order = np.argsort(np.concatenate(places))
    if all(map(_is_json, frames)):
        return _json(frames, places, order)
    for frame, group in zip(frames, places, strict=True):
        answers: Iterable[Any] = (frame.tensors or {}).values() if frame.columns is None else [range(frame.rows)]
        for answer in answers:
            if not np.ndim(answer) or len(answer) != len(group):
                raise _not_by_row()
    if len(set(map(_shape, frames))) > 1:
        message = "rows with other columns, or of another shape, are answered with other columns, types or shapes"
        raise OutputError(message, code="output-changed", hint="Send them apart.")
    if frames[0].columns is None:
        arrays = [frame.tensors or {} for frame in frames]
        whole = {name: np.concatenate([array[name] for array in arrays]) for name in arrays[0]}
        return Frame(rows=len(order), tensors=whole).take(order)
    columns = [frame.columns or {} for frame in frames]
    vectors = {name: _vector([column[name] for column in columns]) for name in columns[0]}
    return Frame(rows=len(order), columns=vectors).take(order)


def _is_json(frame: Frame) -> bool:
    return frame.columns is not None and [vector.type for vector in frame.columns.values()] == [coerce.JSON]


def _json(frames: Sequence[Frame], places: Sequence[Places], order: Places) -> Frame:
    """Return answers of any JSON as one list, if each has a value for every row."""
    values: list[Any] = []
    for frame, group in zip(frames, places, strict=True):
        (vector,) = (frame.columns or {}).values()
        answer = vector.data[0]
        if not isinstance(answer, list) or len(answer) != len(group):
            raise _not_by_row()
        values += answer
    whole = np.empty(1, dtype=object)
    whole[0] = [values[place] for place in order]
    return Frame(rows=1, columns={"value": Vector(type=coerce.JSON, data=whole)})


def _not_by_row() -> OutputError:
    message = "rows with other columns, or of another shape, cannot share an answer that is not row by row"
    return OutputError(message, code="output-rows", hint="Send them apart.")


def _shape(frame: Frame) -> Any:
    if frame.columns is not None:
        return tuple((name, repr(vector.type), vector.data.dtype) for name, vector in frame.columns.items())
    return tuple((name, array.shape[1:], array.dtype) for name, array in (frame.tensors or {}).items())


def _vector(parts: Sequence[Vector]) -> Vector:
    data = np.concatenate([part.data for part in parts])
    if all(part.missing is None for part in parts):
        return Vector(type=parts[0].type, data=data)
    marks = [np.zeros(len(part), dtype=bool) if part.missing is None else part.missing for part in parts]
    return Vector(type=parts[0].type, data=data, missing=np.concatenate(marks))
