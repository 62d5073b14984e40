"""Writes a trained model as MLflow does, with the signature that it recommends: `pack_mlflow.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import infer_signature


def main() -> None:
    """Write FOLDER/mlflow."""
    folder = Path(sys.argv[1])
    rows, want = np.load(folder / "rows.npy"), np.load(folder / "want.npy")
    target = str(folder / "mlflow")
    if (folder / "named.joblib").exists():
        import joblib
        import pandas as pd

        model = joblib.load(folder / "named.joblib")
        signature = infer_signature(pd.DataFrame(rows, columns=list(model.feature_names_in_)), want)
        mlflow.sklearn.save_model(model, target, signature=signature, serialization_format="cloudpickle")
    elif (folder / "model.pt").exists():
        import torch

        module = torch.load(folder / "model.pt", weights_only=False)
        mlflow.pytorch.save_model(module, target, signature=infer_signature(rows, want), serialization_format="pickle")
    else:
        import onnx

        graph = onnx.load(folder / "model.onnx")
        mlflow.onnx.save_model(graph, target, signature=infer_signature(rows, want))


if __name__ == "__main__":
    main()
