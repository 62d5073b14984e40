"""The LightGBM flavor beyond the contract: exact answers by every way in, labels, categories, and what is refused."""

from __future__ import annotations

import functools
import json
import sys
import types
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

import modelpack
from modelpack.errors import InputError, PackageError, SaveError, UsageError
from modelpack.flavor import LoadContext, get

FLAVOR = get("lightgbm")
SMALL = {"n_estimators": 5, "num_leaves": 6, "n_jobs": 1, "verbose": -1, "min_data_per_group": 5, "cat_smooth": 1}
PARAMS = {"num_leaves": 6, "num_threads": 1, "verbose": -1}


@functools.cache
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(240, 3)), columns=["a", "b", "c"])
    frame.loc[::7, "b"] = np.nan
    frame["k"] = pd.Categorical(rng.integers(0, 4, 240) * 10)
    frame["s"] = pd.Categorical(rng.choice(["rot", "grün", "blau"], 240), categories=["rot", "grün", "blau"])
    frame["n"] = rng.integers(-5, 2**40, 240)
    frame["t"] = rng.integers(0, 2, 240).astype(bool)
    return frame


@functools.cache
def target() -> np.ndarray[Any, Any]:
    frame = table()
    colour = frame["s"].cat.codes.to_numpy()
    return frame["a"].to_numpy() + colour + np.where(frame["k"].astype(float) > 10, frame["c"], 0)


@functools.cache
def regressor() -> lightgbm.LGBMRegressor:
    return lightgbm.LGBMRegressor(**SMALL).fit(table(), target())


@functools.cache
def classifier() -> lightgbm.LGBMClassifier:
    return lightgbm.LGBMClassifier(**SMALL).fit(table(), np.where(target() > 1, "much", "little"))


def text(model: Any) -> bytes:
    return model.booster_.model_to_string(num_iteration=-1).encode()


def same(one: Any, other: Any) -> None:
    assert (type(one), one.dtype, one.shape) == (type(other), other.dtype, other.shape)
    np.testing.assert_array_equal(one, other)


def saved(model: Any, path: Path, **more: Any) -> modelpack.model.Model:
    return modelpack.load(modelpack.save(model, path / "pkg", **{"options": {"threads": 1}, **more}).path)


def loaded(data: bytes, config: dict[str, Any]) -> Any:
    """Load bytes and a config as a package that may say anything would."""
    usual = {
        "best_iteration": -1,
        "classes": None,
        "early_stop": {},
        "estimator": None,
        "method": "predict",
        "threads": 1,
    }
    context = LoadContext(
        format="lightgbm-text",
        entry="model.txt",
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


def test_columns_in_any_order_are_found_by_name(tmp_path: Path) -> None:
    model = saved(regressor(), tmp_path, example=table().head())
    shuffled = table().assign(more="x")[["more", "t", "s", "a", "n", "k", "c", "b"]]
    same(model.predict(shuffled), regressor().predict(table()))


def test_records_give_the_answers_of_the_table(tmp_path: Path) -> None:
    model = saved(regressor(), tmp_path, example=table().head())
    records = json.loads(table().head(20).to_json(orient="records"))
    same(model.predict(records), regressor().predict(table().head(20)))


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["no", "yes"]),
        np.array(["no", "yes"], dtype=object),
        np.array([False, True]),
        np.array([3, 7], dtype=np.uint8),
        np.array([-1.0, 2.0]),
        np.array([2**60, 2**60 + 1]),
        np.array(["one", "three", "two"]),
        np.array([10, 20, 30], dtype=np.int32),
    ],
    ids=lambda labels: f"{labels.dtype}-{len(labels)}",
)
def test_labels_shares_and_margins_are_those_of_the_live_model(tmp_path: Path, labels: np.ndarray[Any, Any]) -> None:
    y = labels[np.digitize(target(), [0.5, 2.0][: len(labels) - 1])]
    live = lightgbm.LGBMClassifier(**SMALL).fit(table(), y)
    model = saved(live, tmp_path, example=table().head())
    same(model.predict(table()), live.predict(table()))
    same(model.predict(table(), params={"method": "predict_proba"}), live.predict_proba(table()))
    same(model.predict(table(), params={"method": "margin"}), live.predict(table(), raw_score=True))


def test_one_versus_all(tmp_path: Path) -> None:
    live = lightgbm.LGBMClassifier(**SMALL, objective="multiclassova").fit(table(), np.digitize(target(), [0.5, 2.0]))
    model = saved(live, tmp_path, example=table().head())
    same(model.predict(table(), params={"method": "predict_proba"}), live.predict_proba(table()))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_arrays_of_any_number_type(tmp_path: Path, dtype: str) -> None:
    X = (np.nan_to_num(table()[["a", "b", "c"]].to_numpy()) * 20 + 60).clip(0, 200).astype(dtype)
    live = lightgbm.LGBMRegressor(**SMALL).fit(X, target())
    same(saved(live, tmp_path, example=X[:3]).predict(X), live.predict(X))


@pytest.mark.parametrize("boosting", ["gbdt", "dart", "rf"])
def test_kinds_of_boosting(tmp_path: Path, boosting: str) -> None:
    X = table()[["a", "b", "c"]]
    live = lightgbm.LGBMRegressor(**SMALL, boosting_type=boosting, subsample=0.5, subsample_freq=1).fit(X, target())
    same(saved(live, tmp_path, example=X.head()).predict(X), live.predict(X))


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_best_iteration_answers_and_all_trees_are_kept(tmp_path: Path, wrapped: bool) -> None:
    X, y = table()[["a", "b", "c"]], np.random.default_rng(1).normal(size=240)
    stop = [lightgbm.early_stopping(3, verbose=False)]
    if wrapped:
        live: Any = lightgbm.LGBMRegressor(n_estimators=60, n_jobs=1, verbose=-1)
        live.fit(X[:120], y[:120], eval_X=(X[120:],), eval_y=(y[120:],), callbacks=stop)
        booster = live.booster_
    else:
        train = lightgbm.Dataset(X[:120], y[:120])
        valid = lightgbm.Dataset(X[120:], y[120:], reference=train)
        live = booster = lightgbm.train(
            {**PARAMS, "learning_rate": 1.0}, train, 60, [valid], callbacks=stop, keep_training_booster=True
        )
        assert booster.best_iteration < booster.current_iteration()
    assert booster.best_iteration > 0
    model = saved(live, tmp_path, example=X.head())
    same(model.predict(X), live.predict(X))
    assert model.manifest.payloads["native"].declares["iterations"] == booster.current_iteration()
    assert model.manifest.flavors[0].config["best_iteration"] == booster.best_iteration


def test_predictions_that_stop_early_do_so_again(tmp_path: Path) -> None:
    stop = {"pred_early_stop": True, "pred_early_stop_freq": 2, "pred_early_stop_margin": 0.01}
    live = lightgbm.LGBMClassifier(**{**SMALL, "n_estimators": 30}, **stop).fit(table(), target() > 1)
    model = saved(live, tmp_path, example=table().head(), options={"method": "predict_proba", "threads": 1})
    full = live.booster_.predict(table())
    assert (model.predict(table())[:, 1] != full).any()
    same(model.predict(table()), live.predict_proba(table()))


def test_the_signature_has_the_categories_of_training_whatever_the_example_has(tmp_path: Path) -> None:
    example = table().head(3).copy()
    example["s"] = pd.Categorical(example["s"].astype(str))
    example["k"] = pd.Categorical(example["k"].astype(int))
    model = saved(regressor(), tmp_path, example=example)
    types_ = {column.name: column.type for column in model.signature.inputs.columns}  # type: ignore[union-attr]
    assert types_["s"].categories == ("rot", "grün", "blau")  # type: ignore[union-attr]
    assert types_["k"].categories == (0, 10, 20, 30)  # type: ignore[union-attr]
    same(model.predict(table()), regressor().predict(table()))


def test_a_model_knows_its_columns_without_an_example(tmp_path: Path) -> None:
    """All but truth values, which LightGBM does not tell from numbers."""
    frame = table().drop(columns="t")
    live = lightgbm.LGBMClassifier(**SMALL).fit(frame, np.where(target() > 1, "much", "little"))
    model = saved(live, tmp_path)
    inputs = model.signature.inputs
    assert inputs is not None and all(column.nullable for column in inputs.columns)  # type: ignore[union-attr]
    same(model.predict(frame), live.predict(frame))


def test_ordered_categories_need_an_example(tmp_path: Path) -> None:
    """They are split as numbers, and the model does not say which columns they are."""
    frame = table().assign(k=table()["k"].cat.as_ordered())
    live = lightgbm.LGBMRegressor(**SMALL).fit(frame, target())
    model = saved(live, tmp_path, example=frame.head())
    same(model.predict(frame), live.predict(frame))
    assert modelpack.save(live, tmp_path / "bare").manifest.signature.inputs is None


def test_names_are_compared_as_lightgbm_spells_them(tmp_path: Path) -> None:
    frame = table()[["a", "b"]].rename(columns={"a": "long name"})
    live = lightgbm.LGBMRegressor(**SMALL).fit(frame, target())
    model = saved(live, tmp_path, example=frame.head())
    assert [column.name for column in model.signature.inputs.columns] == ["long name", "b"]  # type: ignore[union-attr]
    same(model.predict(frame[["b", "long name"]]), live.predict(frame))


def test_features_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="a: the model has a feature that is not there"):
        modelpack.save(regressor(), tmp_path / "pkg", example=table().head().drop(columns=["a"]))


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    X = table()[["a", "b", "c"]].to_numpy()
    predictor = saved(lightgbm.LGBMRegressor(**SMALL).fit(X, target()), tmp_path)
    with pytest.raises(InputError, match="input"):
        predictor.predict(X[:, :2])
    with pytest.raises(SaveError, match="2 features where the model has 3"):
        modelpack.save(lightgbm.LGBMRegressor(**SMALL).fit(X, target()), tmp_path / "bad", example=X[:3, :2])
    with pytest.raises(SaveError, match="one matrix of numbers"):
        modelpack.save(lightgbm.LGBMRegressor(**SMALL).fit(X, target()), tmp_path / "bad", example=X[0])


@pytest.mark.parametrize(
    ("options", "code", "path"),
    [
        ({"method": "transform"}, "option-invalid", "options.method"),
        ({"method": "predict_proba"}, "option-invalid", "options.method"),
        ({"threads": 0}, "option-invalid", "options.threads"),
        ({"format": "json"}, "option-unknown", "options.format"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], code: str, path: str) -> None:
    with pytest.raises(UsageError) as info:
        modelpack.save(regressor(), tmp_path / "pkg", options=options)
    assert (info.value.code, info.value.path) == (code, path)


def test_an_objective_in_python_cannot_be_saved(tmp_path: Path) -> None:
    def squared(y: Any, scores: Any) -> Any:
        return scores - y, np.ones_like(y)

    live = lightgbm.LGBMRegressor(**SMALL, objective=squared).fit(table(), target())
    with pytest.raises(SaveError, match="objective is a Python function") as info:
        modelpack.save(live, tmp_path / "pkg")
    assert info.value.code == "model-unsupported" and "booster_" in info.value.hint
    same(saved(live.booster_, tmp_path, example=table().head()).predict(table()), live.predict(table()))


@pytest.mark.parametrize(
    ("model", "message"),
    [(lightgbm.LGBMRegressor(), "has not been fitted"), (object(), "none of LightGBM's own classes")],
)
def test_what_has_no_model_cannot_be_saved(tmp_path: Path, model: Any, message: str) -> None:
    with pytest.raises(SaveError, match=message) as info:
        modelpack.save(model, tmp_path / "pkg", flavor="lightgbm")
    assert info.value.code == "model-unsupported"


def test_what_lightgbm_cannot_write_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise TypeError("a category is no JSON")

    monkeypatch.setattr(lightgbm.Booster, "model_to_string", fail)
    with pytest.raises(SaveError, match="LightGBM cannot write the model: a category is no JSON") as info:
        modelpack.save(regressor(), tmp_path / "pkg")
    assert info.value.code == "model-unsupported"


def test_a_model_that_lightgbm_refuses_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    data = text(regressor())

    def fail(*_: object, **__: object) -> None:
        raise lightgbm.basic.LightGBMError("no")

    monkeypatch.setattr(lightgbm.Booster, "model_from_string", fail)
    with pytest.raises(PackageError, match="LightGBM refuses the model"):
        loaded(data, {})


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]"), "neither texts nor numbers"),
        (np.array([1, "x"], dtype=object), None),
        (np.array([2**60, "x"], dtype=object), "large integer"),
        (np.array([(1, 2), "x"], dtype=object), "neither texts nor numbers"),
        (np.array([1.0, np.nan]), "NaN"),
        (np.array([1.0, np.inf]), "infinite"),
    ],
)
def test_labels_are_kept_exactly_or_refused(classes: np.ndarray[Any, Any], message: str | None) -> None:
    from modelpack_flavors._lightgbm import labels

    if message is None:
        same(labels.from_json(json.loads(json.dumps(labels.as_json(classes))), "model.txt"), classes)
        return
    with pytest.raises(SaveError, match=message) as info:
        labels.as_json(classes)
    assert info.value.code == "model-unsupported"


def test_a_layout_that_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightgbm.Booster, "model_to_string", lambda self, num_iteration: "tree\nversion=v9\n\n")
    with pytest.raises(SaveError, match="could not be loaded again"):
        modelpack.save(regressor(), tmp_path / "pkg")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"estimator": "DaskLGBMRegressor"}, "an estimator that LightGBM does not have"),
        ({"method": "predict_proba"}, "none that this flavor writes"),
        ({"threads": -1}, "none that this flavor writes"),
        ({"more": 1}, "none that this flavor writes"),
        ({"best_iteration": 99}, "best iteration"),
        ({"best_iteration": "5"}, "best iteration"),
        ({"early_stop": {"machines": "x"}}, "stops predictions"),
        ({"early_stop": {"pred_early_stop": 1}}, "stops predictions"),
        ({"early_stop": {"pred_early_stop_freq": -1}}, "stops predictions"),
        ({"early_stop": None}, "stops predictions"),
        ({"estimator": "LGBMClassifier", "classes": None}, "no labels"),
        ({"estimator": "LGBMClassifier", "classes": {"dtype": "O", "values": ["a", "b"]}}, "no labels"),
        ({"estimator": "LGBMClassifier", "classes": {"dtype": "object", "values": [[], "b"]}}, "no labels"),
        ({"estimator": "LGBMClassifier", "classes": {"dtype": "object", "values": []}}, "no labels"),
        ({"estimator": "LGBMClassifier", "classes": {"dtype": "<U1", "values": ["aa", "b"]}}, "no labels"),
        ({"estimator": "LGBMClassifier", "classes": {"dtype": "uint8", "values": [256, 1]}}, "no labels"),
        ({"estimator": "LGBMClassifier", "classes": {"dtype": "int64", "values": ["x", 1]}}, "no labels"),
        ({"estimator": "LGBMClassifier", "classes": {"dtype": "int64", "values": [True, 1]}}, "no labels"),
        ({"estimator": "LGBMClassifier", "classes": {"dtype": "int64", "values": [1, 2, 3]}}, "number of classes"),
    ],
)
def test_a_config_of_somebody_else_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message) as info:
        loaded(text(classifier()), config)
    assert info.value.code == "payload-invalid"


def test_the_extra_is_named_when_lightgbm_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = text(regressor())
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UsageError, match=r"modelpack\[lightgbm\]") as info:
        loaded(data, {})
    assert info.value.code == "extra-missing"


def test_the_thresholds_are_where_the_trees_split() -> None:
    from modelpack_flavors._boosters import thresholds

    X = np.repeat([[1.0, 1.0], [3.0, 1.0]], 40, axis=0)
    data = text(lightgbm.LGBMRegressor(**{**SMALL, "n_estimators": 1}).fit(X, X[:, 0]))
    assert list(thresholds.of_lightgbm(data, ())) == [0]
    (found,) = thresholds.of_lightgbm(data, ("a", "b"))["a"]
    assert found == pytest.approx(2.0)
