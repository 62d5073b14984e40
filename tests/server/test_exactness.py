"""The table of silent corruptions: each is refused, or exact, through every form; and no body brings a 5xx."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelpack import coerce, render
from modelpack.dtypes import DecimalType, Element, ListType, MapType
from modelpack.errors import InputError
from modelpack.frame import Frame
from modelpack.signature import Column, Param, Signature, Table, Tensor, Tensors
from modelpack_server.codecs import Decoded, csv_body, json_body, lines_body

Serve = Callable[..., Any]

ARROW = {
    "int32": pa.array([1], pa.int32()),
    "int64": pa.array([2**60 + 1], pa.int64()),
    "flag": pa.array([True]),
    "float32": pa.array([0.5], pa.float32()),
    "float64": pa.array([0.1]),
    "text": pa.array(["x"]),
    "maybe": pa.array([None], pa.string()),
    "blob": pa.array([b"ab"]),
    "moment": pa.array([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], pa.timestamp("us", "UTC")),
    "kind": pa.array(["a"]),
}
TEXT = {
    "int32": "1",
    "int64": str(2**60 + 1),
    "flag": "true",
    "float32": "0.5",
    "float64": "0.1",
    "text": "x",
    "maybe": "",
    "blob": "YWI=",
    "moment": "2020-01-01T00:00:00Z",
    "kind": "a",
}
JSON_FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dataframe_split": lambda row: {"columns": list(row), "data": [list(row.values())]},
    "dataframe_records": lambda row: [row],
    "instances": lambda row: [row],
    "inputs": lambda row: {name: [cell] for name, cell in row.items()},
}


def sent(client: Any, form: str, row: dict[str, Any], column: str, value: Any) -> Any:
    """Send the row with one value changed, as JSON or CSV or Parquet or Arrow."""
    if form in JSON_FORMS:
        return client.score(json.dumps({form: JSON_FORMS[form]({**row, column: value})}).encode())
    if form == "csv":
        cells = {**TEXT, column: value}
        return client.send(f"{','.join(cells)}\n{','.join(cells.values())}\n".encode(), "text/csv")
    sink, table = pa.BufferOutputStream(), pa.table({**ARROW, column: value})
    if form == "parquet":
        parquet.write_table(table, sink)
        return client.send(bytes(sink.getvalue()), "application/vnd.apache.parquet")
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return client.send(bytes(sink.getvalue()), "application/vnd.apache.arrow.stream")


NEVER = object()  # the form has no way to say it
# column, JSON value, CSV text, Parquet array
CORRUPT: list[tuple[str, Any, Any, Any]] = [
    ("int64", 1.5, "1.5", pa.array([1.5])),
    ("int32", 2147483648, "2147483648", pa.array([2147483648])),
    ("int32", -2147483649, "-2147483649", pa.array([-2147483649])),
    ("int64", 2**63, str(2**63), pa.array([2**63], pa.uint64())),
    ("int64", 2**64 + 5, str(2**64 + 5), NEVER),
    ("int64", -(2**63) - 1, str(-(2**63) - 1), NEVER),
    ("int64", 10**25, "1e25", pa.array([1e25])),
    ("int64", "1", NEVER, pa.array(["1"])),
    ("int64", True, "true", pa.array([True])),
    ("int64", math.nan, "nan", pa.array([math.nan])),
    ("flag", "false", "no", pa.array(["false"])),
    ("flag", 0, "0.0", pa.array([0])),
    ("flag", None, "", pa.array([None], pa.bool_())),
    ("float32", 1e300, "1e300", pa.array([1e300])),
    ("float64", "1.5", "1,5", pa.array(["1.5"])),
    ("float64", True, "true", pa.array([True])),
    ("float64", 2**53 + 1, NEVER, pa.array([2**53 + 1])),
    ("float64", None, "", pa.array([None], pa.float64())),
    ("float64", math.nan, "", pa.array([math.nan])),
    ("blob", "@@@", "@@@", pa.array(["@@@"])),
    ("blob", "YWI", "YWI", NEVER),
    ("blob", "YWI=\n", NEVER, NEVER),
    ("blob", None, "", pa.array([None], pa.binary())),
    ("text", None, NEVER, pa.array([None], pa.string())),
    ("text", 1, NEVER, pa.array([1])),
    ("text", math.nan, NEVER, pa.array([math.nan])),
    ("moment", 1577836800000, "1577836800000", pa.array([1577836800000])),
    ("moment", "2020-01-01T00:00:00", "2020-01-01T00:00:00", pa.array([dt.datetime(2020, 1, 1)])),
    ("moment", "2020-01-01T00:00:00.1234567Z", "2020-01-01T00:00:00.1234567Z", NEVER),
    ("moment", "yesterday", "yesterday", pa.array(["2020-01-01T00:00:00Z-"])),
    ("kind", "c", "c", pa.array(["c"])),
]
EXACT: list[tuple[str, Any, Any, Any, Any]] = [
    ("int64", 2**63 - 1, str(2**63 - 1), pa.array([2**63 - 1]), 2**63 - 1),
    ("int64", 2.0, "2", pa.array([2.0]), 2),
    ("int32", 5, "5", pa.array([5], pa.int64()), 5),
    ("float64", 3, "3", pa.array([3]), 3.0),
    ("float64", 5e-324, "5e-324", pa.array([5e-324]), 5e-324),
    ("float64", -0.0, "-0.0", pa.array([-0.0]), -0.0),
    ("float32", 0.1, "0.1", pa.array([0.1]), 0.10000000149011612),
    ("blob", "", NEVER, pa.array([b""]), ""),
    ("blob", "YQBi/w==", "YQBi/w==", pa.array([b"a\0b\xff"]), "YQBi/w=="),
    ("text", "None", "None", pa.array(["None"]), "None"),
    ("text", "NaN", "NaN", pa.array(["NaN"]), "NaN"),
    ("text", "01234", "01234", pa.array(["01234"]), "01234"),
    ("text", "", '""', pa.array([""]), ""),
    # Writers of CSV that do not quote have no other way to say the empty text; it cannot be null here.
    ("text", "", "", pa.array([""]), ""),
    ("text", " é\t", " é\t", pa.array([" é\t"]), " é\t"),
    ("maybe", None, "", pa.array([None], pa.string()), None),
    ("maybe", "", '""', pa.array([""]), ""),
    (
        "moment",
        "2020-01-01T02:00:00.000001+02:00",
        "2020-01-01T02:00:00.000001+02:00",
        pa.array([dt.datetime(2020, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC)]),
        "2020-01-01T00:00:00.000001Z",
    ),
    ("kind", "b", "b", pa.array(["b"]).dictionary_encode(), "b"),
]
FORMS = [*JSON_FORMS, "csv", "parquet", "arrow"]


def picked(form: str, in_json: Any, in_csv: Any, in_parquet: Any) -> Any:
    return {"csv": in_csv, "parquet": in_parquet, "arrow": in_parquet}.get(form, in_json)


@pytest.mark.parametrize("form", FORMS)
def test_what_cannot_be_held_is_refused_with_its_column(
    serve: Serve, typed: Any, row: dict[str, Any], form: str
) -> None:
    client = serve(typed)
    for column, *ways in CORRUPT:
        value = picked(form, *ways)
        if value is NEVER:
            continue
        reply = sent(client, form, row, column, value)
        assert reply.status_code == 400, (column, ways[0], reply.text)
        if value != "1,5":  # a ragged row has no columns
            assert reply.json()["column"] == column, (column, ways[0], reply.text)
            assert column in reply.json()["detail"]
    assert typed.calls == 0


@pytest.mark.parametrize("form", FORMS)
def test_what_can_be_held_comes_back_unchanged(serve: Serve, typed: Any, row: dict[str, Any], form: str) -> None:
    client = serve(typed)
    for column, *ways, expected in EXACT:
        value = picked(form, *ways)
        if value is NEVER:
            continue
        reply = sent(client, form, row, column, value)
        assert reply.status_code == 200, (column, ways[0], reply.text)
        (got,) = reply.json()["predictions"]
        assert repr(got[column]) == repr(expected), (column, ways[0])


def test_a_whole_number_written_with_a_point_is_exact(serve: Serve, typed: Any, row: dict[str, Any]) -> None:
    body = json.dumps({"instances": [{**row, "int64": 0}]}).replace('"int64": 0', '"int64": 9007199254740993.0')
    (got,) = serve(typed).score(body.encode()).json()["predictions"]
    assert got["int64"] == 9007199254740993


@pytest.mark.parametrize(
    "text", ["9007199254740993.0", "[[9007199254740993.0]]", '{"a": [1, {"b": 4503599627370496.3}]}']
)
@pytest.mark.parametrize("others", [[], ["x"], [1.5], [None]])
def test_numbers_within_values_of_any_kind_are_floats(text: str, others: list[Any]) -> None:
    """A column of whole numbers beside them is the reason to read them exactly."""
    columns = (Column(name="n", type="int64"), Column(name="x", type="any", nullable=True))
    param = Param(name="p", type="any", default=None, nullable=True)
    signature = Signature(inputs=Table(columns=columns), params=(param,))
    rows = ", ".join(f'{{"n": 1, "x": {value}}}' for value in (text, *map(json.dumps, others)))
    body = f'{{"dataframe_records": [{rows}], "params": {{"p": {text}}}}}'.encode()
    decoded = json_body.decode(body, signature)
    frame = coerce.inputs(decoded.data, signature, wire="json", at=decoded.at)
    params = coerce.params(decoded.params, signature, wire="json")
    assert frame.columns is not None
    assert repr(frame.columns["x"].data[0]) == repr(params["p"]) == repr(json.loads(text))


def test_all_forms_of_one_row_give_one_answer(serve: Serve, typed: Any, row: dict[str, Any]) -> None:
    client = serve(typed)
    values = {"csv": TEXT["int32"], "parquet": ARROW["int32"], "arrow": ARROW["int32"]}
    replies = {sent(client, form, row, "int32", values.get(form, row["int32"])).content for form in FORMS}
    assert len(replies) == 1


def test_integers_are_numbers_in_a_list_of_floats(serve: Serve, model: Any) -> None:
    column = Column(name="a", type=ListType(items=Element(type="float64")), optional=True, nullable=True)
    table = Table(columns=(column, Column(name="b", type="int64")))
    client = serve(model(Signature(inputs=table, outputs=table), lambda rows, params: rows))
    reply = client.score({"dataframe_records": [{"a": [1, 2], "b": 1}, {"b": 2}]})
    assert reply.json()["predictions"] == [{"a": [1.0, 2.0], "b": 1}, {"a": None, "b": 2}]


def test_tensors_are_exact_too(serve: Serve, model: Any) -> None:
    io = Tensors(tensors=(Tensor(name="x", dtype="int64", shape=(None, 2)),))
    client = serve(model(Signature(inputs=io, outputs=io), lambda x, params: x, form="numpy"))
    rows = [[2**53 + 1, -(2**63)], [2**63 - 1, 0]]
    for body in ({"inputs": rows}, {"instances": rows}, {"inputs": {"x": rows}}):
        assert client.score(body).json() == {"predictions": rows}
    for bad in (1.5, 2**63, "1", None, True, [1]):
        reply = client.score({"inputs": [[1, bad]]})
        assert reply.status_code == 400, bad
    for shape in ([1, 2], [[1, 2, 3]], [[[1, 2]]], [[1, 2], [3]], 1, {"y": rows}):
        assert client.score({"inputs": shape}).status_code == 400, shape


def anything(names: list[str]) -> st.SearchStrategy[Any]:
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.sampled_from(["YWI=", "2020-01-01T00:00:00Z", "a", 1, 0.5, "Infinity"])
    )
    keys = st.sampled_from([*names, "columns", "data", "index"]) | st.text(max_size=3)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=12),
        max_leaves=20,
    )


KEYS = [*JSON_FORMS, "params", "messages"]


class TestNoBodyBringsA5xx:
    """Whatever is sent gives 2xx, or 4xx with a JSON problem."""

    def check(self, reply: Any) -> None:
        assert reply.status_code == 200 or 400 <= reply.status_code < 500, reply.text
        answer = json.loads(reply.content, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        assert "predictions" in answer if reply.status_code == 200 else answer["message"]

    @pytest.fixture
    def clients(self, serve: Serve, typed: Any, ages: Any, model: Any) -> list[Any]:
        loose = Table(columns=(Column(name="a", type="any", nullable=True),))
        io = Tensors(tensors=(Tensor(name="a", dtype="float64", shape=(None, None), nullable=True),))
        models = [
            typed,
            ages,
            model(Signature(inputs=loose, outputs=loose), lambda rows, params: rows),
            model(Signature(inputs=io, outputs=io), lambda x, params: x, form="numpy"),
            model(Signature(inputs=loose), lambda rows, params: rows),
        ]
        return [serve(each) for each in models]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
    @given(body=st.dictionaries(st.sampled_from(KEYS), anything(["a", "age", "int32"]), max_size=3))
    @example(body={"instances": [{"a": [[[1e308]]]}]})
    @example(body={"inputs": {"age": [1e308, -1e308, math.inf]}})
    @example(body={"dataframe_split": {"data": [[10**400]]}})
    def test_json_of_about_the_right_shape(self, clients: list[Any], body: Any) -> None:
        for client in clients:
            self.check(client.score(json.dumps(body).encode()))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
    @given(data=st.data())
    def test_rows_with_one_cell_replaced(self, clients: list[Any], row: dict[str, Any], data: st.DataObject) -> None:
        column = data.draw(st.sampled_from(list(row)))
        changed = {**row, column: data.draw(anything([]))}
        for form, build in JSON_FORMS.items():
            self.check(clients[0].score(json.dumps({form: build(changed)}).encode()))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
    @given(
        body=st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
        media=st.sampled_from(["application/json", "text/csv", "application/vnd.apache.parquet"]),
    )
    def test_any_bytes(self, clients: list[Any], body: bytes, media: str) -> None:
        for client in clients:
            self.check(client.send(body, media))

    def test_the_deepest_json_of_all(self, clients: list[Any]) -> None:
        for depth in (60, 64, 65, 500, 5000):
            cell = "[" * depth + "]" * depth
            for client in clients:
                self.check(client.score(f'{{"instances": [{{"a": {cell}}}]}}'.encode()))
                self.check(client.score(f'{{"instances": {cell}}}'.encode()))


LITERALS = [
    "4503599627370496.3", "1.00000000000000001", "9007199254740993e0", "9007199254740992.5", "900719925474099.3e1",
    "1e-400", "9007199254740993.0", "9223372036854775807.0", "-0", "-0.0", "0.30000000000000004", "1.5", "2e0",
    "18446744073709551615", "-9223372036854775808",
]  # fmt: skip


@pytest.mark.parametrize("literal", LITERALS)
@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64", "float32"])
def test_a_number_means_the_same_in_json_and_in_csv(dtype: str, literal: str) -> None:
    """What a float cannot tell apart is told apart before it is one."""
    table = Table(kind="table", columns=(Column(name="a", type=dtype),))
    signature = Signature(inputs=table)

    def outcome(read: Callable[[], Frame]) -> str:
        try:
            frame = read()
        except InputError as exc:
            return exc.code
        assert frame.columns is not None
        return repr(frame.columns["a"].data[0])

    def from_json() -> Frame:
        body = b'{"dataframe_split":{"columns":["a"],"data":[[%s]]}}' % literal.encode()
        decoded = json_body.decode(body, signature)
        return coerce.inputs(decoded.data, signature, wire="json", at=decoded.at)

    def from_csv() -> Frame:
        return coerce.inputs(coerce.Split(["a"], [[literal]]), signature, wire="text")

    assert outcome(from_json) == outcome(from_csv)


WRITTEN = [
    (DecimalType(precision=38, scale=18), "17179869184.3"),
    (DecimalType(precision=38, scale=2), "1125899906842624.3"),
    (DecimalType(precision=38, scale=2), "1125899906842624.30000000000000000000"),
    (DecimalType(precision=38, scale=20), "0.12345678901234567891"),
    (DecimalType(precision=6, scale=2), "0.1"),
    (DecimalType(precision=6, scale=2), "1e-1"),
    (ListType(items=Element(type="int64")), "[9007199254740993.0]"),
    (ListType(items=Element(type="float64")), "[-0, 0.1234567890123456789012345]"),
    (ListType(items=Element(type="utf8", nullable=True)), "[NaN]"),
    (ListType(items=Element(type="float64")), "[1e400]"),
    (MapType(values=Element(type="int64")), '{"a": 1, "a": 2}'),
    (DecimalType(precision=6, scale=2), "0.123"),
]


@pytest.mark.parametrize(("kind", "text"), WRITTEN)
def test_json_and_csv_mean_the_same_by_a_number(kind: Any, text: str) -> None:
    signature = Signature(inputs=Table(columns=(Column(name="x", type=kind),)))

    def answer(call: Callable[[], Decoded]) -> Any:
        try:
            sent = call()
            return render.plain(coerce.inputs(sent.data, signature, wire=sent.wire))
        except InputError:
            return "refused"

    cell = text.replace('"', '""')
    by_csv = answer(lambda: csv_body.decode(f'x\n"{cell}"\n'.encode(), signature))
    by_json = answer(lambda: json_body.decode(f'{{"inputs": {{"x": [{text}]}}}}'.encode(), signature))
    by_lines = answer(lambda: lines_body.decode(f'{{"x": {text}}}'.encode(), signature))
    assert repr(by_csv) == repr(by_json) == repr(by_lines)
