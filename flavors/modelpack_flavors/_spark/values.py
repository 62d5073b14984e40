"""Columns while a Spark ML model is evaluated with NumPy: numbers, texts, or vectors as the rows of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from modelpack.errors import FlavorError, InputError
from modelpack.frame import Frame, Vector

__all__ = ["Array", "Columns", "Value", "assembled", "columns", "dot", "numbers", "refuse", "unsupported", "vectors"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Value:
    """One column; ``missing`` marks the nulls (None: there are none)."""

    data: Array
    missing: Array | None = None


Columns = dict[str, Value]


def refuse(message: str) -> NoReturn:
    """Refuse rows that Spark refuses."""
    raise InputError(message, code="value-refused")


def unsupported(message: str) -> NoReturn:
    """Say that a model has no evaluation without Spark."""
    raise FlavorError(
        f"NumPy does not evaluate this model: {message}",
        code="conversion-unsupported",
        path="also",
        hint="The flavor spark serves it, with a JVM.",
    )


def columns(frame: Frame) -> Columns:
    """Return the columns of coerced rows."""
    return {name: _value(name, vector) for name, vector in (frame.columns or {}).items()}


def _value(name: str, vector: Vector) -> Value:
    missing = vector.missing if vector.missing is not None and vector.missing.any() else None
    if vector.data.dtype.kind != "O" or getattr(vector.type, "kind", None) != "list":
        return Value(vector.data, missing)
    if missing is not None:
        refuse(f"column {name!r} has no vector in a row")
    try:
        matrix = np.array(vector.data.tolist(), dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.ndim != 2 and len(vector):
        refuse(f"column {name!r} does not hold vectors of numbers, all of one size")
    return Value(matrix.reshape(len(vector), -1) if len(vector) else np.zeros((0, 0)))


def numbers(found: Columns, name: str) -> Array:
    """Return a column of numbers as float64, NaN where it is missing."""
    value = _of(found, name)
    if value.data.dtype.kind not in "biuf" or value.data.ndim != 1:
        refuse(f"column {name!r} holds no numbers")
    data = value.data.astype(np.float64)
    if value.missing is not None:
        data[value.missing] = np.nan
    return data


def vectors(found: Columns, name: str, size: int | None = None) -> Array:
    """Return a column of vectors as a matrix."""
    value = _of(found, name)
    if value.data.ndim != 2 or value.missing is not None:
        refuse(f"column {name!r} holds no vectors")
    if size is not None and value.data.shape[1] != size and len(value.data):
        refuse(f"the vectors in column {name!r} are not of size {size}")
    return value.data


def assembled(found: Columns, names: Sequence[str], *, keep: bool) -> Array:
    """Return columns side by side; missing values and NaN are refused, or kept as NaN."""
    parts = []
    for name in names:
        value = _of(found, name)
        if value.data.ndim == 2:
            parts.append(value.data)
            continue
        part = numbers(found, name)
        if not keep and np.isnan(part).any():
            refuse(f"a value of column {name!r} is missing")
        parts.append(part[:, None])
    return np.concatenate(parts, axis=1)


def dot(x: Array, weights: Array) -> Array:
    """Return the products of rows with weights, each row's by itself: whatever else is scored with it."""
    answer: Array = (np.ascontiguousarray(x)[:, None, :] @ weights)[:, 0]
    return answer


def _of(found: Columns, name: str) -> Value:
    if name not in found:
        refuse(f"there is no column {name!r}")
    return found[name]
