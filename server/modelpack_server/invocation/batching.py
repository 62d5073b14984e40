"""Gathering requests into one call of the model: at once when it is idle, together what came while it was busy.

Nothing is timed and nothing is polled. What arrives in one turn of the event loop is taken together; what arrives
while predictions run waits for the first of them to end. A prediction that is known to be quick runs on the loop
itself, without a hop to a thread; how long one takes is measured all the time, so a model that turns slow moves to the
threads by itself and other clients never wait for it on the loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

from modelpack.wanted import wanted_while
from modelpack_server.invocation.costs import Costs
from modelpack_server.invocation.waiting import Line, Reply, Waiting, too_late
from modelpack_server.problems import HttpProblem

__all__ = ["Batcher", "Limits", "Reply", "too_late"]

T = TypeVar("T")

# So few requests may be worked on or wait however long they take: they are a few clients, no overload.
FEW = 32
# How many times as long as a long call an answer may take, if there are more.
PATIENCE = 1.75
# A prediction that is expected to take longer than this runs in a thread.
INLINE_SECONDS = 0.005
# How much work the threads are given ahead, so that they need not wait for a loop that looks at many clients. One more
# call on the loop itself is made under the same condition: that looking at the clients took SHARE of this time.
AHEAD_SECONDS, SHARE = 0.05, 0.25
# No loop counts further than this.
LONGEST = 1e8


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What is gathered and what may wait.

    ``batch_rows``: rows of one call of the model at most, unless one request has more. ``queue``, ``queue_rows`` and
    ``queue_bytes``: requests, rows and bytes that may wait for the model; what comes then is refused. So is what comes
    when more waits than one long call does, by what calls have taken so far, unless only few wait. ``threads``: calls
    of the model at a time. ``inline``: whether quick calls may run on the event loop.
    """

    threads: int = 1
    batch_rows: int = 1024
    queue: int = 512
    queue_rows: int = 1_000_000
    queue_bytes: int = 256 * 2**20
    inline: bool = True


class Batcher(Generic[T]):
    """Runs ``work`` on requests: a list of those that belong together in, a reply or an exception for each out.

    ``work`` may be called in several threads at a time and must not raise.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[Any]], limits: Limits) -> None:
        self._work = work
        self._limits = limits
        self._executor = ThreadPoolExecutor(max_workers=limits.threads, thread_name_prefix="invocation")
        self._line: Line[T] = Line()
        self._busy = 0
        self._members = 0
        self._scheduled = False
        # Whether some may wait whose time nobody watches, since they were about to be done.
        self._unwatched = False
        # The seconds of work that the threads have been given, and when they will have done it.
        self._given = 0.0
        self._until = 0.0
        # How many requests are in each call that has been given to them before they could begin it.
        self._ahead: deque[int] = deque()
        # When the loop had time for its clients last, while more waited.
        self._rested = math.inf
        self.costs = Costs()
        self._kinds: dict[str, Costs] = {}

    @property
    def running(self) -> int:
        """How many requests are being worked on or wait."""
        return self._members + len(self._line)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many requests wait, and their rows, as far as these are known."""
        return len(self._line) + sum(self._ahead), self._line.all_rows()

    @property
    def delay(self) -> float:
        """The seconds after which all that is here will have been worked on, by what calls have taken so far."""
        waiting = (self._line.alone + self._line.rows * self.costs.per_row) / self._limits.threads
        return waiting + max(0.0, self._until - perf_counter()) if self._busy else waiting

    def admit(self, rows: int = 0, timeout: float = math.inf, size: int = 0) -> None:
        """Refuse what would wait too long.

        Raises:
            HttpProblem: 429, too much is waiting already.
        """
        if (self._busy or self._line) and self._full(rows, timeout, size):
            self._line.sweep(asyncio.get_running_loop().time())
            if self._full(rows, timeout, size):
                raise _overloaded()

    def _full(self, rows: int, timeout: float, size: int) -> bool:
        line, limits, waiting = self._line, self._limits, len(self._line) + sum(self._ahead)
        if waiting and (
            waiting >= limits.queue or line.rows + rows > limits.queue_rows or line.bytes + size > limits.queue_bytes
        ):
            return True
        patience = timeout
        if self.running >= FEW:
            patience = min(timeout, PATIENCE * self.costs.longest - self.costs.call)
        return self.delay > patience

    def put(self, item: T, *, key: Hashable | None, rows: int, timeout: float) -> asyncio.Future[Any]:
        """Take a request as :meth:`take` does, and return the future of its reply."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.take(item, key=key, rows=rows, timeout=timeout, reply=reply)
        return reply

    def take(
        self,
        item: T,
        *,
        key: Hashable | None,
        rows: int,
        timeout: float,
        reply: Reply,
        size: int = 0,
        kind: str = "",
    ) -> bool:
        """Take a request; requests with equal keys may be worked on together, None keeps one alone.

        Returns whether it will be done as soon as the loop comes round.

        ``rows`` is 0 as long as nobody knows: then requests of one ``kind`` are measured by their ``size``, in bytes.
        ``reply`` is set later, on the event loop, unless it is done before.

        Raises:
            HttpProblem: 429, too much is waiting already. A reply that is not begun ``timeout`` seconds later is a 504.
        """
        self.admit(rows, timeout, size)
        loop = asyncio.get_running_loop()
        one = Waiting(item, key, rows, loop.time() + timeout, reply)
        one.size = size
        one.costs, one.amount = self._measure(rows, size, kind)
        if key is None:
            one.cost = one.costs.alone(one.amount)
        self._line.join(one)
        quick = self._quick(one.costs, one.amount)
        if quick:
            self._unwatched = True
        elif timeout < LONGEST:
            one.timer = loop.call_at(one.deadline, one.expire)
        if not self._scheduled and self._may_begin():
            self._scheduled = True
            # Not now: what else has arrived in this turn of the loop is put before its end.
            loop.call_soon(self._dispatch, loop)
        return quick

    async def run(self, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns in a thread of the model's, when its turn comes: a piece of a longer answer."""
        loop = asyncio.get_running_loop()
        if self._busy >= self._limits.threads:
            self._ahead.append(1)
        self._busy += 1
        self._members += 1
        future = self._executor.submit(call)
        future.add_done_callback(lambda done: loop.is_closed() or loop.call_soon_threadsafe(self._turn, loop))
        return await asyncio.wrap_future(future)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._freed()
        self._members -= 1
        self._dispatch(loop)

    def _freed(self) -> None:
        """Take note that a thread has time, for the next of the calls it was given."""
        self._busy -= 1
        if self._ahead:
            self._ahead.popleft()

    def close(self) -> None:
        """Take no more work; what runs goes on."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _quick(self, costs: Costs, amount: int) -> bool:
        return self._limits.inline and not self._busy and costs.expected(amount) < INLINE_SECONDS

    def _measure(self, rows: int, size: int, kind: str) -> tuple[Costs, int]:
        """Return what requests like this have cost, and how much of it this one is."""
        if rows or not kind:
            return self.costs, rows
        return self._kinds.setdefault(kind, Costs()), size

    def _may_begin(self) -> bool:
        """Say whether a call can begin, or be given to a thread before it has done the one before.

        The latter only if nothing would be gained by waiting: there is as much as one call takes, and it is known how
        long that is.
        """
        if self._busy < self._limits.threads:
            return True
        if not 0 < self._given < AHEAD_SECONDS * self._limits.threads:
            return False
        return self._line.first_alone() or self._line.rows >= self.costs.worthwhile(self._limits.batch_rows)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        start = perf_counter()
        looked, self._rested = start - self._rested, math.inf
        while self._line and self._may_begin():
            batch = self._line.take(loop.time(), self.costs.worthwhile(self._limits.batch_rows))
            if not batch:
                continue
            first = batch[0]
            alone = len(batch) == 1
            costs, amount = (first.costs, first.amount) if alone else (self.costs, sum(one.rows for one in batch))
            self._members += len(batch)
            if not self._quick(costs, amount):
                self._give(loop, batch, costs, amount)
                continue
            self._reply(batch, self._timed([one.item for one in batch], costs, amount))
            now = perf_counter()
            if self._line and now - start > min(looked / SHARE, AHEAD_SECONDS):
                # Sockets are looked at between any two calls of the model, unless that takes long by itself.
                self._scheduled, self._rested = True, now
                loop.call_soon(self._dispatch, loop)
                return
        if self._busy and self._unwatched:
            # What is still in the line waits for a thread, for nobody knows how long.
            self._unwatched = False
            self._line.watch(loop, LONGEST)

    def _give(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting[T]], costs: Costs, amount: int) -> None:
        """Let a thread do it."""
        for one in batch:
            if one.timer is None:
                one.watch(loop, LONGEST)
        seconds = costs.alone(amount)
        if self._busy >= self._limits.threads:
            self._ahead.append(len(batch))
        self._busy += 1
        self._given += seconds
        self._until = max(self._until, perf_counter()) + seconds / self._limits.threads
        future = self._executor.submit(self._wanted, batch, costs, amount)
        future.add_done_callback(lambda done: self._ended(loop, batch, seconds, done))

    def _wanted(self, batch: list[Waiting[T]], costs: Costs, amount: int) -> Sequence[Any]:
        """Do it, if anybody still waits for it by now."""
        if all(one.reply.done() for one in batch):
            return [None] * len(batch)
        with wanted_while(lambda: not all(one.reply.done() for one in batch)):
            return self._timed([one.item for one in batch], costs, amount)

    def _timed(self, items: Sequence[T], costs: Costs, amount: int) -> Sequence[Any]:
        start = perf_counter()
        replies = self._work(items)
        seconds = perf_counter() - start
        # What was refused without a call of the model says nothing of how quick the model is.
        if seconds > costs.expected(amount) or not any(isinstance(reply, BaseException) for reply in replies):
            costs.add(amount, seconds)
        return replies

    def _ended(
        self, loop: asyncio.AbstractEventLoop, batch: list[Waiting[T]], seconds: float, done: Future[Sequence[Any]]
    ) -> None:
        """Bring the replies of a thread back to the loop, which may be gone when the server was told not to wait."""
        if not loop.is_closed() and not done.cancelled():
            loop.call_soon_threadsafe(self._next, loop, batch, seconds, done)

    def _next(
        self, loop: asyncio.AbstractEventLoop, batch: list[Waiting[T]], seconds: float, done: Future[Sequence[Any]]
    ) -> None:
        self._freed()
        self._given = max(0.0, self._given - seconds) if self._busy else 0.0
        self._until = perf_counter() + self._given / self._limits.threads
        failed = done.exception()
        replies = done.result() if failed is None else [failed] * len(batch)
        self._reply(batch, replies)
        self._dispatch(loop)

    def _reply(self, batch: list[Waiting[T]], replies: Sequence[Any]) -> None:
        self._members -= len(batch)
        for one, reply in zip(batch, replies, strict=True):
            one.disarm()
            if one.reply.done():
                continue
            if isinstance(reply, BaseException):
                one.reply.set_exception(reply)
            else:
                one.reply.set_result(reply)


def _overloaded() -> HttpProblem:
    return HttpProblem(
        429,
        "more requests are waiting than the server takes",
        code="overloaded",
        hint="Send the request again a little later.",
        headers={"Retry-After": "1"},
    )
