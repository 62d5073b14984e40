"""The serialised graph of an exported torch program, read into steps that name listed operators and earlier values.

What it reads is complete: a loader runs these steps and looks at nothing else of the graph. What is readable but not
listed is a reason (the program is then of class ``code``); what contradicts itself is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from modelpack.audits import pt2_schema as schema
from modelpack.audits.pt2_expressions import known_expression
from modelpack.audits.pt2_operators import listed

__all__ = ["Input", "Named", "Output", "Program", "Ref", "Step", "Unlisted", "read"]

MAX_NODES = 1_000_000
MAX_DEPTH = 16
# Arguments that are one value, by the word in the file.
_SCALARS: Mapping[str, tuple[type, ...]] = {
    "as_int": (int,),
    "as_float": (float, int),
    "as_bool": (bool,),
    "as_string": (str,),
}
# JSON has no infinity; torch writes these words.
_FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


class Unlisted(Exception):
    """The program holds something that is not listed; the message says what."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The value that an input or an earlier step gave this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Named:
    """A dtype, memory format or layout of torch by name; ``device`` stands for the one the program runs on."""

    kind: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One input of the graph.

    ``kind``: "user", "weight" (``source`` is its name among the weights), "constant" (among the constants), "fixed" (a
    value that the caller gives and the program has built in). For user inputs ``dtype`` and ``shape`` say what they
    are; a dimension is a size, or the text of an expression.
    """

    name: str
    kind: str
    source: str = ""
    dtype: str = ""
    shape: tuple[int | str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One call: ``arguments`` by the name in the operator's schema; ``outputs`` are names, None, or lists of them."""

    target: str
    arguments: tuple[tuple[str, Any], ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One value that the program answers with: what an input or step gave, or a fixed value.

    ``dtype`` and ``shape`` are those of a tensor, as for an input; None where nothing is known of it.
    """

    value: Any
    dtype: str = ""
    shape: tuple[int | str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A whole program: inputs, steps in order, outputs."""

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    targets: tuple[str, ...]


def read(root: Mapping[str, Any], refuse: Any) -> Program:
    """Return the program in a parsed ``model.json``; ``refuse(message)`` raises for one that contradicts itself.

    Raises:
        Unlisted: it holds something that is not listed.
    """
    return _Reader(refuse).program(root)


@dataclass(slots=True)
class _Reader:
    refuse: Any
    known: set[str] = field(default_factory=set)
    targets: set[str] = field(default_factory=set)

    def bad(self, message: str) -> NoReturn:
        self.refuse(message)
        raise AssertionError

    # Shapes of JSON.

    def dict(self, value: Any, what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.bad(f"{what} is no object")
        return value

    def list(self, value: Any, what: str) -> list[Any]:
        if not isinstance(value, list):
            self.bad(f"{what} is no list")
        return value

    def text(self, value: Any, what: str) -> str:
        if not isinstance(value, str) or not value or len(value) > 4096:
            self.bad(f"{what} is no text")
        return value

    def union(self, value: Any, what: str) -> tuple[str, Any]:
        """Return the one entry of an object that says by its key what it is."""
        found = self.dict(value, what)
        if len(found) != 1:
            self.bad(f"{what} is not of one kind")
        return next(iter(found.items()))

    # The program.

    def program(self, root: Mapping[str, Any]) -> Program:
        module = self.dict(root.get("graph_module"), "graph_module")
        graph = self.dict(module.get("graph"), "graph")
        signature = self.dict(module.get("signature"), "signature")
        if graph.get("custom_obj_values"):
            raise Unlisted("it holds objects of other classes")
        self.expressions(graph)
        inputs = tuple(self.inputs(graph, signature))
        nodes = self.list(graph.get("nodes"), "nodes")
        if len(nodes) > MAX_NODES:
            self.bad(f"it has more than {MAX_NODES} nodes")
        steps = tuple([self.step(self.dict(node, "a node")) for node in nodes])
        outputs = tuple(self.outputs(graph, signature))
        return Program(inputs=inputs, steps=steps, outputs=outputs, targets=tuple(sorted(self.targets)))

    def inputs(self, graph: Mapping[str, Any], signature: Mapping[str, Any]) -> Iterator[Input]:
        values = self.dict(graph.get("tensor_values"), "tensor_values")
        for spec in self.list(signature.get("input_specs"), "input_specs"):
            yield self.input(*self.union(spec, "an input"), values)

    def input(self, kind: str, spec: Any, values: Mapping[str, Any]) -> Input:
        spec = self.dict(spec, "an input")
        if kind == "constant_input":
            return Input(name=self.define(spec.get("name")), kind="fixed")
        if kind == "user_input":
            form, value = self.union(spec.get("arg"), "an input")
            if form != "as_tensor":
                raise Unlisted("an input is no tensor")
            name = self.tensor(value)
            return Input(name=self.define(name), kind="user", **self.kind(values, name))
        places = {"parameter": ("weight", "parameter_name"), "buffer": ("weight", "buffer_name")}
        places["tensor_constant"] = ("constant", "tensor_constant_name")
        if kind not in places:
            raise Unlisted(f"an input is of the kind {kind[:40]!r}")
        place, key = places[kind]
        if kind == "buffer" and spec.get("persistent") is False:
            place = "constant"
        name = self.define(self.tensor(spec.get("arg")))
        return Input(name=name, kind=place, source=self.text(spec.get(key), key))

    def kind(self, values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """Return the dtype and shape of a tensor as the graph notes them."""
        meta = self.dict(values.get(name), "a tensor's type")
        dtype = schema.DTYPES.get(self.integer(meta.get("dtype")))
        if dtype is None:
            raise Unlisted("a tensor is of an unknown type")
        return {"dtype": dtype, "shape": tuple(self.size(size) for size in self.list(meta.get("sizes"), "sizes"))}

    def outputs(self, graph: Mapping[str, Any], signature: Mapping[str, Any]) -> Iterator[Output]:
        values = self.dict(graph.get("tensor_values"), "tensor_values")
        for spec in self.list(signature.get("output_specs"), "output_specs"):
            kind, value = self.union(spec, "an output")
            if kind in ("buffer_mutation", "user_input_mutation", "parameter_mutation"):
                raise Unlisted("it changes its own weights or its inputs")
            if kind != "user_output":
                raise Unlisted(f"an output is of the kind {kind[:40]!r}")
            found = self.argument(self.dict(value, "an output").get("arg"), 0)
            if isinstance(found, Ref) and found.name in values:
                yield Output(value=found, **self.kind(values, found.name))
            else:
                yield Output(value=found)

    def step(self, node: Mapping[str, Any]) -> Step:
        target = self.text(node.get("target"), "a node's target")
        if not listed(target):
            raise Unlisted(f"it calls {target[:100]!r}")
        self.targets.add(target)
        arguments: dict[str, Any] = {}
        for given in self.list(node.get("inputs"), "a node's inputs"):
            one = self.dict(given, "a node's input")
            name = self.text(one.get("name"), "the name of an argument")
            if name in arguments:
                self.bad("a node has two arguments of one name")
            arguments[name] = self.argument(one.get("arg"), 0)
        outputs = tuple([self.result(one, 0) for one in self.list(node.get("outputs"), "a node's outputs")])
        return Step(target=target, arguments=tuple(arguments.items()), outputs=outputs)

    # Names: given once, used after.

    def define(self, name: Any) -> str:
        text = self.text(name, "a name")
        if text in self.known:
            self.bad("a name is given twice")
        self.known.add(text)
        return text

    def use(self, name: Any) -> Ref:
        if not isinstance(name, str) or name not in self.known:
            self.bad("a value is used before it is there")
        return Ref(name)

    def tensor(self, value: Any) -> str:
        return self.text(self.dict(value, "a tensor").get("name"), "the name of a tensor")

    def result(self, value: Any, depth: int) -> Any:
        kind, inner = self.union(value, "an output")
        if kind == "as_none":
            return None
        if kind == "as_tensor":
            return self.define(self.tensor(inner))
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return self.define(self.dict(inner, "a size").get("as_name"))
        if kind == "as_tensors":
            return [self.define(self.tensor(one)) for one in self.list(inner, "an output")]
        raise Unlisted(f"a result is of the kind {kind[:40]!r}")

    # Arguments.

    def argument(self, value: Any, depth: int) -> Any:
        kind, inner = self.union(value, "an argument")
        if depth > MAX_DEPTH:
            self.bad("arguments are nested too deeply")
        if kind in _SCALARS:
            return self.scalar(kind, inner)
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return self.use(self.tensor(inner))
            case "as_tensors":
                return [self.use(self.tensor(one)) for one in self.list(inner, "tensors")]
            case "as_nested_tensors":
                lists = self.list(inner, "tensors")
                return [[self.use(self.tensor(one)) for one in self.list(part, "tensors")] for part in lists]
            case "as_optional_tensor":
                return self.argument(inner, depth + 1)
            case "as_optional_tensors":
                return [self.argument(one, depth + 1) for one in self.list(inner, "tensors")]
            case "as_ints" | "as_floats" | "as_bools" | "as_strings":
                return [self.scalar(kind[:-1], one) for one in self.list(inner, "values")]
            case "as_sym_int" | "as_sym_float" | "as_sym_bool":
                return self.symbolic(inner)
            case "as_sym_ints" | "as_sym_floats" | "as_sym_bools":
                return [self.symbolic(one) for one in self.list(inner, "sizes")]
            case "as_complex":
                parts = self.dict(inner, "a complex number")
                return complex(*(self.scalar("as_float", parts.get(part)) for part in ("real", "imag")))
            case "as_scalar_type":
                return self.named("dtype", schema.DTYPES, inner)
            case "as_memory_format":
                return self.named("memory_format", schema.FORMATS, inner)
            case "as_layout":
                return self.named("layout", {schema.STRIDED: "strided"}, inner)
            case "as_device":
                return Named("device", "")
        raise Unlisted(f"an argument is of the kind {kind[:40]!r}")

    def scalar(self, kind: str, value: Any) -> Any:
        if kind == "as_float" and value in _FLOATS:
            return _FLOATS[value]
        if type(value) not in _SCALARS[kind]:
            self.bad("an argument is not of the kind it says")
        if type(value) is int and not -(2**63) <= value < 2**64:
            self.bad("an argument is too large")
        return float(value) if kind == "as_float" else value

    def symbolic(self, value: Any) -> Any:
        kind, inner = self.union(value, "a size")
        return self.use(inner) if kind == "as_name" else self.scalar(kind if kind in _SCALARS else "as_int", inner)

    def named(self, kind: str, names: Mapping[int, str], value: Any) -> Named:
        name = names.get(self.integer(value))
        if name is None:
            raise Unlisted(f"an argument is an unknown {kind}")
        return Named(kind, name)

    def integer(self, value: Any) -> int:
        if type(value) is not int:
            self.bad("a number is no integer")
        return value

    def size(self, value: Any) -> int | str:
        kind, inner = self.union(value, "a size")
        if kind == "as_int":
            return self.integer(inner)
        text = self.dict(inner, "a size").get("expr_str")
        if not known_expression(text):
            raise Unlisted("a size is no arithmetic over sizes")
        return str(text)

    def expressions(self, part: Any, depth: int = 0) -> None:
        """Look at every expression below ``part``, wherever it is."""
        if depth > 64:
            self.bad("it is nested too deeply")
        if isinstance(part, dict):
            if "expr_str" in part and not known_expression(part["expr_str"]):
                raise Unlisted("a size is no arithmetic over sizes")
            for inner in part.values():
                self.expressions(inner, depth + 1)
        elif isinstance(part, list):
            for inner in part:
                self.expressions(inner, depth + 1)
