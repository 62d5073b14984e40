"""A command that starts warm, as many tests start it, is the command."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sklearn.dummy import DummyRegressor

import modelpack


@pytest.mark.parametrize(
    "words",
    [
        "--version",
        "inspect nowhere",
        "no-such-command",
        "verify . --json < /dev/null",
        "--help | head -n 1; pwd; exit 7",
    ],
)
def test_a_warm_start_changes_nothing(warm: Path, words: str, tmp_path: Path) -> None:
    said = []
    for folder in (warm.parent, Path(sys.executable).parent):
        line = ["bash", "-c", f'PATH="{folder}:$PATH"; modelpack {words}']
        done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        said.append((done.returncode, done.stdout, done.stderr))
    assert said[0] == said[1]


def test_a_warm_command_is_stopped_by_the_signal_that_its_program_gets(warm: Path, tmp_path: Path) -> None:
    model = modelpack.save(DummyRegressor().fit([[1.0]], [1.0]), tmp_path / "pkg", example=[[1.0]])
    line = [str(warm), "predict", str(model.path), "-i", "-", "--input-format", "csv", "-o", str(tmp_path / "o.csv")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


def test_a_warm_command_goes_with_its_program(warm: Path, tmp_path: Path) -> None:
    model = modelpack.save(DummyRegressor().fit([[1.0]], [1.0]), tmp_path / "pkg", example=[[1.0]])
    line = [str(warm), "stream", str(model.path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b'{"input": [1]}\n')
        assert process.stdout.readline()
        process.kill()
        assert process.stdout.read() == b""  # nobody has it open any more
