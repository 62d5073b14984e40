"""Which requests may be coerced and scored as one, and how their rows become one.

Two requests belong together only if nobody could tell from the answers: the same form, the same columns in the same
order, tensors of the same sizes, the same params. Everything else is scored alone.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from modelpack.coerce import Split
from modelpack.signature import Signature, Table, Tensors
from modelpack_server.codecs import Decoded

__all__ = ["by_rows", "key", "merge", "rows_of"]


def by_rows(signature: Signature) -> bool:
    """Say whether the signature has any number of rows in and one row out for each."""
    return _open(signature.inputs) and _open(signature.outputs) and _bound(signature)


def _bound(signature: Signature) -> bool:
    """Say whether no size of an answer can depend on which rows are scored together, as padding to the longest does."""
    outputs = signature.outputs
    if not isinstance(outputs, Tensors):
        return True
    given = signature.inputs.tensors if isinstance(signature.inputs, Tensors) else ()
    rows = {tensor.shape[0] for tensor in (*given, *outputs.tensors)}
    known = {size for tensor in given if not tensor.optional for size in tensor.shape[1:]} - {None, *rows}
    return all(isinstance(size, int) or size in known for tensor in outputs.tensors for size in tensor.shape[1:])


def _open(side: Any) -> bool:
    match side:
        case Table():
            return True
        case Tensors(tensors=tensors):
            return bool(tensors) and all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in tensors)
    return False


def rows_of(data: Any) -> int:
    """Return how many rows undecided data seems to have; at least one."""
    if type(data) is Split:
        return len(data.data) or 1
    if isinstance(data, Mapping):
        data = next(iter(data.values()), ())
    try:
        return len(data) or 1
    except TypeError:
        return 1


def key(decoded: Decoded, params: Mapping[str, Any] | None) -> Hashable | None:
    """Return what requests that may be merged have in common, or None for one that is scored alone."""
    if decoded.wire == "python":
        return None
    shape = _shape(decoded.data)
    if shape is None:
        return None
    if not params:
        return decoded.wire, decoded.at, shape
    try:
        # Not by orjson, to which an infinity is the same as null.
        return decoded.wire, decoded.at, shape, json.dumps(params, sort_keys=True)
    except TypeError:
        return None


def _shape(data: Any) -> Hashable | None:
    if type(data) is Split:
        if not len(data.data):
            return None
        return "split", None if data.columns is None else tuple(map(_name, data.columns))
    if type(data) is list:
        return _list(data)
    if type(data) is dict:
        return _columns(data)
    if type(data) is np.ndarray:
        return "rows", data.shape[1:]
    return None


def _name(column: Any) -> Any:
    """Names of columns are texts; anything else is refused when it is looked at alone."""
    return column if type(column) is str else id(column)


def _list(data: list[Any]) -> Hashable | None:
    if not data:
        return None
    first = data[0]
    if type(first) is dict:
        names = tuple(first)
        if all(type(row) is dict and tuple(row) == names for row in data):
            return "records", names
        return None
    return "rows", _sizes(first)


def _columns(data: dict[str, Any]) -> Hashable | None:
    """Columns, or tensors, by name: all must have the same number of rows, or merging would move values."""
    lengths = {len(values) if type(values) is list else -1 for values in data.values()}
    if len(lengths) != 1 or lengths.pop() < 1:
        return None
    return "columns", tuple((name, _sizes(values[0])) for name, values in data.items())


def _sizes(value: Any) -> tuple[int, ...]:
    """Return the sizes of nested lists as far as the first of each tells."""
    sizes = []
    while type(value) is list:
        sizes.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(sizes)


def merge(parts: Sequence[Any]) -> Any:
    """Return the data of requests with one key as the data of one request, in order."""
    first = parts[0]
    if type(first) is Split:
        return Split(first.columns, _joined([part.data for part in parts]))
    if type(first) is dict:
        return {name: list(chain.from_iterable(part[name] for part in parts)) for name in first}
    return _joined(parts)


def _joined(parts: Sequence[Any]) -> Any:
    """Return rows one after another: of arrays alone as one array."""
    if all(type(part) is np.ndarray for part in parts):
        return np.concatenate(parts)
    return list(chain.from_iterable(part.tolist() if type(part) is np.ndarray else part for part in parts))
