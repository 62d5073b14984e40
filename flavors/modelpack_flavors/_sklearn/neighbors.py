"""Checks of neighbour trees, of metrics, and of the estimators that search with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["CHECKS", "NATIVE", "TREES", "metric_of"]

TREES = frozenset(
    f"sklearn.neighbors._{file}.{name}{width}"
    for file, name in (("kd_tree", "KDTree"), ("ball_tree", "BallTree"))
    for width in ("", "32", "64")
)


_MAX_LEVELS = 48


def binary_tree(value: Any) -> Iterator[str]:
    """Check a k-d tree or ball tree: its nodes cover rows that exist, its bounds have the data's width."""
    import numpy as np

    data, order, nodes, bounds, leaf_size, levels, count, *_, metric, weights = value.__getstate__()
    rows, columns = data.shape
    if not 1 <= levels <= _MAX_LEVELS or count != 2**levels - 1 or len(nodes) != count or leaf_size < 1:
        yield "its number of nodes does not follow from its levels"
        return
    if bounds.ndim != 3 or bounds.shape[1:] != (count, columns) or bounds.shape[0] < _halves(value):
        yield "its bounds have another shape than its nodes"
    if len(order) != rows or not ((order >= 0) & (order < rows)).all():
        yield "its order names rows that do not exist"
    start, end = nodes["idx_start"], nodes["idx_end"]
    if not ((start >= 0) & (start <= end) & (end <= rows)).all():
        yield "a node covers rows that do not exist"
    # A node that is no leaf has its children at 2i+1 and 2i+2.
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    if len(inner) and 2 * int(inner[-1]) + 2 >= count:
        yield "a node has children that do not exist"
    if weights is not None and len(weights) != rows:
        yield "its weights are not as many as its rows"
    yield from _metric_fits(metric, columns)


def metric_of(tree: Any) -> Any:
    """Return the metric inside a tree."""
    return tree.__getstate__()[11]


def _halves(tree: Any) -> int:
    return 2 if type(tree).__name__.startswith("KDTree") else 1


def _metric_fits(metric: Any, columns: int) -> Iterator[str]:
    if metric is None:
        yield "it has no metric"
        return
    kind = type(metric).__name__.rstrip("0123456789")
    _, vector, matrix = metric.__getstate__()
    if kind == "SEuclideanDistance" and len(vector) != columns:
        yield "its metric is for another number of columns"
    if kind == "MinkowskiDistance" and len(vector) not in (0, 1, columns):
        yield "its metric is for another number of columns"
    if kind == "MahalanobisDistance" and matrix.shape != (columns, columns):
        yield "its metric is for another number of columns"
    if kind == "HaversineDistance" and columns != 2:
        yield "its metric is for two columns"


def metric(value: Any) -> Iterator[str]:
    """Check that a metric's parameters are finite arrays; whether they fit is checked where it is used."""
    import numpy as np

    power, vector, matrix = value.__getstate__()
    if power != power or not (np.isfinite(vector).all() and np.isfinite(matrix).all()):
        yield "its parameters are not finite"


def searcher(model: Any) -> Iterator[str]:
    """Check an estimator that searches neighbours: rows, columns and labels agree."""
    import numpy as np

    if not hasattr(model, "_fit_method"):
        return
    rows, columns = model._fit_X.shape
    if columns != model.n_features_in_ and model.effective_metric_ != "precomputed":
        yield "its rows are not as wide as its input"
    if rows != model.n_samples_fit_:
        yield "it has another number of rows than it says"
    if (model._fit_method in ("ball_tree", "kd_tree")) != (model._tree is not None):
        yield "its way to search and its tree do not match"
    if model._tree is not None and model._tree.get_arrays()[0].shape != (rows, columns):
        yield "its tree is over other rows"
    labels = getattr(model, "_y", None)
    if labels is None:
        return
    if len(labels) != rows:
        yield "it has another number of labels than of rows"
    classes = getattr(model, "classes_", None)
    if classes is not None:
        sizes = [len(one) for one in classes] if isinstance(classes, list) else [len(classes)]
        columns_of_labels = np.asarray(labels).reshape(rows, -1).T
        if len(sizes) != len(columns_of_labels) or not all(
            labels.dtype.kind in "iu" and ((one >= 0) & (one < size)).all()
            for one, size in zip(columns_of_labels, sizes, strict=True)
        ):
            yield "a label is not one of its classes"


CHECKS: Mapping[str, Callable[[Any], Iterator[str]]] = {"sklearn.neighbors._base.NeighborsBase": searcher}
NATIVE: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "sklearn.metrics._dist_metrics.DistanceMetric": metric,
    **dict.fromkeys(TREES, binary_tree),
}
