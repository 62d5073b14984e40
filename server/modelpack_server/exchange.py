"""One request to ``/invocations`` and its answer, without a task, a scope or a message between.

Most requests are alike: a small JSON body whose length is known, on a connection that stays. Of those the protocol
makes no ASGI request: the body goes straight to the batcher, and the answer from there to the transport. Of what an
ordinary request costs around the model, that is more than half.

Everything else — other formats, large or chunked bodies, HTTP/1.0, a client that asks before it sends, a second request
down the line before the first is answered, a server that stops — takes the ordinary way, and the answers are the same
to the byte (tests/server/test_exchange.py).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from modelpack_server import problems
from modelpack_server.endpoints.state import stopping
from modelpack_server.problems import HttpProblem

if TYPE_CHECKING:
    from modelpack_server.endpoints.invoke import Terms
    from modelpack_server.protocol import Protocol

__all__ = ["Exchange", "lines"]

_CLOSE = b"connection: close\r\n"


class _Nobody:
    """The event of a request nobody waits for."""

    def set(self) -> None:
        pass


class Exchange:
    """What uvicorn's protocol asks of a request (as of its ``RequestResponseCycle``), its tasks (as of a task), and
    the batcher (as of a future)."""

    __slots__ = ("began", "body", "disconnected", "keep_alive", "protocol", "request_id", "response_complete", "terms")

    message_event = _Nobody()

    def __init__(self, protocol: Protocol, terms: Terms, request_id: str) -> None:
        self.protocol = protocol
        self.terms = terms
        self.request_id = request_id
        self.body = b""
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        self.began = protocol.meter.begin()
        protocol.tasks.add(self)  # type: ignore[arg-type]

    def done(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self.response_complete or self.disconnected

    def set_result(self, reply: bytes) -> None:
        """Answer."""
        head = b"%scontent-length: %d\r\n" % (self.terms.head, len(reply))
        self._answer(200, head, reply)

    def set_exception(self, problem: BaseException) -> None:
        """Answer with a problem."""
        if isinstance(problem, HttpProblem):
            told = problem.status, problem.message, problem.code, problem.hint, tuple(problem.headers.items())
            self._answer(*_refusal(*told))
            return
        if not isinstance(problem, Exception):
            problem = RuntimeError(type(problem).__name__)
        response = problems.respond(problem, self.request_id)
        self._answer(response.status_code, lines(response.raw_headers), bytes(response.body))

    def cancel(self, msg: str | None = None) -> None:
        """Answer that the server stops, as soon as whoever says so has finished."""
        self.protocol.loop.call_soon(self._give_up)

    def _give_up(self) -> None:
        if not self.done():
            self.set_exception(stopping())

    def _answer(self, status: int, head: bytes, reply: bytes) -> None:
        protocol = self.protocol
        self.response_complete = True
        protocol.tasks.discard(self)
        if self.disconnected:
            return
        protocol.meter.answered(status, self.began, len(self.body))
        if protocol.transport.is_closing():
            return
        closing = protocol.closing or not self.keep_alive
        common = protocol.common_head()
        end = b"x-request-id: %s\r\n%s\r\n" % (self.request_id.encode(), _CLOSE if closing else b"")
        protocol.transport.write(b"".join((STATUS_LINE[status], common, head, end, reply)))
        if closing:
            protocol.transport.close()
        protocol.on_response_complete()


@functools.lru_cache(maxsize=64)
def _refusal(
    status: int, message: str, code: str, hint: str, headers: tuple[tuple[str, str], ...]
) -> tuple[int, bytes, bytes]:
    """Return a refusal as it is written; under overload most answers are the same one."""
    response = problems.respond(HttpProblem(status, message, code=code, hint=hint, headers=dict(headers)), "")
    return status, lines(response.raw_headers), bytes(response.body)


def lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return headers as they are written."""
    return b"".join([b"%s: %s\r\n" % header for header in headers])
