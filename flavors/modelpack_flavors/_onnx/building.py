"""Adding nodes to the graphs that skl2onnx builds."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.errors import FlavorError

__all__ = ["Graph", "label_type", "unsupported"]


def unsupported(what: str) -> FlavorError:
    """Return the error for a model that has no conversion."""
    return FlavorError(f"no ONNX form of {what} is known", code="conversion-unsupported", path="also")


class Graph:
    """Adds nodes to skl2onnx's container."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def node(self, kind: str, *inputs: str, out: str | None = None, **more: Any) -> str:
        result: str = out or self._scope.get_unique_variable_name(kind.lower())
        name = self._scope.get_unique_operator_name(kind)
        self._container.add_node(kind, list(inputs), [result], name=name, **more)
        return result

    def constant(self, values: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        name: str = self._scope.get_unique_variable_name("constant")
        if values.dtype.kind == "O":
            texts = [value.encode() for value in values.reshape(-1).tolist()]
            self._container.add_initializer(name, 8, list(values.shape), texts)
        else:
            self._container.add_initializer(name, None, None, numpy_helper.from_array(values, name))
        return name


def label_type(classes: Any) -> str:
    """Return the numpy type in which labels are held in a graph: int64 or text.

    Raises:
        FlavorError: labels of a type that graphs do not have (``conversion-unsupported``).
    """
    if classes.dtype.kind in "OU" and all(isinstance(label, str) for label in classes.tolist()):
        return "object"
    whole = classes.dtype.kind in "biu" or (classes.dtype.kind == "f" and bool((classes == np.trunc(classes)).all()))
    if not whole:
        raise unsupported("a classifier with labels that are neither text nor whole numbers")
    return "int64"
