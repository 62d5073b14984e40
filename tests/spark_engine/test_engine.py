"""`--engine spark`: executors make the files, one of them is killed, and what is there is what one machine makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

import modelpack
from modelpack.errors import InputError, SaveError, UsageError
from modelpack_server import batch, spark, stream

pytestmark = [
    # pyspark leaves the closing of its sockets to the collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]


def table_of(number: int, rows: int = 40) -> pa.Table:
    ids = range(rows * number, rows * number + rows)
    return pa.table({"id": pa.array(ids, pa.int64()), "x": [None if i % 9 == 0 else i / 7 for i in ids]})


def scored(path: Path) -> list[tuple[int, float | None]]:
    table = pa.table(DeltaTable(path).to_pyarrow_table())
    return sorted(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))


def expected(rows: int) -> list[tuple[int, float | None]]:
    return [(i, None if i % 9 == 0 else 2 * (i / 7)) for i in range(rows)]


def test_a_folder_is_byte_for_byte_what_one_machine_makes_though_an_executor_is_killed(
    engine: Any, slow: Path, tmp_path: Path, kill_one: Callable[[], int], killing: Callable[..., Any]
):
    (tmp_path / "in").mkdir()
    for number in range(8):
        pq.write_table(table_of(number), tmp_path / "in" / f"f{number}.parquet")
    model = modelpack.load(slow)
    with killing(kill_one, tmp_path / ".modelpack-spark.resume" / "out", "*.parquet") as kill:
        done = batch.predict_files(
            model, [tmp_path / "in"], f"{tmp_path}/spark/", batch.Options(engine=engine, batch_size=10)
        )
    batch.predict_files(model, [tmp_path / "in"], f"{tmp_path}/local/", batch.Options(batch_size=10))

    assert kill.killed
    assert done.rows == 320
    names = [f"f{number}.parquet" for number in range(8)]
    assert sorted(path.name for path in (tmp_path / "spark").iterdir()) == ["_SUCCESS", "_manifest.json", *names]
    for name in names:
        assert (tmp_path / "spark" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert not (tmp_path / ".modelpack-spark.resume").exists()
    again = batch.predict_files(model, [tmp_path / "in"], f"{tmp_path}/spark/", batch.Options(engine=engine))
    assert again.already


def test_a_table_gets_each_row_once_in_one_commit_though_an_executor_is_killed(
    engine: Any, slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kill_one: Callable[[], int], killing: Callable[..., Any],
):  # fmt: skip
    """From a Delta table to another one, a data file at a time."""
    monkeypatch.setattr("modelpack_server.batch.plan._PART_BYTES", 1)
    for number in range(8):
        write_deltalake(tmp_path / "source", table_of(number), mode="append")
    model = modelpack.load(slow)
    options = batch.Options(engine=engine, output_format="delta", batch_size=10)
    with killing(kill_one, tmp_path / "output", "part-0000[1-7]*.parquet") as kill:
        done = batch.predict_files(model, [tmp_path / "source"], tmp_path / "output", options)

    assert kill.killed
    assert done.rows == 320
    assert scored(tmp_path / "output") == expected(320)
    table = DeltaTable(tmp_path / "output")
    assert table.version() == 0
    assert sorted(table.file_uris()) == sorted(map(str, (tmp_path / "output").glob("*.parquet")))
    # What is done is done, whatever the engine.
    assert batch.predict_files(model, [tmp_path / "source"], tmp_path / "output",
                               batch.Options(output_format="delta", batch_size=10)).already  # fmt: skip


def test_rows_that_do_not_fit_are_refused_as_on_one_machine_and_leave_nothing(engine: Any, slow: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.jsonl").write_text('{"x": 1.5}\n{"x": %s}\n' % ('"bad"' if number == 2 else "2"))
    model = modelpack.load(slow)
    options = batch.Options(engine=engine, output_format="delta")

    with pytest.raises(InputError) as found:
        batch.predict_files(model, [tmp_path / "in"], tmp_path / "spark", options)
    with pytest.raises(InputError) as wanted:
        batch.predict_files(model, [tmp_path / "in"], tmp_path / "local", batch.Options(output_format="delta"))

    assert str(found.value) == str(wanted.value)
    assert "2.jsonl, row 2" in str(found.value)
    assert list((tmp_path / "spark").glob("*")) == []


def test_a_stream_scores_each_row_once_though_an_executor_is_killed(
    engine: Any, slow: Path, tmp_path: Path, kill_one: Callable[[], int], killing: Callable[..., Any], once: Any
):
    model = modelpack.load(slow)
    source, output = tmp_path / "source", tmp_path / "output"
    write_deltalake(source, table_of(0))
    options = stream.Options(engine=engine, max_rows=160, batch_size=10)
    stream.run(model, source, output, options, once())
    for number in range(1, 9):
        write_deltalake(source, table_of(number), mode="append")
    before = len(list(output.glob("*.parquet")))

    def kill_soon() -> bool:
        return len(list(output.glob("*.parquet"))) > before and bool(kill_one())

    with killing(kill_soon, output, "*.parquet") as kill:
        done = stream.run(model, source, output, options, once())

    assert kill.killed
    assert (done.rows, done.commits, done.conflicts) == (320, 2, 0)
    assert scored(output) == expected(360)
    assert sorted(DeltaTable(output).file_uris()) == sorted(map(str, output.glob("*.parquet")))
    assert stream.run(model, source, output, stream.Options(), once()).rows == 0


def test_an_answer_called_like_a_kept_column_but_for_the_case_gets_another_name(
    engine: Any, quick: Path, tmp_path: Path, once: Any
):
    model = modelpack.load(quick)
    for number in range(2):
        table = table_of(number).append_column("Score", pa.array(["kept"] * 40))
        write_deltalake(tmp_path / "source", table, mode="append")
        stream.run(model, tmp_path / "source", tmp_path / "stream", stream.Options(engine=engine), once())
    options = batch.Options(engine=engine, output_format="delta")
    batch.predict_files(model, [tmp_path / "source"], tmp_path / "batch", options)
    for name in ("stream", "batch"):
        found = pa.table(DeltaTable(tmp_path / name).to_pyarrow_table())
        assert {"Score", "score_prediction"} < set(found.column_names)
        assert set(found["Score"].to_pylist()) == {"kept"} and len(found) == 80


def test_workers_go_on_though_their_directory_is_gone(engine: Any, spark: Any, quick: Path, tmp_path: Path):
    """Spark may have been started in a directory that is removed later."""
    gone = tmp_path / "gone"

    def leave(number: int) -> int:
        gone.mkdir(exist_ok=True)
        os.chdir(gone)
        return os.getpid()

    def process(model: modelpack.Model, number: int) -> int:
        return os.getpid()

    model = modelpack.load(quick)
    list(engine.each(model, process, range(4)))  # ships the package, which begins new workers
    left = spark.sparkContext.parallelize(range(8), 8).map(leave).collect()
    shutil.rmtree(gone)

    done = [found for _, found in engine.each(model, process, range(4))]

    assert set(done) <= set(left)


def test_what_breaks_in_a_worker_is_named(engine: Any, quick: Path):
    def work(model: modelpack.Model, number: int) -> None:
        raise OSError(28, "no space\nleft", "part.parquet")

    with pytest.raises(SaveError) as caught:
        list(engine.each(modelpack.load(quick), work, [1]))

    assert caught.value.code == "spark-failed"
    assert str(caught.value) == "Spark could not do it: OSError: [Errno 28] no space left: 'part.parquet'"


@pytest.mark.long  # docs/spark.md, which the suite runs, has such a command too
def test_the_command_starts_spark_and_scores(quick: Path, tmp_path: Path, command: list[str]):
    (tmp_path / "rows.csv").write_text("id,x\n1,0.5\n2,\n3,-1.25\n")
    inputs = ["predict", str(quick), "-i", str(tmp_path / "rows.csv"), "--engine", "spark", "--master", "local[2]"]

    done = subprocess.run([*command, *inputs, "-o", f"{tmp_path}/out/", "--json"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 3
    assert (tmp_path / "out" / "rows.csv").read_text().split() == ["id,x,score", "1,0.5,1", "2,,", "3,-1.25,-2.5"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"output": "out.parquet"}, "writes a directory or a Delta table"),
        ({"output": "out/", "inputs": ["-"]}, "does not read standard input"),
        ({"output": "s3://bucket/out/"}, "does not write to URLs"),
    ],
    ids=["one file", "stdin", "URL"],
)
def test_what_executors_cannot_do_is_refused_before_spark_starts(
    given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    pq.write_table(table_of(0), "rows.parquet")
    options = batch.Options()
    plan = batch.make(given.get("inputs", ["rows.parquet"]), given["output"], options)

    with pytest.raises(UsageError, match=message) as caught:
        spark.check(plan, options)
    assert caught.value.code == "engine-unsupported"
    spark.check_tables(["in", "out"])
    with pytest.raises(UsageError, match="does not follow tables behind URLs"):
        spark.check_tables(["in", "s3://bucket/out"])
