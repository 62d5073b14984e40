"""Loads what models.py trained as one function from array to array, for the peers whose apps one writes oneself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(folder: str) -> tuple[Callable[[Any], Any], str]:
    """Return the model's function and the dtype of the array that it takes."""
    root = Path(folder)
    if (root / "plain.joblib").exists():
        import joblib

        return joblib.load(root / "plain.joblib").predict, "float64"
    if (root / "model.pt").exists():
        import torch

        module = torch.load(root / "model.pt", weights_only=False).eval()

        def run(data: Any) -> Any:
            with torch.inference_mode():
                return module(torch.from_numpy(data)).numpy()

        return run, "float32"
    import onnxruntime

    session = onnxruntime.InferenceSession(str(root / "model.onnx"), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda data: session.run(None, {name: data})[0], "float32"
