"""Models for the contract: graphs that onnxruntime and onnx bring along, pipelines, tensors in other files."""

from __future__ import annotations

import functools
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
from onnx import TensorProto, helper
from onnxruntime.datasets import get_example
from palmerpenguins import load_penguins
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

BACKEND = Path(onnx.__file__).parent / "backend/test/data/pytorch-converted"


def case(model: Any, example: Any, answer: Any, **more: Any) -> types.SimpleNamespace:
    fields = {"options": {}, "code": (), "bad_example": pd.DataFrame({"nothing": ["of use"]}), "reproducible": True}
    return types.SimpleNamespace(model=model, example=example, answer=answer, **{**fields, **more})


def run(model: Any, feeds: dict[str, Any], outputs: list[str] | None = None) -> list[Any]:
    """Answer as onnxruntime does by itself."""
    source = model if isinstance(model, bytes | str) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(outputs, feeds)


@functools.cache
def iris() -> types.SimpleNamespace:
    """A logistic regression with labels and a map of probabilities, fixed to three rows."""
    path = get_example("logreg_iris.onnx")
    rows = np.array([[5.1, 3.5], [6.2, 2.9], [5.9, 3.0]], np.float32)
    label, maps = run(path, {"float_input": rows})
    probabilities = np.array([[row[key] for key in sorted(row)] for row in maps], np.float32)
    return case(path, rows, {"label": label, "probabilities": probabilities})


@functools.cache
def convolution() -> types.SimpleNamespace:
    """A convolution that PyTorch exported, fixed to two images."""
    model = onnx.load(BACKEND / "test_Conv2d/model.onnx")
    images = np.random.default_rng(0).normal(size=(2, 3, 7, 5)).astype(np.float32)
    return case(model, images, run(model, {"0": images})[0])


@functools.cache
def forest() -> types.SimpleNamespace:
    """A converted forest whose one float32 input takes all columns of a frame."""
    data = load_breast_cancer(as_frame=True)
    model = RandomForestClassifier(5, max_depth=4, random_state=0).fit(data.data.to_numpy(), data.target)
    graph = to_onnx(
        model,
        name="forest",
        initial_types=[("X", FloatTensorType([None, 30]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    frame = data.data.head()
    label, probabilities = run(graph, {"X": frame.to_numpy(np.float32)})
    return case(graph, frame, {"label": label, "probabilities": probabilities})


@functools.cache
def penguins() -> types.SimpleNamespace:
    """A converted pipeline with one input for each column, text among them."""
    table = load_penguins().dropna()
    numbers, words = ["bill_length_mm", "body_mass_g"], ["island", "sex"]
    model = make_pipeline(
        ColumnTransformer([("n", StandardScaler(), numbers), ("w", OneHotEncoder(), words)]), LogisticRegression()
    ).fit(table, table["species"])
    kinds = [(name, FloatTensorType([None, 1])) for name in numbers]
    kinds += [(name, StringTensorType([None, 1])) for name in words]
    graph = to_onnx(model, name="penguins", initial_types=kinds, target_opset={"": 18, "ai.onnx.ml": 3})
    frame = table[numbers + words].head(7)
    feeds = {name: frame[[name]].to_numpy(np.float32 if name in numbers else object) for name in frame}
    label, maps = run(graph, feeds)
    probabilities = np.array([[row[key] for key in sorted(row)] for row in maps], np.float32)
    return case(graph.SerializeToString(), frame, {"output_label": label, "output_probability": probabilities})


@functools.cache
def outside() -> types.SimpleNamespace:
    """A regression whose coefficients lie in a file beside the model."""
    X, y = load_diabetes(return_X_y=True)
    model = Ridge().fit(X, y)
    graph = to_onnx(model, name="ridge", initial_types=[("X", DoubleTensorType([None, 10]))])
    path = Path(tempfile.mkdtemp(prefix="outside-")) / "ridge.onnx"
    options = {"save_as_external_data": True, "location": "ridge.data", "size_threshold": 0}
    onnx.save_model(graph, path, **options)
    return case(path, X[:4], run(str(path), {"X": X[:4]})[0], options={"intra_op_threads": 1})


@functools.cache
def several() -> types.SimpleNamespace:
    """Two tensors in, two tensors out, in an order that the caller chose."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Less", ["a", "b"], ["less"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "several",
        [value("a", TensorProto.INT32, ["n", 2]), value("b", TensorProto.INT32, ["n", 2])],
        [value("sum", TensorProto.INT32, ["n", 2]), value("less", TensorProto.BOOL, ["n", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    feeds = {"a": np.array([[1, 2], [3, 4]], np.int32), "b": np.array([[4, 3], [2, 1]], np.int32)}
    total, less = run(model, feeds)
    return case(model, feeds, {"less": less, "sum": total}, options={"outputs": ["less", "sum"]})


CASES = {
    "iris": iris,
    "convolution": convolution,
    "forest": forest,
    "penguins": penguins,
    "outside": outside,
    "several": several,
}
