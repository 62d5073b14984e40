"""Which formats can say which answers: told by the signature before the model is asked, by the answer after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from modelpack import coerce
from modelpack.dtypes import ELEMENTS, DictionaryType, DurationType, Item, TimestampType
from modelpack.frame import Frame, Vector
from modelpack.signature import Signature, Table, Tensors
from modelpack_server.codecs import ENCODERS
from modelpack_server.problems import HttpProblem

__all__ = [
    "ARROW",
    "CSV",
    "JSON",
    "LINES",
    "NPY",
    "NPZ",
    "PARQUET",
    "arrays",
    "matrix",
    "possible",
    "refuse",
    "rows",
    "suits",
]

JSON, CSV, LINES = "application/json", "text/csv", "application/x-ndjson"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
NPY, NPZ = "application/x-npy", "application/x-npz"
_TABLES = frozenset({ARROW, PARQUET, CSV, LINES})
_NUMBERS = frozenset({"bool", "int", "uint", "float"})


def possible(signature: Signature) -> tuple[str, ...]:
    """Return the media types in which the model can answer; all of them where only the answer can tell."""
    changing = any(param.changes_outputs for param in signature.params)
    match signature.outputs:
        case _ if changing:
            found = frozenset(ENCODERS)
        case Table(columns=columns):
            found = _TABLES | _of_columns([(column.type, column.nullable or column.optional) for column in columns])
        case Tensors(tensors=tensors):
            named = frozenset({NPZ} if len(tensors) != 1 or tensors[0].optional else {NPY, NPZ})
            sizes = {tensor.shape[0] if tensor.shape else 0 for tensor in tensors}
            alike = len(sizes) == 1 and all(tensor.shape for tensor in tensors)
            found = named | _TABLES if alike else named
        case None:
            found = frozenset(ENCODERS)
        case _:
            found = frozenset({JSON})
    return tuple(media for media in ENCODERS if media == JSON or media in found)


def _of_columns(columns: Iterable[tuple[Item, bool]]) -> frozenset[str]:
    """Return which numpy formats hold columns of these types, missing values included where there may be some."""
    columns = list(columns)
    if not all(_is_array(dtype, missing=missing) for dtype, missing in columns):
        return frozenset()
    dtypes = {dtype for dtype, _ in columns}
    only = dtypes.pop() if len(dtypes) == 1 else None
    return frozenset({NPZ, NPY} if isinstance(only, str) and ELEMENTS[only].kind in _NUMBERS else {NPZ})


def _is_array(dtype: Item, *, missing: bool) -> bool:
    """Say whether numpy has a dtype for the type, with a sign for missing values if there are some."""
    match dtype:
        case TimestampType():
            return dtype.tz is None
        case DurationType() | "date32":
            return True
        case DictionaryType():
            return _is_array(dtype.values, missing=missing)
        case str():
            kind = ELEMENTS[dtype].kind
            return kind == "float" or (kind != "any" and not missing)
    return False


def suits(frame: Frame) -> tuple[str, ...]:
    """Return the media types that can say this very answer, by its types and shapes."""
    if frame.columns is None:
        tensors = (frame.tensors or {}).values()
        found = frozenset({NPZ} if len(tensors) != 1 else {NPY, NPZ})
        if rows(frame) is not None:
            found |= _TABLES
    elif _is_json(frame.columns):
        found = frozenset()
    else:
        marked = [(vector.type, _has_missing(vector)) for vector in frame.columns.values()]
        found = _TABLES | _of_columns(marked)
    return tuple(media for media in ENCODERS if media == JSON or media in found)


def _is_json(columns: Mapping[str, Vector]) -> bool:
    return [vector.type for vector in columns.values()] == [coerce.JSON]


def _has_missing(vector: Vector) -> bool:
    return vector.missing is not None and bool(vector.missing.any())


def rows(frame: Frame) -> int | None:
    """Return how many rows the answer has as a table, or None if its tensors are no columns of one table."""
    if frame.columns is not None:
        return None if _is_json(frame.columns) else frame.rows
    sizes = {array.shape[0] if array.ndim else None for array in (frame.tensors or {}).values()}
    return sizes.pop() if len(sizes) == 1 else None


def refuse(frame: Frame, media: str, why: str) -> HttpProblem:
    """Return the 406 for an answer that the format cannot say."""
    others = [other for other in suits(frame) if other != media]
    return HttpProblem(406, why, code="not-acceptable", hint=f"This answer can be sent as {', '.join(others)}.")


def arrays(frame: Frame, media: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the answer as arrays by name: tensors, or columns whose missing values are NaN and NaT.

    Raises:
        HttpProblem: 406 when numpy has no dtype for a column, or no sign for its missing values.
    """
    if media not in suits(frame):
        raise refuse(frame, media, f"this answer cannot be said in {media}: numpy has no dtype for a part of it")
    if frame.columns is None:
        found = dict(frame.tensors or {})
    else:
        found = {name: vector.data for name, vector in frame.columns.items()}
    return {name: _texts(array, frame, media) for name, array in found.items()}


def matrix(frame: Frame) -> np.ndarray[Any, Any]:
    """Return the answer as one array: the only tensor, or the columns of a table side by side."""
    parts = list(arrays(frame, NPY).values())
    return parts[0] if frame.columns is None else np.column_stack(parts)


# Fixed-width text is as wide in every row as in the widest.
_WIDEST = 256 * 1024 * 1024


def _texts(array: np.ndarray[Any, Any], frame: Frame, media: str) -> np.ndarray[Any, Any]:
    """Return texts or bytes as numpy's own fixed-width kinds, which cannot say zeros at the end."""
    if array.dtype != object:
        return array
    values = array.reshape(-1).tolist()
    kinds = set(map(type, values))
    zero = "\0" if kinds == {str} else b"\0"
    if kinds not in (set(), {str}, {bytes}) or any(value.endswith(zero) for value in values):
        raise refuse(frame, media, f"this answer cannot be said in {media}: a text or bytes that numpy would change")
    if max(map(len, values), default=0) * 4 * len(values) > _WIDEST:
        raise refuse(frame, media, f"this answer cannot be said in {media}: texts of too different lengths")
    dtype = "S" if kinds == {bytes} else "U"
    return np.array(values, dtype).reshape(array.shape)
