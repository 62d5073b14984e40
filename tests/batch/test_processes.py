"""`--workers`: several processes make the files of one run, which is the same run as without them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from s3_server import OPTIONS

import modelpack
from modelpack.errors import InputError, ModelError, SaveError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options
from modelpack_server.batch.plan import make

Run = Callable[..., subprocess.CompletedProcess[bytes]]
FILES, ROWS = 5, 100


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of rows."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for number in range(FILES):
        ids = list(range(ROWS * number, ROWS * (number + 1)))
        pq.write_table(pa.table({"id": ids, "x": [float(i) for i in ids]}), f"data/{number}.parquet")
    return tmp_path


@pytest.fixture
def loaded(package: Path) -> Model:
    """The package, loaded, with its code allowed here and nowhere else."""
    return modelpack.load(package, allow_code=modelpack.open(package).digest)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def test_a_folder_is_what_one_process_makes(data: Path, loaded: Model) -> None:
    calm = modelpack.predict_files(loaded, "data", "calm/")
    done = modelpack.predict_files(loaded, "data", "out/", workers=2)
    assert (done.rows, done.files, done.resumed) == (calm.rows, calm.files, 0) == (FILES * ROWS, FILES, 0)
    assert contents(data / "out") == contents(data / "calm")
    assert (data / "out" / "_SUCCESS").exists()
    assert not list(data.glob(".modelpack-*"))


@pytest.mark.parametrize("place", ["scores", "s3://{bucket}/scores"])
def test_a_table_is_made_in_one_commit(
    data: Path, loaded: Model, place: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelpack_server.batch.plan._PART_BYTES", 1)
    out = place.format(bucket=bucket)
    modelpack.predict_files(loaded, "data", out, output_format="delta", workers=2)
    table = DeltaTable(out, storage_options=OPTIONS)
    assert (table.version(), len(table.file_uris())) == (0, FILES)
    assert sorted(table.to_pyarrow_table()["id"].to_pylist()) == list(range(FILES * ROWS))
    assert modelpack.predict_files(loaded, "data", out, output_format="delta", workers=2).already


def test_rows_that_do_not_fit_are_counted_together(data: Path, loaded: Model) -> None:
    for number in (1, 3):
        pq.write_table(pa.table({"id": [1, 2], "x": ["1", "oops"]}), f"data/{number}.parquet")
    done = modelpack.predict_files(loaded, "data", "out/", workers=2, on_error="bad.jsonl")
    bad = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert done.rejected == len(bad)
    assert {Path(line["file"]).name for line in bad} == {"1.parquet", "3.parquet"}
    with pytest.raises(InputError) as caught:
        modelpack.predict_files(loaded, "data", "few/", workers=2, on_error="few.jsonl", max_rejects=1)
    assert caught.value.code == "too-many-rejects"
    assert not Path("few").exists()


def test_the_error_of_a_process_is_the_error_of_the_run(data: Path, loaded: Model) -> None:
    with pytest.raises(ModelError, match=r"data/\d\.parquet, rows 1 to 100"):
        modelpack.predict_files(loaded, "data", "out/", workers=1, params={"fail": True})
    assert not Path("out").exists()


def test_a_process_that_dies_ends_the_run_which_goes_on_later(data: Path, loaded: Model) -> None:
    params = {"kill": True}
    with pytest.raises(SaveError, match="has ended") as caught:
        modelpack.predict_files(loaded, "data", "out/", workers=1, params=params)
    assert caught.value.code == "worker-died"
    assert modelpack.predict_files(loaded, "data", "out/", workers=1).rows == FILES * ROWS


def test_a_package_that_was_replaced_meanwhile_is_not_loaded(data: Path, loaded: Model, package: Path) -> None:
    manifest = package / "modelpack.json"
    manifest.write_text(manifest.read_text().replace('"doubler"', '"trebler"', 1))
    with pytest.raises(modelpack.errors.ModelpackError) as caught:
        modelpack.predict_files(loaded, "data", "out/", workers=1)
    assert caught.value.code == "package-differs"


@pytest.mark.slow
def test_killed_in_the_middle_it_leaves_no_process_and_goes_on(
    run: Run, package: Path, command: list[str], data: Path
) -> None:
    words = ["-i", "data", "--batch-size", "10", "-p", "wait=0.02", "--workers", "2"]
    assert run(package, *words, "-o", "calm/").returncode == 0
    luck = random.Random(2)
    state = data / ".modelpack-out.resume"
    for turn in range(2):
        before = set((state / "made").glob("*"))
        process = subprocess.Popen([*command, "predict", str(package), *words, "-o", "out/"], cwd=data)
        while process.poll() is None and set((state / "made").glob("*")) <= before:
            time.sleep(0.001)
        while turn == 1 and process.poll() is None and not (state / "finished.jsonl").exists():
            time.sleep(0.001)
        hands = children(process.pid)
        time.sleep(luck.uniform(0.01, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert len(hands) == 2
        deadline = time.monotonic() + 10
        while any(map(is_alive, hands)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(is_alive, hands))
    done = run(package, *words, "-o", "out/", "--json")
    assert json.loads(done.stdout)["resumed"] >= 1, done.stderr
    assert contents(data / "out") == contents(data / "calm")
    assert not list(data.glob(".modelpack-*"))


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_ctrl_c_ends_all_of_it(package: Path, command: list[str], data: Path) -> None:
    words = ["-i", "data", "-o", "out/", "--batch-size", "1", "-p", "wait=0.1", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "predict", str(package), *words], cwd=data, stderr=subprocess.PIPE, start_new_session=True
    )
    while not list((data / ".modelpack-out.resume" / "made").glob("*")):
        time.sleep(0.01)
    hands = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert told.decode() == "modelpack: stopped by SIGINT; nothing was written\n"
    assert not any(map(is_alive, hands))


@pytest.mark.parametrize(
    ("output", "more"),
    [("one.parquet", {}), ("-", {}), ("memory://folder/", {}), ("out/", {"inputs": ["-"]})],
)
def test_where_several_cannot_help_they_are_refused(output: str, more: dict[str, Any], data: Path) -> None:
    with pytest.raises(UsageError) as caught:
        make(more.get("inputs", ["data"]), output, Options(workers=2))
    assert (caught.value.code, caught.value.path) == ("option-alone", "--workers")


@pytest.mark.parametrize(
    ("options", "code"), [({"workers": 0}, "workers"), ({"workers": 2, "jobs": 2}, "option-alone")]
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options(**options)
    assert caught.value.code == code


def test_an_engine_with_workers_of_its_own_takes_no_number(run: Run, package: Path, data: Path) -> None:
    done = run(package, "-i", "data", "-o", "out/", "--engine", "spark", "--workers", "2")
    assert done.returncode == 2
    assert b"--workers" in done.stderr
