"""Requests that arrive together, over the app: gathered or not, refused in time, dropped when nobody waits."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelpack import forms
from modelpack.errors import InputError
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server.app import assemble
from modelpack_server.codecs import Decoded, json_body
from modelpack_server.facts import Facts
from modelpack_server.settings import Settings

NUMBER = Table(columns=(Column(name="x", type="float64"),))
DATA = Facts(name="m", version="1", digest="sha256:" + "ab" * 32, flavor="onnx", trust="data", manifest={})


def body(*values: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": ["x"], "data": [[value] for value in values]}}


class Slow:
    """A model that answers with its input, when its gate is open; it notes how many rows each call had."""

    signature = Signature(inputs=NUMBER, outputs=NUMBER)

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)

    def score(self, frame: Any, params: Any) -> Any:
        self.calls.append(frame.rows)
        self.started.release()
        assert self.gate.wait(20)
        return frame

    async def begun(self) -> None:
        while not self.started.acquire(blocking=False):
            await asyncio.sleep(0.001)


def run(model: Any, test: Callable[[httpx.AsyncClient], Any], *, facts: Facts = DATA, **options: Any) -> None:
    async def connected() -> None:
        app = assemble(model, facts, Settings(**options))
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://m") as client:
                await asyncio.wait_for(test(client), 30)
        finally:
            app.state.invocations.close()

    asyncio.run(connected())


def test_what_comes_during_a_prediction_is_scored_together() -> None:
    model = Slow()

    async def test(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        first = asyncio.ensure_future(client.post("/invocations", json=body(0)))
        await model.begun()
        others = [asyncio.ensure_future(client.post("/invocations", json=body(i, -i))) for i in range(1, 5)]
        await asyncio.sleep(0.05)
        model.gate.set()
        replies = await asyncio.gather(first, *others)
        assert [reply.json() for reply in replies] == [
            {"predictions": [{"x": 0.0}]},
            *({"predictions": [{"x": float(i)}, {"x": float(-i)}]} for i in range(1, 5)),
        ]

    run(model, test, threads=1)
    assert model.calls == [1, 8]


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"batching": "off"}, DATA),
        ({}, replace(DATA, trust="code")),
        ({}, replace(DATA, manifest={"tags": {"batching": "off"}})),
        ({"batch_rows": 1}, DATA),
    ],
)
def test_nothing_is_gathered_where_that_is_off(options: dict[str, Any], facts: Facts) -> None:
    model = Slow()

    async def test(client: httpx.AsyncClient) -> None:
        replies = await asyncio.gather(*(client.post("/invocations", json=body(i)) for i in range(4)))
        assert [reply.json()["predictions"][0]["x"] for reply in replies] == [0.0, 1.0, 2.0, 3.0]

    run(model, test, facts=facts, threads=1, **options)
    assert model.calls == [1, 1, 1, 1]


@pytest.mark.parametrize(("options", "tags"), [({"batching": "on"}, {"batching": "off"}), ({}, {"batching": "on"})])
def test_code_is_gathered_where_somebody_says_so(options: dict[str, Any], tags: dict[str, str]) -> None:
    model = Slow()

    async def test(client: httpx.AsyncClient) -> None:
        await asyncio.gather(*(client.post("/invocations", json=body(i)) for i in range(4)))

    run(model, test, facts=replace(DATA, trust="code", manifest={"tags": tags}), **options)
    assert sum(model.calls) == 4
    assert max(model.calls) > 1


def test_a_model_whose_rows_depend_on_each_other_is_found_out_by_its_example(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Centering on the mean of all rows gives another answer to each row alone."""
    tensor = Tensors(tensors=(Tensor(name="x", dtype="float64", shape=("batch",)),))
    centred = model(Signature(inputs=tensor, outputs=tensor), lambda x, params: x - x.mean(), form="numpy")
    facts = replace(DATA, example={"inputs": {"x": [1.0, 5.0]}})
    caplog.set_level(logging.INFO, "modelpack.server")

    async def test(client: httpx.AsyncClient) -> None:
        replies = await asyncio.gather(*(client.post("/invocations", json={"inputs": [float(i)]}) for i in range(4)))
        assert [reply.json() for reply in replies] == [{"predictions": [0.0]}] * 4

    run(centred, test, facts=facts)
    assert "not gathered" in caplog.text


@pytest.mark.parametrize("shift", [0.0, 1e-6])
def test_rounding_of_kernels_is_no_dependence(model: Any, shift: float) -> None:
    tensor = Tensors(tensors=(Tensor(name="x", dtype="float64", shape=("batch",)),))
    rounding = model(Signature(inputs=tensor, outputs=tensor), lambda x, params: x + shift * (len(x) > 1), form="numpy")

    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/invocations", json={"inputs": [1.0]})
        before = rounding.calls
        await asyncio.gather(*(client.post("/invocations", json={"inputs": [float(i)]}) for i in range(6)))
        assert rounding.calls - before < 6

    run(rounding, test, facts=replace(DATA, example={"inputs": {"x": [1.0, 5.0]}}), threads=1)


def test_an_example_of_every_type_is_compared_exactly(typed: Any, row: dict[str, Any]) -> None:
    row["int64"] = 7
    other = {**row, "int32": 5, "maybe": "y", "text": "z"}
    facts = replace(DATA, example={"dataframe_records": [row, other]})

    async def test(client: httpx.AsyncClient) -> None:
        before = typed.calls
        assert before == 3  # both rows together, and each alone
        replies = await asyncio.gather(*(client.post("/invocations", json={"instances": [row]}) for _ in range(4)))
        assert len({reply.content for reply in replies}) == 1
        assert typed.calls - before < 4

    run(typed, test, facts=facts, threads=1)


def test_too_much_at_once_is_refused_and_the_rest_answered() -> None:
    model = Slow()

    async def test(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        first = asyncio.ensure_future(client.post("/invocations", json=body(0)))
        await model.begun()
        others = [asyncio.ensure_future(client.post("/invocations", json=body(i))) for i in range(5)]
        await asyncio.sleep(0.05)
        refused = [one.result() for one in others if one.done()]
        assert [reply.status_code for reply in refused] == [429] * 3
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].json()["code"] == "overloaded"
        assert (await client.get("/ping")).status_code == 200
        model.gate.set()
        replies = await asyncio.gather(first, *others)
        assert sorted(reply.status_code for reply in replies) == [200] * 3 + [429] * 3

    run(model, test, threads=1, queue=2)


@pytest.mark.parametrize(("options", "headers"), [({"timeout": 0.05}, {}), ({}, {"X-Request-Timeout": "0.05"})])
def test_an_answer_that_is_not_ready_in_time_is_a_504(options: dict[str, Any], headers: dict[str, str]) -> None:
    model = Slow()

    async def test(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        reply = await client.post("/invocations", json=body(1), headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (504, "deadline-exceeded")
        model.gate.set()

    run(model, test, threads=1, **options)


@pytest.mark.parametrize("wrong", ["soon", "-1", "0", "nan"])
def test_a_timeout_that_is_none_is_refused(wrong: str) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        reply = await client.post("/invocations", json=body(1), headers={"X-Request-Timeout": wrong})
        assert (reply.status_code, reply.json()["code"]) == (400, "timeout-invalid")

    run(Slow(), test)


def test_without_a_timeout_any_time_is_taken() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        reply = await client.post("/invocations", json=body(1), headers={"X-Request-Timeout": "inf"})
        assert reply.status_code == 200

    run(Slow(), test, timeout=0)


def test_work_of_clients_that_left_is_dropped() -> None:
    model = Slow()

    async def test() -> None:
        app = assemble(model, DATA, Settings(threads=1))
        gone = asyncio.Event()

        async def call(value: float, *, leaves: bool) -> list[Any]:
            sent: list[Any] = []
            content = orjson.dumps(body(value))
            messages = [{"type": "http.request", "body": content, "more_body": False}]

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                await (gone.wait() if leaves else asyncio.Event().wait())
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {
                "type": "http", "method": "POST", "path": "/invocations", "query_string": b"",
                "headers": [(b"content-type", b"application/json")],
            }  # fmt: skip
            await app(scope, receive, send)
            return sent

        model.gate.clear()
        first = asyncio.ensure_future(call(0, leaves=False))
        await model.begun()
        left = asyncio.ensure_future(call(1, leaves=True))
        stays = asyncio.ensure_future(call(2, leaves=False))
        await asyncio.sleep(0.01)
        gone.set()
        assert await left == []
        model.gate.set()
        assert (await first)[0]["status"] == (await stays)[0]["status"] == 200
        app.state.invocations.close()

    asyncio.run(asyncio.wait_for(test(), 30))
    assert model.calls == [1, 1]


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4),
    st.lists(st.integers(0, 9), max_size=2), st.dictionaries(st.sampled_from("ab:"), st.integers(0, 9), max_size=2),
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(["-0", "1e400", "100000000000000000000", "NaN", "9007199254740993.0", '"\\ud800"', '"a:b"', "1.0"]),
    VALUES.map(lambda value: orjson.dumps(value).decode() if not isinstance(value, int) else str(value)),
)


@pytest.mark.parametrize(
    "columns",
    [
        (Column(name="a", type="float64"), Column(name="b", type="float64")),
        (Column(name="a:b", type="int64"), Column(name="b", type="utf8")),
        (Column(name="a", type="any"),),
    ],
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(TEXTS, max_size=3), max_size=3),
    known=st.booleans(),
    extra=st.sampled_from(["", ', "columns": []', ', "index": [0]', ', "data": []']),
    after=st.sampled_from(["", ', "params": {}', ', "dataframe_split": {}', " x"]),
)
@example(rows=[["1"]], known=True, extra="", after="")
def test_the_short_way_of_reading_json_gives_what_the_long_way_gives(
    columns: tuple[Column, ...], rows: list[list[str]], known: bool, extra: str, after: str
) -> None:
    signature = Signature(inputs=Table(columns=columns), outputs=None)
    names = [column.name for column in columns] if known else ["z"]
    data = ", ".join(f"[{', '.join(row)}]" for row in rows)
    text = f'{{"dataframe_split": {{"columns": {orjson.dumps(names).decode()}, "data": [{data}]{extra}}}{after}}}'
    content = text.encode("utf-8", "surrogatepass")

    def told(read: Callable[[], Any]) -> Any:
        try:
            decoded = read()
        except InputError as exc:
            return exc.code, exc.message, exc.path
        rows = decoded.data.data
        rows = repr(rows) if isinstance(rows, list) else repr(rows.tolist())
        return decoded.data.columns, rows, decoded.wire, decoded.at, decoded.params or None

    def long() -> Any:
        call = forms.parse(json_body.parse(content, whole=json_body.wants_whole(signature)), signature=signature)
        # What is made into an array has floats alone; tests/server/test_json_floats.py compares the rest.
        if isinstance(json_body.Reader(signature)(content)[0].data.data, np.ndarray):
            call.data.data = [[float(cell) for cell in row] for row in call.data.data]
        return Decoded(data=call.data, wire="json", at=call.at, params=call.params)

    assert told(lambda: json_body.Reader(signature)(content)[0]) == told(long)


def test_the_usual_body_is_known(model: Any) -> None:
    read = json_body.Reader(Slow.signature)
    assert read(orjson.dumps(body(1.5)))[1]
    assert not read(b'{"dataframe_records": [{"x": 1.5}]}')[1]
    assert not json_body.Reader(Signature())(b'{"inputs": 1}')[1]
    assert np.isclose(read(orjson.dumps(body(1.5)))[0].data.data[0][0], 1.5)
