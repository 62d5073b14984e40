"""The arrays of XGBoost's trees, compared with each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

__all__ = ["Reader", "categories", "trees"]

Array = np.ndarray[Any, Any]

# A category is a bit in a set; XGBoost itself takes none above this.
MAX_CATEGORY = 1 << 24
_DELETED = 2**31 - 1
_ROOT = (-1, _DELETED)
_NODE_ARRAYS = ("left_children", "right_children", "parents", "split_indices", "default_left", "split_type")
_CATEGORY_ARRAYS = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
_FLOAT_ARRAYS = ("base_weights", "loss_changes", "split_conditions", "sum_hessian")
_TREE = frozenset({*_NODE_ARRAYS, *_FLOAT_ARRAYS, *_CATEGORY_ARRAYS, "id", "tree_param"})


class Reader:
    """Takes parts of a parsed model, each of the type it must have."""

    def __init__(self, entry: str) -> None:
        self.entry = entry

    def refuse(self, message: str) -> NoReturn:
        """Refuse the model."""
        raise NotImplementedError

    def count(self, params: Any, field: str, default: int | None = None) -> int:
        """Return a size, which XGBoost writes as a text."""
        raise NotImplementedError

    def fields(
        self, value: Any, what: str, required: set[str], optional: set[str] | frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """Return an object that has the required fields, and none but those and the optional ones."""
        if not isinstance(value, dict) or not required <= set(value) or not set(value) <= required | optional:
            self.refuse(f"{what} has other fields than it should")
        return value

    def number(self, value: Any, what: str) -> int:
        """Return an integer that is not negative."""
        if type(value) is not int or not 0 <= value < 2**31:
            self.refuse(f"{what} is not a number")
        return value

    def integers(self, value: Any, what: str, length: int | None = None) -> Array:
        """Return an array of integers of this length; truth values count as 0 and 1."""
        if isinstance(value, list):
            if not set(map(type, value)) <= {int, bool} or any(not -(2**31) <= item < 2**32 for item in value):
                self.refuse(f"{what} holds something else than integers")
            value = np.array(value, dtype=np.int64)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
            self.refuse(f"{what} is not an array of integers")
        if length is not None and len(value) != length:
            self.refuse(f"{what} has the wrong length")
        return value.astype(np.int64)

    def floats(self, value: Any, what: str, length: int) -> None:
        """Check that a value is an array of numbers of this length."""
        if isinstance(value, list):
            plain = set(map(type, value)) <= {float, int}
        else:
            plain = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        if not plain:
            self.refuse(f"{what} is not an array of numbers")
        if len(value) != length:
            self.refuse(f"{what} has the wrong length")


def trees(reader: Reader, found: Sequence[Any], features: int, targets: int) -> bool:
    """Check all trees; say whether their leaves hold one value for each target."""
    vectors = {_tree(reader, tree, place, features, targets) for place, tree in enumerate(found)}
    if len(vectors) > 1:
        reader.refuse("trees of one value and of several are mixed")
    return vectors.pop() if vectors else False


def _tree(reader: Reader, tree: Any, place: int, features: int, targets: int) -> bool:
    reader.fields(tree, "a tree", set(_TREE) - set(_CATEGORY_ARRAYS) - {"split_type"}, _TREE | {"leaf_weights"})
    if reader.number(tree["id"], "a tree's id") != place:
        reader.refuse("a tree's id is not its place")
    params = tree["tree_param"]
    nodes = reader.count(params, "num_nodes")
    deleted = reader.count(params, "num_deleted", 0)
    size = max(reader.count(params, "size_leaf_vector", 1), 1)
    if nodes < 1 or reader.count(params, "num_feature") != features:
        reader.refuse("a tree has no nodes, or is for another number of features")
    if size not in (1, targets):
        reader.refuse("a tree's leaves hold another number of values than there are targets")
    arrays = {
        name: reader.integers(tree.get(name, [0] * nodes) if name == "split_type" else tree[name], name, nodes)
        for name in _NODE_ARRAYS
    }
    reader.floats(tree["base_weights"], "base_weights", nodes * size)
    for name in ("loss_changes", "split_conditions", "sum_hessian"):
        reader.floats(tree[name], name, nodes)
    leaf = arrays["left_children"] == -1
    _leaves(reader, tree, arrays["right_children"], leaf, size)
    _shape(reader, arrays, leaf, deleted)
    _splits(reader, arrays, leaf, features)
    _node_categories(reader, tree, np.flatnonzero(~leaf & (arrays["split_type"] == 1)), nodes)
    return size > 1


def _leaves(reader: Reader, tree: Mapping[str, Any], right: Array, leaf: Array, size: int) -> None:
    if size == 1:
        if "leaf_weights" in tree:
            reader.refuse("a tree of single values has vectors of weights")
        if not np.array_equal(right == -1, leaf):
            reader.refuse("a node has one child")
        return
    if "leaf_weights" not in tree:
        reader.refuse("a tree of several values has no weights")
    count = int(leaf.sum())
    reader.floats(tree["leaf_weights"], "leaf_weights", count * size)
    # The right child of a leaf is the place of its vector.
    if not np.array_equal(np.sort(right[leaf]), np.arange(count)):
        reader.refuse("a leaf's weights are not there")


def _shape(reader: Reader, arrays: Mapping[str, Array], leaf: Array, deleted: int) -> None:
    """Check that the nodes are one tree: children after their parent, each with one, nothing else reached."""
    nodes = len(leaf)
    inner = np.flatnonzero(~leaf)
    children = np.concatenate([arrays["left_children"][inner], arrays["right_children"][inner]])
    parents = np.concatenate([inner, inner])
    if not ((children > parents) & (children < nodes)).all():
        reader.refuse("a child does not come after its parent, or does not exist")
    if len(np.unique(children)) != len(children):
        reader.refuse("a node has two parents")
    if not (arrays["parents"][children] == parents).all() or arrays["parents"][0] not in _ROOT:
        reader.refuse("a node names another parent than it has")
    if not ((arrays["parents"][1:] >= 0) & (arrays["parents"][1:] < np.arange(1, nodes))).all():
        reader.refuse("a node's parent does not come before it")
    # Pruning leaves nodes behind that nothing points to; they are marked and counted.
    gone = np.ones(nodes, dtype=bool)
    gone[children] = gone[0] = False
    marked = (arrays["split_indices"] == _DELETED) & (arrays["default_left"] == 1)
    if not np.array_equal(gone, marked) or int(gone.sum()) != deleted or not leaf[gone].all():
        reader.refuse("a node is neither in the tree nor deleted")


def _splits(reader: Reader, arrays: Mapping[str, Array], leaf: Array, features: int) -> None:
    split = arrays["split_indices"][~leaf]
    if len(split) and not (split.min() >= 0 and split.max() < features):
        reader.refuse("a node splits on a feature that does not exist")
    if ((arrays["split_type"] | arrays["default_left"]) & ~1).any():
        reader.refuse("a node splits in an unknown way")


def _node_categories(reader: Reader, tree: Mapping[str, Any], wanted: Array, nodes: int) -> None:
    """Check the sets of categories: one for each node that splits by category, one after the other."""
    if not any(name in tree for name in _CATEGORY_ARRAYS):
        if len(wanted):
            reader.refuse("a node splits by categories that are not there")
        return
    values, at, starts, sizes = (reader.integers(tree.get(name), name) for name in _CATEGORY_ARRAYS)
    if not np.array_equal(at, wanted):
        reader.refuse("its categories belong to other nodes than those that split by category")
    if len(starts) != len(at) or len(sizes) != len(at):
        reader.refuse("its sets of categories have the wrong length")
    if len(at) and not (
        starts[0] == 0
        and (sizes >= 1).all()
        and np.array_equal(starts[1:], np.cumsum(sizes)[:-1])
        and starts[-1] + sizes[-1] == len(values)
    ):
        reader.refuse("its sets of categories do not follow each other")
    if not len(at) and len(values):
        reader.refuse("it has categories that belong to no node")
    if len(values) and not (values.min() >= 0 and values.max() < MAX_CATEGORY):
        reader.refuse("a category is out of range")


def categories(reader: Reader, cats: Any, features: int) -> dict[int, tuple[Any, ...]]:
    """Check the categories that the model keeps, one list for each feature; return those that are not empty."""
    if cats is None:
        return {}
    found = reader.fields(cats, "cats", {"enc", "feature_segments", "sorted_idx"})
    encoders = found["enc"]
    if not isinstance(encoders, list):
        reader.refuse("its categories are not a list")
    segments = reader.integers(found["feature_segments"], "feature_segments")
    order = reader.integers(found["sorted_idx"], "sorted_idx")
    if not encoders:
        if len(segments) or len(order):
            reader.refuse("it has no categories, but their order")
        return {}
    if len(encoders) != features or len(segments) != features + 1 or segments[0] != 0 or segments[-1] != len(order):
        reader.refuse("its categories are for another number of features")
    values = [_values(reader, encoder) for encoder in encoders]
    if not np.array_equal(np.diff(segments), [len(part) for part in values]):
        reader.refuse("a feature has another number of categories than their order")
    for start, part in zip(segments[:-1].tolist(), values, strict=True):
        if not np.array_equal(np.sort(order[start : start + len(part)]), np.arange(len(part))):
            reader.refuse("the order of a feature's categories is not one of all of them")
    return {place: part for place, part in enumerate(values) if part}


def _values(reader: Reader, encoder: Any) -> tuple[Any, ...]:
    """Return the categories of one feature: texts, kept end to end as bytes, or numbers."""
    if isinstance(encoder, dict) and set(encoder) == {"offsets", "values"}:
        offsets = reader.integers(encoder["offsets"], "offsets")
        text = reader.integers(encoder["values"], "values")
        if not len(offsets):
            if len(text):
                reader.refuse("it has text that belongs to no category")
            return ()
        if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any() or offsets[-1] != len(text):
            reader.refuse("the texts of its categories do not follow each other")
        raw = (text & 0xFF).astype(np.uint8).tobytes()
        return tuple(raw[a:b] for a, b in itertools.pairwise(offsets.tolist()))
    found = reader.fields(encoder, "a feature's categories", {"type", "values"})
    reader.number(found["type"], "the type of a feature's categories")
    values = found["values"].tolist() if isinstance(found["values"], np.ndarray) else found["values"]
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        reader.refuse("a feature's categories are neither texts nor numbers")
    return tuple(values)
