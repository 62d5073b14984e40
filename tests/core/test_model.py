"""A loaded model: checked in, checked out, its own errors told from ours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import modelpack
from modelpack import coerce
from modelpack.dtypes import DecimalType, DurationType
from modelpack.errors import InputError, ModelError, OutputError, UsageError
from modelpack.model import Model

FRAME = pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4]})


def load(function: Any, path: Path, **more: Any) -> Model:
    return modelpack.load(modelpack.save(function, path, **{"example": FRAME, **more}).path)


def add(df: pd.DataFrame, *, times: int = 1) -> np.ndarray:
    return (df["a"] + df["b"]).to_numpy() * times


def test_every_form_of_data_gives_the_same_answer(tmp_path: Path) -> None:
    model = load(add, tmp_path / "m")
    forms: list[Any] = [
        FRAME,
        {"a": [1.0, 2.0], "b": [3, 4]},
        [{"a": 1.0, "b": 3}, {"a": 2.0, "b": 4}],
        np.array([[1.0, 3.0], [2.0, 4.0]]),
        pa.table({"a": [1.0, 2.0], "b": [3, 4]}),
    ]
    for form in forms:
        np.testing.assert_array_equal(model.predict(form), [4.0, 6.0])


def test_params_are_checked_and_filled_in(tmp_path: Path) -> None:
    model = load(add, tmp_path / "m")
    np.testing.assert_array_equal(model.predict(FRAME, params={"times": 3}), [12.0, 18.0])
    with pytest.raises(InputError, match="param") as info:
        model.predict(FRAME, params={"tmies": 3})
    assert (info.value.code, info.value.path) == ("param-unknown", "params.tmies")
    with pytest.raises(InputError):
        model.predict(FRAME, params={"times": 1.5})


def test_data_that_does_not_fit_is_refused_before_the_model_sees_it(tmp_path: Path) -> None:
    model = load(add, tmp_path / "m")
    with pytest.raises(InputError) as info:
        model.predict({"a": [1.0], "b": [1.5]})
    assert (info.value.code, info.value.path) == ("not-whole", "b[0]")


def test_the_models_own_error_is_the_cause(tmp_path: Path) -> None:
    def fussy(df: pd.DataFrame) -> np.ndarray:
        if df["a"].iloc[0] == 9.0:
            raise ValueError("secret 42")
        return df["a"].to_numpy()

    model = load(fussy, tmp_path / "m")
    with pytest.raises(ModelError) as info:
        model.predict({"a": [9.0], "b": [1]})
    assert (info.value.code, info.value.message) == ("model-raised", "the model raised ValueError")
    assert isinstance(info.value.__cause__, ValueError)


class Stopped(BaseException):
    """What a program's own handler of signals raises."""


PANIC = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})


@pytest.mark.parametrize(
    ("raised", "seen"), [(PANIC, ModelError), (KeyboardInterrupt, KeyboardInterrupt), (Stopped, Stopped)]
)
def test_a_panic_is_the_models_and_a_stop_is_not(tmp_path: Path, raised: Any, seen: Any) -> None:
    def ends(df: pd.DataFrame) -> np.ndarray:
        if df["a"].iloc[0] == 9.0:
            raise raised
        return df["a"].to_numpy()

    model = load(ends, tmp_path / "m")
    with pytest.raises(seen):
        model.predict({"a": [9.0], "b": [1]})


@pytest.mark.parametrize("kind", [InputError, OutputError, UsageError])
def test_an_error_of_ours_that_the_model_raises_is_the_models(kind: Any, tmp_path: Path) -> None:
    """Also if it comes from modelpack itself, called by the model: the client's data was right."""

    def raising(df: pd.DataFrame) -> np.ndarray:
        if df["a"][0] == 1.0:
            return np.zeros(len(df))
        raise kind("secret", code="not-whole", path="a")

    def asking(df: pd.DataFrame) -> np.ndarray:
        if df["a"][0] == 1.0:
            return np.zeros(len(df))
        return coerce.params({"unheard-of": 1}, modelpack.Signature())["x"]  # type: ignore[no-any-return]

    for number, function in enumerate((raising, asking)):
        model = load(function, tmp_path / str(number))
        with pytest.raises(ModelError, match="the model raised") as info:
            model.predict({"a": [2.0], "b": [1]})
        assert info.value.code == "model-raised"
        assert "secret" not in str(info.value)
        assert isinstance(info.value.__cause__, kind if function is raising else InputError)


def test_what_the_flavor_refuses_is_the_clients(tmp_path: Path) -> None:
    model = load(add, tmp_path / "m")

    class Strict:
        form = "pandas"

        def predict(self, data: Any, params: Any) -> Any:
            raise InputError("not for me", code="type-mismatch", path="a")

    model._predictor = Strict()  # type: ignore[assignment]
    with pytest.raises(InputError, match="not for me"):
        model.predict(FRAME)


def test_an_answer_outside_the_signature_is_an_error(tmp_path: Path) -> None:
    def unsteady(df: pd.DataFrame) -> Any:
        return ["text"] * len(df) if df["a"].iloc[0] == 9.0 else df["a"].to_numpy()

    model = load(unsteady, tmp_path / "m")
    with pytest.raises(OutputError) as info:
        model.predict({"a": [9.0], "b": [1]})
    assert info.value.code == "type-mismatch"

    def short(df: pd.DataFrame) -> Any:
        return df["a"].to_numpy()[: 1 if df["a"].iloc[0] == 9.0 else None]

    model = load(short, tmp_path / "n")
    with pytest.raises(OutputError) as info:
        model.predict({"a": [9.0, 9.0], "b": [1, 1]})
    assert info.value.code == "rows-mismatch"


def test_score_is_predict_on_coerced_data(tmp_path: Path) -> None:
    model = load(add, tmp_path / "m")
    frame = coerce.inputs(FRAME, model.signature)
    answer = model.score(frame, coerce.params(None, model.signature))
    assert answer.tensors is not None
    np.testing.assert_array_equal(answer.tensors["prediction"], [4.0, 6.0])


def test_a_param_that_changes_the_outputs_frees_them(tmp_path: Path) -> None:
    def either(df: pd.DataFrame, *, words: bool = False) -> Any:
        return np.array(["w"] * len(df)) if words else df["a"].to_numpy()

    signature = modelpack.Signature(
        inputs=modelpack.infer_signature(FRAME).inputs,
        params=(modelpack.Param(name="words", type="bool", default=False, changes_outputs=True),),
    )
    model = load(either, tmp_path / "m", signature=signature)
    assert list(model.predict(FRAME, params={"words": True})) == ["w", "w"]


@pytest.mark.parametrize(
    ("kind", "default", "other"),
    [
        (DecimalType(precision=4, scale=2), "1.50", Decimal("1.25")),
        ("date32", "2024-01-01", dt.date(2024, 1, 2)),
        (DurationType(unit="s"), "PT60S", dt.timedelta(seconds=1)),
    ],
)
def test_a_default_is_the_value_it_says_in_every_type(kind: Any, default: str, other: Any) -> None:
    signature = modelpack.Signature(
        params=(modelpack.Param(name="p", type=kind, default=default, changes_outputs=True),),
    )
    assert not coerce.changes_outputs(coerce.params({}, signature), signature)
    assert not coerce.changes_outputs(coerce.params({"p": default}, signature, wire="json"), signature)
    assert coerce.changes_outputs(coerce.params({"p": other}, signature), signature)


def test_generators_stream(tmp_path: Path) -> None:
    def count(df: pd.DataFrame) -> Iterator[dict[str, float]]:
        for value in df["a"]:
            if value == 9.0:
                raise ValueError("late")
            yield {"value": value}

    model = load(count, tmp_path / "m")
    assert model.streams
    assert list(model.predict_stream(FRAME)) == [{"value": 1.0}, {"value": 2.0}]
    assert model.predict(FRAME) == [{"value": 1.0}, {"value": 2.0}]
    stream = model.predict_stream({"a": [1.0, 9.0], "b": [1, 1]})
    assert next(stream) == {"value": 1.0}
    with pytest.raises(ModelError):
        next(stream)


def test_predict_stream_beside_predict(tmp_path: Path) -> None:
    class Both:
        def predict(self, df: pd.DataFrame) -> np.ndarray:
            return df["a"].to_numpy()

        def predict_stream(self, df: pd.DataFrame, params: dict[str, Any]) -> Iterator[float]:
            yield from df["a"]

    assert list(load(Both(), tmp_path / "m").predict_stream(FRAME)) == [1.0, 2.0]


def test_a_model_that_does_not_stream_says_so(tmp_path: Path) -> None:
    model = load(add, tmp_path / "m")
    assert not model.streams
    with pytest.raises(UsageError) as info:
        next(model.predict_stream(FRAME))
    assert info.value.code == "stream-unsupported"


def test_without_a_signature_data_goes_in_as_it_is(tmp_path: Path) -> None:
    model = load(lambda df: list(df["x"]), tmp_path / "m", example=None)
    assert model.predict({"x": [1, 2]}) == [1, 2]


def test_the_repr_names_model_and_flavor(tmp_path: Path) -> None:
    assert repr(load(add, tmp_path / "m")) == "<Model m 1 flavor=python>"
