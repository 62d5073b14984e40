"""The same model gives the same skops bytes: canonical member names, ids, orders and times.

skops names members and objects by their addresses in memory and stamps the time. Here members are named by their
order, an object keeps a number only where it is met again (then a reference stands for it), the items of sets are
sorted, ufuncs have their public name, and times are constant. What skops would write so that it reads back as
something else is refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

from modelpack.audits.skops_archive import MAX_GROWTH, SCHEMA
from modelpack.errors import SaveError

__all__ = ["canonical"]

# Nodes whose objects are mutable, so that it matters whether two places hold the same one. For the rest (numbers,
# texts, types, tuples) Python itself decides about sharing, differently from process to process.
_SHARED = frozenset(
    {
        "BytearrayNode", "DefaultDictNode", "DictNode", "ListNode", "LossNode", "MaskedArrayNode", "NdArrayNode",
        "ObjectNode", "RandomGeneratorNode", "RandomStateNode", "SetNode", "SparseMatrixNode", "TreeNode",
    }
)  # fmt: skip
# The places below a node, in the order in which skops builds them.
_INNER = {
    "DefaultDictNode": ("main", "default_factory"),
    "MaskedArrayNode": ("data", "mask"),
    "MethodNode": ("obj",),
    "PartialNode": ("func", "args", "kwds", "namespace"),
    "RandomGeneratorNode": ("bit_generator", "seed_seq"),
}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def canonical(data: bytes) -> bytes:
    """Return the canonical form of a file that skops has just written.

    Raises:
        SaveError: the model holds a value that skops would not read back as it was (``model-unsupported``).
    """
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        schema = json.loads(source.read(SCHEMA), object_pairs_hook=_unique)
        seen: Counter[int] = Counter()
        _count(schema, seen)
        writer = _Writer(source, {number for number, times in seen.items() if times > 1})
        return writer.write(schema)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SaveError("a dict in the model has keys that are equal as texts, such as 1 and '1'", code=_CODE)
    return found


_CODE = "model-unsupported"


def _below(state: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of each node below ``state``, in the order in which skops builds them."""
    loader, content = state["__loader__"], state.get("content")
    if loader == "DictNode":
        yield state, "key_types"
    if loader in _INNER:
        yield from ((content, key) for key in _INNER[loader])
    elif loader == "SliceNode":
        return
    elif isinstance(content, list):
        yield from ((content, index) for index in range(len(content)))
    elif isinstance(content, dict) and "__loader__" in content:
        yield state, "content"
    elif isinstance(content, dict):
        yield from ((content, key) for key in content)
    if "shape" in state:
        yield state, "shape"
    if "attrs" in state:
        yield state, "attrs"
    if "__reduce__" in state:
        yield state["__reduce__"], "args"


def _count(state: dict[str, Any], seen: Counter[int]) -> None:
    number = state.get("__id__")
    if number is not None and state["__loader__"] in _SHARED:
        seen[number] += 1
        if seen[number] > 1:
            return
    for container, key in _below(state):
        _count(container[key], seen)


class _Writer:
    def __init__(self, source: zipfile.ZipFile, shared: set[int]) -> None:
        self._source = source
        self._shared = shared
        self._numbers: dict[int, int] = {}
        self._names: dict[bytes, str] = {}

    def write(self, schema: dict[str, Any]) -> bytes:
        self._rewrite(schema)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as target:
            text = json.dumps(schema, separators=(",", ":"), ensure_ascii=True).encode()
            for name, data in [(SCHEMA, text), *((name, data) for data, name in self._names.items())]:
                _add(target, name, data)
        return buffer.getvalue()

    def _rewrite(self, state: dict[str, Any]) -> None:
        _refuse_lossy(state)
        number = state.pop("__id__", None)
        if number in self._shared and state["__loader__"] in _SHARED:
            again = number in self._numbers
            state["__id__"] = self._numbers.setdefault(number, len(self._numbers) + 1)
            if again:
                self._refer(state)
                return
        if state["__loader__"] == "FunctionNode":
            state["__module__"] = _public(state["__module__"], state["__class__"])
        if state["__module__"] == "numpy" and state["__class__"] == "memmap":
            state["__class__"] = "ndarray"
        if "file" in state:
            state["file"] = self._member(state["file"])
        for container, key in _below(state):
            self._rewrite(container[key])
        if state["__loader__"] in ("SetNode", "ConstructorFromReduceNode"):
            _sort_items(state)

    @staticmethod
    def _refer(state: dict[str, Any]) -> None:
        for key in set(state) - {"__class__", "__module__", "__id__"}:
            del state[key]
        state["__loader__"] = "CachedNode"

    def _member(self, name: str) -> str:
        data = self._source.read(name)
        suffix = name.rpartition(".")[2]
        return self._names.setdefault(data, f"{len(self._names)}.{suffix}")


def _add(target: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    compressed = zipfile.ZIP_DEFLATED
    # The reader refuses what grows too much, so long runs of one value are written as they are.
    if len(data) > 2**20 and _growth(data) > MAX_GROWTH / 2:
        compressed = zipfile.ZIP_STORED
    target.writestr(info, data, compress_type=compressed, compresslevel=6)


def _growth(data: bytes) -> float:
    import zlib

    return len(data) / len(zlib.compress(data, 1))


def _sort_items(state: dict[str, Any]) -> None:
    """Put the items of a set in an order that does not depend on hashes."""
    if state["__loader__"] == "ConstructorFromReduceNode":
        if state["__class__"] != "frozenset" or not state["content"]["content"]:
            return
        state = state["content"]["content"][0]
    state["content"].sort(key=lambda item: json.dumps(item, sort_keys=True))


def _public(module: str, name: str) -> str:
    """Return the public module of a ufunc; skops records whichever loaded module it meets first."""
    import sys

    import numpy as np

    found = getattr(sys.modules.get(module), name, None)
    for public in ("numpy", "scipy.special"):
        if isinstance(found, np.ufunc) and getattr(sys.modules.get(public), name, None) is found:
            return public
    return module


def _refuse_lossy(state: dict[str, Any]) -> None:
    loader = state["__loader__"]
    if loader == "DictNode":
        types = {item["__class__"] for item in state["key_types"]["content"]}
        if types & {"bool", "bool_", "NoneType", "tuple"}:
            raise SaveError(
                "a dict in the model has keys that are True, False or None, which skops does not read back",
                code=_CODE,
                hint='Use 0 and 1 as keys (of class_weight, for example), or options={"format": "pickle"}.',
            )
    if loader == "NdArrayNode" and state.get("type") == "json":
        depth = len(state["shape"]["content"]) - 1
        if depth and not all(_leaf(item, depth) for item in state["content"]):
            raise SaveError(
                "an array of objects in the model holds lists, which skops does not read back",
                code=_CODE,
                hint='Use options={"format": "pickle"}.',
            )


def _leaf(item: dict[str, Any], depth: int) -> bool:
    if depth:
        return item["__loader__"] == "ListNode" and all(_leaf(inner, depth - 1) for inner in item["content"])
    return item["__loader__"] in ("JsonNode", "ObjectNode") or item.get("type") == "numpy"
