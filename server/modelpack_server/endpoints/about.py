"""What the server tells about itself and its model: one method per URL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from modelpack import __version__
from modelpack.signature import Signature
from modelpack_server import openapi, page
from modelpack_server.facts import Facts

__all__ = ["Endpoints"]

JSON = "application/json"


class Endpoints:
    """The answers about and from one model."""

    def __init__(self, signature: Signature, facts: Facts, replies: Sequence[str], *, metrics: bool) -> None:
        self.signature = signature
        self.facts = facts
        self.replies = replies
        self.metrics = metrics

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
        return HTMLResponse(
            page.render(self.facts, self.signature, str(request.base_url), metrics=self.metrics), headers=policy
        )

    @cached_property
    def _metadata(self) -> bytes:
        return orjson.dumps(self.facts.to_json())

    @cached_property
    def _openapi(self) -> bytes:
        return orjson.dumps(openapi.document(self.facts, self.signature, self.replies, metrics=self.metrics))
