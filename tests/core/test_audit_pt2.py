"""Exported torch programs: what is of class graph, what only with a grant, what never. No torch is needed to say so."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.audits.pt2 import Unlisted, audit, inspect
from modelpack.audits.pt2_expressions import known_expression, known_guard
from modelpack.audits.pt2_operators import listed
from modelpack.errors import PackageError

BATCH = {"as_expr": {"expr_str": "Symbol('s77', positive=True, integer=True)", "hint": {"as_int": 3}}}


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def meta(*sizes: Any, dtype: int = 7) -> dict[str, Any]:
    strides, step = [], 1
    for size in reversed(sizes):
        strides.insert(0, {"as_int": step})
        step *= size if isinstance(size, int) else 1
    return {
        "dtype": dtype,
        "sizes": [{"as_int": size} if isinstance(size, int) else size for size in sizes],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": strides,
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }


def program() -> dict[str, Any]:
    """Return the program y = linear(x, w), as torch writes it."""
    node = {
        "target": "torch.ops.aten.linear.default",
        "inputs": [
            {"name": "input", "arg": tensor("x"), "kind": 1},
            {"name": "weight", "arg": tensor("p_w"), "kind": 1},
        ],
        "outputs": [tensor("y")],
        "metadata": {"stack_trace": "somewhere"},
        "is_hop_single_tensor_return": None,
        "name": "linear",
    }
    graph = {
        "inputs": [tensor("p_w"), tensor("x")],
        "outputs": [tensor("y")],
        "nodes": [node],
        "tensor_values": {"p_w": meta(2, 3), "x": meta(BATCH, 3), "y": meta(BATCH, 2)},
        "sym_int_values": {},
        "sym_bool_values": {},
        "is_single_tensor_return": False,
        "custom_obj_values": {},
        "sym_float_values": {},
    }
    signature = {
        "input_specs": [
            {"parameter": {"arg": {"name": "p_w"}, "parameter_name": "w"}},
            {"user_input": {"arg": tensor("x")}},
        ],
        "output_specs": [{"user_output": {"arg": tensor("y")}}],
    }
    return {
        "graph_module": {"graph": graph, "signature": signature, "module_call_graph": [], "metadata": {}},
        "opset_version": {"aten": 10},
        "range_constraints": {"s77": {"min_val": 0, "max_val": None}},
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["TRAINING"],
        "torch_version": "2.13.0",
        "guards_code": ["L['x'].size()[0] >= 2"],
    }


def weight(**more: Any) -> dict[str, Any]:
    return {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta(2, 3), **more}


def members() -> dict[str, bytes]:
    return {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"6\n",
        "models/model.json": json.dumps(program()).encode(),
        "data/weights/model_weights_config.json": json.dumps({"config": {"w": weight()}}).encode(),
        "data/weights/weight_0": bytes(24),
        "data/sample_inputs/model.pt": b"whatever: nobody reads it",
    }


def archive(found: dict[str, bytes], *, method: int = zipfile.ZIP_STORED, top: str = "model/") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        for name, content in found.items():
            out.writestr(zipfile.ZipInfo(top + name), content, method)
    return buffer.getvalue()


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    root = program()
    change(root)
    return archive({**members(), "models/model.json": json.dumps(root).encode()})


def with_weight(entry: Any, content: bytes = bytes(24)) -> bytes:
    config = json.dumps({"config": {"w": entry}}).encode()
    more = {"data/weights/model_weights_config.json": config, "data/weights/weight_0": content}
    return archive({**members(), **more})


class Files:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def view(self, path: str) -> bytes:
        return self.raw


def graph(root: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = root["graph_module"]["graph"]
    return found


def node(root: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = graph(root)["nodes"][0]
    return found


def test_a_plain_program_is_a_graph() -> None:
    found = audit(Files(archive(members())), "m.pt2")
    assert (found.trust, found.types, found.reasons) == ("graph", ("torch.ops.aten.linear.default",), ())


def test_the_program_is_told_whole() -> None:
    found = inspect(archive(members()), "m.pt2")
    x = found.program.inputs[1]
    assert (x.name, x.kind, x.dtype, x.shape[1]) == ("x", "user", "float32", 3)
    assert found.program.steps[0].outputs == ("y",)
    assert (found.weights["w"].shape, bytes(found.weights["w"].data)) == ((2, 3), bytes(24))


def test_members_of_any_one_directory_are_taken() -> None:
    assert audit(Files(archive(members(), top="archive/")), "m.pt2").trust == "graph"


def without(name: str) -> bytes:
    found = members()
    del found[name]
    return archive(found)


def arg(value: Any) -> Callable[[dict[str, Any]], Any]:
    """Return the change that gives the node one more argument."""
    return lambda root: node(root)["inputs"].append({"name": "more", "arg": value, "kind": 1})


CODE = {
    "an operator of another library": changed(lambda r: node(r).update(target="torch.ops.custom.linear.default")),
    "an operator that is not listed": changed(lambda r: node(r).update(target="torch.ops.aten.from_file.default")),
    "uninitialised memory": changed(lambda r: node(r).update(target="torch.ops.aten.empty.memory_format")),
    "a result given by the caller": changed(lambda r: node(r).update(target="torch.ops.aten.add.out")),
    "a function of Python": changed(lambda r: node(r).update(target="math.gcd")),
    "a higher-order operator": changed(lambda r: node(r).update(target="torch.ops.higher_order.cond")),
    "an extension's operator": changed(lambda r: node(r).update(target="#name:op")),
    "a deeper path": changed(lambda r: node(r).update(target="torch.ops.aten.add.Tensor.more")),
    "an object of another class": changed(lambda r: graph(r).update(custom_obj_values={"o": {"name": "o"}})),
    "an argument that is an object": changed(arg({"as_custom_obj": {"name": "o", "class_fqn": "c"}})),
    "an argument that is a graph": changed(arg({"as_graph": {"name": "g", "graph": {}}})),
    "an argument that is an operator": changed(arg({"as_operator": "torch.ops.aten.add.Tensor"})),
    "an unknown dtype": changed(arg({"as_scalar_type": 99})),
    "a sparse layout": changed(arg({"as_layout": 1})),
    "an input that is an object": changed(
        lambda r: r["graph_module"]["signature"]["input_specs"].append({"custom_obj": {"arg": {"name": "o"}}})
    ),
    "an input that is no tensor": changed(
        lambda r: r["graph_module"]["signature"]["input_specs"].append({"user_input": {"arg": {"as_int": 1}}})
    ),
    "a changed weight": changed(
        lambda r: r["graph_module"]["signature"]["output_specs"].append({"buffer_mutation": {"arg": {"name": "y"}}})
    ),
    "an expression that is a call": changed(
        lambda r: graph(r)["tensor_values"]["x"]["sizes"].__setitem__(0, {"as_expr": {"expr_str": "print(1)"}})
    ),
    "such an expression elsewhere": changed(
        lambda r: graph(r)["sym_int_values"].update(s={"as_expr": {"expr_str": "Symbol('s1').name"}})
    ),
    "a guard that is a call": changed(lambda r: r.update(guards_code=["print(1)"])),
    "guards that are no list": changed(lambda r: r.update(guards_code={"L": 1})),
    "a newer schema": changed(lambda r: r.update(schema_version={"major": 8, "minor": 21})),
    "another schema": changed(lambda r: r.update(schema_version={"major": 9, "minor": 0})),
    "a pickled weight": with_weight(weight(use_pickle=True)),
    "a weight that does not say how": with_weight({"path_name": "weight_0", "tensor_meta": meta(2, 3)}),
    "a weight of another place": with_weight(weight(path_name="opaque_obj_0")),
    "a weight of an unknown type": with_weight(weight(tensor_meta=meta(2, 3, dtype=36))),
    "a member of its own": archive({**members(), "extra/notes": b"marker"}),
    "a compiled model": archive({**members(), "data/aotinductor/model/model.so": b"marker"}),
    "an object beside the constants": archive({**members(), "data/constants/custom_obj_0": b"marker"}),
    "two programs": archive({**members(), "models/other.json": b"{}"}),
    "the older layout": archive({"version": b"6", "serialized_exported_program.json": b"{}", "byteorder": b"little"}),
    "big-endian numbers": archive({**members(), "byteorder": b"big"}),
    "no byte order": without("byteorder"),
    "a strange version": archive({**members(), "archive_version": b"0; marker"}),
}


@pytest.mark.parametrize("name", CODE)
def test_what_is_not_listed_is_class_code_with_its_reason(name: str) -> None:
    found = audit(Files(CODE[name]), "m.pt2")
    assert found.trust == "code"
    assert found.reasons[0].startswith("a torch program with more than listed operators: ")
    with pytest.raises(Unlisted):
        inspect(CODE[name], "m.pt2")


def doubled() -> bytes:
    buffer = io.BytesIO(archive(members()))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(buffer, "a") as out:
        out.writestr(zipfile.ZipInfo("model/byteorder"), b"little")
    return buffer.getvalue()


def patched(before: bytes, after: bytes, count: int = -1) -> bytes:
    raw = archive(members())
    assert before in raw
    return raw.replace(before, after, count)


def moved() -> bytes:
    """Let the listing name other bytes than the header in front of a member."""
    raw = bytearray(archive(members()))
    place = raw.rindex(b"model/data/weights/weight_0")
    # The offset of the header is the last field in front of the name.
    raw[place - 4 : place] = struct.pack("<I", struct.unpack("<I", raw[place - 4 : place])[0] + 1)
    return bytes(raw)


REFUSED = {
    "no zip": (b"not a zip file", "no zip file"),
    "bytes in front": (b"front" + archive(members()), "before or after"),
    "bytes behind": (archive(members()) + b"behind", "before or after"),
    "two members of one name": (doubled, "two members"),
    "a compressed member": (archive(members(), method=zipfile.ZIP_DEFLATED), "compressed"),
    "two directories": (archive({"a/x": b"", "b/y": b""}, top=""), "not in one directory"),
    "a path out of it": (archive({**members(), "../x": b""}), "plain path"),
    "a header of another name": (patched(b"model/byteorder", b"model/byteordur", 1), "differs from the listing"),
    "a member elsewhere": (moved, "differs from the listing|not where"),
    "no JSON": (archive({**members(), "models/model.json": b"{"}), "not JSON"),
    "a key twice": (archive({**members(), "models/model.json": b'{"a":1,"a":2}'}), "repeats a key"),
    "no version": (changed(lambda r: r.pop("schema_version")), "no schema version"),
    "no graph": (changed(lambda r: r.pop("graph_module")), "graph_module is no object"),
    "nodes that are no list": (changed(lambda r: graph(r).update(nodes={})), "nodes is no list"),
    "a value before it is there": (changed(arg({"as_tensor": {"name": "later"}})), "used before"),
    "a value given twice": (changed(lambda r: node(r)["outputs"].append(tensor("x"))), "given twice"),
    "an argument given twice": (changed(lambda r: node(r)["inputs"].append(node(r)["inputs"][0])), "two arguments"),
    "an argument of two kinds": (changed(arg({"as_int": 1, "as_float": 1.0})), "not of one kind"),
    "a number that is text": (changed(arg({"as_int": "1"})), "kind it says"),
    "a number out of range": (changed(arg({"as_int": 2**64})), "too large"),
    "arguments nested too deeply": (
        changed(arg(json.loads('{"as_optional_tensor":' * 30 + '{"as_none":true}' + "}" * 30))),
        "nested too deeply",
    ),
    "a weight that is not there": (with_weight(weight(path_name="weight_7")), "has no member"),
    "no weight of that name": (
        archive({**members(), "data/weights/model_weights_config.json": b'{"config":{}}'}),
        "not in the file",
    ),
    "a weight longer than its bytes": (with_weight(weight(), bytes(20)), "larger than its bytes"),
    "a weight of half a number": (with_weight(weight(), bytes(25)), "larger than its bytes"),
    "strides past the end": (
        with_weight(weight(tensor_meta={**meta(2, 3), "strides": [{"as_int": 9}, {"as_int": 1}]})),
        "larger than its bytes",
    ),
    "strides backwards": (
        with_weight(weight(tensor_meta={**meta(2, 3), "strides": [{"as_int": -1}, {"as_int": 1}]})),
        "size of a tensor",
    ),
    "an offset past the end": (
        with_weight(weight(tensor_meta={**meta(2, 3), "storage_offset": {"as_int": 1}})),
        "larger than its bytes",
    ),
    "a size that is huge": (with_weight(weight(tensor_meta=meta(2**50, 2**50))), "size of a tensor"),
    "sizes and strides of different length": (
        with_weight(weight(tensor_meta={**meta(2, 3), "strides": [{"as_int": 1}]})),
        "another number of strides",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_contradicts_itself_is_refused(name: str) -> None:
    raw, message = REFUSED[name]
    with pytest.raises(PackageError, match=message) as info:
        audit(Files(raw() if callable(raw) else raw), "m.pt2")
    assert (info.value.code, info.value.path) == ("payload-invalid", "m.pt2")


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0', positive=True, integer=True))",
        "Max(1, u3)",
        "2*s0 + s1//2 - 1",
        "FloorDiv(s0, 2)",
        "Eq(s0, 3)",
    ],
)
def test_arithmetic_over_sizes_is_known(text: str) -> None:
    assert known_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "name", "print(1)", "Symbol('name')", "Symbol(s0)", "s0.real", "s0[0]", "[s0]", "(lambda: 1)()", "f'{s0}'",
        "Symbol('s0', positive=print(1))", "Add(*s0)", "Add(1, evaluate=s0)", "Integer('x')", "s0 if s1 else s2",
        "s0\x00", "1 +", "s0 " * 5000, 7, None, "__import__('marker')", "Symbol.mro()", "(" * 300 + ")" * 300,
    ],
)  # fmt: skip
def test_nothing_else_is(text: object) -> None:
    assert not known_expression(text)


def test_guards_are_conditions_on_sizes() -> None:
    assert known_guard("L['x'].size()[0] == L['y'].size()[0]")
    assert known_guard("2 <= L['args'][0].size()[1] and L['x'].stride()[0] % 8 == 0")
    for text in ("x", "L['x'].size(print(1))", "L['x'].mro()", "print(L)", "L['x'].size()[0].real", 1):
        assert not known_guard(text)


def test_in_place_forms_are_listed_and_outputs_of_the_caller_are_not() -> None:
    assert listed("torch.ops.aten.relu_.default")
    assert listed("torch.ops.aten.lstm.input")
    assert listed("_operator.mul")
    for target in (
        "torch.ops.aten.lstm.data", "torch.ops.aten.max.dim_max_out", "torch.ops.aten.set_.default", "relu", "",
        "torch.ops.aten.as_strided.default", "torch.ops.aten.resize_.default", "torch.ops.aten.relu", "torch.load",
        "_operator.attrgetter", "_operator.call", "torch.ops.prims.add.default", "torch.ops.aten._print.default",
    ):  # fmt: skip
        assert not listed(target)


def test_depth_of_the_whole_is_bounded() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"x": deep}
    with pytest.raises(PackageError, match="nested too deeply"):
        audit(Files(changed(lambda r: graph(r).update(more=copy.deepcopy(deep)))), "m.pt2")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_damage_to_the_file_is_more_than_an_error(data: st.DataObject) -> None:
    raw = bytearray(archive(members()))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(raw)))
    for one in (bytes(raw), bytes(raw[:cut])):
        try:
            assert audit(Files(one), "m.pt2").trust in ("graph", "code")
        except PackageError as exc:
            assert exc.code == "payload-invalid"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "arg", "as_tensor", "as_int", "as_ints", "dtype"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_to_the_program_is_more_than_an_error(data: st.DataObject) -> None:
    """Put any JSON at any place of the program, and at any place of the weights' listing."""
    root, config = program(), {"config": {"w": weight()}}
    part: Any = data.draw(st.sampled_from([root, config]))
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = data.draw(st.sampled_from(keys))
        inner = part[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            part[key] = data.draw(JSON)
            break
        part = inner
    raw = archive(
        {
            **members(),
            "models/model.json": json.dumps(root).encode(),
            "data/weights/model_weights_config.json": json.dumps(config).encode(),
        }
    )
    try:
        assert audit(Files(raw), "m.pt2").trust in ("graph", "code")
    except PackageError as exc:
        assert exc.code == "payload-invalid"


def steps(*nodes: dict[str, Any]) -> bytes:
    return changed(lambda root: graph(root)["nodes"].extend(nodes))


def call(target: str, arguments: dict[str, Any], *outputs: Any) -> dict[str, Any]:
    inputs = [{"name": name, "arg": value, "kind": 1} for name, value in arguments.items()]
    return {"target": target, "inputs": inputs, "outputs": list(outputs), "metadata": {}}


def test_every_kind_of_argument_and_result_is_read() -> None:
    raw = steps(
        call(
            "torch.ops.aten.sym_size.int", {"self": tensor("x"), "dim": {"as_int": 0}}, {"as_sym_int": {"as_name": "n"}}
        ),
        call(
            "torch.ops.aten.full.default",
            {
                "size": {"as_sym_ints": [{"as_name": "n"}, {"as_int": 3}]},
                "fill_value": {"as_float": "Infinity"},
                "dtype": {"as_scalar_type": 7},
                "layout": {"as_layout": 7},
                "device": {"as_device": {"type": "cuda", "index": 1}},
                "memory_format": {"as_memory_format": 1},
                "pin_memory": {"as_bool": False},
            },
            tensor("full"),
        ),
        call(
            "torch.ops.aten.index.Tensor",
            {
                "self": tensor("x"),
                "indices": {"as_optional_tensors": [{"as_none": True}, tensor("y")]},
                "more": {"as_optional_tensor": tensor("y")},
                "lists": {"as_nested_tensors": [[{"name": "x"}], []]},
                "floats": {"as_floats": [1, 2.5]},
                "texts": {"as_strings": ["a"]},
                "complex": {"as_complex": {"real": 1, "imag": -2.0}},
                "size": {"as_sym_int": {"as_int": 2}},
            },
            {"as_none": True},
        ),
        call("torch.ops.aten.split.Tensor", {"self": tensor("x")}, {"as_tensors": [{"name": "a"}, {"name": "b"}]}),
    )
    found = inspect(raw, "m.pt2").program
    full, index, split = (dict(step.arguments) for step in found.steps[2:])
    assert full["fill_value"] == float("inf")
    assert [str(part) for part in full["size"]] == ["Ref(name='n')", "3"]
    assert [full[name].name for name in ("dtype", "layout", "device", "memory_format")] == [
        "float32", "strided", "", "contiguous_format",
    ]  # fmt: skip
    assert (index["complex"], index["size"], index["floats"], index["texts"]) == (1 - 2j, 2, [1.0, 2.5], ["a"])
    assert [step.outputs for step in found.steps[3:]] == [(None,), (["a", "b"],)]
    assert split["self"].name == "x"


def signature(**more: Any) -> bytes:
    """Return a program with one more input and one more output."""

    def change(root: dict[str, Any]) -> None:
        for key, value in more.items():
            root["graph_module"]["signature"][key].append(value)

    return changed(change)


def test_inputs_of_all_kinds_are_read() -> None:
    raw = signature(input_specs={"constant_input": {"name": "scale", "value": {"as_float": 2.0}}})
    assert [one.kind for one in inspect(raw, "m").program.inputs] == ["weight", "user", "fixed"]
    fixed = signature(output_specs={"user_output": {"arg": {"as_none": True}}})
    assert [one.value is None for one in inspect(fixed, "m").program.outputs] == [False, True]
    missing = signature(
        input_specs={"buffer": {"arg": {"name": "b_k"}, "buffer_name": "k", "persistent": False}},
    )
    with pytest.raises(PackageError, match="not in the file"):
        inspect(missing, "m")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (signature(output_specs={"loss_output": {"arg": {"name": "y"}}}), "of the kind 'loss_output'"),
        (signature(input_specs={"token": {"arg": {"name": "t"}}}), "of the kind 'token'"),
        (steps(call("torch.ops.aten.relu.default", {"self": tensor("x")}, {"as_token": {"name": "t"}})), "a result is"),
        (changed(lambda r: graph(r)["tensor_values"]["x"].update(dtype=99)), "unknown type"),
    ],
)
def test_other_kinds_are_class_code(raw: bytes, message: str) -> None:
    with pytest.raises(Unlisted, match=message):
        inspect(raw, "m")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (changed(lambda r: node(r).update(target=7)), "target is no text"),
        (changed(lambda r: graph(r)["tensor_values"]["x"].update(dtype="float")), "no integer"),
        (with_weight({"path_name": 7}), "no place"),
        (with_weight(weight(tensor_meta={**meta(2, 3), "sizes": {}})), "are no list"),
        (archive({**members(), "data/weights/model_weights_config.json": b'{"config":[]}'}), "has no config"),
    ],
)
def test_other_shapes_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        inspect(raw, "m")
