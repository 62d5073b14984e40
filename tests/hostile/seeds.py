"""Writes one small package of every payload format that needs no grant: ``python seeds.py DIRECTORY``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import scipy.sparse
import torch
import xgboost
from onnx import TensorProto, helper
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.svm import SVC

import modelpack

X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]] * 5)
Y = X[:, 0]


def graph() -> onnx.ModelProto:
    """A forest after a product, so that tensors and trees are there."""
    value = helper.make_tensor_value_info
    forest = helper.make_node(
        "TreeEnsembleRegressor", ["z"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[1, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 2.0],
    )  # fmt: skip
    weights = onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    inside = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), forest], "g",
        [value("x", TensorProto.FLOAT, ["n", 2])], [value("y", TensorProto.FLOAT, ["n", 1])], [weights],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(inside, opset_imports=sets, ir_version=9)


def models() -> Iterator[tuple[str, Any, Any]]:
    """Yield a name, a model and an example of its input."""
    small = {"n_estimators": 2, "max_depth": 2, "n_jobs": 1}
    yield "boosting", HistGradientBoostingRegressor(max_iter=2, max_depth=2, min_samples_leaf=1).fit(X, Y), X[:2]
    yield "forest", RandomForestClassifier(2, max_depth=2, random_state=0).fit(X, Y > 1), X[:2]
    yield "neighbors", KNeighborsRegressor(2, algorithm="kd_tree", leaf_size=2).fit(X, Y), X[:2]
    yield "pipeline", make_pipeline(StandardScaler(), KBinsDiscretizer(2), LogisticRegression()).fit(X, Y > 1), X[:2]
    yield "sparse", SVC(kernel="linear").fit(scipy.sparse.csr_matrix(X), Y > 1), X[:2]
    yield "vectors", SVC(probability=False).fit(X, Y), X[:2]
    yield "xgboost", xgboost.XGBRegressor(**small).fit(X, Y), X[:2]
    yield "lightgbm", lightgbm.LGBMRegressor(**small, min_child_samples=1, verbose=-1).fit(X, Y), X[:2]
    yield "onnx", graph(), X[:2].astype(np.float32)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    yield "torch", net, X[:2].astype(np.float32)


def main() -> None:
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    os.environ["MODELPACK_TRUST_STORE"] = str(root.parent / "trust")
    warnings.simplefilter("ignore")
    for name, model, example in models():
        modelpack.save(model, root / name, example=example)
    booster = xgboost.XGBRegressor(n_estimators=1, max_depth=1, n_jobs=1).fit(X, Y).get_booster()
    foreign = root / "mlflow"
    foreign.mkdir()
    booster.save_model(foreign / "model.json")
    described = "flavors:\n  xgboost:\n    data: model.json\n    model_class: xgboost.core.Booster\n"
    signature = 'signature:\n  inputs: \'[{"type": "double", "name": "a"}, {"type": "double", "name": "b"}]\'\n'
    (foreign / "MLmodel").write_text(described + signature + "mlflow_version: 3.1.0\n", "utf-8")


if __name__ == "__main__":
    main()
