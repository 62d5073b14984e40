"""Corners of the small parts that no file reaches easily."""

from __future__ import annotations

import datetime as dt
import io
import json
import threading
import time
from collections.abc import Callable, Generator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server import columnar
from modelpack_server.batch import Options, inputs, predict_files, rejects
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.readers import delimited
from modelpack_server.codecs import answers, cells


@pytest.fixture
def source(tmp_path: Path) -> inputs.Source:
    (tmp_path / "in.csv").write_text("a\n1\n")
    return inputs.find([tmp_path / "in.csv"])[0]


class TestJsonValues:
    def test_what_json_lacks_is_written_as_http_replies_write_it(self) -> None:
        value = {"a": [float("inf"), -float("inf"), float("nan"), 1.5], "b": {"c": float("inf")}}
        assert json.loads(cells.dump(value)) == {"a": ["Infinity", "-Infinity", None, 1.5], "b": {"c": "Infinity"}}

    def test_integers_of_any_size_are_exact(self) -> None:
        assert cells.dump({"a": 2**100, "b": [1.5, float("nan")], "c": b"\xff"}) == (
            b'{"a":%d,"b":[1.5,null],"c":"/w=="}' % 2**100
        )

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (Decimal("1E-9"), "0.000000001"),
            (dt.timedelta(days=-1, microseconds=1), "-PT86399.999999S"),
            (dt.time(1, 2, 3), "01:02:03"),
            (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "2020-01-01T00:00:00+00:00"),
            (complex(1, 2), "(1+2j)"),
        ],
    )
    def test_python_objects_have_a_text(self, value: Any, text: str) -> None:
        assert json.loads(cells.dump([value])) == [text]

    def test_nanoseconds_and_intervals_have_a_text(self) -> None:
        nanos = pa.chunked_array([pa.array([1, None], pa.timestamp("ns", "UTC"))])
        assert cells.plain(nanos) == ["1970-01-01T00:00:00.000000001Z", None]
        interval = pa.chunked_array([pa.array([(1, 2, 3), None], pa.month_day_nano_interval())])
        assert cells.plain(interval) == ["P1M2DT0.000000003S", None]


class TestPieces:
    """A CSV file in pieces of whole rows, whatever the size of the blocks it is read in."""

    @pytest.fixture
    def pieces(self, source: inputs.Source, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, int], Any]:
        def make(body: bytes, block: int) -> delimited._Pieces:
            monkeypatch.setattr(delimited, "BLOCK", block)
            return delimited._Pieces(source, io.BytesIO(body))

        return make

    def test_together_they_are_the_file_and_each_ends_with_a_row(self, pieces: Any) -> None:
        body = b'1,"a ""b""\n,c"\n2,"d"\n\n3,e'
        ends = {len(b'1,"a ""b""\n,c"\n'), len(b'1,"a ""b""\n,c"\n2,"d"\n'), len(body) - 3, len(body)}
        for block in range(1, len(body) + 1):
            found = list(pieces(body, block))
            assert b"".join(found) == body
            assert {len(b"".join(found[: i + 1])) for i in range(len(found))} <= ends

    @pytest.mark.parametrize("body", [b'1,a"b\n', b'1,"a"b\n2,c\n', b'1,"a\n2,b\n'])
    def test_stray_quotes_are_refused(self, pieces: Any, body: bytes) -> None:
        with pytest.raises(InputError) as caught:
            list(pieces(body * 3, 4))
        assert caught.value.code == "csv-quote"

    def test_what_is_held_behind_a_stray_quote_is_not_looked_at_again(self, pieces: Any) -> None:
        began = time.process_time()
        with pytest.raises(InputError) as caught:
            list(pieces(b'1,"' + b"2,b\n" * 2_000_000, 64 * 1024))
        assert caught.value.code == "csv-quote"
        assert time.process_time() - began < 5

    def test_rows_are_given_as_soon_as_they_are_whole(self, pieces: Any) -> None:
        assert all(len(piece) < 11 + 5 for piece in pieces(b'1,"a\n\n""b"\n' * 4 + b'2,"c"', 5))

    def test_a_field_without_end_is_refused(self, pieces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delimited, "MAX_ROW", 10)
        with pytest.raises(InputError, match="not closed"):
            list(pieces(b'1,"' + b"a" * 100, 4))


def test_no_thread_reads_csv_when_a_run_has_ended(
    source: inputs.Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A thread of a library's that still wants Python while Python ends, ends the process by a signal."""
    (tmp_path / "in.csv").write_bytes(b"a,b\n1,1\n2\n3,3\n\n4,4,4\n5,5\n6\n")
    readers: set[threading.Thread] = set()

    class Watched(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            readers.add(threading.current_thread())
            return super().read(size)

    monkeypatch.setattr(delimited, "BLOCK", 4)
    monkeypatch.setattr(inputs.Source, "open_raw", lambda self: Watched(self.path))
    begun = delimited.read(source, Wanted(inputs=None, keep=None), 1)
    next(begun)
    assert isinstance(begun, Generator)
    begun.close()
    readers.discard(threading.current_thread())  # which read the header
    assert readers
    assert not any(thread.is_alive() or isinstance(thread, threading._DummyThread) for thread in readers)
    chunks = list(delimited.read(source, Wanted(inputs=None, keep=None), 2))
    assert [number for chunk in chunks for number in chunk.numbers] == [1, 3, 5]
    assert [broken.row for chunk in chunks for broken in chunk.broken] == [2, 4, 6]


class TestLineFinder:
    def test_lines_of_rows(self, tmp_path: Path) -> None:
        (tmp_path / "in.csv").write_bytes(b'\xef\xbb\xbf\na,b\r\n1,"x\n\ny"\n\n2,3\n')
        finder = delimited.LineFinder(inputs.find([tmp_path / "in.csv"])[0])
        assert [finder.find(row) for row in (1, 2, 2, 3)] == [3, 7, 7, None]

    def test_an_empty_line_of_a_single_column_is_a_row(self, tmp_path: Path) -> None:
        (tmp_path / "in.csv").write_bytes(b"a\n1\n\n2\n")
        finder = delimited.LineFinder(inputs.find([tmp_path / "in.csv"])[0])
        assert [finder.find(row) for row in (1, 2, 3)] == [2, 3, 4]

    def test_what_cannot_be_read_again_has_no_lines(self, tmp_path: Path) -> None:
        assert delimited.LineFinder(inputs.find(["-"], "csv")[0]).find(1) is None
        (tmp_path / "in.csv").write_bytes(b"a\n" + 200_000 * b"x" + b"\n")
        finder = delimited.LineFinder(inputs.find([tmp_path / "in.csv"])[0])
        assert finder.find(1) is None


def test_the_sink_counts_and_can_be_shut() -> None:
    raw = io.BytesIO()
    sink = columnar._Sink(raw)
    assert sink.write(memoryview(np.arange(2, dtype="int32"))) == 8
    sink.flush()
    sink.shut()
    sink.write(b"lost")
    sink.flush()
    sink.close()
    assert (sink.tell(), len(raw.getvalue()), sink.closed) == (12, 8, False)


def test_a_writer_without_rows_has_nothing_to_abandon() -> None:
    raw = io.BytesIO()
    for made in (columnar.ParquetWriter(raw), columnar.StreamWriter(raw)):
        made.close()
        made.abandon()
    assert raw.getvalue() == b""


def test_row_groups_of_parquet_are_of_a_useful_size(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(columnar, "ROW_GROUP", 6)
    model = make_model(Signature(inputs=Table(columns=(Column(name="x", type="int64"),))), lambda d, p: d["x"])
    pq.write_table(pa.table({"x": list(range(20))}), tmp_path / "in.parquet")
    predict_files(model, [tmp_path / "in.parquet"], tmp_path / "o.parquet", Options(batch_size=3))
    found = pq.ParquetFile(tmp_path / "o.parquet").metadata
    assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [6, 6, 6, 2]


def test_columns_of_any_type_are_values_in_json_and_text_elsewhere(make_model: Any, read: Any, tmp_path: Path) -> None:
    column = Column(name="v", type="any", nullable=True)
    table = Table(columns=(column, Column(name="x", type="int64")))
    model = make_model(Signature(inputs=table, outputs=Table(columns=(column,))), lambda d, p: {"v": list(d["v"])})
    (tmp_path / "in.jsonl").write_text('{"v":{"a":[1]},"x":1}\n{"v":null,"x":2}\n')
    predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.jsonl")
    assert read(tmp_path / "o.jsonl")[0] == {"v": {"a": [1]}, "x": 1, "v_prediction": {"a": [1]}}
    predict_files(model, [tmp_path / "in.jsonl"], tmp_path / "o.parquet")
    assert json.loads(read(tmp_path / "o.parquet")[0]["v_prediction"]) == {"a": [1]}


def test_answers_of_unknown_width_have_no_columns_before_the_first_row() -> None:
    outputs = Tensors(tensors=(Tensor(name="p", dtype="float64", shape=(None, "k")),))
    assert answers.empty(outputs).num_columns == 0
    assert answers.empty(None).num_columns == 0


def test_a_row_is_refused_once_however_many_faults_it_has(source: inputs.Source) -> None:
    from modelpack.errors import Fault

    table = pa.table({"a": ["1", "2"]})
    chunk = Chunk(source=source, wire="text", data=table, numbers=np.array([5, 9]))
    faults = [Fault("one", "", "first", row=1, column="a"), Fault("two", "", "second", row=1, column="b")]
    assert [(r.row, r.code) for r in rejects.refusals(chunk, faults)] == [(9, "one")]


def test_a_check_between_batches_can_end_the_run(make_model: Any, tmp_path: Path) -> None:
    class Enough(BaseException):
        """Raised by the check."""

    calls = iter(range(3))

    def check() -> None:
        if next(calls) == 2:
            raise Enough

    model = make_model(Signature(inputs=Table(columns=(Column(name="a", type="int64"),))), lambda d, p: d["a"])
    (tmp_path / "in.csv").write_text("a\n1\n2\n3\n4\n")
    with pytest.raises(Enough):
        predict_files(model, [tmp_path / "in.csv"], tmp_path / "o.csv", Options(batch_size=1, check=check))
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
