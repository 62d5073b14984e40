"""The one table of element types, and the composite types built from them (spec/05-signature.md).

Types are Arrow's logical types by name. ``nullable`` belongs to the place that holds a type (a column, a list
item, a struct field), never to the type itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

__all__ = [
    "ELEMENTS",
    "DataType",
    "DecimalType",
    "DictionaryType",
    "DurationType",
    "Element",
    "ElementType",
    "Item",
    "ListType",
    "MapType",
    "ScalarName",
    "Strict",
    "StructField",
    "StructType",
    "TensorName",
    "TimestampType",
    "Unit",
    "describe",
    "refuse_repeats",
]

ScalarName = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "utf8", "binary", "date32", "any",
]  # fmt: skip
TensorName = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "utf8", "binary",
]  # fmt: skip
Unit = Literal["s", "ms", "us", "ns"]
Kind = Literal["bool", "int", "uint", "float", "text", "bytes", "date", "any"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ElementType:
    """One row of the table: the same element type under each of its names.

    ``numpy`` is the physical dtype that holds the values in memory ("object" for Python objects), ``json`` says in
    words how a value is written in JSON, ``mlflow`` is the narrowest MLflow column type that holds every value
    (None where there is none), ``oip`` the Open Inference Protocol v2 name.
    """

    name: str
    kind: Kind
    bits: int
    numpy: str
    arrow: str
    json: str
    mlflow: str | None
    oip: str | None


def _table() -> dict[str, ElementType]:
    number, flag = "number", "true or false"
    rows: list[tuple[str, Kind, int, str, str, str, str | None, str | None]] = [
        ("bool", "bool", 1, "bool", "bool", flag, "boolean", "BOOL"),
        ("int8", "int", 8, "int8", "int8", number, "integer", "INT8"),
        ("int16", "int", 16, "int16", "int16", number, "integer", "INT16"),
        ("int32", "int", 32, "int32", "int32", number, "integer", "INT32"),
        ("int64", "int", 64, "int64", "int64", number, "long", "INT64"),
        ("uint8", "uint", 8, "uint8", "uint8", number, "integer", "UINT8"),
        ("uint16", "uint", 16, "uint16", "uint16", number, "integer", "UINT16"),
        ("uint32", "uint", 32, "uint32", "uint32", number, "long", "UINT32"),
        ("uint64", "uint", 64, "uint64", "uint64", number, None, "UINT64"),
        ("float16", "float", 16, "float16", "halffloat", number, "float", "FP16"),
        ("float32", "float", 32, "float32", "float", number, "float", "FP32"),
        ("float64", "float", 64, "float64", "double", number, "double", "FP64"),
        ("utf8", "text", 0, "object", "string", "string", "string", "BYTES"),
        ("binary", "bytes", 0, "object", "binary", "base64 string", "binary", "BYTES"),
        ("date32", "date", 32, "datetime64[D]", "date32[day]", "YYYY-MM-DD string", "datetime", None),
        ("any", "any", 0, "object", "", "any JSON value", None, None),
    ]
    names = ("name", "kind", "bits", "numpy", "arrow", "json", "mlflow", "oip")
    return {row[0]: ElementType(**dict(zip(names, row, strict=True))) for row in rows}  # type: ignore[arg-type]


ELEMENTS: Mapping[str, ElementType] = MappingProxyType(_table())


class Strict(BaseModel):
    """Base of all parts of the format: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_null_in_files(cls, data: Any, info: ValidationInfo) -> Any:
        """In a file a property without a value is left out: null is a value, and of the wrong type."""
        if info.context == "file" and isinstance(data, dict):
            for key, field in cls.model_fields.items():
                if data.get(key, ...) is None and field.annotation is not Any:
                    raise PydanticCustomError("null", "null; leave the property out instead", {"key": key})
        return data

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write only what differs from the defaults, and always ``kind``: short, and the same bytes each time."""
        fields = type(self).model_fields
        return {
            key: value
            for key, value in handler(self).items()
            if key == "kind" or key not in fields or getattr(self, key) != fields[key].default
        }


class TimestampType(Strict):
    """An instant (``tz`` set) or a wall-clock time (``tz`` null), counted in ``unit`` since 1970."""

    kind: Literal["timestamp"] = "timestamp"
    unit: Unit
    tz: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class DurationType(Strict):
    """A signed length of time counted in ``unit``."""

    kind: Literal["duration"] = "duration"
    unit: Unit


class DecimalType(Strict):
    """A decimal number of at most ``precision`` digits, ``scale`` of them behind the point."""

    kind: Literal["decimal"] = "decimal"
    precision: Annotated[int, Field(ge=1, le=76)]
    scale: Annotated[int, Field(ge=0, le=76)]

    @model_validator(mode="after")
    def _scale_fits(self) -> DecimalType:
        if self.scale > self.precision:
            raise ValueError(f"scale {self.scale} is larger than precision {self.precision}")
        return self


class Element(Strict):
    """What a list or a map holds: a type, and whether an item may be null."""

    type: DataType
    nullable: bool = False


class ListType(Strict):
    """A list of ``items``; of exactly ``length`` items when that is set."""

    kind: Literal["list"] = "list"
    items: Element
    length: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class StructField(Strict):
    """One named field of a struct."""

    name: Annotated[str, Field(min_length=1, max_length=1024)]
    type: DataType
    nullable: bool = False
    optional: bool = False


class StructType(Strict):
    """A record with named fields."""

    kind: Literal["struct"] = "struct"
    fields: Annotated[tuple[StructField, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _names_differ(self) -> StructType:
        refuse_repeats(field.name for field in self.fields)
        return self


class MapType(Strict):
    """A mapping from text to ``values``."""

    kind: Literal["map"] = "map"
    values: Element


class DictionaryType(Strict):
    """A categorical: one of ``categories`` (any value of type ``values`` when that is null)."""

    kind: Literal["dictionary"] = "dictionary"
    values: Literal[
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float64", "utf8"
    ] = "utf8"
    categories: Annotated[tuple[bool | int | float | str, ...], Field(strict=False)] | None = None
    ordered: bool = False

    @model_validator(mode="after")
    def _categories_fit(self) -> DictionaryType:
        seen: set[bool | int | float | str] = set()
        for category in self.categories or ():
            if not _is_value(category, ELEMENTS[self.values]):
                raise ValueError(f"a category is not a value of type {self.values}")
            if category in seen:
                raise ValueError("a category occurs twice")
            seen.add(category)
        return self


def _is_value(value: bool | int | float | str, element: ElementType) -> bool:
    match element.kind:
        case "bool":
            return isinstance(value, bool)
        case "int" | "uint":
            low = -(2 ** (element.bits - 1)) if element.kind == "int" else 0
            return type(value) is int and low <= value < low + 2**element.bits
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return isinstance(value, str)


def refuse_repeats(names: Any) -> None:
    """Raise ValueError naming the first name that occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the name {name!r} occurs twice")
        seen.add(name)


def _tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "name"
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


DataType = Annotated[
    Annotated[ScalarName, Tag("name")]
    | Annotated[TimestampType, Tag("timestamp")]
    | Annotated[DurationType, Tag("duration")]
    | Annotated[DecimalType, Tag("decimal")]
    | Annotated[ListType, Tag("list")]
    | Annotated[StructType, Tag("struct")]
    | Annotated[MapType, Tag("map")]
    | Annotated[DictionaryType, Tag("dictionary")],
    Discriminator(_tag),
]
# What DataType is to a type checker and to isinstance: a name, or one of the composite types.
Item = str | TimestampType | DurationType | DecimalType | ListType | StructType | MapType | DictionaryType

for _model in (Element, ListType, StructField, StructType, MapType):
    _model.model_rebuild()


def describe(dtype: Item) -> str:
    """Return the type as a short readable text, such as ``timestamp[us, tz=UTC]`` or ``list<float64?>``."""
    match dtype:
        case str():
            return dtype
        case TimestampType():
            return f"timestamp[{dtype.unit}, tz={dtype.tz}]" if dtype.tz else f"timestamp[{dtype.unit}]"
        case DurationType():
            return f"duration[{dtype.unit}]"
        case DecimalType():
            return f"decimal({dtype.precision}, {dtype.scale})"
        case ListType():
            size = "" if dtype.length is None else f"[{dtype.length}]"
            return f"list{size}<{describe(dtype.items.type)}{'?' if dtype.items.nullable else ''}>"
        case StructType():
            inner = ", ".join(
                f"{f.name}{'?' if f.optional else ''}: {describe(f.type)}{'?' if f.nullable else ''}"
                for f in dtype.fields
            )
            return f"struct<{inner}>"
        case MapType():
            return f"map<utf8, {describe(dtype.values.type)}{'?' if dtype.values.nullable else ''}>"
        case DictionaryType():
            return f"dictionary<{dtype.values}>"
