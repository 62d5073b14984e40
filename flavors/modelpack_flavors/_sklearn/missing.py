"""Whether a model takes missing values, column by column: followed through its steps.

scikit-learn's ``allow_nan`` tag says whether an estimator accepts NaN, not what becomes of it. A scaler passes NaN on
to the next step; an imputer, an encoder or a predictor ends it. A column is accepted when nothing on its way refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from modelpack_flavors._sklearn.naming import tags_of

__all__ = ["accepted"]

Fate = Literal["refused", "ended", "passed"]

# Where a missing value given to these ends, when they accept it at all.
_ENDS = frozenset({"SimpleImputer", "KNNImputer", "IterativeImputer", "MissingIndicator", "TargetEncoder"})
# Estimators that hand the rows unchecked to others, by the attribute that holds those.
_DELEGATES = {
    "BaggingClassifier": "estimators_",
    "BaggingRegressor": "estimators_",
    "CalibratedClassifierCV": "calibrated_classifiers_",
    "FixedThresholdClassifier": "estimator_",
    "FrozenEstimator": "estimator",
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "MultiOutputClassifier": "estimators_",
    "MultiOutputRegressor": "estimators_",
    "OneVsRestClassifier": "estimators_",
    "RandomizedSearchCV": "best_estimator_",
    "StackingClassifier": "estimators_",
    "StackingRegressor": "estimators_",
    "TransformedTargetRegressor": "regressor_",
    "TunedThresholdClassifierCV": "estimator_",
    "VotingClassifier": "estimators_",
    "VotingRegressor": "estimators_",
    "_CalibratedClassifier": "estimator",
}


def accepted(model: Any) -> bool | Mapping[str, bool] | None:
    """Say whether the model takes missing values: for all columns, per column, or None if it cannot be known."""
    names = getattr(model, "feature_names_in_", None)
    try:
        if names is None or not all(isinstance(name, str) for name in names):
            count = getattr(model, "n_features_in_", 1)
            return all(_fate(model, i) != "refused" for i in range(min(count, 4096)))
        found = {str(name): _fate(model, i) != "refused" for i, name in enumerate(names)}
    except _Unknown:
        return None
    return next(iter(found.values())) if len(set(found.values())) == 1 else found


class _Unknown(Exception):
    """A step says nothing about missing values."""


def _fate(step: Any, index: int | None) -> Fate:
    """Say what becomes of a missing value in column ``index`` of the step's input (None: in some column)."""
    if step is None or isinstance(step, str):
        return "ended" if step == "drop" else "passed"
    kind = type(step).__name__
    if isinstance(getattr(step, "steps", None), list):
        return _through(step, index)
    if hasattr(step, "transformers_"):
        return _split(step, index)
    if hasattr(step, "transformer_list"):
        return _worst(_fate(one, index) for _, one in step.transformer_list)
    if kind in _DELEGATES:
        return _delegated(step, index)
    tags = tags_of(step)
    if tags is None or not _reviewed(step):
        raise _Unknown
    if kind == "FunctionTransformer" and not step.validate:
        return "passed"
    if not tags.input_tags.allow_nan:
        return "refused"
    if hasattr(step, "categories_") and hasattr(step, "handle_unknown"):
        return _encoded(step, index)
    return "ended" if kind in _ENDS or not hasattr(step, "transform") or hasattr(step, "predict") else "passed"


def _reviewed(step: Any) -> bool:
    return type(step).__module__.partition(".")[0] in ("lightgbm", "sklearn", "xgboost")


def _worst(fates: Iterable[Fate]) -> Fate:
    found = set(fates)
    return "refused" if "refused" in found else "passed" if "passed" in found else "ended"


def _through(pipeline: Any, index: int | None) -> Fate:
    fate: Fate = "passed"
    for _, step in pipeline.steps:
        fate = _fate(step, index)
        if fate != "passed":
            return fate
        if not _keeps_columns(step):
            index = None
    return fate


def _keeps_columns(step: Any) -> bool:
    bases = {base.__name__ for base in type(step).__mro__}
    return step is None or step == "passthrough" or "OneToOneFeatureMixin" in bases


def _split(transformer: Any, index: int | None) -> Fate:
    fates: list[Fate] = []
    indices = getattr(transformer, "_transformer_to_input_indices", {})
    for name, step, _ in transformer.transformers_:
        places = list(indices.get(name, ()))
        if index is None:
            fates.extend(_fate(step, None) for _ in places[:1])
        elif index in places:
            fates.append(_fate(step, places.index(index)))
    return _worst(fates)


def _delegated(step: Any, index: int | None) -> Fate:
    inner = getattr(step, _DELEGATES[type(step).__name__])
    if hasattr(step, "estimators_features_"):
        index = None  # each gets columns of its own
    fates = [_fate(one, index) for one in (inner if isinstance(inner, list) else [inner])]
    if getattr(step, "passthrough", False):
        fates.append(_fate(step.final_estimator_, None))
    return _worst(fates)


def _encoded(encoder: Any, index: int | None) -> Fate:
    """Follow a missing value into an encoder, where it may be a category, an unknown one, or an error."""
    columns = range(len(encoder.categories_)) if index is None else (index,)
    fates: list[Fate] = []
    for column in columns:
        last = encoder.categories_[column][-1:].tolist()
        if last and last[0] != last[0]:
            written = getattr(encoder, "encoded_missing_value", None)
        elif encoder.handle_unknown == "error":
            return "refused"
        else:
            written = getattr(encoder, "unknown_value", None)
        fates.append("passed" if written is not None and written != written else "ended")
    return _worst(fates)
