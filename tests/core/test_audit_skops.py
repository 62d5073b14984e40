"""The audit of skops files, on files made by hand: what is listed, what is not, and what is no skops file at all.

Names that must not be reached are ``benign.marker``: nothing of that name exists, so building one would fail loudly.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelpack.audits import Audit, skops, skops_archive, skops_types
from modelpack.errors import PackageError

LOGISTIC = "sklearn.linear_model._logistic.LogisticRegression"
MARKER = "benign.marker"
Node = dict[str, Any]


def node(loader: str, name: str = "builtins.str", **fields: Any) -> Node:
    module, _, cls = name.rpartition(".")
    return {"__class__": cls, "__module__": module, "__loader__": loader, **fields}


def scalar(value: Any) -> Node:
    return node("JsonNode", content=json.dumps(value), is_json=True)


def mapping(_name: str = "builtins.dict", **items: Node) -> Node:
    types = node("ListNode", "builtins.list", content=[node("TypeNode", "builtins.str") for _ in items])
    return node("DictNode", _name, content=items, key_types=types)


def sequence(*items: Node, loader: str = "ListNode", name: str = "builtins.list", **fields: Any) -> Node:
    return node(loader, name, content=list(items), **fields)


def estimator(_name: str = LOGISTIC, **attributes: Node) -> Node:
    return node("ObjectNode", _name, content=mapping(**attributes))


def array(file: str, name: str = "numpy.ndarray") -> Node:
    return node("NdArrayNode", name, type="numpy", file=file)


def npy(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=True)
    return buffer.getvalue()


def packed(root: Any, members: Mapping[str, bytes] | None = None, **top: Any) -> bytes:
    schema = {**root, "protocol": 2, "_skops_version": "0.16.0", **top} if isinstance(root, dict) else root
    return zipped({"schema.json": json.dumps(schema).encode(), **(members or {})})


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def audit(data: bytes) -> Audit:
    def read(path: str) -> bytes:
        assert path == "model.skops"
        return data

    return skops.audit(read, "model.skops")


def generator(name: Node) -> Node:
    content = {"bit_generator": mapping(bit_generator=name), "seed_seq": mapping()}
    return node("RandomGeneratorNode", "numpy.random._generator.Generator", content=content)


def partial(func: Node) -> Node:
    content = {"func": func, "args": sequence(), "kwds": mapping(), "namespace": scalar(None)}
    return node("PartialNode", "functools.partial", content=content)


LISTED = {
    "an estimator": estimator(C=scalar(1.0)),
    "an estimator without a state": node("ObjectNode", LOGISTIC),
    "an estimator whose state is null": node("ObjectNode", LOGISTIC, content=scalar(None)),
    "NaN": estimator(C=node("JsonNode", content="NaN")),
    "a dict": mapping(a=scalar(1)),
    "a set": sequence(scalar(1), loader="SetNode", name="builtins.set"),
    "a slice": node("SliceNode", "builtins.slice", content={"start": None, "stop": 3, "step": "a"}),
    "a type": node("TypeNode", "numpy.float64"),
    "a ufunc": node("FunctionNode", "numpy.log1p"),
    "a partial of a ufunc": partial(node("FunctionNode", "numpy.log1p")),
    "an itemgetter": node(
        "OperatorFuncNode",
        "operator.itemgetter",
        attrs=sequence(scalar("a"), loader="TupleNode", name="builtins.tuple"),
    ),
    "a default dict": node(
        "DefaultDictNode",
        "collections.defaultdict",
        content={"main": mapping(), "default_factory": node("TypeNode", "builtins.list")},
    ),
    "a frozenset": node(
        "ConstructorFromReduceNode",
        "builtins.frozenset",
        content=sequence(sequence(), loader="TupleNode", name="builtins.tuple"),
    ),
    "a generator": generator(scalar("PCG64")),
    "a reference": sequence(mapping() | {"__id__": 1}, node("CachedNode", "builtins.dict", __id__=1)),
    "an object met again": sequence(mapping() | {"__id__": 7}, mapping() | {"__id__": 7}),
}


@pytest.mark.parametrize("root", LISTED.values(), ids=LISTED)
def test_listed_nodes_are_objects(root: Node) -> None:
    found = audit(packed(root))
    assert (found.trust, found.unlisted, found.reasons) == ("objects", (), ())


UNLISTED: dict[str, tuple[Node, str]] = {
    "a class nobody knows": (estimator(MARKER), MARKER),
    "a class below": (estimator(base=estimator(MARKER)), MARKER),
    "a class in a list": (sequence(scalar(1), estimator(MARKER)), MARKER),
    "a class among the arguments of a tree": (
        node(
            "TreeNode",
            "sklearn.tree._tree.Tree",
            content=mapping(),
            __reduce__={"args": sequence(estimator(MARKER), loader="TupleNode", name="builtins.tuple")},
        ),
        MARKER,
    ),
    "a function": (node("FunctionNode", MARKER), MARKER),
    "a type": (node("TypeNode", MARKER), MARKER),
    "a partial of a function": (partial(node("FunctionNode", MARKER)), MARKER),
    "a subclass of partial": (partial(scalar(1)) | {"__module__": "benign", "__class__": "marker"}, MARKER),
    "a type of keys": (
        node(
            "DictNode",
            "builtins.dict",
            content={"a": scalar(1)},
            key_types=sequence(node("TypeNode", MARKER)),
        ),
        MARKER,
    ),
    "keys that are true or false": (
        node(
            "DictNode", "builtins.dict", content={"a": scalar(1)}, key_types=sequence(node("TypeNode", "builtins.bool"))
        ),
        "builtins.bool",
    ),
    "keys made by a list": (
        node("DictNode", "builtins.dict", content={"a": scalar(1)}, key_types=sequence(sequence())),
        "builtins.list",
    ),
    "a method of a listed class": (
        node("MethodNode", LOGISTIC, content={"func": "fit", "obj": estimator()}),
        LOGISTIC + ".fit",
    ),
    "another operator": (
        node("OperatorFuncNode", "operator.methodcaller", attrs=sequence(loader="TupleNode", name="builtins.tuple")),
        "operator.methodcaller",
    ),
    "an operator of more than values": (
        node("OperatorFuncNode", "operator.itemgetter", attrs=sequence(estimator())),
        "operator.itemgetter",
    ),
    "a listed class as a list": (sequence(name=LOGISTIC), LOGISTIC),
    "a listed class as a constructor": (
        node(
            "ConstructorFromReduceNode",
            LOGISTIC,
            content=sequence(loader="TupleNode", name="builtins.tuple"),
        ),
        LOGISTIC,
    ),
    "a listed class as a dict": (mapping(LOGISTIC), LOGISTIC),
    "a listed class as a type": (node("TypeNode", LOGISTIC), LOGISTIC),
    "a listed class as a function": (node("FunctionNode", LOGISTIC), LOGISTIC),
    "a listed function as an object": (estimator("numpy.log1p"), "numpy.log1p"),
    "a list as an object": (estimator("builtins.list"), "builtins.list"),
    "a tree as an object": (estimator("sklearn.tree._tree.Tree"), "sklearn.tree._tree.Tree"),
    "a state that is a list": (node("ObjectNode", LOGISTIC, content=sequence()), LOGISTIC),
    "a state that is a text": (node("ObjectNode", LOGISTIC, content=scalar("x")), LOGISTIC),
    "a state that is another mapping": (
        node("ObjectNode", LOGISTIC, content=mapping("collections.OrderedDict")),
        LOGISTIC,
    ),
    "a bit generator": (generator(scalar("marker")), "numpy.random.marker"),
    "a node of a kind nobody knows": (node("MarkerNode", LOGISTIC), LOGISTIC),
    "an array in a class that opens files": (array("a.npy", "numpy.memmap"), "numpy.memmap"),
}


@pytest.mark.parametrize(("root", "name"), UNLISTED.values(), ids=UNLISTED)
def test_everything_else_is_code_and_is_named(root: Node, name: str) -> None:
    found = audit(packed(root, {"a.npy": npy([1.0])} if "file" in root else None))
    assert found.trust == "code"
    assert name in found.unlisted
    assert name in found.types
    assert len(found.reasons) == len(found.unlisted)
    assert any(name in reason for reason in found.reasons)


def test_what_a_package_says_of_its_own_trust_is_not_read() -> None:
    root = estimator(MARKER, trusted=scalar(True), trust=scalar("data"), skops_trusted_types=sequence(scalar(MARKER)))
    assert audit(packed(root)).trust == "code"


def test_reasons_say_which_kind_of_thing_is_not_listed() -> None:
    found = audit(packed(sequence(node("FunctionNode", "benign.marked"), estimator(MARKER), sequence(name=LOGISTIC))))
    assert found.reasons == (
        "benign.marked is not on the list of reviewed functions",
        "benign.marker is not on the list of reviewed types",
        f"{LOGISTIC} is not stored as it should be (ListNode)",
    )


SIMPLE = packed(scalar(1))


def moved(by: int) -> bytes:
    """Return a file whose end says that its listing begins elsewhere."""
    place = struct.unpack("<I", SIMPLE[-6:-2])[0]
    return SIMPLE[:-6] + struct.pack("<I", place + by) + SIMPLE[-2:]


MALFORMED: dict[str, tuple[Callable[[], bytes], str]] = {
    "members before the file": (lambda: moved(8), "cannot be read"),
    "no zip": (lambda: b"PK but no more", "not a zip file"),
    "bytes before": (lambda: b"x" + SIMPLE, "before or after"),
    "no schema": (lambda: zipped({"a.npy": b""}), "schema.json is missing"),
    "a schema that is not JSON": (lambda: zipped({"schema.json": b"{"}), "not JSON"),
    "a schema that is not UTF-8": (lambda: zipped({"schema.json": b'"\xff"'}), "not JSON"),
    "a schema that is a list": (lambda: packed([]), "not an object"),
    "a repeated key": (lambda: zipped({"schema.json": b'{"a": 1, "a": 2}'}), "repeats a key"),
    "a bare NaN": (lambda: zipped({"schema.json": b'{"a": NaN}'}), "bare NaN"),
    "a schema nested without end": (lambda: zipped({"schema.json": b"[" * 100_000}), "not JSON"),
    "an older protocol": (lambda: packed(scalar(1), protocol=1), "protocol 2"),
    "a protocol that is true": (lambda: packed(scalar(1), protocol=True), "protocol 2"),
    "a version that is no text": (lambda: packed(scalar(1), _skops_version=1), "version"),
    "a member that nobody names": (lambda: packed(scalar(1), {"a.npy": npy([1.0])}), "does not name"),
    "a member that is not there": (lambda: packed(array("b.npy")), "not there"),
    "a member in a folder": (lambda: packed(array("a/b.npy"), {"a/b.npy": npy([1.0])}), "plain file name"),
    "a member above": (lambda: packed(array("../b.npy"), {"../b.npy": npy([1.0])}), "plain file name"),
    "a node that is a text": (lambda: packed(sequence("x")), "not an object"),  # type: ignore[arg-type]
    "a node without a class": (lambda: packed({"__module__": "a", "__loader__": "ListNode"}), "__class__"),
    "a node with another key": (lambda: packed(scalar(1) | {"more": 1}), "does not belong"),
    "an id that is a text": (lambda: packed(mapping() | {"__id__": "1"}), "__id__"),
    "an id that is true": (lambda: packed(mapping() | {"__id__": True}), "__id__"),
    "an id of zero": (lambda: packed(mapping() | {"__id__": 0}), "__id__"),
    "a reference to nothing": (lambda: packed(node("CachedNode", "builtins.dict", __id__=1)), "later or never"),
    "a reference to what comes later": (
        lambda: packed(sequence(node("CachedNode", "builtins.dict", __id__=1), mapping() | {"__id__": 1})),
        "later or never",
    ),
    "an object in itself": (
        lambda: packed(sequence(node("CachedNode", "builtins.list", __id__=1), __id__=1)),
        "contains itself",
    ),
    "a value that is a list": (lambda: packed(node("JsonNode", content=" [1]")), "single value"),
    "a value that is no text": (lambda: packed(node("JsonNode", content=1)), "not a text"),
    "a value that is not JSON": (lambda: packed(node("JsonNode", content="x" * 99)), "single value"),
    "fewer types than keys": (
        lambda: packed(mapping(a=scalar(1)) | {"key_types": sequence()}),
        "do not match",
    ),
    "a dict without types": (lambda: packed(node("DictNode", "builtins.dict", content={})), "no key_types"),
    "a list that is a dict": (lambda: packed(node("ListNode", "builtins.list", content={})), "not a list"),
    "a slice of floats": (
        lambda: packed(node("SliceNode", "builtins.slice", content={"start": 1.5, "stop": None, "step": None})),
        "neither a number nor a text",
    ),
    "a slice of two": (
        lambda: packed(node("SliceNode", "builtins.slice", content={"start": 1, "stop": None})),
        "start, stop and step",
    ),
    "an array of another kind": (
        lambda: packed(node("NdArrayNode", "numpy.ndarray", type="text", content=[])),
        "neither numeric",
    ),
    "an array of objects whose shape is a list": (
        lambda: packed(node("NdArrayNode", "numpy.ndarray", type="json", content=[], shape=sequence())),
        "shape is not a tuple",
    ),
    "an array in a member of another name": (lambda: packed(array("a.bin"), {"a.bin": npy([1.0])}), "no .npy"),
    "arguments that are a list": (
        lambda: packed(node("ConstructorFromReduceNode", "builtins.frozenset", content=sequence())),
        "not a tuple",
    ),
    "a generator whose bits are a reference": (
        lambda: packed(
            sequence(
                mapping(bit_generator=scalar("PCG64")) | {"__id__": 1},
                node(
                    "RandomGeneratorNode",
                    "numpy.random._generator.Generator",
                    content={
                        "bit_generator": mapping(bit_generator=scalar("marker")) | {"__id__": 1},
                        "seed_seq": mapping(),
                    },
                ),
            )
        ),
        "does not name its bit generator",
    ),
    "a loss without arguments": (
        lambda: packed(node("LossNode", "sklearn._loss._loss.CyHalfSquaredError", content=mapping(), __reduce__=[])),
        "has no args",
    ),
}


@pytest.mark.parametrize(("made", "message"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_skops_file_is_refused_whatever_is_granted(made: Callable[[], bytes], message: str) -> None:
    with pytest.raises(PackageError, match=message) as info:
        audit(made())
    assert (info.value.code, info.value.path) == ("payload-invalid", "model.skops")


def test_two_members_of_one_name_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("schema.json", json.dumps(scalar(1) | {"protocol": 2}))
        file.writestr("schema.json", json.dumps(estimator(MARKER) | {"protocol": 2}))
    with pytest.raises(PackageError, match="two members of one name"):
        audit(buffer.getvalue())


def test_another_compression_is_refused() -> None:
    with pytest.raises(PackageError, match="not deflated"):
        audit(zipped({"schema.json": b"{}"}, zipfile.ZIP_BZIP2))


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(SIMPLE)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(PackageError, match="encrypted"):
        audit(bytes(data))


def test_a_damaged_member_is_refused() -> None:
    data = zipped({"schema.json": json.dumps(scalar("marker") | {"protocol": 2}).encode()}, zipfile.ZIP_STORED)
    with pytest.raises(PackageError, match="cannot be read"):
        audit(data.replace(b"marker", b"Marker"))


def test_a_comment_is_refused() -> None:
    buffer = io.BytesIO(SIMPLE)
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = b"more"
    with pytest.raises(PackageError, match="before or after"):
        audit(buffer.getvalue())


def test_more_members_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skops_archive, "MAX_MEMBERS", 2)
    with pytest.raises(PackageError, match="more than 2 members"):
        audit(packed(scalar(1), {"a.npy": b"", "b.npy": b""}))


def test_a_file_that_grows_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skops_archive, "FREE_GROWTH", 2**16)
    zeros = npy(np.zeros(2**18))
    with pytest.raises(PackageError, match="a hundred times its size"):
        audit(packed(array("a.npy"), {"a.npy": zeros}))


def test_a_sparse_matrix_that_grows_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = zipped({"format.npy": npy(np.array("csr")), "data.npy": npy(np.zeros(2**18))})
    data = packed(sparse("a.npz"), {"a.npz": inner, "b.npy": npy(np.random.default_rng(0).random(2**14))})
    monkeypatch.setattr(skops_archive, "FREE_GROWTH", 2**16)
    with pytest.raises(PackageError, match="too large"):
        audit(data)


def test_a_deep_file_is_refused_before_it_exhausts_the_stack() -> None:
    root = scalar(1)
    for _ in range(skops.MAX_DEPTH + 1):
        root = sequence(root)
    with pytest.raises(PackageError, match="nested deeper"):
        audit(packed(root))


def sparse(file: str, name: str = "scipy.sparse._csr.csr_matrix", kind: str = "scipy") -> Node:
    return node("SparseMatrixNode", name, type=kind, file=file)


MATRIX = {
    "format.npy": npy(np.array(b"csr")),
    "shape.npy": npy(np.array([1, 1])),
    "data.npy": npy(np.array([1.0])),
    "indices.npy": npy(np.array([0])),
    "indptr.npy": npy(np.array([0, 1])),
}


@pytest.mark.parametrize("kind", [b"csr", "csr"], ids=["bytes", "text"])
def test_a_sparse_matrix_is_of_the_class_that_is_built(kind: Any) -> None:
    members = {"a.npz": zipped(MATRIX | {"format.npy": npy(np.array(kind))})}
    assert audit(packed(sparse("a.npz"), members)).trust == "objects"
    with pytest.raises(PackageError, match="another class"):
        audit(packed(sparse("a.npz", "scipy.sparse._csc.csc_matrix"), members))


def test_a_sparse_array_says_so() -> None:
    members = {"a.npz": zipped(MATRIX | {"_is_array.npy": npy(np.array(True))})}
    assert audit(packed(sparse("a.npz", "scipy.sparse._csr.csr_array"), members)).trust == "objects"
    with pytest.raises(PackageError, match="another class"):
        audit(packed(sparse("a.npz"), members))


SPARSE: dict[str, tuple[bytes, str]] = {
    "no zip": (b"PK", "cannot be read"),
    "another member": (zipped(MATRIX | {"marker.npy": npy(1)}), "does not belong"),
    "objects": (zipped(MATRIX | {"data.npy": npy(np.array([{}], dtype=object))}), "objects"),
    "another format": (zipped(MATRIX | {"format.npy": npy(np.array("lil"))}), "unknown format"),
    "another compression": (zipped(MATRIX, zipfile.ZIP_LZMA), "not deflated"),
}


@pytest.mark.parametrize(("data", "message"), SPARSE.values(), ids=SPARSE)
def test_a_sparse_matrix_is_plain_arrays(data: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        audit(packed(sparse("a.npz"), {"a.npz": data}))


def test_a_sparse_matrix_of_another_kind_is_refused() -> None:
    with pytest.raises(PackageError, match="as scipy stores it"):
        audit(packed(sparse("a.npz", kind="marker"), {"a.npz": zipped(MATRIX)}))


def header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3.0),
        np.zeros((2, 3), order="F"),
        np.array("text"),
        np.array([b"ab"]),
        np.array(["2020-01-01"], dtype="M8[us]"),
        np.zeros(2, dtype=[("a", "<f8"), ("b", "u1", (2, 2)), ("c", [("d", "<i4")])]),
        np.zeros(2, dtype=np.dtype([("a", "u1"), ("b", "<f8")], align=True)),
        np.array(True),
        np.zeros((0, 4)),
        np.array([], dtype="S0"),
    ],
    ids=lambda value: str(value.dtype),
)
def test_arrays_without_objects_are_plain(value: Any) -> None:
    data = npy(value)
    assert skops_archive.check_npy(data, len(data), "a") == value.shape


ARRAYS: dict[str, tuple[bytes, str]] = {
    "objects": (npy(np.array([{}], dtype=object)), "objects"),
    "fields of objects": (npy(np.zeros(1, dtype=[("a", object)])), "objects"),
    "no array": (b"not an array", "not in .npy format"),
    "a later version": (b"\x93NUMPY\x09\x00" + b" " * 100, "not in .npy format"),
    "a header of another length": (b"\x93NUMPY\x01\x00\xff\xff{}", "too long"),
    "a header that is no literal": (header("__import__('benign')"), "cannot be used"),
    "a header that is no dict": (header("[]"), "other fields"),
    "another field": (header("{'descr': '<f8', 'shape': (), 'fortran_order': False, 'more': 1}"), "other fields"),
    "a shape that is a list": (header("{'descr': '<f8', 'shape': [], 'fortran_order': False}"), "tuple of sizes"),
    "a negative size": (header("{'descr': '<f8', 'shape': (-1,), 'fortran_order': False}"), "tuple of sizes"),
    "a field that is no pair": (header("{'descr': [1], 'shape': (), 'fortran_order': False}"), "not a pair"),
    "a field without a size": (
        header("{'descr': [('a', '<f8', 3)], 'shape': (), 'fortran_order': False}"),
        "has no size",
    ),
    "fewer bytes than it says": (npy(np.arange(3.0))[:-1], "not as long"),
    "more bytes than it says": (npy(np.arange(3.0)) + b"x", "not as long"),
    "a size beyond all memory": (
        header("{'descr': '<f8', 'shape': (1000000000, 1000000000), 'fortran_order': False}"),
        "not as long",
    ),
}


@pytest.mark.parametrize(("data", "message"), ARRAYS.values(), ids=ARRAYS)
def test_other_arrays_are_refused_before_they_are_read(data: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        audit(packed(array("a.npy"), {"a.npy": data}))


def test_the_list_is_sorted_into_kinds_and_has_a_version() -> None:
    found = skops_types.listed()
    assert found.version >= 1
    assert found.holds("ObjectNode", LOGISTIC)
    assert not found.holds("ListNode", LOGISTIC)
    assert not found.holds("MarkerNode", LOGISTIC)
    assert "sklearn.tree._tree.Tree" in found.native
    assert LOGISTIC not in found.native
    assert set(found.names) - {"key", "generator"} <= set(skops._KEYS)


def test_no_name_is_listed_twice_for_one_kind() -> None:
    lines = Path(skops_types.__file__).with_suffix(".txt").read_text().splitlines()
    section, seen = "", set()
    for line in lines:
        section = line.strip("[]").partition(" ")[0] if line.startswith("[") else section
        if line and line[0] not in "[#" and not line.startswith("version"):
            assert (section, line) not in seen
            seen.add((section, line))


def test_the_audit_imports_no_framework() -> None:
    script = (
        "import sys; from modelpack.audits import skops; skops.audit(lambda path: sys.stdin.buffer.read(), 'm');"
        "print(sorted({'scipy', 'sklearn', 'skops', 'benign'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], input=packed(estimator(MARKER)), capture_output=True, check=True
    )
    assert ran.stdout.strip() == b"[]"
