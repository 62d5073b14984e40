"""Models for the contract: classes with labels, regression, ranking, categories, missing values, linear trees."""

from __future__ import annotations

import functools
import types
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from palmerpenguins import load_penguins
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

SMALL = {"n_estimators": 4, "num_leaves": 6, "n_jobs": 1, "verbose": -1}
PARAMS = {"num_leaves": 6, "num_threads": 1, "verbose": -1}


def case(model: Any, example: Any, answer: Any, **more: Any) -> types.SimpleNamespace:
    wrong = pd.DataFrame({"nothing": [1.0]}) if hasattr(example, "columns") else np.zeros((2, 99))
    fields = {"options": {}, "code": (), "bad_example": wrong, "reproducible": True}
    return types.SimpleNamespace(model=model, example=example, answer=answer, **{**fields, **more})


@functools.cache
def penguins() -> tuple[pd.DataFrame, Any]:
    table = load_penguins()
    for name in ("island", "sex"):
        table[name] = table[name].astype("category")
    return table.drop(columns="species"), table["species"]


@functools.cache
def binary() -> types.SimpleNamespace:
    data = load_breast_cancer(as_frame=True)
    X = data.data.rename(columns=lambda name: name.replace(" ", "_"))
    model = lightgbm.LGBMClassifier(**SMALL).fit(X, np.where(data.target == 1, "benign", "malignant"))
    return case(model, X.head(), model.predict(X.head()))


@functools.cache
def categories() -> types.SimpleNamespace:
    X, y = penguins()
    model = lightgbm.LGBMClassifier(**SMALL, min_data_per_group=5, cat_smooth=1).fit(X, y)
    return case(model, X.head(8), model.predict_proba(X.head(8)), options={"method": "predict_proba", "threads": 1})


@functools.cache
def labels() -> types.SimpleNamespace:
    X, y = penguins()
    model = lightgbm.LGBMClassifier(**SMALL).fit(X, y)
    return case(model, X.head(8), model.predict(X.head(8)))


@functools.cache
def matrix() -> types.SimpleNamespace:
    X, y = load_digits(return_X_y=True)
    model = lightgbm.LGBMClassifier(**SMALL).fit(X, y)
    return case(model, X[:5], model.predict(X[:5]))


@functools.cache
def missing() -> types.SimpleNamespace:
    X, y = load_diabetes(return_X_y=True)
    X = X.copy()
    X[::3, 2] = np.nan
    model = lightgbm.LGBMRegressor(**SMALL).fit(X, y)
    return case(model, X[:7], model.predict(X[:7]))


@functools.cache
def ranking() -> types.SimpleNamespace:
    X, y = load_diabetes(return_X_y=True)
    model = lightgbm.LGBMRanker(**SMALL).fit(X, (y // 100).astype(int), group=[221, 221])
    return case(model, X[:6], model.predict(X[:6]))


@functools.cache
def booster() -> types.SimpleNamespace:
    X, y = penguins()
    data = lightgbm.Dataset(X, label=y.astype("category").cat.codes)
    model = lightgbm.train({**PARAMS, "objective": "multiclass", "num_class": 3}, data, 4)
    return case(model, X.tail(6), model.predict(X.tail(6)))


@functools.cache
def linear_trees() -> types.SimpleNamespace:
    data = load_diabetes(as_frame=True)
    model = lightgbm.train({**PARAMS, "linear_tree": True}, lightgbm.Dataset(data.data, label=data.target), 4)
    return case(model, data.data.head(), model.predict(data.data.head()), options={"method": "margin"})


CASES = {
    "binary": binary,
    "booster": booster,
    "categories": categories,
    "labels": labels,
    "linear_trees": linear_trees,
    "matrix": matrix,
    "missing": missing,
    "ranking": ranking,
}
