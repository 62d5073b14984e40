"""Pickles of a package that has its own modules; only called once the gate has granted code."""

from __future__ import annotations

import io
import pickle
import sys
import types
from typing import Any

__all__ = ["unpickled"]


def unpickled(raw: bytes, namespace: Any) -> Any:
    """Return what the bytes hold; modules that the package owns come from its namespace, others as usual."""
    namespace.install()
    return _Unpickler(io.BytesIO(raw), namespace).load()


class _Unpickler(pickle.Unpickler):
    """Finds the package's own modules in its own namespace."""

    def __init__(self, stream: io.BytesIO, namespace: Any) -> None:
        super().__init__(stream)
        self._namespace = namespace

    def find_class(self, module: str, name: str) -> Any:
        if self._namespace.owns(module):
            self._namespace.import_module(module)
            return super().find_class(self._namespace.qualify(module), name)
        if (module, name) == ("cloudpickle.cloudpickle", "subimport"):
            return self._subimport
        return super().find_class(module, name)

    def _subimport(self, name: str) -> types.ModuleType:
        if self._namespace.owns(name):
            module: types.ModuleType = self._namespace.import_module(name)
            return module
        __import__(name)
        return sys.modules[name]
