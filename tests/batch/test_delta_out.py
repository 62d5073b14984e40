"""Delta tables as outputs: one commit, which is there once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from modelpack.errors import InputError, ModelError, ModelpackError, OutputError, SaveError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options, Summary, plan, predict_files
from modelpack_server.delta import commit
from modelpack_server.delta.storage import LocalStorage

Run = Callable[..., subprocess.CompletedProcess[bytes]]

DELTA = Options(output_format="delta")


def rows(root: Path) -> list[dict[str, Any]]:
    """Return what is in a table, by id."""
    found: list[dict[str, Any]] = pa.table(DeltaTable(root).to_pyarrow_table()).to_pylist()
    return sorted(found, key=lambda row: row["id"])


def ids(root: Path) -> list[int]:
    return [row["id"] for row in rows(root)]


def data_files(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.name != "_delta_log"}


def test_a_new_table_has_all_rows_in_its_first_commit(data: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    summary = predict_files(model, [data], out, DELTA)
    assert (summary.rows, summary.already, summary.outputs) == (6, False, [str(out)])
    assert DeltaTable(out).version() == 0
    assert [row["score"] for row in rows(out)] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    facts = json.loads(DeltaTable(out).history()[0]["modelpack"])
    assert facts == {"package": model.digest, "rows": 6, "rejected": 0}


def test_the_same_run_again_adds_nothing_and_another_one_adds_its_rows(
    data: Path, model: Model, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_files(model, [data], out, DELTA)
    again = predict_files(model, [data], out, DELTA)
    assert (again.rows, again.already) == (0, True)
    assert DeltaTable(out).version() == 0
    predict_files(model, [data / "0.parquet"], out, DELTA)
    assert ids(out) == [0, 0, 1, 1, 2, 3, 4, 5]
    predict_files(model, [data], out, Options(output_format="delta", job="once more"))
    assert len(rows(out)) == 14


def test_a_changed_input_makes_another_run(data: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(model, [data], out, DELTA)
    os.utime(data / "1.parquet", ns=(1, 1))
    assert predict_files(model, [data], out, DELTA).rows == 6


def test_a_named_job_is_done_once_and_cannot_become_another(data: Path, model: Model, tmp_path: Path) -> None:
    out, monday = tmp_path / "out", Options(output_format="delta", job="monday")
    predict_files(model, [data], out, monday)
    assert predict_files(model, [data], out, monday).already
    with pytest.raises(UsageError, match="has a job 'monday', of other inputs") as caught:
        predict_files(model, [data / "0.parquet"], out, monday)
    assert caught.value.code == "job-changed"
    assert len(rows(out)) == 6


def test_overwriting_takes_the_place_of_all_rows_in_one_commit(data: Path, model: Model, tmp_path: Path) -> None:
    out, over = tmp_path / "out", Options(output_format="delta", mode="overwrite")
    predict_files(model, [data], out, DELTA)
    for _ in range(2):
        predict_files(model, [data / "2.parquet"], out, over)
        assert ids(out) == [4, 5]
    assert DeltaTable(out).version() == 1
    assert len(pa.table(DeltaTable(out, version=0).to_pyarrow_table())) == 6


def test_an_answer_called_like_a_kept_column_but_for_the_case_gets_another_name(
    model: Model, write: Any, tmp_path: Path
) -> None:
    row = {"id": [1], "x": [1.0], "n": [1], "name": ["a"], "Score": ["kept"], "LABEL": ["too"]}
    source = write(pa.table(row), tmp_path / "in.parquet")
    predict_files(model, [source], tmp_path / "out", DELTA)
    predict_files(model, [source], tmp_path / "file.parquet")
    found = rows(tmp_path / "out")[0]
    assert (found["Score"], found["score_prediction"]) == ("kept", 2.0)
    assert (found["LABEL"], found["label_prediction"]) == ("too", "1|'a'")
    # Where case counts they are two.
    assert {"Score", "score", "LABEL", "label"} < set(pq.read_schema(tmp_path / "file.parquet").names)


def test_rows_that_another_run_has_replaced_are_loaded_again(data: Path, model: Model, tmp_path: Path) -> None:
    out, june, july = tmp_path / "out", data / "0.parquet", data / "1.parquet"
    over = Options(output_format="delta", mode="overwrite")
    for _ in range(2):
        for file, there in (june, [0, 1]), (july, [2, 3]):
            assert not predict_files(model, [file], out, over).already
            assert ids(out) == there
            assert predict_files(model, [file], out, over).already
    assert not predict_files(model, [june], out, DELTA).already
    predict_files(model, [june], out, over)
    assert not predict_files(model, [june], out, DELTA).already  # what was appended before is not there any more
    assert ids(out) == [0, 0, 1, 1]


def test_replacing_by_no_row_and_back_again(data: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("id,x,n,name\n")
    over = Options(output_format="delta", mode="overwrite", keep=())
    for file, rows in [(tmp_path / "none.csv", 0), (data / "0.parquet", 2)] * 2:
        assert not predict_files(model, [file], tmp_path / "out", over).already
        assert DeltaTable(tmp_path / "out").to_pyarrow_table().num_rows == rows


def delete_some(out: Path) -> None:
    DeltaTable(out).delete("id < 3")


def delete_all(out: Path) -> None:
    DeltaTable(out).delete()


def update(out: Path) -> None:
    DeltaTable(out).update(updates={"name": "'other'"})


def compact(out: Path) -> None:
    write_deltalake(out, DeltaTable(out).to_pyarrow_table(), mode="append")
    DeltaTable(out).optimize.compact()


def replace_some(out: Path) -> None:
    rows = DeltaTable(out).to_pyarrow_table().slice(0, 1)
    write_deltalake(out, rows, mode="overwrite", predicate=f"id = {rows['id'][0]}")


def replace_all(out: Path) -> None:
    write_deltalake(out, DeltaTable(out).to_pyarrow_table().slice(0, 1), mode="overwrite")


def replace_silently(out: Path) -> None:
    """As some writer that says nothing of what it does."""
    replace_all(out)
    last = max((out / "_delta_log").glob("*.json"))
    lines = [line for line in last.read_text().splitlines() if "commitInfo" not in line]
    last.write_text("\n".join(lines) + "\n")


def set_back_before(out: Path) -> None:
    DeltaTable(out).restore(0)


def set_back_behind(out: Path) -> None:
    version = DeltaTable(out).version()
    replace_all(out)
    DeltaTable(out).restore(version)


def clean_the_log(out: Path) -> None:
    write_deltalake(out, DeltaTable(out).to_pyarrow_table(), mode="append")
    DeltaTable(out).create_checkpoint()
    for path in sorted((out / "_delta_log").glob("*.json"))[:-1]:
        path.unlink()


@pytest.mark.parametrize(
    ("event", "appended", "overwritten"),
    [
        (delete_some, True, False),
        (delete_all, True, False),
        (update, True, False),
        (compact, True, True),
        (replace_some, True, False),
        (replace_all, False, False),
        (replace_silently, False, False),
        (set_back_before, False, False),
        (set_back_behind, True, True),
        (clean_the_log, True, False),
    ],
)
def test_what_became_of_the_rows_says_whether_they_are_loaded_again(
    event: Callable[[Path], None], appended: bool, overwritten: bool, data: Path, model: Model, tmp_path: Path
) -> None:
    for mode, already in ("append", appended), ("overwrite", overwritten):
        out = tmp_path / mode
        predict_files(model, [data / "2.parquet"], out, DELTA)
        options = Options(output_format="delta", mode=mode)  # type: ignore[arg-type]
        predict_files(model, [data / "0.parquet"], out, options)
        event(out)
        assert predict_files(model, [data / "0.parquet"], out, options).already == already
        assert predict_files(model, [data / "0.parquet"], out, options).already
        DeltaTable(out).to_pyarrow_table()


def test_from_table_to_table(data: Path, model: Model, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "in", pq.read_table(data))
    predict_files(model, [tmp_path / "in"], tmp_path / "out", DELTA)
    write_deltalake(tmp_path / "in", pq.read_table(data / "0.parquet"), mode="append")
    assert predict_files(model, [tmp_path / "in"], tmp_path / "out", DELTA).rows == 8  # another version, another run
    with pytest.raises(UsageError) as caught:
        predict_files(model, [tmp_path / "in"], tmp_path / "in", DELTA)
    assert caught.value.code == "output-is-input"


def test_rows_that_do_not_fit_the_table_change_nothing(data: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(model, [data], out, DELTA)
    before = data_files(out)
    with pytest.raises(OutputError, match="has 'n', which the answers have not") as caught:
        predict_files(model, [data], out, Options(output_format="delta", keep=("id", "x", "name")))
    assert caught.value.code == "output-columns"
    assert (DeltaTable(out).version(), data_files(out)) == (0, before)


def test_a_bad_row_leaves_nothing_not_even_a_directory(
    data: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_PART_BYTES", 1)
    (data / "9.csv").write_text("id,x,n,name\n9,oops,1,a\n")
    with pytest.raises(InputError, match="column 'x'"):
        predict_files(model, [data], tmp_path / "out", DELTA)
    assert not (tmp_path / "out").exists()


def test_rejects_stand_beside(data: Path, model: Model, tmp_path: Path) -> None:
    (data / "9.csv").write_text("id,x,n,name\n9,oops,1,a\n8,8,8,b\n")
    options = Options(output_format="delta", keep=("name",), on_error=tmp_path / "bad.jsonl")
    summary = predict_files(model, [data], tmp_path / "out", options)
    assert (summary.rows, summary.rejected) == (7, 1)
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 1


def test_no_row_at_all_still_makes_the_table(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,x,n,name\n")
    predict_files(model, [tmp_path / "in.csv"], tmp_path / "out", DELTA)
    assert DeltaTable(tmp_path / "out").to_pyarrow_table().num_rows == 0
    assert data_files(tmp_path / "out") == set()


def test_what_was_made_before_a_failure_is_not_made_again(
    data: Path, make_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_PART_BYTES", 1)
    calls: list[float] = []
    broken = [4.0]

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        first = float(columns["x"][0])
        calls.append(first)
        if first in broken:
            raise MemoryError
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    model = make_model(function=score)
    with pytest.raises(ModelError):
        predict_files(model, [data], tmp_path / "out", DELTA)
    assert not (tmp_path / "out" / "_delta_log").exists()
    broken.clear()
    predict_files(model, [data], tmp_path / "out", DELTA)
    assert calls == [0.0, 2.0, 4.0, 4.0]
    assert ids(tmp_path / "out") == [0, 1, 2, 3, 4, 5]


def test_two_of_the_same_run_at_once_add_the_rows_once(
    data: Path, make_model: Callable[..., Model], tmp_path: Path
) -> None:
    together = threading.Barrier(2)

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        together.wait(30)
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    done: list[Summary] = []
    runs = [
        threading.Thread(
            target=lambda: done.append(predict_files(make_model(function=score), [data], tmp_path / "out", DELTA))
        )
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert sorted(summary.already for summary in done) == [False, True]
    assert ids(tmp_path / "out") == [0, 1, 2, 3, 4, 5]


def test_somebody_else_may_append_meanwhile(data: Path, make_model: Callable[..., Model], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_deltalake(out, pa.table({"id": [100], "score": [1.0], "label": ["theirs"]}))

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        other = CommitProperties(app_transactions=[Transaction("theirs", 1)])
        write_deltalake(
            out,
            pa.table({"id": [101], "score": [1.0], "label": ["theirs"]}),
            mode="append",
            commit_properties=other,
        )
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    predict_files(make_model(function=score), [data], out, Options(output_format="delta", keep=("id",)))
    assert set(ids(out)) == {0, 1, 2, 3, 4, 5, 100, 101}


@pytest.mark.parametrize(
    ("output", "options", "code"),
    [
        ("-", {"output_format": "delta"}, "output-format"),
        ("gs://bucket/t", {"output_format": "delta"}, "table-location"),
        ("out.csv", {"mode": "overwrite"}, "option-alone"),
        ("out.csv", {"job": "a"}, "option-alone"),
        ("table", {}, "output-exists"),
        ("data", {"output_format": "delta"}, "output-is-input"),
        ("other", {"output_format": "delta"}, "output-foreign"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    output: str, options: dict[str, Any], code: str, data: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    Path("other").mkdir()
    Path("other/thesis.tex").write_text("")
    write_deltalake("table", pa.table({"id": [1]}))
    with pytest.raises(ModelpackError) as caught:
        predict_files(model, ["data"], output, Options(**options))
    assert caught.value.code == code
    with pytest.raises(UsageError, match="without '/'"):
        Options(job="a/b")


def test_without_the_library_it_says_so_before_anything_is_scored(
    data: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ModelpackError) as caught:
        plan.make([data], tmp_path / "out", DELTA)
    assert "modelpack[delta]" in f"{caught.value} {caught.value.hint}"


@pytest.mark.slow
def test_the_command_commits_once_however_often_it_is_killed(
    run: Run, package: Path, command: list[str], tmp_path: Path
) -> None:
    """Killed in the middle three times, and then run to the end twice."""
    count = 3000
    for number in range(3):
        lines = [f"{i},{i}" for i in range(number * count, (number + 1) * count)]
        (tmp_path / f"{number}.csv").write_text("id,x\n" + "\n".join(lines) + "\n")
    words = ["-i", "0.csv", "-i", "1.csv", "-i", "2.csv", "-o", "out", "--output-format", "delta"]
    words += ["--batch-size", "500", "-p", "wait=0.02"]
    luck = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen([*command, "predict", str(package), *words], cwd=tmp_path)
        while not (tmp_path / "out").exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(luck.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "out" / "_delta_log").exists()
    done = run(package, *words)
    assert (done.returncode, done.stderr) == (0, b"")
    again = run(package, *words, "--json")
    assert again.returncode == 0
    assert b"has all of this already; nothing was written" in again.stderr
    assert json.loads(again.stdout)["already"] is True
    assert sorted(map(int, pa.table(DeltaTable(tmp_path / "out").to_pyarrow_table())["id"].to_pylist())) == list(
        range(3 * count)
    )
    assert len(data_files(tmp_path / "out")) == len(DeltaTable(tmp_path / "out").file_uris())


@pytest.mark.slow
def test_the_command_reads_a_version_and_a_time(run: Run, package: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_deltalake(tmp_path / "t", pa.table({"x": [float(number)]}), mode="append")
    done = run(package, "-i", "t", "-o", "-", "--at-version", "0")
    assert done.stdout == b'{"x":0.0,"score":0.0}\n'
    refused = run(package, "-i", "t", "-o", "-", "--at-time", "noon")
    assert refused.returncode == 2
    assert b"'noon' is not a time" in refused.stderr


def test_a_table_that_another_makes_just_now_is_no_foreign_thing(
    data: Path, make_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (out / "_delta_log").mkdir(parents=True)
    target = commit.Target(out, family="batch")
    assert target.open() is None  # begun, without a commit

    looks: list[str] = []

    def late(_: Any, log: str) -> bool:
        looks.append(log)
        if len(looks) == 1:
            write_deltalake(out, pa.table({"id": [1]}))
            return False
        return True

    monkeypatch.setattr(LocalStorage, "begun", late)
    assert target.open() is not None


def test_a_run_that_fails_takes_nothing_from_another_that_has_committed_the_same_job(
    data: Path, make_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_PART_BYTES", 1)
    out = tmp_path / "out"
    begun: list[bool] = []
    others: list[Summary] = []

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        if columns["x"][0] == 4.0 and not begun:
            begun.append(True)
            others.append(predict_files(model, [data], out, DELTA))
            os.utime(data / "2.parquet", ns=(1, 1))
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    model = make_model(function=score)
    assert predict_files(model, [data], out, DELTA).already
    assert others[0].rows == 6
    assert ids(out) == [0, 1, 2, 3, 4, 5]
    assert data_files(out) == {Path(uri).name for uri in DeltaTable(out).file_uris()}


def test_files_of_other_columns_than_the_table_got_meanwhile_are_not_committed(
    data: Path, make_model: Callable[..., Model], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    others: list[str] = []

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        if not others:
            others.append("one that keeps less")
            predict_files(model, [data], out, Options(output_format="delta", keep=("id",)))
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    model = make_model(function=score)
    with pytest.raises(OutputError, match="has other columns") as caught:
        predict_files(model, [data], out, DELTA)
    assert caught.value.code == "output-columns"
    assert (DeltaTable(out).version(), ids(out)) == (0, [0, 1, 2, 3, 4, 5])
    assert data_files(out) == {Path(uri).name for uri in DeltaTable(out).file_uris()}


def test_a_commit_that_lost_is_tried_again_with_the_same_files(
    data: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    predict_files(model, [data / "0.parquet"], out, DELTA)
    real, lost = commit.Target.commit, [2]

    def late(self: commit.Target, table: Any, *args: Any, **more: Any) -> None:
        if lost[0]:
            lost[0] -= 1
            write_deltalake(out, DeltaTable(out).to_pyarrow_table(), mode="overwrite")
        real(self, table, *args, **more)

    monkeypatch.setattr(commit.Target, "commit", late)
    over = Options(output_format="delta", mode="overwrite")
    assert predict_files(model, [data / "2.parquet"], out, over).rows == 2
    assert ids(out) == [4, 5]
    lost[0] = 3
    with pytest.raises(SaveError, match="others changed it at the same time") as caught:
        predict_files(model, [data / "1.parquet"], out, over)
    assert caught.value.code == "output-contended"
    assert predict_files(model, [data / "1.parquet"], out, over).rows == 2
    assert ids(out) == [2, 3]


def test_a_table_whose_rows_must_stay_is_not_overwritten(data: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(model, [data], out, DELTA)
    DeltaTable(out).alter.set_table_properties({"delta.appendOnly": "true"})
    with pytest.raises(UsageError, match="takes new rows only") as caught:
        predict_files(model, [data / "0.parquet"], out, Options(output_format="delta", mode="overwrite"))
    assert caught.value.code == "table-unwritable"
    assert predict_files(model, [data / "0.parquet"], out, DELTA).rows == 2
