"""Every estimator of scikit-learn that can be fitted: saved, loaded by a stranger, and asked the same questions."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import warnings
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelpack
from modelpack.errors import SaveError, UsageError
from modelpack.flavor import LoadContext, SaveContext
from modelpack_flavors._sklearn.predictor import Scorer
from modelpack_flavors.sklearn import FLAVOR

SCRIPT = Path(__file__).parents[2] / "scripts" / "sklearn-coverage"


def loaded(name: str, path: Path) -> Any:
    """Import a script as a module."""
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@functools.cache
def fitted() -> dict[str, Any]:
    """Return every estimator by its name, fitted once by whoever runs a test of these, not by who only collects."""
    with warnings.catch_warnings():
        # Estimators that are on their way out say so when they are made; that is not the point here.
        warnings.simplefilter("ignore")
        return {one.name: one for one in COVERAGE.fitted()}


COVERAGE = loaded("sklearn_coverage", SCRIPT)
COVERAGE.all_estimators = functools.cache(COVERAGE.all_estimators)  # asked for every estimator
NAMES = {name for name, _ in COVERAGE.all_estimators()}
MUTE = {
    "AgglomerativeClustering", "ClassicalMDS", "DBSCAN", "HDBSCAN", "LocalOutlierFactor", "MDS", "NearestNeighbors",
    "OPTICS", "SpectralBiclustering", "SpectralClustering", "SpectralCoclustering", "SpectralEmbedding", "TSNE",
}  # fmt: skip
REFUSED = {"Birch": "a _CFNode in the model contains itself"}


class Folder:
    """The files of a payload, as the core hands them to a flavor."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, path: str) -> bytes:
        return (self._path / path).read_bytes()

    def paths(self) -> list[str]:
        return sorted(one.name for one in self._path.iterdir())

    def directory(self) -> Path:
        return self._path


def reloaded(model: Any, folder: Path) -> Any:
    """Save and load with the flavor alone, without any grant."""
    saved = FLAVOR.save(model, SaveContext(directory=folder, options={}))
    context = LoadContext(
        format=saved.format,
        entry=saved.entry,
        files=Folder(folder),
        config=json.loads(json.dumps(saved.config)),
        entrypoint=None,
        code_allowed=False,
        namespace=None,
        signature=None,
    )
    return FLAVOR.load(context)


def equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            equal(left, right)
    elif hasattr(one, "toarray"):
        assert one.shape == other.shape and (one != other).nnz == 0
    else:
        np.testing.assert_array_equal(one, other)


def test_all_estimators_could_be_fitted() -> None:
    assert set(fitted()) == NAMES
    assert [one.name for one in fitted().values() if one.model is None] == []


def test_nine_of_ten_that_score_load_without_a_grant() -> None:
    scoring = len(fitted()) - len(MUTE)
    assert (scoring - len(REFUSED)) / scoring > 0.99


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # log of a probability of zero, in scikit-learn
@pytest.mark.parametrize("name", sorted(NAMES - MUTE - set(REFUSED)))
def test_a_stranger_gets_the_same_answers(name: str, tmp_path: Path) -> None:
    one = fitted()[name]
    rows = np.array(one.rows, dtype=object) if isinstance(one.rows, list) else one.rows.copy()
    again = reloaded(one.model, tmp_path)
    assert isinstance(again, Scorer)
    for method in again.methods:
        expected = getattr(one.model, method)(rows.copy())
        equal(again.predict(rows.copy(), {"method": method}), expected)


@pytest.mark.parametrize("name", sorted(MUTE))
def test_what_scores_no_new_rows_is_no_model(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no method that scores new rows") as info:
        FLAVOR.save(fitted()[name].model, SaveContext(directory=tmp_path, options={}))
    assert info.value.code == "model-scores-nothing"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_stored_is_refused_and_a_way_on_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=REFUSED[name]) as info:
        modelpack.save(fitted()[name].model, tmp_path / "pkg")
    assert info.value.code == "model-unsupported"
    assert "pickle" in info.value.hint
    assert list(tmp_path.iterdir()) == []
    package = modelpack.save(fitted()[name].model, tmp_path / "pkg", options={"format": "pickle"})
    rows = fitted()[name].rows
    equal(modelpack.load(package.path).predict(rows), fitted()[name].model.predict(rows))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_skops_itself_reads_what_is_written(tmp_path: Path) -> None:
    """The nodes are skops' nodes: skops builds the same models out of them."""
    import skops.io

    from modelpack.audits import skops as audits

    for name in sorted(set(fitted()) - MUTE - set(REFUSED)):
        one = fitted()[name]
        folder = tmp_path / name
        folder.mkdir()
        FLAVOR.save(one.model, SaveContext(directory=folder, options={}))
        data = (folder / "model.skops").read_bytes()
        found, _ = audits.inspect(data, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = skops.io.loads(data, trusted=list(found.types))
        assert type(theirs) is type(one.model)
        rows = np.array(one.rows, dtype=object) if isinstance(one.rows, list) else one.rows
        method = "predict" if hasattr(theirs, "predict") else "transform" if hasattr(theirs, "transform") else None
        if method is not None and name != "DummyClassifier":
            equal(getattr(theirs, method)(rows.copy()), getattr(one.model, method)(rows.copy()))


@pytest.mark.filterwarnings("ignore")  # classes on their way out say so
def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """Hash seeds and addresses differ from process to process; the files do not."""
    models = pickle.dumps({name: one.model for name, one in fitted().items() if name not in MUTE | set(REFUSED)})
    (tmp_path / "models.pkl").write_bytes(models)
    script = Path(__file__).with_name("sklearn_digests.py")
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    ran = subprocess.run(
        [sys.executable, script, tmp_path / "models.pkl"], env=environment, capture_output=True, check=True
    )
    ours = loaded("sklearn_digests", script).digests(pickle.loads(models))
    assert len(ours) == len(fitted()) - len(MUTE) - len(REFUSED)
    assert json.loads(ran.stdout) == ours


def test_saving_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for i in range(2):
        folder = tmp_path / str(i)
        folder.mkdir()
        FLAVOR.save(fitted()["RandomForestClassifier"].model, SaveContext(directory=folder, options={}))
        digests.add(hashlib.sha256((folder / "model.skops").read_bytes()).hexdigest())
    assert len(digests) == 1
