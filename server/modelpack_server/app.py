"""The ASGI app that serves one model: ``uvicorn`` runs it, and so does any other ASGI server."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.routing import Route

from modelpack import Model
from modelpack_server import facts
from modelpack_server.endpoints.about import Endpoints
from modelpack_server.endpoints.edge import App, Edge, refuse
from modelpack_server.endpoints.flow import Flow
from modelpack_server.endpoints.invoke import Hot
from modelpack_server.endpoints.state import State
from modelpack_server.facts import Facts
from modelpack_server.invocation import Batcher, Limits, Scorer, Work, gathers
from modelpack_server.settings import Settings

__all__ = ["App", "assemble", "build"]


def build(model: Model, settings: Settings | None = None) -> App:
    """Return the app that serves a loaded model.

    ``app.state.server`` says whether it is draining; ``app.state.invocations`` runs the work.
    """
    return assemble(model, facts.of(model), settings or Settings())


def assemble(model: Scorer, about: Facts, settings: Settings) -> App:
    """Return the app for anything that scores, and the facts about it."""
    limits = Limits(
        threads=settings.calls(about.trust),
        batch_rows=settings.batch_rows,
        queue=settings.queue,
        inline=about.trust != "code",
    )
    batcher = Batcher(Work(model), limits)
    gather = gathers(
        model,
        wish=settings.batching,
        trust=about.trust,
        tags=about.manifest.get("tags", {}),
        example=about.example,
    )
    state = State()
    flow = Flow(model, batcher, state, most=settings.max_body, rows=settings.batch_rows)
    hot = Hot(model.signature, batcher, flow, max_body=settings.max_body, timeout=settings.timeout, gather=gather)
    endpoints = Endpoints(model.signature, about, hot.replies)
    app = App(
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
        exception_handlers={HTTPException: refuse},
    )
    # A POST that is redirected loses its body in many clients: /invocations/ is plainly not there.
    app.router.redirect_slashes = False
    app.edge = Edge(app.routed, state, hot)
    app.state.server = state
    app.state.invocations = batcher
    return app
