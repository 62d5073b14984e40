"""Whole columns at once: taken only if every value is lossless, otherwise None and the values are looked at singly.

Nothing here decides what is allowed; :mod:`modelpack.coerce.cells` does. A property test compares the two.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import starmap
from typing import Any

import numpy as np

from modelpack.coerce.lanes import Lane
from modelpack.coerce.literals import Number
from modelpack.coerce.scalars import EXACT_BITS, INT_RANGE, Wire, categories
from modelpack.dtypes import DictionaryType, DurationType, Item, TimestampType
from modelpack.frame import Vector

__all__ = ["floats", "numbers", "typed"]

Array = np.ndarray[Any, Any]
_NONE = type(None)
# Python types of which a whole list is one array.
_INTS = frozenset({int})
_FLOATS = frozenset({int, float})
_WRITTEN: frozenset[type] = frozenset({Decimal, Number})
_DIGITS = frozenset("+-0123456789")


def typed(source: Lane, dtype: Item, wire: Wire) -> Vector | None:
    """Return the column if it can be taken as a whole."""
    values = dtype.values if isinstance(dtype, DictionaryType) else dtype
    if isinstance(source.data, np.ndarray):
        found = _array(source.data, source.missing, source.aware, values)
    else:
        found = _list(source.data, values, wire)
    if found is None:
        return None
    data, missing = found
    if missing is not None:
        if not missing.any():
            missing = None
        else:
            data = _fill(data, missing)
    if isinstance(dtype, DictionaryType) and not _known(data, missing, dtype):
        return None
    return Vector(type=dtype, data=data, missing=missing)


def _fill(data: Array, missing: Array) -> Array:
    """Put the filler where a value is missing."""
    data = data.copy()
    data[missing] = {"f": np.nan, "M": "NaT", "m": "NaT", "O": None}.get(data.dtype.kind, 0)
    return data


def _known(data: Array, missing: Array | None, dtype: DictionaryType) -> bool:
    allowed = categories(dtype)
    if allowed is None:
        return True
    present = data if missing is None else data[~missing]
    return allowed.issuperset(present.tolist())


def _list(values: Sequence[Any], dtype: Item, wire: Wire) -> tuple[Array, Array | None] | None:
    types = set(map(type, values))
    if dtype == "any":
        return _anything(values, types, wire)
    none = _NONE in types
    types.discard(_NONE)
    missing = np.fromiter((value is None for value in values), bool, len(values)) if none else None
    if dtype == "utf8":
        return (np.fromiter(values, object, len(values)), missing) if types <= {str} and _unicode(values) else None
    if dtype == "binary":
        ok = wire == "python" and types <= {bytes}
        return (np.fromiter(values, object, len(values)), missing) if ok else None
    if not isinstance(dtype, str) or dtype == "date32":
        return None
    if dtype == "bool":
        if not types <= {bool}:
            return None
        filled = [value is True for value in values] if none else values
        return np.fromiter(filled, bool, len(values)), missing
    if wire == "json" and dtype in EXACT_BITS and types & _WRITTEN:
        # A number of a JSON text stands for its nearest float, which is none that is infinite.
        values = [float(value) if isinstance(value, Decimal) else value for value in values]
        if math.inf in values or -math.inf in values:
            return None
        types = (types - _WRITTEN) | {float}
    array = _parsed(values, types, dtype) if wire == "text" else _numeric(values, types, none, dtype)
    if array is None:
        return None
    if dtype not in EXACT_BITS and array.dtype.kind == "f":
        nan = np.isnan(array)
        # Outside floats JSON's NaN is an error; only null is a missing value.
        if (nan.any() if missing is None else (nan & ~missing).any()) and wire != "python":
            return None
    return _array(array, missing, False, dtype)


def _anything(values: Sequence[Any], types: set[type], wire: Wire) -> tuple[Array, Array | None] | None:
    if not types <= {str, int, bool, dict, list, _NONE} or (wire == "json" and _has_decimal(values, types)):
        return None
    data = np.fromiter(values, object, len(values))
    return data, (np.fromiter((v is None for v in values), bool, len(values)) if _NONE in types else None)


def _has_decimal(values: Iterable[Any], types: set[type]) -> bool:
    """Say whether a decimal is among the values, which are of these types, or within lists and objects of them."""
    if any(issubclass(one, Decimal) for one in types):
        return True
    if types.isdisjoint((dict, list)):
        return False
    parts = (value.values() if type(value) is dict else value for value in values if type(value) in (dict, list))
    return any(_has_decimal(part, set(map(type, part))) for part in parts)


def _unicode(values: Sequence[Any]) -> bool:
    """Say whether UTF-8 can hold all the texts (a lone surrogate it cannot)."""
    text = "".join([value for value in values if value is not None])
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def _numeric(values: Sequence[Any], types: set[type], none: bool, dtype: str) -> Array | None:
    """Return Python numbers as int64, uint64 or float64, whichever holds all of them exactly."""
    if types <= _INTS and types:
        filled = [0 if value is None else value for value in values] if none else values
        for integer in (np.int64, np.uint64):
            try:
                return np.array(filled, dtype=integer)
            except OverflowError:
                continue
        return None
    if not types <= _FLOATS:
        return None
    try:
        array = np.array(values, dtype=np.float64) if none or not values else _packed([values])
    except (OverflowError, struct.error):
        return None
    return None if int in types and not _small(array, dtype) else array


def _packed(rows: Sequence[Sequence[Any]]) -> Array:
    """Return Python's numbers, one after another; rows are equally long. Several times faster than numpy."""
    pack = struct.Struct(f"{len(rows[0])}d").pack
    return np.frombuffer(bytearray().join(starmap(pack, rows)), np.float64)


def _small(array: Array, dtype: str) -> bool:
    """Say whether integers among the values are exact, in float64 and in the type they are meant for."""
    with np.errstate(invalid="ignore"):
        return not bool((np.abs(array) >= 2.0 ** EXACT_BITS.get(dtype, 53)).any())


def numbers(rows: Sequence[Sequence[Any]], types: set[type], dtype: str = "float64") -> Array | None:
    """Return rows of Python numbers and nulls as one float64 matrix, if ``dtype`` holds them; all are equally long."""
    if not types <= {int, float, _NONE} or not types:
        return None
    try:
        array = np.array(rows, dtype=np.float64) if _NONE in types else _packed(rows).reshape(len(rows), -1)
    except (OverflowError, struct.error):
        return None
    return None if int in types and not _small(array, dtype) else array


def _parsed(values: Sequence[Any], types: set[type], dtype: str) -> Array | None:
    """Return the numbers that CSV cells hold, if they are plain decimal numbers without surprises."""
    if not types <= {str}:
        return None
    text = "".join([value for value in values if value is not None])
    # Python's float() also takes underscores and other alphabets' digits; and it would round 1.00000000000000000001.
    if not text.isascii() or "_" in text or (dtype not in EXACT_BITS and not _DIGITS.issuperset(text)):
        return None
    try:
        array = np.array([float(value) if value else np.nan for value in values])
    except ValueError:
        return None
    empty = np.array([not value for value in values], dtype=bool)
    # Large integers must be exact; words such as "inf" and tiny numbers have rules of their own.
    odd = (~np.isfinite(array) & ~empty) | ((array == 0) if "e" in text.lower() else False)
    return array if _small(array, dtype) and not odd.any() else None


def _array(data: Array, missing: Array | None, aware: bool, dtype: Item) -> tuple[Array, Array | None] | None:
    kind = data.dtype.kind
    if dtype == "any":
        return None if kind in "mM" else _boxed(data, missing)
    if kind == "b":
        return (data, missing) if dtype == "bool" else None
    if kind in "iu" and dtype in INT_RANGE:
        return _int_to_int(data, missing, str(dtype))
    if kind in "iu" and dtype in EXACT_BITS:
        return _int_to_float(data, missing, str(dtype))
    if kind == "f" and dtype in EXACT_BITS:
        return floats(data, missing, str(dtype))
    if kind == "f" and dtype in INT_RANGE:
        return _float_to_int(data, missing, str(dtype))
    if kind == "M" and (dtype == "date32" or isinstance(dtype, TimestampType)):
        return _times(data, missing, aware, dtype)
    if kind == "m" and isinstance(dtype, DurationType) and np.datetime_data(data.dtype)[0] not in "YM":
        return _ticks(data, missing, f"m8[{dtype.unit}]")
    return None


def _boxed(data: Array, missing: Array | None) -> tuple[Array, Array | None]:
    if data.dtype.kind == "f":
        missing = _either(missing, np.isnan(data))
    return np.fromiter(data.tolist(), object, len(data)), missing


def _either(missing: Array | None, more: Array) -> Array | None:
    if missing is not None:
        return missing | more
    return more if more.any() else None


def _present(data: Array, missing: Array | None) -> Array:
    return data if missing is None else data[~missing]


def _int_to_int(data: Array, missing: Array | None, dtype: str) -> tuple[Array, Array | None] | None:
    if data.dtype != dtype:
        low, high = INT_RANGE[dtype]
        present = _present(data, missing)
        if len(present) and not (low <= int(present.min()) and int(present.max()) <= high):
            return None
    return data.astype(dtype, copy=False), missing


def _int_to_float(data: Array, missing: Array | None, dtype: str) -> tuple[Array, Array | None] | None:
    present = _present(data, missing)
    bound = 2 ** EXACT_BITS[dtype]
    if len(present) and not (-bound <= int(present.min()) and int(present.max()) <= bound):
        return None
    with np.errstate(over="ignore"):  # what lies under a missing mark may be anything
        return data.astype(dtype), missing


def floats(data: Array, missing: Array | None, dtype: str) -> tuple[Array, Array | None] | None:
    """Return floats in another float type and which are missing; None if one becomes an infinity."""
    with np.errstate(over="ignore"):
        out = data.astype(dtype, copy=False)
    if out.dtype.itemsize < data.dtype.itemsize and (np.isinf(out) & ~np.isinf(data)).any():
        return None
    return out, _either(missing, np.isnan(out))


def _float_to_int(data: Array, missing: Array | None, dtype: str) -> tuple[Array, Array | None] | None:
    missing = _either(missing, np.isnan(data))
    present = _present(data, missing).astype(np.float64)
    low, high = INT_RANGE[dtype]
    # float(high + 1) is exact for every integer type, float(high) is not.
    if not ((present >= float(low)) & (present < float(high + 1)) & (present == np.trunc(present))).all():
        return None
    if missing is not None:
        data = np.where(missing, 0, data)
    return data.astype(dtype), missing


def _times(data: Array, missing: Array | None, aware: bool, dtype: Item) -> tuple[Array, Array | None] | None:
    if aware != (isinstance(dtype, TimestampType) and dtype.tz is not None):
        return None
    return _ticks(data, missing, f"M8[{dtype.unit}]" if isinstance(dtype, TimestampType) else "M8[D]")


def _ticks(data: Array, missing: Array | None, dtype: str) -> tuple[Array, Array | None] | None:
    missing = _either(missing, np.isnat(data))
    out = data
    if data.dtype != dtype:
        if missing is not None:
            data = np.where(missing, np.zeros(1, data.dtype), data)
        out = data.astype(dtype)
        # An overflow or a lost digit does not come back the same; a NaT was an overflow.
        if (out.astype(data.dtype) != data).any() or np.isnat(out).any():
            return None
    if dtype == "M8[D]":
        days = _present(out, missing).astype(np.int64)
        if len(days) and not (days.min() >= -(2**31) and days.max() < 2**31):
            return None
    return out, missing
