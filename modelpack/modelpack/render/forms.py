"""The forms that predictors ask for (:data:`modelpack.flavor.Form`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from modelpack.dtypes import DictionaryType, Item, TimestampType
from modelpack.errors import UsageError
from modelpack.flavor import Form
from modelpack.frame import Block, Frame, Vector
from modelpack.optional import require
from modelpack.render.arrow import to_arrow
from modelpack.render.values import columns, matrix, python_values, records

__all__ = ["to"]

# The pandas extension dtypes that hold integers and bools with missing values.
_NULLABLE = {
    "bool": "boolean",
    **{f"int{bits}": f"Int{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UInt{bits}" for bits in (8, 16, 32, 64)},
}


def to(frame: Frame, form: Form) -> Any:
    """Return the frame in a form.

    ``pandas``: a DataFrame with the dtypes a user expects (integers and bools with missing values as Int64 and
    boolean, categories as category, dates as objects). ``numpy``: the tensor (a dict of several), or a table as one
    array of rows. ``columns``: arrays by name. ``records``: a list of dicts of Python values. ``arrow``: a table.
    """
    match form:
        case "frame":
            return frame
        case "pandas":
            return _pandas(frame)
        case "numpy":
            return _numpy(frame)
        case "arrow":
            return to_arrow(frame)
        case "columns":
            return columns(frame)
        case "records":
            return records(frame)
    raise UsageError(f"no form is called {form!r}", code="form-unknown")


def _numpy(frame: Frame) -> Any:
    if frame.columns is not None:
        return matrix(frame)
    tensors = dict(frame.tensors or {})
    return next(iter(tensors.values())) if len(tensors) == 1 else tensors


def _pandas(frame: Frame) -> Any:
    pandas = require("pandas", what="A model that takes a DataFrame")
    if frame.columns is None:
        return _tensor_frame(frame.tensors or {}, pandas)
    if isinstance(frame.columns, Block):
        block = frame.columns.matrix
        if not block.flags.writeable:
            # Memory that is only lent, as that of Arrow data is: a model may write into its DataFrame.
            block = np.array(block, order="F")
        return pandas.DataFrame(block, columns=_index(tuple(frame.columns)).copy(), copy=False)
    names, vectors = list(frame.columns), list(frame.columns.values())
    dtypes = {vector.data.dtype for vector in vectors}
    plain = all(isinstance(vector.type, str) for vector in vectors)
    if len(dtypes) == 1 and plain and dtypes.pop().kind in "fiub" and _complete(vectors):
        # One block: the fastest DataFrame there is.
        lanes: np.ndarray[Any, Any] = np.array([vector.data for vector in vectors])
        return pandas.DataFrame(lanes.T, columns=_index(tuple(names)).copy(), copy=False)
    series = {name: _series(vector, pandas) for name, vector in frame.columns.items()}
    return pandas.DataFrame(series, index=pandas.RangeIndex(frame.rows), columns=names, copy=False)


@lru_cache(maxsize=64)
def _index(names: tuple[str, ...]) -> Any:
    """Return the names as an index of columns, to be copied: making one is most of what a small DataFrame costs."""
    return require("pandas", what="A model that takes a DataFrame").Index(names)


def _complete(vectors: list[Vector]) -> bool:
    return all(vector.missing is None or vector.data.dtype.kind == "f" for vector in vectors)


def _tensor_frame(tensors: Mapping[str, np.ndarray[Any, Any]], pandas: Any) -> Any:
    parts = list(tensors.values())
    if len(parts) == 1 and parts[0].ndim == 2:
        return pandas.DataFrame(parts[0], copy=False)
    if all(part.ndim == 1 for part in parts):
        return pandas.DataFrame(dict(tensors), copy=False)
    raise UsageError(
        "tensors of more than two dimensions are no DataFrame", code="form-impossible", hint="Ask for form numpy."
    )


def _series(vector: Vector, pandas: Any) -> Any:
    match vector.type:
        case "utf8":
            return _text(vector, pandas)
        case "date32" | "binary" | "any":
            return pandas.Series(_objects(python_values(vector)), dtype=object)
        case TimestampType() as kind if kind.tz is not None:
            return pandas.Series(vector.data).dt.tz_localize("UTC").dt.tz_convert(kind.tz)
        case DictionaryType() as kind:
            return pandas.Series(_categorical(vector, kind, pandas))
        case str() as name if vector.missing is not None and name in _NULLABLE:
            return pandas.Series(_masked(name, vector, pandas))
    if vector.data.dtype.kind == "O":
        return pandas.Series(_objects(python_values(vector)), dtype=object)
    return pandas.Series(vector.data, copy=False)


def _text(vector: Vector, pandas: Any) -> Any:
    """Return text as pandas itself would hold it: as str from version 3, as objects with NaN before."""
    dtype = pandas.Series(["a"]).dtype
    data = vector.data
    if vector.missing is not None and dtype == np.dtype(object):
        data = np.where(vector.missing, np.nan, data)
    return pandas.Series(data, dtype=dtype)


def _objects(values: list[Any]) -> np.ndarray[Any, Any]:
    return np.fromiter(values, dtype=object, count=len(values))


def _masked(name: Item, vector: Vector, pandas: Any) -> Any:
    kind = pandas.arrays.BooleanArray if name == "bool" else pandas.arrays.IntegerArray
    return kind(vector.data, vector.missing)


def _categorical(vector: Vector, kind: DictionaryType, pandas: Any) -> Any:
    if kind.categories is None:
        return pandas.Categorical(python_values(vector), ordered=kind.ordered)
    categories: Any = kind.categories
    if kind.values not in ("utf8", "bool"):
        categories = np.array(categories, dtype=kind.values)
    return pandas.Categorical(
        python_values(vector), dtype=pandas.CategoricalDtype(pandas.Index(categories), ordered=kind.ordered)
    )
