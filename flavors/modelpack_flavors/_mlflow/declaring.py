"""Our signatures as MLflow's, where MLflow hands every value on unchanged (spec/08-flavors.md#mlmodel)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelpack.dtypes import ELEMENTS, Element, Item, ListType, MapType, StructType, TimestampType
from modelpack.signature import IO, Column, Param, Signature, Table, Tensor, Tensors

__all__ = ["declared"]

# What MLflow hands on where a value is missing; a missing number or flag of other kinds is refused or changed there.
_MISSING = ("float", "double", "string", "datetime")
_PARAMS: Mapping[str, str] = {"bool": "boolean", "int": "long", "uint": "long", "float": "double", "text": "string"}


def declared(signature: Signature) -> dict[str, str | None]:
    """Return the value of ``signature`` in an MLmodel file: each part as JSON in text, None where it is left out."""
    params = [spec for param in signature.params if (spec := _param(param)) is not None]
    parts = {"inputs": _io(signature.inputs), "outputs": _io(signature.outputs), "params": params or None}
    return {name: None if part is None else json.dumps(part) for name, part in parts.items()}


def _io(io: IO | None) -> list[dict[str, Any]] | None:
    if isinstance(io, Table):
        return _all(map(_column, io.columns))
    if isinstance(io, Tensors):
        named = len(io.tensors) > 1
        return _all(_tensor(tensor, named=named) for tensor in io.tensors)
    return None


def _all(specs: Iterable[dict[str, Any] | None]) -> list[dict[str, Any]] | None:
    """Return the specs if each has one: MLflow drops a column that is not declared."""
    found = list(specs)
    return None if None in found else [spec for spec in found if spec is not None]


def _column(column: Column) -> dict[str, Any] | None:
    spec = _type(column.type)
    if spec is None or (column.nullable and spec["type"] not in _MISSING):
        return None
    return {**spec, "name": column.name, "required": not column.optional}


def _type(dtype: Item) -> dict[str, Any] | None:
    if isinstance(dtype, str):
        name = ELEMENTS[dtype].mlflow
        return {"type": name} if name else None
    if isinstance(dtype, TimestampType):
        return {"type": "datetime"} if dtype.tz is None else None
    if isinstance(dtype, ListType):
        return _held("array", "items", dtype.items)
    if isinstance(dtype, MapType):
        return _held("map", "values", dtype.values)
    return _object(dtype) if isinstance(dtype, StructType) else None


def _held(kind: str, key: str, element: Element) -> dict[str, Any] | None:
    inner = None if element.nullable else _type(element.type)
    return None if inner is None else {"type": kind, key: inner}


def _object(dtype: StructType) -> dict[str, Any] | None:
    properties: dict[str, Any] = {}
    for field in dtype.fields:
        inner = None if field.nullable else _type(field.type)
        if inner is None:
            return None
        properties[field.name] = {**inner, "required": not field.optional}
    return {"type": "object", "properties": properties}


def _tensor(tensor: Tensor, *, named: bool) -> dict[str, Any] | None:
    if tensor.optional or not tensor.shape or tensor.dtype == "binary":
        return None
    shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
    dtype = "str" if tensor.dtype == "utf8" else tensor.dtype
    spec: dict[str, Any] = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
    return {**spec, "name": tensor.name} if named else spec


def _param(param: Param) -> dict[str, Any] | None:
    many = isinstance(param.type, ListType)
    inner = param.type.items.type if isinstance(param.type, ListType) else param.type
    kind = _PARAMS.get(ELEMENTS[inner].kind) if isinstance(inner, str) else None
    if kind is None or (many and not isinstance(param.default, list | tuple)):
        return None
    convert = _CONVERT[kind]
    default = param.default
    if many:
        default = [convert(value) for value in default]
    elif default is not None:
        default = convert(default)
    return {"name": param.name, "type": kind, "default": default, "shape": [-1] if many else None}


_CONVERT: Mapping[str, Callable[[Any], Any]] = {"boolean": bool, "long": int, "double": float, "string": str}
