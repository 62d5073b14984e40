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
from typing import Any, Generic, Protocol, TypeVar

from modelpack_server.invocation.costs import Costs
from modelpack_server.problems import HttpProblem

__all__ = ["Batcher", "Limits", "Reply", "too_late"]

T = TypeVar("T")

# So few requests may wait however long they take: they are a few clients, no overload.
FEW = 32
# How often those that nobody waits for are looked for, when there is no room.
SWEEP_SECONDS = 0.05
# A prediction that is expected to take longer than this runs in a thread.
INLINE_SECONDS = 0.005
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


class Reply(Protocol):
    """Where the reply to a request goes: a future, or what behaves like one."""

    def done(self) -> bool:
        """Say whether nobody waits for it any more."""

    def set_result(self, reply: Any, /) -> None:
        """Take the reply."""

    def set_exception(self, problem: BaseException, /) -> None:
        """Take the reason why there is none."""


class _Waiting(Generic[T]):
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


class Batcher(Generic[T]):
    """Runs ``work`` on requests: a list of those that belong together in, a reply or an exception for each out.

    ``work`` may be called in several threads at a time and must not raise.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[Any]], limits: Limits) -> None:
        self._work = work
        self._limits = limits
        self._executor = ThreadPoolExecutor(max_workers=limits.threads, thread_name_prefix="invocation")
        self._queue: deque[_Waiting[T]] = deque()
        self._rows = 0
        self._alone = 0.0
        self._bytes = 0
        self._swept = -math.inf
        self._busy = 0
        self._members = 0
        self._scheduled = False
        self.costs = Costs()
        self._kinds: dict[str, Costs] = {}

    @property
    def running(self) -> int:
        """How many requests are being worked on or wait."""
        return self._members + len(self._queue)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many requests wait, and their rows, as far as these are known."""
        return len(self._queue), sum(one.rows for one in self._queue)

    @property
    def delay(self) -> float:
        """The seconds after which what waits now will have been worked on, by what calls have taken so far."""
        return (self._alone + self._rows * self.costs.per_row) / self._limits.threads

    def admit(self, rows: int = 0, timeout: float = math.inf, size: int = 0) -> None:
        """Refuse what would wait too long.

        Raises:
            HttpProblem: 429, too much is waiting already.
        """
        if self._queue and self._full(rows, timeout, size):
            self._sweep(asyncio.get_running_loop().time())
            if self._full(rows, timeout, size):
                raise _overloaded()

    def _full(self, rows: int, timeout: float, size: int) -> bool:
        waiting, limits = len(self._queue), self._limits
        # With the call that is running and its own, no answer takes longer than about three calls.
        patience = min(self.costs.longest, timeout) if waiting >= FEW else timeout
        if waiting >= limits.queue or self._rows + rows > limits.queue_rows or self._bytes + size > limits.queue_bytes:
            return True
        return self.delay > patience

    def _sweep(self, now: float) -> None:
        """Forget requests that nobody waits for any more; not each time, for to refuse must cost next to nothing."""
        if now < self._swept + SWEEP_SECONDS:
            return
        self._swept = now
        waiting = list(self._queue)
        self._queue.clear()
        self._rows, self._bytes, self._alone = 0, 0, 0.0
        for one in waiting:
            if one.reply.done():
                _disarm(one)
            else:
                self._queue.append(one)
                self._joined(one)

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
        one = _Waiting(item, key, rows, loop.time() + timeout, reply)
        self._queue.append(one)
        one.size = size
        one.costs, one.amount = self._measure(rows, size, kind)
        if key is None:
            one.cost = one.costs.alone(one.amount)
        self._joined(one)
        quick = self._quick(one.costs, one.amount)
        if timeout < LONGEST and not quick:
            one.timer = loop.call_at(one.deadline, _expire, one)
        if not self._scheduled and self._busy < self._limits.threads:
            self._scheduled = True
            # Not now: what else has arrived in this turn of the loop is put before its end.
            loop.call_soon(self._dispatch, loop)
        return quick

    async def run(self, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns in a thread of the model's, when its turn comes: a piece of a longer answer."""
        loop = asyncio.get_running_loop()
        self._busy += 1
        self._members += 1
        future = self._executor.submit(call)
        future.add_done_callback(lambda done: loop.is_closed() or loop.call_soon_threadsafe(self._turn, loop))
        return await asyncio.wrap_future(future)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._busy -= 1
        self._members -= 1
        self._dispatch(loop)

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

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        while self._queue and self._busy < self._limits.threads:
            batch = self._take(loop.time())
            if not batch:
                continue
            items, first = [one.item for one in batch], batch[0]
            alone = len(batch) == 1
            costs, amount = (first.costs, first.amount) if alone else (self.costs, sum(one.rows for one in batch))
            self._members += len(batch)
            if self._quick(costs, amount):
                self._reply(batch, self._timed(items, costs, amount))
                if self._queue:
                    # Sockets are looked at between any two calls of the model.
                    self._scheduled = True
                    loop.call_soon(self._dispatch, loop)
                return
            self._busy += 1
            future = self._executor.submit(self._timed, items, costs, amount)
            future.add_done_callback(lambda done, batch=batch: self._ended(loop, batch, done))  # type: ignore[misc]

    def _take(self, now: float) -> list[_Waiting[T]]:
        """Take the oldest request that is still wanted and what may go with it; the others keep their order."""
        batch: list[_Waiting[T]] = []
        others: list[_Waiting[T]] = []
        key: Hashable | None = None
        room = self.costs.worthwhile(self._limits.batch_rows)
        while self._queue:
            one = self._queue.popleft()
            self._left(one)
            if one.reply.done():
                _disarm(one)
            elif one.deadline < now:
                _expire(one)
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
            self._queue.appendleft(one)
            self._joined(one)
        return batch

    def _joined(self, one: _Waiting[T]) -> None:
        """Take note that a request waits."""
        self._bytes += one.size
        if one.key is None:
            self._alone += one.cost
        else:
            self._rows += one.rows

    def _left(self, one: _Waiting[T]) -> None:
        """Take note that a request waits no longer."""
        self._bytes -= one.size
        if one.key is None:
            self._alone = self._alone - one.cost if self._queue else 0.0
        else:
            self._rows -= one.rows

    def _timed(self, items: Sequence[T], costs: Costs, amount: int) -> Sequence[Any]:
        start = perf_counter()
        replies = self._work(items)
        seconds = perf_counter() - start
        # What was refused without a call of the model says nothing of how quick the model is.
        if seconds > costs.expected(amount) or not any(isinstance(reply, BaseException) for reply in replies):
            costs.add(amount, seconds)
        return replies

    def _ended(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting[T]], done: Future[Sequence[Any]]) -> None:
        """Bring the replies of a thread back to the loop, which may be gone when the server was told not to wait."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._next, loop, batch, done)

    def _next(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting[T]], done: Future[Sequence[Any]]) -> None:
        self._busy -= 1
        failed = done.exception()
        self._reply(batch, done.result() if failed is None else [failed] * len(batch))
        self._dispatch(loop)

    def _reply(self, batch: list[_Waiting[T]], replies: Sequence[Any]) -> None:
        self._members -= len(batch)
        for one, reply in zip(batch, replies, strict=True):
            if one.timer is not None:
                one.timer.cancel()
            if one.reply.done():
                continue
            if isinstance(reply, BaseException):
                one.reply.set_exception(reply)
            else:
                one.reply.set_result(reply)


def _disarm(one: _Waiting[Any]) -> None:
    if one.timer is not None:
        one.timer.cancel()


def _expire(one: _Waiting[Any]) -> None:
    """Tell a client that its time is over; what a thread still makes of its request is thrown away."""
    _disarm(one)
    if not one.reply.done():
        one.reply.set_exception(too_late())


def too_late() -> HttpProblem:
    """Return what is said when the time of a request is over."""
    return HttpProblem(
        504,
        "the answer was not ready in time",
        code="deadline-exceeded",
        hint="Send fewer rows at a time, give it more time, or start the server with a larger --timeout.",
    )


def _overloaded() -> HttpProblem:
    return HttpProblem(
        429,
        "more requests are waiting than the server takes",
        code="overloaded",
        hint="Send the request again a little later.",
        headers={"Retry-After": "1"},
    )
