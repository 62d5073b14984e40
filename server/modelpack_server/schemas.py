"""The signature in the words of JSON Schema (2020-12), for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from modelpack.dtypes import (
    ELEMENTS,
    DecimalType,
    DictionaryType,
    DurationType,
    Item,
    ListType,
    MapType,
    StructType,
    TimestampType,
)
from modelpack.signature import IO, Column, Json, Param, Table, Tensor, Tensors

__all__ = ["answer", "column", "param", "params", "record", "tensor", "value"]

Schema = dict[str, Any]


def value(dtype: Item, *, nullable: bool = False) -> Schema:
    """Return the schema of one value."""
    schema = _value(dtype)
    return {"anyOf": [schema, {"type": "null"}]} if nullable and schema else schema


def _value(dtype: Item) -> Schema:
    match dtype:
        case str():
            return _element(dtype)
        case TimestampType():
            return {"type": "string", "format": "date-time"} if dtype.tz else {"type": "string"}
        case DurationType():
            return {"type": "string", "format": "duration"}
        case DecimalType():
            return {"type": ["string", "integer"], "pattern": r"^-?\d+(\.\d+)?$"}
        case ListType():
            schema: Schema = {"type": "array", "items": value(dtype.items.type, nullable=dtype.items.nullable)}
            if dtype.length is not None:
                schema |= {"minItems": dtype.length, "maxItems": dtype.length}
            return schema
        case StructType():
            return _members((f.name, value(f.type, nullable=f.nullable), f.optional) for f in dtype.fields)
        case MapType():
            return {
                "type": "object",
                "additionalProperties": value(dtype.values.type, nullable=dtype.values.nullable),
            }
        case DictionaryType():
            return {"enum": list(dtype.categories)} if dtype.categories else _element(dtype.values)


def _element(name: str) -> Schema:
    element = ELEMENTS[name]
    match element.kind:
        case "bool":
            return {"type": "boolean"}
        case "int":
            return {"type": "integer", "minimum": -(2 ** (element.bits - 1)), "maximum": 2 ** (element.bits - 1) - 1}
        case "uint":
            return {"type": "integer", "minimum": 0, "maximum": 2**element.bits - 1}
        case "float":
            return {"type": "number"}
        case "text":
            return {"type": "string"}
        case "bytes":
            return {"type": "string", "contentEncoding": "base64"}
        case "date":
            return {"type": "string", "format": "date"}
        case "any":
            return {}


def _members(fields: Any, *, closed: bool = False) -> Schema:
    """Return the schema of an object with these (name, schema, optional) members."""
    properties, required = {}, []
    for name, schema, optional in fields:
        properties[name] = schema
        if not optional:
            required.append(name)
    out: Schema = {"type": "object", "properties": properties}
    if required:
        out["required"] = required
    if closed:
        out["additionalProperties"] = False
    return out


def column(part: Column) -> Schema:
    """Return the schema of one value of a column."""
    schema = value(part.type, nullable=part.nullable)
    return {**schema, "description": part.description} if part.description else schema


def record(table: Table) -> Schema:
    """Return the schema of one row as an object."""
    closed = table.extra_columns == "reject"
    return _members(((part.name, column(part), part.optional) for part in table.columns), closed=closed)


def columns(table: Table) -> Schema:
    """Return the schema of all rows as an object of columns."""
    closed = table.extra_columns == "reject"
    fields = ((part.name, {"type": "array", "items": column(part)}, part.optional) for part in table.columns)
    return _members(fields, closed=closed)


def tensor(part: Tensor, *, skip: int = 0) -> Schema:
    """Return the schema of a tensor as nested lists; ``skip`` leading dimensions are left out."""
    schema = value(part.dtype, nullable=part.nullable)
    for size in reversed(part.shape[skip:]):
        schema = {"type": "array", "items": schema}
        if isinstance(size, int):
            schema |= {"minItems": size, "maxItems": size}
    return {**schema, "description": part.description} if part.description else schema


def tensors(io: Tensors, *, skip: int = 0) -> Schema:
    """Return the schema of a set of tensors: the bare one if there is only one, else an object."""
    named = _members(((part.name, tensor(part, skip=skip), part.optional) for part in io.tensors), closed=True)
    if len(io.tensors) > 1:
        return named
    return {"anyOf": [tensor(io.tensors[0], skip=skip), named]}


def param(part: Param) -> Schema:
    """Return the schema of one param."""
    schema = dict(value(part.type, nullable=part.nullable))
    limits = part.constraints
    if limits is not None:
        words = {
            "minimum": limits.minimum,
            "maximum": limits.maximum,
            "minLength": limits.min_length,
            "maxLength": limits.max_length,
            "enum": None if limits.enum is None else list(limits.enum),
        }
        schema |= {word: limit for word, limit in words.items() if limit is not None}
    if part.default is not None:
        schema["default"] = part.default
    if part.description:
        schema["description"] = part.description
    return schema


def params(parts: tuple[Param, ...]) -> Schema:
    """Return the schema of the params object; a name that is not listed is refused."""
    return _members(
        ((part.name, param(part), part.nullable or part.default is not None) for part in parts), closed=True
    )


def answer(io: IO | None) -> Schema:
    """Return the schema of ``predictions``: a missing value is null, an infinity one of two strings."""
    match io:
        case Table():
            fields = ((part.name, _out(part.type, column(part)), part.optional) for part in io.columns)
            return {"type": "array", "items": _members(fields)}
        case Tensors(tensors=(only,)):
            return _out_tensor(only)
        case Tensors():
            return _members((part.name, _out_tensor(part), part.optional) for part in io.tensors)
        case Json() | None:
            return {}


def _out(dtype: Item, schema: Schema) -> Schema:
    if isinstance(dtype, str) and ELEMENTS[dtype].kind == "float":
        return {"anyOf": [{"type": "number"}, {"enum": ["Infinity", "-Infinity"]}, {"type": "null"}]}
    return schema


def _out_tensor(part: Tensor) -> Schema:
    schema = _out(part.dtype, value(part.dtype, nullable=part.nullable))
    for _ in part.shape:
        schema = {"type": "array", "items": schema}
    return schema
