"""Tables, a package and processes for the tests of streams."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from s3_server import OPTIONS

import modelpack
from modelpack.model import Model
from modelpack.signature import Column, Signature, Table
from modelpack_server import stream
from modelpack_server.stream import Options, Summary

MODEL_SOURCE = '''
"""A model in plain Python: it loads fast."""

import time


def predict(data, factor: float = 2.0, wait: float = 0.0):
    time.sleep(wait)
    return {"score": [None if x is None or x != x else factor * x for x in data["x"]]}
'''
SIGNATURE = Signature(
    inputs=Table(columns=(Column(name="x", type="float64"),)),
    outputs=Table(columns=(Column(name="score", type="float64", nullable=True),)),
)
COMMAND = [sys.executable, "-m", "modelpack", "stream"]


class Once:
    """A waiter that never waits, and stops after so many idle looks."""

    def __init__(self, *between: Callable[[], Any], idle: int = 1) -> None:
        self.asked = False
        self._between = list(between)
        self._idle = idle

    def wait(self, seconds: float | None, file: int | None = None) -> None:
        if self._between:
            self._between.pop(0)()
            return
        self._idle -= 1
        self.asked = self._idle <= 0


def make_package(folder: Path, signature: Signature | None = SIGNATURE, text: str = MODEL_SOURCE) -> Path:
    """Save a package of a Python function."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "doubler.py"
    source.write_text(text)
    spec = importlib.util.spec_from_file_location("doubler", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = {"form": "columns"}
    modelpack.save(module.predict, folder / "pkg", signature=signature, code=[source], options=options, name="doubler")
    return folder / "pkg"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package that doubles the column x."""
    return make_package(tmp_path)


@pytest.fixture
def model(package: Path) -> Model:
    """The model of :func:`package`."""
    return modelpack.load(package)


class Tables:
    """A source, an output and a table of rejects, and what is in them as delta-rs reads it."""

    options: Mapping[str, str] | None = None
    source: Any
    output: Any
    rejects: Any

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.output, self.rejects = folder / "source", folder / "output", folder / "rejects"
        self._next = 0

    def add(self, rows: int = 10, *, x: Sequence[Any] | None = None, **columns: Any) -> None:
        """Append rows with fresh ids to the source."""
        ids = list(range(self._next, self._next + rows))
        self._next += rows
        values = [i / 4 for i in ids] if x is None else x
        table = pa.table({"id": ids, "x": pa.array(values, pa.float64()), **columns})
        merge: Any = "merge" if columns else None
        write_deltalake(self.source, table, mode="append", schema_mode=merge, storage_options=self.options)

    def table(self, root: Any) -> DeltaTable:
        """Open one of the tables."""
        return DeltaTable(root, storage_options=self.options)

    def scored(self) -> list[dict[str, Any]]:
        """Return the rows of the output by id."""
        rows: list[dict[str, Any]] = self.table(self.output).to_pyarrow_table().to_pylist()
        return sorted(rows, key=lambda row: str(row.get("id")).zfill(12))

    def ids(self) -> list[int]:
        """Return the ids in the output, sorted."""
        return [row["id"] for row in self.scored()]

    def check(self, rows: int) -> None:
        """Compare the output with what it must be: each row once, doubled."""
        assert self.scored() == [{"id": i, "x": i / 4, "score": i / 2} for i in range(rows)]

    def run(self, model: Model, *between: Callable[[], Any], idle: int = 1, **options: Any) -> Summary:
        """Stream in this process: catch up, then call each of ``between`` and catch up again."""
        said: list[str] = options.pop("said", [])
        chosen = Options(interval=0.001, say=said.append, **options)
        return stream.run(model, self.source, self.output, chosen, Once(*between, idle=idle))


class CloudTables(Tables):
    """Tables behind URLs, two of them or all."""

    options = OPTIONS

    def __init__(self, folder: Path, bucket: str) -> None:
        super().__init__(folder)
        url = f"s3://{bucket}/lake"
        self.source, self.output, self.rejects = f"{url}/source", f"{url}/output", f"{url}/rejects"


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """A place for tables."""
    return Tables(tmp_path)


@pytest.fixture
def cloud_tables(tmp_path: Path, bucket: str) -> CloudTables:
    """A place for tables in S3."""
    return CloudTables(tmp_path, bucket)


@pytest.fixture
def start(tables: Tables, package: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `modelpack stream` in a process of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def call(*words: str, **more: Any) -> subprocess.Popen[bytes]:
        line = [*COMMAND, str(package), "--from", str(tables.source), "--to", str(tables.output), *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        started.append(subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers every time."""
    return np.random.default_rng(5)


# Test modules cannot import this file, so the helpers come as fixtures.
@pytest.fixture(name="make_package")
def _make_package() -> Callable[..., Path]:
    return make_package


@pytest.fixture
def command(warm: Path) -> list[str]:
    """The start of a `modelpack stream` command line, in a process that starts warm."""
    return [str(warm), "stream"]
