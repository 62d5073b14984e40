"""Audit of skops files: every class, function and method that loading one would reach, found by reading it only.

The walk visits the nodes of ``schema.json`` in the order in which skops builds them and resolves references as skops
does, so what is audited is what is executed. Each kind of node may carry only the names reviewed for it
(``skops_types.txt``): a listed class in another kind of node is as unlisted as an unknown one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn

from modelpack.audits import Audit, skops_boosters
from modelpack.audits.skops_archive import Archive, malformed, name_of
from modelpack.audits.skops_places import Places
from modelpack.audits.skops_types import Listed, listed

__all__ = ["PROTOCOL", "Walk", "audit", "inspect"]

PROTOCOL = 2
# skops builds recursively; deeper files would run into Python's own limit.
MAX_DEPTH = 200
MAX_NODES = 5_000_000
MAX_CACHED = 1024
MAX_AXES = 32

# The keys of each kind of node, besides those that every node has.
_KEYS: Mapping[str, frozenset[str]] = {
    "BytearrayNode": frozenset({"file"}),
    "BytesNode": frozenset({"file"}),
    "CachedNode": frozenset(),
    "ConstructorFromReduceNode": frozenset({"content"}),
    "DTypeNode": frozenset({"content"}),
    "DefaultDictNode": frozenset({"content"}),
    "DictNode": frozenset({"content", "key_types"}),
    "FunctionNode": frozenset(),
    "JsonNode": frozenset({"content", "is_json"}),
    "ListNode": frozenset({"content"}),
    "LossNode": frozenset({"content", "__reduce__"}),
    "MaskedArrayNode": frozenset({"content"}),
    "MethodNode": frozenset({"content"}),
    "NdArrayNode": frozenset({"content", "file", "shape", "type"}),
    "ObjectNode": frozenset({"content"}),
    "OperatorFuncNode": frozenset({"attrs"}),
    "PartialNode": frozenset({"content"}),
    "RandomGeneratorNode": frozenset({"content"}),
    "RandomStateNode": frozenset({"content"}),
    "SetNode": frozenset({"content"}),
    "SliceNode": frozenset({"content"}),
    "SparseMatrixNode": frozenset({"file", "type"}),
    "TreeNode": frozenset({"content", "__reduce__"}),
    "TupleNode": frozenset({"content"}),
    "TypeNode": frozenset(),
}
_COMMON = frozenset({"__class__", "__module__", "__loader__", "__id__"})
_ROOT = frozenset({"protocol", "_skops_version"})
_INNER: Mapping[str, tuple[str, ...]] = {
    "MaskedArrayNode": ("data", "mask"),
    "RandomGeneratorNode": ("bit_generator", "seed_seq"),
}


def audit(read: Callable[[str], bytes], entry: str) -> Audit:
    """Audit the skops file ``entry``; ``read`` returns the verified bytes of a payload's file.

    Raises:
        PackageError: it is not a skops file that we take, whatever is granted (``payload-invalid``).
    """
    return inspect(read(entry), entry)[0]


def inspect(data: bytes, entry: str, walk: type[Walk] | None = None) -> tuple[Audit, Walk]:
    """Audit the bytes of a skops file; also return the walk, so that what is built is what was audited."""
    walked = (walk or Walk)(Archive(data, entry), listed())
    walked.run()
    unlisted = sorted(walked.unlisted)
    found = Audit(
        trust="code" if unlisted else "objects",
        types=tuple(sorted(walked.types)),
        unlisted=tuple(unlisted),
        reasons=tuple(walked.reasons[name] for name in unlisted),
    )
    return found, walked


def _parsed(text: str) -> Any:
    """Return the one JSON value that is neither list nor dict; NaN and the infinities are values here."""
    value = json.loads(text)
    if isinstance(value, list | dict):
        raise ValueError("not a single value")
    return value


# Short values are met again and again; long ones are texts of whole models.
_scalar = lru_cache(maxsize=4096)(_parsed)


class Walk:
    """One walk over the nodes of an archive; subclasses see each node by overriding :meth:`visit`."""

    def __init__(self, archive: Archive, types: Listed) -> None:
        self.archive = archive
        self.listed = types
        self.types: set[str] = set()
        self.unlisted: set[str] = set()
        self.reasons: dict[str, str] = {}
        self.used: set[str] = set()
        self._memo: dict[int, dict[str, Any]] = {}
        self._open: set[int] = set()
        self._nodes = 0
        self._places = Places(self)

    def run(self) -> None:
        """Walk from the root; afterwards every member of the archive has been accounted for."""
        root = dict(self.archive.schema)
        protocol = root.pop("protocol", None)
        if protocol != PROTOCOL or isinstance(protocol, bool):
            self.refuse(f"only skops protocol {PROTOCOL} is read")
        if not isinstance(root.pop("_skops_version", ""), str):
            self.refuse("the skops version is not a text")
        self.node(root, 0)
        self._places.settle()
        if self.used != self.archive.names:
            self.refuse("the archive has members that the schema does not name")

    def refuse(self, message: str) -> NoReturn:
        """Refuse the file as malformed."""
        malformed(message, self.archive.entry)

    def unlist(self, name: str, reason: str) -> None:
        """Note a name that is not on the list, with the reason in words."""
        self.types.add(name)
        self.unlisted.add(name)
        self.reasons.setdefault(name, reason)

    def node(self, state: Any, depth: int) -> dict[str, Any]:
        """Visit a node and everything below it; return it, or the earlier node that it refers to."""
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            self.refuse(f"the schema is nested deeper than {MAX_DEPTH} or has more than {MAX_NODES} nodes")
        loader = self._check_shape(state)
        number = state.get("__id__")
        if number in self._memo:
            if number in self._open:
                self.refuse("an object contains itself")
            self._places.meet(self._memo[number], again=True)
            return self._memo[number]
        if loader == "CachedNode":
            self.refuse("a reference points to an object that comes later or never")
        if loader not in _KEYS:
            self.unlist(name_of(state), f"{name_of(state)} is stored in an unknown way ({loader})")
            self.used |= self.archive.names
            return state  # type: ignore[no-any-return]
        if number is not None:
            self._memo[number] = state
            self._open.add(number)
        self._places.meet(state, again=False)
        self._enter(loader, state, depth + 1)
        self._open.discard(number)
        return state  # type: ignore[no-any-return]

    def _check_shape(self, state: Any) -> str:
        if not isinstance(state, dict):
            self.refuse("a node is not an object")
        for key in ("__class__", "__module__", "__loader__"):
            if not isinstance(state.get(key), str) or not state[key]:
                self.refuse(f"a node has no {key}")
        number = state.get("__id__", 1)
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            self.refuse("a node's __id__ is not a positive number")
        loader: str = state["__loader__"]
        if not set(state) <= _COMMON | _KEYS.get(loader, set(state)):
            self.refuse(f"a {loader} has a key that does not belong to one")
        return loader

    def _enter(self, loader: str, state: dict[str, Any], depth: int) -> None:
        if loader != "JsonNode":
            self._judge(loader, state)
        visit = getattr(self, f"_{loader}", None)
        if visit is not None:
            visit(state, depth)
        elif loader in _INNER:
            for key in _INNER[loader]:
                self.node(self._field(state, "content", key), depth)
        self.visit(loader, state)

    def visit(self, loader: str, state: dict[str, Any]) -> None:
        """See a node after everything below it has been seen; for subclasses."""

    def resolve(self, state: Any) -> dict[str, Any]:
        """Return the node that a visited node stands for."""
        return self._memo.get(state.get("__id__"), state)  # type: ignore[no-any-return]

    def _judge(self, loader: str, state: dict[str, Any]) -> None:
        name = name_of(state)
        self.types.add(name)
        if self.listed.holds(loader, name):
            return
        if any(self.listed.holds(other, name) for other in self.listed.names):
            self.unlist(name, f"{name} is not stored as it should be ({loader})")
        else:
            kind = "function" if loader in ("FunctionNode", "MethodNode", "OperatorFuncNode") else "type"
            self.unlist(name, f"{name} is not on the list of reviewed {kind}s")

    def _field(self, state: dict[str, Any], *path: str) -> Any:
        value: Any = state
        for key in path:
            if not isinstance(value, dict) or key not in value:
                self.refuse(f"a {state['__loader__']} has no {path[-1]}")
            value = value[key]
        return value

    def _items(self, state: dict[str, Any]) -> list[Any]:
        content = state.get("content")
        if not isinstance(content, list):
            self.refuse(f"the content of a {state['__loader__']} is not a list")
        return content

    def _file(self, state: dict[str, Any], suffix: str) -> str:
        name = state.get("file")
        if not isinstance(name, str) or not name.endswith(suffix):
            self.refuse(f"a {state['__loader__']} names no {suffix} member")
        self.archive.size(str(name))
        self.used.add(str(name))
        return str(name)

    # One method per kind of node that has more to it than its name; the order is that of skops.

    def _JsonNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        self.scalar(state)

    def scalar(self, state: Mapping[str, Any]) -> Any:
        """Return the value of a JsonNode: a text, a number, true, false or null."""
        text = state.get("content")
        if not isinstance(text, str):
            self.refuse("the content of a JsonNode is not a text")
        try:
            return _scalar(text) if len(text) < MAX_CACHED else _parsed(text)
        except (ValueError, RecursionError):
            self.refuse("a JsonNode is not a single value")

    def _DictNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        content = self._field(state, "content")
        types = self.node(self._field(state, "key_types"), depth)
        if not isinstance(content, dict) or types["__loader__"] != "ListNode" or len(types["content"]) != len(content):
            self.refuse("a DictNode's keys and key types do not match")
        for raw in types["content"]:
            key = self.resolve(raw)
            if key["__loader__"] != "TypeNode" or not self.listed.holds("key", name_of(key)):
                self.unlist(name_of(key), f"{name_of(key)} is not a reviewed type of keys")
        for value in content.values():
            self.node(value, depth)

    def _ListNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        for item in self._items(state):
            self.node(item, depth)

    _SetNode = _TupleNode = _ListNode

    def _NdArrayNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        if state.get("type") == "numpy":
            self.archive.array_shape(self._file(state, ".npy"))
        elif state.get("type") == "json" and name_of(state) == "numpy.ndarray":
            for item in self._items(state):
                self.node(item, depth)
            self.node(self._field(state, "shape"), depth)
            self._objects(state)
        else:
            self.refuse("an array is neither numeric nor a list of objects")

    def _objects(self, state: dict[str, Any]) -> None:
        """Compare the shape of an array of objects with the lists that hold them."""
        shape = self.resolve(state["shape"])
        if shape["__loader__"] != "TupleNode":
            self.refuse("an array's shape is not a tuple")
        parts = [self.resolve(part) for part in shape["content"]]
        sizes: list[Any] = [self.scalar(part) if part["__loader__"] == "JsonNode" else None for part in parts]
        if len(sizes) > MAX_AXES or not all(type(size) is int and size >= 0 for size in sizes):
            self.refuse("an array's shape is not made of sizes")
        items: list[Any] = [state]
        for depth in range(len(sizes)):
            if sum(len(inner["content"]) for inner in items) > MAX_NODES:
                self.refuse(f"an array has more than {MAX_NODES} objects")
            items = [self.resolve(item) for inner in items for item in inner["content"]]
            if depth < len(sizes) - 1 and any(item["__loader__"] != "ListNode" for item in items):
                self.refuse("an array of objects is not nested as deep as its shape")
        if len(items) != math.prod(sizes):
            self.refuse("an array of objects has another number of objects than its shape")

    def _SparseMatrixNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        if state.get("type") != "scipy":
            self.refuse("a sparse matrix is not stored as scipy stores it")
        kind, is_array = self.archive.sparse_format(self._file(state, ".npz"))
        if state["__class__"] != f"{kind}_{'array' if is_array else 'matrix'}":
            self.refuse("a sparse matrix is of another class than its node says")

    def _BytesNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        self._file(state, ".bin")

    _BytearrayNode = _BytesNode

    def _SliceNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        content = self._field(state, "content")
        if not isinstance(content, dict) or set(content) != {"start", "stop", "step"}:
            self.refuse("a slice is not start, stop and step")
        if not all(value is None or type(value) in (int, str) for value in content.values()):
            self.refuse("a slice has a bound that is neither a number nor a text")

    def _ObjectNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        name = name_of(state)
        attributes = None if state.get("content") is None else self.node(state["content"], depth)
        if name in self.listed.native:
            return
        plain = attributes is None or (
            name_of(attributes) == "builtins.dict"
            and all(name_of(self.resolve(t)) == "builtins.str" for t in attributes["key_types"]["content"])
        )
        skops_boosters.check(self, name, state)
        if plain and attributes is not None and self.listed.holds("ObjectNode", name):
            self._places.attributes(name, attributes)
        empty = attributes is not None and attributes["__loader__"] == "JsonNode" and self.scalar(attributes) is None
        if not plain and not empty:
            self.unlist(name, f"the state of {name} is not a dict of attributes")

    def _content(self, state: dict[str, Any], depth: int) -> None:
        self.node(self._field(state, "content"), depth)

    _DTypeNode = _RandomStateNode = _content

    def _ConstructorFromReduceNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        if self.node(self._field(state, "content"), depth)["__loader__"] != "TupleNode":
            self.refuse("the arguments of a constructor are not a tuple")
        skops_boosters.check(self, name_of(state), state)

    def _reduced(self, state: dict[str, Any], depth: int) -> None:
        self.node(self._field(state, "content"), depth)
        self.node(self._field(state, "__reduce__", "args"), depth)

    _TreeNode = _LossNode = _reduced

    def _RandomGeneratorNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        bits = self._field(state, "content", "bit_generator")
        seen = self.node(bits, depth)
        self.node(self._field(state, "content", "seed_seq"), depth)
        name = self._field(bits, "content", "bit_generator")
        if seen is not bits or self.resolve(name) is not name or name["__loader__"] != "JsonNode":
            self.refuse("a random generator does not name its bit generator")
        generator = f"numpy.random.{self.scalar(name)}"
        if not self.listed.holds("generator", generator):
            self.unlist(generator, f"{generator} is not a reviewed bit generator")

    def _PartialNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        for key in ("func", "args", "kwds", "namespace"):
            self.node(self._field(state, "content", key), depth)
        self._places.partial(state)

    def _DefaultDictNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        self.node(self._field(state, "content", "main"), depth)
        factory = self.node(self._field(state, "content", "default_factory"), depth)
        if factory["__loader__"] not in ("TypeNode", "JsonNode"):
            self.unlist(name_of(factory), f"{name_of(factory)} makes the values that a default dict does not have")

    def _MethodNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        owner = self.node(self._field(state, "content", "obj"), depth)
        method = f"{name_of(owner)}.{self._field(state, 'content', 'func')}"
        self.unlist(method, f"{method} is a bound method, and none is on the list")

    def _OperatorFuncNode(self, state: dict[str, Any], depth: int) -> None:  # noqa: N802
        arguments = self.node(self._field(state, "attrs"), depth)
        simple = arguments["__loader__"] == "TupleNode" and all(
            self.resolve(item)["__loader__"] == "JsonNode" for item in arguments["content"]
        )
        if not simple:
            self.unlist(name_of(state), f"{name_of(state)} has arguments that are not single values")
