"""The ASGI app that serves one model: ``uvicorn`` runs it, and so does any other ASGI server."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.routing import Route

from modelpack import Model
from modelpack_server import facts
from modelpack_server.endpoints.about import Endpoints
from modelpack_server.endpoints.bodies import Bodies
from modelpack_server.endpoints.edge import App, Edge, refuse
from modelpack_server.endpoints.flow import Flow
from modelpack_server.endpoints.invoke import Hot
from modelpack_server.endpoints.metrics import Metrics
from modelpack_server.endpoints.state import State
from modelpack_server.facts import Facts
from modelpack_server.invocation import Batcher, Limits, Scorer, Work, gathers
from modelpack_server.metrics.measured import Measured
from modelpack_server.metrics.meter import Meter
from modelpack_server.metrics.off import Off
from modelpack_server.settings import Settings

__all__ = ["App", "assemble", "build"]


def build(model: Model, settings: Settings | None = None) -> App:
    """Return the app that serves a loaded model.

    ``app.state.server`` says whether it is draining; ``app.state.invocations`` runs the work.
    """
    return assemble(model, facts.of(model), settings or Settings())


def assemble(model: Scorer, about: Facts, settings: Settings, meter: Meter | None = None) -> App:
    """Return the app for anything that scores, and the facts about it; ``meter`` counts for several processes."""
    meter = (meter or Meter()) if settings.metrics else Off()
    limits = Limits(
        threads=settings.calls(about.trust),
        batch_rows=settings.batch_rows,
        queue=settings.queue,
        inline=about.trust != "code",
    )
    measured = Measured(model, meter) if settings.metrics else model
    batcher = Batcher(meter.gathering(Work(measured)), limits)
    meter.watch(batcher)
    gather = gathers(
        model,
        wish=settings.batching,
        trust=about.trust,
        tags=about.manifest.get("tags", {}),
        example=about.example,
    )
    state = State()
    flow = Flow(measured, batcher, state, most=settings.max_body, rows=settings.batch_rows)
    hot = Hot(
        model.signature,
        batcher,
        flow,
        Bodies(settings.bodies()),
        max_body=settings.max_body,
        timeout=settings.timeout,
        gather=gather,
    )
    endpoints = Endpoints(model.signature, about, hot.replies, metrics=settings.metrics)
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
            *([Route("/metrics", Metrics(meter, about).answer)] if settings.metrics else []),
        ],
        exception_handlers={HTTPException: refuse},
    )
    # A POST that is redirected loses its body in many clients: /invocations/ is plainly not there.
    app.router.redirect_slashes = False
    app.edge = Edge(app.routed, state, hot, meter)
    app.state.server = state
    app.state.invocations = batcher
    return app
