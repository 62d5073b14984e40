"""JSON bodies of floats alone, made into one array at once: what nearly all large bodies are.

An array is only made of a body that the long way (:mod:`modelpack_server.codecs.json_body`) takes too, and to the same
values. What that way looks for before it trusts orjson is told here from the array, or from the text behind the last
string in the body: behind it there are numbers, brackets and nothing else. What is odd in any way is left to it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, starmap
from typing import Any

import numpy as np

from modelpack.coerce import Split
from modelpack.signature import Signature, Table, Tensor, Tensors
from modelpack_server.codecs import json_text

__all__ = ["Array", "Taken", "fits", "is_plain", "limit_of", "quotes_of", "reader"]

Array = np.ndarray[Any, Any]
# What is taken of a body that orjson has read, and the form it is in.
Taken = tuple[Split | Array, str]
# Whole numbers below are exact in the type; those beyond, and what orjson rounds to them, are looked at one by one.
_EXACT = {"float16": 2.0**11, "float32": 2.0**24, "float64": 2.0**53}


def reader(signature: Signature) -> Callable[[bytes, Any], Taken | None]:
    """Return what takes the usual bodies for a signature; of any other signature, nothing."""
    if limit := limit_of(signature):
        match signature.inputs:
            case Table(columns=columns):
                return _Rows([column.name for column in columns], limit)
            case Tensors(tensors=(tensor,)):
                return _Tensor(tensor, limit)
    return lambda body, value: None


def limit_of(signature: Signature) -> float:
    """Return what all numbers must be below to be taken; 0 if a signature is not of one float type alone."""
    match signature.inputs:
        case Table(columns=columns):
            return _limit({column.type if isinstance(column.type, str) else "" for column in columns})
        case Tensors(tensors=(tensor,)):
            free = [size for size in tensor.shape if isinstance(size, str)]
            return _limit({tensor.dtype}) if tensor.shape and len(set(free)) == len(free) else 0.0
    return 0.0


def _limit(types: set[str]) -> float:
    return _EXACT.get(types.pop(), 0.0) if len(types) == 1 else 0.0


def quotes_of(names: list[str]) -> int:
    """Return how many quotes dataframe_split, columns, data and the names need: a key twice would bring two more."""
    return 6 + 2 * len(names)


class _Rows:
    """``dataframe_split`` with all columns in order, and then rows."""

    def __init__(self, names: list[str], limit: float) -> None:
        self._names = names
        self._limit = limit
        self._quotes = quotes_of(names)
        self._pack = struct.Struct(f"{len(names)}d").pack

    def __call__(self, body: bytes, value: Any) -> Taken | None:
        split = value.get("dataframe_split") if type(value) is dict else None
        if type(split) is not dict or list(split) != ["columns", "data"] or split["columns"] != self._names:
            return None
        rows, end = split["data"], body.rfind(b'"') + 1
        if type(rows) is not list or not rows or body.count(b'"', 0, end) != self._quotes:
            return None
        array = _array(rows, self._pack, body, end, self._limit)
        return None if array is None else (Split(self._names, array.reshape(len(rows), -1)), "dataframe_split")


class _Tensor:
    """``inputs`` or ``instances`` with the one tensor of the signature as nested lists, bare or by its name."""

    def __init__(self, tensor: Tensor, limit: float) -> None:
        self._name = tensor.name
        self._shape = tensor.shape
        self._limit = limit

    def __call__(self, body: bytes, value: Any) -> Taken | None:
        if type(value) is not dict or len(value) != 1:
            return None
        (form,) = value
        lists, quotes = value[form], 2
        if form == "inputs" and type(lists) is dict and list(lists) == [self._name]:
            lists, quotes = lists[self._name], 4
        elif form not in ("inputs", "instances"):
            return None
        end = body.rfind(b'"') + 1
        if body.count(b'"', 0, end) != quotes:
            return None
        found = _unrolled(lists, self._shape)
        if found is None:
            return None
        rows, shape = found
        array = _array(rows, _packer(shape[-1]), body, end, self._limit)
        return None if array is None else (array.reshape(shape), form)


def _unrolled(lists: Any, wanted: Sequence[int | str | None]) -> tuple[list[Any], list[int]] | None:
    """Return the innermost lists and the shape of nested lists of one shape, if it is the one that is wanted."""
    if type(lists) is not list:
        return None
    shape = [len(lists)]
    level: list[Any] = [lists]
    for _ in wanted[1:]:
        level = list(chain.from_iterable(level))
        if set(map(type, level)) != {list} or len(sizes := set(map(len, level))) != 1:
            return None
        shape += sizes
    return (level, shape) if all(shape) and fits(shape, wanted) else None


def fits(shape: Sequence[int], wanted: Sequence[int | str | None]) -> bool:
    """Say whether a shape is the one that is wanted."""
    return all(isinstance(size, str | None) or size == found for size, found in zip(wanted, shape, strict=True))


def _array(rows: list[Any], pack: Callable[..., bytes], body: bytes, end: int, limit: float) -> Array | None:
    """Return the numbers of all rows, one after another; ``end``: where the last string of the body ends."""
    try:
        # Only numbers, true and false are packed, and only as many in a row as there must be.
        packed = bytearray().join(starmap(pack, rows))
    except (struct.error, TypeError, OverflowError):
        return None
    array = np.frombuffer(packed, np.float64)
    return array if is_plain(array, body, end, limit) else None


def is_plain(array: Array, body: bytes, end: int, limit: float) -> bool:
    """Say whether the numbers behind ``end`` in the body are those in the array, and nothing else is there."""
    # The letters of true, false and null.
    if body.find(b"u", end) >= 0 or body.find(b"l", end) >= 0:
        return False
    if np.maximum.reduce(np.abs(array)) >= limit:
        return False
    if body.find(b"-", end) < 0 or np.count_nonzero(array) == len(array):
        return True
    return not json_text.has_minus_zero(body, json_text.view(body))


@lru_cache(maxsize=64)
def _packer(width: int) -> Callable[..., bytes]:
    return struct.Struct(f"{width}d").pack
