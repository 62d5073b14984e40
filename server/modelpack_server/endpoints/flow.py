"""Answers that begin before they end: rows answered as they come, and answers that the model makes piece by piece.

The first fault that is known before anything was sent is an ordinary problem. After that the status has been sent, so
the last line (or event, or batch) tells what went wrong, and the answer ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send

from modelpack import coerce
from modelpack.errors import InputError
from modelpack_server import problems
from modelpack_server.codecs import json_body
from modelpack_server.codecs.lines_apart import at_row
from modelpack_server.codecs.shapes import LINES
from modelpack_server.endpoints.state import State, stopping
from modelpack_server.endpoints.wires import Batches, Lines, Wire, failed_line
from modelpack_server.invocation import Batcher, Request, Streamer, coerced, too_late
from modelpack_server.problems import HttpProblem

__all__ = ["EVENTS", "Flow"]

EVENTS = "text/event-stream"
# How often a stream that waits for its client looks whether the server stops, and one that must wait asks again.
LOOK_SECONDS = 0.25
AGAIN_SECONDS = 0.02
_END = object()


class Flow:
    """What is behind ``/invocations`` for answers in parts; ``most`` is the size of a line at most, in bytes."""

    def __init__(self, model: Any, batcher: Batcher[Request], state: State, *, most: int, rows: int) -> None:
        self.model = model
        self.batcher = batcher
        self.state = state
        self.most = most
        self.rows = rows
        self._closing: set[asyncio.Future[Any]] = set()

    @property
    def in_pieces(self) -> bool:
        """Whether the model can answer piece by piece."""
        return bool(getattr(self.model, "streams", False))

    def wire(self, media: str) -> Wire:
        """Return how rows of a media type come, for one request."""
        return Lines(self.most, self.rows) if media == LINES else Batches(self.most)

    async def answered(
        self, known_as: str, wire: Wire, query: Mapping[str, Any] | None, timeout: float, io: tuple[Receive, Send]
    ) -> None:
        """Answer rows as they come, in order, each as soon as it is there; no faster than the answers are taken."""
        receive, send = io
        row = 0

        async def replies() -> AsyncIterator[bytes]:
            nonlocal row
            async for page, count in self._pages(wire, receive):
                request = Request(wire.media, page, query, wire.media)
                try:
                    # A batch may claim any number of rows: no more are believed than it has bits.
                    likely = min(count, 8 * len(page))
                    yield wire.reply(await self._score(request, likely, timeout, patient=row > 0))
                except InputError as exc:
                    raise _later(exc, row) from exc
                row += count
            yield wire.end()

        await _send(replies(), known_as, wire.media, wire.failed, send)

    async def _score(self, request: Request, rows: int, timeout: float, *, patient: bool) -> bytes:
        """Score one page; who has begun waits for a place, instead of being sent away."""
        while True:
            try:
                reply: bytes = await self.batcher.put(request, key=None, rows=rows, timeout=timeout)
                return reply
            except HttpProblem as exc:
                if exc.status != 429 or not patient:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)

    async def _pages(self, wire: Wire, receive: Receive) -> AsyncIterator[tuple[bytes, int]]:
        """Yield what is whole of the body, some at a time, and how many rows it is."""
        more = True
        while more:
            message = await self._next(receive)
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            for page in wire.feed(message.get("body", b""), last=not more):
                yield page

    async def _next(self, receive: Receive) -> Message:
        """Return what comes next, unless the server is told to stop first."""
        coming = asyncio.ensure_future(receive())
        try:
            while not coming.done():
                if self.state.draining:
                    raise stopping()
                await asyncio.wait({coming}, timeout=LOOK_SECONDS)
            return coming.result()
        finally:
            coming.cancel()

    async def pieces(self, known_as: str, request: Request, timeout: float, io: tuple[Receive, Send]) -> None:
        """Answer with the pieces that the model makes, as events or lines; who leaves ends the work."""
        receive, send = io
        self.batcher.admit(timeout=timeout)
        answer = _Pieces(self.model, request)
        left = asyncio.ensure_future(receive())

        async def replies() -> AsyncIterator[bytes]:
            wait = timeout
            while True:
                piece = await self._attended(self.batcher.run(answer.next), left, wait)
                if piece is _END:
                    break
                yield b"data: %s\n\n" % piece if request.reply == EVENTS else piece + b"\n"
                wait = math.inf
                if self.state.draining:
                    raise stopping()
            if request.reply == EVENTS:
                yield b"event: end\ndata: {}\n\n"

        try:
            await _send(replies(), known_as, request.reply, _event if request.reply == EVENTS else failed_line, send)
        finally:
            left.cancel()
            request.body = b""
            # Its turn comes after what may still be running; nobody waits for it.
            closing = asyncio.ensure_future(self.batcher.run(answer.close))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _attended(self, piece: Awaitable[Any], left: asyncio.Future[Message], seconds: float) -> Any:
        """Return the piece, unless its client leaves or its time is over."""
        coming = asyncio.ensure_future(piece)
        patience = None if math.isinf(seconds) else max(seconds, 0)
        await asyncio.wait((coming, left), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if coming.done() and not left.done():
            return await coming
        coming.cancel()
        raise ClientDisconnect if left.done() else too_late()


class _Pieces:
    """The answer of a model that makes one piece after the other, each as JSON."""

    def __init__(self, model: Streamer, request: Request) -> None:
        self._model = model
        self._request = request
        self._made: Iterator[Any] | None = None
        self._lock = threading.Lock()

    def next(self) -> Any:
        """Return the next piece, or the end."""
        with self._lock:
            if self._made is None:
                decoded = self._request.decode(self._model.signature)
                frame, params = coerced(decoded, decoded.params, self._model.signature)
                self._made = self._model.score_stream(frame, params)
            piece = next(self._made, _END)
        return piece if piece is _END else json_body.encode_piece(coerce.outputs(piece, None))

    def close(self) -> None:
        """Let the model end its work."""
        with self._lock:
            close: Callable[[], None] | None = getattr(self._made, "close", None)
            if close is not None:
                with contextlib.suppress(Exception):
                    close()


def _event(problem: bytes) -> bytes:
    return b"event: error\ndata: %s\n\n" % problem


async def _send(
    replies: AsyncIterator[bytes], known_as: str, media: str, failed: Callable[[bytes], bytes], send: Send
) -> None:
    """Send the parts of an answer; the status goes with the first of them."""
    headers = [(b"content-type", media.encode()), (b"cache-control", b"no-cache")]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    started = False
    try:
        async for reply in replies:
            if not started:
                await send(start)
                started = True
            await send({"type": "http.response.body", "body": reply, "more_body": True})
    except ClientDisconnect:
        raise
    except Exception as exc:
        if not started:
            raise
        last = failed(bytes(problems.respond(exc, known_as).body))
        await send({"type": "http.response.body", "body": last, "more_body": False})
        return
    if not started:
        await send(start)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _later(exc: InputError, rows: int) -> InputError:
    """Return the error with its rows counted from the start of the stream."""
    if not rows:
        return exc
    return InputError.from_faults(
        [at_row(fault, fault.row + rows) if fault.row is not None else fault for fault in exc.faults]
    )
