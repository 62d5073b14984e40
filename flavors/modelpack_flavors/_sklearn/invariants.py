"""What must hold in a model before compiled code may work on it.

The objects of a model are walked, each once. An object whose class keeps its state in compiled code needs a validator
(``natives``); one that has none is refused. Estimators that hand arrays to compiled code, which indexes them unchecked,
have their arrays compared with each other (``estimators``).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelpack.audits.skops_archive import malformed
from modelpack_flavors._sklearn import boosters, encoders, estimators, natives, neighbors

__all__ = ["check"]

Check = Callable[[Any], Iterator[str]]

_CHECKS: Mapping[str, Check] = {**estimators.CHECKS, **encoders.CHECKS, **neighbors.CHECKS, **boosters.CHECKS}
_PROBES: Mapping[str, Check] = estimators.PROBES
_NATIVE: Mapping[str, Check] = {**natives.NATIVE, **neighbors.NATIVE}


def check(model: Any, entry: str, *, strict: bool = True) -> None:
    """Check every object in ``model``.

    ``strict``: refuse objects of compiled classes that nobody has reviewed; not so for a model whose package may run
    its own code anyway.

    Raises:
        PackageError: a structure is inconsistent (``payload-invalid``).
    """
    reached = list(_reachable(model))
    for value in reached:
        _refuse_first(value, _faults(value, strict), entry)
    probed: set[int] = set()
    for value in reached:
        _probe(value, probed, entry)


def _reachable(model: Any) -> Iterator[Any]:
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


def _refuse_first(value: Any, faults: Iterator[str], entry: str) -> None:
    for fault in faults:
        malformed(f"{_name(type(value))}: {fault}", entry)


def _probe(value: Any, probed: set[int], entry: str) -> None:
    """Run the checks that call an object, after those of all objects inside it."""
    found = [_PROBES[name] for name in _names(type(value)) if name in _PROBES]
    if not found or id(value) in probed:
        return
    probed.add(id(value))
    for inner in list(_reachable(value)):
        if inner is not value:
            _probe(inner, probed, entry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for probe in found:
            _refuse_first(value, _guarded(probe, value), entry)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _names(kind: type) -> list[str]:
    return [_name(base) for base in kind.__mro__]


def _faults(value: Any, strict: bool) -> Iterator[str]:
    import numpy as np

    kind = type(value)
    if kind in _PLAIN or isinstance(value, np.generic | np.ndarray | np.dtype | np.ufunc | type):
        return
    found = next((_NATIVE[name] for name in _names(kind) if name in _NATIVE), None)
    if found is not None:
        yield from _guarded(found, value)
    elif strict and not (hasattr(value, "__dict__") or isinstance(value, _CONTAINERS) or callable(value)):
        yield "there is no check for its state, so it is not used"
    for name in _names(kind):
        if name in _CHECKS:
            yield from _guarded(_CHECKS[name], value)


def _guarded(validator: Check, value: Any) -> Iterator[str]:
    """Run a validator; one that stumbles over the state has found a fault."""
    try:
        yield from validator(value)
    except Exception as exc:  # the state is hostile until checked: attributes may be missing or of any type
        yield f"its state is inconsistent ({type(exc).__name__})"


_PLAIN = frozenset({bool, int, float, complex, str, bytes, bytearray, slice, range, type(None)})
_CONTAINERS = (dict, list, tuple, set, frozenset)


def _below(value: Any) -> list[Any]:
    import numpy as np

    if type(value) in _PLAIN or isinstance(value, type | np.dtype | np.generic):
        return []
    if _name(type(value)) in boosters.BOOSTERS:
        return []  # audited on its bytes
    if isinstance(value, np.ndarray):
        return list(value.ravel()) if value.dtype.hasobject else []
    found: list[Any] = []
    if isinstance(value, dict):
        found.extend(value.values())
    elif isinstance(value, _CONTAINERS):
        found.extend(value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        found.extend(attributes.values())
    if isinstance(value, functools.partial):
        found.extend((value.func, value.args, value.keywords))
    if any(name in neighbors.TREES for name in _names(type(value))):
        found.append(neighbors.metric_of(value))
    return found
