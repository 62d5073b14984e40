"""Rows that do not fit stop the run, or are written aside; both say where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelpack.errors import InputError, ModelError, OutputError, UsageError
from modelpack.model import Model
from modelpack.signature import Column, Json, Signature, Table
from modelpack_server.batch import Options, predict_files

CSV = 'x,n,name\n1,2,a\n"2\n2",2,b\n\n3,oops,c\n4,5\n5,6,d\n1.5,1.5,e\n'


@pytest.fixture
def bad_csv(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(CSV, newline="")
    return path


def rejected(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_first_bad_row_stops_and_nothing_is_written(model: Model, bad_csv: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(InputError) as caught:
        predict_files(model, [bad_csv], tmp_path / "out.csv", Options(batch_size=size))
    assert caught.value.path == f"{bad_csv}, row 2 (line 3), column 'x'"
    assert caught.value.code == "number-invalid"
    assert "--on-error" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_bad_rows_are_written_aside_and_good_ones_go_on(
    model: Model, bad_csv: Path, read: Any, tmp_path: Path, size: int
) -> None:
    options = Options(batch_size=size, on_error=tmp_path / "bad.jsonl")
    summary = predict_files(model, [bad_csv], tmp_path / "out.csv", options)
    assert (summary.rows, summary.rejected, summary.rejects) == (2, 4, str(tmp_path / "bad.jsonl"))
    assert [(row["x"], row["name"], row["score"]) for row in read(tmp_path / "out.csv")] == [
        ("1", "a", "2"),
        ("5", "d", "10"),
    ]
    found = rejected(tmp_path / "bad.jsonl")
    assert [(r["row"], r["line"], r["column"], r["code"]) for r in found] == [
        (2, 3, "x", "number-invalid"),
        (3, 6, "n", "number-invalid"),
        (4, 7, None, "csv-ragged"),
        (6, 9, "n", "not-whole"),
    ]
    assert {r["file"] for r in found} == {str(bad_csv)}
    assert found[0]["record"] == {"x": "2\n2", "n": "2", "name": "b"}
    assert found[2]["record"] == "4,5"
    assert found[2]["message"] == "has 2 cells where the header has 3"


def test_broken_lines_of_json_are_rows_with_numbers(model: Model, tmp_path: Path) -> None:
    lines = [
        '{"x":1,"n":1,"name":"a"}',
        "",
        "{nope",
        "[1]",
        '{"x":1,"x":2,"n":1,"name":"a"}',
        '{"x":"1","n":1,"name":"a"}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    options = Options(on_error=tmp_path / "bad.jsonl")
    summary = predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "out.jsonl", options)
    assert (summary.rows, summary.rejected) == (1, 4)
    found = rejected(tmp_path / "bad.jsonl")
    assert [(r["row"], r["line"], r["code"]) for r in found] == [
        (2, 3, "json-invalid"),
        (3, 4, "json-not-object"),
        (4, 5, "json-duplicate-key"),
        (5, 6, "type-mismatch"),
    ]
    assert found[0]["record"] == "{nope"
    assert found[3]["record"] == {"x": "1", "n": 1, "name": "a"}
    with pytest.raises(InputError, match=r"in.jsonl, row 2 \(line 3\): the line is not JSON"):
        predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "out2.jsonl")


def test_bad_rows_of_parquet_have_numbers_across_row_groups(make_model: Any, tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([1.0, None, 2.0, float("nan"), 3.0]), "raw": pa.array([b"\xff"] * 5)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    model = make_model(Signature(inputs=Table(columns=(Column(name="x", type="float64"),))), lambda d, p: d["x"])
    options = Options(on_error=tmp_path / "bad.jsonl", batch_size=2)
    summary = predict_files(model, [tmp_path / "in.parquet"], tmp_path / "out.parquet", options)
    assert (summary.rows, summary.rejected) == (3, 2)
    assert pq.read_table(tmp_path / "out.parquet")["prediction"].to_pylist() == [1.0, 2.0, 3.0]
    found = rejected(tmp_path / "bad.jsonl")
    assert [(r["row"], r["line"], r["column"]) for r in found] == [(2, None, "x"), (4, None, "x")]
    assert found[0]["record"] == {"x": None, "raw": "/w=="}
    with pytest.raises(InputError, match=r"in\.parquet, row 2, column 'x'"):
        predict_files(model, [tmp_path / "in.parquet"], tmp_path / "out2.parquet")


def test_no_bad_row_gives_an_empty_file_of_rejects(model: Model, rows: pa.Table, write: Any, tmp_path: Path) -> None:
    source = write(rows, tmp_path / "in.parquet")
    summary = predict_files(model, [source], tmp_path / "out.csv", Options(on_error=tmp_path / "bad.jsonl"))
    assert summary.rejected == 0
    assert (tmp_path / "bad.jsonl").read_bytes() == b""


def test_only_bad_rows_give_an_output_without_rows(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x,n,name\n1\n2\n")
    summary = predict_files(
        model, [tmp_path / "in.csv"], tmp_path / "out.csv", Options(on_error=tmp_path / "bad.jsonl")
    )
    assert (summary.rows, summary.rejected) == (0, 2)
    assert (tmp_path / "out.csv").read_text() == "x,n,name,score,label\n"


def test_too_many_bad_rows_stop_the_run(model: Model, bad_csv: Path, tmp_path: Path) -> None:
    options = Options(on_error=tmp_path / "bad.jsonl", max_rejects=3)
    with pytest.raises(InputError, match="more than 3 rows refused") as caught:
        predict_files(model, [bad_csv], tmp_path / "out.csv", options)
    assert "row 6 (line 9)" in caught.value.path
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    options = Options(on_error=tmp_path / "bad.jsonl", max_rejects=4)
    assert predict_files(model, [bad_csv], tmp_path / "out.csv", options).rejected == 4


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_missing_column_stops_the_run_either_way(model: Model, tmp_path: Path, tolerant: bool) -> None:
    (tmp_path / "a.csv").write_text("x,n,name\n1,1,a\n")
    (tmp_path / "b.csv").write_text("x,name\n1,a\n")
    options = Options(on_error=tmp_path / "bad.jsonl" if tolerant else None)
    with pytest.raises(InputError, match=r"b\.csv: .*n") as caught:
        predict_files(model, [tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv", options)
    assert caught.value.code == "column-missing"
    assert not (tmp_path / "out.csv").exists()


def test_a_missing_column_is_found_in_a_file_without_rows(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,name\n")
    with pytest.raises(InputError, match=r"a\.csv: column 'n' is missing"):
        predict_files(model, [tmp_path / "a.csv"], tmp_path / "out.csv")


@pytest.mark.parametrize("rows", ["", "1,a\n"])
def test_a_missing_column_that_directories_tell_is_explained(model: Model, tmp_path: Path, rows: str) -> None:
    (tmp_path / "in" / "n=1").mkdir(parents=True)
    (tmp_path / "in" / "n=1" / "a.csv").write_text("x,name\n" + rows)
    for options in (Options(), Options(on_error=tmp_path / "bad.jsonl")):
        with pytest.raises(
            InputError, match="The directory tells 'n', but only columns in the files are read"
        ) as caught:
            predict_files(model, [tmp_path / "in"], tmp_path / "out.csv", options)
        assert caught.value.code == "column-missing"


def test_all_faults_of_a_chunk_are_told(model: Model, bad_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        predict_files(model, [bad_csv], tmp_path / "out.csv")
    places = [fault.path.removeprefix(f"{bad_csv}, ") for fault in caught.value.faults]
    assert places == [
        "row 2 (line 3), column 'x'",
        "row 3 (line 6), column 'n'",
        "row 4 (line 7)",
        "row 6 (line 9), column 'n'",
    ]


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("a.parquet", b"PAR1 nonsense", "cannot be read as parquet"),
        ("a.arrow", b"nonsense", "cannot be read as arrow"),
        ("a.arrows", b"nonsense", "cannot be read as arrows"),
        ("a.csv", b"x,\xff\n", "no readable header"),
        ("a.csv", b'x,n,name\n1,2,"open\n', "quote that neither opens nor closes"),
        ("a.csv", b'x,n,name\n1,2,a"b\n', "quote that neither opens nor closes"),
        ("a.csv", b'"x\n', "no readable header"),
        ("a.csv", b"x,n,name,x\n", "two columns called 'x'"),
        ("a.csv.gz", b"not packed", "cannot be read as csv"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00", "cannot be read as jsonl"),
    ],
)
def test_files_that_are_not_what_their_name_says(
    model: Model, tmp_path: Path, name: str, body: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(InputError, match=reason) as caught:
        predict_files(model, [tmp_path / name], tmp_path / "out.csv")
    assert caught.value.path.startswith(str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("more", ["another stream", "garbage"])
def test_what_follows_the_end_of_an_arrow_stream_is_refused(
    model: Model, tmp_path: Path, rows: pa.Table, more: str
) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    whole = sink.getvalue().to_pybytes()
    (tmp_path / "in.arrows").write_bytes(whole + (whole if more == "another stream" else b"\0"))
    with pytest.raises(InputError, match="something follows the end of the Arrow stream") as caught:
        predict_files(model, [tmp_path / "in.arrows"], tmp_path / "out.csv")
    assert (caught.value.code, caught.value.path) == ("arrow-invalid", str(tmp_path / "in.arrows"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.arrows"]


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelpack_server.batch.readers import delimited

    monkeypatch.setattr(delimited, "MAX_ROW", 1000)
    monkeypatch.setattr(delimited, "BLOCK", 500)
    (tmp_path / "in.csv").write_text('x,n,name\n1,2,"' + "y\n" * 2000)
    with pytest.raises(InputError, match="not closed") as caught:
        predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.csv")
    assert caught.value.path.endswith("in or after line 2")


def test_a_row_of_csv_without_end_does_not_fill_the_memory(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelpack_server.batch.readers import delimited

    monkeypatch.setattr(delimited, "MAX_ROW", 3000)
    monkeypatch.setattr(delimited, "BLOCK", 500)
    (tmp_path / "in.csv").write_text("x,n,name\n" + "1,2,a\n" * 10 + f"1,2,{'a' * 2000}\n1,2,b\n")
    assert predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.csv").rows == 12
    (tmp_path / "long.csv").write_text("x,n,name\n" + "1,2,a\n" * 10 + f"1,2,{'a' * 5000}\n1,2,b\n")
    with pytest.raises(InputError, match="has a row longer than 3000 bytes") as caught:
        predict_files(model, [tmp_path / "long.csv"], tmp_path / "long-out.csv")
    assert caught.value.code == "line-too-long"
    assert caught.value.path.endswith("long.csv, in or after line 12")


def test_a_line_of_json_without_end_does_not_fill_the_memory(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelpack_server.batch.readers import jsonlines

    monkeypatch.setattr(jsonlines, "MAX_LINE", 100)
    for head in ("", "{}\n"):
        (tmp_path / "in.jsonl").write_text(head + " " * 1000)
        with pytest.raises(InputError, match="longer than 100 bytes"):
            predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "out.csv", Options(on_error=tmp_path / "bad"))


def test_two_columns_of_one_name_in_parquet(model: Model, tmp_path: Path) -> None:
    table = pa.table([pa.array([1.0]), pa.array([2.0])], names=["x", "x"])
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InputError, match="two columns called 'x'"):
        predict_files(model, [tmp_path / "in.parquet"], tmp_path / "out.csv")


def test_an_exception_of_the_model_names_file_and_rows(make_model: Any, tmp_path: Path) -> None:
    def fail(data: Any, params: Any) -> Any:
        if 3.0 in list(data["x"]):
            raise ZeroDivisionError("secret")
        return data["x"]

    model = make_model(Signature(inputs=Table(columns=(Column(name="x", type="float64"),))), fail)
    (tmp_path / "in.csv").write_text("x\n1\n2\n3\n4\n5\n")
    options = Options(batch_size=2, on_error=tmp_path / "bad.jsonl")
    with pytest.raises(ModelError, match=r"in\.csv, rows 3 to 4: the model raised ZeroDivisionError") as caught:
        predict_files(model, [tmp_path / "in.csv"], tmp_path / "out.csv", options)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("answer", [lambda d, p: d["x"][:1], lambda d, p: {"a": 1}, lambda d, p: [{"a": 1}]])
def test_an_answer_for_each_row_is_needed(make_model: Any, tmp_path: Path, answer: Any) -> None:
    inputs = Table(columns=(Column(name="x", type="float64"),))
    (tmp_path / "in.csv").write_text("x\n1\n2\n")
    for outputs in (None, Json()):
        with pytest.raises(OutputError, match=r"in\.csv, rows 1 to 2"):
            predict_files(
                make_model(Signature(inputs=inputs, outputs=outputs), answer), [tmp_path / "in.csv"], tmp_path / "o.csv"
            )


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"keep": ("a", "b", "a")}])
def test_options_check_themselves(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Options(**options)


def test_text_of_parquet_that_is_not_utf8_is_one_bad_row(model: Model, tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xffb", b"c"])
    names = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"x": [1.0, 2.0, 3.0], "n": [1, 2, 3], "name": names}), tmp_path / "in.parquet")
    with pytest.raises(InputError) as caught:
        predict_files(model, [tmp_path / "in.parquet"], tmp_path / "no.jsonl")
    assert [(fault.code, fault.row, fault.column) for fault in caught.value.faults] == [("text-invalid", 2, "name")]
    aside = tmp_path / "aside.jsonl"
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "o.jsonl", Options(on_error=aside))
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    (refused,) = map(json.loads, aside.read_text().splitlines())
    assert refused["record"]["name"] == "\udcffb"


def broken_text() -> pa.Array:
    """Return three texts of which the second is no UTF-8."""
    return pa.array([b"a", b"\xffb", b"c"], pa.binary()).view(pa.string())


class TestTextToKeepThatIsNotUtf8:
    """No format can write it: its row is refused by row and column, and none of its bytes is changed."""

    COLUMNS = {
        "text": broken_text(),
        "list": pa.ListArray.from_arrays([0, 1, 2, 3], broken_text()),
        "struct": pa.StructArray.from_arrays([broken_text()], ["a"]),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), broken_text()),
    }

    @pytest.fixture
    def doubling(self, make_model: Any) -> Model:
        x = Table(columns=(Column(name="x", type="float64"),))
        y = Table(columns=(Column(name="y", type="float64"),))
        model: Model = make_model(Signature(inputs=x, outputs=y), lambda d, p: {"y": d["x"]})
        return model

    @pytest.fixture(params=[*COLUMNS, "csv"])
    def source(self, request: Any, tmp_path: Path) -> Path:
        if request.param == "csv":
            path = tmp_path / "in.csv"
            path.write_bytes(b"x,note\n1,a\n2,\xffb\n3,c\n")
            return path
        path = tmp_path / "in.arrow"
        table = pa.table({"x": [1.0, 2.0, 3.0], "note": self.COLUMNS[request.param]})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        return path

    @pytest.mark.parametrize("out", ["csv", "jsonl", "parquet", "arrow"])
    def test_is_refused(self, doubling: Model, source: Path, tmp_path: Path, out: str) -> None:
        with pytest.raises(InputError) as caught:
            predict_files(doubling, [source], tmp_path / f"o.{out}", Options(keep=["note"]))
        line = " (line 3)" if source.suffix == ".csv" else ""
        assert caught.value.path == f"{source}, row 2{line}, column 'note'"
        assert [(fault.code, fault.row) for fault in caught.value.faults] == [("text-invalid", 2)]

    @pytest.mark.parametrize("out", ["csv", "jsonl", "parquet", "arrow"])
    @pytest.mark.parametrize("size", [1, 100])
    def test_is_written_aside(
        self, doubling: Model, source: Path, tmp_path: Path, read: Any, out: str, size: int
    ) -> None:
        options = Options(on_error=tmp_path / "bad.jsonl", batch_size=size)
        summary = predict_files(doubling, [source], tmp_path / f"o.{out}", options)
        assert (summary.rows, summary.rejected) == (2, 1)
        (found,) = rejected(tmp_path / "bad.jsonl")
        assert (found["row"], found["column"], found["code"]) == (2, "note", "text-invalid")
        assert "\udcffb" in json.dumps(found["record"]["note"], ensure_ascii=False)
        if out in ("csv", "jsonl"):
            assert [float(row["y"]) for row in read(tmp_path / f"o.{out}")] == [1, 3]

    def test_is_no_fault_where_it_is_not_kept(self, doubling: Model, source: Path, tmp_path: Path) -> None:
        assert predict_files(doubling, [source], tmp_path / "o.csv", Options(keep=["x"])).rows == 3


def test_bytes_of_csv_that_are_no_text_are_faults_of_their_own_cells(model: Model, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    (tmp_path / "in.csv").write_bytes(b'x,n,name\n1,1,\xc3\xa9\n2\xff,1,a\n3,1,\xff\n4,1,\xfe,5\n5,1,"\xe2\x82\xac"\n')
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "o.jsonl", Options(on_error=bad))
    assert [json.loads(line)["name"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == ["é", "€"]
    assert [(r["row"], r["line"], r["column"], r["code"]) for r in rejected(bad)] == [
        (2, 3, "x", "number-invalid"),
        (3, 4, "name", "text-invalid"),
        (4, 5, None, "csv-ragged"),
    ]
    assert rejected(bad)[2]["record"] == "4,1,\udcfe,5"
