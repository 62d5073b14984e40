"""What the server answers: one method per URL, and the edge that every request passes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import orjson
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelpack import __version__
from modelpack.errors import InputError
from modelpack_server import openapi, page, problems
from modelpack_server.codecs import DECODERS, decoder, encoder
from modelpack_server.codecs.json_body import parse as parse_json
from modelpack_server.codecs.negotiation import accepts, content_type
from modelpack_server.facts import Facts
from modelpack_server.invocation import Invocations, Scorer, score
from modelpack_server.problems import HttpProblem

__all__ = ["Edge", "Endpoints", "State"]

JSON = "application/json"
# How long the rest of a body that is too large is read and thrown away, so that its sender gets to see the 413
# instead of a reset connection.
LINGER_SECONDS = 5.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class State:
    """Whether the server takes requests: it stops to when it is told to stop."""

    draining: bool = False


class Edge:
    """The outermost layer: gives every request an id, and refuses new work while the server stops."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app = app
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if self.state.draining:
                    # The last answer on this connection: the client must not send another request down it.
                    headers["Connection"] = "close"
            await send(message)

        try:
            if self.state.draining:
                raise _stopping()
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            # Requests are cancelled only when the server stops and their time is over.
            if started:
                raise
            await problems.respond(_stopping(), request_id)(scope, receive, send_with_id)
        except Exception as exc:
            if started:
                raise
            await problems.respond(exc, request_id)(scope, receive, send_with_id)


def _request_id(scope: Scope) -> str:
    """Return the id the client sent if it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return str(text)
    return secrets.token_hex(8)


def _stopping() -> HttpProblem:
    return HttpProblem(
        503,
        "the server is stopping",
        code="server-stopping",
        hint="Send the request again.",
        headers={"Retry-After": "1"},
    )


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


class Lingering(Response):
    """A reply sent before the body has been read: the rest of the body is thrown away, for a while.

    A connection that is closed with unread bytes in it is reset, and its client never sees the reply.
    """

    def __init__(self, reply: Response) -> None:
        super().__init__(reply.body, status_code=reply.status_code, headers=dict(reply.headers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})


class Endpoints:
    """The answers about and from one model."""

    def __init__(self, model: Scorer, facts: Facts, invocations: Invocations, *, max_body: int) -> None:
        self.model = model
        self.facts = facts
        self.invocations = invocations
        self.max_body = max_body

    async def invoke(self, request: Request) -> Response:
        """Score the body: MLflow's protocol."""
        media = content_type(request.headers.get("content-type"), DECODERS)
        _check_headers(request.headers)
        query = _query_params(request)
        try:
            body = await self._read(request)
        except BodyTooLarge as exc:
            return Lingering(problems.respond(exc, request.state.request_id))
        reply = await self.invocations.run(partial(self._answer, media, body, query))
        return Response(reply, media_type=JSON)

    def _answer(self, media: str, body: bytes, query: Mapping[str, Any] | None) -> bytes:
        """Decode, score and encode: all the work of a request that is not reading and writing."""
        decoded = decoder(media)(body, self.model.signature)
        if query is not None and decoded.params is not None:
            raise InputError(
                "params are in the body and in the query", code="params-twice", path="params", hint="Send them once."
            )
        return encoder(JSON)(score(self.model, decoded, decoded.params if query is None else query))

    async def _read(self, request: Request) -> bytes:
        """Return the body, or raise 413 as soon as it is known to be too large."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > self.max_body):
            raise BodyTooLarge(self.max_body)
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.max_body:
                raise BodyTooLarge(self.max_body)
            chunks.append(chunk)
        return b"".join(chunks)

    async def ping(self, request: Request) -> Response:
        """Say that the server takes requests; the body is MLflow's."""
        return Response("\n", media_type="text/plain")

    async def version(self, request: Request) -> Response:
        """Return the bare version of modelpack: MLflow's clients read it as text."""
        return Response(__version__, media_type="text/plain")

    async def metadata(self, request: Request) -> Response:
        """Return what is known about the model."""
        return Response(self._metadata, media_type=JSON)

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document of this model."""
        return Response(self._openapi, media_type=JSON)

    async def docs(self, request: Request) -> Response:
        """Return the page for people; it needs no script and nothing from elsewhere."""
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(page.render(self.facts, self.model.signature, str(request.base_url)), headers=policy)

    @cached_property
    def _metadata(self) -> bytes:
        return orjson.dumps(self.facts.to_json())

    @cached_property
    def _openapi(self) -> bytes:
        return orjson.dumps(openapi.document(self.facts, self.model.signature))


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


def _check_headers(headers: Mapping[str, str]) -> None:
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise HttpProblem(
            415,
            "this Content-Encoding is not read",
            code="content-encoding-unknown",
            hint="Send the body uncompressed.",
            headers={"Accept-Encoding": "identity"},
        )
    if not accepts(headers.get("accept"), JSON):
        raise HttpProblem(
            406, "predictions are written as application/json only", code="not-acceptable", hint=f"Send Accept: {JSON}."
        )


def _query_params(request: Request) -> Mapping[str, Any] | None:
    """Return the params in the query: ``?params={...}``, for formats that have no place for them."""
    query = request.query_params.multi_items()
    if not query:
        return None
    if [name for name, _ in query] != ["params"]:
        raise InputError(
            "the query holds something else than one params",
            code="query-unknown",
            path="query",
            hint="Use ?params={...}",
        )
    params = parse_json(query[0][1].encode())
    if not isinstance(params, dict):
        raise InputError("params in the query must be a JSON object", code="params-type", path="params")
    return params
