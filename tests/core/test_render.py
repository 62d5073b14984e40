"""A frame in the forms that models, files and clients take."""

from __future__ import annotations

import datetime as dt
import json
import sys
import zoneinfo
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from modelpack import coerce, infer, render
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
from modelpack.errors import OutputError, UsageError
from modelpack.frame import Frame, Vector
from modelpack.signature import Column, Signature, Table

UTC = TimestampType(unit="us", tz="UTC")
BERLIN = TimestampType(unit="ms", tz="Europe/Berlin")


def frame(dtype: Item, *values: Any, wire: Any = "python") -> Frame:
    column = Column(name="x", type=dtype, nullable=True)  # type: ignore[arg-type]
    return coerce.inputs({"x": list(values)}, Signature(inputs=Table(columns=(column,))), wire=wire)


DAY, NOON = dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 12)
NOON_UTC = NOON.replace(tzinfo=dt.UTC)
INSTANTS = ListType(items=Element(type=UTC, nullable=True))
DAYS = MapType(values=Element(type="date32", nullable=True))
SPAN = StructType(fields=(StructField(name="d", type=DurationType(unit="s"), nullable=True),))

# pandas -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "dtype"),
    [
        (frame("int64", 1, 2), "int64"),
        (frame("int8", 1, None), "Int8"),
        (frame("uint64", 2**64 - 1, None), "UInt64"),
        (frame("bool", True, False), "bool"),
        (frame("bool", True, None), "boolean"),
        (frame("float32", 1.5, None), "float32"),
        (frame("utf8", "a", None), "str"),
        (frame("utf8", None), "str"),
        (frame("binary", b"a"), "object"),
        (frame("date32", DAY, None), "object"),
        (frame(TimestampType(unit="ms"), NOON, None), "datetime64[ms]"),
        (frame(BERLIN, NOON_UTC, None), "datetime64[ms, Europe/Berlin]"),
        (frame(DurationType(unit="us"), dt.timedelta(1), None), "timedelta64[us]"),
        (frame(DecimalType(precision=3, scale=1), Decimal("1.5"), None), "object"),
        (frame(DictionaryType(categories=("b", "a")), "a", None), "category"),
        (frame(DictionaryType(), "a"), "category"),
        (frame(ListType(items=Element(type="int8")), [1], None), "object"),
        (frame("any", 1, "a", None), "object"),
    ],
)
def test_pandas_dtypes_are_what_a_user_expects(made: Frame, dtype: str) -> None:
    data = render.to(made, "pandas")
    assert (str(data["x"].dtype), list(data.columns), len(data)) == (dtype, ["x"], made.rows)
    assert made.columns is not None
    vector = made.columns["x"]
    assert data["x"].isna().tolist() == ([False] * made.rows if vector.missing is None else vector.missing.tolist())


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([DAY], "date32", DAY),
        ([NOON_UTC], BERLIN, pd.Timestamp("2020-01-01T13:00", tz="Europe/Berlin")),
        ([Decimal("1.5")], DecimalType(precision=9, scale=2), Decimal("1.50")),
        ([[NOON_UTC, None]], INSTANTS, [NOON_UTC, None]),
        ([{"k": DAY}], DAYS, {"k": DAY}),
        ([2**64 - 1], "uint64", 2**64 - 1),
    ],
)
def test_pandas_values_are_exact(values: list[Any], dtype: Item, expected: Any) -> None:
    assert render.to(frame(dtype, *values), "pandas")["x"][0] == expected


@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option:DeprecationWarning")
def test_text_is_as_pandas_2_holds_it() -> None:
    with pd.option_context("future.infer_string", False):
        made = render.to(frame("utf8", "a", None), "pandas")["x"]
    assert (str(made.dtype), repr(made.tolist())) == ("object", "['a', nan]")


def test_categories_keep_type_and_order() -> None:
    made = render.to(frame(DictionaryType(values="int16", categories=(3, 1), ordered=True), 1, None, 3), "pandas")["x"]
    assert (made.cat.categories.tolist(), str(made.cat.categories.dtype), made.cat.ordered) == ([3, 1], "int16", True)
    assert made.cat.codes.tolist() == [1, -1, 0]


def test_a_frame_of_one_dtype_is_one_block() -> None:
    data = coerce.inputs({"a": [1.5, 2.5], "b": [None, 4.5]}, infer.signature({"a": [1.5, 2], "b": [1.5, None]}))
    expected = pd.DataFrame({"a": [1.5, 2.5], "b": [np.nan, 4.5]})
    pd.testing.assert_frame_equal(render.to(data, "pandas"), expected)


def test_a_data_frame_comes_back_as_it_was() -> None:
    original = pd.DataFrame(
        {
            "i": [1, 2],
            "n": pd.array([1, None], "Int64"),
            "f": [0.5, np.nan],
            "s": ["a", None],
            "t": pd.to_datetime(["2020-01-01", None]).astype("M8[us]"),
            "z": pd.to_datetime(["2020-01-01", None], utc=True).as_unit("us"),
            "c": pd.Categorical(["a", "b"]),
            "o": [[1], [2]],
        }
    )
    made = render.to(coerce.inputs(original, infer.signature(original)), "pandas")
    pd.testing.assert_frame_equal(made, original)


def test_an_empty_table_is_an_empty_data_frame() -> None:
    assert render.to(Frame(rows=3, columns={}), "pandas").shape == (3, 0)


def test_tensors_are_data_frames_where_they_can_be() -> None:
    matrix = render.to(Frame(rows=1, tensors={"x": np.array([[1, 2]])}), "pandas")
    assert (matrix.columns.tolist(), matrix.to_numpy().tolist()) == ([0, 1], [[1, 2]])
    flat = render.to(Frame(rows=1, tensors={"x": np.array([1]), "y": np.array([2])}), "pandas")
    assert flat.to_dict("records") == [{"x": 1, "y": 2}]
    with pytest.raises(UsageError, match="no DataFrame"):
        render.to(Frame(rows=1, tensors={"x": np.zeros((1, 1, 1))}), "pandas")


# numpy --------------------------------------------------------------------------------------------------------------


def table(**columns: Any) -> Frame:
    return coerce.inputs(columns, infer.signature(columns))


@pytest.mark.parametrize(
    ("made", "dtype", "expected"),
    [
        (table(a=[1, 2], b=[3, 4]), "int64", [[1, 3], [2, 4]]),
        (table(a=[1, 2], b=[0.5, 1.5]), "float64", [[1.0, 0.5], [2.0, 1.5]]),
        (table(a=np.array([1], "i1"), b=np.array([0.5], "f4")), "float32", [[1.0, 0.5]]),
        (table(a=pd.array([1, None], "Int64"), b=[3, 4]), "float64", [[1.0, 3.0], [np.nan, 4.0]]),
        (table(a=[True], b=[False]), "bool", [[True, False]]),
        (table(a=[True], b=[1]), "object", [[True, 1]]),
        (table(a=["x", None], b=[1, 2]), "object", [["x", 1], [None, 2]]),
        (table(a=[2**53 + 1], b=[0.5]), "object", [[2**53 + 1, 0.5]]),
        (table(a=[2**53 + 1, None], b=[1, 1]), "object", [[2**53 + 1, 1], [None, 1]]),
        (table(a=np.array([2**64 - 1], "u8"), b=[-1]), "object", [[2**64 - 1, -1]]),
        (table(a=pd.array([True, None], "boolean")), "object", [[True], [None]]),
    ],
)
def test_a_table_is_rows_of_the_common_dtype(made: Frame, dtype: str, expected: Any) -> None:
    got = render.to(made, "numpy")
    assert (str(got.dtype), repr(got.tolist())) == (dtype, repr(expected))


def test_times_stay_times_among_objects() -> None:
    got = render.to(table(a=np.array(["2020-01-01"], "M8[s]"), b=["x"]), "numpy")
    assert got.tolist() == [[np.datetime64("2020-01-01", "s"), "x"]]


def test_one_tensor_is_the_array_several_are_a_dict() -> None:
    one, two = np.zeros(1), np.ones(1)
    assert render.to(Frame(rows=1, tensors={"x": one}), "numpy") is one
    assert render.to(Frame(rows=1, tensors={"x": one, "y": two}), "numpy") == {"x": one, "y": two}


def test_columns_show_what_is_missing() -> None:
    got = render.to(table(a=pd.array([1, None], "Int64"), b=[0.5, None], c=["x", None]), "columns")
    assert {name: repr(part.tolist()) for name, part in got.items()} == {
        "a": "[1, None]",
        "b": "[0.5, nan]",
        "c": "['x', None]",
    }
    assert list(render.to(Frame(rows=1, tensors={"x": np.zeros(1)}), "columns")) == ["x"]


# records ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("int8", 1, 1),
        ("float32", 0.5, 0.5),
        ("date32", DAY, DAY),
        ("date32", np.datetime64("+20000-01-01"), np.datetime64("+20000-01-01")),
        (TimestampType(unit="s"), NOON, NOON),
        (UTC, NOON_UTC, NOON_UTC),
        (BERLIN, NOON_UTC, NOON.replace(hour=13, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))),
        (TimestampType(unit="s", tz="Mars/Crater"), NOON_UTC, NOON_UTC),
        (TimestampType(unit="ns"), NOON, np.datetime64(NOON, "ns")),
        (TimestampType(unit="s"), np.datetime64("+20000-01-01"), np.datetime64("+20000-01-01", "s")),
        (DurationType(unit="ms"), dt.timedelta(1), dt.timedelta(1)),
        (DurationType(unit="ns"), dt.timedelta(1), np.timedelta64(1, "D")),
        (DurationType(unit="s"), np.timedelta64(2**60, "s"), np.timedelta64(2**60, "s")),
        (INSTANTS, [NOON_UTC, None], [NOON_UTC, None]),
        (DAYS, {"k": DAY, "n": None}, {"k": DAY, "n": None}),
        (SPAN, {"d": dt.timedelta(seconds=1)}, {"d": dt.timedelta(seconds=1)}),
        (SPAN, {"d": None}, {"d": None}),
        (StructType(fields=(StructField(name="a", type="utf8"),)), {"a": "x"}, {"a": "x"}),
        (MapType(values=Element(type="utf8")), {"a": "x"}, {"a": "x"}),
        (ListType(items=Element(type="utf8")), ["x"], ["x"]),
    ],
)
def test_records_hold_pythons_own_values(dtype: Item, value: Any, expected: Any) -> None:
    got = render.to(frame(dtype, value, None), "records")
    assert (got, type(got[0]["x"])) == ([{"x": expected}, {"x": None}], type(expected))


def test_an_aware_record_is_in_its_zone() -> None:
    (record,) = render.to(frame(BERLIN, NOON_UTC), "records")
    assert record["x"].isoformat() == "2020-01-01T13:00:00+01:00"


def test_rows_of_tensors_are_records() -> None:
    got = render.to(Frame(rows=2, tensors={"x": np.array([[1, 2], [3, 4]])}), "records")
    assert [row["x"].tolist() for row in got] == [[1, 2], [3, 4]]
    assert render.to(Frame(rows=1, tensors={"x": np.array(5)}), "records") == [{"x": 5}]
    assert render.to(Frame(rows=2, columns={}), "records") == [{}, {}]


def test_a_frame_may_stay_one() -> None:
    made = frame("int8", 1)
    assert render.to(made, "frame") is made


def test_an_unknown_form_is_an_error() -> None:
    with pytest.raises(UsageError, match="no form is called 'xml'"):
        render.to(frame("int8", 1), "xml")  # type: ignore[arg-type]


def test_pandas_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install 'pandas'"):
        render.to(Frame(rows=0, columns={}), "pandas")


# Arrow --------------------------------------------------------------------------------------------------------------

ANY_MAP = MapType(values=Element(type="any", nullable=True))
ANYS = StructType(fields=(StructField(name="a", type="any"), StructField(name="b", type="utf8", optional=True)))


@pytest.mark.parametrize(
    ("dtype", "value", "kind", "expected"),
    [
        ("bool", True, pa.bool_(), True),
        ("uint8", 5, pa.uint8(), 5),
        ("float16", 0.5, pa.float16(), 0.5),
        ("utf8", "a", pa.string(), "a"),
        ("binary", b"a", pa.binary(), b"a"),
        ("date32", DAY, pa.date32(), DAY),
        (UTC, NOON_UTC, pa.timestamp("us", "UTC"), NOON_UTC),
        (TimestampType(unit="s"), NOON, pa.timestamp("s"), NOON),
        (DurationType(unit="ms"), dt.timedelta(1), pa.duration("ms"), dt.timedelta(1)),
        (DecimalType(precision=5, scale=2), Decimal("1.5"), pa.decimal128(5, 2), Decimal("1.50")),
        (DecimalType(precision=60, scale=2), Decimal("1.5"), pa.decimal256(60, 2), Decimal("1.50")),
        (INSTANTS, [NOON_UTC, None], pa.list_(pa.timestamp("us", "UTC")), [NOON_UTC, None]),
        (
            ListType(items=Element(type="int8"), length=2),
            [1, 2],
            pa.list_(pa.field("item", pa.int8(), nullable=False), 2),
            [1, 2],
        ),
        (DAYS, {"k": DAY, "n": None}, pa.map_(pa.string(), pa.date32()), [("k", DAY), ("n", None)]),
        (SPAN, {"d": None}, pa.struct([pa.field("d", pa.duration("s"))]), {"d": None}),
        (DictionaryType(categories=("b", "a")), "a", pa.dictionary(pa.int32(), pa.string()), "a"),
        (DictionaryType(ordered=True), "a", pa.dictionary(pa.int32(), pa.string(), True), "a"),
        ("any", {"a": [1, b"b"]}, pa.string(), '{"a": [1, "Yg=="]}'),
        (
            ANYS,
            {"a": 1},
            pa.struct([pa.field("a", pa.string(), nullable=False), pa.field("b", pa.string())]),
            {"a": "1", "b": None},
        ),
        (ListType(items=Element(type="any", nullable=True)), [1, None], pa.list_(pa.string()), ["1", None]),
        (ANY_MAP, {"a": 1, "b": None}, pa.map_(pa.string(), pa.string()), [("a", "1"), ("b", None)]),
    ],
)  # fmt: skip
def test_arrow_has_the_types_of_the_signature(dtype: Item, value: Any, kind: pa.DataType, expected: Any) -> None:
    made = render.to_arrow(frame(dtype, value, None))
    made.validate(full=True)
    assert (made.schema.field("x").type, made["x"].to_pylist()) == (kind, [expected, None])
    assert render.to(frame(dtype, value, None), "arrow").equals(made)


def test_arrow_keeps_the_categories_and_their_order() -> None:
    made = render.to_arrow(frame(DictionaryType(categories=("b", "a"), ordered=True), "a"))["x"].chunk(0)
    assert (made.dictionary.to_pylist(), made.indices.to_pylist(), made.type.ordered) == (["b", "a"], [1], True)


def test_tensors_are_columns_of_fixed_size_lists() -> None:
    made = render.to_arrow(
        Frame(
            rows=2,
            tensors={
                "x": np.arange(8, dtype="f4").reshape(2, 2, 2),
                "y": np.array(["a", "b"], dtype=object),
                "z": np.array([[True], [False]]),
            },
        )
    )
    assert made.schema.field("x").type == pa.list_(pa.list_(pa.float32(), 2), 2)
    assert made.to_pylist() == [
        {"x": [[0, 1], [2, 3]], "y": "a", "z": [True]},
        {"x": [[4, 5], [6, 7]], "y": "b", "z": [False]},
    ]
    assert render.to_arrow(Frame(rows=1, tensors={"x": np.array(5)})).to_pylist() == [{"x": 5}]


def test_an_empty_table_has_no_columns() -> None:
    assert render.to_arrow(Frame(rows=0, columns={})).num_columns == 0


# Plain JSON ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("int64", 2**53 + 1, 2**53 + 1),
        ("float64", 0.1, 0.1),
        ("float64", np.inf, "Infinity"),
        ("float32", -np.inf, "-Infinity"),
        ("utf8", "é", "é"),
        ("binary", b"ab", "YWI="),
        ("date32", DAY, "2020-01-01"),
        (BERLIN, NOON_UTC, "2020-01-01T12:00:00Z"),
        (
            TimestampType(unit="ns"),
            np.datetime64("1969-12-31T23:59:59.000000001", "ns"),
            "1969-12-31T23:59:59.000000001",
        ),
        (DurationType(unit="ms"), dt.timedelta(milliseconds=-1500), "-PT1.5S"),
        (DecimalType(precision=20, scale=12), Decimal(0), "0.000000000000"),
        (DictionaryType(values="int8"), 5, 5),
        (INSTANTS, [NOON_UTC, None], ["2020-01-01T12:00:00Z", None]),
        (DAYS, {"k": DAY}, {"k": "2020-01-01"}),
        (SPAN, {"d": dt.timedelta(seconds=1)}, {"d": "PT1S"}),
        (ListType(items=Element(type="float64", nullable=True)), [np.inf, None], ["Infinity", None]),
        ("any", {1: {2.5}}, {"1": [2.5]}),
    ],
)
def test_plain_is_valid_json_of_exact_values(dtype: Item, value: Any, expected: Any) -> None:
    got = render.plain(frame(dtype, value, None))
    assert got == [{"x": expected}, {"x": None}]
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"x": np.array([1, 2])}, [1, 2]),
        ({"x": np.array([[0.5, np.nan], [np.inf, -np.inf]])}, [[0.5, None], ["Infinity", "-Infinity"]]),
        ({"x": np.array([0.5], "f4"), "y": np.array([True])}, {"x": [0.5], "y": [True]}),
        ({"x": np.array([["a"], [b"b"]], dtype=object)}, [["a"], ["Yg=="]]),
        ({"x": np.array(5)}, 5),
        ({"x": np.array("a", dtype=object)}, "a"),
        ({}, {}),
    ],
)
def test_plain_tensors_are_nested_lists(tensors: dict[str, Any], expected: Any) -> None:
    assert render.plain(Frame(rows=1, tensors=tensors)) == expected


class Point:
    """An object that can say itself as a dict, as pydantic models can."""

    def model_dump(self) -> dict[str, Any]:
        return {"x": np.int8(1)}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, None),
        ("text", "text"),
        ({"a": (1, float("nan"), float("-inf"))}, {"a": [1, None, "-Infinity"]}),
        ({"a": np.array([1.5, np.nan])}, {"a": [1.5, None]}),
        (Point(), {"x": 1}),
        (Decimal("1.50"), "1.50"),
        (Decimal("NaN"), None),
        (NOON_UTC, "2020-01-01T12:00:00+00:00"),
        (pd.Timestamp("NaT"), None),
        (pd.NaT, None),
        (pd.NA, None),
        (dt.timedelta(seconds=1.5), "PT1.5S"),
        (pd.Timedelta("1ns"), "PT0.000000001S"),
        (np.datetime64("2020-01-01"), "2020-01-01"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(5, "s"), "PT5S"),
        (np.timedelta64("NaT"), None),
        (np.timedelta64(5, "Y"), "5 years"),
        (bytearray(b"ab"), "YWI="),
        (dt.time(1), "01:00:00"),
    ],
)
def test_a_json_answer_is_the_best_json_there_is(raw: Any, expected: Any) -> None:
    made = Frame(rows=1, columns=coerce.outputs([raw, "x"], infer.answer([{}, 1])).columns)
    got = render.plain(made)
    assert got == [expected, "x"]
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("raw", [object(), iter([1]), {"a": [object()]}])
def test_what_has_no_text_but_an_address_in_memory_is_no_json(raw: Any) -> None:
    data = np.empty(1, object)
    data[0] = raw
    found = Frame(rows=1, columns={"a": Vector(type="any", data=data)})
    with pytest.raises(TypeError):
        json.dumps(render.plain(found))
    with pytest.raises(OutputError, match="JSON cannot say") as caught:
        render.to(found, "arrow")
    assert caught.value.code == "output-not-json"


def test_a_model_that_renames_the_columns_changes_no_other_frame() -> None:
    frame = Frame(rows=1, columns={"a": Vector(type="float64", data=np.array([1.0]))})
    first = render.to(frame, "pandas")
    first.columns.name = "changed"
    first.columns = ["b"]
    second = render.to(frame, "pandas")
    assert (list(second.columns), second.columns.name) == (["a"], None)
