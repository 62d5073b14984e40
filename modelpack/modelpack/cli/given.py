"""What commands that score rows are given in common: columns to keep, and params of the model."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Any

from modelpack.errors import UsageError

__all__ = ["given_keep", "given_params"]


def given_keep(text: str) -> tuple[str, ...] | None:
    """Return the columns that ``--keep`` names; None for all."""
    if text == "all":
        return None
    return () if text == "none" else tuple(next(csv.reader([text])))


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
