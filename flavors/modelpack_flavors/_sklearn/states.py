"""Checks on stored states that must hold before anything is built from them."""

from __future__ import annotations

from typing import Any

from modelpack.audits import skops as audits
from modelpack.audits.skops_archive import name_of

__all__ = ["States"]

_MAX_POOL = 1024


class States(audits.Walk):
    """The walk of the audit, which also checks what constructors of compiled code take on trust."""

    def visit(self, loader: str, state: dict[str, Any]) -> None:
        """Check one stored object; everything below it has been seen."""
        if loader == "TreeNode":
            self._tree(state)
        elif loader == "LossNode":
            self._loss(state)
        elif loader == "RandomGeneratorNode":
            self._generator(state)
        elif loader == "ObjectNode" and name_of(state) in self.listed.native:
            self._native(state)

    def _native(self, state: dict[str, Any]) -> None:
        if self.resolve(state.get("content") or {}).get("__loader__") != "TupleNode":
            self.refuse(f"{name_of(state)} is stored without its state")

    def _value(self, state: Any) -> Any:
        """Return what a node of plain data holds: a scalar, a list of nodes, or a dict of nodes."""
        node = self.resolve(state)
        if node["__loader__"] == "JsonNode":
            return self.scalar(node)
        return node.get("content")

    def _shape(self, state: Any) -> tuple[int, ...]:
        node = self.resolve(state)
        if node["__loader__"] != "NdArrayNode" or node.get("type") != "numpy":
            self.refuse("a tree's state has no array where one belongs")
        return self.archive.array_shape(node["file"])

    def _tree(self, state: dict[str, Any]) -> None:
        arguments = self._value(state["__reduce__"]["args"])
        content = self._value(state["content"])
        if not isinstance(arguments, list) or len(arguments) != 3 or not isinstance(content, dict):
            self.refuse("a tree is not stored as scikit-learn stores it")
        if not {"max_depth", "node_count", "nodes", "values"} <= set(content):
            self.refuse("a tree's state is incomplete")
        features, outputs = self._value(arguments[0]), self._value(arguments[2])
        count, depth = self._value(content["node_count"]), self._value(content["max_depth"])
        if not all(type(n) is int and 0 <= n < 2**31 for n in (features, outputs, count, depth)):
            self.refuse("a tree's sizes are not numbers")
        if self._shape(arguments[1]) != (outputs,) or outputs < 1:
            self.refuse("a tree has another number of outputs than it has counts of classes")
        if self._shape(content["nodes"]) != (count,) or self._shape(content["values"])[:2] != (count, outputs):
            self.refuse("a tree has another number of nodes than it says")

    def _loss(self, state: dict[str, Any]) -> None:
        arguments = self._value(state["__reduce__"]["args"])
        plain = isinstance(arguments, list) and len(arguments) < 2
        if not plain or self._value(state["content"]):
            self.refuse("a loss function is stored with a state")
        if not all(isinstance(self._value(item), int | float) for item in arguments):
            self.refuse("a loss function has a parameter that is not a number")

    def _generator(self, state: dict[str, Any]) -> None:
        seed = self._value(state["content"]["seed_seq"])
        if not isinstance(seed, dict):
            self.refuse("a random generator has no seed")
        pool = self._value(seed["pool_size"]) if "pool_size" in seed else 4
        if type(pool) is not int or not 0 <= pool <= _MAX_POOL:
            self.refuse("a random generator's seed has an unreasonable pool")
