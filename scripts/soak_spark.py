"""Kills Spark's executors, and the commands that use them, with SIGKILL at random moments, and counts every row.

batch: `modelpack predict --engine spark` from a Delta table into a folder. stream: `modelpack stream --engine spark`.
frames: a Structured Streaming query of `modelpack.spark.score` with Parquet files and a checkpoint. Half of the kills
hit the command, half of them one of its executors. After each the command is run again until it ends well; then every
row must be there once, with its answer. Exits with 1 at the first thing that is not so.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

import modelpack
from modelpack.signature import Column, Signature, Table

FILES, ROWS = 12, 500
MASTER = "local-cluster[2,1,1024]"
COMMAND = [sys.executable, "-c", "from modelpack.cli import main; main(prog_name='modelpack')"]
MODEL = """
import time

def predict(data):
    time.sleep(0.3)
    return {"score": [2 * x for x in data["x"]]}
"""
FRAMES = f"""
import sys
import modelpack.spark
from pyspark.sql import SparkSession

package, source, output, checkpoint = sys.argv[1:]
spark = SparkSession.builder.master("{MASTER}").config("spark.ui.enabled", "false").getOrCreate()
rows = spark.readStream.schema("id bigint, x double").option("maxFilesPerTrigger", 2).parquet(source)
query = modelpack.spark.score(rows, package, keep=["id"]).writeStream.format("parquet")
query.option("checkpointLocation", checkpoint).trigger(availableNow=True).start(output).awaitTermination()
spark.stop()
"""


def main() -> int:
    """Run the soak and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills for each of batch, stream and frames")
    parser.add_argument("--only", choices=["batch", "stream", "frames"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random.seed(given.seed)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["MODELPACK_TRUST_STORE"] = str(root / "trust")
        package = save(root)
        for mode in [given.only] if given.only else ["batch", "stream", "frames"]:
            hits: Counter[str] = Counter()
            while hits["command"] + hits["executor"] < given.kills:
                hits.update(one_round(mode, root / mode, package))
                print(f"{mode}: {dict(hits)}, every row once", flush=True)
    return 0


def save(root: Path) -> Path:
    """Package a slow model in plain Python."""
    source = root / "slowly.py"
    source.write_text(MODEL)
    spec = importlib.util.spec_from_file_location("slowly", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    column = Column(name="x", type="float64")
    signature = Signature(
        inputs=Table(columns=(column,)), outputs=Table(columns=(Column(name="score", type="float64"),))
    )
    modelpack.save(module.predict, root / "pkg", signature=signature, code=[source], options={"form": "columns"},
                   name="slowly")  # fmt: skip
    return root / "pkg"


def one_round(mode: str, place: Path, package: Path) -> list[str]:
    """Run a command that is killed once, then until it ends well; compare; return what was hit."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    source, output = place / "source", place / "output"
    for number in range(FILES):
        ids = range(number * ROWS, (number + 1) * ROWS)
        table = pa.table({"id": pa.array(ids, pa.int64()), "x": [i / 7 for i in ids]})
        if mode == "frames":
            source.mkdir(exist_ok=True)
            pq.write_table(table, source / f"{number:02d}.parquet")
        else:
            write_deltalake(source, table, mode="append")
    engine = ["--engine", "spark", "--master", MASTER]
    command = {
        "batch": [*COMMAND, "predict", package, "-i", source, "-o", f"{output}/", "--output-format", "parquet",
                  "--keep", "id", *engine],
        "stream": [*COMMAND, "stream", package, "--from", source, "--to", output, "--keep", "id", "--once",
                   "--max-rows-per-commit", f"{3 * ROWS}", *engine],
        "frames": [sys.executable, "-c", FRAMES, package, source, output, place / "checkpoint"],
    }[mode]  # fmt: skip
    hit = killed(list(map(str, command)), random.choice(["command", "executor"]), random.uniform(0, 12))
    for _ in range(3):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode == 0:
            break
    else:
        sys.exit(f"{mode}: it does not end well: {done.stderr[-2000:]}")
    compare(mode, output)
    return [hit]


def killed(command: list[str], whom: str, after: float) -> str:
    """Start a command, kill it or one of its executors, and return what was hit."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not executors(process.pid):
        time.sleep(0.05)
    deadline = time.monotonic() + after
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    hit = "nothing"
    if process.poll() is None:
        found = executors(process.pid)
        hit = whom if found else "command"
        os.kill(random.choice(found) if hit == "executor" else process.pid, signal.SIGKILL)
    process.wait()
    return hit


def executors(ancestor: int) -> list[int]:
    """Return the executors that descend from a process."""
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if b"CoarseGrainedExecutorBackend" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue

    def descends(pid: int) -> bool:
        return pid == ancestor or (pid in parents and descends(parents[pid]))

    return [pid for pid in found if descends(pid)]


def compare(mode: str, output: Path) -> None:
    """Compare the output with what one machine gives; exit if it is anything else."""
    if mode == "frames":
        from pyspark.sql import SparkSession

        spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
        rows = [tuple(row) for row in spark.read.parquet(str(output)).select("id", "score").collect()]
    elif mode == "batch":
        table = pa.concat_tables([pq.read_table(path) for path in output.glob("**/*.parquet")])
        rows = list(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    else:
        table = pa.table(DeltaTable(output).to_pyarrow_table())
        rows = list(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    wanted = [(i, 2 * (i / 7)) for i in range(FILES * ROWS)]
    if sorted(rows) != wanted:
        lost, twice = len(set(wanted) - set(rows)), len(rows) - len(set(rows))
        sys.exit(f"{mode}: of {len(wanted)} rows {lost} are lost and {twice} are there twice")


if __name__ == "__main__":
    sys.exit(main())
