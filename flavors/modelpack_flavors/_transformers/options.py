"""The options of the transformers flavor when it saves, and its config when it loads: both checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelpack.errors import FlavorError, UsageError
from modelpack.flavor import only_options
from modelpack_flavors._torch.options import is_device

__all__ = ["POOLINGS", "TASKS", "check", "configured"]

TASKS = (
    "feature-extraction",
    "fill-mask",
    "text-classification",
    "text-generation",
    "token-classification",
    "zero-shot-classification",
)
POOLINGS = ("mean", "first", "none")
_MAX_THREADS = 1024
_MAX_BATCH = 65536


def _is_template(value: Any) -> bool:
    """Say whether a text has the one place for a label; anything else in braces would be looked up in the label."""
    return isinstance(value, str) and value.count("{}") == 1 and value.count("{") == value.count("}") == 1


def _are_labels(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(one, str) and one for one in value)


_Check = Callable[[Any], bool]
# Option -> (what it must be, in words; whether a value is that).
_CHECKS: Mapping[str, tuple[str, _Check]] = {
    "batch_size": ("a number of texts", lambda value: type(value) is int and 1 <= value <= _MAX_BATCH),
    "candidate_labels": ("a list of labels", _are_labels),
    "device": ("auto, cpu, cuda, mps or xpu, with a number or without", is_device),
    "hypothesis_template": ("a text with {} in one place", _is_template),
    "pooling": (f"one of {', '.join(POOLINGS)}", lambda value: value in POOLINGS),
    "scores": ("best or all", lambda value: value in ("best", "all")),
    "task": (f"one of {', '.join(TASKS)}", lambda value: value in TASKS),
    "threads": ("a number of threads", lambda value: type(value) is int and 1 <= value <= _MAX_THREADS),
    "truncation": ("true or false", lambda value: isinstance(value, bool)),
}
# Options of one task only.
_OWN: Mapping[str, str] = {
    "candidate_labels": "zero-shot-classification",
    "hypothesis_template": "zero-shot-classification",
    "pooling": "feature-extraction",
    "scores": "text-classification",
}


def check(options: Mapping[str, Any]) -> None:
    """Check the options of save.

    Raises:
        UsageError: ``option-unknown`` or ``option-invalid``.
    """
    only_options("transformers", options, {*_CHECKS, "tokenizer"})
    problem = _problem(options)
    if problem is not None:
        raise UsageError(f"{problem[0]} is not {problem[1]}", code="option-invalid", path=f"options.{problem[0]}")


def configured(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of a package, checked.

    Raises:
        FlavorError: it is not one (``config-invalid``).
    """
    unknown = sorted(set(config) - set(_CHECKS) - {"column"})
    problem = (unknown[0][:40], "known") if unknown else _problem(config)
    if problem is None and "task" not in config:
        problem = ("task", "there")
    if problem is None and config["task"] == "zero-shot-classification" and "candidate_labels" not in config:
        problem = ("candidate_labels", "there")
    if problem is None and not isinstance(config.get("column"), str | None):
        problem = ("column", "a name")
    if problem is not None:
        message = f"{problem[0]} is not {problem[1]}"
        raise FlavorError(message, code="config-invalid", path=f"flavors.config.{problem[0]}")
    return config


def _problem(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return which value is not what it must be, and what that is."""
    for key, value in values.items():
        if key in _CHECKS and not _CHECKS[key][1](value):
            return key, _CHECKS[key][0]
        own = _OWN.get(key)
        if own is not None and values.get("task", own) != own:
            return key, f"an option of {values['task']}"
    return None
