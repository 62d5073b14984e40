"""JSON texts read as they are written, by the standard library's parser: no number rounded, no key overwritten."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from modelpack.errors import InputError

__all__ = ["Number", "loads"]

# MLflow's own client writes NaN for every missing value, of text too.
_CONSTANTS: Mapping[str, float | None] = MappingProxyType({"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf})
# What a number must have to be too large for a float.
_LARGE = re.compile(r"[eE]|\d{300}", re.ASCII)
# Every number of so many characters without an exponent is what its float is written as.
_SHORT = 16


class Number(Decimal):
    """A number of a JSON text that is no float: the float nearest to it is written otherwise."""


def loads(text: str, *, whole: bool = True) -> Any:
    """Return the value of a JSON text; NaN is null.

    A number with a point or an exponent is the nearest float if that is written as the same number, else, with
    ``whole``, the :class:`Number`.

    Raises:
        InputError: a key twice in one object, or a number too large for any type.
        json.JSONDecodeError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    if whole:
        fraction: Callable[[str], float | Number] = _fraction
    else:
        fraction = _finite if _LARGE.search(text) else float
    return json.loads(
        text,
        object_pairs_hook=_distinct,
        parse_float=fraction,
        parse_int=_integer,
        parse_constant=_CONSTANTS.__getitem__,
    )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise InputError(
            "an object in the body has the same key twice",
            code="json-duplicate-key",
            hint="Which of the two values counts is undefined in JSON, so neither is used.",
        )
    return members


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _too_large()
    return value


def _fraction(text: str) -> float | Number:
    """Return a number written with a point or an exponent: as a float, if that is written as the same number."""
    value = _finite(text)
    if len(text) <= _SHORT and "e" not in text and "E" not in text:
        return value
    written = repr(value)
    return value if written == text or (exact := Number(text)) == Decimal(written) else exact


def _integer(text: str) -> int | float:
    if text == "-0":
        return -0.0
    # No type takes more digits than a decimal(76); a float64 ends at 309.
    if len(text) > 400:
        raise _too_large()
    return int(text)


def _too_large() -> InputError:
    return InputError("a number in the body is too large for any type", code="json-number")
