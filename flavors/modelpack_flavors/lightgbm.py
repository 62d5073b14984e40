"""LightGBM: boosters and the scikit-learn estimators around them, as LightGBM's text (docs/flavors/lightgbm.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack import optional
from modelpack.audits.lightgbm_text import Facts, check
from modelpack.errors import PackageError, SaveError
from modelpack.flavor import LoadContext, Predictor, SaveContext, Saved
from modelpack_flavors._boosters import options, thresholds
from modelpack_flavors._boosters.rows import Rows, signature, spelled
from modelpack_flavors._lightgbm import labels, stopping
from modelpack_flavors._lightgbm.scoring import Scorer

__all__ = ["FLAVOR"]

ENTRY = "model.txt"

_OPTIONS = ("method", "threads")
_CONFIG = ("best_iteration", "classes", "early_stop", "estimator", "method", "threads")
_ESTIMATORS = ("LGBMClassifier", "LGBMRegressor", "LGBMRanker")
_PLACEHOLDER = "Column_{}"


@dataclass(frozen=True, slots=True)
class LightGBMFlavor:
    """Saves and loads LightGBM models.

    Options of save: ``method`` (which one answers when the request names none) and ``threads`` (how many work on a
    request; by default as many as LightGBM takes).
    """

    name: str = "lightgbm"
    version: str = "1"
    formats: Sequence[str] = ("lightgbm-text",)
    extra: str = "lightgbm"

    def matches(self, model: object) -> int:
        """Return 60 for LightGBM's own classes, 0 for classes derived from them, which may do something else."""
        kind = type(model)
        known = {"lightgbm.basic": ("Booster",), "lightgbm.sklearn": _ESTIMATORS}
        return 60 if kind.__name__ in known.get(kind.__module__, ()) else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Write ``model.txt``, with all trees, also those after the best iteration.

        Raises:
            UsageError: an unknown option, or one with an unknown value (``option-unknown``, ``option-invalid``).
            SaveError: the model is not fitted, has an objective that is Python code, or labels that JSON does not
                hold (``model-unsupported``).
        """
        if not self.matches(model):
            raise SaveError("it is none of LightGBM's own classes", code="model-unsupported", hint="Save its booster.")
        estimator = None if type(model).__name__ == "Booster" else type(model).__name__
        methods = _methods(estimator)
        method, threads = options.method_and_threads("lightgbm", context.options, _OPTIONS, methods)
        booster = _booster(model)
        classes = model.classes_ if estimator == "LGBMClassifier" else None  # type: ignore[attr-defined]
        config = {
            "best_iteration": int(booster.best_iteration),
            "classes": None if classes is None else labels.as_json(classes),
            "early_stop": stopping.params_of(model) if estimator else {},
            "estimator": estimator,
            "method": method,
            "threads": threads,
        }
        data = _written(booster)
        facts = _facts(data)
        (context.directory / ENTRY).write_bytes(data)
        rows = _rows(facts)
        columns = spelled(rows, context.example)
        return Saved(
            format="lightgbm-text",
            entry=ENTRY,
            predictor=_scorer(booster, facts, config, classes),
            config=config,
            packages=("lightgbm",),
            declares={
                "estimator": estimator or "Booster",
                "features": len(facts.features),
                "iterations": facts.iterations,
                "objective": facts.objective,
                "outputs": facts.outputs,
            },
            signature=signature(rows, columns, _kinds(facts)),
            params=options.params(method, methods),
            nulls=True,
            thresholds=thresholds.of_lightgbm(data, columns),
        )

    def load(self, context: LoadContext) -> Predictor:
        """Build the predictor from verified bytes, whose every index has been checked.

        Raises:
            PackageError: the file is not what its format says (``payload-invalid``).
            UsageError: LightGBM is not installed (``extra-missing``).
        """
        entry = context.entry or ""
        data = context.files.read(entry)
        facts = check(data, entry, trees=False)  # the gate has checked them
        config = context.config
        estimator = config.get("estimator")
        if estimator is not None and estimator not in _ESTIMATORS:
            options.invalid("the config names an estimator that LightGBM does not have", entry)
        options.stored(config, _CONFIG, _methods(estimator), entry)
        stopping.check(config.get("early_stop"), entry)
        best = config.get("best_iteration")
        if type(best) is not int or not -1 <= best <= max(facts.iterations, 0):
            options.invalid("the config names a best iteration that the model does not have", entry)
        classes = None
        if estimator == "LGBMClassifier":
            classes = labels.from_json(config.get("classes"), entry)
            if len(classes) != (facts.outputs if facts.outputs > 1 else min(len(classes), 2)):
                options.invalid("the config names another number of classes than the model has", entry)
        library = optional.require("lightgbm", what="Loading this model", extra=self.extra)
        try:
            booster = library.Booster(model_str=data.decode("utf-8"))
        except (library.basic.LightGBMError, ValueError, TypeError, KeyError) as exc:
            options.invalid(f"LightGBM refuses the model: {type(exc).__name__}", entry)
        booster.best_iteration = best
        return _scorer(booster, facts, config, classes)


def _methods(estimator: str | None) -> tuple[str, ...]:
    return ("predict", "predict_proba", "margin") if estimator == "LGBMClassifier" else ("predict", "margin")


def _booster(model: Any) -> Any:
    """Return the booster of a fitted model."""
    if type(model).__name__ == "Booster":
        return model
    if callable(model.objective) or callable(getattr(model, "_objective", None)):
        raise SaveError(
            "the objective is a Python function, which LightGBM's own format does not hold",
            code="model-unsupported",
            hint="Save model.booster_: its answers are the margins that the objective was trained on.",
        )
    if not model.__sklearn_is_fitted__():
        raise SaveError("the model has not been fitted", code="model-unsupported", hint="Call fit first.")
    return model.booster_


def _written(booster: Any) -> bytes:
    import lightgbm

    try:
        text: str = booster.model_to_string(num_iteration=-1)
    except (lightgbm.basic.LightGBMError, TypeError, ValueError) as exc:
        raise SaveError(
            f"LightGBM cannot write the model: {exc}",
            code="model-unsupported",
            hint="Categories must be texts, numbers or truth values.",
        ) from exc
    return text.encode()


def _facts(data: bytes) -> Facts:
    """Check what is saved as it will be checked when it is loaded."""
    try:
        return check(data, ENTRY)
    except PackageError as exc:
        raise SaveError(
            f"the model could not be loaded again: {exc.message}",
            code="model-unsupported",
            hint="Save it with a release of LightGBM that this modelpack knows (docs/flavors/lightgbm.md).",
        ) from exc


def _spelling(name: str) -> str:
    """Return a column's name as LightGBM writes it."""
    return name.replace(" ", "_")


def _rows(facts: Facts) -> Rows:
    given = facts.features != tuple(_PLACEHOLDER.format(place) for place in range(len(facts.features)))
    return Rows(
        features=len(facts.features),
        names=facts.features if given else (),
        categories=_categories(facts),
        unknown_is_missing=True,
        dtype=np.float64,
        spelling=_spelling,
    )


def _categories(facts: Facts) -> dict[int, Sequence[Any]]:
    """Return the categories of pandas columns by feature, where it is certain which list is whose.

    The model holds the lists in the order of the columns, without naming these; ordered categories are split as
    numbers and so are not among the features that the model calls categorical.
    """
    lists = facts.pandas_categorical or []
    return dict(zip(facts.categorical, lists, strict=True)) if len(lists) == len(facts.categorical) else {}


def _kinds(facts: Facts) -> dict[int, str]:
    """Return which features are categories; if lists and features do not match, each may be one."""
    if facts.pandas_categorical and not _categories(facts):
        return dict.fromkeys(range(len(facts.features)), "category")
    return {}


def _scorer(booster: Any, facts: Facts, config: Mapping[str, Any], classes: Any) -> Scorer:
    return Scorer(
        booster=booster,
        rows=_rows(facts),
        method=config["method"],
        classes=classes,
        several=facts.outputs > 1,
        settings={
            **config["early_stop"],
            **({"num_threads": config["threads"]} if config["threads"] else {}),
        },
    )


FLAVOR = LightGBMFlavor()
