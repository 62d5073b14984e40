"""What is captured is all that a model needs, and no more: a sample of scripts/env-matrix without an index.

Each package is loaded and tested in a process that can import what was captured, what that requires, and what the
runtime needs by itself; nothing else that is installed here.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import modelpack
from modelpack.environments import locking

WORKER = Path(__file__).with_name("matrix_worker.py")
AGES = '''
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

if TYPE_CHECKING:
    import onnx


class Ages(TransformerMixin, BaseEstimator):
    """Turns dates in any spelling into days."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        from dateutil import parser

        return np.array([[parser.parse(text).toordinal() for text in row] for row in X.to_numpy()], dtype=float)


if __name__ == "__main__":
    import hypothesis
'''
RULES = """
import pandas as pd
import yaml


def score(rows):
    return pd.DataFrame(rows).to_numpy() * yaml.safe_load("2")
"""
DATES = pd.DataFrame({"born": ["1990-05-01", "3 June 1985", "May 2, 2001"]})


def plain(folder: Path) -> tuple[Any, Any, dict[str, Any], set[str]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.random.default_rng(0).random((20, 3))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, x[:, 0] > 0.5)
    return model, x[:3], {}, {"numpy", "scikit-learn", "scipy"}


def transformer(folder: Path) -> tuple[Any, Any, dict[str, Any], set[str]]:
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    (folder / "matrix_ages.py").write_text(AGES)
    ages = importlib.import_module("matrix_ages").Ages()
    model = make_pipeline(ages, LinearRegression()).fit(DATES, [3.0, 5.0, 1.0])
    code = {"code": folder / "matrix_ages.py"}
    return model, DATES, code, {"numpy", "pandas", "python-dateutil", "scikit-learn", "scipy"}


def pickled_transformer(folder: Path) -> tuple[Any, Any, dict[str, Any], set[str]]:
    model, example, more, expected = transformer(folder)
    return model, example, {**more, "options": {"format": "pickle"}}, expected


def function(folder: Path) -> tuple[Any, Any, dict[str, Any], set[str]]:
    (folder / "matrix_rules.py").write_text(RULES)
    score = importlib.import_module("matrix_rules").score
    return score, np.ones((2, 2)), {"code": folder / "matrix_rules.py"}, {"pandas", "pyyaml"}


def pickled_function(folder: Path) -> tuple[Any, Any, dict[str, Any], set[str]]:
    import yaml

    def score(rows: Any) -> Any:
        return pd.DataFrame(rows).to_numpy() * yaml.safe_load("2")

    return score, np.ones((2, 2)), {}, {"cloudpickle", "pandas", "pyyaml"}


@pytest.mark.parametrize("make", [plain, transformer, pickled_transformer, function, pickled_function])
def test_a_model_runs_on_what_was_captured_and_imports_all_of_it(
    make: Callable[[Path], tuple[Any, Any, dict[str, Any], set[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    model, example, more, expected = make(tmp_path)
    package = modelpack.save(model, tmp_path / "package", example=example, name="sample", version="1", **more)
    for name in ("matrix_ages", "matrix_rules"):
        sys.modules.pop(name, None)

    asked = {canonicalize_name(Requirement(text).name) for text in package.environment.dependencies}
    closure = {one.name for one in locking.pins(locking.lock(package.path, partial=True))[0]}
    done = subprocess.run([sys.executable, "-P", WORKER, package.path, *closure], capture_output=True, text=True)

    assert asked == expected
    assert done.returncode == 0, done.stderr
    assert expected <= set(done.stdout.split())
