"""Whether some rows of which only bounds are known may hold a term: files and row groups that cannot are not read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from modelpack_server.batch.where.terms import Comparison, Term
from modelpack_server.batch.where.typed import plain, scalars

__all__ = ["Bounds", "may_hold", "of_group", "of_partition"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What is known of a column in some rows: its type, its least and its greatest value, and missing values.

    ``least`` and ``most`` None: not known, or there is no value. ``nulls``, ``values``: there may be such.
    """

    kind: pa.DataType
    least: Any = None
    most: Any = None
    nulls: bool = True
    values: bool = True


def may_hold(term: Term, bounds: Callable[[str], Bounds | None]) -> bool:
    """Say whether rows within bounds may hold a term; ``bounds`` tells them of a column, or None."""
    if isinstance(term, Comparison):
        known = bounds(term.column)
        return known is None or _may(term, known)
    found = (may_hold(part, bounds) for part in term.parts)
    return all(found) if term.how == "and" else any(found)


def _may(test: Comparison, known: Bounds) -> bool:
    if test.operator == "null":
        return known.values if test.negated else known.nulls
    if not known.values:
        return False
    if known.least is None or known.most is None:
        return True
    # A NaN is in no bounds, and whatever is denied of numbers holds for it.
    if test.negated and pa.types.is_floating(known.kind):
        return True
    wanted = [scalar.as_py() for scalar in scalars(test, known.kind, "")]
    try:
        return _within(test, wanted, known.least, known.most)
    except TypeError:
        return True


def _within(test: Comparison, wanted: list[Any], least: Any, most: Any) -> bool:
    value = wanted[0]
    match test.operator, test.negated:
        case (("=" | "in"), False):
            return any(least <= one <= most for one in wanted)
        case (("=" | "in"), True):
            return not (least == most and least in wanted)
        case ("<", False) | (">=", True):
            return bool(least < value)
        case ("<=", False) | (">", True):
            return bool(least <= value)
        case (">", False) | ("<=", True):
            return bool(most > value)
        case _:
            return bool(most >= value)


def of_partition(value: Any, kind: pa.DataType, constant: Callable[[Any, pa.DataType, int], pa.Array]) -> Bounds:
    """Return the bounds of a column that has one value."""
    found = constant(value, kind, 1)[0].as_py()
    return Bounds(kind=plain(kind), least=found, most=found, nulls=found is None, values=found is not None)


def of_group(group: Any, schema: pa.Schema, index: int | None, name: str) -> Bounds | None:
    """Return the bounds of a column in a row group of a Parquet file, as far as its statistics can be relied on."""
    if index is None:
        return None
    kind = plain(schema.field(name).type)
    found = group.column(index).statistics
    if found is None:
        return None
    counted = found.has_null_count
    nulls, values = not counted or found.null_count > 0, not counted or found.null_count < group.num_rows
    nan = found.has_min_max and (found.min != found.min or found.max != found.max)
    if not found.has_min_max or nan or not _told(kind):
        return Bounds(kind=kind, nulls=nulls, values=values)
    return Bounds(kind=kind, least=found.min, most=found.max, nulls=nulls, values=values)


def _told(kind: pa.DataType) -> bool:
    """Say whether statistics of this type come to us as they are in the file."""
    types = pa.types
    if types.is_timestamp(kind):
        return bool(kind.unit != "ns")
    tests = (types.is_signed_integer, types.is_floating, types.is_date32, types.is_string)
    return any(test(kind) for test in tests)
