"""The same rows give the same answers in a stream, in batch and in a call, whatever their types."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

import modelpack
from modelpack.signature import Signature
from modelpack_server import batch

SPELLING = """
def plain(value):
    # Whether a column is of numpy's values or of Python's depends on what else is in the batch.
    return value.item() if hasattr(value, "item") else value


def predict(data):
    names = sorted(data)
    rows = range(len(data["id"]))
    return {"spelled": ["|".join(f"{name}={plain(data[name][row])!r}" for name in names) for row in rows]}
"""


def rows() -> pa.Table:
    """Rows of every type that Delta has, missing values among them."""
    noon = dt.datetime(2013, 1, 1, 12, 30, 1, 250)
    return pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "small": pa.array([-128, 127, 0], pa.int8()),
            "number": pa.array([0.1, None, -1e300], pa.float64()),
            "narrow": pa.array([0.1, 2.5, float("inf")], pa.float32()),
            "text": pa.array(["", None, "ü\r\n\U0001f600"], pa.string()),
            "flag": pa.array([True, None, False], pa.bool_()),
            "day": pa.array([noon.date(), None, dt.date(1950, 1, 2)], pa.date32()),
            "local": pa.array([noon, None, dt.datetime(1960, 1, 1)], pa.timestamp("us")),
            "instant": pa.array([noon, None, dt.datetime(2100, 1, 1)], pa.timestamp("us", "UTC")),
            "price": pa.array([Decimal("1.10"), None, Decimal("99999.99")], pa.decimal128(10, 2)),
            "raw": pa.array([b"\x00\xff", None, b""], pa.binary()),
            "many": pa.array([[1.5, None], None, []], pa.list_(pa.float64())),
        }
    )


@pytest.mark.parametrize("partition", [None, ["day"], ["text", "flag"], ["instant", "price"]], ids=str)
def test_a_stream_answers_as_batch_and_calls_do(tables: Any, make_package: Any, partition: list[str] | None) -> None:
    data = rows()
    if partition == ["text", "flag"]:
        data = data.set_column(data.schema.get_field_index("text"), "text", pa.array(["a b", None, "ü%2F=/"]))
    signature = Signature(inputs=modelpack.infer_signature(data).inputs, outputs=None)
    model = modelpack.load(make_package(tables.folder / "more", signature, SPELLING))
    write_deltalake(tables.source, data, partition_by=partition)
    tables.run(model, lambda: write_deltalake(tables.source, data, mode="append"), keep=("id",))
    streamed = tables.scored()
    assert streamed[0::2] == streamed[1::2]  # from the table as it was, and from a commit
    pq.write_table(data, tables.folder / "rows.parquet")
    options = batch.Options(keep=("id",))
    batch.predict_files(model, [tables.folder / "rows.parquet"], tables.folder / "batch.parquet", options)
    assert streamed[0::2] == pq.read_table(tables.folder / "batch.parquet").to_pylist()
    assert [row["spelled"] for row in streamed[0::2]] == model.predict(data)["spelled"]
