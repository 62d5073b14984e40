"""Running the app: one socket, one event loop, an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn
from starlette.applications import Starlette

from modelpack.errors import ModelpackError
from modelpack_server.protocol import Protocol
from modelpack_server.settings import Settings

__all__ = ["Server", "bind", "url"]

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30
LAST_CALL_SECONDS = 1.0
# How long whoever is connected is answered by a process that another has taken the place of: until an idle connection
# would be closed anyway.
LEAVE_SECONDS = KEEP_ALIVE_SECONDS + 5.0

log = logging.getLogger("modelpack.server")


def bind(settings: Settings) -> socket.socket:
    """Return a socket bound to the address asked for, not yet listening: until it does, clients are refused.

    Raises:
        ModelpackError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((settings.host, settings.port))
    except (OSError, OverflowError) as exc:
        server.close()
        reason = getattr(exc, "strerror", None) or "not a port"
        raise ModelpackError(
            f"cannot listen on {settings.host} port {settings.port}: {reason}",
            code="address-unavailable",
            hint="Choose another --port; 0 takes a free one.",
        ) from exc
    return server


def url(server: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, but a stop that was asked for is a success, and new requests are told about it.

    After the first SIGTERM or SIGINT the requests in flight are finished, at most ``grace`` seconds long; after the
    second nothing is waited for. After SIGUSR2 it listens no more, but whoever is connected is answered until they
    leave: another process does the same work. ``beat`` is called as long as the event loop comes round.
    """

    def __init__(
        self,
        app: Starlette,
        settings: Settings,
        *,
        on_ready: Callable[[], None],
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        windows = sys.platform == "win32"
        config = uvicorn.Config(
            app,
            loop="auto" if windows else "uvloop",
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(settings.grace)),
        )
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready
        self._beat = beat
        self._stall = settings.stall
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve_on(self, server: socket.socket) -> int:
        """Serve until told to stop; return the exit code: 0, or 1 if requests had to be given up."""
        self._listening = server
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR2, self._leave)
        self.run(sockets=[server])
        running: int = self._app.state.invocations.running
        self._app.state.invocations.close()
        if running:
            log.error("gave up %d requests that were still running", running)
        return 1 if running else 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        if self.started:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Give a sign of life ten times a second; look for requests that stand still once a second."""
        self._beat()
        if self._stall and not counter % 10:
            before = asyncio.get_running_loop().time() - self._stall
            for connection in list(self.server_state.connections):
                cast(Protocol, connection).give_up(before)
        return await super().on_tick(counter)

    def _leave(self, sig: int, frame: FrameType | None) -> None:
        """Begin to make room for another process."""
        self._app.state.server.leaving = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_listening)
        self.should_exit = True

    def _stop_listening(self) -> None:
        for server in self.servers:
            server.close()
        self._listening.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close connections once whoever is connected has had time to be told."""
        state = self._app.state.server
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                while state.leaving and not state.draining and self.server_state.connections:
                    await asyncio.sleep(0.02)
        # uvicorn closes idle connections at once, also one whose request is on its way: its client would see a reset.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_CALL_SECONDS):
                while self._idle_connections():
                    await asyncio.sleep(0.02)
        # Answers that go on for as long as their clients like end now, and say so.
        state.draining = True
        await super().shutdown(sockets=sockets)

    def _idle_connections(self) -> bool:
        return len(self.server_state.connections) > len(self.server_state.tasks)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; uvicorn's own handler would in the end raise the signal again."""
        state = self._app.state.server
        again, state.draining = state.draining, True
        if self._loop is not None:
            # At once: who connects from now on is refused, and can go elsewhere.
            self._loop.call_soon_threadsafe(self._stop_listening)
        if again:
            self.force_exit = True
        self.should_exit = True
