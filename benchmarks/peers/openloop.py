"""Offers requests at a rate, whether or not the server keeps up, as many clients would: prints the result as JSON.

Each request has its time on a Poisson clock; its latency counts from that time. It goes out on an idle connection or a
new one. One without an answer after the deadline is given up and its connection closed, as a client would.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import time
from pathlib import Path

import uvloop


class Run:
    """What one run has sent and got."""

    def __init__(self, target: tuple[str, int], request: bytes, deadline: float, most: int) -> None:
        self.target, self.request, self.deadline, self.most = target, request, deadline, most
        self.idle: list[Connection] = []
        self.waiting: collections.deque[tuple[float, Connection, int]] = collections.deque()
        self.latencies: list[float] = []
        self.statuses: collections.Counter[str] = collections.Counter()
        self.refused: list[float] = []
        self.open = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def send(self, due: float) -> None:
        """Send one request on an idle connection or a new one."""
        while self.idle:
            connection = self.idle.pop()
            if connection.alive:
                connection.ask(due)
                return
        if self.open >= self.most:
            self.statuses["not sent"] += 1
            return
        self.open += 1
        task = asyncio.get_running_loop().create_task(self.connect(due))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def connect(self, due: float) -> None:
        """Open a connection and ask on it."""
        try:
            loop = asyncio.get_running_loop()
            _, connection = await asyncio.wait_for(
                loop.create_connection(lambda: Connection(self), *self.target), self.deadline
            )
        except OSError:
            self.open -= 1
            self.statuses["not connected"] += 1
            return
        connection.ask(due)

    def give_up(self, now: float) -> None:
        """Close the connections whose request is past its deadline."""
        while self.waiting and (
            now - self.waiting[0][0] > self.deadline or self.waiting[0][1].turn != self.waiting[0][2]
        ):
            _, connection, turn = self.waiting.popleft()
            if connection.turn == turn and connection.alive and connection.due:
                self.statuses["late"] += 1
                connection.due = 0.0
                connection.alive = False
                connection.transport.abort()

    def answered(self, connection: Connection, status: str) -> None:
        """Take note of an answer."""
        took = time.perf_counter() - connection.due
        self.statuses[status] += 1
        (self.latencies if status == "200" else self.refused).append(took)


class Connection(asyncio.Protocol):
    """One connection with at most one request in flight."""

    def __init__(self, run: Run) -> None:
        self.run, self.turn, self.due, self.alive = run, 0, 0.0, True
        self.buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]

    def ask(self, due: float) -> None:
        """Send the request."""
        self.turn += 1
        self.due = due
        self.buffer = b""
        self.run.waiting.append((due, self, self.turn))
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        """Collect the answer until it is whole."""
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found or not self.due:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0])
            if len(body) < length:
                return
        elif not body.endswith(b"0\r\n\r\n"):
            return
        self.run.answered(self, head[9:12].decode())
        self.due = 0.0
        self.turn += 1
        if b"connection: close" in lower:
            self.alive = False
            self.transport.close()
        else:
            self.run.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a request that was cut off."""
        self.run.open -= 1
        self.alive = False
        if self.due:
            self.run.statuses["cut off"] += 1
            self.due = 0.0
            self.turn += 1


async def offer(run: Run, rate: float, seconds: float) -> float:
    """Send on the clock for so many seconds; return how many requests were due."""
    clock = random.Random(0)
    start = time.perf_counter()
    due, count = start + clock.expovariate(rate), 0
    while (now := time.perf_counter()) < start + seconds:
        while due <= now:
            run.send(due)
            count += 1
            due += clock.expovariate(rate)
        run.give_up(now)
        await asyncio.sleep(max(0.0, min(due - now, 0.001)))
    sent = count / (time.perf_counter() - start)
    while (now := time.perf_counter()) < start + seconds + run.deadline + 0.5 and (run.waiting or run.tasks):
        run.give_up(now)
        await asyncio.sleep(0.01)
    return sent


def percentile(values: list[float], share: float) -> float | None:
    """Return a percentile in milliseconds."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000 if values else None


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--content-type", default="application/json")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--deadline", type=float, default=1)
    parser.add_argument("--connections", type=int, default=15_000)
    given = parser.parse_args()
    body = given.body.read_bytes()
    head = f"POST {given.path} HTTP/1.1\r\nHost: 127.0.0.1:{given.port}\r\nContent-Type: {given.content_type}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    run = Run(("127.0.0.1", given.port), request, given.deadline, given.connections)
    sent = uvloop.run(offer(run, given.rate, given.seconds))
    result = {
        "rate": given.rate,
        "offered": sent,
        "seconds": given.seconds,
        "goodput": len(run.latencies) / given.seconds,
        "statuses": dict(run.statuses),
        "p50": percentile(run.latencies, 0.5),
        "p99": percentile(run.latencies, 0.99),
        "refused_p99": percentile(run.refused, 0.99),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
