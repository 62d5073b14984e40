"""XGBoost and LightGBM inside scikit-learn models: safe to load, exact, and audited like models of their own."""

from __future__ import annotations

import functools
import json
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from palmerpenguins import load_penguins
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import modelpack
from modelpack.audits import skops
from modelpack.errors import PackageError, SaveError, UsageError
from modelpack.trust import Store
from modelpack_flavors._sklearn import boosters, invariants, saving

XGB: dict[str, Any] = {"n_estimators": 3, "max_depth": 3, "n_jobs": 1}
LGB: dict[str, Any] = {"n_estimators": 3, "num_leaves": 5, "n_jobs": 1, "verbose": -1}
X, Y = load_breast_cancer(return_X_y=True)


def penguins(last: Any, codes: bool) -> Any:
    table = load_penguins()
    species = table.pop("species")
    numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    columns = make_column_transformer(
        (SimpleImputer(), numbers), (OneHotEncoder(handle_unknown="ignore"), ["island", "sex"])
    )
    labels = species.astype("category").cat.codes if codes else species
    return make_pipeline(columns, last).fit(table, labels), table


def both() -> list[tuple[str, Any]]:
    return [("x", xgboost.XGBClassifier(**XGB)), ("l", lightgbm.LGBMClassifier(**LGB))]


MODELS: dict[str, Callable[[], Any]] = {
    "xgboost_pipeline": lambda: penguins(xgboost.XGBClassifier(**XGB), codes=True),
    "lightgbm_pipeline": lambda: penguins(lightgbm.LGBMClassifier(**LGB), codes=False),
    "truth_values": lambda: (make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(**LGB)).fit(X, Y == 1), X),
    "voting": lambda: (VotingClassifier([*both(), ("r", LogisticRegression())], voting="soft").fit(X / 100, Y), X),
    "stacking": lambda: (StackingClassifier(both(), cv=2).fit(X, Y), X),
    "calibrated": lambda: (CalibratedClassifierCV(xgboost.XGBClassifier(**XGB), cv=2).fit(X, Y), X),
    "searched": lambda: (GridSearchCV(lightgbm.LGBMClassifier(**LGB), {"num_leaves": [3, 4]}, cv=2).fit(X, Y), X),
    "outputs": lambda: (MultiOutputRegressor(lightgbm.LGBMRegressor(**LGB)).fit(X, np.c_[Y, -Y]), X),
    "one_versus_rest": lambda: (
        OneVsRestClassifier(xgboost.XGBClassifier(**XGB)).fit(*load_iris(return_X_y=True)),
        load_iris().data,
    ),
    "transformed_target": lambda: (TransformedTargetRegressor(xgboost.XGBRegressor(**XGB)).fit(X, Y), X),
    "ranker": lambda: (lightgbm.LGBMRanker(**LGB).fit(X, Y, group=[569]), X),
    "xgboost_ranker": lambda: (xgboost.XGBRanker(**XGB).fit(X, Y, qid=np.arange(569) // 100), X),
    "forest": lambda: (make_pipeline(xgboost.XGBRFClassifier(**XGB)).fit(X, Y), X),
}


@functools.cache
def made(name: str) -> Any:
    return MODELS[name]()


@pytest.mark.parametrize("name", MODELS)
def test_they_load_without_a_grant_and_answer_the_same(name: str, tmp_path: Path) -> None:
    model, rows = made(name)
    package = modelpack.save(model, tmp_path / "pkg", flavor="sklearn", example=rows[:5])
    again = modelpack.save(model, tmp_path / "again", flavor="sklearn", example=rows[:5])
    assert package.manifest.content_digest == again.manifest.content_digest
    loaded = modelpack.load(package.path, store=Store(tmp_path / "stranger"))
    assert loaded.candidate.trust == "objects"
    for method in ("predict", "predict_proba"):
        if hasattr(model, method):
            answer = loaded.predict(rows, params={"method": method} if hasattr(model, "predict_proba") else None)
            live = getattr(model, method)(rows)
            np.testing.assert_array_equal(answer, live)
            assert answer.dtype == live.dtype


@pytest.mark.parametrize("name", ["stacking", "ranker", "xgboost_ranker"])
def test_skops_itself_reads_the_file(name: str, tmp_path: Path) -> None:
    import skops.io

    model, rows = made(name)
    data = archive(name, tmp_path)
    again = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))


def test_the_library_is_part_of_the_environment(tmp_path: Path) -> None:
    model, rows = made("stacking")
    package = modelpack.save(model, tmp_path / "pkg", example=rows[:5])
    assert {"lightgbm", "xgboost", "scikit-learn"} <= set(package.manifest.environment.critical)


def test_missing_values_pass_where_the_booster_is_the_first_to_see_them(tmp_path: Path) -> None:
    frame = load_iris(as_frame=True)
    model = make_pipeline(xgboost.XGBClassifier(**XGB)).fit(frame.data, frame.target)
    package = modelpack.save(model, tmp_path / "pkg")
    columns = package.manifest.signature.inputs.columns  # type: ignore[union-attr]
    assert {(column.type, column.nullable) for column in columns} == {("float64", True)}


def test_a_booster_with_a_best_iteration_scores_with_it(tmp_path: Path) -> None:
    live = lightgbm.LGBMClassifier(**LGB).fit(X, Y)
    every = live.predict_proba(X)
    live.booster_.best_iteration = 2
    assert (live.predict_proba(X) != every).any()
    package = modelpack.save(live, tmp_path / "pkg", flavor="sklearn", example=X[:3])
    proba = modelpack.load(package.path).predict(X, params={"method": "predict_proba"})
    np.testing.assert_array_equal(proba, live.predict_proba(X))


def test_a_booster_that_its_library_cannot_write_cannot_be_saved(tmp_path: Path) -> None:
    live = xgboost.XGBRegressor(**XGB).fit(X, Y)
    live._Booster = xgboost.Booster()
    with pytest.raises(SaveError, match="xgboost cannot write its booster"):
        modelpack.save(make_pipeline(live), tmp_path / "pkg")


def archive(name: str, tmp_path: Path) -> bytes:
    model, _ = made(name)
    saving.write(model, "skops", tmp_path / "model.skops", ())
    return (tmp_path / "model.skops").read_bytes()


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    source = zipfile.ZipFile(BytesIO(data))
    members = {name: source.read(name) for name in source.namelist()}
    change(members)
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, raw in members.items():
            file.writestr(name, raw)
    return target.getvalue()


def nodes(value: Any) -> list[dict[str, Any]]:
    found = [value] if isinstance(value, dict) and "__loader__" in value else []
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found += nodes(item)
    return found


def schema_changed(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        schema = json.loads(members["schema.json"])
        change(nodes(schema))
        members["schema.json"] = json.dumps(schema).encode()

    return apply


def booster_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(node for node in found if node["__class__"] == "Booster")


def flip(members: dict[str, bytes]) -> None:
    name = next(name for name in members if name.endswith(".bin"))
    members[name] = members[name].replace(b"num_feature", b"num_faature")


def state(key: str, content: str) -> Callable[[dict[str, bytes]], None]:
    def change(found: list[dict[str, Any]]) -> None:
        booster_of(found)["content"]["content"][key]["content"] = content

    return schema_changed(change)


def without(key: str) -> Callable[[dict[str, bytes]], None]:
    def change(found: list[dict[str, Any]]) -> None:
        attributes = booster_of(found)["content"]
        place = list(attributes["content"]).index(key)
        del attributes["content"][key]
        del attributes["key_types"]["content"][place]

    return schema_changed(change)


def first_argument(found: list[dict[str, Any]]) -> None:
    booster_of(found)["content"]["content"][0]["content"] = "1"


def one_argument_less(found: list[dict[str, Any]]) -> None:
    del booster_of(found)["content"]["content"][0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("transformed_target", flip, "an XGBoost model that cannot be used"),
        ("transformed_target", schema_changed(first_argument), "not stored as its model alone"),
        ("transformed_target", schema_changed(one_argument_less), "not stored as its model alone"),
        ("ranker", state("_handle", '"tree"'), "not a LightGBM model that can be used"),
        ("ranker", state("_handle", "5"), "not stored as its model alone"),
        ("ranker", state("best_iteration", "99"), "a state that its model does not have"),
        ("ranker", state("best_iteration", "true"), "a state that its model does not have"),
        ("ranker", state("_network", "true"), "a state that its model does not have"),
        ("ranker", state("_Booster__num_class", "7"), "a state that its model does not have"),
        ("ranker", without("params"), "not stored as its model alone"),
    ],
)
def test_a_booster_inside_is_audited_as_one_alone(
    name: str, change: Callable[[dict[str, bytes]], None], message: str, tmp_path: Path
) -> None:
    data = rewritten(archive(name, tmp_path), change)
    with pytest.raises(PackageError, match=message) as info:
        skops.inspect(data, "model.skops")
    assert info.value.code == "payload-invalid"


def test_a_state_of_something_else_than_values_is_refused(tmp_path: Path) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        held = booster_of(found)["content"]["content"]
        held["params"] = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": []}

    data = rewritten(archive("ranker", tmp_path), schema_changed(change))
    with pytest.raises(PackageError, match="something else than values"):
        skops.inspect(data, "model.skops")


def changed(model: Any, **attributes: Any) -> Any:
    vars(model).update(attributes)
    return model


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"n_jobs": 10**9}, "threads is out of range"),
        ({"missing": "x"}, "missing ones is not a number"),
        ({"feature_types": ["float"]}, "not one for each feature"),
        ({"_Booster": {}}, "its booster is none"),
    ],
)
def test_an_xgboost_estimator_passes_on_only_what_it_should(attributes: dict[str, Any], message: str) -> None:
    model = changed(xgboost.XGBRegressor(**XGB).fit(X, Y), **attributes)
    with pytest.raises(PackageError, match=message):
        invariants.check(model, "model.skops")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"n_jobs": 10**9}, "threads is out of range"),
        ({"_other_params": {"num_threads": 10**9}, "num_threads": 10**9}, "threads is out of range"),
        ({"boosting_type": "gbdt machines=here"}, "neither a number nor a word"),
        ({"subsample": [[[1]]]}, "neither a number nor a word"),
        ({"subsample": {"a": 1}}, "neither a number nor a word"),
        ({"_other_params": {"machines": "here"}}, "no place in a model"),
        ({"_other_params": {"forcedsplits_filename": "x"}}, "no place in a model"),
        ({"_other_params": {"predict_disable_shape_check": True}}, "no place in a model"),
        ({"_other_params": {"a=1 b": 1}}, "no place in a model"),
        ({"_Booster": {}}, "its booster is none"),
    ],
)
def test_a_lightgbm_estimator_passes_on_only_what_it_should(attributes: dict[str, Any], message: str) -> None:
    model = changed(lightgbm.LGBMRegressor(**LGB).fit(X, Y), **attributes)
    with pytest.raises(PackageError, match=message):
        invariants.check(model, "model.skops")


def test_params_of_training_are_kept() -> None:
    more = {"min_data_in_leaf": 5, "data_random_seed": 3, "interaction_constraints": [[0, 1], [2]], "metric": ["auc"]}
    invariants.check(lightgbm.LGBMClassifier(**LGB, **more).fit(X, Y), "model.skops")


def test_estimators_that_are_not_fitted_have_nothing_to_check() -> None:
    invariants.check([xgboost.XGBRegressor(), lightgbm.LGBMRegressor()], "model.skops")


@pytest.mark.parametrize(("name", "library"), [("transformed_target", "xgboost"), ("ranker", "lightgbm")])
def test_the_extra_is_named_when_the_library_is_missing(
    name: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = made(name)
    package = modelpack.save(model, tmp_path / "pkg", flavor="sklearn", example=rows[:3])
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"modelpack\[{library}\]"):
        modelpack.load(package.path)


def test_steps_with_categories_leave_the_types_to_the_example() -> None:
    assert not boosters.takes_numbers(xgboost.XGBRegressor(enable_categorical=True))
    assert boosters.takes_numbers(lightgbm.LGBMRegressor())
    assert not boosters.takes_numbers(StandardScaler())
