"""Where each tensor lies in the data, and its elements one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from modelpack.coerce.faults import Collector, field, join
from modelpack.coerce.lanes import Lane, lane
from modelpack.coerce.scalars import kind
from modelpack.coerce.sources import Source, Split, is_sparse, open_source, through_arrow
from modelpack.frame import Frame
from modelpack.optional import loaded
from modelpack.signature import Tensors

__all__ = ["Flat", "Part", "find", "flatten", "is_table"]

Index = tuple[int, ...]
_LISTS = {list, tuple}


@dataclass(frozen=True, slots=True)
class Part:
    """The raw value of one tensor, and the path of each of its elements."""

    raw: Any
    where: Callable[[Index], str]


@dataclass(frozen=True, slots=True)
class Flat:
    """The elements of one tensor in row-major order."""

    values: Any
    shape: Index


def _below(path: str) -> Callable[[Index], str]:
    return lambda index: join(path, *(f"[{i}]" for i in index))


def is_table(raw: Any) -> bool:
    """Say whether data has rows and columns of its own, which a matrix takes by position."""
    pandas, pyarrow = loaded("pandas"), loaded("pyarrow")
    return (
        isinstance(raw, Split | Frame)
        or (pandas is not None and isinstance(raw, pandas.DataFrame))
        or (pyarrow is not None and isinstance(raw, pyarrow.Table | pyarrow.RecordBatch))
    )


def find(data: Any, signature: Tensors, at: str, collector: Collector) -> dict[str, Part]:
    """Return the part of ``data`` that each tensor is; tensors that are not there are left out."""
    names = [tensor.name for tensor in signature.tensors]
    data = through_arrow(data, collector, at)
    if isinstance(data, Frame) and data.tensors is not None:
        data = data.tensors
    if is_table(data) and (named := _named_columns(data, signature, at, collector)) is not None:
        return named
    if isinstance(data, list | tuple) and data and all(isinstance(row, Mapping) for row in data):
        return _row_form(data, names, at, collector)
    if isinstance(data, Mapping):
        _refuse_unknown(data, names, at, collector)
        return {name: Part(data[name], _below(join(at, field(name)))) for name in names if name in data}
    if isinstance(data, list | tuple) and not data:
        return {name: Part([], _below(at)) for name in names}
    if len(names) == 1:
        return {names[0]: Part(data, _below(at))}
    if isinstance(data, list | tuple) and len(data) == len(names) and not isinstance(data[0], int | float | str):
        # Several arrays without names, as a multi-output predict_proba answers: by position.
        return {
            name: Part(part, _below(join(at, f"[{i}]"))) for i, (name, part) in enumerate(zip(names, data, strict=True))
        }
    raise collector.fail("data-invalid", at, f"{kind(data)} where the tensors {', '.join(names)} by name are expected")


def _refuse_unknown(given: Mapping[Any, Any], names: Sequence[str], at: str, collector: Collector) -> None:
    for name in given:
        if name not in names:
            path = join(at, field(str(name)))
            collector.add("tensor-unexpected", path, "a tensor the signature does not have")


def _row_form(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], at: str, collector: Collector
) -> dict[str, Part]:
    """TensorFlow's row form: one object per row, name to value."""
    for number, row in enumerate(rows):
        _refuse_unknown(row, names, join(at, f"[{number}]"), collector)
    found: dict[str, Part] = {}
    for name in names:
        lacking = [number for number, row in enumerate(rows) if name not in row]
        if len(lacking) == len(rows):
            continue
        for number in lacking:
            path = join(at, f"[{number}]", field(name))
            collector.add("tensor-missing", path, f"{name!r} is missing", number, name)
        found[name] = Part([row.get(name) for row in rows], _in_row(at, name))
    # A row without the tensor says so once, not again as a null.
    collector.finish()
    return found


def _in_row(at: str, name: str) -> Callable[[Index], str]:
    return lambda index: join(at, *(f"[{i}]" for i in index[:1]), field(name), *(f"[{i}]" for i in index[1:]))


def _named_columns(data: Any, signature: Tensors, at: str, collector: Collector) -> dict[str, Part] | None:
    """Return the columns that are called as the tensors are, one row of a tensor in each cell.

    None when there are no such columns, or when they are the numbers of one tensor of two dimensions.
    """
    tensors = signature.tensors
    source = open_source(data, collector, at)
    names = source.names
    if names is None or not all(tensor.optional or tensor.name in names for tensor in tensors):
        return None
    for tensor in tensors:
        if names.count(tensor.name) > 1:
            path = source.column_path(tensor.name)
            raise collector.fail("column-duplicate", path, f"two columns are called {tensor.name!r}")
    places = {tensor.name: names.index(tensor.name) for tensor in tensors if tensor.name in names}
    raw = {name: lane(source.column(place)) for name, place in places.items()}
    if len(tensors) == 1 and len(tensors[0].shape) == 2 and not _nested(raw.get(tensors[0].name)):
        return None
    return {
        name: Part(values.objects() if _nested(values) else values, _in_column(source, places[name], name))
        for name, values in raw.items()
    }


def _nested(column: Lane | None) -> bool:
    if column is None or isinstance(column.data, np.ndarray):
        return False
    return any(isinstance(value, list | tuple | np.ndarray) for value in column.data)


def _in_column(source: Source, place: int, name: str) -> Callable[[Index], str]:
    def where(index: Index) -> str:
        if not index:
            return source.column_path(name)
        return join(source.cell_path(index[0], place, name), *(f"[{i}]" for i in index[1:]))

    return where


def flatten(part: Part, rank: int, collector: Collector) -> Flat | None:
    """Return the elements of a tensor of ``rank`` dimensions; None when its lists are not of one shape."""
    raw = part.raw
    if is_sparse(raw):
        raw = raw.toarray()
    if isinstance(raw, list | tuple):
        return _unroll(raw, rank, part, collector)
    if isinstance(raw, Lane) or _is_column(raw):
        column = lane(raw)
        if _nested(column):
            return _unroll(column.objects(), rank, part, collector)
        return Flat(column, (len(column),))
    if hasattr(raw, "__array__"):
        array = np.asanyarray(raw)
        return Flat(array.reshape(-1), array.shape) if array.ndim else Flat([array[()]], ())
    return Flat([raw], ())


def _is_column(raw: Any) -> bool:
    """Say whether a library's own one-dimensional array should keep its marks of missing values."""
    pandas, pyarrow = loaded("pandas"), loaded("pyarrow")
    if pandas is not None and isinstance(raw, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
        return True
    return pyarrow is not None and isinstance(raw, pyarrow.Array | pyarrow.ChunkedArray)


def _unroll(raw: Sequence[Any], rank: int, part: Part, collector: Collector) -> Flat | None:
    """Open ``rank`` levels of lists, all as long as their neighbours."""
    level: list[Any] = list(raw)
    shape = [len(level)]
    for _ in range(1, rank):
        if not set(map(type, level)) <= _LISTS:
            level = [list(inner) if _is_list(inner) else inner for inner in level]
        size = next((len(inner) for inner in level if isinstance(inner, list | tuple)), 0)
        if not set(map(type, level)) <= _LISTS or set(map(len, level)) - {size}:
            _refuse_level(level, size, rank, shape, part, collector)
            return None
        shape.append(size)
        level = list(chain.from_iterable(level))
    if any(issubclass(kind, list | tuple | np.ndarray) for kind in set(map(type, level))):
        for place, leaf in enumerate(level):
            if _is_list(leaf):
                message = f"a list where a value is expected: the tensor has {rank} dimensions"
                _refuse("shape-mismatch", message, place, shape, part, collector)
                return None
    return Flat(level, tuple(shape))


def _refuse_level(level: list[Any], size: int, rank: int, shape: list[int], part: Part, collector: Collector) -> None:
    """Find the first item that is no list, or a list of another length."""
    place, inner = next((p, i) for p, i in enumerate(level) if not isinstance(i, list | tuple) or len(i) != size)
    if isinstance(inner, list | tuple):
        _refuse("ragged", f"a list of {len(inner)} among lists of {size}", place, shape, part, collector)
    else:
        message = f"{kind(inner)} where a list is expected: the tensor has {rank} dimensions"
        _refuse("shape-mismatch", message, place, shape, part, collector)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _refuse(code: str, message: str, place: int, shape: list[int], part: Part, collector: Collector) -> None:
    index = tuple(map(int, np.unravel_index(place, shape)))
    collector.add(code, part.where(index), message, index[0])
