"""``GET /metrics``: what the server and its model have done, for Prometheus."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from modelpack_server.facts import Facts
from modelpack_server.metrics import exposition, report
from modelpack_server.metrics.meter import Meter

__all__ = ["Metrics"]


class Metrics:
    """The answer for all processes of the server, whichever is asked."""

    def __init__(self, meter: Meter, facts: Facts) -> None:
        self.meter = meter
        self.facts = facts

    async def answer(self, request: Request) -> Response:
        """Return all metrics, in the format that the sender likes best."""
        self.meter.publish()
        kind = exposition.accepted(request.headers.get("accept"))
        families = report.families(self.meter.ledger.read(), self.facts)
        return Response(exposition.written(families, kind), headers={"Content-Type": kind})
