"""Parquet bodies become Arrow tables, or are refused without a look at what they might have meant."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import InputError
from modelpack.signature import Signature
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


@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(written(pa.table({"a": list(range(50)), "b": ["x"] * 50})))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parquet_body.decode(bytes(body), Signature())
    except InputError as exc:
        assert exc.code.startswith("parquet-")
