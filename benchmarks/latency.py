"""Measures one client's wait for `modelpack serve`: 1 row and 1000 rows of 30 columns as JSON, on one connection.

Prints a Markdown table of medians, beside the bare ``predict`` of the same pipeline in this process.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import modelpack


def median(call: Callable[[], object], times: int) -> float:
    """Return the median time of a call in milliseconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def main() -> None:
    """Serve the pipeline, ask it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    requests = parser.parse_args().requests
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    data = x.to_numpy().tolist() * 2
    with tempfile.TemporaryDirectory() as folder:
        modelpack.save(model, Path(folder) / "cancer", example=x.head())
        serve = [sys.executable, "-m", "modelpack", "serve", str(Path(folder) / "cancer"), "--port", "0"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            found = re.search(r"http://[^:/]+:(\d+)", server.stdout.readline())
            assert found is not None
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]))

            def ask(body: str) -> bytes:
                connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                return connection.getresponse().read()

            print("| what | ms |\n| --- | ---: |")
            for rows in (1, 1000):
                body = json.dumps({"dataframe_split": {"columns": list(x.columns), "data": data[:rows]}})
                took = median(lambda body=body: ask(body), requests // (1 if rows == 1 else 5))  # type: ignore[misc]
                print(f"| {rows} rows over HTTP | {took:.2f} |")
            print(f"| `predict` of 1 row in process | {median(lambda: model.predict(x.head(1)), requests):.2f} |")
            server.terminate()


if __name__ == "__main__":
    main()
