"""One process that serves: in the foreground, or started by the supervisor as ``python -m modelpack_server.worker``.

A started worker gets its listening socket and a pipe to report on as file descriptors, its settings as JSON on the
command line, and a stdin that ends when the supervisor is gone.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import modelpack
from modelpack import ending
from modelpack.errors import IntegrityError, ModelpackError
from modelpack_server import app, choosing, facts, logs, runner
from modelpack_server.codecs import decoder, encoder
from modelpack_server.facts import Facts
from modelpack_server.invocation import Scorer, score
from modelpack_server.metrics.ledger import Ledger
from modelpack_server.metrics.meter import Meter
from modelpack_server.pulse import Marked, Pulse
from modelpack_server.settings import Settings, Source

__all__ = ["arguments", "run", "told", "warm"]

JSON = "application/json"

log = logging.getLogger("modelpack.server")


def run(
    source: Source,
    settings: Settings,
    server: socket.socket,
    on_ready: Callable[[Facts], None],
    pulse: Pulse | None = None,
    counted: tuple[Ledger, int] | None = None,
) -> int:
    """Load the model and serve it on a bound socket until told to stop; return the exit code.

    ``pulse`` is where signs of life are written, if anybody looks at them, ``counted`` the page for what is counted.

    Raises:
        ModelpackError: the model cannot be loaded.
    """
    package = modelpack.open(source.package)
    if source.digest not in (None, package.digest):
        raise IntegrityError(
            "the package was replaced since the server started",
            code="digest-mismatch",
            path=source.package,
            hint="Start the server again to serve the new one.",
        )
    model = choosing.choose(package, source)
    about = facts.of(model)
    warm(model, about)
    settle()
    pulse = pulse or Pulse(-1)
    meter = Meter(*counted) if counted else Meter()
    served = app.assemble(Marked(choosing.pair(model, source), pulse), about, settings, meter)

    def beat() -> None:
        pulse.beat()
        meter.publish()

    code = runner.Server(served, settings, on_ready=lambda: on_ready(about), beat=beat).serve_on(server)
    if code:
        # A thread that is still inside the model cannot be stopped, and Python would wait for it.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    return code


def settle() -> None:
    """Prepare the interpreter for serving: what is loaded stays, and threads take turns soon."""
    # The garbage collector need not look at the frameworks and the model again and again; what requests leave behind
    # are no cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # A model that holds the interpreter in a thread lets the event loop have it five times as often as by default.
    sys.setswitchinterval(0.001)


def warm(model: Scorer, about: Facts) -> None:
    """Score the package's example once, so that the first request does not pay for what is done only once."""
    if about.example is None:
        return
    try:
        request = decoder(JSON)(json.dumps(about.example).encode(), model.signature)
        encoder(JSON)(score(model, request, request.params))
    except ModelpackError as exc:
        log.warning("the package's own example cannot be scored: %s", exc.code)


def told(about: Facts) -> dict[str, str]:
    """Return what is said of a model that is ready to be served."""
    twin = {"twin_of": about.twin["of"]} if about.twin else {}
    return {"name": about.name, "version": about.version, "digest": about.digest, "flavor": about.flavor, **twin}


def arguments(source: Source, settings: Settings, **given: int) -> list[str]:
    """Return the command that starts a worker.

    It is given file descriptors: ``server``, ``report``, ``pulse`` and ``ledger``, and the number of its ``page``.
    """
    call: dict[str, Any] = {"source": asdict(source), "settings": asdict(settings), **given}
    # -P: the directory the server was started in is no place to import from.
    return [sys.executable, "-P", "-m", "modelpack_server.worker", json.dumps(call)]


def main(argument: str) -> int:
    """Run as the supervisor asked; tell it when ready, or why not."""
    call: dict[str, Any] = json.loads(argument)
    settings = Settings(**call["settings"])
    source = Source(**call["source"])
    logs.configure(settings)
    threading.Thread(target=_stop_with_parent, name="parent-watch", daemon=True).start()
    report: int = call["report"]
    os.set_inheritable(report, False)
    pulse = Pulse(call["pulse"])
    os.close(call["pulse"])
    os.set_inheritable(call["ledger"], False)
    counted = Ledger(call["ledger"]), call["page"]

    def ready(about: Facts) -> None:
        _tell(report, {"ready": told(about)})

    try:
        return run(source, settings, socket.socket(fileno=call["server"]), ready, pulse, counted)
    except ModelpackError as exc:
        _tell(report, {"failed": {"kind": type(exc).__name__, **exc.to_json()}})
        return 1


def _tell(report: int, event: Mapping[str, Any]) -> None:
    os.write(report, json.dumps(event).encode() + b"\n")
    os.close(report)


def _stop_with_parent() -> None:
    # Not sys.stdin.read(): its lock, held by this thread, would be fatal when the interpreter ends.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    ending.run(partial(main, sys.argv[1]))
