"""The short way of small JSON requests, against the ordinary way: the same answers, to the byte."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from modelpack.signature import Signature, Tensor, Tensors
from modelpack_server import exchange
from modelpack_server.endpoints import invoke

GOOD = {"dataframe_split": {"columns": ["age"], "data": [[1.5], [None]]}}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of the requests that went the short way."""
    ids = []
    plain = exchange.Exchange.__init__

    def noted(self: Any, protocol: Any, terms: Any, request_id: str) -> None:
        ids.append(request_id)
        plain(self, protocol, terms, request_id)

    monkeypatch.setattr(exchange.Exchange, "__init__", noted)
    return ids


@pytest.fixture
def running(run: Any, ages: Any) -> Any:
    return run(ages, threads=1, grace=1)


def request(body: bytes, *, target: str = "/invocations", version: str = "1.1", **headers: str) -> bytes:
    lines = {"Host": "model", "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST {target} HTTP/{version}\r\n{head}\r\n".encode() + body


def answer(link: socket.socket) -> tuple[bytes, bytes]:
    """Read one answer: the head without the date, and the body."""
    with link.makefile("rb") as file:
        head = b""
        while not head.endswith(b"\r\n\r\n") or head.startswith(b"HTTP/1.1 100"):
            head = b"" if head.endswith(b"\r\n\r\n") else head
            line = file.readline()
            assert line, "the connection ended"
            head += line
        found = re.search(rb"content-length: (\d+)", head)
        assert found, head
        return re.sub(rb"date: .*?\r\n", b"", head), file.read(int(found[1]))


def ask(running: Any, data: bytes) -> tuple[bytes, bytes]:
    with running.connect() as link:
        link.sendall(data)
        return answer(link)


BODIES: Mapping[str, Any] = {
    "a good one": GOOD,
    "with params": {**GOOD, "params": {"factor": 3.0}},
    "records": {"dataframe_records": [{"age": 1.5}]},
    "an unknown param": {**GOOD, "params": {"other": 3.0}},
    "a wrong type": {"dataframe_split": {"columns": ["age"], "data": [["x"]]}},
    "a missing column": {"dataframe_split": {"columns": ["size"], "data": [[1.0]]}},
    "no form": {"rows": []},
    "no JSON": b'{"dataframe_split": ',
    "no text": b"\xff\xfe",
    "no rows": {"dataframe_split": {"columns": ["age"], "data": []}},
    "numbers for the careful": b'{"dataframe_split": {"columns": ["age"], "data": [[12345678901234567890123]]}}',
}


@pytest.mark.parametrize("name", BODIES)
def test_both_ways_give_the_same_bytes(running: Any, taken: list[str], name: str) -> None:
    given = BODIES[name]
    body = given if isinstance(given, bytes) else json.dumps(given).encode()

    short = ask(running, request(body, X_Request_Id="one"))
    ordinary = ask(running, request(body, X_Request_Id="one", target="/invocations?"))

    assert short == ordinary
    assert taken == ["one"]


HEADERS: Mapping[str, Mapping[str, str]] = {
    "another reply": {"Accept": "text/csv"},
    "a charset": {"Content-Type": "application/json; charset=utf-8"},
    "a time": {"X-Request-Timeout": "10"},
    "an id that is none": {"X-Request-Id": "{}", "Accept": "application/json"},
}
OTHERS: Mapping[str, Mapping[str, str]] = {
    "no such reply": {"Accept": "image/png"},
    "no time": {"X-Request-Timeout": "soon"},
    "a time that is over": {"X-Request-Timeout": "-1"},
    "an unknown format": {"Content-Type": "application/pdf"},
    "compressed": {"Content-Encoding": "gzip"},
    "the last one": {"Connection": "close"},
    "asking first": {"Expect": "100-continue"},
    "older": {"version": "1.0"},
    "another path": {"target": "/invocations/"},
}


@pytest.mark.parametrize("name", [*HEADERS, *OTHERS])
def test_whatever_the_head_says_both_ways_agree(running: Any, taken: list[str], name: str) -> None:
    said = {key.replace("-", "_"): value for key, value in (HEADERS | OTHERS)[name].items()}
    body = json.dumps(GOOD).encode()

    short = ask(running, request(body, **said))
    took = len(taken)
    ordinary = ask(running, request(body, **{**said, "target": said.get("target", "/invocations") + "?"}))

    if "X_Request_Id" in said:
        found = re.search(rb"x-request-id: (\w{16})\r\n", short[0])
        assert found and found[1].decode() == taken[0]
    unnamed = [(re.sub(rb"x-request-id: \w+", b"", head), body) for head, body in (short, ordinary)]
    assert unnamed[0] == unnamed[1]
    assert (took, len(taken)) == (int(name in HEADERS), int(name in HEADERS))


def test_a_body_may_come_in_pieces(running: Any, taken: list[str]) -> None:
    whole = request(json.dumps(GOOD).encode())
    with running.connect() as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(0, len(whole), 7):
            link.sendall(whole[place : place + 7])
        head, body = answer(link)

    assert head.startswith(b"HTTP/1.1 200") and json.loads(body) == {"predictions": [{"double": 3.0}, {"double": None}]}
    assert len(taken) == 1


def test_answers_come_in_the_order_of_the_requests(running: Any, taken: list[str]) -> None:
    def one(age: float, name: str, target: str = "/invocations") -> bytes:
        body = json.dumps({"dataframe_split": {"columns": ["age"], "data": [[age]]}}).encode()
        return request(body, X_Request_Id=name, target=target)

    bad = request(b"{", X_Request_Id="c")
    ping = b"GET /ping HTTP/1.1\r\nHost: model\r\nX-Request-Id: d\r\n\r\n"
    with running.connect() as link:
        # All at once, then again on the same connection.
        for _ in range(2):
            link.sendall(one(1, "a") + one(2, "b") + bad + ping + one(3, "e", "/invocations?") + one(4, "f"))
            answers = read(link, 6)
            names = [found.decode() for found in re.findall(rb"x-request-id: (\w)", b"".join(h for h, _ in answers))]
            assert names == list("abcdef")
            doubles = [json.loads(answers[place][1])["predictions"][0]["double"] for place in (0, 1, 4, 5)]
            assert doubles == [2, 4, 6, 8]
            assert answers[2][0].startswith(b"HTTP/1.1 400")
    assert taken.count("a") == 2


def read(link: socket.socket, count: int) -> list[tuple[bytes, bytes]]:
    """Read several answers that may have come together."""
    found, rest = [], b""
    while len(found) < count:
        piece = link.recv(65536)
        assert piece, "the connection ended"
        rest += piece
        while match := re.match(rb"(.*?content-length: (\d+).*?\r\n\r\n)", rest, re.DOTALL):
            end = match.end() + int(match[2])
            if len(rest) < end:
                break
            found.append((match[1], rest[match.end() : end]))
            rest = rest[end:]
    return found


class Slow:
    """A model that waits until it may go on."""

    def __init__(self, model: Any, ages: Any) -> None:
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.seen: list[float] = []

        def wait(rows: Any, params: Any) -> Any:
            self.seen += [row["age"] for row in rows]
            self.started.release()
            assert self.go.acquire(timeout=30)
            if rows[0]["age"] < 0:
                raise RuntimeError("a secret")
            return [{"double": 2 * row["age"]} for row in rows]

        self.model = model(ages.signature, wait)


@pytest.fixture
def slow(model: Any, ages: Any) -> Slow:
    return Slow(model, ages)


def of(age: float, **headers: str) -> bytes:
    return request(json.dumps({"dataframe_split": {"columns": ["age"], "data": [[age]]}}).encode(), **headers)


def test_who_leaves_while_waiting_is_not_scored(run: Any, slow: Slow, taken: list[str]) -> None:
    server = run(slow.model, threads=1, batching="off")
    try:
        with server.connect() as first, server.connect() as third:
            first.sendall(of(1))
            assert slow.started.acquire(timeout=30)
            with server.connect() as second:
                second.sendall(of(2))
                while len(taken) < 2:
                    time.sleep(0.005)
            third.sendall(of(3))
            while len(taken) < 3 or len(server.server.server_state.connections) > 2:
                time.sleep(0.005)
            slow.go.release(3)
            assert b"2.0" in answer(first)[1] and b"6.0" in answer(third)[1]
        assert slow.seen == [1, 3]
    finally:
        slow.go.release(10)


def to_the_end(link: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    with link.makefile("rb") as file:
        return file.read()


@pytest.mark.parametrize("target", ["/invocations", "/invocations?"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_who_sends_no_more_gets_its_answer(running: Any, taken: list[str], target: str, version: str) -> None:
    """As by ``nc -N``: the short way, the ordinary one, and HTTP/1.0."""
    with running.connect() as link:
        link.sendall(request(json.dumps(GOOD).encode(), target=target, version=version))
        link.shutdown(socket.SHUT_WR)
        reply = to_the_end(link)
    assert reply.count(b"HTTP/1.1 200") == 1
    assert json.loads(reply.partition(b"\r\n\r\n")[2]) == {"predictions": [{"double": 3.0}, {"double": None}]}
    assert len(taken) == (target == "/invocations" and version == "1.1")


def test_who_sends_no_more_on_a_connection_that_is_used_again(running: Any) -> None:
    with running.connect() as link:
        link.sendall(of(1))
        assert b"2.0" in answer(link)[1]
        link.sendall(of(2))
        link.shutdown(socket.SHUT_WR)
        assert b"4.0" in answer(link)[1]
        assert link.recv(1) == b""
    with running.connect() as link:
        link.sendall(of(1))
        answer(link)
        link.shutdown(socket.SHUT_WR)
        assert link.recv(1) == b""


def test_who_sends_no_more_gets_the_answers_to_all_it_has_sent(running: Any) -> None:
    with running.connect() as link:
        link.sendall(of(1) + of(2) + b"GET /version HTTP/1.1\r\nHost: model\r\n\r\n" + of(3))
        link.shutdown(socket.SHUT_WR)
        reply = to_the_end(link)
    assert re.findall(rb"HTTP/1.1 (\d+)|(\d\.0)}", reply) == [
        *((b"200", b""), (b"", b"2.0")),
        *((b"200", b""), (b"", b"4.0")),
        (b"200", b""),
        *((b"200", b""), (b"", b"6.0")),
    ]
    assert reply.count(b"connection: close\r\n") == 1


def test_half_a_request_is_none(running: Any) -> None:
    for part in (b"POST /invocations HT", of(1)[:-3]):
        with running.connect() as link:
            link.sendall(part)
            link.shutdown(socket.SHUT_WR)
            assert to_the_end(link) == b""


@pytest.mark.parametrize("target", ["/invocations", "/invocations?"])
def test_who_sends_no_more_may_wait_for_long(run: Any, slow: Slow, target: str) -> None:
    server = run(slow.model, threads=1, batching="off")
    try:
        with server.connect() as link:
            link.sendall(request(json.dumps({"dataframe_records": [{"age": 4.0}]}).encode(), target=target))
            link.shutdown(socket.SHUT_WR)
            # To see whether anybody is there, the server has something to say before its answer.
            line = b"HTTP/1.1 100 Continue\r\n\r\n"
            assert link.recv(len(line), socket.MSG_WAITALL) == line
            time.sleep(0.3)
            slow.go.release()
            head, body = answer(link)
            assert head.startswith(b"HTTP/1.1 200 ") and b"8.0" in body
            assert link.recv(1) == b""
    finally:
        slow.go.release(10)


def test_a_time_that_runs_out_and_a_model_that_fails_are_told(run: Any, slow: Slow, taken: list[str]) -> None:
    server = run(slow.model, threads=1, batching="off")
    try:
        with server.connect() as first, server.connect() as second:
            first.sendall(of(-1, X_Request_Id="me"))
            assert slow.started.acquire(timeout=30)
            second.sendall(of(2, X_Request_Timeout="0.05"))
            assert b" 504 " in answer(second)[0]
            # The connection lives on.
            second.sendall(of(3))
            slow.go.release(2)
            head, body = answer(first)
            assert b" 500 " in head and json.loads(body)["id"] == "me" and b"secret" not in body
            assert b"6.0" in answer(second)[1]
        assert len(taken) == 3
    finally:
        slow.go.release(10)


def test_a_stop_answers_and_closes(run: Any, slow: Slow, taken: list[str]) -> None:
    server = run(slow.model, threads=1, batching="off")
    try:
        with server.connect() as link:
            link.sendall(of(1))
            assert slow.started.acquire(timeout=30)
            server.app.state.server.draining = True
            slow.go.release()
            head, body = answer(link)
            assert b"connection: close\r\n" in head and b"2.0" in body
            assert link.recv(1) == b""
        assert len(taken) == 1
    finally:
        slow.go.release(10)


def test_work_that_takes_longer_than_the_grace_is_told_so(run: Any, slow: Slow) -> None:
    server = run(slow.model, threads=1, batching="off", grace=1)
    try:
        with server.connect() as working, server.connect() as talking:
            working.sendall(of(1))
            assert slow.started.acquire(timeout=30)
            talking.sendall(of(2)[:-5])
            while len(server.server.server_state.tasks) < 2:
                time.sleep(0.005)
            server.server.should_exit = True
            for link in (working, talking):
                head, body = answer(link)
                assert b" 503 " in head and json.loads(body)["code"] == "server-stopping"
    finally:
        slow.go.release(10)


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
def test_an_offer_to_speak_http_2_is_declined(running: Any, taken: list[str], name: str) -> None:
    """Java's own client makes one with its first request, and is content with HTTP/1.1."""
    offer = {"Connection": f"{name}, HTTP2-Settings", name: "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    with running.connect() as link:
        for _ in range(2):
            link.sendall(request(json.dumps(GOOD).encode(), **offer))
            head, body = answer(link)
            assert head.startswith(b"HTTP/1.1 200") and b"3.0" in body
    assert len(taken) == 2


@pytest.fixture
def sums(model: Any) -> Any:
    """Return a model of a matrix that adds up each row."""
    matrix = Tensors(tensors=(Tensor(name="x", dtype="float64", shape=("n", 4)),))
    total = Tensors(tensors=(Tensor(name="y", dtype="float64", shape=("n",)),))
    return model(Signature(inputs=matrix, outputs=total), lambda x, params: x.sum(axis=1), form="numpy")


@pytest.fixture
def large() -> tuple[bytes, Any]:
    """Return a body of some megabytes, and the answer to it."""
    rows = np.arange(400_000, dtype=np.float64).reshape(-1, 4)
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue(), rows.sum(axis=1)


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}, {"Connection": "close"}])
def test_a_large_body_goes_to_one_place(
    run: Any, sums: Any, large: tuple[bytes, Any], headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = []
    plain = invoke.Request

    def noted(media: str, body: Any, *rest: Any) -> Any:
        kinds.append((type(body), memoryview(body).readonly))
        return plain(media, body, *rest)

    monkeypatch.setattr(invoke, "Request", noted)
    data = request(large[0], Content_Type="application/x-npy", Accept="application/x-npy", **headers)
    server = run(sums)
    for target in (data, data.replace(b"/invocations", b"/invocations?")):
        with server.connect() as link:
            link.sendall(target)
            head, body = answer(link)
        assert head.startswith(b"HTTP/1.1 200")
        np.testing.assert_array_equal(np.load(io.BytesIO(body)), large[1])
    assert kinds == [(memoryview, True)] * 2


def test_a_large_body_may_end_early_and_another_follow(run: Any, sums: Any, large: tuple[bytes, Any]) -> None:
    server = run(sums)
    data = request(large[0], Content_Type="application/x-npy", Accept="application/x-npy")
    with server.connect() as leaving:
        leaving.sendall(data[: len(data) // 2])
        while not server.server.server_state.tasks:
            time.sleep(0.005)
    while server.server.server_state.tasks:
        time.sleep(0.005)
    with server.connect() as link:
        # A second request behind the first, before that is answered.
        sender = threading.Thread(target=link.sendall, args=(data + data,))
        sender.start()
        for head, body in read(link, 2):
            assert head.startswith(b"HTTP/1.1 200")
            np.testing.assert_array_equal(np.load(io.BytesIO(body)), large[1])
        sender.join()
    assert sums.calls == 2


@pytest.mark.parametrize("target", ["/invocations", "/invocations?"])
def test_one_that_sends_and_never_reads_is_stopped(running: Any, target: str) -> None:
    piece = request(json.dumps(GOOD).encode(), target=target) * 1000
    sent = 0
    with running.connect() as link:
        link.settimeout(1)
        with pytest.raises(TimeoutError):
            while sent < 200_000_000:
                link.sendall(piece)
                sent += len(piece)
    # The kernel's buffers on both sides, and little of ours.
    assert sent < 100_000_000
