"""Kills saves and batch runs with SIGKILL at random moments and checks what is left.

A package or an output is either absent, or the whole old one, or the whole new one; what a killed process leaves
beside it is hidden (``.modelpack-…``) and is swept by the next run. Exits with 1 at the first thing that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import modelpack

ROWS = 60_000
PREDICT = [sys.executable, "-c", "from modelpack.cli import main; main(prog_name='modelpack')", "predict"]
MODEL = "def predict(data):\n    return [2 * x for x in data['x']]\n"
SAVE = """
import sys, importlib.util, tempfile, modelpack
spec = importlib.util.spec_from_file_location("doubler", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
table = {"x": [1.0, 2.0]}
def save(target, name):
    # The files beside the model make the save long enough to be hit in the middle.
    modelpack.save(module.predict, target, example=table, code=[sys.argv[1], sys.argv[3]], name=name,
                   overwrite=True, options={"form": "columns"})
with tempfile.TemporaryDirectory() as elsewhere:
    save(elsewhere + "/pkg", "doubler")  # everything is imported now
print("ready", flush=True)
save(sys.argv[2], sys.argv[4])
"""


class Torn(Exception):
    """Something half was seen."""


def main() -> int:
    """Run the soak and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills for each of save and batch")
    parser.add_argument("--only", choices=["save", "batch"])
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["MODELPACK_TRUST_STORE"] = str(Path(folder, "trust"))
        for name, soak in (("save", soak_save), ("batch", soak_batch)):
            if given.only in (None, name):
                place = Path(folder, name)
                place.mkdir()
                try:
                    counts = soak(place, given.kills, random.Random(f"{seed} {name}"))
                except Torn as exc:
                    print(f"{name}: TORN: {exc}")
                    return 1
                print(f"{name}: {json.dumps(dict(sorted(counts.items())))}")
    return 0


def digest(path: Path) -> str:
    """Return a digest of a file or of all files in a directory; "" if there is nothing."""
    if not path.exists():
        return ""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            total.update(f"{file.relative_to(path)}\n".encode() + file.read_bytes())
    return total.hexdigest()


def leftovers(folder: Path) -> list[Path]:
    """Return what is hidden in a folder."""
    return [path for path in folder.iterdir() if path.name.startswith(".modelpack-")]


def kill_at(process: subprocess.Popen[bytes], moment: float) -> bool:
    """Kill the process after so many seconds; say whether it was still running."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=moment)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running


def until(process: subprocess.Popen[bytes], seen: Callable[[], bool]) -> None:
    """Wait until the work can be seen to have begun, or the process is over."""
    while process.poll() is None and not seen():
        time.sleep(0.0005)


def judge(counts: Counter[str], found: str, old: str, new: str, what: str) -> None:
    """Count what is there now, or raise Torn."""
    names = {old: "old", new: "whole", "": "absent"}
    if found not in names:
        raise Torn(f"{what} is neither absent, nor the old one, nor the new one")
    counts[names[found]] += 1


def soak_save(folder: Path, kills: int, luck: random.Random) -> Counter[str]:
    """Kill saves, half of them over an old package."""
    source, ballast, out = folder / "doubler.py", folder / "ballast", folder / "out"
    source.write_text(MODEL)
    ballast.mkdir()
    (ballast / "__init__.py").write_text("")
    for number in range(40):
        (ballast / f"part{number}.py").write_bytes(b"# " + os.urandom(100_000).hex().encode() + b"\n")
    out.mkdir()
    target = out / "pkg"
    line = [sys.executable, "-c", SAVE, str(source), str(target), str(ballast), "doubler"]
    previous = folder / "previous"
    subprocess.run([*line[:4], str(previous), str(ballast), "previous"], check=True, stdout=subprocess.DEVNULL)
    old_digest = modelpack.open(previous).digest
    started = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    began = time.perf_counter()
    process.communicate()
    length = time.perf_counter() - began
    new = modelpack.open(target).digest
    print(f"save: {length:.2f} s of work after {began - started:.2f} s of imports")
    counts: Counter[str] = Counter()
    for _ in range(kills):
        subprocess.run(["rm", "-rf", str(target)], check=True)
        old = old_digest if luck.random() < 0.5 else ""
        if old:
            shutil.copytree(previous, target)
        process = subprocess.Popen(line, stdout=subprocess.PIPE)
        assert process.stdout is not None
        if luck.random() < 0.9:
            process.stdout.readline()
        counts["killed in time"] += kill_at(process, luck.uniform(0, length * 1.1))
        process.stdout.close()
        counts["left something hidden"] += bool(leftovers(out))
        try:
            found = modelpack.open(target).digest if target.exists() else ""
        except modelpack.PackageError as exc:
            raise Torn(str(exc)) from exc
        judge(counts, found, old, new, "the package")
        if strange := [path.name for path in out.iterdir() if path not in [target, *leftovers(out)]]:
            raise Torn(f"the save left {strange}")
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    if leftovers(out):
        raise Torn("what killed saves left was not swept")
    return counts


def batch_package(folder: Path) -> Path:
    """Make a package that loads fast."""
    source = folder / "doubler.py"
    source.write_text(MODEL)
    spec = importlib.util.spec_from_file_location("doubler", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    modelpack.save(
        module.predict, folder / "pkg", example={"x": [1.0]}, code=[source], name="doubler", options={"form": "columns"}
    )
    return folder / "pkg"


def soak_batch(folder: Path, kills: int, luck: random.Random) -> Counter[str]:
    """Kill batch runs into a file, into a directory, over old ones, with rejects."""
    package = batch_package(folder)
    data = folder / "data"
    data.mkdir()
    for name in ("a", "b", "c"):
        lines = [f"{i},{luck.random()}" if i % 1000 else f"{i},oops" for i in range(ROWS // 3)]
        (data / f"{name}.csv").write_text("id,x\n" + "\n".join(lines) + "\n")
    out = folder / "out"
    out.mkdir()
    modes: list[Sequence[str]] = [["file.csv"], ["file.parquet"], ["many/"], ["many/", "--output-format", "parquet"]]
    counts: Counter[str] = Counter()
    plans = [(mode, *_undisturbed(package, data, out, mode)) for mode in modes]
    for number in range(kills):
        mode, new, length = plans[number % len(plans)]
        target = out / mode[0]
        over = luck.random() < 0.5
        old = _prepare(target, over=over)
        process = subprocess.Popen(_line(package, data, out, mode), stderr=subprocess.DEVNULL)
        if luck.random() < 0.9:
            before = set(leftovers(out))
            until(process, lambda known=before: bool(set(leftovers(out)) - known))
            moment = luck.uniform(0, length * 1.1)
        else:
            moment = luck.uniform(0, 1.0)
        counts["killed in time"] += kill_at(process, moment)
        counts["left something hidden"] += bool(leftovers(out))
        judge(counts, digest(target), old, new, mode[0])
        strange = [p.name for p in out.iterdir() if p not in [target, out / "bad.jsonl", *leftovers(out)]]
        if strange:
            raise Torn(f"the run left {strange}")
        if digest(target) == new and not (out / "bad.jsonl").exists():
            raise Torn("the output is there, its rejects are not")
    for mode, new, _ in plans:
        _prepare(out / mode[0], over=False)
        subprocess.run(_line(package, data, out, mode), check=True, stderr=subprocess.DEVNULL)
        if digest(out / mode[0]) != new:
            raise Torn(f"after all kills {mode[0]} is not what an undisturbed run gives")
    if leftovers(out):
        raise Torn("what killed runs left was not swept")
    return counts


def _line(package: Path, data: Path, out: Path, mode: Sequence[str]) -> list[str]:
    target = f"{out}/{mode[0]}"
    words = ["-i", str(data), "-o", target, "--on-error", str(out / "bad.jsonl"), "--overwrite", "--batch-size", "500"]
    return [*PREDICT, str(package), *words, *mode[1:]]


def _prepare(target: Path, *, over: bool) -> str:
    """Put an old output where the new one will be, or nothing; return the old one's digest."""
    subprocess.run(
        ["rm", "-rf", str(target), *map(str, target.parent.glob("[fm]*")), str(target.parent / "bad.jsonl")], check=True
    )
    if not over:
        return ""
    file = target if target.suffix else target / "old.csv"
    file.parent.mkdir(exist_ok=True)
    file.write_text("old\n")
    return digest(target)


def _undisturbed(package: Path, data: Path, out: Path, mode: Sequence[str]) -> tuple[str, float]:
    """Run once in peace; return the digest of the output and how long the work took."""
    _prepare(out / mode[0], over=False)
    process = subprocess.Popen(_line(package, data, out, mode), stderr=subprocess.DEVNULL)
    until(process, lambda: bool(leftovers(out)))
    began = time.perf_counter()
    if process.wait() != 0:
        raise SystemExit("an undisturbed run failed")
    return digest(out / mode[0]), time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
