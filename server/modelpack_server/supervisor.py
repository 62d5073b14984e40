"""Several workers on one socket: started together, stopped together, replaced when one dies, hangs or grows too large.

A worker that has died or hangs is started again, one that dies young later and later. One that has grown too large is
told to leave once another has taken its place, so that no request is lost.
"""

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
from modelpack_server.metrics import layout
from modelpack_server.metrics.ledger import Pages
from modelpack_server.metrics.processes import resident
from modelpack_server.pulse import Pulse
from modelpack_server.settings import Settings, Source

__all__ = ["Announce", "serve"]

# Called once, when all workers are ready: with the URL and what :func:`worker.told` says of the model.
Announce = Callable[[str, Mapping[str, str]], None]

# A worker that lived shorter than this is restarted later and later.
STABLE_SECONDS = 10.0
LONGEST_PAUSE = 30.0
# How long after the end of their own grace period workers are killed.
KILL_AFTER = 5.0
# How often the memory of workers is looked at.
MEMORY_SECONDS = 1.0

log = logging.getLogger("modelpack.server")


def serve(source: Source, settings: Settings, announce: Announce) -> int:
    """Serve a package until told to stop; return the exit code.

    Raises:
        ModelpackError: the address cannot be had, or the model cannot be loaded.
    """
    logs.configure(settings)
    server = runner.bind(settings)
    with contextlib.closing(server):
        if settings.workers == 1 and not settings.max_memory:
            return worker.run(source, settings, server, lambda about: announce(runner.url(server), worker.told(about)))
        return Supervisor(source, settings, server, announce).run()


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process; ``slot`` is its number, ``deaths`` how often in a row its slot died young.

    ``silent`` is for how many seconds it has given no sign of life. ``old`` is the worker that it is to take the place
    of, ``leaving`` that another has taken its own, ``hung`` that it was killed for being silent. ``recycled`` counts
    the workers in a row that grew too large young; ``spared`` is until when it is not replaced for that. ``page`` is
    which one of the ledger it writes.
    """

    slot: int
    process: subprocess.Popen[bytes]
    pulse: Pulse
    deaths: int = 0
    page: int = 0
    started: float = field(default_factory=lambda: time.monotonic())
    ready: bool = False
    beats: int = 0
    silent: float = 0.0
    old: Worker | None = None
    leaving: bool = False
    hung: bool = False
    recycled: int = 0
    spared: float = 0.0

    @property
    def young(self) -> bool:
        """Whether it has not run for long."""
        return time.monotonic() - self.started < STABLE_SECONDS

    @property
    def memory(self) -> int:
        """The bytes of memory it holds; 0 where the system does not tell."""
        return resident(self.process.pid)

    def spare(self, recycled: int) -> None:
        """Let it be as large as it is for a while: longer each time."""
        self.recycled = recycled
        self.spared = time.monotonic() + min(2.0**recycled, LONGEST_PAUSE)

    def alive(self, seconds: float) -> None:
        """Note whether there has been a sign of life in the last so many seconds; predictions may take their time."""
        beats = self.pulse.beats
        if beats != self.beats or self.pulse.predicting:
            self.beats, self.silent = beats, 0.0
        else:
            self.silent += seconds


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, told to the main thread: by a worker's threads, a timer or a signal."""

    kind: Literal["ready", "failed", "exited", "restart", "check", "overdue", "stop", "kill"]
    worker: Worker | None = None
    detail: Any = None


class Supervisor:
    """Keeps ``settings.workers`` processes running; everything that happens is an event in one queue."""

    def __init__(self, source: Source, settings: Settings, server: socket.socket, announce: Announce) -> None:
        self.source = source
        self.settings = settings
        self.server = server
        self.announce = announce
        self.url = runner.url(server)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        # All that run: those in service, those that are to take another's place, and those that leave.
        self.workers: list[Worker] = []
        self.waiting = set(range(settings.workers))
        self.announced = False
        self.stopping = False
        self.code = 0
        self.failure: errors.ModelpackError | None = None
        intervals = [settings.hang / 4] if settings.hang else []
        intervals += [MEMORY_SECONDS] if settings.max_memory else []
        self.interval = min(intervals, default=0.0)
        self.checked = time.monotonic()
        self.pages = Pages()

    def run(self) -> int:
        """Run until told to stop and all workers are gone; return the exit code."""
        with self._signals():
            for slot in range(self.settings.workers):
                self._start(slot)
            if self.interval:
                self._later(self.interval, Event("check"))
            while self.workers or not self.stopping:
                event = self.events.get()
                getattr(self, f"_on_{event.kind}")(event)
        if self.failure is not None:
            raise self.failure
        return self.code

    def _start(self, slot: int, deaths: int = 0, *, old: Worker | None = None) -> None:
        reading, writing = os.pipe()
        shared = Pulse.memory()
        fd, ledger, page = self.server.fileno(), self.pages.fd, self.pages.take(slot)
        process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            worker.arguments(
                self.source, self.settings, server=fd, report=writing, pulse=shared, ledger=ledger, page=page
            ),
            stdin=subprocess.PIPE,
            pass_fds=(fd, writing, shared, ledger),
            # Ctrl-C in a terminal is for the supervisor; the workers are told by it.
            start_new_session=True,
        )
        os.close(writing)
        started = Worker(slot, process, Pulse(shared), deaths, page, old=old)
        os.close(shared)
        self.workers.append(started)
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
        event.worker.ready = True
        # What the first worker has loaded is what all others must load, now and later.
        self.source = replace(self.source, digest=self.source.digest or event.detail["digest"])
        self.waiting.discard(event.worker.slot)
        if self.announced:
            log.info("worker %d is back as process %d", event.worker.slot, event.worker.process.pid)
        elif not self.waiting and not self.stopping:
            self.announced = True
            self.announce(self.url, event.detail)
        old, event.worker.old = event.worker.old, None
        if old in self.workers:
            old.leaving = True
            self.pages.own[layout.GREW] += 1
            old.process.send_signal(signal.SIGUSR2)
            patience = runner.LEAVE_SECONDS + self.settings.grace + KILL_AFTER
            self._later(patience, Event("overdue", old))

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
        self.workers.remove(dead)
        self.pages.give_back(dead.page)
        if self.stopping:
            # One that was stopped before it could listen dies of the signal; that is what was asked for.
            self.code = self.code or (0 if code in (0, -signal.SIGTERM) else 1)
        elif not self.announced:
            log.error("worker %d ended with code %d before it was ready", dead.slot, code)
            self.code = 1
            self._stop()
        elif dead.leaving:
            log.log(logging.ERROR if code else logging.INFO, "worker %d has left with code %d", dead.slot, code)
        elif dead.old in self.workers:
            log.error("worker %d ended with code %d before it could take over", dead.slot, code)
            dead.old.spare(dead.old.recycled + 1)
        elif not self._successor(dead):
            deaths = dead.deaths + 1 if dead.young else 0
            pause = min(2.0 ** (deaths - 2), LONGEST_PAUSE) if deaths > 1 else 0.0
            log.error("worker %d ended with code %d; restarting it in %.1f s", dead.slot, code, pause)
            self._later(pause, Event("restart", detail=(dead.slot, deaths)))
            self.pages.own[layout.HUNG if dead.hung else layout.DIED] += 1

    def _successor(self, one: Worker) -> Worker | None:
        """Return the worker that is to take one's place."""
        return next((other for other in self.workers if other.old is one), None)

    def _on_check(self, event: Event) -> None:
        if self.stopping:
            # Whoever is finishing what it has does not beat.
            return
        # After a pause of the whole machine nobody has had time to give a sign of life.
        now = time.monotonic()
        seconds, self.checked = min(now - self.checked, 2 * self.interval), now
        for one in [one for one in self.workers if one.ready and not one.leaving]:
            one.alive(seconds)
            if self.settings.hang and one.silent >= self.settings.hang:
                log.error("worker %d has given no sign of life for %.0f s; killing it", one.slot, one.silent)
                one.process.kill()
                one.hung = True
                # It is told once.
                one.ready = False
            elif self.settings.max_memory:
                self._watch_memory(one)
        self._later(self.interval, Event("check"))

    def _watch_memory(self, one: Worker) -> None:
        """Replace a worker that is too large, one at a time; workers that are so from the start less and less often."""
        busy = any(other.old is not None for other in self.workers)
        memory = one.memory
        if busy or memory <= self.settings.max_memory or time.monotonic() < one.spared:
            return
        log.warning("worker %d holds %d MB of memory; another takes its place", one.slot, memory // 1024**2)
        self._start(one.slot, old=one)
        if time.monotonic() - max(one.started, one.spared) < STABLE_SECONDS:
            self.workers[-1].spare(one.recycled + 1)

    def _on_overdue(self, event: Event) -> None:
        if event.worker in self.workers:
            event.worker.process.kill()

    def _on_restart(self, event: Event) -> None:
        if not self.stopping:
            self._start(*event.detail)

    def _on_stop(self, event: Event) -> None:
        if self.stopping:
            self._on_kill(event)
        else:
            self._stop()

    def _on_kill(self, event: Event) -> None:
        for running in self.workers:
            running.process.kill()

    def _stop(self) -> None:
        self.stopping = True
        # The socket lives as long as anyone holds it: clients must not queue at a server that is gone.
        self.server.close()
        for running in self.workers:
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
