"""The columns that a scored DataFrame has: Spark must know them, and their types, before a row is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from modelpack import coerce
from modelpack.errors import OutputError, UsageError
from modelpack.signature import Signature, Table, Tensors
from modelpack_server.codecs import answers
from modelpack_server.delta.kinds import stored

__all__ = ["Answers", "expected"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """The answers' columns: as the model names them (``names``), and as Spark gets them (``schema``)."""

    names: Sequence[str]
    schema: pa.Schema

    def fit(self, scored: pa.Table) -> list[pa.Array]:
        """Return the columns of some answers in the order and the types of the schema.

        Raises:
            OutputError: columns that the signature does not tell of, or a value that is not exact in Spark's type.
        """
        if more := [name for name in scored.column_names if name not in self.names]:
            message = f"the model gave a column {more[0]!r}, which its signature does not have"
            raise OutputError(message, code="output-changed")
        arrays = []
        for name, field in zip(self.names, self.schema, strict=True):
            if name not in scored.column_names:
                arrays.append(pa.nulls(scored.num_rows, field.type))
                continue
            column = scored.column(name)
            try:
                arrays.append(_whole(column if column.type == field.type else column.cast(field.type)))
            except pa.ArrowException as exc:
                message = f"the column {name!r} has a value that is not exact as {field.type}"
                raise OutputError(message, code="not-exact") from exc
        return arrays


def expected(signature: Signature, params: Mapping[str, Any], kept: Sequence[str]) -> Answers:
    """Return the columns of the answers beside the columns that are kept.

    Raises:
        UsageError: the signature does not tell them (``columns-unknown``).
        OutputError: a column has a type that Spark does not have (``type-not-spark``).
    """
    changed = coerce.changes_outputs(params, signature)
    found = answers.empty(None if changed else signature.outputs)
    if not found.num_columns:
        why = "a param changes what the model gives" if changed else "its signature does not say what the model gives"
        raise UsageError(
            f"the columns of the answers are not known beforehand, as Spark needs them: {why}",
            code="columns-unknown",
            hint="Package the model with an example, or with a signature of its outputs with all sizes but the rows'.",
        )
    kinds = [_kind(field) for field in found.schema]
    names = answers.rename(found, kept, same=str.lower).column_names
    fields = [
        pa.field(shown, kind, _nullable(signature, name, kind))
        for shown, name, kind in zip(names, found.column_names, kinds, strict=True)
    ]
    return Answers(names=tuple(found.column_names), schema=pa.schema(fields))


def _kind(field: pa.Field) -> pa.DataType:
    kind = None if _beyond(field.type) else stored(field.type)
    if kind is None:
        raise OutputError(
            f"the column {field.name!r} is of the type {field.type}, which Spark does not have",
            code="type-not-spark",
            hint="Score files in batch, or package the model with answers of another type.",
        )
    return kind


def _beyond(kind: pa.DataType) -> bool:
    """Say whether there are integers in it that are too large for Spark's."""
    return bool(kind == pa.uint64()) or any(_beyond(kind.field(place).type) for place in range(kind.num_fields))


def _nullable(signature: Signature, name: str, kind: pa.DataType) -> bool:
    if isinstance(signature.outputs, Table):
        column = next(column for column in signature.outputs.columns if column.name == name)
        return column.nullable or column.optional
    # Of tensors only numbers that can be NaN, and texts, can be missing.
    return not isinstance(signature.outputs, Tensors) or not (pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
