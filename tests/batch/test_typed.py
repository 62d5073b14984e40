"""Numbers parsed in bulk are those that coercion reads one by one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpack import coerce
from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server.codecs.typed import typed

KINDS = ("float64", "float32", "int64", "int8", "uint64", "bool", "utf8")

numbers = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.integers(-(2**64), 2**64).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.text("0123456789+-.eExX_ naifty\t", max_size=8),
    st.sampled_from(
        ["", "nan", "NaN", "inf", "-Infinity", "0x10", "1_0", " 1", "1 ", "1e400", "1.", ".5", "+1", "１", "true"]
    ),
)


def outcome(table: pa.Table, signature: Signature) -> object:
    """Return what coercion makes of a table: rows, or faults."""
    try:
        frame = coerce.inputs(table, signature, wire="text")
    except InputError as exc:
        return [(fault.row, fault.column) for fault in exc.faults]
    return [_plain(frame)]


def _plain(frame: Frame) -> object:
    columns = frame.columns if frame.columns is not None else {}
    tensors = frame.tensors if frame.tensors is not None else {}
    found = {name: (vector.data.dtype, _bits(vector.data)) for name, vector in columns.items()}
    return found | {name: (array.dtype, _bits(array)) for name, array in tensors.items()}


def _bits(array: np.ndarray) -> object:
    return array.tobytes() if array.dtype != object else array.tolist()


@settings(deadline=None)
@given(st.lists(st.none() | numbers, min_size=1, max_size=4), st.sampled_from(KINDS), st.booleans())
@example(["1.0000000000000000001"], "float64", False)
@example(["9007199254740993"], "float64", False)
@example(["9007199254740993", "-0"], "int64", False)
@example(["1e308", "1e-320", "0.1"], "float64", False)
@example(["0x10"], "int64", False)
def test_parsing_in_bulk_changes_nothing(cells: list[str | None], kind: str, nullable: bool) -> None:
    signature = Signature(inputs=Table(columns=(Column(name="a", type=kind, nullable=nullable),)))
    table = pa.table({"a": pa.array(cells, pa.string())})
    # Look at each value alone: in a column of its own coercion reads it in the most careful way.
    assert outcome(typed(table, signature), signature) == outcome(table, signature)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3), st.sampled_from(["float64", "int64", "float32"]))
def test_nor_does_it_for_tensors(cells: list[tuple[str, str]], kind: str) -> None:
    tensor = Tensor(name="x", dtype=kind, shape=(None, 2))  # type: ignore[arg-type]
    signature = Signature(inputs=Tensors(tensors=(tensor,)))
    table = pa.table({"a": [a for a, _ in cells], "b": [b for _, b in cells]})
    assert outcome(typed(table, signature), signature) == outcome(table, signature)


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (["1", None], "float64", pa.float64()),
        (["1", None], "int16", pa.int64()),
        (["1", ""], "float64", pa.string()),
        (["nan"], "float64", pa.string()),
        (["1"], "utf8", pa.string()),
        (["1.0"], "int64", pa.string()),
        (["0X1"], "int64", pa.string()),
        ([], "float64", pa.float64()),
    ],
)
def test_only_what_has_one_meaning_is_taken(cells: list[str | None], kind: str, expected: pa.DataType) -> None:
    signature = Signature(inputs=Table(columns=(Column(name="a", type=kind, nullable=True),)))
    table = pa.table({"a": pa.array(cells, pa.string()), "other": pa.array(cells, pa.string())})
    assert typed(table, signature).schema.types == [expected, pa.string()]


def test_without_a_signature_everything_stays_text() -> None:
    assert typed(pa.table({"a": ["1"]}), Signature()).schema.types == [pa.string()]
