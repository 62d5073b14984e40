"""Answers in parts: rows that are answered as they come, and pieces that the model makes."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import modelpack
from modelpack import Model
from modelpack.errors import ModelError
from modelpack.signature import Column, Json, Signature, Table, Tensor, Tensors
from modelpack_server import runner

LINES, EVENTS = "application/x-ndjson", "text/event-stream"
GET_DOUBLES = {"Content-Type": LINES}


class Conversation:
    """A request whose body is sent piece by piece, and whose answer is read line by line."""

    def __init__(self, address: tuple[str, int], headers: Mapping[str, str], target: str = "/invocations") -> None:
        self.link = http.client.HTTPConnection(*address, timeout=30)
        self.link.putrequest("POST", target)
        for name, value in headers.items():
            self.link.putheader(name, value)
        self.link.putheader("Transfer-Encoding", "chunked")
        self.link.endheaders()
        self._reply: Any = None

    def say(self, data: str) -> None:
        self.link.send(b"%x\r\n%s\r\n" % (len(data.encode()), data.encode()))

    def end(self) -> None:
        self.link.send(b"0\r\n\r\n")

    @property
    def reply(self) -> http.client.HTTPResponse:
        if self._reply is None:
            self._reply = self.link.getresponse()
        return self._reply  # type: ignore[no-any-return]

    def line(self) -> Any:
        return json.loads(self.reply.readline())

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


OPTIONAL = Signature(
    inputs=Table(columns=(Column(name="x", type="int64"), Column(name="y", type="int64", optional=True))),
    outputs=Table(columns=(Column(name="seen", type="utf8"),)),
)


class TestRowsThatLackAnOptionalColumn:
    """Which rows come together decides neither whether one is taken nor what the model sees of it."""

    ROWS = ({"x": 1}, {"x": 2, "y": 5}, {"x": 3}, {"x": 4, "y": 6})
    SEEN = ("['x']", "['x', 'y']", "['x']", "['x', 'y']")

    @pytest.fixture
    def seeing(self, model: Any) -> Any:
        return model(OPTIONAL, lambda rows, params: [{"seen": str(list(row))} for row in rows])

    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_are_answered_as_if_they_were_alone(self, run: Any, seeing: Any, size: int) -> None:
        with Conversation(run(seeing).address, GET_DOUBLES) as talk:
            for start in range(0, 4, size):
                talk.say(lines(*self.ROWS[start : start + size]))
                assert [talk.line()["seen"] for _ in range(size)] == [*self.SEEN[start : start + size]]
            talk.end()
            assert talk.reply.read() == b""

    def test_are_answered_in_every_format(self, seeing: Any, serve: Any) -> None:
        reply = serve(seeing).send(lines(*self.ROWS).encode(), LINES, headers={"Accept": "application/json"})
        assert [row["seen"] for row in reply.json()["predictions"]] == [*self.SEEN]

    def test_are_all_told_what_is_wrong_with_them(self, seeing: Any, serve: Any) -> None:
        body = lines({"x": 1}, {"x": 2, "y": None}, {"x": "a"}, {"y": 1}).encode()
        reply = serve(seeing).send(body, LINES, headers={"Accept": "application/json"})
        assert reply.status_code == 400
        assert [(fault["code"], fault["path"]) for fault in reply.json()["faults"]] == [
            ("null-not-allowed", "[1].y"),
            ("type-mismatch", "[2].x"),
            ("column-missing", "[3].x"),
        ]
        assert seeing.calls == 0

    def test_share_no_answer_that_is_one_for_all(self, model: Any, serve: Any) -> None:
        free = Signature(inputs=OPTIONAL.inputs, outputs=Json())
        client = serve(model(free, lambda rows, params: {"rows": len(rows)}))
        accept = {"Accept": "application/json"}
        assert client.send(lines(*self.ROWS[:1]).encode(), LINES, headers=accept).json() == {"predictions": {"rows": 1}}
        reply = client.send(lines(*self.ROWS).encode(), LINES, headers=accept)
        assert (reply.status_code, reply.json()["code"]) == (500, "output-rows")

    def test_may_have_any_json_as_answers(self, model: Any, serve: Any) -> None:
        free = Signature(inputs=OPTIONAL.inputs, outputs=Json())
        client = serve(model(free, lambda rows, params: [[row["x"], len(row)] for row in rows]))
        reply = client.send(lines(*self.ROWS).encode(), LINES, headers={"Accept": "application/json"})
        assert reply.json() == {"predictions": [[1, 1], [2, 2], [3, 1], [4, 2]]}


class TestRowsOfOtherSizes:
    """Where a shape leaves sizes free, each line has its own."""

    TOKENS = ([1, 2, 3], [4], [], [5, 6, 7])

    @pytest.fixture
    def adding(self, model: Any) -> Any:
        tokens = Tensor(name="tokens", dtype="int64", shape=("batch", "length"))
        outputs = Tensors(tensors=(Tensor(name="sum", dtype="int64", shape=("batch",)),))
        signature = Signature(inputs=Tensors(tensors=(tokens,)), outputs=outputs)
        return model(signature, lambda tensors, params: tensors["tokens"].sum(axis=1), form="columns")

    @pytest.mark.parametrize("named", [True, False])
    @pytest.mark.parametrize("size", [1, 4])
    def test_are_answered_as_if_they_were_alone(self, run: Any, adding: Any, size: int, named: bool) -> None:
        rows = [{"tokens": row} if named else row for row in self.TOKENS]
        with Conversation(run(adding).address, GET_DOUBLES) as talk:
            for start in range(0, 4, size):
                talk.say(lines(*rows[start : start + size]))
                sums = [sum(row) for row in self.TOKENS[start : start + size]]
                assert [talk.line()["prediction"] for _ in range(size)] == sums
            talk.end()
            assert talk.reply.read() == b""

    def test_are_one_request_as_instances_which_must_be_alike(self, serve: Any, adding: Any) -> None:
        reply = serve(adding).send(json.dumps({"instances": self.TOKENS}).encode(), "application/json")
        assert (reply.status_code, reply.json()["code"]) == (400, "ragged")


class TestRows:
    def test_each_is_answered_before_the_next_is_sent(self, run: Any, ages: Any) -> None:
        with Conversation(run(ages).address, GET_DOUBLES) as talk:
            for age in (1, 2.5, None):
                talk.say(lines({"age": age}))
                assert talk.line() == {"double": None if age is None else 2 * age}
            talk.end()
            assert talk.reply.read() == b""
        assert talk.reply.status == 200 and talk.reply.headers["Content-Type"] == LINES

    def test_lines_may_come_in_pieces_and_several_at_once(self, run: Any, ages: Any) -> None:
        text = "\ufeff" + lines(*({"age": float(age)} for age in range(100)), {"age": 100.0}).replace("\n", "\r\n\n", 3)
        with Conversation(run(ages, batch_rows=7).address, GET_DOUBLES) as talk:
            for start in range(0, len(text), 33):
                talk.say(text[start : start + 33])
            talk.say('{"age": 7}')  # the last line needs no end
            talk.end()
            answers = talk.reply.read().splitlines()
        assert [json.loads(line)["double"] for line in answers] == [*range(0, 202, 2), 14]

    def test_params_are_in_the_query(self, run: Any, ages: Any) -> None:
        with Conversation(run(ages).address, GET_DOUBLES, '/invocations?params={"factor":10}') as talk:
            talk.say(lines({"age": 1}))
            assert talk.line() == {"double": 20}

    def test_no_rows_have_no_answers(self, run: Any, ages: Any) -> None:
        with Conversation(run(ages).address, GET_DOUBLES) as talk:
            talk.end()
            assert (talk.reply.status, talk.reply.read()) == (200, b"")

    def test_a_fault_in_the_first_rows_is_a_problem(self, run: Any, ages: Any) -> None:
        with Conversation(run(ages).address, GET_DOUBLES) as talk:
            talk.say(lines({"age": 1}, {"age": "x"}))
            talk.end()
            problem = json.loads(talk.reply.read())
        assert talk.reply.status == 400
        assert (problem["code"], problem["path"], problem["row"]) == ("type-mismatch", "[1].age", 1)

    @pytest.mark.parametrize(
        ("line", "code"), [('{"age": "x"}', "type-mismatch"), ("{", "json-invalid"), ("[1]", "json-not-object")]
    )
    def test_a_later_fault_is_the_last_line(self, run: Any, ages: Any, line: str, code: str) -> None:
        with Conversation(run(ages).address, GET_DOUBLES) as talk:
            talk.say(lines({"age": 1}, {"age": 2}))
            assert (talk.line(), talk.line()) == ({"double": 2}, {"double": 4})
            talk.say(lines({"age": 3}) + line + "\n")
            problem = talk.line()["error"]
            assert talk.reply.read() == b""
        assert (problem["code"], problem["row"]) == (code, 3)
        assert problem["path"].startswith("[3]")

    def test_a_line_without_end_is_refused(self, run: Any, ages: Any) -> None:
        with Conversation(run(ages, max_body=1000).address, GET_DOUBLES) as talk:
            for _ in range(100):
                talk.say(lines({"age": 1}))  # more than 1000 bytes in all
                assert talk.line() == {"double": 2}
            for _ in range(11):
                talk.say(" " * 100)
            assert talk.line()["error"]["code"] == "body-too-large"

    def test_who_begun_waits_for_a_place(self, run: Any, ages: Any, model: Any) -> None:
        go = threading.Event()

        def wait(rows: Any, params: Any) -> Any:
            if rows[0]["age"] == 0:
                assert go.wait(30)
            return [{"double": 2 * row["age"]} for row in rows]

        server = run(model(ages.signature, wait), threads=1, queue=1, batching="off")
        first = [Conversation(server.address, GET_DOUBLES) for _ in range(2)]
        with first[0], first[1]:
            first[0].say(lines({"age": 1}))
            assert first[0].line() == {"double": 2}
            for talk in first[1:]:
                talk.say(lines({"age": 0}))
            while not server.app.state.invocations.running:
                time.sleep(0.005)
            with Conversation(server.address, GET_DOUBLES) as second:
                second.say(lines({"age": 5}))
                while server.app.state.invocations.running < 2:
                    time.sleep(0.005)
                with Conversation(server.address, GET_DOUBLES) as third:
                    third.say(lines({"age": 6}))
                    assert third.reply.status == 429
                first[0].say(lines({"age": 7}))
                go.set()
                assert first[0].line() == {"double": 14} and second.line() == {"double": 10}

    def test_a_stop_ends_it_after_the_row_that_is_there(self, run: Any, ages: Any) -> None:
        server = run(ages)
        with Conversation(server.address, GET_DOUBLES) as talk:
            talk.say(lines({"age": 1}))
            assert talk.line() == {"double": 2}
            server.app.state.server.draining = True
            assert talk.line()["error"]["code"] == "server-stopping"
            assert talk.reply.read() == b""

    def test_a_worker_that_leaves_ends_it_after_a_while(
        self, run: Any, ages: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "LEAVE_SECONDS", 0.1)
        server = run(ages, grace=5.0)
        with Conversation(server.address, GET_DOUBLES) as talk:
            talk.say(lines({"age": 1}))
            assert talk.line() == {"double": 2}
            server.server._leave(0, None)
            assert talk.line()["error"]["code"] == "server-stopping"
            assert talk.reply.read() == b""

    def test_who_leaves_is_forgotten(self, run: Any, ages: Any) -> None:
        server = run(ages)
        with Conversation(server.address, GET_DOUBLES) as talk:
            talk.say(lines({"age": 1}))
            assert talk.line() == {"double": 2}
        while server.server.server_state.tasks or server.app.state.invocations.running:
            time.sleep(0.005)

    def test_a_client_that_does_not_read_is_waited_for(self, run: Any, model: Any) -> None:
        wide = Signature(
            inputs=Table(columns=(Column(name="x", type="utf8"),)),
            outputs=Table(columns=(Column(name="y", type="utf8"),)),
        )
        scorer = model(wide, lambda rows, params: [{"y": row["x"]} for row in rows])
        server = run(scorer)
        line = lines({"x": "x" * 50_000})
        with Conversation(server.address, GET_DOUBLES) as talk:
            talk.link.sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                for _ in range(10_000):
                    talk.say(line)
            # What neither end has read is bounded: the kernel's buffers and one or two pages.
            assert scorer.calls < 5000


class TestFormats:
    def test_lines_are_a_format_as_the_others(self, serve: Any, ages: Any) -> None:
        client = serve(ages)
        body = lines({"age": 1}, {"age": None}).encode()
        as_json = client.send(body, LINES, headers={"Accept": "application/json"})
        assert as_json.json() == {"predictions": [{"double": 2.0}, {"double": None}]}
        as_lines = client.score({"inputs": {"age": [1, None]}}, headers={"Accept": LINES})
        assert as_lines.text == '{"double":2.0}\n{"double":null}\n'
        packed = client.send(gzip.compress(body), LINES, headers={"Content-Encoding": "gzip", "Accept": LINES})
        assert packed.text == as_lines.text

    def test_tensors_take_what_one_row_of_instances_is(self, serve: Any, model: Any) -> None:
        matrix = Tensors(tensors=(Tensor(name="x", dtype="float64", shape=("n", 2)),))
        total = Tensors(tensors=(Tensor(name="y", dtype="float64", shape=("n",)),))
        client = serve(model(Signature(inputs=matrix, outputs=total), lambda x, p: x.sum(axis=1), form="numpy"))
        assert client.send(b"[1, 2]\n[3, 4]\n", LINES).text == '{"prediction":3.0}\n{"prediction":7.0}\n'
        assert client.send(b"[1, 2]\n[3]\n", LINES).json()["code"] == "ragged"

    def test_what_has_no_rows_is_not_acceptable(self, serve: Any, model: Any) -> None:
        one = Signature(inputs=Table(columns=(Column(name="x", type="float64"),)), outputs=Json())
        client = serve(model(one, lambda rows, params: {"free": 1}))
        assert client.score({"inputs": {"x": [1.0]}}, headers={"Accept": LINES}).status_code == 406
        assert client.send(b'{"x": 1}', LINES).json() == {"predictions": {"free": 1}}


class Speaker:
    """A model that says a text word by word."""

    signature = Signature(inputs=Table(columns=(Column(name="text", type="utf8"),)), outputs=Json())
    streams = True

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.closed = threading.Event()
        self.made = 0

    def score(self, frame: Any, params: Any) -> Any:
        raise AssertionError

    def score_stream(self, frame: Any, params: Any) -> Iterator[Any]:
        try:
            for word in frame.columns["text"].data[0].split():
                assert self.go.acquire(timeout=30)
                if word == "fail":
                    raise ModelError("the model raised KeyError", code="model-raised")
                self.made += 1
                yield {"number": 1.5, "object": {"a": object()}, "far": float("inf")}.get(word, {"word": word})
        finally:
            self.closed.set()


@pytest.fixture
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture
def endless(tmp_path: Path) -> tuple[Model, Path]:
    """A generator that says a word for ever, and a file that is there once it is closed."""
    closed = tmp_path / "closed"

    def on(rows: Any) -> Iterator[str]:
        try:
            yield rows[0]["text"]
            closed.with_name("begun").touch()
            while rows[0]["text"] != "stop":
                time.sleep(0.001)
                yield "on"
        finally:
            if rows[0]["text"] != "stop":
                closed.touch()

    signature = Signature(inputs=Speaker.signature.inputs, outputs=Json())
    package = modelpack.save(on, tmp_path / "on", signature=signature, options={"form": "records"})
    return modelpack.load(package.path), closed


def ask(server: Any, text: Any, accept: str, **headers: str) -> Conversation:
    talk = Conversation(server.address, {"Content-Type": "application/json", "Accept": accept, **headers})
    talk.say(json.dumps({"inputs": {"text": [text]}}))
    talk.end()
    return talk


class TestPieces:
    def test_events_come_as_they_are_made(self, run: Any, speaker: Speaker) -> None:
        with ask(run(speaker), "so it number", EVENTS) as talk:
            for piece in (b'{"word":"so"}', b'{"word":"it"}', b"1.5"):
                speaker.go.release()
                assert (talk.reply.readline(), talk.reply.readline()) == (b"data: %s\n" % piece, b"\n")
            assert talk.reply.read() == b"event: end\ndata: {}\n\n"
        assert talk.reply.headers["Content-Type"] == EVENTS

    def test_lines_come_as_they_are_made(self, run: Any, speaker: Speaker) -> None:
        with ask(run(speaker), "so number", LINES) as talk:
            speaker.go.release(2)
            assert (talk.line(), talk.line(), talk.reply.read()) == ({"word": "so"}, 1.5, b"")

    def test_two_take_turns(self, run: Any, speaker: Speaker) -> None:
        server = run(speaker, threads=1)
        speaker.go.release(20)
        with ask(server, "a b c", LINES) as one, ask(server, "d e f", LINES) as other:
            assert [talk.line()["word"] for _ in range(3) for talk in (one, other)] == list("adbecf")

    def test_no_more_wait_for_their_turn_than_may(self, run: Any, speaker: Speaker) -> None:
        server = run(speaker, threads=1, queue=1)

        def at_work(count: int) -> None:
            while server.app.state.invocations.running < count:
                time.sleep(0.005)

        with ask(server, "a", LINES) as one:
            at_work(1)
            with ask(server, "b", LINES) as other:
                at_work(2)
                with ask(server, "c", LINES) as third:
                    assert (third.reply.status, json.loads(third.reply.read())["code"]) == (429, "overloaded")
                speaker.go.release(2)
                assert (one.line(), other.line()) == ({"word": "a"}, {"word": "b"})

    def test_a_piece_that_json_cannot_say_is_an_error_of_the_model(self, run: Any, speaker: Speaker) -> None:
        speaker.go.release(9)
        with ask(run(speaker), "far object so", LINES) as talk:
            assert talk.line() == "Infinity"
            assert talk.line()["error"]["code"] == "output-not-json"
            assert talk.reply.read() == b""

    @pytest.mark.parametrize("accept", [EVENTS, LINES])
    def test_a_model_that_fails_on_the_way_says_so_at_the_end(self, run: Any, speaker: Speaker, accept: str) -> None:
        speaker.go.release(9)
        with ask(run(speaker), "so fail", accept) as talk:
            answer = talk.reply.read().decode()
        assert talk.reply.status == 200 and '"code":"model-raised"' in answer
        last = answer.split("\n\n" if accept == EVENTS else "\n")[1]
        assert last.startswith("event: error\ndata: {" if accept == EVENTS else '{"error":{')

    def test_a_fault_before_the_first_piece_is_a_problem(self, run: Any, speaker: Speaker) -> None:
        speaker.go.release(9)
        server = run(speaker)
        with ask(server, 5, EVENTS) as talk:
            assert (talk.reply.status, json.loads(talk.reply.read())["path"]) == (400, "inputs.text[0]")
        with ask(server, "fail", EVENTS) as talk:
            assert (talk.reply.status, json.loads(talk.reply.read())["code"]) == (500, "model-raised")

    def test_who_leaves_ends_the_work(self, run: Any, speaker: Speaker) -> None:
        server = run(speaker)
        with ask(server, "word " * 5000, EVENTS) as talk:
            speaker.go.release()
            assert talk.reply.readline() == b'data: {"word":"word"}\n'
        while server.server.server_state.connections:
            time.sleep(0.005)
        # The model is in the middle of a piece, and may make one or two more until it is told.
        speaker.go.release(5000)
        assert speaker.closed.wait(30)
        assert speaker.made < 2500
        while server.server.server_state.tasks or server.app.state.invocations.running:
            time.sleep(0.005)

    def test_the_time_is_that_until_the_first_piece(self, run: Any, speaker: Speaker) -> None:
        with ask(run(speaker), "a b", EVENTS, **{"X-Request-Timeout": "0.05"}) as talk:
            assert (talk.reply.status, json.loads(talk.reply.read())["code"]) == (504, "deadline-exceeded")
            speaker.go.release()
        assert speaker.closed.wait(30)

    @pytest.mark.parametrize("ending", ["deadline", "client"])
    def test_one_that_never_ends_is_closed_when_nobody_waits_for_all_of_it(
        self, run: Any, endless: Any, ending: str
    ) -> None:
        model, closed = endless
        server = run(model, threads=1)
        headers = {"X-Request-Timeout": "0.3"} if ending == "deadline" else {}
        with ask(server, "on", "application/json", **headers) as talk:
            while not closed.with_name("begun").exists():
                time.sleep(0.005)
            if ending == "deadline":
                assert (talk.reply.status, json.loads(talk.reply.read())["code"]) == (504, "deadline-exceeded")
        while not closed.exists():
            time.sleep(0.005)
        with ask(server, "stop", "application/json") as talk:
            assert json.loads(talk.reply.read()) == {"predictions": ["stop"]}

    def test_a_stop_ends_it_after_a_piece(self, run: Any, speaker: Speaker) -> None:
        server = run(speaker)
        with ask(server, "a b c", LINES) as talk:
            speaker.go.release()
            assert talk.line() == {"word": "a"}
            server.app.state.server.draining = True
            speaker.go.release()
            assert talk.line() == {"word": "b"}
            assert talk.line()["error"]["code"] == "server-stopping"

    def test_only_models_that_stream_do(self, serve: Any, ages: Any, speaker: Speaker) -> None:
        body = {"inputs": {"age": [1]}}
        assert serve(ages).score(body, headers={"Accept": EVENTS}).status_code == 406
        contents = serve(speaker).get("/openapi.json").json()["paths"]["/invocations"]["post"]["responses"]["200"]
        assert {EVENTS, LINES} <= set(contents["content"])

    def test_a_model_has_what_is_asked_of_it(self) -> None:
        assert all(hasattr(Model, name) for name in ("streams", "score_stream", "score"))
