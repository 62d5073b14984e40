"""Reading ahead: the next chunks are read and decoded in a thread while one is scored."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


class _End(Exception):
    """There is nothing more."""


def ahead(items: Iterator[T], depth: int) -> Generator[T]:
    """Yield what ``items`` yields, of which up to ``depth`` are made before they are asked for.

    What ``items`` raises is raised in its turn. Closing waits for the one that is being made.
    """
    made: queue.SimpleQueue[T | Exception] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def make() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                made.put(next(items))
        except StopIteration:
            made.put(_End())
        except Exception as exc:
            made.put(exc)

    thread = threading.Thread(target=make, name="modelpack-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), Exception):
            room.release()
            yield item
        if not isinstance(item, _End):
            raise item
    finally:
        stopped.set()
        room.release()
        thread.join()
        if isinstance(items, Generator):
            items.close()
