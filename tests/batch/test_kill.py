"""A sample of scripts/soak-kill: SIGKILL at random moments never leaves half a package or half an output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "scripts" / "soak_kill.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "kills"),
    # tests/batch/test_delta_out.py kills runs into a table too.
    [("batch", 2), pytest.param("table", 1, marks=pytest.mark.long)],
)
def test_killed_processes_leave_nothing_half(what: str, kills: int, warm: Path) -> None:
    line = [sys.executable, SOAK, "--kills", str(kills), "--only", what, "--calm", warm]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed in time" in done.stdout
