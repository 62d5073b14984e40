"""Arrow arrays of every type, unpacked to numpy or to Python objects without losing a digit.

Only called with Arrow objects, so pyarrow is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from modelpack.coerce.times import Instant
from modelpack.optional import loaded, require

__all__ = ["Unpacked", "matrix", "nested", "objects", "unpack"]


class Unpacked(NamedTuple):
    """Values, marks of missing ones, and whether a datetime64 array holds instants."""

    data: Any
    missing: np.ndarray[Any, Any] | None = None
    aware: bool = False


def unpack(array: Any) -> Unpacked:
    """Return an Array or ChunkedArray as a numpy array where its type has one, else as a list of Python objects."""
    pa = loaded("pyarrow")
    assert pa is not None
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else _combined(array)
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return unpack(array.storage)
    if types.is_dictionary(kind):
        return unpack(_decoded(array, pa))
    if types.is_run_end_encoded(kind):
        return unpack(_compute().run_end_decode(array))
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return Unpacked(_filled(array).to_numpy(zero_copy_only=False), _nulls(array))
    if types.is_date(kind) or types.is_timestamp(kind) or types.is_duration(kind):
        return _times(array, pa)
    if _is_list(types, kind) or types.is_struct(kind) or types.is_map(kind):
        return Unpacked(nested(array, objects))
    try:
        return Unpacked(array.to_pylist())
    except UnicodeDecodeError:
        # Files may hold text that is none. What is no UTF-8 becomes surrogates, which coercion refuses one by one.
        raw = array.cast(pa.large_binary()).to_pylist()
        return Unpacked([None if value is None else value.decode("utf-8", "surrogateescape") for value in raw])


def matrix(table: Any, dtype: str) -> np.ndarray[Any, Any] | None:
    """Return the columns of a table or record batch as one matrix that only looks at their memory; None if there is
    none.

    There is one if all are of ``dtype``, without nulls, and lie at equal distances, as the columns of a record batch
    do where it was read. It cannot be written to.
    """
    pa = loaded("pyarrow")
    assert pa is not None
    rows, kind = table.num_rows, pa.from_numpy_dtype(dtype)
    if not rows or any(field.type != kind for field in table.schema):
        return None
    starts, size = [], np.dtype(dtype).itemsize
    for column in table.columns:
        if isinstance(column, pa.ChunkedArray):
            if column.num_chunks != 1:
                return None
            column = column.chunk(0)
        buffer = column.buffers()[1]
        if column.null_count or buffer.size < (column.offset + rows) * size:
            return None
        starts.append(buffer.address + column.offset * size)
    steps = {after - before for before, after in pairwise(starts)} or {rows * size}
    step = steps.pop()
    if steps or step < rows * size or step % size or starts[0] % size:
        return None
    # Which ends where the last column does, and holds the table.
    memory = pa.foreign_buffer(starts[0], step * (len(starts) - 1) + rows * size, base=table)
    return np.ndarray((rows, len(starts)), dtype, memory, strides=(size, step))


def _types() -> Any:
    return require("pyarrow", what="Reading Arrow data").types


def _compute() -> Any:
    return require("pyarrow.compute", what="Reading Arrow data")


def _decoded(array: Any, pa: Any) -> Any:
    """Return the values of a dictionary; of views, as polars has them, Arrow cannot take them by number."""
    kind = array.type.value_type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        wide = pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()
        array = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(wide))
    return array.dictionary_decode()


def _combined(chunked: Any) -> Any:
    combined = chunked.combine_chunks()
    # Older pyarrow gives a ChunkedArray back when there is nothing to combine.
    return combined.chunk(0) if hasattr(combined, "num_chunks") else combined


def _nulls(array: Any) -> np.ndarray[Any, Any] | None:
    if not array.null_count:
        return None
    mask: np.ndarray[Any, Any] = array.is_null().to_numpy(zero_copy_only=False)
    return mask


def _filled(array: Any) -> Any:
    if not array.null_count:
        return array
    return array.fill_null(False if str(array.type) == "bool" else 0)


def _times(array: Any, pa: Any) -> Unpacked:
    kind = array.type
    missing = _nulls(array)
    if pa.types.is_date(kind):
        width, dtype = (pa.int32(), "M8[D]") if kind.bit_width == 32 else (pa.int64(), "M8[ms]")
        counts = _filled(array.view(width)).to_numpy(zero_copy_only=False)
        return Unpacked(counts.astype(np.int64).view(dtype), missing)
    counts = _filled(array.view(pa.int64())).to_numpy(zero_copy_only=False)
    if pa.types.is_duration(kind):
        return Unpacked(counts.view(f"m8[{kind.unit}]"), missing)
    return Unpacked(counts.view(f"M8[{kind.unit}]"), missing, kind.tz is not None)


def _is_list(types: Any, kind: Any) -> bool:
    checks = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(types, check)(kind) for check in checks if hasattr(types, check))


def objects(array: Any) -> list[Any]:
    """Return the values as Python objects: times as numpy scalars or instants, what is no UTF-8 as surrogates."""
    found = unpack(array)
    if isinstance(found.data, list):
        return found.data
    values: list[Any] = list(found.data) if found.data.dtype.kind in "mM" else found.data.tolist()
    if found.aware:
        values = [Instant(value) for value in values]
    if found.missing is not None:
        values = [None if unset else value for value, unset in zip(values, found.missing, strict=True)]
    return values


def nested(array: Any, read: Callable[[Any], list[Any]]) -> list[Any]:
    """Return the values of an array of lists, structs or maps, as whose parts ``read`` gives those of their arrays.

    A map is the list of its pairs.
    """
    types, valid = _types(), array.is_valid().to_pylist()
    if types.is_struct(array.type):
        names = [array.type.field(i).name for i in range(array.type.num_fields)]
        parts = [read(part) for part in array.flatten()]
        return [
            {name: part[row] for name, part in zip(names, parts, strict=True)} if there else None
            for row, there in enumerate(valid)
        ]
    if types.is_map(array.type):
        lengths = [len(value) if there else 0 for value, there in zip(array, valid, strict=True)]
        there_only = array.filter(array.is_valid())
        pairs = list(zip(read(_part(there_only, "keys")), read(_part(there_only, "items")), strict=True))
        return _split(pairs, lengths, valid)
    lengths = [0 if value is None else value for value in _compute().list_value_length(array).to_pylist()]
    return _split(read(array.flatten()), lengths, valid)


def _part(array: Any, name: str) -> Any:
    """Return the keys or items of a map array that may be a slice."""
    if not len(array):
        return getattr(array, name)[:0]
    start, stop = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
    return getattr(array, name)[start:stop]


def _split(flat: list[Any], lengths: list[int], valid: list[bool]) -> list[Any]:
    out: list[Any] = []
    at = 0
    for length, there in zip(lengths, valid, strict=True):
        out.append(flat[at : at + length] if there else None)
        at += length
    return out
