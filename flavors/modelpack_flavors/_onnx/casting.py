"""Values in the type that a graph takes, changed only where nothing is lost (spec/06-coercion.md)."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from modelpack.errors import InputError
from modelpack.frame import Vector

__all__ = ["ELEMENTS", "cast", "column", "fault"]

Array = np.ndarray[Any, Any]

# Numbers of ONNX element types -> our names; those that are not here have no values in a signature.
ELEMENTS = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "utf8", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
_BITS = {"float16": 11, "float32": 24, "float64": 53}


def fault(code: str, message: str, where: str) -> NoReturn:
    """Refuse the data."""
    raise InputError(message, code=code, path=where)


def column(vector: Vector, dtype: str, where: str, absent: str | None = None) -> Array:
    """Return a column in the type of the graph's input.

    A missing value is NaN; in text it is ``absent``, the text that the graph knows it by, if it knows any.
    """
    if dtype == "utf8" and absent is not None:
        return _text(vector, absent, where)
    if vector.missing is not None and not dtype.startswith("float"):
        fault("null-not-allowed", f"a missing value, which an input of {dtype} does not have", where)
    data = vector.data
    if vector.type == "any" or (data.dtype.kind in "biu" and vector.missing is not None):
        present = data if vector.missing is None else data[~vector.missing]
        data = _filled(_typed(present, where), vector.missing)
    return cast(data, dtype, where)


def _text(vector: Vector, absent: str, where: str) -> Array:
    gone = np.zeros(len(vector), bool) if vector.missing is None else vector.missing
    present = cast(vector.data[~gone], "utf8", where)
    if (present == absent).any():
        fault("text-invalid", "the text that stands for a missing value", where)
    out = np.full(len(vector), absent, dtype=object)
    out[~gone] = present
    return out


def _typed(values: Array, where: str) -> Array:
    """Return values of any type as an array of one type."""
    kinds = {type(value) for value in values.tolist()}
    if kinds <= {str}:
        return values.astype(object)
    if len(kinds) > 1 and not kinds <= {int, float}:
        fault("type-mismatch", "values of several types in one column", where)
    return np.array(values.tolist())


def _filled(present: Array, missing: Array | None) -> Array:
    if missing is None:
        return present
    if present.dtype.kind in "iu" and len(present) and int(np.abs(present).max()) > 2**53:
        # Beside missing values integers are held as floats.
        fault("not-exact", "an integer that a float does not hold exactly", "")
    out = np.full(len(missing), np.nan, np.float64)
    out[~missing] = present
    return out


def cast(data: Array, dtype: str, where: str) -> Array:
    """Return the array in another type: whole numbers exactly, floats rounded to a narrower one, never to infinity.

    Raises:
        InputError: a value that the type does not hold.
    """
    if dtype == "utf8":
        if data.dtype.kind not in "OU" or not all(type(value) is str for value in data.reshape(-1).tolist()):
            fault("type-mismatch", "values that are not text for an input of text", where)
        return data.astype(object, copy=False)
    target = np.dtype(dtype)
    if data.dtype == target:
        return data
    if data.dtype.kind not in "iuf" or target.kind not in "iuf":
        fault("type-mismatch", f"values of {_kind(data)} for an input of {dtype}", where)
    if target.kind == "f":
        return _to_float(data, target, where)
    if data.dtype.kind == "f" and (not np.isfinite(data).all() or (data != np.trunc(data)).any()):
        fault("not-whole", f"a number with a fraction for an input of {dtype}", where)
    info = np.iinfo(target)
    # As Python numbers, since a float has no exact 2**63 - 1.
    if data.size and not (info.min <= int(data.min()) and int(data.max()) <= info.max):
        fault("out-of-range", f"a number outside the range of {dtype}", where)
    return data.astype(target)


def _to_float(data: Array, target: np.dtype[Any], where: str) -> Array:
    if data.dtype.kind in "iu":
        limit = 2 ** _BITS[str(target)]
        if data.size and not (-limit <= int(data.min()) and int(data.max()) <= limit):
            fault("not-exact", f"an integer that {target} does not hold exactly", where)
        return data.astype(target)
    with np.errstate(over="ignore"):
        out: Array = data.astype(target)
    if target.itemsize < data.dtype.itemsize and (np.isinf(out) & ~np.isinf(data)).any():
        fault("out-of-range", f"a number outside the range of {target}", where)
    return out


def _kind(data: Array) -> str:
    return {"O": "text or objects", "M": "times", "m": "durations", "b": "bool"}.get(data.dtype.kind, str(data.dtype))
