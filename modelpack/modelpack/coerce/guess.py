"""Signatures from data: what was inferred always takes the data it was inferred from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelpack.coerce.columns import objects
from modelpack.coerce.faults import Collector
from modelpack.coerce.kinds import column_type, is_name, of_values
from modelpack.coerce.lanes import lane
from modelpack.coerce.sources import Source, Split, is_sparse, open_source
from modelpack.dtypes import ELEMENTS
from modelpack.errors import InputError, SignatureError
from modelpack.frame import Frame
from modelpack.optional import loaded
from modelpack.signature import IO, Column, Json, Table, Tensor, Tensors

__all__ = ["answer", "io"]

BATCH = "batch"
_TENSOR = {name for name, element in ELEMENTS.items() if element.kind not in ("date", "any")}


def io(data: Any, *, default_name: str = "input") -> Table | Tensors:
    """Return the table or tensors that ``data`` is.

    A DataFrame, a dict of columns, records, an Arrow table or a Series is a table; arrays, nested lists of numbers
    and sparse matrices are tensors with the first dimension free. A DataFrame whose columns are only numbered is
    what its array is: one tensor.

    Raises:
        SignatureError: the data is of no known form, or a column has no name or no type.
    """
    if isinstance(data, Frame):
        return _frame(data, default_name)
    if is_sparse(data) or _is_array(data):
        return Tensors(tensors=(_tensor(data, default_name),))
    if isinstance(data, Mapping) and _holds_tensors(data):
        _check(list(data))
        return Tensors(tensors=tuple(_tensor(value, name) for name, value in data.items()))
    if isinstance(data, list | tuple) and data and not any(isinstance(row, Mapping) for row in data):
        return _sequence(data, default_name)
    return _table(data, default_name)


def answer(raw: Any) -> IO:
    """Return the outputs that a model's answer looks like; kind ``json`` when it is neither a table nor a tensor."""
    pandas = loaded("pandas")
    if pandas is not None and isinstance(raw, pandas.Series):
        try:
            return _with_nan(Tensors(tensors=(_series(raw),)))
        except SignatureError:
            raw = raw.to_frame("prediction")
    if isinstance(raw, Mapping) and not _is_columns(raw):
        return Json()
    try:
        found = io(raw, default_name="prediction")
    except (SignatureError, InputError):
        return Json()
    if isinstance(raw, list | tuple) and isinstance(found, Table) and not all(isinstance(row, Mapping) for row in raw):
        return Json()
    return _with_nan(found)


def _series(raw: Any) -> Tensor:
    """A Series is what its values are; its name means nothing."""
    column = lane(raw)
    typed = isinstance(column.data, np.ndarray) and column.missing is None
    return _tensor(column.data if typed else objects(column.objects()), "prediction")


def _with_nan(found: Table | Tensors) -> Table | Tensors:
    """Let floats of an answer be NaN: that the example has none says nothing about the next answer."""
    if isinstance(found, Tensors):
        tensors = [t.model_copy(update={"nullable": t.nullable or t.dtype in _FLOATS}) for t in found.tensors]
        return found.model_copy(update={"tensors": tuple(tensors)})
    columns = [c.model_copy(update={"nullable": c.nullable or c.type in _FLOATS}) for c in found.columns]
    return found.model_copy(update={"columns": tuple(columns)})


_FLOATS = {"float16", "float32", "float64"}


def _is_columns(raw: Mapping[Any, Any]) -> bool:
    """Say whether a dict is columns: arrays, or lists of values of one type."""
    return bool(raw) and all(
        hasattr(value, "dtype") or (isinstance(value, list) and of_values(value)[0] != "any") for value in raw.values()
    )


def _is_array(data: Any) -> bool:
    if isinstance(data, np.ndarray):
        return data.dtype.names is None
    pandas = loaded("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame | pandas.Series | pandas.Index):
        return (
            isinstance(data, pandas.DataFrame)
            and isinstance(data.columns, pandas.RangeIndex)
            and bool(len(data.columns))
            and all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in data.dtypes)
        )
    pyarrow = loaded("pyarrow")
    if pyarrow is not None and isinstance(
        data, pyarrow.Table | pyarrow.RecordBatch | pyarrow.Array | pyarrow.ChunkedArray
    ):
        return False
    return hasattr(data, "__array__") and not hasattr(data, "__arrow_c_stream__") and not isinstance(data, np.generic)


def _holds_tensors(data: Mapping[Any, Any]) -> bool:
    """Say whether a dict holds arrays of which one has more than one dimension."""
    values = list(data.values())
    return bool(values) and all(_is_array(v) or is_sparse(v) for v in values) and any(len(v.shape) > 1 for v in values)


def _sequence(data: Sequence[Any], default_name: str) -> Table | Tensors:
    if all(_is_array(part) or is_sparse(part) for part in data):
        # Several arrays: what predict_proba of a multi-output model gives.
        return Tensors(tensors=tuple(_tensor(part, f"{default_name}_{i}") for i, part in enumerate(data)))
    try:
        array = np.asarray(data)
    except ValueError:
        array = np.asarray(None)
    types = set(map(type, data))
    if array.ndim and array.dtype.kind in "biuf" and (array.ndim > 1 or len(types) == 1):
        return Tensors(tensors=(_tensor(array, default_name),))
    if array.ndim == 1 and types == {str}:
        return Tensors(tensors=(_tensor(array, default_name),))
    return _table(data, default_name)


def _frame(frame: Frame, default_name: str) -> Table | Tensors:
    if frame.columns is None:
        return Tensors(tensors=tuple(_tensor(array, name) for name, array in (frame.tensors or {}).items()))
    columns = []
    for name, vector in frame.columns.items():
        kind: Any = vector.type
        columns.append(Column(name=name, type=kind, nullable=vector.missing is not None))
    return Table(columns=tuple(columns))


def _tensor(raw: Any, name: str) -> Tensor:
    array = raw.toarray() if is_sparse(raw) else np.asanyarray(raw)
    shape = (BATCH, *array.shape[1:]) if array.ndim else ()
    kind, missing = column_type(array.reshape(-1), name)
    if kind == "any" and not array.size:
        kind, missing = "utf8", False
    if not isinstance(kind, str) or kind not in _TENSOR or (missing and kind not in _FLOATS):
        raise SignatureError(
            f"an array of dtype {array.dtype} is no tensor of one element type",
            code="type-unsupported",
            hint="Give a table (a DataFrame or a dict of columns) instead.",
        )
    return Tensor(name=name, dtype=kind, shape=shape, nullable=missing)  # type: ignore[arg-type]


def _table(data: Any, default_name: str) -> Table:
    collector = Collector(error=SignatureError)
    source = open_source(data, collector, "")
    collector.finish()
    names = _names(source, data, default_name)
    if not names:
        raise SignatureError("data without columns shows no signature", code="data-empty")
    columns = []
    for place, name in enumerate(names):
        kind, nullable = column_type(source.column(place), name)
        columns.append(Column(name=name, type=kind, nullable=nullable))
    return Table(columns=tuple(columns))


def _names(source: Source, data: Any, default_name: str) -> list[str]:
    if source.names is None:
        pandas = loaded("pandas")
        if isinstance(data, Split) or (pandas is not None and isinstance(data, pandas.DataFrame)) or source.width > 1:
            raise SignatureError(
                "the columns have no names", code="name-invalid", hint="Name them, for example df.add_prefix('x')."
            )
        return [default_name]
    _check(source.names)
    return source.names


def _check(names: list[Any]) -> None:
    for name in names:
        if not is_name(name):
            raise SignatureError(
                f"a column is called {name!r}; names are text",
                code="name-invalid",
                hint="Name the columns, for example df.columns = df.columns.astype(str).",
            )
    if len(set(names)) < len(names):
        raise SignatureError("two columns have the same name", code="name-invalid")
