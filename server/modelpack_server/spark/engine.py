"""Spark as the engine of batches and streams: its executors make the files, this process plans and commits."""

from __future__ import annotations

import functools
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from modelpack import optional
from modelpack.errors import ModelpackError, SaveError, UsageError
from modelpack.model import Model
from modelpack_server.batch.options import Options
from modelpack_server.batch.plan import Plan
from modelpack_server.remote import is_remote
from modelpack_server.spark.shipping import Shipped, check_model, ship

__all__ = ["SparkEngine", "check", "check_tables", "started"]

T = TypeVar("T")
R = TypeVar("R")

# Spark puts jobs into a queue; so many of them keep it from running dry.
_JOBS = 64
_WHAT = "The engine spark"


class SparkEngine:
    """Runs work in the Python workers of an application's executors, one Spark job for each piece of it.

    A job that is lost with its executor is run again by Spark, elsewhere.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def each(
        self, model: Model, work: Callable[[Model, T], R], items: Sequence[T], held: Sequence[int] = ()
    ) -> Generator[tuple[T, R]]:
        """Yield each item with ``work(model, item)``, as they get done; the first error ends all of it.

        Locks that are ``held`` here, executors cannot hold.
        """
        run = functools.partial(_run, ship(self._context, model), Path.cwd(), work)
        tag = f"modelpack-{secrets.token_hex(6)}"
        with ThreadPoolExecutor(max(1, min(_JOBS, len(items)))) as pool:
            waiting: dict[Future[R], T] = {pool.submit(self._job, run, item, tag): item for item in items}
            try:
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield waiting.pop(future), future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                # A job may be about to begin.
                while not all(future.done() for future in waiting):
                    self._context.cancelJobsWithTag(tag)
                    wait(waiting, timeout=0.2)
                raise

    def _job(self, run: Callable[[T], Any], item: T, tag: str) -> Any:
        spark = optional.require("pyspark.errors", what=_WHAT, extra="spark")
        self._context.addJobTag(tag)
        try:
            found = self._context.parallelize([item], 1).map(run).collect()[0]
        except (spark.PySparkException, optional.require("py4j.protocol", what=_WHAT).Py4JJavaError) as exc:
            raise SaveError(f"Spark could not do it: {_reason(str(exc))}", code="spark-failed") from exc
        if isinstance(found, ModelpackError):
            raise found
        return found


def _reason(text: str) -> str:
    """Return why Spark gave up: what Python said last in a worker, else how Spark itself begins."""
    _, begun, trace = re.split(r"\n\s+at ", text, maxsplit=1)[0].rpartition("Traceback (most recent call last):\n")
    said = [line for line in trace.splitlines() if not line.startswith(" ")] if begun else [text]
    return " ".join(" ".join(said).split())[:500]


def _run(shipped: Shipped, folder: Path, work: Callable[[Model, T], R], item: T) -> R | ModelpackError:
    """Do a piece of work, in a Python worker; what is refused is returned, as it would not be better elsewhere.

    ``folder`` is where the command was given: paths in what it plans are relative to it, on every machine.
    """
    try:
        model = shipped.model()
        with _inside(folder):
            return work(model, item)
    except ModelpackError as exc:
        return exc


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in ``folder``, where this machine has it; the worker may have begun in a directory that is gone by now."""
    try:
        before = Path.cwd()
    except FileNotFoundError:
        before = None
    if folder.is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        if before is not None:
            os.chdir(before)


def check(plan: Plan, options: Options) -> None:
    """Refuse what executors cannot do (``engine-unsupported``), before anything is loaded."""
    if plan.remote is not None:
        raise _unsupported("does not write to URLs", "Write to a place that all executors see as a path.")
    if plan.path is None or not (plan.folder or plan.table):
        raise _unsupported("writes a directory or a Delta table", "End OUT with '/', or pass --output-format delta.")
    if any(source.path is None for source in plan.sources):
        raise _unsupported("does not read standard input or URLs", "Give files at paths that all executors see.")


def check_tables(tables: Sequence[str]) -> None:
    """Refuse tables behind URLs (``engine-unsupported``): executors do not know who we are there."""
    if any(is_remote(table) for table in tables):
        raise _unsupported("does not follow tables behind URLs", "Leave out --engine, or give paths that all see.")


def _unsupported(what: str, hint: str) -> UsageError:
    return UsageError(f"the engine spark {what}", code="engine-unsupported", path="--engine", hint=hint)


@contextmanager
def started(master: str | None, model: Model) -> Iterator[SparkEngine]:
    """Start Spark for one run, and stop it behind it; ``master`` is as in spark-submit, None as Spark is configured.

    Raises:
        UsageError: executors cannot load the model (``model-driver-only``).
        UsageError: there is no pyspark (``extra-missing``), or Spark does not start (``spark-unavailable``).
    """
    check_model(model)
    sql = optional.require("pyspark.sql", what=_WHAT, extra="spark")
    # Workers of Spark are to be the Python that runs here.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.appName("modelpack")
    for key, value in {"spark.log.level": "ERROR", "spark.ui.showConsoleProgress": "false"}.items():
        builder = builder.config(key, value)
    if master is not None:
        builder = builder.master(master)
    with _signals():
        try:
            session = builder.getOrCreate()
        except Exception as exc:
            raise UsageError(
                f"Spark does not start: {' '.join(str(exc).split())[:300]}",
                code="spark-unavailable",
                hint="It needs Java 17 or 21, on PATH or in JAVA_HOME, and a master that is there (--master).",
            ) from exc
    try:
        yield SparkEngine(session.sparkContext)
    finally:
        session.stop()


@contextmanager
def _signals() -> Iterator[None]:
    """Keep our own answer to Ctrl-C: a SparkContext sets another one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
