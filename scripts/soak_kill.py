"""Kills saves and batch runs with SIGKILL at random moments and checks what is left.

A package or an output is either absent, or the whole old one, or the whole new one; what a killed process leaves
beside it is hidden (``.modelpack-…``) and is swept by the next run. A run into a folder goes on where it was killed,
and ends with what an undisturbed run gives. A run into a Delta table is there once, whole, however often it was
killed. Exits with 1 at the first thing that is not so.
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

import deltalake

import modelpack

ROWS = 60_000
PREDICT = [sys.executable, "-m", "modelpack", "predict"]
CALM = [*PREDICT]
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
    parser.add_argument("--kills", type=int, default=200, help="kills for each of save, batch and table")
    parser.add_argument("--only", choices=["save", "batch", "table"])
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--calm", metavar="PROGRAM", help="the modelpack that makes the runs which nobody kills")
    given = parser.parse_args()
    if given.calm:
        CALM[:] = [given.calm, "predict"]
    seed = given.seed if given.seed is not None else random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["MODELPACK_TRUST_STORE"] = str(Path(folder, "trust"))
        for name, soak in (("save", soak_save), ("batch", soak_batch), ("table", soak_table)):
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
    """Return a digest of a file or of all files in a directory; "" if there is nothing. Manifests hold the time."""
    if not path.exists():
        return ""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.name != "_manifest.json":
            total.update(f"{file.relative_to(path)}\n".encode() + file.read_bytes())
    return total.hexdigest()


def leftovers(folder: Path) -> list[Path]:
    """Return what is hidden in a folder."""
    return [path for path in folder.iterdir() if path.name.startswith(".modelpack-")]


def traces(folder: Path) -> set[tuple[Path, int]]:
    """Return what shows that a run works: hidden files, and when the part that is being made was begun."""
    found = set()
    for path in leftovers(folder):
        with contextlib.suppress(FileNotFoundError):
            part = path / "part"
            found.add((path, (part if part.exists() else path).stat().st_mtime_ns if path.is_dir() else 0))
    return found


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
    """Kill batch runs into a file, into a folder, over old ones, with rejects; those into a folder go on each time."""
    package = batch_package(folder)
    data = folder / "data"
    data.mkdir()
    for name in "abcdef":
        lines = [f"{i},{luck.random()}" if i % 1000 else f"{i},oops" for i in range(ROWS // 6)]
        (data / f"{name}.csv").write_text("id,x\n" + "\n".join(lines) + "\n")
    out = folder / "out"
    out.mkdir()
    modes = [["file.csv"], ["many-csv/"], ["file.parquet"], ["many-parquet/", "--output-format", "parquet"]]
    counts: Counter[str] = Counter()
    plans = [(mode, *_undisturbed(package, data, out, mode)) for mode in modes]
    print(f"batch: {', '.join(f'{mode[0]} {length:.2f} s' for mode, _, length in plans)} of work")
    bad = digest(out / "bad.jsonl")
    for number in range(kills):
        mode, new, length = plans[number % len(plans)]
        target = out / mode[0]
        over = luck.random() < 0.5
        old = _prepare(target, over=over)
        finished = out / f".modelpack-{target.name}.resume" / "finished.jsonl"
        counts["went on where another was killed"] += finished.exists() and finished.stat().st_size > 0
        before = traces(out)
        # The undisturbed runs scored one batch at a time.
        line = [*PREDICT, *_words(package, data, out, mode), "--jobs", luck.choice(("1", "3"))]
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        if luck.random() < 0.9:
            until(process, lambda known=before: bool(traces(out) - known))
            moment = luck.uniform(0, length * 1.1)
        else:
            moment = luck.uniform(0, 1.0)
        counts["killed in time"] += kill_at(process, moment)
        counts["left something hidden"] += bool(leftovers(out))
        judge(counts, digest(target), old, new, mode[0])
        strange = [p.name for p in out.iterdir() if p not in [target, out / "bad.jsonl", *leftovers(out)]]
        if strange:
            raise Torn(f"the run left {strange}")
        if digest(target) == new and digest(out / "bad.jsonl") != bad:
            raise Torn("the output is there, its rejects are not")
    for mode, new, _ in plans:
        _prepare(out / mode[0], over=False)
        subprocess.run([*CALM, *_words(package, data, out, mode)], check=True, stderr=subprocess.DEVNULL)
        if digest(out / mode[0]) != new:
            raise Torn(f"after all kills {mode[0]} is not what an undisturbed run gives")
    if leftovers(out):
        raise Torn("what killed runs left was not swept")
    return counts


def soak_table(folder: Path, kills: int, luck: random.Random) -> Counter[str]:
    """Kill runs that append to a Delta table; each is run again until it is through, and once more after that."""
    package = batch_package(folder)
    for name in ("a", "b", "c"):
        lines = [f"{i},{luck.random()}" for i in range(ROWS // 3)]
        (folder / f"{name}.csv").write_text("id,x\n" + "\n".join(lines) + "\n")
    out, counts = folder / "out", Counter[str]()
    inputs = [word for name in ("a", "b", "c") for word in ("-i", str(folder / f"{name}.csv"))]
    words = [*inputs, "-o", str(out), "--output-format", "delta", "--batch-size", "500", "--job"]
    jobs, whole, through = 0, 0.0, False
    while counts["kills"] < kills:
        line = [str(package), *words, f"job {jobs}"]
        while not through:
            # The first run is left in peace: it tells how long one takes.
            through, began = jobs == 0 or luck.random() < 0.2, time.perf_counter()
            process = subprocess.Popen([*(CALM if through and jobs else PREDICT), *line], stderr=subprocess.DEVNULL)
            if not through:
                counts["kills"] += 1
                counts["killed in time"] += kill_at(process, luck.uniform(0.5, 1.0) * whole)
                _count(out, {jobs * ROWS, (jobs + 1) * ROWS})
            elif process.wait() != 0:
                raise Torn("a run failed")
            else:
                whole = time.perf_counter() - began if jobs == 0 else whole
        jobs, through = jobs + 1, False
        _count(out, {jobs * ROWS})
        subprocess.run([*CALM, *line], check=True, stderr=subprocess.DEVNULL)
        _count(out, {jobs * ROWS})
    counts["jobs"] = jobs
    table = deltalake.DeltaTable(out)
    counts["files that no commit lists"] = len(list(out.glob("*.parquet"))) - len(table.file_uris())
    if leftovers(out):
        raise Torn("what killed runs left was not swept")
    return counts


def _count(out: Path, allowed: set[int]) -> None:
    rows = deltalake.DeltaTable(out).to_pyarrow_table().num_rows if (out / "_delta_log").exists() else 0
    if rows not in allowed:
        raise Torn(f"the table has {rows} rows, not one of {sorted(allowed)}")


def _words(package: Path, data: Path, out: Path, mode: Sequence[str]) -> list[str]:
    target = f"{out}/{mode[0]}"
    words = ["-i", str(data), "-o", target, "--on-error", str(out / "bad.jsonl"), "--overwrite", "--batch-size", "500"]
    return [str(package), *words, *mode[1:]]


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
    process = subprocess.Popen([*CALM, *_words(package, data, out, mode)], stderr=subprocess.DEVNULL)
    until(process, lambda: bool(leftovers(out)))
    began = time.perf_counter()
    if process.wait() != 0:
        raise SystemExit("an undisturbed run failed")
    return digest(out / mode[0]), time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
