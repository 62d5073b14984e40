"""XGBoost and LightGBM inside scikit-learn models: boosters go into the file as their libraries write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelpack.audits.skops_boosters import LIGHTGBM, STATE, XGBOOST
from modelpack.errors import SaveError

if TYPE_CHECKING:
    from modelpack_flavors._sklearn.describing import Description

__all__ = ["BOOSTERS", "CHECKS", "LABELLED", "LIBRARIES", "described", "takes_numbers", "without_truth_values"]

BOOSTERS = frozenset({XGBOOST, LIGHTGBM})
LIBRARIES = frozenset({"lightgbm", "xgboost"})

LABELLED = "lightgbm.sklearn.LGBMClassifier"

_MAX_THREADS = 4096
# LightGBM reads its params as words of one line; a value must be one word.
_WORD = re.compile(r"[A-Za-z0-9_.,:+-]*\Z")
# Params, under all their names, that say which files and machines a task is about: none has a place in a model.
_ELSEWHERE = frozenset(
    name
    for line in (
        "config config_file task task_type data data_filename train train_data train_data_file test test_data",
        "test_data_file valid valid_data valid_data_file valid_filenames input_model model_in model_input model_out",
        "model_output output_model name_pred output_result pred_name predict_name predict_result prediction_name",
        "prediction_result convert_model convert_model_file convert_model_language forced_splits forced_splits_file",
        "forced_splits_filename forcedsplits_filename fs forcedbins_filename parser_config_file machine_list",
        "machine_list_file machine_list_filename mlist machines nodes workers local_listen_port local_port port",
        "num_machine num_machines save_period snapshot_freq is_save_binary is_save_binary_file save_binary",
        "predict_disable_shape_check",
    )
    for name in line.split()
)


def described(description: Description, booster: Any) -> dict[str, Any]:
    """Return the node of a booster.

    Raises:
        SaveError: its library cannot write it (``model-unsupported``).
    """
    kind = type(booster)
    names = {"__class__": kind.__name__, "__module__": kind.__module__}
    try:
        if f"{kind.__module__}.{kind.__name__}" == XGBOOST:
            arguments = description.node((None, None, bytearray(booster.save_raw("ubj"))))
            return {**names, "__loader__": "ConstructorFromReduceNode", "content": arguments}
        text = booster.model_to_string(num_iteration=-1)
    except Exception as exc:  # each library has errors of its own
        raise SaveError(
            f"{kind.__module__.partition('.')[0]} cannot write its booster: {str(exc).partition(chr(10))[0]}",
            code="model-unsupported",
        ) from exc
    state = {
        **STATE,
        "_handle": text,
        "best_iteration": int(booster.best_iteration),
        "_Booster__num_class": booster.num_model_per_iteration(),
        "pandas_categorical": _categories(text),
    }
    return {**names, "__loader__": "ObjectNode", "content": description.node(state)}


def without_truth_values(state: dict[str, Any]) -> dict[str, Any]:
    """Return a classifier's state without its map from labels, when these are truth values, which are no keys here.

    The map serves training only, which makes a new one.
    """
    if any(type(key).__name__ in ("bool", "bool_") for key in state.get("_class_map") or ()):
        return {**state, "_class_map": None}
    return state


def takes_numbers(step: Any) -> bool:
    """Say whether a step is an estimator of XGBoost or LightGBM that was fitted without categories."""
    if type(step).__module__.partition(".")[0] not in LIBRARIES:
        return False
    booster = getattr(step, "_Booster", None)
    return not getattr(step, "enable_categorical", False) and not getattr(booster, "pandas_categorical", None)


def _categories(text: str) -> Any:
    from modelpack.audits.lightgbm_text import check

    return check(text.encode(), "model").pandas_categorical


def xgboost_model(value: Any) -> Iterator[str]:
    """Check what an XGBoost estimator passes to its library with every prediction."""
    state = vars(value)
    if state.get("_Booster") is None:
        return  # not fitted: it has nothing to predict with
    if not _is_a(state["_Booster"], XGBOOST):
        yield "its booster is none"
        return
    threads, missing = state.get("n_jobs"), state.get("missing")
    if threads is not None and not (type(threads) is int and abs(threads) <= _MAX_THREADS):
        yield "its number of threads is out of range"
    if not isinstance(missing, int | float):
        yield "the value that stands for missing ones is not a number"
    types = state.get("feature_types")
    if types is not None and not (
        isinstance(types, list)
        and len(types) == value._Booster.num_features()
        and all(isinstance(kind, str) for kind in types)
    ):
        yield "its types of features are not one for each feature"


def lightgbm_model(value: Any) -> Iterator[str]:
    """Check what a LightGBM estimator passes to its library with every prediction."""
    state = vars(value)
    if state.get("_Booster") is None:
        return  # not fitted: it has nothing to predict with
    if not _is_a(state["_Booster"], LIGHTGBM):
        yield "its booster is none"
        return
    params = {**value.get_params(deep=False), "_objective": state.get("_objective")}
    for name, setting in params.items():
        if name in ("class_weight", "random_state", "importance_type", "n_estimators"):
            continue  # these never reach the library, or as a number
        if not re.fullmatch(r"[a-z_0-9]+", name) or name in _ELSEWHERE:
            yield "it has a param that has no place in a model"
        elif not _is_setting(setting):
            yield "a param is neither a number nor a word"
        elif re.search(r"thread|job", name) and type(setting) is int and abs(setting) > _MAX_THREADS:
            yield "its number of threads is out of range"


def _is_setting(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list | tuple | set):
        return depth < 2 and all(_is_setting(item, depth + 1) for item in value)
    if isinstance(value, str):
        return _WORD.match(value) is not None
    return value is None or isinstance(value, bool | int | float) or callable(value)


def _is_a(value: Any, name: str) -> bool:
    return f"{type(value).__module__}.{type(value).__qualname__}" == name


CHECKS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "lightgbm.sklearn.LGBMModel": lightgbm_model,
    "xgboost.sklearn.XGBModel": xgboost_model,
}
