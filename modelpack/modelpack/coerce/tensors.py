"""Tensors: nested lists, arrays and numeric tables made into arrays of the signature's type and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from modelpack.coerce import tables
from modelpack.coerce.columns import physical, vector
from modelpack.coerce.faults import Collector
from modelpack.coerce.parts import Part, find, flatten, is_table
from modelpack.coerce.scalars import Wire
from modelpack.coerce.sources import open_source, through_arrow
from modelpack.frame import Frame
from modelpack.signature import Signature, Tensor, Tensors

__all__ = ["counts_rows", "symbols", "tensors"]

Array = np.ndarray[Any, Any]


def tensors(
    data: Any,
    signature: Tensors,
    wire: Wire,
    at: str,
    collector: Collector,
    *,
    known: Mapping[str, int] = MappingProxyType({}),
) -> Frame:
    """Return the tensors of the signature, coerced; equal symbols in their shapes must be equal sizes.

    ``known``: the sizes of symbols that stand for one already.
    """
    if type(data) is np.ndarray and _is_ready(data, signature, known):
        return Frame(rows=len(data), tensors={signature.tensors[0].name: data})
    parts = find(data, signature, at, collector)
    bound = dict(known)
    out: dict[str, Array] = {}
    for tensor in signature.tensors:
        part = parts.get(tensor.name)
        if part is None:
            if not tensor.optional:
                collector.add("tensor-missing", at, f"tensor {tensor.name!r} is missing")
            continue
        array = _read(part, tensor, wire, collector)
        if array is not None and _fits(array.shape, tensor, bound, part.where(()), collector):
            out[tensor.name] = array
    shapes = [array.shape for array in out.values()]
    return Frame(rows=next((shape[0] for shape in shapes if shape), 1), tensors=out)


def counts_rows(tensor: Tensor) -> bool:
    """Say whether the first dimension of a tensor counts rows: one that has no fixed size does."""
    return bool(tensor.shape) and not isinstance(tensor.shape[0], int)


def symbols(frame: Frame, signature: Signature) -> dict[str, int]:
    """Return the size that each symbol of the inputs stands for in a frame of them."""
    if not isinstance(signature.inputs, Tensors):
        return {}
    arrays = frame.tensors or {}
    shapes = [(tensor.shape, arrays[tensor.name].shape) for tensor in signature.inputs.tensors if tensor.name in arrays]
    pairs = [pair for shape, found in shapes for pair in zip(shape, found, strict=True)]
    return {symbol: size for symbol, size in pairs if isinstance(symbol, str)}


def _is_ready(array: Array, signature: Tensors, known: Mapping[str, int]) -> bool:
    """Say whether an array is the only tensor as it is."""
    tensor = signature.tensors[0]
    if len(signature.tensors) > 1 or array.dtype != physical(tensor.dtype)[0] or not array.size or not array.ndim:
        return False
    if array.dtype.kind not in "biuf" or array.ndim != len(tensor.shape):
        return False
    bound = dict(known)
    for size, wanted in zip(array.shape, tensor.shape, strict=True):
        expected = bound.setdefault(wanted, size) if isinstance(wanted, str) else wanted
        if expected is not None and size != expected:
            return False
    return array.dtype.kind != "f" or not np.isnan(array).any()


def _read(part: Part, tensor: Tensor, wire: Wire, collector: Collector) -> Array | None:
    rank = len(tensor.shape)
    part = replace(part, raw=through_arrow(part.raw, collector, part.where(())))
    if is_table(part.raw):
        return _from_table(part, tensor, wire, collector)
    flat = flatten(part, rank, collector)
    if flat is None:
        return None
    shape = flat.shape
    if len(shape) != rank:
        return np.empty(shape)  # only its shape counts, which is refused

    def report(place: int, code: str, message: str, below: str) -> None:
        index = tuple(map(int, np.unravel_index(place, shape)))
        collector.add(code, part.where(index) + below, message, index[0] if index else None, tensor.name)

    array = vector(flat.values, tensor.dtype, tensor.nullable, wire, report).data.reshape(shape)
    return array if array.size else _without_rows(array, tensor)


def _from_table(part: Part, tensor: Tensor, wire: Wire, collector: Collector) -> Array:
    """Read a table by position: as a matrix, or as a vector if it has one column."""
    rank, path = len(tensor.shape), part.where(())
    width = tensor.shape[1] if rank == 2 else None
    source = open_source(part.raw, collector, path, width=width if isinstance(width, int) else None)
    if rank != 2 and not (rank == 1 and source.width == 1):
        raise collector.fail("shape-mismatch", path, f"a table where a tensor of {rank} dimensions is expected")
    wanted = [tables.Want(f"{tensor.name}[{i}]", tensor.dtype, tensor.nullable) for i in range(source.width)]
    columns = list(tables.read(source, wanted, range(source.width), wire, collector).values())
    if rank == 1:
        return columns[0].data
    out: Array = np.empty((source.rows, source.width), dtype=physical(tensor.dtype)[0])
    for place, column in enumerate(columns):
        out[:, place] = column.data
    return out


def _without_rows(array: Array, tensor: Tensor) -> Array:
    """Give no rows the sizes of the signature: an empty list cannot show them."""
    if array.shape[:1] != (0,) or any(array.shape[1:]) or not tensor.shape:
        return array
    return array.reshape(0, *(size if isinstance(size, int) else 0 for size in tensor.shape[1:]))


def _fits(shape: tuple[int, ...], tensor: Tensor, bound: dict[str, int], path: str, collector: Collector) -> bool:
    """Check the shape, binding symbols at their first use."""
    if len(shape) != len(tensor.shape):
        message = f"{len(shape)} dimensions where {tensor.name!r} has {len(tensor.shape)}"
        collector.add("shape-mismatch", path, message)
        return False
    for place, (size, wanted) in enumerate(zip(shape, tensor.shape, strict=True)):
        expected = bound.setdefault(wanted, size) if isinstance(wanted, str) else wanted
        if expected is not None and size != expected:
            message = f"dimension {place} of {tensor.name!r} is {size} where {expected} is expected"
            collector.add("shape-mismatch", path, message)
            return False
    return True
