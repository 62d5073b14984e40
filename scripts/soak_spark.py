"""Kills Spark's executors, and the commands that use them, with SIGKILL at random moments, and counts every row.

batch: `modelpack predict --engine spark` from a Delta table into a folder, or into a table. stream: `modelpack stream
--engine spark`. Both write rows that do not fit aside. frames: a Structured Streaming query of `modelpack.spark.score`
with Parquet files and a checkpoint. tables: the same with Delta tables, to which rows are added between its batches.

Kills come while Python workers are there, at random intervals: each hits the command, the JVM of an executor, or a
worker. What ends is run again, until it ends well; then every row must be there once, with its answer or among the
rejects. Exits with 1 at the first thing that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
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
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

import modelpack
from modelpack.signature import Column, Signature, Table

MODES = ["batch", "stream", "frames", "tables"]
# Modes in which rows that do not fit would end the query; what they read begins as Parquet files.
QUERIES = {"frames", "tables"}
FILES, ROWS = 80, 100
# A row of so many has no x, and does not fit.
BAD = 50
# So many kills in one run, which then may end.
EACH = 8
MASTER = "local-cluster[2,1,1024]"
# Each start of a command takes long, each new worker is there at once.
VICTIMS = {"command": 1, "executor": 2, "worker": 5}
COMMAND = [sys.executable, "-m", "modelpack"]
MODEL = """
import time

def predict(data):
    time.sleep(0.5)
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


TABLES = f"""
import sys
from pathlib import Path
import modelpack.spark
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

package, source, output, checkpoint = sys.argv[1:]
spark = SparkSession.builder.master("{MASTER}").config("spark.ui.enabled", "false").getOrCreate()
modelpack.spark.register(spark)
table = f"{{source}}.table"
paths = sorted(Path(source).glob("*.parquet"))
for place, path in enumerate(paths):
    # Of a driver that was killed, some versions are there.
    if not DeltaTable.is_deltatable(table) or DeltaTable(table).version() < place:
        write_deltalake(table, pq.read_table(path), mode="append")
    if place % 8 < 7:
        continue
    rows = spark.readStream.format("modelpack_delta").load(table)
    query = modelpack.spark.score(rows, package, keep=["id"]).writeStream.format("modelpack_delta")
    query.option("checkpointLocation", checkpoint).trigger(availableNow=True).start(output).awaitTermination()
spark.stop()
"""


def main() -> int:
    """Run the soak and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills for each of batch, stream, frames and tables")
    parser.add_argument("--only", choices=MODES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random.seed(given.seed)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--conf spark.ui.enabled=false pyspark-shell"
    # These JVMs live too short for the second compiler, and for threads that collect garbage.
    os.environ["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["MODELPACK_TRUST_STORE"] = str(root / "trust")
        package = save(root)
        for mode in [given.only] if given.only else MODES:
            hits: Counter[str] = Counter()
            began = time.monotonic()
            while sum(hits[whom] for whom in VICTIMS) < given.kills:
                hits.update(one_round(mode, root / mode, package))
                print(f"{mode}: {dict(hits)}, every row once, after {time.monotonic() - began:.0f} s", flush=True)
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


def one_round(mode: str, place: Path, package: Path) -> Counter[str]:
    """Run a command that is killed until it ends well; compare; return what was hit."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    source, output = place / "source", place / "output"
    for number in range(FILES):
        ids = range(number * ROWS, (number + 1) * ROWS)
        x = [None if mode not in QUERIES and i % BAD == 0 else i / 7 for i in ids]
        table = pa.table({"id": pa.array(ids, pa.int64()), "x": pa.array(x, pa.float64())})
        if mode in QUERIES:
            source.mkdir(exist_ok=True)
            pq.write_table(table, source / f"{number:02d}.parquet")
        else:
            write_deltalake(source, table, mode="append")
    engine = ["--engine", "spark", "--master", MASTER, "--on-error", place / "rejects"]
    into = random.choice([[f"{output}/", "--output-format", "parquet"], [output, "--output-format", "delta"]])
    command = {
        "batch": [*COMMAND, "predict", package, "-i", source, "-o", *into, "--keep", "id", *engine],
        "stream": [*COMMAND, "stream", package, "--from", source, "--to", output, "--keep", "id", "--once",
                   "--max-rows-per-commit", f"{6 * ROWS}", *engine],
        "frames": [sys.executable, "-c", FRAMES, package, source, output, place / "checkpoint"],
        "tables": [sys.executable, "-c", TABLES, package, source, output, place / "checkpoint"],
    }[mode]  # fmt: skip
    hits: Counter[str] = Counter()
    failed = 0
    while (code := killed(list(map(str, command)), place / "log", hits)) != 0:
        # Spark gives up a task that was lost four times; that may happen, but not for ever.
        failed += code > 0
        if failed > 5:
            sys.exit(f"{mode}: it does not end well: {(place / 'log').read_text()[-4000:]}")
    compare(mode, output, place / "rejects")
    hits["runs"] += 1
    return hits


def killed(command: list[str], log: Path, hits: Counter[str]) -> int:
    """Start a command, kill it or what it has started at random moments, and return how it ended."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    began = time.monotonic()
    hits["starts"] += 1
    while process.poll() is None:
        found = descendants(process.pid)
        if not found["worker"] or sum(hits[whom] for whom in VICTIMS) >= EACH:
            time.sleep(0.3)
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 4))
            break
        found = descendants(process.pid)
        (whom,) = random.choices(list(VICTIMS), list(VICTIMS.values()))
        if not found[whom]:
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(found[whom]), signal.SIGKILL)
            hits[whom] += 1
            print(f"  {whom} killed {time.monotonic() - began:.0f} s after the start", file=sys.stderr, flush=True)
    return process.wait()


def descendants(ancestor: int) -> dict[str, list[int]]:
    """Return a process and those that descend from it, by what they are."""
    parents, words = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words[int(entry.name)] = (entry / "cmdline").read_bytes()

    def descends(pid: int) -> bool:
        return pid == ancestor or (pid in parents and descends(parents[pid]))

    own = [pid for pid in words if descends(pid)]
    daemons = [pid for pid in own if b"pyspark.daemon" in words[pid]]
    return {
        "command": [ancestor],
        "executor": [pid for pid in own if b"CoarseGrainedExecutorBackend" in words[pid]],
        # Workers are forked from a daemon, which is none itself.
        "worker": [pid for pid in daemons if parents[pid] in daemons],
    }


def compare(mode: str, output: Path, rejects: Path) -> None:
    """Compare the output with what one machine gives; exit if it is anything else."""
    if mode == "frames":
        from pyspark.sql import SparkSession

        spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
        rows = [tuple(row) for row in spark.read.parquet(str(output)).select("id", "score").collect()]
    elif not (output / "_delta_log").exists():
        table = pa.concat_tables([pq.read_table(path) for path in output.glob("**/*.parquet")])
        rows = list(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    else:
        table = pa.table(DeltaTable(output).to_pyarrow_table())
        rows = list(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    bad = [i for i in range(FILES * ROWS) if mode not in QUERIES and i % BAD == 0]
    check(mode, rows, [(i, 2 * (i / 7)) for i in range(FILES * ROWS) if i not in set(bad)])
    records: list[dict[str, Any]] = []
    if mode == "batch":
        records = [json.loads(line)["record"] for line in rejects.read_text().splitlines()]
    elif mode == "stream":
        records = [json.loads(text) for text in pa.table(DeltaTable(rejects).to_pyarrow_table())["record"].to_pylist()]
    check(f"{mode}, rejects", [record["id"] for record in records], bad)


def check(what: str, found: list[Any], wanted: list[Any]) -> None:
    """Exit if not each of the rows that are wanted, and no other, is there once."""
    if sorted(found) != wanted:
        lost, twice = len(set(wanted) - set(found)), len(found) - len(set(found))
        more = len(set(found) - set(wanted))
        sys.exit(f"{what}: of {len(wanted)} rows {lost} are lost, {twice} are there twice, {more} are others")


if __name__ == "__main__":
    sys.exit(main())
