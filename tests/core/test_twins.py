"""A twin is written only if it is the same model; these show on which rows another one is found out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier

import modelpack
from modelpack import environment, flavor, twins
from modelpack.cli import main
from modelpack.errors import EnvironmentMismatch, FlavorError, InputError, UsageError
from modelpack.learned import learn
from modelpack.manifest import Manifest
from modelpack.signature import Constraints, Param

X, Y = load_breast_cancer(return_X_y=True)


class Model:
    """A function as a predictor that takes arrays."""

    form = "numpy"

    def __init__(self, function: Any) -> None:
        self._function = function

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        return self._function(data, params) if params else self._function(data)


def check(one: Any, other: Any, data: Any, params: Any = (), **more: Any) -> Any:
    original = Model(one)
    saved = flavor.Saved(format="pickle", entry="m", predictor=original, params=params)
    return twins.check(original, Model(other), learn(saved, data, None), **more)


def differs(one: Any, other: Any, data: Any, **more: Any) -> str:
    with pytest.raises(FlavorError) as info:
        check(one, other, data, **more)
    assert (info.value.code, info.value.path) == ("twin-differs", "also")
    return info.value.message


DATA = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.8]])


def test_the_same_model_passes_and_the_check_is_recorded() -> None:
    checked = check(lambda x: x.sum(axis=1), lambda x: x.sum(axis=1) + 1e-9, DATA)
    assert checked.rows > 30
    assert 0 < checked.largest_difference < 1
    assert checked.tolerance == twins.TOLERANCE


def test_other_numbers_are_found_and_shown() -> None:
    message = differs(lambda x: x.sum(axis=1), lambda x: x.sum(axis=1) + 0.01, DATA)
    assert "prediction[0]: 1.0 and 1.01" in message


def test_a_threshold_rounded_to_float32_is_found() -> None:
    at = 0.1 + 1e-12
    exact = lambda x: (x[:, 0] > at).astype(np.int64)  # noqa: E731
    rounded = lambda x: (x[:, 0] > np.float32(at)).astype(np.int64)  # noqa: E731
    assert "answers differ" in differs(exact, rounded, DATA, thresholds={0: [at]})


def test_without_thresholds_the_boundary_is_searched_for() -> None:
    exact = lambda x: (x @ [0.3, -0.7] > 0.011).astype(np.int64)  # noqa: E731
    rounded = lambda x: (x @ [0.3, -0.7] > 0.011 + 1e-6).astype(np.int64)  # noqa: E731
    assert "answers differ" in differs(exact, rounded, DATA)


def test_labels_in_another_order_are_found() -> None:
    names = np.array(["no", "yes"], dtype=object)
    right = lambda x: names[(x[:, 0] > 0.5).astype(int)]  # noqa: E731
    wrong = lambda x: names[::-1][(x[:, 0] > 0.5).astype(int)]  # noqa: E731
    assert "no and yes" in differs(right, wrong, DATA)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x[:, 0].astype(np.int64),
        lambda x: x[:, :1],
        lambda x: np.where(x[:, 0] > 0.5, np.nan, x[:, 0]),
        lambda x: x[:-1, 0],
        lambda x: 1 / 0,
    ],
)
def test_answers_of_another_kind_are_found(wrong: Any) -> None:
    with pytest.raises(modelpack.ModelpackError):
        check(lambda x: x[:, 0], wrong, DATA)


def test_rows_the_original_refuses_are_left_out() -> None:
    def picky(x: Any) -> Any:
        if (x[:, 0] < 0).any():
            raise ValueError("negative")
        return x[:, 0]

    assert check(picky, lambda x: x[:, 0], DATA).rows > 10


def test_infinities_are_no_close_numbers() -> None:
    assert "differ" in differs(lambda x: np.full(len(x), np.inf), lambda x: np.ones(len(x)), DATA)


def method(*names: str) -> Param:
    return Param(
        name="method", type="utf8", default=names[0], constraints=Constraints(enum=names), changes_outputs=True
    )


def test_every_method_is_compared() -> None:
    def right(x: Any, params: Any) -> Any:
        return x[:, 0] if params["method"] == "a" else x

    def wrong(x: Any, params: Any) -> Any:
        return x[:, 0] if params["method"] == "a" else x + 1

    differs(right, wrong, DATA, params=[method("a", "b")])


def test_a_method_that_the_twin_does_not_have_is_left_out_but_no_other_refusal_is() -> None:
    def one(x: Any, params: Any) -> Any:
        return x[:, 0]

    def refusing(code: str) -> Any:
        def twin(x: Any, params: Any) -> Any:
            if params["method"] != "a":
                raise InputError("not here", code=code)
            return x[:, 0]

        return twin

    assert check(one, refusing("param-unsupported"), DATA, params=[method("a", "b")]).rows
    assert "InputError" in differs(one, refusing("type-mismatch"), DATA, params=[method("a", "b")])


def test_nothing_compared_is_nothing_checked() -> None:
    def never(x: Any, params: Any) -> Any:
        raise InputError("never", code="param-unsupported")

    with pytest.raises(FlavorError) as info:
        check(lambda x, p: x[:, 0], never, DATA, params=[method("a", "b")])
    assert info.value.code == "twin-unchecked"


# The whole: save, the manifest, load.


@pytest.fixture(scope="module")
def tree() -> Any:
    return DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, Y)


def save(model: Any, path: Path, **more: Any) -> modelpack.Package:
    return modelpack.save(model, path, flavor="sklearn", example=X[:30], also=("onnx",), **more)


def test_a_twin_is_a_second_flavor_and_the_first_stays_the_default(tree: Any, tmp_path: Path) -> None:
    package = save(tree, tmp_path / "pkg")
    native, twin = package.manifest.flavors
    assert (native.name, native.checked, twin.name) == ("sklearn", None, "onnx")
    assert twin.checked is not None and twin.checked.rows > 500
    assert modelpack.load(package.path).candidate.name == "sklearn"
    loaded = modelpack.load(package.path, flavor="onnx")
    assert loaded.candidate.trust == "graph"
    np.testing.assert_array_equal(loaded.predict(X), tree.predict(X))
    np.testing.assert_array_equal(loaded.predict(X, {"method": "predict_proba"}), tree.predict_proba(X))


def test_a_refused_twin_leaves_nothing_behind(tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = flavor.get("onnx")
    convert = type(onnx).convert

    def mislabelled(self: Any, model: Any, source: Any, context: Any) -> Any:
        turned = DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, 1 - Y)
        return convert(self, turned, source, context)

    monkeypatch.setattr(type(onnx), "convert", mislabelled)
    with pytest.raises(FlavorError) as info:
        save(tree, tmp_path / "pkg")
    assert info.value.code == "twin-differs"
    assert list(tmp_path.iterdir()) == []


def test_a_twin_needs_an_example_and_a_flavor_that_converts(tree: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        modelpack.save(tree, tmp_path / "a", flavor="sklearn", also=("onnx",))
    assert info.value.code == "also-unchecked"
    with pytest.raises(UsageError) as info:
        modelpack.save(tree, tmp_path / "b", flavor="sklearn", example=X[:5], also=("python",))
    assert info.value.code == "also-unsupported"
    assert list(tmp_path.iterdir()) == []


def changed(package: modelpack.Package, **versions: str) -> Path:
    """Write other captured versions into the manifest."""
    manifest = package.manifest
    captured = {**manifest.environment.captured, **versions}
    env = manifest.environment.model_copy(update={"captured": captured})
    raw = manifest.model_copy(update={"environment": env}).to_bytes()
    Manifest.parse(raw)
    (package.path / "modelpack.json").write_bytes(raw)
    return package.path


def test_where_only_the_twin_can_be_loaded_it_is(tree: Any, tmp_path: Path) -> None:
    path = changed(save(tree, tmp_path / "pkg"), **{"scikit-learn": "0.0.1"})
    assert modelpack.load(path).candidate.name == "onnx"
    with pytest.raises(EnvironmentMismatch, match="scikit-learn"):
        modelpack.load(path, flavor="sklearn")
    assert modelpack.load(path, environment_policy="ignore").candidate.name == "sklearn"


def test_env_diff_fails_only_where_no_flavor_can_be_loaded(tree: Any, tmp_path: Path) -> None:
    path = changed(save(tree, tmp_path / "pkg"), **{"scikit-learn": "0.0.1"})
    done = CliRunner().invoke(main, ["env", "diff", str(path)])
    assert (done.exit_code, "note: scikit-learn: saved with 0.0.1" in done.output) == (0, True)
    assert [d.severity for d in modelpack.open(path).differences(0)] == ["error"]

    with pytest.MonkeyPatch.context() as there:
        there.setattr(flavor, "available", lambda: {"sklearn": "modelpack_flavors.sklearn:flavor"})
        done = CliRunner().invoke(main, ["env", "diff", str(path)])
    assert (done.exit_code, "error: scikit-learn" in done.output) == (1, True)


def test_the_twins_packages_do_not_concern_the_model(tree: Any, tmp_path: Path) -> None:
    package = save(tree, tmp_path / "pkg")
    assert any(one.startswith("onnxruntime>=") for one in package.manifest.environment.dependencies)
    assert "onnxruntime" not in package.manifest.environment.critical
    path = changed(package, onnxruntime="0.1")
    assert modelpack.load(path).candidate.name == "sklearn"
    assert modelpack.load(path, flavor="onnx").candidate.name == "onnx"


def test_packages_of_other_flavors_are_notes() -> None:
    env = environment.capture(["numpy"])
    env = env.model_copy(update={"captured": {"numpy": "0.1"}})
    assert [d.severity for d in environment.compare(env)] == ["error"]
    assert [d.severity for d in environment.compare(env, foreign=["NumPy"])] == ["note"]


def test_an_example_of_columns_is_compared_by_column(tmp_path: Path) -> None:
    frame = pd.DataFrame(X[:, :3], columns=["a", "b", "c"])
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(frame, Y)
    package = modelpack.save(model, tmp_path / "pkg", flavor="sklearn", example=frame.head(20), also=("onnx",))
    turned = frame[["c", "a", "b"]]
    answer = modelpack.load(package.path, flavor="onnx").predict(turned)
    np.testing.assert_array_equal(answer, model.predict(frame))
