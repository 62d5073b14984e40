"""HTTP/1.1 by uvicorn and httptools: limits on how much a head may be and how long a request may stand still, and a
short way.

The short way (``exchange.py``) is for the requests that most clients send all the time.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelpack_server import problems
from modelpack_server.endpoints import edge
from modelpack_server.endpoints.invoke import BODY, PATIENT
from modelpack_server.exchange import Exchange, lines
from modelpack_server.intake import Intake
from modelpack_server.parting import Parting

__all__ = ["MAX_HEAD", "Protocol"]

# Request line and headers together, or what comes of a body between two pieces of it and behind the last one; what is
# longer is read no further.
MAX_HEAD = 64 * 1024

_UPGRADE = re.compile(rb"(?<=\r\n)upgrade(?=[ \t]*:)", re.IGNORECASE)


class _Nowhere(list[tuple[bytes, bytes]]):
    """Where the parser puts the headers behind a body: they are none of the request, and nobody reads them."""

    def append(self, header: tuple[bytes, bytes], /) -> None:
        pass


_NOWHERE = _Nowhere()


class _Flow(FlowControl):
    """Reads no further as long as requests wait for the answer to one before them.

    uvicorn reads on after each answer: a client that sends faster than it is answered would fill the memory.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """A connection that is closed with a 431 when the head of a request does not end."""

    _in_head = True
    _ended = False
    _came = False
    # How much has come of a head that has not ended, or since the last piece of a body.
    _size = 0
    _said: Any = None
    _common = b""
    _room: memoryview | None = None
    _filled = 0
    # When what is not yet a whole request began (its head) or last grew (its body); infinity if there is nothing.
    _since = math.inf

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._edge = cast(edge.Edge, self.config.app.edge)  # type: ignore[union-attr]
        self.meter = self._edge.meter
        # uvicorn looks only at whether somebody listens.
        self.access_log = self.access_log and self.config.access_log
        self._short = not self.access_log and self.limit_concurrency is None and not self.root_path

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._since = self.loop.time()

    def on_response_complete(self) -> None:
        """The last one of those that waited has begun: read on."""
        super().on_response_complete()
        if self._since != math.inf:
            # The head of the next request has begun, and waited for this.
            self._since = self.loop.time()
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Parse what has come; count it as long as it is nothing but the head of one request, or no piece of a body."""
        self._ended = self._came = False
        was_head = self._in_head
        if was_head:
            data = _staying(data)
        super().data_received(data)
        if self._ended:
            self._since = math.inf
        elif self._came or was_head != self._in_head or self._since == math.inf:
            self._since = self.loop.time()
        if self._ended or self._came or was_head != self._in_head:
            self._size = 0
            if self._room is not None and not self.transport.is_closing():
                self.transport.set_protocol(Intake(self, self._room[self._filled :]))
            return
        self._size += len(data)
        if self._size > MAX_HEAD and not self.transport.is_closing():
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._in_head = False
        if self.url != b"/invocations" or not self._short:
            super().on_headers_complete()
        elif not self._exchanges():
            super().on_headers_complete()
            self._make_room()
        self.headers = _NOWHERE

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._came = True
        cycle: Any = self.cycle
        if self._room is not None:
            end = self._filled + len(body)
            self._room[self._filled : end] = body
            self._filled = end
        elif type(cycle) is not Exchange:
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.body += body

    def on_message_complete(self) -> None:
        """The request has ended: what comes next is the head of another."""
        self._in_head = self._ended = True
        cycle: Any = self.cycle
        if self._room is not None:
            if not cycle.response_complete:
                cast(dict[str, Any], self.scope)[BODY] = self._room.toreadonly()
            self._room = None
        if type(cycle) is not Exchange:
            super().on_message_complete()
        elif not cycle.response_complete:
            try:
                self._edge.hot.begin(cycle)
            except Exception as exc:
                cycle.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left: nobody waits for what it asked."""
        super().connection_lost(exc)
        cycle: Any = self.cycle
        if type(cycle) is Exchange:
            self.tasks.discard(cast(Any, cycle))
            if not cycle.response_complete:
                self.meter.left()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: whatever it has asked whole is answered before the connection is closed."""
        cycle: Any = self.cycle
        if not self._in_head or cycle is None or cycle.response_complete:
            return False
        if getattr(cycle, "response_started", False) and PATIENT not in cast(dict[str, Any], self.scope):
            # The next piece of an answer may be long in the making, and nothing can be sent meanwhile to find out.
            # Whoever hears the first ones and then closes has heard enough.
            return False
        cycle.keep_alive = False
        Parting(self.transport, self._may_ask)
        return True

    def _may_ask(self) -> bool:
        cycle: Any = self.cycle
        begun = type(cycle) is not Exchange and (self.pipeline or cycle.response_started)
        return self.parser.get_http_version() == "1.1" and not begun

    @property
    def closing(self) -> bool:
        """Whether the next answer is the last one on the connection."""
        return self._edge.state.closing

    def common_head(self) -> bytes:
        """Return the headers of every answer."""
        said = self.server_state.default_headers
        if said is not self._said:
            self._said, self._common = said, lines(said)
        return self._common

    def give_up(self, before: float) -> None:
        """End the connection if it has waited since before then for the rest of a request that a client began."""
        if self._since > before or self.transport.is_closing():
            return
        cycle: Any = self.cycle
        if self._in_head:
            waits, told = not (cycle is None or cycle.response_complete), not self._size
        else:
            waits, told = PATIENT in cast(dict[str, Any], self.scope), self._told
        if waits or self.flow.read_paused:
            # For its answer to what it asked before, for answers to rows it has sent, or for us to read on.
            self._since = self.loop.time()
        elif told:
            self.transport.close()
        else:
            hint = "Send it without a pause, or start the server with a larger --stall."
            self._refuse(408, "request-stalled", "the rest of the request did not come", hint)

    def grown(self) -> None:
        """Take note that more of a large body has come."""
        self._since = self.loop.time()

    def taken_in(self) -> None:
        """Go on after the end of a large body, which the parser has not seen and still waits for."""
        self.parser = type(self.parser)(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.transport.set_protocol(self)
        self._since = math.inf
        self.on_message_complete()

    def _make_room(self) -> None:
        """Let a large body go straight to the memory that it is decoded from.

        What comes with the head is put there by the parser, the rest by the transport (``intake.py``).
        """
        if self.parser.get_method() != b"POST" or self.pipeline or not self.parser.should_keep_alive():
            return
        try:
            self._room, self._filled = self._edge.hot.room(self.headers), 0
        except Exception:
            # Whoever refuses it says so.
            return

    def _exchanges(self) -> bool:
        """Begin an exchange, unless the request is one for the ordinary way."""
        parser, cycle = self.parser, self.cycle
        if (
            (cycle is not None and not cycle.response_complete)
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or self.expect_100_continue
            or self.flow.write_paused
            or not parser.should_keep_alive()
            or parser.should_upgrade()
            or self.closing
        ):
            return False
        try:
            terms = self._edge.hot.short(self.headers)
        except Exception:
            # Whoever refuses it says so.
            return False
        if terms is None:
            return False
        self.cycle = Exchange(self, terms, edge.request_id(self.headers))  # type: ignore[assignment]
        return True

    @property
    def _told(self) -> bool:
        """Whether the answer to the request whose body comes has begun."""
        cycle: Any = self.cycle
        return bool(cycle is None or cycle.response_complete or getattr(cycle, "response_started", False))

    def _refuse_head(self) -> None:
        what = "the request line and headers are" if self._in_head else "what is around the chunks of the body is"
        if self._in_head or not self._told:
            message = f"{what} longer than {MAX_HEAD} bytes"
            self._refuse(431, "header-too-large", message, "The body is the place for data.")
        else:
            self.transport.close()

    def _refuse(self, status: int, code: str, message: str, hint: str) -> None:
        """Answer what never became a request, and end the connection."""
        self.meter.refused(status)
        reply = problems.response(status, {"code": code, "message": message, "hint": hint})
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(), b"Connection: close"]
        head += [name + b": " + value for name, value in reply.raw_headers]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + bytes(reply.body))
        self.transport.close()


def _staying(data: bytes) -> bytes:
    """Return what has come of a request, without the offer in its head to speak another protocol.

    The parser would read no further. Java's client offers HTTP/2 in its first request, and is content with HTTP/1.1.
    """
    # Behind the head there may be much more, which it would take long to search.
    end = data.find(b"\r\n\r\n")
    if data.find(b"pgrade", 0, end) < 0 and data.find(b"PGRADE", 0, end) < 0:
        return data
    head, between, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"declined", head) + between + rest
