"""What cells of CSV and members of JSON Lines hold is what a JSON reply holds, and is read back as it was."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from modelpack import coerce, render
from modelpack.coerce.times import Instant
from modelpack.dtypes import DurationType, Element, ListType, MapType, StructField, StructType, TimestampType
from modelpack.frame import Frame
from modelpack.signature import Column, Signature, Table
from modelpack_server.codecs import cells, csv_body, json_body, lines_body, parquet_body

NS, PARIS, FAR = DurationType(unit="ns"), TimestampType(unit="us", tz="Europe/Paris"), TimestampType(unit="s")
PART = StructType(fields=(StructField(name="a", type="int64"), StructField(name="b", type="utf8", optional=True)))
DAY = np.datetime64("12000-01-01", "D")

# type, values as Python has them
ANSWERS: list[tuple[Any, list[Any]]] = [
    (MapType(values=Element(type="int64")), [{"k": 1}, {}]),
    (MapType(values=Element(type=NS)), [{"k": np.timedelta64(1_500_000_001, "ns")}]),
    (ListType(items=Element(type=MapType(values=Element(type="binary")))), [[{"k": b"\0"}, {}], []]),
    (ListType(items=Element(type=NS, nullable=True)), [[np.timedelta64(1_500_000_001, "ns"), None]]),
    (ListType(items=Element(type=PARIS)), [[dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]]),
    (ListType(items=Element(type="date32")), [[DAY], [np.datetime64("2024-01-01", "D")]]),
    (FAR, [np.datetime64("10000-01-01", "s"), np.datetime64("40000-01-01T00:00:01", "s")]),
    (FAR, [np.datetime64("-0001-12-31", "s"), np.datetime64("2024-01-01T10:00", "s")]),
    (FAR, [np.datetime64("9999-12-31T23:59:59", "s"), np.datetime64("0000-01-01", "s")]),
    (TimestampType(unit="s", tz="UTC"), [Instant(np.datetime64("32768-01-01", "s"))]),
    ("date32", [DAY, np.datetime64("2024-01-01", "D"), np.datetime64("-0001-12-31", "D")]),
    (PART, [{"a": 1}, {"a": 2, "b": "x"}]),
    (ListType(items=Element(type=PART)), [[{"a": 1}, {"a": 2, "b": "x"}]]),
]


@pytest.mark.parametrize(("kind", "values"), ANSWERS)
def test_every_format_says_the_same_and_is_read_back(kind: Any, values: list[Any]) -> None:
    signature = Signature(inputs=Table(columns=(Column(name="x", type=kind),)))
    frame = coerce.inputs({"x": values}, signature)
    expected = [row["x"] for row in json.loads(json_body.encode(frame))["predictions"]]

    lines = lines_body.encode(frame)
    assert [json.loads(line)["x"] for line in lines.splitlines()] == expected
    (_, *rows) = csv.reader(io.StringIO(csv_body.encode(frame).decode()))
    assert [json.loads(cell) if isinstance(expected[0], list | dict) else cell for (cell,) in rows] == expected

    def plain(decoded: Any) -> list[Any]:
        found: Frame = coerce.inputs(decoded.data, signature, wire=decoded.wire)
        return [row["x"] for row in render.plain(found)]

    assert plain(lines_body.decode(lines, signature)) == expected
    assert plain(csv_body.decode(csv_body.encode(frame), signature)) == expected
    assert plain(parquet_body.decode(parquet_body.encode(frame), signature)) == expected


UUID = uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")
PARTS = [pa.array([1, None, 3, 4]), pa.array(["v", "x", "y", "z"]), pa.array([{"d": dt.date(2026, 1, 31)}] * 4)]
SPARSE = pa.UnionArray.from_sparse(
    pa.array([0, 1, 0, 2], pa.int8()), [PARTS[0].take(pa.array([0, 0, 1, 1])), *PARTS[1:]]
)
DENSE = pa.UnionArray.from_dense(
    pa.array([5, 7, 5, 9], pa.int8()), pa.array([0, 1, 1, 0], pa.int32()), PARTS, type_codes=[5, 7, 9]
)


def chunked(values: list[Any], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)]).slice(1)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (chunked([None, [("k", 1)], None, []], pa.map_(pa.string(), pa.int64())), [{"k": 1}, None, {}]),
        (chunked([None, [(1, "x")]], pa.map_(pa.int64(), pa.string())), [[[1, "x"]]]),
        (chunked([None, [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int8())), [[["k", 1], ["k", 2]]]),
        (chunked([None, b"ab"], pa.binary_view()), ["YWI="]),
        (chunked([None, [b"ab", None]], pa.list_(pa.binary(2))), [["YWI=", None]]),
        (chunked([None, [dt.time(1, 2)]], pa.list_(pa.time32("s"))), [["01:02:00"]]),
        (chunked([None, DAY.astype(int).item() * 86_400_000], pa.int64()).cast(pa.date64()), ["+12000-01-01"]),
        (pa.chunked_array([], pa.date32()), []),
        (pa.chunked_array([], pa.uuid()), []),
        (chunked([None, UUID.bytes, None], pa.uuid()), [str(UUID), None]),
        # By its type, not by what the bytes of the others happen to be.
        (
            pa.chunked_array([pa.array([bytes(16)], pa.uuid()), pa.array([b"a" * 16], pa.uuid())]),
            ["00000000-0000-0000-0000-000000000000", "61616161-6161-6161-6161-616161616161"],
        ),
        (
            pa.chunked_array([pa.ListArray.from_arrays([0, 2], pa.array([UUID.bytes, None], pa.uuid()))]),
            [[str(UUID), None]],
        ),
        (
            pa.chunked_array([pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 2, None], pa.int8()))]),
            [False, True, None],
        ),
        (pa.chunked_array([pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}']))]), ['{"a":1}']),
        (
            pa.chunked_array(
                [pa.ExtensionArray.from_storage(pa.opaque(pa.int8(), "t", "v"), pa.array([1], pa.int8()))]
            ),
            [1],
        ),
        (pa.chunked_array([pc.run_end_encode(pa.array(["a", "a", None, "b"]))]).slice(1), ["a", None, "b"]),
        (pa.chunked_array([pc.run_end_encode(pa.array([1, 1]))]), [1, 1]),
        (
            pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()]),
            ["a", "b", "b"],
        ),
        (pa.chunked_array([SPARSE, SPARSE.slice(1, 2)]), [1, "x", None, {"d": "2026-01-31"}, "x", None]),
        (pa.chunked_array([SPARSE.slice(0, 0)]), []),
        (pa.chunked_array([DENSE]).slice(1), ["x", None, {"d": "2026-01-31"}]),
        (
            chunked([None, (1, 2, 1_500_000_000), (0, 0, 0), (-1, 2, -1), (14, 0, 0)], pa.month_day_nano_interval()),
            ["P1M2DT1.5S", "PT0S", "P-1M2DT-0.000000001S", "P14M"],
        ),
    ],
)
def test_kept_columns_of_any_type(column: pa.ChunkedArray, values: list[Any]) -> None:
    assert cells.plain(column) == values
    texts = [None if v is None else v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for v in values]
    assert cells.texts(column).to_pylist() == texts
