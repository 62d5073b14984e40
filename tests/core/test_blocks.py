"""A table of floats that is one matrix is the same table as one of many vectors, wherever it goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import coerce, render
from modelpack.coerce import Split, blocks, tensors
from modelpack.errors import InputError
from modelpack.flavor import Form
from modelpack.frame import Block, Frame
from modelpack.once import LIMIT, Once
from modelpack.signature import Column, Signature, Table, Tensor, Tensors

NAMES = ["a", "b", "c"]
ROWS = [[1.5, -0.0, 3], [4.25, 5, 1e-40], [7, 8.125, 2.0**23]]


def table(dtype: Any = "float64", *, nullable: bool = True) -> Signature:
    return Signature(inputs=Table(columns=tuple(Column(name=n, type=dtype, nullable=nullable) for n in NAMES)))


def coerced(rows: Any, signature: Signature) -> Frame:
    return coerce.inputs(Split(NAMES, rows), signature, wire="json", at="dataframe_split")


def apart(frame: Frame) -> Frame:
    """Return the same table as vectors of their own."""
    columns = frame.columns or {}
    return Frame(rows=frame.rows, columns={name: columns[name].take(range(frame.rows)) for name in columns})


def told(read: Callable[[], Frame], changed: Any = None) -> Any:
    """Return all there is in a frame, or in the error that came instead."""
    try:
        with changed or nullcontext():
            frame = read()
    except InputError as exc:
        return exc.code, exc.message, exc.path, [(fault.path, fault.row, fault.column) for fault in exc.faults]
    parts = frame.tensors or {name: vector.data for name, vector in (frame.columns or {}).items()}
    return frame.rows, [(name, part.dtype, part.shape, repr(part.tolist())) for name, part in parts.items()]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[:2], [[1, None, 2.5], [None, 1, 2]]], ids=["one", "two", "gaps"])
def test_every_form_is_the_same(dtype: str, rows: list[list[Any]]) -> None:
    frame = coerced(rows, table(dtype))
    assert isinstance(frame.columns, Block)
    other = apart(frame)

    for one, two in ((frame, other), (frame.slice(0, 1), other.slice(0, 1)), (frame.take([0]), other.take([0]))):
        assert one.rows == two.rows
        assert list(one) == list(two) == NAMES
        assert render.to(one, "pandas").equals(render.to(two, "pandas"))
        assert render.to(one, "pandas").dtypes.equals(render.to(two, "pandas").dtypes)
        assert render.to(one, "arrow").equals(render.to(two, "arrow"))
        assert repr(render.to(one, "records")) == repr(render.to(two, "records"))
        assert repr(render.plain(one)) == repr(render.plain(two))
        np.testing.assert_array_equal(render.to(one, "numpy"), render.to(two, "numpy"), strict=True)
        for name, array in render.to(one, "columns").items():
            np.testing.assert_array_equal(array, render.to(two, "columns")[name], strict=True)


def test_a_matrix_is_handed_on_without_a_copy() -> None:
    rows = np.array(ROWS)
    frame = coerced(rows, table())

    assert np.shares_memory(render.to(frame, "numpy"), rows)
    assert np.shares_memory(render.to(frame, "pandas").to_numpy(), rows)
    assert np.shares_memory(frame.slice(1, 2).columns["a"].data, rows)  # type: ignore[index]


def test_columns_are_found_by_name_only() -> None:
    block = coerced(ROWS, table()).columns
    assert block is not None

    assert "a" in block
    assert 0 not in block
    assert block.get("d") is None
    assert len(block) == 3


@pytest.mark.parametrize(
    ("columns", "rows", "same"),
    [
        (NAMES, ROWS, True),
        (None, ROWS, True),
        (["b", "a", "c"], ROWS, False),
        (["a", "b"], [[1.5, 2]], False),
        (NAMES, [[1.5, 2]], False),
        (NAMES, [[1.5, 2, True]], False),
        (NAMES, [[1.5, 2, "3"]], False),
        (NAMES, [[1.5, 2, 2**53 + 1]], False),
        (NAMES, [[1.5, 2, 10**400]], False),
        (NAMES, [[1.5, 2, None]], False),
        (NAMES, [(1.5, 2, 3)], True),
        (NAMES, [{"a": 1, "b": 2, "c": 3}], False),
        (NAMES, [], False),
        (NAMES, np.array(ROWS), True),
        (NAMES, np.array([[1.5, 2]]), False),
        (NAMES, np.array([1.5, 2]), False),
        (NAMES, np.array(ROWS, "f4"), False),
        (NAMES, np.array([[1.5, 2, np.nan]]), False),
    ],
)
def test_what_is_one_matrix(columns: Any, rows: Any, same: bool) -> None:
    """Anything else is looked at column by column; what is taken at once is the same there."""

    def read() -> Frame:
        return coerce.inputs(Split(columns, rows), table(nullable=False), wire="json", at="dataframe_split")

    assert told(read) == told(read, mock.patch.object(blocks, "read", lambda *_: None))
    assert (blocks.read(Split(columns, rows), table(nullable=False).inputs) is not None) is same  # type: ignore[arg-type]


TENSORS = [
    (Tensor(name="x", dtype="float32", shape=("n", 2)), np.array([[1.5, 2]], "f4")),
    (Tensor(name="x", dtype="float32", shape=("n", 2)), np.array([[1.5, 2]])),
    (Tensor(name="x", dtype="float32", shape=("n", 3)), np.array([[1.5, 2]], "f4")),
    (Tensor(name="x", dtype="float32", shape=("n",)), np.array([[1.5, 2]], "f4")),
    (Tensor(name="x", dtype="float64", shape=("n", "n")), np.array([[1.5, 2]])),
    (Tensor(name="x", dtype="float64", shape=("n", "n")), np.array([[1.5, 2], [3, 4]])),
    (Tensor(name="x", dtype="float64", shape=("n",)), np.array([1.5, np.nan])),
    (Tensor(name="x", dtype="float64", shape=("n",), nullable=True), np.array([1.5, np.nan])),
    (Tensor(name="x", dtype="int64", shape=("n",)), np.array([1, 2])),
    (Tensor(name="x", dtype="bool", shape=(None,)), np.array([True, False])),
    (Tensor(name="x", dtype="bool", shape=(None,)), np.array([1, 0])),
    (Tensor(name="x", dtype="utf8", shape=(None,)), np.array(["a"], object)),
    (Tensor(name="x", dtype="int64", shape=("n", 2)), np.empty((0, 2), "i8")),
    (Tensor(name="x", dtype="int64", shape=("n", 2)), np.empty((0, 3), "i8")),
    (Tensor(name="x", dtype="int64", shape=()), np.array(3)),
]


@pytest.mark.parametrize(("tensor", "array"), TENSORS)
def test_an_array_is_the_tensor_that_its_lists_are(tensor: Tensor, array: Any) -> None:
    signature = Signature(inputs=Tensors(tensors=(tensor,)))

    def read() -> Frame:
        return coerce.inputs(array, signature)

    assert told(read) == told(read, mock.patch.object(tensors, "_is_ready", lambda *_: False))


def test_an_array_that_fits_is_not_copied() -> None:
    (tensor, array), *_ = TENSORS
    frame = coerce.inputs(array, Signature(inputs=Tensors(tensors=(tensor,))))

    assert (frame.tensors or {})["x"] is array


def test_once_asks_once_for_each_object() -> None:
    asked: list[Any] = []
    once = Once(lambda key: asked.append(key) or len(asked))
    first, second = [1], [1]

    assert [once(first), once(second), once(first)] == [1, 2, 1]
    for _ in range(2 * LIMIT):
        once([1])
    assert len(once._made) <= LIMIT
    assert once(first) == len(asked)


def read_back(columns: Any) -> pa.Table:
    """Return a table as it is read from a stream: all its columns in one piece of memory."""
    source = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, source.schema) as writer:
        writer.write_table(source)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def place(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("count", [1, 5, 8, 1000])
def test_columns_that_arrow_has_read_are_a_view_of_its_memory(dtype: Any, count: int) -> None:
    lanes = {name: np.random.RandomState(i).rand(count).astype(dtype) for i, name in enumerate(NAMES)}
    for data in (read_back(lanes), read_back(lanes).to_batches()[0]):
        frame = coerce.inputs(data, table(dtype, nullable=False))
        assert isinstance(frame.columns, Block)
        assert not frame.columns.matrix.flags.writeable
        for name, column in zip(NAMES, data.columns, strict=True):
            chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
            vector = frame.columns[name]
            assert place(vector.data) == chunk.buffers()[1].address
            assert vector.data.tobytes() == lanes[name].tobytes()


def test_memory_lives_as_long_as_the_view() -> None:
    lanes = {name: np.full(100_000, float(i)) for i, name in enumerate(NAMES)}
    frame = coerce.inputs(read_back(lanes), table())
    others = [read_back({name: np.full(100_000, -1.0) for name in NAMES}) for _ in range(3)]
    assert isinstance(frame.columns, Block)
    assert frame.columns.matrix.sum() == 300_000
    assert len(others) == 3


def moved(array: pa.Array, by: int) -> pa.Array:
    """Return the same numbers in memory that begins between two numbers."""
    size = array.buffers()[1].size
    memory = bytearray(size + 16)
    start = (8 - np.frombuffer(memory, np.uint8).__array_interface__["data"][0]) % 8 + by
    memory[start : start + size] = array.buffers()[1].to_pybytes()
    return pa.Array.from_buffers(array.type, len(array), [None, pa.py_buffer(memory)[start : start + size]])


LANES = {name: np.arange(5.0) + 5 * i for i, name in enumerate(NAMES)}
ELSEWHERE: dict[str, Callable[[], Any]] = {
    "apart": lambda: pa.table({name: pa.array(lane.tolist(), pa.float64()) for name, lane in LANES.items()}),
    "in pieces": lambda: pa.concat_tables([read_back(LANES), read_back(LANES)]),
    "nulls": lambda: read_back({**LANES, "b": pa.array([1.0, None, 2.0, 3.0, 4.0])}),
    "no rows": lambda: read_back(LANES).slice(0, 0),
    "another type": lambda: read_back({**LANES, "b": np.arange(5)}),
    "another float": lambda: read_back({name: lane.astype("float32") for name, lane in LANES.items()}),
    "another order": lambda: read_back({name: LANES[name] for name in ("b", "a", "c")}),
    "one more": lambda: read_back({**LANES, "d": LANES["a"]}),
    "the same twice": lambda: (lambda a: pa.table({"a": a, "b": a, "c": a}))(pa.array(LANES["a"])),
    "backwards": lambda: (lambda t: pa.table({"a": t["c"], "b": t["b"], "c": t["a"]}))(read_back(LANES)),
    "between numbers": lambda: pa.table({name: moved(pa.array(lane), 4) for name, lane in LANES.items()}),
    "NaN": lambda: read_back({**LANES, "b": np.array([0, 1, np.nan, 3, 4])}),
    "infinity": lambda: read_back({**LANES, "b": np.array([0, 1, np.inf, -np.inf, 4])}),
    "sliced": lambda: read_back(LANES).slice(1, 3),
    "one missing": lambda: read_back({name: LANES[name] for name in ("a", "c")}),
}


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_wherever_columns_lie_they_are_the_same(name: str, nullable: bool) -> None:
    data, signature = ELSEWHERE[name](), table(nullable=nullable)

    def read() -> Frame:
        return coerce.inputs(data, signature)

    without = mock.patch.object(blocks, "read", lambda data, table: None)
    assert told(read) == told(read, without)


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 40),
    batches=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 40)), min_size=1, max_size=3),
    gaps=st.booleans(),
)
def test_slices_of_arrow_data_are_the_same_rows(count: int, batches: list[tuple[int, int]], gaps: bool) -> None:
    lanes = {name: np.random.RandomState(i).rand(count) for i, name in enumerate(NAMES)}
    if gaps:
        lanes["b"][count // 2] = np.nan
    for start, length in batches:
        data = read_back(lanes).slice(start, length)
        frame = coerce.inputs(data, table())
        for name in NAMES:
            assert (frame.columns or {})[name].data.tobytes() == lanes[name][start : start + length].tobytes()


def test_a_model_may_write_into_what_it_is_madeof_lent_memory() -> None:
    source = read_back(LANES)
    frame = coerce.inputs(source, table())
    assert isinstance(frame.columns, Block)
    forms: tuple[Form, ...] = ("pandas", "numpy")
    for form in forms:
        made = render.to(frame, form)
        array = made.to_numpy(copy=False) if form == "pandas" else made
        assert not np.shares_memory(array, frame.columns.matrix)
        array.flags.writeable = True
        array[:] = -1
    assert source.equals(pa.table(LANES))
