"""Boosters inside skops files: kept in their libraries' own formats, and audited as these are.

An XGBoost booster is a call of its class with the model as UBJ; a LightGBM booster is an object whose state holds the
model as text. Nothing else may be in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelpack.audits import lightgbm_text, xgboost_json

if TYPE_CHECKING:
    from modelpack.audits.skops import Walk

__all__ = ["LIGHTGBM", "STATE", "XGBOOST", "check"]

XGBOOST = "xgboost.core.Booster"
LIGHTGBM = "lightgbm.basic.Booster"
# What a LightGBM booster that was read from text has besides its model, and the only values taken for it; None: the
# model's own.
STATE: Mapping[str, Any] = {
    "_network": False,
    "_Booster__need_reload_eval_info": True,
    "_train_data_name": "training",
    "_Booster__set_objective_to_none": False,
    "best_iteration": None,
    "best_score": {},
    "_Booster__num_class": None,
    "pandas_categorical": None,
    "params": {},
}


def check(walk: Walk, name: str, state: Mapping[str, Any]) -> None:
    """Check a booster whose node and everything below it has been walked.

    Raises:
        PackageError: it is not stored as said, or its model cannot be used (``payload-invalid``).
    """
    if name == XGBOOST:
        _xgboost(walk, state)
    elif name == LIGHTGBM:
        _lightgbm(walk, state)


def _xgboost(walk: Walk, state: Mapping[str, Any]) -> None:
    arguments = [walk.resolve(item) for item in walk.resolve(state["content"])["content"]]
    kinds = [argument["__loader__"] for argument in arguments]
    if kinds != ["JsonNode", "JsonNode", "BytearrayNode"] or any(walk.scalar(a) is not None for a in arguments[:2]):
        walk.refuse("an XGBoost booster is not stored as its model alone")
    xgboost_json.check(walk.archive.read(arguments[2]["file"]), walk.archive.entry)


def _lightgbm(walk: Walk, state: Mapping[str, Any]) -> None:
    found = _plain(walk, state.get("content"), 0)
    if not isinstance(found, dict) or set(found) != {*STATE, "_handle"} or not isinstance(found["_handle"], str):
        walk.refuse("a LightGBM booster is not stored as its model alone")
    facts = lightgbm_text.check(found["_handle"].encode("utf-8", "surrogatepass"), walk.archive.entry)
    wanted = {
        **STATE,
        "_handle": found["_handle"],
        "best_iteration": found["best_iteration"],
        "_Booster__num_class": facts.outputs,
        "pandas_categorical": facts.pandas_categorical,
    }
    best = found["best_iteration"]
    if found != wanted or type(best) is not int or not -1 <= best <= facts.iterations:
        walk.refuse("a LightGBM booster has a state that its model does not have")


def _plain(walk: Walk, raw: Any, depth: int) -> Any:
    """Return what nodes of dicts, lists and single values hold."""
    node = walk.resolve(raw or {})
    loader = node.get("__loader__")
    if depth > 4 or loader not in ("DictNode", "ListNode", "JsonNode"):
        walk.refuse("a LightGBM booster's state holds something else than values")
    if loader == "JsonNode":
        return walk.scalar(node)
    if loader == "ListNode":
        return [_plain(walk, item, depth + 1) for item in node["content"]]
    return {key: _plain(walk, item, depth + 1) for key, item in node["content"].items()}
