"""One Spark application with two executors for all tests, and packages in plain Python that load fast."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
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
def quick(tmp_path: Path) -> Path:
    """A package that doubles x."""
    return saved(tmp_path, SLOW.replace("time.sleep(0.4)", ""), DOUBLED)


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A package that doubles x, slowly enough to be killed."""
    return saved(tmp_path, SLOW, DOUBLED)


@pytest.fixture(scope="package")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages note the processes in which they are loaded."""
    return tmp_path_factory.mktemp("loaded") / "pids"


@pytest.fixture(scope="package")
def spark(loaded: Path, start_spark: Callable[..., AbstractContextManager[Any]]) -> Iterator[Any]:
    """A session with two executors, each a JVM of its own."""
    with start_spark("local-cluster[2,1,1024]", **{"spark.executorEnv.LOADED": str(loaded)}) as found:
        yield found


@pytest.fixture
def engine(spark: Any) -> Any:
    """The engine on the session that all tests share."""
    from modelpack_server.spark import SparkEngine

    return SparkEngine(spark.sparkContext)


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
    """Kill one executor that can work, and return which it was; 0 if there is none of them."""

    def kill() -> int:
        found = executors(spark)
        if found:
            os.kill(found[0], signal.SIGKILL)
        return found[0] if found else 0

    return kill


class Killing:
    """Calls ``kill`` from a thread, while there are files that match a pattern, until it has killed."""

    def __init__(self, kill: Callable[[], Any], folder: Path, pattern: str) -> None:
        self.killed = False
        self._kill, self._folder, self._pattern = kill, folder, pattern
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            if self._folder.exists() and any(self._folder.glob(self._pattern)) and self._kill():
                self.killed = True
                return


class Once:
    """A waiter that stops when there is nothing to do."""

    asked = False

    def wait(self, seconds: float | None, file: int | None = None) -> None:
        self.asked = True


# Test modules cannot import this file, so these come as fixtures.
@pytest.fixture
def killing() -> type[Killing]:
    """What kills as soon as there are files."""
    return Killing


@pytest.fixture
def once() -> type[Once]:
    """What lets a stream catch up and stop."""
    return Once


@pytest.fixture
def command() -> list[str]:
    """The start of a real command line, with this very Python."""
    return [sys.executable, "-m", "modelpack"]
