"""XGBoost models behind one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.flavor import Form
from modelpack.frame import Frame
from modelpack_flavors._boosters.rows import Rows

__all__ = ["BoosterScorer", "EstimatorScorer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoosterScorer:
    """Answers as ``Booster.predict`` does, with the raw margins if the method is "margin"."""

    model: Any
    rows: Rows
    method: str
    in_place: bool
    form: Form = "frame"

    def predict(self, data: Frame, params: Mapping[str, Any]) -> Any:
        """Return the booster's own answer."""
        matrix = self.rows.matrix(data)
        margin = params.get("method", self.method) == "margin"
        if self.in_place:
            kind = "margin" if margin else "value"
            return self.model.inplace_predict(matrix, predict_type=kind, validate_features=False)
        import xgboost

        # The features are in the model's order already; their names need not be compared again.
        return self.model.predict(xgboost.DMatrix(matrix), output_margin=margin, validate_features=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimatorScorer:
    """Answers as the estimator's ``predict`` or ``predict_proba``, or with the raw margins."""

    model: Any
    rows: Rows
    method: str
    form: Form = "frame"

    def predict(self, data: Frame, params: Mapping[str, Any]) -> Any:
        """Return the estimator's own answer."""
        matrix = self.rows.matrix(data)
        method = params.get("method", self.method)
        if method == "predict_proba":
            return self.model.predict_proba(matrix, validate_features=False)
        return self.model.predict(matrix, output_margin=method == "margin", validate_features=False)
