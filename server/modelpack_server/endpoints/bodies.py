"""The bytes of large bodies that a worker holds at a time, from their announcement to their answer."""

from __future__ import annotations

import threading

from modelpack_server.problems import HttpProblem

__all__ = ["Bodies", "Held", "NoRoom"]


class NoRoom(HttpProblem):
    """The body would be more than there is room for now."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            429,
            f"the server holds other large bodies, and takes {limit} bytes of them at a time",
            code="overloaded",
            hint="Send the request again a little later, or start the server with a larger --max-bodies.",
            headers={"Retry-After": "1", "Connection": "close"},
        )


class Bodies:
    """How many bytes are held, and may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        # Of bodies that are decompressed, threads count the bytes.
        self.lock = threading.Lock()

    def fits(self, size: int) -> bool:
        """Say whether there is room; for a single one there always is, whatever its size."""
        return not self.held or self.held + size <= self.limit


class Held:
    """What one request holds."""

    __slots__ = ("_bodies", "_size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def add(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            NoRoom: others hold too many.
        """
        bodies = self._bodies
        with bodies.lock:
            if bodies.held > self._size and bodies.held + size > bodies.limit:
                raise NoRoom(bodies.limit)
            bodies.held += size
            self._size += size

    def grow(self, size: int) -> None:
        """Hold so many bytes in all, if it was less.

        Raises:
            NoRoom: others hold too many.
        """
        if size > self._size:
            self.add(size - self._size)

    def release(self) -> None:
        """Hold nothing any more."""
        if self._size:
            with self._bodies.lock:
                self._bodies.held -= self._size
                self._size = 0
