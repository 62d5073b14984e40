"""A run into a folder that was interrupted goes on where it was, and nobody sees half of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from modelpack.errors import InputError, ModelError, SaveError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options, predict_files
from modelpack_server.batch.destination import place_of
from modelpack_server.batch.resume import State

Run = Callable[..., subprocess.CompletedProcess[bytes]]


class Failing:
    """A function as a model, that fails for rows with these values, and notes what it saw."""

    def __init__(self, *bad: float) -> None:
        self.bad = list(bad)
        self.seen: list[float] = []

    def __call__(self, columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        self.seen += [float(x) for x in columns["x"]]
        if set(self.bad) & set(self.seen):
            raise MemoryError
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four files of one row each."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        path = tmp_path / "data" / ("sub" if number == 3 else "") / f"{number}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"id,x,n,name\n{number},{number},{number},a\n")
    return tmp_path


def interrupted(make_model: Callable[..., Model], options: Options | None = None) -> tuple[Model, Failing]:
    """Run into `out/` up to the third of four files."""
    function = Failing(2.0)
    model = make_model(function=function)
    with pytest.raises(ModelError):
        predict_files(model, ["data"], "out/", options or Options())
    function.bad.clear()
    function.seen.clear()
    return model, function


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_what_is_missing_is_scored(data: Path, make_model: Callable[..., Model]) -> None:
    model, function = interrupted(make_model)
    assert sorted(os.listdir()) == [".modelpack-out.resume", "data"]
    summary = predict_files(model, ["data"], "out/")
    assert function.seen == [2.0, 3.0]
    assert (summary.rows, summary.resumed, summary.already) == (4, 2, False)
    assert names(data / "out") == ["0.csv", "1.csv", "2.csv", "_SUCCESS", "_manifest.json", "sub/3.csv"]
    assert [pq_row(path) for path in summary.outputs] == [f"{i},{i},{i},a,{2 * i}," for i in range(4)]
    assert sorted(os.listdir()) == ["data", "out"]


def pq_row(path: str) -> str:
    return Path(path).read_text().splitlines()[1].replace('""', "")


def test_the_manifest_says_what_was_scored(data: Path, model: Model) -> None:
    (data / "bad.csv").write_text("id,x,n,name\n1,oops,1,a\n2,2,2,b\n")
    write_deltalake("table", pa.table({"x": [1.0], "n": [1], "name": ["a"]}))
    options = Options(on_error=Path("bad.jsonl"), params={}, keep=("name",))
    predict_files(model, ["bad.csv", "table"], "out/", options)
    manifest = json.loads((data / "out" / "_manifest.json").read_text())
    assert manifest["package"] == {"name": "fake", "version": "1", "digest": model.digest}
    assert (manifest["rows"], manifest["rejected"], manifest["rejects"]) == (2, 1, "bad.jsonl")
    first, second = manifest["inputs"]
    stat = (data / "bad.csv").stat()
    assert first == {"path": str(data / "bad.csv"), "size": stat.st_size, "modified": stat.st_mtime_ns}
    assert (second["table"], second["version"]) == (str(data / "table"), 0)
    assert [(f["file"], f["rows"], f["rejected"]) for f in manifest["files"]] == [
        ("bad.csv", 1, 1),
        ("table-00000.parquet", 1, 0),
    ]
    assert manifest["files"][0]["inputs"] == [str(data / "bad.csv")]
    assert manifest["began"] <= manifest["ended"]
    assert all(f["size"] == (data / "out" / f["file"]).stat().st_size for f in manifest["files"])


def test_engines_read_the_folder_as_data_and_nothing_else(data: Path, model: Model) -> None:
    predict_files(model, ["data"], "out/", Options(output_format="parquet"))
    assert ds.dataset("out", format="parquet").count_rows() == 4


def test_the_same_run_again_does_nothing(data: Path, make_model: Callable[..., Model]) -> None:
    function = Failing()
    model = make_model(function=function)
    options = Options(on_error=Path("bad.jsonl"))
    predict_files(model, ["data"], "out/", options)
    function.seen.clear()
    summary = predict_files(model, ["data"], "out/", options)
    assert (summary.already, summary.rows, function.seen) == (True, 0, [])
    assert sorted(os.listdir()) == ["bad.jsonl", "data", "out"]
    with pytest.raises(UsageError, match="out exists"):
        predict_files(model, ["data"], "out/", Options(keep=("id",)))
    assert function.seen == []
    predict_files(model, ["data"], "out/", Options(overwrite=True))
    assert len(function.seen) == 4


@pytest.mark.parametrize("kind", ["csv", "delta"])
def test_the_same_run_is_known_however_its_paths_are_written_and_wherever_its_rejects_go(
    kind: Any, data: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "link").symlink_to("data")
    out = str(data / "out") + "/" * (kind != "delta")
    predict_files(model, ["data/0.csv"], out, Options(output_format=kind))
    for given in ("./data/0.csv", data / "data" / "0.csv", "link/0.csv"):
        assert predict_files(model, [given], out, Options(output_format=kind)).already
    for name in ("one", "two"):
        again = predict_files(model, ["data/0.csv"], out, Options(output_format=kind, on_error=Path(name)))
        assert (again.already, again.rejects) == (True, None)
    monkeypatch.chdir(data / "data")
    assert predict_files(model, ["0.csv"], out, Options(output_format=kind)).already


def test_a_run_goes_on_though_its_rejects_go_elsewhere(data: Path, make_model: Callable[..., Model]) -> None:
    with (data / "data" / "1.csv").open("a") as file:
        file.write("bad,oops,1,a\n")
    model, _ = interrupted(make_model, Options(on_error=Path("bad.jsonl")))
    with pytest.raises(UsageError, match="and now --on-error is not given"):
        predict_files(model, ["data"], "out/")
    summary = predict_files(model, ["data"], "out/", Options(on_error=Path("elsewhere.jsonl")))
    assert (summary.resumed, summary.rejected) == (2, 1)
    assert len(Path("elsewhere.jsonl").read_text().splitlines()) == 1


def touch(model: Model) -> Model:
    os.utime("data/0.csv", ns=(1, 1))
    return model


def add(model: Model) -> Model:
    Path("data/4.csv").write_text("id,x,n,name\n")
    return model


def remove(model: Model) -> Model:
    Path("data/sub/3.csv").unlink()
    return model


def other(model: Model) -> Model:
    model.package.digest = "sha256:" + "1" * 64  # type: ignore[misc]
    return model


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (touch, {}, "the input .*/data/0.csv has changed"),
        (add, {}, "the input .*/data/4.csv is new"),
        (remove, {}, "the input .*/data/sub/3.csv is gone"),
        (other, {}, "the package is another one"),
        (lambda model: model, {"keep": ("id",)}, "keep is not the same"),
        (lambda model: model, {"on_error": Path("bad.jsonl")}, "--on-error is given"),
        (lambda model: model, {"output_format": "parquet"}, "the output's files is not the same"),
    ],
)
def test_what_has_changed_is_refused_unless_it_begins_anew(
    change: Callable[[Model], Model],
    options: dict[str, Any],
    words: str,
    data: Path,
    make_model: Callable[..., Model],
) -> None:
    model, function = interrupted(make_model)
    model = change(model)
    for _ in range(2):
        with pytest.raises(UsageError, match=f"was interrupted, and now {words}") as caught:
            predict_files(model, ["data"], "out/", Options(**options))
        assert caught.value.code == "run-changed"
    assert function.seen == []
    assert not Path("out").exists()
    summary = predict_files(model, ["data"], "out/", Options(restart=True, **options))
    assert summary.resumed == 0
    assert len(function.seen) == summary.rows


def test_rejects_of_all_files_are_there_in_order_and_counted(data: Path, make_model: Callable[..., Model]) -> None:
    for number in range(4):
        with (data / "data" / ("sub" if number == 3 else "") / f"{number}.csv").open("a") as file:
            file.write(f"bad,oops{number},1,a\n")
    options = Options(on_error=Path("bad.jsonl"))
    model, _ = interrupted(make_model, options)
    assert not Path("bad.jsonl").exists()
    with pytest.raises(InputError, match="more than 2 rows"):
        predict_files(model, ["data"], "out/", Options(on_error=Path("bad.jsonl"), max_rejects=2))
    model, _ = interrupted(make_model, options)
    summary = predict_files(model, ["data"], "out/", options)
    assert (summary.rejected, summary.resumed) == (4, 2)
    lines = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [line["record"]["x"] for line in lines] == ["oops0", "oops1", "oops2", "oops3"]


def test_a_run_that_was_killed_between_its_rejects_and_its_folder_goes_on(
    data: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(on_error=Path("bad.jsonl"))

    def killed(*_: Any) -> None:
        raise SaveError("killed", code="output-unwritable")

    with monkeypatch.context() as patch, pytest.raises(SaveError):
        patch.setattr("modelpack.atomic.place", killed)
        predict_files(model, ["data"], "out/", options)
    assert Path("bad.jsonl").exists() and not Path("out").exists()
    assert predict_files(model, ["data"], "out/", options).resumed == 4
    Path("theirs.jsonl").write_text("theirs\n")
    with pytest.raises(UsageError, match=r"theirs\.jsonl exists"):
        predict_files(model, ["data"], "new/", Options(on_error=Path("theirs.jsonl")))
    assert Path("theirs.jsonl").read_text() == "theirs\n"


def test_rejects_may_go_to_a_device(data: Path, model: Model) -> None:
    (data / "bad.csv").write_text("id,x,n,name\n1,oops,1,a\n")
    assert predict_files(model, ["bad.csv"], "out/", Options(on_error=Path("/dev/null"))).rejected == 1


def test_a_bad_row_leaves_nothing(data: Path, model: Model) -> None:
    (data / "data" / "2.csv").write_text("id,x,n,name\n1,oops,1,a\n")
    with pytest.raises(InputError):
        predict_files(model, ["data"], "out/")
    assert os.listdir() == ["data"]


def test_an_input_that_changes_under_the_run_ends_it(data: Path, make_model: Callable[..., Model]) -> None:
    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        os.utime("data/1.csv", ns=(1, 1))
        return {"score": [1.0 for _ in columns["x"]], "label": ["" for _ in columns["x"]]}

    with pytest.raises(InputError, match="changed while it was scored") as caught:
        predict_files(make_model(function=score), ["data"], "out/")
    assert caught.value.code == "input-changed"


def test_one_run_at_a_time(data: Path, model: Model) -> None:
    state = State.open(Path("out"))
    with pytest.raises(UsageError, match="another run writes to out") as caught:
        predict_files(model, ["data"], "out/")
    assert caught.value.code == "output-busy"
    state.close()
    assert predict_files(model, ["data"], "out/").rows == 4


def test_a_torn_line_or_file_is_made_again(data: Path, make_model: Callable[..., Model]) -> None:
    model, function = interrupted(make_model)
    state = place_of(Path("out"))
    with (state / "finished.jsonl").open("ab") as file:
        file.write(b'{"file": "2.cs')
    (state / "out" / "0.csv").write_text("id")
    assert predict_files(model, ["data"], "out/").resumed == 1
    assert function.seen == [0.0, 2.0, 3.0]


def test_an_old_folder_stays_until_the_new_one_is_whole(data: Path, make_model: Callable[..., Model]) -> None:
    Path("out").mkdir()
    Path("out/old.csv").write_text("old\n")
    model, _ = interrupted(make_model, Options(overwrite=True))
    assert names(data / "out") == ["old.csv"]
    with pytest.raises(UsageError, match="out exists"):
        predict_files(model, ["data"], "out/")
    assert predict_files(model, ["data"], "out/", Options(overwrite=True)).resumed == 2
    assert "old.csv" not in names(data / "out")


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again_it_gives_what_an_undisturbed_run_gives(
    run: Run, package: Path, command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    for number in range(6):
        ids = list(range(1000 * number, 1000 * (number + 1)))
        pq.write_table(pa.table({"id": ids, "x": [float(i) for i in ids]}), tmp_path / "data" / f"{number}.parquet")
    words = ["-i", "data", "--batch-size", "250", "-p", "wait=0.01"]
    assert run(package, *words, "-o", "calm/").returncode == 0
    luck = random.Random(1)
    state = tmp_path / ".modelpack-out.resume"
    for turn in range(3):
        process = subprocess.Popen([*command, "predict", str(package), *words, "-o", "out/"], cwd=tmp_path)
        before = (state / "part").stat().st_mtime_ns if (state / "part").exists() else 0
        while process.poll() is None and not (
            (state / "part").exists() and (state / "part").stat().st_mtime_ns != before
        ):
            time.sleep(0.001)
        while turn == 2 and process.poll() is None and not (state / "finished.jsonl").exists():
            time.sleep(0.001)
        time.sleep(luck.uniform(0.05, 0.12))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "out").exists()
    done = run(package, *words, "-o", "out/", "--json")
    assert json.loads(done.stdout)["rows"] == 6000
    assert json.loads(done.stdout)["resumed"] >= 1
    assert names(tmp_path / "out") == names(tmp_path / "calm")
    for number in range(6):
        ours, calm = (pq.read_table(tmp_path / name / f"{number}.parquet") for name in ("out", "calm"))
        assert ours.equals(calm)
    assert sorted(path.name for path in tmp_path.glob(".modelpack-*")) == []


@pytest.mark.slow
def test_a_stopped_run_says_that_it_can_go_on(package: Path, command: list[str], tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.csv").write_text("x\n" + "1\n" * 100)
    words = ["-i", "0.csv", "-i", "1.csv", "-o", "out/", "--batch-size", "10", "-p", "wait=0.1"]
    process = subprocess.Popen([*command, "predict", str(package), *words], cwd=tmp_path, stderr=subprocess.PIPE)
    while process.poll() is None and not (tmp_path / ".modelpack-out.resume" / "finished.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    kept = b"; what is finished is kept for the same command to go on\n"
    assert stderr == b"modelpack: stopped by SIGTERM; nothing was written" + kept


def test_restart_begins_anew_though_nothing_has_changed(data: Path, make_model: Callable[..., Model]) -> None:
    model, function = interrupted(make_model)
    summary = predict_files(model, ["data"], "out/", Options(restart=True))
    assert summary.resumed == 0
    assert len(function.seen) == summary.rows


def test_what_is_finished_stays_if_an_input_cannot_be_reached(
    data: Path, make_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _function = interrupted(make_model)

    def unreachable(*_: Any) -> None:
        raise InputError("cannot be read: access is denied", code="file-unreachable")

    with monkeypatch.context() as patch, pytest.raises(InputError):
        patch.setattr("modelpack_server.batch.record.unchanged", unreachable)
        predict_files(model, ["data"], "out/")
    assert predict_files(model, ["data"], "out/").resumed > 0


@pytest.mark.parametrize("letter", ["d", "é"])
def test_rejects_of_files_whose_long_paths_end_alike_are_kept_apart(
    letter: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inner = Path(letter * 110) / (letter * 110)
    for top in ("a", "b"):
        (Path("in") / top / inner).mkdir(parents=True)
        (Path("in") / top / inner / "x.csv").write_text(f"id,x,n,name\n{top},oops,1,a\n")
    options = Options(on_error=Path("bad.jsonl"))
    assert predict_files(model, ["in"], "out/", options).rejected == 2
    lines = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [line["record"]["id"] for line in lines] == ["a", "b"]


def test_outputs_whose_long_names_begin_alike_do_not_meet(data: Path, model: Model) -> None:
    for letter in ("y", "\U0001f600"):
        first, second = Path(letter * 61 + "A"), Path(letter * 61 + "B")
        state = State.open(first)
        assert predict_files(model, ["data"], f"{second}/").rows == 4
        assert predict_files(model, ["data/1.csv"], f"{second}.csv").rows == 1
        state.close()
