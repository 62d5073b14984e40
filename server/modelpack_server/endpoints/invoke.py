"""``POST /invocations``: from the bytes of a request to the bytes of its reply with as little between as there can be.

A plain ASGI app: no request object, no router, headers looked at once. What the headers of one client say is worked out
once and remembered, since clients repeat themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from modelpack.errors import InputError
from modelpack.signature import Signature
from modelpack_server import problems
from modelpack_server.codecs import DECODERS, compression, json_body, possible
from modelpack_server.codecs.negotiation import choose, content_type
from modelpack_server.codecs.shapes import ARROW, LINES
from modelpack_server.endpoints.bodies import Bodies, Held, NoRoom
from modelpack_server.endpoints.flow import EVENTS, Flow
from modelpack_server.intake import Rooms
from modelpack_server.invocation import JSON, Batcher, Reply, Request, key, rows_of
from modelpack_server.problems import HttpProblem

if TYPE_CHECKING:
    from modelpack_server.exchange import Exchange

__all__ = ["BODY", "PATIENT", "Hot", "Terms", "replies"]

# How long the rest of a body that is too large is read and thrown away, so that its sender gets to see the 413
# instead of a reset connection.
LINGER_SECONDS = 5.0
# Text up to this size is decoded on the event loop, so that it can be gathered; all else in a thread, alone.
SMALL = 64 * 1024
# A larger body up to this size is decoded and scored on the event loop too where its like have been quick: a hop to a
# thread, and two threads that take turns, cost more than a quick request itself.
MEDIUM = 512 * 1024
TEXT = frozenset({JSON, "text/csv"})
# Formats whose decoders take a view of memory as they take bytes; the rest of a body of this size is read into one. So
# is a JSON body that is not small: what comes in pieces is read with a pause after each.
VIEWED = frozenset({"application/vnd.apache.arrow.stream", "application/x-npy"})
LARGE = 2**20
# Where in the scope our own protocol leaves such a body, once the whole of it is there.
BODY = "modelpack.body"
# That a request may come with pauses of any length: its rows are answered as they come.
PATIENT = "modelpack.patient"
# How many different heads of requests are remembered.
REMEMBERED = 256

# What requests with the same columns in the usual order have in common.
USUAL = "usual"
_WANTED = frozenset({b"content-type", b"content-encoding", b"accept", b"x-request-timeout"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What the head of a request says: the formats of body and reply, and the seconds it may take."""

    media: str
    encoding: str
    reply: str
    timeout: float
    headers: tuple[tuple[bytes, bytes], ...]
    head: bytes
    # "rows" that are answered as they come, "batches" that are if the length of the body is not told, "pieces" that the
    # model makes, or "": all at once
    parts: str


class Hot:
    """The app behind ``/invocations``."""

    def __init__(
        self,
        signature: Signature,
        batcher: Batcher[Request],
        flow: Flow,
        bodies: Bodies,
        *,
        max_body: int,
        timeout: float,
        gather: bool,
    ) -> None:
        self.signature = signature
        self.replies = replies(signature, in_pieces=flow.in_pieces)
        self.batcher = batcher
        self.flow = flow
        self.bodies = bodies
        self.max_body = max_body
        self.timeout = timeout or math.inf
        self.gather = gather
        self._changing = any(param.changes_outputs for param in signature.params)
        self._json = json_body.Reader(signature)
        self._terms: dict[Any, Terms] = {}
        self._rooms = Rooms()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Score the body: MLflow's protocol."""
        terms, length = self._head(scope["headers"])
        query = _query_params(scope["query_string"])
        known_as = scope.get("state", {}).get("request_id", "")
        if terms.parts == "rows" or (terms.parts == "batches" and length < 0):
            scope[PATIENT] = True
            wire = self.flow.wire(terms.media)
            await self.flow.answered(known_as, wire, query, terms.timeout, (receive, send))
            return
        held = Held(self.bodies)
        try:
            try:
                body = await self._body(terms, length, held, scope, receive)
            except (BodyTooLarge, NoRoom) as exc:
                await _linger(exc, scope, receive, send)
                return
            if len(body) > SMALL:
                held.grow(len(body))
            if terms.encoding:
                # In a thread: a small body can be a large one in disguise.
                packed = bytes(body)
                body = await asyncio.to_thread(compression.decompress, packed, terms.encoding, self.max_body, held.add)
            request = Request(terms.media, body, query, terms.reply)
            if terms.parts == "pieces":
                await self.flow.pieces(known_as, request, terms.timeout, (receive, send))
                return
            reply = await self._reply(request, terms.timeout, receive)
        finally:
            held.release()
        headers = [*terms.headers, (b"content-length", b"%d" % len(reply))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    async def _body(self, terms: Terms, length: int, held: Held, scope: Scope, receive: Receive) -> bytes | memoryview:
        """Return the whole body; what is announced of a large one is held before any of it is read."""
        # Before the first look at the body: a client that asked whether to send it must not be told to.
        if length > self.max_body:
            raise BodyTooLarge(self.max_body)
        if length > SMALL:
            held.add(length)
        message = await receive()
        body: bytes | memoryview = scope.get(BODY) or message.get("body", b"")
        if message.get("more_body", False) or message["type"] != "http.request":
            body = await self._rest(
                message, receive, length if terms.media in VIEWED and not terms.encoding else 0, held
            )
        if len(body) > self.max_body:
            raise BodyTooLarge(self.max_body)
        return body

    def short(self, headers: list[tuple[bytes, bytes]]) -> Terms | None:
        """Return the terms of a request that can go the short way: small, of a known length, in plain JSON."""
        terms, length = self._head(headers)
        plain = terms.media == JSON and not terms.encoding and not terms.parts
        plain = plain and 0 < length <= min(SMALL, self.max_body)
        return terms if plain else None

    def room(self, headers: list[tuple[bytes, bytes]]) -> memoryview | None:
        """Return the memory for a body that is read into one piece, or None for one that comes in pieces."""
        terms, length = self._head(headers)
        least = SMALL + 1 if terms.media == JSON or terms.media in VIEWED else math.inf
        wanted = least <= length <= self.max_body and not terms.encoding and self.bodies.fits(length)
        return self._rooms.take(length) if wanted else None

    def begin(self, exchange: Exchange) -> None:
        """Take a request that goes the short way: its answer is set, sooner or later.

        Raises:
            InputError, HttpProblem: it is refused.
        """
        request = Request(JSON, exchange.body, None, exchange.terms.reply)
        self._put(request, exchange.terms.timeout, exchange)

    async def _reply(self, request: Request, timeout: float, receive: Receive) -> bytes:
        """Hand the request over and wait for the reply."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        quick = self._put(request, timeout, future)
        try:
            return await (future if quick else _attended(future, receive))
        finally:
            # The request may still be in the line when nobody waits for it any more. Its body must not be.
            request.body = b""

    def _put(self, request: Request, timeout: float, reply: Reply) -> bool:
        """Hand the request over; small ones are decoded here and now, so that they can be gathered.

        Returns whether it will be done as soon as the loop comes round.
        """
        size = len(request.body)
        # Before anything is decoded: to refuse must cost next to nothing.
        self.batcher.admit(size=size)
        common, rows, kind = None, 0, ""
        if size <= SMALL and request.media in TEXT:
            usual = False
            if request.media == JSON and request.query is None:
                request.decoded, usual = self._json(bytes(request.body))
            decoded = request.decode(self.signature)
            rows = rows_of(decoded.data)
            if self.gather and not (self._changing and decoded.params):
                common = USUAL if usual else key(decoded, decoded.params)
        elif size <= MEDIUM:
            kind = request.media
        return self.batcher.take(request, key=common, rows=rows, timeout=timeout, reply=reply, size=size, kind=kind)

    def _head(self, headers: list[tuple[bytes, bytes]]) -> tuple[Terms, int]:
        """Return what the headers say, and the length of the body that they announce, below 0 if they do not."""
        length = -1
        said = []
        for header in headers:
            name = header[0]
            if name == b"content-length":
                value = header[1]
                length = int(value) if value.isdigit() and len(value) <= 18 else self.max_body + 1
            elif name in _WANTED:
                said.append(header)
        known = tuple(said)
        terms = self._terms.get(known)
        if terms is None:
            terms = self._read(known)
            if len(self._terms) >= REMEMBERED:
                # A client whose heads are all different must not keep the others' out.
                self._terms.clear()
            self._terms[known] = terms
        return terms, length

    def _read(self, said: tuple[tuple[bytes, bytes], ...]) -> Terms:
        found: dict[str, str] = {}
        for name, value in said:
            text = value.decode("latin-1")
            # Accept may be sent in parts (RFC 9110, 5.3); of the others the first counts, as everywhere.
            before = found.get(name.decode())
            found[name.decode()] = text if before is None else f"{before}, {text}" if name == b"accept" else before
        media = content_type(found.get("content-type"), DECODERS)
        encoding = compression.known(found.get("content-encoding", ""))
        # Who sends rows one by one wants them back so, unless another wish is said.
        liked = [LINES, *self.replies] if media == LINES and LINES in self.replies else self.replies
        reply = choose(found.get("accept"), liked)
        timeout = min(self.timeout, _seconds(found.get("x-request-timeout")))
        kind = reply.encode()
        return Terms(
            media=media,
            encoding=encoding,
            reply=reply,
            timeout=timeout,
            headers=((b"content-type", kind),),
            head=b"content-type: %s\r\n" % kind,
            parts=self._parts(media, encoding, reply),
        )

    def _parts(self, media: str, encoding: str, reply: str) -> str:
        if media == reply == LINES and not encoding:
            return "rows"
        if media == reply == ARROW and not encoding:
            return "batches"
        return "pieces" if self.flow.in_pieces and reply in (LINES, EVENTS) else ""

    async def _rest(self, message: Mapping[str, Any], receive: Receive, length: int, held: Held) -> bytes | memoryview:
        """Return the whole body, or raise as soon as it is known to be too large.

        A large one whose ``length`` is known is put together in memory that numpy gets from the system in large pages:
        the page faults of ordinary memory would be half of what reading it costs.
        """
        pieces: list[bytes] = []
        room = np.empty(length, np.uint8).data if length >= LARGE else None
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece = message.get("body", b"")
            start, size = size, size + len(piece)
            if size > self.max_body:
                raise BodyTooLarge(self.max_body)
            if size > SMALL:
                held.grow(size)
            if room is None:
                pieces.append(piece)
            else:
                room[start:size] = piece
            if not message.get("more_body", False):
                return b"".join(pieces) if room is None else room[:size].toreadonly()
            message = await receive()


async def _attended(reply: asyncio.Future[bytes], receive: Receive) -> bytes:
    """Return the reply, or drop the request as soon as its client has left."""
    left = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((reply, left), return_when=asyncio.FIRST_COMPLETED)
        if not reply.done() and left.result()["type"] == "http.disconnect":
            raise ClientDisconnect
        return await reply
    finally:
        left.cancel()
        reply.cancel()


class BodyTooLarge(HttpProblem):
    """The body has, or says it has, more bytes than the server reads."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            413,
            f"the body is larger than {limit} bytes",
            code="body-too-large",
            hint="Send fewer rows at a time, or start the server with a larger --max-body.",
            headers={"Connection": "close"},
        )


async def _linger(problem: HttpProblem, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the reply before the body has been read, and throw the rest of the body away for a while.

    A connection that is closed with unread bytes in it is reset, and its client never sees the reply.
    """
    reply = problems.respond(problem, scope.get("state", {}).get("request_id", ""))
    await send({"type": "http.response.start", "status": reply.status_code, "headers": reply.raw_headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b""})


def replies(signature: Signature, *, in_pieces: bool) -> tuple[str, ...]:
    """Return the media types in which a model can answer."""
    if not in_pieces:
        return possible(signature)
    return tuple(dict.fromkeys((*possible(signature), LINES, EVENTS)))


def _seconds(text: str | None) -> float:
    if text is None:
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise HttpProblem(
            400,
            "X-Request-Timeout is not a number of seconds",
            code="timeout-invalid",
            hint="Send seconds, such as 0.5.",
        )
    return seconds


def _query_params(query: bytes) -> Mapping[str, Any] | None:
    """Return the params in the query: ``?params={...}``, for formats that have no place for them."""
    if not query:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    if not pairs:
        return None
    if [name for name, _ in pairs] != ["params"]:
        raise InputError(
            "the query holds something else than one params",
            code="query-unknown",
            path="query",
            hint="Use ?params={...}",
        )
    try:
        params = json_body.parse(pairs[0][1].encode())
    except InputError as exc:
        message = exc.message.replace("the body", "params in the query")
        raise InputError(message, code=exc.code, path="params", hint=exc.hint) from None
    if not isinstance(params, dict):
        raise InputError("params in the query must be a JSON object", code="params-type", path="params")
    return params
