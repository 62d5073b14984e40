"""Hostile packages: each differs from an honest one in one lie, and would leave a benign mark if anything of it ran.

The mark is an empty file ``modelpack-was-here`` in the working directory. Called by make_vectors.py. The files in
``seeds`` are models of scikit-learn as skops stores them; everything else is made here.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import honest_payloads as honest
from honest_payloads import FOREST, NODES, TREE, WEIGHT, XGBOOST, call, node, onnx, value
from vector_writing import archive, dump, manifest, reject, skops

SEEDS = Path(__file__).parent / "seeds"
PAYLOAD = "payloads/native/model.bin"
MARK = "modelpack-was-here"
INVALID, DENIED = ("payload-invalid", "model.bin"), ("code-not-allowed", "flavors[0]")
AUDITS, TRUST = "09-trust.md#audits", "09-trust.md#trust-classes"
FLAVORS = {
    "lightgbm-text": "lightgbm",
    "onnx": "onnx",
    "pt2": "torch",
    "safetensors": "torch",
    "torch-pickle": "torch",
    "torchscript": "torch",
    "xgboost-json": "xgboost",
    "xgboost-ubj": "xgboost",
    "skops": "sklearn",
    "pickle": "sklearn",
    "cloudpickle": "python",
    "mlflow-pyfunc": "mlflow",
}
# A pickle that opens the mark for writing when it is loaded, in its oldest form and as __reduce__ writes it.
OPENS = f"cbuiltins\nopen\n(V{MARK}\nVw\ntR.".encode()
REDUCES = b"\x80\x04\x8c\x08builtins\x8c\x04open\x93\x8c\x12" + MARK.encode() + b"\x8c\x01w\x86R."
SOURCE = f"open({MARK!r}, 'w').close()\n\n\ndef greet(data, params):\n    return len(data)\n".encode()


def broken(
    id_: str,
    description: str,
    format_: str,
    raw: bytes,
    where: tuple[str, str] = INVALID,
    *,
    spec: str = AUDITS,
    others: dict[str, bytes] | None = None,
    **fields: Any,
) -> None:
    """Write a vector whose one payload is ``raw``; ``others`` are more files, those below payloads/ belong to it."""
    files = {PAYLOAD: raw, **(others or {})}
    payload = {"format": format_, "files": [path for path in files if path.startswith("payloads/native/")]}
    fields.setdefault("payloads", {"native": {**payload, "entry": PAYLOAD}})
    fields.setdefault("flavors", [{"name": FLAVORS[format_], "payloads": {"model": "native"}}])
    reject(f"load-{id_}", spec, description, manifest(files, **fields), ("load", *where), files, schema="accept")


def hostile_payloads() -> None:
    """Write all of them."""
    pickles()
    sources()
    claims()
    safetensors()
    onnx_files()
    onnx_graphs()
    onnx_trees()
    xgboost()
    lightgbm()
    torch()
    archives()
    skops_nodes()
    skops_states()
    skops_places()
    spark()
    transformers()


def pickles() -> None:
    """Everything that unpickles."""
    for format_ in ("pickle", "cloudpickle", "torch-pickle", "torchscript", "mlflow-pyfunc"):
        broken(f"mark-{format_}", "It opens a file when it is loaded.", format_, OPENS, DENIED, spec=TRUST)
    broken("mark-pickle-reduce", "An object whose reduction opens a file.", "pickle", REDUCES, DENIED, spec=TRUST)
    inside = archive(("model/data.pkl", OPENS), ("model/version", b"3\n"))
    broken("mark-torch-archive", "Weights with a pickle inside.", "torch-pickle", inside, DENIED, spec=TRUST)
    for format_ in ("safetensors", "onnx", "xgboost-json", "xgboost-ubj", "lightgbm-text", "pt2", "skops"):
        broken(f"pickle-as-{format_}", "A pickle under another format's name.", format_, REDUCES, spec=AUDITS)
    broken(
        "torch-archive-as-pt2", "Pickled weights that say they are a program.", "pt2",
        inside, DENIED, spec="08-flavors.md#torch",
    )  # fmt: skip


def sources() -> None:
    """Python source, wherever it stands."""
    files = {"code/hello.py": SOURCE}
    python = [{"name": "python", "entrypoint": "hello:greet", "code": ["code/hello.py"]}]
    value_ = manifest(files, flavors=python)
    where = ("load", *DENIED)
    text = "Source that opens a file when it is imported."
    reject("load-mark-source", TRUST, text, value_, where, files, schema="accept")
    package = {"code/sklearn/__init__.py": SOURCE}
    shadow = [{"name": "python", "entrypoint": "sklearn:greet", "code": list(package)}]
    text = "Source that has the name of an installed library."
    reject("load-mark-shadow", TRUST, text, manifest(package, flavors=shadow), where, package, schema="accept")
    uses = [{"name": "torch", "payloads": {"model": "native"}, "entrypoint": "hello:Net", "code": ["code/hello.py"]}]
    raw = honest.safetensors()
    broken("mark-weights-and-source", "Weights, and the source of their module.", "safetensors", raw, DENIED,
           spec=TRUST, others=files, flavors=uses)  # fmt: skip
    entry = [{"name": "sklearn", "payloads": {"model": "native"}, "entrypoint": "os:getcwd"}]
    broken("entrypoint-installed", "An entry point in an installed module.", "skops", skops(), DENIED, spec=TRUST,
           flavors=entry)  # fmt: skip


def claims() -> None:
    """Manifests that say that they are harmless."""
    said = {"trust": "data", "class": "data", "allow_code": True, "trusted": ["builtins.open"]}
    payload = {"format": "pickle", "files": [PAYLOAD], "entry": PAYLOAD}
    uses = {"name": "sklearn", "payloads": {"model": "native"}}
    more = {
        "in-config": {"flavors": [{**uses, "config": said}]},
        "in-declares": {"payloads": {"native": {**payload, "declares": said}}},
        "in-extensions": {"extensions": {"org.example/trust": said}},
        "in-producer": {"producer": {"name": "modelpack-python", "version": "0.1.0"}, "tags": {"trust": "data"}},
    }
    for name, fields in more.items():
        text = "A pickle that says it is harmless."
        broken(f"claim-{name}", text, "pickle", REDUCES, DENIED, spec=TRUST, **fields)
    two = {
        "native": payload,
        "safe": {"format": "safetensors", "files": ["payloads/safe/m"], "entry": "payloads/safe/m"},
    }
    broken("claim-first-payload", "Harmless weights first, then a pickle.", "pickle", REDUCES, DENIED, spec=TRUST,
           others={"payloads/safe/m": honest.safetensors()}, payloads=two,
           flavors=[{"name": "torch", "payloads": {"a": "safe", "b": "native"}}])  # fmt: skip


def safetensors() -> None:
    """Headers that lie about the bytes behind them."""
    one, two = honest.F32, {**honest.F32, "data_offsets": [8, 24]}
    lies = {
        "length-beyond": ("A header longer than the file.", honest.safetensors(length=2**40)),
        "length-negative": ("A header of 2^64 - 1 bytes.", honest.safetensors(length=2**64 - 1)),
        "length-short": ("A header cut off by its own length.", honest.safetensors(length=9)),
        "header-list": ("A header that is no object.", honest.safetensors(b"[]", b"")),
        "header-deep": ("A header nested 20,000 deep.", honest.safetensors(b'{"a":' + b"[" * 20_000, b"")),
        "name-twice": ("A tensor twice.", honest.safetensors(b'{"a":%s,"a":%s}' % (dump(one), dump(one)), bytes(16))),
        "overlap": ("Two tensors share bytes.", honest.safetensors({"a": one, "b": two})),
        "gap": ("Bytes that belong to no tensor, in front.", honest.safetensors({"a": two})),
        "behind": ("Bytes behind the last tensor.", honest.safetensors({"a": one}, bytes(17))),
        "offsets-beyond": ("Offsets behind the end.", honest.safetensors({"a": one}, bytes(8))),
        "offsets-swapped": ("An end before its start.", honest.safetensors({"a": {**one, "data_offsets": [16, 0]}})),
        "dtype": ("A type that needs more bytes.", honest.safetensors({"a": {**one, "dtype": "F64"}}, bytes(16))),
        "shape-overflow": ("A size that overflows 64 bits.",
                           honest.safetensors({"a": {**one, "shape": [2**62, 4]}}, bytes(16))),
        "shape-negative": ("A negative size.", honest.safetensors({"a": {**one, "shape": [-2, -2]}}, bytes(16))),
    }  # fmt: skip
    for name, (text, raw) in lies.items():
        broken(f"safetensors-{name}", text, "safetensors", raw)


def onnx_files() -> None:
    """Tensors in other files."""
    spec = "08-flavors.md#onnx"
    beside = {"payloads/native/w.bin": bytes(24)}

    def external(**entries: str) -> bytes:
        return onnx(tensors=(honest.tensor(**entries),))

    for name, text, raw in [
        ("absolute", "Weights at an absolute path.", external(location="/etc/hostname")),
        ("parent", "Weights above the package.", external(location="../../../../etc/hostname")),
        ("dotted", "Weights above the payload, and back.", external(location="x/../../native/w.bin")),
        ("unlisted", "Weights in a file that is not listed.", external(location="other.bin")),
        ("itself", "Weights in the graph's own file.", external(location="model.bin", offset="0", length="24")),
        ("memory", "Weights at an address in memory.",
         external(location="*/_ORT_MEM_ADDR_/*", offset="4096", length="24")),
        ("offset", "Weights that begin behind the end.", external(location="w.bin", offset="8")),
        ("offset-negative", "Weights that begin before the file.", external(location="w.bin", offset="-8")),
        ("length", "Weights longer than their file.", external(location="w.bin", length="2400")),
        ("length-shape", "Weights shorter than their shape.", external(location="w.bin", length="20")),
        ("key", "A property of a file that nobody knows.", external(location="w.bin", basepath="/etc")),
    ]:  # fmt: skip
        broken(f"onnx-external-{name}", text, "onnx", raw, spec=spec, others=beside)
    link = {"symlink": ["/etc/hostname", "payloads/native/w.bin"]}
    files = {PAYLOAD: external(location="w.bin"), **beside}
    payload = {"native": {"format": "onnx", "files": list(files), "entry": PAYLOAD}}
    value_ = manifest(files, payloads=payload, flavors=[{"name": "onnx", "payloads": {"model": "native"}}])
    reject("onnx-external-link", "02-package.md#file-kinds", "Weights behind a link.", value_,
           ("files", "file-kind", "payloads/native/w.bin"), {PAYLOAD: files[PAYLOAD]}, build=[link],
           schema="accept")  # fmt: skip


def onnx_graphs() -> None:
    """Graphs that reach further than arithmetic, or never end."""
    calls = node("f", ["a"], ["b"], "mine")
    long = honest.tensor((2**40, 2**40), None)
    for name, text, raw in [
        ("domain", "An operator of a library of its own.", onnx(node("Any", ["x"], ["y"], "com.example"), tensors=())),
        ("engine", "An operator that loads a compiled library.",
         onnx(node("EPContext", ["x"], ["y"], "com.microsoft"), tensors=())),
        ("python", "An operator that calls Python.",
         onnx(node("PythonOp", ["x"], ["y"], "com.microsoft"), tensors=())),
        ("function-cycle", "A function that calls itself.",
         onnx(node("f", ["x"], ["y"], "mine"), tensors=(), functions=(honest.function("f", calls),))),
        ("function-shadow", "A function with the name of an operator of another domain, called by nobody known.",
         onnx(node("f", ["x"], ["y"], "mine"), tensors=(),
              functions=(honest.function("f", node("g", ["a"], ["b"], "com.example")),))),
        ("graphs-deep", "Graphs nested 60 deep.", honest.nested(60)),
        ("tensor-huge", "A tensor of 2^80 numbers in no bytes.", onnx(tensors=(long,))),
        ("tensor-short", "A tensor with less data than its shape.", onnx(tensors=(honest.tensor(raw=bytes(20)),))),
        ("tensor-long", "A tensor with more data than its shape.", onnx(tensors=(honest.tensor(raw=bytes(28)),))),
        ("tensor-negative", "A tensor with a negative size.", onnx(tensors=(honest.tensor((-3, -2)),))),
        ("ir-version", "A version of the format from the future.", onnx(ir=999)),
        ("truncated", "Half a file.", onnx()[:60]),
        ("bytes-behind", "A field nobody knows behind the model.", onnx() + honest.message(f15="x")),
        ("other-format", "The mark of another format in the same bytes.", onnx()[:4] + b"ORTM" + onnx()[4:]),
        ("no-graph", "A model without a graph.", honest.message(f1=9, f8=honest.message(f1="", f2=18))),
    ]:  # fmt: skip
        broken(f"onnx-{name}", text, "onnx", raw, spec="08-flavors.md#onnx")
    divided = onnx(
        node("Cast", ["x"], ["a"], to=7), node("Div", ["a", "a"], ["d"]), node("Cast", ["d"], ["y"], to=1), tensors=()
    )
    text = "A division of whole numbers that ends the process for the least of them and -1."
    broken("onnx-division", text, "onnx", divided, DENIED, spec=TRUST)


def onnx_trees() -> None:
    """Trees of ONNX that point elsewhere."""
    for name, text, changes in [
        ("child", "A child that is not there.", {"nodes_truenodeids": [9, 0, 0]}),
        ("cycle", "A node that is its own child.", {"nodes_truenodeids": [0, 0, 0]}),
        ("feature", "A feature behind the last column.", {"nodes_featureids": [3, 0, 0]}),
        ("feature-negative", "A feature before the first column.", {"nodes_featureids": [-1, 0, 0]}),
        ("target", "A target that is not there.", {"target_ids": [0, 2]}),
        ("lengths", "Fewer thresholds than nodes.", {"nodes_values": [0.5]}),
        ("leaf", "A weight at a node that is no leaf.", {"target_nodeids": [0, 2]}),
        ("huge", "A number of targets that would need memory without end.", {"n_targets": 2**40}),
    ]:
        assert set(changes) <= set(FOREST)
        broken(f"onnx-tree-{name}", text, "onnx", honest.forest(**changes), spec="08-flavors.md#onnx")


def xgboost() -> None:
    """Trees of XGBoost, as JSON and as UBJ."""
    spec, sizes = "08-flavors.md#xgboost", ("learner", "learner_model_param")
    lies: list[tuple[str, str, tuple[Any, ...], Any]] = [
        ("child", "A child that is not there.", (*TREE, "left_children"), [1000, -1, -1]),
        ("cycle", "A node that is its own child.", (*TREE, "left_children"), [0, -1, -1]),
        ("two-parents", "A node with two parents.", (*TREE, "left_children"), [2, -1, -1]),
        ("feature", "A feature behind the last column.", (*TREE, "split_indices"), [2, 0, 0]),
        ("feature-negative", "A feature before the first column.", (*TREE, "split_indices"), [-1, 0, 0]),
        ("lengths", "Fewer splits than nodes.", (*TREE, "split_conditions"), [2.0]),
        ("nodes", "A billion nodes in three.", (*TREE, "tree_param", "num_nodes"), "999999999"),
        ("categories", "A set of categories without the set.", (*TREE, "split_type"), [1, 0, 0]),
        ("output", "A tree for an output that is not there.", (*TREE[:3], "tree_info"), [7]),
        ("iterations", "Iterations behind the last tree.", (*TREE[:3], "iteration_indptr"), [0, 9]),
        ("classes", "A billion classes.", (*sizes, "num_class"), "999999999"),
        ("objective", "An objective of its own.", ("learner", "objective", "name"), "my:own"),
        ("base-score", "No number to start from.", (*sizes, "base_score"), "[[[[["),
        ("version", "A version from the future.", ("version",), [99, 0, 0]),
        ("booster", "A booster nobody knows.", ("learner", "gradient_booster", "name"), "plugin"),
    ]
    for name, text, path, new in lies:
        broken(f"xgboost-{name}", text, "xgboost-json", honest.xgboost(path, new), spec=spec)
        if name in ("child", "feature-negative", "nodes"):
            raw = honest.ubj(honest.replaced(XGBOOST, path, new))
            broken(f"xgboost-ubj-{name}", text, "xgboost-ubj", raw, spec=spec)
    good = honest.ubj(XGBOOST)
    long = good.replace(b"[$l#" + struct.pack(">cq", b"L", 3), b"[$l#" + struct.pack(">cq", b"L", 2**40), 1)
    deep = b"{" + struct.pack(">cq", b"L", 1) + b"a" + b"[" * 20_000
    broken("xgboost-ubj-length", "An array of 2^40 numbers in a few bytes.", "xgboost-ubj", long, spec=spec)
    broken("xgboost-ubj-deep", "Arrays nested 20,000 deep.", "xgboost-ubj", deep, spec=spec)
    broken("xgboost-ubj-truncated", "Half a file.", "xgboost-ubj", good[: len(good) // 2], spec=spec)
    broken("xgboost-deep", "JSON nested 20,000 deep.", "xgboost-json", b'{"learner":' + b"[" * 20_000, spec=spec)
    broken("xgboost-key-twice", "A key twice.", "xgboost-json", b'{"learner":{},"learner":{}}', spec=spec)


def lightgbm() -> None:
    """Trees of LightGBM."""
    for name, text, old, new in [
        ("child", "A child that is not there.", "left_child=-1", "left_child=-9"),
        ("cycle", "A node that is its own child.", "left_child=-1", "left_child=0"),
        ("feature", "A feature behind the last column.", "split_feature=0", "split_feature=2"),
        ("feature-negative", "A feature before the first column.", "split_feature=0", "split_feature=-1"),
        ("leaves", "A billion leaves in two.", "num_leaves=2", "num_leaves=999999999"),
        ("leaves-negative", "Fewer leaves than none.", "num_leaves=2", "num_leaves=-2"),
        ("lengths", "Fewer values than leaves.", "leaf_value=1.4 1.6", "leaf_value=1.4"),
        ("categories", "Sets of categories that are not there.", "num_cat=0", "num_cat=1"),
        ("linear", "Linear leaves that are not there.", "is_linear=0", "is_linear=1"),
        ("classes", "More classes than trees.", "num_class=1", "num_class=999999999"),
        ("columns", "More columns than names.", "max_feature_idx=1", "max_feature_idx=999999999"),
        ("tree-size", "A tree that ends behind the file.", "tree_sizes=", "tree_sizes=9"),
        ("objective", "An objective of its own.", "objective=regression", "objective=mine"),
        ("line-twice", "A line twice.", "shrinkage=1", "shrinkage=1\nshrinkage=1"),
        ("pandas-deep", "Categories nested 20,000 deep.", "categorical:null", "categorical:" + "[" * 20_000),
    ]:
        raw = honest.lightgbm(old, new)
        broken(f"lightgbm-{name}", text, "lightgbm-text", raw, spec="08-flavors.md#lightgbm")
    broken("lightgbm-truncated", "Half a file.", "lightgbm-text", honest.lightgbm()[:400],
           spec="08-flavors.md#lightgbm")  # fmt: skip


def torch() -> None:
    """Exported programs that do more than listed arithmetic, or whose weights lie."""
    spec, w = "08-flavors.md#torch", value("p_w")
    steps = {
        "operator": ("An operator that is not listed.", "torch.ops.aten._print.default"),
        "getattr": ("A step that fetches an attribute.", "_operator.attrgetter"),
        "call-function": ("A step that calls what it is given.", "_operator.call"),
        "load": ("A step that loads another file.", "torch.load"),
        "system": ("A step that runs a command.", "os.system"),
        "library": ("An operator of a library of its own.", "torch.ops.example.run.default"),
        "strides": ("A step that sets strides.", "torch.ops.aten.as_strided.default"),
    }
    for name, (text, target) in steps.items():
        root = honest.replaced(honest.program(), (*NODES, 0), call(target, value("x"), w))
        broken(f"pt2-{name}", text, "pt2", honest.pt2(root), DENIED, spec=spec)
    lists = ("graph_module", "graph", "sym_int_values")
    expression = {"s": {"as_expr": {"expr_str": f"open('{MARK}', 'w')"}}}
    more = {
        "expression": ("A size that is an expression with a call.",
                       honest.pt2(honest.replaced(honest.program(), lists, expression))),
        "guard": ("A guard that is a call.",
                  honest.pt2(honest.replaced(honest.program(), ("guards_code",), [f"open('{MARK}', 'w')"]))),
        "pickled-weight": ("A weight that is a pickle.", honest.pt2(weight={**WEIGHT, "use_pickle": True},
                                                                  data__weights__weight_0=OPENS)),
        "custom-object": ("A pickled object beside the constants.",
                          honest.pt2(data__constants__custom_obj_0=OPENS)),
        "library-inside": ("A compiled library inside.",
                           honest.pt2(data__aotinductor__model__model_so=b"\x7fELF")),
        "weight-outside": ("A weight at another place of the archive.",
                           honest.pt2(weight={**WEIGHT, "path_name": "../../x"})),
    }  # fmt: skip
    for name, (text, raw) in more.items():
        broken(f"pt2-{name}", text, "pt2", raw, DENIED, spec=spec)
    offset = honest.replaced(WEIGHT, ("tensor_meta", "storage_offset"), {"as_int": 2**40})
    strides = honest.replaced(WEIGHT, ("tensor_meta", "strides"), [{"as_int": 900}, {"as_int": 1}])
    later = honest.replaced(honest.program(), (*NODES, 0, "inputs", 0, "arg"), value("later"))
    lies = {
        "weight-missing": ("A weight that is not there.", honest.pt2(data__weights__weight_0=None)),
        "weight-short": ("A weight shorter than its shape.", honest.pt2(data__weights__weight_0=bytes(20))),
        "weight-offset": ("A weight that begins behind its bytes.", honest.pt2(weight=offset)),
        "weight-strides": ("Strides that lead behind the bytes.", honest.pt2(weight=strides)),
        "value-later": ("A value that is used before it is there.", honest.pt2(later)),
    }
    for name, (text, raw) in lies.items():
        broken(f"pt2-{name}", text, "pt2", raw, spec=spec)


def archives() -> None:
    """Zip files that are read differently by different readers, or expand without end."""
    small = honest.deflated(("schema.json", b" " * 2**16))
    # The listing gives the sizes behind the mark: compressed, then expanded.
    place = small.rindex(b"PK\x01\x02") + 24
    bomb = small[:place] + struct.pack("<I", 2**31) + small[place + 4 :]
    twice = skops(("0.npy", b"x"), ("1.npy", b"y")).replace(b"1.npy", b"0.npy")
    link = b"/etc/hostname"
    inside = skops()
    comment = inside[:-2] + b"\x01\x00#"
    lies = {
        "bomb": ("Some bytes that say they expand to two gigabytes.", "skops", bomb),
        "member-twice": ("Two members of one name.", "skops", twice),
        "member-absolute": ("A member with an absolute path.", "skops", skops(("/etc/x.npy", link))),
        "member-backslash": ("A member with a backslash.", "skops", skops(("..\\x.npy", link))),
        "bytes-in-front": ("Another file in front of the archive.", "skops", REDUCES + inside),
        "comment": ("Bytes behind the archive that are its comment.", "skops", comment),
        "name-differs": ("A member with another name in its header.", "skops",
                         inside.replace(b"schema.json", b"schemb.json", 1)),
        "encrypted": ("A member that says it is encrypted.", "skops",
                      inside.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00", 1)),
        "pt2-path": ("A program with a member above it.", "pt2", honest.pt2(**{"..__x": b""})),
        "pt2-deflated": ("A compressed program.", "pt2",
                         honest.deflated(*honest.members(honest.pt2()).items())),
        "pt2-in-front": ("A pickle in front of a program.", "pt2", REDUCES + honest.pt2()),
        "pt2-behind": ("A pickle behind a program.", "pt2", honest.pt2() + REDUCES),
    }  # fmt: skip
    for name, (text, format_, raw) in lies.items():
        broken(f"zip-{name}", text, format_, raw)


def skops_node(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    """One node of a skops file."""
    module, _, cls = name.rpartition(".")
    return {"__class__": cls, "__module__": module, "__loader__": kind, **fields}


def listed(*items: dict[str, Any], kind: str = "ListNode", name: str = "builtins.list") -> dict[str, Any]:
    """A list or a tuple of nodes."""
    return skops_node(kind, name, content=list(items))


def skops_nodes() -> None:
    """Nodes that would reach what is not on the list."""
    spec = "08-flavors.md#sklearn"
    text_ = skops_node("JsonNode", "builtins.str", content=f'"{MARK}"', is_json=True)
    arguments = listed(text_, kind="TupleNode", name="builtins.tuple")
    open_ = skops_node("FunctionNode", "builtins.open")
    none = skops_node("DictNode", "builtins.dict", content={}, key_types=listed())
    partial = {"func": open_, "args": arguments, "kwds": none,
               "namespace": skops_node("JsonNode", "builtins.str", content="null", is_json=True)}  # fmt: skip
    logistic = "sklearn.linear_model._logistic.LogisticRegression"
    nodes = {
        "partial": ("A call with arguments, made beforehand.",
                    skops_node("PartialNode", "functools.partial", content=partial)),
        "open": ("The function that opens files.", open_),
        "constructor": ("A class built by a call with arguments.",
                        skops_node("ConstructorFromReduceNode", "pathlib.Path", content=arguments)),
        "method": ("A method, bound to an object.",
                   skops_node("MethodNode", "pathlib.Path", content={"func": "touch", "obj": text_})),
        "methodcaller": ("A call of a method by its name.",
                         skops_node("OperatorFuncNode", "operator.methodcaller", attrs=arguments)),
        "dunder": ("A class reached through attributes of a listed one.",
                   skops_node("TypeNode", f"{logistic}.__init__.__globals__")),
        "module-dunder": ("A module's loader as a type.",
                          skops_node("TypeNode", "sklearn.__loader__.exec_module")),
        "memmap": ("An array in a class that opens files.",
                   skops_node("NdArrayNode", "numpy.memmap", type="numpy", file="0.npy")),
        "listed-as-type": ("A listed class under another kind of node.", skops_node("TypeNode", logistic)),
    }  # fmt: skip
    for name, (text, inner) in nodes.items():
        members = [("0.npy", npy("<f8", (1,), bytes(8)))] if name == "memmap" else []
        raw = skops(*members, content=[inner])
        broken(f"skops-node-{name}", text, "skops", raw, DENIED, spec=spec)
    array = skops_node("NdArrayNode", "numpy.ndarray", type="numpy", file="0.npy")
    lies = {
        "cycle": ("An object inside itself.", skops(__id__=1, content=[skops_node("CachedNode", "builtins.list",
                                                                                   __id__=1)])),
        "array-objects": ("An array of pickled objects.",
                          skops(("0.npy", npy("|O", (1,), OPENS)), content=[array])),
        "array-length": ("An array of 2^40 numbers in eight bytes.",
                         skops(("0.npy", npy("<f8", (2**40,), bytes(8))), content=[array])),
        "array-shape": ("An array with a negative size.",
                        skops(("0.npy", npy("<f8", (-1,), bytes(8))), content=[array])),
        "array-header": ("An array whose header is an expression.",
                         skops(("0.npy", npy_text(b"{[]: 1}", b"")), content=[array])),
        "array-missing": ("An array that is not there.", skops(content=[array])),
    }  # fmt: skip
    for name, (text, raw) in lies.items():
        broken(f"skops-{name}", text, "skops", raw, spec=spec)


def npy_text(header: bytes, data: bytes) -> bytes:
    """A ``.npy`` file with this very header."""
    padded = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data


def npy(descr: str, shape: tuple[int, ...], data: bytes) -> bytes:
    """A ``.npy`` file that says this of its data."""
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    return npy_text(repr(header).encode(), data)


def seed(name: str, **changes: bytes) -> bytes:
    """A model from ``seeds`` with members replaced (``_`` for the dot) and texts of its schema."""
    contents = honest.members((SEEDS / f"{name}.skops").read_bytes())
    return archive(*(contents | {key.replace("_", "."): raw for key, raw in changes.items()}).items())


def patched(name: str, member: str, at: int, new: bytes) -> bytes:
    """A model from ``seeds`` with bytes of the data of one array replaced."""
    raw = honest.members((SEEDS / f"{name}.skops").read_bytes())[member]
    start = 10 + struct.unpack("<H", raw[8:10])[0] + at
    return seed(name, **{member.replace(".", "_"): raw[:start] + new + raw[start + len(new) :]})


def said(name: str, old: str, new: str) -> bytes:
    """A model from ``seeds`` with a text of its schema replaced."""
    schema = honest.members((SEEDS / f"{name}.skops").read_bytes())["schema.json"]
    assert old.encode() in schema, old
    return seed(name, schema_json=schema.replace(old.encode(), new.encode(), 1))


def sparse(part: str, number: int) -> bytes:
    """The sparse model with the last number of one of its support vectors' arrays replaced."""
    inner = honest.members(honest.members((SEEDS / "sparse.skops").read_bytes())["4.npz"])
    inner[f"{part}.npy"] = inner[f"{part}.npy"][:-4] + struct.pack("<i", number)
    return seed("sparse", **{"4_npz": archive(*inner.items())})


def skops_states() -> None:
    """Objects on the list whose state would lead compiled code out of its arrays."""
    spec = "08-flavors.md#sklearn"
    number = struct.Struct("<q").pack
    for name, text, raw in [
        ("tree-child", "A child that is not there.", patched("tree", "0.npy", 0, number(2**40))),
        ("tree-cycle", "A node that is its own child.", patched("tree", "0.npy", 0, number(0))),
        ("tree-feature", "A feature behind the last column.", patched("tree", "0.npy", 16, number(2**40))),
        ("tree-feature-negative", "A feature before the first column.", patched("tree", "0.npy", 16, number(-9))),
        ("tree-one-child", "A node with one child.", patched("tree", "0.npy", 8, number(-1))),
        ("tree-values", "Fewer values than nodes.",
         seed("tree", **{"1_npy": npy("<f8", (1, 1, 1), bytes(8))})),
        ("tree-count", "A billion nodes in three.", said("tree", '"content":"3"', '"content":"999999999"')),
        ("boosting-child", "A child that is not there.", patched("boosting", "7.npy", 29, struct.pack("<I", 2**31))),
        ("boosting-feature", "A feature behind the last column.", patched("boosting", "7.npy", 12, number(2**30))),
        ("boosting-cycle", "A node that is its own child.", patched("boosting", "7.npy", 29, struct.pack("<I", 0))),
        ("neighbors-index", "A neighbour that is not there.", patched("neighbors", "2.npy", 0, number(2**40))),
        ("neighbors-node", "A node over rows that are not there.", patched("neighbors", "3.npy", 8, number(2**40))),
        ("sparse-index", "An index behind the last column.", sparse("indices", 2**30)),
        ("sparse-index-negative", "An index before the first column.", sparse("indices", -(2**30))),
        ("sparse-pointer", "Rows that end behind the data.", sparse("indptr", 2**30)),
    ]:  # fmt: skip
        broken(f"state-{name}", text, "skops", raw, spec=spec)


def skops_places() -> None:
    """Objects on the list where they do what they are not for."""
    spec = "08-flavors.md#sklearn"
    scorer, kernel = "sklearn.metrics._scorer._Scorer", "sklearn.gaussian_process.kernels.RBF"
    transformer = "sklearn.preprocessing._function_transformer.FunctionTransformer"
    logistic, mean = "sklearn.linear_model._logistic.LogisticRegression", skops_node("FunctionNode", "numpy.mean")
    parts = {"func": skops_object(scorer, _response_method="predict"), "namespace": plain(None),
             "args": listed(kind="TupleNode", name="builtins.tuple"), "kwds": skops_dict()}  # fmt: skip
    partial = skops_node("PartialNode", "functools.partial", content=parts)
    shape = listed(plain(10**8), kind="TupleNode", name="builtins.tuple")
    array = skops_node("NdArrayNode", "numpy.ndarray", type="json", content=[], shape=shape)
    bunch = skops_dict("sklearn.utils._bunch.Bunch", predict=mean)
    for name, text, inner, where in [
        ("partial", "A transformer whose function is a scorer, called with arguments.",
         skops_object(transformer, func=partial), DENIED),
        ("scorer", "A scorer that calls another method than those that score.",
         skops_object(scorer, _response_method="fit"), INVALID),
        ("stack", "A stack of estimators that are fitted to answer.",
         skops_object("sklearn.ensemble._stacking.StackingRegressor", stack_method_=listed(plain("fit"))), INVALID),
        ("cache", "A pipeline with a cache, whose files are pickles.",
         skops_object("sklearn.pipeline.Pipeline", memory="payloads/cache"), DENIED),
        ("method-function", "An estimator whose method is another function.",
         skops_object(logistic, decision_function=mean), DENIED),
        ("dunder", "An estimator with an attribute that Python asks for.",
         skops_object(logistic, __sklearn_tags__=1), INVALID),
        ("bunch", "A dict with functions as attributes, in place of an estimator.", bunch, DENIED),
        ("shape", "An array of 10^8 objects that holds none.", array, INVALID),
        ("pattern", "A vectorizer with a pattern that can take for ever.",
         skops_object("sklearn.feature_extraction.text.CountVectorizer", token_pattern=r"(\w+\s?)+$"), DENIED),
        ("selector", "A selector of columns with a pattern that can take for ever.",
         skops_object("sklearn.compose._column_transformer.make_column_selector", pattern=r"(\w+\s?)+$"), DENIED),
    ]:  # fmt: skip
        broken(f"skops-place-{name}", text, "skops", skops(content=[inner]), where, spec=spec)
    hidden = skops_object(logistic, decision_function=skops_object(kernel))
    broken("state-method-object", "An estimator whose method is an object.", "skops", skops(content=[hidden]), INVALID,
           spec=spec)  # fmt: skip


def plain(item: Any) -> dict[str, Any]:
    """The node of a single value."""
    return skops_node("JsonNode", "builtins.str", content=json.dumps(item), is_json=True)


def skops_dict(_name: str = "builtins.dict", **items: Any) -> dict[str, Any]:
    """The node of a dict of nodes or single values."""
    content = {key: item if isinstance(item, dict) else plain(item) for key, item in items.items()}
    return skops_node("DictNode", _name, content=content,
                      key_types=listed(*[skops_node("TypeNode", "builtins.str") for _ in items]))  # fmt: skip


def skops_object(_name: str, **attributes: Any) -> dict[str, Any]:
    """The node of an object with attributes."""
    return skops_node("ObjectNode", _name, content=skops_dict(**attributes))


def directory(
    id_: str, description: str, format_: str, contents: dict[str, bytes], entry: str, where: tuple[str, str]
) -> None:
    """Write a vector whose payload is a directory."""
    files = {f"payloads/native/{path}": raw for path, raw in contents.items()}
    payload = {"format": format_, "files": list(files), "entry": f"payloads/native/{entry}"}
    uses = [{"name": format_.partition("-")[0], "payloads": {"model": "native"}}]
    value_ = manifest(files, payloads={"native": payload}, flavors=uses)
    spec = "09-trust.md#audits"
    reject(f"load-{id_}", spec, description, value_, ("load", *where), files, schema="accept")


def spark() -> None:
    """Directories of Spark that name what Spark would build."""
    home, entry = "org.apache.spark.ml", "metadata/part-00000"
    invalid = ("payload-invalid", entry)

    def stage(name: str, **params: Any) -> bytes:
        return json.dumps({"class": name, "uid": "stage_1", "paramMap": params}).encode() + b"\n"

    bare, pipeline = f"{home}.feature.Binarizer", f"{home}.PipelineModel"
    inside = stage("com.example.Runs")
    for name, text, contents, where in [
        ("class", "A class of a library of its own.", {entry: inside}, DENIED),
        ("class-installed", "A class of Java's own.", {entry: stage("java.lang.Runtime")}, DENIED),
        ("stage", "A pipeline with a stage of a library of its own.",
         {entry: stage(pipeline, stageUids=["stage_1"]), f"stages/0_stage_1/{entry}": inside}, DENIED),
        ("python", "A pipeline whose stages Python would import.",
         {entry: stage(pipeline, stageUids=[], language="Python")}, DENIED),
        ("uid", "A stage above the directory.", {entry: stage(pipeline, stageUids=["../../x"])}, invalid),
        ("stage-missing", "A stage that is not there.", {entry: stage(pipeline, stageUids=["stage_1"])}, invalid),
        ("unlisted-file", "A file where Spark writes none.", {entry: stage(bare), "lib.jar": b"PK"}, invalid),
        ("two-lines", "Two descriptions of one stage.", {entry: stage(bare) + inside}, invalid),
        ("class-twice", "A class twice.",
         {entry: b'{"class":"%s","class":"com.example.Runs","uid":"a","paramMap":{}}' % bare.encode()}, invalid),
        ("pickle", "A pickle in place of a description.", {entry: OPENS}, invalid),
    ]:  # fmt: skip
        directory(f"spark-{name}", text, "spark-ml", contents, entry, where)


def transformers() -> None:
    """Directories of transformers that bring more than data."""
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    plain = {
        "config.json": dump(config),
        "model.safetensors": honest.safetensors(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
    }
    custom = dump({**config, "auto_map": {"AutoModel": "modeling.Net"}})
    remote = dump({**config, "_name_or_path": "example/elsewhere"})
    other = dump({"model_type": "example", "architectures": ["Example"]})
    for name, text, changes, path in [
        ("pickled-weights", "Pickled weights beside the others.", {"pytorch_model.bin": OPENS}, "pytorch_model.bin"),
        ("source", "Source of a model of its own.", {"modeling.py": SOURCE}, "modeling.py"),
        ("auto-map", "A configuration that names source to import.", {"config.json": custom}, "config.json#auto_map"),
        ("elsewhere", "A configuration that names elsewhere.", {"config.json": remote}, "config.json#_name_or_path"),
        ("model", "A model nobody knows.", {"config.json": other}, "config.json#model_type"),
        ("template", "A template, which is a program.", {"chat_template.jinja": b"{{ x }}"}, "chat_template.jinja"),
        ("tokenizer-class", "A tokenizer of its own.",
         {"tokenizer_config.json": dump({"tokenizer_class": "Runs", "auto_map": {"AutoTokenizer": ["t.Runs", None]}})},
         "tokenizer_config.json#tokenizer_class"),
        ("pickled-tokenizer", "A tokenizer that is a pickle.", {"tokenizer.json": OPENS}, "tokenizer.json"),
    ]:  # fmt: skip
        files = dict(sorted({**plain, **changes}.items()))
        directory(f"transformers-{name}", text, "transformers", files, "config.json", ("payload-invalid", path))
