"""Spark ML's models with NumPy: each is made from a stage, and adds its predictions to the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from modelpack.audits.spark_ml import Stage
from modelpack.audits.spark_ml_data import matrix, vector
from modelpack.audits.spark_ml_trees import Trees
from modelpack_flavors._spark.features import Step, number
from modelpack_flavors._spark.values import Array, Columns, Value, dot, refuse, unsupported, vectors

__all__ = ["MODELS"]

_TINY = 1e-16
_ROWS = 4096


def _regressor(stage: Stage, predict: Callable[[Array], Array], size: int) -> Step:
    features, prediction = stage.params["featuresCol"], stage.params["predictionCol"]

    def step(found: Columns) -> None:
        answer = predict(vectors(found, features, size))
        if prediction:
            found[prediction] = Value(answer)

    return step


def _classifier(
    stage: Stage,
    raw: Callable[[Array], Array],
    size: int,
    probability: Callable[[Array], Array] | None,
    choose: Callable[[Array], Array] | None = None,
) -> Step:
    """Return the step of a classifier; ``choose`` picks the class from the raw prediction (default: the largest)."""
    params = stage.params
    limits = np.array(list(map(number, params["thresholds"]))) if params.get("thresholds") else None
    if limits is not None and not (limits > 0).all():
        unsupported(f"{stage.kind} {stage.uid} has a threshold of zero")

    def step(found: Columns) -> None:
        margins = raw(vectors(found, params["featuresCol"], size))
        chances = probability(margins) if probability is not None else None
        if limits is not None and chances is not None:
            label = (chances / limits).argmax(axis=1).astype(np.float64)
        else:
            label = choose(margins) if choose is not None else margins.argmax(axis=1).astype(np.float64)
        outputs = {"rawPredictionCol": margins, "predictionCol": label}
        if chances is not None:
            outputs["probabilityCol"] = chances
        found.update({params[name]: Value(data) for name, data in outputs.items() if params.get(name)})

    return step


def _two(margin: Array) -> Array:
    return np.stack([-margin, margin], axis=1)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        answer: Array = 1.0 / (1.0 + np.exp(-x))
    return answer


def _two_chances(first: Array) -> Array:
    return np.stack([first, 1.0 - first], axis=1)


def _softmax(margins: Array) -> Array:
    powers = np.exp(margins - margins.max(axis=1, keepdims=True))
    answer: Array = powers / powers.sum(axis=1, keepdims=True)
    return answer


def _above(limit: float) -> Callable[[Array], Array]:
    return lambda margins: (margins[:, 1] > limit).astype(np.float64)


def _linear(row: Mapping[str, Any], stage: Stage) -> tuple[Array, float]:
    return vector(row["coefficients"], stage.uid), float(row["intercept"])


def _logistic(stage: Stage) -> Step:
    row = stage.data[0]
    weights, bias = matrix(row["coefficientMatrix"], stage.uid), vector(row["interceptVector"], stage.uid)
    if row["isMultinomial"]:
        return _classifier(stage, lambda x: dot(x, weights.T) + bias, weights.shape[1], _softmax)
    threshold = number(stage.params.get("threshold", 0.5))
    with np.errstate(divide="ignore"):
        limit = float(np.log(threshold) - np.log1p(-threshold)) if threshold != 0.5 else 0.0
    return _classifier(
        stage,
        lambda x: _two(dot(x, weights[0]) + bias[0]),
        weights.shape[1],
        lambda margins: _two_chances(_sigmoid(margins[:, 0])),
        _above(limit),
    )


def _svc(stage: Stage) -> Step:
    weights, bias = _linear(stage.data[0], stage)
    return _classifier(
        stage, lambda x: _two(dot(x, weights) + bias), len(weights), None, _above(number(stage.params["threshold"]))
    )


def _naive_bayes(stage: Stage) -> Step:
    row, kind = stage.data[0], stage.params["modelType"]
    prior, theta = vector(row["pi"], stage.uid), matrix(row["theta"], stage.uid)
    if kind == "multinomial":
        raw = _multinomial(prior, theta)
    elif kind == "bernoulli":
        raw = _bernoulli(prior, theta)
    elif kind == "gaussian":
        raw = _gaussian(prior, theta, matrix(row["sigma"], stage.uid))
    else:
        unsupported(f"NaiveBayes of the type {kind}")
    return _classifier(stage, raw, theta.shape[1], _softmax)


def _multinomial(prior: Array, theta: Array) -> Callable[[Array], Array]:
    def raw(x: Array) -> Array:
        if not (x >= 0).all():
            refuse("a naive Bayes model takes no negative and no missing values")
        answer: Array = dot(x, theta.T) + prior
        return answer

    return raw


def _bernoulli(prior: Array, theta: Array) -> Callable[[Array], Array]:
    absent = np.log1p(-np.exp(theta))

    def raw(x: Array) -> Array:
        if not ((x == 0) | (x == 1)).all():
            refuse("a Bernoulli naive Bayes model takes 0 and 1 only")
        answer: Array = dot(x, (theta - absent).T) + prior + absent.sum(axis=1)
        return answer

    return raw


def _gaussian(prior: Array, theta: Array, sigma: Array) -> Callable[[Array], Array]:
    spread = np.log(sigma).sum(axis=1) / 2

    def raw(x: Array) -> Array:
        x = np.ascontiguousarray(x)
        # A class at a time: of all of them at once there would be as many differences as rows, classes and features.
        sums = [((x - mean) ** 2 / variance).sum(axis=1) for mean, variance in zip(theta, sigma, strict=True)]
        distance = np.stack(sums, axis=1) / 2
        answer: Array = prior - distance - spread
        return answer

    return raw


def _linear_regression(stage: Stage) -> Step:
    weights, bias = _linear(stage.data[0], stage)
    return _regressor(stage, lambda x: dot(x, weights) + bias, len(weights))


def _generalized(stage: Stage) -> Step:
    params, family = stage.params, stage.params["family"].lower()
    default = {"gaussian": "identity", "binomial": "logit", "poisson": "log", "gamma": "inverse"}
    link = params.get("link", default.get(family, "")).lower()
    inverse: dict[str, Callable[[Array], Array]] = {
        "identity": lambda eta: eta,
        "inverse": lambda eta: 1.0 / eta,
        "log": np.exp,
        "logit": _sigmoid,
    }
    if family not in default or link not in inverse or params.get("offsetCol") or params.get("linkPredictionCol"):
        unsupported(f"a generalized linear regression of the family {family} with such columns or link")
    weights, bias = _linear(stage.data[0], stage)
    low, high = {
        "gaussian": (-np.finfo(float).max, np.finfo(float).max),
        "binomial": (_TINY, 1.0 - _TINY),
        "poisson": (_TINY, np.finfo(float).max),
        "gamma": (_TINY, np.finfo(float).max),
    }[family]
    return _regressor(stage, lambda x: np.clip(inverse[link](dot(x, weights) + bias), low, high), len(weights))


def _kmeans(stage: Stage) -> Step:
    ordered = sorted(stage.data, key=lambda row: int(row["clusterIdx"]))
    centers = np.stack([vector(row["clusterCenter"], stage.uid) for row in ordered])
    cosine = stage.params["distanceMeasure"] == "cosine"
    if cosine:
        centers = centers / np.linalg.norm(centers, axis=1, keepdims=True)

    def predict(x: Array) -> Array:
        if cosine:
            norm = np.linalg.norm(x, axis=1, keepdims=True)
            if not (norm > 0).all():
                refuse("a vector without length has no cosine distance")
            nearest: Array = dot(x / norm, centers.T).argmax(axis=1).astype(np.int32)
            return nearest
        parts = [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]
        chosen = [((part[:, None, :] - centers) ** 2).sum(axis=2).argmin(axis=1) for part in parts]
        return np.concatenate([*chosen, np.empty(0, int)]).astype(np.int32)

    return _regressor(stage, predict, centers.shape[1])


def _leaves(trees: Trees, x: Array) -> Array:
    """Return the leaf that each row comes to in each tree."""
    here = np.broadcast_to(trees.roots, (len(x), len(trees.roots)))
    rows = np.arange(len(x))[:, None]
    grouped = trees.categories.shape[1] if len(trees.categories) else 0
    for _ in range(trees.depth):
        values = x[rows, trees.feature[here]]
        left = values <= trees.threshold[here]
        if grouped:
            kind = trees.row[here]
            known = (values >= 0) & (values < grouped) & (values == np.floor(values))
            code = np.where(known, values, 0).astype(np.int64)
            left = np.where(kind >= 0, known & trees.categories[kind, code], left)
        here = np.where(left, trees.left[here], trees.right[here])
    return here


def _by_leaves(stage: Stage, answer: Callable[[Trees, Array], Array]) -> Callable[[Array], Array]:
    trees = stage.trees
    assert trees is not None

    def call(x: Array) -> Array:
        if len(x) <= _ROWS:
            return answer(trees, _leaves(trees, x))
        return np.concatenate([answer(trees, _leaves(trees, x[i : i + _ROWS])) for i in range(0, len(x), _ROWS)])

    return call


def _shares(stats: Array) -> Array:
    total = stats.sum(axis=-1, keepdims=True)
    answer: Array = stats / np.where(total == 0, 1.0, total)
    return answer


def _size(stage: Stage) -> int:
    return int(stage.metadata["numFeatures"])


def _tree_classifier(stage: Stage) -> Step:
    return _classifier(stage, _by_leaves(stage, lambda t, leaf: t.stats[leaf[:, 0]]), _size(stage), _shares)


def _forest_classifier(stage: Stage) -> Step:
    return _classifier(
        stage,
        _by_leaves(stage, lambda t, leaf: (_shares(t.stats[leaf]) * t.weights[:, None]).sum(axis=1)),
        _size(stage),
        _shares,
    )


def _boosted_classifier(stage: Stage) -> Step:
    return _classifier(
        stage,
        _by_leaves(stage, lambda t, leaf: _two(dot(t.prediction[leaf], t.weights))),
        _size(stage),
        lambda margins: _two_chances(_sigmoid(2.0 * margins[:, 0])),
    )


def _tree_regressor(stage: Stage) -> Step:
    return _regressor(stage, _by_leaves(stage, lambda t, leaf: t.prediction[leaf[:, 0]]), _size(stage))


def _forest_regressor(stage: Stage) -> Step:
    return _regressor(stage, _by_leaves(stage, lambda t, leaf: t.prediction[leaf].mean(axis=1)), _size(stage))


def _boosted_regressor(stage: Stage) -> Step:
    return _regressor(stage, _by_leaves(stage, lambda t, leaf: dot(t.prediction[leaf], t.weights)), _size(stage))


MODELS: Mapping[str, Callable[[Stage], Step]] = {
    "DecisionTreeClassificationModel": _tree_classifier,
    "DecisionTreeRegressionModel": _tree_regressor,
    "GBTClassificationModel": _boosted_classifier,
    "GBTRegressionModel": _boosted_regressor,
    "GeneralizedLinearRegressionModel": _generalized,
    "KMeansModel": _kmeans,
    "LinearRegressionModel": _linear_regression,
    "LinearSVCModel": _svc,
    "LogisticRegressionModel": _logistic,
    "NaiveBayesModel": _naive_bayes,
    "RandomForestClassificationModel": _forest_classifier,
    "RandomForestRegressionModel": _forest_regressor,
}
