"""Small payloads of every format with an audit, written by hand as their frameworks do, and ways to change them.

Each is taken as it is; a hostile vector differs from one of them in a single lie. Nothing of modelpack is used.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from vector_writing import archive

Change = Callable[[Any], Any]

# --- safetensors ------------------------------------------------------------------------------------------------

F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
TENSORS = {"a": F32, "b": {"dtype": "I64", "shape": [1], "data_offsets": [16, 24]}}


def safetensors(header: Any = None, data: bytes = bytes(24), *, length: int | None = None) -> bytes:
    """A safetensors file; ``length`` is what it says of its header."""
    raw = header if isinstance(header, bytes) else json.dumps(TENSORS if header is None else header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


# --- ONNX -------------------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(**fields: Any) -> bytes:
    """Protocol buffers: ``f8=7`` is field 8; ints, texts, bytes, or lists of them for repeated fields."""
    out = b""
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            number = int(name[1:])
            if isinstance(one, float):
                out += _varint(number << 3 | 5) + struct.pack("<f", one)
            elif isinstance(one, int):
                out += _varint(number << 3) + _varint(one)
            else:
                raw = one.encode() if isinstance(one, str) else one
                out += _varint(number << 3 | 2) + _varint(len(raw)) + raw
    return out


def attribute(name: str, value: Any) -> bytes:
    """An attribute of a node: an int, a float, ints, floats, texts, or a graph as bytes."""
    match value:
        case bytes():
            return message(f1=name, f6=value, f20=5)
        case int():
            return message(f1=name, f3=value, f20=2)
        case [str(), *_]:
            return message(f1=name, f9=value, f20=8)
        case [float(), *_]:
            return message(f1=name, f7=value, f20=6)
        case _:
            return message(f1=name, f8=value, f20=7)


def node(op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> bytes:
    """One call of an operator."""
    given = [attribute(name, value) for name, value in attributes.items()]
    return message(f1=inputs, f2=outputs, f4=op, f5=given, f7=domain)


def port(name: str, *shape: int | str) -> bytes:
    """A float tensor that goes in or out."""
    dims = [message(f1=size) if isinstance(size, int) else message(f2=size) for size in shape]
    return message(f1=name, f2=message(f1=message(f1=1, f2=message(f1=dims))))


def tensor(dims: tuple[int, ...] = (3, 2), raw: bytes | None = bytes(24), **external: str) -> bytes:
    """The weights ``w``, in the file or in another one."""
    if external:
        entries = [message(f1=key, f2=value) for key, value in external.items()]
        return message(f1=list(dims), f2=1, f8="w", f13=entries, f14=1)
    return message(f1=list(dims), f2=1, f8="w", **({} if raw is None else {"f9": raw}))


def graph(*nodes: bytes, tensors: tuple[bytes, ...] = ()) -> bytes:
    """A graph from x to y."""
    return message(f1=list(nodes), f2="g", f5=list(tensors), f11=port("x", "n", 3), f12=port("y", "n", 2))


def onnx(
    *nodes: bytes,
    tensors: tuple[bytes, ...] | None = None,
    ir: int = 9,
    functions: tuple[bytes, ...] = (),
    opsets: Mapping[str, int] | None = None,
) -> bytes:
    """A model: y = x @ w unless nodes are given."""
    if not nodes:
        nodes = (node("MatMul", ["x", "w"], ["y"]),)
    inside = graph(*nodes, tensors=(tensor(),) if tensors is None else tensors)
    sets = [message(f1=name, f2=number) for name, number in (opsets or {"": 18, "ai.onnx.ml": 3}).items()]
    return message(f1=ir, f7=inside, f8=sets, f25=list(functions))


def function(name: str, *nodes: bytes) -> bytes:
    """A function of the model's own, from a to b."""
    return message(f1=name, f4="a", f5="b", f7=list(nodes), f9=message(f1="", f2=18), f10="mine")


FOREST: Mapping[str, Any] = {
    "n_targets": 2,
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [2, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "target_treeids": [0, 0],
    "target_nodeids": [1, 2],
    "target_ids": [0, 1],
    "target_weights": [1.0, 2.0],
}


def forest(**changes: Any) -> bytes:
    """A model of one tree."""
    changed = {**FOREST, **changes}
    return onnx(node("TreeEnsembleRegressor", ["x"], ["y"], "ai.onnx.ml", **changed), tensors=())


def nested(depth: int) -> bytes:
    """A model of conditions inside conditions."""
    inside = message(f1=node("Identity", ["x"], ["y"]), f2="g", f12=port("y"))
    for _ in range(depth):
        branch = node("If", ["x"], ["y"], then_branch=inside, else_branch=message(f2="e"))
        inside = message(f1=branch, f2="g", f12=port("y"))
    return onnx(node("If", ["x"], ["y"], then_branch=inside, else_branch=message(f2="e")))


# --- XGBoost ----------------------------------------------------------------------------------------------------

XGBOOST: Mapping[str, Any] = {
    "learner": {
        "attributes": {},
        "feature_names": [],
        "feature_types": [],
        "gradient_booster": {
            "model": {
                "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": "1"},
                "iteration_indptr": [0, 1],
                "tree_info": [0],
                "trees": [
                    {
                        "base_weights": [0.0, -0.5, 0.5],
                        "categories": [],
                        "categories_nodes": [],
                        "categories_segments": [],
                        "categories_sizes": [],
                        "default_left": [0, 0, 0],
                        "id": 0,
                        "left_children": [1, -1, -1],
                        "loss_changes": [18.0, 0.0, 0.0],
                        "parents": [2147483647, 0, 0],
                        "right_children": [2, -1, -1],
                        "split_conditions": [2.0, -0.5, 0.5],
                        "split_indices": [0, 0, 0],
                        "split_type": [0, 0, 0],
                        "sum_hessian": [20.0, 10.0, 10.0],
                        "tree_param": {
                            "num_deleted": "0",
                            "num_feature": "2",
                            "num_nodes": "3",
                            "size_leaf_vector": "1",
                        },
                    }
                ],
            },
            "name": "gbtree",
        },
        "learner_model_param": {"base_score": "[1.5E0]", "num_class": "0", "num_feature": "2", "num_target": "1"},
        "objective": {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}},
    },
    "version": [3, 2, 0],
}


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of nested data in which one place is another."""
    out = copy.deepcopy(value)
    place = out
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return out


TREE = ("learner", "gradient_booster", "model", "trees", 0)


def xgboost(path: tuple[Any, ...] = (), new: Any = None) -> bytes:
    """A model of one tree as JSON; what is at ``path`` is ``new``."""
    return json.dumps(replaced(XGBOOST, path, new) if path else XGBOOST, separators=(",", ":")).encode()


def ubj(value: Any) -> bytes:
    """The same as UBJ, as XGBoost writes it."""
    match value:
        case dict():
            items = (ubj(key)[1:] + ubj(one) for key, one in value.items())
            return b"{" + b"".join(items) + b"}"
        case [int(), *_] | [float(), *_]:
            code, form = (b"d", "f") if isinstance(value[0], float) else (b"l", "i")
            head = b"[$" + code + b"#" + struct.pack(">cq", b"L", len(value))
            return head + struct.pack(f">{len(value)}{form}", *value)
        case list():
            return b"[#" + struct.pack(">cq", b"L", len(value)) + b"".join(map(ubj, value))
        case str():
            return b"S" + struct.pack(">cq", b"L", len(value.encode())) + value.encode()
        case _:
            return struct.pack(">cq", b"L", value)


# --- LightGBM ---------------------------------------------------------------------------------------------------

LIGHTGBM_TREE = """\
Tree=0
num_leaves=2
num_cat=0
split_feature=0
split_gain=20
threshold=1.5
decision_type=2
left_child=-1
right_child=-2
leaf_value=1.4 1.6
leaf_weight=10 10
leaf_count=10 10
internal_value=1.5
internal_weight=20
internal_count=20
is_linear=0
shrinkage=1


"""
LIGHTGBM = """\
tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=regression
feature_names=Column_0 Column_1
feature_infos=[0:3] [0:1]
tree_sizes={size}

{tree}end of trees

feature_importances:
Column_0=1

parameters:
[boosting: gbdt]

end of parameters

pandas_categorical:null
"""


def lightgbm(old: str = "", new: str = "") -> bytes:
    """A model of one tree as text, ``old`` replaced by ``new``; it says the size of its tree as it is."""
    tree = LIGHTGBM_TREE.replace(old, new) if old else LIGHTGBM_TREE
    text = LIGHTGBM.format(size=len(tree), tree=tree)
    if old and old not in LIGHTGBM_TREE:
        assert old in text, old
        text = text.replace(old, new)
    return text.encode()


# --- exported torch programs ------------------------------------------------------------------------------------


def _meta(*sizes: int) -> dict[str, Any]:
    strides, step = [], 1
    for size in reversed(sizes):
        strides.insert(0, {"as_int": step})
        step *= size
    return {
        "dtype": 7,
        "sizes": [{"as_int": size} for size in sizes],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": strides,
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }


def value(name: str) -> dict[str, Any]:
    """A tensor of a program, by its name."""
    return {"as_tensor": {"name": name}}


def call(target: str, *arguments: Any) -> dict[str, Any]:
    """One step of a program."""
    names = ("input", "weight", "third")
    inputs = [{"name": name, "arg": one, "kind": 1} for name, one in zip(names, arguments, strict=False)]
    return {"target": target, "inputs": inputs, "outputs": [value("y")], "metadata": {}}


def program() -> dict[str, Any]:
    """The program y = linear(x, w)."""
    inside = {
        "inputs": [value("p_w"), value("x")],
        "outputs": [value("y")],
        "nodes": [call("torch.ops.aten.linear.default", value("x"), value("p_w"))],
        "tensor_values": {"p_w": _meta(2, 3), "x": _meta(4, 3), "y": _meta(4, 2)},
        "sym_int_values": {},
        "sym_bool_values": {},
        "is_single_tensor_return": False,
        "custom_obj_values": {},
        "sym_float_values": {},
    }
    signature = {
        "input_specs": [
            {"parameter": {"arg": {"name": "p_w"}, "parameter_name": "w"}},
            {"user_input": {"arg": value("x")}},
        ],
        "output_specs": [{"user_output": {"arg": value("y")}}],
    }
    return {
        "graph_module": {"graph": inside, "signature": signature, "module_call_graph": [], "metadata": {}},
        "opset_version": {"aten": 10},
        "range_constraints": {},
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["TRAINING"],
        "torch_version": "2.13.0",
        "guards_code": [],
    }


WEIGHT = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": _meta(2, 3)}
NODES = ("graph_module", "graph", "nodes")


def pt2(root: dict[str, Any] | None = None, weight: dict[str, Any] | None = None, **members: bytes | None) -> bytes:
    """A program as an archive; members are given with ``__`` for a slash, None leaves one out."""
    contents: dict[str, bytes | None] = {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        "models/model.json": json.dumps(root or program()).encode(),
        "data/weights/model_weights_config.json": json.dumps({"config": {"w": weight or WEIGHT}}).encode(),
        "data/weights/weight_0": bytes(24),
    }
    contents |= {name.replace("__", "/"): raw for name, raw in members.items()}
    return archive(*((f"model/{name}", raw) for name, raw in contents.items() if raw is not None))


# --- archives ---------------------------------------------------------------------------------------------------


def members(raw: bytes) -> dict[str, bytes]:
    """What is in a zip file."""
    with zipfile.ZipFile(io.BytesIO(raw)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def deflated(*entries: tuple[str, bytes]) -> bytes:
    """A zip file of compressed members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as opened:
        for name, raw in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(info, raw)
    return out.getvalue()
