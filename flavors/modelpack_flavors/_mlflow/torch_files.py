"""Files of MLflow's pytorch flavor: which there is, and what kind of file it is; none of it is read by torch here."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelpack.errors import PackageError
from modelpack.signature import Signature, Tensors

__all__ = ["feed", "find"]

# Below the directory that the flavor names, the safest first.
_NAMES = ("model.pt2", "model.pth")
_MAX_MEMBERS = 100_000


def find(config: Mapping[str, Any], root: Path, paths: tuple[str, ...]) -> tuple[str, str]:
    """Return the model's file and the format it is in.

    Raises:
        PackageError: the flavor names no file of the directory (``mlmodel-file-missing``).
    """
    place = config.get("model_data", "")
    for entry in (*(f"{place}/{name}" for name in _NAMES), place):
        if entry in paths:
            return entry, _format(root / entry)
    raise PackageError(
        "names no file of the directory", code="mlmodel-file-missing", path="MLmodel.flavors.pytorch.model_data"
    )


def _format(file: Path) -> str:
    """Return the format of a file; both of those that are told apart by its inside are class code."""
    if file.suffix == ".pt2":
        return "pt2"
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()[:_MAX_MEMBERS]
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return "torch-pickle"
    scripted = any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)
    return "torchscript" if scripted else "torch-pickle"


def feed(signature: Signature) -> dict[str, Any]:
    """Return how the model takes its data: as MLflow does, a table is a matrix of float32 and an array as it is."""
    dtype = "float32"
    if isinstance(signature.inputs, Tensors):
        dtype = signature.inputs.tensors[0].dtype
    return {"inputs": [{"name": "input", "dtype": dtype}], "call": "one", "columns": False}
