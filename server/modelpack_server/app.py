"""The ASGI app that serves one model: ``uvicorn`` runs it, and so does any other ASGI server."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from modelpack import Model
from modelpack_server import facts
from modelpack_server.endpoints.about import Endpoints
from modelpack_server.endpoints.edge import Edge, State, refuse
from modelpack_server.endpoints.invoke import Hot
from modelpack_server.facts import Facts
from modelpack_server.invocation import Batcher, Limits, Scorer, Work
from modelpack_server.settings import Settings

__all__ = ["assemble", "build"]


def build(model: Model, settings: Settings | None = None) -> Starlette:
    """Return the app that serves a loaded model.

    ``app.state.server`` says whether it is draining; ``app.state.invocations`` runs the work.
    """
    return assemble(model, facts.of(model), settings or Settings())


def assemble(model: Scorer, about: Facts, settings: Settings) -> Starlette:
    """Return the app for anything that scores, and the facts about it."""
    limits = Limits(
        threads=settings.threads,
        batch_rows=settings.batch_rows,
        queue=settings.queue,
        inline=about.trust != "code",
    )
    batcher = Batcher(Work(model), limits)
    hot = Hot(
        model.signature, batcher, max_body=settings.max_body, timeout=settings.timeout, gather=settings.batch_rows > 1
    )
    endpoints = Endpoints(model.signature, about)
    state = State()
    app = Starlette(
        routes=[
            Route("/invocations", hot, methods=["POST"]),
            Route("/ping", endpoints.ping),
            Route("/health", endpoints.ping),
            Route("/version", endpoints.version),
            Route("/metadata", endpoints.metadata),
            Route("/openapi.json", endpoints.openapi),
            Route("/docs", endpoints.docs),
            Route("/", endpoints.docs),
        ],
        middleware=[Middleware(Edge, state=state, hot=hot)],
        exception_handlers={HTTPException: refuse},
    )
    # A POST that is redirected loses its body in many clients: /invocations/ is plainly not there.
    app.router.redirect_slashes = False
    app.state.server = state
    app.state.invocations = batcher
    return app
