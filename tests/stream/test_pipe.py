"""Lines in, lines out."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(command: list[str], package: Path) -> Iterator[Start]:
    """Start the command with pipes."""
    started: list[subprocess.Popen[bytes]] = []

    def call(*words: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        line = [*command, str(package), *words]
        started.append(subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[bytes], line: bytes) -> Any:
    """Send a line and return the answer, while the pipe stays open."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line)
    return json.loads(process.stdout.readline())


@pytest.mark.slow
def test_each_line_is_answered_at_once_and_a_signal_ends_it(start: Start) -> None:
    process = start("--json")
    for x in (1.5, 2, -0.25):
        assert ask(process, json.dumps({"id": "a", "x": x}).encode() + b"\n") == {"id": "a", "x": x, "score": 2 * x}
    process.stdin.write(b'\n  \n{"x": 1, "more": [1, {"a": null}]}\n{"x"')  # type: ignore[union-attr]
    assert json.loads(process.stdout.readline()) == {"x": 1, "more": [1, {"a": None}], "score": 2.0}  # type: ignore[union-attr]
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)  # while the pipe is open: its end would end it too
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"")
    assert json.loads(err)["rows"] == 4


@pytest.mark.slow
def test_many_lines_keep_their_order_and_the_last_needs_no_end(start: Start, tmp_path: Path) -> None:
    lines = [json.dumps({"n": n, "x": n / 2, "pad": "ü" * (n % 300)}) for n in range(40_000)]
    lines[7] = json.dumps({"n": 7, "x": 3.5, "pad": "long" * 600_000})
    bad = tmp_path / "bad.jsonl"
    lines[11] = '{"n": 11, "x": "text"}'
    lines[13] = "no JSON"
    process = start("--keep", "n", "--on-error", str(bad))
    out, err = process.communicate("\ufeff".encode() + "\n".join(lines).encode(), timeout=60)
    assert (process.returncode, err.decode()) == (0, f"modelpack: 2 of 40,000 rows refused, see {bad}\n")
    answers = [json.loads(line) for line in out.splitlines()]
    assert answers == [{"n": n, "score": float(n)} for n in range(40_000) if n not in (11, 13)]
    assert [(row["row"], row["code"]) for row in map(json.loads, bad.read_text().splitlines())] == [
        (12, "type-mismatch"),
        (14, "json-invalid"),
    ]


@pytest.mark.slow
def test_a_line_that_does_not_fit_ends_it_behind_the_answers_before(start: Start) -> None:
    process = start()
    assert ask(process, b'{"x": 1}\n') == {"x": 1, "score": 2.0}
    out, err = process.communicate(b'{"x": null}\n{"x": 3}\n', timeout=30)
    assert (process.returncode, out) == (1, b"")
    assert b"<stdin>, row 2 (line 2), column 'x'" in err


@pytest.mark.slow
@pytest.mark.parametrize("bad", ['{"x": null}', "no JSON", '{"y": 1}', "[]"])
@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("at_once", [True, False])
def test_lines_before_one_that_does_not_fit_are_answered_however_they_came(
    start: Start, bad: str, before: int, at_once: bool
) -> None:
    process = start()
    good = [json.dumps({"x": n}) for n in range(before)]
    answers = [{"x": n, "score": 2.0 * n} for n in range(before)]
    if not at_once:
        assert [ask(process, line.encode() + b"\n") for line in good] == answers
        good, answers = [], []
    lines = [*good, bad, '{"x": 7}', "no JSON either", '{"x": 8}']
    out, err = process.communicate("\n".join(lines).encode(), timeout=30)
    assert process.returncode == 1
    assert [json.loads(line) for line in out.splitlines()] == answers
    assert f"<stdin>, row {before + 1} (line {before + 1})".encode() in err.splitlines()[0]


@pytest.mark.slow
def test_of_many_lines_that_do_not_fit_the_first_ends_it(start: Start) -> None:
    """No more faults than some are told, and those in one column come before those in the next."""
    process = start("--keep", "none")
    lines = [json.dumps({"x": n if n < 2 else None}) for n in range(300)]
    out, err = process.communicate("\n".join(lines).encode(), timeout=30)
    assert (process.returncode, len(out.splitlines())) == (1, 2)
    assert b"<stdin>, row 3 (line 3)" in err.splitlines()[0]


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_error(start: Start) -> None:
    process = start()
    assert ask(process, b'{"x": 1}\n') == {"x": 1, "score": 2.0}
    assert process.stdout is not None and process.stdin is not None
    process.stdout.close()
    process.stdin.write(b'{"x": 1}\n')
    assert process.wait(timeout=30) == 0
    assert process.stderr is not None and process.stderr.read() == b""


@pytest.mark.slow
def test_a_line_without_end_is_refused_before_it_fills_the_memory(start: Start) -> None:
    process = start()
    _, err = process.communicate(b'{"x": "' + b"a" * (66 * 1024 * 1024), timeout=60)
    assert process.returncode == 1 and b"[line-too-long]" in err


@pytest.mark.slow
def test_a_file_for_rejects_that_cannot_be_written_is_said(start: Start, tmp_path: Path) -> None:
    process = start("--on-error", str(tmp_path))
    _, err = process.communicate(b"", timeout=30)
    assert process.returncode == 1 and b"[output-unwritable]" in err


class Whole:
    """A pipe of which as much is read as is asked for."""

    closed = False

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size and (piece := self.pipe.read(size - len(found))):
            found += piece
        return found


def batch(schema: pa.Schema, **columns: Any) -> pa.RecordBatch:
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


ROWS = pa.schema([("id", pa.int16()), ("x", pa.float64())])


@pytest.mark.slow
def test_each_batch_of_an_arrow_stream_is_answered_at_once(start: Start) -> None:
    process = start("--json")
    assert process.stdin is not None and process.stdout is not None
    with pa.ipc.new_stream(process.stdin, ROWS) as sending:
        sending.write_batch(batch(ROWS, id=[1, 2], x=[1.5, -2]))
        receiving = pa.ipc.open_stream(Whole(process.stdout))
        first = receiving.read_next_batch()
        assert first.schema.names == ["id", "x", "score"] and first.schema.field("id").type == pa.int16()
        assert first.to_pydict() == {"id": [1, 2], "x": [1.5, -2.0], "score": [3.0, -4.0]}
        sending.write_batch(batch(ROWS, id=[], x=[]))
        sending.write_batch(batch(ROWS, id=[3], x=[0.25]))
        assert receiving.read_next_batch().to_pydict()["score"] == [0.5]  # nothing is said to no rows
    assert receiving.read_all().num_rows == 0
    _, err = process.communicate(timeout=30)
    assert (process.returncode, json.loads(err)["rows"]) == (0, 3)


@pytest.mark.slow
def test_a_signal_ends_an_arrow_stream_whole(start: Start) -> None:
    process = start("--json")
    assert process.stdin is not None and process.stdout is not None
    # As it is written at first: nothing comes behind it.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, ROWS) as sending:
        sending.write_batch(batch(ROWS, id=[1], x=[1]))
    process.stdin.write(sink.getvalue().to_pybytes()[:-8])
    receiving = pa.ipc.open_stream(Whole(process.stdout))
    assert receiving.read_next_batch().num_rows == 1
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)  # while the pipe is open: its end would end it too
    assert receiving.read_all().num_rows == 0  # it ends as a whole stream does
    _, err = process.communicate(timeout=30)
    assert (process.returncode, json.loads(err)["rows"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("cut", "code"), [(-20, "file-unreadable"), (None, "column-missing")])
def test_an_arrow_stream_that_does_not_fit_ends_half(start: Start, cut: int | None, code: str) -> None:
    schema = ROWS if cut else pa.schema([("id", pa.int16())])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.record_batch([pa.array([1], field.type) for field in schema], schema=schema))
    process = start("--json")
    out, err = process.communicate(sink.getvalue().to_pybytes()[:cut], timeout=30)
    assert (process.returncode, json.loads(out or err)["error"]["code"]) == (1, code)


@pytest.mark.slow
@pytest.mark.parametrize("more", ["another stream", "garbage"])
@pytest.mark.parametrize("at_once", [True, False])
def test_what_follows_the_end_of_an_arrow_stream_is_refused_behind_its_answers(
    start: Start, more: str, at_once: bool
) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, ROWS) as sending:
        sending.write_batch(batch(ROWS, id=[1], x=[1]))
    whole = sink.getvalue().to_pybytes()
    behind = whole if more == "another stream" else b"garbage"
    process = start()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(whole + behind if at_once else whole)
    assert pa.ipc.open_stream(Whole(process.stdout)).read_all().num_rows == 1
    out, err = process.communicate(None if at_once else behind, timeout=30)
    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"modelpack: <stdin>: something follows the end of the Arrow stream [arrow-invalid]")
