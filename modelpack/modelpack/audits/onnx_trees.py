"""Trees of ONNX models: every branch leads to a node of its own tree, every path ends, every number is in its range."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from modelpack.audits.onnx_wire import malformed

__all__ = ["classifier", "ensemble", "regressor"]

Array = np.ndarray[Any, Any]
Shape = tuple[int | str | None, ...] | None
MAX_DEPTH = 4096
# Outputs that no leaf writes to; a few are what a model of constant trees has.
MAX_EMPTY_OUTPUTS = 4096
_MODES = {b"BRANCH_LEQ", b"BRANCH_LT", b"BRANCH_GTE", b"BRANCH_GT", b"BRANCH_EQ", b"BRANCH_NEQ", b"LEAF"}
_MEMBER = 6


def classifier(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    """Check a TreeEnsembleClassifier."""
    labels = len(attributes.get("classlabels_strings", ())) + len(attributes.get("classlabels_int64s", ()))
    _old(attributes, "class", labels, shape, entry)


def regressor(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    """Check a TreeEnsembleRegressor."""
    _old(attributes, "target", _outputs(attributes, "target_ids", entry), shape, entry)


def _outputs(attributes: Mapping[str, Any], ids: str, entry: str) -> int:
    """Return the number of values for each row; memory is taken for all of them, whether a leaf has one or not."""
    outputs = int(attributes.get("n_targets", 1))
    if outputs > max(len(_array(attributes, ids, entry)), MAX_EMPTY_OUTPUTS):
        malformed("a tree has more outputs than leaves", entry)
    return outputs


def _array(attributes: Mapping[str, Any], name: str, entry: str) -> Array:
    found = attributes.get(name, np.empty(0, np.int64))
    if not isinstance(found, np.ndarray):
        malformed(f"a tree has no readable {name}", entry)
    return found


def _same_length(length: int, arrays: Mapping[str, Any], entry: str, *, optional: bool = False) -> None:
    for name, array in arrays.items():
        if len(array) != length and not (optional and not len(array)):
            malformed(f"a tree has {len(array)} values in {name}, not {length}", entry)


def _features(features: Array, shape: Shape, entry: str) -> None:
    width = shape[-1] if shape and isinstance(shape[-1], int) else 2**31
    if not _within(features, width):
        malformed("a tree asks for a feature that is not there", entry)


def _old(attributes: Mapping[str, Any], kind: str, outputs: int, shape: Shape, entry: str) -> None:
    """Check the trees of ai.onnx.ml before version 5: nodes named by the numbers of their tree and their own."""
    get = partial(_array, attributes, entry=entry)
    trees, nodes = get("nodes_treeids"), get("nodes_nodeids")
    count = len(trees)
    modes = attributes.get("nodes_modes", [])
    values = get("nodes_values_as_tensor" if "nodes_values_as_tensor" in attributes else "nodes_values")
    columns = {name: get(name) for name in ("nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids")}
    _same_length(count, {"nodes_nodeids": nodes, "nodes_modes": modes, "nodes_values": values, **columns}, entry)
    extra = ("nodes_hitrates", "nodes_hitrates_as_tensor", "nodes_missing_value_tracks_true")
    _same_length(count, {name: get(name) for name in extra}, entry, optional=True)
    if not count or not set(modes) <= _MODES:
        malformed("a tree has no nodes, or nodes of an unknown kind", entry)
    keys = _keys(trees, nodes, entry)
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        malformed("two nodes of a tree have one number", entry)
    leaf = np.array([mode == b"LEAF" for mode in modes])
    branch = np.flatnonzero(~leaf)
    ways = ("nodes_truenodeids", "nodes_falsenodeids")
    children = [_find(_keys(trees[branch], columns[way][branch], entry), keys, order, entry) for way in ways]
    depth = _forest(count, np.concatenate([branch, branch]), np.concatenate(children), entry)
    if np.unique(trees).size != int((depth == 0).sum()):
        malformed("a tree has more than one root", entry)
    _features(columns["nodes_featureids"][branch], shape, entry)
    _leaves(attributes, kind, outputs, (keys, order, leaf), entry)


def _leaves(
    attributes: Mapping[str, Any], kind: str, outputs: int, index: tuple[Array, Array, Array], entry: str
) -> None:
    keys, order, leaf = index
    get = partial(_array, attributes, entry=entry)
    trees, nodes, ids = get(f"{kind}_treeids"), get(f"{kind}_nodeids"), get(f"{kind}_ids")
    weights = get(f"{kind}_weights_as_tensor" if f"{kind}_weights_as_tensor" in attributes else f"{kind}_weights")
    _same_length(len(trees), {"nodeids": nodes, "ids": ids, "weights": weights}, entry)
    if not leaf[_find(_keys(trees, nodes, entry), keys, order, entry)].all():
        malformed("a weight of a tree belongs to no leaf", entry)
    if outputs < 1 or not _within(ids, outputs):
        malformed("a leaf answers for a class or target that is not there", entry)
    _bases(attributes, outputs, entry)


def _bases(attributes: Mapping[str, Any], outputs: int, entry: str) -> None:
    for name in ("base_values", "base_values_as_tensor"):
        if len(_array(attributes, name, entry)) not in (0, 1, outputs):
            malformed("a tree ensemble starts from more values than it has outputs", entry)


def _keys(trees: Array, nodes: Array, entry: str) -> Array:
    for numbers in (trees, nodes):
        if not _within(numbers, 2**31):
            malformed("a tree or a node has a number out of range", entry)
    return trees.astype(np.int64) << 32 | nodes.astype(np.int64)


def _find(wanted: Array, keys: Array, order: Array, entry: str) -> Array:
    """Return where each wanted key is among the keys."""
    if not len(wanted):
        return np.empty(0, np.int64)
    ranks = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    places = order[ranks]
    if (keys[places] != wanted).any():
        malformed("a branch or a weight of a tree belongs to a node that is not there", entry)
    return places


def _forest(count: int, parents: Array, children: Array, entry: str) -> Array:
    """Return the depth of each node; refuse a node with two parents, a circle, and trees that are too deep."""
    above = np.arange(count)
    if len(np.unique(children)) != len(children):
        malformed("two branches of a tree lead to one node", entry)
    above[children] = parents
    depth = np.zeros(count, np.int64)
    depth[children] = 1
    # Each round doubles how far every node has looked up; a circle never comes to a root.
    for _ in range(MAX_DEPTH.bit_length()):
        depth += depth[above]
        above = above[above]
    root = np.ones(count, bool)
    root[children] = False
    if not root[above].all() or int(depth.max(initial=0)) > MAX_DEPTH:
        malformed(f"a tree goes in a circle or is deeper than {MAX_DEPTH}", entry)
    return depth


def ensemble(attributes: Mapping[str, Any], shape: Shape, entry: str) -> None:
    """Check a TreeEnsemble (ai.onnx.ml 5): nodes and leaves by position."""
    get = partial(_array, attributes, entry=entry)
    roots, modes, features, splits = get("tree_roots"), get("nodes_modes"), get("nodes_featureids"), get("nodes_splits")
    count, leaves = len(modes), len(get("leaf_targetids"))
    pairs = [
        (get("nodes_truenodeids"), get("nodes_trueleafs")),
        (get("nodes_falsenodeids"), get("nodes_falseleafs")),
    ]
    _same_length(count, {"nodes_featureids": features, "nodes_splits": splits}, entry)
    for ids, flags in pairs:
        _same_length(count, {"node ids": ids, "leaf flags": flags}, entry)
    _same_length(leaves, {"leaf_weights": get("leaf_weights")}, entry)
    extra = ("nodes_hitrates", "nodes_missing_value_tracks_true")
    _same_length(count, {name: get(name) for name in extra}, entry, optional=True)
    if not count or not leaves or int(modes.max()) > _MEMBER:
        malformed("a tree has no nodes, or nodes of an unknown kind", entry)
    parents, children = [], []
    for ids, flags in pairs:
        if not np.isin(flags, (0, 1)).all():
            malformed("a tree has a flag that is neither 0 nor 1", entry)
        if not _within(ids[flags == 1], leaves) or not _within(ids[flags == 0], count):
            malformed("a branch of a tree leads to a node that is not there", entry)
        parents.append(np.flatnonzero(flags == 0))
        children.append(ids[flags == 0])
    depth = _forest(count, np.concatenate(parents), np.concatenate(children), entry)
    if not _within(roots, count) or not np.array_equal(np.sort(roots), np.flatnonzero(depth == 0)):
        malformed("the roots of the trees are not the nodes that no branch leads to", entry)
    _features(features, shape, entry)
    _targets(attributes, modes, entry)


def _targets(attributes: Mapping[str, Any], modes: Array, entry: str) -> None:
    outputs = _outputs(attributes, "leaf_targetids", entry)
    ids = _array(attributes, "leaf_targetids", entry)
    if outputs < 1 or not _within(ids, outputs):
        malformed("a leaf answers for a class or target that is not there", entry)
    members = _array(attributes, "membership_values", entry)
    sets = int(np.isnan(members.astype(np.float64)).sum()) if len(members) else 0
    if sets != int((modes == _MEMBER).sum()) or (len(members) and not np.isnan(members[-1])):
        malformed("a tree has not one set of values for each branch that needs one", entry)


def _within(numbers: Array, limit: int) -> bool:
    return not len(numbers) or (int(numbers.min()) >= 0 and int(numbers.max()) < limit)
