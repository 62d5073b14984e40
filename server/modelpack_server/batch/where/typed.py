"""Values of an expression as values of the column's own type: exactly, or not at all."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Any

import pyarrow as pa

from modelpack.errors import InputError
from modelpack_server.batch.where.terms import Comparison, Literals

__all__ = ["check", "plain", "scalars"]


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values, whether or not they are written as a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def check(schema: pa.Schema, tests: list[Comparison], name: str) -> None:
    """Raise InputError if a column of the tests is not in a file, or its type is none that they can be made on."""
    for test in tests:
        if test.column not in schema.names:
            message = f"the column {test.column!r} is not there, and --where asks for it"
            raise InputError(message, code="where-column", path=name)
        scalars(test, plain(schema.field(test.column).type), name)


def scalars(test: Comparison, kind: pa.DataType, name: str) -> list[pa.Scalar]:
    """Return the test's values in the type of its column, in the file ``name``.

    Raises:
        InputError: a value is none of that type (``where-type``).
    """
    return [_scalar(value, kind, test.column, name) for value in test.values]


def _scalar(value: Literals, kind: pa.DataType, column: str, name: str) -> pa.Scalar:
    found = None
    with contextlib.suppress(pa.ArrowException, ValueError, TypeError, OverflowError):
        found = _as(value, kind)
    if found is None or not found.is_valid:
        shown = f"'{value}'" if isinstance(value, str) else str(value).lower()
        message = f"the column {column!r} is {kind}, and --where compares it with {shown}"
        hint = "Text, dates and times stand in single quotes; a time has a zone where the column has one."
        raise InputError(message, code="where-type", path=name, hint=hint)
    return found


def _as(value: Any, kind: pa.DataType) -> pa.Scalar | None:
    types = pa.types
    if isinstance(value, bool) or types.is_boolean(kind):
        return pa.scalar(value, kind) if isinstance(value, bool) and types.is_boolean(kind) else None
    if isinstance(value, str):
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return pa.scalar(value, kind)
        if types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind):
            return pa.scalar(value).cast(kind)
        return None
    if types.is_integer(kind):
        return pa.scalar(int(value), kind) if int(value) == value else None
    if types.is_floating(kind):
        # The nearest one, as everywhere; never infinity.
        return pa.scalar(float(value), pa.float64()).cast(kind) if abs(float(value)) != float("inf") else None
    if types.is_decimal(kind):
        return pa.scalar(Decimal(value), kind)
    return None
