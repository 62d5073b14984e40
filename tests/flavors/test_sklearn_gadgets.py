"""Models of listed types only, put together so that a listed part does what it is not for. All markers are benign."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.cluster import FeatureAgglomeration
from sklearn.compose import TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif, mutual_info_classif
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.metrics.pairwise import linear_kernel, pairwise_distances, rbf_kernel
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multioutput import ClassifierChain
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils import Bunch, check_array
from skops_files import archived, edited, read

import modelpack
from modelpack.errors import ModelpackError, PackageError, SaveError, TrustError
from modelpack.trust import default_store

RANDOM = np.random.RandomState(0)
X = RANDOM.rand(60, 4)
Y = X @ [1.0, 2.0, 0.0, 1.0]
MEAN = Y.mean()
LABELS = (Y > MEAN).astype(int)
TENS = (X * 10).astype(int)
TREE = DecisionTreeRegressor(max_depth=2, random_state=0).fit(X, Y)
CATEGORIES = HistGradientBoostingClassifier(max_iter=2, categorical_features=[0], random_state=0).fit(TENS, LABELS)


def having(model: Any, **attributes: Any) -> Any:
    """Return a model with attributes put where its class would not."""
    model.__dict__.update(attributes)
    return model


def scorer(response: Any = "predict") -> Any:
    return having(make_scorer(f1_score), _response_method=response)


def cached() -> Any:
    return Pipeline([("scale", StandardScaler())], memory="payloads/cache")


def function(func: Any, **arguments: Any) -> Any:
    return FunctionTransformer(func, kw_args=arguments or None)


def loss() -> Any:
    return GradientBoostingRegressor(n_estimators=1).fit(X, Y)._loss


def stacked(method: str) -> Any:
    return having(StackingRegressor([("a", LinearRegression())], cv=2).fit(X, Y), stack_method_=[method])


def threshold(method: str) -> Any:
    return having(FixedThresholdClassifier(LogisticRegression()).fit(X, LABELS), response_method=method)


def chained(method: str) -> Any:
    return having(ClassifierChain(LogisticRegression()).fit(X, np.c_[LABELS, LABELS]), chain_method_=method)


def in_partial(namespace: dict[str, Any]) -> Any:
    made = functools.partial(np.mean, axis=0)
    made.__dict__.update(namespace)
    return made


# What could be somebody's own becomes class code.
UNREVIEWED: dict[str, tuple[Callable[[], Any], str]] = {
    "a scorer in a partial call": (
        lambda: function(functools.partial(scorer(), LinearRegression(), X)),
        "functools.partial",
    ),
    "a scorer as the function": (lambda: function(scorer()), r"FunctionTransformer\.func"),
    "a scorer as the inverse": (
        lambda: FunctionTransformer(inverse_func=scorer()),
        r"FunctionTransformer\.inverse_func",
    ),
    "a kernel as the function": (lambda: function(RBF()), r"FunctionTransformer\.func"),
    "a class as the function": (lambda: function(np.ndarray), r"FunctionTransformer\.func"),
    "a loss as the function": (lambda: function(loss(), raw_prediction=X[:1]), r"FunctionTransformer\.func"),
    "a loss for a function": (lambda: function(pairwise_distances, metric=loss()), r"FunctionTransformer\.kw_args"),
    "jobs without end": (lambda: function(pairwise_distances, n_jobs=10**6), r"FunctionTransformer\.kw_args"),
    "jobs in a partial call": (
        lambda: function(functools.partial(pairwise_distances, n_jobs=1e6)),
        "functools.partial",
    ),
    "an estimator in a partial call": (
        lambda: function(functools.partial(np.mean, LinearRegression())),
        "functools.partial",
    ),
    "a partial call that is more": (lambda: function(in_partial({"predict": np.mean})), "functools.partial"),
    "a pipeline's cache": (cached, r"Pipeline\.memory"),
    "a cache inside": (lambda: GridSearchCV(cached(), {}), r"Pipeline\.memory"),
    "a cluster's cache": (lambda: FeatureAgglomeration(memory="cache"), r"FeatureAgglomeration\.memory"),
    "a method that is a function": (
        lambda: having(DecisionTreeRegressor(), _validate_X_predict=functools.partial(check_array, dtype="float32")),
        r"DecisionTreeRegressor\._validate_X_predict",
    ),
    "a probe that is a function": (
        lambda: having(GradientBoostingRegressor(), _raw_predict_init=np.mean),
        r"GradientBoostingRegressor\._raw_predict_init",
    ),
    "a tree as an estimator": (
        lambda: having(VotingRegressor([("a", TREE)]), estimators_=[TREE.tree_]),
        r"sklearn\.tree\._tree\.Tree",
    ),
    "a tree as the model": (lambda: TREE.tree_, r"sklearn\.tree\._tree\.Tree"),
    "a tree in two places": (lambda: [TREE, TREE.tree_], r"sklearn\.tree\._tree\.Tree"),
    "bins as a step": (
        lambda: Pipeline([("a", HistGradientBoostingClassifier(max_iter=1).fit(X, LABELS)._bin_mapper)]),
        "_BinMapper",
    ),
    "a bunch as an estimator": (lambda: Pipeline([("a", Bunch(predict=np.mean))]), "Bunch"),
    "a function of k-means": (
        lambda: function(sklearn.cluster._kmeans._kmeans_single_lloyd, sample_weight=X[:1, 0]),
        "_kmeans_single_lloyd",
    ),
    "a kernel that is an object": (lambda: SVC(kernel=scorer()), r"SVC\.kernel"),
    "a metric that is an object": (lambda: KNeighborsClassifier(metric=scorer()), r"KNeighborsClassifier\.metric"),
    "a tokenizer that is an object": (lambda: CountVectorizer(tokenizer=scorer()), r"CountVectorizer\.tokenizer"),
    "a preprocessor that is an object": (lambda: TfidfVectorizer(preprocessor=RBF()), r"TfidfVectorizer\.preprocessor"),
    "an analyzer that is a class": (lambda: HashingVectorizer(analyzer=list), r"HashingVectorizer\.analyzer"),
    "values made by a function": (lambda: collections.defaultdict(np.mean), r"numpy\.mean"),
    "a pattern without end": (
        lambda: CountVectorizer(token_pattern=r"(\w+\s?)+$"),
        r"CountVectorizer\.token_pattern",
    ),
    "a selector's pattern without end": (
        lambda: make_column_selector(pattern=r"^(\w+\s?)+$"),
        r"make_column_selector\.pattern",
    ),
}


@pytest.mark.parametrize(("made", "name"), UNREVIEWED.values(), ids=UNREVIEWED)
def test_a_part_in_another_place_needs_a_grant(made: Callable[[], Any], name: str) -> None:
    with pytest.raises(TrustError, match=name) as info:
        read(archived(made()))
    assert info.value.code == "code-not-allowed"


# What no library writes is refused.
IMPOSSIBLE: dict[str, tuple[Callable[[], Any], str]] = {
    "a scorer that fits": (lambda: GridSearchCV(LinearRegression(), {}, scoring=scorer("fit")), "does not score"),
    "a scorer that writes": (lambda: [scorer(["predict", "save_model"])], "does not score"),
    "a stack that fits": (lambda: stacked("fit"), "does not score"),
    "a threshold that fits": (lambda: threshold("fit"), "does not score"),
    "a chain that fits": (lambda: chained("fit"), "does not score"),
    "a method that is an object": (lambda: having(DecisionTreeRegressor(), _validate_X_predict=RBF()), "hides its"),
    "a method that is a text": (lambda: having(LinearRegression(), predict="marker"), "hides its predict"),
    "a method of a helper": (lambda: having(RBF(), diag=RBF()), "hides its diag"),
    "a property": (lambda: having(Pipeline([("a", StandardScaler())]), named_steps={}), "hides its named_steps"),
    "a method that is there at times": (
        lambda: having(Pipeline([("a", StandardScaler())]), transform=RBF()),
        "hides its transform",
    ),
    "a table of the class": (
        lambda: having(SVC().fit(sp.csr_matrix(X), LABELS), _sparse_kernels=["linear", "poly", "a", "b", "rbf"]),
        "hides its _sparse_kernels",
    ),
    "a dunder": (lambda: having(LinearRegression(), __sklearn_tags__=1), "__sklearn_tags__"),
    "rows that become one": (
        lambda: GradientBoostingRegressor(
            n_estimators=1,
            init=make_pipeline(function(functools.partial(np.mean, axis=0, keepdims=True)), LinearRegression()),
        ).fit(X[:1], Y[:1]),
        "number of rows",
    ),
    "rows that become one at the end": (
        lambda: having(
            GradientBoostingRegressor(n_estimators=1).fit(X, Y),
            init_=TransformedTargetRegressor(
                LinearRegression(), func=np.cumsum, inverse_func=np.atleast_1d, check_inverse=False
            ).fit(X, Y),
        ),
        "number of rows",
    ),
    "columns that become one": (lambda: preprocessed(func=functools.partial(np.sum, axis=1, keepdims=True)), "columns"),
    "columns of another array": (lambda: preprocessed(func=functools.partial(check_array, X[:, :1])), "columns"),
    "columns of no preprocessor": (
        lambda: having(_copy(CATEGORIES), _preprocessor=having(function(np.mean), **vars(CATEGORIES._preprocessor))),
        "preprocessor is none",
    ),
    "columns that are left out": (lambda: preprocessed(columns=slice(0, 1)), "other columns than it says"),
    "a kernel of fewer values": (lambda: kernelled(functools.partial(np.mean, axis=1)), "number of values"),
    "a kernel of another array": (lambda: kernelled(functools.partial(rbf_kernel, X[:2])), "number of values"),
    "a kernel of fewer rows": (lambda: having(kernelled(rbf_kernel), _BaseLibSVM__Xfit=X[:2]), "number of values"),
}


def preprocessed(func: Any = None, columns: Any = None) -> Any:
    """A histogram-based model with another preprocessor of the columns that are no categories."""
    first, (name, step, chosen), *rest = CATEGORIES._preprocessor.transformers_
    changed = having(sklearn.base.clone(step), func=func) if func is not None else step
    parts = [first, (name, changed, chosen if columns is None else columns), *rest]
    inner = having(_copy(CATEGORIES._preprocessor), transformers_=parts)
    return having(_copy(CATEGORIES), _preprocessor=inner)


def _copy(model: Any) -> Any:
    made = type(model).__new__(type(model))
    return having(made, **vars(model))


def kernelled(kernel: Any) -> Any:
    return having(SVC(kernel=linear_kernel).fit(X, LABELS), kernel=kernel)


@pytest.mark.parametrize(("made", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_part_that_no_library_writes_is_refused(made: Callable[[], Any], message: str) -> None:
    with pytest.raises(PackageError, match=message) as info:
        read(archived(made()))
    assert (info.value.code, info.value.path) == ("payload-invalid", "model.skops")


def test_nothing_is_called_before_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: a transformer that scores a pipeline by fitting it, whose cache is unpickled."""
    monkeypatch.chdir(tmp_path)
    way = functools.partial(scorer("fit"), cached(), X)
    with pytest.raises(ModelpackError):
        read(archived(function(way))).transform(X)
    assert list(tmp_path.iterdir()) == []


LEGITIMATE: dict[str, Callable[[], Any]] = {
    "a ufunc": lambda: function(np.log1p),
    "a partial call": lambda: function(functools.partial(np.clip, a_min=0, a_max=1)),
    "a distance": lambda: KNeighborsClassifier(metric=pairwise_distances, algorithm="brute"),
    "a score": lambda: SelectKBest(functools.partial(mutual_info_classif, random_state=0), k=2).fit(X, LABELS),
    "a scorer": lambda: GridSearchCV(
        selecting(),
        {"selectkbest__score_func": [f_classif]},
        scoring=make_scorer(f1_score, average="macro"),
        cv=2,
    ).fit(X, LABELS),
    "scorers": lambda: GridSearchCV(
        LogisticRegression(), {"C": [1, 2]}, scoring=["f1", "roc_auc"], refit="f1", cv=2
    ).fit(X, LABELS),
    "a target": lambda: TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1).fit(X, Y),
    "a kernel": lambda: SVC(kernel=functools.partial(rbf_kernel, gamma=0.5)).fit(X, LABELS),
    "a threshold": lambda: threshold("predict_proba"),
    "a chain": lambda: chained("predict_proba"),
    "an initial estimator": lambda: GradientBoostingRegressor(
        n_estimators=1, init=make_pipeline(function(np.sqrt), LinearRegression())
    ).fit(X, Y),
    "a pattern": lambda: TfidfVectorizer(token_pattern=r"(?u)\b[a-z]{2,}\b").fit(["good day"]),
    "a selector's pattern": lambda: make_column_selector(pattern=r"^num_\w+"),
    "categories": lambda: CATEGORIES,
}


def selecting() -> Any:
    return make_pipeline(SelectKBest(k=2), LogisticRegression())


@pytest.mark.parametrize("made", LEGITIMATE.values(), ids=LEGITIMATE)
def test_what_people_make_still_loads_without_a_grant(made: Callable[[], Any]) -> None:
    model = made()
    again = read(archived(model))
    if hasattr(model, "predict") and hasattr(model, "n_features_in_"):
        np.testing.assert_array_equal(again.predict(TENS), model.predict(TENS))


def test_a_state_has_one_owner() -> None:
    """Or its parts would be judged by the place they have in one object, and used in another."""
    first, second = LinearRegression(), LinearRegression()

    def edit(schema: dict[str, Any], members: dict[str, bytes]) -> None:
        one, other = schema["content"]
        one["content"]["__id__"] = 99
        other["content"] = {"__class__": "dict", "__module__": "builtins", "__loader__": "CachedNode", "__id__": 99}

    with pytest.raises(PackageError, match="part of something else"):
        read(edited(archived([first, second]), edit))


def test_saving_refuses_what_loading_would(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="does not score") as info:
        modelpack.save(stacked("fit"), tmp_path / "pkg")
    assert info.value.code == "model-unsupported"
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_a_cache_loads_for_its_owner_and_says_why_for_nobody_else(tmp_path: Path) -> None:
    model = Pipeline([("scale", StandardScaler())], memory=str(tmp_path / "cache")).fit(X)
    package = modelpack.save(model, tmp_path / "pkg", example=X)
    np.testing.assert_array_equal(modelpack.load(package).predict(X), model.transform(X))
    default_store().remove(package.digest)
    with pytest.raises(TrustError, match=r"Pipeline\.memory"):
        modelpack.load(package)
