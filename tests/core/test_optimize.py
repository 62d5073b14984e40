"""A package gets a twin: the same package otherwise, under another digest, or nothing at all happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC

import modelpack
from modelpack import files, trust
from modelpack.cli import main
from modelpack.errors import FlavorError, IntegrityError, ModelpackError, TrustError, UsageError
from modelpack.manifest import FileEntry, Manifest, content_digest
from modelpack.optimizing import optimize

X, Y = load_iris(return_X_y=True, as_frame=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return LogisticRegression(max_iter=500).fit(X, Y)


@pytest.fixture
def package(tmp_path: Path, model: Any) -> modelpack.Package:
    return modelpack.save(
        model, tmp_path / "iris", example=X[::5], provenance={"run": {"id": "7"}}, tags={"a": "b"}, dependencies=["six"]
    )


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(error: type[ModelpackError], call: Callable[[], object]) -> ModelpackError:
    with pytest.raises(error) as info:
        call()
    return info.value


def test_it_is_the_package_that_saving_with_a_twin_gives(
    tmp_path: Path, package: modelpack.Package, model: Any
) -> None:
    """But for its provenance, which says what it was made from."""
    made = optimize(package.path, tmp_path / "fast")
    saved = modelpack.save(model, tmp_path / "both" / "iris", example=X[::5], also=["onnx"], tags={"a": "b"})
    provenance = dict(made.manifest.provenance)
    step = provenance.pop("derived_from")

    assert (step["digest"], step["change"], step["flavor"]) == (package.digest, "twin", "onnx")
    assert step["producer"] == {"name": "modelpack-python", "version": modelpack.__version__}
    assert {"scikit-learn", "skl2onnx", "onnx"} <= set(step["tools"])
    assert provenance == package.manifest.provenance == {"run": {"id": "7"}}
    assert made.manifest.content_digest == saved.manifest.content_digest
    assert made.manifest.payloads == saved.manifest.payloads
    assert made.manifest.flavors == saved.manifest.flavors
    assert made.manifest.environment.dependencies == (*saved.manifest.environment.dependencies, "six")
    assert made.manifest.environment.critical == package.manifest.environment.critical
    assert made.digest == modelpack.open(tmp_path / "fast").digest != package.digest
    assert modelpack.open(package.path).digest == package.digest


def test_the_native_flavor_stays_the_first(tmp_path: Path, package: modelpack.Package) -> None:
    made = optimize(package.path, tmp_path / "fast")
    native, twin = modelpack.load(made), modelpack.load(made, flavor="onnx")
    assert (native.candidate.name, twin.candidate.trust) == ("sklearn", "graph")
    np.testing.assert_array_equal(native.predict(X), twin.predict(X))


def test_in_place_it_replaces_the_package(package: modelpack.Package) -> None:
    made = optimize(package.path)
    assert modelpack.open(package.path).digest == made.digest != package.digest
    assert [path.name for path in package.path.parent.iterdir()] == [package.path.name]


def test_text_and_missing_values_are_probed(tmp_path: Path) -> None:
    table = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0] * 5, "kind": ["a", "b", "c", None] * 5})
    steps = ColumnTransformer([("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"])], remainder="passthrough")
    model = make_pipeline(steps, LogisticRegression()).fit(table, [0, 1] * 10)
    modelpack.save(model, tmp_path / "m", example=table)
    checked = optimize(tmp_path / "m").manifest.flavors[1].checked
    assert checked is not None
    assert checked.rows > 100


class TestRefused:
    """Nothing is written, and the package stays as it was."""

    def test_a_twin_that_is_there(self, package: modelpack.Package) -> None:
        optimize(package.path)
        before = everything(package.path)
        error = refused(UsageError, lambda: optimize(package.path))
        assert (error.code, error.path) == ("twin-present", "flavors")
        assert everything(package.path) == before

    def test_a_model_without_a_form(self, tmp_path: Path) -> None:
        modelpack.save(lambda rows: [1] * len(rows), tmp_path / "f", example=[{"a": 1}], options={"form": "records"})
        error = refused(FlavorError, lambda: optimize(tmp_path / "f"))
        assert (error.code, error.path) == ("conversion-unsupported", "flavors[0]")

    def test_a_twin_that_differs(self, tmp_path: Path) -> None:
        modelpack.save(SVC().fit(X, Y), tmp_path / "svm", example=X[::5])
        before = everything(tmp_path)
        error = refused(FlavorError, lambda: optimize(tmp_path / "svm", tmp_path / "fast"))
        assert error.code in ("twin-differs", "conversion-unsupported")
        assert error.hint == "The package stays as it was; it is complete without a twin."
        assert everything(tmp_path) == before

    def test_no_example(self, tmp_path: Path, model: Any) -> None:
        modelpack.save(model, tmp_path / "m")
        error = refused(UsageError, lambda: optimize(tmp_path / "m"))
        assert (error.code, error.path) == ("also-unchecked", "examples")

    def test_answers_that_are_not_the_recorded_ones(self, tmp_path: Path, package: modelpack.Package) -> None:
        answer = package.path / "examples" / "example.output.json"
        answer.write_bytes(answer.read_bytes().replace(b"0", b"1", 1))
        sealed(package.path)
        error = refused(FlavorError, lambda: optimize(package.path, tmp_path / "fast"))
        assert (error.code, error.path) == ("example-differs", "examples[0]")
        assert not (tmp_path / "fast").exists()

    def test_a_file_that_was_changed(self, tmp_path: Path, package: modelpack.Package) -> None:
        (package.path / "payloads" / "native" / "model.skops").write_bytes(b"other")
        refused(IntegrityError, lambda: optimize(package.path, tmp_path / "fast"))
        assert not (tmp_path / "fast").exists()

    def test_a_package_of_a_newer_format(self, package: modelpack.Package) -> None:
        manifest = package.path / "modelpack.json"
        manifest.write_bytes(manifest.read_bytes().replace(b'"modelpack": "1.0"', b'"modelpack": "1.7"', 1))
        assert refused(ModelpackError, lambda: optimize(package.path)).code == "version-unsupported"

    def test_a_package_that_is_replaced_meanwhile(
        self, package: modelpack.Package, monkeypatch: pytest.MonkeyPatch, model: Any
    ) -> None:
        from modelpack import twins

        make = twins.make

        def replacing(*given: Any, **named: Any) -> Any:
            modelpack.save(model, package.path, example=X[::7], overwrite=True)
            return make(*given, **named)

        monkeypatch.setattr(twins, "make", replacing)
        assert refused(IntegrityError, lambda: optimize(package.path)).code == "digest-mismatch"
        assert len(modelpack.open(package.path).manifest.flavors) == 1

    def test_a_flavor_that_converts_nothing(self, package: modelpack.Package) -> None:
        assert refused(UsageError, lambda: optimize(package.path, flavor="python")).code == "also-unsupported"


def sealed(folder: Path) -> None:
    """Write the digests of the files as they are now into the manifest."""
    manifest = Manifest.parse((folder / "modelpack.json").read_bytes())
    now = []
    for entry in manifest.files:
        digest, size = files.hash_file(folder / entry.path)
        now.append(entry.model_copy(update={"digest": digest, "size": size}))
    changed = manifest.model_copy(update={"files": tuple(now), "content_digest": content_digest(now)})
    (folder / "modelpack.json").write_bytes(changed.to_bytes())


class TestCode:
    """A package of class code is loaded through the gate, and its twin needs no grant."""

    @pytest.fixture
    def pickled(self, tmp_path: Path, model: Any) -> modelpack.Package:
        return modelpack.save(model, tmp_path / "iris", example=X[::5], options={"format": "pickle"})

    def test_it_needs_the_grant(self, pickled: modelpack.Package) -> None:
        trust.default_store().remove(pickled.digest)
        assert refused(TrustError, lambda: optimize(pickled.path)).code == "code-not-allowed"

    def test_one_for_this_call_is_not_handed_on(self, pickled: modelpack.Package) -> None:
        trust.default_store().remove(pickled.digest)
        made = optimize(pickled.path, allow_code=pickled.digest)
        assert trust.default_store().grants() == []
        assert modelpack.load(made).candidate.name == "onnx"

    def test_one_in_the_store_is(self, pickled: modelpack.Package) -> None:
        made = optimize(pickled.path)
        assert trust.default_store().allows(made.digest)
        assert modelpack.load(made).candidate.name == "sklearn"

    def test_an_unsafe_store_is_not_asked(self, pickled: modelpack.Package, trust_store: Path) -> None:
        trust_store.chmod(0o777)
        made = optimize(pickled.path, allow_code=pickled.digest)
        assert len(made.manifest.flavors) == 2


def test_twice_derived_keeps_both_steps(tmp_path: Path, model: Any) -> None:
    older = {"derived_from": {"digest": "sha256:" + "0" * 64}}
    modelpack.save(model, tmp_path / "m", example=X[::5], provenance=older)
    made = optimize(tmp_path / "m")
    assert made.manifest.provenance["derived_from"]["derived_from"] == older["derived_from"]


def test_a_taken_payload_id_is_left_alone(tmp_path: Path) -> None:
    modelpack.save(GaussianNB().fit(X, Y), tmp_path / "m", example=X[::5])
    (tmp_path / "m" / "payloads" / "native").rename(tmp_path / "m" / "payloads" / "onnx")
    manifest = tmp_path / "m" / "modelpack.json"
    value = json.loads(manifest.read_bytes().replace(b"payloads/native/", b"payloads/onnx/"))
    value["content_digest"] = content_digest([FileEntry.model_validate(entry) for entry in value["files"]])
    manifest.write_text(json.dumps(value))
    made = optimize(tmp_path / "m")
    assert made.manifest.payloads["onnx-2"].files == ("payloads/onnx-2/model.onnx",)
    assert made.manifest.flavors[1].checked is not None


class TestCommand:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(main, ["optimize", *arguments])

    def test_it_says_what_was_checked(self, tmp_path: Path, package: modelpack.Package) -> None:
        done = self.run(str(package.path), "-o", str(tmp_path / "fast"))
        assert done.exit_code == 0, done.output
        made = modelpack.open(tmp_path / "fast")
        assert done.output.startswith(f"optimized iris 1 {made.digest}\n  flavor onnx gives the same answers on ")

    def test_as_json(self, package: modelpack.Package) -> None:
        told = json.loads(self.run(str(package.path), "--in-place", "--json").output)
        assert (told["ok"], told["digest"]) == (True, modelpack.open(package.path).digest)
        assert told["twin"]["checked"]["against"] == "native"

    @pytest.mark.parametrize("given", [[], ["--in-place", "-o", "x"]])
    def test_where_to_must_be_said_once(self, package: modelpack.Package, given: list[str]) -> None:
        done = self.run(str(package.path), *given)
        assert done.exit_code == 2
        assert "output-missing" in done.output

    def test_it_does_not_overwrite(self, tmp_path: Path, package: modelpack.Package) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "file").touch()
        done = self.run(str(package.path), "-o", str(tmp_path / "there"))
        assert done.exit_code == 1
        assert "target-exists" in done.output


def test_what_another_producer_wrote_stays_as_it_is(package: modelpack.Package) -> None:
    """A dependency that nobody can read is no reason to refuse the package, and is not lost."""
    manifest = package.path / "modelpack.json"
    value = json.loads(manifest.read_bytes())
    value["environment"]["dependencies"].append("?? odd")
    value["extensions"] = {"org.example/note": [1, 2]}
    manifest.write_text(json.dumps(value))
    made = optimize(package.path).manifest
    assert "?? odd" in made.environment.dependencies
    assert set(package.manifest.environment.dependencies) < set(made.environment.dependencies)
    assert made.extensions == {"org.example/note": [1, 2]}
