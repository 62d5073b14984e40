"""The forms in which rows arrive, behind one face: named or numbered columns, and the path of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from modelpack.coerce.faults import Collector, field, join
from modelpack.coerce.lanes import Lane, borrowed, holds_addresses, is_column, lane
from modelpack.coerce.scalars import kind
from modelpack.frame import Frame, Vector
from modelpack.optional import loaded, require

__all__ = [
    "ColumnSource",
    "RecordSource",
    "RowSource",
    "Source",
    "Split",
    "SplitSource",
    "is_sparse",
    "open_source",
    "through_arrow",
]


@dataclass(slots=True)
class Split:
    """Rows apart from the column names: ``dataframe_split``, or the rows of a CSV file; lists, or one matrix.

    Without ``columns`` the cells are taken by position.
    """

    columns: Sequence[str] | None
    data: Sequence[Sequence[Any]] | np.ndarray[Any, Any]


class Source:
    """Rows of data: ``names`` is None when columns are known by position only (then ``width`` counts them).

    ``bad`` holds the rows that cannot be read at all; their faults are noted already.
    """

    rows: int
    names: list[Any] | None
    width: int
    at: str
    bad: frozenset[int] | set[int] = frozenset()
    by_row = True

    def column(self, index: int) -> Any:
        """Return the column as it came."""
        raise NotImplementedError

    def lists(self, places: Sequence[int]) -> Sequence[Sequence[Any]] | None:
        """Return the cells of these columns as lists of one length, rows if ``by_row``; None if they are no lists."""
        return None

    def cell_path(self, row: int, index: int, name: str) -> str:
        """Return the path of one cell: in column ``index``, which the signature calls ``name``."""
        raise NotImplementedError

    def column_path(self, name: str) -> str:
        """Return the path of a column as a whole."""
        return join(self.at, field(name))

    def name_path(self, index: int) -> str:
        """Return the path of the place that names column ``index``."""
        assert self.names is not None
        return self.column_path(str(self.names[index]))

    def lacks(self, row: int, name: str) -> bool:
        """Say whether the row itself has no such column."""
        return False


class RowSource(Source):
    """A sequence of rows, each a sequence of cells."""

    def __init__(
        self,
        names: Sequence[Any] | None,
        data: Sequence[Any] | np.ndarray[Any, Any],
        collector: Collector,
        at: str,
        width: int | None,
    ) -> None:
        self.names = None if names is None else list(names)
        self.at = at
        self._rows_at = at
        self._columns: list[Any] | None = None
        self.data = data
        self.rows = len(data)
        self.width = len(self.names) if self.names is not None else self._width(width)
        self._check(collector)

    def _width(self, wanted: int | None) -> int:
        """Return the width that is wanted if any row has it, else the first row's."""
        widths = [len(row) for row in self.data if isinstance(row, list | tuple | np.ndarray)]
        if wanted is not None and (wanted in widths or not len(self.data)):
            return wanted
        return widths[0] if widths else 0

    def _check(self, collector: Collector) -> None:
        plain = set(map(type, self.data)) <= {list, tuple}
        if plain and set(map(len, self.data)) <= {self.width}:
            return
        bad: set[int] = set()
        for number, row in enumerate(self.data):
            path = join(self._rows_at, f"[{number}]")
            if not isinstance(row, list | tuple | np.ndarray):
                collector.add("type-mismatch", path, f"{kind(row)} where a row (a list of cells) is expected", number)
            elif len(row) != self.width:
                collector.add("ragged", path, f"a row of {len(row)} cells among rows of {self.width}", number)
            else:
                continue
            bad.add(number)
        self.bad = bad

    def column(self, index: int) -> Any:
        if isinstance(self.data, np.ndarray) and not self.bad:
            return self.data[:, index]
        if self.bad:
            return [None if number in self.bad else row[index] for number, row in enumerate(self.data)]
        if self._columns is None:
            self._columns = [*zip(*self.data, strict=True)] if self.rows else [()] * self.width
        return self._columns[index]

    def lists(self, places: Sequence[int]) -> Sequence[Sequence[Any]] | None:
        if isinstance(self.data, np.ndarray):
            return None
        if len(places) == self.width and places == [*range(self.width)]:
            return self.data
        return [[row[place] for place in places] for row in self.data]

    def cell_path(self, row: int, index: int, name: str) -> str:
        return join(self._rows_at, f"[{row}][{index}]")


class SplitSource(RowSource):
    """Rows whose columns are named beside them."""

    def __init__(self, data: Split, collector: Collector, at: str, width: int | None) -> None:
        names = data.columns
        # A frame without names is sent with its column numbers.
        if names is not None and list(names) == [*range(len(names))]:
            names = None
        super().__init__(names, data.data, collector, at + ".data", width)
        self.at = at

    def column_path(self, name: str) -> str:
        return join(self.at, ".columns")

    def name_path(self, index: int) -> str:
        return join(self.at, f".columns[{index}]")


class RecordSource(Source):
    """A sequence of records: name to cell. A key that a record lacks is a missing value."""

    def __init__(self, data: Sequence[Any], collector: Collector, at: str) -> None:
        self.at = at
        self.rows = len(data)
        self.data = data
        bad: set[int] = set()
        seen: dict[Any, None] = {}
        for number, record in enumerate(data):
            if type(record) is dict and record.keys() == seen.keys():
                continue
            if isinstance(record, Mapping):
                seen.update(dict.fromkeys(record))
            else:
                path = join(at, f"[{number}]")
                collector.add("type-mismatch", path, f"{kind(record)} where a record (an object) is expected", number)
                bad.add(number)
        self.bad = bad
        self.names = list(seen)
        self.width = len(self.names)

    def column(self, index: int) -> Any:
        assert self.names is not None
        name = self.names[index]
        return [record.get(name) if isinstance(record, Mapping) else None for record in self.data]

    def lists(self, places: Sequence[int]) -> Sequence[Sequence[Any]] | None:
        assert self.names is not None
        names = [self.names[place] for place in places]
        try:
            # One name alone would be read as a value and not as a row.
            return (
                list(map(itemgetter(*names), self.data)) if len(names) > 1 else [[row[names[0]]] for row in self.data]
            )
        except KeyError:
            return None

    def lacks(self, row: int, name: str) -> bool:
        return name not in self.data[row]

    def name_path(self, index: int) -> str:
        assert self.names is not None
        name = self.names[index]
        row = next(n for n, record in enumerate(self.data) if isinstance(record, Mapping) and name in record)
        return self.cell_path(row, index, str(name))

    def cell_path(self, row: int, index: int, name: str) -> str:
        return join(self.at, f"[{row}]", field(name))


class ColumnSource(Source):
    """Named columns, whatever holds them."""

    by_row = False

    def __init__(self, columns: Sequence[tuple[Any, Any]], rows: int, at: str, *, numbered: bool = False) -> None:
        self.at = at
        self.rows = rows
        self.names = None if numbered else [name for name, _ in columns]
        self.width = len(columns)
        self._columns = columns

    def column(self, index: int) -> Any:
        return self._columns[index][1]

    def lists(self, places: Sequence[int]) -> Sequence[Sequence[Any]] | None:
        columns = [self._columns[place][1] for place in places]
        return columns if all(type(column) is list for column in columns) else None

    def cell_path(self, row: int, index: int, name: str) -> str:
        if self.names is None:
            return join(self.at, f"[{row}]") if self.width == 1 else join(self.at, f"[{row}][{index}]")
        return join(self.at, field(str(self.names[index])), f"[{row}]")


def is_sparse(data: Any) -> bool:
    """Say whether data is a scipy sparse matrix or array."""
    sparse = loaded("scipy.sparse")
    return sparse is not None and sparse.issparse(data)


def open_source(data: Any, collector: Collector, at: str, *, width: int | None = None) -> Source:
    """Return rows of any form as a source, or raise through ``collector``.

    ``width``: the number of columns that rows without names should have.
    """
    if isinstance(data, Split):
        return SplitSource(data, collector, at, width)
    if isinstance(data, Mapping):
        return _mapping(data, collector, at)
    if isinstance(data, list | tuple):
        return _sequence(data, collector, at, width)
    if isinstance(data, Frame):
        return _frame(data, collector, at)
    if is_sparse(data):
        data = data.toarray()
    pandas = loaded("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _dataframe(data, at)
    if pandas is not None and isinstance(data, pandas.Series):
        return ColumnSource([(data.name, data)], len(data), at, numbered=not isinstance(data.name, str))
    pyarrow = loaded("pyarrow")
    if pyarrow is not None and isinstance(data, pyarrow.Table | pyarrow.RecordBatch):
        names = data.schema.names
        return ColumnSource([(name, data.column(i)) for i, name in enumerate(names)], data.num_rows, at)
    if pyarrow is not None and isinstance(data, pyarrow.Array | pyarrow.ChunkedArray):
        return ColumnSource([("", data)], len(data), at, numbered=True)
    if (taken := through_arrow(data, collector, at)) is not data:
        return open_source(taken, collector, at)
    if hasattr(data, "__array__") and not isinstance(data, np.generic):
        return _array(np.asanyarray(data), collector, at)
    message = f"{kind(data)} where rows are expected"
    raise collector.fail("data-invalid", at, message, hint="Send a table, columns, records or rows.")


def through_arrow(data: Any, collector: Collector, at: str) -> Any:
    """Return what another library offers as Arrow data (polars, for one) as a table or one column; else as it is.

    Numpy would make one type of all columns, and floats of integers beside missing values.
    """
    if not (hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")) or _is_known(data):
        return data
    pyarrow = require("pyarrow", what="Reading data through Arrow")
    try:
        table = pyarrow.table(data)
    except (pyarrow.ArrowException, TypeError, ValueError):
        return borrowed(data)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if holds_addresses(data, column.type):
            message = f"the column {name!r} holds objects of Python, which Arrow cannot say"
            raise collector.fail("data-invalid", join(at, field(name)), message)
    return table


def _is_known(data: Any) -> bool:
    """Say whether data is of a library that is read in its own way, or Arrow data already."""
    return type(data).__module__.partition(".")[0] in ("pandas", "pyarrow")


def _mapping(data: Mapping[Any, Any], collector: Collector, at: str) -> Source:
    columns = list(data.items())
    lengths: list[int] = []
    for name, raw in data.items():
        path = join(at, field(str(name)))
        if not is_column(raw):
            hint = "Each column is a list with one value per row."
            raise collector.fail("type-mismatch", path, f"{kind(raw)} where a column (a list) is expected", hint=hint)
        lengths.append(len(raw) if hasattr(raw, "__len__") else len(lane(raw)))
    for (name, _), length in zip(columns, lengths, strict=True):
        if length != lengths[0]:
            raise collector.fail("ragged", join(at, field(str(name))), "a column of another length than the first")
    return ColumnSource(columns, lengths[0] if lengths else 0, at)


def _sequence(data: Sequence[Any], collector: Collector, at: str, width: int | None) -> Source:
    if any(isinstance(part, Mapping) for part in data) or not data:
        return RecordSource(data, collector, at)
    if any(isinstance(part, list | tuple | np.ndarray) for part in data):
        return RowSource(None, data, collector, at, width)
    return ColumnSource([("", data)], len(data), at, numbered=True)


def _dataframe(frame: Any, at: str) -> Source:
    labels = list(frame.columns)
    numbered = bool(labels) and labels == list(range(len(labels)))
    return ColumnSource(
        [(label, frame.iloc[:, i]) for i, label in enumerate(labels)], len(frame), at, numbered=numbered
    )


def _frame(frame: Frame, collector: Collector, at: str) -> Source:
    if frame.columns is None:
        raise collector.fail("data-invalid", at, "tensors where a table is expected")
    return ColumnSource([(name, _as_lane(vector)) for name, vector in frame.columns.items()], frame.rows, at)


def _as_lane(vector: Vector) -> Lane:
    aware = getattr(vector.type, "tz", None) is not None
    if vector.data.dtype == object:
        return Lane(vector.data.tolist())
    return Lane(vector.data, vector.missing, aware)


def _array(array: np.ndarray[Any, Any], collector: Collector, at: str) -> Source:
    if array.dtype.names:
        return ColumnSource([(name, array[name]) for name in array.dtype.names], len(array), at)
    if array.ndim == 1:
        return ColumnSource([("", array)], len(array), at, numbered=True)
    if array.ndim != 2:
        raise collector.fail("shape-mismatch", at, f"an array of {array.ndim} dimensions where a table is expected")
    return ColumnSource([("", array[:, i]) for i in range(array.shape[1])], len(array), at, numbered=True)
