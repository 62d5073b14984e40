"""The OpenAPI 3.1 document of one model, generated from its signature."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelpack.signature import Signature, Table, Tensors
from modelpack_server import schemas
from modelpack_server.codecs import DECODERS, possible
from modelpack_server.facts import Facts
from modelpack_server.problems import MEDIA_TYPE

__all__ = ["document"]

JSON = "application/json"
Schema = dict[str, Any]


def document(facts: Facts, signature: Signature, replies: Sequence[str] = (), *, metrics: bool = True) -> Schema:
    """Return the document as JSON data; ``replies`` are the formats of answers, if more than the signature tells."""
    counted = _told("Return the metrics of the server for Prometheus", "metrics", "text/plain", {"type": "string"})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": facts.name,
            "version": facts.version,
            "description": facts.description or f"The model {facts.name}, served by modelpack.",
        },
        "paths": {
            "/invocations": {"post": _invocations(facts, signature, replies or possible(signature))},
            "/ping": _told("Say that the server takes requests", "ping", "text/plain", {"type": "string"}),
            "/health": _told("Say that the server takes requests", "health", "text/plain", {"type": "string"}),
            "/version": _told("Return the version of modelpack", "version", "text/plain", {"type": "string"}),
            "/metadata": _told("Return manifest, signature, digest and flavor", "metadata", JSON, {"type": "object"}),
            **({"/metrics": counted} if metrics else {}),
        },
        "components": {"schemas": {"Problem": _problem(), "Params": schemas.params(signature.params)}},
    }


def _told(summary: str, name: str, media: str, schema: Schema) -> Schema:
    ok = {"description": "It does.", "content": {media: {"schema": schema}}}
    return {"get": {"summary": summary, "operationId": name, "responses": {"200": ok}}}


def _invocations(facts: Facts, signature: Signature, replies: Sequence[str]) -> Schema:
    failures = {
        "400": "The request does not fit the signature; path says where.",
        "406": "The sender takes no format in which the predictions can be written.",
        "413": "The body is too large.",
        "415": "The body is in a format, or compressed in a way, that is not read.",
        "500": "The model failed; id finds the trace in the server's log.",
        "503": "The server is stopping.",
    }
    answer = {
        "type": "object",
        "properties": {"predictions": schemas.answer(signature.outputs)},
        "required": ["predictions"],
    }
    return {
        "summary": "Score rows",
        "operationId": "invocations",
        "parameters": [
            {
                "name": "params",
                "in": "query",
                "required": False,
                "description": "The params, for formats that have no place for them.",
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Params"}}},
            }
        ],
        "requestBody": {"required": True, "content": _contents(facts.example, signature)},
        "responses": {
            "200": {
                "description": "The predictions.",
                "content": {JSON: {"schema": answer}} | {media: _bytes(media) for media in replies if media != JSON},
            },
            **{status: _failure(text) for status, text in failures.items()},
        },
    }


def _failure(text: str) -> Schema:
    return {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _contents(example: Mapping[str, Any] | None, signature: Signature) -> Schema:
    body: Schema = {"schema": {"oneOf": [_body(form, schema) for form, schema in _forms(signature)]}}
    if example is not None:
        body["example"] = json.loads(json.dumps(example))
    return {JSON: body} | {media: _bytes(media) for media in sorted(DECODERS) if media != JSON}


def _bytes(media: str) -> Schema:
    """Return the description of a body that is no JSON; in OpenAPI 3.1 one that is not text has no schema."""
    return {"schema": {"type": "string"}} if media.startswith("text/") else {}


def _body(form: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "title": form,
        "properties": {form: schema, "params": {"$ref": "#/components/schemas/Params"}},
        "required": [form],
        "additionalProperties": False,
    }


def _forms(signature: Signature) -> list[tuple[str, Schema]]:
    """Return the forms a body may have, with the schema of each."""
    match signature.inputs:
        case Table():
            return [("dataframe_split", _split(signature.inputs)), *_table(signature.inputs)]
        case Tensors():
            rows = {"type": "array", "items": schemas.tensors(signature.inputs, skip=1)}
            return [("inputs", schemas.tensors(signature.inputs)), ("instances", rows)]
        case None:
            split = {"type": "object", "required": ["data"]}
            rows = {"type": "array"}
            return [("dataframe_split", split), ("dataframe_records", rows), ("instances", rows), ("inputs", {})]


def _table(table: Table) -> list[tuple[str, Schema]]:
    rows = {"type": "array", "items": schemas.record(table)}
    return [("dataframe_records", rows), ("instances", rows), ("inputs", schemas.columns(table))]


def _split(table: Table) -> Schema:
    return {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}, "examples": [[c.name for c in table.columns]]},
            "index": {"type": "array", "description": "Taken and not used."},
            "data": {"type": "array", "items": {"type": "array"}},
        },
        "required": ["data"],
        "additionalProperties": False,
    }


def _problem() -> Schema:
    text = {"type": "string"}
    place = {"row": {"type": "integer"}, "column": text}
    fault = {"type": "object", "properties": {"code": text, "path": text, "message": text, **place}}
    return {
        "type": "object",
        "description": "RFC 9457; error_code and message are MLflow's.",
        "properties": {
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "error_code": text,
            "message": text,
            "code": text,
            "path": text,
            **place,
            "hint": text,
            "faults": {"type": "array", "items": fault},
            "id": text,
        },
        "required": ["title", "status", "detail", "error_code", "message", "code"],
    }
