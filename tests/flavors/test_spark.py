"""Spark ML: Spark's own answers with and without a JVM, what has a twin, and what loading may build."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark import SparkContext
from pyspark.ml import Transformer, clustering, feature
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import SparkSession

import modelpack
from modelpack.errors import FlavorError, InputError, PackageError, SaveError, TrustError, UsageError
from modelpack_flavors._spark import columns, evaluating, folder, native
from modelpack_flavors._spark.session import session
from modelpack_server.app import build
from modelpack_server.settings import Settings

# pyspark leaves the closing of its sockets to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

# The contract has them, if it runs in this process: their models are fitted once.
if "cases_spark" not in sys.modules:
    spec = importlib.util.spec_from_file_location("cases_spark", Path(__file__).parent / "cases" / "spark.py")
    assert spec is not None and spec.loader is not None
    sys.modules["cases_spark"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["cases_spark"])
cases: Any = sys.modules["cases_spark"]

RAW = np.random.default_rng(0).normal(size=(40, 4))
ROWS = pd.DataFrame({"features": RAW.tolist(), "number": RAW[:, 1]})
GAPS = ROWS.assign(number=ROWS["number"].where(ROWS.index % 5 > 0))


def binarizer() -> Any:
    return feature.Binarizer(inputCol="number", outputCol="out", threshold=0.2)


@pytest.fixture(scope="module")
def frame() -> Any:
    table = pa.Table.from_pandas(ROWS, preserve_index=False)
    return native._rows(table).cache()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> modelpack.Package:
    made = cases.pipeline()
    path = tmp_path_factory.mktemp("spark") / "pkg"
    return modelpack.save(made.model, path, example=made.example, name="penguins")


def test_the_twin_stands_first_and_is_checked(pipeline: modelpack.Package) -> None:
    twin, original = pipeline.manifest.flavors
    assert (twin.name, original.name, original.checked) == ("spark_numpy", "spark", None)
    assert twin.checked is not None
    assert twin.checked.rows > 100
    assert [candidate.trust for candidate in pipeline.plan().candidates] == ["graph", "graph"]
    assert "pyspark" not in pipeline.manifest.payloads["spark_numpy"].made_with
    # The label is read by a stage that Spark passes over when there is none.
    assert pipeline.manifest.signature.inputs is not None
    names = [column.name for column in pipeline.manifest.signature.inputs.columns]  # type: ignore[union-attr]
    assert names == ["island", "sex", *cases.NUMBERS]


def test_both_flavors_answer_alike(pipeline: modelpack.Package) -> None:
    made = cases.pipeline()
    cases.close(modelpack.load(pipeline, flavor="spark").predict(made.example), made.answer)
    cases.close(modelpack.load(pipeline).predict(made.example), made.answer)


def test_what_the_model_cannot_score_is_refused(pipeline: modelpack.Package) -> None:
    model = modelpack.load(pipeline)
    row = cases.pipeline().example.head(1)
    # handleInvalid="keep" takes what it has not seen.
    assert model.predict(row.assign(island="Atlantis")).num_rows == 1
    with pytest.raises(InputError) as info:
        model.predict(row.assign(bill_depth_mm=np.nan))
    assert info.value.code == "null-forbidden" or "bill_depth_mm" in str(info.value)


def test_a_text_that_was_not_in_training_is_refused(tmp_path: Path) -> None:
    table = cases.penguins()[["island"]]
    indexer = feature.StringIndexer(inputCol="island", outputCol="out")
    model = modelpack.load(
        modelpack.save(cases.fitted(table, lambda: indexer), tmp_path / "pkg", example=table.head(3))
    )
    with pytest.raises(InputError) as info:
        model.predict(table.head(2).assign(island="Atlantis"))
    assert info.value.code == "value-refused"
    assert "Atlantis" not in str(info.value)


ASK = """
import asyncio, json, sys
import httpx, modelpack
from modelpack_server.app import build
from modelpack_server.settings import Settings
package = modelpack.open(sys.argv[1])
app = build(modelpack.load(package), Settings())
body = (package.path / "examples/example.input.json").read_bytes()
async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://model") as client:
        return await client.post("/invocations", content=body, headers={"content-type": "application/json"})
print(asyncio.run(ask()).text)
assert not {"pyspark", "py4j"} & set(sys.modules)
try:
    modelpack.load(package, flavor="spark")
except modelpack.ModelpackError as exc:
    print(exc.code)
"""


def test_over_http_without_java(pipeline: modelpack.Package) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PATH", "JAVA_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(pipeline.path)],
        env={**environment, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer, code = done.stdout.splitlines()
    assert code == "java-missing"
    same(json.loads(answer), pipeline)


def same(answer: Any, package: modelpack.Package) -> None:
    recorded = json.loads((package.path / "examples/example.output.json").read_bytes())
    for one, other in zip(answer["predictions"], recorded["predictions"], strict=True):
        assert (one["prediction"], one["guess"]) == (other["prediction"], other["guess"])
        np.testing.assert_allclose(one["probability"], other["probability"], rtol=1e-12)


def test_over_http_through_the_jvm(pipeline: modelpack.Package) -> None:
    app = build(modelpack.load(pipeline, flavor="spark"), Settings())
    body = (pipeline.path / "examples/example.input.json").read_bytes()

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://model") as client:
            return await client.post("/invocations", content=body, headers={"content-type": "application/json"})

    same(asyncio.run(ask()).json(), pipeline)


class Doubled(Transformer, DefaultParamsReadable, DefaultParamsWritable):  # type: ignore[misc]
    """A stage of somebody's own."""

    def _transform(self, dataset: Any) -> Any:
        return dataset.withColumn("out", dataset["number"] * 2)


def test_a_stage_of_one_s_own_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Spark finds the class by the name of its module.
    monkeypatch.setitem(sys.modules, Doubled.__module__, sys.modules.get(Doubled.__module__) or sys.modules[__name__])
    session()
    package = modelpack.save(
        Doubled(), tmp_path / "pkg", example=ROWS[["number"]], options={"columns": ["out"]}, name="doubled"
    )
    assert [entry.name for entry in package.manifest.flavors] == ["spark"]
    assert package.plan().candidates[0].trust == "code"
    assert modelpack.load(package).predict(ROWS[["number"]].head(2))["out"].to_pylist() == [
        2 * value for value in ROWS["number"].head(2)
    ]
    with pytest.raises(TrustError) as info:
        modelpack.load(package, store=modelpack.trust.Store(tmp_path / "stranger"))
    assert info.value.code == "code-not-allowed"


def test_a_session_of_the_user_is_taken_from_any_thread_as_it_is() -> None:
    mine = session()
    mine.conf.set("spark.sql.shuffle.partitions", "7")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(session()))
    thread.start()
    thread.join()
    try:
        assert found == [mine]
        assert mine.conf.get("spark.sql.shuffle.partitions") == "7"
    finally:
        mine.conf.set("spark.sql.shuffle.partitions", "1")


def test_after_a_session_was_stopped_another_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = SimpleNamespace(_sc=SimpleNamespace(_jsc=None))
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    monkeypatch.setattr(SparkSession, "_instantiatedSession", stopped)
    monkeypatch.setattr(SparkContext, "_active_spark_context", None)
    monkeypatch.setattr("modelpack_flavors._spark.session._started", itertools.count(1).__next__)

    assert [session(), session()] == [1, 2]
    # Somebody has a context, and no session yet.
    monkeypatch.setattr(SparkContext, "_active_spark_context", "theirs")
    monkeypatch.setattr("pyspark.sql.SparkSession", type("Made", (SparkSession,), {"__init__": made}))
    assert session().given == ("theirs",)


def made(self: Any, *given: Any) -> None:
    self.given = given


def test_without_an_evaluation_there_is_no_twin(frame: Any, tmp_path: Path) -> None:
    model = feature.RobustScaler(inputCol="features", outputCol="out").fit(frame)
    package = modelpack.save(model, tmp_path / "pkg", example=ROWS[["features"]])
    assert [entry.name for entry in package.manifest.flavors] == ["spark"]
    assert list(package.manifest.payloads) == ["native"]
    assert not (package.path / "payloads/spark_numpy").exists()
    with pytest.raises(FlavorError) as info:
        modelpack.save(model, tmp_path / "asked", example=ROWS[["features"]], also=("spark_numpy",))
    assert info.value.code == "conversion-unsupported"
    with pytest.raises(SaveError) as refusal:
        modelpack.save(cases.written(model, tmp_path) / "sparkml", tmp_path / "numpy")
    assert refusal.value.code == "model-unsupported"


def test_a_twin_that_differs_is_left_out_with_a_warning(
    frame: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = evaluating.Evaluator.predict

    def wrong(self: Any, data: Any, params: Any) -> Any:
        found = answer(self, data, params)
        return pa.table({name: pa.compute.add(found[name], 1) for name in found.column_names})

    monkeypatch.setattr(evaluating.Evaluator, "predict", wrong)
    model = feature.Imputer(inputCols=["number"], outputCols=["out"]).fit(frame)
    with pytest.warns(UserWarning, match="without its twin spark_numpy"):
        package = modelpack.save(model, tmp_path / "pkg", example=GAPS[["number"]])
    assert [entry.name for entry in package.manifest.flavors] == ["spark"]


def test_a_twin_that_is_not_wanted_is_not_made(frame: Any, tmp_path: Path) -> None:
    model = clustering.KMeans(k=2, maxIter=1, seed=1).fit(frame)
    options = {"columns": ["prediction"], "twin": False}
    package = modelpack.save(model, tmp_path / "pkg", example=ROWS[["features"]].head(4), options=options)
    assert [entry.name for entry in package.manifest.flavors] == ["spark"]
    loaded = modelpack.load(package)
    assert loaded.driver_only
    answer = loaded.predict(ROWS[["features"]])["prediction"].to_pylist()
    assert answer == [row.prediction for row in model.transform(frame).collect()]


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        (lambda: feature.Bucketizer(inputCol="n", outputCol="o", splits=[0, 1, 2], handleInvalid="skip"), "rows out"),
        (lambda: feature.IndexToString(inputCol="n", outputCol="o"), "no labels"),
        (lambda: feature.SQLTransformer(statement="SELECT 1 FROM __THIS__"), "SQLTransformer"),
    ],
)
def test_what_numpy_does_not_evaluate_is_told(stage: Any, why: str, tmp_path: Path) -> None:
    session()
    _, found = folder.entry_of(cases.written(stage(), tmp_path))
    with pytest.raises(FlavorError, match=why) as info:
        evaluating.build(found, columns.answers(found))
    assert info.value.code == "conversion-unsupported"


def test_a_package_whose_columns_or_stages_lie_is_refused(tmp_path: Path) -> None:
    session()
    source = cases.written(binarizer(), tmp_path) / "sparkml"
    with pytest.raises(SaveError) as info:
        modelpack.save(source, tmp_path / "pkg", options={"columns": ["nothing"]})
    assert info.value.code == "model-unsupported"
    (part,) = source.glob("metadata/part-*")
    part.write_text(part.read_text().replace('"threshold":0.2', '"threshold":"x"'))
    with pytest.raises(PackageError, match="lacks what Spark writes"):
        modelpack.save(source, tmp_path / "pkg")
    shutil.rmtree(source / "metadata")
    with pytest.raises(SaveError) as empty:
        modelpack.save(source, tmp_path / "pkg", flavor="spark_numpy")
    assert empty.value.code == "model-invalid"


@pytest.mark.parametrize("options", [{"columns": []}, {"columns": [1]}, {"columns": "out"}, {"twin": 1}])
def test_options_are_checked(options: dict[str, Any], tmp_path: Path) -> None:
    session()
    with pytest.raises(UsageError) as info:
        modelpack.save(binarizer(), tmp_path / "pkg", options=options)
    assert info.value.code == "option-invalid"


def test_what_is_not_fitted_is_refused(tmp_path: Path) -> None:
    session()
    with pytest.raises(SaveError) as info:
        modelpack.save(clustering.KMeans(), tmp_path / "pkg")
    assert info.value.code == "model-unsupported"
