"""One column as it came, whatever library made it, in one of two shapes: a typed numpy array, or a list of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack.coerce import arrow
from modelpack.coerce.times import Instant
from modelpack.optional import loaded, require

__all__ = ["Lane", "is_column", "lane"]

# What numpy arrays hold without loss of meaning; other kinds go through Python objects.
_TYPED = "biufmM"


@dataclass(frozen=True, slots=True)
class Lane:
    """A column before coercion.

    ``data``: a one-dimensional array of a numeric, bool or time dtype, or a list of Python objects. ``missing``
    marks missing values of an array that has no own sign for them. ``aware``: a datetime64 array holds instants.
    """

    data: np.ndarray[Any, Any] | Sequence[Any]
    missing: np.ndarray[Any, Any] | None = None
    aware: bool = False

    def __len__(self) -> int:
        return len(self.data)

    def objects(self) -> list[Any]:
        """Return the values as Python objects, None where missing."""
        if not isinstance(self.data, np.ndarray):
            return list(self.data)
        values: list[Any] = list(self.data) if self.data.dtype.kind in "mM" else self.data.tolist()
        if self.aware:
            values = [Instant(value) for value in values]
            unset = np.isnat(self.data)
        else:
            unset = np.zeros(len(values), dtype=bool)
        if self.missing is not None:
            unset = unset | self.missing
        for row in np.flatnonzero(unset):
            values[row] = None
        return values


def is_column(raw: Any) -> bool:
    """Say whether :func:`lane` can read the object: a list or tuple, or an array of some library."""
    if isinstance(raw, np.ndarray):
        return raw.ndim > 0
    if isinstance(raw, list | tuple | Lane):
        return True
    if hasattr(raw, "__arrow_c_stream__") or hasattr(raw, "__arrow_c_array__"):
        return True
    return hasattr(raw, "__array__") and not isinstance(raw, np.generic)


def lane(raw: Any) -> Lane:
    """Return a list, an array, a Series or an Arrow array as a lane; nothing is converted that could lose anything."""
    if isinstance(raw, Lane):
        return raw
    if isinstance(raw, list | tuple):
        return Lane(raw)
    if isinstance(raw, np.ndarray):
        return _from_numpy(raw)
    pyarrow = loaded("pyarrow")
    if pyarrow is not None and isinstance(raw, pyarrow.Array | pyarrow.ChunkedArray):
        return _from_arrow(raw)
    pandas = loaded("pandas")
    if pandas is not None:
        if isinstance(raw, pandas.api.extensions.ExtensionArray | pandas.Index):
            raw = pandas.Series(raw)
        if isinstance(raw, pandas.Series):
            return _from_pandas(raw, pandas)
    # Arrow keeps integers beside missing values, of which numpy would make floats.
    if hasattr(raw, "__arrow_c_stream__") or hasattr(raw, "__arrow_c_array__"):
        return lane(borrowed(raw))
    return _from_numpy(np.asarray(raw))


def borrowed(raw: Any) -> Any:
    """Return a column that another library offers as Arrow data, as such; objects of Python as a list."""
    pyarrow = require("pyarrow", what="Reading data through Arrow")
    array = pyarrow.chunked_array(raw) if hasattr(raw, "__arrow_c_stream__") else pyarrow.array(raw)
    return raw.to_list() if holds_addresses(raw, array.type) else array


def holds_addresses(raw: Any, kind: Any) -> bool:
    """Say whether Arrow data of this type is not the values: polars lends the addresses of objects as bytes.

    It has no bytes of a fixed size besides.
    """
    pyarrow = loaded("pyarrow")
    assert pyarrow is not None
    return type(raw).__module__.startswith("polars.") and bool(pyarrow.types.is_fixed_size_binary(kind))


def _from_numpy(array: np.ndarray[Any, Any]) -> Lane:
    missing = None
    if array.ndim > 1:
        return Lane(list(array))
    if isinstance(array, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(array)
        array = array.data
    kind = array.dtype.kind
    if (
        kind not in _TYPED
        or array.dtype.itemsize > 8
        or (kind in "mM" and np.datetime_data(array.dtype)[0] == "generic")
    ):
        # list() keeps what tolist() would narrow (long double, complex); tolist() is right for text and objects.
        values = array.tolist() if kind in "OUST" else list(array)
        if missing is not None:
            values = [None if unset else value for value, unset in zip(values, missing, strict=True)]
        return Lane(values)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return Lane(np.asarray(array), missing)


def _from_arrow(raw: Any) -> Lane:
    found = arrow.unpack(raw)
    return Lane(found.data, found.missing, found.aware)


def _from_pandas(series: Any, pandas: Any) -> Lane:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _from_numpy(series.to_numpy())
    if isinstance(dtype, pandas.ArrowDtype):
        return _from_arrow(series.array.__arrow_array__())
    if isinstance(dtype, pandas.DatetimeTZDtype):
        return Lane(series.to_numpy(dtype=f"M8[{dtype.unit}]"), aware=True)
    if isinstance(dtype, pandas.SparseDtype):
        return _from_numpy(np.asarray(series.array.to_dense()))
    missing = series.isna().to_numpy()
    if isinstance(dtype, pandas.CategoricalDtype):
        return _from_categories(series.array, missing)
    if isinstance(dtype, pandas.StringDtype):
        return Lane(series.to_numpy(dtype=object, na_value=None).tolist())
    if dtype.kind in "biuf" and isinstance(getattr(dtype, "numpy_dtype", None), np.dtype):
        values = series.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return Lane(values, missing if missing.any() else None)
    return Lane(list(series))


def _from_categories(categorical: Any, missing: np.ndarray[Any, Any]) -> Lane:
    """Take the categories by their codes."""
    kinds = lane(categorical.categories)
    if isinstance(kinds.data, np.ndarray) and len(kinds):
        return Lane(kinds.data[categorical.codes], missing if missing.any() else None, kinds.aware)
    values = [*kinds.objects(), None]  # code -1 is the last
    return Lane([values[code] for code in categorical.codes.tolist()])
