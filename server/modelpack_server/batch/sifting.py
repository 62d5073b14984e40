"""Rows of a chunk that an expression takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelpack import coerce, render
from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.where import bounds
from modelpack_server.batch.where.levels import Levels
from modelpack_server.batch.where.terms import Comparison, Term, columns_of, tests_of
from modelpack_server.batch.where.typed import check, plain, scalars

__all__ = ["Sieve", "sieve"]

_COMPARE = {
    "=": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sieve:
    """A term, and the columns of the signature that it looks at: text and JSON get their types from these."""

    term: Term
    known: Mapping[str, Column] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The columns that must be read."""
        return columns_of(self.term)

    def groups(self, file: Any, name: str) -> list[int]:
        """Return the row groups of an open Parquet file that may have rows to take."""
        schema, metadata = file.schema_arrow, file.metadata
        check(schema, tests_of(self.term), name)
        return self.some_groups(metadata, schema, schema.names)

    def some_groups(self, metadata: Any, schema: pa.Schema, inside: Any) -> list[int]:
        """Return the row groups that may have rows to take; columns have the types of ``schema``."""
        places = {metadata.schema.column(index).path: index for index in range(metadata.num_columns)}

        def may(number: int) -> bool:
            group = metadata.row_group(number)
            return bounds.may_hold(
                self.term,
                lambda name: bounds.of_group(group, schema, places.get(name) if name in inside else None, name),
            )

        return [number for number in range(metadata.num_row_groups) if may(number)]

    def chunks(self, chunks: Iterator[Chunk], names: list[str] | None) -> Iterator[Chunk]:
        """Yield what is taken of each chunk, with the columns ``names`` (None: all); at least one chunk."""
        first = True
        for chunk in chunks:
            found = self._taken(chunk)
            if names is not None and not isinstance(found.data, list):
                columns = [name for name in found.data.column_names if name in names]
                found = replace(found, data=found.data.select(columns)) if columns else found
            if first or len(found) or found.broken:
                yield found
            first = False

    def _taken(self, chunk: Chunk) -> Chunk:
        columns = _Columns(chunk, self)
        if not len(chunk):
            return chunk
        mask = pc.fill_null(_mask(self.term, columns), False).to_numpy(zero_copy_only=False)
        mask = mask | columns.unfit
        if mask.all():
            return chunk
        if isinstance(chunk.data, list):
            data: Any = [row for row, taken in zip(chunk.data, mask, strict=True) if taken]
        else:
            data = chunk.data.filter(pa.array(mask))
        lines = None if chunk.lines is None else chunk.lines[mask]
        return replace(chunk, data=data, numbers=chunk.numbers[mask], lines=lines)


def sieve(term: Term, signature: Signature) -> Sieve:
    """Return the sieve for inputs of a model."""
    columns = signature.inputs.columns if isinstance(signature.inputs, Table) else ()
    looked = set(columns_of(term))
    return Sieve(term=term, known={column.name: column for column in columns if column.name in looked})


def _mask(term: Term, columns: _Columns) -> pa.Array:
    if not isinstance(term, Comparison):
        join = pc.and_kleene if term.how == "and" else pc.or_kleene
        return reduce(join, [_mask(part, columns) for part in term.parts])
    column = columns[term.column]
    if term.operator == "null":
        return pc.is_valid(column) if term.negated else pc.is_null(column)
    wanted = columns.values(term, column.type)
    if term.operator == "in":
        values = pa.array([scalar.as_py() for scalar in wanted], column.type)
        # Of a missing value it is not known whether it is one of them.
        found = pc.if_else(pc.is_valid(column), pc.is_in(column, value_set=values), pa.scalar(None, pa.bool_()))
    else:
        found = _COMPARE[term.operator](column, wanted[0])
    return pc.invert(found) if term.negated else found


class _Columns:
    """The columns of a chunk with types; ``unfit``: rows with a cell that its type does not fit.

    Whether these are taken cannot be known, so they are, and refused later like all rows that do not fit.
    """

    def __init__(self, chunk: Chunk, sieve: Sieve) -> None:
        self.name = chunk.source.name
        self.unfit = np.zeros(len(chunk), dtype=bool)
        self._chunk = chunk
        self._found: dict[str, pa.Array] = {}
        self._levels: dict[str, Levels] = {}
        if not isinstance(chunk.data, list):
            for column in sieve.columns:
                if column not in chunk.data.column_names:
                    message = f"the column {column!r} is not there, and --where asks for it"
                    raise InputError(message, code="where-column", path=self.name)
        self._sieve = sieve
        if chunk.wire == "python" and not isinstance(chunk.data, list):
            check(chunk.data.schema, tests_of(sieve.term), self.name)

    def __getitem__(self, name: str) -> pa.Array:
        if name not in self._found:
            self._found[name] = self._typed(name)
        return self._found[name]

    def values(self, term: Comparison, kind: pa.DataType) -> list[pa.Scalar]:
        """Return what a column, which was asked for and is of the type ``kind``, is compared with."""
        if (levels := self._levels.get(term.column)) is not None:
            return [pa.scalar(levels.place(value), kind) for value in term.values]
        return scalars(term, kind, self.name)

    def _typed(self, name: str) -> pa.Array:
        data = self._chunk.data
        if self._chunk.wire == "python" and not isinstance(data, list):
            column = data.column(name).combine_chunks()
            return column.cast(plain(column.type)) if pa.types.is_dictionary(column.type) else column
        if name in self._sieve.known:
            return self._signed(self._sieve.known[name])
        return self._told(name)

    def _signed(self, column: Column) -> pa.Array:
        """Return a column that the signature has, in its type."""
        data: Any = self._chunk.data
        data = [{column.name: row.get(column.name)} for row in data] if isinstance(data, list) else data
        data = data if isinstance(data, list) else data.select([column.name])
        free = column.model_copy(update={"nullable": True, "optional": False})
        signature = Signature(inputs=Table(columns=(free,)))
        frame, rows, _ = coerce.tolerant(data, signature, wire=self._chunk.wire)
        found = render.to_arrow(frame).column(0).combine_chunks()
        if len(rows) == len(self.unfit):
            return found
        self.unfit |= ~np.isin(np.arange(len(self.unfit)), rows)
        places = np.full(len(self.unfit), -1)
        places[rows] = np.arange(len(rows))
        return found.take(pa.array(places, mask=places < 0))

    def _told(self, name: str) -> pa.Array:
        """Return a column that nothing gives a type but what it is compared with."""
        values = [value for test in tests_of(self._sieve.term) if test.column == name for value in test.values]
        data, sort = self._chunk.data, _sort(values)
        if sort == "number":
            self._levels[name] = Levels(values)
        try:
            if not isinstance(data, list):
                return self._from_text(data.column(name).combine_chunks(), name, sort)
            return self._from_json([row.get(name) for row in data], name, sort if values else "any")
        except pa.ArrowException as exc:
            raise self._wrong(name) from exc

    def _from_text(self, texts: pa.Array, name: str, sort: str | None) -> pa.Array:
        match sort:
            case "number":
                return self._levels[name].texts(texts)
            case "bool":
                return texts.cast(pa.bool_())
            case "text":
                return texts
        raise self._wrong(name)

    def _from_json(self, cells: list[Any], name: str, sort: str | None) -> pa.Array:
        if sort == "any":
            return pa.array([None if cell is None else True for cell in cells], pa.bool_())
        if sort is None or any(cell is not None and _sort([cell]) != sort for cell in cells):
            raise self._wrong(name)
        if sort == "number":
            return self._levels[name].cells(cells)
        return pa.array(cells, pa.bool_() if sort == "bool" else pa.string())

    def _wrong(self, name: str) -> InputError:
        message = f"the column {name!r} has a value that cannot be compared with what --where says"
        where = f"{self.name}, rows {self._chunk.numbers[0]} to {self._chunk.numbers[-1]}"
        return InputError(message, code="where-type", path=where, hint="Text stands in single quotes, numbers do not.")


def _sort(values: list[Any]) -> str | None:
    """Say what all values are: number, bool or text (also of none); None if they differ."""
    sorts = {"bool" if isinstance(value, bool) else "text" if isinstance(value, str) else
             "number" if not isinstance(value, list | dict) else "other" for value in values}  # fmt: skip
    return next(iter(sorts)) if len(sorts) == 1 else (None if sorts else "text")
