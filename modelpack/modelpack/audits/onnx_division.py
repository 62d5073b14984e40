"""Divisions of whole numbers in ONNX graphs: some end the process, the least number by -1 and, in old releases, by 0.

What is known of a value is its element type, its numbers if they are constant, and whether it is a size, which is never
negative. Types that a graph declares are believed: onnxruntime compares them with what it infers before it runs a node.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from modelpack.audits import onnx_schema as schema
from modelpack.audits import onnx_tensors
from modelpack.audits.onnx_wire import Field, Message

__all__ = ["DIVIDE", "Divisions", "divisions"]

Parse = Callable[[memoryview, Mapping[int, Field]], Message]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DIVIDE = frozenset({"Div", "Mod"})
_FLOAT, _INT64, _BOOL = 1, 7, 9
_FLOATS = frozenset({1, 10, 11, 16})
# Of the others, the result is computed in a wider type, or has no sign.
_LEAST: Mapping[int, tuple[int, ...]] = {6: (-(2**31),), 7: (-(2**63),), 0: (-(2**31), -(2**63))}

_WHOLE: Mapping[int, str] = {
    2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 12: "uint32", 13: "uint64",
}  # fmt: skip

# Operators whose first output has the type of the first input.
_ALIKE = _words("""
    Abs Acos Acosh Add ArrayFeatureExtractor Asin Asinh Atan Atanh AveragePool BatchNormalization BiasGelu Binarizer
    BitShift Ceil Celu CenterCropPad Clip Compress Concat Conv ConvTranspose Cos Cosh CumSum DepthToSpace Det Div
    Dropout Einsum Elu Erf Exp Expand FastGelu Flatten Floor FusedMatMul GRU Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalMaxPool GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity Imputer
    InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool
    Mean MeanVarianceNormalization Min Mish Mod Mul Neg PRelu Pad Pow QuickGelu RMSNormalization RNN Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize ReverseSequence RoiAlign Round ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh
    SimplifiedLayerNormalization SkipLayerNormalization Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze
    Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose TreeEnsemble Trilu Unique Unsqueeze Upsample
""")
_TRUTHS = _words("And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor")
_COUNTS = _words("ArgMax ArgMin NonZero Shape Size")
# Of ai.onnx.ml: answers that are floats whatever goes in.
_SCORES = _words("""
    FeatureVectorizer LinearRegressor Normalizer OneHotEncoder SVMRegressor Scaler TreeEnsembleRegressor
""")
_CLASSIFIERS = _words("LinearClassifier SVMClassifier TreeEnsembleClassifier")
# Operators that have the type of another input: of all numbers of one scale, of a choice, of what is set.
_AS_INPUT: Mapping[str, int] = {"CastLike": 1, "DequantizeLinear": 1, "OneHot": 2, "Where": 1}
# Operators that move numbers and make none.
_MOVE = _words("""
    Compress Concat Expand Flatten Gather GatherElements GatherND Identity Max Min Reshape Slice Split Squeeze Tile
    Transpose Unsqueeze
""")
# Of these all inputs are moved, of the others the first.
_ALL_MOVED = frozenset({"Concat", "Max", "Min"})


@dataclass(frozen=True, slots=True)
class _Known:
    element: int = 0
    numbers: Any = None
    size: bool = False

    @property
    def natural(self) -> bool:
        """Whether no number is negative."""
        return self.size or (self.element == _INT64 and self.numbers is not None and not (self.numbers < 0).any())

    def may_be(self, *numbers: int) -> bool:
        """Say whether one of these numbers, of which none is positive, may be among the values."""
        if self.numbers is not None:
            return any(bool((self.numbers == number).any()) for number in numbers)
        return not self.size or 0 in numbers


_NOTHING = _Known()
Scope = ChainMap[str, _Known]


@dataclass(slots=True)
class Divisions:
    """What was found: names of nodes that may divide the least number by -1, and whether one may divide by 0."""

    least: list[str] = field(default_factory=list)
    zero: bool = False


def divisions(model: Message, parse: Parse) -> Divisions:
    """Return what may go wrong where a model, whose parts have been audited, divides whole numbers."""
    found = Divisions()
    walk = _Walk(parse, found)
    walk.graph(parse(model.view("graph"), schema.GRAPH), None)
    for part in model.many("functions"):
        # Nobody compares the types that a function says its values have: it may be called with others.
        walk.nodes(parse(part, schema.FUNCTION).many("node"), {}, ChainMap())
    return found


@dataclass(slots=True)
class _Walk:
    parse: Parse
    found: Divisions

    def graph(self, graph: Message, outer: Scope | None) -> None:
        """Walk a graph inside another, of which it sees what is known there, or (None) one that is the whole."""
        inputs = dict(self.declared(graph.many("input")))
        declared = {**inputs, **dict(self.declared([*graph.many("output"), *graph.many("value_info")]))}
        known: Scope = ChainMap() if outer is None else outer.new_child()
        known.update({name: _Known(element) for name, element in declared.items()})
        for part in graph.many("initializer"):
            tensor = self.parse(part, schema.TENSOR)
            name = tensor.text("name")
            # What is given to an inner graph may take the place of its constants.
            known[name] = _Known(tensor.int("data_type")) if outer is not None and name in inputs else _constant(tensor)
        self.nodes(graph.many("node"), declared, known)

    def declared(self, parts: Iterable[memoryview]) -> Iterator[tuple[str, int]]:
        """Yield the names of values and the element types that the graph says they have."""
        for part in parts:
            value = self.parse(part, schema.VALUE)
            kind = self.parse(value.view("type"), schema.TYPE)
            if kind.has("tensor_type"):
                tensor = self.parse(kind.view("tensor_type"), schema.TENSOR_TYPE)
                yield value.text("name"), tensor.int("elem_type")
            else:
                yield value.text("name"), 0

    def nodes(self, parts: Iterable[memoryview], declared: Mapping[str, int], known: Scope) -> None:
        """Walk nodes in their order, adding what is known of their outputs."""
        nodes = [self.parse(part, schema.NODE) for part in parts]
        # Whatever has that name outside, or is computed out of order, is not what it is here.
        known.update({name: _Known(declared.get(name, 0)) for node in nodes for name in node.many("output")})
        for node in nodes:
            attributes = {one.text("name"): one for one in self._attributes(node)}
            for one in attributes.values():
                for inner in [one.view("g")] if one.has("g") else one.many("graphs"):
                    self.graph(self.parse(inner, schema.GRAPH), known)
            given = [known.get(name, _NOTHING) for name in node.many("input")]
            outputs = node.many("output")
            said = next((declared[name] for name in outputs[:1] if declared.get(name)), 0)
            if node.text("op_type") in DIVIDE and node.text("domain") in ("", "ai.onnx"):
                self._judge(node, attributes, given, said)
            for place, name in enumerate(outputs):
                made = self._made(node, attributes, given, place)
                known[name] = replace(made, element=declared.get(name) or made.element)

    def _attributes(self, node: Message) -> Iterator[Message]:
        return (self.parse(part, schema.ATTRIBUTE) for part in node.many("attribute"))

    def _judge(self, node: Message, attributes: Mapping[str, Message], given: list[_Known], said: int) -> None:
        first, second = given if len(given) == 2 else (_NOTHING, _NOTHING)
        element = first.element or second.element or said
        if element in _FLOATS or (node.text("op_type") == "Mod" and "fmod" in attributes and _int(attributes["fmod"])):
            return
        if second.may_be(0):
            self.found.zero = True
        if element in _LEAST and second.may_be(-1) and first.may_be(*_LEAST[element]):
            name = node.text("name") or next(iter(node.many("output")), "")
            self.found.least.append(f"{node.text('op_type')} {name!r:.80}")

    def _made(self, node: Message, attributes: Mapping[str, Message], given: list[_Known], place: int) -> _Known:
        """Return what is known of one output of a node."""
        kind, domain = node.text("op_type"), node.text("domain")
        first = given[0] if given else _NOTHING
        if domain not in ("", "ai.onnx"):
            return _Known(_foreign(kind, first, place))
        if place:
            if kind == "Split":
                return _Known(first.element, size=first.natural)
            return _Known(first.element if kind in ("BatchNormalization", "GRU", "LSTM", "RNN") else 0)
        if kind in _COUNTS:
            return _Known(_INT64, size=True)
        if kind in _TRUTHS:
            return _Known(_BOOL)
        if kind in _AS_INPUT:
            return _Known(given[_AS_INPUT[kind]].element if len(given) > _AS_INPUT[kind] else 0)
        if kind in ("Cast", "Constant", "ConstantOfShape"):
            return self._set(kind, attributes, first)
        if kind in _ALIKE:
            moved = given if kind in _ALL_MOVED else given[:1]
            natural = kind in _MOVE and bool(moved) and all(one.natural for one in moved)
            divided = kind in DIVIDE and len(given) == 2 and all(one.natural for one in given)
            return _Known(first.element, size=first.element in (0, _INT64) and (natural or divided))
        return _NOTHING

    def _set(self, kind: str, attributes: Mapping[str, Message], first: _Known) -> _Known:
        """Return what is known of a value whose type is an attribute."""
        if kind == "Cast":
            element = _int(attributes["to"]) if "to" in attributes else 0
            return _Known(element, size=first.size and element == first.element == _INT64)
        for name, one in attributes.items():
            if one.text("ref_attr_name"):
                return _NOTHING
            if name == "value" and one.has("t"):
                tensor = _constant(self.parse(one.view("t"), schema.TENSOR))
                return tensor if kind == "Constant" else _Known(tensor.element, tensor.numbers)
            if name in ("value_int", "value_ints"):
                numbers = np.array([_int(one)], np.int64) if name == "value_int" else one.array("ints")
                return _Known(_INT64, numbers)
            if name in ("value_float", "value_floats"):
                return _Known(_FLOAT)
        return _Known(_FLOAT) if kind == "ConstantOfShape" else _NOTHING


def _foreign(kind: str, first: _Known, place: int) -> int:
    if kind in _SCORES:
        return _FLOAT
    if kind in _CLASSIFIERS:
        return _FLOAT if place else 0
    return first.element if kind in _ALIKE and not place else 0


def _int(attribute: Message) -> int:
    return attribute.int("i")


def _constant(tensor: Message) -> _Known:
    """Return what a tensor holds, if it is whole numbers that lie in the model's own file."""
    element = tensor.int("data_type")
    if element not in _WHOLE:
        return _Known(element)
    numbers = onnx_tensors.numbers(tensor)
    # What is written with more digits than the type has is cut when it is read.
    return _Known(element, None if numbers is None else np.asarray(numbers).astype(_WHOLE[element]))
