"""One value against one type: what is taken, as what, and with which code the rest is refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings

from modelpack.coerce import CODES, whole
from modelpack.coerce.cells import cell, is_missing
from modelpack.coerce.columns import slow, vector
from modelpack.coerce.faults import Misfit
from modelpack.coerce.lanes import Lane, lane
from modelpack.coerce.scalars import INT_RANGE, kind
from modelpack.coerce.times import Instant
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

MS = TimestampType(unit="ms")
NS = TimestampType(unit="ns")
UTC = TimestampType(unit="us", tz="UTC")
SPAN = DurationType(unit="ms")
MONEY = DecimalType(precision=5, scale=2)
COLOUR = DictionaryType(categories=("red", "green"))
FLOATS = ListType(items=Element(type="float64", nullable=True))
PAIR = ListType(items=Element(type="int8"), length=2)
POINT = StructType(
    fields=(
        StructField(name="x", type="int64"),
        StructField(name="odd name", type="utf8", nullable=True, optional=True),
    )
)
COUNTS = MapType(values=Element(type="int64"))
MONEY_ITEM = Element(type=MONEY)
LONG = DecimalType(precision=38, scale=18)


def d(text: str, unit: str) -> np.datetime64:
    return np.datetime64(text, unit)


TAKEN: list[tuple[Any, str, Any, Any]] = [
    ("bool", "json", True, True),
    ("bool", "python", np.bool_(False), False),
    ("bool", "text", " TRUE", True),
    ("int32", "json", 2**31 - 1, 2**31 - 1),
    ("int64", "json", 3.0, 3),
    ("int64", "python", np.float32(3), 3),
    ("int64", "python", Decimal("3.00"), 3),
    ("uint64", "json", 2**64 - 1, 2**64 - 1),
    ("int8", "text", "-5", -5),
    ("int8", "text", "5.0", 5),
    ("int8", "text", "1e2", 100),
    ("float64", "json", 2**53, 2.0**53),
    ("float64", "json", 2**60, 2.0**60),
    ("float64", "json", 0.1, 0.1),
    ("float64", "python", Decimal("0.5"), 0.5),
    ("float64", "python", np.array(1.5), 1.5),
    ("float64", "python", np.longdouble("1.5"), 1.5),
    ("float64", "text", "0.1", 0.1),
    ("float64", "text", ".5e1", 5.0),
    ("float64", "text", "1e-400", 0.0),
    ("float64", "text", "1e-999999999999999", 0.0),
    ("float64", "text", "-inf", -np.inf),
    ("float32", "json", 0.1, float(np.float32(0.1))),
    ("float32", "json", np.inf, np.inf),
    ("float16", "json", 0.1, float(np.float16(0.1))),
    ("utf8", "json", "é", "é"),
    ("utf8", "python", np.str_("a"), "a"),
    ("utf8", "text", "5", "5"),
    ("binary", "json", "YWI=", b"ab"),
    ("binary", "text", "", b""),
    ("binary", "python", bytearray(b"ab"), b"ab"),
    ("binary", "python", memoryview(b"ab"), b"ab"),
    ("date32", "json", "2020-02-29", d("2020-02-29", "D")),
    ("date32", "json", "-0044-03-15", d("-0044-03-15", "D")),
    ("date32", "json", "+12345-01-01", d("12345-01-01", "D")),
    ("date32", "python", dt.date(1, 1, 1), d("0001-01-01", "D")),
    ("date32", "python", dt.datetime(2020, 1, 1), d("2020-01-01", "D")),
    ("date32", "python", pd.Timestamp("2020-01-01"), d("2020-01-01", "D")),
    ("date32", "python", np.datetime64("2020-03"), d("2020-03-01", "D")),
    (MS, "json", "2020-01-01", d("2020-01-01", "ms")),
    (MS, "json", "2020-01-01T01:02:03.5", d("2020-01-01T01:02:03.500", "ms")),
    (MS, "json", "2020-01-01 01:02", d("2020-01-01T01:02", "ms")),
    (MS, "json", "2020-01-01T00:00:00.123000", d("2020-01-01T00:00:00.123", "ms")),
    (MS, "json", "1969-12-31T23:59:59.999", d("1969-12-31T23:59:59.999", "ms")),
    (MS, "python", dt.date(2020, 1, 1), d("2020-01-01", "ms")),
    (MS, "python", np.datetime64("2020-01-01T05", "h"), d("2020-01-01T05", "ms")),
    (NS, "python", pd.Timestamp("2020-01-01T00:00:00.123456789"), d("2020-01-01T00:00:00.123456789", "ns")),
    (NS, "json", "2262-04-11T23:47:16.854775807", d("2262-04-11T23:47:16.854775807", "ns")),
    (UTC, "json", "2020-01-01T00:00:00Z", d("2020-01-01", "us")),
    (UTC, "json", "2020-01-01T02:00:00+02:00", d("2020-01-01", "us")),
    (UTC, "json", "2020-01-01T00:00:00-00:30", d("2020-01-01T00:30", "us")),
    (UTC, "text", "2020-01-01T00:00:00z", d("2020-01-01", "us")),
    (UTC, "python", pd.Timestamp("2020-01-01T01:00", tz="Europe/Berlin"), d("2020-01-01", "us")),
    (UTC, "python", dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))), d("0000-12-31T23:00", "us")),
    (UTC, "python", Instant(d("2020-01-01", "D")), d("2020-01-01", "us")),
    (SPAN, "json", "PT1.5S", np.timedelta64(1500, "ms")),
    (SPAN, "json", "-P1DT2H3M", np.timedelta64(-93780000, "ms")),
    (SPAN, "json", "P2W", np.timedelta64(14, "D")),
    (SPAN, "python", dt.timedelta(milliseconds=5), np.timedelta64(5, "ms")),
    (SPAN, "python", pd.Timedelta("1s"), np.timedelta64(1000, "ms")),
    (SPAN, "python", np.timedelta64(2, "m"), np.timedelta64(120000, "ms")),
    (MONEY, "json", "1.5", Decimal("1.50")),
    (MONEY, "json", "-999.99", Decimal("-999.99")),
    (MONEY, "json", 12, Decimal("12.00")),
    (MONEY, "json", 0.25, Decimal("0.25")),
    (MONEY, "json", "-0", Decimal("0.00")),
    (MONEY, "python", Decimal("1E+2"), Decimal("100.00")),
    (MONEY, "text", " 1.50 ", Decimal("1.50")),
    (COLOUR, "json", "red", "red"),
    (DictionaryType(), "json", "blue", "blue"),
    (DictionaryType(values="int64", categories=(1, 2)), "json", 1.0, 1),
    (FLOATS, "json", [1, None, 2.5], [1.0, None, 2.5]),
    (FLOATS, "python", np.array([1, 2]), [1.0, 2.0]),
    (FLOATS, "python", (1.5, np.nan), [1.5, None]),
    (FLOATS, "text", "[1, null]", [1.0, None]),
    (FLOATS, "text", "[NaN, -0]", [None, -0.0]),
    (ListType(items=Element(type="utf8", nullable=True)), "text", "[NaN]", [None]),
    (ListType(items=Element(type="int64")), "text", "[9007199254740993.0]", [9007199254740993]),
    (ListType(items=MONEY_ITEM), "text", "[0.1]", [Decimal("0.10")]),
    (LONG, "json", 17179869184.3, Decimal("17179869184.3")),
    (LONG, "json", 0.1, Decimal("0.1")),
    (PAIR, "json", [1, 2], [1, 2]),
    (POINT, "json", {"x": 1}, {"x": 1}),
    (POINT, "json", {"x": 1, "odd name": None}, {"x": 1, "odd name": None}),
    (COUNTS, "json", {"a": 1}, {"a": 1}),
    (COUNTS, "python", [("a", 1)], {"a": 1}),
    (ListType(items=Element(type=MS)), "json", ["2020-01-01"], [d("2020-01-01", "ms")]),
    ("any", "json", {"a": [1]}, {"a": [1]}),
    ("any", "python", np.int64(1), 1),
]


@pytest.mark.parametrize(("dtype", "wire", "value", "expected"), TAKEN)
def test_value_is_taken_exactly(dtype: Any, wire: Any, value: Any, expected: Any) -> None:
    out = cell(value, dtype, wire)
    assert (type(out), str(out), out) == (type(expected), str(out), expected)


REFUSED: list[tuple[Any, str, Any, str]] = [
    ("bool", "json", 1, "type-mismatch"),
    ("bool", "json", "false", "type-mismatch"),
    ("bool", "text", "1", "type-mismatch"),
    ("int64", "json", True, "type-mismatch"),
    ("int64", "json", "1", "type-mismatch"),
    ("int64", "json", 1.5, "not-whole"),
    ("int64", "json", 2**63, "out-of-range"),
    ("int64", "json", 2.0**63, "out-of-range"),
    ("int64", "json", np.inf, "out-of-range"),
    ("int64", "json", np.nan, "out-of-range"),
    ("int32", "json", 2147483648, "out-of-range"),
    ("uint8", "json", -1, "out-of-range"),
    ("int64", "python", Decimal("1e400"), "out-of-range"),
    ("int64", "python", Decimal("Infinity"), "out-of-range"),
    ("int64", "python", Decimal("0.5"), "not-whole"),
    ("int64", "text", "one", "number-invalid"),
    ("int64", "text", "1_000", "number-invalid"),
    ("int64", "text", "inf", "number-invalid"),
    ("int64", "text", "0.5", "not-whole"),
    ("int64", "text", "1.00000000000000000001", "not-whole"),
    ("int64", "text", "1e999999999999999", "out-of-range"),
    ("int64", "text", "1e-999999999999999", "not-whole"),
    ("float64", "text", "1e9999999999999999", "number-invalid"),
    ("float64", "json", "1.5", "type-mismatch"),
    ("float64", "json", False, "type-mismatch"),
    ("float64", "json", 2**53 + 1, "not-exact"),
    ("float64", "json", 10**400, "out-of-range"),
    ("float64", "text", "9007199254740993", "not-exact"),
    ("float64", "text", "1e400", "out-of-range"),
    ("float64", "text", "0x10", "number-invalid"),
    ("float64", "text", "١", "number-invalid"),
    ("float64", "python", Decimal("0.1"), "not-exact"),
    ("float64", "python", 1j, "type-mismatch"),
    ("float64", "python", np.longdouble(1) / 3, "type-mismatch"),
    ("float32", "json", 1e300, "out-of-range"),
    ("float32", "json", 2**24 + 1, "not-exact"),
    ("float16", "json", 70000.0, "out-of-range"),
    ("float16", "json", 70000, "out-of-range"),
    ("utf8", "json", 5, "type-mismatch"),
    ("utf8", "json", np.nan, "type-mismatch"),
    ("utf8", "json", "\ud800", "text-invalid"),
    ("utf8", "python", b"a", "type-mismatch"),
    ("binary", "json", "@@@", "base64-invalid"),
    ("binary", "json", "YWI", "base64-invalid"),
    ("binary", "json", "YWJ=", "base64-invalid"),
    ("binary", "json", "YWI=\n", "base64-invalid"),
    ("binary", "json", "é", "base64-invalid"),
    ("binary", "json", 5, "type-mismatch"),
    ("binary", "python", "YWI=", "type-mismatch"),
    ("date32", "json", "2020-02-30", "timestamp-invalid"),
    ("date32", "json", "2020-13-01", "timestamp-invalid"),
    ("date32", "json", "2020-01-01T00:00:00", "timestamp-invalid"),
    ("date32", "json", "+999999999-01-01", "out-of-range"),
    ("date32", "json", 18000, "type-mismatch"),
    ("date32", "python", "2020-01-01", "type-mismatch"),
    ("date32", "python", dt.datetime(2020, 1, 1, 1), "not-exact"),
    ("date32", "python", dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "type-mismatch"),
    ("date32", "python", Instant(d("2020-01-01", "D")), "type-mismatch"),
    (MS, "json", 1577836800000, "type-mismatch"),
    (MS, "python", 1577836800000, "type-mismatch"),
    (MS, "python", "2020-01-01", "type-mismatch"),
    (MS, "json", "2020-01-01T00:00:00Z", "timestamp-invalid"),
    (MS, "json", "2020-01-01T25:00:00", "timestamp-invalid"),
    (MS, "json", "2020-01-01T00:00:60", "timestamp-invalid"),
    (MS, "json", "yesterday", "timestamp-invalid"),
    (MS, "json", "2020-01-01T00:00:00.0001", "not-exact"),
    (MS, "python", dt.datetime(2020, 1, 1, microsecond=1), "not-exact"),
    (MS, "python", dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "type-mismatch"),
    (NS, "json", "2300-01-01", "out-of-range"),
    (UTC, "json", "2020-01-01T00:00:00", "timestamp-invalid"),
    (UTC, "json", "2020-01-01", "timestamp-invalid"),
    (UTC, "json", "2020-01-01T00:00:00+25:00", "timestamp-invalid"),
    (UTC, "python", dt.datetime(2020, 1, 1), "type-mismatch"),
    (UTC, "python", dt.date(2020, 1, 1), "type-mismatch"),
    (UTC, "python", np.datetime64("2020-01-01"), "type-mismatch"),
    (SPAN, "json", 5, "type-mismatch"),
    (SPAN, "json", "P1Y", "duration-invalid"),
    (SPAN, "json", "PT", "duration-invalid"),
    (SPAN, "json", "P1DT", "duration-invalid"),
    (SPAN, "json", "PT0.0001S", "not-exact"),
    (SPAN, "python", np.timedelta64(1, "M"), "type-mismatch"),
    (SPAN, "python", np.timedelta64(1, "us"), "not-exact"),
    (SPAN, "python", "PT1S", "type-mismatch"),
    (MONEY, "json", "1.505", "not-exact"),
    (MONEY, "python", 0.1, "not-exact"),
    (MONEY, "json", "1000", "out-of-range"),
    (MONEY, "json", "1e99999", "out-of-range"),
    (MONEY, "json", "1e-99999", "not-exact"),
    (MONEY, "json", 10**200, "out-of-range"),
    (MONEY, "json", np.inf, "out-of-range"),
    (MONEY, "json", "x", "decimal-invalid"),
    (MONEY, "json", True, "type-mismatch"),
    (MONEY, "python", "1.5", "type-mismatch"),
    (COLOUR, "json", "blue", "category-unknown"),
    (COLOUR, "json", 1, "type-mismatch"),
    (FLOATS, "json", "ab", "type-mismatch"),
    (FLOATS, "json", {"0": 1}, "type-mismatch"),
    (FLOATS, "python", {1.0}, "type-mismatch"),
    (FLOATS, "text", "[1,", "type-mismatch"),
    (FLOATS, "text", "[1e400]", "out-of-range"),
    (FLOATS, "text", f"[{'1' * 5000}]", "out-of-range"),
    (FLOATS, "text", "[" * 100_000, "type-mismatch"),
    (COUNTS, "text", '{"a": 1, "a": 2}', "key-duplicate"),
    (PAIR, "json", [1], "shape-mismatch"),
    (POINT, "json", [1], "type-mismatch"),
    (COUNTS, "json", [["a", 1]], "type-mismatch"),
    (COUNTS, "python", {1: 1}, "type-mismatch"),
    (COUNTS, "python", [("a", 1), ("a", 2)], "key-duplicate"),
]


@pytest.mark.parametrize(("dtype", "wire", "value", "code"), REFUSED)
def test_value_is_refused_by_code(dtype: Any, wire: Any, value: Any, code: str) -> None:
    with pytest.raises(Misfit) as caught:
        cell(value, dtype, wire)
    assert caught.value.code == code
    assert code in CODES


@pytest.mark.parametrize(
    ("dtype", "value", "path", "code"),
    [
        (FLOATS, [1, "x"], "[1]", "type-mismatch"),
        (ListType(items=Element(type=PAIR)), [[1, 2], [1, 300]], "[1][1]", "out-of-range"),
        (PAIR, [None, 1], "[0]", "null-not-allowed"),
        (POINT, {}, ".x", "field-missing"),
        (POINT, {"x": 1, "odd name": 2}, '["odd name"]', "type-mismatch"),
        (POINT, {"x": 1, "z": 2}, ".z", "field-unexpected"),
        (COUNTS, {"a b": None}, '["a b"]', "null-not-allowed"),
    ],
)
def test_path_leads_into_the_value(dtype: Any, value: Any, path: str, code: str) -> None:
    with pytest.raises(Misfit) as caught:
        cell(value, dtype, "json")
    assert (caught.value.path, caught.value.code) == (path, code)


def test_message_names_kind_and_rule_but_never_the_value() -> None:
    with pytest.raises(Misfit) as caught:
        cell("123-45-6789", "int64", "json")
    assert caught.value.message == "text where int64 is expected"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true or false"),
        (1, "an integer"),
        (1.5, "a number"),
        ("a", "text"),
        (b"a", "bytes"),
        (Decimal(1), "a decimal"),
        (dt.datetime(2020, 1, 1), "a timestamp"),
        (dt.date(2020, 1, 1), "a date"),
        (dt.timedelta(1), "a duration"),
        ({}, "an object"),
        ([], "a list"),
        (dt.time(1), "a value of type time"),
    ],
)
def test_kinds_have_plain_names(value: Any, expected: str) -> None:
    assert kind(value) == expected


@pytest.mark.parametrize(
    "value", [None, np.nan, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), Decimal("NaN")]
)
def test_python_has_many_missing_values(value: Any) -> None:
    assert is_missing(value, "utf8", "python")


@pytest.mark.parametrize(
    ("value", "dtype", "wire", "expected"),
    [
        (np.nan, "float64", "json", True),
        (np.nan, "int64", "json", False),
        (np.nan, "any", "json", True),
        (np.nan, DictionaryType(values="float64"), "json", True),
        ("", "int64", "text", True),
        ("", "utf8", "text", False),
        ("", DictionaryType(), "text", False),
        ("nan", "float64", "text", True),
        ("nan", "int64", "text", False),
        ("nan", "float64", "json", False),
        (0, "int64", "python", False),
    ],
)
def test_what_is_missing_depends_on_type_and_wire(value: Any, dtype: Any, wire: Any, expected: bool) -> None:
    assert is_missing(value, dtype, wire) is expected


def test_an_instant_in_an_untyped_column_is_an_aware_datetime() -> None:
    assert cell(Instant(d("2020-01-01", "us")), "any", "python") == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert cell(Instant(d("2020-01-01", "ns")), "any", "python") == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    fine = d("2020-01-01T00:00:00.000000001", "ns")
    assert cell(Instant(fine), "any", "python") == fine


# Fast ways against the slow one -----------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**65), 2**65),
    st.sampled_from(
        [2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**24 + 1, 2**11 + 1, 10**400, -(2**63), -(2**53) - 1]
    ),
    st.floats(),
    st.sampled_from([1e300, 65520.0, 3.5e38, 2.0**63, -(2.0**63), 0.5, 1.0]),
)
VALUES = st.one_of(
    NUMBERS,
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.text(alphabet="0123456789.-+eE _naif", max_size=6),
    st.binary(max_size=3),
    st.sampled_from(
        ["\ud800", "red", "true", "", b"", pd.NA, np.int8(3), np.float32(0.1), np.str_("a"), [1], {"a": 1}]
    ),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
)
LISTS = st.one_of(
    st.lists(NUMBERS, max_size=6),
    st.lists(st.one_of(st.none(), st.integers(-200, 300)), max_size=6),
    st.lists(st.one_of(st.none(), st.floats()), max_size=6),
    st.lists(st.one_of(st.none(), st.booleans()), max_size=6),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=6),
    st.lists(st.one_of(st.none(), st.text(alphabet="0123456789.-e", max_size=5)), max_size=6),
    st.lists(st.from_regex(r"-?[0-9]{1,20}(\.0{0,17}[0-9]?)?(e[0-9]{1,3})?", fullmatch=True), max_size=3),
    st.lists(VALUES, max_size=4),
)
TYPES = st.sampled_from(
    [
        "bool",
        *INT_RANGE,
        "float16",
        "float32",
        "float64",
        "utf8",
        "binary",
        "date32",
        "any",
        MS,
        NS,
        UTC,
        SPAN,
        MONEY,
        COLOUR,
        DictionaryType(values="int8", categories=(1, 2, 3)),
        DictionaryType(values="float64"),
        FLOATS,
    ]
)
WIRES = st.sampled_from(["python", "json", "text"])


def same(fast: Any, exact: Any) -> None:
    """Assert that two vectors are the same to the bit."""
    assert fast.data.dtype == exact.data.dtype
    assert (fast.missing is None) == (exact.missing is None)
    if fast.missing is not None:
        assert fast.missing.tolist() == exact.missing.tolist()
    assert list(map(repr, fast.data.tolist())) == list(map(repr, exact.data.tolist()))


@settings(max_examples=600, deadline=None)
@given(values=LISTS, dtype=TYPES, wire=WIRES)
@example(values=["0", "-0"], dtype="float16", wire="text")
@example(values=["-0"], dtype="int8", wire="text")
def test_whole_lists_agree_with_single_cells(values: list[Any], dtype: Any, wire: Any) -> None:
    faults: list[Any] = []
    exact = slow(lane(values), dtype, wire, lambda *fault: faults.append(fault))
    fast = whole.typed(lane(values), dtype, wire)
    if fast is not None:
        assert faults == []
        same(fast, exact)


ARRAYS = st.one_of(
    st.lists(st.integers(-128, 127), max_size=5).map(lambda v: np.array(v, "i1")),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(lambda v: np.array(v, "i8")),
    st.lists(st.integers(0, 2**64 - 1), max_size=5).map(lambda v: np.array(v, "u8")),
    st.lists(st.floats(width=16), max_size=5).map(lambda v: np.array(v, "f2")),
    st.lists(st.floats(width=32), max_size=5).map(lambda v: np.array(v, ">f4")),
    st.lists(st.floats(), max_size=5).map(lambda v: np.array(v, "f8")),
    st.lists(st.floats(), max_size=5).map(lambda v: np.array(v, np.longdouble)),
    st.lists(st.integers(-9, 300).map(float), max_size=5).map(lambda v: np.array(v, "f8")),
    st.lists(st.booleans(), max_size=5).map(lambda v: np.array(v, bool)),
    st.lists(st.text(max_size=3), max_size=5).map(lambda v: np.array(v, "U3")),
    st.lists(st.binary(max_size=3), max_size=5).map(lambda v: np.array(v, "S3")),
    st.lists(VALUES, max_size=4).map(lambda v: np.fromiter(v, object, len(v))),
    st.tuples(st.sampled_from("mM"), st.sampled_from(["Y", "D", "h", "s", "ms", "us", "ns", "ps"])).flatmap(
        lambda kind: st.lists(
            st.one_of(st.integers(-(10**6), 10**6), st.integers(-(2**63), 2**63 - 1)), max_size=3
        ).map(lambda v: np.array(v, "i8").view(f"{kind[0]}8[{kind[1]}]"))
    ),
)


@settings(max_examples=600, deadline=None)
@given(array=ARRAYS, dtype=TYPES, aware=st.booleans(), mask=st.integers(0, 31))
def test_whole_arrays_agree_with_single_cells(array: np.ndarray, dtype: Any, aware: bool, mask: int) -> None:
    source = lane(array)
    if isinstance(source.data, np.ndarray):
        missing = np.array([bool(mask >> i & 1) for i in range(len(array))], dtype=bool)
        source = Lane(source.data, missing, aware and source.data.dtype.kind == "M")
    faults: list[Any] = []
    exact = slow(source, dtype, "python", lambda *fault: faults.append(fault))
    fast = whole.typed(source, dtype, "python")
    if fast is not None:
        assert faults == []
        same(fast, exact)


@pytest.mark.parametrize(
    ("values", "dtype", "wire"),
    [
        ([1, 2], "int64", "json"),
        ([1, None], "int8", "json"),
        ([1, 2.5, None], "float64", "json"),
        ([2**64 - 1], "uint64", "json"),
        ([True, None], "bool", "json"),
        (["a", "é", None], "utf8", "json"),
        ([b"a"], "binary", "python"),
        (["1", "2.5", ""], "float32", "text"),
        (["red", None], COLOUR, "json"),
        ([{"a": 1}, None], "any", "json"),
        (np.array(["2020-01-01"], "M8[ns]"), MS, "python"),
        (np.array([1, 2], "m8[s]"), SPAN, "python"),
        (np.array([1.0, np.nan]), "int32", "python"),
        (np.array([1, 2], "u1"), "any", "python"),
        (np.array([1.5, np.nan]), "any", "python"),
        (np.array(["2020-01-01"], "M8[s]"), "date32", "python"),
    ],
)
def test_the_common_columns_are_taken_as_a_whole(values: Any, dtype: Any, wire: Any) -> None:
    assert whole.typed(lane(values), dtype, wire) is not None


def test_days_beyond_date32_are_refused() -> None:
    found: list[Any] = []
    vector(np.array([0, 2**31], "M8[D]"), "date32", False, "python", lambda *fault: found.append(fault))
    assert [(fault[0], fault[1]) for fault in found] == [(1, "out-of-range")]


@pytest.mark.parametrize(
    ("values", "dtype", "wire"),
    [
        ([10**400, 0.5], "float64", "json"),
        ([2**70], "int64", "json"),
        ([2**24 + 1, 0.5], "float32", "json"),
        (["1.00000000000000000001"], "int64", "text"),
        (["9007199254740993"], "float64", "text"),
        (["1e400"], "float64", "text"),
        (["1e-9999999999999999"], "float64", "text"),
        (["1_0"], "int64", "text"),
    ],
)
def test_what_an_array_would_round_is_looked_at_singly(values: Any, dtype: Any, wire: Any) -> None:
    found: list[Any] = []
    vector(values, dtype, False, wire, lambda *fault: found.append(fault[0]))
    assert found == [0]


def test_null_is_reported_per_row() -> None:
    found: list[Any] = []
    vector([1, None, 3, None], "int64", False, "json", lambda *fault: found.append(fault))
    message = "a missing value where int64 is expected"
    assert found == [(1, "null-not-allowed", message, ""), (3, "null-not-allowed", message, "")]


def test_an_empty_cell_of_a_text_column_without_nulls_is_the_empty_text() -> None:
    out = vector(["a", None, ""], "utf8", False, "text", lambda *fault: pytest.fail(str(fault)))
    assert out.data.tolist() == ["a", "", ""]
    nullable = vector(["a", None, ""], "utf8", True, "text", lambda *fault: pytest.fail(str(fault)))
    assert nullable.data.tolist() == ["a", None, ""]
