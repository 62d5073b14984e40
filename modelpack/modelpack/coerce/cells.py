"""One value against one type: the truth that every fast path must agree with (spec/06-coercion.md).

Canonical values: ``bool int float str bytes Decimal`` as themselves; dates, timestamps and durations as
``datetime64[unit]`` and ``timedelta64[unit]`` (exact for every unit, an instant in UTC); ``list`` and ``dict`` of
canonical values, None for a missing item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np

from modelpack.coerce import literals
from modelpack.coerce.faults import Misfit, field
from modelpack.coerce.scalars import (
    COMPOSED,
    EXACT_BITS,
    SCALARS,
    Wire,
    is_float,
    is_text,
    kind,
    mismatch,
    plain_scalar,
    utf8,
)
from modelpack.dtypes import Item, ListType, MapType, StructField, StructType, describe
from modelpack.errors import InputError
from modelpack.optional import loaded

__all__ = ["cell", "is_missing", "item"]


def cell(value: Any, dtype: Item, wire: Wire) -> Any:
    """Return the canonical form of a value that is not missing, or raise :class:`Misfit`."""
    if isinstance(dtype, str):
        return SCALARS[dtype](plain_scalar(value), dtype, wire)
    return _COMPOSITES[type(dtype)](plain_scalar(value), dtype, wire)


def item(value: Any, dtype: Item, nullable: bool, wire: Wire, step: str) -> Any:
    """Return the canonical form of a part of a composite value, None when it is missing and may be."""
    try:
        if is_missing(value, dtype, wire):
            if not nullable:
                raise Misfit("null-not-allowed", f"a missing value where {describe(dtype)} is expected")
            return None
        return cell(value, dtype, wire)
    except Misfit as misfit:
        raise misfit.below(step) from None


def is_missing(value: Any, dtype: Item, wire: Wire) -> bool:
    """Say whether a value stands for a missing one.

    Python has many: None, NaN, NaT, pandas.NA, a NaN decimal. JSON has null, and NaN for floats only (MLflow's own
    client writes it so). A CSV cell is missing when it is None, or empty and not text.
    """
    if value is None:
        return True
    if isinstance(value, str):
        if wire != "text" or dtype == "any" or is_text(dtype):
            return False
        return value == "" or (is_float(dtype) and value.strip().lower().lstrip("+-") == "nan")
    if isinstance(value, float):
        return value != value and (wire == "python" or dtype == "any" or is_float(dtype))
    return wire == "python" and _is_na(value)


def _is_na(value: Any) -> bool:
    if isinstance(value, np.generic):
        return value.dtype.kind in "fmM" and bool(value != value)
    if isinstance(value, Decimal):
        return value.is_nan()
    pandas = loaded("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)


def _parsed(value: Any, dtype: Item, wire: Wire) -> tuple[Any, Wire]:
    """A CSV cell holds a composite value as JSON text."""
    if wire != "text" or not isinstance(value, str):
        return value, wire
    try:
        return literals.loads(value, whole=_wants_whole(dtype)), "json"
    except (ValueError, RecursionError):
        raise Misfit("type-mismatch", f"text that is not JSON where {describe(dtype)} is expected") from None
    except InputError as error:
        if error.code == "json-number":
            raise Misfit("out-of-range", "JSON with a number too large for any type") from None
        raise Misfit("key-duplicate", "JSON with an object that has the same key twice") from None


@lru_cache(maxsize=256)
def _wants_whole(dtype: Item) -> bool:
    """Say whether it matters to a part of the value which number exactly is written: to floats it does not."""
    match dtype:
        case ListType(items=part) | MapType(values=part):
            return _wants_whole(part.type)
        case StructType(fields=parts):
            return any(_wants_whole(part.type) for part in parts)
    return dtype not in EXACT_BITS


def _list(value: Any, dtype: ListType, wire: Wire) -> list[Any]:
    value, wire = _parsed(value, dtype, wire)
    if not isinstance(value, list | tuple | np.ndarray):
        raise mismatch(value, dtype)
    if dtype.length is not None and len(value) != dtype.length:
        raise Misfit("shape-mismatch", f"a list of another length than {dtype.length}")
    inner, nullable = dtype.items.type, dtype.items.nullable
    return [item(part, inner, nullable, wire, f"[{i}]") for i, part in enumerate(value)]


def _struct(value: Any, dtype: StructType, wire: Wire) -> dict[str, Any]:
    value, wire = _parsed(value, dtype, wire)
    if not isinstance(value, Mapping):
        raise mismatch(value, dtype)
    out: dict[str, Any] = {}
    for part in dtype.fields:
        if part.name in value and not _is_absent(value[part.name], part, wire):
            out[part.name] = item(value[part.name], part.type, part.nullable, wire, field(part.name))
        elif not part.optional:
            raise Misfit("field-missing", "a field that is not optional is missing", field(part.name))
    known = {part.name for part in dtype.fields}
    for name in value:
        if name not in known:
            raise Misfit("field-unexpected", "a field the struct does not have", field(str(name)))
    return out


def _is_absent(value: Any, part: StructField, wire: Wire) -> bool:
    """Say whether a missing value stands for a field that was not sent: Arrow's structs have no other way."""
    return wire == "python" and part.optional and not part.nullable and is_missing(value, part.type, wire)


def _map(value: Any, dtype: MapType, wire: Wire) -> dict[str, Any]:
    value, wire = _parsed(value, dtype, wire)
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif wire == "python" and isinstance(value, list) and all(isinstance(p, tuple) and len(p) == 2 for p in value):
        pairs = value  # as Arrow gives a map
    else:
        raise mismatch(value, dtype)
    out: dict[str, Any] = {}
    for key, part in pairs:
        if not isinstance(key, str):
            raise Misfit("type-mismatch", f"{kind(key)} where the key of a map (text) is expected")
        if key in out:
            raise Misfit("key-duplicate", "the map holds this key twice", field(key))
        out[utf8(key, "utf8", wire)] = item(part, dtype.values.type, dtype.values.nullable, wire, field(key))
    return out


_COMPOSITES: dict[type, Callable[[Any, Any, Wire], Any]] = {
    **COMPOSED,
    ListType: _list,
    StructType: _struct,
    MapType: _map,
}
