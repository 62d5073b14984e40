"""Requests and answers at the edge of what JSON and a query can say."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from modelpack.signature import Column, Json, Signature, Table

ONE = Signature(inputs=Table(columns=(Column(name="x", type="float64"),)), outputs=Json())


def test_an_empty_object_of_inputs_says_no_number_of_rows(serve: Any, model: Any) -> None:
    reply = serve(model(ONE, lambda rows, params: len(rows))).score({"inputs": {}})

    assert reply.status_code == 400
    assert (reply.json()["code"], reply.json()["path"]) == ("form-invalid", "inputs")


def held_in_itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


@pytest.mark.parametrize("answer", [held_in_itself, deep])
def test_an_answer_that_json_cannot_say_is_told_as_such(serve: Any, model: Any, answer: Any) -> None:
    reply = serve(model(ONE, lambda rows, params: answer())).score({"inputs": {"x": [1.0]}})

    assert (reply.status_code, reply.json()["code"]) == (500, "output-not-json")


def test_faults_in_the_query_speak_of_the_query(serve: Any, model: Any) -> None:
    client = serve(model(ONE, lambda rows, params: 1))
    reply = client.score({"inputs": {"x": [1.0]}}, params={"params": "{1}"})

    assert reply.status_code == 400
    assert reply.json()["code"] == "json-invalid"
    assert "params in the query" in reply.text and "the body" not in reply.text


@pytest.mark.parametrize("name", ["a" * 10_000, "ä b" * 5_000])
def test_of_a_long_name_no_more_than_its_start_is_repeated(serve: Any, model: Any, name: str) -> None:
    client = serve(model(ONE, lambda rows, params: 1))

    for body in ({name: 1}, {"dataframe_split": {name: 1}}, {"inputs": {"x": [1.0]}, "params": {name: 1}}):
        reply = client.score(body)
        assert reply.status_code == 400
        assert len(reply.text) < 1000


def test_under_another_app_faults_are_told_as_they_are(serve: Any, ages: Any) -> None:
    client = serve(ages)
    client.app = Starlette(routes=[Mount("/api", app=client.app)])
    reply = client.request("POST", "/api/invocations", json={"odd": 1})
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/problem+json")
