"""Stopping a prediction early: the only params of an estimator that change what a fitted one answers."""

from __future__ import annotations

from typing import Any

from modelpack_flavors._boosters.options import invalid

__all__ = ["check", "params_of"]

_TYPES: dict[str, tuple[type, ...]] = {
    "pred_early_stop": (bool,),
    "pred_early_stop_freq": (int,),
    "pred_early_stop_margin": (int, float),
}


def params_of(estimator: Any) -> dict[str, Any]:
    """Return those params of an estimator, as it passes them to its booster with every prediction."""
    found = estimator.get_params()
    return {name: found[name] for name in _TYPES if name in found}


def check(params: Any, entry: str) -> None:
    """Check the params in a config.

    Raises:
        PackageError: they are others, or not of their types (``payload-invalid``).
    """
    fit = isinstance(params, dict) and all(
        type(value) in _TYPES.get(name, ()) and (value is True or 0 <= value <= 2**31 - 1)
        for name, value in params.items()
    )
    if not fit:
        invalid("the config stops predictions in a way that LightGBM does not have", entry)
