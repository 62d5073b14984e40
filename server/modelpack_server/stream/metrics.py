"""What a running stream tells Prometheus: counters of its own, and how far it is, looked up when asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from modelpack.errors import ModelpackError
from modelpack_server.stream.options import Summary
from modelpack_server.stream.status import Status

__all__ = ["served", "written"]

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
            self.send_header("Content-Type", _TYPE)
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
    lines = [
        *_metric("rows_total", "counter", "Rows scored and committed by this process.", summary.rows),
        *_metric("rejected_total", "counter", "Rows that did not fit and were written aside.", summary.rejected),
        *_metric("commits_total", "counter", "Commits to the output by this process.", summary.commits),
        *_metric("conflicts_total", "counter", "Commits that another process was faster with.", summary.conflicts),
    ]
    try:
        found = look()
    except ModelpackError:
        return "\n".join([*lines, *_metric("up", "gauge", "Whether both tables can be read.", 0), ""]).encode()
    lines += [
        *_metric("up", "gauge", "Whether both tables can be read.", 1),
        *_metric("source_version", "gauge", "The newest version of the source.", found.source_version),
        *_metric("position_version", "gauge", "The version of the source that comes next.", found.version),
        *_metric("backlog_versions", "gauge", "Versions of the source that are not scored.", found.versions),
        *_metric("backlog_files", "gauge", "Files of the source that are not scored.", found.files),
        *_metric("backlog_rows", "gauge", "Rows of the source that are not scored.", found.rows),
        *_metric("lag_seconds", "gauge", "The age of the first rows that are not scored.", round(found.lag, 3)),
    ]
    return "\n".join([*lines, ""]).encode()


def _metric(name: str, kind: str, words: str, value: float) -> list[str]:
    full = f"modelpack_stream_{name}"
    return [f"# HELP {full} {words}", f"# TYPE {full} {kind}", f"{full} {value}"]
