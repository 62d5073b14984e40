"""Measures how long 500 MB of torch weights take to load: modelpack, hashing and all, beside safetensors alone.

Prints a Markdown table of medians, each run in a new process; "cold" runs start with the file out of the page cache.
Every run touches all weights once, so that memory that is only mapped does not count as loaded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SAVE = """
import sys, pathlib, numpy, torch, modelpack
from safetensors.torch import save_file
torch.set_num_threads(1)
side, layers = 4096, int(sys.argv[2])
model = torch.nn.Sequential(*[torch.nn.Linear(side, side) for _ in range(layers)])
root = pathlib.Path(sys.argv[1])
modelpack.save(model, root / "pkg", example=numpy.zeros((2, side), numpy.float32), name="weights")
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, root / "w.safetensors")
"""

TOUCH = """
def touched(tensors):
    return sum(float(t.view(-1)[::1024].sum()) for t in tensors)
"""

RUNS = {
    "safetensors": """
import sys, time, torch
from safetensors.torch import load_file
start = time.perf_counter()
touched(load_file(sys.argv[1] + "/w.safetensors").values())
print(time.perf_counter() - start)
""",
    "safetensors and sha256": """
import hashlib, sys, time, torch
from safetensors.torch import load_file
start = time.perf_counter()
with open(sys.argv[1] + "/w.safetensors", "rb") as file:
    hashlib.file_digest(file, "sha256")
touched(load_file(sys.argv[1] + "/w.safetensors").values())
print(time.perf_counter() - start)
""",
    "modelpack.load": """
import sys, time, torch, modelpack
import modelpack_flavors.torch, modelpack.audits.pt2
start = time.perf_counter()
model = modelpack.load(sys.argv[1] + "/pkg")
touched(model._predictor.weights)
print(time.perf_counter() - start)
""",
}


def forget(root: Path) -> None:
    """Ask the system to drop the files from its page cache."""
    for path in root.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def measured(code: str, root: Path, runs: int, *, cold: bool) -> float:
    """Return the median of what new processes print."""
    found = []
    for _ in range(runs):
        if cold:
            forget(root)
        done = subprocess.run(
            [sys.executable, "-c", TOUCH + code, str(root)], check=True, capture_output=True, text=True
        )
        found.append(float(done.stdout))
    return statistics.median(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=8, help="of 64 MiB each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        environment = {**os.environ, "MODELPACK_TRUST_STORE": str(root / "trust")}
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SAVE, folder, str(options.layers)], check=True, env=environment
        )
        table = {
            name: [measured(code, root, options.runs, cold=cold) for cold in (True, False)]
            for name, code in RUNS.items()
        }
    base = table["safetensors"]
    print("| | cold, s | × safetensors | warm, s | × safetensors |")
    print("| --- | --- | --- | --- | --- |")
    for name, (cold, warm) in table.items():
        print(f"| {name} | {cold:.2f} | {cold / base[0]:.2f} | {warm:.2f} | {warm / base[1]:.2f} |")


if __name__ == "__main__":
    main()
