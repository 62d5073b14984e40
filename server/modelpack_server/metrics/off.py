"""A meter that counts nothing: for servers that were told not to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.types import Message, Receive, Scope

from modelpack_server.metrics.meter import Meter, Queue, Visit

__all__ = ["Off"]

T = TypeVar("T")


class Off(Meter):
    """Has no page."""

    def __init__(self) -> None:
        self.open = 0

    def watch(self, queue: Queue) -> None:
        """Do nothing."""

    def publish(self) -> None:
        """Do nothing."""

    def begin(self) -> float:
        """Do nothing."""
        return 0.0

    def answered(self, status: int, began: float, size: int) -> None:
        """Do nothing."""

    def left(self) -> None:
        """Do nothing."""

    def refused(self, status: int) -> None:
        """Do nothing."""

    def visit(self, scope: Scope, path: str, receive: Receive) -> Visit:
        """Return a counter that does nothing."""
        return _Unseen(receive)

    def gathering(self, work: Callable[[Sequence[T]], Sequence[Any]]) -> Callable[[Sequence[T]], Sequence[Any]]:
        """Return what was given."""
        return work

    def predicted(self, began: float, rows: int, failure: BaseException | None = None) -> None:
        """Do nothing."""


class _Unseen(Visit):
    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def receive(self) -> Message:
        return await self._receive()

    def answers(self, status: int) -> None:
        pass

    def end(self, whole: int) -> None:
        pass
