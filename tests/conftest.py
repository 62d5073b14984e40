"""Shared by all tests: nobody's real trust store is touched, processes can be interrupted, and Spark starts."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import s3_server as s3
import warm as warm_start

import modelpack

# A shell that starts the suite in the background ignores SIGINT, and nohup SIGHUP, and every process started here would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# These JVMs live too short for the second compiler, and for threads that collect garbage.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
# Threads of OpenMP and OpenBLAS that have nothing to do sleep: spinning, they take the processor from those that have.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


# What has a session of Spark in its own process. A JVM takes seconds to start, and many more until it is warm; but one
# process for all of it would be at work when the others have nothing to do any more.
SPARK = ("flavors/test_spark", "flavors/test_mlflow_spark", "tables/test_flights")
ENGINE = "spark_engine/"


def group_of(nodeid: str) -> str:
    """Return what a test has to stay with in one process: the others of its file, or of those that use Spark alike."""
    path, _, name = nodeid.removeprefix("tests/").partition("::")
    if path.startswith(ENGINE):
        return ENGINE
    uses_spark = path.startswith(SPARK) or "[spark" in name or name.endswith("[docs/spark.md]")
    return "spark" if uses_spark else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: group_of(item.nodeid) not in ("spark", ENGINE))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``, keep more together than a file."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Grouped(config, log)


@pytest.fixture(scope="session")
def trust_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths of trust stores that are not there yet."""
    root = tmp_path_factory.mktemp("trust")
    return (root / str(number) / "store" for number in itertools.count())


@pytest.fixture(autouse=True)
def trust_store(trust_stores: Iterator[Path]) -> Iterator[Path]:
    """Give every test a trust store of its own, inherited by the processes it starts."""
    store = next(trust_stores)
    # Not by the fixture of that name: what a test patches must be whole again before its directories are removed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELPACK_TRUST_STORE", str(store))
        yield store


@pytest.fixture(scope="session")
def warm() -> Iterator[Path]:
    """The program `modelpack` as tests/helpers/warm.py starts it: without the seconds that imports take."""
    real = Path(sys.executable).with_name("modelpack")
    if "site-packages" in modelpack.__file__:
        yield real  # that of an installed wheel is to be tried itself
        return
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        path, program = f"{folder}/socket", Path(folder, "modelpack")
        line = [sys.executable, warm_start.__file__, path]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:  # ends with its input
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            program.write_text(warm_start.CLIENT.format(python=sys.executable, real=str(real), path=path))
            program.chmod(0o755)
            yield program


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """A server of S3."""
    with s3.started(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(scope="module")
def cloud(s3_server: s3.Server) -> Iterator[Any]:
    """A file system of S3, set up by the environment alone, which the processes started here inherit."""
    import fsspec

    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield fsspec.filesystem("s3")
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def bucket(cloud: Any) -> str:
    """The name of an empty bucket."""
    name = f"b{uuid.uuid4().hex[:12]}"
    cloud.mkdir(name)
    return name


@contextmanager
def _spark(master: str, **config: str) -> Iterator[Any]:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    before = signal.getsignal(signal.SIGINT)
    builder = SparkSession.builder.master(master).appName("tests")
    fixed = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "America/New_York",
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    for key, value in {**fixed, **config}.items():
        builder = builder.config(key, value)
    # A model of Spark ML may have a session in this process already, or want one of its own later.
    if (active := SparkSession.getActiveSession()) is not None:
        active.stop()
    found = builder.getOrCreate()
    signal.signal(signal.SIGINT, before)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def start_spark() -> Callable[..., AbstractContextManager[Any]]:
    """Start a session of Spark for a master with a configuration, the only one in this process as long as it is on."""
    return _spark
