"""The JSON forms of an invocation: what is read, what is refused by name, and that what is written reads back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from modelpack import coerce, forms
from modelpack.coerce import Split
from modelpack.coerce.columns import objects, physical
from modelpack.dtypes import (
    DecimalType,
    DictionaryType,
    DurationType,
    Element,
    Item,
    ListType,
    MapType,
    StructField,
    StructType,
    TimestampType,
)
from modelpack.errors import InputError
from modelpack.frame import Frame, Vector
from modelpack.signature import Column, Signature, Table, Tensor, Tensors

NOTHING = Signature()


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ({"dataframe_split": {"columns": ["a"], "index": [0], "data": [[1]]}}, Split(["a"], [[1]])),
        ({"dataframe_split": {"data": [[1]]}}, Split(None, [[1]])),
        ({"dataframe_records": [{"a": 1}]}, [{"a": 1}]),
        ({"instances": [[1, 2]]}, [[1, 2]]),
        ({"inputs": {"a": [1]}}, {"a": [1]}),
        ({"inputs": "anything"}, "anything"),
    ],
)
def test_each_form_is_read(body: dict[str, Any], data: Any) -> None:
    call = forms.parse(body, signature=NOTHING)
    assert (call.data, call.params, call.at) == (data, None, next(iter(body)))


def test_params_are_read_beside_the_form() -> None:
    assert forms.parse({"params": {"k": 1}, "inputs": [1]}, signature=NOTHING).params == {"k": 1}
    assert forms.parse({"params": None, "inputs": [1]}, signature=NOTHING).params is None


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        ([], "form-invalid", ""),
        (None, "form-invalid", ""),
        ({}, "form-invalid", ""),
        ({"params": {}}, "form-invalid", ""),
        ({"inputs": [], "instances": []}, "form-invalid", "inputs"),
        ({"inputs": [], "signature_name": "x"}, "form-invalid", "signature_name"),
        ({"inputs": [], "odd key": "x"}, "form-invalid", '["odd key"]'),
        ({"messages": []}, "form-invalid", "messages"),
        ({"prompt": "x"}, "form-invalid", "prompt"),
        ({"inputs": [], "prompt": "x"}, "form-invalid", "prompt"),
        ({"inputs": [], "params": [1]}, "type-mismatch", "params"),
        ({"dataframe_split": []}, "type-mismatch", "dataframe_split"),
        ({"dataframe_split": {}}, "type-mismatch", "dataframe_split.data"),
        ({"dataframe_split": {"data": {}}}, "type-mismatch", "dataframe_split.data"),
        ({"dataframe_split": {"data": [], "columns": "a"}}, "type-mismatch", "dataframe_split.columns"),
        ({"dataframe_split": {"data": [], "rows": []}}, "form-invalid", "dataframe_split.rows"),
        ({"dataframe_records": {"a": [1]}}, "type-mismatch", "dataframe_records"),
        ({"dataframe_records": [{"a": 1}, [1]]}, "type-mismatch", "dataframe_records[1]"),
        ({"instances": {"a": [1]}}, "type-mismatch", "instances"),
    ],
)
def test_what_is_no_form_is_refused_by_name(body: Any, code: str, path: str) -> None:
    with pytest.raises(InputError) as caught:
        forms.parse(body, signature=NOTHING)
    assert (caught.value.code, caught.value.path) == (code, path)


def test_chat_requests_get_a_helpful_answer() -> None:
    with pytest.raises(InputError, match=r"chat and completion requests.*Send exactly one of dataframe_split"):
        forms.parse({"messages": [{"role": "user"}]}, signature=NOTHING)


@given(body=st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_anything_is_read_or_refused(body: Any) -> None:
    """Whatever JSON comes, nothing but InputError is raised."""
    for wrapped in (
        body,
        {"inputs": body},
        {"instances": body},
        {"dataframe_split": body},
        {"dataframe_records": body},
    ):
        for signature in (TABLE, TENSORS, NOTHING):
            try:
                call = forms.parse(wrapped, signature=signature)
                coerce.inputs(call.data, signature, wire="json", at=call.at)
            except InputError as exc:
                assert exc.code in coerce.CODES


TABLE = Signature(inputs=Table(columns=(Column(name="a", type="int64"), Column(name="b", type="utf8", nullable=True))))
TENSORS = Signature(
    inputs=Tensors(
        tensors=(Tensor(name="x", dtype="float32", shape=("n", None)), Tensor(name="y", dtype="utf8", shape=("n",)))
    )
)


# Written and read back ----------------------------------------------------------------------------------------------

NAIVE = TimestampType(unit="ns")
UTC = TimestampType(unit="s", tz="Europe/Berlin")
JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(st.none() | inner, max_size=2) | st.dictionaries(st.text(), st.none() | inner, max_size=2),
    max_leaves=3,
)


def counts(low: int, high: int, dtype: str) -> st.SearchStrategy[Any]:
    return st.integers(low, high).map(lambda value: np.int64(value).view(dtype))


LONG = (-(2**63) + 1, 2**63 - 1)
TYPES: dict[str, tuple[Item, st.SearchStrategy[Any]]] = {
    "flag": ("bool", st.booleans()),
    "i64": ("int64", st.integers(*LONG)),
    "u64": ("uint64", st.integers(0, 2**64 - 1)),
    "f16": ("float16", st.floats(width=16, allow_nan=False, allow_infinity=False)),
    "f32": ("float32", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "f64": ("float64", st.floats(allow_nan=False, allow_infinity=False)),
    "odd name": ("utf8", st.text(max_size=3)),
    "raw": ("binary", st.binary(max_size=3)),
    "day": ("date32", counts(-(2**31), 2**31 - 1, "M8[D]")),
    "ns": (NAIVE, counts(*LONG, "M8[ns]")),
    "s": (UTC, counts(-(2**40), 2**40, "M8[s]")),
    "span": (DurationType(unit="us"), counts(*LONG, "m8[us]")),
    "money": (
        DecimalType(precision=40, scale=12),
        st.integers(-(10**39), 10**39).map(lambda n: Decimal(f"{n}E-12")),
    ),
    "colour": (DictionaryType(values="uint8", categories=(1, 2)), st.sampled_from([1, 2])),
    "list": (ListType(items=Element(type="date32", nullable=True)), st.lists(st.none() | counts(-9, 9, "M8[D]"))),
    "struct": (
        StructType(fields=(StructField(name="x", type="float64", nullable=True, optional=True),)),
        st.sampled_from([{}, {"x": None}, {"x": 0.5}]),
    ),
    "map": (MapType(values=Element(type="int8")), st.dictionaries(st.text(), st.integers(-9, 9), max_size=2)),
    "any": ("any", JSON_VALUES),
}


def as_vector(dtype: Item, values: list[Any]) -> Vector:
    kind, filler = physical(dtype)
    filled = [filler if value is None else value for value in values]
    data = objects(filled) if kind == np.dtype(object) else np.array(filled, dtype=kind)
    missing = np.array([value is None for value in values])
    return Vector(type=dtype, data=data, missing=missing if missing.any() else None)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    rows = draw(st.integers(0, 3))
    columns = {}
    for name, (dtype, values) in TYPES.items():
        columns[name] = as_vector(dtype, draw(st.lists(st.none() | values, min_size=rows, max_size=rows)))
    return Frame(rows=rows, columns=columns)


EVERYTHING = Signature(
    inputs=Table(columns=tuple(Column(name=name, type=dtype, nullable=True) for name, (dtype, _) in TYPES.items()))  # type: ignore[arg-type]
)


def sent(frame: Frame, signature: Signature) -> Frame:
    """Return what arrives when the frame is written, sent as text and read."""
    body = json.loads(json.dumps(forms.build(frame), allow_nan=False))
    call = forms.parse(body, signature=signature)
    return coerce.inputs(call.data, signature, wire="json", at=call.at)


@settings(max_examples=100, deadline=None)
@given(frame=frames())
def test_a_table_that_was_written_reads_back_exactly(frame: Frame) -> None:
    got = sent(frame, EVERYTHING)
    assert got.rows == frame.rows
    assert got.columns is not None and frame.columns is not None
    for name, vector in frame.columns.items():
        other = got.columns[name]
        assert (other.type, other.data.dtype) == (vector.type, vector.data.dtype), name
        assert repr(other.data.tolist()) == repr(vector.data.tolist()), name
        assert (other.missing is None) == (vector.missing is None), name
        if vector.missing is not None:
            assert other.missing is not None and other.missing.tolist() == vector.missing.tolist(), name


@pytest.mark.parametrize(
    "array",
    [
        np.array([True, False]),
        np.array([[2**63 - 1, -(2**63)]]),
        np.array([2**64 - 1], "u8"),
        np.array([[0.1, np.nan], [1e300, -0.0]]),
        np.array([0.1, 65504], "f2"),
        np.array(0.5),
        np.array([["a", ""], ["é", "b"]], dtype=object),
        np.array([b"ab", b""], dtype=object),
        np.zeros((0, 2)),
        np.zeros((1, 2, 3), "i1"),
    ],
)
def test_a_tensor_that_was_written_reads_back_exactly(array: np.ndarray[Any, Any]) -> None:
    dtype: Any = str(array.dtype)
    if dtype == "object":
        dtype = "binary" if isinstance(array.flat[0], bytes) else "utf8"
    shape = (*("n" for _ in array.shape[:1]), *array.shape[1:])
    tensor = Tensor(name="x", dtype=dtype, shape=shape, nullable=dtype.startswith("float"))
    got = sent(Frame(rows=1, tensors={"x": array}), Signature(inputs=Tensors(tensors=(tensor,))))
    assert got.tensors is not None
    assert (got.tensors["x"].dtype, got.tensors["x"].shape) == (array.dtype, array.shape)
    assert repr(got.tensors["x"].tolist()) == repr(array.tolist())


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        (Frame(rows=2, columns={"x": as_vector("float64", [0.5, np.inf])}), "x[1]"),
        (Frame(rows=1, columns={"x": as_vector("any", [object()])}), "x[0]"),
        (Frame(rows=1, columns={"x": as_vector("any", [[float("nan")]])}), "x[0]"),
        (Frame(rows=1, columns={"x": as_vector("any", [{1: 2}])}), "x[0]"),
        (Frame(rows=2, tensors={"x": np.array([[0.5, 1], [-np.inf, 2]])}), "x[1][0]"),
        (Frame(rows=1, tensors={"x": np.array(np.inf)}), "x"),
    ],
)
def test_what_has_no_json_form_is_refused(frame: Frame, path: str) -> None:
    with pytest.raises(InputError) as caught:
        forms.build(frame)
    assert (caught.value.code, caught.value.path) == ("json-unwritable", path)


def test_a_frame_without_columns_keeps_its_rows() -> None:
    assert forms.build(Frame(rows=2, columns={})) == {"dataframe_split": {"columns": [], "data": [[], []]}}
