"""The same rows give the same answers through every format, and kept columns stay what they were."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelpack.model import Model
from modelpack.signature import Column, Signature, Table
from modelpack_server.batch import Options, predict_files

Write = Callable[[pa.Table, Path], Path]
Read = Callable[[Path], list[dict[str, Any]]]

INPUTS = (".csv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".arrows")
OUTPUTS = (".csv", ".jsonl", ".parquet", ".arrow", ".arrows")


def same(found: Any, expected: Any, suffix: str) -> bool:
    """Compare a value read back from a file with the one that went in."""
    if suffix == ".csv":
        if expected is None:
            return bool(found == "")
        return float(found) == expected if isinstance(expected, float) else bool(found == str(expected))
    if suffix == ".jsonl" and expected == float("inf"):
        return bool(found == "Infinity")  # JSON has no infinity; null would be a missing value
    return bool(found == expected)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("input_", INPUTS)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_every_format_gives_the_answers_of_predict(
    model: Model, rows: pa.Table, write: Write, read: Read, tmp_path: Path, input_: str, output: str, size: int
) -> None:
    source = write(rows, tmp_path / f"in{input_}")
    summary = predict_files(model, [source], tmp_path / f"out{output}", Options(batch_size=size))
    expected = model.predict(rows)
    found = read(tmp_path / f"out{output}")
    assert summary.rows == len(found) == 5
    for name in ("score", "label"):
        column = [row[name] for row in found]
        assert all(same(f, e, output) for f, e in zip(column, expected[name], strict=True)), (name, column)
    for name in rows.column_names:
        column = [row[name] for row in found]
        kept = rows[name].to_pylist()
        if name == "id" and input_ == ".csv":
            kept = list(map(str, kept))  # not in the signature, so it stays the text it was
        assert all(same(f, e, output) for f, e in zip(column, kept, strict=True)), (name, column)
    assert [*rows.column_names, "score", "label"] == list(found[0])


def test_kept_columns_of_parquet_keep_their_types(make_model: Any, tmp_path: Path) -> None:
    columns = {
        "x": pa.array([1.0, 2.0]),
        "when": pa.array([dt.datetime(2020, 1, 1), None], pa.timestamp("ns", "Europe/Paris")),
        "cost": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
        "cat": pa.array(["a", "b"]).dictionary_encode(),
        "small": pa.array([1, None], pa.int8()),
        "list": pa.array([[1], None], pa.list_(pa.int16())),
        "half": pa.array([1.5, 2.5], pa.float16()),
        "raw": pa.array([b"\0", None], pa.binary()),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "in.parquet")
    signature = Signature(inputs=Table(columns=(Column(name="x", type="float64"),)))
    model = make_model(signature, lambda data, params: data["x"] * 2)
    for suffix in ("parquet", "arrow", "arrows"):
        predict_files(model, [tmp_path / "in.parquet"], tmp_path / f"out.{suffix}", Options(batch_size=1))
        if suffix == "parquet":
            found = pq.read_table(tmp_path / "out.parquet")
        else:
            opener = pa.ipc.open_file if suffix == "arrow" else pa.ipc.open_stream
            found = opener((tmp_path / f"out.{suffix}").read_bytes()).read_all()
        assert found.schema.types == [*table.schema.types, pa.float64()]
        assert found.drop_columns(["prediction"]).to_pylist() == table.to_pylist()
        assert found["prediction"].to_pylist() == [2.0, 4.0]


def test_kept_columns_as_text_and_json(make_model: Any, read: Read, tmp_path: Path) -> None:
    """Times are RFC 3339, durations ISO 8601, binary base64, decimals plain, nested values JSON."""
    paris = pa.timestamp("us", "Europe/Paris")
    table = pa.table(
        {
            "x": pa.array([1.0, 2.0, 3.0]),
            "at": pa.array([dt.datetime(2020, 7, 1, 12, 0, 0, 500), None, dt.datetime(1969, 1, 1)], paris),
            "local": pa.array([dt.datetime(2020, 1, 1), None, None], pa.timestamp("s")),
            "day": pa.array([dt.date(2020, 1, 1), None, None]),
            "cost": pa.array([Decimal("0.00000001"), None, None], pa.decimal128(30, 8)),
            "took": pa.array([dt.timedelta(seconds=1.5), None, None], pa.duration("ms")),
            "raw": pa.array([b"\xff", None, b""]),
            "flag": pa.array([True, False, None]),
            "nan": pa.array([float("nan"), 1.0, None]),
            "cat": pa.array(["a", None, ""]).dictionary_encode(),
            "nest": pa.array([{"a": [1, None], "when": dt.date(2020, 1, 1)}, None, {"a": [], "when": None}]),
            "half": pa.array([0.5, None, 1.5], pa.float16()),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "in.parquet")
    signature = Signature(inputs=Table(columns=(Column(name="x", type="float64"),)))
    model = make_model(signature, lambda data, params: data["x"] * 2)
    texts = {
        "x": "1", "at": "2020-07-01T12:00:00.0005Z", "local": "2020-01-01T00:00:00", "day": "2020-01-01",
        "cost": "0.00000001", "took": "PT1.5S", "raw": "/w==", "flag": "true", "nan": "", "cat": "a",
        "nest": '{"a":[1,null],"when":"2020-01-01"}', "half": "0.5", "prediction": "2",
    }  # fmt: skip
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")[0] == texts
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "out.jsonl")
    values = {**texts, "x": 1.0, "flag": True, "nan": None, "nest": json.loads(texts["nest"]), "half": 0.5,
              "prediction": 2.0}  # fmt: skip
    assert read(tmp_path / "out.jsonl")[0] == values
    assert read(tmp_path / "out.jsonl")[1]["at"] is None
    assert read(tmp_path / "out.jsonl")[2]["at"] == "1969-01-01T00:00:00Z"


def test_the_text_of_csv_cells_is_kept_as_it_is(model: Model, tmp_path: Path) -> None:
    body = 'id,x,n,name\n007,1.50,+1,\n 8 ,1e3,02,""\n"9\n9",,,"a ""b"", c"\n'
    (tmp_path / "in.csv").write_text(body, newline="")
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_bytes().decode()
    assert lines == (
        "id,x,n,name,score,label\n007,1.50,+1,,3,1|None\n 8 ,1e3,02,\"\",2000,2|''\n"
        '"9\n9",,,"a ""b"", c",,"None|\'a ""b"", c\'"\n'
    )


def test_columns_read_as_text_are_typed_by_the_signature_elsewhere(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,x,n,name\n007,1.50,2,b\n")
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.to_pylist() == [{"id": "007", "x": 1.5, "n": 2, "name": "b", "score": 3.0, "label": "2|'b'"}]
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text()) == table.to_pylist()[0]


def test_json_members_are_kept_exactly(model: Model, tmp_path: Path) -> None:
    line = '{"id":123456789012345678901234,"x":1,"n":9007199254740993,"name":"b","more":{"a":[1,1.5,null]}}'
    (tmp_path / "in.jsonl").write_text(line + "\n")
    predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "out.jsonl")
    found = (tmp_path / "out.jsonl").read_text()
    assert found == line[:-1] + ',"score":2.0,"label":"9007199254740993|\'b\'"}\n'


def test_packed_files(model: Model, rows: pa.Table, write: Write, read: Read, tmp_path: Path) -> None:
    import gzip

    for suffix in (".csv", ".jsonl"):
        plain = write(rows, tmp_path / f"in{suffix}")
        packed = tmp_path / f"in{suffix}.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        predict_files(model, [plain], tmp_path / f"plain{suffix}")
        predict_files(model, [packed], tmp_path / f"packed{suffix}.gz", Options(batch_size=2))
        assert (
            gzip.decompress((tmp_path / f"packed{suffix}.gz").read_bytes())
            == (tmp_path / f"plain{suffix}").read_bytes()
        )


def test_line_ends_marks_and_blank_lines_of_csv(model: Model, read: Read, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'\xef\xbb\xbfx,n,name\r\n\r\n1,2,"a\r\nb"\r\n\r\n3,4,c')
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.csv")
    assert [(row["x"], row["name"], row["score"]) for row in read(tmp_path / "out.csv")] == [
        ("1", "a\r\nb", "2"),
        ("3", "c", "6"),
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow", "arrows"])
@pytest.mark.parametrize("output", ["csv", "jsonl", "parquet", "arrow", "arrows"])
def test_no_rows_give_an_output_with_columns(
    model: Model, rows: pa.Table, write: Write, read: Read, tmp_path: Path, suffix: str, output: str
) -> None:
    source = write(rows.slice(0, 0), tmp_path / f"in.{suffix}")
    summary = predict_files(model, [source], tmp_path / f"out.{output}")
    assert summary.rows == 0
    assert read(tmp_path / f"out.{output}") == []
    if output == "parquet":
        names = [] if suffix == "jsonl" else rows.column_names
        assert pq.read_schema(tmp_path / "out.parquet").names == [*names, "score", "label"]


def test_an_empty_csv_has_no_rows(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"")
    assert predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.csv").rows == 0
    assert (tmp_path / "out.csv").read_text() == "score,label\n"
