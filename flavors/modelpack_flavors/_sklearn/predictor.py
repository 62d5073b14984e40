"""A scikit-learn model behind one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpack import render
from modelpack.errors import InputError
from modelpack.flavor import Form, Predictor
from modelpack.frame import Frame
from modelpack.signature import Signature
from modelpack_flavors._sklearn import unnamed

__all__ = ["METHODS", "Scorer", "form_of", "methods_of", "quickest"]

# The methods that score new rows, in the order in which one is chosen when nobody says.
METHODS = (
    "predict",
    "transform",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "mahalanobis",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """Calls ``method`` of ``model``, or the one that the param ``method`` names.

    ``flat``: the model takes a list of values, not a table (text vectorizers).
    """

    model: Any
    method: str
    form: Form
    flat: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that score new rows."""
        return methods_of(self.model)

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """Return the model's own answer.

        Raises:
            InputError: the param ``method`` names no method that scores (``param-constraint``).
        """
        name = params.get("method", self.method)
        # The signature that limits the param comes from the package, so it does not count here.
        if name != self.method and name not in methods_of(self.model):
            raise InputError("names no method that scores rows", code="param-constraint", path="params.method")
        return getattr(self.model, name)(self._arranged(data))

    def _arranged(self, data: Any) -> Any:
        if self.flat:
            return _one_column(data)
        if self.form != "pandas":
            return data
        # scikit-learn wants the columns in the order of fit; the signature may have another.
        names = getattr(self.model, "feature_names_in_", None)
        if names is None or list(data.columns) == list(names) or not set(names) <= set(data.columns):
            return data
        return data[list(names)]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayScorer:
    """Calls a model that was fitted on a DataFrame with arrays, where nobody can tell (docs/flavors/sklearn.md).

    ``calls``: the methods of a copy of the model that knows no names of columns. ``settings``: scikit-learn's own,
    of the thread that asks.
    """

    scorer: Scorer
    names: tuple[str, ...]
    calls: Mapping[str, Callable[[Any], Any]]
    settings: Callable[[], Mapping[str, Any]]
    form: Form = "frame"

    @property
    def model(self) -> Any:
        """The model as it was loaded."""
        return self.scorer.model

    def predict(self, data: Frame, params: Mapping[str, Any]) -> Any:
        """Return the model's own answer.

        Raises:
            InputError: as :meth:`Scorer.predict`.
        """
        call = self.calls.get(params.get("method", self.scorer.method))
        rows = unnamed.array(data, self.names)
        if call is None or rows is None or self.settings()["transform_output"] != "default":
            return self.scorer.predict(render.to(data, self.scorer.form), params)
        return call(rows)


def quickest(scorer: Scorer, signature: Signature | None) -> Predictor:
    """Return what answers as ``scorer`` does with the least work."""
    from sklearn import get_config

    names = unnamed.columns(scorer.model, signature) if scorer.form == "pandas" and not scorer.flat else ()
    bare = unnamed.without_names(scorer.model) if names else None
    if bare is None:
        return scorer
    calls = {name: getattr(bare, name) for name in scorer.methods}
    return ArrayScorer(scorer=scorer, names=names, calls=calls, settings=get_config)


def _one_column(data: Any) -> Any:
    return data.reshape(-1) if data.ndim == 2 and data.shape[1] == 1 else data


def methods_of(model: object) -> tuple[str, ...]:
    """Return the names of the methods that score new rows, the default first."""
    return tuple(name for name in METHODS if callable(getattr(model, name, None)))


def form_of(model: object, example: Any) -> Form:
    """Return the form the model takes its data in.

    A model that knows the names of its columns takes frames; one that counts its columns takes arrays; for the rest
    (models that check nothing) the example says.
    """
    from modelpack_flavors._sklearn import naming

    if getattr(model, "feature_names_in_", None) is not None:
        return "pandas"
    if naming.takes_records(model):
        return "records"
    if hasattr(model, "n_features_in_") or naming.takes_one_column(model):
        return "numpy"
    return "pandas" if hasattr(example, "columns") and hasattr(example, "iloc") else "numpy"
