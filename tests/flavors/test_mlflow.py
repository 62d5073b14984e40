"""Directories as MLflow 1.x, 2.x and 3.x write them, opened, inspected, loaded and imported.

The MLmodel texts are of MLflow's shape; the models are fitted here. scripts/interop does the same with directories
that the real MLflow writes.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import textwrap
import warnings
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import numpy as np
import pandas as pd
import pytest
import sklearn
from click.testing import CliRunner
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import modelpack
from modelpack.cli import main
from modelpack.environments import wanted
from modelpack.errors import EnvironmentMismatch, FlavorError, PackageError, SaveError, TrustError, UsageError
from modelpack.trust import Store
from modelpack_flavors._mlflow import mlmodel, signatures
from modelpack_server.app import build
from modelpack_server.batch import Options, predict_files

X, Y = load_iris(return_X_y=True, as_frame=True)
COLUMNS = [{"type": "double", "name": name, "required": True} for name in X.columns]


def write(folder: Path, text: str, **files: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text(textwrap.dedent(text))
    for name, raw in files.items():
        file = folder / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(raw)
    return folder


def model() -> LogisticRegression:
    return LogisticRegression(max_iter=500).fit(X, Y)


def one_x(folder: Path) -> Path:
    return write(
        folder,
        f"""\
        artifact_path: model
        flavors:
          python_function:
            env: conda.yaml
            loader_module: mlflow.sklearn
            model_path: model.pkl
            python_version: 3.11.7
          sklearn:
            code: null
            pickled_model: model.pkl
            serialization_format: cloudpickle
            sklearn_version: {sklearn.__version__}
        run_id: no
        utc_time_created: '2021-02-05 10:59:19.184646'
        """,
        model_DOT_pkl=cloudpickle.dumps(model()),
        conda_DOT_yaml=b"channels: [conda-forge]\n",
    )


def three_x(folder: Path, tmp_path: Path, estimator: Any = None) -> Path:
    """A directory with a skops payload, a signature and an example, as MLflow 3 writes by default."""
    package = modelpack.save(estimator or model(), tmp_path / "source")
    skops = (package.path / "payloads/native/model.skops").read_bytes()
    request = {"dataframe_split": {"columns": list(X.columns), "data": X.head(3).to_numpy().tolist()}}
    return write(
        folder,
        f"""\
        flavors:
          python_function:
            env:
              conda: conda.yaml
              virtualenv: python_env.yaml
            loader_module: mlflow.sklearn
            model_path: model.skops
            predict_fn: predict
            python_version: 3.11.7
          sklearn:
            code: null
            pickled_model: model.skops
            serialization_format: skops
            sklearn_version: {sklearn.__version__}
            skops_trusted_types:
            - os.system
        is_signature_from_type_hint: false
        mlflow_version: 3.17.2
        model_id: null
        model_uuid: 985e1569d5b741dc9b43741e1b94e823
        saved_input_example_info:
          artifact_path: input_example.json
          type: dataframe
        signature:
          inputs: '{json.dumps(COLUMNS)}'
          outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "int64", "shape": [-1]}}}}]'
          params: '[{{"name": "k", "type": "long", "default": 1, "shape": null}}]'
        """,
        model_DOT_skops=skops,
        serving_input_example_DOT_json=json.dumps(request).encode(),
        requirements_DOT_txt=(
            b"mlflow==3.17.2\n# a comment\nscikit-learn==1.9.1  # pinned\n"
            b"--index-url=elsewhere\n-e .\nx @ file:///tmp/x\n"
        ),
    )


def test_a_3x_directory_loads_like_a_package(tmp_path: Path) -> None:
    folder = three_x(tmp_path / "iris", tmp_path)
    package = modelpack.open(folder)
    assert package.plan(store=Store(tmp_path / "none")).candidates[0].trust == "objects"
    loaded = modelpack.load(package, store=Store(tmp_path / "none"))
    np.testing.assert_array_equal(loaded.predict(X), model().predict(X))
    assert package.manifest.provenance["mlflow"]["mlflow_version"] == "3.17.2"
    assert package.manifest.name == "iris"
    assert [p.name for p in package.manifest.signature.params] == ["k"]


def test_a_directory_is_served_over_http(tmp_path: Path) -> None:
    folder = three_x(tmp_path / "iris", tmp_path)
    app = build(modelpack.load(folder))
    body = (folder / "serving_input_example.json").read_bytes()

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://model") as client:
            return await client.post("/invocations", content=body, headers={"Content-Type": "application/json"})

    reply = asyncio.run(ask())
    app.state.invocations.close()
    assert reply.json() == {"predictions": model().predict(X.head(3)).tolist()}


def test_a_directory_scores_files(tmp_path: Path) -> None:
    folder = three_x(tmp_path / "iris", tmp_path)
    X.to_csv(tmp_path / "in.csv", index=False)

    predict_files(modelpack.load(folder), [tmp_path / "in.csv"], tmp_path / "out.csv", Options(keep=()))

    np.testing.assert_array_equal(pd.read_csv(tmp_path / "out.csv")["prediction"], model().predict(X))


def test_its_environment_is_read_and_installer_options_are_refused_by_those_who_install(tmp_path: Path) -> None:
    package = modelpack.open(three_x(tmp_path / "iris", tmp_path))
    lines = ("mlflow==3.17.2", "scikit-learn==1.9.1", "--index-url=elsewhere", "-e .", "x @ file:///tmp/x")
    assert package.environment.dependencies == lines
    assert package.environment.captured == {"scikit-learn": sklearn.__version__, "mlflow": "3.17.2"}
    assert package.environment.critical == ("scikit-learn",)
    with pytest.raises(EnvironmentMismatch, match="'--index-url=elsewhere' is not a plain requirement"):
        wanted.requirements(package.environment)


def test_its_example_is_scored(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["test", str(three_x(tmp_path / "iris", tmp_path))])
    assert (result.exit_code, result.output) == (0, "example: 3 rows, ok (flavor sklearn)\n")


def test_its_own_trust_list_counts_for_nothing(tmp_path: Path) -> None:
    """The directory lists os.system as trusted; the class is what the payload is."""
    folder = three_x(tmp_path / "tree", tmp_path, DecisionTreeClassifier().fit(X, Y))
    candidate = modelpack.open(folder).plan(store=Store(tmp_path / "none")).candidates[0]
    assert (candidate.trust, candidate.unlisted) == ("objects", ())


def test_a_1x_pickle_needs_a_grant(tmp_path: Path) -> None:
    package = modelpack.open(one_x(tmp_path / "old"))
    with pytest.raises(TrustError):
        modelpack.load(package)
    loaded = modelpack.load(package, allow_code=package.digest)
    np.testing.assert_array_equal(loaded.predict(X), model().predict(X))


def test_yaml_is_text(tmp_path: Path) -> None:
    """The run id of the 1.x directory is ``no``, which YAML would make false."""
    assert modelpack.open(one_x(tmp_path / "old")).manifest.provenance["mlflow"]["run_id"] == "no"


def test_importing_makes_a_package_of_the_same_digest(tmp_path: Path) -> None:
    folder = three_x(tmp_path / "iris", tmp_path)
    result = CliRunner().invoke(main, ["import", str(folder), "-o", str(tmp_path / "pkg"), "--json"])
    assert result.exit_code == 0
    facts = json.loads(result.output)
    assert facts["digest"] == modelpack.open(folder).digest == modelpack.open(tmp_path / "pkg").digest
    np.testing.assert_array_equal(modelpack.load(tmp_path / "pkg").predict(X), model().predict(X))
    assert CliRunner().invoke(main, ["verify", str(tmp_path / "pkg")]).exit_code == 0


def test_importing_grants_nothing(tmp_path: Path) -> None:
    folder = one_x(tmp_path / "old")
    result = CliRunner().invoke(main, ["import", str(folder), "-o", str(tmp_path / "pkg")])
    assert (result.exit_code, result.output.split()[0]) == (0, "imported")
    with pytest.raises(TrustError):
        modelpack.load(tmp_path / "pkg")


def test_a_package_is_not_imported_again(tmp_path: Path) -> None:
    package = modelpack.save(model(), tmp_path / "pkg")
    result = CliRunner().invoke(main, ["import", str(package.path), "-o", str(tmp_path / "again")])
    assert result.exit_code == 2
    assert "import-package" in result.stderr


def test_a_changed_directory_is_another_package(tmp_path: Path) -> None:
    folder = one_x(tmp_path / "old")
    before = modelpack.open(folder)
    (folder / "model.pkl").write_bytes(pickle.dumps("something else"))
    assert modelpack.open(folder).digest != before.digest
    with pytest.raises(PackageError) as info:
        modelpack.load(before, allow_code=before.digest)
    assert info.value.code in ("digest-mismatch", "size-mismatch")


LOADER = b"""
from churn_table import FACTOR
class Model:
    def predict(self, data, params=None):
        return data.iloc[:, 0] * FACTOR * (params or {}).get("k", 1)
def _load_pyfunc(path):
    with open(path + "/weights.txt") as file:
        assert file.read() == "w"
    return Model()
"""


def loader(folder: Path, module: str = "churn_loader") -> Path:
    return write(
        folder,
        f"""\
        flavors:
          python_function:
            code: code
            data: data
            loader_module: {module}
        signature:
          inputs: '{json.dumps(COLUMNS)}'
          params: '[{{"name": "k", "type": "long", "default": 3, "shape": null}}]'
        """,
        code__churn_loader_DOT_py=LOADER,
        code__churn_table_DOT_py=b"FACTOR = 2",
        data__weights_DOT_txt=b"w",
    )


def test_a_loader_module_runs_from_its_own_code(tmp_path: Path) -> None:
    package = modelpack.open(loader(tmp_path / "loader"))
    with pytest.raises(TrustError):
        modelpack.load(package)
    loaded = modelpack.load(package, allow_code=package.digest)
    np.testing.assert_array_equal(loaded.predict(X.head()), X.iloc[:5, 0] * 6)
    np.testing.assert_array_equal(loaded.predict(X.head(), params={"k": 1}), X.iloc[:5, 0] * 2)


def test_a_loader_module_of_the_system_is_not_run(tmp_path: Path) -> None:
    package = modelpack.open(loader(tmp_path / "loader", "subprocess"))
    with pytest.raises(FlavorError) as info:
        modelpack.load(package, allow_code=package.digest)
    assert info.value.code == "mlflow-loader-unsupported"


def test_a_data_path_that_leads_outside_is_refused(tmp_path: Path) -> None:
    folder = loader(tmp_path / "loader")
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(text.replace("data: data", "data: ../elsewhere"))
    package = modelpack.open(folder)
    with pytest.raises(FlavorError) as info:
        modelpack.load(package, allow_code=package.digest)
    assert info.value.code == "mlflow-path-outside"


def test_boosters_load_in_their_own_formats(tmp_path: Path) -> None:
    import lightgbm
    import xgboost

    quiet = {"verbosity": -1}
    gbm = lightgbm.train({**quiet, "objective": "multiclass", "num_class": 3}, lightgbm.Dataset(X, Y), 3)
    folder = write(
        tmp_path / "gbm",
        """\
        flavors:
          lightgbm: {data: model.lgb, lgb_version: 4.7.0, model_class: lightgbm.basic.Booster}
          python_function: {data: model.lgb, loader_module: mlflow.lightgbm}
        """,
        model_DOT_lgb=gbm.model_to_string().encode(),
    )
    np.testing.assert_array_equal(modelpack.load(folder).predict(X), gbm.predict(X))
    xgb = xgboost.XGBClassifier(n_estimators=3).fit(X.to_numpy(), Y)
    folder = write(
        tmp_path / "xgb",
        """\
        flavors:
          xgboost: {data: model.ubj, xgb_version: 3.2.0, model_class: xgboost.sklearn.XGBClassifier, model_format: ubj}
        """,
        model_DOT_ubj=bytes(xgb.get_booster().save_raw("ubj")),
    )
    np.testing.assert_array_equal(modelpack.load(folder).predict(X.to_numpy()), xgb.predict(X.to_numpy()))


def test_wrappers_and_old_formats_are_left_to_python(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "m",
        """\
        flavors:
          lightgbm: {data: model.pkl, model_class: lightgbm.sklearn.LGBMClassifier}
          xgboost: {data: model.xgb, model_class: xgboost.core.Booster}
          python_function: {data: model.pkl, loader_module: mlflow.lightgbm}
        """,
        model_DOT_pkl=b"x",
        model_DOT_xgb=b"x",
    )
    package = modelpack.open(folder)
    assert [candidate.name for candidate in package.plan().candidates] == ["mlflow"]
    with pytest.raises(FlavorError, match=r"mlflow\.lightgbm"):
        modelpack.load(package, allow_code=package.digest)


def torch_bytes(kind: str) -> bytes:
    """Return a small torch model as MLflow writes it."""
    import io

    import torch

    model, buffer = torch_model(), io.BytesIO()
    if kind == "pt2":
        rows = torch.export.Dim("rows")
        program = torch.export.export(model, (torch.zeros(3, 4),), dynamic_shapes=({0: rows},))
        torch.export.save(program, buffer)
    elif kind == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.script(model), buffer)
    else:
        torch.save(model, buffer, _use_new_zipfile_serialization=kind == "pickle")
    return buffer.getvalue()


def torch_model() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).eval()


@pytest.mark.parametrize(
    ("kind", "file", "format_id", "trust"),
    [
        ("pickle", "data/model.pth", "torch-pickle", "code"),
        ("old", "data/model.pth", "torch-pickle", "code"),
        ("script", "data/model.pth", "torchscript", "code"),
        ("pt2", "data/model.pt2", "pt2", "graph"),
    ],
)
@pytest.mark.parametrize("version", ["1.8.0", "3.17.2"])
def test_pytorch_directories_load_by_what_the_file_is(
    tmp_path: Path, kind: str, file: str, format_id: str, trust: str, version: str
) -> None:
    import torch

    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}
    inputs = COLUMNS if kind != "pt2" else [tensor]
    folder = write(
        tmp_path / "net",
        f"""\
        flavors:
          python_function: {{data: data, loader_module: mlflow.pytorch, python_version: 3.11.7}}
          pytorch: {{model_data: data, pytorch_version: {torch.__version__}}}
        mlflow_version: {version}
        signature:
          inputs: '{json.dumps(inputs)}'
        """,
    )
    (folder / "data").mkdir()
    (folder / file).write_bytes(torch_bytes(kind))
    (folder / "data/pickle_module_info.txt").write_text("os")
    package = modelpack.open(folder)
    (candidate, _) = package.plan(store=Store(tmp_path / "none")).candidates
    assert (candidate.name, candidate.formats, candidate.trust) == ("torch", (format_id,), trust)
    if trust == "code":
        with pytest.raises(TrustError):
            modelpack.load(package, store=Store(tmp_path / "none"), flavor="torch")
    rows = X.head() if kind != "pt2" else X.head().to_numpy(np.float32).copy()
    with torch.inference_mode():
        wanted = torch_model()(torch.from_numpy(X.head().to_numpy(np.float32).copy())).numpy()
    loaded = modelpack.load(package, allow_code=package.digest, flavor="torch")
    np.testing.assert_allclose(loaded.predict(rows), wanted, rtol=1e-6)
    result = CliRunner().invoke(main, ["import", str(folder), "-o", str(tmp_path / "pkg")])
    assert (result.exit_code, modelpack.open(tmp_path / "pkg").digest) == (0, package.digest)


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        ("flavors: {}", "mlmodel-invalid", "MLmodel.flavors"),
        ("no: flavors", "mlmodel-invalid", "MLmodel.flavors"),
        ("flavors: {crate: {}}", "mlmodel-unsupported", "MLmodel.flavors"),
        ("flavors: {sklearn: {pickled_model: x.pkl}}", "mlmodel-file-missing",
         "MLmodel.flavors.sklearn.pickled_model"),
        ("flavors: {pytorch: {model_data: data}}", "mlmodel-file-missing", "MLmodel.flavors.pytorch.model_data"),
        ("flavors: {spark: {model_data: sparkml}}", "mlmodel-file-missing", "MLmodel.flavors.spark.model_data"),
        ("flavors: {onnx: {data: ../x.onnx}}", "mlmodel-file-missing", "MLmodel.flavors.onnx.data"),
        ("just text", "mlmodel-invalid", "MLmodel"),
        ("a: 1\na: 2", "mlmodel-invalid", "MLmodel"),
        ("? [1]\n: 2", "mlmodel-invalid", "MLmodel"),
        ("a: &x 1\nb: *x", "mlmodel-invalid", "MLmodel"),
        ("a: [", "mlmodel-invalid", "MLmodel"),
        ("a: !!python/object/apply:os.system [x]\nflavors: 1", "mlmodel-invalid", "MLmodel.flavors"),
        ("[" * 40 + "]" * 40, "mlmodel-invalid", "MLmodel"),
        ("", "mlmodel-invalid", "MLmodel"),
        ("flavors: {python_function: {}}", "mlmodel-unsupported", "MLmodel.flavors"),
        ("flavors: {python_function: {loader_module: x}}\nsignature: {inputs: '{'}", "mlmodel-invalid",
         "MLmodel.signature.inputs"),
        ("flavors: {python_function: {loader_module: x}}\nsignature: {inputs: '[{\"type\": \"quux\"}]'}",
         "mlmodel-invalid", "MLmodel.signature"),
    ],
)  # fmt: skip
def test_what_is_no_mlflow_directory_is_refused_by_place(tmp_path: Path, text: str, code: str, path: str) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "MLmodel").write_text(text)
    with pytest.raises(PackageError) as info:
        modelpack.open(folder)
    assert (info.value.code, info.value.path) == (code, path)


def test_bytes_that_are_no_text_and_too_many_are_refused() -> None:
    for raw in (b"\xff\xfe", b"x" * (mlmodel.MAX_BYTES + 1), b"[" * 5000):
        with pytest.raises(PackageError) as info:
            mlmodel.parse(raw)
        assert info.value.code == "mlmodel-invalid"


def test_every_type_of_mlflow_has_ours() -> None:
    kinds = ["boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "any"]
    specs: list[dict[str, Any]] = [{"type": kind, "name": kind, "required": kind != "long"} for kind in kinds]
    specs += [
        {"type": "array", "items": {"type": "double"}, "name": "list", "required": True},
        {"type": "map", "values": {"type": "long"}, "name": "map", "required": True},
        {"type": "object", "properties": {"x": {"type": "long", "required": False}}, "name": "o", "required": True},
        {"type": "sparkml_vector", "name": "v", "required": True},
    ]
    inputs = signatures.signature({"inputs": json.dumps(specs)}).inputs
    assert isinstance(inputs, modelpack.Table)
    from modelpack.dtypes import describe

    assert [(c.name, describe(c.type), c.nullable, c.optional) for c in inputs.columns] == [
        ("boolean", "bool", False, False),
        ("integer", "int32", False, False),
        ("long", "int64", True, True),
        ("float", "float32", True, False),
        ("double", "float64", True, False),
        ("string", "utf8", True, False),
        ("binary", "binary", True, False),
        ("datetime", "timestamp[ns]", True, False),
        ("any", "any", True, False),
        ("list", "list<float64?>", True, False),
        ("map", "map<utf8, int64?>", True, False),
        ("o", "struct<x?: int64?>", True, False),
        ("v", "list<float64>", True, False),
    ]


def test_tensors_and_params_of_mlflow_have_ours() -> None:
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 28, -1]}}
    params = [
        {"name": "a", "type": "double", "default": 0.5, "shape": None},
        {"name": "b", "type": "string", "default": ["x"], "shape": [-1]},
        {"name": "c", "type": "string", "default": None, "shape": None},
    ]
    found = signatures.signature({"inputs": json.dumps([tensor]), "params": json.dumps(params)})
    assert isinstance(found.inputs, modelpack.Tensors)
    assert [(t.name, t.dtype, t.shape) for t in found.inputs.tensors] == [("input", "float32", ("batch", 28, None))]
    assert [(p.default, p.nullable) for p in found.params] == [(0.5, False), (["x"], False), (None, True)]
    assert signatures.signature(None) == modelpack.Signature()


def test_the_flavor_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="modelpack import"):
        modelpack.save(model(), tmp_path / "x", flavor="mlflow")


def test_a_directory_whose_names_a_package_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = one_x(tmp_path / "old")
    (folder / "a:b").write_text("")
    with pytest.raises(PackageError) as info:
        modelpack.open(folder)
    assert info.value.code == "path-character"


def test_without_yaml_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UsageError, match=r"modelpack\[mlflow\]"):
        modelpack.open(one_x(tmp_path / "old"))


def test_a_python_model_needs_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    folder = write(
        tmp_path / "p",
        """\
        flavors:
          python_function:
            loader_module: mlflow.pyfunc.model
            python_model: python_model.pkl
            artifacts: {w: {path: w.txt, uri: w.txt}}
        """,
        python_model_DOT_pkl=cloudpickle.dumps(_PythonModel()),
        w_DOT_txt=b"2.5",
    )
    package = modelpack.open(folder)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="needs mlflow"):
        modelpack.load(package, allow_code=package.digest)
    monkeypatch.setitem(sys.modules, "mlflow", _fake_mlflow())
    loaded = modelpack.load(package, allow_code=package.digest)
    assert list(loaded.predict(pd.DataFrame({"a": [1.0, 2.0]}))) == [2.5, 5.0]


class _PythonModel:
    """What subclasses of mlflow.pyfunc.PythonModel have."""

    def load_context(self, context: Any) -> None:
        self.weight = float(Path(context.artifacts["w"]).read_text())

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input["a"] * self.weight


def _fake_mlflow() -> Any:
    """Stand in for the one class that is used of MLflow, which scripts/interop installs."""
    import types

    def context(artifacts: Any, config: Any) -> Any:
        return types.SimpleNamespace(artifacts=artifacts, model_config=config)

    return types.SimpleNamespace(pyfunc=types.SimpleNamespace(PythonModelContext=context))


def test_manifest_faults_of_a_synthesized_manifest_are_ours(tmp_path: Path) -> None:
    folder = one_x(tmp_path / "old")
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(text.replace(sklearn.__version__, "x" * 300))
    with pytest.raises(PackageError) as info:
        modelpack.open(folder)
    assert (info.value.code, info.value.path) == ("mlmodel-invalid", "captured.scikit-learn")
