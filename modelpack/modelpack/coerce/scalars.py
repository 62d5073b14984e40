"""Scalar values against scalar types: each type has one function that returns the canonical value or says why not.

A conversion happens only if it is lossless for that very value (spec/06-coercion.md).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import functools
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from modelpack.coerce import times
from modelpack.coerce.faults import Misfit
from modelpack.dtypes import ELEMENTS, DecimalType, DictionaryType, DurationType, Item, TimestampType, describe

__all__ = [
    "COMPOSED",
    "EXACT_BITS",
    "INT_RANGE",
    "SCALARS",
    "Wire",
    "categories",
    "is_float",
    "is_text",
    "kind",
    "mismatch",
    "nearest",
    "plain_scalar",
    "utf8",
]

Wire = Literal["python", "json", "text"]

INT_RANGE = {
    name: (0, 2**e.bits - 1) if e.kind == "uint" else (-(2 ** (e.bits - 1)), 2 ** (e.bits - 1) - 1)
    for name, e in ELEMENTS.items()
    if e.kind in ("int", "uint")
}
# Integers up to 2 to this power are exact in the float type.
EXACT_BITS = {"float16": 11, "float32": 24, "float64": 53}
_FLOATS: dict[str, Any] = {"float16": np.float16, "float32": np.float32, "float64": float}

_INTEGER = re.compile(r"[+-]?\d{1,4000}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,4000}(\.\d{0,4000})?|\.\d{1,4000})([eE][+-]?\d{1,15})?", re.ASCII)
_WORDS = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_EXACT = decimal.Context(prec=160, traps=[decimal.Inexact, decimal.InvalidOperation])


def is_float(dtype: Item) -> bool:
    """Say whether values of the type are floats, for which NaN means missing."""
    return dtype in EXACT_BITS or (isinstance(dtype, DictionaryType) and dtype.values == "float64")


def is_text(dtype: Item) -> bool:
    """Say whether values of the type are text."""
    return dtype == "utf8" or (isinstance(dtype, DictionaryType) and dtype.values == "utf8")


def plain_scalar(value: Any) -> Any:
    """Return the Python scalar behind a numpy scalar (or an array without dimensions); other values as they are."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, np.generic) or value.dtype.kind not in "biufSU":
        return value
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        # A long double may hold more than a float can; then it stays what it is, and no type takes it.
        near = float(value)
        return near if near == value or value != value else value
    return value.item()


def kind(value: Any) -> str:
    """Name the kind of a value for a message; never the value itself."""
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    return f"a value of type {type(value).__name__}"


_KINDS: list[tuple[Any, str]] = [
    (type(None), "null"),
    ((bool, np.bool_), "true or false"),
    ((int, np.integer), "an integer"),
    ((float, np.floating), "a number"),
    (str, "text"),
    ((bytes, bytearray, memoryview), "bytes"),
    (Decimal, "a decimal"),
    ((dt.datetime, np.datetime64, times.Instant), "a timestamp"),
    (dt.date, "a date"),
    ((dt.timedelta, np.timedelta64), "a duration"),
    (Mapping, "an object"),
    ((list, tuple, np.ndarray), "a list"),
]


def mismatch(value: Any, dtype: Item) -> Misfit:
    """Return the misfit that says which kind came and which type is expected."""
    if isinstance(value, float) and value != value:
        return Misfit("type-mismatch", f"NaN where {describe(dtype)} is expected")
    return Misfit("type-mismatch", f"{kind(value)} where {describe(dtype)} is expected")


def _bool(value: Any, dtype: Item, wire: Wire) -> bool:
    if isinstance(value, bool):
        return value
    if wire == "text" and isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise mismatch(value, dtype)


def _number(value: Any, dtype: Item, wire: Wire) -> int | float | Decimal:
    """Return the number a value is; text only where the wire has nothing else."""
    if wire == "text" and isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            number = int(text)
            # An integer has no negative zero; a float has, and JSON's -0 is it as well.
            return -0.0 if not number and text.startswith("-") and is_float(dtype) else number
        if _NUMBER.fullmatch(text):
            return Decimal(text)
        if _WORDS.fullmatch(text) and is_float(dtype):
            return float(text)
        raise Misfit("number-invalid", f"text that is not a number where {describe(dtype)} is expected")
    if isinstance(value, bool):
        raise mismatch(value, dtype)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float | Decimal):
        return value
    raise mismatch(value, dtype)


def _int(value: Any, dtype: str, wire: Wire) -> int:
    number = _number(value, dtype, wire)
    low, high = INT_RANGE[dtype]
    if isinstance(number, Decimal):
        # Compared before it is made an integer, which a huge exponent would make huge.
        if not number.is_finite() or not low <= number <= high:
            raise Misfit("out-of-range", f"a number outside the range of {dtype}")
    elif isinstance(number, float) and not math.isfinite(number):
        raise Misfit("out-of-range", f"a number outside the range of {dtype}")
    if not isinstance(number, int) and number != int(number):
        raise Misfit("not-whole", f"a number with a fraction where {dtype} is expected")
    if not low <= number <= high:
        raise Misfit("out-of-range", f"a number outside the range of {dtype}")
    return int(number)


def _float(value: Any, dtype: str, wire: Wire) -> float:
    number = _number(value, dtype, wire)
    if isinstance(number, float):
        return _narrow(number, dtype)
    if isinstance(number, Decimal) and wire != "python":
        # A decimal number in CSV or JSON stands for the nearest float.
        near = float(number)
        if math.isinf(near):
            raise Misfit("out-of-range", f"a number outside the range of {dtype}")
        return _narrow(near, dtype)
    return _exact_float(number, dtype)


def _narrow(number: float, dtype: str) -> float:
    """Round to the nearest value of the type; never to infinity."""
    if dtype == "float64":
        return float(number)
    with np.errstate(over="ignore"):
        near = float(_FLOATS[dtype](number))
    if math.isinf(near) and not math.isinf(number):
        raise Misfit("out-of-range", f"a number outside the range of {dtype}")
    return near


def _exact_float(number: int | Decimal, dtype: str) -> float:
    """Return an integer or decimal as a float that is equal to it."""
    try:
        near = float(number)
    except OverflowError:
        near = math.inf
    if math.isinf(near):
        raise Misfit("out-of-range", f"a number outside the range of {dtype}")
    near = _narrow(near, dtype)
    if near != number:
        what = "an integer" if isinstance(number, int) else "a decimal"
        raise Misfit("not-exact", f"{what} that {dtype} cannot hold exactly")
    return near


def utf8(value: Any, dtype: Item, wire: Wire) -> str:
    """Return text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise mismatch(value, dtype)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Misfit(
            "text-invalid", "text that is not Unicode: a lone surrogate, or bytes that are not UTF-8"
        ) from None
    return str(value)


def _binary(value: Any, dtype: Item, wire: Wire) -> bytes:
    if wire == "python":
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise mismatch(value, dtype)
    if not isinstance(value, str):
        raise mismatch(value, dtype)
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raw = None
    # Comparing also refuses stray bits behind the last byte.
    if raw is None or base64.b64encode(raw).decode() != value:
        raise Misfit("base64-invalid", "text that is not strict base64 where binary is expected")
    return raw


_DATES = (dt.date, np.datetime64, times.Instant)


def _date(value: Any, dtype: Item, wire: Wire) -> np.datetime64:
    if not isinstance(value, _DATES if wire == "python" else str):
        raise mismatch(value, dtype)
    return np.datetime64(times.date_days(value, "date32"), "D")


def _timestamp(value: Any, dtype: TimestampType, wire: Wire) -> np.datetime64:
    if wire == "python" and isinstance(value, _DATES):
        return np.datetime64(times.timestamp_count(value, dtype.unit, dtype.tz, describe(dtype)), dtype.unit)
    if wire != "python" and isinstance(value, str):
        return np.datetime64(times.timestamp_from_text(value, dtype.unit, dtype.tz, describe(dtype)), dtype.unit)
    raise mismatch(value, dtype)


def _duration(value: Any, dtype: DurationType, wire: Wire) -> np.timedelta64:
    if wire != "python" and isinstance(value, str):
        return np.timedelta64(times.duration_from_text(value, dtype.unit, describe(dtype)), dtype.unit)
    if isinstance(value, dt.timedelta | np.timedelta64):
        return np.timedelta64(times.duration_count(value, dtype.unit), dtype.unit)
    raise mismatch(value, dtype)


def _decimal(value: Any, dtype: DecimalType, wire: Wire) -> Decimal:
    expected = describe(dtype)
    if wire != "python" and isinstance(value, str):
        text = value.strip() if wire == "text" else value
        if not _NUMBER.fullmatch(text):
            raise Misfit("decimal-invalid", f"text that is not a decimal number where {expected} is expected")
        value = Decimal(text)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise mismatch(value, dtype)
    if isinstance(value, int) and value.bit_length() > 300:
        raise Misfit("out-of-range", f"a number with more digits than {expected} has")
    # A float of a JSON text stands for the number that was written.
    number = Decimal(repr(float(value)) if isinstance(value, float) and wire == "json" else value)
    if not number.is_finite() or (number and number.adjusted() >= dtype.precision - dtype.scale):
        raise Misfit("out-of-range", f"a number with more digits than {expected} has")
    try:
        exact = number.quantize(Decimal(1).scaleb(-dtype.scale), context=_EXACT)
    except (decimal.Inexact, decimal.InvalidOperation):
        raise Misfit("not-exact", f"a number with more decimal places than {expected} has") from None
    return exact if exact else abs(exact)


def _any(value: Any, dtype: Item, wire: Wire) -> Any:
    if wire == "json":
        return nearest(value)
    return value.to_python() if isinstance(value, times.Instant) else value


def nearest(value: Any) -> Any:
    """Return JSON data as Python has it: a number stands for the nearest float where no type asks for more."""
    if isinstance(value, Decimal):
        return float(value)
    if type(value) is dict:
        return {key: nearest(part) for key, part in value.items()}
    return [nearest(part) for part in value] if type(value) is list else value


SCALARS: dict[str, Callable[[Any, Any, Wire], Any]] = {
    "bool": _bool,
    **dict.fromkeys(INT_RANGE, _int),
    **dict.fromkeys(EXACT_BITS, _float),
    "utf8": utf8,
    "binary": _binary,
    "date32": _date,
    "any": _any,
}


@functools.lru_cache(maxsize=256)
def categories(dtype: DictionaryType) -> frozenset[Any] | None:
    """Return the values a dictionary column may hold; None for any."""
    if dtype.categories is None:
        return None
    return frozenset(SCALARS[dtype.values](value, dtype.values, "json") for value in dtype.categories)


def _dictionary(value: Any, dtype: DictionaryType, wire: Wire) -> Any:
    out = SCALARS[dtype.values](value, dtype.values, wire)
    allowed = categories(dtype)
    if allowed is not None and out not in allowed:
        raise Misfit("category-unknown", "a value that is none of the categories")
    return out


COMPOSED: dict[type, Callable[[Any, Any, Wire], Any]] = {
    TimestampType: _timestamp,
    DurationType: _duration,
    DecimalType: _decimal,
    DictionaryType: _dictionary,
}
