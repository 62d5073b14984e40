"""The options of the torch flavor when it saves, and its config when it loads: both checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelpack.errors import FlavorError, ModelpackError, UsageError
from modelpack.flavor import only_options
from modelpack_flavors._torch.feeding import Feed

__all__ = ["FORMATS", "check", "configured", "feed_of", "is_device"]

FORMATS = ("pt2", "safetensors", "torchscript", "torch-pickle")
_OPTIONS = frozenset({"batch", "device", "dynamic", "entrypoint", "format", "kwargs", "outputs", "threads"})
_DEVICE = re.compile(r"(auto|cpu|cuda(:\d{1,3})?|mps|xpu(:\d{1,3})?)\Z")
_CONFIG = frozenset({"call", "columns", "device", "inputs", "kwargs", "outputs", "threads"})


def check(options: Mapping[str, Any]) -> None:
    """Check the options of save.

    Raises:
        UsageError: ``option-unknown`` or ``option-invalid``.
    """
    only_options("torch", options, _OPTIONS)
    problem = _problem(options)
    if problem is None and options.get("format") not in (None, *FORMATS):
        problem = ("format", f"is none of {', '.join(FORMATS)}")
    if problem is None and options.get("batch", "free") not in ("free", "fixed"):
        problem = ("batch", "is neither free nor fixed")
    if problem is None and not _dynamic(options.get("dynamic", {})):
        problem = ("dynamic", "is no mapping from inputs to names by axis")
    if problem is None and not _is_entrypoint(options.get("entrypoint", "a:b")):
        problem = ("entrypoint", "is not module:name")
    if problem is not None:
        key, message = problem
        raise UsageError(f"{key} {message}", code="option-invalid", path=f"options.{key}")


def configured(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of a package, checked.

    Raises:
        FlavorError: it is not one (``config-invalid``).
    """
    unknown = sorted(set(config) - _CONFIG)
    problem = (unknown[0], "is not known") if unknown else _problem(config)
    if problem is not None:
        key, message = problem
        raise FlavorError(f"{key} {message}", code="config-invalid", path=f"flavors.config.{key[:40]}")
    return config


def feed_of(config: Mapping[str, Any]) -> Feed | None:
    """Return the feed in a config, None if it has none.

    Raises:
        FlavorError: it is not one (``config-invalid``).
    """
    if "inputs" not in config:
        return None
    try:
        return Feed.from_json(config)
    except (ModelpackError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise FlavorError(
            "inputs are not those of a model", code="config-invalid", path="flavors.config.inputs"
        ) from exc


def _problem(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what is wrong with the values that options and config share."""
    outputs, threads = values.get("outputs"), values.get("threads")
    if outputs is not None and not _names(outputs):
        return "outputs", "are not different names"
    if threads is not None and (type(threads) is not int or not 1 <= threads <= 1024):
        return "threads", "is no number of threads"
    if not is_device(values.get("device", "cpu")):
        return "device", "is not auto, cpu, cuda, mps or xpu, with a number or without"
    kwargs = values.get("kwargs", {})
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        return "kwargs", "are no values by name"
    return None


def is_device(value: Any) -> bool:
    """Say whether the value names a device of a kind that torch has itself; other kinds bring code along."""
    return isinstance(value, str) and _DEVICE.match(value) is not None


def _names(value: Any) -> bool:
    """Say whether the value is a list of different names, with None for what is left out."""
    if not isinstance(value, list | tuple):
        return False
    kept = [name for name in value if name is not None]
    return bool(kept) and all(isinstance(name, str) and name for name in kept) and len(set(kept)) == len(kept)


def _dynamic(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(axes, Mapping)
        and all(type(axis) is int and axis > 0 and isinstance(s, str) and s.isidentifier() for axis, s in axes.items())
        for axes in value.values()
    )


def _is_entrypoint(value: Any) -> bool:
    return isinstance(value, str) and value.count(":") == 1 and all(value.split(":"))
