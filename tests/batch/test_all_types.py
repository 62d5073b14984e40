"""A column of any type goes from format to format and comes back as it was, typed by the signature."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelpack import infer
from modelpack.signature import Signature
from modelpack_server.batch import predict_files

NOON = dt.datetime(2024, 7, 1, 12, 30, 0, 123456)
COLUMNS = {
    "bool": pa.array([True, None, False]),
    "int8": pa.array([-128, None, 127], pa.int8()),
    "int64": pa.array([2**63 - 1, None, -(2**63)], pa.int64()),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "float16": pa.array([np.float16(0.1), None, np.float16(-65504)], pa.float16()),
    "float32": pa.array([0.1, None, -3.4e38], pa.float32()),
    "float64": pa.array([0.1, None, 5e-324]),
    "utf8": pa.array(["ü\n\"", None, ""]),
    "binary": pa.array([b"\0\xff", None, b"x"]),
    "date32": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1)]),
    "naive": pa.array([NOON, None, dt.datetime(1969, 1, 1)], pa.timestamp("us")),
    "aware": pa.array([NOON, None, dt.datetime(1969, 1, 1)], pa.timestamp("us", "Europe/Paris")),
    "nanos": pa.array([1, None, -1], pa.timestamp("ns", "UTC")),
    "duration": pa.array([dt.timedelta(microseconds=-1), None, dt.timedelta(days=400)], pa.duration("us")),
    "decimal": pa.array([Decimal("-1.50"), None, Decimal("99999.99")], pa.decimal128(7, 2)),
    "list": pa.array([[1.5, None], None, []], pa.list_(pa.float64())),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": 2, "b": None}]),
    "dictionary": pa.array(["u", None, "v"]).dictionary_encode(),
}  # fmt: skip


@pytest.mark.parametrize("way", list(itertools.permutations(["csv", "jsonl", "parquet"], 2)), ids="-".join)
def test_every_type_survives_every_way(make_model: Any, tmp_path: Path, way: tuple[str, str]) -> None:
    table = pa.table(COLUMNS)
    inputs = infer.io(table)
    model = make_model(Signature(inputs=inputs), lambda data, params: np.zeros(len(data["bool"])))
    pq.write_table(table, tmp_path / "0.parquet")
    steps = ["0.parquet", *(f"{i}.{suffix}" for i, suffix in enumerate((*way, "arrow"), start=1))]
    for before, after in itertools.pairwise(steps):
        predict_files(model, [tmp_path / before], tmp_path / after)
    found = pa.ipc.open_file((tmp_path / steps[-1]).read_bytes()).read_all().select(table.column_names)
    for name in table.column_names:
        assert found[name].to_pylist() == table[name].to_pylist(), name
        if not pa.types.is_nested(table[name].type):
            assert found.schema.field(name).type == table.schema.field(name).type, name
