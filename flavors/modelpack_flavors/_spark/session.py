"""The one local SparkSession of a process: started when the first model needs it, or the one that is there."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from modelpack import optional
from modelpack.errors import UsageError

__all__ = ["session"]

# Made for few rows at once: compiling a plan for each call costs more than it saves.
_CONFIG = {
    "spark.default.parallelism": "1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.shuffle.partitions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_lock = threading.Lock()


def session() -> Any:
    """Return the session of this thread, or that of another one, or start a local one that this machine alone reaches.

    A session that is there stays as it is configured.

    Raises:
        UsageError: there is no pyspark (``extra-missing``), or no Java (``java-missing``).
    """
    sql = optional.require("pyspark.sql", what="The flavor spark", extra="spark")
    with _lock:
        for found in (sql.SparkSession.getActiveSession(), sql.SparkSession._instantiatedSession):
            if found is not None and found._sc._jsc is not None:  # else it was stopped
                return found
        context = optional.require("pyspark", what="The flavor spark", extra="spark").SparkContext._active_spark_context
        return _started() if context is None else sql.SparkSession(context)


def _started() -> Any:
    from pyspark.sql import SparkSession

    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=str(Path(home, "bin")) if home else None) is None:
        raise UsageError(
            "Spark needs Java, and there is none on PATH or in JAVA_HOME",
            code="java-missing",
            hint="Install a Java runtime, version 17 or 21; or load the package with the flavor spark_numpy, "
            "if it has that.",
        )
    # Workers of Spark are to be the Python that runs here.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master("local[*]").appName("modelpack")
    for key, value in _CONFIG.items():
        builder = builder.config(key, value)
    found = builder.getOrCreate()
    atexit.register(found.stop)
    return found
