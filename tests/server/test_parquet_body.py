"""Parquet bodies become Arrow tables, or are refused without a look at what they might have meant."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.audits import parquet_bounds
from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table
from modelpack_server.codecs import parquet_body


def written(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def refused(body: bytes, code: str) -> None:
    with pytest.raises(InputError) as caught:
        parquet_body.decode(body, Signature())
    assert caught.value.code == code


def test_the_table_is_read_as_it_was_written() -> None:
    table = pa.table({"a": pa.array([1, None], pa.int32()), "b": pa.array(["x", ""])})
    decoded = parquet_body.decode(written(table), Signature())
    assert decoded.data.equals(table)
    assert decoded.wire == "python"


def test_no_rows_have_columns_still() -> None:
    decoded = parquet_body.decode(written(pa.table({"a": pa.array([], pa.int32())})), Signature())
    assert decoded.data.column_names == ["a"]


@pytest.mark.parametrize("body", [b"", b"PAR1", b"PAR1" * 100, written(pa.table({"a": [1]}))[:-5]])
def test_what_is_no_parquet_is_refused(body: bytes) -> None:
    refused(body, "parquet-invalid")


def test_two_columns_of_one_name_are_refused() -> None:
    refused(written(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])), "parquet-duplicate-column")


def test_a_few_bytes_cannot_become_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_body, "FLOOR", 1000)
    monkeypatch.setattr(parquet_body, "MAX_EXPANSION", 10)
    refused(written(pa.table({"a": pa.array(["x" * 1000] * 10_000)})), "parquet-size")


def stored(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink, store_schema=False, **options)
    return sink.getvalue()


REPEATED = pa.DictionaryArray.from_arrays(np.zeros(20_000, "i4"), ["x" * 100_000])
PREFIXES = {"use_dictionary": False, "column_encoding": {"a": "DELTA_BYTE_ARRAY"}, "compression": "zstd"}


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (REPEATED, {}),
        (REPEATED.filter(pa.array([True] * 50 + [False] * 19_950)), {}),
        (pa.array(["x" * 10_000 + str(number) for number in range(200)]), PREFIXES),
        (pa.array([["x" * 10_000 + str(number)] for number in range(200)]), {}),
        (pa.nulls(1_000_000, pa.int64()), {}),
        (pa.array([[None] * 1_000_000], pa.list_(pa.int8())), {}),
        (pa.array(np.zeros(1_000_000)), {"compression": "zstd"}),
        (pa.array([{"x": "y" * 100_000}] * 100), {"data_page_version": "2.0"}),
    ],
)
def test_pages_are_measured_before_they_are_read(
    column: pa.Array, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = stored(pa.table({"a": column}), **options)
    monkeypatch.setattr(parquet_body, "FLOOR", 1_000_000)
    monkeypatch.setattr(parquet_body, "MAX_EXPANSION", 1)
    assert len(body) < 100_000
    refused(body, "parquet-size")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"row_group_size": 700},
        {"use_dictionary": False, "column_encoding": {"t": "DELTA_BYTE_ARRAY"}},
    ],
)
def test_large_texts_that_fit_are_read_whole(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table(
        {
            "t": [f"value {number % 900}" for number in range(2000)],
            "l": [[f"{number % 500}", None] for number in range(2000)],
            "s": [{"x": number, "y": f"a{number % 700}"} for number in range(2000)],
            "a.b": [1.5] * 2000,
            "d": [Decimal("1.25")] * 2000,
        }
    )
    monkeypatch.setattr(parquet_body, "FLOOR", 2_000_000)
    monkeypatch.setattr(parquet_body, "_PIECE", 100_000)
    assert parquet_body.decode(stored(table, **options), Signature()).data.equals(table)


WHOLE = stored(pa.table({"a": [1, 2], "b": [["x"], []]}))


@pytest.mark.parametrize(
    "body",
    [
        b"PAR1" + bytes(8),
        b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1",
        b"PAR1" + b"\x00" + b"\x01\0\0\0" + b"PAR1",
        WHOLE[:-4] + b"PARE",
        # A schema with one element more than its groups have, and one whose last element is of another kind.
        WHOLE.replace(b"\x18\x06schema\x15\x04", b"\x18\x06schema\x15\x02"),
    ],
)
def test_a_footer_that_is_not_right_is_refused_before_it_is_read(body: bytes) -> None:
    assert body != WHOLE
    with pytest.raises(ValueError, match=r"footer|field|schema|struct|zip"):
        list(parquet_bounds.chunks(memoryview(body)))
    refused(body, "parquet-invalid")


@pytest.mark.parametrize("most", ["MAX_PAGES", "MAX_FOOTER"])
def test_what_takes_long_to_walk_is_refused(most: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_bounds, most, 3)
    refused(WHOLE, "parquet-invalid")


def test_chunks_and_pages_are_where_pyarrow_says() -> None:
    found = list(parquet_bounds.chunks(memoryview(WHOLE)))
    group = parquet.ParquetFile(io.BytesIO(WHOLE)).metadata.row_group(0)
    for place, chunk in enumerate(found):
        column = group.column(place)
        assert ".".join(chunk.leaf.path) == column.path_in_schema
        assert chunk.stop - chunk.start == column.total_compressed_size
        assert [page.kind for page in parquet_bounds.pages(memoryview(WHOLE), chunk)] == [2, 0]
    assert [chunk.leaf.repeated for chunk in found] == [False, True]


def test_columns_the_model_ignores_are_not_read() -> None:
    table = pa.table({"a": [1], "a.b": [2], "c": [3]})
    columns = (Column(name="a", type="int64"), Column(name="later", type="int64", optional=True))
    ignoring = Signature(inputs=Table(columns=columns))
    rejecting = Signature(inputs=Table(columns=columns, extra_columns="reject"))
    assert parquet_body.decode(written(table), ignoring).data.column_names == ["a"]
    assert parquet_body.decode(written(table), rejecting).data.column_names == ["a", "a.b", "c"]
    assert parquet_body.decode(written(table.select(["c"])), ignoring).data.column_names == ["c"]


@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(written(pa.table({"a": list(range(50)), "b": ["x"] * 50})))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parquet_body.decode(bytes(body), Signature())
    except InputError as exc:
        assert exc.code.startswith("parquet-")
