"""What comes around and behind the chunks of a body is none of the request, and is read no further than a head."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest

HEAD = b"POST /invocations HTTP/1.1\r\nHost: model\r\nTransfer-Encoding: chunked\r\nContent-Type: "
BODY = b'{"dataframe_records":[{"age":1}]}'
JSON = HEAD + b"application/json\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
ROWS = HEAD + b"application/x-ndjson\r\n\r\n" + b'b\r\n{"age": 1}\n\r\n'


@pytest.fixture
def link(run: Callable[..., Any], ages: Any) -> Any:
    """Return a function that connects to a server."""
    return run(ages).connect


def until(link: socket.socket, end: bytes) -> bytes:
    """Return what comes up to an end."""
    said = b""
    while not said.endswith(end):
        piece = link.recv(65536)
        assert piece, said
        said += piece
    return said


def without_end(link: socket.socket, piece: bytes) -> bytes:
    """Send the piece again and again until something comes back; return that, up to the end of the connection."""
    said = b""
    with contextlib.suppress(ConnectionError):
        for _ in range(500):
            if select.select([link], [], [], 0.005)[0]:
                break
            link.sendall(piece)
        else:
            pytest.fail("the server reads on")
        while data := link.recv(65536):
            said += data
    return said


@pytest.mark.parametrize("name", [b"X-Request-Id", b"x-request-timeout", b"Content-Type"])
def test_headers_behind_a_body_say_nothing(link: Any, name: bytes) -> None:
    with link() as client:
        for trailer in (name + b": behind\r\n", b""):
            client.sendall(JSON + CHUNK + b"0\r\n" + trailer + b"\r\n")
            said = until(client, b'"double":2.0}]}')
            assert said.startswith(b"HTTP/1.1 200 ")
            assert b"behind" not in said


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        (CHUNK + b"0\r\nX-Endless: ", b"x" * 4096),
        (CHUNK + b"0\r\n", b"X-Another: x\r\n" * 300),
        (CHUNK + b"5;", b"x" * 4096),
    ],
    ids=["one header", "many headers", "an extension of a chunk"],
)
def test_what_does_not_end_is_refused(link: Any, begun: bytes, piece: bytes) -> None:
    with link() as client:
        client.sendall(JSON + begun)
        said = without_end(client, piece)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"header-too-large"' in said
    assert b"around the chunks" in said


def test_an_answer_that_has_begun_breaks_off(link: Any) -> None:
    with link() as client:
        client.sendall(ROWS)
        assert until(client, b'{"double":2.0}\n\r\n').startswith(b"HTTP/1.1 200 ")
        client.sendall(b"0\r\n")
        assert b"431" not in without_end(client, b"X-Another: x\r\n" * 300)


def test_many_chunks_are_no_trailers(link: Any) -> None:
    with link() as client:
        client.sendall(JSON)
        for _ in range(4):
            client.sendall(b"1\r\n \r\n" * 20_000)
        client.sendall(CHUNK + b"0\r\n\r\n")
        assert until(client, b'"double":2.0}]}').startswith(b"HTTP/1.1 200 ")
