"""A table of floats that is one matrix is the same table as one of many vectors, wherever it goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pytest

from modelpack import coerce, render
from modelpack.coerce import Split, blocks, tensors
from modelpack.errors import InputError
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
