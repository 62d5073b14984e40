"""What the commands print cannot act on a terminal, and a full disk is said in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelpack.cli import report
from modelpack.fieldpath import SHOWN, join


def test_json_output_escapes_what_a_terminal_acts_on(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": "\x9b2J \u202e \u2066 \ud83d\ude00", "tag \U000e0041": ["ä", "日本", "\ud800"]}

    report.show_json(value)

    text = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "ä" in text and "日本" in text
    assert json.loads(text) == json.loads(json.dumps(value))


@pytest.fixture
def buffered() -> dict[str, str]:
    """An environment in which Python holds back what it prints to a file, as it does unless told otherwise."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("words", [["inspect", ".", "--json"], ["--version"], ["trust", "--help"]])
def test_a_full_disk_is_one_line_and_no_trace(words: list[str], tmp_path: Path, buffered: dict[str, str]) -> None:
    (tmp_path / "modelpack.json").write_text("{}")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "modelpack", *words],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=buffered,
        )

    assert done.returncode == 1
    said = "modelpack: standard output cannot be written: No space left on device [output-unwritable]"
    assert done.stderr.splitlines() == [said]


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, buffered: dict[str, str]) -> None:
    (tmp_path / "modelpack.json").write_text("{}")
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "modelpack", "inspect", str(tmp_path), "--json"]
    done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, env=buffered)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_of_a_long_name_no_more_than_its_start_is_in_a_path() -> None:
    assert join("", "a" * SHOWN) == "a" * SHOWN
    assert len(join("", "a" * 10_000)) < SHOWN + 10
    assert len(join("x", "ä b" * 10_000)) < SHOWN + 10
