"""Options of the flavors for Spark ML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelpack.audits.spark_ml import Stage
from modelpack.errors import FlavorError, UsageError
from modelpack.flavor import only_options
from modelpack_flavors._spark.columns import answers

__all__ = ["check", "columns", "config"]


def check(flavor: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse options that the flavor does not have.

    Raises:
        UsageError: ``option-unknown`` or ``option-invalid``.
    """
    only_options(flavor, given, known)
    if "columns" in given and not _names(given["columns"]):
        raise UsageError("the columns are not a list of names", code="option-invalid", path="options.columns")
    if not isinstance(given.get("twin", True), bool):
        raise UsageError("the twin is neither True nor False", code="option-invalid", path="options.twin")


def _names(value: object) -> bool:
    texts = isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value)
    return bool(texts and value and len(set(value)) == len(value))  # type: ignore[arg-type, call-overload]


def columns(model: Stage, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of the answer: those that were asked for, or the model's own.

    Raises:
        UsageError: nothing says which they are (``option-invalid``).
    """
    wanted = tuple(given.get("columns") or answers(model))
    if not wanted:
        raise UsageError(
            "the model makes no column of its own",
            code="option-invalid",
            path="options.columns",
            hint="Name the columns of the answer: options={'columns': [...]}.",
        )
    return wanted


def config(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of the answer from an entry's config.

    Raises:
        FlavorError: ``config-invalid``.
    """
    if set(given) != {"columns"} or not _names(given["columns"]):
        raise FlavorError("the config does not name the columns of the answer", code="config-invalid", path="config")
    return tuple(given["columns"])
