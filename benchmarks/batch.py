"""Measures batch scoring against loops written by hand. Prints a Markdown table; run it on a quiet machine.

Each figure is the best of several runs, each in a new process, of the work alone: without imports and loading.
The hand-written loops check nothing: they read, call ``predict`` and write, as one would in a script.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

PREPARE = """
import sys, numpy as np, pandas as pd, pyarrow as pa, pyarrow.csv, pyarrow.parquet as pq, modelpack
from pathlib import Path
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
folder, csv_rows, parquet_rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
def table(rows, **more):
    return pa.table(more | {f"f{i}": rng.normal(size=rows).round(6) for i in range(20)})
X = table(5000).to_pandas()
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, (X.sum(axis=1) > 0).astype(int))
modelpack.save(model, folder / "lr", example=X.head(), name="lr", version="1")
pyarrow.csv.write_csv(table(csv_rows, id=np.arange(csv_rows)), folder / "in.csv")
pq.write_table(table(parquet_rows), folder / "in.parquet", row_group_size=125_000)
"""

MEASURE = """
import sys, time
from pathlib import Path
import modelpack, pandas, pyarrow as pa, pyarrow.csv, pyarrow.parquet as pq, sklearn.pipeline, sklearn.linear_model
from modelpack_server.batch import Options, predict_files
way, folder = sys.argv[1], Path(sys.argv[2])
model = modelpack.load(folder / "lr")
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
def loop_parquet(out, keep):
    file = pq.ParquetFile(folder / "in.parquet", pre_buffer=False)
    writer = None
    for batch in file.iter_batches(batch_size=16_384):
        answer = pa.array(ESTIMATOR.predict(batch.to_pandas()))
        kept = pa.Table.from_batches([batch]) if keep else None
        table = kept.append_column("prediction", answer) if keep else pa.table({"prediction": answer})
        writer = writer or pq.ParquetWriter(out, table.schema)
        writer.write_table(table)
    writer.close()
def loop_csv(out):
    import pandas as pd
    first = True
    for frame in pd.read_csv(folder / "in.csv", chunksize=16_384):
        frame["prediction"] = ESTIMATOR.predict(frame[[f"f{i}" for i in range(20)]])
        frame.to_csv(out, mode="w" if first else "a", header=first, index=False)
        first = False
if way.startswith("loop"):
    import numpy as np, pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    rng = np.random.default_rng(0)
    X = pd.DataFrame({f"f{i}": rng.normal(size=5000).round(6) for i in range(20)})
    ESTIMATOR = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, (X.sum(axis=1) > 0).astype(int))
before = resident()
start, cpu = time.perf_counter(), time.process_time()
if way == "loop parquet":
    loop_parquet(folder / "o.parquet", True)
elif way == "loop parquet, answers only":
    loop_parquet(folder / "o.parquet", False)
elif way == "loop csv":
    loop_csv(folder / "o.csv")
else:
    suffix = "csv" if "csv" in way else "parquet"
    keep = () if "answers only" in way else None
    predict_files(model, [folder / f"in.{suffix}"], folder / f"o.{suffix}", Options(overwrite=True, keep=keep))
print(time.perf_counter() - start, time.process_time() - cpu, resident(), resident() - before)
"""

WAYS = [
    ("modelpack parquet", "loop parquet"),
    ("modelpack parquet, answers only", "loop parquet, answers only"),
    ("modelpack csv", "loop csv"),
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--csv-rows", type=int, default=500_000)
    parser.add_argument("--parquet-rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", PREPARE, folder, str(given.csv_rows), str(given.parquet_rows)], check=True
        )
        print("| what | seconds | CPU seconds | rows/s | peak MB | of which work |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for pair in WAYS:
            best: dict[str, tuple[float, ...]] = {}
            # Taken in turns, so that a busy moment hits both.
            for _ in range(given.runs):
                for way in pair:
                    found = measure(way, Path(folder))
                    best[way] = tuple(map(min, best.get(way, found), found))
            for way in pair:
                seconds, cpu, peak, grown = best[way]
                rows = given.csv_rows if "csv" in way else given.parquet_rows
                print(f"| {way} | {seconds:.2f} | {cpu:.2f} | {rows / seconds:,.0f} | {peak:.0f} | {grown:.0f} |")


def measure(way: str, folder: Path) -> tuple[float, ...]:
    """Return seconds, seconds of CPU, peak and growth of memory in MB."""
    done = subprocess.run([sys.executable, "-c", MEASURE, way, folder], capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))


if __name__ == "__main__":
    main()
