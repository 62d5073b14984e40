"""Starts a server on a core of its own, waits for its first right answer, weighs it, and always stops all of it."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Which cores the server and the client may use; empty: all."""

    server: frozenset[int] = frozenset()
    client: frozenset[int] = frozenset()

    @classmethod
    def apart(cls) -> Cores:
        """Return one core for the server and another for the client, if there are two."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            return cls()
        return cls(server=frozenset({usable[0]}), client=frozenset({usable[1]}))


@dataclass(frozen=True, kw_only=True)
class Started:
    """A server that gave its first right answer."""

    port: int
    pid: int
    seconds: float


def adopt_orphans() -> None:
    """Make this process the parent of whatever its servers leave behind, so that it can be found and stopped."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def free_port() -> int:
    """Return a port that is free, with the two after it."""
    for _ in range(100):
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for after in (1, 2):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + after))
            except (OSError, OverflowError):
                continue
            return port
    raise SystemExit("no three free ports in a row")


def descendants(pid: int) -> list[int]:
    """Return the process and all that it started, as far as they live."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def memory(pid: int) -> dict[str, float]:
    """Return megabytes of a server: its own share of what is shared (PSS), and the sum of its processes (RSS)."""
    total = {"Pss": 0, "Rss": 0}
    counted = 0
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            for line in lines:
                key, _, rest = line.partition(":")
                if key in total:
                    total[key] += int(rest.split()[0])
            counted += 1
    return {"pss": total["Pss"] / 1024, "rss": total["Rss"] / 1024, "processes": counted}


def post(port: int, path: str, body: bytes, headers: Mapping[str, str], timeout: float = 60) -> tuple[int, bytes]:
    """POST once on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, body, dict(headers))
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def wait(process: subprocess.Popen[bytes], answered: Callable[[], str | None], limit: float, log: Path) -> float:
    """Return the seconds until the server gives its first right answer; ``answered`` says what is wrong with one."""
    start = time.perf_counter()
    said: str | None = "nothing"
    while time.perf_counter() - start < limit:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {process.returncode}; see {log}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            said = answered()
            if said is None:
                return time.perf_counter() - start
        time.sleep(0.01)
    raise RuntimeError(f"no right answer within {limit:.0f} s; the last was: {said}; see {log}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and everything that it started: asked first, then killed."""
    family = set(descendants(process.pid)) - {process.pid}
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    family |= set(descendants(os.getpid())) - {os.getpid()}
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in family:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@contextlib.contextmanager
def server(
    command: list[str],
    *,
    port: int,
    env: Mapping[str, str],
    cores: Cores,
    log: Path,
    answered: Callable[[], str | None],
) -> Iterator[Started]:
    """Run a server for the time of the block."""
    libc = ctypes.CDLL(None)

    def before() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if cores.server:
            os.sched_setaffinity(0, cores.server)

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=dict(env), cwd=log.parent, start_new_session=True, preexec_fn=before
        )
        try:
            seconds = wait(process, answered, 90, log)
            yield Started(port=port, pid=process.pid, seconds=seconds)
        finally:
            stop(process)
