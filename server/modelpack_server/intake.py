"""Large bodies on their way from the socket to the memory that they are decoded from, without a stop between.

A body that the parser hands on in pieces is copied four times, and each copy of many megabytes costs as much as the
kernel's own. Memory is used again for the next body as soon as nobody holds what was made of the last one: fresh memory
is cleared by the kernel, page by page, which costs as much as another copy.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Protocol

import numpy as np

__all__ = ["Intake", "Rooms"]

# A piece of memory up to this size is kept for the next body, for so long.
KEPT = 64 * 2**20
KEPT_SECONDS = 10.0

_NOTHING = memoryview(b"")


class _Piece:
    """A piece of memory, and how to see that nobody else holds any part of it."""

    __slots__ = ("_alone", "memory")

    def __init__(self, size: int) -> None:
        # numpy gets memory from the system in large pages, and none before something is written to it.
        self.memory = np.empty(size, np.uint8)
        # Whatever looks at a part of the memory holds the whole of it. How many hold it when nobody does is counted by
        # the interpreter at hand, in the same words as later: versions of Python differ in what they count.
        self._alone = sys.getrefcount(self.memory)

    @property
    def free(self) -> bool:
        """Whether nobody holds it."""
        return sys.getrefcount(self.memory) <= self._alone


class Rooms:
    """Memory for bodies, of which the last piece is kept for a while."""

    def __init__(self) -> None:
        self._kept: _Piece | None = None
        self._taken = False
        self._timer: asyncio.TimerHandle | None = None

    def take(self, size: int) -> memoryview:
        """Return memory of this size for which nobody else has a use; what is in it is not defined."""
        piece = self._kept
        if piece is None or not size <= len(piece.memory) <= 2 * size or not piece.free:
            piece = _Piece(size)
        if len(piece.memory) <= KEPT:
            self._kept, self._taken = piece, True
            if self._timer is None:
                self._watch()
        return piece.memory[:size].data

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._look)

    def _look(self) -> None:
        """Give back memory that no body has taken since the last look."""
        if self._taken:
            self._taken = False
            self._watch()
        else:
            self._kept = self._timer = None


class Connection(Protocol):
    """What an intake asks of the connection that it reads for."""

    def grown(self) -> None:
        """Take note that more has come."""

    def taken_in(self) -> None:
        """Go on after the end of the body."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the client has left."""

    def eof_received(self) -> bool | None:
        """Take note that the client sends no more."""

    def pause_writing(self) -> None:
        """Write no more for now."""

    def resume_writing(self) -> None:
        """Write on."""


class Intake(asyncio.BufferedProtocol):
    """Reads the rest of a body, and nothing behind it, for a connection that goes on by itself afterwards."""

    def __init__(self, connection: Connection, rest: memoryview) -> None:
        self._connection = connection
        self._rest = rest

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to write what comes next."""
        return self._rest

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of what has come."""
        self._rest = self._rest[nbytes:]
        self._connection.grown()
        if not self._rest:
            # The transport may hold on to this object for as long as the connection lasts.
            self._rest = _NOTHING
            self._connection.taken_in()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._connection.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._connection.resume_writing()
