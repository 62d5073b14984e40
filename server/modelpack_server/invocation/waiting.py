"""Requests that wait for the model: in the order in which they came, and how much work they are."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, Protocol, TypeVar

from modelpack_server.invocation.costs import Costs
from modelpack_server.problems import HttpProblem

__all__ = ["Line", "Reply", "Waiting", "too_late"]

T = TypeVar("T")

# How often those that nobody waits for are looked for, when there is no room.
SWEEP_SECONDS = 0.05


class Reply(Protocol):
    """Where the reply to a request goes: a future, or what behaves like one."""

    def done(self) -> bool:
        """Say whether nobody waits for it any more."""

    def set_result(self, reply: Any, /) -> None:
        """Take the reply."""

    def set_exception(self, problem: BaseException, /) -> None:
        """Take the reason why there is none."""


class Waiting(Generic[T]):
    """A request that waits: what is to be scored, and where its reply goes."""

    __slots__ = ("amount", "cost", "costs", "deadline", "item", "key", "reply", "rows", "size", "timer")

    def __init__(self, item: T, key: Hashable | None, rows: int, deadline: float, reply: Reply) -> None:
        # What its like have cost (set by the batcher), how much of that it is, and the seconds that it takes alone.
        self.costs: Costs
        self.amount = rows
        self.cost = 0.0
        self.size = 0
        self.item = item
        self.key = key
        self.rows = rows
        self.deadline = deadline
        self.reply = reply
        self.timer: asyncio.TimerHandle | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, longest: float) -> None:
        """Let its time run out when it does, unless it is further away than the loop counts."""
        if self.timer is None and self.deadline - loop.time() < longest:
            self.timer = loop.call_at(self.deadline, self.expire)

    def disarm(self) -> None:
        """Let its time not run out any more."""
        if self.timer is not None:
            self.timer.cancel()

    def expire(self) -> None:
        """Tell a client that its time is over; what a thread still makes of its request is thrown away."""
        self.disarm()
        if not self.reply.done():
            self.reply.set_exception(too_late())


class Line(Generic[T]):
    """All that wait.

    ``rows`` of those that are scored together with others, ``alone``: the seconds that the others take, and the
    ``bytes`` of all.
    """

    def __init__(self) -> None:
        self._all: deque[Waiting[T]] = deque()
        self.rows = 0
        self.alone = 0.0
        self.bytes = 0
        self._swept = -math.inf

    def __len__(self) -> int:
        return len(self._all)

    def all_rows(self) -> int:
        """Return the rows of all, as far as these are known."""
        return sum(one.rows for one in self._all)

    def first_alone(self) -> bool:
        """Say whether the next one is scored alone."""
        return self._all[0].key is None

    def join(self, one: Waiting[T]) -> None:
        """Let one more wait."""
        self._all.append(one)
        self._joined(one)

    def watch(self, loop: asyncio.AbstractEventLoop, longest: float) -> None:
        """Watch the time of all."""
        for one in self._all:
            one.watch(loop, longest)

    def sweep(self, now: float) -> None:
        """Forget requests that nobody waits for any more; not each time, for to refuse must cost next to nothing."""
        if now < self._swept + SWEEP_SECONDS:
            return
        self._swept = now
        waiting = list(self._all)
        self._all.clear()
        self.rows, self.bytes, self.alone = 0, 0, 0.0
        for one in waiting:
            if one.reply.done():
                one.disarm()
            else:
                self.join(one)

    def take(self, now: float, room: int) -> list[Waiting[T]]:
        """Take the oldest request that is still wanted and what may go with it; the others keep their order."""
        batch: list[Waiting[T]] = []
        others: list[Waiting[T]] = []
        key: Hashable | None = None
        while self._all:
            one = self._all.popleft()
            self._left(one)
            if one.reply.done():
                one.disarm()
            elif one.deadline < now:
                one.expire()
            elif not batch:
                batch.append(one)
                key, room = one.key, room - one.rows
                if key is None:
                    break
            elif one.key == key and one.rows <= room:
                batch.append(one)
                room -= one.rows
            else:
                others.append(one)
            if room <= 0:
                break
        for one in reversed(others):
            self._all.appendleft(one)
            self._joined(one)
        return batch

    def _joined(self, one: Waiting[T]) -> None:
        self.bytes += one.size
        if one.key is None:
            self.alone += one.cost
        else:
            self.rows += one.rows

    def _left(self, one: Waiting[T]) -> None:
        self.bytes -= one.size
        if one.key is None:
            self.alone = self.alone - one.cost if self._all else 0.0
        else:
            self.rows -= one.rows


def too_late() -> HttpProblem:
    """Return what is said when the time of a request is over."""
    return HttpProblem(
        504,
        "the answer was not ready in time",
        code="deadline-exceeded",
        hint="Send fewer rows at a time, give it more time, or start the server with a larger --timeout.",
    )
