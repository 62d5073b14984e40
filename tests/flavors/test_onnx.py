"""What the onnx flavor does beyond the contract: options, types, sizes, versions; and which models get a twin."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from onnx import TensorProto, helper
from palmerpenguins import load_penguins
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import modelpack
from modelpack import coerce, flavor
from modelpack.audits import onnx_graph
from modelpack.audits.onnx_graph import Facts
from modelpack.coerce import Split
from modelpack.errors import FlavorError, InputError, PackageError, SaveError, UsageError
from modelpack.flavor import SaveContext
from modelpack.frame import Block, Frame, Vector
from modelpack.signature import Table, Tensors
from modelpack_flavors._onnx import casting, sessions

VALUE = helper.make_tensor_value_info
F32, F64, I64, TEXT = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING


def graph(inputs: Any, outputs: Any, *nodes: Any, opset: int = 18, ir: int = 8) -> onnx.ModelProto:
    made = helper.make_graph(list(nodes), "g", [VALUE(*one) for one in inputs], [VALUE(*one) for one in outputs])
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=sets, ir_version=ir)


def identity(kind: int = F32, shape: Any = ("n", 2)) -> onnx.ModelProto:
    return graph([("x", kind, shape)], [("y", kind, shape)], helper.make_node("Identity", ["x"], ["y"]))


def save(model: Any, path: Path, **more: Any) -> modelpack.Model:
    return modelpack.load(modelpack.save(model, path / "pkg", flavor="onnx", **more).path)


# The signature and the values.


def test_without_an_example_the_graph_gives_the_signature(tmp_path: Path) -> None:
    model = save(identity(), tmp_path)
    assert isinstance(model.signature.inputs, Tensors)
    (tensor,) = model.signature.inputs.tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("x", "float32", ("batch", 2))
    # Doubles are rounded to the floats that the graph takes, as the type says.
    answer = model.predict(np.array([[0.1, 2.0]]))
    np.testing.assert_array_equal(answer, np.array([[0.1, 2.0]], np.float32))
    assert model.predict(np.zeros((0, 2))).shape == (0, 2)


def test_columns_of_a_frame_become_the_inputs_of_their_names(tmp_path: Path) -> None:
    inputs = [("b", F64, ("n", 1)), ("a", I64, ("n", 1)), ("t", TEXT, ("n", 1))]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in "bat"]
    model = save(graph(inputs, [(f"{n}_out", k, s) for n, k, s in inputs], *nodes), tmp_path)
    assert isinstance(model.signature.inputs, Table)
    assert [(c.name, c.type) for c in model.signature.inputs.columns] == [
        ("b", "float64"),
        ("a", "int64"),
        ("t", "utf8"),
    ]
    answer = model.predict(pd.DataFrame({"t": ["x"], "a": [2**53 + 1], "b": [0.5]}))
    assert {k: v.item() for k, v in answer.items()} == {"b_out": 0.5, "a_out": 2**53 + 1, "t_out": "x"}


def test_the_columns_of_an_input_can_be_chosen(tmp_path: Path) -> None:
    frame = pd.DataFrame({"p": [1.0], "q": [2.0], "unused": ["x"]})
    model = save(identity(F64), tmp_path, example=frame, options={"columns": {"x": ["q", "p"]}})
    assert model.predict(frame).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("order", [["p", "q"], ["q", "p"]])
@pytest.mark.parametrize("kind", [F64, F32])
def test_a_table_that_is_one_matrix_is_fed_like_one_of_many_columns(
    kind: int, order: list[str], tmp_path: Path
) -> None:
    frame = pd.DataFrame({"p": [1.0, 2.5], "q": [2.0, 0.1]})
    model = save(identity(kind), tmp_path, example=frame, options={"columns": {"x": order}})
    rows = coerce.inputs(Split(["p", "q"], frame.to_numpy().tolist()), model.signature, wire="json")
    assert isinstance(rows.columns, Block)
    apart = Frame(rows=2, columns=dict(rows.columns.items()))
    want = frame[order].to_numpy().astype("f4" if kind == F32 else "f8")

    for one in (rows, apart):
        (answer,) = (model.score(one, {}).tensors or {}).values()
        np.testing.assert_array_equal(answer, want, strict=True)


@pytest.mark.parametrize(
    ("value", "dtype", "code"),
    [
        (np.array([2**53 + 1]), "float64", "not-exact"),
        (np.array([2**24 + 1]), "float32", "not-exact"),
        (np.array([1e300]), "float32", "out-of-range"),
        (np.array([1.5]), "int64", "not-whole"),
        (np.array([np.nan]), "int64", "not-whole"),
        (np.array([300]), "uint8", "out-of-range"),
        (np.array([True]), "int64", "type-mismatch"),
        (np.array([1]), "utf8", "type-mismatch"),
        (np.array(["x"], object), "float32", "type-mismatch"),
    ],
)
def test_values_change_type_without_loss_or_not_at_all(value: Any, dtype: str, code: str) -> None:
    with pytest.raises(InputError) as info:
        casting.cast(value, dtype, "x")
    assert (info.value.code, info.value.path) == (code, "x")


def test_what_is_exact_is_taken() -> None:
    assert casting.cast(np.array([2.0, -3.0]), "int8", "x").dtype == np.int8
    assert casting.cast(np.array([2**53]), "float64", "x").tolist() == [2.0**53]
    assert np.isinf(casting.cast(np.array([np.inf]), "float32", "x")).all()


def test_a_missing_value_is_nan_in_floats_and_refused_elsewhere(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, None], "b": [0.5, None]}, dtype="object").astype({"a": "Int64", "b": "float64"})
    model = save(identity(F64), tmp_path, example=frame)
    np.testing.assert_array_equal(model.predict(frame), [[1.0, 0.5], [np.nan, np.nan]])
    whole = graph(
        [("a", I64, ("n", 1)), ("b", F64, ("n", 1))], [("y", I64, ("n", 1))], helper.make_node("Identity", ["a"], ["y"])
    )
    with pytest.raises(modelpack.InputError) as info:
        save(whole, tmp_path / "whole", example=frame)
    assert info.value.code == "null-not-allowed"


def test_columns_of_any_type_are_taken_by_their_values() -> None:
    def column(values: list[Any], kind: Any, dtype: str, missing: Any = None, absent: str | None = None) -> Any:
        data = np.array(values, object if kind in ("any", "utf8") else kind)
        gone = None if missing is None else np.array(missing)
        return casting.column(Vector(type=kind, data=data, missing=gone), dtype, "c", absent).tolist()

    assert column([1, 2.5], "any", "float64") == [1.0, 2.5]
    assert column(["a"], "any", "utf8") == ["a"]
    assert column([None, 3], "any", "float64", [True, False])[1] == 3.0
    assert column([None, "a"], "utf8", "utf8", [True, False], "none") == ["none", "a"]
    for values, kind, dtype, missing, code in (
        ([1, "a"], "any", "float64", None, "type-mismatch"),
        ([0, 2**53 + 1], "int64", "float64", [True, False], "not-exact"),
        (["none"], "utf8", "utf8", None, "text-invalid"),
        ([0], "int64", "int64", [True], "null-not-allowed"),
    ):
        with pytest.raises(InputError) as info:
            column(values, kind, dtype, missing, "none")
        assert info.value.code == code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(rows=1, tensors={"a": np.ones((1, 1)), "z": np.ones((1, 1))}), "tensor-missing"),
        (Frame(rows=1, columns={"a": Vector(type="float64", data=np.ones(1))}), "column-missing"),
    ],
)
def test_a_frame_without_an_input_is_refused(frame: Frame, code: str, tmp_path: Path) -> None:
    inputs = [("a", F64, ("n", 1)), ("b", F64, ("n", 1))]
    made = graph(inputs, [("y", F64, ("n", 1))], helper.make_node("Add", ["a", "b"], ["y"]))
    model = save(made, tmp_path, options={"columns": {"a": ["a"], "b": ["b"]}})
    plain = save(made, tmp_path / "plain")
    for one in (model, plain):
        with pytest.raises(InputError) as info:
            one.score(frame, {})
        assert info.value.code == code


def test_a_table_of_another_width_is_refused(tmp_path: Path) -> None:
    model = save(identity(F64), tmp_path)
    columns = {name: Vector(type="float64", data=np.ones(1)) for name in "abc"}
    with pytest.raises(InputError) as info:
        model.score(Frame(rows=1, columns=columns), {})
    assert info.value.code == "shape-mismatch"


def test_maps_without_a_fixed_set_of_keys_stay_maps(tmp_path: Path) -> None:
    from modelpack.audits.onnx_graph import Value
    from modelpack_flavors._onnx.ports import Inputs
    from modelpack_flavors._onnx.scoring import Scorer

    value = Value(name="y", kind="sequence of map", element=1, shape=None)
    scorer = Scorer(session=None, inputs=Inputs(values=[], columns={}), outputs=[value])
    assert scorer._answer(value, [{1: 0.5}, {2: 0.5}]) == [{"1": 0.5}, {"2": 0.5}]
    assert scorer._answer(value, [{2: 0.5, 1: 0.25}]).tolist() == [[0.25, 0.5]]
    assert scorer._answer(value, []).shape == (0, 0)


@pytest.mark.parametrize(("rows", "good"), [(2, True), (4, True), (0, True), (3, False)])
def test_a_graph_of_fixed_size_scores_whole_slices(rows: int, good: bool, tmp_path: Path) -> None:
    model = save(identity(F32, (2, 3)), tmp_path)
    data = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    if good:
        np.testing.assert_array_equal(model.predict(data), data)
    else:
        with pytest.raises(InputError, match="2 rows at a time"):
            model.predict(data)


def test_one_row_at_a_time_takes_any_number(tmp_path: Path) -> None:
    model = save(identity(F32, (1, 3)), tmp_path)
    assert model.predict(np.ones((5, 3), np.float32)).shape == (5, 3)


def test_maps_become_one_column_for_each_class(tmp_path: Path) -> None:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"])
    made = graph([("x", F32, ("n", 2))], [("y", F32, None)], node)
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TEXT, helper.make_tensor_type_proto(F32, [])))
    made.graph.output[0].type.CopyFrom(kind)
    model = save(made, tmp_path)
    answer = model.predict(np.array([[0.25, 0.75]], np.float32))
    assert answer.tolist() == [[0.25, 0.75]]
    assert model.predict(np.zeros((0, 2), np.float32)).shape == (0, 2)


# Options, versions, what is refused.


@pytest.mark.parametrize(
    "options",
    [
        {"intra_op_threads": -1},
        {"intra_op_threads": True},
        {"optimization": "most"},
        {"providers": ["/tmp/library.so"]},
        {"providers": "CPUExecutionProvider"},
        {"outputs": ["z"]},
        {"outputs": []},
        {"columns": {"z": ["a"]}},
        {"columns": {"x": []}},
    ],
)
def test_options_with_wrong_values_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        save(identity(), tmp_path, options=options)
    assert info.value.code == "option-invalid"
    assert list(tmp_path.iterdir()) == []


def test_providers_that_are_not_here_are_left_out(tmp_path: Path) -> None:
    options = {"providers": ["CUDAExecutionProvider"], "inter_op_threads": 1, "optimization": "none"}
    model = save(identity(), tmp_path, options=options)
    assert model.predict(np.ones((1, 2), np.float32)).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (b"\x08not a model", "model-unsupported"),
        ("nowhere.onnx", "model-invalid"),
        (3, "model-invalid"),
        (graph([], [("y", F32, None)], helper.make_node("Constant", [], ["y"], value_float=1.0)), "model-unsupported"),
        (identity(TensorProto.BFLOAT16), "model-unsupported"),
    ],
)
def test_what_cannot_be_served_is_not_saved(model: Any, code: str, tmp_path: Path) -> None:
    with pytest.raises(SaveError) as info:
        save(model, tmp_path)
    assert info.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_tensors_are_elsewhere_is_saved_by_its_path(tmp_path: Path) -> None:
    made = identity()
    tensor = made.graph.initializer.add(name="w", dims=[1], data_type=F32, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="deep/w.bin")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/w.bin").write_bytes(b"\0" * 4)
    with pytest.raises(SaveError, match="give the path"):
        save(made, tmp_path / "a")
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    model = modelpack.save(tmp_path / "m.onnx", tmp_path / "pkg")
    assert set(model.manifest.payloads["native"].files) == {"payloads/native/deep/w.bin", "payloads/native/model.onnx"}
    assert modelpack.load(model.path).predict(np.ones((1, 2), np.float32)).shape == (1, 2)


def facts(ir: int, **opsets: int) -> Facts:
    sets = {("" if name == "main" else name.replace("_", ".")): version for name, version in opsets.items()}
    return Facts(ir_version=ir, opsets=sets, producer="", inputs=(), outputs=(), operators=(), external=(), classes={})


@pytest.mark.parametrize(
    ("model", "release"),
    [
        (facts(3, main=9), ""),
        (facts(8, main=17), "1.12"),
        (facts(10, main=18), "1.18"),
        (facts(8, main=17, ai_onnx_ml=5), "1.20"),
        (facts(14, main=18), None),
        (facts(8, main=99, other=3), None),
    ],
)
def test_the_release_that_a_model_needs_is_known(model: Facts, release: str | None) -> None:
    assert sessions.needs(model) == release


def test_an_old_onnxruntime_says_which_one_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = modelpack.save(graph(
        [("x", F32, ("n", 2))], [("y", F32, ("n", 2))], helper.make_node("Identity", ["x"], ["y"]), opset=21, ir=10
    ), tmp_path / "pkg")  # fmt: skip
    monkeypatch.setattr(onnxruntime, "__version__", "1.16.3")
    with pytest.raises(FlavorError, match=r"needs onnxruntime >= 1\.18, installed is 1\.16\.3.*ai\.onnx 21") as info:
        modelpack.load(package.path)
    assert info.value.code == "runtime-too-old"


def test_a_model_newer_than_all_known_releases_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FlavorError, match="newer than") as info:
        save(
            graph([("x", F32, None)], [("y", F32, None)], helper.make_node("Identity", ["x"], ["y"]), opset=999),
            tmp_path,
        )
    assert info.value.code == "runtime-too-old"


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = modelpack.save(identity(), tmp_path / "pkg")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'modelpack\[onnx\]'") as info:
        modelpack.load(package.path)
    assert info.value.code == "extra-missing"


def test_a_config_that_is_not_the_models_is_refused() -> None:
    from modelpack_flavors._onnx import scoring, writing

    raw = identity().SerializeToString()
    found = writing.onnx_graph.inspect(raw, "m", {})
    for config in (
        {"outputs": ["z"]},
        {"columns": {"z": ["a"]}},
        {"columns": ["x"]},
        {"methods": {"predict": ["z"]}},
        {"method": "predict"},
        {"absent": 3},
        {"unknown": 1},
        {"providers": ["libmine.so"]},
        {"intra_op_threads": 10**9},
    ):
        with pytest.raises(FlavorError) as info:
            scoring.build(found, raw, config)
        assert info.value.code == "config-invalid"


def test_a_graph_that_onnxruntime_does_not_take_is_invalid() -> None:
    from modelpack_flavors._onnx import scoring, writing

    raw = graph([("x", F32, None)], [("y", F32, None)], helper.make_node("Nonsense", ["x"], ["y"])).SerializeToString()
    with pytest.raises(PackageError) as info:
        scoring.build(writing.onnx_graph.inspect(raw, "m", {}), raw, {})
    assert info.value.code == "payload-invalid"


@pytest.mark.parametrize(
    ("model", "fit"),
    [(identity(), 50), (Path("a.onnx"), 50), ("a.onnx", 50), ("a.txt", 0), (b"\x08\x09", 10), (b"x", 0), (3, 0)],
)
def test_the_flavor_knows_its_models(model: Any, fit: int) -> None:
    assert flavor.get("onnx").matches(model) == fit


# Which models of scikit-learn have a twin.

X, Y = load_breast_cancer(return_X_y=True)
XD, YD = load_diabetes(return_X_y=True)
XG, YG = load_digits(return_X_y=True)
HOLES = X.copy()
HOLES[::7, 3] = np.nan
PENGUINS = load_penguins()
NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]


def columns(encoder: Any) -> Any:
    parts = [("n", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS), ("w", encoder, ["island", "sex"])]
    return ColumnTransformer(parts)


TWINS: dict[str, tuple[Callable[[], Any], Any]] = {
    "logistic": (lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), X),
    "text labels": (lambda: GaussianNB().fit(X, np.array(["no", "yes"])[Y]), X),
    "bool labels": (lambda: DecisionTreeClassifier(max_depth=3).fit(X, Y == 1), X),
    "float labels": (lambda: RandomForestClassifier(3, random_state=0).fit(X, Y.astype(float)), X),
    "forest": (lambda: RandomForestClassifier(10, random_state=0).fit(XG, YG), XG),
    "forest with holes": (lambda: RandomForestClassifier(5, random_state=0).fit(HOLES, Y), HOLES),
    "forest regression": (lambda: RandomForestRegressor(5, random_state=0).fit(XD, YD), XD),
    "extra trees": (lambda: ExtraTreesRegressor(5, random_state=0).fit(XD, YD), XD),
    "boosting": (lambda: GradientBoostingClassifier(n_estimators=5).fit(X, Y), X),
    "boosting classes": (lambda: GradientBoostingClassifier(n_estimators=2, max_depth=2).fit(XG, YG), XG),
    "boosting regression": (lambda: GradientBoostingRegressor(n_estimators=5).fit(XD, YD), XD),
    "histogram": (lambda: HistGradientBoostingClassifier(max_iter=5).fit(HOLES, Y), HOLES),
    "histogram poisson": (lambda: HistGradientBoostingRegressor(loss="poisson", max_iter=5).fit(XD, YD), XD),
    "neighbours": (lambda: KNeighborsClassifier().fit(X[:60], Y[:60]), X),
    "two targets": (lambda: Ridge().fit(XD, np.c_[YD, -YD]), XD),
    "one target as a column": (lambda: LinearRegression().fit(XD, YD.reshape(-1, 1)), XD),
    "components": (lambda: PCA(3).fit(X), X),
    "clusters": (lambda: KMeans(3, random_state=0, n_init=1).fit(X), X),
    "text columns with holes": (
        lambda: make_pipeline(columns(OneHotEncoder(handle_unknown="ignore")), LogisticRegression()).fit(
            PENGUINS, PENGUINS["species"]
        ),
        PENGUINS.drop(columns="species"),
    ),
    "text imputed": (
        lambda: make_pipeline(
            columns(make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))),
            RandomForestClassifier(5, random_state=0),
        ).fit(PENGUINS, PENGUINS["species"]),
        PENGUINS.drop(columns="species"),
    ),
}


@functools.cache
def fitted(name: str) -> Any:
    return TWINS[name][0]()


@pytest.mark.parametrize("name", TWINS)
def test_these_models_have_a_twin_that_answers_the_same(name: str, tmp_path: Path) -> None:
    model, data = fitted(name), TWINS[name][1]
    package = modelpack.save(model, tmp_path / "pkg", flavor="sklearn", example=data[:24], also=("onnx",))
    native, twin = modelpack.load(package.path), modelpack.load(package.path, flavor="onnx")
    rows = data[:200]
    for method in ("predict", "predict_proba", "transform"):
        if not hasattr(model, method):
            continue
        params = {"method": method} if native.signature.params else None
        ours, theirs = twin.predict(rows, params), native.predict(rows, params)
        assert (ours.shape, ours.dtype.kind in "OU") == (theirs.shape, theirs.dtype.kind in "OU")
        if theirs.dtype.kind == "f":
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_a_method_that_the_twin_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    package = modelpack.save(fitted("logistic"), tmp_path / "pkg", flavor="sklearn", example=X[:9], also=("onnx",))
    twin = modelpack.load(package.path, flavor="onnx")
    with pytest.raises(InputError, match="predict, predict_proba") as info:
        twin.predict(X[:2], {"method": "decision_function"})
    assert (info.value.code, info.value.path) == ("param-unsupported", "params.method")


def test_thresholds_between_two_doubles_hold(tmp_path: Path) -> None:
    """Histogram boosting compares in float64: a split that float32 cannot see is kept."""
    data = np.repeat([[1.0], [1.0 + 1e-12]], 50, axis=0)
    model = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5).fit(data, np.repeat([0, 1], 50))
    package = modelpack.save(model, tmp_path / "pkg", flavor="sklearn", example=data[::25], also=("onnx",))
    assert modelpack.load(package.path, flavor="onnx").predict(data[::50]).tolist() == [0, 1]


def float32_twin(self: Any, model: Any, source: Any, context: SaveContext) -> Any:
    """Convert the model as a float32 graph, with thresholds cut to float32."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    made = to_onnx(
        model,
        name="narrow",
        initial_types=[("X", FloatTensorType([None, context.example.shape[1]]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    saved = self.save(made, SaveContext(directory=context.directory, options={"outputs": ["label"]}))
    forest = self_trees(model)
    return type(saved)(**{**{n: getattr(saved, n) for n in saved.__slots__}, "thresholds": forest})


def self_trees(model: Any) -> Any:
    from modelpack_flavors._onnx import trees

    forest = trees.trees_of(model)
    assert forest is not None
    return trees.thresholds(forest)


def test_a_float32_twin_that_flips_a_split_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DecisionTreeClassifier(max_depth=2, random_state=0)
    data = np.array([[0.1], [np.nextafter(np.float32(0.1), np.float32(1))]] * 10, np.float64)
    model.fit(data, [0, 1] * 10)
    monkeypatch.setattr(type(flavor.get("onnx")), "convert", float32_twin)
    # The threshold moved to the next float32 takes the wrong side for inputs that round to it.
    model.tree_.threshold[0] = float(np.float32(0.1)) - 1e-12
    with pytest.raises(FlavorError) as info:
        modelpack.save(model, tmp_path / "pkg", flavor="sklearn", example=data[:4], also=("onnx",))
    assert info.value.code == "twin-differs"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (lambda: SVC().fit(X, Y), "twin-differs"),  # onnxruntime's kernel is float32
        (lambda: RandomForestClassifier(2).fit(X, np.c_[Y, 1 - Y]), "conversion-unsupported"),
        (
            lambda: HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]).fit(np.c_[XG[:, 2], XG], YG),
            "conversion-unsupported",
        ),
        (lambda: GradientBoostingClassifier(n_estimators=2, init=GaussianNB()).fit(X, Y), "conversion-unsupported"),
        (lambda: VotingClassifier([("a", GaussianNB())], voting="soft").fit(X, Y), "conversion-unsupported"),
        (lambda: OneHotEncoder().fit(X), "conversion-unsupported"),
        (lambda: SimpleImputer(strategy="constant", fill_value=0, missing_values=-1).fit(X), "conversion-unsupported"),
        (lambda: SimpleImputer(add_indicator=True).fit(HOLES), "conversion-unsupported"),
    ],
)  # fmt: skip
def test_other_models_are_refused_with_the_reason(model: Callable[[], Any], code: str, tmp_path: Path) -> None:
    fitted = model()
    data = (
        HOLES if getattr(fitted, "add_indicator", False) else X if fitted.n_features_in_ == 30 else np.c_[XG[:, 2], XG]
    )
    with pytest.raises(FlavorError) as info:
        modelpack.save(fitted, tmp_path / "pkg", flavor="sklearn", example=data[:40], also=("onnx",))
    assert info.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_scikit_learns_has_no_conversion(tmp_path: Path) -> None:
    with pytest.raises(FlavorError) as info:
        modelpack.save(
            lambda x: x, tmp_path / "pkg", flavor="python", example=X[:2], options={"form": "numpy"}, also=("onnx",)
        )
    assert info.value.code == "conversion-unsupported"


AGAIN = """
import numpy as np, sys
from sklearn.ensemble import RandomForestClassifier
import modelpack
X = np.arange(60.0).reshape(20, 3) % 7
model = RandomForestClassifier(3, random_state=0).fit(X, [0, 1] * 10)
print(modelpack.save(model, sys.argv[1], flavor="sklearn", example=X[:5], also=("onnx",)).manifest.content_digest)
"""


def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    digests = {
        subprocess.run(
            [sys.executable, "-c", AGAIN, str(tmp_path / seed)],
            env={**env, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("said", "option", "wanted"), [("3", {}, 3), ("3", {"intra_op_threads": 2}, 2), ("all", {}, 0), ("", {}, 0)]
)
def test_a_session_takes_as_many_threads_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, said: str, option: dict[str, Any], wanted: int
) -> None:
    """onnxruntime itself does not read the variable; what the package says comes first."""
    raw = graph([("x", F32, [None, 2])], [("y", F32, [None, 2])], helper.make_node("Neg", ["x"], ["y"]))
    content = raw.SerializeToString()
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    session = sessions.open_session(onnx_graph.inspect(content, "m", {}), content, option)
    assert session.get_session_options().intra_op_num_threads == wanted
