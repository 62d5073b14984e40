"""Whether somebody still waits for an answer: work that is done in parts asks between them, and a server tells."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import Any

from modelpack.errors import ModelError

__all__ = ["collected", "wanted_while"]

_still: ContextVar[Callable[[], bool] | None] = ContextVar("still", default=None)


@contextmanager
def wanted_while(still: Callable[[], bool]) -> Iterator[None]:
    """Let what is answered in this block be wanted as long as ``still`` says so; it is called in the same thread."""
    token = _still.set(still)
    try:
        yield
    finally:
        _still.reset(token)


def collected(pieces: Generator[Any, Any, Any]) -> list[Any]:
    """Return all pieces of an answer that the model makes piece by piece.

    Raises:
        ModelError: nobody waits for them any more, so the generator was closed (``answer-unwanted``).
    """
    still = _still.get()
    if still is None:
        return list(pieces)
    found = []
    with closing(pieces):
        for piece in pieces:
            if not still():
                raise ModelError("nobody waits for the answer any more", code="answer-unwanted")
            found.append(piece)
    return found
