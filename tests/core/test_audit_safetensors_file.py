"""Safetensors files: what is taken, and every way in which a file can lie about itself."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.audits import Audit
from modelpack.audits.safetensors_file import audit, inspect
from modelpack.errors import PackageError

F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
I64 = {"dtype": "I64", "shape": [1], "data_offsets": [16, 24]}


def made(header: Any, data: bytes = bytes(24), *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


class Files:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def view(self, path: str) -> bytes:
        return self.raw


def test_a_plain_file_is_data() -> None:
    assert audit(Files(made({"a": F32, "b": I64})), "m.safetensors") == Audit(trust="data")


def test_the_tensors_are_told_in_the_order_of_their_bytes() -> None:
    raw = made({"__metadata__": {"format": "pt"}, "b": I64, "a": F32})
    found = inspect(raw, "m")
    assert [(name, one.dtype, one.shape) for name, one in found.items()] == [("a", "F32", (2, 2)), ("b", "I64", (1,))]
    assert [raw[one.start : one.stop] for one in found.values()] == [bytes(16), bytes(8)]


def test_a_scalar_and_an_empty_tensor_are_taken() -> None:
    header = {
        "empty": {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0]},
        "scalar": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]},
    }
    assert [one.stop - one.start for one in inspect(made(header, bytes(8)), "m").values()] == [0, 8]


def test_padding_after_the_header_is_taken() -> None:
    assert len(inspect(made(json.dumps({"a": F32}).encode() + b"   ", bytes(16)), "m")) == 1


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "longer than the file"),
        (b"\x00" * 7, "longer than the file"),
        (made({"a": F32}, bytes(16), length=2**40), "longer than the file"),
        (made({"a": F32}, bytes(16), length=1), "longer than the file"),
        (made(b"[]", b""), "no JSON object"),
        (made(b' {"a": 1}', b""), "no JSON object"),
        (made(b"{\xff}", b""), "not JSON"),
        (made(b"{" * 20, b""), "not JSON"),
        (made(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""), "not JSON"),
        (made(b'{"__metadata__":{},"__metadata__":{}}', b""), "repeats a key"),
        (made(b'{"a":{"dtype":"U8","dtype":"I8","shape":[],"data_offsets":[0,1]}}', b"1"), "repeats a key"),
        (made(b'{"a":NaN}', b""), "bare NaN"),
        (made({"__metadata__": {"format": 1}}, b""), "metadata"),
        (made({"__metadata__": []}, b""), "metadata"),
        (made({"a": []}, b""), "not exactly"),
        (made({"a": {**F32, "more": 1}}, bytes(16)), "not exactly"),
        (made({"a": {**F32, "dtype": "F128"}}, bytes(16)), "type that is not taken"),
        (made({"a": {**F32, "dtype": ["F32"]}}, bytes(16)), "type that is not taken"),
        (made({"a": {**F32, "shape": [2, -2]}}, bytes(16)), "list of sizes"),
        (made({"a": {**F32, "shape": [2, 2.0]}}, bytes(16)), "list of sizes"),
        (made({"a": {**F32, "shape": [True, 4]}}, bytes(16)), "list of sizes"),
        (made({"a": {**F32, "shape": [1] * 40}}, bytes(16)), "list of sizes"),
        (made({"a": {**F32, "shape": [2, 3]}}, bytes(16)), "as long as its type"),
        (made({"a": {**F32, "shape": [2**62, 4]}}, bytes(16)), "as long as its type"),
        (made({"a": {**F32, "data_offsets": [16, 0]}}, bytes(16)), "start and an end"),
        (made({"a": {**F32, "data_offsets": [0]}}, bytes(16)), "start and an end"),
        (made({"a": {**F32, "data_offsets": [0, 2**70]}}, bytes(16)), "start and an end"),
        (made({"a": F32, "b": {**F32, "data_offsets": [8, 24]}}), "overlap or leave a gap"),
        (made({"a": F32, "b": {**F32, "data_offsets": [0, 16]}}, bytes(16)), "overlap or leave a gap"),
        (made({"a": {**F32, "data_offsets": [8, 24]}}), "overlap or leave a gap"),
        (made({"a": F32}, bytes(17)), "do not end where the file does"),
        (made({"a": F32}, bytes(15)), "do not end where the file does"),
    ],
)
def test_a_file_that_lies_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message) as info:
        audit(Files(raw), "m.safetensors")
    assert (info.value.code, info.value.path) == ("payload-invalid", "m.safetensors")


def test_what_the_library_writes_is_taken_and_read_the_same() -> None:
    from safetensors.numpy import save

    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7), "e": np.zeros((0, 2))}
    raw = save(arrays, metadata={"format": "pt"})
    found = inspect(raw, "m")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert raw[found[name].start : found[name].stop] == array.tobytes()
        assert found[name].shape == array.shape


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_is_more_than_an_error(data: st.DataObject) -> None:
    """Whatever is done to a file, it is taken or refused; never another exception."""
    raw = bytearray(made({"__metadata__": {"a": "b"}, "a": F32, "b": I64}))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for one in (bytes(raw), bytes(raw[:cut])):
        try:
            found = inspect(one, "m")
        except PackageError as exc:
            assert exc.code == "payload-invalid"
        else:
            assert max((slice_.stop for slice_ in found.values()), default=0) <= len(one)
