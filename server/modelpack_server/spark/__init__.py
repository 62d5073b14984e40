"""Apache Spark: DataFrames scored where they are, and batches and streams carried out by its executors."""

from __future__ import annotations

from modelpack_server.spark.engine import SparkEngine, check, check_tables, started
from modelpack_server.spark.frames import score

__all__ = ["SparkEngine", "check", "check_tables", "score", "started"]
