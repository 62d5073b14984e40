"""The labels of a classifier as JSON, and back to the very same array."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from modelpack.errors import SaveError
from modelpack_flavors._boosters.options import invalid

__all__ = ["as_json", "from_json"]

Array = np.ndarray[Any, Any]

# Integers beyond this are written as texts: a manifest holds none larger.
_EXACT = 2**53 - 1
_DTYPE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|object|<U[1-9][0-9]{0,3}")
_PLAIN = (bool, int, float, str)


def as_json(classes: Array) -> dict[str, Any]:
    """Return the labels with their dtype.

    Raises:
        SaveError: they are neither texts nor numbers nor truth values (``model-unsupported``).
    """
    name = classes.dtype.str if classes.dtype.kind == "U" else classes.dtype.name
    values = classes.tolist()
    if not _DTYPE.fullmatch(name) or any(type(value) not in _PLAIN for value in values):
        raise SaveError(
            f"labels of dtype {name} are neither texts nor numbers",
            code="model-unsupported",
            hint="Fit the model on texts, numbers or truth values.",
        )
    if any(value != value for value in values):
        raise SaveError("a label is NaN", code="model-unsupported", hint="Fit the model on labels that are values.")
    return {"dtype": name, "values": [_written(value, name) for value in values]}


def _written(value: Any, name: str) -> Any:
    if type(value) is int and abs(value) > _EXACT:
        if name == "object":
            raise SaveError(
                "a label is a large integer among other values",
                code="model-unsupported",
                hint="Fit the model on labels of one type.",
            )
        return str(value)
    if type(value) is float and value in (float("inf"), float("-inf")):
        raise SaveError("a label is infinite", code="model-unsupported", hint="Fit the model on finite labels.")
    return value


def from_json(stored: Any, entry: str) -> Array:
    """Return the labels that a config holds.

    Raises:
        PackageError: it holds none that :func:`as_json` writes (``payload-invalid``).
    """
    if not isinstance(stored, Mapping) or set(stored) != {"dtype", "values"}:
        _refuse(entry)
    name, values = stored["dtype"], stored["values"]
    if not isinstance(name, str) or not _DTYPE.fullmatch(name) or not isinstance(values, list | tuple) or not values:
        _refuse(entry)
    if any(type(value) not in _PLAIN for value in values):
        _refuse(entry)
    if name == "object":
        made = np.empty(len(values), dtype=object)
        made[:] = values
        return made
    dtype = np.dtype(name)
    wanted = {"b": bool, "i": int, "u": int, "f": float, "U": str}[dtype.kind]
    try:
        items = [int(value) if wanted is int and type(value) is str else value for value in values]
        if wanted is float:
            items = [float(value) if type(value) is int else value for value in items]
        made = np.array(items, dtype=dtype)
    except (ValueError, OverflowError):
        _refuse(entry)
    if any(type(item) is not wanted for item in items) or made.tolist() != items:
        _refuse(entry)
    return made


def _refuse(entry: str) -> NoReturn:
    invalid("the config holds no labels of a classifier", entry)
