"""The inputs and outputs of a graph, and how the columns or tensors of a frame become its inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack.audits.onnx_graph import Facts, Value
from modelpack.errors import SaveError
from modelpack.frame import Block, Frame, Vector
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_flavors._onnx.casting import ELEMENTS, cast, column, fault

__all__ = ["Inputs", "batch_of", "check_supported", "signature"]

Array = np.ndarray[Any, Any]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
BATCH = "batch"


def check_supported(facts: Facts) -> None:
    """Refuse a graph that takes or gives what no frame holds.

    Raises:
        SaveError: ``model-unsupported``.
    """
    for value in facts.inputs:
        if value.kind != "tensor" or value.element not in ELEMENTS:
            _unsupported(f"its input {value.name} is not a tensor of a type that data can have")
    for value in facts.outputs:
        if value.kind == "tensor" and value.element not in ELEMENTS:
            _unsupported(f"its output {value.name} is of a type that answers cannot have")
    if not facts.inputs or not facts.outputs:
        _unsupported("it has no inputs or no outputs")


def _unsupported(message: str) -> None:
    raise SaveError(f"the ONNX model cannot be served: {message}", code="model-unsupported")


def batch_of(facts: Facts) -> int | None:
    """Return the number of rows the graph is fixed to, or None if it takes any number.

    A fixed first dimension counts rows if all inputs and outputs have the same.
    """
    first = {value.shape[0] if value.shape else None for value in (*facts.inputs, *facts.outputs)}
    size = next(iter(first)) if len(first) == 1 else None
    return size if isinstance(size, int) and size > 0 else None


def signature(facts: Facts) -> Signature:
    """Return what the graph itself says of its inputs and outputs.

    Several inputs of one column each are the columns of a table (what scikit-learn's converter makes); all else are
    tensors.
    """
    fixed = batch_of(facts) is not None
    inputs: Table | Tensors
    if len(facts.inputs) > 1 and all(_is_column(value) for value in facts.inputs):
        columns = [Column(name=v.name, type=ELEMENTS[v.element]) for v in facts.inputs]  # type: ignore[arg-type]
        inputs = Table(columns=tuple(columns))
    else:
        inputs = Tensors(tensors=tuple(_tensor(value, ELEMENTS[value.element], fixed) for value in facts.inputs))
    return Signature(inputs=inputs, outputs=_outputs(facts, fixed))


def _outputs(facts: Facts, fixed: bool) -> Tensors | None:
    tensors = []
    for value in facts.outputs:
        if value.kind == "sequence of map" and value.name in facts.classes:
            value = Value(name=value.name, kind="tensor", element=1, shape=(None, len(facts.classes[value.name])))
        if value.kind != "tensor" or value.element not in ELEMENTS or value.shape is None:
            return None
        tensors.append(_tensor(value, ELEMENTS[value.element], fixed, answer=True))
    rows = all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in tensors)
    return Tensors(tensors=tuple(tensors)) if rows else None


def _is_column(value: Value) -> bool:
    shape = value.shape
    return shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) and not _sized(shape[0])


def _sized(dim: int | str | None) -> bool:
    return isinstance(dim, int) and dim > 0


def _tensor(value: Value, dtype: str, fixed: bool, *, answer: bool = False) -> Tensor:
    shape: list[int | str | None] = [
        dim if not isinstance(dim, str) or _NAME.match(dim) else None for dim in value.shape or ()
    ]
    if shape and (fixed or not isinstance(shape[0], int) or shape[0] == 0):
        shape[0] = BATCH
    # What an output's free sizes are called says nothing about the inputs'.
    shape = [dim if i == 0 or not answer or not isinstance(dim, str) else None for i, dim in enumerate(shape)]
    nullable = dtype.startswith("float") and answer
    return Tensor(name=value.name, dtype=dtype, shape=tuple(shape), nullable=nullable)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The graph's inputs, each with the columns it is made of (``columns`` is empty where nobody has said).

    ``absent`` is the text that stands for a missing one, if the graph knows any.
    """

    values: Sequence[Value]
    columns: Mapping[str, Sequence[str]]
    absent: str | None = None

    def feed(self, frame: Frame) -> dict[str, Array]:
        """Return the array for each input.

        Raises:
            InputError: the frame has not what the graph takes.
        """
        if frame.columns is not None:
            return self._from_columns(frame)
        tensors = frame.tensors or {}
        if len(tensors) == len(self.values) == 1:
            (array,) = tensors.values()
            return {self.values[0].name: _shaped(array, self.values[0])}
        missing = [value.name for value in self.values if value.name not in tensors]
        if missing:
            fault("tensor-missing", f"the graph's input {missing[0]!r} has no tensor of its name", missing[0])
        return {value.name: _shaped(tensors[value.name], value) for value in self.values}

    def _from_columns(self, frame: Frame) -> dict[str, Array]:
        columns = frame.columns or {}
        names = self.columns or self.match(list(columns))
        if isinstance(columns, Block) and (matrix := self._matrix(columns, names)) is not None:
            return {self.values[0].name: matrix}
        feeds = {}
        for value in self.values:
            dtype, wanted = ELEMENTS[value.element], names[value.name]
            absent = [name for name in wanted if name not in columns]
            if absent:
                fault("column-missing", f"column {absent[0]!r} is missing", absent[0])
            parts = _as_they_are([columns[name] for name in wanted], dtype)
            if parts is None:
                parts = [column(columns[name], dtype, name, self.absent) for name in wanted]
            flat = value.shape is not None and len(value.shape) == 1
            feeds[value.name] = parts[0] if flat and len(parts) == 1 else _stacked(parts, frame.rows)
        return feeds

    def _matrix(self, block: Block, names: Mapping[str, Sequence[str]]) -> Array | None:
        """Return the columns as they are, if they are just what the only input is made of."""
        value = self.values[0]
        if len(self.values) > 1 or ELEMENTS[value.element] != block.type or [*names[value.name]] != [*block]:
            return None
        return np.ascontiguousarray(block.matrix) if value.shape is None or len(value.shape) == 2 else None

    def match(self, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Find the columns of each input: by its name, or all columns for one input that is as wide."""
        if all(value.name in names and _is_column(value) for value in self.values):
            return {value.name: [value.name] for value in self.values}
        (first, *more) = self.values
        if more:
            missing = next((value.name for value in self.values if value.name not in names), first.name)
            fault("column-missing", f"the graph's input {missing!r} has no column of its name", missing)
        width = first.shape[-1] if first.shape and len(first.shape) == 2 else None
        if first.shape is not None and (len(first.shape) != 2 or (_sized(width) and width != len(names))):
            fault("shape-mismatch", f"{len(names)} columns for an input of another shape", first.name)
        return {first.name: list(names)}


def _as_they_are(vectors: Sequence[Vector], dtype: str) -> list[Array] | None:
    """Return columns that are floats of the input's own type already, missing values as NaN; None if not all are."""
    if not dtype.startswith("float"):
        return None
    target = np.dtype(dtype)
    parts = [vector.data for vector in vectors]
    return parts if all(part.dtype == target for part in parts) else None


def _stacked(parts: Sequence[Array], rows: int) -> Array:
    if len(parts) == 1:
        return parts[0].reshape(rows, 1)
    out: Array = np.empty((rows, len(parts)), dtype=parts[0].dtype)
    for place, part in enumerate(parts):
        out[:, place] = part
    return out


def _shaped(array: Array, value: Value) -> Array:
    """Return the tensor in the input's type; a list of values for an input of one column is that column."""
    out = cast(array, ELEMENTS[value.element], value.name)
    if value.shape is not None and len(value.shape) == 2 and out.ndim == 1 and value.shape[1] in (1, None):
        return out.reshape(-1, 1)
    return out
