"""Measures batch scoring beside loops written by hand, and beside `mlflow models predict`. Prints Markdown tables.

Run it on a quiet machine: everything that stands in one table is measured in turns, so that a busy moment hits all of
it, and only what stands in one table compares. Without options it takes some minutes; `--full` is what
docs/performance.md tells of. MLflow takes part if `--mlflow` names the Python of an environment that has it.

- Parquet: the work alone, without imports and loading, in a new process each time; the best of several. The loops check
  nothing: they read, call ``predict`` and write, as one would in a script. Ours has the threads that the command gives.
- CSV: whole commands, from their start to their end.
- Memory: the peak of whole commands over more and more rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack_server.batch.together import jobs
from modelpack_server.cores import library_threads

MODELS = """
import numpy as np, pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
def fitted(name):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({f"f{i}": rng.normal(size=5000).round(6) for i in range(20)})
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    made = linear if name == "logistic" else HistGradientBoostingClassifier(max_iter=100)
    return X, made.fit(X, (X.sum(axis=1) > 0).astype(int))
"""

PREPARE = (
    MODELS
    + """
import sys, pyarrow as pa, pyarrow.csv, pyarrow.parquet as pq, modelpack
from pathlib import Path
folder, csv_rows, parquet_rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(1)
def table(rows, **more):
    return pa.table(more | {f"f{i}": rng.normal(size=rows).round(6) for i in range(20)})
for name in ("logistic", "boosting") if parquet_rows else ("logistic",):
    X, model = fitted(name)
    modelpack.save(model, folder / name, example=X.head(), name=name, version="1")
pyarrow.csv.write_csv(table(csv_rows), folder / "in.csv")
for path, rows in (("in.parquet", parquet_rows), ("tenth.parquet", parquet_rows // 10)) if parquet_rows else ():
    whole = None
    while rows:
        part = table(min(rows, 125_000))
        whole = whole or pq.ParquetWriter(folder / path, part.schema)
        whole.write_table(part)
        rows -= len(part)
    whole.close()
"""
)

# What is timed; the first line that is printed is what the process needed.
MEASURE = (
    MODELS
    + """
import sys, time
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq, modelpack
from modelpack_server.batch import Options, predict_files
way, name, path, kept, folder = *sys.argv[1:5], Path(sys.argv[5])
def resident(which):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1024
def loop(estimator, keep):
    writer = None
    for batch in pq.ParquetFile(folder / path, pre_buffer=False).iter_batches(batch_size=16_384):
        answer = pa.array(estimator.predict(batch.to_pandas()))
        table = pa.Table.from_batches([batch]) if keep else None
        table = table.append_column("prediction", answer) if keep else pa.table({"prediction": answer})
        writer = writer or pq.ParquetWriter(folder / "loop.parquet", table.schema)
        writer.write_table(table)
    writer.close()
if way == "loop":
    _, estimator = fitted(name)
else:
    model = modelpack.load(folder / name)
before, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
if way == "loop":
    loop(estimator, kept == "all")
else:
    keep = None if kept == "all" else ()
    options = Options(overwrite=True, keep=keep, jobs=int(way) if way.isdigit() else None)
    predict_files(model, [folder / path], folder / "ours.parquet", options)
print(time.perf_counter() - start, time.process_time() - cpu, resident("VmHWM"), resident("VmHWM") - before)
"""
)

MLFLOW = (
    MODELS
    + """
import sys, mlflow.sklearn
X, model = fitted("logistic")
mlflow.sklearn.save_model(model, sys.argv[1])
"""
)


@dataclass(frozen=True)
class Found:
    """Seconds, seconds of processor time, and MB: at the peak, and of it beyond the loaded model."""

    seconds: float
    cpu: float
    peak: float
    grown: float = 0.0


def best(found: Sequence[Found]) -> Found:
    """Return the least of each."""
    columns = zip(*((one.seconds, one.cpu, one.peak, one.grown) for one in found), strict=True)
    return Found(*(min(column) for column in columns))


def run(way: str, name: str, path: str, kept: str, folder: Path) -> Found:
    """Score a file in a new process."""
    line = [sys.executable, "-c", MEASURE, way, name, path, kept, str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment(way))
    return Found(*map(float, done.stdout.split()))


def environment(way: str) -> Mapping[str, str]:
    """Return the environment: ours has the threads of libraries that the command gives, loops those they find."""
    return os.environ if way == "loop" else {**os.environ, **library_threads(jobs("graph"), os.environ)}


def command(line: Sequence[str]) -> Found:
    """Run a whole command."""
    started = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(line)}: exit code {process.returncode}")
    return Found(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def parquet(folder: Path, rows: int, runs: int) -> None:
    """Compare with loops."""
    print(f"\n{rows:,} rows of 20 columns, Parquet to Parquet\n")
    print("| model, columns kept | how | seconds | CPU seconds | rows/s | of the loop's | peak MB | beyond the model |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, kept in (("logistic", "all"), ("logistic", "none"), ("boosting", "all")):
        ways = ("loop", "1", "default")
        results: dict[str, list[Found]] = {way: [] for way in ways}
        for _ in range(runs):
            for way in ways:
                results[way].append(run(way, name, "in.parquet", kept, folder))
        bar = best(results["loop"]).seconds
        for way in ways:
            it = best(results[way])
            how = {"loop": "loop by hand", "1": "modelpack, --jobs 1", "default": "modelpack"}[way]
            print(
                f"| {name}, {kept} | {how} | {it.seconds:.2f} | {it.cpu:.2f} | {rows / it.seconds:,.0f} "
                f"| {bar / it.seconds:.2f} | {it.peak:.0f} | {it.grown:.0f} |",
                flush=True,
            )
    small, large = (run("default", "logistic", path, "all", folder) for path in ("tenth.parquet", "in.parquet"))
    print(
        f"\nA tenth of the rows: {small.grown:.0f} MB beyond the loaded model; all of them: {large.grown:.0f} MB; "
        f"growth {large.peak - small.peak:.0f} MB."
    )


def ours(folder: Path, source: Path) -> list[str]:
    """Return our command from CSV to CSV, answers only, as MLflow writes nothing else."""
    words = ["predict", folder / "logistic", "-i", source, "-o", folder / "out.csv", "--overwrite", "--keep", "none"]
    return [sys.executable, "-m", "modelpack", *map(str, words)]


def theirs(folder: Path, python: str, source: Path) -> list[str]:
    """Return MLflow's command from CSV to JSON, which is all that it writes."""
    words = ["-m", folder / "mlflow", "-i", source, "-o", folder / "out.json", "-t", "csv", "--env-manager", "local"]
    return [python, "-m", "mlflow", "models", "predict", *map(str, words)]


def csv(folder: Path, python: str | None, rows: int, runs: int) -> None:
    """Compare whole commands."""
    print(f"\n{rows:,} rows of 20 columns in CSV, logistic regression, whole commands\n")
    print("| command | seconds | CPU seconds | rows/s | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    lines = {"modelpack predict, into CSV": ours(folder, folder / "in.csv")}
    if python is not None:
        lines["mlflow models predict, into JSON"] = theirs(folder, python, folder / "in.csv")
    results: dict[str, list[Found]] = {name: [] for name in lines}
    for _ in range(runs):
        for name, line in lines.items():
            results[name].append(command(line))
    for name, found in results.items():
        it = best(found)
        print(f"| {name} | {it.seconds:.2f} | {it.cpu:.2f} | {rows / it.seconds:,.0f} | {it.peak:.0f} |", flush=True)
    if python is not None:
        mine, other = (best(found).seconds for found in results.values())
        print(f"\nmodelpack took {mine / other:.2f} of MLflow's time: {other / mine:.1f} times as fast.")


def memory(folder: Path, python: str | None, sizes: Sequence[int], their_sizes: Sequence[int]) -> None:
    """Show the peak of memory over more and more rows of CSV."""
    print("\nPeak memory of whole commands over CSV, logistic regression\n")
    print("| rows | file, MB | modelpack predict, MB | seconds | mlflow models predict, MB | seconds |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    head, body = (folder / "in.csv").read_bytes().split(b"\n", 1)
    lines = body.splitlines(keepends=True)
    for rows in sorted({*sizes, *(their_sizes if python else ())}):
        path = folder / "many.csv"
        with path.open("wb") as file:
            file.write(head + b"\n")
            for start in range(0, rows, len(lines)):
                file.writelines(lines[: rows - start])
        cells = [f"{rows:,}", f"{path.stat().st_size / 1e6:.0f}"]
        for wanted, line in (
            (rows in sizes, ours(folder, path)),
            (python is not None and rows in their_sizes, theirs(folder, python or "", path)),
        ):
            found = command(line) if wanted else None
            cells += [f"{found.peak:.0f}", f"{found.seconds:.1f}"] if found else ["-", "-"]
        print(f"| {' | '.join(cells)} |", flush=True)
        path.unlink()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="5 million rows of Parquet, 20 million of CSV")
    parser.add_argument("--only", choices=["parquet", "csv", "memory"], action="append")
    parser.add_argument("--mlflow", metavar="PYTHON", help="the Python of an environment with MLflow and scikit-learn")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--parquet-rows", type=int, help="[default: 500,000; 5,000,000 with --full]")
    parser.add_argument("--csv-rows", type=int, default=500_000)
    given = parser.parse_args()
    parts = given.only or ["parquet", "csv", "memory"]
    rows = given.parquet_rows or (5_000_000 if given.full else 500_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = rows if "parquet" in parts else 0
        line = [sys.executable, "-c", PREPARE, name, str(given.csv_rows), str(prepared)]
        subprocess.run(line, check=True, env=environment("prepare"))
        if given.mlflow and parts != ["parquet"]:
            line = [given.mlflow, "-c", MLFLOW, f"{name}/mlflow"]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if "parquet" in parts:
            parquet(folder, rows, given.runs)
        if "csv" in parts:
            csv(folder, given.mlflow, given.csv_rows, given.runs)
        if "memory" in parts:
            million = 1_000_000
            sizes = (million, 5 * million, 20 * million) if given.full else (million // 4, million)
            memory(folder, given.mlflow, sizes, (million // 2, million, 2 * million) if given.full else (million // 4,))


if __name__ == "__main__":
    main()
