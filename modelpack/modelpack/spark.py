"""Models and Delta tables in Spark jobs: `score` for DataFrames, of batches and streams; `register` (docs/spark.md)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelpack import optional

if TYPE_CHECKING:
    from modelpack.package import Package

__all__ = ["register", "score"]


def score(
    df: Any,
    package: str | os.PathLike[str] | Package,
    *,
    keep: Sequence[str] | None = None,
    params: Mapping[str, Any] | None = None,
    allow_code: str | None = None,
    flavor: str | None = None,
) -> Any:
    """Return the DataFrame of the columns ``keep`` (None: all) and the model's answers, typed by its signature.

    The DataFrame may be one of Structured Streaming. The package is loaded here, once, under the rules of
    :func:`modelpack.load`, and sent to each executor once; each Python worker loads it once, from bytes that are
    compared with the digest of what was loaded here.

    Raises:
        UsageError: there is no pyspark (``extra-missing``), or the answers' columns are not known beforehand.
        InputError: a column is missing, or params do not fit. Rows that do not fit fail the query.
        OutputError: an answer of a type that Spark does not have (``type-not-spark``).
        TrustError, IntegrityError, EnvironmentMismatch, FlavorError: as :func:`modelpack.load`.
    """
    optional.require("pyspark", what="Scoring with Spark", extra="spark")
    scored = importlib.import_module("modelpack_server.spark.frames").score
    return scored(df, package, keep=keep, params=params, allow_code=allow_code, flavor=flavor)


def register(spark: Any) -> None:
    """Let a session of Spark read and write Delta tables as ``format("modelpack_delta")``, without Delta's jars.

    Raises:
        UsageError: there is no pyspark, or no deltalake (``extra-missing``).
    """
    optional.require("pyspark", what="Reading tables with Spark", extra="spark")
    optional.require("deltalake", what="Reading Delta tables", extra="delta")
    spark.dataSource.register(importlib.import_module("modelpack_server.spark.tables").DeltaSource)
