"""Columns of an Arrow table as the tensors of a signature: views of the same memory where nothing is missing."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from modelpack.signature import IO, Tensors

__all__ = ["tensors"]


def tensors(table: pa.Table, inputs: IO | None) -> Any:
    """Return the table, or for a model of tensors its columns by the names of these.

    A table that has no such columns is left to be read by position, as a matrix; a single column of lists is the
    single tensor, whatever it is called.
    """
    if not isinstance(inputs, Tensors):
        return table
    names = table.column_names
    wanted = inputs.tensors
    if len(wanted) == 1 and table.num_columns == 1 and _is_lists(table.field(0).type):
        return {wanted[0].name: _view(table.column(0))}
    if not all(tensor.optional or tensor.name in names for tensor in wanted):
        return table
    if len(wanted) == 1 and len(wanted[0].shape) == 2 and not _is_lists(table.field(wanted[0].name).type):
        return table
    return {tensor.name: _view(table.column(tensor.name)) for tensor in wanted if tensor.name in names}


def _is_lists(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_fixed_size_list(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or isinstance(kind, pa.FixedShapeTensorType)
    )


def _view(column: pa.ChunkedArray) -> Any:
    """Return fixed-size lists of numbers without gaps as an array, everything else as it is."""
    if column.num_chunks:
        array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    else:
        array = pa.array([], column.type)
    if isinstance(array.type, pa.FixedShapeTensorType):
        return array.to_numpy_ndarray() if _complete(array.storage) else column
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type) and not array.null_count:
        shape.append(array.type.list_size)
        array = array.flatten()
    if len(shape) == 1 or array.null_count or not _is_number(array.type):
        return column
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _complete(array: pa.Array) -> bool:
    return not array.null_count and not array.flatten().null_count


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
