"""A checked twin is served unless another flavor is asked for, or it cannot be loaded; and that is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import modelpack
from modelpack import coerce, flavor
from modelpack.errors import FlavorError, InputError, IntegrityError, ModelpackError, TrustError, UsageError
from modelpack.manifest import Tolerance
from modelpack_server import choosing, facts
from modelpack_server.settings import Source
from modelpack_server.worker import told

X = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0)[::-1] % 7})


@pytest.fixture(scope="module")
def model() -> Any:
    return LogisticRegression().fit(X, (X["a"] > 9).astype(int))


@pytest.fixture
def package(tmp_path: Path, model: Any) -> modelpack.Package:
    return modelpack.save(model, tmp_path / "m", example=X, also=["onnx"])


def load(package: modelpack.Package, **source: Any) -> modelpack.Model:
    return choosing.choose(package, Source(package=str(package.path), **source))


def test_the_twin_is_served_and_said(package: modelpack.Package, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "modelpack.server")
    model = load(package)
    about = facts.of(model)
    assert (about.flavor, about.trust) == ("onnx", "graph")
    assert caplog.messages == ["serving the checked onnx twin"]
    checked = package.manifest.flavors[1].checked
    assert checked is not None
    assert about.to_json()["twin"] == {"of": "sklearn", "checked": checked.model_dump(mode="json")}
    assert told(about)["twin_of"] == "sklearn"


def test_another_flavor_may_be_asked_for(package: modelpack.Package) -> None:
    about = facts.of(load(package, flavor="sklearn"))
    assert (about.flavor, about.to_json()["twin"]) == ("sklearn", None)
    assert "twin_of" not in told(about)


def test_the_order_of_the_package_stays_what_loading_goes_by(package: modelpack.Package) -> None:
    assert modelpack.load(package).candidate.name == "sklearn"


def test_a_twin_needs_no_grant(tmp_path: Path, model: Any) -> None:
    package = modelpack.save(model, tmp_path / "m", example=X, also=["onnx"], options={"format": "pickle"})
    modelpack.trust.default_store().remove(package.digest)
    assert load(package).candidate.name == "onnx"
    with pytest.raises(TrustError):
        load(package, flavor="sklearn")


class TestFallback:
    def failing(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        """Let the onnx flavor fail when it loads."""
        kind = type(flavor.get("onnx"))

        def fail(self: Any, context: Any) -> Any:
            raise error

        monkeypatch.setattr(kind, "load", fail)

    @pytest.mark.parametrize(
        "error",
        [
            UsageError("An ONNX model needs onnxruntime", code="extra-missing"),
            FlavorError("the model needs onnxruntime >= 9", code="runtime-too-old"),
            RuntimeError("cannot"),
        ],
    )
    def test_a_twin_that_cannot_be_loaded_is_left_and_that_is_said(
        self,
        package: modelpack.Package,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        error: Exception,
    ) -> None:
        self.failing(monkeypatch, error)
        assert load(package).candidate.name == "sklearn"
        (message,) = caplog.messages
        assert message.startswith("the package's checked onnx twin cannot be loaded here, serving flavor sklearn: ")
        assert str(error) in message

    def test_not_if_the_twin_was_asked_for(self, package: modelpack.Package, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing(monkeypatch, FlavorError("too old", code="runtime-too-old"))
        with pytest.raises(FlavorError, match="too old"):
            load(package, flavor="onnx")

    def test_not_if_the_package_is_damaged(self, package: modelpack.Package) -> None:
        file = package.path / "payloads" / "onnx" / "model.onnx"
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        with pytest.raises(IntegrityError):
            load(package)

    def test_not_if_the_grant_is_for_another_package(self, package: modelpack.Package) -> None:
        with pytest.raises(ModelpackError) as info:
            load(package, allow_code="sha256:" + "0" * 64)
        assert info.value.code == "grant-mismatch"


class TestTwin:
    def entry(self, package: modelpack.Package, **changes: Any) -> bool:
        """Say whether the twin is served if what is recorded of it is changed."""
        first, twin = package.manifest.flavors
        assert twin.checked is not None
        checked = twin.checked.model_copy(update=changes)
        flavors = (first, twin.model_copy(update={"checked": checked}))
        return choosing.twin_of(package.manifest.model_copy(update={"flavors": flavors})) is not None

    def test_it_was_checked_closely_enough(self, package: modelpack.Package) -> None:
        assert self.entry(package)
        assert not self.entry(package, tolerance=Tolerance(rtol=1e-3, atol=1e-6))
        assert not self.entry(package, tolerance=Tolerance(rtol=1e-4, atol=1e-3))
        assert not self.entry(package, largest_difference=1.5)

    def test_what_was_not_checked_is_none(self, package: modelpack.Package) -> None:
        first, twin = package.manifest.flavors
        plain = twin.model_copy(update={"checked": None})

        def found(*flavors: Any) -> Any:
            return choosing.twin_of(package.manifest.model_copy(update={"flavors": flavors}))

        assert found(first, plain) is None
        assert found(first) is None
        # The name would not say which of them is meant.
        assert found(first, twin, plain) is None
        # The first is what is loaded anyway.
        assert found(twin, first) is None


class TestPair:
    """What the twin does not offer is answered by its original."""

    def score(self, scorer: Any, **params: Any) -> Any:
        frame = coerce.inputs(X, scorer.signature)
        (answer,) = (scorer.score(frame, coerce.params(params, scorer.signature)).tensors or {}).values()
        return answer

    def test_the_original_is_loaded_when_it_is_asked_for(
        self, package: modelpack.Package, model: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        scorer: Any = choosing.pair(load(package), Source(package="m"))
        np.testing.assert_array_equal(self.score(scorer), model.predict(X))
        assert scorer._original is None
        caplog.set_level(logging.INFO, "modelpack.server")
        for _ in range(2):
            answer = self.score(scorer, method="decision_function")
            np.testing.assert_array_equal(answer, model.decision_function(X))
        assert caplog.messages == ["flavor sklearn answers what the twin does not offer"]

    def test_other_refusals_are_final(self, package: modelpack.Package, monkeypatch: pytest.MonkeyPatch) -> None:
        twin = load(package)
        scorer: Any = choosing.pair(twin, Source(package="m"))

        def refuse(frame: Any, params: Any) -> Any:
            raise InputError("other sizes", code="shape-mismatch")

        monkeypatch.setattr(twin, "score", refuse)
        with pytest.raises(InputError, match="other sizes"):
            self.score(scorer)
        assert scorer._original is None

    def test_one_that_cannot_be_loaded_is_tried_once(
        self, tmp_path: Path, model: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        package = modelpack.save(model, tmp_path / "p", example=X, also=["onnx"], options={"format": "pickle"})
        modelpack.trust.default_store().remove(package.digest)
        scorer = choosing.pair(load(package), Source(package="m"))
        for _ in range(2):
            with pytest.raises(InputError) as info:
                self.score(scorer, method="decision_function")
            assert info.value.code == "param-unsupported"
        assert len([text for text in caplog.messages if "cannot be loaded" in text]) == 1

    def test_a_flavor_that_was_asked_for_is_alone(self, package: modelpack.Package) -> None:
        for name in ("onnx", "sklearn"):
            model = load(package, flavor=name)
            assert choosing.pair(model, Source(package="m", flavor=name)) is model
