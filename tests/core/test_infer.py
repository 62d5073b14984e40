"""What was inferred takes the data it was inferred from, whatever the data is."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings

from modelpack import coerce, infer
from modelpack.coerce import Split
from modelpack.dtypes import (
    DecimalType,
    DictionaryType,
    DurationType,
    Element,
    ListType,
    MapType,
    StructField,
    StructType,
    TimestampType,
)
from modelpack.errors import SignatureError
from modelpack.signature import Json, Param, Signature, Table, Tensor, Tensors


def columns(data: Any) -> dict[str, Any]:
    """Return the types by name, with ? for nullable, after a round trip of the data."""
    signature = infer.signature(data)
    assert isinstance(signature.inputs, Table)
    coerce.inputs(data, signature)
    return {c.name: (c.type, "?") if c.nullable else c.type for c in signature.inputs.columns}


def tensor(data: Any) -> Tensor:
    signature = infer.signature(data)
    assert isinstance(signature.inputs, Tensors)
    coerce.inputs(data, signature)
    (found,) = signature.inputs.tensors
    return found


UTC = TimestampType(unit="us", tz="UTC")


def listed(dtype: Any) -> ListType:
    return ListType(items=Element(type=dtype))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1, 2], "int64"),
        ([1, None], ("float64", "?")),
        ([1.5, np.nan], ("float64", "?")),
        ([True, False], "bool"),
        (["a", None], ("utf8", "?")),
        ([b"a"], "binary"),
        ([1, "a"], "any"),
        ([None, None], ("any", "?")),
        ([dt.date(2020, 1, 1)], "date32"),
        ([Decimal("1.50"), Decimal(2)], DecimalType(precision=38, scale=2)),
        ([Decimal("NaN")], ("any", "?")),
        ([Decimal("Infinity")], "any"),
        ([Decimal("1e-80")], "any"),
        ([2**63], "uint64"),
        ([2**64], "any"),
        ([-(2**70)], "any"),
        ([[1, 2], [3]], ListType(items=Element(type="int64"))),
        ([[1, None], None], (ListType(items=Element(type="int64", nullable=True)), "?")),
        ([np.array([1.5])], ListType(items=Element(type="float64"))),
        ([[]], ListType(items=Element(type="any", nullable=True))),
        (
            [{"x": 1}, {"x": None, "y": "a"}],
            StructType(
                fields=(
                    StructField(name="x", type="int64", nullable=True),
                    StructField(name="y", type="utf8", optional=True),
                )
            ),
        ),
        ([{}], "any"),
        ([{1: 2}], "any"),
        ([{"\ud800": 2}], "any"),
        ([{1, 2}], "any"),
        (np.array([1, 2], "u1"), "uint8"),
        (np.array([1, 2], ">i2"), "int16"),
        (np.array([1.5], "f2"), "float16"),
        (np.array([1.5], "f4"), "float32"),
        (np.array(["a"]), "utf8"),
        (np.array([1.5], np.longdouble), "float64"),
        (np.array([1j]), "any"),
        (np.array(["2020-01-01"], "M8[D]"), "date32"),
        (np.array(["2020-01", "NaT"], "M8[M]"), ("date32", "?")),
        (np.array(["2020-01-01T01"], "M8[h]"), TimestampType(unit="s")),
        (np.array(["2020-01-01"], "M8[ns]"), TimestampType(unit="ns")),
        (np.array([2**40], "M8[D]"), "any"),
        (np.array([2**62], "M8[h]"), "any"),
        (np.array([5], "m8[ms]"), DurationType(unit="ms")),
        (np.array([5], "m8[D]"), DurationType(unit="s")),
        (pd.array([1, None], "Int64"), ("int64", "?")),
        (pd.array([1, 2], "UInt8"), "uint8"),
        (pd.array([True, None], "boolean"), ("bool", "?")),
        (pd.array([1.5, None], "Float32"), ("float32", "?")),
        (pd.array(["a"], "string"), "utf8"),
        (pd.Series([], dtype="str"), "utf8"),
        (pd.Series([], dtype=object), ("any", "?")),
        (pd.Categorical(["b", "a", None]), (DictionaryType(categories=("a", "b")), "?")),
        (
            pd.Categorical([2, 1], categories=[2, 1], ordered=True),
            DictionaryType(values="int64", categories=(2, 1), ordered=True),
        ),
        (pd.Categorical([True]), DictionaryType(values="bool", categories=(True,))),
        (pd.Categorical([1.5]), DictionaryType(values="float64", categories=(1.5,))),
        (pd.Categorical([dt.date(2020, 1, 1)]), "date32"),
        (pd.Categorical([None]), ("any", "?")),
        (pd.Series(pd.to_datetime(["2020-01-01"], utc=True)), UTC),
        (
            pd.Series(pd.to_datetime(["2020-01-01"])).dt.tz_localize("Europe/Berlin"),
            TimestampType(unit="us", tz="Europe/Berlin"),
        ),
        (pd.Series(pd.to_datetime(["2020-01-01T00:00:00+05:30"])), UTC),
        (pd.Series(pd.to_datetime(["2020-01-01", None])), (TimestampType(unit="us"), "?")),
        (pd.array([1, 0], pd.SparseDtype("int64", 0)), "int64"),
        (pd.Series([dt.datetime(2020, 1, 1)], dtype=object), TimestampType(unit="us")),
        (pd.Series([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], dtype=object), UTC),
        (pd.Series([dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], dtype=object), "any"),
        (pd.Series([dt.datetime(2020, 1, 1), dt.date(2020, 1, 1)], dtype=object), "any"),
        (pd.Series([pd.Timestamp(1), pd.NaT], dtype=object), (TimestampType(unit="ns"), "?")),
        (pd.Series([np.datetime64("2020-01-01T00:00", "m")], dtype=object), TimestampType(unit="s")),
        (pd.Series([np.datetime64("2020-01-01")], dtype=object), "date32"),
        (pd.Series([np.timedelta64(1, "ms")], dtype=object), DurationType(unit="ms")),
        (pd.Series([np.timedelta64(1, "Y")], dtype=object), "any"),
        (pd.Series([np.datetime64(1, "ps")], dtype=object), "any"),
        (pd.Series([dt.timedelta(1)], dtype=object), DurationType(unit="us")),
        (pd.Series([1, 2.5], dtype=object), "float64"),
        (pd.Series([2**53 + 1, 2.5], dtype=object), "any"),
        (pd.Series([True, None], dtype=object), ("bool", "?")),
        (pa.array([1, None], pa.int8()), ("int8", "?")),
        (pa.array([None], pa.string()), ("utf8", "?")),
        (pa.array([None], pa.string_view()), ("utf8", "?")),
        (pa.array([], pa.large_binary()), "binary"),
        (pa.array([b"a"], pa.binary(1)), "binary"),
        (pa.array([1], pa.date32()), "date32"),
        (pa.array([1], pa.timestamp("ms", "UTC")), TimestampType(unit="ms", tz="UTC")),
        (pa.array([1], pa.timestamp("ns")), TimestampType(unit="ns")),
        (pa.array([1], pa.duration("ns")), DurationType(unit="ns")),
        (pa.array([Decimal("1.5")]), DecimalType(precision=2, scale=1)),
        (pa.array([1000], pa.decimal128(5, -2)), DecimalType(precision=38, scale=0)),
        (pa.array(["a"]).dictionary_encode(), DictionaryType()),
        (pa.array([7]).dictionary_encode(), "int64"),
        (pa.array([["a"]]), ListType(items=Element(type="utf8"))),
        (pa.array([[dt.datetime(2020, 1, 1, tzinfo=dt.UTC)]]), ListType(items=Element(type=UTC))),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), MapType(values=Element(type="int64"))),
        (pa.array([[(1, 1)]], pa.map_(pa.int8(), pa.int8())), listed(listed("int64"))),
        (pa.array([dt.time(1)]), "any"),
        (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16))),
            "binary",
        ),
        (pd.Series([1, None], dtype=pd.ArrowDtype(pa.int16())), ("int16", "?")),
        (pd.Series([None, "a"], dtype=pd.ArrowDtype(pa.string())), ("utf8", "?")),
    ],
)  # fmt: skip
def test_the_type_of_a_column(column: Any, expected: Any) -> None:
    if isinstance(column, list):
        column = pd.Series(column)
    assert columns({"x": column})["x"] == expected
    if isinstance(column, pa.Array):
        assert columns(pa.table({"x": column}))["x"] == expected
    elif isinstance(column, pd.Series):
        assert columns(pd.DataFrame({"x": column}))["x"] == expected


NUMPY = [
    *("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "U3", "S3", "O"),
    *("M8[s]", "M8[ms]", "M8[us]", "M8[ns]", "m8[s]", "m8[ms]", "m8[us]", "m8[ns]"),
]
OBJECTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=3),
        st.binary(max_size=3),
        st.dates(),
        st.datetimes(),
        st.datetimes(timezones=st.just(dt.UTC)),
        st.timedeltas(),
        st.decimals(),
        st.sampled_from([pd.NA, pd.NaT, np.int8(5), np.float16(0.1), np.datetime64("NaT"), "\ud800", dt.time(1), {1}]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
SERIES = st.one_of(
    st.tuples(st.sampled_from(NUMPY), st.lists(st.binary(min_size=8, max_size=8), max_size=4)).map(
        lambda pair: (
            pd.Series(np.frombuffer(b"".join(pair[1]), "i8").astype(pair[0], casting="unsafe"))
            if pair[0] != "O"
            else pd.Series(pair[1], dtype=object)
        )
    ),
    st.tuples(
        st.sampled_from(["Int8", "Int64", "UInt64", "Float32", "Float64", "boolean", "string", "str", "category"]),
        st.lists(st.none() | st.booleans(), max_size=4),
    ).map(
        lambda pair: (
            pd.Series([None if v is None else str(v) for v in pair[1]], dtype=pair[0])
            if pair[0] in ("string", "str", "category")
            else pd.Series(pd.array(pair[1], "boolean").astype(pair[0]))
        )
    ),
    st.lists(st.none() | st.datetimes(), max_size=4).map(
        lambda values: pd.Series(pd.to_datetime(pd.Series(values, dtype="M8[us]"))).dt.tz_localize("UTC")
    ),
    st.lists(st.none() | st.integers(0, 3), max_size=4).map(lambda values: pd.Series(pd.Categorical(values))),
    st.lists(OBJECTS, max_size=4).map(lambda values: pd.Series(np.fromiter(values, object, len(values)), dtype=object)),
)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@settings(max_examples=300, deadline=None)
@given(series=SERIES)
def test_what_was_inferred_takes_its_own_data(series: pd.Series) -> None:
    for data in (pd.DataFrame({"x": series}), {"x": series}, series.rename("x"), Split(["x"], [[v] for v in series])):
        signature = infer.signature(data)
        assert coerce.inputs(data, signature).rows == len(series)
        assert Signature.model_validate_json(signature.model_dump_json()) == signature


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["a", "b"]), OBJECTS, min_size=1), min_size=1, max_size=4))
def test_what_was_inferred_takes_its_own_records(rows: list[dict[str, Any]]) -> None:
    assert coerce.inputs(rows, infer.signature(rows)).rows == len(rows)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from([name for name in NUMPY if name[0] not in "MmO"]),
    shape=st.lists(st.integers(0, 3), min_size=0, max_size=3),
    start=st.integers(-(2**62), 2**62),
)
def test_what_was_inferred_takes_its_own_array(dtype: str, shape: list[int], start: int) -> None:
    array = (np.arange(np.prod(shape, dtype=int), dtype="i8") + start).astype(dtype).reshape(shape)
    signature = infer.signature(array)
    frame = coerce.inputs(array, signature)
    assert frame.tensors is not None
    assert frame.tensors["input"].shape == tuple(shape)


# Forms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (np.zeros((3, 2)), "float64", ("batch", 2)),
        (np.zeros((3, 2, 2), "f4"), "float32", ("batch", 2, 2)),
        (np.array([1, 2]), "int64", ("batch",)),
        (np.array(5), "int64", ()),
        (np.array(["a"]), "utf8", ("batch",)),
        (np.array(["a"], dtype=object), "utf8", ("batch",)),
        (np.array([b"a"]), "binary", ("batch",)),
        (np.empty((0, 2), dtype=object), "utf8", ("batch", 2)),
        ([[1, 2], [3, 4]], "int64", ("batch", 2)),
        ([1.5, 2.5], "float64", ("batch",)),
        (["a", "b"], "utf8", ("batch",)),
        (pd.DataFrame([[1, 2]]), "int64", ("batch", 2)),
    ],
)
def test_arrays_are_tensors_with_a_free_first_dimension(data: Any, dtype: str, shape: Any) -> None:
    assert tensor(data) == Tensor(name="input", dtype=dtype, shape=shape)


def test_nan_makes_a_tensor_nullable() -> None:
    assert tensor(np.array([1.0, np.nan])).nullable


def test_a_sparse_matrix_is_a_tensor() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    assert tensor(sparse.csr_matrix(np.eye(2))) == Tensor(name="input", dtype="float64", shape=("batch", 2))


def test_arrays_by_name_are_a_table_or_tensors() -> None:
    table = infer.io({"a": np.array([1]), "b": np.array([1.5])})
    assert isinstance(table, Table)
    several = infer.io({"a": np.array([[1]]), "b": np.array([1.5])})
    assert isinstance(several, Tensors)
    assert [(t.name, t.shape) for t in several.tensors] == [("a", ("batch", 1)), ("b", ("batch",))]


def test_a_list_of_arrays_is_numbered_tensors() -> None:
    found = infer.io([np.zeros((1, 2)), np.zeros((1, 3))], default_name="prediction")
    assert isinstance(found, Tensors)
    assert [(t.name, t.shape) for t in found.tensors] == [
        ("prediction_0", ("batch", 2)),
        ("prediction_1", ("batch", 3)),
    ]


def test_a_series_is_a_column_of_its_name() -> None:
    assert columns(pd.Series([1], name="age")) == {"age": "int64"}
    assert columns(pd.Series([1])) == {"input": "int64"}
    assert columns(pa.array([1])) == {"input": "int64"}


def test_deep_nesting_is_untyped_in_the_end() -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    records = [{"x": deep}]
    assert coerce.inputs(records, infer.signature(records)).rows == 1
    assert coerce.inputs(deep, Signature()).rows == 1


def test_a_mixed_list_is_an_untyped_column() -> None:
    assert columns([1, "a"]) == {"input": "any"}


def test_a_frame_shows_its_own_signature() -> None:
    frame = coerce.inputs({"a": [1, 2]}, infer.signature({"a": [1, 2]}))
    assert isinstance(infer.io(frame), Table)
    both = coerce.inputs(np.eye(2), infer.signature(np.eye(2)))
    assert infer.io(both) == infer.io(np.eye(2))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (pd.DataFrame({0: ["a"]}), "name-invalid"),
        (pd.DataFrame({"a": [1], 5: [2]}), "name-invalid"),
        (pd.DataFrame({"": [1]}), "name-invalid"),
        ({"\ud800": [1]}, "name-invalid"),
        ({"x" * 1025: [1]}, "name-invalid"),
        ({5: np.zeros((1, 1))}, "name-invalid"),
        (pd.DataFrame([["a", 2]], columns=["a", "a"]), "name-invalid"),
        (Split(None, [[1]]), "name-invalid"),
        ([["a", 1]], "name-invalid"),
        ({}, "data-empty"),
        (pd.DataFrame(), "data-empty"),
        ([], "data-empty"),
        (pd.DataFrame({"p": pd.period_range("2020", periods=1, freq="M")}), "type-unsupported"),
        (pd.DataFrame({"p": pd.interval_range(0, 1)}), "type-unsupported"),
        ({"p": np.array([1], "M8[ps]")}, "type-unsupported"),
        ({"p": np.array([1], "m8[Y]")}, "type-unsupported"),
        (np.array([1j]), "type-unsupported"),
        (np.array([1, None]), "type-unsupported"),
        (np.array([1], "M8[s]"), "type-unsupported"),
        ("text", "data-invalid"),
        (5, "data-invalid"),
        ({"a": [1], "b": [1, 2]}, "ragged"),
    ],
)
def test_what_shows_no_signature_is_an_error(data: Any, code: str) -> None:
    with pytest.raises(SignatureError) as caught:
        infer.signature(data)
    assert caught.value.code == code


# Answers and params -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "dtype", "nullable"),
    [
        (np.array([1]), "int64", False),
        (np.array([1.5]), "float64", True),
        (np.array(["a"]), "utf8", False),
        (pd.Series([1], name="target"), "int64", False),
        (pd.Series([1.5, None]), "float64", True),
        (pd.Series(pd.array([1.5, None], "Float32")), "float64", True),
        (pd.Series(["a"]), "utf8", False),
        ([1, 2], "int64", False),
    ],
)
def test_an_answer_is_a_tensor_called_prediction(raw: Any, dtype: str, nullable: bool) -> None:
    """Floats of an answer may be NaN, whatever the example's are."""
    expected = Tensor(name="prediction", dtype=dtype, shape=("batch",), nullable=nullable)
    assert infer.signature(np.zeros(1), raw).outputs == Tensors(tensors=(expected,))


@pytest.mark.parametrize(
    "raw",
    [
        pd.DataFrame({"a": [1.5]}),
        pd.Series(pd.array([1, None], "Int64")),
        pd.Series(pd.to_datetime(["2020-01-01"])),
        [{"a": 1}],
        {"a": [1.5]},
        pa.table({"a": [1]}),
    ],
)
def test_an_answer_may_be_a_table(raw: Any) -> None:
    io = infer.answer(raw)
    assert isinstance(io, Table)
    coerce.outputs(raw, io)
    assert all(column.nullable for column in io.columns if column.type == "float64")


@pytest.mark.parametrize("raw", [None, "a", 5, {}, [], {"a": 1}, {"a": [1, "b"]}, [1, "a"], [[1], [2, 3]], object()])
def test_any_other_answer_is_json(raw: Any) -> None:
    assert infer.answer(raw) == Json()


def test_params_have_the_type_of_their_default() -> None:
    found = infer.signature(
        None, params={"k": 3, "rate": 0.5, "name": "a", "raw": b"ab", "when": dt.date(2020, 1, 1), "free": None}
    )
    assert found.inputs is None
    assert found.params == (
        Param(name="k", type="int64", default=3),
        Param(name="rate", type="float64", default=0.5),
        Param(name="name", type="utf8", default="a"),
        Param(name="raw", type="binary", default="YWI="),
        Param(name="when", type="date32", default="2020-01-01"),
        Param(name="free", type="any", nullable=True),
    )
    assert coerce.params(None, found)["raw"] == b"ab"


def test_a_default_without_a_json_form_is_an_error() -> None:
    with pytest.raises(SignatureError, match="infinity"):
        infer.signature(None, params={"limit": float("inf")})
