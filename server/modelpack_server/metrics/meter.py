"""Counts what a process does, in its own page.

An answer of the short way costs four additions and two looks at the clock. What happens on the event loop is counted
there; what happens in threads of the model, under a lock.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Protocol, TypeVar

from starlette.types import Message, Receive, Scope

from modelpack.errors import InputError
from modelpack_server.metrics import layout
from modelpack_server.metrics.layout import BATCHES, BODY_BYTES, LEFT, PREDICTIONS, REQUEST_SECONDS, ROWS, SECONDS
from modelpack_server.metrics.ledger import ALONE, Ledger

__all__ = ["Meter", "Queue", "Visit"]

T = TypeVar("T")

# The media type of the short way.
_JSON = "application/json"
_OPEN, _QUEUED, _QUEUED_ROWS, _CPU, _FAILURES = (
    layout.OPEN,
    layout.QUEUED,
    layout.QUEUED_ROWS,
    layout.CPU,
    layout.FAILURES,
)


class Queue(Protocol):
    """Who knows what waits for the model."""

    @property
    def waiting(self) -> tuple[int, int]:
        """How many requests, and how many rows."""


class Meter:
    """Writes one page of a ledger, from now on; only one process at a time may."""

    def __init__(self, ledger: Ledger | None = None, page: int = ALONE) -> None:
        self.ledger = ledger or Ledger()
        self.open = 0
        self._cells = cells = self.ledger.page(page)
        self._lock = threading.Lock()
        self._queue: Queue | None = None
        self._json = {int(status): layout.answer(_JSON, int(status)) for status in layout.STATUSES[:-1]}
        self._json_other = layout.answer(_JSON, 0)
        self._cpu_before = cells[_CPU]
        cells[_OPEN] = cells[_QUEUED] = cells[_QUEUED_ROWS] = 0
        cells[layout.SINCE] = time.time()
        cells[layout.PID] = os.getpid()

    def watch(self, queue: Queue) -> None:
        """Tell from now on what waits here."""
        self._queue = queue

    def publish(self) -> None:
        """Write down how things are now; what is counted is there already."""
        cells = self._cells
        cells[_OPEN] = self.open
        cells[_CPU] = self._cpu_before + time.process_time()
        if self._queue is not None:
            cells[_QUEUED], cells[_QUEUED_ROWS] = self._queue.waiting

    def begin(self) -> float:
        """Note that a request to be scored has come; return when."""
        self.open += 1
        return perf_counter()

    def answered(self, status: int, began: float, size: int) -> None:
        """Count an answer of the short way."""
        cells = self._cells
        seconds = perf_counter() - began
        cells[self._json.get(status, self._json_other) + bisect_left(REQUEST_SECONDS, seconds)] += 1
        cells[SECONDS] += seconds
        cells[BODY_BYTES] += size
        self.open -= 1

    def left(self) -> None:
        """Count a client that has left before its request was answered."""
        self._cells[LEFT] += 1
        self.open -= 1

    def refused(self, status: int) -> None:
        """Count an answer to what never became a request."""
        self._cells[layout.visit(layout.OTHER, status)] += 1

    def visit(self, scope: Scope, path: str, receive: Receive) -> Visit:
        """Return the counter of one request of the ordinary way."""
        return Visit(self, self._cells, scope, path, receive)

    def gathering(self, work: Callable[[Sequence[T]], Sequence[Any]]) -> Callable[[Sequence[T]], Sequence[Any]]:
        """Return ``work`` that counts how many requests it is given at a time."""
        cells, lock = self._cells, self._lock

        def counted(items: Sequence[T]) -> Sequence[Any]:
            with lock:
                BATCHES.add(cells, len(items))
            return work(items)

        return counted

    def predicted(self, began: float, rows: int, failure: BaseException | None = None) -> None:
        """Count a call of the model that has ended."""
        seconds = perf_counter() - began
        with self._lock:
            PREDICTIONS.add(self._cells, seconds)
            if failure is None:
                ROWS.add(self._cells, rows)
            elif not isinstance(failure, InputError):
                self._cells[_FAILURES] += 1


class Visit:
    """One request of the ordinary way, from its head to the end of its answer."""

    __slots__ = ("_began", "_cells", "_meter", "_path", "_receive", "_scope", "_scored", "_size", "_status")

    def __init__(self, meter: Meter, cells: memoryview[float], scope: Scope, path: str, receive: Receive) -> None:
        self._meter = meter
        self._cells = cells
        self._scope = scope
        self._path = path
        self._receive = receive
        self._scored = path == "/invocations" and scope["method"] == "POST"
        self._began = meter.begin() if self._scored else 0.0
        self._size = 0
        self._status = 0

    async def receive(self) -> Message:
        """Return what comes next of the request."""
        message = await self._receive()
        self._size += len(message.get("body", b""))
        return message

    def answers(self, status: int) -> None:
        """Count the answer, which begins now."""
        self._status = status
        if not self._scored:
            self._cells[layout.visit(self._path, status)] += 1
            return
        seconds = perf_counter() - self._began
        self._cells[layout.answer(_media(self._scope), status) + bisect_left(REQUEST_SECONDS, seconds)] += 1
        self._cells[SECONDS] += seconds

    def end(self, whole: int) -> None:
        """Count what is known at the end; ``whole`` is the size of a body that did not come in pieces."""
        self._cells[BODY_BYTES] += self._size + whole
        if not self._scored:
            return
        if self._status:
            self._meter.open -= 1
        else:
            self._meter.left()


def _media(scope: Scope) -> str:
    """Return what the request says of its body, without what it says of its characters."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            media: str = value.partition(b";")[0].strip().lower().decode("latin-1")
            return media
    return layout.OTHER
