"""Tampered scikit-learn models: refused before anything works on them, and nothing runs. All markers are benign."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.cluster import BisectingKMeans, KMeans
from sklearn.decomposition import NMF
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics._dist_metrics import HaversineDistance64
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer, OneHotEncoder, SplineTransformer
from sklearn.svm import SVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree
from skops_files import archived, edited, read

import modelpack
from modelpack.audits import skops_types
from modelpack.errors import EnvironmentMismatch, PackageError, SaveError, TrustError
from modelpack.flavor import SaveContext
from modelpack.manifest import Manifest
from modelpack_flavors._sklearn import invariants
from modelpack_flavors.sklearn import FLAVOR

RANDOM = np.random.RandomState(0)
X = RANDOM.rand(80, 4)
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
Y3 = (X[:, 0] * 3).astype(int)
TENS = (X * 10).astype(int)


def attributes(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["content"]["content"]
    return found


def nodes_of(kind: str, state: Any) -> Iterator[dict[str, Any]]:
    """Yield all nodes of one kind below a part of a schema."""
    if isinstance(state, dict):
        if state.get("__loader__") == kind:
            yield state
        for value in state.values():
            yield from nodes_of(kind, value)
    elif isinstance(state, list):
        for value in state:
            yield from nodes_of(kind, value)


def with_tree(model: Any, **changes: Callable[[Any], None]) -> Any:
    """Return a copy of a decision tree whose compiled tree has changed arrays."""
    tree = model.tree_
    state = tree.__getstate__()
    nodes, values = state["nodes"].copy(), state["values"].copy()
    for field, change in changes.items():
        change(nodes[field])
    made = Tree(tree.n_features, tree.n_classes, tree.n_outputs)
    made.__setstate__({**state, "nodes": nodes, "values": values})
    changed = copy.copy(model)
    changed.tree_ = made
    return changed


def put(index: Any, value: Any) -> Callable[[Any], None]:
    def change(array: Any) -> None:
        array[index] = value

    return change


def having(model: Any, **attributes: Any) -> Any:
    """Return a copy of a model with other attributes."""
    changed = copy.deepcopy(model)
    for name, value in attributes.items():
        setattr(changed, name, value(getattr(changed, name)) if callable(value) else value)
    return changed


def changed_array(index: Any, value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = np.array(array)
        array[index] = value
        return array

    return change


TREE = DecisionTreeClassifier(random_state=0).fit(X, Y)
FOREST = RandomForestClassifier(3, random_state=0).fit(X, Y)
NARROW = DecisionTreeClassifier(random_state=0).fit(X[:, :2], Y)
BOOSTING = GradientBoostingClassifier(n_estimators=2, random_state=0).fit(X, Y3)
HISTOGRAM = HistGradientBoostingClassifier(max_iter=2, random_state=0).fit(X, Y)
CATEGORIES = HistGradientBoostingClassifier(max_iter=2, categorical_features=[0], random_state=0).fit(TENS, Y)
NEIGHBOURS = KNeighborsClassifier(algorithm="kd_tree", leaf_size=5).fit(X, Y)
BALL = KNeighborsClassifier(algorithm="ball_tree", metric="seuclidean", metric_params={"V": X.var(axis=0)}).fit(X, Y)
WEIGHTED = KNeighborsClassifier(algorithm="ball_tree", p=3, metric_params={"w": np.ones(4)}).fit(X, Y)
SKEWED = KNeighborsClassifier(algorithm="ball_tree", metric="mahalanobis", metric_params={"VI": np.eye(4)}).fit(X, Y)
MACHINE = SVC(random_state=0).fit(X, Y3)
ONE_HOT = OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist", drop="first").fit(TENS)
SPLINE = SplineTransformer().fit(X)
BAGGING = BaggingClassifier(n_estimators=2, max_features=2, random_state=0).fit(X, Y)
ISOLATION = IsolationForest(n_estimators=2, random_state=0).fit(X)
TREES_OF_RANDOM = DecisionTreeClassifier(random_state=np.random.RandomState(0)).fit(X, Y)
SPARSE = KNeighborsClassifier().fit(sp.csr_matrix(X), Y)
WORDS = CountVectorizer().fit(["good day", "bad day"])


def with_neighbour_tree(model: Any, index: int, change: Callable[[Any], Any]) -> Any:
    changed = copy.deepcopy(model)
    state = list(changed._tree.__getstate__())
    state[index] = change(state[index])
    changed._tree.__setstate__(tuple(state))
    return changed


def with_field(field: str, index: Any, value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array[field][index] = value
        return array

    return change


def with_predictor(model: Any, field: str, index: Any, value: Any) -> Any:
    changed = copy.deepcopy(model)
    predictor = changed._predictors[0][0]
    predictor.nodes = with_field(field, index, value)(predictor.nodes)
    return changed


def with_bins(model: Any, **attributes: Any) -> Any:
    changed = copy.deepcopy(model)
    changed._bin_mapper = having(changed._bin_mapper, **attributes)
    return changed


def with_position(model: Any, position: int) -> Any:
    changed = copy.deepcopy(model)
    state = changed.random_state.get_state(legacy=False)
    state["state"]["pos"] = position
    changed.random_state.set_state(state)
    return changed


def with_matrix(model: Any, name: str, change: Callable[[Any], None]) -> Any:
    changed = copy.deepcopy(model)
    change(getattr(changed._fit_X, name))
    return changed


def split_at(spline: int) -> Callable[[Any], Any]:
    def change(splines: Any) -> Any:
        splines = copy.deepcopy(splines)
        knots = splines[0].t.copy()
        knots[spline] = -99.0
        splines[0].__dict__["_t" if "_t" in splines[0].__dict__ else "t"] = knots
        return splines

    return change


def fewer_coefficients(splines: Any) -> Any:
    splines = copy.deepcopy(splines)
    splines[0].__dict__["_c" if "_c" in splines[0].__dict__ else "c"] = splines[0].c[:1]
    return splines


def other_degree(splines: Any) -> Any:
    splines = copy.deepcopy(splines)
    splines[0].k = 50
    return splines


def negative_degree(splines: Any) -> Any:
    splines = copy.deepcopy(splines)
    splines[0].k = -1
    return splines


def _with(model: Any, name: str, change: Callable[[Any], Any]) -> Any:
    changed = copy.deepcopy(model)
    predictor = changed._predictors[0][0]
    setattr(predictor, name, change(getattr(predictor, name)))
    return changed


def _empty_tree() -> Any:
    changed = copy.copy(TREE)
    changed.tree_ = Tree(4, np.array([2]), 1)
    state = TREE.tree_.__getstate__()
    changed.tree_.__setstate__({**state, "node_count": 0, "nodes": state["nodes"][:0], "values": state["values"][:0]})
    return changed


def _tree_of_no_classes() -> Any:
    model = DecisionTreeClassifier(max_depth=1).fit(X, np.c_[Y, Y])
    tree = model.tree_
    made = Tree(4, np.array([2, 0]), 2)
    made.__setstate__(tree.__getstate__())
    model.tree_ = made
    return model


LEAF = int(np.flatnonzero(TREE.tree_.children_left == -1)[0])
TAMPERED: dict[str, tuple[Callable[[], Any], str]] = {
    "tree: a child that does not exist": (lambda: with_tree(TREE, left_child=put(0, 10**6)), "does not exist"),
    "tree: a child before its parent": (lambda: with_tree(TREE, right_child=put(0, 0)), "after its parent"),
    "tree: one child": (lambda: with_tree(TREE, left_child=put(LEAF, LEAF + 1)), "one child"),
    "tree: a feature that does not exist": (lambda: with_tree(TREE, feature=put(0, 4)), "does not exist"),
    "tree: a negative feature": (lambda: with_tree(TREE, feature=put(0, -5)), "does not exist"),
    "tree: other columns than its estimator": (lambda: having(TREE, n_features_in_=3), "another number of columns"),
    "tree: no number of columns": (lambda: _without(TREE, "n_features_in_"), "inconsistent"),
    "tree: no tree": (lambda: having(TREE, tree_=lambda _: LogisticRegression()), "not a tree"),
    "forest: a narrower tree": (lambda: having(FOREST, estimators_=[NARROW]), "another number of columns"),
    "forest: no tree": (lambda: having(FOREST, estimators_=[LogisticRegression()]), "another number of columns"),
    "isolation: a narrower tree": (lambda: having(ISOLATION, n_features_in_=3), "columns that do not exist"),
    "bagging: columns that do not exist": (
        lambda: having(BAGGING, estimators_features_=[np.array([0, 9]), np.array([0, 1])]),
        "do not exist",
    ),
    "bagging: fewer columns": (
        lambda: having(BAGGING, estimators_features_=[np.array([0]), np.array([0, 1])]),
        "another number of columns",
    ),
    "bagging: fewer lists": (
        lambda: having(BAGGING, estimators_features_=[np.array([0, 1])]),
        "another number of lists",
    ),
    "boosting: fewer outputs": (lambda: having(BOOSTING, n_trees_per_iteration_=2), "another number of trees"),
    "boosting: a classifier": (
        lambda: having(BOOSTING, estimators_=changed_array((0, 0), TREE)),
        "more than one value",
    ),
    "boosting: a narrower tree": (
        lambda: having(BOOSTING, estimators_=changed_array((0, 0), NARROW)),
        "another number of columns",
    ),
    "boosting: an initial estimator with fewer outputs": (
        lambda: having(BOOSTING, init_=lambda _: LogisticRegression().fit(X, Y)),
        r"initial estimator|inconsistent",
    ),
    "histogram: a child that does not exist": (lambda: with_predictor(HISTOGRAM, "left", 0, 10**6), "does not exist"),
    "histogram: a child before its parent": (lambda: with_predictor(HISTOGRAM, "right", 0, 0), "after its parent"),
    "histogram: a column that does not exist": (
        lambda: with_predictor(HISTOGRAM, "feature_idx", 0, 99),
        "splits on column 99",
    ),
    "histogram: a negative column": (lambda: with_predictor(HISTOGRAM, "feature_idx", 0, -1), "does not exist"),
    "histogram: a set that does not exist": (
        lambda: with_predictor(HISTOGRAM, "is_categorical", 0, 1),
        "set of categories that does not exist",
    ),
    "histogram: fewer columns": (lambda: having(HISTOGRAM, n_features_in_=3), "another number of columns"),
    "histogram: a category out of range": (
        lambda: with_bins(CATEGORIES, bin_thresholds_=lambda bins: [np.array([300.0]), *bins[1:]]),
        "between 0 and 255",
    ),
    "histogram: fewer bins": (lambda: with_bins(CATEGORIES, bin_thresholds_=lambda bins: bins[1:]), "another number"),
    "histogram: another preprocessor": (
        lambda: having(CATEGORIES, _preprocessor=lambda p: having(p, transformers_=lambda t: t[:1])),
        "preprocessor",
    ),
    "histogram: nodes of another kind": (
        lambda: _with(HISTOGRAM, "nodes", lambda nodes: nodes[:0]),
        "its nodes are not nodes",
    ),
    "histogram: sets of another kind": (
        lambda: _with(HISTOGRAM, "raw_left_cat_bitsets", lambda sets: np.zeros((1, 2), np.uint32)),
        "its sets of categories are not sets",
    ),
    "histogram: no predictor": (lambda: having(HISTOGRAM, _predictors=[[LogisticRegression()]]), "not a predictor"),
    "neighbours: a row that does not exist": (
        lambda: with_neighbour_tree(NEIGHBOURS, 1, changed_array(0, 10**6)),
        "rows that do not exist",
    ),
    "neighbours: a node beyond the rows": (
        lambda: with_neighbour_tree(NEIGHBOURS, 2, with_field("idx_end", 0, 10**6)),
        "covers rows that do not exist",
    ),
    "neighbours: a leaf with children": (
        lambda: with_neighbour_tree(NEIGHBOURS, 2, with_field("is_leaf", -1, 0)),
        "children that do not exist",
    ),
    "neighbours: fewer bounds": (lambda: with_neighbour_tree(NEIGHBOURS, 3, lambda b: b[:, :1].copy()), "bounds"),
    "neighbours: more nodes": (lambda: with_neighbour_tree(NEIGHBOURS, 6, lambda _: 1000), "follow from its levels"),
    "neighbours: fewer weights": (lambda: with_neighbour_tree(NEIGHBOURS, 12, lambda _: np.ones(3)), "weights"),
    "neighbours: other rows": (lambda: having(NEIGHBOURS, _fit_X=X[:10], n_samples_fit_=10, _y=Y[:10]), "other rows"),
    "neighbours: fewer rows": (lambda: having(NEIGHBOURS, n_samples_fit_=10), "number of rows"),
    "neighbours: narrower rows": (lambda: having(NEIGHBOURS, n_features_in_=2), "as wide as its input"),
    "neighbours: fewer labels": (lambda: having(NEIGHBOURS, _y=Y[:3]), "number of labels"),
    "neighbours: a label that is no class": (
        lambda: having(NEIGHBOURS, _y=changed_array(0, 99)),
        "not one of its classes",
    ),
    "neighbours: no tree": (lambda: having(NEIGHBOURS, _tree=None), "do not match"),
    "neighbours: a metric of another width": (
        lambda: with_neighbour_tree(BALL, 11, lambda m: _metric(m, 1, np.ones(2))),
        "another number of columns",
    ),
    "neighbours: a metric that is not finite": (
        lambda: with_neighbour_tree(BALL, 11, lambda m: _metric(m, 1, np.full(4, np.nan))),
        "not finite",
    ),
    "neighbours: levels without end": (lambda: with_neighbour_tree(NEIGHBOURS, 5, lambda _: 2**31 - 1), "levels"),
    "any: jobs without end": (lambda: having(FOREST, n_jobs=10**6), "number of jobs"),
    "k-means: threads without end": (
        lambda: having(KMeans(2, n_init=1, random_state=0).fit(X), _n_threads=10**6),
        "number of threads",
    ),
    "neighbours: no metric": (lambda: with_neighbour_tree(BALL, 11, lambda m: None), "no metric"),
    "neighbours: a weighted metric of another width": (
        lambda: with_neighbour_tree(WEIGHTED, 11, lambda m: _metric(m, 1, np.ones(2))),
        "another number of columns",
    ),
    "neighbours: a matrix of another width": (
        lambda: with_neighbour_tree(SKEWED, 11, lambda m: _metric(m, 2, np.eye(2))),
        "another number of columns",
    ),
    "neighbours: a metric for the globe": (
        lambda: with_neighbour_tree(BALL, 11, lambda m: HaversineDistance64()),
        "two columns",
    ),
    "neighbours: a sparse row out of range": (
        lambda: with_matrix(SPARSE, "indices", put(0, 10**6)),
        "outside of the matrix",
    ),
    "neighbours: a sparse pointer out of range": (
        lambda: with_matrix(SPARSE, "indptr", put(3, 10**6)),
        "not in order",
    ),
    "support vectors: more than there are": (
        lambda: having(MACHINE, _n_support=changed_array(0, 10**6)),
        "do not add up",
    ),
    "support vectors: fewer coefficients": (
        lambda: having(MACHINE, _dual_coef_=lambda c: c[:1].copy()),
        "coefficients",
    ),
    "support vectors: fewer intercepts": (lambda: having(MACHINE, _intercept_=np.zeros(1)), "intercepts"),
    "support vectors: narrower": (lambda: having(MACHINE, support_vectors_=lambda v: v[:, :1].copy()), "as wide"),
    "support vectors: other probabilities": (lambda: having(MACHINE, _probA=np.zeros(7)), "probabilities"),
    "support vectors: fewer classes": (lambda: having(MACHINE, classes_=np.arange(2)), "classes"),
    "support vectors: a row that does not exist": (
        lambda: having(OneClassSVM(kernel="precomputed").fit(X @ X.T), support_=changed_array(0, 10**6)),
        "not one of its rows",
    ),
    "k-means: wider centres": (
        lambda: having(KMeans(2, n_init=1, random_state=0).fit(X), cluster_centers_=np.ones((2, 9))),
        "as wide",
    ),
    "bisecting k-means: a narrower centre": (
        lambda: having(BisectingKMeans(2, random_state=0).fit(X), _bisecting_tree=lambda t: having(t, center=X[0, :1])),
        "a centre is not as wide",
    ),
    "components: narrower": (
        lambda: having(NMF(2, random_state=0, max_iter=500).fit(X), components_=np.ones((2, 1))),
        "components",
    ),
    "encoder: fewer output columns": (lambda: having(ONE_HOT, _n_features_outs=[1, 1, 1, 1]), "does not follow"),
    "encoder: a dropped category that does not exist": (
        lambda: having(ONE_HOT, _drop_idx_after_grouping=np.array([-5, 0, 0, 0], dtype=object)),
        "dropped category",
    ),
    "encoder: an infrequent category out of range": (
        lambda: having(ONE_HOT, _default_to_infrequent_mappings=lambda m: [*m[:3], m[3] + 99]),
        "does not exist",
    ),
    "encoder: fewer categories": (lambda: having(ONE_HOT, categories_=lambda c: c[1:]), "another number of lists"),
    "vocabulary: a number out of range": (lambda: having(WORDS, vocabulary_={"good": 10**6}), "without a gap"),
    "vocabulary: of records": (
        lambda: having(DictVectorizer().fit([{"a": 1}]), vocabulary_={"a": -1}),
        "without a gap",
    ),
    "vectorizer: reads files": (lambda: having(WORDS, input="filename"), "reads files"),
    "hashing vectorizer: reads files": (lambda: HashingVectorizer(input="file"), "reads files"),
    "hasher: no columns": (lambda: having(FeatureHasher().fit([{}]), n_features=0), "out of range"),
    "spline: knots out of order": (lambda: having(SPLINE, bsplines_=split_at(5)), "not in order"),
    "spline: fewer coefficients": (lambda: having(SPLINE, bsplines_=fewer_coefficients), "too few"),
    "spline: a negative degree": (lambda: having(SPLINE, bsplines_=negative_degree), "out of range"),
    "tree: no nodes": (lambda: _empty_tree(), "not as long"),
    "tree: no classes": (lambda: _tree_of_no_classes(), "counts of classes"),
    "encoder: an infrequent category that does not exist": (
        lambda: having(ONE_HOT, _infrequent_indices=lambda i: [*i[:3], i[3] + 99]),
        "does not exist",
    ),
    "spline: a degree beyond its knots": (lambda: having(SPLINE, bsplines_=other_degree), "too few"),
    "random state: a position out of range": (lambda: with_position(TREES_OF_RANDOM, 10**6), "out of range"),
}


def _without(model: Any, name: str) -> Any:
    changed = copy.copy(model)
    delattr(changed, name)
    return changed


def _metric(metric: Any, index: int, value: Any) -> Any:
    state = list(metric.__getstate__())
    state[index] = value
    metric = copy.copy(metric)
    metric.__setstate__(tuple(state))
    return metric


@pytest.mark.parametrize(("tampered", "message"), TAMPERED.values(), ids=TAMPERED)
def test_an_inconsistent_structure_is_refused(tampered: Callable[[], Any], message: str) -> None:
    data = archived(tampered())
    with pytest.raises(PackageError, match=message) as info:
        read(data)
    assert (info.value.code, info.value.path) == ("payload-invalid", "model.skops")


@pytest.mark.parametrize(
    "model",
    [TREE, FOREST, BOOSTING, HISTOGRAM, CATEGORIES, NEIGHBOURS, BALL, MACHINE, ONE_HOT, SPLINE, BAGGING, ISOLATION],
    ids=lambda model: type(model).__name__,
)
def test_the_same_models_untouched_are_read(model: Any) -> None:
    assert type(read(archived(model))) is type(model)


def _tree_content(schema: dict[str, Any]) -> dict[str, Any]:
    (tree,) = nodes_of("TreeNode", schema)
    return tree


def change_node_count(schema: dict[str, Any], members: dict[str, bytes]) -> None:
    _tree_content(schema)["content"]["content"]["node_count"]["content"] = "1000000"


def change_outputs(schema: dict[str, Any], members: dict[str, bytes]) -> None:
    _tree_content(schema)["__reduce__"]["args"]["content"][2]["content"] = "1000000"


def negative_features(schema: dict[str, Any], members: dict[str, bytes]) -> None:
    _tree_content(schema)["__reduce__"]["args"]["content"][0]["content"] = "-1"


def fewer_arguments(schema: dict[str, Any], members: dict[str, bytes]) -> None:
    _tree_content(schema)["__reduce__"]["args"]["content"].pop()


def no_nodes(schema: dict[str, Any], members: dict[str, bytes]) -> None:
    content = _tree_content(schema)["content"]
    content["content"]["more"] = content["content"].pop("nodes")


def a_list_of_nodes(schema: dict[str, Any], members: dict[str, bytes]) -> None:
    content = _tree_content(schema)["content"]["content"]
    content["more"] = dict(content["nodes"])
    content["nodes"] = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": []}
    _tree_content(schema)["content"]["key_types"]["content"].append(
        _tree_content(schema)["content"]["key_types"]["content"][0]
    )


STORED = {
    change_node_count: "another number of nodes",
    change_outputs: "another number of outputs",
    negative_features: "not numbers",
    fewer_arguments: "not stored as scikit-learn",
    no_nodes: "incomplete",
    a_list_of_nodes: "no array",
}


@pytest.mark.parametrize(("edit", "message"), STORED.items(), ids=lambda value: getattr(value, "__name__", "-"))
def test_a_tree_is_checked_before_it_is_built(edit: Callable[..., None], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        read(edited(archived(TREE), edit))


def test_a_compiled_object_without_its_state_is_refused() -> None:
    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        tree = attributes(schema)["_tree"]
        for node in list(nodes_of("NdArrayNode", tree)):
            members.pop(node.get("file", ""), None)
        del tree["content"]

    with pytest.raises(PackageError, match="without its state"):
        read(edited(archived(NEIGHBOURS), edit))


def test_a_loss_function_has_no_state_of_its_own() -> None:
    def state(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (loss, *_) = nodes_of("LossNode", schema)
        loss["content"] = loss["__reduce__"]["args"]

    def parameter(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (loss, *_) = nodes_of("LossNode", schema)
        loss["__reduce__"]["args"]["content"] = [dict(loss["content"])]

    data = archived(HISTOGRAM)
    with pytest.raises(PackageError, match="stored with a state"):
        read(edited(edited(data, parameter), state))
    with pytest.raises(PackageError, match="not a number"):
        read(edited(data, parameter))


def test_a_random_generator_has_a_reasonable_seed() -> None:
    def pool(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (generator,) = nodes_of("RandomGeneratorNode", schema)
        generator["content"]["seed_seq"]["content"]["pool_size"]["content"] = "1000000000"

    def nothing(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (generator,) = nodes_of("RandomGeneratorNode", schema)
        generator["content"]["seed_seq"] = generator["content"]["seed_seq"]["key_types"]

    for edit, message in ((pool, "unreasonable pool"), (nothing, "no seed")):
        with pytest.raises(PackageError, match=message):
            read(edited(archived(HISTOGRAM), edit))


def test_a_state_that_a_class_cannot_take_is_refused() -> None:
    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (state, *_) = nodes_of("RandomStateNode", schema)
        state["content"]["content"]["bit_generator"]["content"] = '"marker"'

    with pytest.raises(PackageError, match="cannot be built"):
        read(edited(archived(TREES_OF_RANDOM), edit))


def test_an_array_of_objects_is_as_deep_as_its_shape() -> None:
    def flat(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (array,) = (n for n in nodes_of("NdArrayNode", schema) if n["type"] == "json")
        array["content"] = [item for row in array["content"] for item in row["content"]]

    def short(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (array,) = (n for n in nodes_of("NdArrayNode", schema) if n["type"] == "json")
        array["shape"]["content"][0]["content"] = "7"

    model = having(LogisticRegression(), C=np.array([[1, "a"], [2, "b"]], dtype=object))
    assert read(archived(model)).C.tolist() == [[1, "a"], [2, "b"]]
    for edit, message in ((flat, "nested"), (short, "another number")):
        with pytest.raises(PackageError, match=message):
            read(edited(archived(model), edit))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("100000000", "another number"),
        ("-1", "not made of sizes"),
        ("true", "not made of sizes"),
        ('"2"', "not made of"),
    ],
)
def test_an_array_of_objects_is_compared_with_its_shape_before_it_is_made(
    size: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (array,) = (n for n in nodes_of("NdArrayNode", schema) if n["type"] == "json")
        array["content"], array["shape"]["content"][0]["content"] = [], size

    data = edited(archived(having(LogisticRegression(), C=np.array(["a", None], dtype=object))), edit)
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("memory is taken"))
    with pytest.raises(PackageError, match=message):
        read(data)


class Marker:
    """A class that notes when one of it is built."""

    built: list[str] = []

    def __new__(cls) -> Marker:
        cls.built.append("new")
        return super().__new__(cls)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.built.append("state")


Marker.__module__ = "benign"


def foreign() -> bytes:
    """Return an honest archive in which one class has become another, of the same kind of node."""

    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        schema["__module__"], schema["__class__"] = "benign", "Marker"

    return edited(archived(LogisticRegression().fit(X, Y)), edit)


def test_a_type_that_is_not_listed_needs_a_grant_and_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_import(name: str) -> None:
        raise AssertionError(f"{name} is imported")

    monkeypatch.setattr("importlib.import_module", no_import)
    with pytest.raises(TrustError, match=r"benign\.Marker") as info:
        read(foreign())
    assert info.value.code == "code-not-allowed"


def test_with_a_grant_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("benign")
    module.Marker = Marker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benign", module)
    monkeypatch.setattr(Marker, "built", [])
    read(foreign(), allowed=True)
    assert Marker.built == ["new", "state"]


def test_a_pickle_needs_a_grant() -> None:
    with pytest.raises(TrustError, match="runs whatever it says") as info:
        read(b"never read", format_id="pickle")
    assert info.value.code == "code-not-allowed"


def test_a_function_on_no_list_is_not_reached_through_a_transformer() -> None:
    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        (function,) = nodes_of("FunctionNode", schema)
        function["__module__"], function["__class__"] = "benign", "marker"

    with pytest.raises(TrustError, match=r"benign\.marker"):
        read(edited(archived(FunctionTransformer(np.log1p)), edit))


def test_another_version_of_scikit_learn_is_said_plainly() -> None:
    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        attributes(schema)["_sklearn_version"]["content"] = '"1.0.2"'

    with pytest.raises(EnvironmentMismatch, match=r"saved with scikit-learn 1\.0\.2") as info:
        read(edited(archived(LogisticRegression().fit(X, Y)), edit))
    assert info.value.code == "environment-mismatch"
    assert "1.0.2" in info.value.hint


def test_a_patch_of_scikit_learn_is_no_other_version() -> None:
    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        major, minor = sklearn.__version__.split(".")[:2]
        attributes(schema)["_sklearn_version"]["content"] = f'"{major}.{minor}.99"'

    model = LogisticRegression().fit(X, Y)
    np.testing.assert_array_equal(read(edited(archived(model), edit)).predict(X), model.predict(X))


def test_another_version_is_taken_by_those_who_ask_for_it(tmp_path: Path) -> None:
    """Whatever says so: the manifest, which is compared first, or the payload."""

    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        attributes(schema)["_sklearn_version"]["content"] = '"1.0.2"'

    model = LogisticRegression().fit(X, Y)
    package = modelpack.save(model, tmp_path / "package", flavor="sklearn", example=X)
    payload = edited((package.path / "payloads/native/model.skops").read_bytes(), edit)
    changed = package.manifest.model_dump(mode="json")
    for file in changed["files"]:
        if file["path"] == "payloads/native/model.skops":
            file["size"], file["digest"] = len(payload), f"sha256:{hashlib.sha256(payload).hexdigest()}"
    lines = "".join(f"{file['digest'][7:]}  {file['path']}\n" for file in changed["files"])
    changed["content_digest"] = f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    (package.path / "payloads/native/model.skops").write_bytes(payload)
    (package.path / "modelpack.json").write_bytes(Manifest.model_validate(changed).to_bytes())
    with pytest.raises(EnvironmentMismatch, match=r"saved with scikit-learn 1\.0\.2"):
        modelpack.load(package.path)
    loaded = modelpack.load(package.path, environment_policy="ignore")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_every_native_type_of_the_list_has_a_check() -> None:
    """Types whose state compiled code trusts are listed as native; each is known to the checks by a base class."""
    import importlib

    covered = set(invariants._NATIVE)
    for name in skops_types.listed().native:
        module, _, cls = name.rpartition(".")
        found = getattr(importlib.import_module(module), cls, None)
        if found is not None:  # of another version of scikit-learn
            assert {f"{base.__module__}.{base.__name__}" for base in found.__mro__} & covered, name


def test_an_object_without_a_check_is_refused() -> None:
    from sklearn.neighbors._quad_tree import _QuadTree

    model = having(LogisticRegression(), C=_QuadTree(2, 0))
    with pytest.raises(PackageError, match="there is no check for its state"):
        invariants.check(model, "model.skops")
    invariants.check(model, "model.skops", strict=False)


@pytest.mark.parametrize(
    ("matrix", "name", "change"),
    [
        (sp.csr_matrix(TENS), "indices", put(0, -1)),
        (sp.csr_matrix(TENS), "indptr", put(0, 1)),
        (sp.csr_matrix(TENS), "indptr", put(-1, 10**6)),
        (sp.csc_matrix(TENS), "indices", put(0, 80)),
        (sp.coo_matrix(TENS), "row", put(0, 80)),
        (sp.bsr_matrix(TENS, blocksize=(2, 2)), "indices", put(0, 9)),
    ],
    ids=["csr indices", "csr pointers", "csr end", "csc", "coo", "bsr"],
)
def test_sparse_matrices_point_at_their_own_cells(matrix: Any, name: str, change: Callable[[Any], None]) -> None:
    model = having(LogisticRegression(), C=lambda _: matrix)
    invariants.check(model, "m")
    model = having(LogisticRegression(), C=lambda _: copy.deepcopy(matrix))
    change(getattr(model.C, name))
    with pytest.raises(PackageError, match=r"outside|not in order|behind its data"):
        invariants.check(model, "m")


def test_diagonals_have_offsets() -> None:
    matrix = sp.dia_matrix((np.ones((2, 3)), [0, 1]), shape=(3, 3))
    model = having(LogisticRegression(), C=lambda _: matrix)
    invariants.check(model, "m")
    matrix.offsets = np.array([0])
    with pytest.raises(PackageError, match="do not match"):
        invariants.check(model, "m")


def test_a_package_with_a_tampered_model_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(invariants, "check", lambda *args, **more: None)
        bad = make_pipeline(FunctionTransformer(np.log1p), with_tree(TREE, left_child=put(0, 10**6)))
        modelpack.save(bad, tmp_path / "pkg")
    assert modelpack.open(tmp_path / "pkg").plan().candidates[0].trust == "objects"
    with pytest.raises(PackageError, match="does not exist"):
        modelpack.load(tmp_path / "pkg")


def test_a_model_that_would_not_load_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="reads files"):
        FLAVOR.save(HashingVectorizer(input="filename"), SaveContext(directory=tmp_path, options={}))


def test_nothing_inside_is_asked_before_everything_is_checked() -> None:
    """The initial estimator of gradient boosting is asked about a row, but not while its own tree is tampered with."""
    inner = with_tree(DecisionTreeClassifier(random_state=0).fit(X, Y3), left_child=put(0, 10**6))
    with pytest.raises(PackageError, match="does not exist"):
        read(archived(having(BOOSTING, init_=lambda _: inner)))
    nested = having(BOOSTING, init_=lambda _: having(BOOSTING, init_=lambda _: LogisticRegression().fit(X, Y)))
    with pytest.raises(PackageError, match=r"initial estimator|inconsistent"):
        read(archived(nested))


def test_labels_that_a_binarizer_has_met_are_numbered_like_its_classes() -> None:
    binarizer = MultiLabelBinarizer().fit([["a", "b"]])
    binarizer.transform([["a"]])
    invariants.check(binarizer, "m")
    binarizer._cached_dict = {"a": 10**6}
    with pytest.raises(PackageError, match="not numbered"):
        invariants.check(binarizer, "m")


def test_models_that_were_never_fitted_have_nothing_to_check() -> None:
    for model in (TREE, FOREST, BOOSTING, HISTOGRAM, NEIGHBOURS, MACHINE, ONE_HOT, SPLINE, BAGGING, WORDS):
        invariants.check(clone(model), "m")
    invariants.check([KMeans(2), NMF(2), MultiLabelBinarizer()], "m")


def test_a_generator_reads_from_its_own_buffer() -> None:
    generator = np.random.Generator(np.random.Philox(0))
    invariants.check([generator], "m")
    state = generator.bit_generator.state
    generator.bit_generator.state = {**state, "buffer_pos": 9}
    with pytest.raises(PackageError, match="buffer"):
        invariants.check([generator], "m")


def test_a_sparse_matrix_holds_numbers() -> None:
    matrix = sp.csr_matrix(TENS)
    matrix.data = matrix.data.astype(object)
    with pytest.raises(PackageError, match="holds objects"):
        invariants.check([matrix], "m")
