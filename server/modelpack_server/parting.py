"""A client that sends no more: it may wait for its answer, or have left.

To TCP both look the same until something is sent. So who has its answer soon just gets it; after a moment an interim
answer (100, which every client of HTTP/1.1 skips, RFC 9110 15.2) is sent to find out: where nobody is, the system
says so, and the work is dropped.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

__all__ = ["Parting"]

LOOK_SECONDS = 0.1
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class Parting:
    """Watches a connection until it is closed; ``may_ask`` says whether an interim answer can be sent now."""

    def __init__(self, transport: asyncio.Transport, may_ask: Callable[[], bool]) -> None:
        self._transport = transport
        self._may_ask = may_ask
        self._asked = False
        self._wait()

    def _wait(self) -> None:
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        if transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            transport.abort()
            return
        if not self._asked and self._may_ask():
            self._asked = True
            transport.write(INTERIM)
        self._wait()
