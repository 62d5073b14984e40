"""One Spark application with two executors for all tests, and packages in plain Python that load fast."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import modelpack
from modelpack.signature import Column, Signature, Table

TYPED = '''
"""Says back what it was given, in the types of its signature."""

import os
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

with open(os.environ["LOADED"], "a") if "LOADED" in os.environ else open(os.devnull, "a") as log:
    log.write(f"{os.getpid()}\\n")


def predict(data, factor: float = 2.0):
    missing = lambda value: value is None or value != value
    return {
        "score": [None if missing(x) else factor * float(x) for x in data["x"]],
        "whole": [None if missing(n) else int(n) for n in data["n"]],
        "id": [f"{text!r}" for text in data["text"]],
        "when": [None if missing(w) else EPOCH + timedelta(microseconds=int(w.astype("M8[us]").astype(int)))
                 for w in data["when"]],
        "many": [None if missing(x) else [float(x), None] for x in data["x"]],
        "yes": [not missing(n) for n in data["n"]],
    }
'''
SLOW = '''
"""Doubles x, and takes its time."""

import time


def predict(data):
    time.sleep(0.4)
    return {"score": [None if x is None or x != x else 2.0 * x for x in data["x"]]}
'''
COLUMNS = (Column(name="x", type="float64", nullable=True),)
DOUBLED = Signature(
    inputs=Table(columns=COLUMNS), outputs=Table(columns=(Column(name="score", type="float64", nullable=True),))
)


def saved(folder: Path, text: str, signature: Signature | None) -> Path:
    """Save a package of the Python function in ``text``."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "answering.py"
    source.write_text(text)
    spec = importlib.util.spec_from_file_location("answering", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = {"form": "columns"}
    modelpack.save(module.predict, folder / "pkg", signature=signature, code=[source], options=options, name="answers")
    return folder / "pkg"


@pytest.fixture
def save() -> Callable[[Path, str, Signature | None], Path]:
    """How to save a package."""
    return saved


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    """A package whose answers have many types."""
    from modelpack.dtypes import ListType, TimestampType
    from modelpack.signature import Param

    when = TimestampType(unit="us", tz="UTC")
    inputs = (
        *COLUMNS,
        Column(name="n", type="int32", nullable=True),
        Column(name="text", type="utf8", nullable=True),
        Column(name="when", type=when, nullable=True),
    )
    outputs = (
        Column(name="score", type="float64", nullable=True),
        Column(name="whole", type="uint32", nullable=True),
        Column(name="id", type="utf8"),
        Column(name="when", type=when, nullable=True),
        Column(name="many", type=ListType(items={"type": "float64", "nullable": True}), nullable=True),
        Column(name="yes", type="bool"),
    )
    params = (Param(name="factor", type="float64", default=2.0),)
    return saved(
        tmp_path, TYPED, Signature(inputs=Table(columns=inputs), outputs=Table(columns=outputs), params=params)
    )


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A package that doubles x, slowly enough to be killed."""
    return saved(tmp_path, SLOW, DOUBLED)


@pytest.fixture(scope="package")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages note the processes in which they are loaded."""
    return tmp_path_factory.mktemp("loaded") / "pids"


@pytest.fixture(scope="package")
def spark(loaded: Path) -> Iterator[Any]:
    """A session with two executors, each a JVM of its own."""
    from pyspark.sql import SparkSession

    from modelpack_flavors._spark import session

    os.environ["PYSPARK_PYTHON"] = sys.executable
    before = signal.getsignal(signal.SIGINT)
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("tests")
    config = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.executorEnv.LOADED": str(loaded),
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "America/New_York",
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    for key, value in config.items():
        builder = builder.config(key, value)
    # A model of Spark ML may have a session in this process already, or want one of its own later.
    if (active := SparkSession.getActiveSession()) is not None:
        active.stop()
    session._started.cache_clear()
    found = builder.getOrCreate()
    signal.signal(signal.SIGINT, before)
    yield found
    found.stop()


def executors(spark: Any) -> list[int]:
    """Return the processes of this application's executors."""
    application = spark.sparkContext.applicationId
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"org.apache.spark.executor.CoarseGrainedExecutorBackend" in words and application.encode() in words:
            found.append(int(entry.name))
    return found


@pytest.fixture
def kill_one(spark: Any) -> Callable[[], int]:
    """Kill one executor, once there are two, and return which it was."""

    def kill() -> int:
        deadline = time.monotonic() + 60
        while len(found := executors(spark)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(found[0], signal.SIGKILL)
        return found[0]

    return kill
