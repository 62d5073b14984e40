"""Whole numbers divided in ONNX graphs: no graph that loads without a grant ends the process, whatever it is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import modelpack
from modelpack.audits import onnx_graph
from modelpack.errors import TrustError
from modelpack_flavors._onnx import sessions

F32, I8, I32, I64, U8 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8
node, value = helper.make_node, helper.make_tensor_value_info
LEAST = -(2**63)


def constant(name: str, numbers: Any, dtype: str = "int64") -> Any:
    return numpy_helper.from_array(np.array(numbers, dtype), name)


def made(
    inputs: dict[str, int], nodes: list[Any], constants: tuple[Any, ...] = (), *, said: Any = (), functions: Any = ()
) -> bytes:
    """Return a model whose output is ``c``, of whatever type it is."""
    graph = helper.make_graph(
        nodes, "g", [value(name, kind, None) for name, kind in inputs.items()], [onnx.ValueInfoProto(name="c")],
        constants, value_info=said,
    )  # fmt: skip
    sets = [helper.make_opsetid("", 18), *[helper.make_opsetid("own", 1)] * bool(functions)]
    model: bytes = helper.make_model(graph, ir_version=8, opset_imports=sets, functions=functions).SerializeToString()
    return model


def div(first: str = "a", second: str = "b", out: str = "c", kind: str = "Div") -> Any:
    return node(kind, [first, second], [out], name="the division")


def branch(*nodes: Any, constants: Any = ()) -> Any:
    return helper.make_graph(list(nodes), "branch", [], [onnx.ValueInfoProto(name="d")], constants)


def choice(then: Any, other: Any) -> list[Any]:
    return [
        node("Constant", [], ["t"], value=constant("t", True, "bool")),
        node("If", ["t"], ["c"], then_branch=then, else_branch=other),
    ]


AB, SHAPES = {"a": I64, "b": I64}, [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["b"])]
ZERO = constant("zero", [0])
TRAPS: dict[str, bytes] = {
    "two inputs": made(AB, [div()]),
    "of 32 bits": made({"a": I32, "b": I32}, [div()]),
    "a remainder": made(AB, [div(kind="Mod")]),
    "by -1": made({"a": I64}, [div()], (constant("b", [5, -1]),)),
    "by -1 in more digits than it has": made(
        {"a": I32}, [div()], (onnx.TensorProto(name="b", data_type=I32, dims=[1], int32_data=[-1]),)
    ),
    "the least number": made({"b": I64}, [div()], (constant("a", [LEAST]),)),
    "both constant": made({}, [div()], (constant("a", [LEAST]), constant("b", [-1]))),
    "of a type not known": made(
        {"a": F32}, [node("Odd", ["a"], ["q", "r"], domain="com.microsoft"), div("q", "r")]
    ),
    "sizes that were multiplied": made(
        {"a": I64, "x": F32}, [node("Shape", ["x"], ["s"]), node("Mul", ["s", "s"], ["b"]), div()]
    ),
    "sizes as 32 bits": made(
        {"a": I32, "x": F32}, [node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["b"], to=I32), div()]
    ),
    "sizes that were negated": made(
        {"a": I64, "x": F32}, [node("Shape", ["x"], ["s"]), node("Neg", ["s"], ["b"]), div()]
    ),
    "in a branch": made(AB, choice(branch(div(out="d")), branch(node("Identity", ["a"], ["d"])))),
    "by what has a constant's name outside": made(
        AB,
        choice(
            branch(node("Neg", ["b"], ["k"]), div("a", "k", "d")), branch(node("Identity", ["a"], ["d"]))
        ),
        (constant("k", [3]),),
    ),
    "in a function": made(
        AB,
        [node("F", ["a", "b"], ["c"], domain="own")],
        functions=[
            helper.make_function("own", "F", ["p", "q"], ["r"], [div("p", "q", "r")], [helper.make_opsetid("", 18)])
        ],
    ),
}  # fmt: skip
SAFE: dict[str, bytes] = {
    "floats": made({"a": F32, "b": F32}, [div()]),
    "floats on their way": made(
        {"x": F32, "a": I64},
        [node("Cast", ["a"], ["f"], to=F32), node("Exp", ["f"], ["e"]), node("ReduceSum", ["e"], ["s"]), div("e", "s")],
    ),
    "floats by what was compared": made(
        {"a": F32, "x": F32},
        [
            node("Greater", ["a", "x"], ["g"]),
            node("Where", ["g", "a", "x"], ["w"]),
            node("Abs", ["w"], ["q"]),
            div("q", "w"),
        ],
    ),
    "small numbers": made({"a": I8, "b": I8}, [div()]),
    "numbers without a sign": made({"a": U8, "b": U8}, [div()]),
    "by a constant": made({"a": I64}, [div()], (constant("b", [3, -2]),)),
    "by a constant of a node": made({"a": I64}, [node("Constant", [], ["b"], value_ints=[3, 4]), div()]),
    "one by anything": made({"b": I64}, [div()], (constant("a", [1]),)),
    "by sizes": made({"a": I64, "x": F32}, [*SHAPES, div()], (ZERO,)),
    "sizes by anything": made({"a": I64, "x": F32}, [*SHAPES, div("b", "a")], (ZERO,)),
    "sizes side by side": made(
        {"a": I64, "x": F32},
        [*SHAPES, node("Concat", ["b", "two"], ["k"], axis=0), div("a", "k")],
        (ZERO, constant("two", [2])),
    ),
    "a remainder as of floats": made(AB, [node("Mod", ["a", "b"], ["c"], fmod=1)]),
    "a branch of floats": made(
        {"a": F32, "b": F32}, choice(branch(div(out="d")), branch(node("Identity", ["a"], ["d"])))
    ),
}  # fmt: skip

RUN = """
import itertools, sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
session = onnxruntime.InferenceSession(open(sys.argv[1], "rb").read(), options, providers=["CPUExecutionProvider"])
kinds = {"float": "f4", "int64": "i8", "int32": "i4", "int8": "i1", "uint8": "u1"}
given = session.get_inputs()
for numbers in itertools.product([None, -1, 0, 1], repeat=len(given)):
    feeds = {}
    for one, number in zip(given, numbers):
        kind = np.dtype(kinds[one.type[7:-1]])
        least = np.iinfo(kind).min if kind.kind in "iu" else -(2.0**63)
        feeds[one.name] = np.full(2, least if number is None else abs(number) if kind.kind == "u" else number, kind)
    try:
        session.run(None, feeds)
    except Exception as exc:
        assert "by zero" in str(exc), exc
print("alive")
"""


def facts(model: bytes) -> onnx_graph.Facts:
    return onnx_graph.inspect(model, "m.onnx", {})


@pytest.mark.parametrize("model", TRAPS.values(), ids=TRAPS)
def test_a_graph_that_may_divide_the_least_number_is_code_and_names_the_node(model: bytes) -> None:
    class Files:
        read = staticmethod(lambda path: model)
        paths = staticmethod(lambda: ["m.onnx"])
        size = staticmethod(lambda path: len(model))

    found = onnx_graph.audit(Files(), "m.onnx")
    assert found.trust == "code"
    assert "'the division' may divide the least whole number by -1" in found.reasons[0]


@pytest.mark.parametrize("model", SAFE.values(), ids=SAFE)
def test_a_graph_that_cannot_is_no_code_and_survives_everything(model: bytes, tmp_path: Path) -> None:
    assert facts(model).traps == ()
    (tmp_path / "m.onnx").write_bytes(model)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "m.onnx")], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


@pytest.mark.parametrize(
    ("name", "release"),
    [("by sizes", "1.25"), ("numbers without a sign", "1.25"), ("floats", "1.14"), ("by a constant", "1.14")],
)
def test_what_may_divide_by_zero_needs_a_release_that_refuses_to(name: str, release: str) -> None:
    assert sessions.needs(facts(SAFE[name])) == release


def test_types_that_a_graph_declares_are_what_onnxruntime_makes_of_it() -> None:
    """Or it does not load: nobody can call whole numbers floats."""
    for said in (value("q", F32, None), value("c", F32, None)):
        model = made(AB, [node("Neg", ["a"], ["q"]), div("q", "b")], said=[said])
        with pytest.raises(Exception, match="Type"):
            sessions.open_session(facts(model), model, {})


def test_such_a_graph_of_others_loads_with_a_grant_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(TRAPS["two inputs"])
    package = modelpack.save(tmp_path / "m.onnx", tmp_path / "pkg")
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "nobody"))
    with pytest.raises(TrustError, match="'the division' may divide the least whole number by -1"):
        modelpack.load(package.path)
    model = modelpack.load(package.path, allow_code=package.digest)
    assert np.asarray(model.predict({"a": 7, "b": -2})).tolist() == -3
