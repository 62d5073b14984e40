"""Packages that bring code of their own live in one process, whatever their modules are called."""

from __future__ import annotations

import gc
import importlib
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

import modelpack
from modelpack.sources import PREFIX
from modelpack.trust import default_store

X = np.arange(6.0).reshape(3, 2)

HELPER = """
SCALE = {number}
def scale(x):
    return x * SCALE
"""

PYTHON = """
import importlib
import helper
from helper import scale

class Model:
    def predict(self, data):
        import helper as again
        assert again is helper and importlib.import_module("helper") is helper
        return scale(data).sum(axis=1)

def predict(data):
    return Model().predict(data)
"""

SKLEARN = """
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from helper import scale

class Scale(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        from helper import SCALE
        return scale(X) + SCALE

class Sum(LinearRegression):
    def predict(self, X):
        return X.sum(axis=1)

def make(X):
    return make_pipeline(Scale(), FunctionTransformer(scale), Sum()).fit(X, X[:, 0])
"""

TORCH = """
import torch
import helper

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x):
        import helper as again
        return again.scale(x) @ self.weight + helper.SCALE
"""

# Kind -> (source of the module `features`, what makes the model of it, options of save).
KINDS: dict[str, tuple[str, Callable[[Any], Any], dict[str, Any]]] = {
    "python source": (PYTHON, lambda features: features.predict, {}),
    "python pickle": (PYTHON, lambda features: features.Model(), {}),
    "sklearn skops": (SKLEARN, lambda features: features.make(X), {}),
    "sklearn pickle": (SKLEARN, lambda features: features.make(X), {"format": "pickle"}),
    "torch weights": (TORCH, lambda features: features.Net(), {"format": "safetensors"}),
    "torch pickle": (TORCH, lambda features: features.Net(), {"format": "torch-pickle"}),
}


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    finders = list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.startswith(PREFIX)]:
        del sys.modules[name]


@contextmanager
def project(folder: Path, **files: str) -> Iterator[Any]:
    """Give the module ``features`` of a project, imported as from its directory, and forget it."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    sys.path.insert(0, str(folder))
    before = set(sys.modules)
    importlib.invalidate_caches()
    try:
        yield importlib.import_module("features")
    finally:
        sys.path.remove(str(folder))
        for name in ("features", "helper"):
            if name not in before:
                sys.modules.pop(name, None)


def saved(folder: Path, kind: str, number: int) -> tuple[modelpack.Package, np.ndarray]:
    """Save a model whose answers tell which ``helper`` it uses; return what it answers to X."""
    source, make, options = KINDS[kind]
    with project(folder / "project", features=source, helper=HELPER.format(number=number)) as features:
        package = modelpack.save(
            make(features),
            folder / "package",
            example=X,
            options=options,
            code=[folder / "project" / "features.py", folder / "project" / "helper.py"],
            name=f"n{number}",
        )
        answer = modelpack.load(package).predict(X)
    return package, np.asarray(answer)


Two = list[tuple[modelpack.Package, np.ndarray]]


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Two:
    """Two packages whose code has the same module names."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELPACK_TRUST_STORE", str(folder / "store"))
        found = [saved(folder / str(number), request.param, number) for number in (10, 1000)]
    assert not np.array_equal(found[0][1], found[1][1])
    assert [package.plan().candidates[0].trust for package, _ in found] == ["code", "code"]
    return found


@pytest.fixture
def two(made: Two) -> Two:
    """The same, allowed to whoever runs the test."""
    for package, _ in made:
        default_store().add(package.digest, name=package.manifest.name, version="1", source="saved")
    return made


def test_each_keeps_its_own_whatever_the_order(two: Two) -> None:
    path, finders, before = list(sys.path), list(sys.meta_path), dict(sys.modules)
    models = [modelpack.load(package) for package, _ in two]
    for turn in (0, 1, 1, 0, 1, 0):
        np.testing.assert_array_equal(models[turn].predict(X), two[turn][1])
    assert sys.path == path
    assert sys.meta_path[: len(finders)] == finders
    assert {name: sys.modules[name] for name in before} == before
    own = [name for name in sys.modules.keys() - before.keys() if "features" in name or "helper" in name]
    assert all(name.startswith(PREFIX) for name in own)
    assert {"features", "helper"} & sys.modules.keys() == set()


def test_each_keeps_its_own_in_threads(two: Two) -> None:
    """Both are loaded by several threads at once, and then score in turns."""
    threads = 6
    start = Barrier(threads)

    def work(number: int) -> None:
        start.wait(timeout=60)
        models = [modelpack.load(package.path) for package, _ in two]
        for turn in range(20):
            which = (turn + number) % 2
            np.testing.assert_array_equal(models[which].predict(X), two[which][1])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def test_a_module_of_the_same_name_on_the_path_is_not_touched(two: Two, tmp_path: Path) -> None:
    with project(tmp_path / "mine", features="from helper import SCALE", helper="SCALE = 'mine'") as features:
        for package, answer in two:
            np.testing.assert_array_equal(modelpack.load(package).predict(X), answer)
        assert sys.modules["features"] is features
        assert sys.modules["helper"].SCALE == "mine"


@pytest.fixture
def unfrozen() -> Iterator[None]:
    """Give the collector all objects back that a test has put aside."""
    yield
    gc.unfreeze()


def instances() -> list[str]:
    """Return the types of all live objects whose class is in the code of a package."""
    gc.collect()
    return [kind.__name__ for kind in map(type, gc.get_objects()) if str(kind.__module__).startswith(PREFIX)]


@pytest.mark.usefixtures("unfrozen")
def test_a_model_goes_and_comes_again(two: Two) -> None:
    """Modules stay, as all modules do, and are the same ones when the package is loaded again; models do not stay."""
    package, answer = two[0]
    assert instances() == []
    gc.freeze()  # what is there now is none, and need not be looked at again: it is a million objects
    model = modelpack.load(package)
    model.predict(X)
    flavor, entrypoint = package.manifest.flavors[0].name, package.manifest.flavors[0].entrypoint
    assert bool(instances()) != (flavor == "python" and entrypoint is not None)  # a function has no object
    modules = {name: module for name, module in sys.modules.items() if name.startswith(PREFIX)}
    gone = weakref.ref(model)
    del model
    assert instances() == []
    assert gone() is None
    np.testing.assert_array_equal(modelpack.load(package.path).predict(X), answer)
    assert {name: module for name, module in sys.modules.items() if name.startswith(PREFIX)} == modules


SHADOWS = {
    "json": "dumps = 'mine'",
    "numpy____init__": "ndarray = 'mine'",
    "sklearn____init__": "base = 'mine'",
    "torch____init__": "nn = 'mine'",
    "modelpack____init__": "load = 'mine'",
}
SHADOWED = """
import json, numpy, sklearn, torch, modelpack
def predict(data):
    return [len(json.dumps + numpy.ndarray + sklearn.base + torch.nn + modelpack.load)] * len(data)
"""


def test_no_code_shadows_an_installed_module_for_others(tmp_path: Path) -> None:
    others = [saved(tmp_path / kind, kind, 7) for kind in ("python source", "sklearn skops", "torch weights")]
    names = ("json", "numpy", "sklearn", "torch", "modelpack")
    before = {name: importlib.import_module(name) for name in names}
    folder = tmp_path / "shadows"
    paths = {name: name.replace("____", "/__") + ".py" for name in SHADOWS}
    for name, text in SHADOWS.items():
        (folder / paths[name]).parent.mkdir(parents=True, exist_ok=True)
        (folder / paths[name]).write_text(text)

    with project(tmp_path / "project", features="def predict(data):\n    return [20] * len(data)") as features:
        code = [tmp_path / "project" / "features.py", *(folder / path.partition("/")[0] for path in paths.values())]
        # The module as its package will have it: outside of a package it would not find what it imports.
        (tmp_path / "project" / "features.py").write_text(SHADOWED)
        package = modelpack.save(features.predict, tmp_path / "package", example=X, code=code)

    model = modelpack.load(package)
    assert list(model.predict(X)) == [20, 20, 20]
    assert {name: sys.modules[name] for name in names} == before
    assert importlib.import_module("json").dumps([1]) == "[1]"
    for package, answer in others:
        np.testing.assert_array_equal(modelpack.load(package.path).predict(X), answer)


def test_what_a_skops_file_is_built_of_is_never_the_packages_own(tmp_path: Path) -> None:
    """A class that is on our list is the installed one, also if the package has a module of its name."""
    folder = tmp_path / "project"
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise AssertionError('imported')")
    code = [folder / "features.py", folder / "helper.py", tmp_path / "numpy"]
    with project(folder, features=SKLEARN, helper=HELPER.format(number=3)) as features:
        model = features.make(X)
        expected = model.predict(X)
        package = modelpack.save(model, tmp_path / "package", example=X, code=code)
    loaded = modelpack.load(package)
    np.testing.assert_array_equal(loaded.predict(X), expected)
    with pytest.raises(AssertionError, match="imported"):
        package.namespace(package.manifest.flavors[0]).import_module("numpy")
