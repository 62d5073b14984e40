"""Large JSON bodies of floats alone, read straight into an array by simdjson, if its Python binding is installed.

`simdjson <https://simdjson.org>`_ looks at many bytes at once, and no object is made of a number that is only to be put
into an array: of a request of a thousand rows that is most of the work. It is an extra (``modelpack[simd]``). What is
taken, and to which values, is what :mod:`modelpack_server.codecs.json_floats` takes; the rest is left to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from modelpack.coerce import Split
from modelpack.signature import Signature, Table, Tensor, Tensors
from modelpack_server.codecs import json_floats
from modelpack_server.codecs.json_floats import Array, Taken

try:
    import simdjson
except ImportError:  # without the extra
    simdjson = None  # type: ignore[assignment]

__all__ = ["KEPT", "LARGE", "reader"]

# Smaller bodies are read by orjson as quickly.
LARGE = 4 * 1024
# A parser keeps some fifteen times the largest body it has read. Below, that is less than what new memory costs.
KEPT = 1024 * 1024
_OPENING = ord("[")
_MARK = b"\xef\xbb\xbf"


def reader(signature: Signature) -> Callable[[bytes], Taken | None]:
    """Return what takes the usual bodies for a signature; of any other signature, and without simdjson, nothing."""
    if simdjson is not None and (limit := json_floats.limit_of(signature)):
        match signature.inputs:
            case Table(columns=columns):
                return _Rows([column.name for column in columns], limit)
            case Tensors(tensors=(tensor,)):
                return _Tensor(tensor, limit)
    return lambda body: None


class _Rows:
    """``dataframe_split`` with all columns in order, and then rows."""

    def __init__(self, names: list[str], limit: float) -> None:
        self._names = names
        self._quotes = json_floats.quotes_of(names)
        self._shape = None, len(names)
        self._limit = limit

    def __call__(self, body: bytes) -> Taken | None:
        try:
            split = _only(_parsed(body), "dataframe_split")
            if type(split) is not simdjson.Object or list(split) != ["columns", "data"]:
                return None
            columns, rows = split["columns"], split["data"]
            if type(columns) is not simdjson.Array or columns.as_list() != self._names:
                return None
            array = _array(rows, self._shape, body, self._quotes, self._limit)
        except (ValueError, TypeError, RuntimeError):
            return None
        return None if array is None else (Split(self._names, array), "dataframe_split")


class _Tensor:
    """``inputs`` or ``instances`` with the one tensor of the signature as nested lists, bare or by its name."""

    def __init__(self, tensor: Tensor, limit: float) -> None:
        self._name = tensor.name
        self._shape = tensor.shape
        self._limit = limit

    def __call__(self, body: bytes) -> Taken | None:
        try:
            value = _parsed(body)
            if (lists := _only(value, "instances")) is not None:
                form, quotes = "instances", 2
            elif (named := _only(lists := _only(value, "inputs"), self._name)) is not None:
                form, lists, quotes = "inputs", named, 4
            else:
                form, quotes = "inputs", 2
            array = _array(lists, self._shape, body, quotes, self._limit)
        except (ValueError, TypeError, RuntimeError, LookupError):
            # A key with a NUL in it is there, and not found.
            return None
        return None if array is None else (array, form)


_mine = threading.local()


def _parsed(body: bytes) -> Any:
    """Return what is in the body. Nothing of it may be left when this thread reads the next one.

    Raises:
        ValueError: it is no JSON, or begins with a byte order mark.
        RuntimeError: it is nested in a thousand levels.
    """
    if body.startswith(_MARK):
        # simdjson skips it, no other reader does.
        raise ValueError
    if len(body) > KEPT:
        return simdjson.Parser().parse(body)
    try:
        parser = _mine.parser
    except AttributeError:
        parser = _mine.parser = simdjson.Parser()
    return parser.parse(body)


def _only(value: Any, key: str) -> Any:
    """Return the one member of an object if it is this; None of anything else."""
    return value[key] if type(value) is simdjson.Object and list(value) == [key] else None


def _array(lists: Any, shape: Sequence[int | str | None], body: bytes, quotes: int, limit: float) -> Array | None:
    """Return the numbers of nested lists, behind which the body ends, and before which there are so many quotes."""
    end = body.rfind(b'"') + 1
    if body.count(b'"', 0, end) != quotes or type(lists) is not simdjson.Array:
        return None
    numbers = lists.as_buffer(of_type="d")
    if (sizes := _sizes(lists, shape)) is None:
        return None
    # If no list is opened that is not in one of the outer dimensions, none is among the numbers.
    opened = np.count_nonzero(np.frombuffer(body, np.uint8, offset=end) == _OPENING)
    if opened != sum(np.multiply.accumulate([1, *sizes[:-1]])):
        return None
    array = np.frombuffer(numbers, np.float64)
    return array.reshape(sizes) if json_floats.is_plain(array, body, end, limit) else None


def _sizes(lists: Any, wanted: Sequence[int | str | None]) -> list[int] | None:
    """Return the shape of nested lists that hold numbers and nothing else, if it is the one that is wanted.

    Raises:
        TypeError: there are numbers where lists should be.
    """
    sizes, level = [len(lists)], [lists]
    for depth in range(1, len(wanted)):
        if len(found := set(map(len, chain.from_iterable(level)))) != 1:
            return None
        sizes += found
        if depth < len(wanted) - 1:
            level = list(chain.from_iterable(level))
    return sizes if all(sizes) and json_floats.fits(sizes, wanted) else None
