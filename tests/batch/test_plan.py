"""Where output goes, decided before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelpack.errors import UsageError
from modelpack_server.batch import Options, make
from modelpack_server.batch.formats import Kind
from modelpack_server.stream import Options as StreamOptions


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.csv", "in/sub/b.csv.gz", "in/c.parquet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_a_file_takes_all_inputs(data: Path) -> None:
    plan = make(["in"], "out.arrow", Options())
    assert (plan.folder, plan.outputs) == (False, ["out.arrow"])
    assert [len(part.sources) for part in plan.parts] == [3]
    assert plan.parts[0].kind == Kind(format="arrow")


@pytest.mark.parametrize("output", ["out/", "there"])
def test_a_directory_gets_a_file_for_each_input(data: Path, output: str) -> None:
    (data / "there").mkdir()
    plan = make(["in"], output, Options())
    root = output.rstrip("/")
    assert plan.outputs == [f"{root}/a.csv", f"{root}/c.parquet", f"{root}/sub/b.csv.gz"]


def test_an_output_format_is_for_all_files_of_a_directory(data: Path) -> None:
    plan = make(["in"], "out/", Options(output_format="csv"))
    assert plan.outputs == ["out/a.csv", "out/c.csv", "out/sub/b.csv.gz"]


def test_an_output_format_overrules_the_suffix(data: Path) -> None:
    assert make(["in"], "out.txt", Options(output_format="csv")).parts[0].kind == Kind(format="csv")


def test_standard_output_is_json_lines_unless_told(data: Path) -> None:
    plan = make(["in"], "-", Options())
    assert (plan.path, plan.outputs, plan.parts[0].kind.format) == (None, ["-"], "jsonl")
    assert make(["in"], "-", Options(output_format="csv")).parts[0].kind.format == "csv"


def test_a_device_is_json_lines_unless_told(data: Path) -> None:
    assert make(["in"], "/dev/null", Options()).parts[0].kind.format == "jsonl"


@pytest.mark.parametrize(
    ("inputs", "output", "options", "code"),
    [
        (["in"], "out.txt", {}, "output-format"),
        (["in"], "out.parquet.gz", {}, "output-format"),
        (["in/a.csv"], "out.csv", {"restart": True}, "option-alone"),
        (["in/a.csv"], "-", {"restart": True}, "option-alone"),
        (["in/a.csv"], "out", {"restart": True, "output_format": "delta"}, "option-alone"),
        (["in/a.csv"], "out", {"overwrite": True, "output_format": "delta"}, "option-alone"),
        (["in/a.csv"], "-", {"overwrite": True}, "option-alone"),
        (["_a.csv"], "out/", {}, "output-hidden"),
        ([".a.csv"], "out/", {}, "output-hidden"),
        (["_a.csv"], "memory://out/", {}, "output-hidden"),
        (["in/a.csv"], "in/a.csv", {"overwrite": True}, "output-is-input"),
        (["in/a.csv"], "in/", {"overwrite": True}, "output-is-input"),
        (["in/a.csv"], "in/../in", {"overwrite": True}, "output-is-input"),
        (["in/a.csv"], "old.csv", {}, "output-exists"),
        (["in/a.csv"], "old/", {}, "output-exists"),
        (["in/a.csv"], "mine/", {"overwrite": True}, "output-foreign"),
        (["in/a.csv"], "out.csv", {"on_error": Path("out.csv")}, "output-clash"),
        (["in/a.csv"], "out/", {"on_error": Path("out/bad.jsonl")}, "output-clash"),
        (["in/a.csv"], "out.csv", {"on_error": Path("old.csv")}, "output-exists"),
        (["in/a.csv"], "out.csv", {"on_error": Path("in/a.csv"), "overwrite": True}, "output-is-input"),
        (["in/a.csv"], "out.csv", {"on_error": Path("empty")}, "rejects-directory"),
        (["in/a.csv", "other/a.csv"], "out/", {}, "output-clash"),
        (["in/a.csv", "in/c.parquet", "other/c.csv"], "out/", {"output_format": "csv"}, "output-clash"),
    ],
)
def test_what_cannot_be_is_refused(
    data: Path, inputs: list[str], output: str, options: dict[str, object], code: str
) -> None:
    for name in ("old.csv", "old/x.csv", "mine/thesis.tex", "other/a.csv", "other/c.csv", "_a.csv", ".a.csv"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(b"")
    (data / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        make(inputs, output, Options(**options))  # type: ignore[arg-type]
    assert caught.value.code == code


def test_overwriting_may_be_allowed(data: Path) -> None:
    (data / "old.csv").write_bytes(b"")
    assert make(["in"], "old.csv", Options(overwrite=True)).outputs == ["old.csv"]


def test_devices_are_never_in_the_way(data: Path) -> None:
    assert make(["in"], "out.csv", Options(on_error=Path("/dev/null"))).outputs == ["out.csv"]


def test_names_that_mark_no_data_are_for_single_files_and_directories(data: Path) -> None:
    (data / "_in").mkdir()
    for name in ("_a.csv", "_in/b.csv"):
        (data / name).write_bytes(b"")
    assert make(["_a.csv"], "out.csv", Options()).outputs == ["out.csv"]
    assert make(["_in"], "out/", Options()).outputs == ["out/b.csv"]


def test_what_replaces_the_rejects_alone_is_taken(data: Path) -> None:
    options = {"overwrite": True, "on_error": data / "bad.jsonl"}
    assert make(["in"], "-", Options(**options)).outputs == ["-"]  # type: ignore[arg-type]
    assert make(["in"], "out/", Options(restart=True)).folder


def test_rejects_do_not_go_where_the_answers_go() -> None:
    for options in (Options, StreamOptions):
        with pytest.raises(UsageError, match="standard output") as caught:
            options(on_error=Path("-"))
        assert caught.value.code == "rejects-stream"
