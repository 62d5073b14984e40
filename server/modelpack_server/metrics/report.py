"""What a server tells Prometheus: the pages of all its processes, summed up and named (docs/http.md#metrics)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from modelpack import __version__
from modelpack_server.facts import Facts
from modelpack_server.metrics import layout
from modelpack_server.metrics.exposition import Family, counter, gauge, histogram, info
from modelpack_server.metrics.ledger import SUPERVISOR
from modelpack_server.metrics.processes import resident

__all__ = ["families"]

Numbers = np.ndarray[Any, np.dtype[np.float64]]

# Answers that mean a request was not taken on, or given up, whatever is in it.
REFUSALS: Mapping[str, str] = {
    "429": "overloaded",
    "504": "deadline-exceeded",
    "413": "body-too-large",
    "503": "server-stopping",
}


def families(pages: Numbers, about: Facts) -> list[Family]:
    """Return all metrics; ``pages`` are a ledger's, a row each."""
    total: Numbers = pages.sum(axis=0)
    running = [page for page in pages[SUPERVISOR + 1 :] if page[layout.PID]]
    return [*_model(about), *_http(total, running), *_calls(total, running), *_processes(pages, running)]


def _model(about: Facts) -> Iterator[Family]:
    labels = {"name": about.name, "version": about.version, "digest": about.digest, "flavor": about.flavor}
    yield info("modelpack_model", "The model that is served.", labels)
    yield info("modelpack_server", "The version of modelpack.", {"version": __version__})


def _http(total: Numbers, running: list[Numbers]) -> Iterator[Family]:
    answers = total[layout.REQUESTS].reshape(layout.REQUESTS_SHAPE)
    by_status = answers.sum(axis=(0, 2))
    visits = total[layout.VISITS].reshape(len(layout.PATHS), len(layout.STATUSES)).copy()
    visits[layout.PATHS.index("/invocations")] += by_status
    yield counter("modelpack_http_requests", "Requests that were answered.", _told(visits, path=layout.PATHS))
    scored = _told(answers.sum(axis=2), media=layout.MEDIA)
    yield counter("modelpack_invocations", "POST /invocations, by what was sent and what was answered.", scored)
    status = dict(zip(layout.STATUSES, by_status, strict=True))
    refused = [({"reason": reason}, status[number]) for number, reason in REFUSALS.items()]
    yield counter("modelpack_invocations_refused", "Requests that were not scored for want of room or time.", refused)
    yield counter(
        "modelpack_invocations_abandoned", "Requests whose clients left before the answer.", total[layout.LEFT]
    )
    words = "From the head of a POST /invocations to the beginning of its answer."
    yield histogram(
        "modelpack_invocation_duration_seconds",
        words,
        layout.REQUEST_SECONDS,
        list(answers.sum(axis=(0, 1))),
        total[layout.SECONDS],
    )
    yield counter("modelpack_http_body_bytes", "Bytes of bodies that were read.", total[layout.BODY_BYTES])
    yield gauge("modelpack_invocations_in_flight", "Requests that are not answered yet.", _now(running, layout.OPEN))
    yield gauge("modelpack_queue_requests", "Requests that wait for the model.", _now(running, layout.QUEUED))
    yield gauge("modelpack_queue_rows", "Rows of those that wait.", _now(running, layout.QUEUED_ROWS))


def _calls(total: Numbers, running: list[Numbers]) -> Iterator[Family]:
    yield counter("modelpack_rows", "Rows that the model has scored.", total[layout.ROWS.sum])
    yield counter("modelpack_prediction_failures", "Calls of the model that failed.", total[layout.FAILURES])
    yield _sizes("modelpack_prediction_duration_seconds", "Calls of the model.", total, layout.PREDICTIONS)
    yield _sizes("modelpack_prediction_rows", "Rows of calls of the model that succeeded.", total, layout.ROWS)
    yield _sizes("modelpack_batch_requests", "Requests that were gathered to be scored at once.", total, layout.BATCHES)


def _processes(pages: Numbers, running: list[Numbers]) -> Iterator[Family]:
    supervisor = pages[SUPERVISOR]
    reasons = {"died": layout.DIED, "hung": layout.HUNG, "memory": layout.GREW}
    yield gauge("modelpack_workers", "Worker processes that run.", len(running))
    restarts = [({"reason": reason}, supervisor[cell]) for reason, cell in reasons.items()]
    yield counter("modelpack_worker_restarts", "Workers that another was started for.", restarts)
    memory: dict[int, float] = {}
    since: dict[int, float] = {}
    for page in running:
        slot = int(page[layout.SLOT])
        memory[slot] = memory.get(slot, 0) + resident(int(page[layout.PID]))
        since[slot] = max(since.get(slot, 0), page[layout.SINCE])
    busy: dict[int, float] = {}
    for page in pages[SUPERVISOR + 1 :]:
        slot = int(page[layout.SLOT])
        busy[slot] = busy.get(slot, 0) + page[layout.CPU]
    yield gauge("process_start_time_seconds", "When a worker began to serve, in seconds since 1970.", _by_worker(since))
    yield gauge("process_resident_memory_bytes", "Memory that a worker holds.", _by_worker(memory))
    yield counter("process_cpu_seconds", "Time that a worker has spent on processors.", _by_worker(busy))


def _sizes(name: str, words: str, total: Numbers, cells: layout.Histogram) -> Family:
    return histogram(name, words, cells.bounds, list(total[cells.start : cells.sum]), total[cells.sum])


def _now(running: Iterable[Numbers], cell: int) -> float:
    return float(sum(page[cell] for page in running))


def _told(counts: Numbers, **rows: tuple[str, ...]) -> Iterator[tuple[dict[str, str], float]]:
    """Yield the counts that are not zero, by the name of the row and the status."""
    ((label, names),) = rows.items()
    for row, column in zip(*np.nonzero(counts), strict=True):
        yield {label: names[row], "status": layout.STATUSES[column]}, counts[row, column]


def _by_worker(numbers: Mapping[int, float]) -> list[tuple[dict[str, str], float]]:
    return [({"worker": str(slot)}, numbers[slot]) for slot in sorted(numbers)]
