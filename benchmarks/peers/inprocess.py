"""Times the bare model in a process of its own: `inprocess.py FOLDER`. Prints milliseconds as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import pandas as pd

import modelpack


def median(call: Callable[[], object], seconds: float) -> float:
    """Return the median time of a call in milliseconds, over at least five calls."""
    call()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 5 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1])
    rows = np.load(folder / "rows.npy")
    many = np.resize(rows, (100_000, rows.shape[1]))
    plain, named = joblib.load(folder / "plain.joblib"), joblib.load(folder / "named.joblib")
    one = pd.DataFrame(rows[:1], columns=list(named.feature_names_in_))
    session = onnxruntime.InferenceSession(str(twin(folder)), providers=["CPUExecutionProvider"])
    packed = modelpack.load(folder / "package")
    feeds = {item.name: item.shape for item in session.get_inputs()}
    result = {
        "predict, 1 row, DataFrame": median(lambda: named.predict(one), 1),
        "predict, 1 row, array": median(lambda: plain.predict(rows[:1]), 1),
        "predict, 1000 rows, array": median(lambda: plain.predict(rows), 1),
        "predict, 100000 rows, array": median(lambda: plain.predict(many), 2),
        "modelpack.load().predict, 1 row, array": median(lambda: packed.predict(rows[:1]), 1),
        "modelpack.load().predict, 100000 rows, array": median(lambda: packed.predict(many), 2),
    }
    if len(feeds) == 1:
        name = next(iter(feeds))
        result["ONNX session, 1 row"] = median(lambda: session.run(None, {name: rows[:1]}), 1)
        result["ONNX session, 100000 rows"] = median(lambda: session.run(None, {name: many}), 2)
    print(json.dumps(result))


def twin(folder: Path) -> Path:
    """Return the graph in the package that has a twin."""
    return next((folder / "twin").rglob("*.onnx"))


if __name__ == "__main__":
    main()
