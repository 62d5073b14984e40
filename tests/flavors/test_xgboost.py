"""The XGBoost flavor beyond the contract: exact answers by every way in, categories, and what is refused."""

from __future__ import annotations

import functools
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from palmerpenguins import load_penguins

import modelpack
from modelpack.errors import InputError, PackageError, SaveError, UsageError
from modelpack.flavor import LoadContext, get

FLAVOR = get("xgboost")
SMALL = {"n_estimators": 5, "max_depth": 3, "n_jobs": 1}
ROWS = {"threads": 1}


@functools.cache
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(240, 3)), columns=["a", "b", "c"])
    frame.loc[::7, "b"] = np.nan
    frame["k"] = pd.Categorical(rng.integers(0, 4, 240) * 10)
    frame["s"] = pd.Categorical(rng.choice(["red", "green", "blue"], 240), categories=["red", "green", "blue"])
    frame["n"] = rng.integers(-5, 2**40, 240)
    frame["t"] = rng.integers(0, 2, 240).astype(bool)
    return frame


@functools.cache
def target() -> np.ndarray[Any, Any]:
    frame = table()
    colour = frame["s"].cat.codes.to_numpy()
    return frame["a"].to_numpy() + colour + np.where(frame["k"].astype(float) > 10, frame["c"], 0)


@functools.cache
def regressor() -> xgboost.XGBRegressor:
    return xgboost.XGBRegressor(**SMALL, enable_categorical=True).fit(table(), target())


def same(one: Any, other: Any) -> None:
    assert (type(one), one.dtype, one.shape) == (type(other), other.dtype, other.shape)
    np.testing.assert_array_equal(one, other)


def saved(model: Any, path: Path, **more: Any) -> modelpack.model.Model:
    return modelpack.load(modelpack.save(model, path / "pkg", **{"options": ROWS, **more}).path)


def loaded(data: bytes, config: dict[str, Any], form: str = "ubj") -> Any:
    """Load bytes and a config as a package that may say anything would."""
    usual = {"categories": {}, "estimator": None, "method": "predict", "missing": None, "threads": 1}
    context = LoadContext(
        format=f"xgboost-{form}",
        entry="model",
        files=types.SimpleNamespace(read=lambda path: data),  # type: ignore[arg-type]
        config={**usual, **config},
        entrypoint=None,
        code_allowed=False,
        namespace=None,
        signature=None,
    )
    return FLAVOR.load(context)


def test_all_dtypes_of_a_table_give_the_live_answers(tmp_path: Path) -> None:
    model = saved(regressor(), tmp_path, example=table().head())
    same(model.predict(table()), regressor().predict(table()))


def test_the_loaded_model_takes_columns_in_any_order_and_more_of_them(tmp_path: Path) -> None:
    model = saved(regressor(), tmp_path, example=table().head())
    shuffled = table().assign(more="x")[["more", "t", "s", "a", "n", "k", "c", "b"]]
    same(model.predict(shuffled), regressor().predict(table()))


def test_records_give_the_answers_of_the_table(tmp_path: Path) -> None:
    model = saved(regressor(), tmp_path, example=table().head())
    records = json.loads(table().head(20).to_json(orient="records"))
    same(model.predict(records), regressor().predict(table().head(20)))


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_shares_and_margins_are_those_of_the_live_model(tmp_path: Path, classes: int) -> None:
    labels = np.digitize(target(), [0.5, 2.0][: classes - 1])
    live = xgboost.XGBClassifier(**SMALL, enable_categorical=True).fit(table(), labels)
    model = saved(live, tmp_path, example=table().head())
    same(model.predict(table()), live.predict(table()))
    same(model.predict(table(), params={"method": "predict_proba"}), live.predict_proba(table()))
    same(model.predict(table(), params={"method": "margin"}), live.predict(table(), output_margin=True))


def test_several_labels_at_once(tmp_path: Path) -> None:
    X = table()[["a", "b", "c"]]
    live = xgboost.XGBClassifier(**SMALL).fit(X, np.c_[target() > 0, target() > 1].astype(int))
    model = saved(live, tmp_path, example=X.head())
    same(model.predict(X), live.predict(X))
    same(model.predict(X, params={"method": "predict_proba"}), live.predict_proba(X))


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_several_targets(tmp_path: Path, strategy: str) -> None:
    X = table()[["a", "b", "c"]].to_numpy()
    live = xgboost.XGBRegressor(**SMALL, multi_strategy=strategy).fit(X, np.c_[target(), -target()])
    same(saved(live, tmp_path, example=X[:3]).predict(X), live.predict(X))


@pytest.mark.parametrize("kind", ["XGBRFClassifier", "XGBRFRegressor"])
def test_random_forests(tmp_path: Path, kind: str) -> None:
    X = table()[["a", "b", "c"]].to_numpy()
    live = getattr(xgboost, kind)(**SMALL).fit(X, (target() > 1).astype(int))
    same(saved(live, tmp_path, example=X[:3]).predict(X), live.predict(X))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_arrays_of_any_number_type(tmp_path: Path, dtype: str) -> None:
    X = (np.nan_to_num(table()[["a", "b", "c"]].to_numpy()) * 20 + 60).clip(0, 200).astype(dtype)
    live = xgboost.XGBRegressor(**SMALL).fit(X, target())
    same(saved(live, tmp_path, example=X[:3]).predict(X), live.predict(X))


def test_an_estimator_scores_with_its_best_iteration(tmp_path: Path) -> None:
    X, y = table()[["a", "b", "c"]], np.random.default_rng(1).normal(size=240)
    live = xgboost.XGBRegressor(n_estimators=60, n_jobs=1, early_stopping_rounds=3, learning_rate=1.0)
    live.fit(X[:120], y[:120], eval_set=[(X[120:], y[120:])], verbose=False)
    assert live.best_iteration + 1 < live.get_booster().num_boosted_rounds()
    same(saved(live, tmp_path, example=X.head()).predict(X), live.predict(X))


def test_another_value_for_missing_ones(tmp_path: Path) -> None:
    X = table()[["a", "b", "c"]].fillna(-999.0)
    live = xgboost.XGBRegressor(**SMALL, missing=-999.0).fit(X, target())
    model = saved(live, tmp_path, example=X.head())
    same(model.predict(X), live.predict(X))
    assert model.manifest.flavors[0].config["missing"] == -999.0


@pytest.mark.parametrize("form", ["ubj", "json"])
@pytest.mark.parametrize("name", ["gbtree", "dart", "gblinear"])
def test_boosters_answer_as_with_a_dmatrix(tmp_path: Path, name: str, form: str) -> None:
    X = table()[["a", "c"]]
    data = xgboost.DMatrix(X, label=(target() > 1).astype(int))
    more = {"rate_drop": 0.4} if name == "dart" else {}
    live = xgboost.train({"booster": name, "objective": "binary:logistic", "nthread": 1, **more}, data, 6)
    model = saved(live, tmp_path, example=X.head(), options={"format": form, "threads": 1})
    same(model.predict(X), live.predict(data))
    same(model.predict(X, params={"method": "margin"}), live.predict(data, output_margin=True))


def test_the_payload_is_what_xgboost_writes(tmp_path: Path) -> None:
    for form in ("ubj", "json"):
        package = modelpack.save(regressor(), tmp_path / form, options={"format": form})
        raw = (package.path / f"payloads/native/model.{form}").read_bytes()
        assert raw == bytes(regressor().get_booster().save_raw(form))
        assert package.manifest.payloads["native"].format == f"xgboost-{form}"
        assert package.plan().candidates[0].trust == "graph"


def test_the_signature_has_the_categories_of_training_whatever_the_example_has(tmp_path: Path) -> None:
    example = table().head(3).copy()
    example["s"] = pd.Categorical(example["s"].astype(str))
    example["k"] = pd.Categorical(example["k"].astype(int))
    model = saved(regressor(), tmp_path, example=example)
    types_ = {column.name: column.type for column in model.signature.inputs.columns}  # type: ignore[union-attr]
    assert types_["s"].categories == ("red", "green", "blue")  # type: ignore[union-attr]
    assert types_["k"].categories == (0, 10, 20, 30)  # type: ignore[union-attr]
    same(model.predict(table()), regressor().predict(table()))


def test_a_model_knows_its_columns_without_an_example(tmp_path: Path) -> None:
    model = saved(regressor(), tmp_path)
    inputs = model.signature.inputs
    assert inputs is not None and all(column.nullable for column in inputs.columns)  # type: ignore[union-attr]
    same(model.predict(table()), regressor().predict(table()))


def test_a_category_of_another_table_is_refused(tmp_path: Path) -> None:
    model = saved(regressor(), tmp_path, example=table().head())
    rows = table().head(2).astype({"s": str}).assign(s=["red", "pink"])
    with pytest.raises(InputError) as info:
        model.predict(rows)
    assert (info.value.code, info.value.path) == ("category-unknown", "s[1]")


def test_categories_beyond_ascii_come_from_the_example(tmp_path: Path) -> None:
    frame = table().assign(s=table()["s"].cat.rename_categories(["rot", "grün", "blåtst"]))
    live = xgboost.XGBRegressor(**SMALL, enable_categorical=True).fit(frame, target())
    model = saved(live, tmp_path, example=frame.head())
    same(model.predict(frame), live.predict(frame))
    assert model.manifest.flavors[0].config["categories"] == {"4": ["rot", "grün", "blåtst"]}
    with pytest.raises(SaveError, match="not those the model was trained with") as info:
        modelpack.save(live, tmp_path / "other", example=frame.head().astype({"s": str}).astype({"s": "category"}))
    assert info.value.code == "model-unsupported"
    bare = modelpack.load(modelpack.save(live, tmp_path / "bare").path)
    with pytest.raises(InputError, match="none of the model's categories"):
        bare.predict(frame)
    with pytest.raises(PackageError, match="other categories than the model"):
        loaded(bytes(live.get_booster().save_raw()), {"categories": {"4": ["rot", "grun", "blau"]}})


def test_features_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="a: the model has a feature that is not there") as info:
        modelpack.save(regressor(), tmp_path / "pkg", example=table().head().drop(columns=["a"]))
    assert info.value.code == "example-failed"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("a", "text", "a number here"), ("s", 1.0, "a category here"), ("k", pd.Timestamp(0), "a category here")],
)
def test_columns_of_other_types_are_refused(tmp_path: Path, column: str, value: Any, message: str) -> None:
    with pytest.raises(SaveError, match=message):
        modelpack.save(regressor(), tmp_path / "pkg", example=table().head().assign(**{column: value}))


def test_categories_that_only_the_frame_knows(tmp_path: Path) -> None:
    """A model of numbers that stand for categories, as trained by releases that kept none."""
    frame = table()[["a", "s"]].assign(s=table()["s"].cat.codes)
    types_ = ["float", "c"]
    data = xgboost.DMatrix(frame.to_numpy(), label=target(), feature_types=types_, feature_names=["a", "s"])
    live = xgboost.train({"max_depth": 3, "nthread": 1}, data, 4)
    example = table()[["a", "s"]]
    same(saved(live, tmp_path, example=example).predict(example), live.predict(data))
    bare = modelpack.save(live, tmp_path / "bare")
    assert bare.manifest.signature.inputs is None


@pytest.mark.parametrize(
    ("options", "code", "path"),
    [
        ({"format": "binary"}, "option-invalid", "options.format"),
        ({"method": "transform"}, "option-invalid", "options.method"),
        ({"method": "predict_proba"}, "option-invalid", "options.method"),
        ({"threads": 0}, "option-invalid", "options.threads"),
        ({"threads": True}, "option-invalid", "options.threads"),
        ({"thread": 1}, "option-unknown", "options.thread"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], code: str, path: str) -> None:
    with pytest.raises(UsageError) as info:
        modelpack.save(regressor(), tmp_path / "pkg", options=options)
    assert (info.value.code, info.value.path) == (code, path)


def test_an_objective_in_python_cannot_be_saved(tmp_path: Path) -> None:
    def squared(y: Any, scores: Any) -> Any:
        return scores - y, np.ones_like(y)

    X = table()[["a", "b", "c"]]
    live = xgboost.XGBRegressor(**SMALL, objective=squared).fit(X, target())
    with pytest.raises(SaveError, match="objective is a Python function") as info:
        modelpack.save(live, tmp_path / "pkg")
    assert info.value.code == "model-unsupported" and "get_booster" in info.value.hint
    booster = saved(live.get_booster(), tmp_path, example=X.head())
    same(booster.predict(X, params={"method": "margin"}), live.predict(X, output_margin=True))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (xgboost.XGBRegressor(), "has not been fitted"),
        (xgboost.Booster(), "cannot write the model"),
        (object(), "none of XGBoost's own classes"),
    ],
)
def test_what_has_no_model_cannot_be_saved(tmp_path: Path, model: Any, message: str) -> None:
    with pytest.raises(SaveError, match=message) as info:
        modelpack.save(model, tmp_path / "pkg", flavor="xgboost")
    assert info.value.code == "model-unsupported"


def test_a_class_of_ones_own_is_not_taken_for_its_base() -> None:
    class Mine(xgboost.XGBRegressor):
        pass

    assert (FLAVOR.matches(Mine()), FLAVOR.matches(xgboost.XGBRegressor())) == (0, 60)


def test_a_layout_that_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xgboost.Booster, "save_raw", lambda self, form: bytearray(b'{"learner":{},"version":[9,0,0]}'))
    with pytest.raises(SaveError, match="could not be loaded again") as info:
        modelpack.save(regressor(), tmp_path / "pkg")
    assert info.value.code == "model-unsupported"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"estimator": "DaskXGBRegressor"}, "an estimator that XGBoost does not have"),
        ({"estimator": ["XGBRegressor"]}, "an estimator that XGBoost does not have"),
        ({"method": "apply"}, "none that this flavor writes"),
        ({"method": "predict_proba"}, "none that this flavor writes"),
        ({"threads": 10**9}, "none that this flavor writes"),
        ({"missing": "x"}, "not a number"),
        ({"missing": True}, "not a number"),
        ({"categories": []}, "has no categories"),
        ({"more": 1}, "none that this flavor writes"),
    ],
)
def test_a_config_of_somebody_else_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message) as info:
        loaded(bytes(regressor().get_booster().save_raw()), config)
    assert info.value.code == "payload-invalid"


def test_infinities_may_stand_for_missing_values() -> None:
    data = bytes(regressor().get_booster().save_raw())
    for stored, wanted in (("inf", np.inf), ("-inf", -np.inf), (3, 3.0)):
        assert loaded(data, {"estimator": "XGBRegressor", "missing": stored}).model.missing == wanted


def test_the_form_is_the_one_the_package_says() -> None:
    with pytest.raises(PackageError, match="not in the form that its format says"):
        loaded(bytes(regressor().get_booster().save_raw("json")), {})


def test_a_model_that_xgboost_refuses_is_invalid() -> None:
    model = json.loads(regressor().get_booster().save_raw("json"))
    model["learner"]["objective"] = {"name": "survival:aft", "aft_loss_param": {"aft_loss_distribution": "none"}}
    data = json.dumps(model, separators=(",", ":")).encode()
    with pytest.raises(PackageError, match="XGBoost refuses the model"):
        loaded(data, {}, "json")


def test_the_extra_is_named_when_xgboost_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(regressor().get_booster().save_raw())
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(UsageError, match=r"modelpack\[xgboost\]") as info:
        loaded(data, {})
    assert info.value.code == "extra-missing"


def test_the_thresholds_are_where_the_trees_split() -> None:
    from modelpack.audits.xgboost_json import check
    from modelpack_flavors._boosters import thresholds

    X = np.repeat([[0.0, 1.0], [2.0, 1.0]], 20, axis=0)
    model = xgboost.XGBRegressor(n_estimators=1, max_depth=2, n_jobs=1).fit(X, X[:, 0])
    for form in ("json", "ubj"):
        facts = check(bytes(model.get_booster().save_raw(form)), "model")
        assert thresholds.of_xgboost(facts.root, ()) == {0: [2.0]}
        assert thresholds.of_xgboost(facts.root, ("a", "b")) == {"a": [2.0]}
    linear = xgboost.XGBRegressor(n_estimators=1, booster="gblinear", n_jobs=1).fit(X, X[:, 0])
    assert thresholds.of_xgboost(check(bytes(linear.get_booster().save_raw()), "model").root, ()) == {}


def test_penguins_over_the_json_forms(tmp_path: Path) -> None:
    frame = load_penguins()
    y = frame.pop("species").astype("category").cat.codes
    for name in ("island", "sex"):
        frame[name] = frame[name].astype("category")
    live = xgboost.XGBClassifier(**SMALL, enable_categorical=True).fit(frame, y)
    model = saved(live, tmp_path, example=frame.head(), options={"method": "predict_proba", "threads": 1})
    rows = json.loads(frame.to_json(orient="records"))
    same(model.predict(rows), live.predict_proba(frame))
