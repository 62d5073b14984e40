"""What a client is told when a request fails: RFC 9457 problem documents that MLflow's clients can read as well.

::

    {"title": "Bad Request", "status": 400, "detail": "...",        RFC 9457
     "error_code": "BAD_REQUEST", "message": "...",                  read by MLflow's clients
     "code": "not-whole", "path": "dataframe_split.data[3][1]",      ours: stable code, where
     "row": 3, "column": "age", "hint": "...",
     "faults": [{"code", "path", "message", "row", "column"}, ...],  when there are several
     "id": "4f1c..."}                                                500 only: the same id is in the log

No problem carries a stack trace, a server path or a value that was sent. Messages of modelpack's own errors keep that
promise themselves; the text of any other exception may quote the data, so it never leaves this process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from modelpack.errors import Fault, InputError, ModelError, ModelpackError, OutputError
from modelpack_server.logs import trace

__all__ = ["MEDIA_TYPE", "HttpProblem", "respond", "response"]

MEDIA_TYPE = "application/problem+json"

# The names MLflow's clients know (mlflow.protos.databricks_pb2.ErrorCode).
ERROR_CODES: Mapping[int, str] = {
    404: "ENDPOINT_NOT_FOUND",
    413: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}

# Enough to see the pattern; a thousand rows with one fault each would make a long reply to a short mistake.
MAX_FAULTS = 20

log = logging.getLogger("modelpack.server")


class HttpProblem(Exception):
    """A request that is refused before any data is looked at: ``status`` and what to tell the client."""

    def __init__(
        self, status: int, message: str, *, code: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.hint = hint
        self.headers = dict(headers or {})


def respond(error: Exception, request_id: str) -> Response:
    """Return the reply that tells about ``error``; what is the server's or the model's fault goes to the log too."""
    if isinstance(error, HttpProblem):
        facts = {"code": error.code, "message": error.message, "hint": error.hint}
        return response(error.status, facts, headers=error.headers)
    if isinstance(error, InputError):
        return response(400, _told(error))
    log.error("request %s failed: %s", request_id, _summary(error))
    log.error("request %s: %s", request_id, trace(error, messages=log.isEnabledFor(logging.DEBUG)))
    return response(500, {**_public(error), "id": request_id})


def response(status: int, facts: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem document; ``facts`` holds ``code`` and ``message``, and what else is known."""
    title = HTTPStatus(status).phrase
    message = facts["message"]
    where = facts.get("path") or ""
    column = facts.get("column")
    if column is not None and column not in where:
        where = f"{where} (column {column!r})"
    body = {
        "title": title,
        "status": status,
        "detail": f"{where}: {message}" if where else message,
        "error_code": ERROR_CODES.get(status, "BAD_REQUEST"),
        **{key: value for key, value in facts.items() if value not in (None, "")},
    }
    return Response(orjson.dumps(body), status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _told(error: InputError) -> dict[str, Any]:
    """Return all that is known of what is wrong with the data."""
    facts = {**error.to_json(), **_place(error.faults[0])}
    if len(error.faults) > 1:
        facts["faults"] = [
            {"code": fault.code, "path": fault.path, "message": fault.message, **_place(fault)}
            for fault in error.faults[:MAX_FAULTS]
        ]
    return facts


def _place(fault: Fault) -> dict[str, Any]:
    place = {"row": fault.row, "column": fault.column}
    return {key: value for key, value in place.items() if value is not None}


def _public(error: Exception) -> dict[str, Any]:
    """Return what may be told about a failure on our side."""
    hint = "The server's log has the trace under this id."
    if isinstance(error, ModelError):
        kind = type(error.__cause__).__name__ if error.__cause__ else "an exception"
        return {"code": error.code, "message": f"the model raised {kind}", "hint": hint}
    if isinstance(error, OutputError):
        return {**error.to_json(), "hint": error.hint or hint}
    if isinstance(error, ModelpackError):
        return {"code": error.code, "message": "the server could not score this request", "hint": hint}
    return {"code": "internal-error", "message": "the server failed on this request", "hint": hint}


def _summary(error: Exception) -> str:
    """Return one line for the log, without the text of exceptions that are not ours."""
    if isinstance(error, ModelpackError) and not isinstance(error, ModelError):
        return f"[{error.code}] {error}"
    return str(_public(error)["message"])
