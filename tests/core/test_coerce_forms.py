"""The same rows through every form: the same frame, or a refusal that names the same cell."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings

from modelpack import coerce, forms
from modelpack.coerce import CODES, Split
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
from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.render import arrow_type
from modelpack.signature import Column, Signature, Table, Tensor, Tensors

NAIVE = TimestampType(unit="us")
UTC = TimestampType(unit="us", tz="UTC")
FLOATS = ListType(items=Element(type="float64"))


def table(*columns: Column, **options: Any) -> Signature:
    return Signature(inputs=Table(columns=columns, **options))


def body_split(name: str, values: list[Any]) -> dict[str, Any]:
    rows = [[i, value] for i, value in enumerate(values)]
    return {"dataframe_split": {"columns": ["extra", name], "index": list(range(len(values))), "data": rows}}


def body_records(name: str, values: list[Any]) -> dict[str, Any]:
    return {"dataframe_records": [{name: value} for value in values]}


def body_instances(name: str, values: list[Any]) -> dict[str, Any]:
    return {"instances": [{name: value} for value in values]}


def body_rows(name: str, values: list[Any]) -> dict[str, Any]:
    return {"instances": [[value] for value in values]}


def body_inputs(name: str, values: list[Any]) -> dict[str, Any]:
    return {"inputs": {name: values}}


def body_inputs_records(name: str, values: list[Any]) -> dict[str, Any]:
    return {"inputs": [{name: value} for value in values]}


BODIES = [body_split, body_records, body_instances, body_rows, body_inputs, body_inputs_records]
Body = Callable[[str, list[Any]], dict[str, Any]]


def score(body: dict[str, Any], signature: Signature) -> Frame:
    call = forms.parse(body, signature=signature)
    return coerce.inputs(call.data, signature, wire="json", at=call.at)


# MLflow's silent corruptions (each was answered with 200 and a changed value) ---------------------------------------

CORRUPTIONS: list[tuple[str, Any, list[Any], str]] = [
    ("a fraction cut off", "int64", [1.5], "not-whole"),
    ("an int32 wrapped", "int32", [2147483648], "out-of-range"),
    ("an int64 wrapped", "int64", [2**63], "out-of-range"),
    ("text made true", "bool", ["false"], "type-mismatch"),
    ("null made false", "bool", [None], "null-not-allowed"),
    ("a float overflown", "float32", [1e300], "out-of-range"),
    ("bad base64 taken", "binary", ["@@@"], "base64-invalid"),
    ("null made bytes", "binary", [None], "null-not-allowed"),
    ("null made text", "utf8", [None], "null-not-allowed"),
    ("a zone dropped", NAIVE, ["2020-01-01T00:00:00Z"], "timestamp-invalid"),
    ("milliseconds read as nanoseconds", NAIVE, [1577836800000], "type-mismatch"),
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("what", "dtype", "values", "code"), CORRUPTIONS, ids=[row[0] for row in CORRUPTIONS])
def test_silent_corruption_is_refused_through_every_json_form(
    body: Body, what: str, dtype: Any, values: list[Any], code: str
) -> None:
    signature = table(Column(name="x", type=dtype))
    with pytest.raises(InputError) as caught:
        score(body("x", values), signature)
    assert (caught.value.code, caught.value.faults[0].row) == (code, 0)
    assert caught.value.path.startswith(next(iter(body("x", values))))


EXACT: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("base64 decoded", "binary", ["YWI="], [b"ab"]),
    ("null kept in text", "utf8", ["a", None], ["a", None]),
    ("null kept in bools", "bool", [True, None], [True, None]),
    ("an instant kept", UTC, ["2020-01-01T02:00:00+02:00"], [np.datetime64("2020-01-01", "us")]),
    ("integers in a list of floats", FLOATS, [[1, 2], None], [[1.0, 2.0], None]),
    ("a large integer kept", "uint64", [2**64 - 1], [2**64 - 1]),
    ("NaN is a missing float", "float64", [1, float("nan"), None], [1.0, None, None]),
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("what", "dtype", "values", "expected"), EXACT, ids=[row[0] for row in EXACT])
def test_what_mlflow_loses_is_exact_through_every_json_form(
    body: Body, what: str, dtype: Any, values: list[Any], expected: list[Any]
) -> None:
    frame = score(body("x", values), table(Column(name="x", type=dtype, nullable=True)))
    assert shown(frame)["x"] == expected


PYTHON_CORRUPTIONS: list[tuple[str, Any, Any, str]] = [
    ("a fraction cut off", "int64", 1.5, "not-whole"),
    ("an int32 wrapped", "int32", 2147483648, "out-of-range"),
    ("an int64 wrapped", "int64", np.uint64(2**63), "out-of-range"),
    ("text made true", "bool", "false", "type-mismatch"),
    ("null made false", "bool", None, "null-not-allowed"),
    ("a float overflown", "float32", 1e300, "out-of-range"),
    ("text made bytes", "binary", "YWI=", "type-mismatch"),
    ("null made text", "utf8", None, "null-not-allowed"),
    ("a zone dropped", NAIVE, dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "type-mismatch"),
    ("milliseconds read as nanoseconds", NAIVE, 1577836800000, "type-mismatch"),
]


@pytest.mark.parametrize("make", [pd.DataFrame, pa.table, dict, lambda d: pa.table(d).to_batches()[0]])
@pytest.mark.parametrize(("what", "dtype", "value", "code"), PYTHON_CORRUPTIONS, ids=[r[0] for r in PYTHON_CORRUPTIONS])
def test_silent_corruption_is_refused_in_python(make: Any, what: str, dtype: Any, value: Any, code: str) -> None:
    with pytest.raises(InputError) as caught:
        coerce.inputs(make({"x": [value]}), table(Column(name="x", type=dtype)))
    assert (caught.value.code, caught.value.path, caught.value.faults[0].row) == (code, "x[0]", 0)


@pytest.mark.parametrize("body", [body_records, body_instances, body_inputs_records])
def test_a_key_that_one_record_lacks_is_a_missing_value(body: Body) -> None:
    sent = body("x", [[1], [2]])
    form = next(iter(sent))
    del sent[form][1]["x"]
    optional = Column(name="x", type=FLOATS, nullable=True, optional=True)
    assert shown(score(sent, table(optional)))["x"] == [[1.0], None]
    strict = Column(name="x", type=FLOATS, optional=True)
    with pytest.raises(InputError) as caught:
        score(sent, table(strict))
    assert (caught.value.code, caught.value.path) == ("column-missing", f"{form}[1].x")


def shown(frame: Frame) -> dict[str, list[Any]]:
    """Return plain lists, None where missing."""
    out = {}
    for name, vector in (frame.columns or {}).items():
        values = list(vector.data) if vector.data.dtype.kind in "mM" else vector.data.tolist()
        missing = [False] * len(values) if vector.missing is None else vector.missing.tolist()
        out[name] = [None if gone else value for value, gone in zip(values, missing, strict=True)]
    return out


# Paths --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"dataframe_split": {"columns": ["b", "a"], "data": [[1, 2], [1, "x"]]}}, "dataframe_split.data[1][1]"),
        ({"dataframe_split": {"data": [[1, 2], ["x", 2]]}}, "dataframe_split.data[1][0]"),
        ({"dataframe_split": {"columns": [0, 1], "data": [["x", 2]]}}, "dataframe_split.data[0][0]"),
        ({"dataframe_records": [{"a": "x", "b": 1}]}, "dataframe_records[0].a"),
        ({"instances": [[1, 2], ["x", 2]]}, "instances[1][0]"),
        ({"instances": [{"a": "x", "b": 1}]}, "instances[0].a"),
        ({"inputs": {"a": [1, "x"], "b": [1, 2]}}, "inputs.a[1]"),
        ({"inputs": [["x", 2]]}, "inputs[0][0]"),
    ],
)
def test_the_path_of_a_cell_is_that_of_the_form(body: dict[str, Any], path: str) -> None:
    signature = table(Column(name="a", type="int64"), Column(name="b", type="int64"))
    with pytest.raises(InputError) as caught:
        score(body, signature)
    fault = caught.value.faults[0]
    assert (fault.path, fault.code, fault.column) == (path, "type-mismatch", "a")


def test_odd_names_are_quoted_in_paths() -> None:
    with pytest.raises(InputError, match=r'^inputs\["odd name"\]\[0\]: text where int64 is expected$'):
        score({"inputs": {"odd name": ["x"]}}, table(Column(name="odd name", type="int64")))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("größe", "params.größe"),
        ("größe (m)", 'params["größe (m)"]'),
        ("\ud800", r'params["\ud800"]'),
        ("a\n", r'params["a\n"]'),
        ("x" * 200 + "-", f'params["{"x" * 99}…"]'),
    ],
)
def test_any_name_can_be_written_in_a_path(name: str, path: str) -> None:
    with pytest.raises(InputError) as caught:
        coerce.params({name: 1}, Signature())
    assert caught.value.path == path


def test_every_fault_is_told_up_to_a_hundred() -> None:
    signature = table(Column(name="a", type="int64"), Column(name="b", type="bool"))
    with pytest.raises(InputError, match="and 2 more") as caught:
        coerce.inputs({"a": ["x", 1], "b": [1, 1]}, signature)
    assert [fault.path for fault in caught.value.faults] == ["a[0]", "b[0]", "b[1]"]
    with pytest.raises(InputError) as caught:
        coerce.inputs({"a": ["x"] * 500, "b": [True] * 500}, signature)
    assert len(caught.value.faults) == 100


def test_no_message_holds_a_value() -> None:
    secret = "078-05-1120"
    for dtype in ("int64", "bool", "binary", "date32", NAIVE, FLOATS, DictionaryType(categories=("a",))):
        with pytest.raises(InputError) as caught:
            score({"inputs": {"x": [secret]}}, table(Column(name="x", type=dtype)))
        assert secret not in str(caught.value)


# Columns ------------------------------------------------------------------------------------------------------------

AB = (Column(name="a", type="int64"), Column(name="b", type="utf8", nullable=True, optional=True))


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"dataframe_split": {"columns": ["b"], "data": [["x"]]}}, "dataframe_split.columns"),
        ({"inputs": {"b": ["x"]}}, "inputs.a"),
        ({"dataframe_records": [{"b": "x"}]}, "dataframe_records[0].a"),
    ],
)
def test_a_missing_column_is_refused(body: dict[str, Any], path: str) -> None:
    with pytest.raises(InputError) as caught:
        score(body, table(*AB))
    assert (caught.value.code, caught.value.path, caught.value.faults[0].column) == ("column-missing", path, "a")


def test_an_optional_column_is_left_out() -> None:
    for body in (
        {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
        {"inputs": {"a": [1]}},
        {"dataframe_records": [{"a": 1}]},
    ):
        assert list(score(body, table(*AB))) == ["a"]


def test_a_nullable_key_that_every_record_lacks_is_null() -> None:
    """Otherwise the answer for a record would depend on those it is sent with."""
    signature = table(Column(name="a", type="int64", nullable=True), Column(name="b", type="int64"))
    assert shown(score({"dataframe_records": [{"b": 1}]}, signature)) == {"a": [None], "b": [1]}


def test_extra_columns_are_ignored_unless_rejected() -> None:
    strict = table(Column(name="a", type="int64"), extra_columns="reject")
    for body, path in (
        ({"dataframe_split": {"columns": ["z", "a"], "data": [[object(), 1]]}}, "dataframe_split.columns[0]"),
        ({"inputs": {"a": [1], "z": [object()]}}, "inputs.z"),
        ({"dataframe_records": [{"a": 1}, {"a": 1, "z": object()}]}, "dataframe_records[1].z"),
    ):
        assert list(score(body, table(Column(name="a", type="int64")))) == ["a"]
        with pytest.raises(InputError) as caught:
            score(body, strict)
        assert (caught.value.code, caught.value.path) == ("column-unexpected", path)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (Split(["z", "z", "a", "a"], [[0, 0, 1, 2]]), "columns"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "a"),
        (pa.table([[1], [2]], names=["a", "a"]), "a"),
    ],
)
def test_a_column_sent_twice_is_refused(data: Any, path: str) -> None:
    with pytest.raises(InputError) as caught:
        coerce.inputs(data, table(Column(name="a", type="int64")))
    assert (caught.value.code, caught.value.path) == ("column-duplicate", path)


def test_names_that_are_not_text_are_refused() -> None:
    with pytest.raises(InputError, match="not text") as caught:
        coerce.inputs(pd.DataFrame({5: [1]}), table(Column(name="a", type="int64")))
    assert caught.value.code == "name-invalid"


@pytest.mark.parametrize(
    "data",
    [
        np.array([[1, 2], [3, 4]]),
        [[1, 2], [3, 4]],
        [np.array([1, 2]), (3, 4)],
        pd.DataFrame([[1, 2], [3, 4]]),
        Split(None, [[1, 2], [3, 4]]),
        np.array([(1, 2), (3, 4)], dtype=[("a", "i8"), ("b", "i4")]),
        np.ma.masked_array([[1, 2], [3, 4]]),
        [{"a": 1, "b": 2}, {"a": 3, "b": 4}],
        {"a": (1, 3), "b": pd.Series([2, 4], index=[7, 7])},
        {"a": pd.Index([1, 3]), "b": pa.array([2, 4])},
        {"a": pd.array([1, 3]), "b": pa.chunked_array([[2], [4]])},
        pa.table({"b": [2, 4], "a": [1, 3]}),
    ],
)
def test_columns_are_found_by_name_or_else_by_position(data: Any) -> None:
    frame = coerce.inputs(data, table(Column(name="a", type="int64"), Column(name="b", type="int64")))
    assert shown(frame) == {"a": [1, 3], "b": [2, 4]}


def test_a_sparse_matrix_is_its_dense_rows() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    frame = coerce.inputs(sparse.csr_matrix([[0.0, 2.0]]), table(*(Column(name=n, type="float64") for n in "ab")))
    assert shown(frame) == {"a": [0.0], "b": [2.0]}


@pytest.mark.parametrize(
    ("data", "code", "path"),
    [
        ([[1, 2, 3]], "shape-mismatch", ""),
        (np.zeros((2, 3)), "shape-mismatch", ""),
        (np.zeros((1, 2, 3)), "shape-mismatch", ""),
        ([1, 2], "shape-mismatch", ""),
        ([[1, 2], [3]], "ragged", "[1]"),
        ([[1], [3, 4]], "ragged", "[0]"),
        ([[1, 2], 3], "type-mismatch", "[1]"),
        ([{"a": 1, "b": 2}, [3, 4]], "type-mismatch", "[1]"),
        ({"a": [1, 2], "b": [1]}, "ragged", "b"),
        ({"a": 1, "b": [1]}, "type-mismatch", "a"),
        ({"a": "xy", "b": [1]}, "type-mismatch", "a"),
        ({"a": {1: 2}, "b": [1]}, "type-mismatch", "a"),
        ("rows", "data-invalid", ""),
        (5, "data-invalid", ""),
        (None, "data-invalid", ""),
        (np.float64(5), "data-invalid", ""),
    ],
)
def test_what_is_no_table_is_refused(data: Any, code: str, path: str) -> None:
    with pytest.raises(InputError) as caught:
        coerce.inputs(data, table(Column(name="a", type="float64"), Column(name="b", type="float64")))
    assert (caught.value.code, caught.value.path) == (code, path)
    assert code in CODES


@pytest.mark.parametrize(
    "data",
    [[1, 2], np.array([1, 2]), pd.Series([1, 2]), pd.Series([1, 2], name="a"), pa.array([1, 2]), pd.Index([1, 2])],
)
def test_one_column_may_come_bare(data: Any) -> None:
    assert shown(coerce.inputs(data, table(Column(name="a", type="int64")))) == {"a": [1, 2]}


def test_a_series_of_another_name_is_another_column() -> None:
    with pytest.raises(InputError, match="'a' is missing"):
        coerce.inputs(pd.Series([1], name="z"), table(Column(name="a", type="int64")))


@pytest.mark.parametrize("data", [Split(None, []), np.empty((0, 1)), pd.DataFrame({0: []})])
def test_no_rows_by_position_are_fine(data: Any) -> None:
    assert coerce.inputs(data, table(Column(name="a", type="int64"))).rows == 0


@pytest.mark.parametrize(
    "data", [[], {"a": []}, Split(["a"], []), pd.DataFrame({"a": []}), pd.DataFrame(), np.empty((0, 0))]
)
def test_no_rows_are_fine(data: Any) -> None:
    frame = coerce.inputs(data, table(Column(name="a", type="int64"), Column(name="z", type="utf8", optional=True)))
    assert (frame.rows, list(frame)) == (0, ["a"])


class Foreign:
    """A data frame of another library, known by the Arrow protocol only."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_other_libraries_come_through_arrow() -> None:
    frame = coerce.inputs(Foreign(pa.table({"a": [1, None]})), table(Column(name="a", type="int8", nullable=True)))
    assert shown(frame) == {"a": [1, None]}


class Array:
    """An array of another library, known by numpy's protocol only."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self._values)

    def __len__(self) -> int:
        return len(self._values)


def test_other_libraries_come_through_numpy() -> None:
    one = table(Column(name="a", type="int8"))
    for data in ({"a": Array([1, 2])}, Array([[1], [2]]), Array([1, 2])):
        assert shown(coerce.inputs(data, one)) == {"a": [1, 2]}
    frame = coerce.inputs(Array(WANTED), MATRIX)
    assert frame.tensors is not None and frame.tensors["x"].tolist() == WANTED


def test_tensors_are_no_table() -> None:
    with pytest.raises(InputError, match="tensors where a table is expected"):
        coerce.inputs(Frame(rows=1, tensors={"x": np.zeros(1)}), table(Column(name="a", type="int8")))


def test_a_frame_is_data_too() -> None:
    signature = table(
        Column(name="a", type=UTC, nullable=True),
        Column(name="b", type="utf8"),
        Column(name="c", type="int8", nullable=True),
    )
    rows = [{"a": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "b": "x", "c": None}, {"a": None, "b": "y", "c": 1}]
    frame = coerce.inputs(rows, signature)
    assert shown(coerce.inputs(frame, signature)) == shown(frame)


# The same rows through every form -----------------------------------------------------------------------------------

POINT = StructType(fields=(StructField(name="x", type="int8"), StructField(name="at", type=NAIVE, nullable=True)))
TIMES = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
STRATEGIES: dict[str, tuple[Any, Any]] = {
    "flag": ("bool", st.booleans()),
    "small": ("int8", st.integers(-128, 127)),
    "large": ("uint64", st.integers(0, 2**64 - 1)),
    "half": ("float16", st.floats(width=16, allow_nan=False, allow_infinity=False)),
    "single": ("float32", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "double": ("float64", st.floats(allow_nan=False, allow_infinity=False)),
    "text": ("utf8", st.text(max_size=4)),
    "raw": ("binary", st.binary(max_size=4)),
    "day": ("date32", st.dates()),
    "local": (NAIVE, TIMES),
    "instant": (UTC, TIMES.map(lambda value: value.replace(tzinfo=dt.UTC))),
    "span": (DurationType(unit="us"), st.timedeltas(dt.timedelta(-(10**5)), dt.timedelta(10**5))),
    "money": (
        DecimalType(precision=20, scale=2),
        st.decimals(min_value=-(10**9), max_value=10**9, places=2),
    ),
    "colour": (DictionaryType(categories=("red", "green")), st.sampled_from(["red", "green"])),
    "list": (
        ListType(items=Element(type="float64", nullable=True)),
        st.lists(st.none() | st.integers(-5, 5).map(float)),
    ),
    "point": (
        POINT,
        st.fixed_dictionaries({"x": st.integers(-5, 5), "at": st.none() | TIMES}),
    ),
    "map": (
        MapType(values=Element(type="binary")),
        st.dictionaries(st.text(max_size=2), st.binary(max_size=2), max_size=2),
    ),
}
EVERYTHING = table(*(Column(name=name, type=dtype, nullable=True) for name, (dtype, _) in STRATEGIES.items()))
SCHEMA = pa.schema([(name, arrow_type(dtype)) for name, (dtype, _) in STRATEGIES.items()])
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in STRATEGIES.items()}),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_the_same_rows_give_the_same_frame(rows: list[dict[str, Any]]) -> None:
    expected = coerce.inputs(rows, EVERYTHING)
    columns = {name: [row[name] for row in rows] for name in STRATEGIES}
    arrow = pa.Table.from_pylist(rows, schema=SCHEMA)
    written = forms.build(expected)["dataframe_split"]
    records = [dict(zip(written["columns"], row, strict=True)) for row in written["data"]]
    for data in (
        columns,
        pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()}),
        arrow,
        arrow.to_batches()[0],
        pa.concat_tables([arrow.slice(0, 1), arrow.slice(1)]),
        Split(list(STRATEGIES), [[row[name] for name in STRATEGIES] for row in rows]),
    ):
        same_frame(coerce.inputs(data, EVERYTHING), expected)
    for body in (
        {"dataframe_split": written},
        {"dataframe_records": records},
        {"instances": records},
        {"instances": written["data"]},
        {"inputs": records},
        {"inputs": {name: [record[name] for record in records] for name in STRATEGIES}},
    ):
        same_frame(score(body, EVERYTHING), expected)


def same_frame(got: Frame, expected: Frame) -> None:
    assert (got.rows, list(got)) == (expected.rows, list(expected))
    assert got.columns is not None and expected.columns is not None
    for name, vector in got.columns.items():
        assert vector.data.dtype == expected.columns[name].data.dtype, name
    assert repr(shown(got)) == repr(shown(expected))


def test_csv_cells_give_the_same_frame_too() -> None:
    cells = ["true", "-5", "18446744073709551615", "0.5", "0.1", "1e3", "", "YWI=", "2020-01-01", "2020-01-01T01:00:00"]
    cells += [
        "2020-01-01T00:00:00Z",
        "PT1S",
        "1.5",
        "red",
        "[1, null]",
        '{"x": 1, "at": "2020-01-01"}',
        '{"a": "YWI="}',
    ]
    values = [True, -5, 2**64 - 1, 0.5, 0.1, 1000, "", b"ab", dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 1)]
    values += [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.timedelta(seconds=1), Decimal("1.5"), "red", [1, None]]
    values += [{"x": 1, "at": dt.date(2020, 1, 1)}, {"a": b"ab"}]
    got = coerce.inputs(Split(list(STRATEGIES), [cells, [None] * len(cells)]), EVERYTHING, wire="text")
    same_frame(got, coerce.inputs(Split(list(STRATEGIES), [values, [None] * len(values)]), EVERYTHING))


# Library columns ----------------------------------------------------------------------------------------------------


def maybe(dtype: Any) -> ListType:
    return ListType(items=Element(type=dtype, nullable=True))


SMALLS = MapType(values=Element(type="int8"))
NEW_YEAR = np.datetime64("2020-01-01", "us")
UUID = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16)))
MONEY = DecimalType(precision=3, scale=1)


@pytest.mark.parametrize(
    ("column", "dtype", "expected"),
    [
        (pd.array([1, None], "Int64"), "int8", [1, None]),
        (pd.array([1, None], "UInt8"), "float64", [1.0, None]),
        (pd.array([True, None], "boolean"), "bool", [True, None]),
        (pd.array([1.5, None], "Float64"), "float32", [1.5, None]),
        (pd.array(["a", None], "string"), "utf8", ["a", None]),
        (pd.Series(["a", None], dtype="str"), "utf8", ["a", None]),
        (pd.Series(["a", np.nan], dtype=object), "utf8", ["a", None]),
        (pd.Categorical(["b", None, "a"]), "utf8", ["b", None, "a"]),
        (pd.Categorical([2, None, 1]), "int8", [2, None, 1]),
        (pd.Categorical([None, None], categories=[]), "int8", [None, None]),
        (pd.Categorical(pd.to_datetime(["2020-01-01", None], utc=True)), UTC, [NEW_YEAR, None]),
        (pd.Series(pd.to_datetime(["2020-01-01T01:00", None])), NAIVE, [np.datetime64("2020-01-01T01:00", "us"), None]),
        (
            pd.Series(pd.to_datetime(["2020-01-01T01:00", None])).dt.tz_localize("Europe/Berlin"),
            UTC,
            [NEW_YEAR, None],
        ),
        (pd.array([1.5, 0.0], pd.SparseDtype("float64", 0.0)), "float64", [1.5, 0.0]),
        (pd.Series([1, None], dtype=pd.ArrowDtype(pa.int16())), "int64", [1, None]),
        (pd.Series([Decimal("1.5")], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), MONEY, [Decimal("1.5")]),
        (np.ma.masked_array([1, 2], [False, True]), "int64", [1, None]),
        (np.ma.masked_array(["a", "b"], [False, True]), "utf8", ["a", None]),
        (np.array(["a", "b"], dtype=np.dtypes.StringDType()), "utf8", ["a", "b"]),
        (np.array([1, 2], dtype=">i4"), "int8", [1, 2]),
        (np.array([[1.0], [2.0]]), FLOATS, [[1.0], [2.0]]),
        (pa.array([1, None], pa.float16()), "float64", [1.0, None]),
        (pa.array([True, None]), "bool", [True, None]),
        (pa.array(["a", None], pa.large_string()), "utf8", ["a", None]),
        (pa.array(["a", None], pa.string_view()), "utf8", ["a", None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), "utf8", ["a", None, "a"]),
        (pa.array([b"a"], pa.binary(1)), "binary", [b"a"]),
        (pa.array([dt.date(2020, 1, 1), None], pa.date64()), "date32", [np.datetime64("2020-01-01"), None]),
        (pa.array([1, None], pa.timestamp("ms", "Asia/Tokyo")), UTC, [np.datetime64(1000, "us"), None]),
        (pa.array([1, None], pa.duration("s")), DurationType(unit="ms"), [np.timedelta64(1000, "ms"), None]),
        (pa.array([Decimal("2.00")], pa.decimal256(50, 2)), "int64", [2]),
        (pa.array([[1, None], None], pa.large_list(pa.int8())), maybe("int8"), [[1, None], None]),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), FLOATS, [[1.0, 2.0], None]),
        (pa.array([[1], [2, 3]], pa.list_view(pa.int8())), FLOATS, [[1.0], [2.0, 3.0]]),
        (pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int8())), SMALLS, [{"a": 1}, None, {}]),
        (pa.array([], pa.map_(pa.string(), pa.int8())), SMALLS, []),
        (pa.array([[dt.datetime(2020, 1, 1)]], pa.list_(pa.timestamp("ns", "UTC"))), maybe(UTC), [[NEW_YEAR]]),
        (pa.nulls(2), "int64", [None, None]),
        (pa.chunked_array([], pa.int64()), "int64", []),
        (pa.RunEndEncodedArray.from_arrays([2], [7]), "int64", [7, 7]),
        (UUID, "binary", [b"0123456789abcdef"]),
    ],
)
def test_columns_of_every_library_are_read_exactly(column: Any, dtype: Any, expected: list[Any]) -> None:
    frame = coerce.inputs({"x": column}, table(Column(name="x", type=dtype, nullable=True)))
    assert shown(frame)["x"] == expected


@pytest.mark.parametrize(
    ("column", "dtype", "code"),
    [
        (pd.Series(pd.period_range("2020-01", periods=1, freq="M")), NAIVE, "type-mismatch"),
        (pd.Series(pd.interval_range(0, 1)), "float64", "type-mismatch"),
        (pd.Categorical(["a"], categories=["a", "b"]), DictionaryType(categories=("b",)), "category-unknown"),
        (pa.array([dt.time(1)]), "int64", "type-mismatch"),
        (pa.array([Decimal("0.1")]), "float64", "not-exact"),
        (np.array([1j]), "float64", "type-mismatch"),
        (np.array([1, 2], "m8"), DurationType(unit="s"), "type-mismatch"),
    ],
)
def test_columns_without_a_lossless_way_are_refused(column: Any, dtype: Any, code: str) -> None:
    with pytest.raises(InputError) as caught:
        coerce.inputs({"x": column}, table(Column(name="x", type=dtype)))
    assert (caught.value.code, caught.value.path) == (code, "x[0]")


def test_categories_that_no_row_has_may_be_of_any_kind() -> None:
    column = pd.Categorical(["a", "a"], categories=["a", "never"])
    frame = coerce.inputs({"x": column}, table(Column(name="x", type=DictionaryType(categories=("a",)))))
    assert shown(frame) == {"x": ["a", "a"]}


# Rows of numbers at once --------------------------------------------------------------------------------------------

DOUBLES = table(*(Column(name=name, type="float64", nullable=name == "b") for name in "ab"))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1, 2.5], [3, 4]], {"a": [1.0, 3.0], "b": [2.5, 4.0]}),
        ([[1, None], [3, float("nan")]], {"a": [1.0, 3.0], "b": [None, None]}),
        ([[2**60, 1]], {"a": [2.0**60], "b": [1.0]}),
    ],
)
def test_rows_of_numbers_are_read_exactly(rows: list[Any], expected: Any) -> None:
    assert shown(coerce.inputs(Split(["a", "b"], rows), DOUBLES, wire="json")) == expected
    swapped = Split(["b", "a"], [row[::-1] for row in rows])
    assert shown(coerce.inputs(swapped, DOUBLES, wire="json")) == expected


def test_records_of_numbers_may_lack_a_key() -> None:
    rows = [{"a": 1, "b": 2}, {"a": 3}]
    assert shown(coerce.inputs(rows, DOUBLES, wire="json")) == {"a": [1.0, 3.0], "b": [2.0, None]}


@pytest.mark.parametrize(
    ("rows", "code", "place"),
    [
        ([[1, 2.5], [True, 4]], "type-mismatch", "[1][0]"),
        ([[1, 2.5], [2**53 + 1, 4]], "not-exact", "[1][0]"),
        ([[1, 2.5], [10**400, 4]], "out-of-range", "[1][0]"),
        ([[0.5, 10**400]], "out-of-range", "[0][1]"),
        ([[None, 2.5]], "null-not-allowed", "[0][0]"),
    ],
)
def test_one_bad_number_among_rows_is_found(rows: list[Any], code: str, place: str) -> None:
    with pytest.raises(InputError) as caught:
        coerce.inputs(Split(["a", "b"], rows), DOUBLES, wire="json", at="dataframe_split")
    assert (caught.value.code, caught.value.path) == (code, f"dataframe_split.data{place}")


# Tolerant -----------------------------------------------------------------------------------------------------------


def test_tolerant_keeps_the_rows_that_fit() -> None:
    rows = [[1, "x"], ["bad", "y"], [3], None, [5, 5], [6, None]]
    frame, kept, faults = coerce.tolerant(Split(["a", "b"], rows), table(*AB), wire="json")
    assert shown(frame) == {"a": [1, 6], "b": ["x", None]}
    assert kept.tolist() == [0, 5]
    assert [(fault.row, fault.code) for fault in faults] == [
        (2, "ragged"),
        (3, "type-mismatch"),
        (1, "type-mismatch"),
        (4, "type-mismatch"),
    ]


def test_tolerant_reads_records() -> None:
    frame, kept, faults = coerce.tolerant([{"a": 1}, 5, {}, {"a": 2}], table(AB[0]), wire="json")
    assert (shown(frame), kept.tolist()) == ({"a": [1, 2]}, [0, 3])
    assert [(fault.row, fault.code, fault.path) for fault in faults] == [
        (1, "type-mismatch", "[1]"),
        (2, "column-missing", "[2].a"),
    ]


def test_tolerant_has_no_cap() -> None:
    _, kept, faults = coerce.tolerant({"a": ["x"] * 500 + [1]}, table(AB[0]))
    assert (len(faults), kept.tolist()) == (500, [500])


def test_tolerant_without_faults_keeps_everything() -> None:
    frame, kept, faults = coerce.tolerant({"a": [1, 2]}, table(AB[0]))
    assert (frame.rows, kept.tolist(), faults) == (2, [0, 1], [])


def test_tolerant_raises_when_the_whole_cannot_be_read() -> None:
    with pytest.raises(InputError, match="'a' is missing"):
        coerce.tolerant({"b": ["x"]}, table(*AB))


# Without a signature ------------------------------------------------------------------------------------------------


def test_without_inputs_in_the_signature_nothing_is_checked() -> None:
    frame = coerce.inputs({"a": [1, "x"], "b": [1.5, None]}, Signature())
    assert shown(frame) == {"a": [1, "x"], "b": [1.5, None]}
    assert frame.columns is not None and frame.columns["a"].type == "any"
    assert coerce.inputs([[1.0, 2.0]], Signature()).tensors is not None
    with pytest.raises(InputError, match="two columns have the same name") as caught:
        coerce.inputs(Split(["a", "a"], [[1, 2]]), Signature(), at="dataframe_split")
    assert (caught.value.code, caught.value.path) == ("data-invalid", "dataframe_split")
    whole = coerce.inputs("just text", Signature())
    assert whole.columns is not None and whole.columns["value"].type == coerce.JSON


# Tensors ------------------------------------------------------------------------------------------------------------


def tensors(*parts: Tensor) -> Signature:
    return Signature(inputs=Tensors(tensors=parts))


MATRIX = tensors(Tensor(name="x", dtype="float64", shape=("batch", 2)))
WANTED = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "data",
    [
        WANTED,
        [[1, 2], (3, 4)],
        np.array(WANTED, "f4"),
        [np.array([1, 2]), [3, 4]],
        {"x": WANTED},
        [{"x": [1, 2]}, {"x": [3, 4]}],
        Split(["p", "q"], WANTED),
        Split(None, WANTED),
        pd.DataFrame(WANTED),
        pd.DataFrame({"p": [1, 3], "q": pd.array([2, 4], "Int8")}),
        pa.table({"p": [1, 3], "q": [2, 4]}),
        pa.table({"x": [[1, 2], [3, 4]]}),
        Split(["x"], [[[1, 2]], [[3, 4]]]),
        {"x": pa.array(WANTED)},
        Frame(rows=2, tensors={"x": np.array(WANTED)}),
    ],
)
def test_a_matrix_comes_in_many_forms(data: Any) -> None:
    frame = coerce.inputs(data, MATRIX)
    assert frame.tensors is not None
    assert (frame.rows, frame.tensors["x"].tolist(), frame.tensors["x"].dtype) == (2, WANTED, np.float64)


def test_a_column_of_numbers_is_a_matrix_of_one_column() -> None:
    """Even if it is called as the tensor is."""
    frame = coerce.inputs(pd.DataFrame({"x": [1, 2]}), tensors(Tensor(name="x", dtype="int8", shape=("n", 1))))
    assert frame.tensors is not None and frame.tensors["x"].tolist() == [[1], [2]]


def test_scalars_of_numpy_are_values_of_a_list() -> None:
    frame = coerce.inputs([np.array(1), np.int8(2)], tensors(Tensor(name="x", dtype="int64", shape=("n",))))
    assert frame.tensors is not None and frame.tensors["x"].tolist() == [1, 2]


def test_a_sparse_matrix_is_a_tensor() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    frame = coerce.inputs(sparse.csr_array(WANTED), MATRIX)
    assert frame.tensors is not None and frame.tensors["x"].tolist() == WANTED


def test_csv_cells_make_a_matrix() -> None:
    frame = coerce.inputs(Split(["p", "q"], [["1", "2"], ["3", "4.0"]]), MATRIX, wire="text")
    assert frame.tensors is not None and frame.tensors["x"].tolist() == WANTED


@pytest.mark.parametrize(
    ("data", "code", "path"),
    [
        ([[1, 2], [3]], "ragged", "inputs[1]"),
        ([[1, 2], 3], "shape-mismatch", "inputs[1]"),
        ([1, 2], "shape-mismatch", "inputs[0]"),
        ([[1, [2]]], "shape-mismatch", "inputs[0][1]"),
        ([[1, 2, 3]], "shape-mismatch", "inputs"),
        ([[1, "x"]], "type-mismatch", "inputs[0][1]"),
        ([[1, None]], "null-not-allowed", "inputs[0][1]"),
        ([[1, 2**53 + 1]], "not-exact", "inputs[0][1]"),
        ({"x": [[1, "x"]]}, "type-mismatch", "inputs.x[0][1]"),
        ({"y": [[1, 2]], "x": [[1, 2]]}, "tensor-unexpected", "inputs.y"),
        ({}, "tensor-missing", "inputs"),
        ([{"x": [1, "x"]}], "type-mismatch", "inputs[0].x[1]"),
        ([{"x": [1, 2]}, {}], "tensor-missing", "inputs[1].x"),
        ([{"x": [1, 2]}, {"x": [1, 2], "y": 1}], "tensor-unexpected", "inputs[1].y"),
        (Split(["x"], [[[1, "x"]]]), "type-mismatch", "inputs.data[0][0][1]"),
        (Split(["x"], [[[1, 2, 3]]]), "shape-mismatch", "inputs.columns"),
        (Split(["p", "q"], [[1, "x"]]), "type-mismatch", "inputs.data[0][1]"),
        (np.zeros((2, 3)), "shape-mismatch", "inputs"),
        (5, "shape-mismatch", "inputs"),
        ("x", "shape-mismatch", "inputs"),
    ],
)
def test_what_is_no_such_tensor_is_refused(data: Any, code: str, path: str) -> None:
    with pytest.raises(InputError) as caught:
        coerce.inputs(data, MATRIX, wire="json", at="inputs")
    assert (caught.value.code, caught.value.path) == (code, path)


def test_a_table_is_no_cube() -> None:
    with pytest.raises(InputError) as caught:
        coerce.inputs(pd.DataFrame([[1]]), tensors(Tensor(name="x", dtype="int64", shape=("n", 1, 1))))
    assert caught.value.code == "shape-mismatch"


TWO = tensors(
    Tensor(name="ids", dtype="int64", shape=("batch", "length")),
    Tensor(name="mask", dtype="bool", shape=("batch", "length")),
    Tensor(name="bias", dtype="float32", shape=("batch",), nullable=True, optional=True),
)


@pytest.mark.parametrize(
    "data",
    [
        {"ids": [[1, 2]], "mask": [[True, False]], "bias": [None]},
        [{"ids": [1, 2], "mask": [True, False], "bias": None}],
        pa.table({"ids": [[1, 2]], "mask": [[True, False]], "bias": [None]}),
        pd.DataFrame({"ids": [[1, 2]], "mask": [[True, False]], "bias": [np.nan]}),
        [np.array([[1, 2]]), np.array([[True, False]]), np.array([np.nan])],
    ],
)
def test_several_tensors_come_by_name_or_in_order(data: Any) -> None:
    frame = coerce.inputs(data, TWO)
    assert frame.tensors is not None
    assert repr([part.tolist() for part in frame.tensors.values()]) == "[[[1, 2]], [[True, False]], [nan]]"


def test_an_optional_tensor_is_left_out() -> None:
    for data in ({"ids": [[1]], "mask": [[True]]}, [{"ids": [1], "mask": [True]}]):
        assert list(coerce.inputs(data, TWO)) == ["ids", "mask"]


def test_equal_symbols_are_equal_sizes() -> None:
    with pytest.raises(InputError, match="dimension 1 of 'mask' is 1 where 2 is expected") as caught:
        coerce.inputs({"ids": [[1, 2]], "mask": [[True]]}, TWO, at="inputs")
    assert (caught.value.code, caught.value.path) == ("shape-mismatch", "inputs.mask")


def test_no_rows_take_the_sizes_of_the_signature() -> None:
    frame = coerce.inputs([], MATRIX)
    assert frame.tensors is not None and frame.tensors["x"].shape == (0, 2)
    both = coerce.inputs([], TWO)
    assert both.rows == 0
    with pytest.raises(InputError, match="by name are expected"):
        coerce.inputs([1, 2, 3], TWO)


@pytest.mark.parametrize("data", [5, np.int64(5), np.array(5), {"x": 5}])
def test_a_tensor_without_dimensions_is_one_value(data: Any) -> None:
    frame = coerce.inputs(data, tensors(Tensor(name="x", dtype="int64", shape=())))
    assert frame.tensors is not None
    assert (frame.rows, frame.tensors["x"].shape, frame.tensors["x"].item()) == (1, (), 5)


@pytest.mark.parametrize(
    "data",
    [
        [1, None],
        pd.Series([1, None]),
        pd.array([1, None], "Int64"),
        pa.array([1, None]),
        pd.DataFrame({"z": [1, None]}),
    ],
)
def test_a_vector_keeps_its_missing_values(data: Any) -> None:
    frame = coerce.inputs(data, tensors(Tensor(name="x", dtype="float64", shape=("n",), nullable=True)))
    assert frame.tensors is not None and repr(frame.tensors["x"].tolist()) == "[1.0, nan]"
    with pytest.raises(InputError) as caught:
        coerce.inputs(data, tensors(Tensor(name="x", dtype="int64", shape=("n",))))
    assert caught.value.code == "null-not-allowed"


def test_a_tensor_of_text_is_an_object_array() -> None:
    signature = tensors(Tensor(name="x", dtype="utf8", shape=(None,)))
    for data in (["a", "b"], np.array(["a", "b"]), pd.Series(["a", "b"])):
        frame = coerce.inputs(data, signature)
        assert frame.tensors is not None
        assert (frame.tensors["x"].dtype, frame.tensors["x"].tolist()) == (object, ["a", "b"])


def test_tolerant_tensors_keep_the_rows_that_fit() -> None:
    rows = [[1, 2], [3], "x", [3, "y"], [5, 6]]
    frame, kept, faults = coerce.tolerant(rows, MATRIX, wire="json", at="inputs")
    assert frame.tensors is not None
    assert (frame.tensors["x"].tolist(), kept.tolist()) == ([[1.0, 2.0], [5.0, 6.0]], [0, 4])
    assert [(fault.row, fault.path) for fault in faults] == [(1, "inputs[1]"), (2, "inputs[2]"), (3, "inputs[3][1]")]
    good, kept, faults = coerce.tolerant([[1, 2]], MATRIX)
    assert (good.rows, kept.tolist(), faults) == (1, [0], [])


def test_tolerant_reads_rows_of_several_tensors() -> None:
    rows = [{"ids": [1], "mask": [True]}, {"ids": [1], "mask": [1]}, {"ids": [1]}, {"ids": [2], "mask": [False]}]
    frame, kept, faults = coerce.tolerant(rows, TWO, wire="json", at="instances")
    assert (frame.rows, kept.tolist()) == (2, [0, 3])
    assert [(fault.row, fault.path) for fault in faults] == [(1, "instances[1].mask[0]"), (2, "instances[2]")]


def test_tolerant_does_not_guess_rows_of_ragged_tensors() -> None:
    with pytest.raises(InputError, match="a list of 1 among lists of 2"):
        coerce.tolerant({"x": [[1, 2], [3]]}, MATRIX)
    frame, kept, _ = coerce.tolerant({"x": [[1, 2], [3, "y"]]}, MATRIX)
    assert (frame.rows, kept.tolist()) == (1, [0])


def test_tolerant_tensors_of_free_size_keep_to_the_first() -> None:
    free = tensors(Tensor(name="x", dtype="int64", shape=("n", "m")))
    frame, kept, faults = coerce.tolerant([[1, 2], [3], [4, 5]], free)
    assert (frame.rows, kept.tolist(), faults[0].code) == (2, [0, 2], "ragged")
    with pytest.raises(InputError):
        coerce.tolerant([["x"]], free)


def test_tolerant_matrix_from_a_table_keeps_the_rows_that_fit() -> None:
    frame, kept, faults = coerce.tolerant(Split(["p", "q"], [[1, 2], [1, "x"], [3, 4]]), MATRIX)
    assert frame.tensors is not None
    assert (frame.tensors["x"].tolist(), kept.tolist(), len(faults)) == (WANTED, [0, 2], 1)


class Lent:
    """A column of another library, as polars has them: Arrow data of which numpy would make floats."""

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._array.to_numpy(zero_copy_only=False)


class Stream(Lent):
    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return pa.chunked_array([self._array]).__arrow_c_stream__(requested_schema)


class Whole(Lent):
    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self._array.__arrow_c_array__(requested_schema)


@pytest.mark.parametrize("make", [Stream, Whole])
def test_columns_of_other_libraries_come_through_arrow(make: Any) -> None:
    column = make(pa.array([2**53 + 1, None]))
    signature = Signature(inputs=Table(columns=(Column(name="x", type="int64", nullable=True),)))
    for data in ({"x": column}, column):
        vector = (coerce.inputs(data, signature).columns or {})["x"]
        assert vector.data.tolist()[0] == 2**53 + 1
        assert vector.missing is not None
        assert vector.missing.tolist() == [False, True]


@pytest.mark.parametrize("make", [Stream, Whole])
def test_tables_of_other_libraries_come_through_arrow(make: Any) -> None:
    signature = Signature(inputs=Table(columns=(Column(name="x", type="int64"),)))
    table = make(pa.array([{"x": 2**53 + 1}]))
    assert (coerce.inputs(table, signature).columns or {})["x"].data.tolist() == [2**53 + 1]


def test_text_of_arrow_that_is_not_utf8_is_refused_row_by_row() -> None:
    raw = pa.array([b"a", b"\xff", None, "é".encode()])
    table = pa.table({"x": pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())})
    signature = Signature(inputs=Table(columns=(Column(name="x", type="utf8", nullable=True),)))
    with pytest.raises(InputError) as caught:
        coerce.inputs(table, signature)
    assert [(fault.code, fault.path) for fault in caught.value.faults] == [("text-invalid", "x[1]")]
    frame, rows, faults = coerce.tolerant(table, signature)
    assert (rows.tolist(), [fault.row for fault in faults]) == ([0, 2, 3], [1])
    assert (frame.columns or {})["x"].data.tolist() == ["a", None, "é"]


def test_a_tensor_whose_column_is_there_twice_is_refused() -> None:
    tensors = Tensors(tensors=tuple(Tensor(name=name, dtype="int64", shape=(None,)) for name in "ab"))
    with pytest.raises(InputError) as caught:
        coerce.inputs(Split(["a", "b", "a"], [[1, 2, 3]]), Signature(inputs=tensors), wire="json")
    assert (caught.value.code, caught.value.path) == ("column-duplicate", "columns")


class Lending(Stream):
    """A table of another library, as polars has them: Arrow data of which numpy would make one type."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__(table.to_struct_array().combine_chunks())

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._array.flatten()[0].to_numpy(zero_copy_only=False)


class TestTensorsOfOtherLibraries:
    """What polars and others offer as Arrow data is what the same data of pandas or pyarrow is."""

    BIG = 2**53 + 1
    X = Tensor(name="x", dtype="int64", shape=("N", 2))
    V = Tensor(name="v", dtype="int64", shape=("N",))
    W = Tensor(name="w", dtype="float64", shape=("N", 2), optional=True)

    CASES: ClassVar[dict[str, tuple[tuple[Tensor, ...], dict[str, Any]]]] = {
        "a matrix": ((X,), {"a": [BIG, 1], "b": [2.0, 3.0]}),
        "a matrix with a gap": ((X,), {"a": [BIG, None], "b": [2, 3]}),
        "truths among numbers": ((X,), {"a": [True, False], "b": [2, 3]}),
        "another width": ((X,), {"a": [1]}),
        "a column for a tensor": ((V,), {"v": [BIG, 1]}),
        "a gap in a column": ((V,), {"v": [BIG, None]}),
        "one column by position": ((V,), {"other": [BIG, 1]}),
        "several tensors": ((V, W), {"v": [1, BIG], "w": [[1.0, 2.0], [3.0, 4.0]]}),
        "lists of two lengths": ((V, W), {"v": [1, BIG], "w": [[1.0, 2.0], [3.0]]}),
        "no rows": ((X,), {"a": pa.array([], pa.int64()), "b": pa.array([], pa.int64())}),
    }

    @staticmethod
    def told(data: Any, tensors: tuple[Tensor, ...]) -> Any:
        try:
            frame = coerce.inputs(data, Signature(inputs=Tensors(tensors=tensors)))
        except InputError as exc:
            return exc.faults
        return {name: (array.dtype, array.tolist()) for name, array in (frame.tensors or {}).items()}

    @pytest.mark.parametrize("name", CASES)
    def test_a_table_is_what_a_table_of_arrow_is(self, name: str) -> None:
        tensors, columns = self.CASES[name]
        table = pa.table(columns)
        assert self.told(Lending(table), tensors) == self.told(table, tensors)
        if len(tensors) == 1:
            assert self.told({tensors[0].name: Lending(table)}, tensors) == self.told({tensors[0].name: table}, tensors)

    def test_no_number_of_a_matrix_becomes_another_type_on_the_way(self) -> None:
        tensors, columns = self.CASES["a matrix"]
        assert self.told(Lending(pa.table(columns)), tensors) == {"x": (np.dtype("int64"), [[self.BIG, 2], [1, 3]])}

    @pytest.mark.parametrize("make", [Stream, Whole])
    @pytest.mark.parametrize("values", [[BIG, 1], [BIG, None], [1.5, 2.0], ["a", "b"]])
    def test_a_column_is_what_a_column_of_arrow_is(self, make: Any, values: list[Any]) -> None:
        array = pa.array(values)
        for sent, known in ((make(array), array), ({"v": make(array)}, {"v": array})):
            assert self.told(sent, (self.V,)) == self.told(known, (self.V,))

    @pytest.mark.parametrize("make", [Stream, Whole])
    def test_a_column_of_lists_is_the_rows_of_a_tensor(self, make: Any) -> None:
        given = {"v": [1, 2], "w": make(pa.array([[1.0, 2.0], [3.0, 4.0]]))}
        assert self.told(given, (self.V, self.W))["w"][1] == [[1.0, 2.0], [3.0, 4.0]]

    def test_categories_whose_texts_are_views_are_read(self) -> None:
        array = pa.array(["a", None, "a"]).dictionary_encode()
        views = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.string_view()))
        signature = Signature(inputs=Table(columns=(Column(name="t", type="utf8", nullable=True),)))
        assert (coerce.inputs({"t": views}, signature).columns or {})["t"].data.tolist() == ["a", None, "a"]

    def test_addresses_of_objects_are_never_taken_for_values(self) -> None:
        polars = type("Series", (Stream,), {"__module__": "polars.series.series", "to_list": lambda self: [object()]})
        frame = type("DataFrame", (Lending,), {"__module__": "polars.dataframe.frame"})
        addresses = pa.array([b"12345678"], pa.binary(8))
        signature = Signature(inputs=Table(columns=(Column(name="b", type="binary"),)))
        with pytest.raises(InputError, match="a value of type object"):
            coerce.inputs({"b": polars(addresses)}, signature)
        with pytest.raises(InputError, match="objects of Python") as caught:
            coerce.inputs(frame(pa.table({"b": addresses})), signature)
        assert (caught.value.code, caught.value.path) == ("data-invalid", "b")
        assert coerce.inputs({"b": Stream(addresses)}, signature).rows == 1
