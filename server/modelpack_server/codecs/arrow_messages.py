"""Arrow IPC as messages: a stream cut into whole ones while it comes, and what the head of each says.

The layout is Message.fbs and "Encapsulated message format" of the Arrow format.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from modelpack.errors import InputError

__all__ = ["BATCH", "DICTIONARY", "END", "SCHEMA", "Message", "Splitter", "at", "field"]

SCHEMA, DICTIONARY, BATCH = 1, 2, 3
END = b"\xff\xff\xff\xff\0\0\0\0"
# Before Arrow 0.15 an end was shorter.
_ENDS = (END, b"\0\0\0\0")
_CONTINUED = 0xFFFFFFFF


def at(meta: memoryview, place: int) -> int:
    """Follow an offset."""
    (offset,) = struct.unpack_from("<I", meta, place)
    return int(place + offset)


def field(meta: memoryview, table: int, slot: int) -> int:
    """Return where a field of a table is, 0 if it is not there."""
    (back,) = struct.unpack_from("<i", meta, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", meta, vtable)
    if 4 + 2 * slot >= size:
        return 0
    (offset,) = struct.unpack_from("<H", meta, vtable + 4 + 2 * slot)
    return table + offset if offset else 0


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message: ``kind`` of its header, and for a batch its ``rows``.

    ``dictionary``: which one it is of, and whether it adds to what was sent of it before.
    """

    data: bytes
    kind: int
    rows: int = 0
    dictionary: tuple[int, bool] = (0, False)


class Splitter:
    """Takes a stream of messages piece by piece; a message may have ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self.ended = False
        self._most = most
        self._held = bytearray()

    @property
    def begun(self) -> bool:
        """Whether a message has begun that is not whole."""
        return bool(self._held)

    @property
    def too_large(self) -> bool:
        """Whether that message is larger than one may be."""
        return (self._needs() or 0) > self._most

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that are whole now, up to the first that is too large.

        Raises:
            InputError: this is no stream of messages (``arrow-invalid``).
        """
        self._held += data
        while not self.ended:
            size = self._needs()
            if size is None or size > self._most or len(self._held) < size:
                return
            message, self._held = bytes(self._held[:size]), self._held[size:]
            if message in _ENDS:
                self.ended = True
                return
            start, length = _prefix(message)
            yield _told(message, memoryview(message)[start : start + length])

    def _needs(self) -> int | None:
        """Return how many bytes the next message has; None while that cannot be told."""
        held = memoryview(self._held)
        try:
            if bytes(held[:4]) == b"\0\0\0\0":
                return 4
            if len(held) < 8:
                return None
            start, length = _prefix(held)
            if length > self._most:
                return start + length
            if len(held) < start + length:
                return None
            return start + length + (_body(held[start : start + length]) if length else 0)
        finally:
            held.release()


def _prefix(data: bytes | memoryview) -> tuple[int, int]:
    """Return where the metadata of a message begins and how long it is; before Arrow 0.15 nothing stood before that."""
    first, second = struct.unpack_from("<II", data, 0)
    return (8, second) if first == _CONTINUED else (4, first)


def _body(meta: memoryview) -> int:
    with _damaged():
        place = field(meta, at(meta, 0), 3)
        (length,) = struct.unpack_from("<q", meta, place) if place else (0,)
        if length < 0:
            raise IndexError
    return int(length)


def _told(data: bytes, meta: memoryview) -> Message:
    with _damaged():
        root = at(meta, 0)
        place, header = field(meta, root, 1), field(meta, root, 2)
        kind = meta[place] if place else 0
        if not header or kind not in (DICTIONARY, BATCH):
            return Message(data, kind)
        table = at(meta, header)
        first = field(meta, table, 0)
        (number,) = struct.unpack_from("<q", meta, first) if first else (0,)
        if kind == BATCH:
            if number < 0:
                raise IndexError
            return Message(data, kind, rows=number)
        delta = field(meta, table, 2)
        return Message(data, kind, dictionary=(number, bool(delta and meta[delta])))


@contextlib.contextmanager
def _damaged() -> Iterator[None]:
    """Say of whatever points outside of a message that it is damaged."""
    try:
        yield
    except (struct.error, IndexError) as exc:
        raise InputError("the body is not Arrow IPC that can be read", code="arrow-invalid") from exc
