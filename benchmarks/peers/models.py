"""Trains the models of the comparison once, and packs them for modelpack: `models.py FOLDER NAME...`.

Each folder holds the model, ``rows.npy`` (what is asked), and ``want.npy`` (what the model itself answers). Estimators
are there twice, fitted on a DataFrame (``named``, for servers that hand the model one) and on an array (``plain``), so
that no server pays for scikit-learn's warnings about names.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = {"columns10": 10, "columns100": 100, "columns2000": 2000}
ESTIMATORS = ("logistic", "forest", "boosting", "svm", *COLUMNS)
NAMES = (*ESTIMATORS, "mlp", "image")


def logistic() -> Any:
    """Return a scaler and logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


def estimator(name: str) -> tuple[Any, Any, Any]:
    """Return an estimator that is not fitted yet, its table, and its target."""
    import pandas as pd
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.svm import SVC

    if name == "svm":
        # Labels without a pattern: every row becomes a support vector.
        random = np.random.default_rng(0)
        table = pd.DataFrame(random.normal(size=(6000, 30)), columns=[f"x{index}" for index in range(30)])
        return SVC(gamma=0.1), table, random.integers(0, 2, 6000)
    if name in COLUMNS:
        random = np.random.default_rng(0)
        rows = random.normal(size=(1000, COLUMNS[name]))
        table = pd.DataFrame(rows, columns=[f"x{index}" for index in range(rows.shape[1])])
        return logistic(), table, (rows[:, :5].sum(1) > 0).astype("int64")
    table, target = load_breast_cancer(return_X_y=True, as_frame=True)
    table.columns = [str(column).replace(" ", "_") for column in table.columns]
    target = target.to_numpy().astype("int64")
    if name == "logistic":
        return logistic(), table, target
    if name == "forest":
        return RandomForestClassifier(n_estimators=100, random_state=0), table, target
    return HistGradientBoostingClassifier(random_state=0), table, target


def train_estimator(name: str, folder: Path) -> None:
    """Write an estimator, fitted on names and without, and the packages: native alone, and with a twin."""
    import joblib
    import sklearn

    import modelpack

    model, table, target = estimator(name)
    rows = np.resize(table.to_numpy(), (1000, table.shape[1]))
    joblib.dump(sklearn.clone(model).fit(table.to_numpy(), target), folder / "plain.joblib")
    named = model.fit(table, target)
    joblib.dump(named, folder / "named.joblib")
    (folder / "columns.json").write_text(json.dumps(list(table.columns)))
    np.save(folder / "rows.npy", rows)
    np.save(folder / "want.npy", joblib.load(folder / "plain.joblib").predict(rows))
    modelpack.save(named, folder / "package", flavor="sklearn", example=table.head(50), name=name)
    if name not in (*COLUMNS, "svm"):
        modelpack.save(named, folder / "twin", flavor="sklearn", example=table.head(50), name=name, also=("onnx",))


def train_mlp(folder: Path) -> None:
    """Write a torch network of two hidden layers, without any class of its own."""
    import torch

    import modelpack

    torch.manual_seed(0)
    sizes = (30, 64, 64, 2)
    layers: list[torch.nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(-1)).eval()
    rows = np.random.default_rng(0).normal(size=(1000, 30)).astype("float32")
    torch.save(module, folder / "model.pt")
    np.save(folder / "rows.npy", rows)
    with torch.inference_mode():
        np.save(folder / "want.npy", module(torch.from_numpy(rows)).numpy())
    modelpack.save(module, folder / "package", flavor="torch", example=rows[:8], name="mlp")


def train_image(folder: Path) -> None:
    """Write a small convolutional network over pictures of 3 x 32 x 32 as an ONNX graph."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    import modelpack

    random = np.random.default_rng(0)
    shapes = {"w1": (16, 3, 3, 3), "w2": (32, 16, 3, 3), "w3": (64, 32, 3, 3), "w4": (64, 10)}
    arrays = {name: random.normal(0, 0.2, shape).astype("float32") for name, shape in shapes.items()}
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    nodes, last = [], "picture"
    for index in (1, 2, 3):
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1] * 4, strides=[2, 2]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "w4"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "pictures",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    rows = random.integers(0, 256, size=(64, 3, 32, 32)).astype("float32") / 256
    np.save(folder / "rows.npy", rows)
    np.save(folder / "want.npy", onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"picture": rows})[0])
    modelpack.save(folder / "model.onnx", folder / "package", flavor="onnx", example=rows[:4], name="image")


def main() -> None:
    """Train what is named and not there yet."""
    root = Path(sys.argv[1])
    for name in sys.argv[2:]:
        folder = root / name
        if (folder / "trained").exists():
            continue
        print(f"training {name}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if name in ESTIMATORS:
            train_estimator(name, folder)
        else:
            {"mlp": train_mlp, "image": train_image}[name](folder)
        (folder / "trained").touch()


if __name__ == "__main__":
    main()
