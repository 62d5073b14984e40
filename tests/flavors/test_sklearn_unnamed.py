"""Models fitted on a DataFrame are called with arrays where nobody can tell: the same bits, the same errors."""

from __future__ import annotations

import functools
import runpy
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, PolynomialFeatures, StandardScaler
from sklearn.utils.discovery import all_estimators

import modelpack
from modelpack import render
from modelpack.errors import ModelError
from modelpack.frame import Block, Frame, Vector
from modelpack.signature import Column, Signature, Table
from modelpack_flavors._sklearn.predictor import ArrayScorer, Scorer, methods_of, quickest

SCRIPT = Path(__file__).parents[2] / "scripts" / "sklearn-coverage"
NAMES = ("a", "b", "c", "d")
RANDOM = np.random.RandomState(0)
TABLE = pd.DataFrame(RANDOM.rand(60, 4), columns=list(NAMES))
CLASSES = (TABLE["a"] + TABLE["b"] > 1).astype(int).to_numpy()
NUMBERS = Signature(inputs=Table(columns=tuple(Column(name=name, type="float64") for name in NAMES)))
MIXED = ("float64", "float32", "int64", "int32")
NARROW = ("float32", "float32", "int8", "uint16")

# Those that look at a DataFrame as one, and those that are made of such.
LEFT_OUT = {
    "Birch", "ColumnTransformer", "FunctionTransformer", "Isomap", "OneHotEncoder", "OrdinalEncoder",
    "PassiveAggressiveClassifier", "PassiveAggressiveRegressor", "TargetEncoder",
}  # fmt: skip


def frame(rows: int, types: tuple[str, ...], seed: int = 1) -> Frame:
    random = np.random.RandomState(seed)
    drawn = {
        "f": lambda: random.rand(rows),
        "i": lambda: random.randint(0, 3, rows),
        "u": lambda: random.randint(0, 3, rows),
    }
    columns = {
        name: Vector(type=kind, data=drawn[np.dtype(kind).kind]().astype(kind))  # type: ignore[arg-type]
        for name, kind in zip(NAMES, types, strict=True)
    }
    return Frame(rows=rows, columns=columns)


def spoiled(rows: int, value: float) -> Frame:
    made = frame(rows, ("float64",) * 4)
    assert made.columns is not None
    data = made.columns["b"].data.copy()
    data[-1] = value
    missing = np.isnan(data) if np.isnan(value) else None
    return Frame(rows=rows, columns={**made.columns, "b": Vector(type="float64", data=data, missing=missing)})


def block(rows: int) -> Frame:
    """A frame as decoders make it: its columns are those of a matrix of rows."""
    matrix = np.random.RandomState(2).rand(rows, 4)
    return Frame(rows=rows, columns=Block("float64", {name: i for i, name in enumerate(NAMES)}, matrix))


def lent(rows: int, gap: int = 0) -> Frame:
    """A frame as Arrow data makes it: a view of columns, with gaps between or without, that cannot be written to."""
    lanes = np.random.RandomState(3).rand(4, rows + gap)
    lanes.flags.writeable = False
    matrix = lanes[:, :rows].T
    return Frame(rows=rows, columns=Block("float64", {name: i for i, name in enumerate(NAMES)}, matrix))


def frames() -> Iterator[Frame]:
    for types in (("float64",) * 4, ("float32",) * 4, ("int64",) * 4, ("int32",) * 4, MIXED, NARROW):
        yield frame(1, types)
    yield from (block(1), lent(1, 5), frame(0, ("float64",) * 4))
    for types in (("float64",) * 4, ("float32",) * 4, MIXED, NARROW):
        yield frame(7, types)
    yield from (spoiled(7, np.nan), spoiled(7, np.inf), block(7), lent(7), lent(7, 5))
    yield from (frame(1000, ("float64",) * 4), frame(1000, MIXED), block(1000), lent(1000), lent(1000, 5))


def bits(answer: Any) -> Any:
    """Say what the answer is, to the bit and with its layout."""
    if isinstance(answer, list):
        return [bits(part) for part in answer]
    if hasattr(answer, "tocsr"):
        rows = answer.tocsr()
        return type(answer), answer.shape, bits(rows.data), bits(rows.indices), bits(rows.indptr)
    assert isinstance(answer, np.ndarray)
    values = answer.tolist() if answer.dtype == object else answer.tobytes()
    return answer.dtype, answer.shape, answer.flags.c_contiguous, answer.flags.f_contiguous, values


def outcome(call: Callable[[], Any], ignored: type[Warning] = RuntimeWarning) -> Any:
    """Say what comes of a call: its answer, or its error; a warning is one unless it is of a log of zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ignored)
        try:
            return bits(call())
        except Exception as exc:
            return type(exc), str(exc)


def taken(model: Any, signature: Signature = NUMBERS) -> ArrayScorer | None:
    scorer = Scorer(model=model, method=methods_of(model)[0], form="pandas")
    found = quickest(scorer, signature)
    return found if isinstance(found, ArrayScorer) else None


def assert_same(model: Any, wanted: int = 1) -> None:
    """Ask both ways; at least ``wanted`` of the answers are no errors."""
    scorer = taken(model)
    assert scorer is not None
    answered = 0
    for data in frames():
        kept = bits(render.to(data, "numpy"))
        for method in methods_of(model):
            expected = outcome(lambda: getattr(model, method)(render.to(data, "pandas")), Warning)  # noqa: B023
            assert outcome(lambda: scorer.predict(data, {"method": method})) == expected  # noqa: B023
            answered += not isinstance(expected[0], type) or not issubclass(expected[0], Exception)
        assert bits(render.to(data, "numpy")) == kept
    assert answered >= wanted
    assert list(model.feature_names_in_) == list(NAMES)


@pytest.fixture(scope="module")
def on_frames() -> Mapping[str, Any]:
    """Every estimator of scikit-learn that takes a table, fitted on a DataFrame."""
    fitted = runpy.run_path(str(SCRIPT), run_name="coverage")["fitted"]
    fitted.__globals__["all_estimators"] = functools.cache(all_estimators)  # asked for every estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # estimators that are on their way out say so
        found = {one.name: one.model for one in fitted(TABLE)}
    return {name: model for name, model in found.items() if getattr(model, "feature_names_in_", None) is not None}


@pytest.mark.parametrize("third", [0, *(pytest.param(third, marks=pytest.mark.long) for third in (1, 2))])
def test_every_estimator_gives_the_same_bits_either_way_or_is_left_out(
    on_frames: Mapping[str, Any], third: int
) -> None:
    asked = {name: model for name, model in on_frames.items() if methods_of(model)}
    assert len(asked) > 160
    assert {name for name, model in asked.items() if taken(model) is None} == LEFT_OUT & set(asked)
    for name in sorted(set(asked) - LEFT_OUT)[third::3]:
        assert_same(asked[name])


MODELS: Mapping[str, Callable[[], Any]] = {
    "bagging": lambda: BaggingClassifier(make_pipeline(StandardScaler(), LogisticRegression()), 3, max_features=2),
    "calibrated": lambda: CalibratedClassifierCV(make_pipeline(StandardScaler(), LogisticRegression()), cv=2),
    "forest after an imputer": lambda: make_pipeline(
        SimpleImputer(strategy="most_frequent"), RandomForestClassifier(5, random_state=0)
    ),
    "nested": lambda: make_pipeline(make_pipeline(StandardScaler(), "passthrough"), LogisticRegression()),
    "novelty": lambda: LocalOutlierFactor(novelty=True),
    "one against the rest": lambda: OneVsRestClassifier(make_pipeline(KNNImputer(), LogisticRegression())),
    "search": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), SelectKBest(k=2), LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2
    ),
    "stacking": lambda: StackingClassifier([("a", LogisticRegression())], passthrough=True, cv=2),
    "target": lambda: TransformedTargetRegressor(Ridge(), func=lambda y: y + 1, inverse_func=lambda y: y - 1),
    "union": lambda: make_pipeline(make_union(StandardScaler(), PolynomialFeatures()), LogisticRegression()),
    "voting": lambda: VotingClassifier(
        [("a", LogisticRegression()), ("b", HistGradientBoostingClassifier(max_iter=3))], voting="soft"
    ),
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_models_made_of_others_give_the_same_bits_either_way(name: str) -> None:
    assert_same(MODELS[name]().fit(TABLE, CLASSES), wanted=10)


def test_a_frozen_estimator_gives_the_same_bits_either_way() -> None:
    assert_same(FrozenEstimator(LogisticRegression().fit(TABLE, CLASSES)), wanted=10)


class Own(StandardScaler):
    """A scaler of somebody's own."""


class Picking(TransformerMixin, BaseEstimator):
    """Looks a column up by its name."""

    def fit(self, x: Any, y: Any = None) -> Picking:
        self.feature_names_in_ = np.array(x.columns, dtype=object)
        return self

    def transform(self, x: Any) -> Any:
        return x[["b"]].to_numpy()


def distance(x: Any, y: Any) -> Any:
    return abs(x - y).sum()


NAMED: Mapping[str, Callable[[], Any]] = {
    "a class of one's own": lambda: make_pipeline(Own(), LogisticRegression()),
    "a function of one's own": lambda: KNeighborsClassifier(metric=distance),
    "categories": lambda: HistGradientBoostingClassifier(categorical_features=["c"], max_iter=2),
    "columns by name": lambda: make_pipeline(
        ColumnTransformer([("a", StandardScaler(), ["a", "c"])]), LogisticRegression()
    ),
    "encoder": lambda: make_pipeline(OrdinalEncoder(), LogisticRegression()),
    "function": lambda: make_pipeline(StandardScaler(), FunctionTransformer(np.tanh), LogisticRegression()),
    "in place": lambda: make_pipeline(StandardScaler(copy=False), LogisticRegression()),
    "picking": lambda: make_pipeline(Picking(), LogisticRegression()),
    "gives frames": lambda: make_pipeline(StandardScaler().set_output(transform="pandas"), LogisticRegression()),
}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_models_that_may_look_at_names_get_their_data_frame(name: str) -> None:
    model = NAMED[name]().fit(TABLE.assign(c=CLASSES), CLASSES)
    assert list(model.feature_names_in_) == list(NAMES)
    assert taken(model) is None


def test_a_signature_of_other_columns_keeps_the_data_frame() -> None:
    model = LogisticRegression().fit(TABLE, CLASSES)
    columns = NUMBERS.inputs.columns  # type: ignore[union-attr]
    assert taken(model) is not None
    for other in (columns[::-1], columns[:3], (*columns, Column(name="e", type="float64"))):
        assert taken(model, Signature(inputs=Table(columns=other))) is None
    for kind in ("bool", "utf8", "float16"):
        odd = (Column(name="a", type=kind), *columns[1:])  # type: ignore[arg-type]
        assert taken(model, Signature(inputs=Table(columns=odd))) is None


@pytest.mark.parametrize(
    "names", [5, "abcd", np.array("a"), np.array([NAMES]), np.array([1, None, [], {}], dtype=object)]
)
def test_names_that_are_none_are_left_alone(names: Any) -> None:
    """What a file says is not believed to be what scikit-learn would have written."""
    model = LogisticRegression().fit(TABLE, CLASSES)
    model.feature_names_in_ = names
    assert taken(model) is None


def test_a_missing_integer_gets_the_data_frame_that_can_hold_it(tmp_path: Path) -> None:
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(TABLE.assign(c=CLASSES), CLASSES)
    given = TABLE.assign(c=pd.array(CLASSES, dtype="Int64"))
    given.loc[3, "c"] = pd.NA
    package = modelpack.save(model, tmp_path / "pkg", example=given.head(), options={"method": "predict_proba"})
    loaded = modelpack.load(package)
    assert isinstance(loaded._predictor, ArrayScorer)
    np.testing.assert_array_equal(loaded.predict(given), model.predict_proba(given))
    whole = given.drop(index=3)
    np.testing.assert_array_equal(loaded.predict(whole), model.predict_proba(whole))


def test_the_saved_and_the_loaded_model_keep_their_names(tmp_path: Path) -> None:
    """The package is what it was: its config asks for DataFrames, and older versions give it some."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(TABLE, CLASSES)
    package = modelpack.save(model, tmp_path / "pkg", example=TABLE.head())
    assert package.manifest.flavors[0].config["form"] == "pandas"
    loaded = modelpack.load(package)
    assert loaded._predictor.form == "frame"
    for one in (model, loaded._predictor.model):  # type: ignore[attr-defined]
        assert list(one.feature_names_in_) == list(NAMES)
        assert bits(one.predict_proba(TABLE)) == bits(model.predict_proba(TABLE))
    assert bits(loaded.predict(TABLE)) == bits(model.predict(TABLE))


def test_errors_of_bad_rows_are_the_same(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(TABLE, CLASSES)
    loaded = modelpack.load(modelpack.save(model, tmp_path / "pkg", example=TABLE.head()))
    given = TABLE.assign(b=np.inf)
    with pytest.raises(ValueError, match="infinity") as wanted:
        model.predict(given)
    with pytest.raises(ModelError) as info:
        loaded.predict(given)
    assert str(info.value.__cause__) == str(wanted.value)


def test_frames_are_given_while_scikit_learn_is_set_to_give_them() -> None:
    model = StandardScaler().fit(TABLE)
    scorer = taken(model)
    assert scorer is not None
    data = frame(3, ("float64",) * 4)
    with sklearn.config_context(transform_output="pandas"):
        answer = scorer.predict(data, {})
    assert list(answer.columns) == list(NAMES)
    assert isinstance(scorer.predict(data, {}), np.ndarray)
