"""Where a booster's answers jump: the values at which its trees split, by feature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["of_lightgbm", "of_xgboost"]

Thresholds = Mapping[str | int, Sequence[float]]
Array = np.ndarray[Any, Any]


def of_xgboost(model: Mapping[str, Any], names: Sequence[str]) -> Thresholds:
    """Return the thresholds of a parsed model (``Facts.root``) by column, or by place if it has no names."""
    booster = model["learner"]["gradient_booster"]
    trees = booster.get("gbtree", booster)["model"].get("trees", [])

    def splits() -> Iterable[tuple[Array, Array]]:
        for tree in trees:
            inner = np.asarray(tree["left_children"]) >= 0
            if "split_type" in tree:
                inner = inner & (np.asarray(tree["split_type"]) == 0)
            yield np.asarray(tree["split_indices"])[inner], np.asarray(tree["split_conditions"], np.float64)[inner]

    return _gathered(splits(), names)


def of_lightgbm(text: bytes, names: Sequence[str]) -> Thresholds:
    """Return the thresholds of a checked model's text by column, or by place if it has no names."""

    def splits() -> Iterable[tuple[Array, Array]]:
        lines: dict[bytes, bytes] = {}
        for line in text[: text.find(b"\nend of trees\n")].split(b"\n"):
            key, _, value = line.partition(b"=")
            lines[key] = value
            if key == b"decision_type":
                numeric = np.fromstring(value, dtype=np.int64, sep=" ") & 1 == 0
                features = np.fromstring(lines[b"split_feature"], dtype=np.int64, sep=" ")
                yield features[numeric], np.fromstring(lines[b"threshold"], dtype=np.float64, sep=" ")[numeric]

    return _gathered(splits(), names)


def _gathered(found: Iterable[tuple[Array, Array]], names: Sequence[str]) -> Thresholds:
    parts = list(found)
    if not parts:
        return {}
    features = np.concatenate([part[0] for part in parts])
    values = np.concatenate([part[1] for part in parts])
    return {
        names[int(place)] if names else int(place): np.unique(values[features == place]).tolist()
        for place in np.unique(features)
    }
