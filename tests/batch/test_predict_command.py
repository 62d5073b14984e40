"""`modelpack predict` as people call it: real processes, real pipes, real signals."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Run = Callable[..., subprocess.CompletedProcess[bytes]]

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.csv").write_text("id,x\n1,1\n2,\n")
    (folder / "sub" / "a.jsonl").write_text('{"id":3,"x":3}\n')
    pq.write_table(pa.table({"id": [4], "x": [4.0]}), folder / "c.parquet")
    (folder / "_SUCCESS").write_text("")
    return folder


def test_a_file_into_a_file_says_nothing(run: Run, package: Path, data: Path, tmp_path: Path) -> None:
    done = run(package, "-i", "data/b.csv", "-o", "out.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "out.csv").read_text() == "id,x,score\n1,1,2\n2,,\n"


def test_a_directory_into_one_file(run: Run, package: Path, data: Path, tmp_path: Path) -> None:
    done = run(package, "-i", "data", "-o", "out.jsonl", "--json")
    assert json.loads(done.stdout)["rows"] == 4
    assert json.loads(done.stdout)["files"] == 3
    assert json.loads(done.stdout)["outputs"] == ["out.jsonl"]
    assert json.loads(done.stdout)["package"].startswith("sha256:")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == [2.0, None, 8.0, 6.0]


def test_a_directory_into_a_directory(run: Run, package: Path, data: Path, tmp_path: Path) -> None:
    done = run(package, "-i", "data", "-o", "out/", "--json")
    assert json.loads(done.stdout)["outputs"] == ["out/b.csv", "out/c.parquet", "out/sub/a.jsonl"]
    assert pq.read_table(tmp_path / "out" / "c.parquet").to_pylist() == [{"id": 4, "x": 4.0, "score": 8.0}]
    again = run(package, "-i", "data", "-o", "out", "--keep", "id")
    assert again.returncode == 2
    assert b"out exists [output-exists]" in again.stderr
    assert run(package, "-i", "data", "-o", "out", "--overwrite", "--output-format", "csv").returncode == 0
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == [
        "_manifest.json",
        "b.csv",
        "c.csv",
        "sub/a.csv",
    ]


def test_a_pattern_and_params(run: Run, package: Path, data: Path, tmp_path: Path) -> None:
    words = ("--params", '{"factor": 10}', "-p", "wait=0", "--keep", "none")
    assert run(package, "-i", "data/*.csv", "-o", "out.csv", *words).returncode == 0
    assert (tmp_path / "out.csv").read_text() == 'score\n10\n""\n'


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "arrow", "arrows"])
def test_every_format_through_pipes(run: Run, package: Path, write: Any, tmp_path: Path, format_: str) -> None:
    source = write(pa.table({"id": [1, 2], "x": [1.0, None]}), tmp_path / f"in.{format_}")
    words = ("--input-format", format_, "--output-format", format_, "--json")
    done = run(package, "-i", "-", "-o", "-", *words, stdin=source.read_bytes())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr)["rows"] == 2
    assert json.loads(done.stderr)["outputs"] == ["-"]
    body = {
        "csv": lambda: [float(line.split(b",")[2] or 0) for line in done.stdout.splitlines()[1:]],
        "jsonl": lambda: [json.loads(line)["score"] or 0 for line in done.stdout.splitlines()],
        "parquet": lambda: pq.read_table(io.BytesIO(done.stdout))["score"].fill_null(0).to_pylist(),
        "arrow": lambda: pa.ipc.open_file(done.stdout).read_all()["score"].fill_null(0).to_pylist(),
        "arrows": lambda: pa.ipc.open_stream(done.stdout).read_all()["score"].fill_null(0).to_pylist(),
    }[format_]()
    assert body == [2.0, 0.0]


def test_standard_streams_are_json_lines_unless_told(run: Run, package: Path) -> None:
    done = run(package, "-i", "-", "-o", "-", stdin=b'{"x":1}\n{"x":2}\n')
    assert done.stdout == b'{"x":1,"score":2.0}\n{"x":2,"score":4.0}\n'


def test_a_half_stream_of_arrow_does_not_look_whole(run: Run, package: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x\n1\n2\noops\n")
    done = run(package, "-i", "in.csv", "-o", "-", "--output-format", "arrows", "--batch-size", "1")
    assert done.returncode == 1
    stream = pa.ipc.open_stream(done.stdout)
    assert [stream.read_next_batch().num_rows for _ in range(2)] == [1, 1]
    assert done.stdout[-8:] != b"\xff\xff\xff\xff\0\0\0\0"  # the mark at the end of a whole stream


def test_bad_rows_say_where_and_exit_with_1(run: Run, package: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x\n1\noops\n")
    done = run(package, "-i", "in.csv", "-o", "out.csv")
    assert done.returncode == 1
    first, hint = done.stderr.decode().splitlines()
    assert first.startswith("modelpack: in.csv, row 2 (line 3), column 'x': text that is not a number")
    assert first.endswith("[number-invalid]")
    assert "--on-error" in hint
    assert not (tmp_path / "out.csv").exists()
    as_json = run(package, "-i", "in.csv", "-o", "out.csv", "--json")
    assert json.loads(as_json.stdout)["error"]["code"] == "number-invalid"


def test_rejects_are_counted_and_exit_with_0(run: Run, package: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x\n1\noops\n")
    done = run(package, "-i", "in.csv", "-o", "out.csv", "--on-error", "bad.jsonl", "--json")
    assert done.returncode == 0
    assert done.stderr == b"modelpack: 1 of 2 rows refused, see bad.jsonl\n"
    assert json.loads(done.stdout)["rejected"] == 1
    words = ("--on-error", "bad2.jsonl", "--max-rejects", "0")
    assert run(package, "-i", "in.csv", "-o", "out2.csv", *words).returncode == 1
    assert not (tmp_path / "bad2.jsonl").exists()


def test_the_model_s_own_exception_is_shown(run: Run, package: Path, data: Path) -> None:
    done = run(package, "-i", "data/b.csv", "-o", "out.csv", "-p", "fail=true")
    assert done.returncode == 1
    assert b"data/b.csv, rows 1 to 2: the model raised ZeroDivisionError [model-raised]" in done.stderr
    assert b"as asked" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("-i", "nowhere.csv", "-o", "o.csv"), "there is no input nowhere.csv"),
        (("-i", "data/b.csv", "-o", "o.txt"), "does not tell the output's format"),
        (("-i", "data/b.csv", "-o", "o.csv", "--max-rejects", "3"), "--max-rejects needs --on-error"),
        (("-i", "data/b.csv", "-o", "o.csv", "--params", "{"), "--params is not JSON"),
        (("-i", "data/b.csv", "-o", "o.csv", "--params", "[]"), "--params is not a JSON object"),
        (("-i", "data/b.csv", "-o", "o.csv", "-p", "factor"), "'factor' is not NAME=VALUE"),
        (("-i", "data/b.csv", "-o", "data/b.csv", "--overwrite"), "data/b.csv is an input too"),
        (("-i", "data/b.csv", "-o", "o.csv", "--keep", "id,id"), "'id' is kept twice"),
        (("-i", "data/b.csv", "-o", "o.csv", "--flavor", "none"), "has no flavor 'none'"),
    ],
)
def test_wrong_usage_exits_with_2(
    package: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], reason: str
) -> None:
    from click.testing import CliRunner

    from modelpack.cli import main

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["predict", str(package), *words])
    assert done.exit_code == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_an_unknown_param_is_refused(run: Run, package: Path, data: Path) -> None:
    done = run(package, "-i", "data/b.csv", "-o", "o.csv", "-p", "speed=fast")
    assert done.returncode == 1
    assert b"params.speed" in done.stderr


def test_code_needs_a_grant(run: Run, package: Path, data: Path, trust_store: Path, tmp_path: Path) -> None:
    import modelpack

    digest = modelpack.open(package).digest
    empty = {**os.environ, "MODELPACK_TRUST_STORE": str(tmp_path / "nothing")}
    refused = run(package, "-i", "data/b.csv", "-o", "o.csv", env=empty)
    assert refused.returncode == 1
    assert b"code-not-allowed" in refused.stderr
    assert run(package, "-i", "data/b.csv", "-o", "o.csv", "--allow-code", digest, env=empty).returncode == 0


def test_help_shows_an_example(run: Run) -> None:
    done = run("--help")
    assert b"Example:\n    modelpack predict churn -i rows.csv" in done.stdout


class TestSignals:
    """A run that is asked to stop takes its half-written files along."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_stopped_run_leaves_nothing(self, command: list[str], package: Path, tmp_path: Path, number: int) -> None:
        (tmp_path / "in.csv").write_text("x\n" + "1\n" * 4000)  # more than anybody waits for
        (tmp_path / "out").mkdir()
        line = [
            *command,
            "predict",
            str(package),
            "-i",
            "in.csv",
            "-o",
            "out/o.csv",
            "--batch-size",
            "1",
            "-p",
            "wait=0.05",
        ]
        line += ["--on-error", "out/bad.jsonl"]
        with subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            try:
                while len(list((tmp_path / "out").iterdir())) < 2:
                    assert process.poll() is None
                    time.sleep(0.02)
                process.send_signal(number)
                _, stderr = process.communicate(timeout=60)
            finally:
                process.kill()  # else a later test would be blamed for what this one left
        assert process.returncode == 128 + number
        assert stderr.decode() == f"modelpack: stopped by {signal.Signals(number).name}; nothing was written\n"
        assert list((tmp_path / "out").iterdir()) == []


def test_a_reader_that_goes_away_is_no_error(command: list[str], package: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x\n" + "1\n" * 100_000)
    line = [*command, "predict", str(package), "-i", "in.csv", "-o", "-", "--batch-size", "100"]
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b'{"x":1.0,"score":2.0}\n'
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 0
    process.stderr.close()


@pytest.mark.parametrize("output", ["-", "/dev/full"])
def test_answers_that_find_no_room_are_an_error_with_its_code(
    command: list[str], package: Path, tmp_path: Path, output: str
) -> None:
    (tmp_path / "in.csv").write_text("x\n1\n")
    line = [*command, "predict", str(package), "-i", "in.csv", "-o", output]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(line, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, env=env, text=True)
    name = "standard output" if output == "-" else output
    said = f"modelpack: {name} cannot be written: No space left on device [output-unwritable]\n"
    assert (done.returncode, done.stderr) == (1, said)


def terminal(line: list[str], folder: Path) -> str:
    """Run with stderr on a terminal and return what it showed."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(line, cwd=folder, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(mine, 65536):
            shown += block
    except OSError:
        pass  # the terminal is gone when its last process is
    finally:
        os.close(mine)
    assert process.wait(timeout=30) == 0
    return re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", shown.decode())


def test_a_bar_on_a_terminal(command: list[str], package: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n" + "1\n" * 3000)
    (tmp_path / "b.csv").write_text("x\n" + "1\n" * 1000)
    line = [*command, "predict", str(package), "-i", "a.csv", "-i", "b.csv", "-o", "out.csv", "--batch-size", "500"]
    shown = terminal(line, tmp_path)
    assert "100%" in shown
    assert "4,000 rows" in shown
    assert "rows/s" in shown
    assert terminal([*line, "--overwrite", "--no-progress"], tmp_path) == ""


def test_no_bar_of_unknown_length_has_a_percentage(command: list[str], package: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    feeder = subprocess.Popen(["sh", "-c", "printf 'x\\n1\\n2\\n' > pipe.csv"], cwd=tmp_path)
    shown = terminal([*command, "predict", str(package), "-i", "pipe.csv", "-o", "out.csv"], tmp_path)
    assert feeder.wait(timeout=10) == 0
    assert "2 rows" in shown
    assert "%" not in shown
