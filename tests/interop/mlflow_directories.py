"""Directories that the real MLflow writes, loaded here: the answers must be those of MLflow's own ``load_model``.

Called as ``mlflow_directories.py PYTHON``, PYTHON being one that has MLflow; run by scripts/interop.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import modelpack

WRITE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy as np
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

out = sys.argv[1]
x, y = load_iris(return_X_y=True, as_frame=True)
model = LogisticRegression(max_iter=500).fit(x, y)
signature = infer_signature(x, model.predict(x))
own = {"pip_requirements": ["scikit-learn"], "signature": signature}
mlflow.sklearn.save_model(model, out + "/skops", input_example=x.head(3), **own)
mlflow.sklearn.save_model(model, out + "/cloudpickle", serialization_format="cloudpickle", **own)
mlflow.sklearn.save_model(model, out + "/proba", pyfunc_predict_fn="predict_proba", **own)
open(out + "/half_loader.py", "w").write(
    "class Model:\\n    def predict(self, df):\\n        return df.iloc[:, 0] / 2\\n"
    "def _load_pyfunc(path):\\n    return Model()\\n"
)
mlflow.pyfunc.save_model(
    out + "/loader", loader_module="half_loader", code_paths=[out + "/half_loader.py"], **own
)
import os, torch
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).eval()
own["pip_requirements"] = ["torch"]
mlflow.pytorch.save_model(net, out + "/torch", serialization_format="pickle", **own)
mlflow.pytorch.save_model(torch.jit.script(net), out + "/torchscript", serialization_format="pickle", **own)
answers = {}
for name in ("skops", "cloudpickle", "proba", "loader", "torch", "torchscript"):
    answers[name] = np.asarray(mlflow.pyfunc.load_model(out + "/" + name).predict(x.head(20))).tolist()
json.dump({"answers": answers, "rows": x.head(20).to_dict("list")}, open(out + "/answers.json", "w"))
"""


def main(python: str) -> int:
    """Write the directories with MLflow, load them here, compare; return the number of differences."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([python, "-c", WRITE, folder], capture_output=True, text=True)
        if done.returncode:
            print(done.stderr)
            return 1
        facts: dict[str, Any] = json.loads((Path(folder) / "answers.json").read_text())
        rows = pd.DataFrame(facts["rows"])
        for name, wanted in facts["answers"].items():
            package = modelpack.open(Path(folder) / name)
            model = modelpack.load(package, allow_code=package.digest)
            same = np.array_equal(np.asarray(model.predict(rows)), np.asarray(wanted))
            failed += not same
            candidate = model.candidate
            print(f"{'ok  ' if same else 'FAIL'} directory {name}: flavor {candidate.name}, class {candidate.trust}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
