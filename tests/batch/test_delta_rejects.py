"""A file of rejects beside a Delta table: it is the same whether the run was killed or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from modelpack.errors import InputError, ModelError, SaveError, UsageError
from modelpack.model import Model
from modelpack_server.batch import Options, plan, predict_files
from modelpack_server.batch.into_table import _Load


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files, each a part of its own, with a row that does not fit in the first and in the last."""
    monkeypatch.setattr(plan, "_PART_BYTES", 1)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "rows"
    folder.mkdir()
    for number, x in enumerate(["oops", "1", "bad"]):
        (folder / f"{number}.csv").write_text(f"id,x,n,name\n{number},{number},1,a\n{number + 10},{x},1,b\n")
    return folder


OPTIONS = Options(output_format="delta", keep=("id",), on_error=Path("bad.jsonl"))


def rejected() -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    return [(Path(line["file"]).name, line["row"]) for line in lines]


def left() -> list[str]:
    """Return what is in the directory of the table beside its log and its data files."""
    listed = {Path(uri).name for uri in DeltaTable("out").file_uris()}
    return sorted(path.name for path in Path("out").iterdir() if path.name not in {*listed, "_delta_log"})


def test_a_run_goes_on_with_the_rejects_of_the_files_it_has(rows: Path, make_model: Callable[..., Model]) -> None:
    broken = [2.0]
    calls: list[float] = []

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        calls.append(float(columns["x"][0]))
        if calls[-1] in broken:
            raise MemoryError
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    model = make_model(function=score)
    with pytest.raises(ModelError):
        predict_files(model, [rows], "out", OPTIONS)
    assert not Path("bad.jsonl").exists()
    broken.clear()
    summary = predict_files(model, [rows], "out", OPTIONS)

    assert calls == [0.0, 1.0, 2.0, 2.0] or calls == [0.0, 1.0, 1.0, 2.0, 2.0]
    assert (summary.rows, summary.rejected) == (4, 2)
    assert rejected() == [("0.csv", 2), ("2.csv", 2)]
    assert left() == []


def test_a_run_that_was_killed_between_its_rejects_and_its_commit_goes_on(
    rows: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise SaveError("killed", code="output-unwritable")

    with monkeypatch.context() as patch, pytest.raises(SaveError):
        patch.setattr(_Load, "commit", killed)
        predict_files(model, [rows], "out", OPTIONS)
    assert rejected() == [("0.csv", 2), ("2.csv", 2)]

    summary = predict_files(model, [rows], "out", OPTIONS)

    assert (summary.rows, summary.rejected, summary.already) == (4, 2, False)
    assert left() == []
    Path("bad.jsonl").unlink()
    assert predict_files(model, [rows], "out", OPTIONS).already


def test_a_file_that_is_in_the_way_is_not_touched(rows: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("bad.jsonl").write_text("theirs\n")
    with pytest.raises(UsageError, match=r"bad\.jsonl exists"):
        predict_files(model, [rows], "out", OPTIONS)
    Path("bad.jsonl").unlink()
    place = _Load.place_rejects

    def late(load: Any) -> int:
        Path("bad.jsonl").write_text("theirs\n")
        return place(load)

    monkeypatch.setattr(_Load, "place_rejects", late)
    with pytest.raises(UsageError, match=r"bad\.jsonl exists"):
        predict_files(model, [rows], "out", OPTIONS)
    assert Path("bad.jsonl").read_text() == "theirs\n"
    assert not Path("out").exists()


def test_more_than_are_allowed_leave_nothing(rows: Path, model: Model) -> None:
    options = Options(output_format="delta", on_error=Path("bad.jsonl"), max_rejects=1)
    with pytest.raises(InputError, match=r"2\.csv, row 2.*more than 1 rows refused"):
        predict_files(model, [rows], "out", options)
    assert not Path("out").exists()
    assert not Path("bad.jsonl").exists()


def interrupted(rows: Path, make_model: Callable[..., Model]) -> tuple[Model, list[float]]:
    """End a run behind its second file; return the model, and what it fails at as long as it is in the list."""
    broken = [2.0]

    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        if float(columns["x"][0]) in broken:
            raise MemoryError
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    model = make_model(function=score)
    with pytest.raises(ModelError):
        predict_files(model, [rows], "out", OPTIONS)
    return model, broken


def test_a_file_without_its_rejects_is_made_again(rows: Path, make_model: Callable[..., Model]) -> None:
    """As another run of the same job leaves it, which took its rejects away and failed."""
    model, broken = interrupted(rows, make_model)
    for aside in Path("out").glob(".modelpack-*.rejects"):
        aside.unlink()
    broken.clear()
    summary = predict_files(model, [rows], "out", OPTIONS)

    assert (summary.rows, summary.rejected) == (4, 2)
    assert rejected() == [("0.csv", 2), ("2.csv", 2)]
    assert left() == []


def test_a_run_that_fails_for_too_many_rejects_stands_in_nobodys_way(
    rows: Path, make_model: Callable[..., Model]
) -> None:
    model, broken = interrupted(rows, make_model)
    with pytest.raises(InputError, match="more than 0 rows refused"):
        predict_files(model, [rows], "out", replace(OPTIONS, max_rejects=0))
    assert not Path("out").exists() or list(Path("out").iterdir()) == []
    broken.clear()

    assert predict_files(model, [rows], "out", OPTIONS).rejected == 2
    assert (rejected(), left()) == ([("0.csv", 2), ("2.csv", 2)], [])


def test_a_run_without_rejects_takes_no_files_of_one_that_has_them(
    rows: Path, make_model: Callable[..., Model], model: Model
) -> None:
    def score(columns: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        if float(columns["x"][0]) == 2.0:
            raise MemoryError
        return {"score": [2 * float(x) for x in columns["x"]], "label": ["" for _ in columns["x"]]}

    with pytest.raises(ModelError):
        predict_files(make_model(function=score), [rows], "out", OPTIONS)
    with pytest.raises(InputError, match="row 2"):
        predict_files(model, [rows], "out", replace(OPTIONS, on_error=None))
    summary = predict_files(model, [rows], "out", OPTIONS)
    assert (summary.rows, summary.rejected) == (4, 2)
    assert left() == []
    assert predict_files(model, [rows], "out", replace(OPTIONS, on_error=None)).already
