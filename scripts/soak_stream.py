"""Kills `modelpack stream` with SIGKILL at random moments and compares its output with its source, row by row.

The source grows meanwhile and is compacted now and then, so is the output. After a few kills the next stream begins
with tables of its own. Every third round two streams work on one job. A moment is a random time after a start, or right
after a hidden file, a finished file or a commit has appeared in the output. At the end each row of the source is in the
output or among the rejects, once, with the right answer; otherwise the exit code is 1. With --upsert rows of the source
are updated and deleted too, and the output must have followed. With --s3 all tables lie in S3, on a server of moto, and
a moment is right after a request.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

import modelpack
from modelpack.signature import Column, Signature, Table

# The server is that of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
import s3_server

COMMAND = [sys.executable, "-m", "modelpack", "stream"]
MODEL = """import time

def predict(data):
    time.sleep(0.005)
    return {"score": [2 * x for x in data["x"]]}
"""
ROWS = 200
MOMENTS = ["time", "hidden", "part", "commit"]


class Wrong(Exception):
    """The output is not what it must be."""


def main() -> int:
    """Run the soak and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--upsert", action="store_true", help="update and delete too, and follow by key")
    parser.add_argument("--s3", action="store_true", help="keep the tables in S3")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["MODELPACK_TRUST_STORE"] = str(Path(folder, "trust"))
        kind = Following if given.upsert else Soak
        try:
            with s3_server.started(Path(folder)) if given.s3 else nullcontext() as server:
                if server is not None:
                    os.environ.update(server.environment)
                counts = campaigns(Path(folder), random.Random(seed), given.kills, partial(kind, server))
        except Wrong as exc:
            print(f"stream: WRONG: {exc}")
            return 1
        print(f"stream: {json.dumps(dict(sorted(counts.items())))}")
    return 0


def campaigns(folder: Path, luck: random.Random, kills: int, kind: Callable[..., Soak]) -> Counter[str]:
    """Begin anew with other tables every few kills, since a stream that is new has dangers of its own."""
    total: Counter[str] = Counter()
    model = package(folder)
    while total["kills"] < kills:
        place = folder / str(total["streams"])
        place.mkdir()
        total.update(kind(place, model, luck).run(min(luck.randrange(1, 12), kills - total["kills"])))
        total["streams"] += 1
    return total


class Soak:
    """One source, one output, one table of rejects, and the processes that are killed."""

    def __init__(self, server: s3_server.Server | None, folder: Path, model: Path, luck: random.Random) -> None:
        self.server, self.folder, self.luck = server, folder, luck
        self.place: Path | str = folder
        self.options = None
        if server is not None:
            bucket = f"bucket-{folder.name}"
            fsspec.filesystem("s3").mkdir(bucket)
            self.place, self.options = f"s3://{bucket}", s3_server.OPTIONS
        self.source, self.output, self.rejects = (f"{self.place}/{name}" for name in ("source", "output", "rejects"))
        self.fed = 0
        self.counts: Counter[str] = Counter()
        self.line = [*COMMAND, str(model), "--from", self.source, "--to", self.output, "--on-error",
                     self.rejects, "--interval", "0.02", "--max-rows-per-commit", str(5 * ROWS)]  # fmt: skip

    def run(self, kills: int) -> Counter[str]:
        """Kill so many processes, then let one finish, and compare."""
        number = 0
        while self.counts["kills"] < kills:
            self.feed(self.luck.randrange(10, 30))
            streams = [self.start() for _ in range(2 if number % 3 == 2 else 1)]
            for stream in streams:
                self.kill(stream, self.luck.choice(MOMENTS))
            self.look()
            if number % 7 == 6:
                self.compact(self.luck.choice([self.source, self.output]))
            number += 1
        done = subprocess.run([*self.line, "--once", "--quiet"], stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise Wrong(f"the last run failed: {done.stderr.decode()}")
        self.compare()
        return self.counts

    def table(self, root: str) -> DeltaTable:
        """Open a table."""
        return DeltaTable(root, storage_options=self.options)

    def start(self) -> subprocess.Popen[bytes]:
        """Start a stream."""
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen(self.line, stderr=said)

    def feed(self, files: int) -> None:
        """Append files; a few rows do not fit."""
        for _ in range(files):
            ids = range(self.fed, self.fed + ROWS)
            values = [None if i % 97 == 0 else i / 8 for i in ids]
            rows = pa.table({"id": list(ids), "x": pa.array(values, pa.float64())})
            write_deltalake(self.source, rows, mode="append", storage_options=self.options)
            self.fed += ROWS

    def kill(self, stream: subprocess.Popen[bytes], moment: str) -> None:
        """Kill a stream at such a moment; if there is nothing to do for it, after a while."""
        seen = self.seen(moment)
        before, end = seen(), time.monotonic() + (self.luck.uniform(0, 1.5) if moment == "time" else 20)
        while time.monotonic() < end and seen() <= before and stream.poll() is None:
            if moment != "time" and self.idle():
                self.feed(1)
            time.sleep(0.001)
        time.sleep(self.luck.uniform(0, 0.01))
        if stream.poll() is not None:
            raise Wrong(f"a stream ended by itself: {(self.folder / 'said').read_text()[-2000:]}")
        stream.kill()
        stream.wait()
        self.counts["kills"] += 1
        self.counts[f"kills by {moment}"] += 1

    def seen(self, moment: str) -> Callable[[], set[str]]:
        """Return what lists that which shows the moment."""
        if self.server is None:
            pattern = {
                "time": "no-such-file",
                "hidden": ".modelpack-*",
                "part": "*.parquet",
                "commit": "_delta_log/*.json",
            }
            return lambda: {str(path) for path in Path(self.output).glob(pattern[moment])}
        server, output = self.server, self.output.removeprefix("s3:/")
        begin = {"time": "no such request", "hidden": f"GET {output}", "part": f"PUT {output}/part",
                 "commit": f"PUT {output}/_delta_log"}[moment]  # fmt: skip
        return lambda: {f"{number} {one}" for number, one in enumerate(server.requests()) if one.startswith(begin)}

    def idle(self) -> bool:
        """Say, now and then, that the stream could do with more rows."""
        return self.luck.random() < 0.01

    def look(self) -> None:
        """Count what the killed ones left."""
        if not DeltaTable.is_deltatable(self.output, self.options):
            return
        listed = {Path(uri).name for uri in self.table(self.output).file_uris()}
        files, path = fsspec.url_to_fs(self.output)
        files.invalidate_cache()
        there = {Path(name).name for name in files.ls(path, detail=False)}
        self.counts["left a hidden file"] += any(name.startswith(".modelpack-") for name in there)
        data = {name for name in there if name.endswith(".parquet")}
        self.counts["files that are not in the snapshot"] = len(data - listed)

    def compact(self, root: str) -> None:
        """Compact a table, as others may at any time."""
        if DeltaTable.is_deltatable(root, self.options):
            self.table(root).optimize.compact()
            self.counts[f"compactions of the {Path(root).name}"] += 1

    def compare(self) -> None:
        """Compare the output and the rejects with the source."""
        found = self.table(self.output).to_pyarrow_table().sort_by("id").to_pydict()
        good = [i for i in range(self.fed) if i % 97]
        if found["id"] != good:
            twice = [i for i, n in Counter(found["id"]).items() if n > 1]
            lost = sorted(set(good) - set(found["id"]))
            raise Wrong(f"{len(twice)} rows are there twice, {len(lost)} are lost: {twice[:5]} {lost[:5]}")
        if found["score"] != [i / 4 for i in good]:
            raise Wrong("an answer is wrong")
        records = self.table(self.rejects).to_pyarrow_table()["record"].to_pylist()
        if sorted(json.loads(record)["id"] for record in records) != list(range(0, self.fed, 97)):
            raise Wrong("the rejects are not each there once")
        self.counts["rows"] = self.fed
        self.counts["commits"] = self.table(self.output).version()
        self.counts["conflicts seen"] = (self.folder / "said").read_text().count("another process works")


class Following(Soak):
    """A source whose rows are updated and deleted too."""

    def __init__(self, server: s3_server.Server | None, folder: Path, model: Path, luck: random.Random) -> None:
        super().__init__(server, folder, model, luck)
        self.line += ["--changes", "upsert", "--key", "id"]
        schema = pa.schema([("id", pa.int64()), ("x", pa.float64())])
        feed = {"delta.enableChangeDataFeed": "true"}
        DeltaTable.create(self.source, schema, configuration=feed, storage_options=self.options)

    def feed(self, files: int) -> None:
        """Append files, and change some of the rows that were there."""
        for _ in range(max(1, files // 2)):
            super().feed(1)
            first = self.luck.randrange(self.fed)
            rows = f"id >= {first} and id < {first + self.luck.randrange(1, 2 * ROWS)}"
            if self.luck.random() < 0.3:
                self.table(self.source).delete(f"{rows} and id % 3 = 0")
                self.counts["deletes"] += 1
            else:
                self.table(self.source).update(updates={"x": "x + 1"}, predicate=rows)
                self.counts["updates"] += 1

    def compare(self) -> None:
        """Compare the output with the source as it is now."""
        here = self.table(self.source).to_pyarrow_table().sort_by("id").to_pylist()
        found = self.table(self.output).to_pyarrow_table().sort_by("id").to_pylist()
        if found != [{**row, "score": 2 * row["x"]} for row in here if row["x"] is not None]:
            raise Wrong(f"the output has {len(found)} rows, and is not what the source is")
        rejects = self.table(self.rejects).to_pyarrow_table()
        places = list(zip(*(rejects[name].to_pylist() for name in ("version", "file", "row")), strict=True))
        if len(set(places)) < len(places):
            raise Wrong("a reject is there twice")
        self.counts["rows"] = len(found)
        self.counts["commits"] = self.table(self.output).version()
        self.counts["conflicts seen"] = (self.folder / "said").read_text().count("another process works")


def package(folder: Path) -> Path:
    """Make a package that loads fast."""
    source = folder / "doubler.py"
    source.write_text(MODEL)
    spec = importlib.util.spec_from_file_location("doubler", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, score = Column(name="x", type="float64"), Column(name="score", type="float64")
    signature = Signature(inputs=Table(columns=(x,)), outputs=Table(columns=(score,)))
    modelpack.save(module.predict, folder / "pkg", signature=signature, code=[source], name="doubler",
                   options={"form": "columns"})  # fmt: skip
    return folder / "pkg"


if __name__ == "__main__":
    sys.exit(main())
