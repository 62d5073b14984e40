"""Directories for the contract, as Spark writes them."""

from __future__ import annotations

import functools
import importlib.util
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

# The contract has them, if it runs in this process: their models are fitted once.
if "cases_spark" not in sys.modules:
    spec = importlib.util.spec_from_file_location("cases_spark", Path(__file__).with_name("spark.py"))
    assert spec is not None and spec.loader is not None
    sys.modules["cases_spark"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["cases_spark"])
spark: Any = sys.modules["cases_spark"]


@functools.cache
def tree() -> types.SimpleNamespace:
    made = spark.tree()
    directory = Path(tempfile.mkdtemp(prefix="spark-")) / "tree"
    made.model.write().save(f"file://{directory}")
    fields = {**vars(made), "model": directory, "twins": (), "reproducible": True}
    return types.SimpleNamespace(**fields)


CASES = {"tree": tree}
