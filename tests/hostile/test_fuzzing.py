"""A sample of damaged packages: each is refused with a code, or loads and scores; nothing else is raised or dies.

``scripts/fuzz`` does the same for as long as it is told.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = 330


@pytest.mark.slow
def test_damaged_packages_are_refused_or_score(tmp_path: Path) -> None:
    seeds, work = tmp_path / "seeds", tmp_path / "work"
    work.mkdir()
    subprocess.run([sys.executable, str(HERE / "seeds.py"), str(seeds)], check=True, timeout=300, capture_output=True)
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzzing.py"), str(seeds), str(work), "0", "0", str(CASES)],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    # Some libraries write to standard output as well.
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    # A process that has died said last which case it was.
    assert done.returncode == 0, (lines[-1:], done.stderr[-2000:])
    assert [line for line in lines if "fault" in line] == []
    ends: Counter[str] = Counter(lines[-1]["ends"])
    scored = {name.partition(":")[0] for name in ends if "predict" in name}
    refused = {name.partition(":")[0] for name in ends if "payload-invalid" in name}
    packages = {path.name for path in seeds.iterdir()}
    assert (scored, refused) == (packages, packages)


def test_a_fault_of_the_library_is_seen(tmp_path: Path) -> None:
    """The same run over a package that ends its process when it is opened."""
    script = (
        "import runpy, sys, os, modelpack\n"
        "modelpack.open = lambda path: os.kill(os.getpid(), 11)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    package = tmp_path / "seeds" / "one"
    (package / "payloads").mkdir(parents=True)
    (package / "modelpack.json").write_text('{"files": []}', "utf-8")
    (package / "payloads" / "m").write_bytes(b"x")
    words = [str(HERE / "fuzzing.py"), str(tmp_path / "seeds"), str(tmp_path), "0", "0", "1"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=100)
    assert (done.returncode, json.loads(done.stdout)) == (-11, {"case": 0, "package": "one"})
