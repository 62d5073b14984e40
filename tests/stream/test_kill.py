"""A sample of scripts/soak-stream: SIGKILL at random moments neither loses a row nor writes one twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "scripts" / "soak_stream.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [["--kills", "5"], ["--kills", "4", "--upsert"], ["--kills", "1", "--s3"]], ids=["append", "upsert", "s3"]
)
def test_killed_streams_lose_nothing_and_write_nothing_twice(more: list[str]) -> None:
    done = subprocess.run([sys.executable, SOAK, *more], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"kills": ' in done.stdout
