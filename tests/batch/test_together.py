"""Batches scored at the same time give what they give one after the other, to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import modelpack
from modelpack.cli.predict import _share_cores
from modelpack.errors import InputError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options, predict_files
from modelpack_server.batch.options import elsewhere
from modelpack_server.batch.together import jobs, together

ROWS = 5_000


def table(rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(7)
    return pa.table({f"f{i}": random.normal(size=rows) for i in range(4)} | {"id": np.arange(rows)})


@pytest.fixture(scope="module", params=["linear", "trees"])
def scored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A real model that may be called several times at once."""
    x = table(400).drop(["id"]).to_pandas()
    y = (x.sum(axis=1) > 0).astype(int)
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    made = linear if request.param == "linear" else HistGradientBoostingClassifier(max_iter=20)
    package = modelpack.save(made.fit(x, y), tmp_path_factory.mktemp("models") / "pkg", example=x.head(), name="m")
    return modelpack.load(package.path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in every format, several row groups each."""
    root, rows = tmp_path_factory.mktemp("rows"), table()
    pq.write_table(rows, root / "in.parquet", row_group_size=700)
    pyarrow.csv.write_csv(rows, root / "in.csv")
    pd.DataFrame(rows.to_pandas()).to_json(root / "in.jsonl", orient="records", lines=True, double_precision=15)
    with pa.ipc.new_file(root / "in.arrow", rows.schema) as out:
        out.write_table(rows, max_chunksize=300)
    return root


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl", "arrow"])
def test_any_number_of_jobs_gives_the_same_bytes(scored: Model, folder: Path, tmp_path: Path, format_: str) -> None:
    found = []
    for number in (1, 2, 5):
        out = tmp_path / f"{number}.{format_}"
        options = Options(jobs=number, batch_size=250, params={"method": "predict_proba"})
        assert predict_files(scored, [folder / f"in.{format_}"], out, options).rows == ROWS
        found.append(out.read_bytes())
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > ROWS


def at_once(function: Callable[[Any, Any], Any], make: Callable[..., Model]) -> Model:
    """A model of a function that may be called several times at once."""
    model = make(function=function)
    model.candidate = SimpleNamespace(name="fake", trust="data")  # type: ignore[assignment]
    return model


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Twenty rows, n counts them."""
    path = tmp_path / "in.csv"
    path.write_text("x,n,name\n" + "".join(f"1.5,{row},a\n" for row in range(20)))
    return path


def test_batches_are_scored_at_the_same_time_and_written_in_order(
    make_model: Callable[..., Model], lines: Path, tmp_path: Path
) -> None:
    """Two calls wait for each other: one after the other they would never end."""
    meeting = threading.Barrier(2, timeout=30)

    def score(columns: Any, params: Any) -> Any:
        meeting.wait()
        return {"score": [float(n) for n in columns["n"]], "label": ["-" for _ in columns["n"]]}

    model = at_once(score, make_model)
    predict_files(model, [lines], tmp_path / "out.parquet", Options(jobs=2, batch_size=1, keep=()))
    assert pq.read_table(tmp_path / "out.parquet").column("score").to_pylist() == list(range(20))


def test_one_job_calls_the_model_in_the_thread_it_was_loaded_in(
    make_model: Callable[..., Model], lines: Path, tmp_path: Path
) -> None:
    threads = set()

    def score(columns: Any, params: Any) -> Any:
        threads.add(threading.current_thread())
        return {"score": [1.0 for _ in columns["n"]], "label": ["-" for _ in columns["n"]]}

    predict_files(make_model(function=score), [lines], tmp_path / "out.csv", Options(batch_size=3))
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("number", [1, 4])
def test_the_first_bad_row_is_the_one_that_is_told(
    make_model: Callable[..., Model], tmp_path: Path, number: int
) -> None:
    """Even if a later batch is refused sooner, or what follows cannot be read."""
    path = tmp_path / "in.csv"
    rows = ["1.5,1,a", "1.5,1,a", "1.5,1,a", "bad,1,a", "1.5,1,a", "1.5,worse,a", '1.5,1,"a"b']
    path.write_text("x,n,name\n" + "\n".join(rows) + "\n")
    good = tmp_path / "good.csv"
    good.write_text("x,n,name\n" + "1.5,1,a\n" * 3 + "bad,1,a\n" + "1.5,worse,a\n" * 9)
    model = at_once(lambda columns, params: {"score": [1.0] * len(columns["n"]), "label": ["-"] * len(columns["n"])},
                    make_model)  # fmt: skip
    for source, code in ((good, "number-invalid"), (path, "csv-quote")):
        with pytest.raises(InputError) as caught:
            predict_files(model, [source], tmp_path / "out.csv", Options(jobs=number, batch_size=1))
        assert caught.value.code == code
    with pytest.raises(InputError, match="row 4"):
        predict_files(model, [good], tmp_path / "out.csv", Options(jobs=number, batch_size=1))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["good.csv", "in.csv"]


def test_rejects_are_the_same_and_in_order(make_model: Callable[..., Model], tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("x,n,name\n" + "".join(f"{'bad' if row % 7 == 3 else 1.5},{row},a\n" for row in range(200)))
    model = at_once(lambda columns, params: {"score": [1.0] * len(columns["n"]), "label": ["-"] * len(columns["n"])},
                    make_model)  # fmt: skip
    found = []
    for number in (1, 3):
        bad = tmp_path / f"bad{number}.jsonl"
        done = predict_files(model, [path], tmp_path / f"out{number}.csv",
                             Options(jobs=number, batch_size=11, on_error=bad))  # fmt: skip
        assert (done.rows, done.rejected) == (171, 29)
        found.append((bad.read_bytes(), (tmp_path / f"out{number}.csv").read_bytes()))
    assert found[0] == found[1]
    with pytest.raises(InputError, match="row 11"):
        predict_files(model, [path], tmp_path / "no.csv",
                      Options(jobs=3, batch_size=1, on_error=tmp_path / "no.jsonl", max_rejects=1))  # fmt: skip


class TestTogether:
    def test_no_more_is_read_than_can_be_scored(self) -> None:
        read: list[int] = []

        def items() -> Iterator[int]:
            for number in range(100):
                read.append(number)
                yield number

        results = together(lambda number: number, items(), 3)
        assert next(results) == 0
        assert read == [0, 1, 2, 3]
        results.close()

    def test_an_error_comes_in_its_turn(self) -> None:
        def items() -> Iterator[int]:
            yield from (1, 2)
            raise OSError("the reader")

        results = together(lambda number: number, items(), 3)
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(OSError, match="the reader"):
            next(results)

    def test_what_was_read_before_fails_first(self) -> None:
        def items() -> Iterator[int]:
            yield 0
            raise OSError("the reader")

        with pytest.raises(ZeroDivisionError):
            list(together(lambda number: 1 // number, items(), 3))

    def test_closing_leaves_no_thread(self) -> None:
        results = together(lambda number: number, iter(range(10)), 2)
        assert next(results) == 0
        results.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("modelpack-score")]


class TestJobs:
    @pytest.mark.parametrize(("cores", "expected"), [(1, 1), (4, 4), (64, 8)])
    def test_there_is_one_for_each_core_up_to_eight(
        self, monkeypatch: pytest.MonkeyPatch, cores: int, expected: int
    ) -> None:
        monkeypatch.setattr("modelpack_server.batch.together.usable_cores", lambda: cores)
        assert jobs("graph") == expected

    def test_code_is_called_one_at_a_time_unless_asked_for_more(self) -> None:
        assert jobs("code") == 1
        assert jobs("code", 3) == 3
        assert jobs("data", 1) == 1

    def test_there_is_at_least_one(self) -> None:
        with pytest.raises(UsageError, match="at least one batch"):
            Options(jobs=0)

    def test_a_process_of_an_engine_has_one(self) -> None:
        assert elsewhere(Options(jobs=4)).jobs == 1


class TestThreadsOfLibraries:
    """The command gives each call its share of the cores before the framework is imported."""

    @pytest.fixture(autouse=True)
    def sixteen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modelpack_server.cores.usable_cores", lambda: 16)
        monkeypatch.setattr("modelpack_server.batch.together.usable_cores", lambda: 16)
        monkeypatch.setattr("os.environ", {})

    def test_it_is_that_of_the_default_jobs(self) -> None:
        _share_cores(None, SimpleNamespace(trust="graph"))
        assert os.environ["OMP_NUM_THREADS"] == "2"

    def test_code_keeps_all_cores(self) -> None:
        _share_cores(None, SimpleNamespace(trust="code"))
        assert "OMP_NUM_THREADS" not in os.environ

    def test_it_comes_before_the_framework(self, scored: Model) -> None:
        code = (
            "import sys, modelpack\n"
            "modelpack.load(sys.argv[1], chosen=lambda found: print(found.name, 'sklearn' in sys.modules))\n"
            "print('sklearn' in sys.modules)"
        )
        line = [sys.executable, "-c", code, str(scored.package.path)]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env={"PATH": ""})
        assert done.stdout.split() == ["sklearn", "False", "True"]
