"""Packs models trained on real tables, scores them in every way there is, and compares with the models' own answers.

Run it through scripts/demo, which makes the environment. Exits 1 if any answer differs.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from palmerpenguins import load_penguins_raw
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import modelpack

BIN = Path(sys.executable).parent
CURL = (
    [shutil.which("curl") or "", "-sS"]
    if shutil.which("curl")
    else [sys.executable, str(Path(__file__).with_name("curl.py"))]
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model, the data it was trained on, and what that data is."""

    name: str
    what: str
    model: Any
    data: Any

    def expected(self) -> list[Any]:
        """Return the answers of the model itself."""
        return [plain(value) for value in self.model.predict(self.data)]


def breast_cancer() -> Case:
    """Numbers only, one column each."""
    data = load_breast_cancer(as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    return Case(name="breast-cancer", what="569 rows, 30 columns of numbers", model=model, data=data.data)


def digits() -> Case:
    """Images as one array."""
    data = load_digits()
    model = RandomForestClassifier(n_estimators=50, random_state=0, n_jobs=1).fit(data.data, data.target)
    return Case(name="digits", what="1797 images as an array of 64 pixels each", model=model, data=data.data)


def penguins() -> Case:
    """Strings, numbers, dates and missing values."""
    table = load_penguins_raw()
    table["Date Egg"] = pd.to_datetime(table["Date Egg"])
    numbers = ["Culmen Length (mm)", "Culmen Depth (mm)", "Flipper Length (mm)", "Body Mass (g)", "Delta 15 N (o/oo)"]
    labels = ["Island", "Sex", "Date Egg"]
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ("labels", OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5), labels),
        ]
    )
    data = table[numbers + labels]
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(data, table["Species"])
    return Case(name="penguins", what="344 rows with text, dates and missing values", model=model, data=data)


CASES = {"breast-cancer": breast_cancer, "digits": digits, "penguins": penguins}


def plain(value: Any) -> Any:
    """Return the value as JSON knows it: numbers, text, None for what is missing, dates as text."""
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, pd.Timestamp):
        return value.date().isoformat()
    return value.item() if isinstance(value, np.generic) else value


def bodies(data: Any) -> dict[str, tuple[str, str]]:
    """Return the data in every form that /invocations takes: name -> (media type, body)."""
    if isinstance(data, np.ndarray):
        rows = data.tolist()
        return {form: ("application/json", json.dumps({form: rows})) for form in ("instances", "inputs")}
    names = list(data.columns)
    rows = [[plain(value) for value in row] for row in data.itertuples(index=False)]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    forms: dict[str, Any] = {
        "dataframe_split": {"columns": names, "data": rows},
        "dataframe_records": records,
        "instances": records,
        "inputs": {name: [row[i] for row in rows] for i, name in enumerate(names)},
    }
    out = {form: ("application/json", json.dumps({form: value})) for form, value in forms.items()}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([names, *rows])
    out["CSV"] = ("text/csv", text.getvalue())
    return out


def run(*words: str | Path) -> str:
    """Run ``modelpack WORDS`` as a person would and return what it printed; stop the demo if it fails."""
    done = subprocess.run([BIN / "modelpack", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"modelpack {' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def curl(url: str, *, kind: str = "", body: Path | None = None) -> bytes:
    """Send one request with curl and return the answer."""
    words = ["-H", f"Content-Type: {kind}", "--data-binary", f"@{body}"] if body else []
    return subprocess.run([*CURL, *words, url], check=True, capture_output=True).stdout


@contextlib.contextmanager
def serving(package: Path, log: Path) -> Iterator[str]:
    """Serve the package on a free port; yields the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [BIN / "modelpack", "serve", package, "--port", str(port)], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(600):
            if server.poll() is not None:
                sys.exit(f"modelpack serve {package} ended:\n{log.read_text()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


class Tally:
    """Compares answers with the model's own and counts."""

    def __init__(self, expected: Sequence[Any]) -> None:
        self.expected = list(expected)
        self.wrong = 0

    def check(self, how: str, answers: Sequence[Any]) -> None:
        """Count what differs and say so in one line."""
        answers = [plain(value) for value in answers]
        same = sum(a == b and type(a) is type(b) for a, b in zip(answers, self.expected, strict=False))
        good = same == len(answers) == len(self.expected)
        self.wrong += not good
        verdict = f"{same} of {len(self.expected)} answers equal" + (
            "" if good else f"  << WRONG, {len(answers)} rows came"
        )
        print(f"   {how:<28} {verdict}")


def predictions(answer: bytes) -> list[Any]:
    """Return the list of predictions in an answer, or nothing if it is none."""
    reply = json.loads(answer)
    if not isinstance(reply, Mapping) or "predictions" not in reply:
        print(f"   {answer[:500].decode()}")
        return []
    return list(reply["predictions"])


def show(case: Case, folder: Path) -> int:
    """Do everything with one model; return how many ways gave a wrong answer."""
    print(f"\n{case.name}: {case.what}")
    tally = Tally(case.expected())
    package = folder / case.name

    saved = modelpack.save(case.model, package, example=case.data[:5], name=case.name, version="1.0.0")
    files = [path for path in package.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"   packed: {len(files)} files, {size / 1024:.0f} KiB, {saved.digest}")

    flavor = json.loads(run("inspect", package, "--json"))["load"]["candidates"][0]
    runs = "; ".join(flavor["would_run"]) or "no code of the package"
    print(f"   inspected: flavor {flavor['flavor']}, class {flavor['class']}, loading runs {runs}")
    run("verify", package)
    run("test", package)
    print("   verified; tested against its own example")

    tally.check("modelpack.load", list(modelpack.load(package).predict(case.data)))

    with serving(package, folder / f"{case.name}.log") as address:
        for form, (kind, text) in bodies(case.data).items():
            body = folder / f"{case.name}.{form}"
            body.write_text(text, encoding="utf-8")
            tally.check(f"curl, {form}", predictions(curl(f"{address}/invocations", kind=kind, body=body)))

    tally.check(*batch(case, package, folder))
    return tally.wrong


def batch(case: Case, package: Path, folder: Path) -> tuple[str, list[Any]]:
    """Score a file and return how, and the answers read from the other file."""
    if isinstance(case.data, np.ndarray):
        source = folder / f"{case.name}.jsonl"
        source.write_text("".join(json.dumps({"input": row}) + "\n" for row in case.data.tolist()), encoding="utf-8")
        target = folder / f"{case.name}-scored.jsonl"
    else:
        source, target = folder / f"{case.name}.csv", folder / f"{case.name}-scored.parquet"
        case.data.to_csv(source, index=False)
    run("predict", package, "-i", source, "-o", target)
    if target.suffix == ".parquet":
        answers = pd.read_parquet(target)["prediction"].tolist()
    else:
        answers = [json.loads(line)["prediction"] for line in target.read_text(encoding="utf-8").splitlines()]
    return f"predict, {source.suffix[1:]} to {target.suffix[1:]}", answers


def main() -> int:
    """Run the three cases; return 1 if any answer differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all without")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="leave the packages and files in this new directory")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}")
    keep = options.keep
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="modelpack-demo-") as scratch:
        if keep:
            keep.mkdir(parents=True)
        folder = (keep or Path(scratch)).resolve()
        wrong = sum(show(CASES[name](), folder) for name in options.cases or CASES)
    seconds = time.perf_counter() - start
    if keep:
        print(f"\nThe packages, requests and scored files are in {folder}")
    verdict = "Every answer equals the model’s own" if not wrong else f"{wrong} ways gave a wrong answer"
    print(f"\n{verdict}; {seconds:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
