"""A directory as MLflow writes it around a model of Spark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyspark
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.regression import LinearRegression

import modelpack
from modelpack.trust import Store
from modelpack_flavors._spark.session import session

# pyspark leaves the closing of its sockets to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]


def test_a_spark_directory_loads_as_spark_answers(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0, 5.0], "b": [2.0, 1.0, 0.0, 7.0], "label": [3.0, 3.0, 4.0, 12.0]})
    names = ["a", "b"]
    rows = session().createDataFrame(table)
    model = Pipeline(stages=[VectorAssembler(inputCols=names, outputCol="features"), LinearRegression()]).fit(rows)
    columns = [{"type": "double", "name": name, "required": True} for name in names]
    folder = tmp_path / "spark"
    folder.mkdir()
    (folder / "MLmodel").write_text(f"""
flavors:
  python_function: {{data: sparkml, loader_module: mlflow.spark, python_version: 3.11.7}}
  spark: {{code: null, model_data: sparkml, pyspark_version: {pyspark.__version__}}}
signature:
  inputs: '{json.dumps(columns)}'
""")
    model.write().save(f"file://{folder}/sparkml")
    package = modelpack.open(folder)
    candidate = package.plan(store=Store(tmp_path / "none")).candidates[0]
    assert (candidate.name, candidate.trust) == ("spark", "graph")
    found = modelpack.load(package, store=Store(tmp_path / "none")).predict(table[names])
    wanted = [row.prediction for row in model.transform(rows).collect()]
    np.testing.assert_allclose(np.asarray(found["prediction"]), wanted, rtol=1e-12)
