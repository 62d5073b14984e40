"""MLflow's signatures as ours: column types, tensors, params (spec/05-signature.md, docs/flavors/mlflow.md).

MLflow takes a missing value in columns of floats, text and objects even where it says ``required``, and never in
integers; so does the signature made here. Its outputs were recorded and never checked; they stay unchecked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from modelpack.errors import PackageError
from modelpack.signature import Signature

__all__ = ["signature"]

_SCALARS: Mapping[str, Any] = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "utf8",
    "binary": "binary",
    "datetime": {"kind": "timestamp", "unit": "ns"},
    "any": "any",
    "sparkml_vector": {"kind": "list", "items": {"type": "float64"}},
}
_NUMPY = {"str": "utf8", "object": "utf8", "bytes": "binary"}
_NEVER_MISSING = ("boolean", "integer", "long")


def signature(raw: Any) -> Signature:
    """Return the signature in an MLmodel file (its value under ``signature``).

    Raises:
        PackageError: it is none that MLflow writes (``mlmodel-invalid``).
    """
    if not isinstance(raw, Mapping):
        return Signature()
    inputs, params = _json(raw.get("inputs"), "inputs"), _json(raw.get("params"), "params")
    try:
        return Signature.model_validate(
            {
                **({"inputs": _io(inputs)} if inputs else {}),
                "params": [_param(param) for param in params or []],
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as exc:
        raise PackageError(
            f"the signature is none that MLflow writes: {type(exc).__name__}",
            code="mlmodel-invalid",
            path="MLmodel.signature",
        ) from exc


def _json(text: Any, name: str) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise PackageError("is not JSON in text", code="mlmodel-invalid", path=f"MLmodel.signature.{name}") from None


def _io(specs: list[dict[str, Any]]) -> dict[str, Any]:
    if all(spec["type"] == "tensor" for spec in specs):
        return {"kind": "tensors", "tensors": [_tensor(spec, i) for i, spec in enumerate(specs)]}
    return {"kind": "table", "columns": [_column(spec, i) for i, spec in enumerate(specs)]}


def _tensor(spec: dict[str, Any], position: int) -> dict[str, Any]:
    inside = spec["tensor-spec"]
    dtype = _NUMPY.get(inside["dtype"], inside["dtype"])
    shape = [None if size == -1 else size for size in inside["shape"]]
    if shape and shape[0] is None:
        shape[0] = "batch"
    name = str(spec["name"]) if "name" in spec else ("input" if position == 0 else f"input_{position}")
    return {"name": name, "dtype": dtype, "shape": shape, "nullable": dtype.startswith("float")}


def _column(spec: dict[str, Any], position: int) -> dict[str, Any]:
    optional = not spec.get("required", True)
    return {
        "name": str(spec.get("name", position)),
        "type": _type(spec),
        "nullable": optional or spec["type"] not in _NEVER_MISSING,
        "optional": optional,
    }


def _type(spec: dict[str, Any]) -> Any:
    kind = spec["type"]
    if kind == "array":
        return {"kind": "list", "items": {"type": _type(spec["items"]), "nullable": True}}
    if kind == "map":
        return {"kind": "map", "values": {"type": _type(spec["values"]), "nullable": True}}
    if kind == "object":
        fields = [
            {
                "name": name,
                "type": _type(field),
                "nullable": not field.get("required", True),
                "optional": not field.get("required", True),
            }
            for name, field in sorted(spec["properties"].items())
        ]
        return {"kind": "struct", "fields": fields}
    return _SCALARS[kind]


def _param(spec: dict[str, Any]) -> dict[str, Any]:
    kind = _type({"type": spec["type"], **{k: spec[k] for k in ("properties", "items") if k in spec}})
    if spec.get("shape"):
        kind = {"kind": "list", "items": {"type": kind}}
    default = spec.get("default")
    return {
        "name": spec["name"],
        "type": kind,
        "nullable": default is None,
        **({"default": default} if default is not None else {}),
    }
