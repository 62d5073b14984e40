"""Tables: every column of the signature found in the source and coerced."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from modelpack.coerce import whole
from modelpack.coerce.columns import Report, vector
from modelpack.coerce.faults import Collector, join
from modelpack.coerce.scalars import Wire
from modelpack.coerce.sources import RecordSource, Source
from modelpack.dtypes import Item
from modelpack.frame import Frame, Vector
from modelpack.signature import Column, Table

__all__ = ["Want", "read", "table"]


class Want(NamedTuple):
    """A column that is wanted; a :class:`modelpack.signature.Column` serves as well."""

    name: str
    type: Item
    nullable: bool = False
    optional: bool = False


Wanted = Sequence["Want | Column"]


def table(source: Source, signature: Table, wire: Wire, collector: Collector) -> Frame:
    """Return the columns of the source that the signature names, coerced."""
    places = _places(source, signature.columns, collector)
    if signature.extra_columns == "reject" and source.names is not None:
        known = {column.name for column in signature.columns}
        for place, name in enumerate(source.names):
            if name not in known:
                path = source.name_path(place)
                collector.add("column-unexpected", path, "a column the signature does not have", column=name)
    return Frame(rows=source.rows, columns=read(source, signature.columns, places, wire, collector))


def _places(source: Source, columns: Sequence[Column], collector: Collector) -> list[int | None]:
    """Return where each column of the signature is in the source; None for one that is not there."""
    if source.names is None:
        if not source.rows and not source.width:
            return [None] * len(columns)
        if source.width != len(columns):
            message = f"{source.width} columns by position where the signature has {len(columns)}"
            raise collector.fail("shape-mismatch", source.at, message)
        return list(range(len(columns)))
    names = source.names
    if not all(isinstance(name, str) for name in names):
        hint = "Give the columns names, or leave names out to send them by position."
        raise collector.fail("name-invalid", source.at, "column names that are not text", hint=hint)
    index = {name: place for place, name in enumerate(names)}
    if len(index) < len(names):
        for column in columns:
            if names.count(column.name) > 1:
                path = source.column_path(column.name)
                raise collector.fail("column-duplicate", path, f"two columns are called {column.name!r}")
    return [index.get(column.name) for column in columns]


def read(
    source: Source, wanted: Wanted, places: Sequence[int | None], wire: Wire, collector: Collector
) -> dict[str, Vector]:
    """Return the wanted columns, taken from their places in the source."""
    if source.rows and not source.bad and wire != "text" and wanted:
        floats = _floats(source, wanted, places)
        if floats is not None:
            return floats
    out: dict[str, Vector] = {}
    for column, place in zip(wanted, places, strict=True):
        if place is not None:
            raw = source.column(place)
        elif column.optional:
            continue
        elif isinstance(source, RecordSource) or not source.rows:
            # A record that lacks the key says null, whatever the other records of the batch hold.
            raw = [None] * source.rows
        else:
            message = f"column {column.name!r} is missing"
            collector.add("column-missing", source.column_path(column.name), message, column=column.name)
            continue
        report = _reporter(source, column.name, place or 0, collector)
        out[column.name] = vector(raw, column.type, column.nullable, wire, report)
    return out


def _reporter(source: Source, name: str, place: int, collector: Collector) -> Report:
    def report(row: int, code: str, message: str, below: str) -> None:
        if row in source.bad:
            return
        if code == "null-not-allowed" and not below and source.lacks(row, name):
            code, message = "column-missing", f"{name!r} is missing"
        collector.add(code, join(source.cell_path(row, place, name), below), message, row, name)

    return report


def _floats(source: Source, wanted: Wanted, places: Sequence[int | None]) -> dict[str, Vector] | None:
    """Return all columns from one matrix, when all of them are float64 and all cells numbers or nulls."""
    if any(column.type != "float64" for column in wanted):
        return None
    lists = source.lists([place for place in places if place is not None]) if None not in places else None
    if lists is None:
        return None
    matrix = whole.numbers(lists, set(map(type, chain.from_iterable(lists))))
    if matrix is None:
        return None
    lanes: np.ndarray[Any, Any] = np.ascontiguousarray(matrix.T) if source.by_row else matrix
    nan = np.isnan(lanes)
    if not nan.any():
        return {column.name: Vector(type="float64", data=lane) for column, lane in zip(wanted, lanes, strict=True)}
    gaps = nan.any(axis=1).tolist()
    if any(gap and not column.nullable for column, gap in zip(wanted, gaps, strict=True)):
        return None
    return {
        column.name: Vector(type="float64", data=lane, missing=missing if gap else None)
        for column, lane, missing, gap in zip(wanted, lanes, nan, gaps, strict=True)
    }
