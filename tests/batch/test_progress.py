"""How far a run is, where no terminal shows a bar."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from modelpack.model import Model
from modelpack_server.batch import Options, predict_files, progress

ROWS = "x,n,name\n" + "1,2,a\n" * 40


def test_a_line_now_and_then_says_how_far_it_is(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(ROWS)
    predict_files(model, [tmp_path], f"{tmp_path}/out/", Options(progress=True, batch_size=40))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" rows/s")[0].partition(" rows, ")[0] for line in lines] == [
        "modelpack: 40",
        "modelpack: 80",
    ]
    assert ", 50% of the input, 00:00 left" in lines[0]
    assert ", 100% of the input, 00:00 left" in lines[1]


def test_of_an_input_of_unknown_length_it_says_the_rows(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(ROWS.encode())))
    predict_files(model, ["-"], tmp_path / "out.csv", Options(progress=True, input_format="csv"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("modelpack: 40 rows, ") and line.endswith(" rows/s")


def test_a_short_run_says_nothing(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text(ROWS)
    predict_files(model, [tmp_path / "a.csv"], tmp_path / "out.csv", Options(progress=True))
    assert capsys.readouterr().err == ""
