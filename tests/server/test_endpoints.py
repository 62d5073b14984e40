"""The HTTP face: MLflow's protocol, right statuses, no secrets."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from sklearn.linear_model import LinearRegression
from starlette.requests import ClientDisconnect

import modelpack
from modelpack.errors import InputError, OutputError
from modelpack.signature import Json, Param, Signature, Tensor, Tensors
from modelpack_server.endpoints.edge import Edge
from modelpack_server.endpoints.state import State
from modelpack_server.metrics.meter import Meter

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
Serve = Callable[..., Any]


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    return bytes(sink.getvalue())


FORMS = [
    {"dataframe_split": {"columns": ["age"], "data": [[1.5], [None]]}},
    {"dataframe_split": {"columns": ["age"], "index": [7, 8], "data": [[1.5], [None]]}},
    {"dataframe_records": [{"age": 1.5}, {"age": None}]},
    {"instances": [{"age": 1.5}, {"age": None}]},
    {"inputs": {"age": [1.5, None]}},
]


class TestForms:
    """All ways to send the same rows."""

    @pytest.mark.parametrize("body", FORMS)
    def test_json(self, serve: Serve, ages: Any, body: dict[str, Any]) -> None:
        reply = serve(ages).score(body)
        assert (reply.status_code, reply.headers["content-type"]) == (200, JSON)
        assert reply.json() == {"predictions": [{"double": 3.0}, {"double": None}]}

    def test_nan_as_mlflows_client_sends_it(self, serve: Serve, ages: Any) -> None:
        reply = serve(ages).score(b'{"dataframe_split": {"columns": ["age"], "index": [0], "data": [[NaN]]}}')
        assert reply.json() == {"predictions": [{"double": None}]}

    def test_csv(self, serve: Serve, ages: Any) -> None:
        reply = serve(ages).send(b"other,age\n,1.5\nx,\n", "text/csv; charset=UTF-8")
        assert reply.json() == {"predictions": [{"double": 3.0}, {"double": None}]}

    def test_parquet(self, serve: Serve, ages: Any) -> None:
        reply = serve(ages).send(parquet_bytes(pa.table({"age": [1.5, None]})), PARQUET)
        assert reply.json() == {"predictions": [{"double": 3.0}, {"double": None}]}

    @pytest.mark.parametrize("body", FORMS)
    def test_params_in_the_body(self, serve: Serve, ages: Any, body: dict[str, Any]) -> None:
        reply = serve(ages).score({**body, "params": {"factor": 10}})
        assert reply.json()["predictions"][0] == {"double": 30.0}

    def test_params_in_the_query(self, serve: Serve, ages: Any) -> None:
        query = {"params": '{"factor": 10}'}
        for reply in (
            serve(ages).send(b"age\n1.5\n", CSV, params=query),
            serve(ages).send(parquet_bytes(pa.table({"age": [1.5]})), PARQUET, params=query),
            serve(ages).score(FORMS[0], params=query),
        ):
            assert reply.json()["predictions"][0] == {"double": 30.0}

    def test_csv_without_a_header_for_a_matrix(self, serve: Serve, model: Any) -> None:
        io = Tensors(tensors=(Tensor(name="x", dtype="float64", shape=(None, 2)),))
        reply = serve(model(Signature(inputs=io, outputs=io), lambda x, params: x, form="numpy")).send(
            b"1,2\n3,4\n", CSV
        )
        assert reply.json() == {"predictions": [[1.0, 2.0], [3.0, 4.0]]}


class TestRefusals:
    """A request that cannot be meant is refused, with the place and the rule."""

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({"dataframe_split": {"columns": ["age"], "data": [["x"]]}}, "dataframe_split.data[0][0]"),
            ({"dataframe_records": [{"age": 1}, {"age": "x"}]}, "dataframe_records[1].age"),
            ({"instances": [{"age": 1}, {"age": "x"}]}, "instances[1].age"),
            ({"inputs": {"age": [1, "x"]}}, "inputs.age[1]"),
            ({"dataframe_records": [{"age": 1}], "params": {"factor": "x"}}, "params.factor"),
            ({"dataframe_records": [{"age": 1}], "params": {"fcator": 1}}, "params.fcator"),
        ],
    )
    def test_400_names_the_field(self, serve: Serve, ages: Any, body: dict[str, Any], path: str) -> None:
        reply = serve(ages).score(body)
        problem = reply.json()
        assert (reply.status_code, problem["path"]) == (400, path)
        assert reply.headers["content-type"] == "application/problem+json"
        assert problem["error_code"] == "BAD_REQUEST"
        assert problem["message"]
        assert problem["code"]
        assert ages.calls == 0

    @pytest.mark.parametrize(
        "body",
        [
            {},
            [],
            1,
            "x",
            b"null",
            {"dataframe_split": []},
            {"dataframe_split": {"columns": ["age"]}},
            {"dataframe_split": {"columns": ["age"], "data": [[1, 2]]}},
            {"dataframe_split": {"columns": ["age"], "data": [[1]], "extra": 1}},
            {"dataframe_records": {"age": 1}},
            {"dataframe_records": [1]},
            {"instances": 5},
            {"inputs": {"age": [1], "other": [1, 2]}},
            {"inputs": {"wrong": [1]}},
            {"dataframe_records": [{"age": 1}], "instances": [{"age": 1}]},
            {"dataframe_records": [{"age": 1}], "params": [1]},
            {"dataframe_records": [{"age": 1}], "parameters": {}},
            {"messages": [{"role": "user"}]},
        ],
    )
    def test_what_is_no_request_is_400(self, serve: Serve, ages: Any, body: Any) -> None:
        reply = serve(ages).score(body)
        assert reply.status_code == 400, reply.text
        assert reply.json()["message"]
        assert ages.calls == 0

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b"[" * 5000, b'{"inputs":1,"inputs":1}'])
    def test_what_is_no_json_is_400(self, serve: Serve, ages: Any, body: bytes) -> None:
        reply = serve(ages).score(body)
        assert (reply.status_code, reply.json()["code"].partition("-")[0]) == (400, "json")

    @pytest.mark.parametrize(("body", "media"), [(b"", CSV), (b'a\n"', CSV), (b"x", PARQUET), (b"", PARQUET)])
    def test_what_is_no_table_is_400(self, serve: Serve, ages: Any, body: bytes, media: str) -> None:
        assert serve(ages).send(body, media).status_code == 400

    def test_ragged_csv_names_the_row(self, serve: Serve, ages: Any) -> None:
        reply = serve(ages).send(b"age,b\n1,2\n3\n", CSV)
        assert (reply.status_code, reply.json()["path"]) == (400, "[1]")

    def test_400_tells_all_faults(self, serve: Serve, ages: Any) -> None:
        faults = serve(ages).score({"inputs": {"age": ["x", 1, "y"]}}).json()["faults"]
        assert [fault["path"] for fault in faults] == ["inputs.age[0]", "inputs.age[2]"]

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("parms={}", "query-unknown"),
            ("params={}&params={}", "query-unknown"),
            ("params=[]", "params-type"),
            ("params=%7B", "json-invalid"),
            ("params=", "json-invalid"),
            ('params={"x":1}', "param-unknown"),
        ],
    )
    def test_a_query_that_is_not_understood_is_400(self, serve: Serve, ages: Any, query: str, code: str) -> None:
        reply = serve(ages).request("POST", f"/invocations?{query}", json=FORMS[0])
        assert (reply.status_code, reply.json()["code"]) == (400, code)

    def test_params_in_both_places_are_400(self, serve: Serve, ages: Any) -> None:
        reply = serve(ages).score({**FORMS[0], "params": {}}, params={"params": "{}"})
        assert (reply.status_code, reply.json()["code"]) == (400, "params-twice")

    def test_404_405_406_413_415(self, serve: Serve, ages: Any) -> None:
        client = serve(ages, max_body=100)
        for path in ("/nowhere", "/invocations/", "/invocations/x", "/ping/"):
            reply = client.request("POST", path, json={})
            assert (reply.status_code, reply.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            reply = client.request(method, "/invocations")
            assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
        assert client.request("POST", "/ping").headers["allow"] == "GET, HEAD"
        reply = client.score(FORMS[0], headers={"Accept": "text/html"})
        assert (reply.status_code, reply.json()["code"]) == (406, "not-acceptable")
        reply = client.score(b" " * 101)
        assert (reply.status_code, reply.json()["code"]) == (413, "body-too-large")
        assert reply.headers["connection"] == "close"
        assert client.score(b" " * 100).status_code == 400
        reply = client.request("POST", "/invocations", content=b"{}")
        assert (reply.status_code, reply.json()["code"]) == (415, "content-type-missing")
        reply = client.send(b"{}", JSON, headers={"Content-Encoding": "br"})
        assert (reply.status_code, reply.json()["code"]) == (415, "content-encoding-unknown")
        assert reply.headers["accept-encoding"] == "gzip, zstd, identity"
        assert client.send(b"{}", JSON, headers={"Content-Encoding": "Identity"}).status_code == 400
        assert ages.calls == 0

    def test_a_body_without_length_is_measured_while_it_is_read(self, serve: Serve, ages: Any) -> None:
        async def chunks() -> Any:
            for _ in range(20):
                yield b" " * 10

        reply = serve(ages, max_body=100).request(
            "POST", "/invocations", content=chunks(), headers={"Content-Type": JSON}
        )
        assert reply.status_code == 413

    def test_an_absurd_length_is_413(self, serve: Serve, ages: Any) -> None:
        reply = serve(ages).send(b"{}", JSON, headers={"Content-Length": "9" * 5000})
        assert reply.status_code == 413


class TestFailures:
    """What goes wrong on our side is told by an id only."""

    def test_a_model_that_raises(self, serve: Serve, ages: Any, caplog: pytest.LogCaptureFixture) -> None:
        def fail(rows: Any, params: Any) -> Any:
            raise ValueError(f"cannot score {rows!r} in /srv/model.py")

        ages.function = fail
        caplog.set_level(logging.INFO, "modelpack.server")
        reply = serve(ages).score({"inputs": {"age": [12345.678]}}, headers={"X-Request-Id": "req-1"})
        problem = reply.json()
        assert (reply.status_code, problem["code"], problem["id"]) == (500, "model-raised", "req-1")
        assert problem["message"] == "the model raised ValueError"
        for hidden in ("12345", "/srv", "Traceback", "cannot score"):
            assert hidden not in reply.text
        assert "12345" not in caplog.text
        assert "req-1" in caplog.text
        assert "in fail" in caplog.text

    @pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt(), StopIteration(1), MemoryError()])
    def test_a_model_cannot_end_the_server(self, serve: Serve, ages: Any, ending: BaseException) -> None:
        def end(rows: Any, params: Any) -> Any:
            raise ending

        ages.function = end
        client = serve(ages)
        assert client.score(FORMS[0]).json()["code"] == "model-raised"
        assert client.get("/ping").status_code == 200

    def test_a_model_that_refuses_its_data_answers_400(self, serve: Serve, ages: Any) -> None:
        def refuse(rows: Any, params: Any) -> Any:
            raise InputError("too old", code="too-old", path="age")

        ages.function = refuse
        assert serve(ages).score(FORMS[0]).status_code == 400

    @pytest.mark.parametrize("answer", [[{"double": "x"}] * 2, [{"double": 1.0}], 5])
    def test_an_answer_that_does_not_fit_is_500(self, serve: Serve, ages: Any, answer: Any) -> None:
        ages.function = lambda rows, params: answer
        reply = serve(ages).score(FORMS[0], headers={"X-Request-Id": "r"})
        assert (reply.status_code, reply.json()["id"]) == (500, "r")
        assert reply.json()["error_code"] == "INTERNAL_ERROR"

    def test_a_fault_of_our_own_is_500(self, serve: Serve, ages: Any, caplog: pytest.LogCaptureFixture) -> None:
        hidden = "secret"

        def broken(frame: Any, params: Any) -> Any:
            raise AssertionError(hidden)

        ages.score = broken
        reply = serve(ages).score(FORMS[0])
        assert (reply.status_code, reply.json()["code"]) == (500, "internal-error")
        assert hidden not in reply.text + caplog.text

    def test_the_answer_of_a_wrong_output_names_it(self, serve: Serve, ages: Any) -> None:
        def refuse(frame: Any, params: Any) -> Any:
            raise OutputError("wrong", code="shape-mismatch", path="predictions.double")

        ages.score = refuse
        assert serve(ages).score(FORMS[0]).json()["path"] == "predictions.double"


class TestAnswers:
    """Answers are valid JSON and hold what the model said."""

    @pytest.mark.parametrize("body", [{"dataframe_records": []}, {"dataframe_split": {"columns": ["age"], "data": []}}])
    def test_no_rows_have_no_predictions(self, serve: Serve, ages: Any, body: dict[str, Any]) -> None:
        reply = serve(ages).score(body)
        assert (reply.status_code, reply.json()) == (200, {"predictions": []})
        assert ages.calls == 0

    def test_no_rows_in_csv_and_parquet(self, serve: Serve, ages: Any) -> None:
        empty = parquet_bytes(pa.table({"age": pa.array([], pa.float64())}))
        for body, media in ((b"age\n", CSV), (empty, PARQUET)):
            assert serve(ages).send(body, media).json() == {"predictions": []}

    @pytest.mark.parametrize(
        ("outputs", "expected"),
        [
            (Tensors(tensors=(Tensor(name="y", dtype="float64", shape=(None,)),)), []),
            (Tensors(tensors=(Tensor(name="y", dtype="utf8", shape=("n", 3)),)), []),
            (
                Tensors(
                    tensors=(
                        Tensor(name="y", dtype="int64", shape=(None, None)),
                        Tensor(name="z", dtype="bool", shape=(None,)),
                    )
                ),
                {"y": [], "z": []},
            ),
        ],
    )
    def test_no_rows_of_tensors(self, serve: Serve, ages: Any, model: Any, outputs: Any, expected: Any) -> None:
        none = model(Signature(inputs=ages.signature.inputs, outputs=outputs), ages.function)
        assert serve(none).score({"dataframe_records": []}).json() == {"predictions": expected}
        assert none.calls == 0

    @pytest.mark.parametrize("outputs", [None, Json(), Tensors(tensors=(Tensor(name="y", dtype="int64", shape=(1,)),))])
    def test_what_no_rows_give_is_asked_of_the_model_where_it_is_not_known(
        self, serve: Serve, ages: Any, model: Any, outputs: Any
    ) -> None:
        asked = model(Signature(inputs=ages.signature.inputs, outputs=outputs), lambda rows, params: [0])
        serve(asked).score({"dataframe_records": []})
        assert asked.calls == 1

    def test_a_param_that_changes_the_outputs_asks_the_model(self, serve: Serve, ages: Any, model: Any) -> None:
        method = Param(name="method", type="utf8", default="predict", changes_outputs=True)
        signature = Signature(inputs=ages.signature.inputs, outputs=ages.signature.outputs, params=(method,))
        asked = model(signature, lambda rows, params: [[0.5, 0.5] for _ in rows])
        client = serve(asked)
        assert client.score({"dataframe_records": []}).json() == {"predictions": []}
        assert asked.calls == 0
        client.score({"dataframe_records": [], "params": {"method": "predict_proba"}})
        assert asked.calls == 1
        reply = client.score({"dataframe_records": [{"age": 1}], "params": {"method": "predict_proba"}})
        assert reply.json() == {"predictions": [[0.5, 0.5]]}

    def test_infinities_are_strings_and_nan_is_null(self, serve: Serve, model: Any) -> None:
        io = Tensors(tensors=(Tensor(name="x", dtype="float64", shape=(None,), nullable=True),))
        client = serve(model(Signature(inputs=io, outputs=io), lambda x, params: x, form="numpy"))
        reply = client.score(b'{"inputs": [1.5, NaN, Infinity, -Infinity]}')
        assert reply.content == b'{"predictions":[1.5,null,"Infinity","-Infinity"]}'

    def test_json_outputs_are_as_the_model_made_them(self, serve: Serve, ages: Any, model: Any) -> None:
        answer = {"text": "hé", "n": [1, None, {"big": 10**30}]}
        told = model(Signature(inputs=ages.signature.inputs, outputs=Json()), lambda rows, params: answer)
        assert serve(told).score(FORMS[0]).json() == {"predictions": answer}


class TestInformation:
    """What can be asked about the server and its model."""

    def test_ping_and_health(self, serve: Serve, ages: Any) -> None:
        client = serve(ages)
        for path in ("/ping", "/health"):
            reply = client.get(path)
            assert (reply.status_code, reply.text) == (200, "\n")
            assert client.request("HEAD", path).status_code == 200

    def test_version_is_the_bare_version(self, serve: Serve, ages: Any) -> None:
        assert serve(ages).get("/version").text == modelpack.__version__

    def test_metadata(self, serve: Serve, ages: Any) -> None:
        assert serve(ages).get("/metadata").json() == {
            "name": "echo",
            "version": "1.2.3",
            "digest": "sha256:" + "ab" * 32,
            "flavor": "python",
            "trust": "code",
            "twin": None,
            "signature": {},
            "manifest": {"modelpack": "1.0", "name": "echo", "signature": {}},
        }

    def test_openapi_and_docs(self, serve: Serve, ages: Any) -> None:
        client = serve(ages)
        assert client.get("/openapi.json").json()["info"]["title"] == "echo"
        for path in ("/docs", "/"):
            reply = client.get(path)
            assert "curl http://model/invocations" in reply.text
            assert reply.headers["content-security-policy"].startswith("default-src 'none'")

    def test_the_example_of_the_documents_can_be_sent(self, serve: Serve, ages: Any) -> None:
        client = serve(ages)
        content = client.get("/openapi.json").json()["paths"]["/invocations"]["post"]["requestBody"]["content"]
        assert client.score(content[JSON]["example"]).status_code == 200


class TestEdge:
    """Every reply has an id; a server that stops says so."""

    def test_a_harmless_id_is_kept(self, serve: Serve, ages: Any) -> None:
        client = serve(ages)
        for path in ("/ping", "/nowhere"):
            assert client.get(path, headers={"X-Request-Id": "a-b_c.d:1"}).headers["x-request-id"] == "a-b_c.d:1"

    @pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "é".encode().decode("latin-1"), "<x>"])
    def test_otherwise_one_is_made(self, serve: Serve, ages: Any, sent: str | None) -> None:
        headers = {} if sent is None else {"X-Request-Id": sent.encode("latin-1")}
        got = serve(ages).get("/ping", headers=headers).headers["x-request-id"]
        assert got != sent
        assert len(got) == 16

    def test_a_stopping_server_refuses(self, serve: Serve, ages: Any) -> None:
        client = serve(ages)
        client.app.state.server.draining = True
        for reply in (client.get("/ping"), client.score(FORMS[0])):
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            assert reply.headers["connection"] == "close"
            assert reply.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"

    def test_a_reply_that_has_begun_is_not_begun_again(self) -> None:
        sent: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise scope["error"]

        async def send(message: Any) -> None:
            sent.append(message["type"])

        for error in (ValueError(), asyncio.CancelledError()):
            scope = {"type": "http", "path": "/", "method": "GET", "headers": [], "error": error}
            with pytest.raises(type(error)):
                asyncio.run(Edge(app, State(), app, Meter())(scope, None, send))  # type: ignore[arg-type]
        assert sent == ["http.response.start"] * 2

    def test_work_that_is_given_up_is_told(self) -> None:
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise asyncio.CancelledError

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "path": "/", "method": "GET", "headers": []}
        asyncio.run(Edge(app, State(), app, Meter())(scope, None, send))  # type: ignore[arg-type]
        assert sent[0]["status"] == 503

    def test_a_client_that_left_gets_nothing(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise ClientDisconnect

        scope = {"type": "http", "path": "/", "method": "GET", "headers": []}
        asyncio.run(Edge(app, State(), app, Meter())(scope, None, None))  # type: ignore[arg-type]

    def test_other_protocols_pass(self, serve: Serve, ages: Any) -> None:
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])

        asyncio.run(Edge(app, State(), app, Meter())({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
        assert seen == ["lifespan"]


def test_no_value_that_was_sent_comes_back_in_an_error(
    serve: Serve, typed: Any, row: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Put a marker in every place where it is wrong, through every form: it is in no reply and in no log."""
    marker = "m4rk3r"
    caplog.set_level(logging.DEBUG, "modelpack.server")
    client = serve(typed)
    bodies: list[Any] = [marker, [marker], {"dataframe_split": marker}, {"instances": marker}, {"inputs": marker}]
    for name in row:
        for bad in (marker, [marker], {"x": marker}, f"2020-{marker}", f"{marker}=="):
            if name in ("text", "maybe") and isinstance(bad, str):
                continue
            bodies.append({"dataframe_records": [{**row, name: bad}]})
            bodies.append({"instances": [{**row, name: bad}]})
            bodies.append({"inputs": {key: [bad if key == name else value] for key, value in row.items()}})
            bodies.append(
                {"dataframe_split": {"columns": list(row), "data": [[*{**row, name: bad}.values()]]}},
            )
    bodies += [{"dataframe_records": [row], "params": {"factor": bad}} for bad in (marker, [marker])]
    bodies += [{"dataframe_records": [row], "params": marker}, {"dataframe_split": {"columns": marker, "data": [[1]]}}]
    replies = [client.score(body) for body in bodies]
    replies += [client.score(json.dumps(body).encode()[:-1] + b"!") for body in bodies]
    names, cells = ",".join(row), dict.fromkeys(row, "1")
    for name in row:
        line = ",".join({**cells, name: marker}.values())
        replies.append(client.send(f"{names}\n{line}\n".encode(), CSV))
    replies.append(client.send(f"{names}\n{marker}\n".encode(), CSV))
    replies.append(client.send(f"{names}\n{marker}{marker}".encode(), PARQUET))
    replies.append(client.send(b"{}", f"text/{marker}"))
    replies.append(client.score({}, params={marker: marker}))
    replies.append(client.score({}, headers={"Accept": marker}))
    replies.append(client.get(f"/{marker}"))
    for reply in replies:
        assert 400 <= reply.status_code < 500, reply.text
        assert marker not in reply.text
        assert marker not in str(reply.headers)
    assert marker not in caplog.text


OURS = ("modelpack", "modelpack_server", "modelpack_flavors")


class TestHops:
    """One invocation passes at most five of our files, the coercion core counted as one."""

    CORE = (
        "coerce",
        "forms.py",
        "render",
        "infer.py",
        "frame.py",
        "signature.py",
        "dtypes.py",
        "fieldpath.py",
        "once.py",
        "optional.py",
    )

    def rooms(self, serve: Serve, model: Any, body: Any) -> set[str]:
        """Return the rooms of ours in which code ran for one request."""
        roots = {Path(str(importlib.import_module(name).__file__)).parent: name for name in OURS}
        entered = set()

        def watch(frame: Any, event: str, argument: Any) -> None:
            file = Path(frame.f_code.co_filename)
            for root, name in roots.items():
                if event == "call" and file.is_relative_to(root):
                    part = file.relative_to(root).parts[0]
                    entered.add(
                        "flavor"
                        if name == "modelpack_flavors"
                        else "modelpack/core"
                        if name == "modelpack" and part in self.CORE
                        else f"{name}/{part}"
                    )

        serve(model).score(body)  # imports what is imported once
        client = serve(model)  # its threads start, and take the profiler, with the first request
        threading.setprofile(watch)
        sys.setprofile(watch)
        try:
            assert client.score(body).status_code == 200
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        # What is counted of a request, and who says that it is wanted, are no steps on its way: no data passes there.
        return entered - {"modelpack_server/metrics", "modelpack/wanted.py"}

    @pytest.fixture(autouse=True)
    def no_code_of_other_packages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep the code of packages that other tests loaded out of the imports here."""
        finders = [finder for finder in sys.meta_path if type(finder).__module__ != "modelpack.sources"]
        monkeypatch.setattr(sys, "meta_path", finders)

    def test_one_invocation(self, serve: Serve, ages: Any) -> None:
        assert self.rooms(serve, ages, FORMS[0]) == {
            "modelpack_server/endpoints",
            "modelpack_server/codecs",
            "modelpack_server/invocation",
            "modelpack/core",
        }

    def test_one_invocation_of_a_package(self, serve: Serve, tmp_path: Path) -> None:
        """Endpoint, codec, invocation, model and flavor; the coercion core is in the middle of it."""
        x = np.arange(20, dtype=np.float64).reshape(10, 2)
        fitted = LinearRegression().fit(x, x.sum(axis=1))
        model = modelpack.load(modelpack.save(fitted, tmp_path / "line", example=x))
        body = {"inputs": [[1.0, 2.0]]}
        assert serve(model).score(body).json()["predictions"] == pytest.approx([3.0])
        assert self.rooms(serve, model, body) == {
            "modelpack_server/endpoints",
            "modelpack_server/codecs",
            "modelpack_server/invocation",
            "modelpack/core",
            "modelpack/model.py",
            "flavor",
        }
