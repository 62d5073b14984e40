"""Several workers on one socket: started together, replaced when one dies, stopped together."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from modelpack import errors
from modelpack_server import logs, runner, worker
from modelpack_server.facts import Facts
from modelpack_server.settings import Settings, Source

__all__ = ["Announce", "serve"]

# Called once, when all workers are ready: with the URL and the model's name, version, digest and flavor.
Announce = Callable[[str, Mapping[str, str]], None]

# A worker that lived shorter than this is restarted later and later.
STABLE_SECONDS = 10.0
LONGEST_PAUSE = 30.0
# How long after the end of their own grace period workers are killed.
KILL_AFTER = 5.0

log = logging.getLogger("modelpack.server")


def serve(source: Source, settings: Settings, announce: Announce) -> int:
    """Serve a package until told to stop; return the exit code.

    Raises:
        ModelpackError: the address cannot be had, or the model cannot be loaded.
    """
    logs.configure(settings)
    server = runner.bind(settings)
    with contextlib.closing(server):
        if settings.workers == 1:
            return worker.run(source, settings, server, lambda about: announce(runner.url(server), _told(about)))
        return Supervisor(source, settings, server, announce).run()


def _told(about: Facts) -> Mapping[str, str]:
    return {"name": about.name, "version": about.version, "digest": about.digest, "flavor": about.flavor}


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process; ``slot`` is its number, ``deaths`` how often in a row its slot died young."""

    slot: int
    process: subprocess.Popen[bytes]
    deaths: int = 0
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, told to the main thread: by a worker's threads, a timer or a signal."""

    kind: Literal["ready", "failed", "exited", "restart", "stop", "kill"]
    worker: Worker | None = None
    detail: Any = None


class Supervisor:
    """Keeps ``settings.workers`` processes running; nothing polls, everything is an event in one queue."""

    def __init__(self, source: Source, settings: Settings, server: socket.socket, announce: Announce) -> None:
        self.source = source
        self.settings = settings
        self.server = server
        self.announce = announce
        self.url = runner.url(server)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.workers: dict[int, Worker] = {}
        self.waiting = set(range(settings.workers))
        self.announced = False
        self.stopping = False
        self.code = 0
        self.failure: errors.ModelpackError | None = None

    def run(self) -> int:
        """Run until told to stop and all workers are gone; return the exit code."""
        with self._signals():
            for slot in range(self.settings.workers):
                self._start(slot)
            while self.workers or not self.stopping:
                event = self.events.get()
                getattr(self, f"_on_{event.kind}")(event)
        if self.failure is not None:
            raise self.failure
        return self.code

    def _start(self, slot: int, deaths: int = 0) -> None:
        reading, writing = os.pipe()
        fd = self.server.fileno()
        process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            worker.arguments(self.source, self.settings, server=fd, report=writing),
            stdin=subprocess.PIPE,
            pass_fds=(fd, writing),
            # Ctrl-C in a terminal is for the supervisor; the workers are told by it.
            start_new_session=True,
        )
        os.close(writing)
        started = Worker(slot, process, deaths)
        self.workers[slot] = started
        listener = threading.Thread(target=self._listen, args=(started, reading), daemon=True)
        listener.start()
        threading.Thread(target=self._wait, args=(started, listener), daemon=True).start()

    def _listen(self, started: Worker, reading: int) -> None:
        with open(reading, "rb") as pipe:
            line = pipe.readline()
        for kind, detail in (json.loads(line) if line else {}).items():
            self.events.put(Event(kind, started, detail))

    def _wait(self, started: Worker, listener: threading.Thread) -> None:
        code = started.process.wait()
        # What it said before it ended comes first.
        listener.join(timeout=1.0)
        self.events.put(Event("exited", started, code))

    def _on_ready(self, event: Event) -> None:
        assert event.worker is not None
        # What the first worker has loaded is what all others must load, now and later.
        self.source = replace(self.source, digest=self.source.digest or event.detail["digest"])
        self.waiting.discard(event.worker.slot)
        if self.announced:
            log.info("worker %d is back as process %d", event.worker.slot, event.worker.process.pid)
        elif not self.waiting and not self.stopping:
            self.announced = True
            self.announce(self.url, event.detail)

    def _on_failed(self, event: Event) -> None:
        detail = event.detail
        kind = getattr(errors, detail.pop("kind"), errors.ModelpackError)
        failure = kind(detail["message"], code=detail["code"], path=detail.get("path", ""), hint=detail.get("hint", ""))
        if self.announced:
            log.error("a worker cannot load the model any more: %s", failure)
        elif self.failure is None:
            self.failure = failure
            self._stop()

    def _on_exited(self, event: Event) -> None:
        dead, code = event.worker, event.detail
        assert dead is not None
        del self.workers[dead.slot]
        if self.stopping:
            # One that was stopped before it could listen dies of the signal; that is what was asked for.
            self.code = self.code or (0 if code in (0, -signal.SIGTERM) else 1)
            return
        if not self.announced:
            log.error("worker %d ended with code %d before it was ready", dead.slot, code)
            self.code = 1
            self._stop()
            return
        young = time.monotonic() - dead.started < STABLE_SECONDS
        deaths = dead.deaths + 1 if young else 0
        pause = min(2.0 ** (deaths - 1), LONGEST_PAUSE) if deaths else 0.0
        log.error("worker %d ended with code %d; restarting it in %.0f s", dead.slot, code, pause)
        self._later(pause, Event("restart", detail=(dead.slot, deaths)))

    def _on_restart(self, event: Event) -> None:
        if not self.stopping:
            self._start(*event.detail)

    def _on_stop(self, event: Event) -> None:
        if self.stopping:
            self._on_kill(event)
        else:
            self._stop()

    def _on_kill(self, event: Event) -> None:
        for running in self.workers.values():
            running.process.kill()

    def _stop(self) -> None:
        self.stopping = True
        # The socket lives as long as anyone holds it: clients must not queue at a server that is gone.
        self.server.close()
        for running in self.workers.values():
            running.process.terminate()
        self._later(self.settings.grace + KILL_AFTER, Event("kill"))

    def _later(self, seconds: float, event: Event) -> None:
        timer = threading.Timer(seconds, self.events.put, (event,))
        timer.daemon = True
        timer.start()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: object) -> None:
            self.events.put(Event("stop"))

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
