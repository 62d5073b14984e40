"""The calls that the rest of modelpack makes: inputs, the tolerant kind, and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from modelpack.coerce import blocks, guess
from modelpack.coerce.columns import objects
from modelpack.coerce.faults import CAP, Collector, join
from modelpack.coerce.lanes import is_column
from modelpack.coerce.parts import is_table
from modelpack.coerce.scalars import Wire
from modelpack.coerce.sources import Source, open_source
from modelpack.coerce.tables import table
from modelpack.coerce.tensors import counts_rows, tensors
from modelpack.errors import Fault, InputError, OutputError, SignatureError
from modelpack.frame import Frame, Vector
from modelpack.optional import loaded
from modelpack.signature import IO, Signature, Table, Tensors

__all__ = ["JSON", "inputs", "outputs", "tolerant"]

# Type of the one vector of a Frame that holds a whole JSON answer.
JSON = "json"


def inputs(data: Any, signature: Signature, *, wire: Wire = "python", at: str = "") -> Frame:
    """Return ``data`` as the signature's inputs, every value exactly as it was sent.

    ``wire`` says how values are written (``python``: objects as they are; ``json``: decoded JSON; ``text``: CSV
    cells) and ``at`` where the data lies in the request, for the paths in errors. Without inputs in the signature
    nothing is checked and the types are inferred from the data.

    Raises:
        InputError: a value does not fit; carries up to 100 faults with path, row and column.
    """
    collector = Collector()
    frame = _inputs(data, _io(data, signature, at), wire, at, collector)
    collector.finish()
    return frame


def _io(data: Any, signature: Signature, at: str) -> Table | Tensors | None:
    if signature.inputs is not None:
        return signature.inputs
    try:
        return guess.io(data)
    except SignatureError as exc:
        if is_table(data):
            raise InputError(exc.message, code="data-invalid", path=at, hint=exc.hint) from exc
        return None


def _inputs(data: Any, io: Table | Tensors | None, wire: Wire, at: str, collector: Collector) -> Frame:
    if io is None:
        return _whole(data)
    if isinstance(io, Tensors):
        return tensors(data, io, wire, at, collector)
    if wire != "text" and (frame := blocks.read(data, io)) is not None:
        return frame
    return table(open_source(data, collector, at, width=len(io.columns)), io, wire, collector)


def _whole(value: Any) -> Frame:
    """Return the frame that holds one value of no particular shape."""
    return Frame(rows=1, columns={"value": Vector(type=JSON, data=objects([value]))})


def tolerant(
    data: Any, signature: Signature, *, wire: Wire = "python", at: str = ""
) -> tuple[Frame, np.ndarray[Any, Any], list[Fault]]:
    """Return the rows that fit, their row numbers in ``data``, and the faults of those that do not.

    Raises:
        InputError: the data cannot be read at all (a missing column, a wrong shape).
    """
    io = _io(data, signature, at)
    if isinstance(io, Tensors) and isinstance(data, list):
        return _tolerant_tensors(data, io, wire, at)
    collector = Collector(tolerant=True)
    frame = _inputs(data, io, wire, at, collector)
    collector.finish()
    if isinstance(io, Tensors) and not all(tensor.optional or tensor.name in frame for tensor in io.tensors):
        # Lists that are not of one shape: which rows are to go cannot be told from outside.
        raise InputError.from_faults(collector.faults[:CAP])
    bad = {fault.row for fault in collector.faults}
    if not bad:
        return frame, np.arange(frame.rows), []
    good = np.array([row for row in range(frame.rows) if row not in bad], dtype=np.intp)
    return frame.take(good), good, collector.faults


def _tolerant_tensors(
    data: list[Any], io: Tensors, wire: Wire, at: str
) -> tuple[Frame, np.ndarray[Any, Any], list[Fault]]:
    """Lists that do not fit together as a whole are looked at row by row."""
    try:
        collector = Collector()
        frame = _inputs(data, io, wire, at, collector)
        collector.finish()
        return frame, np.arange(frame.rows), []
    except InputError:
        pass
    faults: list[Fault] = []
    good: list[int] = []
    parts: list[Frame] = []
    first, shapes = join(at, "[0]"), None
    for number, row in enumerate(data):
        collector, here = Collector(), join(at, f"[{number}]")
        try:
            part = _inputs([row], io, wire, at, collector)
            collector.finish()
        except InputError as exc:
            for fault in exc.faults:
                below = fault.path.removeprefix(first) if fault.path.startswith(first) else ""
                faults.append(replace(fault, row=number, path=here + below))
            continue
        if shapes is None:
            shapes = _shapes(part)
        if _shapes(part) != shapes:
            faults.append(Fault("ragged", here, "a row of another shape than the first", number))
            continue
        good.append(number)
        parts.append(part)
    if not parts:
        raise InputError.from_faults(faults[:CAP])
    arrays = {name: np.concatenate([(part.tensors or {})[name] for part in parts]) for name in parts[0]}
    return Frame(rows=len(good), tensors=arrays), np.array(good, dtype=np.intp), faults


def _shapes(frame: Frame) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in (frame.tensors or {}).items()}


def outputs(
    raw: Any, io: IO | None, *, rows: int | None = None, known: Mapping[str, int] = MappingProxyType({})
) -> Frame:
    """Return a model's answer as the signature's outputs; with ``io`` None, as what it looks like.

    An answer of kind ``json`` is a frame of one row with one column ``value`` of the type :data:`JSON`, which is
    no type of the signature, so that it cannot be taken for a table. ``known``: the sizes that symbols of the inputs
    stand for.

    Raises:
        OutputError: the answer does not fit, or has another number of rows than ``rows``.
    """
    collector = Collector(error=OutputError)
    said = io
    if io is None:
        io = guess.answer(raw)
    if io.kind == "json":
        return _whole(raw)
    if isinstance(io, Tensors):
        # Of first dimensions there is more to say than that they are of a wrong size.
        inner = {symbol: size for symbol, size in known.items() if all(symbol not in t.shape[:1] for t in io.tensors)}
        frame = tensors(_answer(raw), io, "python", "", collector, known=inner)
    else:
        frame = table(_table_answer(raw, collector), io, "python", collector)
    collector.finish()
    for count in () if rows is None else _counts(frame, said):
        if count != rows:
            raise OutputError(f"the model answered with {count} rows for {rows}", code="rows-mismatch")
    return frame


def _counts(frame: Frame, io: IO | None) -> list[int]:
    """Return how many rows each part of an answer has that has rows."""
    if not isinstance(io, Tensors):
        return [frame.rows]
    arrays = frame.tensors or {}
    return [len(arrays[tensor.name]) for tensor in io.tensors if tensor.name in arrays and counts_rows(tensor)]


def _answer(raw: Any) -> Any:
    """A Series is a tensor; its name means nothing."""
    pandas = loaded("pandas")
    if pandas is not None and isinstance(raw, pandas.Series):
        return raw.array
    return raw


def _table_answer(raw: Any, collector: Collector) -> Source:
    pandas = loaded("pandas")
    if pandas is not None and isinstance(raw, pandas.Series):
        raw = raw.array
    if isinstance(raw, Mapping) and not all(is_column(value) for value in raw.values()):
        raw = [raw]  # one record
    return open_source(raw, collector, "")
