"""modelpack: one standard way to package a trained model, and one runtime that scores any package.

The names below are the public face; everything else may change. They are imported when first used, so that
``import modelpack`` itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelpack.batch import predict_files
    from modelpack.errors import (
        EnvironmentMismatch,
        EnvironmentWarning,
        FlavorError,
        InputError,
        IntegrityError,
        ManifestError,
        ModelError,
        ModelpackError,
        OutputError,
        PackageError,
        SaveError,
        SignatureError,
        TrustError,
        UsageError,
    )
    from modelpack.infer import signature as infer_signature
    from modelpack.loading import load
    from modelpack.manifest import Manifest
    from modelpack.model import Model
    from modelpack.package import Package
    from modelpack.saving import save
    from modelpack.signature import Column, Constraints, Param, Signature, Table, Tensor, Tensors

    open = Package.open  # noqa: A001 - modelpack.open, as in gzip.open

__version__ = "0.1.0"

__all__ = [
    "Column",
    "Constraints",
    "EnvironmentMismatch",
    "EnvironmentWarning",
    "FlavorError",
    "InputError",
    "IntegrityError",
    "Manifest",
    "ManifestError",
    "Model",
    "ModelError",
    "ModelpackError",
    "OutputError",
    "Package",
    "PackageError",
    "Param",
    "SaveError",
    "Signature",
    "SignatureError",
    "Table",
    "Tensor",
    "Tensors",
    "TrustError",
    "UsageError",
    "__version__",
    "infer_signature",
    "load",
    "open",
    "predict_files",
    "save",
]

# Public name -> (module, attribute path). Errors and signature parts are all under their own names.
_PLACES = {
    **{name: ("modelpack.errors", name) for name in __all__ if name.endswith(("Error", "Mismatch", "Warning"))},
    **{
        name: ("modelpack.signature", name)
        for name in ("Column", "Constraints", "Param", "Signature", "Table", "Tensor", "Tensors")
    },
    "Manifest": ("modelpack.manifest", "Manifest"),
    "Model": ("modelpack.model", "Model"),
    "Package": ("modelpack.package", "Package"),
    "infer_signature": ("modelpack.infer", "signature"),
    "load": ("modelpack.loading", "load"),
    "open": ("modelpack.package", "Package.open"),
    "predict_files": ("modelpack.batch", "predict_files"),
    "save": ("modelpack.saving", "save"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'modelpack' has no attribute {name!r}")
    module, path = _PLACES[name]
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
