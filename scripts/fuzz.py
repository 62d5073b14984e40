"""Fuzzes packages for some minutes: the work is tests/hostile/fuzzing.py, in processes that may die."""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HOSTILE = Path(__file__).resolve().parent.parent / "tests" / "hostile"
BATCH = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=5.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    words = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="modelpack-fuzz-"))
    subprocess.run([sys.executable, str(HOSTILE / "seeds.py"), str(root / "seeds")], check=True, capture_output=True)
    end, first, faults = time.monotonic() + words.minutes * 60, 0, 0
    ends: Counter[str] = Counter()
    while time.monotonic() < end:
        reached, found = batch(root, words.seed, first, ends)
        first, faults = reached, faults + found
        print(f"seed {words.seed}: {first:,} cases, {faults} faults", flush=True)
    for name, count in sorted(ends.items()):
        print(f"{count:8,}  {name}")
    if faults:
        print(f"the packages are in {root}")
        return 1
    shutil.rmtree(root)
    return 0


def batch(root: Path, seed: int, first: int, ends: Counter[str]) -> tuple[int, int]:
    """Run some cases in one process; return the number of the next one, and how many faults there were."""
    work = root / f"from-{first}"
    work.mkdir()
    command = [sys.executable, str(HOSTILE / "fuzzing.py"), str(root / "seeds"), str(work)]
    done = subprocess.run([*command, str(seed), str(first), str(BATCH)], capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    faults = [line for line in lines if "fault" in line]
    for line in faults:
        print(f"case {line['fault']} of {line['package']}: {line['error']}")
    if done.returncode == 0:
        ends.update(lines[-1]["ends"])
        if not faults:
            shutil.rmtree(work)
        return first + BATCH, len(faults)
    last = lines[-1]["case"]
    print(f"case {last} of {lines[-1]['package']} ended the process with {done.returncode}\n{done.stderr[-1000:]}")
    return last + 1, len(faults) + 1


if __name__ == "__main__":
    sys.exit(main())
