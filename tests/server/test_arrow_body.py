"""Arrow IPC bodies become tables and tensors in place, or are refused before they take memory or harm."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import coerce
from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server.codecs import arrow_body, arrow_bounds

ANY = Signature()


def tensor(*shape: Any, name: str = "x", dtype: Any = "float64") -> Signature:
    return Signature(inputs=Tensors(tensors=(Tensor(name=name, dtype=dtype, shape=shape),)))


def stream(table: pa.Table, *, rows: int | None = None, file: bool = False, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    make = pa.ipc.new_file if file else pa.ipc.new_stream
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, rows)
    return bytes(sink.getvalue())


def lists(values: Any, *sizes: int) -> pa.Array:
    array = pa.array(values)
    for size in sizes:
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def refused(body: bytes, code: str, signature: Signature = ANY, *, file: bool = False) -> None:
    with pytest.raises(InputError) as caught:
        (arrow_body.decode_file if file else arrow_body.decode)(body, signature)
    assert caught.value.code == code


def is_within(array: np.ndarray, body: bytes) -> bool:
    start = np.frombuffer(body, np.uint8).__array_interface__["data"][0]
    return start <= array.__array_interface__["data"][0] < start + len(body)


def test_columns_without_gaps_are_views_of_the_body() -> None:
    body = stream(pa.table({"a": np.arange(100.0), "b": np.arange(100)}))
    columns = (Column(name="a", type="float64"), Column(name="b", type="int64"))
    frame = coerce.inputs(arrow_body.decode(body, ANY).data, Signature(inputs=Table(columns=columns)))
    assert frame.columns is not None
    assert all(is_within(vector.data, body) for vector in frame.columns.values())


@pytest.mark.parametrize("name", ["x", "anything"])
def test_fixed_size_lists_are_a_tensor_in_the_body(name: str) -> None:
    body = stream(pa.table({name: lists(np.arange(24, dtype="f4"), 3, 2)}))
    signature = tensor("n", 2, 3, dtype="float32")
    frame = coerce.inputs(arrow_body.decode(body, signature).data, signature)
    assert frame.tensors is not None
    assert frame.tensors["x"].tolist() == np.arange(24).reshape(4, 2, 3).tolist()
    assert is_within(frame.tensors["x"], body)


def test_tensors_of_arrow_are_tensors() -> None:
    values = np.arange(12.0).reshape(2, 2, 3)
    body = stream(pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(values)}))
    signature = tensor("n", 2, 3)
    frame = coerce.inputs(arrow_body.decode(body, signature).data, signature)
    np.testing.assert_array_equal((frame.tensors or {})["x"], values)


@pytest.mark.parametrize(
    ("table", "shape", "expected"),
    [
        (pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}), (None, 2), [[1, 3], [2, 4]]),
        (pa.table({"x": [[1.0, 3.0], [2.0, 4.0]]}), (None, 2), [[1, 3], [2, 4]]),
        (pa.table({"x": [1.0, 2.0], "more": ["y", "z"]}), (None,), [1, 2]),
        (pa.table({"x": pa.chunked_array([lists([1.0, 3.0], 2), lists([2.0, 4.0], 2)])}), (None, 2), [[1, 3], [2, 4]]),
    ],
)
def test_other_columns_are_tensors_too(table: pa.Table, shape: Any, expected: Any) -> None:
    signature = tensor(*shape)
    frame = coerce.inputs(arrow_body.decode(stream(table, rows=1), signature).data, signature)
    assert (frame.tensors or {})["x"].tolist() == expected


@pytest.mark.parametrize(
    ("table", "code", "path"),
    [
        (pa.table({"x": lists([1.0, None, 3.0, 4.0], 2)}), "null-not-allowed", "x[0][1]"),
        (pa.table({"x": pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2))}), "shape-mismatch", "x[1]"),
        (pa.table({"x": lists([1.0, 2.0, 3.0], 3)}), "shape-mismatch", "x"),
        (pa.table({"x": [[1.0, 2.0], [3.0]]}), "ragged", "x[1]"),
        (pa.table({"x": pa.chunked_array([], pa.list_(pa.float64(), 2))}), "", ""),
    ],
)
def test_what_is_no_tensor_is_refused_where_it_is_not(table: pa.Table, code: str, path: str) -> None:
    signature = tensor("n", 2)
    data = arrow_body.decode(stream(table), signature).data
    if not code:
        assert (coerce.inputs(data, signature).tensors or {})["x"].shape == (0, 2)
        return
    with pytest.raises(InputError) as caught:
        coerce.inputs(data, signature)
    assert (caught.value.code, caught.value.faults[0].path) == (code, path)


def test_files_are_read_compressed_or_not() -> None:
    table = pa.table({"a": [1, 2, None], "b": pa.array(["x", None, "x"]).dictionary_encode()})
    for compression in (None, "lz4", "zstd"):
        body = stream(table, file=True, compression=compression)
        assert arrow_body.decode_file(body, ANY).data.equals(table)
        refused(body, "arrow-invalid")
        refused(body[:-1], "arrow-invalid", file=True)


WHOLE = stream(pa.table({"a": [1, 2], "b": ["x", "y"]}))


@pytest.mark.parametrize(
    "body",
    [b"", b"ARROW1\0\0", b"\0" * 100, b"{}", WHOLE[:-20], WHOLE[: len(WHOLE) // 2], WHOLE + b"x", WHOLE + WHOLE],
)
def test_what_is_no_stream_is_refused(body: bytes) -> None:
    refused(body, "arrow-invalid")


def test_two_columns_of_one_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    refused(stream(table), "arrow-duplicate-column")


def test_values_that_point_elsewhere_are_refused() -> None:
    body = stream(pa.table({"a": ["abcd", "efgh"]}))
    offsets = np.array([0, 4, 8], "<i4").tobytes()
    assert body.count(offsets) == 1
    refused(body.replace(offsets, np.array([0, 4, 2**30], "<i4").tobytes()), "arrow-invalid")
    refused(body.replace(b"abcd", b"\xff\xfe\xfd\xfc"), "arrow-invalid")


@pytest.mark.parametrize(
    "column",
    [
        pa.nulls(200_000),
        pa.DictionaryArray.from_arrays(np.zeros(2000, "i1"), ["x" * 1000]),
        pa.DictionaryArray.from_arrays(np.zeros(2000, "i1"), pa.array([["x" * 1000]])),
        pa.array([None] * 200_000, pa.struct([])),
        pa.array([[None] * 200_000]),
        pa.array([b""] * 200_000, pa.binary(0)),
        pa.DictionaryArray.from_arrays(np.zeros(100_000, "i1"), [1]),
        pa.DictionaryArray.from_arrays(pa.nulls(200_000, pa.int8()), pa.array([], pa.string())),
        pa.StringViewArray.from_buffers(
            pa.string_view(),
            2000,
            [None, pa.py_buffer(b"\xe8\3\0\0xxxx\0\0\0\0\0\0\0\0" * 2000), pa.py_buffer(b"x" * 1000)],
        ),
    ],
    ids=[
        "nulls",
        "dictionary",
        "dictionary-of-lists",
        "empty-structs",
        "list-of-nulls",
        "no-width",
        "numbers",
        "no-dictionary",
        "views",
    ],
)
def test_a_few_bytes_cannot_become_gigabytes(column: pa.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    body = stream(pa.table({"a": column}))
    arrow_body.decode(body, ANY)
    monkeypatch.setattr(arrow_bounds, "FLOOR", 1_000_000)
    monkeypatch.setattr(arrow_bounds, "MAX_EXPANSION", 1)
    refused(body, "arrow-size")


def test_so_many_batches_are_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    body = stream(pa.table({"a": [1, 2, 3]}), rows=1)
    assert arrow_body.decode(body, ANY).data.num_rows == 3
    monkeypatch.setattr(arrow_bounds, "MAX_MESSAGES", 3)
    refused(body, "arrow-size")


def test_maps_and_extensions_weigh_what_is_in_them() -> None:
    assert 2000 <= arrow_bounds.dense(pa.array([[("x" * 1000, 1)]] * 2, pa.map_(pa.string(), pa.int64()))) <= 3000
    assert 1000 <= arrow_bounds.dense(pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1" * 1000]))) <= 1100


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("encoded", [False, True])
def test_compressed_buffers_are_measured_first(
    compression: str, encoded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = pa.array(["x" * 1_000_000])
    body = stream(pa.table({"a": column.dictionary_encode() if encoded else column}), compression=compression)
    assert len(body) < 10_000
    assert arrow_body.decode(body, ANY).data.num_rows == 1
    monkeypatch.setattr(arrow_bounds, "FLOOR", 900_000)
    refused(body, "arrow-size")


def test_a_size_that_is_only_claimed_takes_no_memory() -> None:
    body = stream(pa.table({"a": np.zeros(1000)}), compression="zstd")
    claimed = np.array([8000], "<i8").tobytes()
    assert body.count(claimed) == 1
    refused(body.replace(claimed, np.array([2**50], "<i8").tobytes()), "arrow-size")
    refused(body.replace(claimed, np.array([8001], "<i8").tobytes()), "arrow-invalid")


@pytest.mark.parametrize("kind", [pa.run_end_encoded(pa.int32(), pa.int64()), pa.list_view(pa.int64())])
def test_types_whose_values_share_memory_in_other_ways_are_not_read(kind: pa.DataType) -> None:
    refused(stream(pa.table({"a": pa.nulls(3, kind)})), "arrow-type")


RICH = pa.table(
    {
        "a": [1, None, 3],
        "s": ["x", "yy", None],
        "l": [[1, None], [], [2]],
        "d": pa.array(["p", "q", "p"]).dictionary_encode(),
        "t": pa.array([dt.datetime(2020, 1, 1)] * 3, pa.timestamp("us", "UTC")),
        "m": pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
        "r": [{"x": 1, "y": "z"}] * 3,
        "v": pa.array(["short", None, "longer than twelve bytes"], pa.string_view()),
    }
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([None, "zstd", "lz4"]), st.data())
def test_a_damaged_stream_is_read_or_refused(compression: str | None, data: st.DataObject) -> None:
    body = bytearray(stream(RICH, compression=compression))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    columns = (Column(name="a", type="int64", nullable=True), Column(name="s", type="utf8", nullable=True))
    signature = Signature(inputs=Table(columns=columns))
    try:
        coerce.inputs(arrow_body.decode(bytes(body), signature).data, signature)
    except InputError as exc:
        assert exc.code
