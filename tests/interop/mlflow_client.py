"""MLflow's own client against our server: the answers must be the estimator's.

Run by scripts/interop with two interpreters, one that has modelpack and scikit-learn and one that has MLflow::

    python tests/interop/mlflow_client.py <python with modelpack> <python with mlflow>

The first packs and serves models and writes down what ``estimator.predict`` says; the second asks the server through
``mlflow.pyfunc.scoring_server.client.ScoringServerClient``, as any user of MLflow would, and compares.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()


def pack(folder: Path) -> None:
    """Save the models, and for each the rows to send and the answers to expect."""
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    import modelpack

    def write(name: str, model: Any, rows: Any, *, example: Any, method: str | None = None) -> None:
        modelpack.save(model, folder / name, example=example, name=name)
        answer = getattr(model, method or "predict")(rows)
        kind = "frame" if isinstance(rows, pd.DataFrame) else "array"
        if kind == "frame":
            rows.to_pickle(folder / f"{name}.rows.pickle")
        else:
            np.save(folder / f"{name}.rows.npy", rows)
        case = {"kind": kind, "params": {"method": method} if method else None, "expected": answer.tolist()}
        (folder / f"{name}.case.json").write_text(json.dumps(case))

    # Floats only, one row and many, and params.
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    write("floats", scaled, x, example=x.head())
    write("one-row", scaled, x.tail(1), example=x.head())
    write("params", scaled, x, example=x.head(), method="predict_proba")

    # Strings, missing values, integers, an index that is not 0..n.
    generator = np.random.default_rng(7)
    n = 200
    index = pd.Index(np.arange(n) * 3 + 1)
    table = pd.DataFrame(
        {
            "island": generator.choice(["Biscoe", "Dream", "Torgersen"], n),
            "sex": pd.Series(generator.choice(["male", "female"], n), dtype=object, index=index).where(index % 5 != 0),
            "mass": np.where(generator.random(n) < 0.2, np.nan, generator.normal(4200, 800, n)),
            "age": generator.integers(1, 15, n),
        },
        index=index,
    )
    labels = np.where(table["mass"].fillna(4000) + 100 * table["age"] > 5000, "large", "small")
    mixed = make_pipeline(
        ColumnTransformer(
            [
                ("text", OneHotEncoder(handle_unknown="ignore"), ["island"]),
                ("holes", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["sex"]),
                ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["mass", "age"]),
            ]
        ),
        LogisticRegression(max_iter=1000),
    ).fit(table, labels)
    write("mixed", mixed, table, example=table.head(20))

    # Missing values straight into the model.
    holes = x.mask(generator.random(x.shape) < 0.1)
    boosted = HistGradientBoostingClassifier(max_iter=20).fit(holes, y)
    write("missing", boosted, holes, example=holes.head(50))

    # An array. (MLflow 3.17's client fails by itself on a dict of arrays: it iterates over the dict's keys.)
    digits, target = load_digits(return_X_y=True)
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(digits, target)
    write("array", plain, digits[:300], example=digits[:5])


def ask(folder: Path, name: str, port: int) -> None:
    """Ask the server through MLflow's client, and compare."""
    import numpy as np
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", port)
    client.wait_server_ready(timeout=30)
    case = json.loads((folder / f"{name}.case.json").read_text())
    rows: Any = (
        pd.read_pickle(folder / f"{name}.rows.pickle")
        if case["kind"] == "frame"
        else np.load(folder / f"{name}.rows.npy")
    )
    expected = np.asarray(case["expected"])
    answer = client.invoke(rows, params=case["params"])
    got = np.asarray(answer["predictions"])
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    else:
        assert (got == expected).all()
    assert len(answer.get_predictions()) == len(expected)
    version = client.get_version()
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version), version
    try:
        client.invoke(pd.DataFrame({"nothing": ["m4rk3r"]}))
    except Exception as exc:
        text = str(exc)
        assert "error code 400" in text, text
        problem = json.loads(text.partition("response: ")[2].removesuffix(")"))
        assert problem["error_code"] == "BAD_REQUEST"
        assert problem["message"]
        assert "m4rk3r" not in text
    else:
        raise AssertionError("a table without the model's columns was scored")
    print(f"{name}: {len(expected)} predictions equal to the estimator's")


def serve_and_ask(modelpack: str, mlflow: str) -> int:
    """Serve each model in turn and let MLflow's client ask."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        subprocess.run([modelpack, str(HERE), "pack", place], check=True)
        failed = 0
        for case in sorted(folder.glob("*.case.json")):
            name = case.name.removesuffix(".case.json")
            command = [modelpack, "-m", "modelpack", "serve", str(folder / name)]
            server = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
            try:
                assert server.stdout is not None
                found = re.search(r":(\d+) ", server.stdout.readline())
                assert found, f"{name} was not served"
                failed += subprocess.run([mlflow, str(HERE), "ask", place, name, found[1]]).returncode != 0
            finally:
                server.terminate()
                server.wait()
        return 1 if failed else 0


def main() -> int:
    if len(sys.argv) > 1 and sys.argv[1] == "pack":
        pack(Path(sys.argv[2]))
        return 0
    if len(sys.argv) > 1 and sys.argv[1] == "ask":
        ask(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modelpack", help="an interpreter with modelpack[sklearn]")
    parser.add_argument("mlflow", help="an interpreter with mlflow")
    arguments = parser.parse_args()
    return serve_and_ask(arguments.modelpack, arguments.mlflow)


if __name__ == "__main__":
    sys.exit(main())
