"""Measures what a person waits for: import, help, saving, loading, a server that is ready. Prints a Markdown table.

Every figure is the median of several runs, each in a new process where that matters. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

MODELPACK = str(Path(sys.executable).with_name("modelpack"))

SAVE = """
import sys, time, pathlib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.pipeline import make_pipeline
import modelpack
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
times = []
for i in range(2):
    start = time.perf_counter()
    modelpack.save(model, pathlib.Path(sys.argv[1]) / str(i), example=X.head(), name="cancer", version="1")
    times.append(time.perf_counter() - start)
print(*times)
"""

LOAD = """
import sys, time
import sklearn.linear_model, sklearn.pipeline, sklearn.preprocessing, pandas
import modelpack
start = time.perf_counter()
modelpack.load(sys.argv[1])
print(time.perf_counter() - start)
"""


def timed(*command: str) -> float:
    """Return how long the command takes, in seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def printed(code: str, *arguments: str) -> list[float]:
    """Return the numbers that a new interpreter prints for the code."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def until_ready(package: str) -> float:
    """Return the time from starting ``modelpack serve`` to the first answer that says it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.perf_counter()
    command = [MODELPACK, "serve", package, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - start < 60:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    return time.perf_counter() - start
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.005)
        raise SystemExit("the server was not ready within a minute")
    finally:
        server.terminate()
        server.wait()


def median(measure: Callable[[], float], runs: int) -> float:
    """Return the median of several runs, in milliseconds; a first run warms the file cache and does not count."""
    measure()
    return statistics.median(measure() for _ in range(runs)) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODELPACK_TRUST_STORE"] = str(Path(folder) / "trust")
        bare = median(lambda: timed(sys.executable, "-c", "pass"), runs)
        imported = median(lambda: timed(sys.executable, "-c", "import modelpack"), runs)
        help_ = median(lambda: timed(MODELPACK, "--help"), runs)
        saves = []
        for i in range(runs):
            (place := Path(folder) / f"save-{i}").mkdir()
            saves.append(printed(SAVE, str(place)))
        package = str(Path(folder) / "save-0" / "0")
        load = median(lambda: printed(LOAD, package)[0], runs)
        framework = "import sklearn.linear_model, sklearn.pipeline, sklearn.preprocessing, pandas"
        frameworks = median(lambda: timed(sys.executable, "-c", framework), runs)
        ready = median(lambda: until_ready(package), runs)

    first = statistics.median(times[0] for times in saves) * 1000
    second = statistics.median(times[1] for times in saves) * 1000
    rows = [
        ("bare Python, start to end", bare, ""),
        ("`import modelpack`, more than bare Python", imported - bare, "80"),
        ("`modelpack --help`", help_, "200"),
        ("save a scaler and logistic regression, second in a process", second, "150"),
        ("the same, first in a process: imports pydantic and modelpack too", first, ""),
        ("load it, scikit-learn and pandas imported before", load, ""),
        ("importing scikit-learn's parts and pandas, for comparison", frameworks - bare, ""),
        ("`modelpack serve` ready, more than Python and that import", ready - frameworks, "1000"),
    ]
    print("| what | ms | at most |\n| --- | ---: | ---: |")
    for what, value, limit in rows:
        print(f"| {what} | {value:.0f} | {limit} |")


if __name__ == "__main__":
    main()
