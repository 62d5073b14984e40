"""Scoring several chunks at a time, in threads, with the results in the order of the chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from modelpack_server.cores import usable_cores

__all__ = ["jobs", "together"]

T = TypeVar("T")
R = TypeVar("R")

# One thread reads and one writes, so that more calls than this would hold memory and wait for these.
_MOST = 8


def jobs(trust: str | None, asked: int | None = None) -> int:
    """Return how many calls of a model of this class of trust are made at a time, unless a number is asked for."""
    return asked or (1 if trust == "code" else min(usable_cores(), _MOST))


def together(work: Callable[[T], R], items: Iterator[T], calls: int) -> Generator[R]:
    """Yield ``work(item)`` for each item, in their order, with up to ``calls`` calls under way at a time.

    At most ``calls`` items and results are held besides the one that is yielded. What a call raises is raised in its
    turn, and so is what ``items`` raises. Closing begins no more calls and waits for those that are under way.
    """
    if calls == 1:
        # In this very thread: some models may be called only in the one they were loaded in.
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(calls, thread_name_prefix="modelpack-score")
    begun: deque[Future[R]] = deque()
    failed: Exception | None = None
    try:
        while True:
            try:
                begun.append(pool.submit(work, next(items)))
            except StopIteration:
                break
            except Exception as exc:
                # What was read before may be wrong too; then that is what is said, as with one call at a time.
                failed = exc
                break
            if len(begun) > calls:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
        if failed is not None:
            raise failed
    finally:
        pool.shutdown(cancel_futures=True)
