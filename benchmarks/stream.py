"""Measures `modelpack stream` from one Delta table to another. Prints a Markdown table; run it on a quiet machine.

Throughput is of the work alone, without imports and loading, beside batch scoring of the same rows from Parquet to
Parquet in the same run. Latency is from the return of an append to a version of the output that holds its rows. The
idle stream is measured by the processor time of its process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PREPARE = """
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq, modelpack
from pathlib import Path
from deltalake import write_deltalake
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
folder, rows, files = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
def table(rows, start=0):
    columns = {f"f{i}": rng.normal(size=rows) for i in range(20)}
    return pa.table({"id": np.arange(start, start + rows), **columns})
X = table(5000).to_pandas().drop(columns="id")
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, (X.sum(axis=1) > 0).astype(int))
modelpack.save(model, folder / "lr", example=X.head(), name="lr", version="1")
for number in range(files):
    part = table(rows // files, number * (rows // files))
    write_deltalake(folder / "source", part, mode="append")
    (folder / "parquet").mkdir(exist_ok=True)
    pq.write_table(part, folder / "parquet" / f"{number:04}.parquet")
"""

MEASURE = """
import sys, time
from pathlib import Path
import modelpack, pandas, deltalake, deltalake.exceptions, deltalake.transaction, sklearn.pipeline
from modelpack_server import batch, stream
way, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
model = modelpack.load(folder / "lr")
class Never:
    asked = False
    def wait(self, seconds, file=None): raise SystemExit("idle")
def resident(which):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1024
before, started = resident("VmRSS"), time.perf_counter()
if way == "batch":
    done = batch.predict_files(model, [folder / "parquet"], folder / "batch.parquet", batch.Options(keep=("id",)))
else:
    options = stream.Options(once=True, keep=("id",), max_rows=size)
    done = stream.run(model, folder / "source", folder / f"out-{size}", options, Never())
seconds = time.perf_counter() - started
print(done.rows / seconds, resident("VmHWM") - before)
"""

STREAM = [sys.executable, "-m", "modelpack", "stream"]


def measure(folder: Path, way: str, size: int) -> tuple[float, float]:
    """Return rows a second, and how many MB the process grew beyond what it had with the model loaded."""
    line = [sys.executable, "-c", MEASURE, way, str(folder), str(size)]
    rate, grown = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    return float(rate), float(grown)


def follow(folder: Path, interval: float, name: str) -> subprocess.Popen[bytes]:
    """Start a stream that follows the table."""
    words = ["--from", folder / "live", "--to", folder / name, "--keep", "id", "--interval", interval, "--quiet"]
    return subprocess.Popen([*STREAM, str(folder / "lr"), *map(str, words)])


def wait(folder: Path, name: str, rows: int) -> None:
    """Wait until the output has so many rows."""
    from deltalake import DeltaTable

    while not (folder / name / "_delta_log" / f"{0:020d}.json").exists():
        time.sleep(0.05)
    table = DeltaTable(folder / name)
    while True:
        table.update_incremental()
        if sum(table.get_add_actions().column("num_records").to_pylist()) >= rows:
            return
        time.sleep(0.002)


def latency(folder: Path, interval: float, appends: int) -> list[float]:
    """Return the seconds from an append of 1,000 rows to their answers, sorted."""
    from deltalake import write_deltalake

    found = []
    pieces = [piece for _, piece in zip(range(appends + 1), pieces_of(folder), strict=False)]
    write_deltalake(folder / "live", pieces[0], mode="overwrite")
    name = f"live-{interval}"
    process = follow(folder, interval, name)
    wait(folder, name, 1000)
    for number, piece in enumerate(pieces[1:], start=2):
        write_deltalake(folder / "live", piece, mode="append")
        started = time.perf_counter()
        wait(folder, name, 1000 * number)
        found.append(time.perf_counter() - started)
        time.sleep(0.05)
    process.terminate()
    process.wait()
    return sorted(found)


def pieces_of(folder: Path) -> Any:
    """Yield tables of 1,000 rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted((folder / "parquet").iterdir()):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            yield pa.Table.from_batches([batch])


def idle(folder: Path, seconds: float) -> float:
    """Return the share of a core that an idle stream takes with the default interval."""
    process = follow(folder, 1.0, "idle")
    time.sleep(6)

    def used() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    before = used()
    time.sleep(seconds)
    share = (used() - before) / seconds
    process.terminate()
    process.wait()
    return share


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--appends", type=int, default=40)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds for which the idle stream is watched")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line = [sys.executable, "-c", PREPARE, str(folder), str(given.rows), str(given.files)]
        subprocess.run(line, check=True)
        print("| what | rows/s | of batch | growth |\n|---|---|---|---|")
        base, grown = measure(folder, "batch", 0)
        print(f"| batch, Parquet to Parquet | {base:,.0f} | 1 | {grown:.0f} MB |")
        for size in (100_000, given.rows):
            rate, grown = measure(folder, "stream", size)
            print(f"| stream, {size:,} rows a commit | {rate:,.0f} | {rate / base:.2f} | {grown:.0f} MB |")
        found = latency(folder, 0.05, given.appends)
        middle, late = statistics.median(found), found[int(len(found) * 0.95)]
        print(f"\nappend of 1,000 rows, --interval 0.05: median {middle * 1e3:.0f} ms, 95 % {late * 1e3:.0f} ms")
        print(f"idle, --interval 1: {idle(folder, given.idle):.2%} of a core")


if __name__ == "__main__":
    main()
