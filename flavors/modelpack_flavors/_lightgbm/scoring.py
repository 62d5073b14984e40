"""LightGBM models behind one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack.flavor import Form
from modelpack.frame import Frame
from modelpack_flavors._boosters.rows import Rows

__all__ = ["Scorer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """Answers as ``Booster.predict`` does, or, with ``classes``, as a classifier.

    ``several``: the booster gives one value for each class. ``settings`` go along with every call.
    """

    booster: Any
    rows: Rows
    method: str
    classes: np.ndarray[Any, Any] | None
    several: bool
    settings: Mapping[str, Any]
    form: Form = "frame"

    def predict(self, data: Frame, params: Mapping[str, Any]) -> Any:
        """Return the model's own answer."""
        method = params.get("method", self.method)
        matrix = self.rows.matrix(data)
        answer = self.booster.predict(matrix, raw_score=method == "margin", **self.settings)
        if self.classes is None or method == "margin":
            return answer
        shares = answer if self.several else np.vstack((1.0 - answer, answer)).transpose()
        return shares if method == "predict_proba" else self.classes[np.argmax(shares, axis=1)]
