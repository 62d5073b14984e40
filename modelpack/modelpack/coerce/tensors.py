"""Tensors: nested lists, arrays and numeric tables made into arrays of the signature's type and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelpack.coerce import tables
from modelpack.coerce.columns import physical, vector
from modelpack.coerce.faults import Collector, field, join
from modelpack.coerce.lanes import Lane, lane
from modelpack.coerce.scalars import Wire, kind
from modelpack.coerce.sources import Source, Split, is_sparse, open_source
from modelpack.frame import Frame
from modelpack.optional import loaded
from modelpack.signature import Tensor, Tensors

__all__ = ["tensors"]

Array = np.ndarray[Any, Any]


def tensors(data: Any, signature: Tensors, wire: Wire, at: str, collector: Collector) -> Frame:
    """Return the tensors of the signature, coerced; equal symbols in their shapes must be equal sizes."""
    parts = _by_name(data, signature, at, collector)
    symbols: dict[str, int] = {}
    out: dict[str, Array] = {}
    for tensor in signature.tensors:
        if tensor.name not in parts:
            if not tensor.optional:
                path = join(at, field(tensor.name)) if len(signature.tensors) > 1 else at
                collector.add("tensor-missing", path, f"tensor {tensor.name!r} is missing")
            continue
        raw, path = parts[tensor.name]
        array = _read(raw, tensor, wire, path, collector)
        if array is not None and not array.size:
            array = _without_rows(array, tensor)
        if array is not None and _fits(array.shape, tensor, symbols, path, collector):
            out[tensor.name] = array
    shapes = [array.shape for array in out.values()]
    return Frame(rows=next((shape[0] for shape in shapes if shape), 1), tensors=out)


def _by_name(data: Any, signature: Tensors, at: str, collector: Collector) -> dict[str, tuple[Any, str]]:
    """Return each tensor's raw value and path."""
    names = [tensor.name for tensor in signature.tensors]
    if isinstance(data, Frame):
        data = data.tensors if data.tensors is not None else data
    if isinstance(data, list | tuple) and data and all(isinstance(row, Mapping) for row in data):
        # TensorFlow's row form: one object per row, name to value.
        seen = {name: None for row in data for name in row}
        _refuse_unknown(seen, names, at, collector)
        return {name: (_Rows(data, name), at) for name in names if name in seen}
    if isinstance(data, Mapping):
        _refuse_unknown(data, names, at, collector)
        return {name: (data[name], join(at, field(name))) for name in names if name in data}
    if len(names) == 1:
        return {names[0]: (data, at)}
    if isinstance(data, list | tuple) and len(data) == len(names) and not isinstance(data[0], int | float | str):
        return {name: (part, join(at, f"[{i}]")) for i, (name, part) in enumerate(zip(names, data, strict=True))}
    raise collector.fail("data-invalid", at, f"{kind(data)} where the tensors {', '.join(names)} by name are expected")


def _refuse_unknown(given: Mapping[Any, Any], names: Sequence[str], at: str, collector: Collector) -> None:
    for name in given:
        if name not in names:
            path = join(at, field(str(name)))
            collector.add("tensor-unexpected", path, "a tensor the signature does not have")


class _Rows:
    """One tensor of the row form: its values lie in the rows, one object each."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        self.rows = rows
        self.name = name


def _read(raw: Any, tensor: Tensor, wire: Wire, path: str, collector: Collector) -> Array | None:
    source = _as_table(raw, len(tensor.shape), collector, path)
    if source is not None:
        return _from_table(source, tensor, wire, collector)
    flat = _flat(raw, len(tensor.shape), path, collector)
    if flat is None:
        return None
    values, shape, start = flat

    def report(place: int, code: str, message: str, below: str) -> None:
        index = np.unravel_index(place, shape)
        row = int(index[0]) if index else None
        collector.add(code, start(tuple(map(int, index))) + below, message, row, tensor.name)

    column = vector(values, tensor.dtype, tensor.nullable, wire, report)
    return column.data.reshape(shape)


def _as_table(raw: Any, rank: int, collector: Collector, path: str) -> Source | None:
    """Return a table that is to be read by position as a matrix, or as a vector if it has one column."""
    pandas, pyarrow = loaded("pandas"), loaded("pyarrow")
    is_table = (
        isinstance(raw, Split)
        or (pandas is not None and isinstance(raw, pandas.DataFrame))
        or (pyarrow is not None and isinstance(raw, pyarrow.Table | pyarrow.RecordBatch))
        or isinstance(raw, Frame)
    )
    if not is_table:
        return None
    source = open_source(raw, collector, path)
    if rank == 2 or (rank == 1 and source.width == 1):
        return source
    raise collector.fail("shape-mismatch", path, f"a table where a tensor of {rank} dimensions is expected")


def _from_table(source: Source, tensor: Tensor, wire: Wire, collector: Collector) -> Array:
    wanted = [tables.Want(f"{tensor.name}[{i}]", tensor.dtype, tensor.nullable) for i in range(source.width)]
    columns = tables.read(source, wanted, range(source.width), wire, collector)
    if len(tensor.shape) == 1:
        return columns[wanted[0].name].data
    out: Array = np.empty((source.rows, source.width), dtype=physical(tensor.dtype)[0])
    for place, column in enumerate(columns.values()):
        out[:, place] = column.data
    return out


def _flat(raw: Any, rank: int, path: str, collector: Collector) -> Any:
    """Return the values one after another, the shape, and the function from an index to a path."""
    step = ""
    if isinstance(raw, _Rows):
        step = field(raw.name)
        missing = [number for number, row in enumerate(raw.rows) if raw.name not in row]
        for number in missing:
            collector.add("tensor-missing", join(path, f"[{number}]", step), f"{raw.name!r} is missing", number)
        if missing:
            return None
        raw = [row[raw.name] for row in raw.rows]

    def where(index: tuple[int, ...]) -> str:
        steps = [f"[{i}]" for i in index]
        if step and steps:
            steps.insert(1, step)
        return join(path, *steps)

    if is_sparse(raw):
        raw = raw.toarray()
    if isinstance(raw, list | tuple):
        return _flat_list(raw, rank, where, collector)
    if hasattr(raw, "__array__") and not isinstance(raw, np.ndarray | np.generic) and _is_column(raw):
        values: Any = lane(raw)
        return (values, (len(values),), where)
    if hasattr(raw, "__array__"):
        array = np.asanyarray(raw)
        if array.ndim == 0:
            return [array[()]], (), where
        return array.reshape(-1), array.shape, where
    pyarrow = loaded("pyarrow")
    if pyarrow is not None and isinstance(raw, pyarrow.Array | pyarrow.ChunkedArray):
        return lane(raw), (len(raw),), where
    return [raw], (), where


def _is_column(raw: Any) -> bool:
    pandas, pyarrow = loaded("pandas"), loaded("pyarrow")
    if pandas is not None and isinstance(raw, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
        return True
    return pyarrow is not None and isinstance(raw, pyarrow.Array | pyarrow.ChunkedArray)


def _flat_list(raw: Sequence[Any], rank: int, where: Any, collector: Collector) -> Any:
    """Unpack ``rank`` levels of lists, all as long as their neighbours."""
    level: list[Any] = list(raw)
    shape = [len(level)]
    for _ in range(1, max(rank, 1)):
        if not set(map(type, level)) <= {list, tuple}:
            level = [part.tolist() if isinstance(part, np.ndarray) else part for part in level]
        size = len(level[0]) if level and isinstance(level[0], list | tuple) else None
        for place, part in enumerate(level):
            if not isinstance(part, list | tuple):
                index = tuple(map(int, np.unravel_index(place, shape)))
                message = f"{kind(part)} where a list is expected: the tensor has {rank} dimensions"
                collector.add("shape-mismatch", where(index), message, index[0])
                return None
            if len(part) != size:
                index = tuple(map(int, np.unravel_index(place, shape)))
                collector.add("ragged", where(index), f"a list of {len(part)} among lists of {size}", index[0])
                return None
        shape.append(size or 0)
        level = [leaf for part in level for leaf in part]
    for place, leaf in enumerate(level):
        if isinstance(leaf, list | tuple | np.ndarray) and not (isinstance(leaf, np.ndarray) and leaf.ndim == 0):
            index = tuple(map(int, np.unravel_index(place, shape)))
            message = f"a list where a value is expected: the tensor has {rank} dimensions"
            collector.add("shape-mismatch", where(index), message, index[0])
            return None
    return Lane(level), tuple(shape), where


def _without_rows(array: Array, tensor: Tensor) -> Array:
    """Give no rows the sizes of the signature: an empty list cannot show them."""
    if array.shape[:1] != (0,) or any(array.shape[1:]) or not tensor.shape:
        return array
    return array.reshape(0, *(size if isinstance(size, int) else 0 for size in tensor.shape[1:]))


def _fits(shape: tuple[int, ...], tensor: Tensor, symbols: dict[str, int], path: str, collector: Collector) -> bool:
    """Check the shape, binding symbols at their first use."""
    if len(shape) != len(tensor.shape):
        message = f"{len(shape)} dimensions where {tensor.name!r} has {len(tensor.shape)}"
        collector.add("shape-mismatch", path, message)
        return False
    for place, (size, wanted) in enumerate(zip(shape, tensor.shape, strict=True)):
        if isinstance(wanted, str):
            wanted = symbols.setdefault(wanted, size)
        if wanted is not None and size != wanted:
            message = f"dimension {place} of {tensor.name!r} is {size} where {wanted} is expected"
            collector.add("shape-mismatch", path, message)
            return False
    return True
