"""Operators of ONNX whose attributes must fit each other: trees, support vectors, linear models, tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelpack.audits import onnx_trees
from modelpack.audits.onnx_wire import malformed

__all__ = ["check"]

Shape = tuple[int | str | None, ...] | None


def check(kind: str, attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    """Check the attributes of an operator of ai.onnx.ml; ``shape`` is that of its first input, if it is known.

    Raises:
        PackageError: they do not fit (``payload-invalid``).
    """
    checker = _CHECKS.get(kind)
    if checker is not None:
        checker(attributes, shape, entry)


def _length(attributes: Mapping[str, Any], *names: str) -> int:
    return sum(len(attributes.get(name, ())) for name in names)


def _require(good: bool, kind: str, entry: str) -> None:
    if not good:
        malformed(f"the parts of a {kind} do not fit each other", entry)


def _svm_classifier(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    classes = _length(attributes, "classlabels_strings", "classlabels_ints")
    counts = attributes.get("vectors_per_class", ())
    vectors = sum(int(count) for count in counts)
    support, coefficients = _length(attributes, "support_vectors"), _length(attributes, "coefficients")
    if not vectors:
        _require(not support and classes > 0 and coefficients % classes == 0, "SVMClassifier", entry)
        return
    pairs = classes * (classes - 1) // 2
    good = (
        len(counts) == classes
        and all(int(count) >= 0 for count in counts)
        and support % vectors == 0
        and coefficients == vectors * (classes - 1)
        and _length(attributes, "rho") == pairs
        and _length(attributes, "prob_a") in (0, pairs)
        and _length(attributes, "prob_b") == _length(attributes, "prob_a")
    )
    _require(good, "SVMClassifier", entry)
    _kernel(attributes, "SVMClassifier", entry)


def _svm_regressor(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    count = int(attributes.get("n_supports", 0))
    support, coefficients = _length(attributes, "support_vectors"), _length(attributes, "coefficients")
    good = count >= 0 and _length(attributes, "rho") == 1
    if count > 0:
        good = good and support % count == 0 and coefficients == count
    _require(good, "SVMRegressor", entry)
    _kernel(attributes, "SVMRegressor", entry)


def _kernel(attributes: Mapping[str, Any], kind: str, entry: str) -> None:
    _require(_length(attributes, "kernel_params") in (0, 3), kind, entry)


def _linear_classifier(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    rows, coefficients = _length(attributes, "intercepts"), _length(attributes, "coefficients")
    rows = rows or _length(attributes, "classlabels_strings", "classlabels_ints")
    _require(rows > 0 and coefficients > 0 and coefficients % rows == 0, "LinearClassifier", entry)


def _linear_regressor(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    targets, coefficients = int(attributes.get("targets", 1)), _length(attributes, "coefficients")
    good = targets > 0 and coefficients % targets == 0 and _length(attributes, "intercepts") in (0, targets)
    _require(good, "LinearRegressor", entry)


def _label_encoder(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    keys = {len(value) for name, value in attributes.items() if name.startswith("keys_") and value is not None}
    values = {len(value) for name, value in attributes.items() if name.startswith("values_") and value is not None}
    _require(len(keys) <= 1 and keys == values, "LabelEncoder", entry)


def _scaler(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    offsets, scales = _length(attributes, "offset"), _length(attributes, "scale")
    _require(offsets == scales and offsets > 0, "Scaler", entry)


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], Shape, str], None]] = {
    "LabelEncoder": _label_encoder,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "SVMClassifier": _svm_classifier,
    "SVMRegressor": _svm_regressor,
    "Scaler": _scaler,
    "TreeEnsemble": onnx_trees.ensemble,
    "TreeEnsembleClassifier": onnx_trees.classifier,
    "TreeEnsembleRegressor": onnx_trees.regressor,
}
