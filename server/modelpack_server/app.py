"""The ASGI app that serves one model: ``uvicorn`` runs it, and so does any other ASGI server."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from modelpack import Model
from modelpack_server import facts
from modelpack_server.endpoints import Edge, Endpoints, State, refuse
from modelpack_server.facts import Facts
from modelpack_server.invocation import Invocations, Scorer
from modelpack_server.settings import Settings

__all__ = ["assemble", "build"]


def build(model: Model, settings: Settings | None = None) -> Starlette:
    """Return the app that serves a loaded model.

    ``app.state.server`` says whether it is draining; ``app.state.invocations`` runs the work.
    """
    return assemble(model, facts.of(model), settings or Settings())


def assemble(model: Scorer, about: Facts, settings: Settings) -> Starlette:
    """Return the app for anything that scores, and the facts about it."""
    invocations = Invocations(settings.threads)
    endpoints = Endpoints(model, about, invocations, max_body=settings.max_body)
    state = State()
    app = Starlette(
        routes=[
            Route("/invocations", endpoints.invoke, methods=["POST"]),
            Route("/ping", endpoints.ping),
            Route("/health", endpoints.ping),
            Route("/version", endpoints.version),
            Route("/metadata", endpoints.metadata),
            Route("/openapi.json", endpoints.openapi),
            Route("/docs", endpoints.docs),
            Route("/", endpoints.docs),
        ],
        middleware=[Middleware(Edge, state=state)],
        exception_handlers={HTTPException: refuse},
    )
    # A POST that is redirected loses its body in many clients: /invocations/ is plainly not there.
    app.router.redirect_slashes = False
    app.state.server = state
    app.state.invocations = invocations
    return app
