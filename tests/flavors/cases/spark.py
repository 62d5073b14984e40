"""Models for the contract and for the tests of Spark, and how answers of Spark and of NumPy are compared."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from palmerpenguins import load_penguins
from pyspark.ml import Pipeline
from pyspark.ml.classification import DecisionTreeClassifier, RandomForestClassifier
from pyspark.ml.feature import IndexToString, OneHotEncoder, StringIndexer, VectorAssembler
from sklearn.datasets import load_breast_cancer

from modelpack import coerce, infer, render
from modelpack.signature import Signature
from modelpack_flavors._spark import columns, evaluating, folder, native
from modelpack_flavors._spark.session import session

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm"]


def case(model: Any, example: pd.DataFrame, answer: list[str], **more: Any) -> types.SimpleNamespace:
    import pyarrow as pa

    rows = pa.Table.from_pandas(example, preserve_index=False)
    fields = {
        "answer": native.SparkPredictor(model, answer, None).predict(rows, {}),  # type: ignore[arg-type]
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
    answer = ["prediction", "probability", "guess"]
    return case(model, table.iloc[::30].reset_index(drop=True), answer, twins=("spark_numpy",))


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


def written(model: Any, directory: Path) -> Path:
    model.write().overwrite().save(f"file://{directory / folder.HOME}")
    return directory


def both(model: Any, directory: Path, rows: pd.DataFrame, wanted: Sequence[str] = ()) -> tuple[Any, Any]:
    """Return the answers of Spark and of NumPy: the wanted columns, or the model's own."""
    _, found = folder.entry_of(written(model, directory))
    wanted = tuple(wanted) or columns.answers(found)
    data = coerce.inputs(rows, Signature(inputs=infer.io(rows[list(columns.needed(found, wanted))])))
    spark = native.SparkPredictor(model, wanted, directory).predict(render.to(data, "arrow"), {})
    return spark, evaluating.build(found, wanted).predict(data, {})


def close(one: Any, other: Any) -> None:
    """Assert that two answers are the same: numbers to 1e-12, texts exactly."""
    assert one.schema.equals(other.schema)
    for name in one.column_names:
        wanted, got = one[name].to_pylist(), other[name].to_pylist()
        if isinstance(wanted[0], str):
            assert wanted == got, name
        else:
            np.testing.assert_allclose(
                np.array(got, float), np.array(wanted, float), rtol=1e-12, atol=1e-12, err_msg=name
            )


CASES = {"pipeline": pipeline}
