"""What the commands print cannot act on a terminal, and a full disk is said in one line."""

from __future__ import annotations

import json
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


def test_a_full_disk_is_one_line_and_no_trace(tmp_path: Path) -> None:
    (tmp_path / "modelpack.json").write_text("{}")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "modelpack", "inspect", str(tmp_path), "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.returncode == 1
    assert done.stderr.splitlines() == ["modelpack: what was to be written does not fit: No space left on device"]


def test_of_a_long_name_no_more_than_its_start_is_in_a_path() -> None:
    assert join("", "a" * SHOWN) == "a" * SHOWN
    assert len(join("", "a" * 10_000)) < SHOWN + 10
    assert len(join("x", "ä b" * 10_000)) < SHOWN + 10
