"""scikit-learn's trees as ONNX operators over float64 that take each branch exactly as scikit-learn does.

Trees, forests and gradient boosting compare the feature as float32 with a float64 threshold; histogram boosting
compares in float64. TreeEnsemble (ai.onnx.ml 5) has float64 thresholds and leaves: no split flips, no leaf is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack_flavors._onnx.building import Graph, label_type, unsupported

__all__ = ["Forest", "converters", "settle", "thresholds", "trees_of"]

Array = np.ndarray[Any, Any]
# skl2onnx refuses ai.onnx.ml 5, so the operator goes through it under a domain of ours; see :func:`settle`.
DOMAIN = "modelpack"
_ML: dict[str, Any] = {"op_domain": DOMAIN, "op_version": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """One tree: for each node its feature, threshold, children (-1 at leaves) and where missing values go."""

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    value: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Forest:
    """The trees of a model, the target each adds to, and whether features are compared as float32."""

    trees: Sequence[Tree]
    targets: Sequence[int]
    outputs: int
    narrow: bool


def _plain(tree: Any, scale: float | None = None) -> Tree:
    """Read a tree of sklearn.tree."""
    value = tree.value[:, 0, :]
    missing = getattr(tree, "missing_go_to_left", None)
    return Tree(
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        missing_left=np.zeros(len(value), np.uint8) if missing is None else missing,
        value=value if scale is None else value * scale,
    )


def _histogram(predictor: Any) -> Tree:
    """Read a tree of histogram boosting."""
    nodes = predictor.nodes
    if nodes["is_categorical"].any():
        raise unsupported("boosting over categories")
    leaf = nodes["is_leaf"].astype(bool)
    children = [np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right")]
    return Tree(
        feature=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        left=children[0],
        right=children[1],
        missing_left=nodes["missing_go_to_left"],
        value=nodes["value"].reshape(-1, 1),
    )


def trees_of(model: Any) -> Forest | None:
    """Return the trees of a scikit-learn model, or None if it is not made of trees.

    Raises:
        FlavorError: they have no ONNX form (``conversion-unsupported``).
    """
    if hasattr(model, "_predictors") and hasattr(model, "_baseline_prediction"):
        rounds = model._predictors
        trees = [_histogram(one) for stage in rounds for one in stage]
        targets = [k for stage in rounds for k in range(len(stage))]
        return Forest(trees=trees, targets=targets, outputs=int(model.n_trees_per_iteration_), narrow=False)
    if hasattr(model, "n_trees_per_iteration_") and hasattr(model, "learning_rate"):
        stages = model.estimators_
        trees = [_plain(one.tree_, model.learning_rate) for stage in stages for one in stage]
        targets = [k for stage in stages for k in range(len(stage))]
        return Forest(trees=trees, targets=targets, outputs=int(stages.shape[1]), narrow=True)
    estimators = getattr(model, "estimators_", [model])
    if not all(hasattr(one, "tree_") for one in estimators):
        return None
    if getattr(model, "n_outputs_", 1) != 1:
        raise unsupported("trees with several outputs")
    trees = [_plain(one.tree_) for one in estimators]
    return Forest(trees=trees, targets=list(range(len(trees))), outputs=len(trees), narrow=True)


def thresholds(forest: Forest) -> dict[int, list[float]]:
    """Return the thresholds by feature, and for features compared as float32 where in float64 the answer changes."""
    found: dict[int, set[float]] = {}
    for tree in forest.trees:
        branch = tree.left >= 0
        for feature, value in zip(tree.feature[branch].tolist(), tree.threshold[branch].tolist(), strict=True):
            found.setdefault(feature, set()).add(value)
    if forest.narrow:
        found = {feature: values | _edges(values) for feature, values in found.items()}
    return {feature: sorted(values) for feature, values in found.items()}


def _edges(values: set[float]) -> set[float]:
    """Return where rounding to float32 crosses a threshold: halfway between the two float32 beside it."""
    wide = np.array(sorted(values), np.float64)
    with np.errstate(over="ignore"):
        below = wide.astype(np.float32)
        below = np.where(below.astype(np.float64) > wide, np.nextafter(below, np.float32(-np.inf)), below)
        above = np.nextafter(below, np.float32(np.inf)).astype(np.float64)
    middle = (below.astype(np.float64) + above) / 2
    return set(middle[np.isfinite(middle)].tolist())


def attributes(trees: Sequence[Tree], targets: Sequence[int], leaves: Sequence[Array], outputs: int) -> dict[str, Any]:
    """Return the attributes of a TreeEnsemble; ``leaves`` holds a weight for each node, used at the leaves."""
    from onnx import numpy_helper

    parts = [_numbered(tree, weight, target) for tree, weight, target in zip(trees, leaves, targets, strict=True)]
    nodes = np.cumsum([0, *(len(part["feature"]) for part in parts)])
    ends = np.cumsum([0, *(len(part["weight"]) for part in parts)])
    joined: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for side in ("true", "false"):
        shift = [np.where(p[f"{side}_leaf"], e, n) for p, n, e in zip(parts, nodes[:-1], ends[:-1], strict=True)]
        joined[side] = joined[side] + np.concatenate(shift)
    ints = {
        "tree_roots": nodes[:-1],
        "nodes_featureids": joined["feature"],
        "nodes_truenodeids": joined["true"],
        "nodes_trueleafs": joined["true_leaf"],
        "nodes_falsenodeids": joined["false"],
        "nodes_falseleafs": joined["false_leaf"],
        "nodes_missing_value_tracks_true": joined["missing"],
        "leaf_targetids": joined["target"],
    }
    return {
        "n_targets": outputs,
        "aggregate_function": 1,
        "post_transform": 0,
        "nodes_modes": numpy_helper.from_array(np.zeros(len(joined["feature"]), np.uint8), "modes"),
        "nodes_splits": numpy_helper.from_array(joined["threshold"].astype(np.float64), "splits"),
        "leaf_weights": numpy_helper.from_array(joined["weight"].astype(np.float64), "weights"),
        **{name: [int(value) for value in values] for name, values in ints.items()},
    }


def _numbered(tree: Tree, weight: Array, target: int) -> dict[str, Array]:
    """Return a tree with its branches and its leaves numbered apart."""
    leaf = np.asarray(tree.left) < 0
    if leaf[0]:
        # A tree that is one leaf: a branch whose both ways lead there.
        zero, one = np.zeros(1, np.int64), np.ones(1, bool)
        split = {"feature": zero, "threshold": np.zeros(1), "missing": zero, "true": zero, "false": zero}
        ends = {"true_leaf": one, "false_leaf": one, "weight": weight[:1], "target": np.array([target])}
        return {**split, **ends}
    place = np.where(leaf, np.cumsum(leaf) - 1, np.cumsum(~leaf) - 1)
    left, right = np.asarray(tree.left)[~leaf], np.asarray(tree.right)[~leaf]
    return {
        "feature": np.asarray(tree.feature)[~leaf].astype(np.int64),
        "threshold": np.asarray(tree.threshold)[~leaf],
        "missing": np.asarray(tree.missing_left)[~leaf].astype(np.int64),
        "true": place[left],
        "true_leaf": leaf[left],
        "false": place[right],
        "false_leaf": leaf[right],
        "weight": weight[leaf],
        "target": np.full(int(leaf.sum()), target),
    }


def settle(proto: Any) -> None:
    """Give the trees of a graph the domain they belong to."""
    nodes = [node for node in proto.graph.node if node.domain == DOMAIN]
    for node in nodes:
        node.domain = "ai.onnx.ml"
    kept = {one.domain: one.version for one in proto.opset_import if one.domain != DOMAIN}
    if nodes:
        kept["ai.onnx.ml"] = 5
        proto.ir_version = max(proto.ir_version, 9)
    del proto.opset_import[:]
    for domain, version in sorted(kept.items()):
        one = proto.opset_import.add()
        one.domain, one.version = domain, version


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Write a model of trees: skl2onnx calls this for each of the classes in :func:`converters`."""
    model = operator.raw_operator
    forest = trees_of(model)
    assert forest is not None
    graph = Graph(scope, container)
    source = graph.node("Cast", operator.inputs[0].full_name, to=1 if forest.narrow else 11)
    if forest.narrow:
        source = graph.node("Cast", source, to=11)
    outputs = [variable.full_name for variable in operator.outputs]
    classify = hasattr(model, "classes_")
    if hasattr(model, "n_trees_per_iteration_"):
        raw = _raw(graph, source, model, forest)
        _boosted(graph, raw, model, outputs, classify=classify)
        return
    mean = _mean(graph, source, forest)
    if classify:
        graph.node("Identity", mean, out=outputs[1])
        _labels(graph, graph.node("ArgMax", mean, axis=1, keepdims=0), model.classes_, outputs[0])
    else:
        graph.node("Identity", mean, out=outputs[0])


def _mean(graph: Graph, source: str, forest: Forest) -> str:
    """Return the mean of the leaves' values over the trees: each tree gives a leaf's number, a table has the values."""
    trees = forest.trees
    numbers = [np.cumsum(tree.left < 0) - 1 for tree in trees]
    starts = np.cumsum([0, *(int((tree.left < 0).sum()) for tree in trees)])
    tables = np.concatenate([tree.value[tree.left < 0] for tree in trees])
    leaves = [number + start for number, start in zip(numbers, starts[:-1], strict=True)]
    places = graph.node(
        "TreeEnsemble", source, **_ML, **attributes(trees, forest.targets, leaves, forest.outputs)
    )  # fmt: skip
    values = graph.node("Gather", graph.constant(tables), graph.node("Cast", places, to=7), axis=0)
    total = graph.node("ReduceSum", values, graph.constant(np.array([1], np.int64)), keepdims=0)
    return graph.node("Div", total, graph.constant(np.array([len(trees)], np.float64)))


def _raw(graph: Graph, source: str, model: Any, forest: Forest) -> str:
    if hasattr(model, "_baseline_prediction"):
        start = np.asarray(model._baseline_prediction, np.float64).reshape(1, -1)
    else:
        if type(model.init_).__name__ not in ("DummyClassifier", "DummyRegressor") and model.init_ != "zero":
            raise unsupported("gradient boosting that starts from another model")
        start = np.asarray(model._raw_predict_init(np.zeros((1, model.n_features_in_))), np.float64)
    leaves = [tree.value[:, 0] for tree in forest.trees]
    weights = attributes(forest.trees, forest.targets, leaves, forest.outputs)
    return graph.node("Add", graph.node("TreeEnsemble", source, **_ML, **weights), graph.constant(start))


def _boosted(graph: Graph, raw: str, model: Any, outputs: Sequence[str], *, classify: bool) -> None:
    link = type(getattr(model._loss, "link", None)).__name__
    if not classify:
        if link not in ("IdentityLink", "LogLink"):
            raise unsupported(f"a regression with the link {link}")
        graph.node("Identity" if link == "IdentityLink" else "Exp", raw, out=outputs[0])
        return
    loss = type(model._loss).__name__
    if loss == "HalfBinomialLoss":
        second = graph.node("Sigmoid", raw)
        first = graph.node("Sub", graph.constant(np.ones((1, 1))), second)
        graph.node("Concat", first, second, out=outputs[1], axis=1)
        zero = graph.constant(np.zeros((1, 1)))
        # Histogram boosting gives a tie to the first class, gradient boosting to the second.
        above = graph.node("Greater" if hasattr(model, "_predictors") else "GreaterOrEqual", raw, zero)
        place = graph.node("Reshape", graph.node("Cast", above, to=7), graph.constant(np.array([-1], np.int64)))
    elif loss == "HalfMultinomialLoss":
        graph.node("Softmax", raw, out=outputs[1], axis=1)
        place = graph.node("ArgMax", raw, axis=1, keepdims=0)
    else:
        raise unsupported(f"a classification with the loss {loss}")
    _labels(graph, place, model.classes_, outputs[0])


def _labels(graph: Graph, place: str, classes: Array, out: str) -> None:
    graph.node("Gather", graph.constant(classes.astype(label_type(classes))), place, out=out, axis=0)


def _shapes(operator: Any) -> None:
    """Tell skl2onnx the types of the outputs."""
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType

    model = operator.raw_operator
    if hasattr(model, "classes_"):
        text = model.classes_.dtype.kind in "OU"
        operator.outputs[0].type = StringTensorType([None]) if text else Int64TensorType([None])
        operator.outputs[1].type = DoubleTensorType([None, len(model.classes_)])
    else:
        operator.outputs[0].type = DoubleTensorType([None, 1])


def converters() -> tuple[Mapping[type, Callable[..., None]], Mapping[type, Callable[..., None]]]:
    """Return the conversion and the shape function of every class of trees, for skl2onnx."""
    from sklearn import ensemble, tree

    kinds = ["DecisionTree", "ExtraTree"]
    many = ["RandomForest", "ExtraTrees", "GradientBoosting", "HistGradientBoosting"]
    classes = [getattr(tree, f"{kind}{end}") for kind in kinds for end in ("Classifier", "Regressor")]
    classes += [getattr(ensemble, f"{kind}{end}") for kind in many for end in ("Classifier", "Regressor")]
    return dict.fromkeys(classes, _convert), dict.fromkeys(classes, _shapes)
