"""No more bytes of large bodies are held at a time than may be, whatever clients announce."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from modelpack_server import memory
from modelpack_server.endpoints.bodies import Bodies, Held, NoRoom
from modelpack_server.settings import Settings

LIMIT = 200_000
ROW = json.dumps({"dataframe_records": [{"age": 1.5}]}).encode()


class TestHeld:
    def test_what_is_released_can_be_held_again(self) -> None:
        bodies = Bodies(100)
        one, other = Held(bodies), Held(bodies)
        one.add(60)
        assert bodies.fits(40) and not bodies.fits(41)
        with pytest.raises(NoRoom, match="100 bytes"):
            other.add(41)
        other.add(40)
        one.release()
        assert bodies.held == 40
        other.release()
        assert bodies.held == 0

    def test_of_a_growing_body_each_byte_counts_once(self) -> None:
        bodies = Bodies(100)
        one, other = Held(bodies), Held(bodies)
        one.add(50)
        one.grow(30)
        assert bodies.held == 50
        one.grow(70)
        assert bodies.held == 70
        with pytest.raises(NoRoom):
            other.grow(31)

    def test_a_single_one_may_be_larger(self) -> None:
        bodies = Bodies(100)
        one = Held(bodies)
        one.add(80)
        one.add(80)
        assert bodies.held == 160


def head(media: str, length: int | None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /invocations HTTP/1.1\r\nHost: model\r\nContent-Type: {media}\r\n{size}\r\n\r\n".encode()


def answer(link: socket.socket) -> tuple[int, bytes, Any]:
    """Read one answer: its status, its head, and its JSON."""
    with link.makefile("rb") as file:
        said = b""
        while not said.endswith(b"\r\n\r\n"):
            line = file.readline()
            assert line, "the connection ended"
            said += line
        if b"transfer-encoding: chunked" in said:
            body = b""
            while size := int(file.readline(), 16):
                body += file.read(size)
                file.readline()
            file.readline()
        else:
            found = re.search(rb"content-length: (\d+)", said)
            assert found
            body = file.read(int(found[1]))
    return int(said.split()[1]), said, json.loads(body)


def csv(size: int) -> bytes:
    """Return a body of exactly so many bytes."""
    return b"age\r\n" + b"1.50\n" * (size // 5 - 1) + b"1" * (size % 5)


def until(holds: Any) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def server(run: Any, ages: Any) -> Any:
    return run(ages, threads=1, max_body=LIMIT, max_bodies=LIMIT)


def small_ones_are_answered(server: Any) -> None:
    with server.connect() as link:
        for target in (b"/invocations", b"/invocations?"):
            link.sendall(head("application/json", len(ROW)).replace(b"/invocations", target) + ROW)
            assert answer(link)[0] == 200


def refused(link: socket.socket) -> None:
    status, said, problem = answer(link)
    assert (status, problem["code"]) == (429, "overloaded")
    assert b"retry-after: 1\r\n" in said.lower() and b"connection: close\r\n" in said.lower()
    assert link.recv(1) == b""


def held(server: Any) -> int:
    size: int = server.app.edge.hot.bodies.held
    return size


@pytest.mark.parametrize("media", ["text/csv", "application/vnd.apache.arrow.stream"])
def test_what_is_announced_beyond_the_limit_is_refused_at_once(run: Any, ages: Any, media: str) -> None:
    server = run(ages, threads=1, max_body=2_000_000, max_bodies=2_000_000)
    with server.connect() as first, server.connect() as second:
        first.sendall(head("text/csv", 1_000_000) + csv(1000))
        until(lambda: held(server) == 1_000_000)
        # Not a byte of the body is sent.
        second.sendall(head(media, 1_500_000))
        assert second.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 429"
        small_ones_are_answered(server)


def test_who_is_refused_while_sending_sees_why(server: Any) -> None:
    whole = csv(LIMIT)
    with server.connect() as first, server.connect() as second:
        first.sendall(head("text/csv", LIMIT) + whole[: LIMIT // 2])
        until(lambda: held(server) == LIMIT)
        second.sendall(head("text/csv", LIMIT) + whole)
        refused(second)
        first.sendall(whole[LIMIT // 2 :])
        assert answer(first)[0] == 200
    with server.connect() as again:
        again.sendall(head("text/csv", LIMIT) + whole)
        assert answer(again)[0] == 200


def test_a_body_of_unknown_length_is_counted_as_it_comes(server: Any) -> None:
    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    with server.connect() as first, server.connect() as second:
        first.sendall(head("text/csv", None) + chunk(csv(LIMIT * 3 // 4)))
        until(lambda: held(server) == LIMIT * 3 // 4)
        second.sendall(head("text/csv", None) + chunk(csv(LIMIT // 2)) + b"0\r\n\r\n")
        refused(second)
        small_ones_are_answered(server)
        first.sendall(b"0\r\n\r\n")
        assert answer(first)[0] == 200


def test_who_leaves_holds_nothing(server: Any) -> None:
    with server.connect() as link:
        link.sendall(head("text/csv", LIMIT) + csv(1000))
        until(lambda: held(server) == LIMIT)
    until(lambda: held(server) == 0)


def test_what_nobody_waits_for_is_not_held_in_the_line(run: Any, ages: Any, model: Any) -> None:
    go = threading.Event()

    def wait(rows: Any, params: Any) -> Any:
        assert go.wait(30)
        return [{"double": 2 * row["age"]} for row in rows]

    server = run(model(ages.signature, wait), threads=1, max_body=LIMIT, max_bodies=LIMIT)
    batcher = server.app.state.invocations
    with server.connect() as first, server.connect() as late, server.connect() as left:
        first.sendall(head("application/json", len(ROW)) + ROW)
        until(lambda: batcher.running == 1)
        late.sendall(head("text/csv", LIMIT).replace(b"Host", b"X-Request-Timeout: 0.1\r\nHost") + csv(LIMIT))
        status, _, problem = answer(late)
        assert (status, problem["code"]) == (504, "deadline-exceeded")
        left.sendall(head("text/csv", LIMIT) + csv(LIMIT))
        until(lambda: batcher.running == 3)
        left.close()
        until(lambda: held(server) == 0)
        assert [len(one.item.body) for one in batcher._line._all] == [0, 0]
        go.set()
        assert answer(first)[0] == 200


class TestSettings:
    def test_one_body_always_fits(self) -> None:
        assert Settings(max_body=100, max_bodies=10).bodies() == 100
        assert Settings(max_body=10, max_bodies=100).bodies() == 100

    def test_workers_share_a_quarter_of_the_memory(self) -> None:
        assert Settings(max_body=1).bodies() == memory.usable_memory() // 4
        assert Settings(max_body=1, workers=4).bodies() == memory.usable_memory() // 4 // 4


class TestMemory:
    def system(self, root: Path, groups: str, file: str, text: str) -> int:
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(groups)
        path = root / "sys/fs/cgroup" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return memory.usable_memory(root)

    def test_of_version_2(self, tmp_path: Path) -> None:
        assert self.system(tmp_path, "0::/box\n", "box/memory.max", "1048576\n") == 1048576

    def test_of_version_1(self, tmp_path: Path) -> None:
        assert self.system(tmp_path, "4:memory:/box\n", "memory/memory.limit_in_bytes", "1048576\n") == 1048576

    @pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", "", "0"])
    def test_without_a_limit_all_that_the_machine_has(self, tmp_path: Path, text: str) -> None:
        machine = memory.usable_memory(tmp_path)
        assert machine > 2**20
        assert self.system(tmp_path, "0::/\n", "box/memory.max", text) == machine
