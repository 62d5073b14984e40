"""From a frame to the matrix that a booster takes: its features in its order, categories as their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack.dtypes import DictionaryType
from modelpack.errors import InputError
from modelpack.frame import Frame, Vector
from modelpack.signature import Column, Signature, Table, Tensor, Tensors

__all__ = ["Rows", "signature", "spelled"]

Array = np.ndarray[Any, Any]


def _same(name: str) -> str:
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The features of a booster.

    ``names`` are empty if it was trained without: then the columns are taken as they come. ``categories`` are those
    the model was trained with, in its order, by the feature's place; a place in ``categorical`` without any takes the
    order of the column's own type. ``unknown_is_missing`` says what becomes of a value that is none of them. ``dtype``
    is what the library makes of all columns. ``spelling`` gives a column's name as the model spells it.
    """

    features: int
    names: tuple[str, ...] = ()
    categories: Mapping[int, Sequence[Any]]
    unknown_is_missing: bool
    dtype: type[np.floating[Any]]
    spelling: Callable[[str], str] = _same

    def matrix(self, frame: Frame) -> Array:
        """Return the rows as one matrix; a tensor is passed as it is.

        Raises:
            InputError: a feature is not there, or is neither a number nor a category.
        """
        if frame.columns is None:
            matrix = self._tensor(frame)
        else:
            columns = self._ordered(frame.columns)
            matrix = np.empty((frame.rows, len(columns)), dtype=self.dtype)
            for place, (name, vector) in enumerate(columns):
                matrix[:, place] = self._numbers(place, name, vector)
        if matrix.shape[1] != self.features:
            raise InputError(
                f"{matrix.shape[1]} features where the model has {self.features}", code="shape-mismatch", path="inputs"
            )
        return matrix

    def _tensor(self, frame: Frame) -> Array:
        tensors = list((frame.tensors or {}).values())
        if len(tensors) != 1 or tensors[0].ndim != 2 or tensors[0].dtype.kind not in "biuf":
            raise InputError("the model takes one matrix of numbers", code="shape-mismatch", path="inputs")
        return tensors[0]

    def _ordered(self, columns: Mapping[str, Vector]) -> list[tuple[str, Vector]]:
        found = list(columns.items())
        if not self.names:
            return found
        if tuple(columns) == self.names:
            return found
        spelled = {self.spelling(name): (name, vector) for name, vector in found}
        missing = [name for name in self.names if name not in spelled]
        if missing:
            raise InputError(
                f"the model has a feature that is not there, and {len(missing) - 1} more of them",
                code="column-missing",
                path=missing[0],
            )
        return [spelled[name] for name in self.names]

    def _numbers(self, place: int, name: str, vector: Vector) -> Array:
        known = self.categories.get(place)
        if isinstance(vector.type, DictionaryType) or (known and vector.type == "utf8"):
            own = vector.type.categories if isinstance(vector.type, DictionaryType) else None
            return self._codes(name, vector, known if known is not None else own)
        if vector.data.dtype.kind not in "biuf" or known:
            wanted = "a category" if known else "a number"
            raise InputError(f"the model takes {wanted} here", code="type-mismatch", path=name)
        with np.errstate(over="ignore"):
            numbers: Array = vector.data.astype(self.dtype)
        if vector.missing is not None and vector.data.dtype.kind != "f":
            numbers[vector.missing] = np.nan
        return numbers

    def _codes(self, name: str, vector: Vector, categories: Sequence[Any] | None) -> Array:
        """Return each value's place among the categories."""
        if categories is None:
            raise InputError(
                "the categories of this column are known neither to the model nor to the signature",
                code="category-unknown",
                path=name,
            )
        places = {value: place for place, value in enumerate(categories)}
        values = vector.data.tolist()
        codes = np.array([places.get(value, -1) for value in values], dtype=self.dtype)
        unknown = codes < 0
        if not self.unknown_is_missing:
            refused = unknown if vector.missing is None else unknown & ~vector.missing
            if refused.any():
                raise InputError("a value is none of the model's categories", code="category-unknown", path=name)
        codes[unknown] = np.nan
        if vector.missing is not None:
            codes[vector.missing] = np.nan
        return codes


def spelled(rows: Rows, example: Any) -> tuple[str, ...]:
    """Return the features' names as the columns of an example have them, or as the model has them."""
    columns = list(getattr(example, "columns", ()))
    if not rows.names or not all(isinstance(name, str) for name in columns):
        return rows.names
    own = {rows.spelling(name): name for name in columns}
    return tuple(own.get(name, name) for name in rows.names)


def signature(rows: Rows, columns: Sequence[str], kinds: Mapping[int, str]) -> Signature | None:
    """Return what a model says of its inputs, or None if it does not know the order of a column's categories.

    ``columns`` are its features' names as the user spells them; ``kinds`` are the types of features that are not
    simply numbers: "bool", "category".
    """
    if not columns:
        tensor = Tensor(name="input", dtype="float64", shape=(None, rows.features), nullable=True)
        return None if kinds else Signature(inputs=Tensors(tensors=(tensor,)))
    found = []
    for place, name in enumerate(columns):
        kind: Any = kinds.get(place, "float64")
        if place in rows.categories:
            kind = _dictionary(rows.categories[place])
        elif kind == "category":
            kind = None
        if kind is None:
            return None
        found.append(Column(name=name, type=kind, nullable=True))
    return Signature(inputs=Table(columns=tuple(found)))


def _dictionary(values: Sequence[Any]) -> DictionaryType | None:
    """Return the type of a column of these categories, or None if there is none that holds them all."""
    types = {type(value) for value in values}
    kind = {str: "utf8", bool: "bool", int: "int64", float: "float64"}.get(next(iter(types), object))
    if len(types) != 1 or kind is None:
        return None
    return DictionaryType(values=kind, categories=tuple(values))  # type: ignore[arg-type]
