"""scikit-learn models as people build them: columns with strings and missing values, searches, text, own code."""

from __future__ import annotations

import importlib
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import threadpoolctl
from palmerpenguins import load_penguins
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectKBest, f_regression, mutual_info_classif
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC

import modelpack
from modelpack.errors import FlavorError, InputError, SaveError, TrustError, UsageError
from modelpack.trust import Store
from modelpack_flavors._sklearn import missing
from modelpack_flavors.sklearn import FLAVOR

threadpoolctl.threadpool_limits(1)  # on toy data threads only wait for each other

RANDOM = np.random.RandomState(0)
X = RANDOM.rand(80, 4)
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
Y3 = (X[:, 0] * 3).astype(int)
NUMBER = X[:, 0] * 2 + X[:, 1]
HOLES = X.copy()
HOLES[::5, 1] = np.nan
NAMES = np.array(["no", "yes"])[Y]
TABLE = pd.DataFrame(X, columns=list("abcd"))
MIXED = TABLE.assign(word=NAMES, text=["good day", "bad luck"] * 40)
WORDS = np.array(["good day", "bad day", "good night", "bad luck"] * 5, dtype=object)


def mixed_columns() -> Any:
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]),
            ("word", OneHotEncoder(handle_unknown="ignore"), ["word"]),
            ("text", TfidfVectorizer(), "text"),
            ("as it is", "passthrough", ["c"]),
            ("nothing", "drop", ["d"]),
        ]
    )


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "columns": lambda: (make_pipeline(mixed_columns(), LogisticRegression()).fit(MIXED, NAMES), MIXED),
    "columns by type": lambda: (
        make_column_transformer(
            (StandardScaler(), make_column_selector(dtype_include=np.number)),
            (OneHotEncoder(), make_column_selector(pattern="word")),
        ).fit(MIXED),
        MIXED,
    ),
    "columns by number": lambda: (
        make_column_transformer((StandardScaler(), slice(0, 2)), (MinMaxScaler(), [2])).fit(X),
        X,
    ),
    "frames out": lambda: (
        make_column_transformer((StandardScaler(), ["a"]), remainder="passthrough")
        .set_output(transform="pandas")
        .fit(TABLE),
        TABLE,
    ),
    "union": lambda: (
        make_pipeline(FeatureUnion([("p", PCA(2)), ("s", StandardScaler())]), LogisticRegression()).fit(X, Y),
        X,
    ),
    "search": lambda: (
        GridSearchCV(SVC(), {"C": [1, 2], "kernel": ["rbf", "linear"]}, cv=StratifiedKFold(2), scoring="f1").fit(X, Y),
        X,
    ),
    "search with a scorer": lambda: (
        GridSearchCV(SVC(), {"C": [1, 2]}, cv=2, scoring=make_scorer(f1_score, average="macro")).fit(X, Y),
        X,
    ),
    "search over steps": lambda: (
        GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression()),
            {"logisticregression": [LogisticRegression(), SVC()], "standardscaler": [None, MinMaxScaler()]},
            cv=2,
        ).fit(X, Y),
        X,
    ),
    "stack": lambda: (
        StackingClassifier(
            [("a", LogisticRegression()), ("b", RandomForestClassifier(3, random_state=0))], cv=2, passthrough=True
        ).fit(X, Y),
        X,
    ),
    "vote": lambda: (
        VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft").fit(X, NAMES),
        X,
    ),
    "calibrated": lambda: (CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=2).fit(X, Y), X),
    "many outputs": lambda: (
        MultiOutputClassifier(RandomForestClassifier(2, random_state=0)).fit(X, np.c_[Y, Y3]),
        X,
    ),
    "chain": lambda: (ClassifierChain(LogisticRegression()).fit(X, np.c_[Y, 1 - Y]), X),
    "histogram boosting of categories": lambda: (
        HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype").fit(
            MIXED.assign(word=pd.Categorical(NAMES)).drop(columns="text"), Y
        ),
        MIXED.assign(word=pd.Categorical(NAMES)).drop(columns="text"),
    ),
    "histogram boosting stopped early": lambda: (
        HistGradientBoostingClassifier(max_iter=20, early_stopping=True, scoring="f1", random_state=0).fit(X, Y),
        X,
    ),
    "boosting from another model": lambda: (
        GradientBoostingClassifier(n_estimators=2, init=LogisticRegression()).fit(X, Y3),
        X,
    ),
    "gaussian process": lambda: (
        GaussianProcessRegressor(ConstantKernel() * RBF() + WhiteKernel(), optimizer=None).fit(X, NUMBER),
        X,
    ),
    "target on a logarithm": lambda: (
        TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1).fit(X, NUMBER),
        X,
    ),
    "selected by a partial function": lambda: (
        make_pipeline(
            SelectKBest(partial(mutual_info_classif, random_state=0), k=2), SelectFromModel(LinearSVC()), GaussianNB()
        ).fit(X, Y),
        X,
    ),
    "neighbours of a sparse matrix": lambda: (KNeighborsClassifier().fit(sp.csr_matrix(X), Y), X),
    "neighbours by mahalanobis": lambda: (
        KNeighborsClassifier(algorithm="ball_tree", metric="mahalanobis", metric_params={"VI": np.eye(4)}).fit(X, Y),
        X,
    ),
    "neighbours, several outputs": lambda: (
        KNeighborsRegressor(weights="distance").fit(X, np.c_[NUMBER, -NUMBER]),
        X,
    ),
    "machine with its own kernel": lambda: (SVC(kernel="precomputed").fit(X @ X.T, Y), X @ X.T),
    "machine of a sparse matrix": lambda: (SVC(kernel="linear").fit(sp.csr_matrix(X), Y3), X),
    "splines": lambda: (make_pipeline(SplineTransformer(), Ridge()).fit(X, NUMBER), X),
    "bins": lambda: (KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf").fit(X), X),
    "boosted trees": lambda: (AdaBoostClassifier(n_estimators=3, random_state=0).fit(X, Y), X),
    "imputed by neighbours": lambda: (make_pipeline(KNNImputer(), LinearRegression()).fit(HOLES, NUMBER), HOLES),
    "words": lambda: (make_pipeline(CountVectorizer(), LogisticRegression()).fit(WORDS, [1, 0] * 10), WORDS),
    "hashed words": lambda: (
        make_pipeline(HashingVectorizer(n_features=16), SGDClassifier(random_state=0)).fit(WORDS, [1, 0] * 10),
        WORDS,
    ),
    "a series of words": lambda: (
        make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(pd.Series(WORDS, name="text"), [1, 0] * 10),
        pd.Series(WORDS, name="text"),
    ),
    "one column picked": lambda: (
        make_pipeline(FunctionTransformer(itemgetter("text")), CountVectorizer(), SGDClassifier()).fit(MIXED, Y),
        MIXED,
    ),
}


def flat(answer: Any) -> Any:
    if isinstance(answer, list):
        return [flat(one) for one in answer]
    return answer.toarray() if hasattr(answer, "toarray") else np.asarray(answer)


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    for left, right in zip(*((x if isinstance(x, list) else [x]) for x in (flat(one), flat(other))), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture
def stranger(tmp_path: Path) -> Store:
    return Store(tmp_path / "stranger")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # log of a probability of zero, in scikit-learn
@pytest.mark.parametrize("name", MODELS)
def test_a_stranger_gets_the_same_answers(name: str, tmp_path: Path, stranger: Store) -> None:
    model, rows = MODELS[name]()
    loaded = modelpack.load(modelpack.save(model, tmp_path / "pkg", example=rows[:6]), store=stranger)
    assert loaded.candidate.trust == "objects"
    methods = loaded.manifest.payloads["native"].declares["methods"]
    for method in methods:
        params = {"method": method} if len(methods) > 1 else None
        same(loaded.predict(rows, params=params), getattr(model, method)(rows))


def test_the_method_is_a_param_with_the_methods_that_there_are(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    package = modelpack.save(model, tmp_path / "pkg", example=X[:3])
    (param,) = package.manifest.signature.params
    assert (param.name, param.default, param.changes_outputs) == ("method", "predict", True)
    assert param.constraints.enum == ("predict", "predict_proba", "predict_log_proba", "decision_function")
    loaded = modelpack.load(package.path)
    same(loaded.predict(X, params={"method": "predict_proba"}), model.predict_proba(X))
    with pytest.raises(InputError):
        loaded.predict(X, params={"method": "fit"})


def test_a_model_of_one_method_has_no_param(tmp_path: Path) -> None:
    package = modelpack.save(LinearRegression().fit(X, NUMBER), tmp_path / "pkg", example=X[:3])
    assert package.manifest.signature.params == ()


@pytest.mark.parametrize(
    ("options", "code", "path"),
    [
        ({"colour": 1}, "option-unknown", "options.colour"),
        ({"format": "joblib"}, "option-invalid", "options.format"),
        ({"format": ["skops"]}, "option-invalid", "options.format"),
        ({"method": "fit"}, "option-invalid", "options.method"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], code: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        modelpack.save(LinearRegression().fit(X, NUMBER), tmp_path / "pkg", options=options)
    assert (info.value.code, info.value.path) == (code, path)
    assert list(tmp_path.iterdir()) == []


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    model = LogisticRegression().fit(TABLE, Y)
    loaded = modelpack.load(modelpack.save(model, tmp_path / "pkg", example=TABLE[["d", "c", "b", "a"]].head()))
    same(loaded.predict(TABLE[["b", "a", "d", "c"]]), model.predict(TABLE))


def test_a_model_without_an_example_knows_its_columns(tmp_path: Path) -> None:
    model = make_pipeline(mixed_columns(), LogisticRegression()).fit(MIXED, Y)
    inputs = modelpack.save(model, tmp_path / "pkg").manifest.signature.inputs
    assert [(c.name, c.type, c.nullable, c.optional) for c in inputs.columns] == [
        ("a", "float64", True, False),
        ("b", "float64", True, False),
        ("c", "any", False, False),
        ("d", "any", True, True),
        ("word", "utf8", True, False),
        ("text", "utf8", False, False),
    ]


@pytest.mark.parametrize(
    ("model", "kind", "shape", "nullable"),
    [
        (LogisticRegression().fit(X, Y), "float64", (None, 4), False),
        (HistGradientBoostingRegressor(max_iter=2).fit(X, NUMBER), "float64", (None, 4), True),
        (make_pipeline(CountVectorizer(), SGDClassifier()).fit(WORDS, [1, 0] * 10), "utf8", (None,), False),
        (GridSearchCV(Ridge(), {"alpha": [1]}, cv=2).fit(X, NUMBER), "float64", (None, 4), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_without_names_knows_its_width(
    model: Any, kind: str, shape: Any, nullable: bool, tmp_path: Path
) -> None:
    (tensor,) = modelpack.save(model, tmp_path / "pkg").manifest.signature.inputs.tensors
    assert (tensor.dtype, tensor.shape, tensor.nullable) == (kind, shape, nullable)


@pytest.mark.parametrize(
    "model",
    [
        OneHotEncoder().fit(np.array([["a", 1]], dtype=object)),
        SimpleImputer(strategy="most_frequent").fit(pd.DataFrame({"a": ["x", "y"]}, dtype=object).to_numpy()),
        FunctionTransformer(np.log1p).fit(X),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_a_model_does_not_know_is_left_to_the_example(model: Any, tmp_path: Path) -> None:
    assert modelpack.save(model, tmp_path / "pkg").manifest.signature.inputs is None


WITH_HOLES: dict[str, tuple[Any, Any]] = {
    "linear": (LogisticRegression(), X),
    "scaled": (make_pipeline(StandardScaler(), LogisticRegression()), X),
    "imputed": (make_pipeline(SimpleImputer(), LogisticRegression()), X),
    "imputed late": (make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression()), X),
    "imputed too late": (make_pipeline(PCA(2), SimpleImputer(), LogisticRegression()), X),
    "a scaler": (StandardScaler(), X),
    "a pipeline of scalers": (make_pipeline(StandardScaler(), MinMaxScaler()), X),
    "nothing but passing on": (make_pipeline("passthrough"), X),
    "scaled, then columns": (
        make_pipeline(PCA(2), make_column_transformer((SimpleImputer(), [0, 1])), LogisticRegression()),
        X,
    ),
    "reduced, then columns imputed": (
        make_pipeline(
            make_column_transformer((StandardScaler(), [0, 1]), remainder="passthrough"),
            make_column_transformer((SimpleImputer(), [0, 1, 2, 3])),
            LogisticRegression(),
        ),
        X,
    ),
    "histogram boosting": (HistGradientBoostingClassifier(max_iter=2), X),
    "a forest": (RandomForestClassifier(2), X),
    "boosting": (GradientBoostingClassifier(n_estimators=2), X),
    "search of imputed": (GridSearchCV(make_pipeline(SimpleImputer(), Ridge()), {"ridge__alpha": [1]}, cv=2), X),
    "search of scaled": (GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [1]}, cv=2), X),
    "bagged imputed": (BaggingRegressor(make_pipeline(SimpleImputer(), Ridge()), n_estimators=2), X),
    "vote": (VotingClassifier([("a", HistGradientBoostingClassifier(max_iter=2)), ("b", GaussianNB())]), X),
    "vote of the tolerant": (
        VotingClassifier([("a", HistGradientBoostingClassifier(max_iter=2)), ("b", RandomForestClassifier(2))]),
        X,
    ),
    "stack": (StackingClassifier([("a", HistGradientBoostingClassifier(max_iter=2))], cv=2), X),
    "stack with the rows": (
        StackingClassifier([("a", HistGradientBoostingClassifier(max_iter=2))], cv=2, passthrough=True),
        X,
    ),
    "union": (make_pipeline(FeatureUnion([("a", SimpleImputer()), ("b", StandardScaler())]), GaussianNB()), X),
    "union of imputers": (make_pipeline(FeatureUnion([("a", SimpleImputer()), ("b", KNNImputer())]), GaussianNB()), X),
    "quantiles": (make_pipeline(QuantileTransformer(n_quantiles=5), HistGradientBoostingClassifier(max_iter=2)), X),
    "selected": (make_pipeline(SelectKBest(f_regression, k=2), LinearRegression()), X),
    "one-hot, unknown refused": (OneHotEncoder(), MIXED[["word"]]),
    "one-hot, unknown ignored": (OneHotEncoder(handle_unknown="ignore"), MIXED[["word"]]),
    "one-hot, seen": (OneHotEncoder(), MIXED[["word"]].assign(word=[None, "a"] * 40)),
    "ordinal, unknown refused": (make_pipeline(OrdinalEncoder(), GaussianNB()), MIXED[["word"]]),
    "ordinal, seen": (
        make_pipeline(OrdinalEncoder(), HistGradientBoostingClassifier(max_iter=2)),
        MIXED[["word"]].assign(word=[None, "a"] * 40),
    ),
    "ordinal, seen and numbered": (
        make_pipeline(OrdinalEncoder(encoded_missing_value=-1), GaussianNB()),
        MIXED[["word"]].assign(word=[None, "a"] * 40),
    ),
    "ordinal, seen and passed": (
        make_pipeline(OrdinalEncoder(), SimpleImputer(), LogisticRegression()),
        MIXED[["word"]].assign(word=[None, "a"] * 40),
    ),
    "ordinal, numbered": (
        make_pipeline(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), GaussianNB()),
        MIXED[["word"]],
    ),
    "target": (make_pipeline(TargetEncoder(), GaussianNB()), MIXED[["word"]]),
    "columns": (make_pipeline(mixed_columns(), LogisticRegression()), MIXED),
    "columns, then boosting": (
        make_pipeline(
            make_column_transformer((StandardScaler(), ["a"]), remainder="passthrough"),
            HistGradientBoostingClassifier(max_iter=2),
        ),
        TABLE,
    ),
    "columns in columns": (
        make_pipeline(
            ColumnTransformer(
                [("in", make_column_transformer((SimpleImputer(), ["a"]), ("passthrough", ["b"])), ["a", "b"])]
            ),
            GaussianNB(),
        ),
        TABLE[["a", "b"]],
    ),
    "calibrated": (CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=2), cv=2), X),
    "target transformed": (
        TransformedTargetRegressor(make_pipeline(SimpleImputer(), Ridge()), func=np.log1p, inverse_func=np.expm1),
        X,
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # a category never seen is encoded as nothing
@pytest.mark.parametrize("name", WITH_HOLES)
def test_missing_values_are_accepted_where_the_model_takes_them(name: str) -> None:
    """The claim is held against the model itself: it is asked about a row that lacks each column in turn."""
    model, rows = WITH_HOLES[name]
    model.fit(rows, Y)
    claim = missing.accepted(model)
    columns = list(rows.columns) if hasattr(rows, "columns") else list(range(rows.shape[1]))
    for i, column in enumerate(columns):
        row = rows[:1].copy()
        if hasattr(row, "columns"):
            row[column] = row[column].astype(object)
            row.iloc[0, i] = np.nan
        else:
            row[0, i] = np.nan
        assert takes(model, row) == (claim if isinstance(claim, bool) else claim[column]), column


def takes(model: Any, row: Any) -> bool:
    try:
        getattr(model, "predict" if hasattr(model, "predict") else "transform")(row)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def test_a_missing_value_is_refused_with_its_column_and_imputed_where_it_can_be(tmp_path: Path) -> None:
    table = load_penguins()
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["bill_length_mm", "body_mass_g"]),
            ("plain", "passthrough", ["year"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["island", "sex"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=2000)).fit(table, table["species"])
    # The example has no missing value at all.
    example = table.dropna().head(4)
    loaded = modelpack.load(modelpack.save(model, tmp_path / "pkg", example=example))
    same(loaded.predict(table), model.predict(table))
    holes = table.assign(year=table["year"].astype("Int64"))
    holes.loc[3, "year"] = pd.NA
    with pytest.raises(InputError, match="year"):
        loaded.predict(holes)


def test_a_step_that_nobody_reviewed_says_nothing_about_missing_values(own_code: Any) -> None:
    assert missing.accepted(make_pipeline(own_code.features.Ratio(), Ridge()).fit(X, NUMBER)) is None


@pytest.fixture
def own_code(tmp_path: Path) -> Iterator[Any]:
    """A package of one's own, churn, importable from here as it would be from a project's directory."""
    folder = tmp_path / "project" / "churn"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "features.py").write_text(
        "import numpy as np\n"
        "from sklearn.base import BaseEstimator, TransformerMixin\n"
        "class Ratio(TransformerMixin, BaseEstimator):\n"
        "    def __init__(self, power=1):\n"
        "        self.power = power\n"
        "    def fit(self, X, y=None):\n"
        "        self.scale_ = np.asarray(X).max()\n"
        "        return self\n"
        "    def transform(self, X):\n"
        "        return (np.asarray(X) / self.scale_) ** self.power\n"
        "def double(X):\n"
        "    return X * 2\n"
    )
    sys.path.insert(0, str(folder.parent))
    try:
        module = importlib.import_module("churn")
        module.features = importlib.import_module("churn.features")  # type: ignore[attr-defined]
        module.folder = folder  # type: ignore[attr-defined]
        yield module
    finally:
        sys.path.remove(str(folder.parent))
        for name in ("churn", "churn.features"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("format_id", ["skops", "pickle"])
def test_a_transformer_of_ones_own_travels_with_its_code(
    format_id: str, own_code: Any, tmp_path: Path, stranger: Store
) -> None:
    model = make_pipeline(own_code.features.Ratio(2), FunctionTransformer(own_code.features.double), Ridge()).fit(
        X, NUMBER
    )
    package = modelpack.save(
        model, tmp_path / "pkg", example=X[:3], code=own_code.folder, options={"format": format_id}
    )
    for name in ("churn", "churn.features"):
        sys.modules.pop(name)
    sys.path.remove(str(own_code.folder.parent))
    try:
        with pytest.raises(TrustError):
            modelpack.load(package.path, store=stranger)
        loaded = modelpack.load(package.path, allow_code=package.digest, store=stranger)
        same(loaded.predict(X), model.predict(X))
        assert "churn" not in sys.modules
    finally:
        sys.path.insert(0, str(own_code.folder.parent))


def test_code_that_is_not_given_is_asked_for(own_code: Any, tmp_path: Path) -> None:
    model = make_pipeline(own_code.features.Ratio(2), Ridge()).fit(X, NUMBER)
    for options in ({}, {"format": "pickle"}):
        with pytest.raises(SaveError, match=r"churn\.features\.Ratio") as info:
            modelpack.save(model, tmp_path / "pkg", options=options)
        assert "code=" in info.value.hint


def test_what_is_defined_in_the_script_is_refused(tmp_path: Path) -> None:
    class Local(Ridge):
        pass

    with pytest.raises(SaveError, match="no name to import it by") as info:
        modelpack.save(Local().fit(X, NUMBER), tmp_path / "pkg")
    assert info.value.code == "model-unsupported"
    with pytest.raises(SaveError, match="cannot be pickled"):
        modelpack.save(Local().fit(X, NUMBER), tmp_path / "pkg", options={"format": "pickle"})
    Local.__module__, Local.__qualname__ = "__main__", "Local"
    sys.modules["__main__"].Local = Local  # type: ignore[attr-defined]
    try:
        for options in ({}, {"format": "pickle"}):
            with pytest.raises(SaveError, match="defined in the script that runs"):
                modelpack.save(Local().fit(X, NUMBER), tmp_path / "pkg", options=options)
    finally:
        del sys.modules["__main__"].Local  # type: ignore[attr-defined]


def _cycle() -> Any:
    model = Ridge().fit(X, NUMBER)
    model.myself = model
    return model


def _holding(value: Any) -> Any:
    model = Ridge().fit(X, NUMBER)
    model.extra = value
    return model


class Slotted:
    __slots__ = ("a",)

    def __init__(self) -> None:
        self.a = 1


class Raising:
    def __getstate__(self) -> Any:
        raise OSError("not now")


UNSUPPORTED = {
    "a lambda": (lambda: FunctionTransformer(lambda x: x), "no name to import it by"),
    "itself": (_cycle, "contains itself"),
    "keys that are true and false": (lambda: LogisticRegression(class_weight={True: 1, False: 2}), "key of type bool"),
    "keys that are None": (lambda: _holding({None: 1}), "key of type NoneType"),
    "keys equal as texts": (lambda: _holding({1: "a", "1": "b"}), "equal as texts"),
    "an object with slots": (lambda: _holding(Slotted()), "keeps|no name"),
    "an object that raises": (lambda: _holding(Raising()), "not now|no name"),
    "a scalar array of objects": (lambda: _holding(np.array({}, dtype=object)), "no dimensions"),
    "fields of objects": (lambda: _holding(np.zeros(1, dtype=[("a", object)])), "fields that hold objects"),
    "a slice of times": (lambda: _holding(slice(1.5)), "neither a number nor a text"),
    "a class method": (lambda: _holding(dict.fromkeys), "no name|class method"),
    "a method of a class": (lambda: _holding(Path.cwd), "class method"),
    "a generator": (lambda: _holding(iter([1])), "keeps its state|no name"),
    "something nested without end": (lambda: _holding(_nested(5000)), "too deeply"),
}


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(("made", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_a_file_cannot_hold_is_refused_and_nothing_is_written(
    made: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    model = made()
    if not hasattr(model, "extra") and not hasattr(model, "coef_"):
        model.fit(X, Y)
    with pytest.raises(SaveError, match=message) as info:
        modelpack.save(model, tmp_path / "pkg")
    assert info.value.code == "model-unsupported"
    assert info.value.hint
    assert list(tmp_path.iterdir()) == []


HELD: dict[str, Any] = {
    "numbers": {"a": 1, "b": 2.5, "nan": float("nan"), "none": None, "yes": True, "complex": 1 + 2j},
    "keys": {1: "a", 2.5: "b", "c": "d", np.int64(3): "e", np.str_("f"): "g"},
    "sets": [{"b", "a"}, frozenset({"y", "x"}), set(), frozenset()],
    "tuples": ((1, "a"), range(3), slice(0, "b", None)),
    "a default": defaultdict(list, {"a": [1]}),
    "bytes": [b"ab", bytearray(b"cd"), b"ab"],
    "arrays": [np.arange(3), np.array(["a", "b"]), np.array([["a", None], [1, {}]], dtype=object), np.float32(1.5)],
    "empty array of objects": np.empty((0, 2), dtype=object),
    "masked": np.ma.MaskedArray([1, 2], mask=[True, False]),
    "dtype": np.dtype("M8[us]"),
    "types": [float, np.float64, str],
    "functions": [np.log, np.mean, partial(np.clip, a_min=0, a_max=1), itemgetter("a", 1)],
}


@pytest.mark.parametrize("name", HELD)
def test_values_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    value = HELD[name]
    package = modelpack.save(_holding(value), tmp_path / "pkg")
    assert package.plan().candidates[0].trust == "objects"
    alike(modelpack.load(package.path)._predictor.model.extra, value)


def alike(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(other, dict):
        assert list(one) == list(other) and [type(k) for k in one] == [type(k) for k in other]
        for key in other:
            alike(one[key], other[key])
    elif isinstance(other, list | tuple):
        for left, right in zip(one, other, strict=True):
            alike(left, right)
    elif isinstance(other, partial):
        alike((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    elif isinstance(other, itemgetter):
        assert one.__reduce__() == other.__reduce__()
    elif isinstance(other, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        alike(one.tolist(), other.tolist())
    else:
        assert one == other or (one != one and other != other)


def test_shared_objects_stay_shared_and_equal_ones_apart(tmp_path: Path) -> None:
    shared, twin = np.arange(3.0), np.arange(3.0)
    package = modelpack.save(_holding([shared, shared, twin, [shared]]), tmp_path / "pkg")
    first, second, third, (fourth,) = modelpack.load(package.path)._predictor.model.extra
    assert first is second is fourth
    assert first is not third
    np.testing.assert_array_equal(first, third)


def test_arrays_mapped_from_disk_are_written_as_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", X)
    model = _holding(np.load(tmp_path / "weights.npy", mmap_mode="r"))
    extra = modelpack.load(modelpack.save(model, tmp_path / "pkg"))._predictor.model.extra
    assert type(extra) is np.ndarray
    np.testing.assert_array_equal(extra, X)


def test_long_runs_of_one_value_are_not_taken_for_an_attack(tmp_path: Path) -> None:
    package = modelpack.save(_holding(np.zeros(2**23)), tmp_path / "pkg")
    assert modelpack.load(package.path)._predictor.model.extra.sum() == 0


def test_objects_of_other_frameworks_do_not_match() -> None:
    class Like:
        def fit(self) -> None: ...
        def get_params(self) -> None: ...
        def set_params(self) -> None: ...
        def predict(self) -> None: ...

    assert FLAVOR.matches(Ridge()) == 50
    assert FLAVOR.matches(Like()) == 30
    assert FLAVOR.matches(Like) == 0
    assert FLAVOR.matches({}) == 0
    assert FLAVOR.matches(len) == 0


def test_a_config_that_names_another_method_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = modelpack.save(Ridge().fit(X, NUMBER), tmp_path / "pkg")
    entry = package.manifest.flavors[0]
    assert entry.config["method"] == "predict"
    changed = entry.model_copy(update={"config": {**entry.config, "method": "set_params"}})
    package.__dict__["manifest"] = package.manifest.model_copy(update={"flavors": (changed,)})
    with pytest.raises((modelpack.PackageError, FlavorError)):
        modelpack.load(package)


class Foreign:
    """Built like an estimator, but by nobody who knows scikit-learn."""

    def fit(self, X: Any, y: Any = None) -> Foreign:
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}

    def set_params(self) -> Foreign:
        return self

    def predict(self, X: Any) -> Any:
        return np.asarray(X)[:, 0]


def test_what_is_built_like_an_estimator_is_saved_like_one(
    tmp_path: Path, stranger: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign.py").write_text("class Foreign:\n    def predict(self, X):\n        return X[:, 0]\n")
    module = types.ModuleType("foreign")
    module.Foreign = Foreign  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "foreign", module)
    monkeypatch.setattr(Foreign, "__module__", "foreign")
    package = modelpack.save(Foreign(), tmp_path / "pkg", example=X[:3], code=tmp_path / "foreign.py")
    assert package.manifest.flavors[0].name == "sklearn"
    assert package.plan(store=stranger).candidates[0].trust == "code"
    same(modelpack.load(package.path).predict(X), X[:, 0])


def test_a_bound_method_is_stored_and_is_code(tmp_path: Path, stranger: Store) -> None:
    inner = Ridge().fit(X, NUMBER)
    package = modelpack.save(FunctionTransformer(inner.predict).fit(X), tmp_path / "pkg", example=X[:3])
    assert package.plan(store=stranger).candidates[0].trust == "code"
    with pytest.raises(TrustError, match="predict"):
        modelpack.load(package.path, store=stranger)
    same(modelpack.load(package.path).predict(X), inner.predict(X))
