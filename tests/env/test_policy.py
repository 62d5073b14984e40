"""What loading does where a critical package is of another version than the model's: refuses, warns, or ignores it."""

from __future__ import annotations

import json
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import modelpack
from modelpack.errors import EnvironmentMismatch, EnvironmentWarning, UsageError
from modelpack.manifest import Manifest

Command = Callable[..., subprocess.CompletedProcess[str]]
X = np.array([[0.0], [1.0], [2.0], [3.0]])
WARNING = r"scikit-learn: saved with 0\.24\.2, here [0-9.]+\. .* pip install 'scikit-learn==0\.24\.2'$"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A package that says it was saved with a scikit-learn of another release series."""
    package = modelpack.save(LogisticRegression().fit(X, [0, 0, 1, 1]), tmp_path / "older", example=X)
    changed: dict[str, Any] = package.manifest.model_dump(mode="json")
    changed["environment"]["captured"]["scikit-learn"] = "0.24.2"
    (package.path / "modelpack.json").write_bytes(Manifest.model_validate(changed).to_bytes())
    return package.path


def test_by_default_it_is_refused(older: Path) -> None:
    with pytest.raises(EnvironmentMismatch, match=r"scikit-learn: saved with 0\.24\.2") as info:
        modelpack.load(older)
    assert info.value.code == "environment-mismatch"


def test_a_warning_names_package_versions_and_command_once(older: Path) -> None:
    with pytest.warns(EnvironmentWarning, match=WARNING) as seen:
        model = modelpack.load(older, environment_policy="warn")
    assert len(seen) == 1
    assert model.predict(X).shape == (4,)


def test_the_variable_says_it_for_calls_that_do_not(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPACK_ENVIRONMENT_POLICY", "warn")
    with pytest.warns(EnvironmentWarning, match=WARNING):
        modelpack.load(older)
    with pytest.raises(EnvironmentMismatch):
        modelpack.load(older, environment_policy="strict")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        modelpack.load(older, environment_policy="ignore")


def test_a_policy_that_is_none_is_refused(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPACK_ENVIRONMENT_POLICY", "wran")
    with pytest.raises(UsageError) as info:
        modelpack.load(older)
    assert (info.value.code, info.value.path) == ("policy-invalid", "MODELPACK_ENVIRONMENT_POLICY")
    with pytest.raises(UsageError) as info:
        modelpack.load(older, environment_policy="lax")  # type: ignore[arg-type]
    assert (info.value.code, info.value.path) == ("policy-invalid", "environment_policy")


def test_where_nothing_is_wrong_nothing_is_said(tmp_path: Path) -> None:
    package = modelpack.save(LogisticRegression().fit(X, [0, 0, 1, 1]), tmp_path / "same", example=X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        modelpack.load(package.path, environment_policy="warn")


def test_the_command_takes_it_and_says_so_on_stderr(older: Path, command: Command) -> None:
    refused = command("test", older)
    assert (refused.returncode, "environment-mismatch" in refused.stderr) == (1, True)
    done = command("test", older, "--env-policy", "warn", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    assert done.stderr.count("EnvironmentWarning") == 1
    assert "pip install 'scikit-learn==0.24.2'" in done.stderr
    quiet = command("test", older, "--env-policy", "ignore")
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_a_payload_that_is_older_than_the_package_says_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = modelpack.save(LogisticRegression().fit(X, [0, 0, 1, 1]), tmp_path / "package", example=X)
    monkeypatch.setattr("sklearn.base.__version__", "9.9.9")
    with pytest.raises(EnvironmentMismatch, match=r"installed is 9\.9\.9"):
        modelpack.load(package.path)
    with pytest.warns(EnvironmentWarning, match=r"installed is 9\.9\.9\. Install scikit-learn=="):
        modelpack.load(package.path, environment_policy="warn")
