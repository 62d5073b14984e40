"""Each stage of Spark ML that NumPy evaluates, in each way that the docs list, compared with Spark's own answers.

Stages of a kind stand in one pipeline, which is fitted, written and scored once.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.ml import Pipeline, classification, clustering, feature, regression

from modelpack import coerce, infer, render
from modelpack.errors import InputError
from modelpack.signature import Signature
from modelpack_flavors._spark import evaluating, folder, native

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
RAW[:, 3] = 1.0  # a feature that does not vary
TEXT = np.array(["a", "b", "c", "d"])[np.arange(40) % 4]
ROWS = pd.DataFrame(
    {
        "features": RAW.tolist(),
        "counts": np.floor(np.abs(RAW) * 3).tolist(),
        "bits": (RAW > 0).astype(float).tolist(),
        "label": (RAW[:, 0] > 0).astype(float) + (RAW[:, 1] > 0.5),
        "two": (RAW[:, 0] + RAW[:, 1] > 0).astype(float),
        "target": np.exp(RAW[:, 0]),
        # The middle categories are alike, and so are the outer ones: no threshold parts them.
        "odd": np.isin(TEXT, ["b", "c"]) * 5.0 + (RAW[:, 0] > 0),
        "class": np.isin(TEXT, ["b", "c"]) * 1.0,
        "number": RAW[:, 1],
        "other": RAW[:, 2],
        "text": TEXT,
        "code": np.arange(40) % 3,
    }
)
GAPS = ROWS.assign(number=ROWS["number"].where(ROWS.index % 5 > 0), text=ROWS["text"].where(ROWS.index % 7 > 0))
ENDS = [-float("inf"), -0.5, 0.0, float("inf")]
INNER = [-9.0, -0.5, 0.0, 9.0]


def named(name: str, *, classifies: bool = False) -> dict[str, str]:
    """Return the columns that a model of this name makes."""
    found = {"predictionCol": name}
    if classifies:
        found |= {"rawPredictionCol": f"{name}_raw", "probabilityCol": f"{name}_chances"}
    return found


def classifiers() -> dict[str, Any]:
    kind = classification

    def made(model: Callable[..., Any], name: str, **more: Any) -> Any:
        return model(**named(name, classifies=True), **more)

    logistic, bayes = kind.LogisticRegression, kind.NaiveBayes
    svc = kind.LinearSVC(labelCol="two", maxIter=2, threshold=0.1, predictionCol="svc", rawPredictionCol="svc_raw")
    return {
        "binary": made(logistic, "binary", labelCol="two", maxIter=2, threshold=0.3),
        "limits": made(logistic, "limits", labelCol="two", maxIter=2, thresholds=[0.3, 0.7]),
        "many": made(logistic, "many", maxIter=2, thresholds=[0.2, 0.5, 0.3]),
        "svc": svc,
        "gaussian": made(bayes, "gaussian", modelType="gaussian"),
        "multinomial": made(bayes, "multinomial", featuresCol="counts", thresholds=[0.2, 0.5, 0.3]),
        "bernoulli": made(bayes, "bernoulli", featuresCol="bits", modelType="bernoulli"),
    }


def linear_models() -> dict[str, Any]:
    links = {
        "gaussian": ("identity", "log", "inverse"),
        "binomial": ("logit",),
        "poisson": ("log", "identity"),
        "gamma": ("inverse", "identity", "log"),
    }
    found: dict[str, Any] = {
        "linear": regression.LinearRegression(labelCol="target", maxIter=2, regParam=0.1, predictionCol="linear")
    }
    for family, known in links.items():
        for link in known:
            name = f"{family}_{link}"
            found[name] = regression.GeneralizedLinearRegression(
                labelCol="two" if family == "binomial" else "target",
                family=family,
                link=link,
                regParam=0.1,
                maxIter=1,
                predictionCol=name,
            )
    return found


def clusters() -> dict[str, Any]:
    return {
        name: clustering.KMeans(k=3, maxIter=2, seed=1, distanceMeasure=name, predictionCol=name)
        for name in ("euclidean", "cosine")
    }


def trees(features: str = "features", label: str = "label", target: str = "target", two: str = "two") -> dict[str, Any]:
    few = {"featuresCol": features, "maxDepth": 2, "seed": 1}
    classes, numbers = classification, regression
    limits = [0.5, 0.2, 0.3] if label == "label" else [0.5, 0.3]
    return {
        "tree": classes.DecisionTreeClassifier(labelCol=label, **few, **named("tree", classifies=True)).setThresholds(
            limits
        ),
        "forest": classes.RandomForestClassifier(
            labelCol=label, numTrees=2, **few, **named("forest", classifies=True)
        ).setThresholds(limits),
        "boosted": classes.GBTClassifier(labelCol=two, maxIter=2, predictionCol="boosted", **few)
        .setRawPredictionCol("boosted_raw")
        .setProbabilityCol("boosted_chances")
        .setThresholds([0.6, 0.4]),
        "tree_number": numbers.DecisionTreeRegressor(labelCol=target, **few, **named("tree_number")),
        "forest_number": numbers.RandomForestRegressor(labelCol=target, numTrees=2, **few, **named("forest_number")),
        "boosted_number": numbers.GBTRegressor(labelCol=target, maxIter=2, **few, **named("boosted_number")),
    }


def scalers() -> dict[str, Any]:
    found: dict[str, Any] = {
        f"standard{mean:d}{std:d}": feature.StandardScaler(withMean=mean, withStd=std)
        for mean in (True, False)
        for std in (True, False)
    }
    found |= {f"normal{p}": feature.Normalizer(p=p) for p in (1.0, 2.0, 3.0, float("inf"))}
    found |= {
        "range": feature.MinMaxScaler(min=-1.0),
        "largest": feature.MaxAbsScaler(),
        "components": feature.PCA(k=2),
    }
    return {name: stage.setInputCol("features").setOutputCol(name) for name, stage in found.items()}


def encoders() -> dict[str, Any]:
    found: dict[str, Any] = {
        "indexed": feature.StringIndexer(inputCol="text", outputCol="indexed"),
        "kept": feature.StringIndexer(inputCols=["text", "code"], outputCols=["kept", "k"], handleInvalid="keep"),
        "named": feature.IndexToString(inputCol="kept", outputCol="named", labels=["p", "q", "r", "s", "t"]),
        "hots": feature.OneHotEncoder(inputCols=["code", "kept"], outputCols=["hots", "h"]),
    }
    for invalid in ("error", "keep"):
        for drop in (True, False):
            name = f"hot_{invalid}_{drop:d}"
            found[name] = feature.OneHotEncoder(inputCol="code", outputCol=name, dropLast=drop, handleInvalid=invalid)
    return found


def cutters() -> dict[str, Any]:
    return {
        "above": feature.Binarizer(inputCol="number", outputCol="above", threshold=0.2),
        "above_vector": feature.Binarizer(inputCol="features", outputCol="above_vector", threshold=0.2),
        "above_each": feature.Binarizer(
            inputCols=["number", "other"], outputCols=["above_each", "a"], thresholds=[0.1, -0.1]
        ),
        "bucket": feature.Bucketizer(inputCol="other", outputCol="bucket", splits=INNER),
        "buckets": feature.Bucketizer(
            inputCols=["number", "other"], outputCols=["buckets", "b"], splitsArray=[ENDS, INNER], handleInvalid="keep"
        ),
        "together": feature.VectorAssembler(inputCols=["other", "code", "features"], outputCol="together"),
        "together_kept": feature.VectorAssembler(
            inputCols=["number", "code"], outputCol="together_kept", handleInvalid="keep"
        ),
    }


def imputers() -> dict[str, Any]:
    found: dict[str, Any] = {
        name: feature.Imputer(inputCol="number", outputCol=name, strategy=name) for name in ("mean", "median", "mode")
    }
    found["codes"] = feature.Imputer(
        inputCols=["code", "other"], outputCols=["codes", "others"], missingValue=1.0, strategy="mean"
    )
    return found


MODELS = {"classifiers": classifiers, "linear models": linear_models, "clusters": clusters, "trees": trees}
FEATURES = {"scalers": scalers, "encoders": encoders, "cutters": cutters, "imputers": imputers}


@pytest.fixture(scope="module")
def frame() -> Any:
    return native._rows(pa.Table.from_pandas(ROWS, preserve_index=False)).cache()


def compared(stages: dict[str, Any], frame: Any, rows: pd.DataFrame, directory: Path) -> None:
    model = Pipeline(stages=list(stages.values())).fit(frame)
    wanted = [name for stage in stages.values() for name in outputs(stage)]
    cases.close(*cases.both(model, directory, rows, wanted))


def outputs(stage: Any) -> list[str]:
    """Return the columns that a stage makes."""
    names = ("predictionCol", "probabilityCol", "rawPredictionCol")
    models = [stage.getOrDefault(name) for name in names if stage.hasParam(name)]
    if models:
        return models
    if stage.hasParam("outputCols") and stage.isSet("outputCols"):
        return list(stage.getOrDefault("outputCols"))
    return [stage.getOrDefault("outputCol")]


@pytest.mark.parametrize("name", [*MODELS, "scalers", "encoders"])
def test_numpy_answers_as_spark_does(name: str, frame: Any, tmp_path: Path) -> None:
    compared({**MODELS, **FEATURES}[name](), frame, ROWS, tmp_path)


@pytest.mark.parametrize("name", ["cutters", "imputers"])
def test_numpy_fills_and_keeps_what_is_missing_as_spark_does(name: str, frame: Any, tmp_path: Path) -> None:
    table = pa.Table.from_pandas(GAPS, preserve_index=False)
    compared(FEATURES[name](), native._rows(table), GAPS, tmp_path)


def test_what_keep_keeps_is_as_in_spark(frame: Any, tmp_path: Path) -> None:
    keeping = {
        name: stage
        for name, stage in encoders().items()
        if stage.hasParam("handleInvalid") and stage.getOrDefault("handleInvalid") == "keep"
    }
    strange = GAPS.assign(code=np.arange(40) % 5)
    assert set(keeping) == {"kept", "hot_keep_1", "hot_keep_0"}
    compared(keeping, frame, strange, tmp_path)


def test_minus_zero_lies_before_zero_in_buckets(frame: Any, tmp_path: Path) -> None:
    rows = pd.DataFrame({"other": [-0.0, 0.0, -0.5, 9.0]})
    compared({"bucket": cutters()["bucket"]}, frame, rows, tmp_path)


def test_splits_by_category_are_as_in_spark(frame: Any, tmp_path: Path) -> None:
    stages = {
        "text_": feature.StringIndexer(inputCol="text", outputCol="text_", handleInvalid="keep"),
        "both": feature.VectorAssembler(inputCols=["text_", "number"], outputCol="both"),
        **trees("both", "class", "odd", "class"),
    }
    rows = ROWS.assign(text=np.where(ROWS.index == 3, "unseen", ROWS["text"]))
    compared(stages, frame, rows, tmp_path)
    _, found = folder.entry_of(tmp_path)
    made = [stage.trees for stage in found.flat() if stage.trees is not None]
    assert len(made) == 6
    assert all((one.row >= 0).any() for one in made)


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("indexed", {"text": "unseen"}),
        ("hot_error_0", {"code": 7}),
        ("bucket", {"other": 10.0}),
        ("buckets", {"number": 0.0, "other": 10.0}),
        ("linear", {"features": [1.0, 2.0]}),
    ],
)
def test_what_spark_refuses_is_refused(stage: str, row: dict[str, Any], frame: Any, tmp_path: Path) -> None:
    known = {**linear_models(), **encoders(), **cutters()}
    model = Pipeline(stages=[known[stage]]).fit(frame)
    _, found = folder.entry_of(cases.written(model, tmp_path))
    wanted = outputs(known[stage])
    rows = pd.DataFrame([row])
    data = coerce.inputs(rows, Signature(inputs=infer.io(rows)))
    with pytest.raises(Exception, match=r"(?i)spark|java|udf"):
        native.SparkPredictor(model, wanted, tmp_path).predict(render.to(data, "arrow"), {})
    with pytest.raises(InputError) as info:
        evaluating.build(found, wanted).predict(data, {})
    assert info.value.code == "value-refused"
