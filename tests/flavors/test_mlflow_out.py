"""Packages with MLflow's documents beside the manifest, used as MLflow does: scripts/interop asks MLflow itself."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import modelpack
from modelpack import errors, foreign, forms
from modelpack.signature import Signature
from modelpack.trust import default_store
from modelpack_flavors._mlflow.declaring import declared

X, Y = load_iris(return_X_y=True, as_frame=True)
DOCUMENTS = [
    "MLmodel",
    "conda.yaml",
    "input_example.json",
    "python_env.yaml",
    "requirements.txt",
    "serving_input_example.json",
]


def fitted() -> LogisticRegression:
    return LogisticRegression(max_iter=500).fit(X, Y)


def save(model: Any, path: Path, **more: Any) -> modelpack.Package:
    return modelpack.save(model, path, **{"also": ("mlflow",), "version": "1", **more})


def described(package: modelpack.Package) -> dict[str, Any]:
    """Return the MLmodel as MLflow reads it."""
    found: dict[str, Any] = yaml.safe_load((package.path / "MLmodel").read_text())
    return found


def loaded(package: modelpack.Package) -> Any:
    """Return the model as ``mlflow.pyfunc.load_model`` makes it."""
    config = described(package)["flavors"]["python_function"]
    assert "data" not in config and "code" not in config
    return importlib.import_module(config["loader_module"])._load_pyfunc(str(package.path))


def test_the_documents_are_files_of_the_package(tmp_path: Path) -> None:
    package = save(fitted(), tmp_path / "pkg", example=X.head(20))

    listed = {entry.path: entry.role for entry in modelpack.open(package.path).manifest.files}
    assert [path for path, role in sorted(listed.items()) if role == "compat"] == DOCUMENTS
    (package.path / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(errors.IntegrityError) as info:
        modelpack.open(package.path)
    assert (info.value.code, info.value.path) == ("size-mismatch", "MLmodel")


def test_the_manifest_wins_over_an_mlmodel_beside_it(tmp_path: Path) -> None:
    plain = save(fitted(), tmp_path / "plain", example=X.head(20), also=())
    package = save(fitted(), tmp_path / "pkg", example=X.head(20), name="plain")

    assert modelpack.open(package.path).manifest.flavors == plain.manifest.flavors
    assert modelpack.load(package.path).candidate.trust == "objects"
    np.testing.assert_array_equal(modelpack.load(package.path).predict(X), fitted().predict(X))


def test_the_same_model_gives_the_same_bytes_and_no_path(tmp_path: Path) -> None:
    one, other = (save(fitted(), tmp_path / name, example=X.head(20), name="iris") for name in ("one", "other"))

    assert one.digest == other.digest
    text = "".join((one.path / name).read_text() for name in DOCUMENTS)
    assert str(tmp_path) not in text and "uuid" not in text and "utc_time_created" not in text


def test_the_time_is_the_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")

    package = save(fitted(), tmp_path / "pkg")

    assert package.manifest.created == "2023-11-14T22:13:20Z"
    assert str(described(package)["utc_time_created"]) == "2023-11-14 22:13:20"


def test_mlflows_loader_gives_the_models_answers(tmp_path: Path) -> None:
    package = save(fitted(), tmp_path / "pkg", example=X.head(20))

    scorer = loaded(package)

    np.testing.assert_array_equal(scorer.predict(X), fitted().predict(X))
    np.testing.assert_array_equal(scorer.predict(X, params={"method": "predict_proba"}), fitted().predict_proba(X))
    with pytest.raises(errors.InputError):
        scorer.predict(X.assign(**{X.columns[0]: "text"}))


def test_the_request_kept_for_mlflow_is_one_of_ours(tmp_path: Path) -> None:
    package = save(fitted(), tmp_path / "pkg", example=X.head(20))
    info = described(package)["saved_input_example_info"]

    request = json.loads((package.path / info["serving_input_path"]).read_text())
    example = json.loads((package.path / info["artifact_path"]).read_text())

    assert request == {"dataframe_split": example}
    model = modelpack.load(package)
    parsed = forms.parse(request, signature=model.signature)
    assert parsed.data.columns == list(X.columns)
    assert len(parsed.data.data) == 5


def test_one_tensor_is_kept_and_declared_without_its_name(tmp_path: Path) -> None:
    package = save(fitted_array(), tmp_path / "pkg", example=X.to_numpy()[:3])

    assert json.loads((package.path / "input_example.json").read_text()) == X.to_numpy()[:3].tolist()
    (spec,) = json.loads(described(package)["signature"]["inputs"])
    assert spec == {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}
    np.testing.assert_array_equal(loaded(package).predict(X.to_numpy()), Y)


def fitted_array() -> DecisionTreeClassifier:
    return DecisionTreeClassifier(random_state=0).fit(X.to_numpy(), Y)


def test_tables_and_dicts_come_back_as_mlflow_writes_them(tmp_path: Path) -> None:
    def tables(rows: pd.DataFrame) -> dict[str, list[Any]]:
        return {"double": [2 * value for value in rows["x"]], "text": ["ä" for _ in rows["x"]]}

    def anything(rows: pd.DataFrame) -> dict[str, Any]:
        return {"rows": len(rows), "deep": [{"a": None}]}

    example = pd.DataFrame({"x": [1.0, 2.0]})
    answer = loaded(save(tables, tmp_path / "tables", example=example)).predict(example)
    pd.testing.assert_frame_equal(answer, pd.DataFrame({"double": [2.0, 4.0], "text": ["ä", "ä"]}))
    assert loaded(save(anything, tmp_path / "any", example=example)).predict(example) == {
        "rows": 2,
        "deep": [{"a": None}],
    }


def test_code_needs_the_users_own_grant_whoever_asks(tmp_path: Path) -> None:
    def double(rows: pd.DataFrame) -> pd.DataFrame:
        return 2 * rows

    package = save(double, tmp_path / "pkg", example=X.head(3))
    assert loaded(package).predict(X.head(2)) is not None
    default_store().remove(package.digest)

    with pytest.raises(errors.TrustError) as info:
        loaded(package)
    assert info.value.code == "code-not-allowed"


def test_what_mlflows_registry_adds_is_passed_over_and_nothing_else(tmp_path: Path) -> None:
    package = save(fitted(), tmp_path / "pkg")
    (package.path / "registered_model_meta").write_text("model_name: iris\n")
    assert loaded(package).predict(X.head(1)).tolist() == [0]

    (package.path / "more").write_text("")
    with pytest.raises(errors.IntegrityError) as info:
        loaded(package)
    assert [(fault.code, fault.path) for fault in info.value.faults] == [("file-unexpected", "more")]


def test_without_a_manifest_mlflow_gets_nothing_from_us(tmp_path: Path) -> None:
    package = save(fitted(), tmp_path / "pkg")
    (package.path / "modelpack.json").unlink()

    with pytest.raises(errors.IntegrityError) as info:
        loaded(package)
    assert info.value.code == "manifest-missing"


def test_without_its_manifest_it_is_a_directory_of_mlflow(tmp_path: Path) -> None:
    twin = save(fitted(), tmp_path / "pkg", example=X.head(20), also=("onnx", "mlflow"))
    assert sorted(described(twin)["flavors"]) == ["onnx", "python_function"]
    (twin.path / "modelpack.json").unlink()

    package = modelpack.open(twin.path)

    assert [entry.name for entry in package.manifest.flavors] == ["onnx", "mlflow"]
    columns = {column.name: column.type for column in package.manifest.signature.inputs.columns}  # type: ignore[union-attr]
    assert columns == dict.fromkeys(X.columns, "float64")
    assert [param.name for param in package.manifest.signature.params] == ["method"]
    with pytest.raises(errors.FlavorError) as info:
        modelpack.load(package, flavor="mlflow", allow_code=package.digest)
    assert info.value.code == "mlflow-loader-unsupported"


def test_boosters_are_named_to_mlflow_and_load_without_the_manifest(tmp_path: Path) -> None:
    import lightgbm
    import xgboost

    boosted = xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(X, Y)
    booster = lightgbm.train({"verbose": -1, "objective": "regression"}, lightgbm.Dataset(X, Y), 3)
    wrapper = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, Y)
    for name, model in (("xgboost", boosted), ("lightgbm", booster)):
        package = save(model, tmp_path / name, example=X.head(20))
        assert described(package)["flavors"][name]["data"] in package.manifest.payloads["native"].files
        (package.path / "modelpack.json").unlink()
        found = modelpack.load(package.path)
        assert (found.candidate.name, found.candidate.trust) == (name, "graph")
        np.testing.assert_array_equal(found.predict(X), model.predict(X))
    assert list(described(save(wrapper, tmp_path / "wrapper"))["flavors"]) == ["python_function"]


def test_a_pickle_is_not_named_to_mlflow(tmp_path: Path) -> None:
    package = save(fitted(), tmp_path / "pkg", options={"format": "pickle"})

    assert list(described(package)["flavors"]) == ["python_function"]


def test_requirements_are_the_versions_it_was_saved_with(tmp_path: Path) -> None:
    package = save(
        fitted(), tmp_path / "pkg", dependencies=["packaging>=20", "not-installed-here>=1; python_version>'3'"]
    )

    lines = (package.path / "requirements.txt").read_text().splitlines()
    captured = package.manifest.environment.captured
    assert lines[0] == "mlflow"
    assert {f"scikit-learn=={captured['scikit-learn']}", f"packaging=={captured['packaging']}"} <= set(lines)
    assert any(line.startswith("not-installed-here>=1") for line in lines)
    assert "conda.yaml" in described(package)["flavors"]["python_function"]["env"].values()


def table(**columns: Any) -> Signature:
    specs = [{"name": name, **(spec if isinstance(spec, dict) else {"type": spec})} for name, spec in columns.items()]
    return Signature.model_validate({"inputs": {"kind": "table", "columns": specs}})


def nullable(dtype: Any) -> dict[str, Any]:
    return {"type": dtype, "nullable": True}


def inputs(signature: Signature) -> Any:
    text = declared(signature)["inputs"]
    return None if text is None else json.loads(text)


def test_columns_are_declared_as_types_that_hold_every_value() -> None:
    listed = {"kind": "list", "items": {"type": "float64"}}
    fields = [{"name": "a", "type": "utf8"}, {"name": "b", "type": "int64", "optional": True}]
    found = inputs(
        table(
            a="int8", b="uint32", c=nullable("float32"), d=nullable("utf8"), e="date32",
            f={"type": {"kind": "timestamp", "unit": "us"}, "optional": True}, g={"type": listed},
            h={"type": {"kind": "struct", "fields": fields}}, i={"type": {"kind": "map", "values": {"type": "bool"}}},
        )
    )  # fmt: skip

    assert [(spec["name"], spec["type"]) for spec in found] == [
        ("a", "integer"), ("b", "long"), ("c", "float"), ("d", "string"), ("e", "datetime"),
        ("f", "datetime"), ("g", "array"), ("h", "object"), ("i", "map"),
    ]  # fmt: skip
    assert [spec["name"] for spec in found if not spec["required"]] == ["f"]
    assert found[6]["items"] == {"type": "double"}
    assert found[7]["properties"] == {
        "a": {"type": "string", "required": True},
        "b": {"type": "long", "required": False},
    }


@pytest.mark.parametrize(
    "spec",
    [
        "uint64",
        "any",
        nullable("int64"),
        nullable("bool"),
        nullable("binary"),
        {"type": {"kind": "timestamp", "unit": "us", "tz": "UTC"}},
        {"type": {"kind": "decimal", "precision": 9, "scale": 2}},
        {"type": {"kind": "dictionary"}},
        {"type": {"kind": "list", "items": {"type": "utf8", "nullable": True}}},
        {"type": {"kind": "struct", "fields": [{"name": "a", "type": "utf8", "nullable": True}]}},
        {"type": {"kind": "map", "values": {"type": "uint64"}}},
    ],
)
def test_one_column_that_cannot_be_declared_leaves_all_inputs_out(spec: Any) -> None:
    assert inputs(table(a="int64", b=spec)) is None


def test_tensors_are_declared_with_names_where_there_are_several() -> None:
    def tensors(*specs: dict[str, Any]) -> Any:
        io = {"kind": "tensors", "tensors": [{"name": "abc"[i], **spec} for i, spec in enumerate(specs)]}
        return inputs(Signature.model_validate({"inputs": io}))

    found = tensors({"dtype": "float16", "shape": ["batch", 3]}, {"dtype": "utf8", "shape": [None]})
    assert [(spec["name"], spec["tensor-spec"]) for spec in found] == [
        ("a", {"dtype": "float16", "shape": [-1, 3]}),
        ("b", {"dtype": "str", "shape": [-1]}),
    ]
    assert tensors({"dtype": "int64", "shape": []}) is None
    assert tensors({"dtype": "binary", "shape": [None]}) is None
    assert tensors({"dtype": "int64", "shape": [None]}, {"dtype": "int64", "shape": [2], "optional": True}) is None


def test_a_param_that_cannot_be_declared_is_left_out() -> None:
    params = [
        {"name": "a", "type": "int32", "default": 3},
        {"name": "b", "type": "float32", "default": 1},
        {"name": "c", "type": {"kind": "list", "items": {"type": "utf8"}}, "default": ["x"]},
        {"name": "d", "type": "date32", "nullable": True},
        {"name": "e", "type": "utf8"},
    ]
    found = json.loads(declared(Signature.model_validate({"params": params}))["params"] or "")

    assert [(spec["name"], spec["type"], spec["default"], spec["shape"]) for spec in found] == [
        ("a", "long", 3, None),
        ("b", "double", 1.0, None),
        ("c", "string", ["x"], [-1]),
        ("e", "string", None, None),
    ]


def test_a_param_that_mlflow_fills_with_null_was_not_sent(tmp_path: Path) -> None:
    def scale(rows: pd.DataFrame, params: dict[str, Any]) -> pd.Series:
        return rows["x"] * params["by"]

    signature = Signature.model_validate(
        {
            "inputs": {"kind": "table", "columns": [{"name": "x", "type": "float64"}]},
            "params": [{"name": "by", "type": "float64"}],
        }
    )
    scorer = loaded(save(scale, tmp_path / "pkg", signature=signature))

    assert scorer.predict(pd.DataFrame({"x": [2.0]}), params={"by": 3.0}).tolist() == [6.0]
    with pytest.raises(errors.InputError) as info:
        scorer.predict(pd.DataFrame({"x": [2.0]}), params={"by": None})
    assert info.value.code == "param-missing"


def test_a_required_param_that_mlflow_has_no_type_for_is_refused(tmp_path: Path) -> None:
    def days(rows: pd.DataFrame, params: dict[str, Any]) -> pd.Series:
        return rows["x"]

    signature = Signature.model_validate({"params": [{"name": "day", "type": "date32"}]})
    with pytest.raises(errors.UsageError) as info:
        save(days, tmp_path / "pkg", signature=signature)
    assert (info.value.code, info.value.path) == ("also-unsupported", "signature.params[0]")
    assert list(tmp_path.iterdir()) == []


def test_without_the_flavors_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "WRITERS", {"mlflow": "no_such_distribution.writing:write"})

    with pytest.raises(errors.FlavorError) as info:
        save(fitted(), tmp_path / "pkg")
    assert info.value.code == "flavor-unknown"
