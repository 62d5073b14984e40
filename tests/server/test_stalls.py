"""Requests that stand still while they come are given up; whoever waits for something is not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

STALL = 0.5
HEAD = b"POST /invocations HTTP/1.1\r\nHost: model\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"dataframe_split":{"columns":["age"],"data":[[1]]}}'
WHOLE = HEAD + JSON + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
LARGE = b"Content-Type: application/vnd.apache.arrow.stream\r\nContent-Length: 4000000\r\n\r\n"


def to_the_end(link: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    said = b""
    while piece := link.recv(65536):
        said += piece
    return said


@pytest.fixture
def link(run: Callable[..., Any], ages: Any) -> Any:
    """Return a function that connects to a server which waits half a second."""
    return run(ages, stall=STALL).connect


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /invoc",
        HEAD,
        HEAD + JSON + b"Content-Length: 50\r\n\r\n",
        HEAD + JSON + b"Content-Length: 50\r\n\r\n{",
        HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        HEAD + b"Content-Type: text/csv\r\nContent-Length: 200000\r\n\r\nage\n1\n",
        HEAD + LARGE,
        HEAD + LARGE + bytes(2_000_000),
    ],
    ids=["line", "head", "no body", "small body", "chunk", "csv", "large body", "half of a large body"],
)
def test_half_a_request_is_answered_with_408_and_the_connection_is_closed(link: Any, begun: bytes) -> None:
    with link() as client:
        client.sendall(begun)
        said = to_the_end(client)
    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b'"code":"request-stalled"' in said


@pytest.mark.parametrize(
    "begun",
    [HEAD, HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"],
    ids=["before the body", "behind the body"],
)
def test_a_head_that_comes_byte_by_byte_is_given_up_too(link: Any, begun: bytes) -> None:
    with link() as client:
        client.sendall(begun + b"X-Long: ")
        client.settimeout(0.1)
        began = time.monotonic()
        said = b""
        while not said and time.monotonic() - began < 20:
            try:
                client.sendall(b"a")
                said = client.recv(65536)
            except TimeoutError:
                continue
    assert said.startswith(b"HTTP/1.1 408 ")


def test_a_connection_on_which_nothing_was_ever_sent_is_closed_without_a_word(link: Any) -> None:
    with link() as client:
        assert to_the_end(client) == b""


def test_half_a_request_after_a_whole_one_is_given_up(link: Any) -> None:
    with link() as client:
        client.sendall(WHOLE)
        first = client.recv(65536)
        client.sendall(HEAD)
        rest = to_the_end(client)
    assert first.startswith(b"HTTP/1.1 200 ")
    assert rest.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_goes_on_coming_is_read_however_long_it_takes(link: Any) -> None:
    with link() as client:
        client.sendall(WHOLE[: -len(BODY)])
        for place in range(0, len(BODY), 8):
            client.sendall(BODY[place : place + 8])
            time.sleep(STALL / 2)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_who_waits_for_a_slow_model_is_not_given_up(run: Callable[..., Any], ages: Any) -> None:
    plain = ages.function

    def slow(rows: Any, params: Any) -> Any:
        time.sleep(4 * STALL)
        return plain(rows, params)

    ages.function = slow
    with run(ages, stall=STALL).connect() as client:
        # The head of the next request has begun: it waits for its turn.
        client.sendall(WHOLE)
        time.sleep(0.1)
        client.sendall(HEAD)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(WHOLE.removeprefix(HEAD))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_rows_that_are_answered_as_they_come_may_pause(link: Any) -> None:
    with link() as client:
        client.sendall(HEAD + b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b'b\r\n{"age": 1}\n\r\n')
        said = b""
        while b"2.0" not in said:
            said += client.recv(65536)
        time.sleep(4 * STALL)
        client.sendall(b'b\r\n{"age": 2}\n\r\n0\r\n\r\n')
        while b"4.0" not in said:
            said += client.recv(65536)
        assert said.startswith(b"HTTP/1.1 200 ")


def test_zero_waits_for_ever(run: Callable[..., Any], ages: Any) -> None:
    with run(ages, stall=0).connect() as client:
        client.sendall(WHOLE[:-1])
        time.sleep(4 * STALL)
        client.sendall(WHOLE[-1:])
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
