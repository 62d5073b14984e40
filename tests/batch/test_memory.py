"""Memory does not grow with the input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

# VmHWM of a fresh process: getrusage would count the parent's pages of before exec.
SCRIPT = """
import sys, modelpack
from pathlib import Path
from modelpack_server.batch import Options, predict_files
model = modelpack.load(sys.argv[1])
table = sys.argv[3].endswith("-table")
options = Options(jobs=int(sys.argv[4]), overwrite=not table, output_format="delta" if table else None)
summary = predict_files(model, [sys.argv[2]], sys.argv[3], options)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(summary.rows, peak.split()[1])
"""
WIDTH = 20
# Allocators breathe by many tens of megabytes. The large inputs would take half as much again if they were held:
# 1,200,000 rows of 20 numbers are 192 MB as Arrow, 400,000 records of JSON 200 MB as Python objects.
LIMIT = 125 * 1024**2


def peak(package: Path, source: Path, target: Path, jobs: str = "1") -> tuple[int, int]:
    """Return the rows scored, and the peak of resident memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, package, source, target, jobs], capture_output=True, check=True
    )
    rows, kilobytes = map(int, done.stdout.split())
    return rows, kilobytes * 1024


def fill(path: Path, rows: int) -> Path:
    """Write a file of WIDTH columns without ever holding it."""
    batch = pa.table(
        {"x": pa.array(range(10_000), pa.float64())}
        | {f"c{i}": pa.array(range(10_000), pa.float64()) for i in range(WIDTH - 1)}
    )
    with path.open("wb") as file:
        if path.suffix == ".csv":
            import pyarrow.csv

            with pyarrow.csv.CSVWriter(file, batch.schema) as out:
                for _ in range(rows // len(batch)):
                    out.write_table(batch)
        elif path.suffix == ".jsonl":
            import orjson

            lines = b"".join(orjson.dumps(row) + b"\n" for row in batch.select(["x", "c0"]).to_pylist())
            for _ in range(rows // len(batch)):
                file.write(lines)
        else:
            opener: Any = pq.ParquetWriter if path.suffix == ".parquet" else pa.ipc.new_file
            with opener(file, batch.schema) as out:
                for _ in range(rows // len(batch)):
                    out.write_table(batch)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "large"),
    [
        ("jsonl", 400_000),
        pytest.param("csv", 1_200_000, marks=pytest.mark.long),
        pytest.param("arrow", 1_200_000, marks=pytest.mark.long),
    ],
)
def test_ten_times_the_rows_need_no_more_memory(package: Path, tmp_path: Path, suffix: str, large: int) -> None:
    peaks = []
    for name, rows in (("small", large // 10), ("large", large)):
        source = fill(tmp_path / f"{name}.{suffix}", rows)
        scored, used = peak(package, source, tmp_path / f"out.{suffix}")
        assert scored == rows
        peaks.append(used)
    assert peaks[1] - peaks[0] < LIMIT, [p // 1024**2 for p in peaks]


def fill_table(root: Path, rows: int, files: int) -> Path:
    """Write a Delta table of WIDTH columns, file after file."""
    part = rows // files
    columns = {f"c{i}": pa.array(range(part), pa.float64()) for i in range(WIDTH - 1)}
    table = pa.table({"x": pa.array(range(part), pa.float64())} | columns)
    for _ in range(files):
        write_deltalake(root, table, mode="append")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "target"), [pytest.param(1, "out.parquet", marks=pytest.mark.long), (12, "out-table")]
)
def test_a_table_of_ten_times_the_rows_needs_no_more_memory(
    package: Path, tmp_path: Path, files: int, target: str
) -> None:
    """Neither when its files and their row groups are large, nor when they are many and become one commit."""
    peaks = []
    for name, rows in (("small", 120_000), ("large", 1_200_000)):
        source = fill_table(tmp_path / name, rows, files)
        scored, used = peak(package, source, tmp_path / f"{name}-{target}")
        assert scored == rows
        peaks.append(used)
    assert peaks[1] - peaks[0] < LIMIT, [p // 1024**2 for p in peaks]


@pytest.mark.slow
@pytest.mark.long
def test_several_jobs_hold_no_more_than_their_batches(package: Path, tmp_path: Path) -> None:
    """Of Parquet, which one job reads in the same way."""
    peaks = []
    for name, rows in (("small", 120_000), ("large", 1_200_000)):
        source = fill(tmp_path / f"{name}.parquet", rows)
        scored, used = peak(package, source, tmp_path / f"{name}-out.parquet", "4")
        assert scored == rows
        peaks.append(used)
    assert peaks[1] - peaks[0] < LIMIT, [p // 1024**2 for p in peaks]
