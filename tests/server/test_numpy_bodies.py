"""npy and npz bodies become arrays in place; nothing is unpickled, and nothing is larger than it came."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import coerce
from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server.codecs import npy_body, npz_body

ANY = Signature()
MATRIX = Signature(inputs=Tensors(tensors=(Tensor(name="x", dtype="float64", shape=(None, 2)),)))
TABLE = Signature(inputs=Table(columns=(Column(name="a", type="float64"), Column(name="b", type="int64"))))


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=allow_pickle)
    return sink.getvalue()


def npz(**arrays: Any) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return sink.getvalue()


def headed(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version == b"\1\0" else 4, "little") + text + data


def refused(body: bytes, code: str, *, form: Any = npy_body, signature: Signature = ANY) -> None:
    with pytest.raises(InputError) as caught:
        form.decode(body, signature)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(3, 2),
        np.asfortranarray(np.arange(6).reshape(3, 2)),
        np.arange(4, dtype=">i4"),
        np.array([True, False]),
        np.array(["é", "bb"]),
        np.array([b"a", b"bb"]),
        np.array(["2020-01-01"], "M8[ns]"),
        np.array([1], "m8[s]"),
        np.zeros((0, 2)),
        np.array(1.5),
    ],
)
def test_arrays_are_read_as_they_were_written(array: np.ndarray) -> None:
    found = npy_body.decode(npy(array), ANY).data
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    assert npy_body.decode(npy_body.write(array), ANY).data.tolist() == array.tolist()


def test_an_array_is_a_view_of_the_body() -> None:
    body = npy(np.arange(6.0).reshape(3, 2))
    frame = coerce.inputs(npy_body.decode(body, MATRIX).data, MATRIX)
    start = np.frombuffer(body, np.uint8).__array_interface__["data"][0]
    assert start < (frame.tensors or {})["x"].__array_interface__["data"][0] < start + len(body)


def test_a_matrix_is_a_table_by_position() -> None:
    frame = coerce.inputs(npy_body.decode(npy(np.array([[1.5, 2], [3, 4]])), TABLE).data, TABLE)
    assert [vector.data.tolist() for vector in (frame.columns or {}).values()] == [[1.5, 3.0], [2, 4]]
    with pytest.raises(InputError, match="3 columns by position"):
        coerce.inputs(npy_body.decode(npy(np.ones((2, 3))), TABLE).data, TABLE)


@pytest.mark.parametrize("version", [b"\2\0", b"\3\0"])
def test_later_versions_are_read(version: bytes) -> None:
    body = headed("{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }", b"\1\0\2\0", version)
    assert npy_body.decode(body, ANY).data.tolist() == [1, 2]


class Bomb:
    def __reduce__(self) -> Any:
        raise AssertionError("unpickled")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (npy(np.array([{"a": 1}], object), allow_pickle=True), "npy-type"),
        (npy(np.zeros(2, [("a", "i4")])), "npy-type"),
        (npy(np.zeros(2, complex)), "npy-type"),
        (npy(np.zeros(2, np.longdouble)), "npy-type"),
        (headed("{'descr': 'O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1])), "npy-type"),
        (headed("{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,)}"), "npy-type"),
        (headed("{'descr': '<U0', 'fortran_order': False, 'shape': (3,)}"), "npy-type"),
        (headed("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\xff" * 4), "npy-invalid"),
        (headed("{'descr': '<U999999999', 'fortran_order': False, 'shape': (0,)}"), "npy-invalid"),
        (
            headed("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 200000000000000, 200000000000000)}"),
            "npy-invalid",
        ),
        (headed("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"), "npy-invalid"),
        (headed("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"), "npy-invalid"),
        (headed("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", bytes(8)), "npy-invalid"),
        (headed("{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}", bytes(8)), "npy-invalid"),
        (headed("{'descr': '<f8', 'fortran_order': False, 'shape': 1}", bytes(8)), "npy-invalid"),
        (headed("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 33 + ")}", bytes(8)), "npy-invalid"),
        (headed("{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}", bytes(8)), "npy-invalid"),
        (headed("{'descr': '<f8', 'shape': (1,)}", bytes(8)), "npy-invalid"),
        (headed("__import__('os').getcwd()"), "npy-invalid"),
        (headed("(" * 5000), "npy-invalid"),
        (headed("{" + " " * 20_000, version=b"\2\0"), "npy-invalid"),
        (headed("{}", version=b"\4\0"), "npy-invalid"),
        (headed("\udce9".encode("utf-8", "surrogateescape").decode("latin-1"))[:-1] + b"\xff", "npy-invalid"),
        (npy(np.zeros(3))[:-1], "npy-invalid"),
        (npy(np.zeros(3)) + b"x", "npy-invalid"),
        (npy(np.zeros(3))[:20], "npy-invalid"),
        (b"", "npy-invalid"),
        (b"\x93NUMPY", "npy-invalid"),
        (b"PK\3\4" * 10, "npy-invalid"),
    ],
)
def test_everything_else_is_refused(body: bytes, code: str) -> None:
    refused(body, code)


def test_tensors_and_columns_have_names() -> None:
    found = npz_body.decode(npz(a=np.array([1.5]), b=np.array([2])), TABLE).data
    assert [vector.data.tolist() for vector in (coerce.inputs(found, TABLE).columns or {}).values()] == [[1.5], [2]]
    for name in ("x", "arr_0"):
        found = npz_body.decode(npz(**{name: np.ones((1, 2))}), MATRIX).data
        assert list(found) == ["x"]


def test_compressed_archives_are_read_and_writing_has_no_clock() -> None:
    sink = io.BytesIO()
    np.savez_compressed(sink, x=np.zeros((1000, 2)))
    assert npz_body.decode(sink.getvalue(), MATRIX).data["x"].shape == (1000, 2)
    arrays = {"a": np.array([1]), "b": np.array(["x"])}
    assert npz_body.write(arrays) == npz_body.write(arrays)
    with np.load(io.BytesIO(npz_body.write(arrays)), allow_pickle=False) as found:
        assert {name: found[name].tolist() for name in found} == {"a": [1], "b": ["x"]}


ONE = npy(np.zeros(3))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "npz-invalid"),
        (b"PK\5\6" + bytes(10), "npz-invalid"),
        (npz(a=np.zeros(3))[:-10], "npz-invalid"),
        (npz(a=np.zeros(3)).replace(bytes(24), b"\1" + bytes(23)), "npz-invalid"),
        (zipped(("a.txt", ONE)), "npz-invalid"),
        (zipped(("a.npy", ONE), method=zipfile.ZIP_BZIP2), "npz-invalid"),
        (zipped(("a.npy", ONE), method=zipfile.ZIP_LZMA), "npz-invalid"),
        (zipped(("a.npy", b"")), "npy-invalid"),
        (npz(a=np.array([Bomb], object)), "npy-type"),
    ],
)
def test_archives_of_something_else_are_refused(body: bytes, code: str) -> None:
    refused(body, code, form=npz_body)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused() -> None:
    refused(zipped(("a.npy", ONE), ("a.npy", ONE)), "npz-duplicate-name", form=npz_body)


def test_a_small_archive_cannot_become_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    body = zipped(("a.npy", npy(np.zeros(1_000_000))), method=zipfile.ZIP_DEFLATED)
    assert len(body) < 10_000
    monkeypatch.setattr(npz_body, "FLOOR", 1_000_000)
    refused(body, "npz-size", form=npz_body)
    monkeypatch.setattr(npz_body, "MAX_MEMBERS", 1)
    refused(npz(a=np.ones(1), b=np.ones(1)), "npz-size", form=npz_body)
    # One that claims to be small is read no further than that.
    claimed = (8_000_128).to_bytes(4, "little")
    assert body.count(claimed) == 2
    refused(body.replace(claimed, (1000).to_bytes(4, "little")), "npz-invalid", form=npz_body)


@settings(deadline=None, max_examples=200)
@given(st.booleans(), st.data())
def test_a_damaged_body_is_read_or_refused(archive: bool, data: st.DataObject) -> None:
    body = bytearray(npz(a=np.ones(3), b=np.array(["x"])) if archive else npy(np.ones((3, 2))))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        (npz_body if archive else npy_body).decode(bytes(body), ANY)
    except InputError as exc:
        assert exc.code.startswith(("npy-", "npz-"))
