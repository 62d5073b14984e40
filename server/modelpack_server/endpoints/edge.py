"""The edge of every request: an id, a problem for whatever goes wrong, no new work once told to stop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from random import getrandbits

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelpack_server import problems
from modelpack_server.endpoints.invoke import BODY, Hot
from modelpack_server.endpoints.state import State, stopping
from modelpack_server.metrics.meter import Meter

__all__ = ["App", "Edge", "refuse", "request_id"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Edge:
    """The outermost layer: gives every request an id, and refuses new work while the server stops."""

    def __init__(self, app: ASGIApp, state: State, hot: Hot, meter: Meter) -> None:
        self.app = app
        self.state = state
        self.hot = hot
        self.meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        known_as = request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = known_as
        path = _path(scope)
        visit = self.meter.visit(scope, path, receive)

        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                visit.answers(message["status"])
                message["headers"].append((b"x-request-id", known_as.encode()))
                if self.state.closing:
                    # The last answer on this connection: the client must not send another request down it.
                    message["headers"] = [h for h in message["headers"] if h[0] != b"connection"]
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            if self.state.draining:
                raise stopping()
            # The one path that must be quick goes past the router.
            hot = scope["method"] == "POST" and path == "/invocations"
            await (self.hot if hot else self.app)(scope, visit.receive, send_with_id)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            # Requests are cancelled only when the server stops and their time is over.
            if started:
                raise
            await problems.respond(stopping(), known_as)(scope, receive, send_with_id)
        except Exception as exc:
            if started:
                raise
            await problems.respond(exc, known_as)(scope, receive, send_with_id)
        finally:
            # The connection remembers the scope until its next request, which may be long.
            visit.end(len(scope.pop(BODY, b"")))


def _path(scope: Scope) -> str:
    """Return the path below the place where the app is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id the client sent if it is harmless, else a new one."""
    for name, value in headers:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return str(text)
    return f"{getrandbits(64):016x}"


class App(Starlette):
    """A Starlette app whose edge is the outermost layer of all."""

    edge: Edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.edge(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what the router knows."""
        await super().__call__(scope, receive, send)


async def refuse(request: Request, exc: Exception) -> Response:
    """Turn what Starlette's router refuses (404, 405) into a problem."""
    assert isinstance(exc, HTTPException)
    if exc.status_code == 404:
        hint = "See /docs; predictions are at POST /invocations."
        facts = {"code": "not-found", "message": "there is nothing at this path", "hint": hint}
    else:
        facts = {"code": "method-not-allowed", "message": "this path does not take this method"}
    # Starlette lists the methods in the order of a set.
    headers = {name: ", ".join(sorted(value.split(", "))) for name, value in (exc.headers or {}).items()}
    return problems.response(exc.status_code, facts, headers=headers)
