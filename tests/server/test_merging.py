"""Requests scored together get what each gets alone: the same answers, the same errors, to the byte."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.coerce import Split
from modelpack.errors import InputError, ModelError
from modelpack.signature import Column, Param, Signature, Table, Tensor, Tensors
from modelpack_server.codecs import Decoded
from modelpack_server.invocation import JSON, Request, Work, key
from modelpack_server.invocation.merging import by_rows, merge, rows_of

CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(2**53 - 2, 2**53 + 2),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.lists(st.integers(0, 1), max_size=2),
)
COLUMNS = (
    Column(name="age", type="float64", nullable=True),
    Column(name="count", type="int64"),
    Column(name="name", type="utf8", nullable=True),
)
# Names of columns that are right, in another order, unknown, not even texts.
NAMES = st.one_of(
    st.just(["age", "count", "name"]), st.permutations(["age", "count", "name"]), st.just(["age", 1, "name"]), st.none()
)


def split(names: Any, rows: Any) -> Any:
    return {"dataframe_split": {"data": rows} if names is None else {"columns": names, "data": rows}}


ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS).map(list), max_size=3)
GOOD = st.lists(
    st.tuples(st.none() | st.floats(0, 9), st.integers(0, 9), st.just("x")).map(list), min_size=1, max_size=3
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["age", "count", "name", "odd"]), CELLS), max_size=3)
BY_NAME = st.dictionaries(st.sampled_from(["age", "count", "name"]), CELLS | st.lists(CELLS, max_size=3), max_size=3)
BODIES = st.one_of(
    GOOD.map(lambda rows: split(["age", "count", "name"], rows)),
    st.builds(split, NAMES, GOOD | ROWS),
    RECORDS.map(lambda rows: {"dataframe_records": rows}),
    BY_NAME.map(lambda columns: {"inputs": columns}),
    st.one_of(ROWS, RECORDS).map(lambda rows: {"instances": rows}),
)
PARAMS = st.sampled_from(
    [
        None,
        {},
        *({"factor": factor} for factor in (1.0, 2, "x", None, math.inf, -math.inf)),
        {"other": 1},
    ]
)


def people(model: Any) -> Any:
    """Return a model that gives its rows back, each age times a factor, and falls over sevens."""

    def answer(rows: Any, params: Any) -> Any:
        if any(row["count"] == 7 for row in rows):
            raise ValueError("seven")
        return [{**row, "age": None if row["age"] is None else row["age"] * params["factor"]} for row in rows]

    table = Table(columns=COLUMNS)
    params = (Param(name="factor", type="float64", default=1.0),)
    return model(Signature(inputs=table, outputs=table, params=params), answer)


def request(body: Any) -> Request:
    # As MLflow's client writes it: orjson would write null for an infinity.
    return Request(JSON, json.dumps(body).encode(), None, JSON)


def told(reply: Any) -> Any:
    """Return all that a client gets to know of a reply."""
    if isinstance(reply, bytes):
        return reply
    faults = [(fault.code, fault.path, fault.row, fault.column) for fault in reply.faults]
    return type(reply), reply.code, reply.message, faults


def answered(work: Work, bodies: list[Any]) -> list[list[Any]]:
    """Score what belongs together at once; return what each member gets so, and what it gets alone."""
    groups: dict[Any, list[Any]] = {}
    for body in bodies:
        try:
            decoded = request(body).decode(work.model.signature)
        except InputError:
            continue  # refused before anything is gathered
        common = key(decoded, decoded.params)
        if common is not None:
            groups.setdefault(common, []).append(body)
    together = [told(reply) for members in groups.values() for reply in work([request(body) for body in members])]
    alone = [told(work([request(body)])[0]) for members in groups.values() for body in members]
    return [together, alone]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(st.tuples(BODIES, PARAMS), min_size=2, max_size=5))
def test_rows_of_a_table_together_as_alone(model: Any, bodies: list[tuple[Any, Any]]) -> None:
    sent = [body if params is None else {**body, "params": params} for body, params in bodies]
    together, alone = answered(Work(people(model)), sent)
    assert together == alone


TENSORS = Tensors(
    tensors=(
        Tensor(name="x", dtype="float32", shape=("batch", "width")),
        Tensor(name="y", dtype="int64", shape=("batch",), optional=True),
    )
)
NESTED = st.integers(0, 3).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(-3, 3) | st.floats(-1, 1, width=32), min_size=width, max_size=width), max_size=3
    )
)
TENSOR_BODIES = st.one_of(
    NESTED.map(lambda x: {"inputs": x}),
    st.builds(lambda x, y: {"inputs": {"x": x, "y": y}}, NESTED, st.lists(st.integers(0, 3), max_size=3)),
    NESTED.map(lambda x: {"instances": [{"x": row} for row in x]}),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(TENSOR_BODIES, min_size=2, max_size=5))
def test_tensors_together_as_alone(model: Any, bodies: list[Any]) -> None:
    outputs = Tensors(tensors=(Tensor(name="sum", dtype="float32", shape=("batch",)),))
    served = model(
        Signature(inputs=TENSORS, outputs=outputs),
        lambda data, params: (data["x"] if isinstance(data, dict) else data).sum(axis=1),
        form="numpy",
    )
    together, alone = answered(Work(served), bodies)
    assert together == alone


def test_one_call_of_the_model_for_all(model: Any) -> None:
    served = people(model)
    bodies = [split(["age", "count", "name"], [[i, i, "x"]] * (i + 1)) for i in range(4)]
    replies = Work(served)([request(body) for body in bodies])
    assert [len(orjson.loads(reply)["predictions"]) for reply in replies] == [1, 2, 3, 4]
    assert served.calls == 1


def test_a_model_that_fails_on_one_row_answers_the_others(model: Any) -> None:
    bodies = [split(["age", "count", "name"], [[1, count, "x"]]) for count in (1, 7, 3)]
    first, second, third = Work(people(model))([request(body) for body in bodies])
    assert isinstance(second, ModelError)
    assert orjson.loads(first)["predictions"][0]["count"] == 1
    assert orjson.loads(third)["predictions"][0]["count"] == 3


def test_one_bad_request_costs_the_others_few_calls(ages: Any) -> None:
    def request(age: bytes) -> Request:
        return Request(JSON, b'{"dataframe_records":[{"age":%s}]}' % age, None, JSON)

    replies = Work(ages)([request(b"1")] * 200 + [request(b'"bad"')] + [request(b"2")] * 55)
    bad = [place for place, reply in enumerate(replies) if isinstance(reply, Exception)]
    assert bad == [200]
    assert ages.calls < 30


def test_an_answer_of_other_rows_is_nobodys(model: Any) -> None:
    """A model that answers once for all rows gives each request its own."""
    total = Table(columns=(Column(name="count", type="int64"),))
    served = model(
        Signature(inputs=Table(columns=COLUMNS), outputs=total),
        lambda rows, params: [{"count": sum(row["count"] for row in rows)}],
    )
    bodies = [split(["age", "count", "name"], [[1, count, "x"]]) for count in (1, 2)]
    assert [orjson.loads(reply) for reply in Work(served)([request(body) for body in bodies])] == [
        {"predictions": [{"count": 1}]},
        {"predictions": [{"count": 2}]},
    ]


@pytest.mark.parametrize(
    "data",
    [
        [],
        Split(["a"], []),
        {},
        {"a": [1], "b": [1, 2]},  # columns of other lengths: merged, values would move to other rows
        {"a": 1},
        [{"a": 1}, {"b": 1}],  # a key that a record lacks is null, or missing, depending on the others
        [{"a": 1}, 1],
        "text",
        None,
    ],
)
def test_what_is_scored_alone(data: Any) -> None:
    assert key(Decoded(data=data, wire="json"), None) is None


def test_other_formats_and_params_that_json_cannot_say_are_scored_alone() -> None:
    rows = Split(["a"], [[1]])
    assert key(Decoded(data=rows, wire="python"), None) is None
    assert key(Decoded(data=rows, wire="json"), {"a": object()}) is None


def test_true_and_one_are_not_the_same_name_nor_the_same_param() -> None:
    one, true = [Decoded(data=Split([name], [[1]]), wire="json") for name in (1, True)]
    assert key(one, None) != key(true, None)
    same = Decoded(data=Split(["a"], [[1]]), wire="json")
    assert key(same, {"p": 1}) != key(same, {"p": True})
    assert key(same, {"p": 1, "q": 2}) == key(same, {"q": 2, "p": 1})
    assert key(same, {}) == key(same, None)


def test_infinities_and_null_are_not_the_same_param() -> None:
    same = Decoded(data=Split(["a"], [[1]]), wire="json")
    keys = {key(same, {"limit": limit}) for limit in (math.inf, -math.inf, None)}
    assert len(keys) == 3
    assert key(same, {"limit": [math.inf]}) == key(same, {"limit": [math.inf]}) is not None


def test_rows_are_counted_and_joined_in_order() -> None:
    parts = [Split(["a"], [[1], [2]]), Split(["a"], [[3]])]
    assert merge(parts).data == [[1], [2], [3]]
    assert merge([{"a": [1, 2]}, {"a": [3]}]) == {"a": [1, 2, 3]}
    assert merge([[1, 2], [3]]) == [1, 2, 3]
    assert [rows_of(data) for data in (*parts, {"a": [1, 2]}, {}, [1, 2, 3], 5)] == [2, 1, 2, 1, 3, 1]


@pytest.mark.parametrize(
    ("side", "open_"),
    [
        (Table(columns=COLUMNS), True),
        (Tensors(tensors=(Tensor(name="x", dtype="float32", shape=("batch", 3)),)), True),
        (Tensors(tensors=(Tensor(name="x", dtype="float32", shape=(1, 3)),)), False),
        (Tensors(tensors=(Tensor(name="x", dtype="float32", shape=()),)), False),
        (None, False),
    ],
)
def test_only_sides_of_any_number_of_rows_are_by_rows(side: Any, open_: bool) -> None:
    assert by_rows(Signature(inputs=Table(columns=COLUMNS), outputs=side)) is open_
    assert by_rows(Signature(inputs=side, outputs=Table(columns=COLUMNS))) is open_


@pytest.mark.parametrize(
    ("size", "together"), [(3, True), ("width", True), (None, False), ("batch", False), ("other", False)]
)
def test_answers_whose_sizes_depend_on_the_other_rows_are_not_by_rows(size: Any, together: bool) -> None:
    inputs = Tensors(tensors=(Tensor(name="x", dtype="float32", shape=("batch", "width")),))
    outputs = Tensors(tensors=(Tensor(name="y", dtype="float32", shape=("batch", size)),))
    assert by_rows(Signature(inputs=inputs, outputs=outputs)) is together
