"""Audit of ONNX models: a graph of known operators whose tensors, trees and files are what they say they are.

The file is read by our own small reader and never by a framework. What passes is of class ``graph``; everything else is
refused, whatever is granted: an ONNX file has no part that could be run on trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from modelpack.audits import Audit, onnx_division, onnx_operators, onnx_tensors
from modelpack.audits import onnx_schema as schema
from modelpack.audits.onnx_wire import Field, Message, malformed, parse

__all__ = ["DOMAINS", "Facts", "Files", "Value", "audit", "inspect", "sizes"]

# The operator sets that are part of every onnxruntime; all others come from libraries that load code.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Operators of these sets that run compiled or foreign code.
FOREIGN = frozenset({"ATen", "EPContext", "ExternalOp", "PythonOp", "PythonOpGrad", "YieldOp"})
IR_VERSIONS = range(3, 15)
MAX_BYTES = 2**31 - 1
MAX_DEPTH = 24
MAX_NODES = 1_000_000
MAX_TYPE_DEPTH = 8


class Files(Protocol):
    """The files of the payload."""

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""

    def paths(self) -> Any:
        """Return the paths of all files."""

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """An input or output of the graph.

    ``kind`` is "tensor", "sequence", "map", "optional" or another kind of ONNX type; for tensors ``element`` is the
    number of the element type and ``shape`` has a size, a name or None for each dimension (None: not even their number
    is known). For containers ``element`` is that of the innermost tensors.
    """

    name: str
    kind: str
    element: int
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the audit learned about a model that passed.

    ``traps`` names nodes that may divide the least whole number by -1, which ends the process; ``zero`` says whether
    some whole number may be divided by 0, which does so before onnxruntime 1.25.
    """

    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: tuple[str, ...]
    external: tuple[str, ...]
    classes: Mapping[str, tuple[Any, ...]]
    traps: tuple[str, ...] = ()
    zero: bool = False


def audit(files: Files, entry: str | None) -> Audit:
    """Audit the model ``entry``, with the files beside it that hold its tensors.

    It is of class ``code`` if data could make it end the process.

    Raises:
        PackageError: it is not an ONNX model that we take, whatever is granted (``payload-invalid``).
    """
    place = entry or ""
    facts = inspect(files.read(place), place, sizes(files, place))
    if facts.traps:
        more = f" and {len(facts.traps) - 1} more" if len(facts.traps) > 1 else ""
        reason = f"{facts.traps[0]}{more} may divide the least whole number by -1, which ends the process"
        return Audit(trust="code", types=facts.operators, reasons=(reason,))
    return Audit(trust="graph", types=facts.operators)


def sizes(files: Files, entry: str) -> Mapping[str, int]:
    """Return the sizes of the payload's other files."""
    return {path: files.size(path) for path in files.paths() if path != entry}


def inspect(data: bytes, entry: str, others: Mapping[str, int]) -> Facts:
    """Audit the bytes of a model and return what was learned about it; ``others`` are the sizes of the other files."""
    if len(data) > MAX_BYTES:
        malformed("the file is larger than a protocol buffer can be", entry)
    if data[4:8] == b"ORTM":
        malformed("it could be taken for another format", entry)
    return _Walk(entry, others).model(memoryview(data))


@dataclass(slots=True)
class _Walk:
    """One walk over a model; nothing is kept of it but counts and facts."""

    entry: str
    files: Mapping[str, int]
    operators: set[str] = field(default_factory=set)
    external: set[str] = field(default_factory=set)
    classes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    functions: dict[tuple[str, str, str], Message] = field(default_factory=dict)
    sizes: dict[tuple[str, str, str], int | None] = field(default_factory=dict)
    nodes: int = 0

    def refuse(self, message: str) -> NoReturn:
        malformed(message, self.entry)

    def parse(self, view: memoryview, fields: Mapping[int, Field]) -> Message:
        return parse(view, fields, self.entry)

    def model(self, view: memoryview) -> Facts:
        model = self.parse(view, schema.MODEL)
        version = model.int("ir_version")
        if version not in IR_VERSIONS:
            self.refuse(f"its IR version is not one of {IR_VERSIONS.start} to {IR_VERSIONS.stop - 1}")
        if not model.has("graph"):
            self.refuse("it has no graph")
        if model.has("training_info"):
            self.refuse("it holds a graph for training")
        opsets = self._opsets(model)
        self._entries(model)
        for part in model.many("functions"):
            self._declare(self.parse(part, schema.FUNCTION))
        for key in self.functions:
            self._function(key)
        graph = self.parse(model.view("graph"), schema.GRAPH)
        self._graph(graph, 0, {})
        given = {self.parse(part, schema.TENSOR).text("name") for part in graph.many("initializer")}
        inputs = [self._value(part) for part in graph.many("input")]
        divides = not self.operators.isdisjoint(onnx_division.DIVIDE)
        found = onnx_division.divisions(model, self.parse) if divides else onnx_division.Divisions()
        return Facts(
            ir_version=version,
            opsets=opsets,
            producer=f"{model.text('producer_name')} {model.text('producer_version')}".strip(),
            inputs=tuple(value for value in inputs if value.name not in given),
            outputs=tuple(self._value(part) for part in graph.many("output")),
            operators=tuple(sorted(self.operators)),
            external=tuple(sorted(self.external)),
            classes=self.classes,
            traps=tuple(found.least),
            zero=found.zero,
        )

    def _opsets(self, message: Message) -> dict[str, int]:
        found: dict[str, int] = {}
        for part in message.many("opset_import"):
            one = self.parse(part, schema.OPERATORS)
            domain, version = one.text("domain"), one.int("version")
            if found.get(domain, version) != version or not 1 <= version < 10_000:
                self.refuse("its operator sets have two versions or none")
            found[domain] = version
        return found

    def _entries(self, message: Message) -> None:
        for part in message.many("metadata_props"):
            self.parse(part, schema.ENTRY)

    # Functions of the model's own: known by name before anything calls them, and never calling themselves.

    def _declare(self, function: Message) -> None:
        key = (function.text("domain"), function.text("name"), function.text("overload"))
        if key in self.functions or key[0] in DOMAINS or not key[1]:
            self.refuse("a function has no name of its own")
        self._opsets(function)
        self._entries(function)
        self.functions[key] = function

    def _function(self, key: tuple[str, str, str], depth: int = 0) -> int:
        """Check a function once, and return how many nodes a call of it comes to."""
        if key in self.sizes:
            size = self.sizes[key]
            if size is None:
                self.refuse("a function calls itself")
            return size
        if depth > MAX_DEPTH:
            self.refuse(f"functions call each other more than {MAX_DEPTH} deep")
        self.sizes[key] = None
        function = self.functions[key]
        for part in function.many("attribute_proto"):
            self._attribute(part, depth + 1, inside=True)
        for part in function.many("value_info"):
            self._value(part)
        before = self.nodes
        self._nodes(function.many("node"), depth + 1, {}, inside=True)
        size = self.nodes - before
        self.sizes[key] = size
        return size

    # Graphs and nodes.

    def _graph(self, graph: Message, depth: int, outer: Mapping[str, Value], *, inside: bool = False) -> None:
        if depth > MAX_DEPTH:
            self.refuse(f"graphs are nested more than {MAX_DEPTH} deep")
        if graph.has("sparse_initializer"):
            self.refuse("it holds sparse tensors")
        self._entries(graph)
        known = {**outer, **{value.name: value for value in map(self._value, graph.many("input"))}}
        for name in ("output", "value_info"):
            for part in graph.many(name):
                self._value(part)
        for part in graph.many("initializer"):
            tensor = self._tensor(part)
            known[tensor.text("name")] = Value(name=tensor.text("name"), kind="constant", element=0, shape=None)
        self._nodes(graph.many("node"), depth, known, inside=inside)

    def _nodes(self, parts: list[memoryview], depth: int, known: Mapping[str, Value], *, inside: bool) -> None:
        for part in parts:
            self._node(self.parse(part, schema.NODE), depth, known, inside=inside)

    def _node(self, node: Message, depth: int, known: Mapping[str, Value], *, inside: bool) -> None:
        domain, kind = node.text("domain"), node.text("op_type")
        self._entries(node)
        self.nodes += 1
        key = (domain, kind, node.text("overload"))
        if key in self.functions:
            self.nodes += self._function(key, depth + 1)
        elif domain not in DOMAINS:
            self.refuse("it needs operators that onnxruntime does not have itself")
        elif kind in FOREIGN or not kind.isidentifier():
            self.refuse("it has an operator that runs more than arithmetic")
        else:
            self.operators.add(kind if domain in ("", "ai.onnx") else f"{domain}.{kind}")
        if self.nodes > MAX_NODES:
            self.refuse(f"it comes to more than {MAX_NODES} nodes")
        attributes: dict[str, Any] = {}
        for part in node.many("attribute"):
            name, value = self._attribute(part, depth, known, inside=inside)
            if name in attributes:
                self.refuse("a node has two attributes of one name")
            attributes[name] = value
        if domain == "ai.onnx.ml":
            widths = [known[name] for name in node.many("input")[:1] if name in known]
            onnx_operators.check(kind, attributes, widths[0].shape if widths else None, self.entry)
            if kind == "ZipMap":
                labels = attributes.get("classlabels_strings") or attributes.get("classlabels_int64s", ())
                for name in node.many("output"):
                    self.classes[name] = tuple(v.decode() if isinstance(v, bytes) else int(v) for v in labels)

    def _attribute(
        self, part: memoryview, depth: int, known: Mapping[str, Value] | None = None, *, inside: bool
    ) -> tuple[str, Any]:
        """Return the name and value of an attribute; of a tensor its numbers if they are in the file."""
        attribute = self.parse(part, schema.ATTRIBUTE)
        name, kind = attribute.text("name"), attribute.int("type")
        if attribute.text("ref_attr_name"):
            if not inside or attribute.found.keys() & set(schema.ATTRIBUTE_FIELDS.values()):
                self.refuse("an attribute refers to one that is not there")
            return name, None
        held = schema.ATTRIBUTE_FIELDS.get(kind)
        if not name or held is None or (attribute.found.keys() & set(schema.ATTRIBUTE_FIELDS.values())) - {held}:
            self.refuse("an attribute is not of the type it says")
        if held in ("sparse_tensor", "sparse_tensors"):
            self.refuse("it holds sparse tensors")
        if held == "t":
            tensor = self._tensor(attribute.view("t"))
            return name, onnx_tensors.numbers(tensor)
        for inner in attribute.many("tensors"):
            self._tensor(inner)
        for inner in [attribute.view("g")] if held == "g" else attribute.many("graphs"):
            self._graph(self.parse(inner, schema.GRAPH), depth + 1, known or {}, inside=inside)
        for inner in [attribute.view("tp")] if held == "tp" else attribute.many("type_protos"):
            self._type(inner, 0)
        if held in ("floats", "ints"):
            return name, attribute.array(held)
        if held in ("f", "i"):
            return name, attribute.found.get(held, 0)
        return name, bytes(attribute.view("s")) if held == "s" else list(map(bytes, attribute.many(held)))

    # Tensors and types.

    def _tensor(self, part: memoryview) -> Message:
        tensor = self.parse(part, schema.TENSOR)
        self._entries(tensor)
        entries = {}
        for inner in tensor.many("external_data"):
            one = self.parse(inner, schema.ENTRY)
            if one.text("key") in entries:
                self.refuse("a tensor names its file twice")
            entries[one.text("key")] = one.text("value")
        place = onnx_tensors.check(tensor, entries, self.files, self.entry)
        if place is not None:
            self.external.add(place)
        return tensor

    def _value(self, part: memoryview) -> Value:
        value = self.parse(part, schema.VALUE)
        self._entries(value)
        if not value.has("type"):
            return Value(name=value.text("name"), kind="unknown", element=0, shape=None)
        kind, element, shape = self._type(value.view("type"), 0)
        return Value(name=value.text("name"), kind=kind, element=element, shape=shape)

    def _type(self, view: memoryview, depth: int) -> tuple[str, int, tuple[int | str | None, ...] | None]:
        found = self.parse(view, schema.TYPE)
        kinds = [name for name in found.found if name != "denotation"]
        if len(kinds) > 1 or depth > MAX_TYPE_DEPTH:
            self.refuse("a type is of two kinds or nested too deeply")
        if not kinds:
            return "unknown", 0, None
        kind = kinds[0]
        if kind in ("tensor_type", "sparse_tensor_type"):
            inner = self.parse(found.view(kind), schema.TENSOR_TYPE)
            shape = self._shape(inner.view("shape")) if inner.has("shape") else None
            return kind.removesuffix("_type"), inner.int("elem_type"), shape
        if kind not in schema.TYPE_KINDS:
            self.refuse("it has values of a type that is not taken")
        inner = self.parse(found.view(kind), schema.TYPE_KINDS[kind])
        below = inner.view("value_type" if kind == "map_type" else "elem_type")
        name, element, _ = self._type(below, depth + 1)
        outer = kind.removesuffix("_type")
        return f"{outer} of {name}" if name != "tensor" else outer, element, None

    def _shape(self, view: memoryview) -> tuple[int | str | None, ...]:
        dims: list[int | str | None] = []
        for part in self.parse(view, schema.SHAPE).many("dim"):
            dim = self.parse(part, schema.DIMENSION)
            if dim.has("dim_value") and dim.has("dim_param"):
                self.refuse("a dimension has a size and a name")
            if dim.int("dim_value") < 0:
                # Some exporters write -1 for a size that is free.
                dims.append(None)
            else:
                dims.append(dim.int("dim_value") if dim.has("dim_value") else dim.text("dim_param") or None)
        return tuple(dims)
