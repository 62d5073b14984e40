"""`--on-error` with `--engine spark`: the same rows in the same files for the same reasons as on one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import modelpack
from modelpack.errors import InputError
from modelpack_server import batch, stream

pytestmark = [
    # pyspark leaves the closing of its sockets to the collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Six files of CSV and JSON Lines: of 20 rows each, three have no number or are no row."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        ids = range(20 * number, 20 * number + 20)
        if number % 2:
            lines = [f'{{"id": {i}, "x": {"true" if i % 9 == 0 else i / 4}}}' for i in ids]
            lines[7] = '{"id": 1, '
        else:
            lines = ["id,x", *(f"{i},{'oops' if i % 9 == 0 else i / 4}" for i in ids)]
            lines[8] = '"two\nlines",nothing'
        (folder / f"f{number}.{'jsonl' if number % 2 else 'csv'}").write_text("\n".join(lines) + "\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "_manifest.json"}


def counted(folder: Path) -> list[tuple[str, int, int]]:
    manifest = json.loads((folder / "_manifest.json").read_bytes())
    return [(file["file"], file["rows"], file["rejected"]) for file in manifest["files"]]


def test_rejects_of_a_folder_are_those_of_one_machine_byte_for_byte(
    engine: Any, slow: Path, rows: Path, tmp_path: Path, kill_one: Callable[[], int], killing: Callable[..., Any]
):
    model = modelpack.load(slow)
    local = batch.predict_files(
        model, [rows], f"{tmp_path}/local/", batch.Options(batch_size=8, on_error=tmp_path / "local.bad")
    )
    options = batch.Options(engine=engine, batch_size=8, on_error=tmp_path / "spark.bad", max_rejects=local.rejected)
    with killing(kill_one, tmp_path / ".modelpack-spark.resume" / "out", "f*") as kill:
        done = batch.predict_files(model, [rows], f"{tmp_path}/spark/", options)

    assert kill.killed
    assert (done.rows, done.rejected) == (local.rows, local.rejected)
    assert local.rejected >= 18
    assert contents(tmp_path / "spark") == contents(tmp_path / "local")
    assert counted(tmp_path / "spark") == counted(tmp_path / "local")
    assert (tmp_path / "spark.bad").read_bytes() == (tmp_path / "local.bad").read_bytes()


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_more_than_allowed_of_all_files_together_end_the_run_and_leave_nothing(
    kind: str, engine: Any, quick: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No file has more than four."""
    monkeypatch.setattr("modelpack_server.batch.plan._PART_BYTES", 1)
    output, table = (f"{tmp_path}/out/", None) if kind == "folder" else (f"{tmp_path}/out", "delta")
    options = batch.Options(engine=engine, on_error=tmp_path / "bad", max_rejects=10, output_format=table, keep=())

    with pytest.raises(InputError, match=r"\(more than 10 rows refused\)") as caught:
        batch.predict_files(modelpack.load(quick), [rows], output, options)

    assert caught.value.code == "too-many-rejects"
    assert ", row " in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"answering.py", "in", "pkg"}


def test_the_row_beyond_the_limit_of_one_file_is_told_as_on_one_machine(
    engine: Any, quick: Path, rows: Path, tmp_path: Path
):
    model = modelpack.load(quick)
    found = []
    for given in (engine, None):
        options = batch.Options(engine=given, on_error=tmp_path / "bad", max_rejects=1)
        with pytest.raises(InputError) as caught:
            batch.predict_files(model, [rows / "f2.csv"], f"{tmp_path}/out/", options)
        found.append(str(caught.value))

    assert found[0] == found[1]
    assert "f2.csv, row 8 (line 9), column 'x'" in found[0]


def test_rejects_of_a_table_are_those_of_one_machine(
    engine: Any, slow: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kill_one: Callable[[], int], killing: Callable[..., Any],
):  # fmt: skip
    monkeypatch.setattr("modelpack_server.batch.plan._PART_BYTES", 1)
    model = modelpack.load(slow)
    local = batch.Options(output_format="delta", on_error=tmp_path / "local.bad", keep=())
    there = batch.predict_files(model, [rows], tmp_path / "local", local)
    options = batch.Options(engine=engine, output_format="delta", on_error=tmp_path / "spark.bad", keep=())
    with killing(kill_one, tmp_path / "spark", "part-0000[1-5]*.parquet") as kill:
        done = batch.predict_files(model, [rows], tmp_path / "spark", options)

    assert kill.killed
    assert (done.rows, done.rejected) == (there.rows, there.rejected)
    assert (tmp_path / "spark.bad").read_bytes() == (tmp_path / "local.bad").read_bytes()
    scores = [pa.table(DeltaTable(tmp_path / name).to_pyarrow_table())["score"] for name in ("spark", "local")]
    assert sorted(scores[0].to_pylist()) == sorted(scores[1].to_pylist())
    left = [path.name for path in (tmp_path / "spark").iterdir() if not path.name.startswith("part-")]
    assert left == ["_delta_log"]


def refused(table: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of rejects; its data files are named at random, so files are told by their order."""
    found: list[dict[str, Any]] = pa.table(DeltaTable(table).to_pyarrow_table()).to_pylist()
    return sorted(found, key=lambda row: (row["version"], row["file"], row["row"]))


def test_a_stream_writes_the_rejects_of_one_machine_in_as_many_commits(
    engine: Any, slow: Path, tmp_path: Path, kill_one: Callable[[], int], killing: Callable[..., Any], once: Any
):
    model = modelpack.load(slow)
    source = tmp_path / "source"
    for number in range(7):
        ids = range(20 * number, 20 * number + 20)
        # Not all of these numbers are floats.
        write_deltalake(source, pa.table({"id": ids, "x": [i if i % 9 else 2**53 + 1 for i in ids]}), mode="append")
        if number == 0:
            # What tells the columns of the output is scored without Spark.
            for name in ("spark", "local"):
                options = stream.Options(on_error=tmp_path / f"{name}.bad", max_rows=20, batch_size=8)
                stream.run(model, source, tmp_path / name, options, once())

    here = stream.Options(on_error=tmp_path / "local.bad", max_rows=60, batch_size=8)
    wanted = stream.run(model, source, tmp_path / "local", here, once())
    before = len(list((tmp_path / "spark").glob("*.parquet")))

    def kill() -> bool:
        return len(list((tmp_path / "spark").glob("*.parquet"))) > before and bool(kill_one())

    options = stream.Options(engine=engine, on_error=tmp_path / "spark.bad", max_rows=60, batch_size=8)
    with killing(kill, tmp_path / "spark", "*.parquet") as killed:
        done = stream.run(model, source, tmp_path / "spark", options, once())

    assert killed.killed
    assert (done.rows, done.rejected, done.commits) == (wanted.rows, wanted.rejected, wanted.commits)
    assert refused(tmp_path / "spark.bad") == refused(tmp_path / "local.bad")
    assert len(refused(tmp_path / "spark.bad")) == wanted.rejected + 3 > 10
    few = stream.Options(engine=engine, on_error=tmp_path / "few.bad", max_rejects=4, job="few", max_rows=140)
    with pytest.raises(InputError, match=r"more than 4 rows refused") as caught:
        stream.run(model, source, tmp_path / "spark", few, once())
    with pytest.raises(InputError) as other:
        few = stream.Options(on_error=tmp_path / "few.bad", max_rejects=4, job="few", max_rows=140)
        stream.run(model, source, tmp_path / "local", few, once())
    assert str(caught.value) == str(other.value)
    files = map(str, (tmp_path / "spark").glob("*.parquet"))
    assert sorted(DeltaTable(tmp_path / "spark").file_uris()) == sorted(files)


def test_a_command_that_was_killed_goes_on_with_its_rejects(
    engine: Any, slow: Path, rows: Path, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
):
    """The command with its driver is killed with SIGKILL; the same run, in another application, ends it."""
    monkeypatch.chdir(tmp_path)
    words = ["predict", str(slow), "-i", "in", "-o", "out/", "--on-error", "bad", "--batch-size", "5"]
    words += ["--engine", "spark", "--master", "local[1]"]
    with Path("log").open("wb") as log:
        first = subprocess.Popen([*command, *words], stdout=log, stderr=log)
    state = Path(".modelpack-out.resume")
    try:
        while not ((state / "finished.jsonl").exists() and b"}" in (state / "finished.jsonl").read_bytes()):
            assert first.poll() is None, Path("log").read_text()
            time.sleep(0.02)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert not Path("out").exists() and not Path("bad").exists()

    model = modelpack.load(slow)
    options = batch.Options(engine=engine, batch_size=5, on_error=Path("bad"))
    done = batch.predict_files(model, ["in"], "out/", options)
    local = batch.predict_files(model, ["in"], "local/", batch.Options(batch_size=5, on_error=Path("local.bad")))

    assert 0 < done.resumed < 6
    assert (done.rows, done.rejected) == (local.rows, local.rejected)
    assert contents(Path("out")) == contents(Path("local"))
    assert Path("bad").read_bytes() == Path("local.bad").read_bytes()
