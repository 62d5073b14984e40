"""A package behind MLflow's call: what its ``load_model`` and its server are given (docs/flavors/mlflow.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelpack import coerce, document, files, render
from modelpack.errors import IntegrityError
from modelpack.loading import load
from modelpack.model import Model
from modelpack.package import Package

__all__ = ["Scorer", "load_pyfunc"]

# What MLflow adds at the top of a directory that comes from its registry; it is never read here.
_ADDED = "registered_model_meta"


class Scorer:
    """The package's model as MLflow calls it: checked on the way in and on the way out."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return a DataFrame, an array, a dict of arrays by name, or JSON data: what MLflow's server can write."""
        signature = self.model.signature
        nullable = {param.name for param in signature.params if param.nullable}
        # MLflow sends null for a param that was not sent and has no default.
        sent = {name: value for name, value in (params or {}).items() if value is not None or name in nullable}
        frame = self.model.score(coerce.inputs(data, signature), coerce.params(sent, signature))
        if frame.columns is not None:
            json = len(frame.columns) == 1 and next(iter(frame.columns.values())).type == coerce.calls.JSON
            return render.plain(frame) if json else render.to(frame, "pandas")
        tensors = dict(frame.tensors or {})
        return next(iter(tensors.values())) if len(tensors) == 1 else tensors


def load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Scorer:
    """Open, verify and load the package at ``path`` under the reader's own grants; MLflow's asking is none.

    Raises:
        ManifestError, IntegrityError: it is not a valid package.
        TrustError: it would run code from the package and this user has not allowed that for its digest.
        EnvironmentMismatch, FlavorError: it cannot be loaded here.
    """
    root = Path(path)
    package = Package(root, files.read_manifest(root, max_bytes=document.MAX_BYTES))
    with package.keeping():
        try:
            package.verify()
        except IntegrityError as exc:
            faults = [fault for fault in exc.faults if (fault.code, fault.path) != ("file-unexpected", _ADDED)]
            if faults:
                raise IntegrityError.from_faults(faults, hint=exc.hint) from None
        return Scorer(load(package))
