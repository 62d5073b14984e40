"""Missing values in graphs: SimpleImputer over float64 and text, and categories that are missing values.

ONNX has no missing text. A graph of ours knows one by a text that nobody writes, :data:`ABSENT`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from modelpack_flavors._onnx.building import Graph, unsupported

__all__ = ["ABSENT", "convert", "shape", "with_absent"]

ABSENT = "\x1amissing\x1a"


def with_absent(model: Any) -> Any:
    """Return a copy of the model in which a category that is a missing value is :data:`ABSENT`."""
    found = [one for one in _encoders(model) if any(_missing(values).any() for values in one.categories_)]
    if not found:
        return model
    changed = copy.deepcopy(model)
    for encoder in _encoders(changed):
        encoder.categories_ = [_named(values) for values in encoder.categories_]
    return changed


def _encoders(model: Any) -> Iterator[Any]:
    """Yield the encoders of categories that are in a pipeline or in the parts of a ColumnTransformer."""
    if isinstance(getattr(model, "categories_", None), list):
        yield model
    for _, step in getattr(model, "steps", ()):
        yield from _encoders(step)
    for _, step, _ in getattr(model, "transformers_", ()):
        yield from _encoders(step)


def _missing(values: Any) -> Any:
    if values.dtype.kind != "O":
        return np.zeros(len(values), bool)
    return np.array([value is None or value != value for value in values.tolist()], bool)


def _named(values: Any) -> Any:
    if not _missing(values).any():
        return values
    return np.array([ABSENT if gone else v for v, gone in zip(values.tolist(), _missing(values), strict=True)], object)


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Write an imputer: what is missing becomes the column's value."""
    model = operator.raw_operator
    values = np.asarray(model.statistics_)
    text = values.dtype.kind == "O"
    good = all(isinstance(v, str) for v in values.tolist()) if text else not np.isnan(values).any()
    if not good:
        raise unsupported("an imputer of columns without any value")
    if model.indicator_ is not None or not (
        model.missing_values is None or model.missing_values != model.missing_values
    ):
        raise unsupported("an imputer that marks what was missing, or replaces another value")
    graph = Graph(scope, container)
    names = [variable.full_name for variable in operator.inputs]
    parts = names if text else [graph.node("Cast", name, to=11) for name in names]
    whole = parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)
    if text:
        keys: dict[str, Any] = {"keys_strings": [ABSENT], "values_int64s": [1], "default_int64": 0}
        marks = graph.node("LabelEncoder", whole, op_domain="ai.onnx.ml", op_version=2, **keys)
        gone = graph.node("Cast", marks, to=9)
    else:
        gone = graph.node("IsNaN", whole)
    filler = graph.constant(values.reshape(1, -1).astype(object if text else np.float64))
    graph.node("Where", gone, filler, whole, out=operator.outputs[0].full_name)


def shape(operator: Any) -> None:
    """Tell skl2onnx the type of the output."""
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    values = np.asarray(operator.raw_operator.statistics_)
    kind = StringTensorType if values.dtype.kind == "O" else DoubleTensorType
    operator.outputs[0].type = kind([None, len(values)])
