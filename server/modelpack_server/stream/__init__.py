"""Streams: what is added to a Delta table is scored into another one, each row once; or line by line in a pipe."""

from __future__ import annotations

from modelpack_server.stream import pipe
from modelpack_server.stream.job import run
from modelpack_server.stream.options import MAX_ROWS, Options, Summary, Waiter
from modelpack_server.stream.status import Status, status

__all__ = ["MAX_ROWS", "Options", "Status", "Summary", "Waiter", "pipe", "run", "status"]
