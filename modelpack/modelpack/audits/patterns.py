"""Regular expressions of others: which of them match in a time that no text can make absurd."""

from __future__ import annotations

import re
import warnings
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

__all__ = ["is_simple"]

_MAX_LENGTH = 500
# Each doubles the ways to match at most.
_MAX_OPTIONAL = 8
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)


def is_simple(pattern: str) -> bool:
    """Say whether a pattern is valid and repeats at most one of its parts, which holds no repetition itself.

    Alternatives count each for itself. What refers back to a group is never simple.
    """
    if len(pattern) > _MAX_LENGTH:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets that will mean something else one day
        try:
            repeats, optional = _counted(_parser.parse(pattern))
        except (re.error, RecursionError, OverflowError, _Unknown):
            return False
    return repeats <= 1 and optional <= _MAX_OPTIONAL


class _Unknown(Exception):
    """The pattern has a part that is not judged here."""


def _counted(parts: Any) -> tuple[int, int]:
    """Return how many repetitions of a varying number, and how many optional parts, a match goes through."""
    repeats = optional = 0
    for kind, value in parts:
        inner = _inner(kind, value)
        repeats, optional = repeats + inner[0], optional + inner[1]
    return repeats, optional


def _inner(kind: Any, value: Any) -> tuple[int, int]:
    if kind in _REPEATS:
        least, most, body = value
        inside = _counted(body)
        if most > 1 and inside != (0, 0):
            raise _Unknown
        if (least, most) == (0, 1):
            return inside[0], inside[1] + 1
        return (0 if least == most and least <= _MAX_LENGTH else 1), 0
    if kind is _constants.BRANCH:
        found = [_counted(branch) for branch in value[1]]
        return max(one[0] for one in found), sum(one[1] for one in found) + 1
    if kind is _constants.SUBPATTERN:
        return _counted(value[-1])
    if kind in (_constants.ASSERT, _constants.ASSERT_NOT):
        return _counted(value[1])
    if kind in (_constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY, _constants.IN, _constants.AT):
        return 0, 0
    raise _Unknown
