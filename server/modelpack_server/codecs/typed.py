"""Text columns of plain numbers, parsed by Arrow instead of one by one: the same values, many times faster.

Only what can have no second meaning is taken; any other column stays text, and coercion decides. A property test
compares the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelpack.signature import Signature, Table, Tensors

__all__ = ["typed"]

# Whole numbers up to here are exact in a float type; larger ones must be looked at.
_SAFE = {"float64": 2.0**53, "float32": 2.0**24}
_INTEGERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})


def typed(table: pa.Table, signature: Signature) -> pa.Table:
    """Return a table of text with the numeric columns of the signature as numbers, where that is the same."""
    kinds = _kinds(table.column_names, signature)
    columns = {name: _column(table.column(name), kinds.get(name)) for name in table.column_names}
    return pa.table(columns)


def _kinds(names: list[str], signature: Signature) -> dict[str, Any]:
    if isinstance(signature.inputs, Table):
        return {column.name: column.type for column in signature.inputs.columns}
    if isinstance(signature.inputs, Tensors) and len(signature.inputs.tensors) == 1:
        return dict.fromkeys(names, signature.inputs.tensors[0].dtype)
    return {}


def _column(column: pa.ChunkedArray, kind: Any) -> pa.ChunkedArray:
    try:
        if isinstance(kind, str) and kind in _SAFE:
            return _floats(column, _SAFE[kind])
        if isinstance(kind, str) and kind in _INTEGERS:
            return _integers(column)
    except pa.ArrowInvalid:
        pass
    return column


def _floats(column: pa.ChunkedArray, safe: float) -> pa.ChunkedArray:
    numbers = column.cast(pa.float64())
    values = pc.fill_null(numbers, 0.0).to_numpy()
    # Large integers must be exact, and words such as "inf" and "nan" have rules of their own.
    return numbers if not len(values) or np.abs(values).max() < safe else column


def _integers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # Arrow reads hexadecimal too.
    hexadecimal = pc.any(pc.match_substring(column, "x", ignore_case=True)).as_py()
    return column if hexadecimal else column.cast(pa.int64())
