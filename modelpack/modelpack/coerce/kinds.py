"""The type of one column, inferred from its dtype or its values: always one that takes the very data it came from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from modelpack.coerce import whole
from modelpack.coerce.cells import is_missing
from modelpack.coerce.columns import slow
from modelpack.coerce.lanes import Lane, lane
from modelpack.coerce.scalars import INT_RANGE, plain_scalar
from modelpack.coerce.times import Instant
from modelpack.dtypes import (
    DecimalType,
    DictionaryType,
    DurationType,
    Element,
    Item,
    ListType,
    MapType,
    StructField,
    StructType,
    TimestampType,
)
from modelpack.errors import SignatureError
from modelpack.optional import loaded

__all__ = ["column_type", "is_name", "of_values"]

_UNITS = {"s": "s", "ms": "ms", "us": "us", "ns": "ns", "m": "s", "h": "s"}
_DAYS = {"D", "W", "M", "Y"}


def column_type(raw: Any, name: str) -> tuple[Any, bool]:
    """Return the type of a column (an Item) and whether values are missing in it.

    Raises:
        SignatureError: the column is of a dtype that no type stands for (periods, intervals, picoseconds).
    """
    declared = _declared(raw, name)
    source = lane(raw)
    if isinstance(source.data, np.ndarray):
        nullable = bool(source.missing is not None and source.missing.any())
        if source.data.dtype.kind in "fmM":
            nullable = nullable or bool((source.data != source.data).any())
        kind = declared or _of_dtype(source.data.dtype, source.aware, name)
        if source.data.dtype.kind in "mM" and whole.typed(source, kind, "python") is None:
            kind = "any"  # days or hours beyond what date32 and seconds can count
        return kind, nullable
    if declared is not None:
        return declared, any(is_missing(value, declared, "python") for value in source.data)
    return of_values(source.data)


def _declared(raw: Any, name: str) -> Any:
    """Return the type that a pandas or Arrow dtype says, where it says more than the values."""
    pyarrow, pandas = loaded("pyarrow"), loaded("pandas")
    if pyarrow is not None and isinstance(raw, pyarrow.Array | pyarrow.ChunkedArray):
        return _of_arrow(raw.type, raw, pyarrow)
    dtype = getattr(raw, "dtype", None)
    if pandas is None or isinstance(dtype, np.dtype) or dtype is None:
        return "utf8" if isinstance(dtype, np.dtype) and dtype.kind in "UT" else None
    if isinstance(dtype, pandas.ArrowDtype):
        return _of_arrow(dtype.pyarrow_dtype, raw.array.__arrow_array__(), pyarrow)
    if isinstance(dtype, pandas.DatetimeTZDtype):
        return TimestampType(unit=dtype.unit, tz=_zone(dtype.tz))
    if isinstance(dtype, pandas.StringDtype):
        return "utf8"
    if isinstance(dtype, pandas.CategoricalDtype):
        return _of_categories(dtype.categories, dtype.ordered, name)
    if isinstance(dtype, pandas.PeriodDtype | pandas.IntervalDtype):
        raise SignatureError(
            f"column {name!r} is of dtype {dtype}, which no type stands for",
            code="type-unsupported",
            hint="Convert it to timestamps, numbers or text.",
        )
    return None


def _zone(tz: Any) -> str:
    """Return the name of a zone; an offset without a name is UTC, as instants are the same in every zone."""
    name = str(tz)
    return name if len(name) <= 64 and ("/" in name or name == "UTC") else "UTC"


def _of_categories(categories: Any, ordered: bool, name: str) -> Any:
    kind, _ = column_type(categories, name)
    if not len(categories):
        return "any"  # every value is missing
    if kind in INT_RANGE or kind in ("bool", "utf8", "float64"):
        values = tuple(plain_scalar(value) for value in categories.tolist())
        return DictionaryType(values=kind, categories=values, ordered=bool(ordered))
    return kind


def _of_dtype(dtype: np.dtype[Any], aware: bool, name: str) -> Item:
    if dtype.kind in "mM":
        unit = np.datetime_data(dtype)[0]
        if dtype.kind == "M" and unit in _DAYS:
            return "date32"
        unit = "s" if unit in _DAYS - {"M", "Y"} else _UNITS.get(unit, "")
        if not unit:
            raise SignatureError(
                f"column {name!r} is of dtype {dtype}, which no type stands for", code="type-unsupported"
            )
        if dtype.kind == "m":
            return DurationType(unit=unit)  # type: ignore[arg-type]
        return TimestampType(unit=unit, tz="UTC" if aware else None)  # type: ignore[arg-type]
    return str(dtype.newbyteorder("="))


def _of_arrow(kind: Any, values: Any, pa: Any) -> Any:
    """Return the type that an Arrow type stands for; None to look at the values."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _of_arrow(kind.storage_type, values, pa)
    if types.is_timestamp(kind):
        return TimestampType(unit=kind.unit, tz=None if kind.tz is None else _zone(kind.tz))
    if types.is_duration(kind):
        return DurationType(unit=kind.unit)
    if types.is_date(kind):
        return "date32"
    if types.is_decimal(kind) and 0 <= kind.scale <= kind.precision:
        return DecimalType(precision=kind.precision, scale=kind.scale)
    if _is_text(types, kind):
        return "utf8"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "binary"
    if types.is_map(kind) and _is_text(types, kind.key_type):
        pairs = [part for value in lane(values).objects() if value is not None for _, part in value]
        inner, nullable = of_values(pairs)
        return MapType(values=Element(type=inner, nullable=nullable))
    if types.is_dictionary(kind) and _is_text(types, kind.value_type):
        return DictionaryType(values="utf8", ordered=kind.ordered)
    return None


def _is_text(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


# Deeper nesting is no table any more; and Python's stack is not endless.
_DEEPEST = 32


def of_values(values: Iterable[Any], depth: int = 0) -> tuple[Any, bool]:
    """Return the type of Python objects (an Item) and whether some are missing; ``any`` if nothing in common."""
    everything = list(values)
    present = [plain_scalar(value) for value in everything if not is_missing(value, "any", "python")]
    missing = len(present) < len(everything)
    if not present:
        return "any", True
    kind = _common(present, depth + 1)
    # Proof: what does not take its own values is no type for them.
    if kind != "any" and _refuses(present, kind):
        kind = "any"
    return kind, missing


def _refuses(values: list[Any], kind: Item) -> bool:
    refused: list[int] = []
    slow(Lane(values), kind, "python", lambda row, *_: refused.append(row))
    return bool(refused)


def _common(values: list[Any], depth: int) -> Item:
    types = {_family(value) for value in values}
    if types == {float, int}:
        return "float64"
    if len(types) != 1 or depth > _DEEPEST:
        return "any"
    match types.pop():
        case family if family is bool:
            return "bool"
        case family if family is int:
            return "int64" if max(values) <= INT_RANGE["int64"][1] else "uint64"
        case family if family is float:
            return "float64"
        case family if family is str:
            return "utf8"
        case family if family is bytes:
            return "binary"
        case family if family is Decimal:
            return _decimal(values)
        case family if family is dt.date:
            return "date32"
        case family if family is dt.datetime:
            return _timestamp(values)
        case family if family is dt.timedelta:
            return DurationType(unit=_finest(values, "m"))  # type: ignore[arg-type]
        case family if family is list:
            return _list(values, depth)
        case family if family is dict:
            return _struct(values, depth)
    return "any"


def _family(value: Any) -> type | None:
    """Return the Python type that stands for values of the same kind."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        unit = np.datetime_data(value)[0]
        if isinstance(value, np.timedelta64):
            return dt.timedelta if unit in PER_UNIT else None
        return dt.date if unit in _DAYS else dt.datetime if unit in PER_UNIT else None
    if isinstance(value, Instant):
        return dt.datetime
    for family in (bool, int, float, str, bytes, Decimal, dt.datetime, dt.date, dt.timedelta):
        if isinstance(value, family):
            return family
    if isinstance(value, list | tuple | np.ndarray):
        return list
    return dict if isinstance(value, Mapping) else None


PER_UNIT = set(_UNITS) | {"D", "W"}


def _finest(values: list[Any], kind: str) -> str:
    """Return the finest unit among times; Python's own are in microseconds."""
    units = set()
    for value in values:
        if isinstance(value, Instant):
            value = value.value
        convert = getattr(value, "to_datetime64" if kind == "M" else "to_timedelta64", None)
        value = convert() if convert is not None else value
        is_numpy = isinstance(value, np.datetime64 | np.timedelta64)
        units.add(_UNITS.get(np.datetime_data(value)[0], "s") if is_numpy else "us")
    return next(unit for unit in ("ns", "us", "ms", "s") if unit in units)


def _timestamp(values: list[Any]) -> Item:
    zones = {_zone_of(value) for value in values}
    if len(zones) > 1 and None in zones:
        return "any"
    zone = zones.pop() if len(zones) == 1 else "UTC"
    return TimestampType(unit=_finest(values, "M"), tz=zone)  # type: ignore[arg-type]


def _zone_of(value: Any) -> str | None:
    if isinstance(value, Instant):
        return "UTC"
    if isinstance(value, dt.datetime) and value.utcoffset() is not None:
        return _zone(value.tzinfo)
    return None


def _decimal(values: list[Decimal]) -> Item:
    """Leave room in front of the point: the example's largest amount is not the model's."""
    if not all(value.is_finite() for value in values):
        return "any"
    scale = max(0, *(-int(value.as_tuple().exponent) for value in values))
    whole = max(value.adjusted() + 1 for value in values)
    if scale + max(whole, 1) > 76:
        return "any"
    return DecimalType(precision=max(38, min(76, scale + max(whole, 19))), scale=scale)


def _list(values: list[Any], depth: int) -> Item:
    kind, nullable = of_values((part for value in values for part in value), depth)
    return ListType(items=Element(type=kind, nullable=nullable))


def is_name(name: Any) -> bool:
    """Say whether a signature can hold the name: text, not empty, not endless, and Unicode."""
    if not isinstance(name, str) or not 0 < len(name) <= 1024:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _struct(values: Sequence[Mapping[Any, Any]], depth: int) -> Item:
    names = {name: None for value in values for name in value}
    if not names or not all(map(is_name, names)):
        return "any"
    fields = []
    for name in names:
        kind, nullable = of_values((value[name] for value in values if name in value), depth)
        optional = not all(name in value for value in values)
        fields.append(StructField(name=name, type=kind, nullable=nullable, optional=optional))
    return StructType(fields=tuple(fields))
