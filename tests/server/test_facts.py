"""What a server tells about its model comes from the package alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import modelpack
from modelpack import document
from modelpack_server import facts


def total(table: pd.DataFrame, bonus: float = 0.5) -> Any:
    return table["a"] + table["b"] + bonus


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1, 2, 3]})


def load(package: modelpack.Package) -> modelpack.Model:
    return modelpack.load(package, allow_code=package.digest)


def test_all_is_in_the_manifest(tmp_path: Path, rows: pd.DataFrame) -> None:
    package = modelpack.save(total, tmp_path / "total", example=rows, version="3", description="Adds.")
    about = facts.of(load(package))
    assert (about.name, about.version, about.digest) == ("total", "3", package.digest)
    assert (about.flavor, about.trust, about.description) == ("python", "code", "Adds.")
    assert about.manifest == json.loads(package.manifest.to_bytes())
    assert about.to_json()["signature"] == about.manifest["signature"]


def test_the_example_is_the_first_rows(tmp_path: Path, rows: pd.DataFrame) -> None:
    package = modelpack.save(total, tmp_path / "total", example=rows)
    assert facts.of(load(package)).example == {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 1], [2.0, 2]]}}


def test_without_an_example_there_is_none(tmp_path: Path) -> None:
    columns = (modelpack.Column(name="a", type="float64"), modelpack.Column(name="b", type="int64"))
    signature = modelpack.Signature(inputs=modelpack.Table(columns=columns))
    package = modelpack.save(total, tmp_path / "total", signature=signature)
    assert facts.of(load(package)).example is None


def test_an_example_that_does_not_fit_is_left_out(
    tmp_path: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(modelpack.save(total, tmp_path / "total", example=rows))
    monkeypatch.setattr(type(model.package.files()), "read", lambda self, path: document.dump({"inputs": "x"}))
    assert facts.of(model).example is None


def test_the_params_of_an_example_are_kept(tmp_path: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(modelpack.save(total, tmp_path / "total", example=rows))
    body = {"dataframe_records": [{"a": 1.0, "b": 2}], "params": {"bonus": 1.0}}
    monkeypatch.setattr(type(model.package.files()), "read", lambda self, path: document.dump(body))
    assert facts.of(model).example == {
        "dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2]]},
        "params": {"bonus": 1.0},
    }
