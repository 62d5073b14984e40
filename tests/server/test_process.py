"""Real servers: processes, sockets, signals."""

from __future__ import annotations

import asyncio
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import modelpack
from modelpack_server.app import build

pytestmark = pytest.mark.slow

PATIENCE = 60.0
SOURCE = '''
import os
import time
from pathlib import Path


def predict(rows):
    """Sleep, fail or die as the rows say; leave a mark when a row is begun."""
    answers = []
    for row in rows:
        if row["mark"]:
            Path(row["mark"]).touch()
        if row["task"] == "raise":
            raise ValueError("no " + row["text"])
        if row["task"] == "die":
            os._exit(9)
        if row["task"] == "exit":
            raise SystemExit(3)
        time.sleep(row["seconds"])
        answers.append({"pid": os.getpid(), "text": row["text"]})
    return answers
'''
ROW: dict[str, Any] = {"seconds": 0.0, "task": "", "mark": "", "text": "x"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[modelpack.Package]:
    folder = tmp_path_factory.mktemp("package")
    with pytest.MonkeyPatch.context() as patch:
        # This fixture outlives the trust store that each test gets.
        patch.setenv("MODELPACK_TRUST_STORE", str(folder / "store"))
        yield made(folder)


def made(folder: Path) -> modelpack.Package:
    """Save the functions of SOURCE as a package."""
    source = folder / "tasks.py"
    source.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("tasks", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tasks"] = module
    try:
        spec.loader.exec_module(module)
        return modelpack.save(
            module.predict, folder / "tasks", code=[source], example=[ROW], options={"form": "records"}
        )
    finally:
        del sys.modules["tasks"]


class Process:
    """A running ``modelpack serve``."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("modelpack")), "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"http://([^:/]+|\[[^\]]+\]):(\d+)", self.line)
        assert found, self.process.communicate()
        self.host, self.port = found[1].strip("[]"), int(found[2])

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if content is not None:
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body=content, headers=headers)
        reply = connection.getresponse()
        data = reply.read()
        connection.close()
        parsed = json.loads(data) if "json" in reply.headers.get("content-type", "") else data.decode()
        return reply.status, parsed, {name.lower(): value for name, value in reply.headers.items()}

    def score(self, **row: Any) -> tuple[int, Any, dict[str, str]]:
        return self.request("POST", "/invocations", {"dataframe_records": [{**ROW, **row}]})

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Signal it; return its exit code and its log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, log


Start = Callable[..., Process]


@pytest.fixture
def start(package: modelpack.Package) -> Iterator[Start]:
    running: list[Process] = []

    def start(*arguments: str) -> Process:
        given = ("--port", "0", "--allow-code", package.digest, *arguments)
        running.append(Process(str(package.path), *given))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def listening(server: Process) -> bool:
    try:
        socket.create_connection((server.host, server.port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_says_where_it_is_and_what_it_serves(start: Start, package: modelpack.Package) -> None:
    server = start()
    assert server.line == (
        f"ready: http://127.0.0.1:{server.port} serves tasks 1 "
        f"(sha256:{package.digest.removeprefix('sha256:')[:12]}, flavor python)\n"
    )
    status, answer, headers = server.score(text="hello")
    assert (status, answer["predictions"]) == (200, [{"pid": server.process.pid, "text": "hello"}])
    assert "server" not in headers
    assert headers["x-request-id"]
    assert server.request("GET", "/ping")[:2] == (200, "\n")
    metadata = server.request("GET", "/metadata")[1]
    assert (metadata["digest"], metadata["flavor"], metadata["trust"]) == (package.digest, "python", "code")
    document = server.request("GET", "/openapi.json")[1]
    content = document["paths"]["/invocations"]["post"]["requestBody"]["content"]
    assert server.request("POST", "/invocations", content["application/json"]["example"])[0] == 200
    assert server.stop() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_in_flight(start: Start, tmp_path: Path, number: int) -> None:
    server = start("--threads", "8")
    marks = [tmp_path / str(n) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(server.score, seconds=1.0, mark=str(mark)) for mark in marks]
        until(lambda: all(mark.exists() for mark in marks))
        code, log = server.stop(number)
        replies = [future.result() for future in futures]
    assert [status for status, _, _ in replies] == [200] * 8
    assert (code, log) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        server.request("GET", "/ping")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_under_load_loses_nothing(start: Start, workers: str) -> None:
    """Every request on an open connection is answered; only new connections find nobody."""
    server = start("--workers", workers, "--threads", "4")
    body = json.dumps({"dataframe_records": [{**ROW, "seconds": 0.01}]})
    answered = threading.Semaphore(0)

    def client() -> set[int]:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
        statuses = set()
        while True:
            new = connection.sock is None
            try:
                connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
            except ConnectionError:
                # Refused, or reset because the kernel had taken it for a server that has just stopped to listen.
                assert new
                return statuses
            reply.read()
            statuses.add(reply.status)
            answered.release()

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        for _ in range(40):
            answered.acquire(timeout=PATIENCE)
        assert server.stop() == (0, "")
        assert {status for each in clients for status in each.result()} <= {200, 503}


def test_a_request_that_comes_while_stopping_is_told(start: Start, tmp_path: Path) -> None:
    server = start("--threads", "1")
    mark = tmp_path / "mark"
    open_connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
    open_connection.connect()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.score, seconds=1.0, mark=str(mark))
        until(mark.exists)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not listening(server))
        open_connection.request("GET", "/ping")
        reply = open_connection.getresponse()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert slow.result()[0] == 200
    open_connection.close()
    assert server.process.wait(PATIENCE) == 0


def test_work_that_does_not_end_is_given_up_after_the_grace_period(start: Start, tmp_path: Path) -> None:
    server = start("--grace", "1", "--threads", "2")
    marks = [tmp_path / "a", tmp_path / "b"]
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(server.score, seconds=600.0, mark=str(mark)) for mark in marks]
        until(lambda: all(mark.exists() for mark in marks))
        code, log = server.stop()
        replies = [future.result() for future in slow]
    assert code == 1
    assert "gave up 2 requests" in log
    assert [(status, problem["code"]) for status, problem, _ in replies] == [(503, "server-stopping")] * 2


def test_a_second_signal_waits_for_nothing(start: Start, tmp_path: Path) -> None:
    server = start()
    mark = tmp_path / "mark"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.score, seconds=600.0, mark=str(mark))
        until(mark.exists)
        server.process.send_signal(signal.SIGTERM)
        # It listens no more: the first signal has been taken.
        until(lambda: not listening(server))
        server.process.send_signal(signal.SIGTERM)
        slow.exception()
    assert server.process.wait(PATIENCE) == 1


def test_a_model_that_fails_leaves_a_trace_and_no_data(start: Start) -> None:
    server = start()
    status, problem, _ = server.score(task="raise", text="m4rk3r")
    assert (status, problem["message"]) == (500, "the model raised ValueError")
    assert server.score(task="exit")[0] == 500
    code, log = server.stop()
    assert code == 0
    assert problem["id"] in log
    assert "in predict" in log
    assert "m4rk3r" not in log + json.dumps(problem)


def test_json_logs_are_json(start: Start) -> None:
    server = start("--json-logs")
    assert json.loads(server.line)["event"] == "ready"
    server.score(task="raise", text="m4rk3r")
    lines = [json.loads(line) for line in server.stop()[1].splitlines()]
    assert {line["level"] for line in lines} == {"error"}
    assert "m4rk3r" not in json.dumps(lines)


@pytest.fixture(scope="module")
def limited(package: modelpack.Package) -> Iterator[Process]:
    """A server that reads a kilobyte, shared by the tests that leave it as it was."""
    server = Process(str(package.path), "--port", "0", "--allow-code", package.digest, "--max-body", "1K")
    yield server
    assert server.stop()[0] == 0


class TestBodyLimit:
    """A body that is too large is refused before it is held."""

    def test_by_its_length(self, limited: Process) -> None:
        server = limited
        status, problem, headers = server.request("POST", "/invocations", b" " * 5_000_000)
        assert (status, problem["code"], headers["connection"]) == (413, "body-too-large", "close")
        assert server.request("POST", "/invocations", b" " * 1024)[0] == 400

    def test_by_what_arrives(self, limited: Process) -> None:
        server = limited
        connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
        chunks = (b"x" * 1000 for _ in range(1000))
        connection.request(
            "POST", "/invocations", body=chunks, headers={"Content-Type": "application/json"}, encode_chunked=True
        )
        assert connection.getresponse().status == 413
        connection.close()

    def test_before_the_body_is_sent(self, limited: Process) -> None:
        server = limited
        head = (
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
        )
        with socket.create_connection((server.host, server.port), timeout=PATIENCE) as client:
            client.sendall(head)
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_a_length_that_lies_is_no_way_around(self, limited: Process) -> None:
        server = limited
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n"
        with socket.create_connection((server.host, server.port), timeout=PATIENCE) as client:
            client.sendall(head + b" " * 100_000)
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")


class TestHeadLimit:
    """What comes before a request has begun."""

    def test_a_head_that_does_not_end_is_refused(self, limited: Process) -> None:
        with socket.create_connection((limited.host, limited.port), timeout=PATIENCE) as client:
            client.sendall(b"GET /ping HTTP/1.1\r\nX-Endless: ")
            with contextlib.suppress(OSError):
                for _ in range(64):
                    client.sendall(b"x" * 65536)
                    time.sleep(0.001)
            reply = b""
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    reply += data
        assert reply.startswith(b"HTTP/1.1 431 ")
        assert b'"code":"header-too-large"' in reply
        assert limited.request("GET", "/ping")[0] == 200

    def test_a_long_head_that_ends_is_read(self, limited: Process) -> None:
        assert limited.request("GET", "/ping", None, **{"X-Long": "x" * 20_000})[0] == 200

    def test_bodies_on_one_connection_are_not_counted(self, limited: Process) -> None:
        connection = http.client.HTTPConnection(limited.host, limited.port, timeout=PATIENCE)
        body = json.dumps({"dataframe_records": [{**ROW, "text": "x" * 500}]}).encode()
        for _ in range(300):
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            reply.read()
            assert reply.status == 200
        connection.close()


def test_a_client_that_leaves_disturbs_nobody(limited: Process) -> None:
    server = limited
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as client:
        client.sendall(head + b"{")
    assert server.score()[0] == 200


def test_rubbish_is_no_request(start: Start) -> None:
    server = start()
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert server.request("GET", "/ping")[0] == 200


class TestWorkers:
    """Several processes on one socket."""

    def pids(self, server: Process, count: int) -> set[int]:
        """Send requests until that many workers have answered."""
        seen: set[int] = set()
        with ThreadPoolExecutor(8) as pool:
            end = time.monotonic() + PATIENCE
            while len(seen) < count:
                assert time.monotonic() < end
                for status, answer, _ in pool.map(lambda _: server.score(seconds=0.02), range(16)):
                    assert status == 200
                    seen.add(answer["predictions"][0]["pid"])
        return seen

    def test_they_share_the_work_and_stop_together(self, start: Start) -> None:
        server = start("--workers", "2")
        pids = self.pids(server, 2)
        assert server.process.pid not in pids
        code, log = server.stop()
        assert (code, log) == (0, "")
        assert not any(alive(pid) for pid in pids)

    def test_a_dead_one_is_replaced(self, start: Start) -> None:
        server = start("--workers", "2")
        first = self.pids(server, 2)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            server.score(task="die")
        second = first
        while second == first or len(second) < 2:
            second = self.pids(server, 2)
        assert len(first & second) == 1
        code, log = server.stop()
        assert code == 0
        assert "ended with code 9" in log
        assert "is back as process" in log

    def test_a_replaced_package_is_not_mixed_in(self, tmp_path: Path) -> None:
        """A worker that is started again finds another model at the path, and does not serve it."""
        import psutil
        from sklearn.linear_model import LinearRegression

        def line(factor: float) -> None:
            model = LinearRegression(fit_intercept=False).fit([[1.0]], [factor])
            modelpack.save(model, tmp_path / "line", overwrite=True)

        line(1.0)
        server = Process(str(tmp_path / "line"), "--port", "0", "--workers", "2")
        try:
            line(2.0)
            workers = psutil.Process(server.process.pid).children()
            workers[0].kill()
            workers[0].wait(PATIENCE)
            until(lambda: len(psutil.Process(server.process.pid).children()) == 2)
            until(lambda: len(psutil.Process(server.process.pid).children()) == 1)
            answers = [server.request("POST", "/invocations", {"inputs": [[1.0]]}) for _ in range(20)]
            assert {(status, reply["predictions"][0]) for status, reply, _ in answers} == {(200, 1.0)}
        finally:
            _, log = server.stop()
        assert "the package was replaced since the server started" in log

    def test_requests_in_flight_are_finished_in_all(self, start: Start, tmp_path: Path) -> None:
        server = start("--workers", "2", "--threads", "4")
        marks = [tmp_path / str(n) for n in range(4)]
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(server.score, seconds=1.0, mark=str(mark)) for mark in marks]
            until(lambda: all(mark.exists() for mark in marks))
            assert server.stop() == (0, "")
            assert [future.result()[0] for future in futures] == [200] * 4

    def test_they_do_not_outlive_their_supervisor(self, start: Start) -> None:
        server = start("--workers", "2")
        pids = self.pids(server, 2)
        server.process.kill()
        until(lambda: not any(alive(pid) for pid in pids))

    def test_a_second_signal_kills(self, start: Start, tmp_path: Path) -> None:
        server = start("--workers", "2")
        mark = tmp_path / "mark"
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(server.score, seconds=600.0, mark=str(mark))
            until(mark.exists)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: not listening(server))
            server.process.send_signal(signal.SIGTERM)
            slow.exception()
        assert server.process.wait(PATIENCE) == 1


class TestStart:
    """What cannot be served is said in two lines, and nothing is left running."""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("modelpack")), "serve", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_no_package(self, tmp_path: Path, workers: str) -> None:
        done = self.run(str(tmp_path / "none"), "--port", "0", "--workers", workers)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("modelpack: ")
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_code_that_is_not_allowed(self, package: modelpack.Package, workers: str) -> None:
        done = self.run(str(package.path), "--port", "0", "--workers", workers)
        assert done.returncode == 1
        assert "code-not-allowed" in done.stderr

    @pytest.mark.parametrize("flavor", ["none"])
    def test_a_flavor_it_has_not(self, package: modelpack.Package, flavor: str) -> None:
        done = self.run(str(package.path), "--port", "0", "--flavor", flavor, "--allow-code", package.digest)
        assert done.returncode == 2
        assert "flavor-absent" in done.stderr

    def test_a_port_that_is_taken(self, package: modelpack.Package) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            done = self.run(str(package.path), "--port", port, "--allow-code", package.digest)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in done.stderr

    @pytest.mark.parametrize(
        ("option", "value"), [("--max-body", "10 apples"), ("--port", "99999"), ("--workers", "0"), ("--grace", "-1")]
    )
    def test_wrong_usage(self, package: modelpack.Package, option: str, value: str) -> None:
        done = self.run(str(package.path), option, value)
        assert done.returncode == 2
        assert option in done.stderr


def test_a_stop_while_loading_is_no_failure(start: Start, package: modelpack.Package) -> None:
    command = [str(Path(sys.executable).with_name("modelpack")), "serve", str(package.path)]
    command += ["--port", "0", "--workers", "2", "--allow-code", package.digest]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # Its workers are its children: once they are there, its signal handlers are.
    until(lambda: len(psutil.Process(process.pid).children()) == 2)
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert (process.returncode, log) == (0, "")


def test_ipv6_where_the_machine_has_it(start: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(AssertionError, match="cannot listen on ::1"):
            start("--host", "::1")
        return
    assert start("--host", "::1").request("GET", "/ping")[0] == 200


def test_an_app_runs_in_any_asgi_server(package: modelpack.Package) -> None:
    app = build(modelpack.load(package.path, allow_code=package.digest))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://model") as client:
            return await client.post("/invocations", json={"dataframe_records": [ROW]})

    assert asyncio.run(ask()).json()["predictions"] == [{"pid": os.getpid(), "text": "x"}]
