"""Batch scoring: files in, files out, in bounded memory."""

from __future__ import annotations

from modelpack_server.batch.formats import FILES, FORMATS
from modelpack_server.batch.job import predict_files, run
from modelpack_server.batch.options import BATCH_SIZE, Options, Summary, with_engine
from modelpack_server.batch.plan import Plan, make
from modelpack_server.delta.history import When

__all__ = ["BATCH_SIZE", "FILES", "FORMATS", "Options", "Plan", "Summary", "When", "make", "predict_files", "run",
           "with_engine"]  # fmt: skip
