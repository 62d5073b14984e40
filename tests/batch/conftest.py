"""Small models and files for the batch tests."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deletion import vector

import modelpack
from modelpack.model import Model
from modelpack.signature import Column, Signature, Table

SIGNATURE = Signature(
    inputs=Table(
        columns=(
            Column(name="x", type="float64", nullable=True),
            Column(name="n", type="int64", nullable=True),
            Column(name="name", type="utf8", nullable=True),
        )
    ),
    outputs=Table(columns=(Column(name="score", type="float64", nullable=True), Column(name="label", type="utf8"))),
)


def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
    """Double x, and spell out the rest, so that every cell of a row shows in its answer."""
    missing = {name: [value is None or value != value for value in column] for name, column in columns.items()}
    cells = {name: [None if gone else value for gone, value in zip(missing[name], columns[name], strict=True)]
             for name in columns}  # fmt: skip
    return {
        "score": [None if x is None else 2 * float(x) for x in cells["x"]],
        "label": [
            f"{None if n is None else int(n)}|{name!r}" for n, name in zip(cells["n"], cells["name"], strict=True)
        ],
    }


class FakePredictor:
    """A function as a predictor."""

    form = "columns"

    def __init__(self, function: Callable[[Any, Mapping[str, Any]], Any]) -> None:
        self.predict = function


def fake_model(signature: Signature = SIGNATURE, function: Callable[[Any, Mapping[str, Any]], Any] = score) -> Model:
    """Return a model that was never in a package."""
    manifest = SimpleNamespace(signature=signature, name="fake", version="1")
    package = SimpleNamespace(manifest=manifest, digest="sha256:" + "0" * 64)
    return Model(package, FakePredictor(function), SimpleNamespace(name="fake", trust="code"))  # type: ignore[arg-type]


@pytest.fixture
def model() -> Model:
    """A model of three columns with missing values, that answers with two."""
    return fake_model()


@pytest.fixture
def rows() -> pa.Table:
    """Rows with everything that makes formats differ: missing, unicode, quotes, line ends, long numbers."""
    return pa.table(
        {
            "id": pa.array([2**53 + 1, 2, 3, 4, 5], pa.int64()),
            "x": pa.array([0.1, None, -1e300, 5e-324, float("inf")], pa.float64()),
            "n": pa.array([2**63 - 1, None, -(2**63), 0, 7], pa.int64()),
            "name": pa.array(["plain", None, "", 'q"uo,te\r\nd', "名前 ü \U0001f600"], pa.string()),
            "extra": pa.array(["a", "b", None, "c,d", "-"], pa.string()),
        }
    )


def text_of(value: Any) -> str | None:
    """Return a value as a CSV cell."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, dt.datetime | dt.date) else str(value)


def json_of(value: Any) -> Any:
    """Return a value as JSON."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime | dt.date | Decimal):
        return str(value.isoformat()) if not isinstance(value, Decimal) else str(value)
    return value


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as CSV: missing is empty, the empty string is in quotes."""

    def cell(value: Any) -> str:
        text = text_of(value)
        if text is None:
            return ""
        return '"' + text.replace('"', '""') + '"' if isinstance(value, str) else text

    lines = [",".join(cell(name) for name in table.column_names)]
    lines += [",".join(cell(value) for value in row.values()) for row in table.to_pylist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def write(table: pa.Table, path: Path) -> Path:
    """Write a table by the suffix of the path, with nothing of ours."""
    match path.suffix:
        case ".csv":
            write_csv(table, path)
        case ".jsonl" | ".ndjson":
            # JSON has no infinity: such rows are the caller's affair.
            lines = [json.dumps({k: json_of(v) for k, v in row.items()}, allow_nan=True) for row in table.to_pylist()]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        case ".parquet":
            pq.write_table(table, path, row_group_size=2)
        case ".arrow" | ".feather":
            with pa.ipc.new_file(path, table.schema) as out:
                out.write_table(table, max_chunksize=2)
        case ".arrows":
            with pa.ipc.new_stream(path, table.schema) as out:
                out.write_table(table, max_chunksize=2)
        case other:
            raise AssertionError(other)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an output file, with nothing of ours; CSV cells as text."""
    match path.suffix:
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        case ".jsonl" | ".ndjson":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        case ".parquet":
            return pq.read_table(path).to_pylist()
        case ".arrow" | ".feather":
            return pa.ipc.open_file(path.read_bytes()).read_all().to_pylist()
        case ".arrows":
            return pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()
        case other:
            raise AssertionError(other)


# Test modules cannot import this file, so the helpers come as fixtures.
@pytest.fixture(name="write")
def _write() -> Callable[[pa.Table, Path], Path]:
    return write


@pytest.fixture(name="read")
def _read() -> Callable[[Path], list[dict[str, Any]]]:
    return read


def add_vector_to(root: Path, dead: list[int]) -> None:
    """Commit a deletion vector, inline, for the only file of a table, as its protocol describes it."""
    first = (root / "_delta_log" / f"{0:020d}.json").read_text().splitlines()
    add = next(action["add"] for action in map(json.loads, first) if "add" in action)
    remove = {"path": add["path"], "dataChange": True, "deletionTimestamp": 0, "extendedFileMetadata": True,
              "partitionValues": {}, "size": add["size"]}  # fmt: skip
    features = {"minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}  # fmt: skip
    actions = [{"protocol": features}, {"remove": remove}, {"add": {**add, "deletionVector": vector(dead)}}]
    commit = root / "_delta_log" / f"{1:020d}.json"
    commit.write_text("\n".join(map(json.dumps, actions)) + "\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three files of two rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(3):
        ids = [2 * number, 2 * number + 1]
        table = pa.table({"id": ids, "x": [float(i) for i in ids], "n": ids, "name": [f"r{i}" for i in ids]})
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


@pytest.fixture
def add_vector() -> Callable[[Path, list[int]], None]:
    """Mark rows of the only file of a Delta table as deleted."""
    return add_vector_to


@pytest.fixture
def make_model() -> Callable[..., Model]:
    """Make a model of a signature and a function."""
    return fake_model


MODEL_SOURCE = '''
"""A model in plain Python: loads fast, so that processes that are killed reach their work."""

import os
import signal
import time


def predict(data, factor: float = 2.0, wait: float = 0.0, fail: bool = False, kill: bool = False):
    time.sleep(wait)
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if fail:
        raise ZeroDivisionError("as asked")
    return {"score": [None if x is None or x != x else factor * x for x in data["x"]]}
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of a Python function with params that make it slow or fail."""
    source = tmp_path / "doubler.py"
    source.write_text(MODEL_SOURCE)
    spec = importlib.util.spec_from_file_location("doubler", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    signature = Signature(
        inputs=Table(columns=(Column(name="x", type="float64", nullable=True),)),
        outputs=Table(columns=(Column(name="score", type="float64", nullable=True),)),
    )
    target = tmp_path / "pkg"
    modelpack.save(
        module.predict, target, signature=signature, code=[source], options={"form": "columns"}, name="doubler"
    )
    return target


@pytest.fixture
def command() -> list[str]:
    """The start of a real `modelpack` command line, with this very Python."""
    return [sys.executable, "-m", "modelpack"]


@pytest.fixture
def run(warm: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run `modelpack predict` in a real process, in the test's own directory."""

    def call(*words: str | Path, stdin: bytes = b"", **more: Any) -> subprocess.CompletedProcess[bytes]:
        line = [str(warm), "predict", *map(str, words)]
        return subprocess.run(line, input=stdin, capture_output=True, cwd=tmp_path, timeout=60, **more)

    return call
