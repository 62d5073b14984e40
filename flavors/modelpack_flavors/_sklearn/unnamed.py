"""Models fitted on a DataFrame, called with an array: which they are, and the copy that asks for no names.

What scikit-learn does with the names of columns is to compare them with those of the fit, which coercion has done, and
to look columns up by them, which the classes listed here never do. For these a DataFrame is an array that takes long to
make and to take apart. The copy shares everything with the model but the few objects that hold names.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from modelpack.frame import Block, Frame
from modelpack.signature import Signature, Table

__all__ = ["array", "columns", "without_names"]

_NUMBERS = frozenset({*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64"})
_DTYPES = frozenset(map(np.dtype, _NUMBERS))
_LIBRARIES = frozenset({"builtins", "numpy", "scipy", "sklearn"})
_PLAIN = frozenset({bool, int, float, complex, str, bytes, range, slice, type(None), type(Ellipsis)})
# Params that let an estimator write into what it is given: the array would not be the caller's DataFrame.
_IN_PLACE = ("copy", "copy_X", "copy_x")
_NAMES = "feature_names_in_"

# Estimators that never look at names but to compare them, and whose answers to a DataFrame and to the array that it
# makes are the same bits; the suite asks each both ways.
POSITIONAL = frozenset({
    "ARDRegression", "AdaBoostClassifier", "AdaBoostRegressor", "AdditiveChi2Sampler", "AffinityPropagation",
    "BaggingClassifier", "BaggingRegressor", "BayesianGaussianMixture", "BayesianRidge", "BernoulliNB",
    "BernoulliRBM", "Binarizer", "BisectingKMeans", "CCA", "CalibratedClassifierCV", "CategoricalNB",
    "ClassifierChain", "ComplementNB", "DecisionTreeClassifier", "DecisionTreeRegressor", "DictionaryLearning",
    "DummyClassifier", "DummyRegressor", "ElasticNet", "ElasticNetCV", "EllipticEnvelope", "EmpiricalCovariance",
    "ExtraTreeClassifier", "ExtraTreeRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor", "FactorAnalysis",
    "FastICA", "FeatureAgglomeration", "FeatureUnion", "FixedThresholdClassifier", "FrozenEstimator",
    "GammaRegressor", "GaussianMixture", "GaussianNB", "GaussianProcessClassifier", "GaussianProcessRegressor",
    "GaussianRandomProjection", "GenericUnivariateSelect", "GradientBoostingClassifier", "GradientBoostingRegressor",
    "GraphicalLasso", "GraphicalLassoCV", "GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV",
    "HistGradientBoostingClassifier", "HistGradientBoostingRegressor", "HuberRegressor", "IncrementalPCA",
    "IsolationForest", "IsotonicRegression", "KBinsDiscretizer", "KMeans", "KNNImputer", "KNeighborsClassifier",
    "KNeighborsRegressor", "KNeighborsTransformer", "KernelCenterer", "KernelDensity", "KernelPCA", "KernelRidge",
    "LabelBinarizer", "LabelEncoder", "LabelPropagation", "LabelSpreading", "Lars", "LarsCV", "Lasso", "LassoCV",
    "LassoLars", "LassoLarsCV", "LassoLarsIC", "LatentDirichletAllocation", "LedoitWolf",
    "LinearDiscriminantAnalysis", "LinearRegression", "LinearSVC", "LinearSVR", "LocalOutlierFactor",
    "LocallyLinearEmbedding", "LogisticRegression", "LogisticRegressionCV", "MLPClassifier", "MLPRegressor",
    "MaxAbsScaler", "MeanShift", "MinCovDet", "MinMaxScaler", "MiniBatchDictionaryLearning", "MiniBatchKMeans",
    "MiniBatchNMF", "MiniBatchSparsePCA", "MissingIndicator", "MultiOutputClassifier", "MultiOutputRegressor",
    "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV", "MultinomialNB", "NMF",
    "NearestCentroid", "NearestNeighbors", "NeighborhoodComponentsAnalysis", "Normalizer", "NuSVC", "NuSVR",
    "Nystroem", "OAS", "OneClassSVM", "OneVsOneClassifier", "OneVsRestClassifier", "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV", "OutputCodeClassifier", "PCA", "PLSCanonical", "PLSRegression", "PLSSVD",
    "Perceptron", "Pipeline", "PoissonRegressor", "PolynomialCountSketch", "PolynomialFeatures", "PowerTransformer",
    "QuadraticDiscriminantAnalysis", "QuantileRegressor", "QuantileTransformer", "RANSACRegressor", "RBFSampler",
    "RFE", "RFECV", "RadiusNeighborsClassifier", "RadiusNeighborsRegressor", "RadiusNeighborsTransformer",
    "RandomForestClassifier", "RandomForestRegressor", "RandomTreesEmbedding", "RandomizedSearchCV", "RegressorChain",
    "Ridge", "RidgeCV", "RidgeClassifier", "RidgeClassifierCV", "RobustScaler", "SGDClassifier", "SGDOneClassSVM",
    "SGDRegressor", "SVC", "SVR", "SelectFdr", "SelectFpr", "SelectFromModel", "SelectFwe", "SelectKBest",
    "SelectPercentile", "SelfTrainingClassifier", "SequentialFeatureSelector", "ShrunkCovariance", "SimpleImputer",
    "SkewedChi2Sampler", "SparseCoder", "SparsePCA", "SparseRandomProjection", "SplineTransformer",
    "StackingClassifier", "StackingRegressor", "StandardScaler", "TfidfTransformer", "TheilSenRegressor",
    "TransformedTargetRegressor", "TruncatedSVD", "TunedThresholdClassifierCV", "TweedieRegressor",
    "VarianceThreshold", "VotingClassifier", "VotingRegressor", "_BinMapper",
    "_BinaryGaussianProcessClassifierLaplace", "_ConstantPredictor", "_RidgeGCV", "_SigmoidCalibration",
    "_TemperatureScaling",
})  # fmt: skip

# What sees none of the rows as they came: predictions, or an array that the estimator itself has made.
_INSIDE = {
    "KBinsDiscretizer": frozenset({"_encoder"}),
    "PowerTransformer": frozenset({"_scaler"}),
    "RandomTreesEmbedding": frozenset({"one_hot_encoder_"}),
    "TransformedTargetRegressor": frozenset({"func", "inverse_func", "transformer", "transformer_"}),
}


class _UnknownPart(Exception):
    """A part of the model may look at the names of columns."""


def columns(model: Any, signature: Signature | None) -> tuple[str, ...]:
    """Return the names of the model's columns if the signature has just these, in order, and all are numbers."""
    known = getattr(model, _NAMES, None)
    if not isinstance(known, np.ndarray) or signature is None or not isinstance(signature.inputs, Table):
        return ()
    names = tuple(column.name for column in signature.inputs.columns)
    numbers = all(isinstance(column.type, str) and column.type in _NUMBERS for column in signature.inputs.columns)
    return names if numbers and known.shape == (len(names),) and known.tolist() == list(names) else ()


def array(frame: Frame, names: tuple[str, ...]) -> np.ndarray[Any, Any] | None:
    """Return the array that scikit-learn would make of the frame's DataFrame; None if that is not an array of numbers.

    It has the same type, the common one of all columns, and the same layout, because sums in another order differ.
    """
    found = frame.columns
    if found is None or tuple(found) != names:
        return None
    if isinstance(found, Block):
        matrix = found.matrix
        # What is only lent is a view of columns, which have gaps between them or not; a DataFrame's array has none.
        return matrix if matrix.flags.writeable else np.asarray(matrix, order="F")
    vectors = list(found.values())
    for vector in vectors:
        if vector.missing is not None and vector.data.dtype.kind != "f":
            return None
    dtypes = {vector.data.dtype for vector in vectors}
    if not dtypes <= _DTYPES:
        return None
    common = next(iter(dtypes)) if len(dtypes) == 1 else np.result_type(*dtypes)
    return np.array([vector.data for vector in vectors], dtype=common).T


def without_names(model: Any) -> Any | None:
    """Return a copy of the model that knows no names, or None if a part of it may need them."""
    try:
        made = _Copies().of(model)
    except (_UnknownPart, RecursionError):
        return None
    return None if made is model else made


class _Copies:
    """Copies of the parts that hold names, of what holds those, and of nothing else."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._open: set[int] = set()

    def of(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN or issubclass(kind, np.generic | np.dtype):
            return value
        key = id(value)
        if key in self._made:
            return self._made[key]
        if key in self._open:
            raise _UnknownPart
        self._open.add(key)
        self._made[key] = made = self._copied(value, kind)
        return made

    def _copied(self, value: Any, kind: type) -> Any:
        if issubclass(kind, np.ndarray):
            return self._array(value) if value.dtype.hasobject else value
        if kind in (list, tuple, set, frozenset):
            parts = [self.of(part) for part in value]
            return value if _same(parts, value) else kind(parts)
        if issubclass(kind, dict):
            return self._dict(value, kind)
        if not _known(value if isinstance(getattr(value, "__qualname__", None), str) else kind):
            raise _UnknownPart
        if kind.__module__.partition(".")[0] == "sklearn" and hasattr(value, "__dict__"):
            return self._object(value, kind)
        return value

    def _array(self, value: Any) -> Any:
        if value.dtype != object:
            raise _UnknownPart
        flat = np.asarray(value).ravel().tolist()
        parts = [self.of(part) for part in flat]
        if _same(parts, flat):
            return value
        if type(value) is not np.ndarray:
            raise _UnknownPart
        made = np.empty(len(parts), dtype=object)
        for place, part in enumerate(parts):
            made[place] = part
        return made.reshape(value.shape)

    def _dict(self, value: Any, kind: type) -> Any:
        if kind is not dict and not _known(kind):
            raise _UnknownPart
        parts = {key: self.of(part) for key, part in value.items()}
        if _same(parts.values(), value.values()):
            return value
        made = copy.copy(value)
        made.update(parts)
        return made

    def _object(self, value: Any, kind: type) -> Any:
        state = vars(value)
        if _is_estimator(kind) and not _positional(kind, state):
            raise _UnknownPart
        inside = _INSIDE.get(kind.__name__, frozenset())
        parts = {key: part if key in inside else self.of(part) for key, part in state.items() if key != _NAMES}
        if len(parts) == len(state) and _same(parts.values(), state.values()):
            return value
        plain: Any = kind
        if plain.__new__ is not object.__new__:
            raise _UnknownPart
        made: Any = object.__new__(kind)
        vars(made).update(parts)
        return made


def _same(parts: Iterable[Any], others: Iterable[Any]) -> bool:
    return all(part is other for part, other in zip(parts, others, strict=True))


def _known(thing: Any) -> bool:
    """Say whether a class or function is what a library that we know has under its name."""
    if isinstance(thing, np.ufunc):
        return True
    module = getattr(thing, "__module__", None)
    if not isinstance(module, str) or module.partition(".")[0] not in _LIBRARIES:
        return False
    return getattr(sys.modules.get(module), thing.__qualname__, None) is thing


def _is_estimator(kind: type) -> bool:
    return any(base.__name__ == "BaseEstimator" and base.__module__ == "sklearn.base" for base in kind.__mro__)


def _positional(kind: type, state: dict[str, Any]) -> bool:
    in_place = any(state.get(name, True) is not True for name in _IN_PLACE)
    frames = state.get("_sklearn_output_config", {}) not in ({}, {"transform": "default"})
    return kind.__name__ in POSITIONAL and not in_place and not frames
