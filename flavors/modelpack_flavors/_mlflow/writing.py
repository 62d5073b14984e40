"""MLflow's documents beside a manifest: its own tools load and serve the package (docs/flavors/mlflow.md).

Nothing here reads a clock or makes an id: the same manifest gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from modelpack.errors import UsageError
from modelpack.fieldpath import join
from modelpack.manifest import FlavorEntry, Manifest, Payload
from modelpack.optional import require
from modelpack.signature import Tensors
from modelpack_flavors._mlflow.declaring import declared

__all__ = ["LOADER", "write"]

LOADER = "modelpack_flavors.mlflow"
_EXAMPLE, _REQUEST = "input_example.json", "serving_input_example.json"
_SHOWN_ROWS = 5


def write(root: Path, manifest: Manifest) -> list[str]:
    """Write the documents into ``root``, which holds the package's other files, and return their paths.

    Raises:
        UsageError: MLflow could never call it: a param that is required has no type there (``also-unsupported``); or
            PyYAML is not installed (``extra-missing``).
    """
    yaml = require("yaml", what="Writing an MLmodel", extra="mlflow")
    signature = declared(manifest.signature)
    _refuse_required(manifest, signature)
    example = _example(root, manifest)
    python = manifest.environment.python.captured
    requirements = _requirements(manifest)
    conda = [f"python={python}", "pip", {"pip": requirements}]
    documents: dict[str, Any] = {
        "MLmodel": _described(manifest, signature, example),
        "conda.yaml": {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": conda},
        "python_env.yaml": {
            "python": python,
            "build_dependencies": ["pip", "setuptools", "wheel"],
            "dependencies": ["-r requirements.txt"],
        },
    }
    texts = {name: yaml.safe_dump(value, allow_unicode=False) for name, value in documents.items()}
    texts["requirements.txt"] = "".join(f"{line}\n" for line in requirements)
    if example is not None:
        texts[_REQUEST] = json.dumps(example)
        texts[_EXAMPLE] = json.dumps(next(iter(example.values())))
    for name, text in texts.items():
        (root / name).write_bytes(text.encode("ascii"))
    return sorted(texts)


def _described(
    manifest: Manifest, signature: Mapping[str, str | None], example: Mapping[str, Any] | None
) -> dict[str, Any]:
    own = {
        "loader_module": LOADER,
        "python_version": manifest.environment.python.captured,
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    }
    described: dict[str, Any] = {"flavors": {"python_function": own, **_natives(manifest)}}
    if any(signature.values()):
        described["signature"] = dict(signature)
    if manifest.created is not None:
        described["utc_time_created"] = manifest.created.removesuffix("Z").replace("T", " ")
    if example is not None:
        table = "dataframe_split" in example
        described["saved_input_example_info"] = {
            "artifact_path": _EXAMPLE,
            "serving_input_path": _REQUEST,
            **(
                {"type": "dataframe", "pandas_orient": "split"}
                if table
                else {"type": "ndarray", "format": "tf-serving"}
            ),
        }
    return described


def _refuse_required(manifest: Manifest, signature: Mapping[str, str | None]) -> None:
    known = {spec["name"] for spec in json.loads(signature["params"] or "[]")}
    for i, param in enumerate(manifest.signature.params):
        if param.default is None and not param.nullable and param.name not in known:
            raise UsageError(
                "the param is required and MLflow has no type for it, so that MLflow could never call the model",
                code="also-unsupported",
                path=join("signature.params", i),
                hint="Give the param a default.",
            )


def _example(root: Path, manifest: Manifest) -> dict[str, Any] | None:
    """Return the first rows of the package's example as MLflow keeps them: the body of a request."""
    for one in manifest.examples:
        body: dict[str, Any] = json.loads((root / one.input).read_bytes())
        if "dataframe_split" in body:
            split = body["dataframe_split"]
            return {"dataframe_split": {"columns": split["columns"], "data": split["data"][:_SHOWN_ROWS]}}
        # One tensor is declared to MLflow without a name, and sent without one.
        inputs, io = body["inputs"], manifest.signature.inputs
        if isinstance(io, Tensors) and len(io.tensors) == 1:
            inputs = inputs[io.tensors[0].name]
        return {"inputs": inputs}
    return None


def _requirements(manifest: Manifest) -> list[str]:
    """Return the lines of requirements.txt: MLflow, modelpack, and what the model needs at the versions it had."""
    captured = {canonicalize_name(name): version for name, version in manifest.environment.captured.items()}
    lines = ["mlflow", f"modelpack=={manifest.producer.version}" if manifest.producer else "modelpack"]
    for text in manifest.environment.dependencies:
        requirement = Requirement(text)
        version = captured.get(canonicalize_name(requirement.name))
        if version is not None and requirement.url is None and not requirement.marker:
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            text = f"{requirement.name}{extras}=={_public(version)}"
        lines.append(text)
    return lines


def _public(version: str) -> str:
    """Leave out the local part (``+cpu``), which indexes do not have."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _natives(manifest: Manifest) -> dict[str, Any]:
    """Return MLflow's own flavors for the payloads that they read as they are and that run no code."""
    found: dict[str, Any] = {}
    for entry in manifest.flavors:
        payload = manifest.payloads.get(entry.payloads.get("model", ""))
        native = _NATIVES.get(payload.format) if payload is not None and not entry.code else None
        if payload is not None and native is not None and (config := native[1](entry, payload)):
            found.setdefault(native[0], config)
    return found


def _onnx(entry: FlavorEntry, payload: Payload) -> dict[str, Any]:
    version = payload.made_with.get("onnx")
    return {
        "data": payload.entry,
        "providers": ["CPUExecutionProvider"],
        **({"onnx_version": version} if version else {}),
    }


def _xgboost(entry: FlavorEntry, payload: Payload) -> dict[str, Any]:
    kind = entry.config.get("estimator")
    return {
        "data": payload.entry,
        "model_class": f"xgboost.sklearn.{kind}" if kind else "xgboost.core.Booster",
        "model_format": payload.format.removeprefix("xgboost-"),
        "xgb_version": payload.made_with.get("xgboost"),
    }


def _lightgbm(entry: FlavorEntry, payload: Payload) -> dict[str, Any]:
    if entry.config.get("estimator"):
        return {}  # MLflow takes estimators from a pickle only, and a booster answers otherwise
    version = payload.made_with.get("lightgbm")
    return {"data": payload.entry, "model_class": "lightgbm.basic.Booster", "lgb_version": version}


_Native = Callable[[FlavorEntry, Payload], dict[str, Any]]
# Format of a payload -> MLflow's flavor that reads it, and what MLmodel says of it.
_NATIVES: Mapping[str, tuple[str, _Native]] = {
    "lightgbm-text": ("lightgbm", _lightgbm),
    "onnx": ("onnx", _onnx),
    "xgboost-json": ("xgboost", _xgboost),
    "xgboost-ubj": ("xgboost", _xgboost),
}
