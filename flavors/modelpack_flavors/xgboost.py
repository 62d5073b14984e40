"""XGBoost: boosters and the scikit-learn estimators around them, as UBJ or JSON (docs/flavors/xgboost.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack import optional
from modelpack.audits.xgboost_json import Facts, check
from modelpack.errors import PackageError, SaveError, UsageError
from modelpack.flavor import LoadContext, Predictor, SaveContext, Saved
from modelpack_flavors._boosters import options, thresholds
from modelpack_flavors._boosters.rows import Rows, signature, spelled
from modelpack_flavors._xgboost import categories
from modelpack_flavors._xgboost.scoring import BoosterScorer, EstimatorScorer

__all__ = ["FLAVOR"]

_OPTIONS = ("format", "method", "threads")
_CONFIG = ("categories", "estimator", "method", "missing", "threads")
_ENTRIES = {"ubj": "model.ubj", "json": "model.json"}
_CLASSIFIERS = ("XGBClassifier", "XGBRFClassifier")
_ESTIMATORS = (*_CLASSIFIERS, "XGBRegressor", "XGBRFRegressor", "XGBRanker")
_KINDS = {"i": "bool", "c": "category"}


@dataclass(frozen=True, slots=True)
class XGBoostFlavor:
    """Saves and loads XGBoost models.

    Options of save: ``format`` ("ubj" or "json"), ``method`` (which one answers when the request names none) and
    ``threads`` (how many work on a request; by default as many as XGBoost takes).
    """

    name: str = "xgboost"
    version: str = "1"
    formats: Sequence[str] = ("xgboost-ubj", "xgboost-json")
    extra: str = "xgboost"

    def matches(self, model: object) -> int:
        """Return 60 for XGBoost's own classes, 0 for classes derived from them, which may do something else."""
        kind = type(model)
        known = {"xgboost.core": ("Booster",), "xgboost.sklearn": _ESTIMATORS}
        return 60 if kind.__name__ in known.get(kind.__module__, ()) else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Write ``model.ubj`` (or ``model.json``).

        Raises:
            UsageError: an unknown option, or one with an unknown value (``option-unknown``, ``option-invalid``).
            SaveError: the model is not fitted, or has an objective that is Python code (``model-unsupported``).
        """
        if not self.matches(model):
            raise SaveError("it is none of XGBoost's own classes", code="model-unsupported", hint="Save its booster.")
        estimator = None if type(model).__name__ == "Booster" else type(model).__name__
        methods = _methods(estimator)
        method, threads = options.method_and_threads("xgboost", context.options, _OPTIONS, methods)
        form = context.options.get("format", "ubj")
        if form not in _ENTRIES:
            raise UsageError("the format is neither ubj nor json", code="option-invalid", path="options.format")
        data = _written(model, form)
        facts = _facts(data, _ENTRIES[form])
        (context.directory / _ENTRIES[form]).write_bytes(data)
        known = categories.of_model(facts, context.example)
        rows = _rows(facts, known)
        columns = spelled(rows, context.example)
        return Saved(
            format=f"xgboost-{form}",
            entry=_ENTRIES[form],
            predictor=_scorer(model, estimator, rows, method, facts.booster),
            config={
                "categories": categories.as_json(facts, known),
                "estimator": estimator,
                "method": method,
                "missing": _missing_as_json(getattr(model, "missing", math.nan)),
                "threads": threads,
            },
            packages=("xgboost",),
            requires=("scikit-learn>=1.5",) if estimator else (),
            declares={
                "booster": facts.booster,
                "estimator": estimator or "Booster",
                "features": facts.features,
                "objective": facts.objective,
                "outputs": facts.groups,
            },
            signature=signature(rows, columns, _kinds(facts)),
            params=options.params(method, methods),
            nulls=True,
            thresholds=thresholds.of_xgboost(facts.root, columns),
        )

    def load(self, context: LoadContext) -> Predictor:
        """Build the predictor from verified bytes, whose every index has been checked.

        Raises:
            PackageError: the file is not what its format says (``payload-invalid``).
            UsageError: XGBoost is not installed (``extra-missing``).
        """
        entry = context.entry or ""
        data = context.files.read(entry)
        facts = check(data, entry, trees=False)  # the gate has checked them
        if context.format != ("xgboost-ubj" if data[:2] == b"{L" else "xgboost-json"):
            options.invalid("the model is not in the form that its format says", entry)
        estimator = context.config.get("estimator")
        if estimator is not None and estimator not in _ESTIMATORS:
            options.invalid("the config names an estimator that XGBoost does not have", entry)
        method, threads = options.stored(context.config, _CONFIG, _methods(estimator), entry)
        missing = _missing_from_json(context.config.get("missing"), entry)
        known = categories.from_json(facts, context.config.get("categories"), entry)
        library = optional.require("xgboost", what="Loading this model", extra=self.extra)
        model = _built(library, estimator, data, missing, threads, entry)
        return _scorer(model, estimator, _rows(facts, known), method, facts.booster)


def _methods(estimator: str | None) -> tuple[str, ...]:
    return ("predict", "predict_proba", "margin") if estimator in _CLASSIFIERS else ("predict", "margin")


def _written(model: Any, form: str) -> bytes:
    """Return the model as XGBoost writes it."""
    import xgboost

    if callable(getattr(model, "objective", None)):
        raise SaveError(
            "the objective is a Python function, which XGBoost's own format does not hold",
            code="model-unsupported",
            hint="Save model.get_booster(): its answers are the margins that the objective was trained on.",
        )
    if not getattr(model, "__sklearn_is_fitted__", lambda: True)():
        raise SaveError("the model has not been fitted", code="model-unsupported", hint="Call fit first.")
    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    try:
        return bytes(booster.save_raw(form))
    except xgboost.core.XGBoostError as exc:
        raise SaveError(
            f"XGBoost cannot write the model: {str(exc).splitlines()[0]}",
            code="model-unsupported",
            hint="Train it first.",
        ) from exc


def _facts(data: bytes, entry: str) -> Facts:
    """Check what is saved as it will be checked when it is loaded."""
    try:
        return check(data, entry)
    except PackageError as exc:
        raise SaveError(
            f"the model could not be loaded again: {exc.message}",
            code="model-unsupported",
            hint="Save it with a release of XGBoost that this modelpack knows (docs/flavors/xgboost.md).",
        ) from exc


def _rows(facts: Facts, known: Mapping[int, Sequence[Any]]) -> Rows:
    return Rows(
        features=facts.features,
        names=facts.names,
        categories=known,
        unknown_is_missing=False,
        dtype=np.float32,
    )


def _kinds(facts: Facts) -> dict[int, str]:
    return {place: _KINDS[kind] for place, kind in enumerate(facts.types) if kind in _KINDS}


def _scorer(model: Any, estimator: str | None, rows: Rows, method: str, booster: str) -> Predictor:
    if estimator is not None:
        return EstimatorScorer(model=model, rows=rows, method=method)
    # The two ways to score differ in the last bit for dart; a Booster's users know the one through DMatrix.
    return BoosterScorer(model=model, rows=rows, method=method, in_place=booster == "gbtree")


def _built(library: Any, estimator: str | None, data: bytes, missing: float, threads: int | None, entry: str) -> Any:
    try:
        if estimator is None:
            return library.Booster({"nthread": threads} if threads else {}, model_file=bytearray(data))
        optional.require("sklearn", what="Loading an estimator of XGBoost", extra="xgboost")
        model = getattr(library, estimator)(missing=missing, n_jobs=threads)
        model.load_model(bytearray(data))
    except (library.core.XGBoostError, KeyError, TypeError, ValueError) as exc:
        options.invalid(f"XGBoost refuses the model: {type(exc).__name__}", entry)
    return model


def _missing_as_json(missing: Any) -> float | str | None:
    """Return the value that stands for missing ones as JSON; NaN as null."""
    if isinstance(missing, bool) or not isinstance(missing, int | float | np.integer | np.floating):
        raise SaveError("the value that stands for missing ones is not a number", code="model-unsupported")
    value = float(missing)
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value


def _missing_from_json(value: Any, entry: str) -> float:
    if value is None:
        return math.nan
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        options.invalid("the config names a missing value that is not a number", entry)
    return float(value)


FLAVOR = XGBoostFlavor()
