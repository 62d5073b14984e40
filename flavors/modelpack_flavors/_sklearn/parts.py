"""The objects that a model is made of, each met once, without asking any of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from modelpack_flavors._sklearn import boosters, neighbors

__all__ = ["CONTAINERS", "PLAIN", "class_names", "full_name", "reachable"]

PLAIN = frozenset({bool, int, float, complex, str, bytes, bytearray, slice, range, type(None)})
CONTAINERS = (dict, list, tuple, set, frozenset)


def reachable(model: Any) -> Iterator[Any]:
    """Yield every object in the model, once."""
    seen: set[int] = set()
    pending: list[Any] = [model]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        # The caller keeps what is yielded: objects made on the way (the parts of an array) must live, or their ids
        # would be used again.
        yield value
        pending.extend(_below(value))


def full_name(value: Any) -> str:
    """Return the name of a value's class, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def class_names(kind: type) -> list[str]:
    """Return the names of a class and its bases, with their modules, as method resolution goes."""
    return [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]


def _below(value: Any) -> list[Any]:
    import numpy as np

    if type(value) in PLAIN or isinstance(value, type | np.dtype | np.generic):
        return []
    if full_name(value) in boosters.BOOSTERS:
        return []  # audited on its bytes
    if isinstance(value, np.ndarray):
        return list(value.ravel()) if value.dtype.hasobject else []
    found: list[Any] = []
    if isinstance(value, dict):
        found.extend(value.values())
    elif isinstance(value, CONTAINERS):
        found.extend(value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        found.extend(attributes.values())
    if isinstance(value, functools.partial):
        found.extend((value.func, value.args, value.keywords))
    if any(name in neighbors.TREES for name in class_names(type(value))):
        found.append(neighbors.metric_of(value))
    return found
