"""Rows that come for as long as they like, on the wire: JSON Lines, or the record batches of an Arrow stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Protocol

import pyarrow as pa

from modelpack.errors import InputError, OutputError
from modelpack_server.codecs.arrow_messages import BATCH, DICTIONARY, END, SCHEMA, Message, Splitter
from modelpack_server.codecs.shapes import ARROW, LINES
from modelpack_server.problems import HttpProblem

__all__ = ["ERROR", "Batches", "Lines", "Wire", "failed_line"]

# What the custom metadata of the last batch calls the problem.
ERROR = b"modelpack.error"
# The beginning of a message that does not come: no reader takes what was sent before for the whole.
_CUT = b"\xff\xff\xff\xff\x10\0\0\0"


def failed_line(problem: bytes) -> bytes:
    """Return the last line of an answer in lines in which something has gone wrong."""
    return b'{"error":%s}\n' % problem


class Wire(Protocol):
    """How rows come and answers go in one format; each object is for one request."""

    media: str

    def feed(self, piece: bytes, *, last: bool) -> Iterator[tuple[bytes, int]]:
        """Yield the bodies that are whole now, each as of a request of its own, and how many rows each has."""

    def reply(self, body: bytes) -> bytes:
        """Return what is sent of the answer to one of them."""

    def end(self) -> bytes:
        """Return what is sent behind the last answer."""

    def failed(self, problem: bytes) -> bytes:
        """Return what is sent instead, if something has gone wrong."""


class Lines:
    """A row a line; those that came together are one body, of ``rows`` at most. A line has ``most`` bytes at most."""

    media = LINES

    def __init__(self, most: int, rows: int) -> None:
        self._most = most
        self._rows = rows
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes, *, last: bool) -> Iterator[tuple[bytes, int]]:
        """Yield the lines that are whole."""
        cut = len(piece) if last else piece.rfind(b"\n") + 1
        if not cut and not last:
            self._held.append(piece)
            self._size += len(piece)
        else:
            whole = b"".join([*self._held, piece[:cut]])
            self._held, self._size = [piece[cut:]], len(piece) - cut
            lines = [line for line in whole.split(b"\n") if line.strip()]
            for start in range(0, len(lines), self._rows):
                part = lines[start : start + self._rows]
                yield b"\n".join(part), len(part)
        if self._size > self._most:
            raise HttpProblem(413, f"a line is longer than {self._most} bytes", code="body-too-large")

    def reply(self, body: bytes) -> bytes:
        """Return the lines of the answer."""
        return body

    def end(self) -> bytes:
        """Return nothing: lines have no end."""
        return b""

    def failed(self, problem: bytes) -> bytes:
        """Return a last line that says what went wrong."""
        return failed_line(problem)


class Batches:
    """A record batch at a time, with the schema and the dictionaries before it: ``most`` bytes together at most."""

    media = ARROW

    def __init__(self, most: int) -> None:
        self._most = most
        self._splitter = Splitter(most)
        self._schema = b""
        self._dictionaries: dict[int, list[bytes]] = {}
        # The bytes of both, and both as they stand before each batch: empty when they have changed.
        self._size = 0
        self._before = b""
        self._any = False
        self._answered = b""

    def feed(self, piece: bytes, *, last: bool) -> Iterator[tuple[bytes, int]]:
        """Yield the batches that are whole."""
        for message in self._splitter.feed(piece):
            if message.kind == BATCH and self._schema:
                self._any = True
                yield self._body(message.data), message.rows
            else:
                self._prepare(message)
        if self._splitter.ended and self._splitter.begun:
            raise InputError("something follows the end of the Arrow stream", code="arrow-invalid")
        if self._splitter.too_large:
            raise self._too_large()
        if last:
            if self._splitter.begun or not self._schema:
                raise InputError("the Arrow stream ends within a message", code="arrow-invalid")
            if not self._any:
                yield self._body(b""), 0

    def _prepare(self, message: Message) -> None:
        if message.kind == SCHEMA and not self._schema:
            self._schema = message.data
        elif message.kind == DICTIONARY and self._schema:
            number, more = message.dictionary
            parts = self._dictionaries.setdefault(number, [])
            if not more:
                self._size -= sum(map(len, parts))
                parts.clear()
            parts.append(message.data)
        else:
            raise InputError("the body is not Arrow IPC that can be read", code="arrow-invalid")
        self._before = b""
        self._size += len(message.data)
        self._check(self._size)

    def _body(self, batch: bytes) -> bytes:
        self._check(self._size + len(batch) + len(END))
        if not self._before:
            parts = chain.from_iterable(self._dictionaries.values())
            self._before = b"".join([self._schema, *parts])
        return b"".join([self._before, batch, END])

    def _check(self, size: int) -> None:
        if size > self._most:
            raise self._too_large()

    def _too_large(self) -> HttpProblem:
        message = f"a record batch, with its dictionaries, is larger than {self._most} bytes"
        return HttpProblem(413, message, code="body-too-large", hint="Send fewer rows in a batch.")

    def reply(self, body: bytes) -> bytes:
        """Return the messages of the answer; its schema is sent once.

        Raises:
            OutputError: the model answers with other columns than before (``output-changed``).
        """
        schema, *rest = [message.data for message in Splitter(len(body)).feed(body)]
        if self._answered and schema != self._answered:
            raise OutputError("the model answers with other columns than before", code="output-changed")
        first, self._answered = not self._answered, schema
        return b"".join([schema, *rest] if first else rest)

    def end(self) -> bytes:
        """Return the end of the stream."""
        return END

    def failed(self, problem: bytes) -> bytes:
        """Return a batch without rows that says what went wrong, and a message that is cut."""
        schema = pa.ipc.read_schema(pa.py_buffer(self._answered))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            empty = pa.RecordBatch.from_pylist([], schema=schema)
            writer.write_batch(empty, custom_metadata={ERROR: problem})
        whole = sink.getvalue().to_pybytes()
        batches = [message.data for message in Splitter(len(whole)).feed(whole) if message.kind == BATCH]
        return b"".join([*batches, _CUT])
