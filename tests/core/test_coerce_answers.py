"""Params, and a model's answers against the outputs of the signature."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from modelpack import coerce
from modelpack.dtypes import DecimalType, DictionaryType, DurationType, Element, ListType
from modelpack.errors import InputError, OutputError
from modelpack.signature import IO, Column, Constraints, Json, Param, Signature, Table, Tensor, Tensors

# Params -------------------------------------------------------------------------------------------------------------

PARAMS = Signature(
    params=(
        Param(name="method", type="utf8", default="predict", constraints=Constraints(enum=("predict", "proba"))),
        Param(name="rate", type="float64", default=0.5, constraints=Constraints(minimum=0, maximum=1)),
        Param(name="seed", type="int64", nullable=True),
        Param(name="wait", type=DurationType(unit="ms"), default="PT1S"),
        Param(
            name="labels",
            type=ListType(items=Element(type="utf8")),
            default=["a"],
            constraints=Constraints(min_length=1, max_length=2),
        ),
    )
)


def test_defaults_are_filled_in() -> None:
    assert coerce.params(None, PARAMS) == {
        "method": "predict",
        "rate": 0.5,
        "seed": None,
        "wait": np.timedelta64(1000, "ms"),
        "labels": ["a"],
    }


def test_params_are_coerced_as_values_are() -> None:
    sent = {"rate": 1, "seed": None, "method": "proba", "wait": "PT0.5S", "labels": ["x", "y"]}
    out = coerce.params(sent, PARAMS, wire="json")
    assert (out["rate"], out["seed"], out["wait"]) == (1.0, None, np.timedelta64(500, "ms"))


@pytest.mark.parametrize(
    ("sent", "code", "path"),
    [
        ({"mehtod": "predict"}, "param-unknown", "params.mehtod"),
        ({"method": "score"}, "param-constraint", "params.method"),
        ({"rate": 1.5}, "param-constraint", "params.rate"),
        ({"rate": -1}, "param-constraint", "params.rate"),
        ({"rate": None}, "null-not-allowed", "params.rate"),
        ({"rate": "0.5"}, "type-mismatch", "params.rate"),
        ({"labels": []}, "param-constraint", "params.labels"),
        ({"labels": ["a", "b", "c"]}, "param-constraint", "params.labels"),
        ({"labels": ["a", 1]}, "type-mismatch", "params.labels[1]"),
        ([], "type-mismatch", "params"),
    ],
)
def test_params_that_do_not_fit_are_refused(sent: Any, code: str, path: str) -> None:
    with pytest.raises(InputError) as caught:
        coerce.params(sent, PARAMS, wire="json")
    assert (caught.value.code, caught.value.path) == (code, path)


def test_a_param_without_a_default_is_required() -> None:
    signature = Signature(params=(Param(name="k", type="int64"),))
    with pytest.raises(InputError) as caught:
        coerce.params({}, signature)
    assert (caught.value.code, caught.value.path) == ("param-missing", "params.k")
    assert coerce.params({"k": 3}, signature) == {"k": 3}


def test_a_model_without_params_says_so() -> None:
    with pytest.raises(InputError, match="it has none"):
        coerce.params({"k": 3}, Signature())


def test_limits_hold_for_decimals_too() -> None:
    kind = DecimalType(precision=4, scale=2)
    signature = Signature(params=(Param(name="fee", type=kind, default="1.00", constraints=Constraints(maximum=5)),))
    assert coerce.params({"fee": "2.50"}, signature, wire="json") == {"fee": Decimal("2.50")}
    with pytest.raises(InputError, match="at most 5"):
        coerce.params({"fee": "7"}, signature, wire="json")


# Answers ------------------------------------------------------------------------------------------------------------


def tensor(dtype: Any, *shape: Any, **options: Any) -> Tensors:
    return Tensors(tensors=(Tensor(name="prediction", dtype=dtype, shape=shape, **options),))


@pytest.mark.parametrize(
    ("raw", "io", "expected"),
    [
        (np.array([1, 2]), tensor("int64", "batch"), [1, 2]),
        (np.array([1, 2], "i4"), tensor("int64", "batch"), [1, 2]),
        (np.array(["a", "b"]), tensor("utf8", "batch"), ["a", "b"]),
        (np.array(["a", "b"], dtype=object), tensor("utf8", "batch"), ["a", "b"]),
        (np.array(["a", "b"], dtype=np.dtypes.StringDType()), tensor("utf8", "batch"), ["a", "b"]),
        (np.array([[0.5, 0.5]], "f4"), tensor("float64", "batch", 2), [[0.5, 0.5]]),
        (pd.Series([1, 2], name="whatever"), tensor("int64", "batch"), [1, 2]),
        (pd.DataFrame({"p": [0.25], "q": [0.75]}), tensor("float64", "batch", 2), [[0.25, 0.75]]),
        (pd.DataFrame({"p": [1, 2]}), tensor("int64", "batch"), [1, 2]),
        ([1, 2], tensor("int64", "batch"), [1, 2]),
        ([True], tensor("bool", "batch"), [True]),
        (5.0, tensor("float64"), 5.0),
        (np.float32(5), tensor("float64"), 5.0),
        (pa.array([1, 2]), tensor("int64", "batch"), [1, 2]),
        ({"prediction": [1]}, tensor("int64", "batch"), [1]),
    ],
)
def test_answers_are_tensors(raw: Any, io: IO, expected: Any) -> None:
    frame = coerce.outputs(raw, io)
    assert frame.tensors is not None
    assert frame.tensors["prediction"].tolist() == expected


def test_a_sparse_answer_is_dense() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    frame = coerce.outputs(sparse.csr_matrix([[0.0, 1.0]]), tensor("float64", "batch", 2), rows=1)
    assert frame.tensors is not None and frame.tensors["prediction"].tolist() == [[0.0, 1.0]]


def test_several_arrays_are_several_tensors() -> None:
    io = Tensors(tensors=tuple(Tensor(name=f"p{i}", dtype="float64", shape=("batch", 2)) for i in range(2)))
    arrays = [np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])]
    for raw in (arrays, tuple(arrays), {"p1": arrays[1], "p0": arrays[0]}):
        frame = coerce.outputs(raw, io, rows=1)
        assert {name: part.tolist() for name, part in (frame.tensors or {}).items()} == {
            "p0": [[0.5, 0.5]],
            "p1": [[0.25, 0.75]],
        }


TABLE = Table(columns=(Column(name="label", type="utf8"), Column(name="score", type="float64", nullable=True)))


@pytest.mark.parametrize(
    "raw",
    [
        pd.DataFrame({"score": [0.5], "label": ["a"]}),
        {"label": ["a"], "score": np.array([0.5])},
        [{"label": "a", "score": 0.5}],
        {"label": "a", "score": 0.5},
        np.array([["a", 0.5]], dtype=object),
        pa.table({"label": ["a"], "score": [0.5]}),
    ],
)
def test_answers_are_tables(raw: Any) -> None:
    frame = coerce.outputs(raw, TABLE, rows=1)
    assert frame.columns is not None
    assert {name: vector.data.tolist() for name, vector in frame.columns.items()} == {"label": ["a"], "score": [0.5]}


def test_a_series_is_the_one_column_of_a_table() -> None:
    frame = coerce.outputs(pd.Series([1, 2], name="y"), Table(columns=(Column(name="target", type="int64"),)), rows=2)
    assert list(frame) == ["target"]


@pytest.mark.parametrize(
    ("raw", "io", "rows", "code"),
    [
        (np.array([1, 2, 3]), tensor("int64", "batch"), 2, "rows-mismatch"),
        (np.array([[1]]), tensor("int64", "batch"), 1, "shape-mismatch"),
        (np.array([1.5]), tensor("int64", "batch"), 1, "not-whole"),
        (np.array([np.nan]), tensor("float64", "batch"), 1, "null-not-allowed"),
        (np.array(["a"]), tensor("float64", "batch"), 1, "type-mismatch"),
        (None, tensor("float64", "batch"), 1, "shape-mismatch"),
        (pd.DataFrame({"label": ["a"]}), TABLE, 1, "column-missing"),
        ("text", TABLE, 1, "data-invalid"),
        (np.array([1]), Table(columns=(Column(name="c", type=DictionaryType()),)), 1, "type-mismatch"),
    ],
)
def test_answers_that_do_not_fit_are_refused(raw: Any, io: IO, rows: int, code: str) -> None:
    with pytest.raises(OutputError) as caught:
        coerce.outputs(raw, io, rows=rows)
    assert caught.value.code == code


def test_only_tensors_without_a_fixed_first_size_count_rows() -> None:
    for io, raw in (
        (tensor("float64"), np.float64(1.0)),
        (tensor("float64", 2), np.array([1.0, 2.0])),
        (Tensors(tensors=(*tensor("float64", 2).tensors, Tensor(name="b", dtype="float64", shape=(None,)))), None),
    ):
        answer = raw if raw is not None else {io.tensors[0].name: np.ones(2), "b": np.ones(3)}
        assert coerce.outputs(answer, io, rows=3).tensors


def test_every_tensor_that_counts_rows_has_as_many_as_the_inputs() -> None:
    pair = Tensors(tensors=tuple(Tensor(name=name, dtype="float64", shape=(None,)) for name in "ab"))
    with pytest.raises(OutputError, match="2 rows for 3"):
        coerce.outputs({"a": np.ones(3), "b": np.ones(2)}, pair, rows=3)


def test_a_symbol_of_the_inputs_is_the_same_size_in_the_outputs() -> None:
    inputs = tensor("float64", "N", "T")
    signature = Signature(inputs=inputs, outputs=inputs)
    known = coerce.symbols(coerce.inputs(np.ones((3, 4)), signature), signature)
    assert known == {"N": 3, "T": 4}
    assert coerce.outputs(np.ones((3, 4)), inputs, rows=3, known=known).rows == 3
    for wrong in (np.ones((3, 5)), np.ones((3, 5)).tolist()):
        with pytest.raises(OutputError, match="is 5 where 4 is expected"):
            coerce.outputs(wrong, inputs, rows=3, known=known)
    with pytest.raises(OutputError, match="2 rows for 3"):
        coerce.outputs(np.ones((2, 4)), inputs, rows=3, known=known)


def test_no_rows_give_no_answers() -> None:
    several = Tensors(tensors=tuple(Tensor(name=f"p{i}", dtype="float64", shape=("batch", 2)) for i in range(2)))
    for io in (tensor("float64", "batch", 3), several, TABLE):
        assert coerce.outputs([], io, rows=0).rows == 0


@pytest.mark.parametrize("raw", [None, "text", {"a": [1, {"b": 2}]}, [1, "a"], 5])
@pytest.mark.parametrize("io", [Json(), None])
def test_any_other_answer_is_json(raw: Any, io: IO | None) -> None:
    frame = coerce.outputs(raw, io)
    assert frame.columns is not None
    assert (frame.rows, frame.columns["value"].type, frame.columns["value"].data[0]) == (1, coerce.JSON, raw)


def test_without_outputs_in_the_signature_the_answer_is_what_it_looks_like() -> None:
    assert coerce.outputs(np.array([[1.0, np.nan]]), None).tensors is not None
    assert coerce.outputs(pd.DataFrame({"a": [1, None]}), None).columns is not None
    assert coerce.outputs(pd.Series(["a", "b"]), None, rows=2).tensors is not None
