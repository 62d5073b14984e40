"""Models for the contract: pipelines with their twins, and clusters as a single model without."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pandas as pd
from palmerpenguins import load_penguins
from pyspark.ml import Pipeline
from pyspark.ml.classification import DecisionTreeClassifier, RandomForestClassifier
from pyspark.ml.clustering import KMeans
from pyspark.ml.feature import IndexToString, OneHotEncoder, StringIndexer, VectorAssembler
from pyspark.ml.regression import GBTRegressor
from sklearn.datasets import load_breast_cancer

from modelpack_flavors._spark import native
from modelpack_flavors._spark.session import session

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm"]


def case(model: Any, example: pd.DataFrame, columns: list[str], **more: Any) -> types.SimpleNamespace:
    import pyarrow as pa

    rows = pa.Table.from_pandas(example, preserve_index=False)
    fields = {
        "answer": native.SparkPredictor(model, columns, None).predict(rows, {}),  # type: ignore[arg-type]
        "options": {},
        "code": (),
        "bad_example": pd.DataFrame({"nothing": [1.0]}),
        # Spark gives its files new names each time.
        "reproducible": False,
    }
    return types.SimpleNamespace(model=model, example=example, **{**fields, **more})


@functools.cache
def penguins() -> pd.DataFrame:
    return load_penguins().dropna().reset_index(drop=True).drop(columns="year")


def fitted(table: pd.DataFrame, *stages: Callable[[], Any]) -> Any:
    rows = session().createDataFrame(table)
    return Pipeline(stages=[stage() for stage in stages]).fit(rows)


@functools.cache
def pipeline() -> types.SimpleNamespace:
    table = penguins()
    model = fitted(
        table,
        lambda: StringIndexer(inputCol="species", outputCol="label"),
        lambda: StringIndexer(inputCols=["island", "sex"], outputCols=["island_", "sex_"], handleInvalid="keep"),
        lambda: OneHotEncoder(inputCols=["island_", "sex_"], outputCols=["islands", "sexes"]),
        lambda: VectorAssembler(inputCols=[*NUMBERS, "islands", "sexes"], outputCol="features"),
        lambda: RandomForestClassifier(numTrees=2, maxDepth=3),
        lambda: IndexToString(inputCol="prediction", outputCol="guess", labels=["Adelie", "Gentoo", "Chinstrap"]),
    )
    columns = ["prediction", "probability", "guess"]
    return case(model, table.iloc[::30].reset_index(drop=True), columns, twins=("spark_numpy",))


@functools.cache
def tree() -> types.SimpleNamespace:
    data = load_breast_cancer(as_frame=True)
    table = data.data.iloc[:, :4].rename(columns=lambda name: name.replace(" ", "_")).assign(label=data.target)
    names = [name for name in table if name != "label"]
    model = fitted(
        table,
        lambda: VectorAssembler(inputCols=names, outputCol="features"),
        lambda: DecisionTreeClassifier(maxDepth=3),
    )
    return case(model, table[names].head(8), ["prediction", "probability"], twins=("spark_numpy",))


@functools.cache
def boosted() -> types.SimpleNamespace:
    table = penguins()
    model = fitted(
        table,
        lambda: StringIndexer(inputCol="island", outputCol="island_"),
        lambda: VectorAssembler(inputCols=[*NUMBERS, "island_"], outputCol="features"),
        lambda: GBTRegressor(labelCol="body_mass_g", maxIter=2, maxDepth=2),
    )
    example = table[[*NUMBERS, "island"]].iloc[::40].reset_index(drop=True)
    return case(model, example, ["prediction"], twins=("spark_numpy",))


@functools.cache
def clusters() -> types.SimpleNamespace:
    table = penguins()[NUMBERS]
    rows = session().createDataFrame(table)
    vectors = VectorAssembler(inputCols=NUMBERS, outputCol="features").transform(rows)
    model = KMeans(k=3, maxIter=1, seed=1).fit(vectors)
    example = pd.DataFrame({"features": table.to_numpy()[::50].tolist()})
    return case(model, example, ["prediction"], options={"columns": ["prediction"], "twin": False})


CASES = {"boosted": boosted, "clusters": clusters, "pipeline": pipeline, "tree": tree}
