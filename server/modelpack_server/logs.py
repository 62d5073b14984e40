"""Logs that never hold a payload: the texts of foreign exceptions are left out, their frames are kept.

``ValueError: could not convert string to float: 'Miller'`` is how a model's exception brings a customer's name into
a log file. A trace here has every frame and every exception's type, which is what finds the fault; the texts are
written only at level debug.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback

from modelpack.errors import ModelError, ModelpackError
from modelpack_server.settings import Settings

__all__ = ["configure", "trace"]


def trace(error: BaseException, *, messages: bool = False) -> str:
    """Return the trace of ``error`` and of what caused it; with ``messages`` the exceptions' own texts as well."""
    if messages:
        return "".join(traceback.format_exception(error)).rstrip()
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{lines}{_headline(current)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n\nThe above exception was raised while handling:\n\n".join(parts)


def _headline(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # Messages of our own errors never hold values; a ModelError's quotes the model.
    if isinstance(error, ModelpackError) and not isinstance(error, ModelError):
        return f"{name}: {error}"
    return f"{name}: (text left out, it may quote the request; --log-level debug shows it)"


class PlainFormatter(logging.Formatter):
    """One readable line per record: time, level, message."""

    def __init__(self, *, messages: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self.messages = messages

    def formatException(self, ei: object) -> str:  # noqa: N802 (the name is logging's)
        return _trace_of(ei, messages=self.messages)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, trace."""

    def __init__(self, *, messages: bool) -> None:
        super().__init__()
        self.messages = messages

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = _trace_of(record.exc_info, messages=self.messages)
        return json.dumps(line)


def _trace_of(info: object, *, messages: bool) -> str:
    error = info[1] if isinstance(info, tuple) else None
    return trace(error, messages=messages) if isinstance(error, BaseException) else ""


def configure(settings: Settings) -> None:
    """Send our log and uvicorn's to stderr at the level asked for; replaces what was configured before."""
    messages = settings.log_level == "debug"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(messages=messages) if settings.json_logs else PlainFormatter(messages=messages))
    level = settings.log_level.upper()
    # uvicorn tells at level info what our own ready line says better.
    levels = {"modelpack": level, "uvicorn": level if settings.log_level in ("debug", "error") else "WARNING"}
    for name, value in levels.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(value)
        logger.propagate = False
