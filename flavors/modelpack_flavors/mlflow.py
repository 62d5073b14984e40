"""MLflow's python_function models, read from directories that MLflow wrote (docs/flavors/mlflow.md).

Always class ``code``. What MLflow's flavors hold in the formats of scikit-learn, LightGBM, XGBoost and ONNX is loaded
by the flavor for that framework; this one loads what only Python code can: a ``PythonModel``, or a loader module in
the directory's ``code/``. Nothing is put on ``sys.path``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack.errors import FlavorError, SaveError, TrustError
from modelpack.flavor import Form, LoadContext, Predictor, SaveContext, Saved
from modelpack.optional import require
from modelpack.signature import Table
from modelpack_flavors._mlflow.serving import load_pyfunc
from modelpack_flavors._pickles import unpickled

__all__ = ["FLAVOR"]

# What MLflow calls when a package's MLmodel names this module; the name stands in packages and stays.
_load_pyfunc = load_pyfunc


@dataclass(frozen=True, slots=True)
class MLflowFlavor:
    """Loads python_function models of MLflow directories; saves nothing."""

    name: str = "mlflow"
    version: str = "1"
    formats: Sequence[str] = ("mlflow-pyfunc",)
    extra: str = "mlflow"

    def matches(self, model: object) -> int:
        """Return 0: no object is an MLflow directory."""
        return 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Refuse: directories of MLflow are read, and imported with ``modelpack import``."""
        raise SaveError(
            "the mlflow flavor reads directories of MLflow and writes none",
            code="model-unsupported",
            hint="Save the model with its own flavor, or import the directory: modelpack import DIR -o PACKAGE.",
        )

    def load(self, context: LoadContext) -> Predictor:
        """Build the predictor by the directory's own code.

        Raises:
            TrustError: nobody has allowed that (``code-not-allowed``).
            FlavorError: the loader is one that only MLflow itself can run (``mlflow-loader-unsupported``).
            UsageError: it needs MLflow, which is not installed (``extra-missing``).
        """
        if not context.code_allowed:
            raise TrustError("loading it runs Python code from the directory", code="code-not-allowed")
        loader = context.config.get("loader_module")
        form: Form = "pandas" if _is_table(context) else "numpy"
        if isinstance(loader, str) and context.namespace.owns(loader):
            module = context.namespace.import_module(loader)
            return _Function(module._load_pyfunc(str(_inside(context, context.config.get("data")))), form)
        if loader == "mlflow.pyfunc.model" and isinstance(context.config.get("python_model"), str):
            return _python_model(context, form)
        raise FlavorError(
            f"its loader {loader} is none that can be run here",
            code="mlflow-loader-unsupported",
            path="MLmodel.flavors.python_function.loader_module",
            hint="Models with a PythonModel, or with a loader module in code/, can be loaded.",
        )


class _Function:
    """What a loader module returns: an object with ``predict(data)`` or ``predict(data, params)``."""

    def __init__(self, model: Any, form: Form) -> None:
        self.form: Form = form
        self._predict = model.predict
        self._takes_params = "params" in inspect.signature(model.predict).parameters

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        return self._predict(data, params=dict(params)) if self._takes_params else self._predict(data)


class _PythonModel:
    """A ``PythonModel``: its ``predict`` takes a context first (or, since MLflow 2.20, only the data)."""

    def __init__(self, model: Any, model_context: Any, form: Form) -> None:
        self.form: Form = form
        self._model = model
        self._context = model_context
        names = list(inspect.signature(model.predict).parameters)
        self._takes_context = bool(names) and names[0] in ("context", "ctx", "_", "_context")
        self._takes_params = "params" in names

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        first = (self._context, data) if self._takes_context else (data,)
        return self._model.predict(*first, **({"params": dict(params)} if self._takes_params else {}))


def _python_model(context: LoadContext, form: Form) -> Predictor:
    mlflow = require("mlflow", what="Loading a PythonModel of MLflow").pyfunc
    raw = context.files.read(str(context.config["python_model"]))
    model = unpickled(raw, context.namespace)
    artifacts = {
        name: str(_inside(context, artifact.get("path")))
        for name, artifact in (context.config.get("artifacts") or {}).items()
        if isinstance(artifact, Mapping)
    }
    model_context = mlflow.PythonModelContext(artifacts, context.config.get("config") or {})
    if hasattr(model, "load_context"):
        model.load_context(model_context)
    return _PythonModel(model, model_context, form)


def _inside(context: LoadContext, path: Any) -> Path:
    """Return a path inside the verified private copy of the directory; its root if ``path`` is None."""
    root = context.files.directory().resolve()
    found = (root / str(path)).resolve() if path is not None else root
    if found != root and root not in found.parents:
        raise FlavorError(
            "a path in it leads outside the directory",
            code="mlflow-path-outside",
            path="MLmodel.flavors.python_function",
        )
    return found


def _is_table(context: LoadContext) -> bool:
    inputs = context.signature.inputs if context.signature else None
    return inputs is None or isinstance(inputs, Table)


FLAVOR = MLflowFlavor()
