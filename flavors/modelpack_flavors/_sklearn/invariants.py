"""What must hold in a model before compiled code may work on it.

The objects of a model are walked, each once. An object whose class keeps its state in compiled code needs a validator
(``natives``); one that has none is refused. Estimators that hand arrays to compiled code, which indexes them unchecked,
have their arrays compared with each other (``estimators``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelpack.audits.skops_archive import malformed
from modelpack_flavors._sklearn import boosters, encoders, estimators, natives, neighbors
from modelpack_flavors._sklearn.parts import CONTAINERS, PLAIN, class_names, full_name, reachable

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
    reached = list(reachable(model))
    for value in reached:
        _refuse_first(value, _faults(value, strict), entry)
    probed: set[int] = set()
    for value in reached:
        _probe(value, probed, entry)


def _refuse_first(value: Any, faults: Iterator[str], entry: str) -> None:
    for fault in faults:
        malformed(f"{full_name(value)}: {fault}", entry)


def _probe(value: Any, probed: set[int], entry: str) -> None:
    """Run the checks that call an object, after those of all objects inside it."""
    found = [_PROBES[name] for name in class_names(type(value)) if name in _PROBES]
    if not found or id(value) in probed:
        return
    probed.add(id(value))
    for inner in list(reachable(value)):
        if inner is not value:
            _probe(inner, probed, entry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for probe in found:
            _refuse_first(value, _guarded(probe, value), entry)


def _faults(value: Any, strict: bool) -> Iterator[str]:
    import numpy as np

    kind = type(value)
    if kind in PLAIN or isinstance(value, np.generic | np.ndarray | np.dtype | np.ufunc | type):
        return
    found = next((_NATIVE[name] for name in class_names(kind) if name in _NATIVE), None)
    if found is not None:
        yield from _guarded(found, value)
    elif strict and not (hasattr(value, "__dict__") or isinstance(value, CONTAINERS) or callable(value)):
        yield "there is no check for its state, so it is not used"
    for name in class_names(kind):
        if name in _CHECKS:
            yield from _guarded(_CHECKS[name], value)


def _guarded(validator: Check, value: Any) -> Iterator[str]:
    """Run a validator; one that stumbles over the state has found a fault."""
    try:
        yield from validator(value)
    except Exception as exc:  # the state is hostile until checked: attributes may be missing or of any type
        yield f"its state is inconsistent ({type(exc).__name__})"
