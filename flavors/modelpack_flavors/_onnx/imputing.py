"""SimpleImputer over float64: ONNX's own operator for it has float32 only."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack_flavors._onnx.building import Graph, unsupported

__all__ = ["convert", "shape"]


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Write an imputer of numbers: NaN becomes the column's value."""
    model = operator.raw_operator
    values = np.asarray(model.statistics_)
    if values.dtype.kind != "f" or np.isnan(values).any():
        raise unsupported("an imputer of text, or of columns without any value")
    if model.indicator_ is not None or not isinstance(model.missing_values, float):
        raise unsupported("an imputer that marks what was missing, or replaces another value than NaN")
    graph = Graph(scope, container)
    parts = [graph.node("Cast", variable.full_name, to=11) for variable in operator.inputs]
    whole = parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)
    filler = graph.constant(values.reshape(1, -1).astype(np.float64))
    graph.node("Where", graph.node("IsNaN", whole), filler, whole, out=operator.outputs[0].full_name)


def shape(operator: Any) -> None:
    """Tell skl2onnx the type of the output."""
    from skl2onnx.common.data_types import DoubleTensorType

    operator.outputs[0].type = DoubleTensorType([None, len(operator.raw_operator.statistics_)])
