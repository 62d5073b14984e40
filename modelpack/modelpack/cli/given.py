"""What commands that score rows are given in common: columns to keep, params of the model, and the engine."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from modelpack import optional
from modelpack.cli import runtime
from modelpack.errors import UsageError

__all__ = ["given_engine", "given_keep", "given_names", "given_params"]


class _Local:
    """Rows are scored in this process."""

    def check(self, plan: Any, options: Any) -> None:
        """Nothing is refused."""

    def check_tables(self, tables: Sequence[str]) -> None:
        """Nothing is refused."""

    def started(self, model: Any) -> AbstractContextManager[None]:
        """There is nothing to start."""
        return nullcontext()


class _Spark:
    """Rows are scored by Spark."""

    def __init__(self, master: str | None) -> None:
        optional.require("pyspark", what="--engine spark", extra="spark")
        self._master = master

    def check(self, plan: Any, options: Any) -> None:
        """Refuse what Spark's executors cannot make."""
        runtime("spark").check(plan, options)

    def check_tables(self, tables: Sequence[str]) -> None:
        """Refuse tables that Spark's executors cannot reach."""
        runtime("spark").check_tables(tables)

    def started(self, model: Any) -> AbstractContextManager[Any]:
        """Start Spark, unless its executors cannot load the model."""
        found: AbstractContextManager[Any] = runtime("spark").started(self._master, model)
        return found


def given_engine(name: str, master: str | None) -> _Local | _Spark:
    """Return the engine that ``--engine`` and ``--master`` name.

    Raises:
        UsageError: a master without Spark (``option-alone``), or no pyspark (``extra-missing``).
    """
    if name == "spark":
        return _Spark(master)
    if master is not None:
        raise UsageError("--master needs --engine spark", code="option-alone", path="--master")
    return _Local()


def given_keep(text: str) -> tuple[str, ...] | None:
    """Return the columns that ``--keep`` names; None for all."""
    if text == "all":
        return None
    return () if text == "none" else given_names(text)


def given_names(text: str) -> tuple[str, ...]:
    """Return names with commas between them; one that has a comma itself stands in quotes."""
    return tuple(next(csv.reader([text])))


def given_params(text: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the params that ``--params`` and ``--param`` give.

    Raises:
        UsageError: they cannot be read (``params-invalid``).
    """
    try:
        values = json.loads(text) if text is not None else {}
    except ValueError as exc:
        raise UsageError("--params is not JSON", code="params-invalid", path="--params") from exc
    if not isinstance(values, dict):
        raise UsageError("--params is not a JSON object", code="params-invalid", path="--params")
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"{pair!r} is not NAME=VALUE", code="params-invalid", path="--param")
        values[name] = _value(value)
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
