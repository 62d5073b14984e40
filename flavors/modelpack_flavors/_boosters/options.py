"""Options and params that both boosters have: which method answers, and how many threads work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from modelpack.errors import PackageError, UsageError
from modelpack.flavor import only_options
from modelpack.signature import Constraints, Param

__all__ = ["invalid", "method_and_threads", "params", "stored"]

MAX_THREADS = 4096


def method_and_threads(
    flavor: str, options: Mapping[str, Any], known: Sequence[str], methods: Sequence[str]
) -> tuple[str, int | None]:
    """Return the options ``method`` (by default the first) and ``threads`` (None: the library's own number).

    Raises:
        UsageError: an option is unknown or has a value it does not take (``option-unknown``, ``option-invalid``).
    """
    only_options(flavor, options, known)
    method, threads = options.get("method", methods[0]), options.get("threads")
    if method not in methods:
        raise UsageError(
            "the model has no method of that name",
            code="option-invalid",
            path="options.method",
            hint=f"It has: {', '.join(methods)}.",
        )
    if threads is not None and not _is_threads(threads):
        raise UsageError("threads is not a number from 1 on", code="option-invalid", path="options.threads")
    return method, threads


def _is_threads(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_THREADS


def params(method: str, methods: Sequence[str]) -> list[Param]:
    """Return the param that chooses among the methods."""
    return [
        Param(
            name="method",
            type="utf8",
            default=method,
            constraints=Constraints(enum=tuple(methods)),
            changes_outputs=True,
            description="What the model answers with.",
        )
    ]


def stored(
    config: Mapping[str, Any], known: Sequence[str], methods: Sequence[str], entry: str | None
) -> tuple[str, int | None]:
    """Return method and number of threads from the config of a package, which may say anything.

    Raises:
        PackageError: it is not a config of ours (``payload-invalid``).
    """
    method, threads = config.get("method"), config.get("threads")
    if set(config) - set(known) or method not in methods or not (threads is None or _is_threads(threads)):
        invalid("the config is none that this flavor writes", entry)
    return str(method), threads


def invalid(message: str, entry: str | None) -> NoReturn:
    """Raise the error for a payload that is not what its format says."""
    raise PackageError(message, code="payload-invalid", path=entry or "")
