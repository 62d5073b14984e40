"""What a running stream tells Prometheus: counters of its own, and how far it is, looked up when asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from modelpack.errors import ModelpackError
from modelpack_server.metrics import exposition
from modelpack_server.stream.options import Summary
from modelpack_server.stream.status import Status

__all__ = ["served", "written"]


@contextmanager
def served(address: tuple[str, int] | None, summary: Summary, look: Callable[[], Status]) -> Iterator[None]:
    """Answer ``GET /metrics`` while the block runs; without an address do nothing.

    Raises:
        ModelpackError: the address cannot be listened on (``address-unavailable``).
    """
    if address is None:
        yield
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/metrics"
            body = written(summary, look) if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", exposition.TEXT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base
            """Say nothing: the stream's own lines go to the same place."""

    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as exc:
        message = f"{address[0]}:{address[1]} cannot be listened on: {exc.strerror}"
        raise ModelpackError(message, code="address-unavailable", hint="Choose another port.") from exc
    with server:
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def written(summary: Summary, look: Callable[[], Status]) -> bytes:
    """Return the metrics as Prometheus reads them. What cannot be looked up is left out, and ``up`` is 0."""
    counters = [
        ("rows", "Rows scored and committed by this process.", summary.rows),
        ("rejected", "Rows that did not fit and were written aside.", summary.rejected),
        ("commits", "Commits to the output by this process.", summary.commits),
        ("conflicts", "Commits that another process was faster with.", summary.conflicts),
    ]
    gauges: list[tuple[str, str, float]] = []
    try:
        found = look()
    except ModelpackError:
        up = 0
    else:
        up = 1
        gauges = [
            ("source_version", "The newest version of the source.", found.source_version),
            ("position_version", "The version of the source that comes next.", found.version),
            ("backlog_versions", "Versions of the source that are not scored.", found.versions),
            ("backlog_files", "Files of the source that are not scored.", found.files),
            ("backlog_rows", "Rows of the source that are not scored.", found.rows),
            ("lag_seconds", "The age of the first rows that are not scored.", round(found.lag, 3)),
        ]
    gauges.insert(0, ("up", "Whether both tables can be read.", up))
    families = [exposition.counter(f"modelpack_stream_{name}", words, value) for name, words, value in counters]
    families += [exposition.gauge(f"modelpack_stream_{name}", words, value) for name, words, value in gauges]
    return exposition.written(families)
