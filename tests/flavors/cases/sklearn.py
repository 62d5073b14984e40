"""Models for the contract: a linear model, forests, boosting, text, columns with strings and missing values."""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np
import pandas as pd
from palmerpenguins import load_penguins
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

WIDE = np.zeros((2, 99))


def case(model: Any, example: Any, **more: Any) -> types.SimpleNamespace:
    fields = {"options": {}, "code": (), "bad_example": WIDE, "reproducible": True, "answer": None}
    made = types.SimpleNamespace(model=model, example=example, **{**fields, **more})
    if made.answer is None:
        made.answer = model.predict(example)
    return made


@functools.cache
def linear() -> types.SimpleNamespace:
    data = load_breast_cancer(as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    return case(model, data.data.head(), bad_example=pd.DataFrame({"nothing": [1.0]}))


@functools.cache
def forest() -> types.SimpleNamespace:
    X, y = load_digits(return_X_y=True)
    return case(RandomForestClassifier(10, random_state=0).fit(X, y), X[:5])


@functools.cache
def several_outputs() -> types.SimpleNamespace:
    X, y = load_digits(return_X_y=True)
    return case(RandomForestRegressor(5, random_state=0).fit(X, np.c_[y, -y]), X[:5])


@functools.cache
def penguins() -> types.SimpleNamespace:
    table = load_penguins()
    numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["island", "sex"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(table, table["species"])
    return case(model, table.drop(columns="species").head(8), bad_example=pd.DataFrame({"nothing": [1.0]}))


@functools.cache
def boosting_with_missing_values() -> types.SimpleNamespace:
    X, y = load_breast_cancer(return_X_y=True)
    X = X.copy()
    X[::7, 3] = np.nan
    return case(HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, y), X[:9])


@functools.cache
def text() -> types.SimpleNamespace:
    words = np.array(["good day", "bad day", "good night", "bad luck"] * 5, dtype=object)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, [1, 0, 1, 0] * 5)
    return case(model, words[:4], bad_example=np.zeros((2, 2)))


@functools.cache
def probabilities() -> types.SimpleNamespace:
    X, y = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=20, tol=1.0).fit(X, y)
    return case(model, X[:5], options={"method": "predict_proba"}, answer=model.predict_proba(X[:5]))


@functools.cache
def pickled() -> types.SimpleNamespace:
    X, y = load_digits(return_X_y=True)
    return case(RandomForestClassifier(3, random_state=0).fit(X, y), X[:5], options={"format": "pickle"})


CASES = {
    "linear": linear,
    "forest": forest,
    "several_outputs": several_outputs,
    "penguins": penguins,
    "boosting_with_missing_values": boosting_with_missing_values,
    "text": text,
    "probabilities": probabilities,
    "pickled": pickled,
}
