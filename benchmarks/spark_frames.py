"""`modelpack.spark.score` against a `mapInArrow` written by hand with the same model, in one Spark application.

    python benchmarks/spark_frames.py [--rows 2000000] [--columns 20] [--rounds 5] [--master 'local[2]']

Both read the same cached rows, keep an id, and write to Spark's `noop` sink, in turn. By hand means: no signature, no
checks, the model loaded once for each Python worker. Printed are rows a second, each the median of the rounds, and the
ratio of ours to the other's in each round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import modelpack
import modelpack.spark


def by_hand(df: Any, path: str, names: list[str]) -> Any:
    """Score as a careful user would without modelpack."""
    cache: dict[str, Any] = {}

    def scored(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if "model" not in cache:
            cache["model"] = joblib.load(path)
        for batch in batches:
            found = cache["model"].predict(batch.select(names).to_pandas())
            yield pa.RecordBatch.from_arrays([batch.column("id"), pa.array(found)], names=["id", "prediction"])

    return df.mapInArrow(scored, "id bigint, prediction bigint")


def timed(df: Any) -> float:
    """Return how many seconds it takes to compute all rows."""
    started = time.perf_counter()
    df.write.format("noop").mode("overwrite").save()
    return time.perf_counter() - started


def compare(spark: Any, model: Any, rows: Any, names: list[str], folder: Path, rounds: int) -> dict[str, Any]:
    """Return the figures of one model."""
    import pandas as pd

    example = pd.DataFrame(np.zeros((2, len(names))), columns=names)
    modelpack.save(model, folder / "pkg", example=example, name="bench", overwrite=True)
    joblib.dump(model, folder / "model.joblib")
    ours = modelpack.spark.score(rows, folder / "pkg", keep=["id"])
    other = by_hand(rows, str(folder / "model.joblib"), names)
    count = rows.count()
    for each in (ours, other):
        timed(each)
    pairs = [(timed(ours), timed(other)) for _ in range(rounds)]
    return {
        "ours_rows_per_s": round(count / statistics.median(one for one, _ in pairs)),
        "by_hand_rows_per_s": round(count / statistics.median(two for _, two in pairs)),
        "ratio": round(statistics.median(two / one for one, two in pairs), 3),
        "ratios": [round(two / one, 3) for one, two in pairs],
    }


def main() -> None:
    """Run it and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--master", default="local[2]")
    given = parser.parse_args()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    builder = SparkSession.builder.master(given.master).config("spark.ui.enabled", "false")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    spark = builder.config("spark.log.level", "ERROR").config("spark.driver.memory", "4g").getOrCreate()
    names = [f"f{number}" for number in range(given.columns)]
    columns = [f"rand({number}) AS {name}" for number, name in enumerate(names)]
    rows = spark.range(0, given.rows, 1, 8).selectExpr("id", *columns).cache()
    random = np.random.default_rng(0)
    x = random.random((20_000, given.columns))
    y = (x[:, 0] + x[:, 1] > 1).astype(int)
    import pandas as pd

    frame = pd.DataFrame(x, columns=names)
    models = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, y),
        "histogram boosting": HistGradientBoostingClassifier(max_iter=100).fit(frame, y),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            print(json.dumps({"model": name, **compare(spark, model, rows, names, Path(folder), given.rounds)}))
    spark.stop()


if __name__ == "__main__":
    main()
