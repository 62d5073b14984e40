"""What can be told of a JSON body from its bytes, before or without looking at what it holds.

Every question has two ways to its answer, bytes at a time for small bodies and all bytes at once for large ones; a
property test compares the two. Text in strings may look like a number or a bracket: then the answer is yes too often.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["View", "brackets", "colons", "has_long_integer", "has_minus_zero", "is_precise", "view"]

Array = np.ndarray[Any, Any]
# The bytes of a large body; None of a small one.
View = Array | None

# From here on numpy's own costs are made up for.
LARGE = 4 * 1024
# What is looked at in one go stays in the cache; a little more, so that nothing is cut in two.
_CHUNK, _MORE = 32 * 1024, 32

# All digits alike: a run of them is then found by plain search, many times faster than by a pattern.
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = 19
_LONG_INTEGER = re.compile(rb"(?<![.0])0{19}")
# With the points taken out: more digits than a float holds of every number.
_PRECISE = 16
_EXPONENT = b"0e", b"0E"
_MINUS_ZERO = re.compile(rb"-0(?![0-9.eE])")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_MINUS, _POINT, _ZERO, _COLON, _E = b"-.0:e"
# This bit is all that is different between E and e.
_CASE = 32


def view(body: bytes) -> View:
    """Return a large body as an array of its bytes, None for a small one."""
    return np.frombuffer(body, np.uint8) if len(body) >= LARGE else None


def brackets(body: bytes) -> bytes:
    """Return the brackets of all kinds, each as a square one."""
    return body.translate(_ONE_KIND, _NOT_BRACKETS)


def colons(body: bytes, text: View) -> int:
    """Return how many colons there are."""
    return body.count(b":") if text is None else int(np.count_nonzero(text == _COLON))


def has_minus_zero(body: bytes, text: View) -> bool:
    """Say whether there is a -0 that is no fraction: orjson takes the minus away."""
    if text is None:
        # Nearly every -0 is that of a fraction.
        return body.count(b"-0") > body.count(b"-0.") and _MINUS_ZERO.search(body) is not None
    return body.endswith(b"-0") or any(map(_minus_zero, _chunks(text)))


def has_long_integer(body: bytes, text: View) -> bool:
    """Say whether there may be an integer beyond 64 bits, of which orjson makes a float."""
    if text is None:
        digits = body.translate(_DIGITS)
        return b"0" * _LONG in digits and _LONG_INTEGER.search(digits) is not None
    return body[:1].isdigit() or any(map(_long_integer, _chunks(text)))


def is_precise(body: bytes, text: View) -> bool:
    """Say whether there may be a number with a point or an exponent that is another one as a float."""
    if text is None:
        together = body.translate(_DIGITS, b".")
        return b"0" * _PRECISE in together or any(mark in together for mark in _EXPONENT)
    return any(map(_precise, _chunks(text)))


def _chunks(text: Array) -> Iterator[Array]:
    return (text[start : start + _CHUNK + _MORE] for start in range(0, len(text), _CHUNK))


def _minus_zero(text: Array) -> bool:
    behind = text[2:]
    found = (text[:-2] == _MINUS) & (text[1:-1] == _ZERO) & (behind != _POINT) & (behind | _CASE != _E)
    # As it is in an exponent: e-05.
    return bool((found & (behind - _ZERO >= 10)).any())


def _long_integer(text: Array) -> bool:
    digit = text - _ZERO < 10
    runs = _runs(digit, _LONG)[1:]
    # One begins where no digit is before it; of a fraction it does not.
    runs &= ~digit[: len(runs)] & (text[: len(runs)] != _POINT)
    return bool(runs.any())


def _precise(text: Array) -> bool:
    digit = text - _ZERO < 10
    if (digit[:-1] & (text[1:] | _CASE == _E)).any():
        return True
    return bool(_runs(digit | (text == _POINT), _PRECISE).any())


def _runs(mask: Array, length: int) -> Array:
    """Return where ``length`` in a row are set."""
    have = 1
    while have < length:
        step = min(have, length - have)
        mask = mask[:-step] & mask[step:]
        have += step
    return mask
