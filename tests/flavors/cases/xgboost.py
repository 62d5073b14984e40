"""Models for the contract: classes, regression, ranking, categories, missing values; both forms of the payload."""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from palmerpenguins import load_penguins
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

SMALL = {"n_estimators": 4, "max_depth": 3, "n_jobs": 1}


def case(model: Any, example: Any, answer: Any, **more: Any) -> types.SimpleNamespace:
    wrong = pd.DataFrame({"nothing": [1.0]}) if hasattr(example, "columns") else np.zeros((2, 99))
    fields = {"options": {}, "code": (), "bad_example": wrong, "reproducible": True}
    return types.SimpleNamespace(model=model, example=example, answer=answer, **{**fields, **more})


@functools.cache
def penguins() -> tuple[pd.DataFrame, Any]:
    table = load_penguins()
    for name in ("island", "sex"):
        table[name] = table[name].astype("category")
    return table.drop(columns="species"), table["species"].astype("category").cat.codes.to_numpy()


@functools.cache
def binary() -> types.SimpleNamespace:
    data = load_breast_cancer(as_frame=True)
    model = xgboost.XGBClassifier(**SMALL).fit(data.data, data.target)
    return case(model, data.data.head(), model.predict(data.data.head()))


@functools.cache
def categories() -> types.SimpleNamespace:
    X, y = penguins()
    model = xgboost.XGBClassifier(**SMALL, enable_categorical=True).fit(X, y)
    answer = model.predict_proba(X.head(8))
    return case(model, X.head(8), answer, options={"method": "predict_proba", "threads": 1})


@functools.cache
def matrix() -> types.SimpleNamespace:
    X, y = load_digits(return_X_y=True)
    model = xgboost.XGBClassifier(**SMALL, objective="multi:softmax").fit(X, y)
    return case(model, X[:5], model.predict(X[:5]), options={"format": "json"})


@functools.cache
def missing() -> types.SimpleNamespace:
    X, y = load_diabetes(return_X_y=True)
    X = X.copy()
    X[::3, 2] = np.nan
    model = xgboost.XGBRegressor(**SMALL).fit(X, y)
    return case(model, X[:7], model.predict(X[:7]))


@functools.cache
def ranking() -> types.SimpleNamespace:
    X, y = load_diabetes(return_X_y=True)
    model = xgboost.XGBRanker(**SMALL).fit(X, (y // 100).astype(int), qid=np.arange(len(y)) // 26)
    return case(model, X[:6], model.predict(X[:6]))


@functools.cache
def booster() -> types.SimpleNamespace:
    X, y = penguins()
    data = xgboost.DMatrix(X, label=y, enable_categorical=True)
    model = xgboost.train({"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "nthread": 1}, data, 4)
    example = X.tail(6)
    return case(model, example, model.predict(xgboost.DMatrix(example, enable_categorical=True)))


@functools.cache
def dropped_trees() -> types.SimpleNamespace:
    X, y = load_diabetes(return_X_y=True)
    params = {"booster": "dart", "rate_drop": 0.5, "max_depth": 3, "nthread": 1, "seed": 0}
    model = xgboost.train(params, xgboost.DMatrix(X, label=y), 6)
    return case(model, X[:40], model.predict(xgboost.DMatrix(X[:40])))


@functools.cache
def linear() -> types.SimpleNamespace:
    data = load_diabetes(as_frame=True)
    model = xgboost.XGBRegressor(booster="gblinear", n_estimators=5, n_jobs=1).fit(data.data, data.target)
    return case(model, data.data.head(), model.predict(data.data.head()))


CASES = {
    "binary": binary,
    "booster": booster,
    "categories": categories,
    "dropped_trees": dropped_trees,
    "linear": linear,
    "matrix": matrix,
    "missing": missing,
    "ranking": ranking,
}
