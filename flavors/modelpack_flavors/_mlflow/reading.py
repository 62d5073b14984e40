"""A directory that MLflow wrote, described as a package; nothing of it is imported, its trust lists are not read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from modelpack import fieldpath, files
from modelpack.errors import IntegrityError, PackageError
from modelpack.manifest import (
    Example,
    FileEntry,
    FlavorEntry,
    Manifest,
    Payload,
    Producer,
    content_digest,
)
from modelpack.signature import Signature, Table
from modelpack_flavors._mlflow import environments, mlmodel, signatures, torch_files

__all__ = ["manifest"]

_Role = Literal["payload", "code", "environment", "example", "doc", "license", "compat", "other"]


def manifest(root: Path) -> Manifest:
    """Return the manifest of an MLflow directory: its files as they are, its flavors as far as ours can load them.

    Raises:
        PackageError: MLmodel cannot be read (``mlmodel-invalid``), or names no flavor that is known here.
        IntegrityError: the directory holds something else than regular files.
    """
    try:
        return _manifest(root)
    except ValidationError as exc:
        error = exc.errors()[0]
        code = error["type"] if error["type"].startswith("path-") else "mlmodel-invalid"
        raise PackageError(error["msg"], code=code, path=fieldpath.join("", *error["loc"])) from None


def _manifest(root: Path) -> Manifest:
    entries = _entries(root)
    paths = tuple(entry.path for entry in entries)
    described = mlmodel.parse((root / "MLmodel").read_bytes())
    flavors = described.get("flavors")
    if not isinstance(flavors, dict) or not flavors:
        raise PackageError("the file names no flavors", code="mlmodel-invalid", path="MLmodel.flavors")
    signature = signatures.signature(described.get("signature"))
    found = list(_parts(Directory(root=root, paths=paths, flavors=flavors, signature=signature)))
    if not found:
        raise PackageError(
            f"none of its flavors is known here: {', '.join(flavors)}",
            code="mlmodel-unsupported",
            path="MLmodel.flavors",
        )
    captured = {name: version for part in found for name, version in part.versions.items()}
    return Manifest(
        name=_name(root),
        version="1",
        producer=Producer(name="mlflow", version=described.get("mlflow_version") or "unknown"),
        signature=signature,
        payloads={part.flavor: part.payload for part in found},
        flavors=tuple(part.entry(paths) for part in found),
        examples=_examples(paths, signature),
        environment=environments.read(root, paths, captured, _text(flavors.get("python_function"), "python_version")),
        provenance=_provenance(described),
        files=entries,
        content_digest=content_digest(entries),
    )


class Part:
    """One flavor of the directory, as ours."""

    def __init__(
        self,
        flavor: str,
        payload: Payload,
        config: Mapping[str, Any],
        versions: Mapping[str, str],
        *,
        runs_code: bool = False,
    ) -> None:
        self.flavor = flavor
        self.payload = payload
        self.versions = versions
        self._config = config
        self._runs_code = runs_code

    def entry(self, paths: tuple[str, ...]) -> FlavorEntry:
        code = tuple(path for path in paths if path.startswith("code/")) if self._runs_code else ()
        return FlavorEntry(name=self.flavor, payloads={"model": self.flavor}, config=dict(self._config), code=code)


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory:
    """What is known of the directory: where it is, its files, and what its MLmodel says."""

    root: Path
    paths: tuple[str, ...]
    flavors: Mapping[str, Any]
    signature: Signature


def _parts(directory: Directory) -> Iterator[Part]:
    """Yield the flavors in the order in which they should be tried: the safest first."""
    for name, build in _BUILDERS.items():
        config = directory.flavors.get(name)
        if isinstance(config, dict):
            part = build(config, directory)
            if part is not None:
                yield part


def _sklearn(config: Mapping[str, Any], found: Directory) -> Part:
    entry = _file(config, "pickled_model", found.paths, "sklearn")
    written = config.get("serialization_format")
    method = _text(found.flavors.get("python_function"), "predict_fn") or "predict"
    version = _text(config, "sklearn_version")
    return Part(
        "sklearn",
        Payload(format="skops" if written == "skops" else "pickle", files=(entry,), entry=entry),
        {"method": method, **({"form": "pandas"} if isinstance(found.signature.inputs, Table) else {})},
        {"scikit-learn": version} if version else {},
        runs_code=bool(config.get("code")),
    )


def _lightgbm(config: Mapping[str, Any], found: Directory) -> Part | None:
    if config.get("model_class", "lightgbm.basic.Booster") != "lightgbm.basic.Booster":
        return None  # a wrapper's labels are in a pickle or a skops file of its own making
    entry = _file(config, "data", found.paths, "lightgbm")
    options: dict[str, Any] = {
        "best_iteration": -1,
        "classes": None,
        "early_stop": {},
        "estimator": None,
        "method": "predict",
        "threads": None,
    }
    return Part("lightgbm", Payload(format="lightgbm-text", files=(entry,), entry=entry), options, {})


def _xgboost(config: Mapping[str, Any], found: Directory) -> Part | None:
    entry = _file(config, "data", found.paths, "xgboost")
    written = entry.rpartition(".")[2]
    kind = str(config.get("model_class", "xgboost.core.Booster")).rpartition(".")[2]
    if written not in ("ubj", "json"):
        return None  # the old binary form, which nothing here can check
    options: dict[str, Any] = {
        "categories": {},
        "estimator": None if kind == "Booster" else kind,
        "method": "predict",
        "missing": None,
        "threads": None,
    }
    return Part("xgboost", Payload(format=f"xgboost-{written}", files=(entry,), entry=entry), options, {})


def _onnx(config: Mapping[str, Any], found: Directory) -> Part:
    entry = _file(config, "data", found.paths, "onnx")
    # External data lies beside the graph; the audit says which files it is.
    return Part("onnx", Payload(format="onnx", files=_beside(found.paths, entry), entry=entry), {}, {})


def _pytorch(config: Mapping[str, Any], found: Directory) -> Part | None:
    entry, format_id = torch_files.find(config, found.root, found.paths)
    version = _text(config, "pytorch_version") if format_id == "torch-pickle" else None
    return Part(
        "torch",
        Payload(format=format_id, files=(entry,), entry=entry),
        {} if format_id == "pt2" else torch_files.feed(found.signature),
        {"torch": version} if version else {},
        runs_code=format_id == "torch-pickle",
    )


def _spark(config: Mapping[str, Any], found: Directory) -> Part:
    place = _text(config, "model_data") or ""
    # The checksums and marks beside the data are Spark's own, and no part of the model.
    own = tuple(
        path for path in found.paths if path.startswith(f"{place}/") and path.split("/")[-1].startswith("part-")
    )
    entry = next((path for path in own if path.startswith(f"{place}/metadata/")), None)
    if entry is None:
        where = "MLmodel.flavors.spark.model_data"
        raise PackageError("names no model of Spark in the directory", code="mlmodel-file-missing", path=where)
    version = _text(config, "pyspark_version")
    # MLflow answers with this column, whatever else the model makes.
    return Part(
        "spark",
        Payload(format="spark-ml", files=own, entry=entry),
        {"columns": ["prediction"]},
        {"pyspark": version} if version else {},
        runs_code=bool(config.get("code")),
    )


def _file(config: Mapping[str, Any], key: str, paths: tuple[str, ...], flavor: str) -> str:
    entry = config.get(key)
    if not isinstance(entry, str) or entry not in paths:
        where = f"MLmodel.flavors.{flavor}.{key}"
        raise PackageError("names no file of the directory", code="mlmodel-file-missing", path=where)
    return entry


def _python_function(config: Mapping[str, Any], found: Directory) -> Part | None:
    loader = config.get("loader_module")
    if not isinstance(loader, str):
        return None
    kept = ("loader_module", "data", "python_model", "artifacts", "config", "streamable")
    return Part(
        "mlflow",
        Payload(format="mlflow-pyfunc", files=found.paths, entry="MLmodel"),
        {key: config[key] for key in kept if config.get(key) is not None},
        {},
        runs_code=True,
    )


_Builder = Callable[[Mapping[str, Any], Directory], "Part | None"]
_BUILDERS: Mapping[str, _Builder] = {
    "onnx": _onnx,
    "pytorch": _pytorch,
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "sklearn": _sklearn,
    "spark": _spark,
    "python_function": _python_function,
}


def _beside(paths: tuple[str, ...], entry: str) -> tuple[str, ...]:
    folder = entry.rpartition("/")[0]
    own = {"MLmodel", "input_example.json", "serving_input_example.json", *environments.NAMES}
    return tuple(path for path in paths if path.rpartition("/")[0] == folder and path not in own)


def _entries(root: Path) -> tuple[FileEntry, ...]:
    sizes, faults = files.scan(root)
    if faults:
        raise IntegrityError.from_faults(faults)
    found = []
    for path in sorted(sizes, key=str.encode):
        digest, size = files.hash_file(root / path)
        found.append(FileEntry(path=path, size=size, digest=digest, role=_role(path)))
    return tuple(found)


def _role(path: str) -> _Role:
    if path in environments.NAMES:
        return "environment"
    if path.startswith("code/"):
        return "code"
    if path.endswith("input_example.json"):
        return "example"
    return "compat" if path == "MLmodel" else "payload"


def _examples(paths: tuple[str, ...], signature: Signature) -> tuple[Example, ...]:
    """Return the request that MLflow keeps; it kept no answer."""
    name = "serving_input_example.json"
    return (Example(name="example", input=name),) if name in paths and signature.inputs is not None else ()


def _provenance(described: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("mlflow_version", "run_id", "model_id", "model_uuid", "utc_time_created", "artifact_path")
    facts = {key: described[key] for key in kept if isinstance(described.get(key), str)}
    return {"mlflow": facts} if facts else {}


def _text(config: Any, key: str) -> str | None:
    value = config.get(key) if isinstance(config, Mapping) else None
    return value if isinstance(value, str) and value else None


def _name(root: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-")[:128].strip("-") or "model"
