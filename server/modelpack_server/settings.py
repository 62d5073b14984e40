"""How one server runs: where it listens, what it refuses, how it stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelpack_server.cores import usable_cores
from modelpack_server.memory import usable_memory

__all__ = ["LogLevel", "Settings", "Source"]

LogLevel = Literal["debug", "info", "warning", "error"]

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything about a server but the model.

    ``port`` 0 picks a free one. ``max_body`` is in bytes. ``threads`` is how many calls of the model one worker makes
    at a time (None: one for code that came with the package, which need not be made for several at a time, and one for
    each core otherwise). ``grace`` is how many seconds requests in flight get after SIGTERM. ``timeout``: seconds until
    an answer is given up (0: never). ``batching``: whether requests that arrive together are scored together, and
    ``batch_rows`` how many rows at most. ``queue``: requests that may wait; what comes then is refused. ``hang``:
    seconds without a sign of life outside a prediction after which a worker is replaced (0: never). ``max_memory``:
    bytes of a worker's memory beyond which it is replaced (0: never). ``max_bodies``: bytes of large bodies that a
    worker holds at a time (None: its share of a quarter of the memory). ``stall``: seconds that a request may stand
    still while it comes (0: any). ``metrics``: whether what is done is counted, and told at ``/metrics``.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    workers: int = 1
    threads: int | None = None
    max_body: int = 100 * MEBIBYTE
    grace: float = 30.0
    timeout: float = 60.0
    batching: Literal["auto", "on", "off"] = "auto"
    batch_rows: int = 1024
    queue: int = 512
    hang: float = 60.0
    max_memory: int = 0
    max_bodies: int | None = None
    stall: float = 30.0
    metrics: bool = True
    log_level: LogLevel = "info"
    json_logs: bool = False

    def calls(self, trust: str) -> int:
        """Return how many calls of a model of this class of trust one worker makes at a time."""
        return self.threads or (1 if trust == "code" else usable_cores())

    def bodies(self) -> int:
        """Return how many bytes of large bodies one worker holds at a time: at least one body fits."""
        return max(self.max_body, self.max_bodies or usable_memory() // 4 // self.workers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Which package to load, and how: the arguments of ``modelpack.load``.

    ``digest``: the one package that may be at the path. Workers that are started later get it, so that no server
    answers from two models because the directory was replaced.
    """

    package: str
    allow_code: str | None = None
    flavor: str | None = None
    digest: str | None = None
