"""Models for the contract: functions, classes, instances; from source files and as cloudpickles."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FRAME = pd.DataFrame({"a": [1.0, 2.0, None], "b": [1, 2, 3], "c": ["x", "y", "z"]})


def case(model: Any, example: Any, answer: Any, **more: Any) -> types.SimpleNamespace:
    fields = {"options": {}, "code": (), "bad_example": pd.DataFrame({"nothing": ["of use"]}), "reproducible": True}
    return types.SimpleNamespace(model=model, example=example, answer=answer, **{**fields, **more})


def function() -> types.SimpleNamespace:
    def predict(df: pd.DataFrame, *, factor: float = 2.0) -> pd.DataFrame:
        return pd.DataFrame({"score": df["a"] * factor, "label": df["c"] + "!"})

    return case(predict, FRAME, predict(FRAME))


def array_function() -> types.SimpleNamespace:
    def predict(x: np.ndarray) -> np.ndarray:
        return x.sum(axis=1)

    data = np.arange(6.0).reshape(3, 2)
    return case(predict, data, predict(data), bad_example=np.array([1.0]), options={"form": "numpy"})


def records() -> types.SimpleNamespace:
    def predict(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"n": len(row["tags"]), "first": row["tags"][0]} for row in rows]

    rows = [{"tags": ["a", "b"]}, {"tags": ["c"]}]
    return case(predict, rows, predict(rows), bad_example=[{"x": 1}], options={"form": "records"})


def instance() -> types.SimpleNamespace:
    class Threshold:
        def __init__(self, at: float) -> None:
            self.at = at

        def predict(self, df: pd.DataFrame) -> np.ndarray:
            return (df["a"] > self.at).to_numpy()

    model = Threshold(1.5)
    # cloudpickle gives a class that it writes by value a random id.
    return case(model, FRAME, model.predict(FRAME), reproducible=False)


SOURCE = """
from scales_of_contract import SCALE

class Model:
    def predict(self, data, params):
        return data["a"].fillna(0).to_numpy() * SCALE

def predict(data):
    return Model().predict(data, {})
"""


def _imported(name: str) -> tuple[types.ModuleType, list[Path]]:
    """Write a module and its helper to files, import it as a script on ``sys.path`` would, and return both."""
    folder = Path(tempfile.mkdtemp())
    (folder / "scales_of_contract.py").write_text("SCALE = 10")
    (folder / f"{name}.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    sys.modules.pop("scales_of_contract", None)
    try:
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module, [folder / f"{name}.py", folder / "scales_of_contract.py"]


def source_function() -> types.SimpleNamespace:
    module, files = _imported("contract_function")
    return case(module.predict, FRAME, module.predict(FRAME), code=files)


def source_class() -> types.SimpleNamespace:
    module, files = _imported("contract_class")
    return case(module.Model, FRAME, module.predict(FRAME), code=files)


def source_instance() -> types.SimpleNamespace:
    module, files = _imported("contract_instance")
    return case(module.Model(), FRAME, module.predict(FRAME), code=files)


CASES = {
    "function": function,
    "array_function": array_function,
    "records": records,
    "instance": instance,
    "source_function": source_function,
    "source_class": source_class,
    "source_instance": source_instance,
}
