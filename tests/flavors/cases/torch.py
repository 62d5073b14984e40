"""Models for the contract: linear, dicts, images, text as numbers, several inputs; as graphs and with their code."""

from __future__ import annotations

import functools
import importlib.util
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

torch.set_num_threads(1)

SOURCE = """
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        logits = self.head(self.body(x))
        return {"logits": logits, "label": logits.argmax(-1), "probability": logits.softmax(-1)}


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(64, 5)

    def forward(self, image):
        return self.head(self.body(image).flatten(1))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 6)
        self.reader = nn.LSTM(6, 7, batch_first=True)

    def forward(self, ids):
        seen, (last, _) = self.reader(self.words(ids))
        return seen.mean(1), last[0]


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.users = nn.Embedding(9, 4)
        self.mix = nn.Linear(4, 2)

    def forward(self, user, features, scale=None):
        mixed = self.mix(features) if scale is None else self.mix(features) * scale
        return (self.users(user)[:, :2] * mixed).sum(-1)


class Sized(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)
"""


@functools.cache
def source() -> tuple[types.ModuleType, Path]:
    """Write the models to a file of their own and import it, as a user's module."""
    path = Path(tempfile.mkdtemp(prefix="torch-")) / "contract_torch.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("contract_torch", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["contract_torch"] = module
    spec.loader.exec_module(module)
    return module, path


def case(name: str, example: Any, *args: Any, **more: Any) -> types.SimpleNamespace:
    module, path = source()
    torch.manual_seed(0)
    model = getattr(module, name)(*args).eval()
    fields = {"options": {}, "code": [path], "bad_example": pd.DataFrame({"nothing": ["of use"]}), "reproducible": True}
    return types.SimpleNamespace(model=model, example=example, **{**fields, **more})


def answer(model: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.inference_mode():
        found = model(*args, **kwargs)
    if isinstance(found, dict):
        return {name: tensor.numpy() for name, tensor in found.items()}
    if isinstance(found, tuple):
        return {f"output_{i}": tensor.numpy() for i, tensor in enumerate(found)}
    return found.numpy()


def rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@functools.cache
def linear() -> types.SimpleNamespace:
    """A float64 array for a float32 model."""
    made = case("Linear", rows(5, 3))
    made.answer = answer(made.model, torch.tensor(made.example, dtype=torch.float32))
    return made


@functools.cache
def table() -> types.SimpleNamespace:
    """A data frame whose columns are one matrix."""
    frame = pd.DataFrame(rows(6, 3), columns=["length", "width", "height"])
    made = case("Linear", frame)
    made.answer = answer(made.model, torch.tensor(np.ascontiguousarray(frame.to_numpy()), dtype=torch.float32))
    return made


@functools.cache
def classifier() -> types.SimpleNamespace:
    """A dict of tensors, with layers that work in place or differ in training."""
    made = case("Classifier", rows(4, 4).astype(np.float32))
    made.answer = answer(made.model, torch.tensor(made.example))
    made.model.train()
    return made


@functools.cache
def images() -> types.SimpleNamespace:
    made = case("Images", rows(3, 1, 8, 8).astype(np.float32))
    made.answer = answer(made.model, torch.tensor(made.example))
    return made


@functools.cache
def words() -> types.SimpleNamespace:
    """Integers in, a tuple out."""
    ids = np.random.default_rng(0).integers(0, 20, size=(3, 5))
    made = case("Words", ids)
    made.answer = answer(made.model, torch.tensor(ids))
    return made


@functools.cache
def pair() -> types.SimpleNamespace:
    """Two inputs by name, a third left out."""
    example = {"user": np.array([1, 8, 3]), "features": rows(3, 4)}
    made = case("Pair", example)
    made.answer = answer(made.model, torch.tensor(example["user"]), torch.tensor(example["features"]).float())
    return made


@functools.cache
def branching() -> types.SimpleNamespace:
    """A model that no graph can hold: its weights and its class."""
    made = case("Sized", rows(4, 3), 3, options={"kwargs": {"width": 3}})
    made.answer = answer(made.model, torch.tensor(made.example, dtype=torch.float32))
    return made


@functools.cache
def pickled() -> types.SimpleNamespace:
    made = case("Images", rows(3, 1, 8, 8).astype(np.float32), options={"format": "torch-pickle"})
    made.answer = answer(made.model, torch.tensor(made.example))
    return made


CASES = {
    "linear": linear,
    "table": table,
    "classifier": classifier,
    "images": images,
    "words": words,
    "pair": pair,
    "branching": branching,
    "pickled": pickled,
}
