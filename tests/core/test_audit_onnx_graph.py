"""What the audit of ONNX models takes and refuses; the onnx library is the oracle for what a file says."""

from __future__ import annotations

import copy
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelpack.audits import onnx_graph, onnx_schema, onnx_wire
from modelpack.errors import PackageError

FOLDERS = [Path(onnx.__file__).parent / "backend/test/data"]
REAL = sorted(path for folder in FOLDERS for path in folder.rglob("*.onnx"))
VALUE = helper.make_tensor_value_info
ML = "ai.onnx.ml"


class Files:
    """A payload in memory."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("_", "."): data for name, data in files.items()}

    def read(self, path: str) -> bytes:
        return self.files[path]

    def paths(self) -> list[str]:
        return sorted(self.files)

    def size(self, path: str) -> int:
        return len(self.files[path])


def inspect(model: Any, others: Mapping[str, int] | None = None) -> onnx_graph.Facts:
    raw = model if isinstance(model, bytes) else model.SerializeToString()
    return onnx_graph.inspect(raw, "model.onnx", others or {})


def refused(model: Any, match: str, others: Mapping[str, int] | None = None) -> None:
    with pytest.raises(PackageError, match=match) as info:
        inspect(model, others)
    assert (info.value.code, info.value.path) == ("payload-invalid", "model.onnx")


def model_of(*nodes: Any, tensors: Any = (), opsets: Any = (("", 18), (ML, 3)), functions: Any = ()) -> Any:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [VALUE("x", TensorProto.FLOAT, ["n", 3])],
        [VALUE("y", TensorProto.FLOAT, ["n", None])],
        list(tensors),
    )
    sets = [helper.make_opsetid(*one) for one in opsets]
    return helper.make_model(graph, opset_imports=sets, functions=list(functions), ir_version=9)


def weights(**changes: Any) -> Any:
    tensor = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(tensor, name)[:]
            getattr(tensor, name).extend(value)
        elif value is None:
            tensor.ClearField(name)
        else:
            setattr(tensor, name, value)
    return tensor


def outside(**entries: str) -> Any:
    tensor = weights(raw_data=None, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model_of(tensors=[tensor])


def test_the_tables_are_those_of_onnx() -> None:
    messages = {
        "MODEL": onnx.ModelProto,
        "OPERATORS": onnx.OperatorSetIdProto,
        "ENTRY": onnx.StringStringEntryProto,
        "GRAPH": onnx.GraphProto,
        "NODE": onnx.NodeProto,
        "ATTRIBUTE": onnx.AttributeProto,
        "FUNCTION": onnx.FunctionProto,
        "TENSOR": onnx.TensorProto,
        "VALUE": onnx.ValueInfoProto,
        "TYPE": onnx.TypeProto,
        "TENSOR_TYPE": onnx.TypeProto.Tensor,
        "SHAPE": onnx.TensorShapeProto,
        "DIMENSION": onnx.TensorShapeProto.Dimension,
    }
    for name, message in messages.items():
        ours = {number: field.name for number, field in getattr(onnx_schema, name).items()}
        assert ours == {field.number: field.name for field in message.DESCRIPTOR.fields}, name


@pytest.mark.parametrize("path", REAL, ids=[str(path.parent.name) for path in REAL])
def test_real_models_are_read_as_onnx_reads_them(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    if any(node.domain == "ai.onnx.preview.training" for node in model.graph.node):
        refused(model, "operators that onnxruntime does not have")
        return
    facts = inspect(path.read_bytes())
    assert facts.ir_version == model.ir_version
    assert facts.opsets == {one.domain: one.version for one in model.opset_import}
    given = {tensor.name for tensor in model.graph.initializer}
    assert [v.name for v in facts.inputs] == [v.name for v in model.graph.input if v.name not in given]
    for ours, theirs in zip(facts.outputs, model.graph.output, strict=True):
        assert ours.name == theirs.name
        if theirs.type.HasField("tensor_type"):
            dims = theirs.type.tensor_type.shape.dim
            assert ours.element == theirs.type.tensor_type.elem_type
            assert ours.shape == tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)


def test_the_class_is_graph_and_the_operators_are_listed() -> None:
    raw = model_of(helper.make_node("Gemm", ["x", "w"], ["y"]), tensors=[weights()]).SerializeToString()
    found = onnx_graph.audit(Files(model_onnx=raw), "model.onnx")
    assert (found.trust, found.types, found.unlisted) == ("graph", ("Gemm",), ())


# Parts that would run code, or that no reader knows.

RUNS: Mapping[str, Callable[[], Any]] = {
    "operators that onnxruntime": lambda: model_of(helper.make_node("Any", ["x"], ["y"], domain="my.library")),
    "more than arithmetic": lambda: model_of(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")),
    "more than arithmetic ": lambda: model_of(helper.make_node("ATen", ["x"], ["y"], domain="com.microsoft")),
    "IR version": lambda: _set(model_of(), "ir_version", 99),
    "IR version ": lambda: _set(model_of(), "ir_version", 2),
    "no graph": lambda: _clear(model_of(), "graph"),
    "for training": lambda: _add(model_of(), "training_info"),
    "sparse": lambda: _sparse(),
    "two versions": lambda: model_of(opsets=(("", 18), ("", 17))),
    "two versions ": lambda: model_of(opsets=(("", 0),)),
}


def _set(model: Any, name: str, value: Any) -> Any:
    setattr(model, name, value)
    return model


def _clear(model: Any, name: str) -> Any:
    model.ClearField(name)
    return model


def _add(model: Any, name: str) -> Any:
    getattr(model, name).add()
    return model


def _sparse() -> Any:
    model = model_of()
    model.graph.sparse_initializer.add().dims.append(3)
    return model


@pytest.mark.parametrize("match", RUNS)
def test_what_is_no_plain_graph_is_refused(match: str) -> None:
    refused(RUNS[match](), match.strip())


def test_another_format_in_the_same_bytes_is_refused() -> None:
    raw = model_of().SerializeToString()
    refused(raw[:4] + b"ORTM" + raw[4:], "another format")


# Tensors.


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"raw_data": b"\0" * 23}, "more or less data"),
        ({"raw_data": b"\0" * 25}, "more or less data"),
        ({"raw_data": None}, "more or less data"),
        ({"dims": [2, 4]}, "more or less data"),
        ({"dims": [-2, -3]}, "no proper shape"),
        ({"dims": [1] * 33}, "no proper shape"),
        ({"dims": [2**40, 2**40]}, "too large"),
        ({"data_type": 99}, "no known type"),
        ({"data_type": 0}, "no known type"),
        ({"data_type": 11}, "more or less data"),
        ({"data_type": 8}, "not of its type"),
        ({"float_data": [1.0] * 6}, "not of its type"),
        ({"raw_data": None, "float_data": [1.0] * 5}, "more or less data"),
        ({"raw_data": None, "int32_data": [1] * 6}, "not of its type"),
        ({"data_location": 1}, "two places"),
    ],
)
def test_a_tensor_is_what_its_shape_says(changes: dict[str, Any], match: str) -> None:
    refused(model_of(tensors=[weights(**changes)]), match)
    # The same wherever it stands: as an attribute, and in a graph inside a graph.
    tensor = weights(**changes)
    constant = helper.make_node("Constant", [], ["y"], value=weights())
    constant.attribute[0].t.CopyFrom(tensor)
    refused(model_of(constant), match)
    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["z"])], "inner", [], [VALUE("z", 1, None)], [tensor]
    )
    refused(model_of(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)), match)


@pytest.mark.parametrize("dtype", [d for d in TensorProto.DataType.values() if d in onnx_schema.ELEMENTS])
def test_tensors_of_every_type_pass(dtype: int) -> None:
    values = ["a", "b", "c"] if dtype == TensorProto.STRING else [1, 0, 1]
    tensor = helper.make_tensor("t", dtype, [3], values)
    inspect(model_of(tensors=[tensor]))
    if dtype != TensorProto.STRING:
        tensor.dims[0] = 9
        refused(model_of(tensors=[tensor]), "more or less data")


@pytest.mark.parametrize(
    ("entries", "good"),
    [
        ({"location": "w.bin"}, True),
        ({"location": "w.bin", "offset": "76", "length": "24"}, True),
        ({"location": "w.bin", "offset": "77"}, False),
        ({"location": "w.bin", "offset": "0", "length": "23"}, False),
        ({"location": "w.bin", "offset": "-1"}, False),
        ({"location": "w.bin", "offset": "1e1"}, False),
        ({"location": "w.bin", "offset": "９"}, False),
        ({"location": "w.bin", "offset": "9" * 30}, False),
        ({"location": "./w.bin"}, False),
        ({"location": "/etc/hostname"}, False),
        ({"location": "../w.bin"}, False),
        ({"location": "a/../w.bin"}, False),
        ({"location": "other.bin"}, False),
        ({"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096", "length": "24"}, False),
        ({"location": "w.bin", "basepath": "/"}, False),
        ({"location": "w.bin", "unknown": "1"}, False),
        ({"offset": "0"}, False),
    ],
)
def test_tensors_in_other_files_lie_in_files_of_the_payload(entries: dict[str, str], good: bool) -> None:
    model = outside(**entries)
    if good:
        assert inspect(model, {"w.bin": 100}).external == ("w.bin",)
    else:
        refused(model, "a tensor")  # the message says which rule


def test_a_tensor_that_names_its_file_twice_is_refused() -> None:
    model = outside(location="w.bin")
    model.graph.initializer[0].external_data.extend(list(model.graph.initializer[0].external_data))
    refused(model, "twice", {"w.bin": 100})


# Functions and nesting.


def function(name: str, *nodes: Any, domain: str = "mine") -> Any:
    return helper.make_function(domain, name, ["a"], ["b"], list(nodes), [helper.make_opsetid("", 18)])


def call(name: str, domain: str = "mine") -> Any:
    return helper.make_node(name, ["a"], ["b"], domain=domain)


def test_functions_of_the_model_itself_pass() -> None:
    plain = function("plain", helper.make_node("Relu", ["a"], ["b"]))
    outer = function("outer", call("plain"))
    model = model_of(call("outer"), functions=[outer, plain], opsets=(("", 18), ("mine", 1)))
    assert inspect(model).operators == ("Relu",)


@pytest.mark.parametrize(
    ("functions", "match"),
    [
        ([function("a", call("a"))], "calls itself"),
        ([function("a", call("b")), function("b", call("a"))], "calls itself"),
        ([function("a", helper.make_node("Foreign", ["a"], ["b"], domain="my.library"))], "operators that onnxruntime"),
        ([function("a"), function("a")], "name of its own"),
        ([function("Relu", domain="")], "name of its own"),
        ([function(f"f{i}", *([call(f"f{i + 1}")] * 100)) for i in range(5)] + [function("f5")], "more than"),
        ([function(f"f{i}", call(f"f{i + 1}")) for i in range(60)] + [function("f60")], "deep"),
    ],
)
def test_functions_end(functions: list[Any], match: str) -> None:
    refused(model_of(call("a"), functions=functions), match)


def test_graphs_are_not_nested_without_end() -> None:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "g", [], [VALUE("z", 1, None)])
    for _ in range(onnx_graph.MAX_DEPTH + 2):
        node = helper.make_node("If", ["x"], ["z"], then_branch=graph, else_branch=helper.make_graph([], "e", [], []))
        graph = helper.make_graph([node], "g", [], [VALUE("z", 1, None)])
    refused(model_of(*graph.node), "nested")


def test_an_attribute_is_of_the_type_it_says() -> None:
    node = helper.make_node("Identity", ["x"], ["y"], alpha=1.0)
    for change in ({"type": 2}, {"type": 0}, {"name": ""}, {"i": 1}, {"ref_attr_name": "other"}):
        changed = copy.deepcopy(node)
        for name, value in change.items():
            setattr(changed.attribute[0], name, value)
        refused(model_of(changed), "attribute")
    node.attribute.extend(list(node.attribute))
    refused(model_of(node), "two attributes")


def typed(kind: Any) -> Any:
    model = model_of()
    model.graph.value_info.add(name="v").type.CopyFrom(kind)
    return model


def kinds(depth: int) -> Any:
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [None])
    for _ in range(depth):
        kind = helper.make_sequence_type_proto(kind)
    return kind


def test_values_of_every_known_type_pass() -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [-1, "n"])
    for kind in (tensor, helper.make_optional_type_proto(tensor), helper.make_map_type_proto(7, tensor), kinds(3)):
        inspect(typed(kind))
    inspect(typed(onnx.TypeProto()))
    model = model_of()
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_map_type_proto(8, tensor)))
    model.graph.input.add(name="bare")
    found = inspect(model)
    assert (found.outputs[0].kind, found.outputs[0].element) == ("sequence of map", TensorProto.FLOAT)
    assert found.inputs[1] == onnx_graph.Value(name="bare", kind="unknown", element=0, shape=None)


def test_values_of_other_types_are_refused() -> None:
    opaque = onnx.TypeProto()
    opaque.opaque_type.domain = "mine"
    refused(typed(opaque), "type that is not taken")
    refused(typed(kinds(12)), "nested too deeply")


@pytest.mark.parametrize(
    ("fields", "more", "match"),
    [("TYPE", b"\x0a\x02\x08\x01\x22\x00", "two kinds"), ("DIMENSION", b"\x08\x01\x12\x01n", "a size and a name")],
)
def test_what_is_one_of_two_is_not_both(fields: str, more: bytes, match: str) -> None:
    walk = onnx_graph._Walk("m", {})
    with pytest.raises(PackageError, match=match):
        if fields == "TYPE":
            walk._type(memoryview(more), 0)
        else:
            walk._shape(memoryview(b"\x0a" + bytes([len(more)]) + more))


def test_everything_that_an_attribute_holds_is_checked() -> None:
    bad, inner = weights(dims=[9]), helper.make_graph([], "g", [], [], [weights(dims=[9])])
    opaque = onnx.TypeProto()
    opaque.opaque_type.domain = "mine"
    for name, held, match in (
        ("tensors", [bad], "more or less data"),
        ("graphs", [inner], "more or less data"),
        ("type_protos", [opaque], "not taken"),
    ):
        node = helper.make_node("Identity", ["x"], ["y"])
        attribute = node.attribute.add(name="a", type={"tensors": 9, "graphs": 10, "type_protos": 14}[name])
        getattr(attribute, name).extend(held)
        refused(model_of(node), match)
    node = helper.make_node("Identity", ["x"], ["y"])
    node.attribute.add(name="a", type=13).tp.CopyFrom(opaque)
    refused(model_of(node), "not taken")
    sparse = helper.make_node("Identity", ["x"], ["y"])
    sparse.attribute.add(name="a", type=11).sparse_tensor.dims.append(1)
    refused(model_of(sparse), "sparse")


def test_a_function_takes_the_attributes_of_its_call() -> None:
    node = helper.make_node("LeakyRelu", ["a"], ["b"])
    node.attribute.add(name="alpha", type=1, ref_attr_name="slope")
    made = helper.make_function("mine", "f", ["a"], ["b"], [node], [helper.make_opsetid("", 18)], ["slope"])
    made.attribute_proto.append(helper.make_attribute("slope", 0.5))
    made.value_info.append(VALUE("a", TensorProto.FLOAT, None))
    made.metadata_props.add(key="k", value="v")
    assert inspect(model_of(helper.make_node("f", ["x"], ["y"], domain="mine"), functions=[made])).operators
    refused(model_of(node), "not there")


def test_a_tensor_in_parts_or_nowhere_is_refused() -> None:
    tensor = weights()
    tensor.segment.begin = 1
    refused(model_of(tensors=[tensor]), "no proper shape")
    elsewhere = weights().SerializeToString() + b"\x70\x02"
    with pytest.raises(PackageError, match="two places"):
        onnx_graph._Walk("m", {})._tensor(memoryview(elsewhere))


# Trees.


def old(**changes: Any) -> Any:
    """A regression of two trees as ai.onnx.ml 3 writes them."""
    attributes: dict[str, Any] = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0, 1],
        "nodes_nodeids": [0, 1, 2, 0],
        "nodes_featureids": [2, 0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0, 0],
        "nodes_falsenodeids": [2, 0, 0, 0],
        "target_treeids": [0, 0, 1],
        "target_nodeids": [1, 2, 0],
        "target_ids": [0, 0, 0],
        "target_weights": [1.0, 2.0, 3.0],
        **changes,
    }
    return model_of(helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, **attributes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"nodes_truenodeids": [9, 0, 0, 0]}, "not there"),
        ({"nodes_truenodeids": [-1, 0, 0, 0]}, "out of range"),
        ({"nodes_truenodeids": [0, 0, 0, 0]}, "circle"),
        ({"nodes_truenodeids": [2, 0, 0, 0]}, "lead to one node"),
        ({"nodes_modes": ["LEAF"] * 4}, "more than one root"),
        ({"nodes_modes": ["BRANCH_ODD", "LEAF", "LEAF", "LEAF"]}, "unknown kind"),
        ({"nodes_featureids": [-1, 0, 0, 0]}, "feature"),
        ({"nodes_featureids": [3, 0, 0, 0]}, "feature"),
        ({"nodes_featureids": [0]}, "values in nodes_featureids"),
        ({"nodes_hitrates": [1.0]}, "values in nodes_hitrates"),
        ({"nodes_nodeids": [0, 1, 1, 0]}, "one number"),
        ({"target_ids": [0, 0, 1]}, "class or target"),
        ({"target_nodeids": [0, 2, 0]}, "no leaf"),
        ({"target_nodeids": [7, 2, 0]}, "not there"),
        ({"target_weights": [1.0]}, "values in weights"),
        ({"n_targets": 0}, "class or target"),
        ({"n_targets": 2**40}, "more outputs than leaves"),
        ({"base_values": [0.0, 0.0]}, "starts from"),
    ],
)
def test_old_trees_end_in_leaves(changes: dict[str, Any], match: str) -> None:
    inspect(old())
    refused(old(**changes), match)


def new(**changes: Any) -> Any:
    """Two trees as ai.onnx.ml 5 writes them: a split above a split, and a leaf alone."""
    attributes: dict[str, Any] = {
        "n_targets": 2,
        "tree_roots": [0, 2],
        "nodes_modes": np.zeros(3, np.uint8),
        "nodes_featureids": [0, 1, 0],
        "nodes_splits": np.zeros(3),
        "nodes_truenodeids": [1, 0, 3],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [2, 1, 3],
        "nodes_falseleafs": [1, 1, 1],
        "leaf_targetids": [0, 1, 0, 1],
        "leaf_weights": np.ones(4),
        **changes,
    }
    made = {k: numpy_helper.from_array(v, k) if isinstance(v, np.ndarray) else v for k, v in attributes.items()}
    return model_of(helper.make_node("TreeEnsemble", ["x"], ["y"], domain=ML, **made))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"nodes_truenodeids": [3, 0, 3]}, "not there"),
        ({"nodes_truenodeids": [1, 4, 3]}, "not there"),
        ({"nodes_truenodeids": [1, -1, 3]}, "not there"),
        ({"nodes_truenodeids": [0, 0, 3]}, "circle"),
        ({"nodes_truenodeids": [2, 0, 3]}, "roots"),
        ({"nodes_trueleafs": [2, 1, 1]}, "neither 0 nor 1"),
        ({"nodes_trueleafs": [0, 1]}, "leaf flags"),
        ({"tree_roots": [0]}, "roots"),
        ({"tree_roots": [0, 3]}, "roots"),
        ({"tree_roots": [0, 0]}, "roots"),
        ({"nodes_featureids": [0, -1, 0]}, "feature"),
        ({"nodes_featureids": [0, 3, 0]}, "feature"),
        ({"nodes_splits": np.zeros(2)}, "nodes_splits"),
        ({"nodes_modes": np.full(3, 7, np.uint8)}, "unknown kind"),
        ({"nodes_modes": np.full(3, 6, np.uint8)}, "set of values"),
        ({"membership_values": np.array([1.0, np.nan])}, "set of values"),
        ({"leaf_targetids": [0, 1, 0, 2]}, "class or target"),
        ({"n_targets": 2**40}, "more outputs than leaves"),
        ({"leaf_weights": np.ones(3)}, "leaf_weights"),
        ({"nodes_missing_value_tracks_true": [1]}, "tracks_true"),
    ],
)
def test_new_trees_end_in_leaves(changes: dict[str, Any], match: str) -> None:
    inspect(new())
    refused(new(**changes), match)


def test_trees_are_in_the_models_own_file() -> None:
    model = new()
    (tensor,) = [a.t for a in model.graph.node[0].attribute if a.name == "nodes_splits"]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    refused(model, "readable", {"w.bin": 100})


def test_trees_over_sets_have_one_for_each_branch() -> None:
    inspect(new(nodes_modes=np.array([6, 0, 0], np.uint8), membership_values=np.array([1.0, 2.0, np.nan])))


def chain(depth: int) -> Any:
    steps, zero = np.arange(depth), np.zeros(depth, np.int64)
    return new(
        tree_roots=[0],
        nodes_modes=np.zeros(depth, np.uint8),
        nodes_featureids=list(zero),
        nodes_splits=np.zeros(depth),
        nodes_truenodeids=[*steps[1:], 0],
        nodes_trueleafs=[0] * (depth - 1) + [1],
        nodes_falsenodeids=list(zero),
        nodes_falseleafs=[1] * depth,
    )


def test_trees_are_of_bounded_depth() -> None:
    inspect(chain(4000))
    for depth in (4200, 9000):
        refused(chain(depth), "deeper than")


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LabelEncoder", {"keys_strings": ["a", "b"], "values_int64s": [1]}),
        ("LinearClassifier", {"coefficients": [1.0, 2.0, 3.0], "intercepts": [1.0, 2.0], "classlabels_ints": [0, 1]}),
        ("LinearRegressor", {"coefficients": [1.0, 2.0], "intercepts": [1.0, 2.0], "targets": 1}),
        ("Scaler", {"offset": [1.0], "scale": [1.0, 2.0]}),
        (
            "SVMClassifier",
            {"vectors_per_class": [1, 1], "classlabels_ints": [0, 1], "support_vectors": [1.0, 2.0, 3.0],
             "coefficients": [1.0, 1.0], "rho": [0.0]},
        ),
        ("SVMClassifier", {"classlabels_ints": [0, 1], "coefficients": [1.0, 2.0, 3.0]}),
        ("SVMRegressor", {"n_supports": 2, "support_vectors": [1.0, 2.0], "coefficients": [1.0], "rho": [0.0]}),
        ("SVMRegressor", {"n_supports": 1, "support_vectors": [1.0], "coefficients": [1.0], "rho": [0.0],
                          "kernel_params": [1.0]}),
    ],
)  # fmt: skip
def test_parts_of_operators_fit_each_other(kind: str, attributes: dict[str, Any]) -> None:
    refused(model_of(helper.make_node(kind, ["x"], ["y"], domain=ML, **attributes)), "do not fit each other")


# The bytes.


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (b"\x7a\x00", "unknown field 15"),
        (b"\x0d\x00\x00\x00\x00", "another type"),
        (b"\x08\x09", "two values"),
        (b"\x3b\x3c", "another type"),
        (b"\x32\x05a", "longer than"),
        (b"\x32\x01\xff", "not UTF-8"),
        (b"\x08", "cut off"),
        (b"\x28" + b"\xff" * 10 + b"\x01", "too long"),
        (b"\x28" + b"\xff" * 9 + b"\x02", "too long"),
        (b"\x00", "unknown field 0"),
    ],
)
def test_bytes_that_parsers_read_differently_are_refused(more: bytes, match: str) -> None:
    refused(model_of().SerializeToString() + more, match)


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"\x0a\x01\x80", "cut off"),  # packed, the last number without its end
        (b"\x22\x03abc", "cut off"),  # packed floats of three bytes
        (b"\x25ab", "cut off"),  # a float of two bytes
        (b"\x08\x80", "cut off"),  # one number without its end
        (b"\x0a\x0b" + b"\xff" * 10 + b"\x01", "too long"),
        (b"\x0a\x0a" + b"\xff" * 9 + b"\x02", "too long"),
        (b"\x0d\x00\x00\x00\x00", "another type"),
        (b"\x88\x00\x01", "longer than it should be"),
    ],
)
def test_damaged_numbers_are_refused(raw: bytes, match: str) -> None:
    with pytest.raises(PackageError, match=match):
        onnx_wire.parse(memoryview(raw), onnx_schema.TENSOR, "m")


def test_empty_numbers_are_no_numbers() -> None:
    assert onnx_wire.parse(memoryview(b"\x0a\x00"), onnx_schema.TENSOR, "m").array("dims").tolist() == []


INTS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40)
FLOATS = st.lists(st.floats(width=32), min_size=1, max_size=40)


@given(ints=INTS, floats=FLOATS, packed=st.booleans())
def test_numbers_are_read_as_protobuf_reads_them(ints: list[int], floats: list[float], packed: bool) -> None:
    attribute = onnx.AttributeProto(name="numbers", type=7)
    attribute.ints.extend(ints)
    attribute.floats.extend(floats)
    raw = attribute.SerializeToString()
    if packed:
        tensor = onnx.TensorProto(int64_data=ints, float_data=floats)
        found = onnx_wire.parse(memoryview(tensor.SerializeToString()), onnx_schema.TENSOR, "m")
        names = ("int64_data", "float_data")
    else:
        found = onnx_wire.parse(memoryview(raw), onnx_schema.ATTRIBUTE, "m")
        names = ("ints", "floats")
    assert found.array(names[0]).tolist() == ints
    np.testing.assert_array_equal(found.array(names[1]), np.array(floats, np.float32))


def test_long_runs_of_numbers_are_read_in_pieces() -> None:
    values = list(range(-1000, 700_000))
    attribute = onnx.AttributeProto(name="n", type=7, ints=values)
    found = onnx_wire.parse(memoryview(attribute.SerializeToString()), onnx_schema.ATTRIBUTE, "m")
    assert found.array("ints").tolist() == values


SEEDS = [old().SerializeToString(), new().SerializeToString(), model_of(tensors=[weights()]).SerializeToString()]
SEEDS += [path.read_bytes() for path in REAL if path.stat().st_size < 3000][::4]


def mutated(raw: bytes, chance: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place = chance.randrange(len(changed))
        changed[place] = chance.choice([changed[place] ^ (1 << chance.randrange(8)), 0, 0xFF, 0x7F, 0x80])
    return bytes(changed)


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        inspect(data)
    except PackageError:
        return


@settings(max_examples=400)
@given(chance=st.randoms(use_true_random=False))
def test_damaged_models_are_read_or_refused(chance: random.Random) -> None:
    try:
        inspect(mutated(chance.choice(SEEDS), chance))
    except PackageError:
        return


WORKER = """
import struct, sys
import numpy as np, onnxruntime
onnxruntime.set_default_logger_severity(4)
KINDS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
while head := sys.stdin.buffer.read(4):
    raw = sys.stdin.buffer.read(struct.unpack("<I", head)[0])
    try:
        session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
        sizes = {i: [d if isinstance(d, int) and d < 5000 else 2 for d in i.shape] for i in session.get_inputs()}
        session.run(None, {i.name: np.ones(shape, KINDS[i.type]) for i, shape in sizes.items()})
    except Exception:
        pass
    sys.stdout.buffer.write(b"+")
    sys.stdout.buffer.flush()
"""


def test_what_the_audit_passes_does_not_crash_onnxruntime() -> None:
    chance = random.Random(0)
    passed = 0
    with subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        for _ in range(1500):
            raw = mutated(chance.choice(SEEDS), chance)
            try:
                inspect(raw)
            except PackageError:
                continue
            worker.stdin.write(struct.pack("<I", len(raw)) + raw)
            worker.stdin.flush()
            assert worker.stdout.read(1) == b"+", raw.hex()
            passed += 1
        worker.stdin.close()
        assert worker.wait() == 0
    assert passed > 100
