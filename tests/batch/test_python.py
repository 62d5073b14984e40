"""`modelpack.predict_files`: the command's options by name, from Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import modelpack
from modelpack.batch import Options
from modelpack.cli.predict import command
from modelpack.errors import UsageError
from modelpack.model import Model


@pytest.fixture
def source(rows: pa.Table, write: Callable[[pa.Table, Path], Path], tmp_path: Path) -> Path:
    return write(rows, tmp_path / "in.parquet")


def test_it_scores_one_file_or_several(model: Model, source: Path, tmp_path: Path, read: Callable[..., Any]) -> None:
    done = modelpack.predict_files(model, source, tmp_path / "one.jsonl", keep=["id"], batch_size=2, jobs=2)
    assert (done.rows, done.rejected, done.files, done.already) == (5, 0, 1, False)
    second = source.with_name("second.parquet")
    second.write_bytes(source.read_bytes())
    both = modelpack.predict_files(model, [str(source), second], str(tmp_path / "two.jsonl"), keep=["id"])
    assert both.rows == 10
    one = read(tmp_path / "one.jsonl")
    assert [list(row) for row in one] == [["id", "score", "label"]] * 5
    assert read(tmp_path / "two.jsonl") == one * 2


def test_options_mean_what_they_do_for_the_command(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x,n,name\n1,1,a\nbad,2,b\n3,3,c\n")
    bad = str(tmp_path / "bad.jsonl")
    done = modelpack.predict_files(model, f"{tmp_path}/*.csv", f"{tmp_path}/out/", where="n >= 2", on_error=bad)
    assert (done.rows, done.rejected, done.rejects) == (1, 1, bad)
    assert (tmp_path / "out" / "_SUCCESS").exists()
    again = modelpack.predict_files(model, f"{tmp_path}/*.csv", f"{tmp_path}/out/", where="n >= 2", on_error=bad)
    assert again.already


def test_a_version_of_a_table(model: Model, rows: pa.Table, tmp_path: Path, read: Callable[..., Any]) -> None:
    for part in (rows.slice(0, 2), rows.slice(2)):
        write_deltalake(tmp_path / "table", part, mode="append")
    modelpack.predict_files(model, tmp_path / "table", tmp_path / "old.jsonl", at_version=0, keep=["id"])
    assert [row["id"] for row in read(tmp_path / "old.jsonl")] == [2**53 + 1, 2]


def test_an_output_that_exists_is_refused(model: Model, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.csv"):
        modelpack.predict_files(model, source, tmp_path / "out.csv")


def test_there_is_an_option_for_each_of_the_command(model: Model) -> None:
    of_the_command = {parameter.name for parameter in command.params}
    # What to load, and where: told to modelpack.load, or not a matter of Python.
    loading = {"package", "allow_code", "flavor", "env", "env_policy"}
    elsewhere = {"inputs", "output", "pairs", "engine", "master", "as_json"}
    assert set(Options.__annotations__) == of_the_command - loading - elsewhere
    with pytest.raises(TypeError, match="no_such"):
        modelpack.predict_files(model, [], "out", no_such=1)  # type: ignore[call-arg]


def test_naming_it_imports_no_runtime() -> None:
    found = "[name for name in sys.modules if name.startswith(('modelpack_server', 'pyarrow'))]"
    code = f"import sys, modelpack; modelpack.predict_files; print({found})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
