"""Requests through the model: gathered, coerced, scored, checked and encoded.

``batching`` decides when and together with what a request runs, ``waiting`` is where it waits until then, ``costs``
says how long calls take, ``merging`` what may run together, ``rowwise`` for which models, ``work`` runs it. ``around``
is for models that are watched at work.
"""

from __future__ import annotations

from modelpack_server.invocation.around import Around
from modelpack_server.invocation.batching import Batcher, Limits, Reply, too_late
from modelpack_server.invocation.merging import key, rows_of
from modelpack_server.invocation.rowwise import gathers
from modelpack_server.invocation.work import JSON, Request, Scorer, Streamer, Work, coerced, score

__all__ = [
    "JSON",
    "Around",
    "Batcher",
    "Limits",
    "Reply",
    "Request",
    "Scorer",
    "Streamer",
    "Work",
    "coerced",
    "gathers",
    "key",
    "rows_of",
    "score",
    "too_late",
]
