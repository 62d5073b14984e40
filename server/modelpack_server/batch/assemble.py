"""Puts kept columns and answers side by side, in the shape the output's format wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack import render
from modelpack.coerce.scalars import nearest
from modelpack.errors import InputError, OutputError
from modelpack.frame import Frame
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.formats import Format
from modelpack_server.codecs import answers, cells, csv_text

__all__ = ["Assembler", "Rows"]

# What a writer takes: a table, or for JSON Lines records.
Rows = Any


class Assembler:
    """Builds what one output file holds, chunk by chunk.

    The first chunk with rows decides the columns and their types; later ones fit or are refused. JSON Lines has no
    columns: each record keeps its own members.
    """

    def __init__(self, output: Format, wanted: Wanted) -> None:
        self._output = output
        self._wanted = wanted
        self._first = ""
        self._names: list[str] | None = None
        self._schema: pa.Schema | None = None
        self._answers: list[str] = []
        self._json = False
        self._unseen = set(wanted.keep or ())

    def add(self, chunk: Chunk, frame: Frame | None, scored: pa.Table, rows: np.ndarray[Any, Any] | None) -> Rows:
        """Return what is written for the rows of ``chunk`` with the numbers ``rows`` (None: all).

        ``frame`` is what the model saw of these rows; it types what was read as text. None leaves it as text.
        """
        if self._names is None:
            self._names = self._kept_names(chunk)
            self._first = chunk.source.name
            self._json = isinstance(chunk.data, list) and bool(chunk.data)
            # To a Delta table names that differ in case are the same.
            same = str.lower if self._output == "delta" else str
            self._answers = answers.rename(scored, self._names, same=same).column_names
        elif len(self._answers) != scored.num_columns:
            raise OutputError(
                f"the model gave {scored.num_columns} columns here and {len(self._answers)} before",
                code="output-changed",
                path=chunk.source.name,
            )
        scored = scored.rename_columns(self._answers)
        if isinstance(chunk.data, list) and self._unseen:
            self._unseen.difference_update(*chunk.data)
        if self._output == "jsonl":
            return self._records(chunk, self._kept_records(chunk, frame, rows), scored)
        self._refuse_new(chunk)
        columns = {name: self._column(chunk, frame, name, rows) for name in self._names}
        columns.update(zip(scored.column_names, scored.columns, strict=True))
        return self._table(chunk, columns, scored.schema)

    def finish(self) -> None:
        """Check what only the whole tells: a member to keep that no record had is a slip of the pen."""
        if self._unseen and self._json:
            name = min(self._unseen)
            raise InputError(f"no row has a member {name!r} to keep", code="keep-missing", path=self._first)

    def _kept_names(self, chunk: Chunk) -> list[str]:
        if not isinstance(chunk.data, list):
            names: list[str] = chunk.data.column_names
            for name in self._wanted.keep or ():
                if name not in names:
                    raise InputError(f"has no column {name!r} to keep", code="keep-missing", path=chunk.source.name)
            return self._wanted.kept(names)
        if self._wanted.keep is not None:
            return list(self._wanted.keep)
        return list(dict.fromkeys(name for record in chunk.data for name in record))

    def _refuse_new(self, chunk: Chunk) -> None:
        """Refuse a column that the output's head does not have: it would be dropped without a word."""
        if self._wanted.keep is not None:
            return
        known = set(self._names or ())
        found = chunk.data if isinstance(chunk.data, list) else [dict.fromkeys(chunk.data.column_names)]
        for record in found:
            if new := [name for name in record if name not in known]:
                raise InputError(
                    f"has the column {new[0]!r}, which {self._first}, the first file, does not begin with",
                    code="columns-differ",
                    path=chunk.source.name,
                    hint="Name the columns to keep (--keep), or write each file to its own (-o DIRECTORY/).",
                )

    def _column(self, chunk: Chunk, frame: Frame | None, name: str, rows: np.ndarray[Any, Any] | None) -> Any:
        """Return one kept column: typed by the signature where it was read as text or JSON, else as it was read."""
        typed = frame is not None and self._output != "csv" and chunk.wire != "python"
        if typed and frame is not None and frame.columns is not None and name in frame.columns:
            part = Frame(rows=frame.rows, columns={name: frame.columns[name]})
            return render.to_arrow(part).column(0)
        if not isinstance(chunk.data, list):
            if name not in chunk.data.column_names:
                return None
            column = chunk.data.column(name)
            return column if rows is None else column.take(pa.array(rows))
        records = chunk.data if rows is None else [chunk.data[row] for row in rows]
        values = [record.get(name) for record in records]
        if self._output == "csv":
            return pa.chunked_array([pa.array([_cell(value) for value in values], pa.string())])
        return self._inferred(chunk, name, values)

    def _inferred(self, chunk: Chunk, name: str, values: Sequence[Any]) -> pa.ChunkedArray:
        """Return JSON values as a column of the type that the first rows gave it."""
        known = self._schema.field(name).type if self._schema is not None else None
        # The codec keeps numbers of more digits than a float holds; a column of floats takes the nearest.
        values = [nearest(value) for value in values]
        if _mixes(values):
            raise _differs(chunk, name, "true or false beside numbers")
        try:
            column = pa.array(values)
            if known is not None and pa.types.is_nested(known) and column.type != known:
                column = pa.array(values, type=known)
                if repr(column.to_pylist()) != repr(values):
                    # Arrow leaves out members of a struct that its type does not have, and cuts fractions off.
                    raise _differs(chunk, name, f"not all {known}")
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as exc:
            raise _differs(chunk, name, "values of several types" if known is None else f"not all {known}") from exc
        if pa.types.is_null(column.type):
            # No value yet: text is what most of such columns turn out to be.
            column = pa.nulls(len(values), known or pa.string())
        return pa.chunked_array([column])

    def _table(self, chunk: Chunk, columns: dict[str, Any], scored: pa.Schema) -> pa.Table:
        count = max((len(column) for column in columns.values() if column is not None), default=0)
        if self._output == "csv":
            filled = {n: pa.nulls(count, pa.string()) if c is None else c for n, c in columns.items()}
            # What the answers' fields say of them is not lost.
            fields = [scored.field(n) if n in scored.names else pa.field(n, c.type) for n, c in filled.items()]
            return csv_text.texts(pa.table(list(filled.values()), schema=pa.schema(fields)))
        if self._schema is None:
            found = {name: pa.nulls(count, pa.string()) if c is None else c for name, c in columns.items()}
            table = pa.table(found)
            self._schema = table.schema
            return table
        fitted = [_fit(chunk, field, columns[field.name], count) for field in self._schema]
        return pa.table(fitted, schema=self._schema)

    def _kept_records(self, chunk: Chunk, frame: Frame | None, rows: np.ndarray[Any, Any] | None) -> list[Any]:
        keep = self._wanted.keep
        if isinstance(chunk.data, list):
            kept = chunk.data if rows is None else [chunk.data[row] for row in rows]
            return kept if keep is None else [{name: record.get(name) for name in keep} for record in kept]
        names = self._kept_names(chunk)
        if not names:
            return [{} for _ in range(len(chunk) if rows is None else len(rows))]
        columns = [self._column(chunk, frame, name, rows) for name in names]
        seen = {} if frame is None or chunk.wire == "python" else frame.columns or {}
        fields = [
            pa.field(name, column.type, metadata=cells.JSON if name in seen and seen[name].type == "any" else None)
            for name, column in zip(names, columns, strict=True)
        ]
        return answers.records(pa.table(columns, schema=pa.schema(fields)))

    def _records(self, chunk: Chunk, kept: list[Any], scored: pa.Table) -> list[dict[str, Any]]:
        found = answers.records(scored)
        for record in kept:
            if not record.keys().isdisjoint(self._answers):
                raise InputError(
                    "has a row with a member named like an answer; keep other members (--keep)",
                    code="keep-clash",
                    path=chunk.source.name,
                )
            # The records are ours: they came from the reader and go to the writer.
        for record, answer in zip(kept, found, strict=True):
            record.update(answer)
        return kept


def _mixes(values: Sequence[Any]) -> bool:
    """Say whether true or false is where numbers are too: Arrow makes numbers of them."""
    types = set(map(type, values))
    if bool in types and not types.isdisjoint((int, float)):
        return True
    if list in types and _mixes([part for value in values if type(value) is list for part in value]):
        return True
    members = [value for value in values if type(value) is dict] if dict in types else []
    names = dict.fromkeys(name for value in members for name in value)
    return any(_mixes([value[name] for value in members if name in value]) for name in names)


def _cell(value: Any) -> str | None:
    """Return a JSON value as the text of a CSV cell."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)  # from NaN and Infinity, which JSON does not have
    return cells.dump(value).decode()


def _fit(chunk: Chunk, field: pa.Field, column: Any, count: int) -> Any:
    """Return the column as the output's type, if that loses nothing."""
    if column is None:
        return pa.nulls(count, field.type)
    if column.type == field.type:
        return column
    if not _alike(column.type, field.type):
        raise _differs(chunk, field.name, f"{column.type} here, {field.type} before")
    try:
        return column.cast(field.type)
    except pa.ArrowException as exc:
        raise _differs(chunk, field.name, f"{column.type} here, {field.type} before") from exc


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Say whether a safe cast between the types keeps what a value means."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found) or pa.types.is_dictionary(wanted):
        inner = [t.value_type if pa.types.is_dictionary(t) else t for t in (found, wanted)]
        return bool(inner[0] == inner[1])
    if pa.types.is_timestamp(found) and pa.types.is_timestamp(wanted):
        return (found.tz is None) == (wanted.tz is None)
    if pa.types.is_floating(found) and pa.types.is_floating(wanted):
        return bool(found.bit_width <= wanted.bit_width)  # rounding passes for safe
    return any(
        test(found) and test(wanted) for test in (_is_number, _is_text, pa.types.is_decimal, pa.types.is_duration)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _differs(chunk: Chunk, name: str, how: str) -> InputError:
    return InputError(
        f"the column {name!r} has {how}; one output file has one type for a column",
        code="columns-differ",
        path=chunk.source.name,
        hint="Leave it out (--keep), write JSON Lines, or write each file to its own (-o DIRECTORY/).",
    )
