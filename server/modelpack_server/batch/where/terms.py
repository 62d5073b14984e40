"""What an expression means: tests of columns, joined by `and` and `or`; a `not` has moved into the tests.

As in SQL, a test of a missing value is neither true nor false, and only rows for which all is true are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

__all__ = ["Comparison", "Joined", "Literals", "Operator", "Term", "columns_of", "negated", "tests_of"]

Literals = bool | int | Decimal | str
Operator = Literal["=", "<", "<=", ">", ">=", "in", "null"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One column compared with values; ``negated`` turns true into false, and leaves unknown as it is."""

    column: str
    operator: Operator
    values: tuple[Literals, ...] = ()
    negated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """Terms of which all hold, or any."""

    how: Literal["and", "or"]
    parts: Sequence[Term]


Term = Comparison | Joined


def negated(term: Term) -> Term:
    """Return the opposite; De Morgan's laws hold for the unknown too."""
    if isinstance(term, Comparison):
        return replace(term, negated=not term.negated)
    return Joined(how="or" if term.how == "and" else "and", parts=[negated(part) for part in term.parts])


def tests_of(term: Term) -> list[Comparison]:
    """Return all tests in a term."""
    return [term] if isinstance(term, Comparison) else [test for part in term.parts for test in tests_of(part)]


def columns_of(term: Term) -> list[str]:
    """Return the names of the columns that a term looks at, each once."""
    return list(dict.fromkeys(test.column for test in tests_of(term)))
