"""The trees of a Spark ML model: nodes that are numbered in order, each with one parent, each split on what exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack import optional
from modelpack.audits.skops_archive import malformed, parse_json
from modelpack.audits.spark_ml_data import Array, Row, table

__all__ = ["Trees", "trees"]

_MAX_CATEGORIES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Trees:
    """All trees of a model, their nodes one after another; a leaf is its own child.

    ``roots`` are the places of the trees' first nodes, ``weights`` what each tree counts, ``depth`` the length of the
    longest way. ``stats`` are, for classifiers, the classes' counts at each node. ``categories`` has, for each node
    that splits by category (its row is ``row[node]``, -1 for others), the categories that go left.
    """

    roots: Array
    weights: Array
    depth: int
    left: Array
    right: Array
    feature: Array
    threshold: Array
    prediction: Array
    stats: Array
    row: Array
    categories: Array


def trees(files: Sequence[bytes], described: Sequence[Row] | None, features: int, classes: int, entry: str) -> Trees:
    """Return the trees, every index in them checked.

    ``described`` are the rows of treesMetadata; None for a single tree.

    Raises:
        PackageError: they are not trees as Spark writes them (``payload-invalid``).
    """
    nodes, owner = _nodes(files, described is not None, entry)
    weights = np.ones(1) if described is None else _weights(described, entry)
    try:
        return _Nodes(nodes, owner, entry).trees(weights, features, classes)
    except (KeyError, TypeError, ValueError, AttributeError, NotImplementedError):
        malformed("a Spark ML model whose trees lack what Spark writes", entry)


def _nodes(files: Sequence[bytes], forest: bool, entry: str) -> tuple[dict[str, Any], Array]:
    """Return the columns of the nodes, in the order of trees and ids, and the tree of each node."""
    found = table(files, entry)
    pa: Any = optional.require("pyarrow", what="Reading a Spark ML model")
    try:
        nodes = pa.Table.from_struct_array(found["nodeData"].combine_chunks()) if forest else found
        owner = found["treeID"].to_numpy() if forest else np.zeros(found.num_rows, dtype=np.int32)
        order = np.lexsort((nodes["id"].to_numpy(), owner))
        nodes = nodes.take(order).combine_chunks()
        split = nodes["split"].combine_chunks()
        columns = {
            name: nodes[name].combine_chunks()
            for name in ("id", "prediction", "leftChild", "rightChild", "impurityStats")
        }
        columns |= {name: split.field(name) for name in ("featureIndex", "leftCategoriesOrThreshold", "numCategories")}
        if any(column.null_count for column in columns.values()) or split.null_count:
            raise ValueError("null")
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException):
        malformed("a Spark ML model whose trees lack what Spark writes", entry)
    return columns, owner[order]


def _weights(described: Sequence[Row], entry: str) -> Array:
    """Return the weight of each tree; Spark keeps them with metadata of a class that must be a tree's."""
    ordered = sorted(described, key=lambda row: str(row.get("treeID")).zfill(12))
    if [row.get("treeID") for row in ordered] != list(range(len(ordered))):
        malformed("a Spark ML model whose trees are not numbered in order", entry)
    for row in ordered:
        metadata = parse_json(str(row.get("metadata")).encode(), entry)
        name = metadata.get("class") if isinstance(metadata, dict) else None
        known = ("classification.DecisionTreeClassificationModel", "regression.DecisionTreeRegressionModel")
        if name not in {f"org.apache.spark.ml.{one}" for one in known} or not isinstance(row.get("weights"), float):
            malformed("a Spark ML model with a tree that is none", entry)
    return np.array([row["weights"] for row in ordered])


class _Nodes:
    """The nodes of all trees, as arrays, while they are checked."""

    def __init__(self, columns: dict[str, Any], owner: Array, entry: str) -> None:
        self._entry, self._owner = entry, owner
        self._columns = columns
        self._left = columns["leftChild"].to_numpy().astype(np.int64)
        self._right = columns["rightChild"].to_numpy().astype(np.int64)
        self._leaf = self._left < 0

    def _require(self, good: bool, message: str) -> None:
        if not good:
            malformed(f"a Spark ML model with trees that cannot be followed: {message}", self._entry)

    def trees(self, weights: Array, features: int, classes: int) -> Trees:
        count = len(self._owner)
        sizes = np.bincount(self._owner, minlength=len(weights)) if count and self._owner.min() >= 0 else np.zeros(0)
        self._require(len(sizes) == len(weights) and bool((sizes > 0).all()), "their number is not the model's")
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        start = roots[self._owner]
        here = np.arange(count)
        ids = self._columns["id"].to_numpy()
        self._require(bool((ids == here - start).all()), "the nodes are not numbered in order")
        depth = self._children(here, start, sizes)
        feature = self._columns["featureIndex"].to_numpy().astype(np.int64)
        inner = feature[~self._leaf]
        self._require(bool(((inner >= 0) & (inner < features)).all()), "a split is on a feature that does not exist")
        threshold, row, categories = self._splits(count)
        return Trees(
            roots=roots,
            weights=weights,
            depth=depth,
            left=np.where(self._leaf, here, start + self._left),
            right=np.where(self._leaf, here, start + self._right),
            feature=np.where(self._leaf, 0, feature),
            threshold=threshold,
            prediction=self._columns["prediction"].to_numpy().astype(np.float64),
            stats=self._stats(count, classes),
            row=row,
            categories=categories,
        )

    def _children(self, here: Array, start: Array, sizes: Array) -> int:
        """Check that every node but the roots has one parent, which comes before it; return the depth."""
        split = np.flatnonzero(~self._leaf)
        own = (here - start)[split]
        left, right, size = self._left[split], self._right[split], sizes[self._owner[split]]
        self._require(bool((self._right[self._leaf] < 0).all()), "a node has one child")
        for child in (left, right):
            self._require(bool(((child > own) & (child < size)).all()), "a child does not exist, or comes before")
        parents = np.zeros(len(here), dtype=np.int64)
        np.add.at(parents, np.concatenate([start[split] + left, start[split] + right]), 1)
        self._require(bool((parents == (here != start)).all()), "a node has another number of parents than one")
        level, depth = np.unique(start), 0
        while len(level := level[~self._leaf[level]]):
            depth += 1
            level = np.concatenate([start[level] + self._left[level], start[level] + self._right[level]])
        return depth

    def _splits(self, count: int) -> tuple[Array, Array, Array]:
        """Return thresholds, and the categories that go left."""
        number = self._columns["numCategories"].to_numpy().astype(np.int64)
        values = self._columns["leftCategoriesOrThreshold"]
        lengths = values.value_lengths().to_numpy()
        flat = values.flatten().to_numpy().astype(np.float64)
        first = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        ordered = ~self._leaf & (number == -1)
        grouped = ~self._leaf & (number != -1)
        self._require(bool((lengths[ordered] == 1).all()), "a split has no threshold")
        widest = int(number[grouped].max(initial=0))
        sizes = number[grouped]
        self._require(bool((sizes > 0).all()) and widest <= _MAX_CATEGORIES, "a split has no categories")
        threshold = np.zeros(count)
        threshold[ordered] = flat[first[ordered]]
        places = np.flatnonzero(grouped)
        self._require(len(places) * widest <= 2**28, "they have too many categories")
        row = np.full(count, -1, dtype=np.int64)
        row[places] = np.arange(len(places))
        left = np.zeros((len(places), widest), dtype=bool)
        for i, node in enumerate(places):
            chosen = flat[first[node] : first[node] + lengths[node]]
            good = (chosen >= 0) & (chosen < number[node]) & (chosen == np.floor(chosen))
            self._require(bool(good.all()), "a category does not exist")
            left[i, chosen.astype(np.int64)] = True
        return threshold, row, left

    def _stats(self, count: int, classes: int) -> Array:
        stats = self._columns["impurityStats"]
        if not classes:
            return np.zeros((count, 0))
        self._require(bool((stats.value_lengths().to_numpy() == classes).all()), "a node does not count the classes")
        counts: Array = stats.flatten().to_numpy().astype(np.float64).reshape(count, classes)
        return counts
