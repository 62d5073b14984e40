"""Directories for the contract, as Spark writes them."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
import types
from pathlib import Path
from typing import Any

spec = importlib.util.spec_from_file_location("cases_spark_models", Path(__file__).with_name("spark.py"))
assert spec is not None and spec.loader is not None
spark: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(spark)


@functools.cache
def tree() -> types.SimpleNamespace:
    made = spark.tree()
    directory = Path(tempfile.mkdtemp(prefix="spark-")) / "tree"
    made.model.write().save(f"file://{directory}")
    fields = {**vars(made), "model": directory, "twins": (), "reproducible": True}
    return types.SimpleNamespace(**fields)


CASES = {"tree": tree}
