"""Saving: whole or not at all, reproducible, and recorded as it is."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import modelpack
from modelpack import recording
from modelpack.errors import FlavorError, SaveError, UsageError

X = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1, 0, 1, 0]})
Y = np.array(["no", "no", "yes", "yes"])


def model() -> LogisticRegression:
    return LogisticRegression().fit(X, Y)


def test_what_was_said_is_in_the_manifest(tmp_path: Path) -> None:
    package = modelpack.save(
        model(),
        tmp_path / "churn",
        example=X,
        name="churn",
        version="3.2.0",
        description="Who leaves.",
        license="Apache-2.0",
        authors=["The growth team"],
        task="tabular-classification",
        tags={"team": "growth"},
        provenance={"source": {"revision": "0123abcd"}},
        metrics=[{"name": "auc", "value": 0.91}],
        dependencies=["packaging>=20"],
    )
    manifest = package.manifest
    assert (manifest.name, manifest.version, manifest.license) == ("churn", "3.2.0", "Apache-2.0")
    assert manifest.description == "Who leaves."
    assert manifest.authors == ("The growth team",)
    assert manifest.task == "tabular-classification"
    assert manifest.tags == {"team": "growth"}
    assert manifest.provenance == {"source": {"revision": "0123abcd"}}
    assert manifest.metrics == ({"name": "auc", "value": 0.91},)
    assert "packaging>=20" in manifest.environment.dependencies
    assert manifest.environment.critical == ("scikit-learn",)
    assert {"numpy", "scikit-learn", "scipy"} <= set(manifest.environment.captured)
    assert manifest.environment.python.captured == ".".join(map(str, sys.version_info[:3]))
    assert manifest.producer is not None and manifest.producer.version == modelpack.__version__


def test_the_example_gives_the_signature_and_the_answer(tmp_path: Path) -> None:
    package = modelpack.save(model(), tmp_path / "churn", example=X)
    inputs, outputs = package.manifest.signature.inputs, package.manifest.signature.outputs
    assert isinstance(inputs, modelpack.Table) and isinstance(outputs, modelpack.Tensors)
    assert [(c.name, c.type) for c in inputs.columns] == [("a", "float64"), ("b", "int64")]
    assert [(t.dtype, t.shape) for t in outputs.tensors] == [("utf8", ("batch",))]
    request = json.loads((package.path / "examples/example.input.json").read_bytes())
    response = json.loads((package.path / "examples/example.output.json").read_bytes())
    assert request["dataframe_split"]["columns"] == ["a", "b"]
    assert response == {"predictions": list(model().predict(X))}


def test_at_most_a_hundred_rows_of_the_example_are_kept(tmp_path: Path) -> None:
    many = pd.concat([X] * 100, ignore_index=True)
    package = modelpack.save(model(), tmp_path / "churn", example=many)
    request = json.loads((package.path / "examples/example.input.json").read_bytes())
    response = json.loads((package.path / "examples/example.output.json").read_bytes())
    assert len(request["dataframe_split"]["data"]) == len(response["predictions"]) == 100


def test_the_callers_signature_wins(tmp_path: Path) -> None:
    given = modelpack.infer_signature(X.astype("float64"), np.array(["x"]))
    package = modelpack.save(model(), tmp_path / "churn", example=X, signature=given)
    inputs = package.manifest.signature.inputs
    assert isinstance(inputs, modelpack.Table)
    assert [c.type for c in inputs.columns] == ["float64", "float64"]


def test_two_saves_give_the_same_bytes(tmp_path: Path) -> None:
    one = modelpack.save(model(), tmp_path / "churn", example=X)
    two = modelpack.save(model(), tmp_path / "other", example=X, name="churn")
    assert one.manifest.content_digest == two.manifest.content_digest
    assert one.digest == two.digest


def test_the_date_is_source_date_epochs_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert modelpack.save(model(), tmp_path / "a").manifest.created is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert modelpack.save(model(), tmp_path / "b").manifest.created == "2023-11-14T22:13:20Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(SaveError, match="SOURCE_DATE_EPOCH"):
        modelpack.save(model(), tmp_path / "c")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "name"), [("churn", "churn"), ("My Model v2", "my-model-v2"), ("…", "model"), ("a--b", "a-b")]
)
def test_the_name_is_made_from_the_path(tmp_path: Path, path: str, name: str) -> None:
    assert modelpack.save(model(), tmp_path / path).manifest.name == name


def test_a_name_outside_the_grammar_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="name") as info:
        modelpack.save(model(), tmp_path / "churn", name="Not A Name")
    assert (info.value.code, info.value.path) == ("field-invalid", "name")
    assert os.listdir(tmp_path) == []


def test_code_is_copied_without_caches(tmp_path: Path) -> None:
    source = tmp_path / "src" / "mylib"
    (source / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "features.py", "table.csv", ".hidden", "__pycache__/x.pyc"):
        (source / name).write_text("")
    script = tmp_path / "src" / "script.py"
    script.write_text("")
    package = modelpack.save(model(), tmp_path / "churn", code=[source, script])
    assert [f.path for f in package.manifest.files if f.role == "code"] == [
        "code/mylib/__init__.py",
        "code/mylib/features.py",
        "code/mylib/table.csv",
        "code/script.py",
    ]


def test_one_source_needs_no_list(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("")
    package = modelpack.save(model(), tmp_path / "churn", code=tmp_path / "script.py")
    assert package.manifest.flavors[0].code == ("code/script.py",)


def test_sources_that_cannot_be_copied_are_named(tmp_path: Path) -> None:
    with pytest.raises(SaveError) as info:
        modelpack.save(model(), tmp_path / "churn", code=[tmp_path / "absent.py"])
    assert (info.value.code, info.value.path) == ("code-missing", "code[0]")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text("")
    with pytest.raises(SaveError) as info:
        modelpack.save(model(), tmp_path / "churn", code=[tmp_path / "one/same.py", tmp_path / "two/same.py"])
    assert (info.value.code, info.value.path) == ("code-duplicate", "code[1]")
    assert not (tmp_path / "churn").exists()


def test_the_root_of_the_file_system_is_no_code(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="root") as info:
        modelpack.save(model(), tmp_path / "churn", code="/")
    assert (info.value.code, info.value.path) == ("code-missing", "code[0]")


def test_an_example_that_json_cannot_hold_is_named(tmp_path: Path) -> None:
    infinite = pd.DataFrame({"a": [1.0, float("inf")], "b": [1, 2]})
    with pytest.raises(SaveError, match="Leave such rows out") as info:
        modelpack.save(lambda df: df["a"], tmp_path / "x", example=infinite)
    assert info.value.code == "json-unwritable"
    assert info.value.path.startswith("example")
    assert os.listdir(tmp_path) == []


def test_what_no_flavor_saves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FlavorError, match=r"builtins\.object") as info:
        modelpack.save(object(), tmp_path / "x")
    assert info.value.code == "flavor-none-fits"
    with pytest.raises(FlavorError) as info:
        modelpack.save(model(), tmp_path / "x", flavor="absent")
    assert info.value.code == "flavor-unknown"


def test_a_flavor_that_converts_nothing_is_no_second_payload(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        modelpack.save(model(), tmp_path / "x", example=X, also=("python",))
    assert (info.value.code, info.value.path) == ("also-unsupported", "also[0]")
    assert os.listdir(tmp_path) == []


def test_an_answer_that_is_not_row_by_row_is_any_json(tmp_path: Path) -> None:
    package = modelpack.save(lambda df: {"total": 3.0}, tmp_path / "x", example=X)
    assert package.manifest.signature.outputs == modelpack.signature.Json(kind="json")
    assert modelpack.load(package.path).predict(X) == {"total": 3.0}


def test_a_grant_that_cannot_be_stored_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "file" / "store"))
    with pytest.warns(UserWarning, match="could not be granted"):
        package = modelpack.save(lambda x: x, tmp_path / "x")
    assert modelpack.open(package.path).digest == package.digest


def test_the_manifest_is_checked_before_it_is_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "content_digest", lambda files: "sha256:" + "0" * 64)
    with pytest.raises(modelpack.ManifestError):
        modelpack.save(model(), tmp_path / "x")
    assert os.listdir(tmp_path) == []


SAVER = """
import sys
import numpy as np
import modelpack
def predict(x):
    return x.sum(axis=1)
predict.weights = np.zeros(200_000)
modelpack.save(predict, sys.argv[1] + "-first", example=np.ones((2, 2)), overwrite=True)  # imports are done now
modelpack.save(predict, sys.argv[1], example=np.ones((2, 2)), overwrite=True, version="first")
print("ready", flush=True)
for i in range(10_000):
    modelpack.save(predict, sys.argv[1], example=np.ones((2, 2)), overwrite=True, version=str(i))
"""


def test_kill_at_any_moment_leaves_a_whole_package_or_none(tmp_path: Path) -> None:
    """A sample; scripts/soak-kill does many more."""
    target = tmp_path / "pkg"
    chance = random.Random(7)
    seen: set[Any] = set()
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", SAVER, str(target)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
        if target.exists():
            seen.add(modelpack.open(target).manifest.version)
    assert seen
    modelpack.save(lambda x: x, target, overwrite=True)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".modelpack-")] == []
