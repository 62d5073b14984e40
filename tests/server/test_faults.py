"""Models and clients that misbehave, in real processes: whoever has done nothing wrong does not notice."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import modelpack

pytestmark = pytest.mark.slow

PATIENCE = 60.0
SOURCE = '''
import ctypes
import os
import threading
import time

HELD = []
# Calls through it keep the interpreter to themselves.
C = ctypes.PyDLL(None)


def predict(rows):
    """Answer for each row, after doing what it says."""
    for row in rows:
        match row["task"]:
            case "hold":
                C.sleep(3)
            case "freeze":
                threading.Timer(0.3, C.sleep, (600,)).start()
            case "sleep":
                time.sleep(0.2)
            case "grow":
                HELD.append(b"x" * 200_000_000)
            case "die":
                os._exit(9)
            case "raise":
                raise ValueError("no")
            case "short":
                return []
            case "long":
                return rows * 2
    return [{"pid": os.getpid(), "text": row["text"] * row["times"]} for row in rows]
'''
ROW: dict[str, Any] = {"task": "", "text": "x", "times": 1}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[modelpack.Package]:
    folder = tmp_path_factory.mktemp("faulty")
    source = folder / "faulty.py"
    source.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("faulty", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # It outlives the trust store that each test gets.
        patch.setenv("MODELPACK_TRUST_STORE", str(folder / "store"))
        patch.setitem(sys.modules, "faulty", module)
        spec.loader.exec_module(module)
        yield modelpack.save(module.predict, folder / "m", code=[source], example=[ROW], options={"form": "records"})


class Server:
    """``modelpack serve`` in a process of its own, its log in a file that can be read meanwhile."""

    def __init__(self, package: modelpack.Package, folder: Path, *options: str) -> None:
        self.log = folder / "server.log"
        command = [sys.executable, "-m", "modelpack", "serve", str(package.path), "--port", "0", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--allow-code", package.digest], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"ready: http://127\.0\.0\.1:(\d+) ", line)
        assert found, line + self.log.read_text()
        self.port = int(found[1])

    def open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, connection: http.client.HTTPConnection | None = None, **row: Any) -> tuple[int, Any]:
        """Send one row, on a connection of its own if none is given; return status and answer."""
        used = connection or self.open()
        body = json.dumps({"dataframe_records": [{**ROW, **row}]})
        used.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        reply = used.getresponse()
        answer = json.loads(reply.read())
        if connection is None:
            used.close()
        return reply.status, answer["predictions"][0] if reply.status == 200 else answer

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def answering(self, count: int) -> set[int]:
        """Ask until so many workers have answered; return their process ids."""
        seen: set[int] = set()
        with ThreadPoolExecutor(4) as pool:

            def ask(_: int) -> int:
                status, answer = self.ask(task="sleep")
                assert status == 200
                return int(answer["pid"])

            until(lambda: seen.update(pool.map(ask, range(4))) or len(seen) >= count)
        return seen

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE)


def until(holds: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


Start = Callable[..., Server]


@pytest.fixture(scope="module")
def starting(package: modelpack.Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    running: list[Server] = []

    def start(*options: str) -> Server:
        running.append(Server(package, tmp_path_factory.mktemp("log"), *options))
        return running[-1]

    yield start
    for server in running:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture(scope="module")
def two(starting: Start) -> Server:
    """Two workers, replaced after two seconds of silence; what a test breaks it waits for to be mended."""
    return starting("--workers", "2", "--hang", "2", "--threads", "4")


class Load:
    """Clients that ask one question after the other until told to stop, ten on one connection."""

    def __init__(self, server: Server, clients: int = 4) -> None:
        self.server = server
        self.over = threading.Event()
        self.answers: list[int] = []
        self.lost = 0
        self.wrong: list[Any] = []
        self.pool = ThreadPoolExecutor(clients)
        self.clients: list[Future[None]] = [self.pool.submit(self._client, n) for n in range(clients)]

    def _client(self, number: int) -> None:
        connection, count = self.server.open(), 0
        while not self.over.is_set():
            count += 1
            if count % 10 == 0:
                # So that all workers get to answer.
                connection.close()
            text = f"{number}-{count}"
            try:
                status, answer = self.server.ask(connection, text=text)
            except (ConnectionError, http.client.HTTPException):
                self.lost += 1
                connection.close()
                continue
            if status == 200 and answer["text"] == text:
                self.answers.append(answer["pid"])
            else:
                self.wrong.append((status, answer))
        connection.close()

    def __enter__(self) -> Load:
        until(lambda: len(self.answers) > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with self.pool:
            for client in self.clients:
                client.result()


class TestWorkers:
    def test_one_that_is_killed_takes_no_more_than_its_own_requests_along(self, two: Server) -> None:
        first = two.answering(2)
        with Load(two) as load:
            os.kill(min(first), signal.SIGKILL)
            until(lambda: set(load.answers) - first)
        assert load.wrong == []
        assert load.lost <= 4
        assert two.answering(2) & first == {max(first)}

    def test_a_model_that_kills_its_process_disturbs_no_other(self, two: Server) -> None:
        first = two.answering(2)
        with Load(two) as load:
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                two.ask(task="die")
            until(lambda: set(load.answers) - first)
        assert load.wrong == []
        assert load.lost <= 4

    def test_a_long_prediction_that_holds_the_interpreter_is_left_alone(self, two: Server) -> None:
        """The health check comes from the other worker meanwhile."""
        pids = two.answering(2)
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(two.ask, task="hold")
            healthy = 0
            while not long.done():
                connection = two.open()
                connection.request("GET", "/ping")
                healthy += connection.getresponse().status == 200
                connection.close()
                time.sleep(0.05)
        assert healthy > 0
        assert long.result()[0] == 200
        assert long.result()[1]["pid"] in pids
        assert two.workers() == pids

    @pytest.mark.parametrize("how", ["stopped", "frozen"])
    def test_one_that_hangs_is_replaced(self, two: Server, how: str) -> None:
        """A stopped process, and one whose interpreter is held by a thread that is no prediction."""
        first = two.answering(2)
        if how == "stopped":
            hung = min(first)
            os.kill(hung, signal.SIGSTOP)
        else:
            hung = two.ask(task="freeze")[1]["pid"]
        until(lambda: hung not in two.workers())
        assert hung not in two.answering(2)
        assert "has given no sign of life for 2 s; killing it" in two.log.read_text()

    def test_one_that_grows_makes_room_for_another_and_no_request_is_lost(self, two: Server, starting: Start) -> None:
        memory = psutil.Process(min(two.workers())).memory_info().rss // 2**20
        server = starting("--max-memory", f"{memory + 100}MB", "--hang", "0")
        (first,) = server.answering(1)
        with Load(server) as load:
            assert server.ask(task="grow") == (200, {"pid": first, "text": "x"})
            until(lambda: set(load.answers) - {first})
            until(lambda: first not in server.workers())
        assert (load.wrong, load.lost) == ([], 0)
        assert server.stop() == 0
        log = server.log.read_text()
        assert "MB of memory; another takes its place" in log
        assert "worker 0 has left with code 0" in log

    def test_a_stop_while_one_makes_room_is_a_clean_one(self, two: Server, starting: Start) -> None:
        memory = psutil.Process(min(two.workers())).memory_info().rss // 2**20
        server = starting("--max-memory", f"{memory + 100}MB")
        (first,) = server.answering(1)
        # As long as it is connected, the old worker stays.
        with contextlib.closing(server.open()) as connection:
            assert server.ask(connection, task="grow")[1]["pid"] == first
            until(lambda: "is back as process" in server.log.read_text())
            assert first in server.workers()
            assert server.stop() == 0


class TestModels:
    @pytest.mark.parametrize(
        ("task", "code"), [("raise", "model-raised"), ("short", "rows-mismatch"), ("long", "rows-mismatch")]
    )
    def test_one_that_fails_is_told_to_its_client_alone(self, two: Server, task: str, code: str) -> None:
        pids = two.answering(2)
        with Load(two) as load:
            failed = two.ask(task=task)
            done = len(load.answers)
            until(lambda: len(load.answers) > done + 20)
        assert (failed[0], failed[1]["code"]) == (500, code)
        assert (load.wrong, load.lost) == ([], 0)
        assert two.workers() == pids

    def test_one_that_sleeps_keeps_nobody_waiting(self, two: Server) -> None:
        with ThreadPoolExecutor(4) as pool:
            slow = [pool.submit(two.ask, task="sleep") for _ in range(12)]
            assert [two.ask()[0] for _ in range(20)] == [200] * 20
            assert [one.result()[0] for one in slow] == [200] * 12


class TestClients:
    """Connections that do nothing, or nothing good, stay open while others are answered."""

    @pytest.fixture
    def idle(self, two: Server) -> Iterator[Callable[[bytes], None]]:
        with contextlib.ExitStack() as stack:

            def connect(sent: bytes) -> None:
                for _ in range(50):
                    client = stack.enter_context(socket.create_connection(("127.0.0.1", two.port), timeout=PATIENCE))
                    client.sendall(sent)

            yield connect

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b"POST /invoc",
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        ],
        ids=["nothing", "half a line", "half a head", "half a body", "half a chunk"],
    )
    def test_slow_ones(self, two: Server, idle: Callable[[bytes], None], sent: bytes) -> None:
        idle(sent)
        assert [two.ask()[0] for _ in range(20)] == [200] * 20

    def test_ones_that_never_read(self, two: Server, idle: Callable[[bytes], None]) -> None:
        """Each is sent some megabytes, which stay in the server's buffers; the next request is not read."""
        body = json.dumps({"dataframe_records": [{**ROW, "times": 2_000_000}]}).encode()
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        idle((head % len(body) + body) * 3)
        assert [two.ask()[0] for _ in range(20)] == [200] * 20

    def test_ones_that_close_only_their_own_half(self, two: Server) -> None:
        body = json.dumps({"dataframe_records": [ROW]}).encode()
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        with socket.create_connection(("127.0.0.1", two.port), timeout=PATIENCE) as client:
            client.sendall(head % len(body) + body[:-1])
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
        with socket.create_connection(("127.0.0.1", two.port), timeout=PATIENCE) as client:
            client.sendall(head % len(body) + body)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as file:
                assert b"HTTP/1.1 200 OK" in file.read()
        assert two.ask()[0] == 200


def test_a_stop_ends_what_all_this_has_left(two: Server) -> None:
    """The last test with this server: whatever was done to it, it stops as told and leaves nobody behind."""
    pids = two.workers()
    assert two.stop() == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
