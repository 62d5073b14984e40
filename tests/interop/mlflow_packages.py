"""Packages saved with ``also=("mlflow",)``, loaded, served and asked by the real MLflow: the answers must be ours.

Called as ``mlflow_packages.py PYTHON``, PYTHON being one that has MLflow and everything that this one has; run by
scripts/interop.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import modelpack
from modelpack import coerce, forms, render

SERVED = ("sklearn", "torch", "python")

# Asks MLflow's load_model, and its own flavors where the package names them.
ASK = """
import io, json, pickle, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy as np, pandas as pd
from mlflow.pyfunc.scoring_server import predictions_to_json

folder = sys.argv[1]
answers = {}
for name, rows in pickle.load(open(folder + "/rows.pickle", "rb")).items():
    place = folder + "/" + name
    model = mlflow.pyfunc.load_model(place)
    assert model.metadata.signature is not None and model.input_example is not None, name
    predictions_to_json(model.predict(rows), out := io.StringIO())
    native = sorted(model.metadata.flavors)
    answers[name] = {"answer": json.loads(out.getvalue())["predictions"], "native": native}
    if "xgboost" in native:
        answers[name]["own"] = mlflow.xgboost.load_model(place).predict(rows).tolist()
    if "lightgbm" in native:
        answers[name]["own"] = mlflow.lightgbm.load_model(place).predict(rows).tolist()
    if "onnx" in native:
        mlflow.onnx.load_model(place)
json.dump(answers, open(folder + "/answers.json", "w"))
"""


def double(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """A model that is nothing but a function."""
    return {"double": [2 * value for value in rows["x"]], "text": [f"<{word}>" for word in rows["word"]]}


def models() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """Return a model, its rows and further arguments of ``save`` for each case."""
    import lightgbm
    import torch
    import xgboost
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    booster = lightgbm.train({"verbose": -1, "objective": "regression"}, lightgbm.Dataset(x, y), 5)
    boosted = xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(x, y)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    words = pd.DataFrame({"x": [1.5, 2.0, np.nan], "word": ["a", "ä", "1"]})
    return {
        "sklearn": (pipeline, x, {"also": ("onnx", "mlflow")}),
        "xgboost": (boosted, x, {}),
        "lightgbm": (booster, x, {}),
        "onnx": (_graph(pipeline, x), x, {}),
        "torch": (network, x.to_numpy(np.float32), {}),
        "python": (double, words, {}),
    }


def _graph(pipeline: Any, x: pd.DataFrame) -> Any:
    import skl2onnx

    return skl2onnx.to_onnx(pipeline, x.to_numpy(np.float32)[:1], options={"zipmap": False}, target_opset=18)


def main(python: str) -> int:
    """Save, ask MLflow, compare; return the number of differences."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MODELPACK_TRUST_STORE"] = str(folder / "trust")
        rows, wanted, bodies = {}, {}, {}
        for case, (model, data, more) in models().items():
            package = modelpack.save(model, folder / case, example=data[:20], **{"also": ("mlflow",), **more})
            loaded = modelpack.load(package)
            frame = coerce.inputs(data, loaded.signature)
            body = forms.build(frame) if isinstance(data, pd.DataFrame) else {"inputs": data.tolist()}
            rows[case], bodies[case] = data, json.dumps(body).encode()
            wanted[case] = render.plain(loaded.score(frame, coerce.params(None, loaded.signature)))
        pd.to_pickle(rows, folder / "rows.pickle")
        done = subprocess.run([python, "-c", ASK, name], capture_output=True, text=True)
        if done.returncode:
            print(done.stderr)
            return 1
        failed = 0
        for case, found in json.loads((folder / "answers.json").read_text()).items():
            failed += report(f"load_model {case} ({', '.join(found['native'])})", found["answer"], wanted[case])
            if "own" in found:
                failed += report(f"MLflow's own flavor {case}", found["own"], wanted[case])
        for case in SERVED:
            failed += report(f"models serve {case}", served(python, folder / case, bodies[case]), wanted[case])
        answer = predicted(python, folder / "xgboost", bodies["xgboost"], folder)
        return failed + report("models predict xgboost", answer, wanted["xgboost"])


def report(what: str, got: Any, wanted: Any) -> int:
    """Print whether the answers are the same as JSON; MLflow writes NaN where we write null."""
    got = json.loads(json.dumps(got), parse_constant=lambda name: None if name == "NaN" else name)
    same = bool(got == json.loads(json.dumps(wanted)))
    print(f"{'ok  ' if same else 'FAIL'} {what}")
    if not same:
        print(f"     {str(got)[:300]}\n     {str(wanted)[:300]}")
    return int(not same)


def served(python: str, package: Path, body: bytes) -> Any:
    """Return what ``mlflow models serve`` answers to a request."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "mlflow", "models", "serve", "-m", str(package), "--env-manager", "local", "-p", str(port)]
    log = package.parent / f"{package.name}.log"
    with log.open("wb") as out:
        server = subprocess.Popen([*command, "-w", "1"], stdout=out, stderr=out, env=_environ(python))
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        asked = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return json.load(reply)["predictions"]
    except OSError as exc:
        return f"{exc}: {log.read_text()[-2000:]}"
    finally:
        server.terminate()
        server.wait()


def predicted(python: str, package: Path, body: bytes, folder: Path) -> Any:
    """Return what ``mlflow models predict`` writes for a file."""
    (folder / "in.json").write_bytes(body)
    command = [python, "-m", "mlflow", "models", "predict", "-m", str(package), "--env-manager", "local"]
    files = ["-i", str(folder / "in.json"), "-o", str(folder / "out.json"), "-t", "json"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, env=_environ(python))
    return json.loads((folder / "out.json").read_text())["predictions"] if not done.returncode else done.stderr[-2000:]


def _environ(python: str) -> dict[str, str]:
    """MLflow starts its server by name, so its programs come first."""
    return {**os.environ, "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
