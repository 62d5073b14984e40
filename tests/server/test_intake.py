"""Large bodies read straight into memory: nothing is lost or mixed up, and what somebody holds is not written over."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelpack.signature import Column, Signature, Table
from modelpack_server import intake
from modelpack_server.endpoints import invoke

ARROW = "application/vnd.apache.arrow.stream"
NUMBER = Table(columns=(Column(name="x", type="float64"),))
COUNT = 200_000


class Same:
    """A model that answers with what it got, and may keep it."""

    signature = Signature(inputs=NUMBER, outputs=NUMBER)

    def __init__(self, *, keeps: bool = False) -> None:
        self.kept: list[Any] = []
        self._keeps = keeps

    def score(self, frame: Any, params: Any) -> Any:
        if self._keeps:
            self.kept.append(frame)
        return frame


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many bytes were left to each intake when it began."""
    sizes = []
    plain = intake.Intake.__init__

    def noted(self: Any, connection: Any, rest: memoryview) -> None:
        sizes.append(len(rest))
        plain(self, connection, rest)

    monkeypatch.setattr(intake.Intake, "__init__", noted)
    return sizes


def body(first: float) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"x": np.arange(first, first + COUNT)})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def request(data: bytes, *, version: str = "1.1", **headers: str) -> bytes:
    said = {"Host": "model", "Content-Type": ARROW, "Accept": ARROW, "Content-Length": str(len(data)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"POST /invocations HTTP/{version}\r\n{head}\r\n".encode() + data


def answers(link: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield the status and the body of each answer until the connection ends."""
    with link.makefile("rb") as file:
        while line := file.readline():
            status, head = int(line.split()[1]), line
            while not head.endswith(b"\r\n\r\n"):
                head += file.readline()
            if status == 100:
                continue
            found = re.search(rb"content-length: (\d+)", head)
            assert found, head
            yield status, file.read(int(found[1]))


def first(reply: tuple[int, bytes]) -> float:
    """Return the first of the numbers in an answer that holds as many as were asked."""
    status, data = reply
    assert status == 200, data
    numbers = pa.ipc.open_stream(data).read_all().column(0).to_numpy()
    assert np.array_equal(numbers, np.arange(numbers[0], numbers[0] + COUNT))
    return float(numbers[0])


def test_one_body_after_another_down_one_connection(run: Any, taken: list[int]) -> None:
    with run(Same(), threads=1, grace=1).connect() as link:
        coming = answers(link)
        for number in (1.0, 2.0, 3.0):
            link.sendall(request(body(number)))
            assert first(next(coming)) == number
        link.sendall(b"GET /ping HTTP/1.1\r\nHost: model\r\n\r\n")
        assert next(coming)[0] == 200
    assert len(taken) == 3


@pytest.mark.parametrize("size", [1, 100, 64 * 1024, invoke.LARGE])
def test_where_the_first_piece_ends_does_not_matter(run: Any, taken: list[int], size: int) -> None:
    data = request(body(7))
    head = data.index(b"\r\n\r\n") + 4
    with run(Same(), threads=1, grace=1).connect() as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(data[: head + size])
        link.sendall(data[head + size : -1])
        link.sendall(data[-1:])
        assert first(next(answers(link))) == 7
    assert len(taken) == 1


def test_what_follows_a_body_is_the_next_request(run: Any, taken: list[int]) -> None:
    ping = b"GET /ping HTTP/1.1\r\nHost: model\r\n\r\n"
    with run(Same(), threads=1, grace=1).connect() as link:
        link.sendall(request(body(1)) + ping + request(body(2)) + ping)
        coming = answers(link)
        assert first(next(coming)) == 1
        assert next(coming)[0] == 200
        assert first(next(coming)) == 2
        assert next(coming)[0] == 200
    assert taken


@pytest.mark.parametrize(
    ("version", "headers"), [("1.1", {"Connection": "close"}), ("1.0", {}), ("1.1", {"Expect": "100-continue"})]
)
def test_what_the_head_says_of_the_connection_counts(run: Any, version: str, headers: dict[str, str]) -> None:
    with run(Same(), threads=1, grace=1).connect() as link:
        link.sendall(request(body(5), version=version, **headers))
        coming = answers(link)
        assert first(next(coming)) == 5
        if "Expect" not in headers:
            assert list(coming) == []


def test_a_body_that_is_no_arrow_is_refused_and_the_connection_goes_on(run: Any, taken: list[int]) -> None:
    with run(Same(), threads=1, grace=1).connect() as link:
        coming = answers(link)
        link.sendall(request(b"x" * 2 * invoke.LARGE))
        assert next(coming)[0] == 400
        link.sendall(request(body(1)))
        assert first(next(coming)) == 1
    assert len(taken) == 2


def test_a_client_that_leaves_in_the_middle_takes_nobody_with_it(run: Any, taken: list[int]) -> None:
    running = run(Same(), threads=1, grace=1)
    with running.connect() as link, running.connect() as other:
        link.sendall(request(body(1))[: invoke.LARGE])
        other.sendall(request(body(2)))
        assert first(next(answers(other))) == 2
        link.close()
        other.sendall(request(body(3)))
        assert first(next(answers(other))) == 3
    assert len(taken) == 3


def test_what_a_model_keeps_is_not_written_over(run: Any, taken: list[int]) -> None:
    model = Same(keeps=True)
    with run(model, threads=1, grace=1).connect() as link:
        coming = answers(link)
        for number in (1.0, 2.0, 3.0):
            link.sendall(request(body(number)))
            assert first(next(coming)) == number
    assert [frame.columns["x"].data[0] for frame in model.kept] == [1.0, 2.0, 3.0]
    assert not any(frame.columns["x"].data.flags.writeable for frame in model.kept)
    assert len(taken) == 3


def test_an_idle_connection_holds_no_memory_of_its_last_body(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = []
    plain = intake.Rooms.take

    def noted(self: Any, size: int) -> memoryview:
        room = plain(self, size)
        rooms.append(place(room))
        return room

    monkeypatch.setattr(intake.Rooms, "take", noted)
    running = run(Same(), threads=1, grace=1)
    with running.connect() as link, running.connect() as other:
        link.sendall(request(body(1)))
        assert first(next(answers(link))) == 1
        # Answered on the same loop, so whatever the first request has left to do is done.
        link.sendall(b"GET /ping HTTP/1.1\r\nHost: model\r\n\r\n")
        assert next(answers(link))[0] == 200
        other.sendall(request(body(2)))
        assert first(next(answers(other))) == 2
    assert len(rooms) == 2
    assert len(set(rooms)) == 1


def in_a_loop(call: Callable[[], None]) -> None:
    async def main() -> None:
        call()

    asyncio.run(main())


def place(room: memoryview) -> int:
    return int(np.frombuffer(room, np.uint8).__array_interface__["data"][0])


def test_memory_is_used_again_once_nobody_holds_a_part_of_it() -> None:
    def call() -> None:
        rooms = intake.Rooms()
        room = rooms.take(1000)
        before = place(room)
        part = np.frombuffer(room.toreadonly()[10:20], np.uint8)[::2]
        del room
        held = rooms.take(1000)
        assert place(held) != before
        del held, part
        # The first piece is forgotten: the second is the one that was kept.
        again = place(rooms.take(900))
        assert place(rooms.take(1000)) == again

    in_a_loop(call)


def test_each_room_is_as_large_as_asked_and_none_is_kept_for_much_smaller_ones() -> None:
    def call() -> None:
        rooms = intake.Rooms()
        large = place(rooms.take(1000))
        assert len(rooms.take(500)) == 500
        small = rooms.take(499)
        assert (len(small), place(small)) != (499, large)
        assert len(rooms.take(2000)) == 2000

    in_a_loop(call)


def test_memory_is_given_back_after_a_while_without_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "KEPT_SECONDS", 0.01)

    async def main() -> None:
        rooms = intake.Rooms()

        def kept() -> Any:
            return rooms._kept

        rooms.take(1000)
        assert kept() is not None
        while kept() is not None:
            await asyncio.sleep(0.005)
        rooms.take(1000)
        assert kept() is not None

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "KEPT", 999)

    def call() -> None:
        rooms = intake.Rooms()
        rooms.take(1000)
        assert rooms._kept is None

    in_a_loop(call)
