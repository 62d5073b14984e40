"""Rows of JSON Lines that lack an optional column, and rows that have it: each goes to the model with its like.

An optional column that is not sent is left out (spec/06-coercion.md#tables), and each line is sent by itself. So which
lines happen to be read together changes neither whether one is taken nor what the model sees of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelpack import coerce
from modelpack.errors import Fault, OutputError
from modelpack.frame import Frame, Vector
from modelpack.signature import Signature, Table, Tensors

__all__ = ["Places", "at_row", "groups", "joined", "told"]

# Numbers of rows among those that came together.
Places = np.ndarray[Any, Any]


def groups(rows: Any, signature: Signature) -> list[Places]:
    """Return the rows that go to the model together, group by group; no group if all do."""
    optional = _optional(signature)
    if not optional or not isinstance(rows, list):
        return []
    found: dict[frozenset[str], list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(optional.intersection(row) if type(row) is dict else frozenset(), []).append(number)
    return [np.array(places, dtype=np.intp) for places in found.values()] if len(found) > 1 else []


def _optional(signature: Signature) -> frozenset[str]:
    match signature.inputs:
        case Table(columns=parts) | Tensors(tensors=parts):
            return frozenset(part.name for part in parts if part.optional)
    return frozenset()


def told(faults: Iterable[Fault], places: Places) -> list[Fault]:
    """Return what is wrong in one group, said of the rows as they came."""
    return [fault if fault.row is None else at_row(fault, int(places[fault.row])) for fault in faults]


def at_row(fault: Fault, row: int) -> Fault:
    """Return the same fault in another row."""
    here = f"[{fault.row}]"
    path = f"[{row}]{fault.path.removeprefix(here)}" if fault.path.startswith(here) else fault.path
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
        parts: Iterable[Any] = (frame.tensors or {}).values() if frame.columns is None else [range(frame.rows)]
        for part in parts:
            if not np.ndim(part) or len(part) != len(group):
                raise _not_by_row()
    if len(set(map(_shape, frames))) > 1:
        message = "rows that lack an optional column are answered otherwise than rows that have it"
        raise OutputError(f"{message}: with other columns or types", code="output-changed")
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
    message = "rows that lack an optional column and rows that have it cannot share an answer that is not row by row"
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
