"""Delta tables in S3 as outputs: one commit, which is there once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from s3_server import OPTIONS, SECRET, Server

from modelpack.errors import InputError, ModelError, ModelpackError, SaveError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options, Summary, plan, predict_files
from modelpack_server.delta.commit import Target

Run = Callable[..., subprocess.CompletedProcess[bytes]]

DELTA = Options(output_format="delta")


@pytest.fixture
def data(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of two rows, each a part of its own."""
    monkeypatch.setattr(plan, "_PART_BYTES", 1)
    return data


@pytest.fixture
def out(bucket: str) -> str:
    """The URL of a table that is not there yet."""
    return f"s3://{bucket}/lake/out"


def opened(url: str, version: int | None = None) -> DeltaTable:
    return DeltaTable(url, version=version, storage_options=OPTIONS)


def ids(url: str) -> list[int]:
    """Return the ids in a table, sorted."""
    return sorted(map(int, pa.table(opened(url).to_pyarrow_table())["id"].to_pylist()))


def below(url: str) -> set[str]:
    """Return the names of the files that are in the place of a table, its log left out."""
    files, path = fsspec.url_to_fs(url)
    files.invalidate_cache()
    return {name.rpartition("/")[2] for name in files.find(path) if "/_delta_log/" not in name}


def listed(url: str) -> set[str]:
    """Return the names of the files that the log lists."""
    return {uri.rpartition("/")[2] for uri in opened(url).file_uris()}


def failing(make_model: Callable[..., Model], broken: list[float], calls: list[float]) -> Model:
    """Return a model that notes each file, and fails at some."""

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        calls.append(float(columns["x"][0]))
        if calls[-1] in broken:
            raise MemoryError
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    return make_model(function=score)


def test_a_new_table_has_all_rows_in_its_first_commit(data: Path, model: Model, out: str) -> None:
    summary = predict_files(model, [data], f"{out}/", DELTA)
    assert (summary.rows, summary.already, summary.outputs) == (6, False, [out])
    assert (opened(out).version(), ids(out)) == (0, [0, 1, 2, 3, 4, 5])
    again = predict_files(model, [data], out, DELTA)
    assert (again.rows, again.already, opened(out).version()) == (0, True, 0)
    predict_files(model, [data / "0.parquet"], out, DELTA)
    assert ids(out) == [0, 0, 1, 1, 2, 3, 4, 5]
    assert below(out) == listed(out)


def test_overwriting_takes_the_place_of_all_rows_in_one_commit(data: Path, model: Model, out: str) -> None:
    predict_files(model, [data], out, DELTA)
    over = Options(output_format="delta", mode="overwrite")
    for _ in range(2):
        predict_files(model, [data / "2.parquet"], out, over)
        assert ids(out) == [4, 5]
    assert opened(out).version() == 1
    assert opened(out, version=0).to_pyarrow_table().num_rows == 6


def test_a_named_job_is_done_once_and_cannot_become_another(data: Path, model: Model, out: str) -> None:
    monday = Options(output_format="delta", job="monday")
    predict_files(model, [data], out, monday)
    assert predict_files(model, [data], out, monday).already
    with pytest.raises(UsageError, match="has a job 'monday', of other inputs"):
        predict_files(model, [data / "0.parquet"], out, monday)


def test_a_table_there_is_scored_into_another_one_there(data: Path, model: Model, out: str) -> None:
    predict_files(model, [data], out, DELTA)
    predict_files(model, [out], f"{out}-again", Options(output_format="delta", keep=("id",)))
    assert ids(f"{out}-again") == [0, 1, 2, 3, 4, 5]
    with pytest.raises(UsageError, match="is an input too"):
        predict_files(model, [out], out, DELTA)


def test_what_was_made_before_a_failure_is_not_made_again(
    data: Path, make_model: Callable[..., Model], out: str
) -> None:
    broken, calls = [4.0], list[float]()
    model = failing(make_model, broken, calls)
    with pytest.raises(ModelError):
        predict_files(model, [data], out, DELTA)
    broken.clear()
    predict_files(model, [data], out, DELTA)
    assert calls == [0.0, 2.0, 4.0, 4.0]
    assert ids(out) == [0, 1, 2, 3, 4, 5]
    assert below(out) == listed(out)


def stopped_with_rejects(
    data: Path, make_model: Callable[..., Model], out: str, tmp_path: Path
) -> tuple[Callable[[], Summary], list[float]]:
    """End a run with a reject at its last part; return what goes on with it, and the first x of each call so far."""
    (data / "0.csv").write_text("id,x,n,name\n8,8,8,b\n9,oops,1,a\n")
    options = Options(output_format="delta", on_error=tmp_path / "bad.jsonl", keep=("name",))
    broken, calls = [4.0], list[float]()
    model = failing(make_model, broken, calls)
    with pytest.raises(ModelError):
        predict_files(model, [data], out, options)
    broken.clear()
    return partial(predict_files, model, [data], out, options), calls


def test_rejects_go_to_a_file_here_and_a_killed_run_goes_on_with_them(
    data: Path, make_model: Callable[..., Model], out: str, tmp_path: Path
) -> None:
    go_on, calls = stopped_with_rejects(data, make_model, out, tmp_path)
    summary = go_on()
    assert (summary.rows, summary.rejected) == (7, 1)
    assert calls == [8.0, 0.0, 2.0, 4.0, 4.0]
    assert [json.loads(line)["row"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()] == [2]
    assert list(tmp_path.glob(".modelpack-*")) == []
    assert below(out) == listed(out)


def test_rejects_may_go_to_a_device(data: Path, model: Model, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(data.parent))
    (data / "0.csv").write_text("id,x,n,name\n8,8,8,b\n9,oops,1,a\n")
    options = Options(output_format="delta", on_error=Path(os.devnull), keep=("name",))
    assert predict_files(model, [data], out, options).rejected == 1
    assert list(data.parent.glob(".modelpack-*")) == []


def test_where_the_rejects_are_lost_they_are_made_again_and_the_data_stays(
    data: Path, make_model: Callable[..., Model], out: str, tmp_path: Path
) -> None:
    go_on, _ = stopped_with_rejects(data, make_model, out, tmp_path)
    before = below(out)
    for aside in tmp_path.glob(".modelpack-*.rejects"):
        aside.unlink()
    summary = go_on()
    assert (summary.rows, summary.rejected) == (7, 1)
    assert before < below(out)
    assert below(out) == listed(out)


def test_a_bad_row_leaves_no_table_and_files_that_no_log_lists(data: Path, model: Model, out: str) -> None:
    (data / "9.csv").write_text("id,x,n,name\n9,oops,1,a\n")
    with pytest.raises(InputError, match="column 'x'"):
        predict_files(model, [data], out, DELTA)
    assert len(below(out)) == 3  # another run of the same job may be about to commit them
    (data / "9.csv").unlink()
    predict_files(model, [data], out, Options(output_format="delta", job="mended"))
    assert ids(out) == [0, 1, 2, 3, 4, 5]


def test_two_of_the_same_run_at_once_add_the_rows_once(data: Path, make_model: Callable[..., Model], out: str) -> None:
    together = threading.Barrier(2)

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        together.wait(30)
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    done: list[Summary] = []
    work = lambda: done.append(predict_files(make_model(function=score), [data / "0.parquet"], out, DELTA))  # noqa: E731
    runs = [threading.Thread(target=work) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert sorted(summary.already for summary in done) == [False, True]
    assert ids(out) == [0, 1]
    assert below(out) == listed(out)


def test_a_commit_that_lost_is_tried_again_with_the_same_files(
    data: Path, model: Model, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_files(model, [data / "0.parquet"], out, DELTA)
    real, lost = Target.commit, [1]

    def late(self: Target, table: Any, *args: Any, **more: Any) -> None:
        if lost[0]:
            lost[0] -= 1
            theirs = opened(out).to_pyarrow_table()
            write_deltalake(out, theirs, mode="overwrite", storage_options=OPTIONS)
        real(self, table, *args, **more)

    monkeypatch.setattr(Target, "commit", late)
    over = Options(output_format="delta", mode="overwrite")
    assert predict_files(model, [data / "2.parquet"], out, over).rows == 2
    assert ids(out) == [4, 5]


@pytest.mark.parametrize("version", [0, 1])
def test_a_commit_whose_answer_is_lost_is_there_once(
    data: Path, model: Model, out: str, s3_server: Server, bucket: str, version: int
) -> None:
    if version:
        predict_files(model, [data / "0.parquet"], out, DELTA)
    s3_server.lose(f"PUT /{bucket}/lake/out/_delta_log/{version:020d}.json")
    predict_files(model, [data / "2.parquet"], out, DELTA)
    assert not s3_server.is_to_lose()
    assert predict_files(model, [data / "2.parquet"], out, DELTA).already
    assert ids(out) == [0, 1, 4, 5][-2 - 2 * version :]
    assert below(out) == listed(out)


def test_a_data_file_whose_answer_is_lost_is_taken_as_it_is(
    data: Path, model: Model, out: str, s3_server: Server, bucket: str
) -> None:
    s3_server.lose(f"PUT /{bucket}/lake/out/part-00001-")
    predict_files(model, [data], out, DELTA)
    assert not s3_server.is_to_lose()
    assert ids(out) == [0, 1, 2, 3, 4, 5]
    assert below(out) == listed(out)


def test_files_that_no_log_lists_are_vacuumed(
    data: Path, model: Model, make_model: Callable[..., Model], out: str
) -> None:
    with pytest.raises(ModelError):
        predict_files(failing(make_model, [4.0], []), [data], out, DELTA)
    left = below(out)
    predict_files(model, [data], out, Options(output_format="delta", job="another"))
    assert len(left) == 2 and left.isdisjoint(listed(out))
    opened(out).vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    assert below(out) == listed(out)
    assert ids(out) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("output", "more", "code"),
    [
        ("{out}", {"on_error": Path("s3://bucket/bad.jsonl")}, "output-remote"),
        ("{out}", {"overwrite": True}, "option-alone"),
        ("memory://tables/out", {}, "table-location"),
        ("s3://key:" + SECRET + "@bucket/out", {}, "url-secret"),
        ("s3://{bucket}/other", {}, "output-foreign"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_scored(
    data: Path, model: Model, out: str, bucket: str, cloud: Any, output: str, more: Any, code: str
) -> None:
    cloud.pipe_file(f"{bucket}/other/thesis.tex", b"x")
    with pytest.raises(ModelpackError) as caught:
        predict_files(model, [data], output.format(out=out, bucket=bucket), Options(output_format="delta", **more))
    assert (caught.value.code, SECRET in str(caught.value)) == (code, False)


def test_what_the_service_says_is_in_no_message(data: Path, model: Model, out: str, s3_server: Server) -> None:
    with s3_server.denied(), pytest.raises(ModelpackError, match="access is denied") as caught:
        predict_files(model, [data], out, DELTA)
    assert SECRET not in str(caught.value) and "somebody" not in str(caught.value)
    with pytest.raises(SaveError, match="there is no such"):
        predict_files(model, [data], "s3://no-such-bucket-here/out", DELTA)


@pytest.mark.slow
def test_the_command_commits_once_however_often_it_is_killed(
    run: Run, package: Path, command: list[str], tmp_path: Path, out: str, s3_server: Server, bucket: str
) -> None:
    """Killed in the middle twice, and then run to the end twice."""
    count = 200
    for number in range(3):
        lines = [f"{i},{i}" for i in range(number * count, (number + 1) * count)]
        (tmp_path / f"{number}.csv").write_text("id,x\n" + "\n".join(lines) + "\n")
    words = ["-i", "0.csv", "-i", "1.csv", "-i", "2.csv", "-o", out, "--output-format", "delta"]
    words += ["--batch-size", "50", "-p", "wait=0.02"]
    luck = random.Random(0)
    for _ in range(2):
        before = len(s3_server.requests())
        process = subprocess.Popen([*command, "predict", str(package), *words], cwd=tmp_path)
        while len(s3_server.requests()) == before and process.poll() is None:
            time.sleep(0.001)
        time.sleep(luck.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = run(package, *words)
    assert done.returncode == 0, done.stderr
    again = run(package, *words, "--json")
    assert json.loads(again.stdout)["already"] is True
    assert ids(out) == list(range(3 * count))
    assert below(out) == listed(out)
