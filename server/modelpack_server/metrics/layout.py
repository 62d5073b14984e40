"""What is counted, and in which cell of a process's page.

Everything that tells requests apart is from a list made before the first of them: nothing a client sends can make a new
one. So a page has a fixed size, and to count is to add to a cell.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from modelpack_server.codecs import DECODERS

__all__ = [
    "BATCHES",
    "BODY_BYTES",
    "CELLS",
    "CPU",
    "DIED",
    "FAILURES",
    "GREW",
    "HUNG",
    "LEFT",
    "MEDIA",
    "OPEN",
    "OTHER",
    "PATHS",
    "PID",
    "PREDICTIONS",
    "QUEUED",
    "QUEUED_ROWS",
    "REQUESTS",
    "REQUESTS_SHAPE",
    "REQUEST_SECONDS",
    "ROWS",
    "SECONDS",
    "SINCE",
    "SLOT",
    "STATUSES",
    "VISITS",
    "Histogram",
    "answer",
    "visit",
]

OTHER = "other"
PATHS = ("/", "/docs", "/health", "/invocations", "/metadata", "/metrics", "/openapi.json", "/ping", "/version", OTHER)
MEDIA = (*sorted(DECODERS), OTHER)
STATUSES = ("200", "400", "404", "405", "406", "408", "413", "415", "429", "431", "500", "503", "504", OTHER)

# Who writes the page, and how that process is now. They are of that process alone: the next one begins anew.
PID, SLOT, SINCE, OPEN, QUEUED, QUEUED_ROWS = range(6)
# What only grows; a process that is started in the place of another goes on where that one stopped.
CPU, DIED, HUNG, GREW, LEFT, BODY_BYTES, FAILURES = range(6, 13)
_FIRST = 16

REQUEST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PREDICTION_SECONDS = (0.0001, 0.00025, *REQUEST_SECONDS)
_ROW_COUNTS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
_REQUEST_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cells that count values by size; the cell ``sum`` behind them holds what they add up to."""

    start: int
    bounds: tuple[float, ...]
    sum: int

    def add(self, cells: memoryview[float], value: float) -> None:
        """Count a value."""
        cells[self.start + bisect_left(self.bounds, value)] += 1
        cells[self.sum] += value


def _histogram(start: int, bounds: tuple[float, ...]) -> Histogram:
    # One cell more than bounds: for what is larger than all of them.
    return Histogram(start, bounds, start + len(bounds) + 1)


PREDICTIONS = _histogram(_FIRST, _PREDICTION_SECONDS)
ROWS = _histogram(PREDICTIONS.sum + 1, _ROW_COUNTS)
BATCHES = _histogram(ROWS.sum + 1, _REQUEST_COUNTS)
# Answers by path and status, those to scored requests excepted.
_VISITS = BATCHES.sum + 1
# Those have a histogram for each media type and status. So one cell tells both, and to count an answer is one addition
# less on the way that must be quick.
_ANSWERS = _VISITS + len(PATHS) * len(STATUSES)
_BUCKETS = len(REQUEST_SECONDS) + 1
# The seconds of all of them.
SECONDS = _ANSWERS + len(MEDIA) * len(STATUSES) * _BUCKETS
CELLS = SECONDS + 1

VISITS = slice(_VISITS, _ANSWERS)
REQUESTS = slice(_ANSWERS, SECONDS)
REQUESTS_SHAPE = (len(MEDIA), len(STATUSES), _BUCKETS)

_STATUS = {int(status): index for index, status in enumerate(STATUSES[:-1])}
_PATH = {path: index for index, path in enumerate(PATHS)}
_MEDIA = {media: index for index, media in enumerate(MEDIA)}


def visit(path: str, status: int) -> int:
    """Return the cell that counts answers of a status at a path."""
    return _VISITS + _PATH.get(path, len(PATHS) - 1) * len(STATUSES) + _STATUS.get(status, len(STATUSES) - 1)


def answer(media: str, status: int) -> int:
    """Return the first of the cells that count answers of a status to bodies of a media type, by their seconds."""
    kind = _MEDIA.get(media, len(MEDIA) - 1)
    return _ANSWERS + (kind * len(STATUSES) + _STATUS.get(status, len(STATUSES) - 1)) * _BUCKETS
