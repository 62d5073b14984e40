"""Checks of estimators that hand arrays to compiled code, which does not check their sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelpack_flavors._sklearn.parts import full_name, reachable

__all__ = ["CHECKS", "PROBES"]


# More threads or processes than this are no wish of anybody who trains models.
_MAX_JOBS = 1024


def parallel(model: Any) -> Iterator[str]:
    """Check the number of jobs, which are processes or threads at every call."""
    jobs = getattr(model, "n_jobs", None)
    if jobs is not None and not (isinstance(jobs, int) and -_MAX_JOBS <= jobs <= _MAX_JOBS):
        yield "its number of jobs is out of range"


def decision_tree(model: Any) -> Iterator[str]:
    """Check that a tree is for the columns that its estimator lets in."""
    if not hasattr(model, "tree_"):
        return
    if full_name(model.tree_) != "sklearn.tree._tree.Tree":
        yield "its tree is not a tree"
    elif model.tree_.n_features != model.n_features_in_:
        yield "its tree is for another number of columns"


def forest(model: Any) -> Iterator[str]:
    """Check that all trees of a forest are trees for the forest's columns."""
    for one in getattr(model, "estimators_", ()):
        if not _is_tree(one) or one.n_features_in_ != model.n_features_in_:
            yield "one of its trees is for another number of columns"


def bagging(model: Any) -> Iterator[str]:
    """Check that each estimator gets the columns it is for."""
    estimators = getattr(model, "estimators_", None)
    if estimators is None:
        return
    columns = model.estimators_features_
    if len(columns) != len(estimators):
        yield "it has another number of lists of columns than of estimators"
    for one, chosen in zip(estimators, columns, strict=True):
        if not ((chosen >= 0) & (chosen < model.n_features_in_)).all():
            yield "one of its estimators takes columns that do not exist"
        if _is_tree(one):
            whole = getattr(model, "_max_features", len(chosen)) == model.n_features_in_
            if one.n_features_in_ != (model.n_features_in_ if whole else len(chosen)):
                yield "one of its trees is for another number of columns"


def gradient_boosting(model: Any) -> Iterator[str]:
    """Check that the trees are regressors of one value for the model's columns, as many per step as outputs."""
    if not hasattr(model, "estimators_"):
        return
    stages = model.estimators_
    if stages.dtype != object or stages.ndim != 2 or stages.shape[1] != model.n_trees_per_iteration_:
        yield "it has another number of trees per step than of outputs"
        return
    for one in stages.ravel():
        if not _is_tree(one) or one.n_features_in_ != model.n_features_in_:
            yield "one of its trees is for another number of columns"
        elif one.tree_.n_outputs != 1 or one.tree_.max_n_classes != 1:
            yield "one of its trees has more than one value"


def initial_estimator(model: Any) -> Iterator[str]:
    """Ask the initial estimator of gradient boosting about one row: compiled code adds into the array it answers.

    Only for a model whose parts have all been checked.
    """
    import numpy as np

    if not hasattr(model, "estimators_"):
        return
    if model.init_ != "zero" and not all(map(_keeps_rows, list(reachable(model.init_)))):
        yield "its initial estimator may answer another number of rows than it is asked for"
        return
    initial = type(model)._raw_predict_init(model, np.zeros((1, model.n_features_in_)))
    if initial.shape != (1, model.n_trees_per_iteration_) or initial.dtype != np.float64:
        yield "its initial estimator has another number of outputs"


def hist_gradient_boosting(model: Any) -> Iterator[str]:
    """Check that the nodes of every predictor name columns, nodes and categories that exist."""
    if not hasattr(model, "_predictors"):
        return
    yield from _bins(model._bin_mapper, model.n_features_in_)
    preprocessor = getattr(model, "_preprocessor", None)
    if preprocessor is not None:
        yield from _preprocessor(preprocessor, model.n_features_in_)
    for step in model._predictors:
        for one in step:
            if full_name(one) != "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor":
                yield "one of its predictors is not a predictor"
            elif (feature := _last_feature(one)) >= model.n_features_in_:
                yield f"a predictor splits on column {feature}"


def _preprocessor(preprocessor: Any, columns: int) -> Iterator[str]:
    import numpy as np

    kept = 0
    if full_name(preprocessor) != "sklearn.compose._column_transformer.ColumnTransformer":
        yield "its preprocessor is none"
        return
    for name, step, chosen in preprocessor.transformers_:
        if isinstance(step, str) and step == "drop":
            continue
        indices = list(preprocessor._transformer_to_input_indices[name])
        kept += len(indices)
        if list(np.arange(columns)[chosen]) != indices:
            yield "its preprocessor takes other columns than it says"
        if full_name(step) not in _ONE_TO_ONE or (hasattr(step, "func") and not _checks_only(step.func)):
            yield "its preprocessor gives another number of columns"
    if kept != columns or preprocessor.n_features_in_ != columns:
        yield "its preprocessor gives another number of columns"


_ONE_TO_ONE = frozenset({
    "sklearn.preprocessing._encoders.OrdinalEncoder",
    "sklearn.preprocessing._function_transformer.FunctionTransformer",
})  # fmt: skip


def _checks_only(function: Any) -> bool:
    """Say whether a function returns its array as it is, checked: what histogram-based models put there."""
    from sklearn.utils import check_array

    if isinstance(function, functools.partial):
        return function.func is check_array and not function.args
    return function is None or function is check_array


def _keeps_rows(part: Any) -> bool:
    """Say whether a part of an estimator cannot change how many rows it answers: no function of whole arrays in it."""
    import numpy as np

    if isinstance(part, functools.partial):
        return True  # the estimator that holds it is asked
    functions = [getattr(part, name, None) for name in ("func", "inverse_func", "pooling_func")]
    return all(_checks_only(one) or one in (np.mean, np.median) or _is_elementwise(one) for one in functions)


def _is_elementwise(function: Any) -> bool:
    import numpy as np

    return isinstance(function, np.ufunc) and (function.nin, function.nout, function.signature) == (1, 1, None)


def _bins(mapper: Any, columns: int) -> Iterator[str]:
    if len(mapper.is_categorical_) != columns or len(mapper.bin_thresholds_) != columns:
        yield "its bins are for another number of columns"
        return
    for categorical, thresholds in zip(mapper.is_categorical_, mapper.bin_thresholds_, strict=True):
        if categorical and not ((thresholds >= 0) & (thresholds <= 255)).all():
            yield "a category is not between 0 and 255"


def _last_feature(predictor: Any) -> int:
    nodes = predictor.nodes
    split = nodes["feature_idx"][nodes["is_leaf"] == 0]
    return int(split.max()) if len(split) else -1


def tree_predictor(predictor: Any) -> Iterator[str]:
    """Check the nodes of one predictor of a histogram-based model."""
    import numpy as np
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = predictor.nodes
    if nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or not len(nodes):
        yield "its nodes are not nodes"
        return
    inner = nodes[nodes["is_leaf"] == 0]
    number = np.flatnonzero(nodes["is_leaf"] == 0)
    for side in ("left", "right"):
        if not ((inner[side] > number) & (inner[side] < len(nodes))).all():
            yield "a child does not come after its parent, or does not exist"
    if not (inner["feature_idx"] >= 0).all():
        yield "a node splits on a column that does not exist"
    bitsets = predictor.raw_left_cat_bitsets
    if bitsets.ndim != 2 or bitsets.dtype != np.uint32 or (len(bitsets) and bitsets.shape[1] != 8):
        yield "its sets of categories are not sets"
    elif not (inner["bitset_idx"][inner["is_categorical"] != 0] < len(bitsets)).all():
        yield "a node has a set of categories that does not exist"


def support_vectors(model: Any) -> Iterator[str]:
    """Check the arrays that libsvm reads: counts, vectors, coefficients and intercepts belong together."""
    if not hasattr(model, "support_vectors_"):
        return
    counts, vectors, sparse = model._n_support, model.support_vectors_, bool(model._sparse)
    total = len(model.support_)
    classifier = model._impl in ("c_svc", "nu_svc")
    classes = len(counts) if classifier else 2
    if classes < 2 or (counts < 0).any() or int(counts.sum() if classifier else counts[0]) != total:
        yield "its counts of support vectors do not add up"
    if classifier and classes != len(model.classes_):
        yield "it has another number of classes than of counts"
    own_kernel = model.kernel == "precomputed" or callable(model.kernel)
    if not own_kernel and vectors.shape != (total, model.n_features_in_):
        yield "it has another number of support vectors than it says, or they are not as wide as its input"
    pairs = classes * (classes - 1) // 2
    coefficients = model._dual_coef_
    if coefficients.shape != (classes - 1, total) or (sparse and coefficients.nnz != (classes - 1) * total):
        yield "its coefficients have another shape than its support vectors"
    if model._intercept_.shape != (pairs,):
        yield "it has another number of intercepts than of pairs of classes"
    if not {len(model._probA), len(model._probB)} <= {0, pairs} or len(model._probA) != len(model._probB):
        yield "its probabilities are for another number of classes"
    if own_kernel:
        # libsvm looks the kernel's values up by the number of the support vector's row.
        width = model.shape_fit_[0] if callable(model.kernel) else model.n_features_in_
        if not ((model.support_ >= 0) & (model.support_ < width)).all():
            yield "a support vector is not one of its rows"
        if callable(model.kernel) and (model._BaseLibSVM__Xfit.shape[0] != width or not _is_kernel(model.kernel)):
            yield "its kernel answers with another number of values"


def _is_kernel(function: Any) -> bool:
    """Say whether a function answers one value for each pair of rows; those that are nobody's we know are believed."""
    if isinstance(function, functools.partial):
        return not function.args and _is_kernel(function.func)
    module = str(getattr(function, "__module__", None) or "numpy")
    return module == "sklearn.metrics.pairwise" or module.partition(".")[0] not in ("numpy", "scipy", "sklearn")


def k_means(model: Any) -> Iterator[str]:
    """Check that the centres are as wide as the input."""
    if not hasattr(model, "cluster_centers_"):
        return
    if model.cluster_centers_.ndim != 2 or model.cluster_centers_.shape[1] != model.n_features_in_:
        yield "its centres are not as wide as its input"
    if not 1 <= model._n_threads <= _MAX_JOBS:
        yield "its number of threads is out of range"
    pending = [getattr(model, "_bisecting_tree", None)]
    while pending:
        node = pending.pop()
        if node is None:
            continue
        if node.center.shape != (model.n_features_in_,):
            yield "a centre is not as wide as its input"
        pending += [getattr(node, "left", None), getattr(node, "right", None)]


def components(model: Any) -> Iterator[str]:
    """Check that the components are as wide as the input."""
    found = getattr(model, "components_", None)
    if found is not None and found.shape[1] != model.n_features_in_:
        yield "its components are not as wide as its input"


def b_spline(spline: Any) -> Iterator[str]:
    """Check that knots, degree and coefficients of a spline belong together."""
    import numpy as np

    knots = np.asarray(spline.__dict__.get("_t", spline.__dict__.get("t")))
    coefficients = np.asarray(spline.__dict__.get("_c", spline.__dict__.get("c")))
    degree = spline.k
    if isinstance(degree, bool) or not 0 <= int(degree) <= 100 or knots.ndim != 1:
        yield "its degree or its knots are out of range"
    elif len(knots) < 2 * int(degree) + 2 or len(coefficients) < len(knots) - int(degree) - 1:
        yield "it has too few knots or coefficients for its degree"
    elif not np.isfinite(knots).all() or (np.diff(knots) < 0).any():
        yield "its knots are not in order"


def _is_tree(value: Any) -> bool:
    return any(base.__module__ == "sklearn.tree._classes" and base.__name__ == "BaseDecisionTree"
               for base in type(value).__mro__) and hasattr(value, "tree_")  # fmt: skip


CHECKS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "scipy.interpolate._bsplines.BSpline": b_spline,
    "sklearn.base.BaseEstimator": parallel,
    "sklearn.cluster._kmeans._BaseKMeans": k_means,
    "sklearn.decomposition._dict_learning._BaseSparseCoding": components,
    "sklearn.decomposition._nmf._BaseNMF": components,
    "sklearn.ensemble._bagging.BaseBagging": bagging,
    "sklearn.ensemble._forest.BaseForest": forest,
    "sklearn.ensemble._gb.BaseGradientBoosting": gradient_boosting,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting": hist_gradient_boosting,
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": tree_predictor,
    "sklearn.svm._base.BaseLibSVM": support_vectors,
    "sklearn.tree._classes.BaseDecisionTree": decision_tree,
}

# Checks that call the model, for when everything below it is known to be sound.
PROBES: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "sklearn.ensemble._gb.BaseGradientBoosting": initial_estimator,
}
