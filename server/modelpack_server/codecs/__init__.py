"""Wire formats: media type → codec, one file per format. A codec is imported when the first request needs it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from modelpack.frame import Frame
from modelpack.signature import Signature

__all__ = ["DECODERS", "ENCODERS", "Decoded", "decoder", "encoder", "possible"]


@dataclass(kw_only=True, slots=True)
class Decoded:
    """A request body as data that ``modelpack.coerce`` takes.

    ``wire`` says how its values are written, ``at`` which part of the body they came from (the start of every path
    in an error). ``params`` is None where the format has no place for them. ``apart``: each row was sent by itself, so
    it has columns of its own (:mod:`modelpack_server.codecs.lines_apart`).
    """

    data: Any
    wire: Literal["json", "python", "text"]
    at: str = ""
    params: Mapping[str, Any] | None = None
    apart: bool = False


# Arrow streams and npy come as views of memory when they are large, all else as bytes.
Decoder = Callable[[Any, Signature], Decoded]
Encoder = Callable[[Frame], bytes]

DECODERS: Mapping[str, str] = MappingProxyType(
    {
        "application/json": "modelpack_server.codecs.json_body:decode",
        "application/vnd.apache.arrow.stream": "modelpack_server.codecs.arrow_body:decode",
        "application/vnd.apache.arrow.file": "modelpack_server.codecs.arrow_body:decode_file",
        "application/vnd.apache.parquet": "modelpack_server.codecs.parquet_body:decode",
        "application/x-ndjson": "modelpack_server.codecs.lines_body:decode",
        "application/x-npy": "modelpack_server.codecs.npy_body:decode",
        "application/x-npz": "modelpack_server.codecs.npz_body:decode",
        "text/csv": "modelpack_server.codecs.csv_body:decode",
    }
)
# In the order in which they are preferred by a client that takes several alike.
ENCODERS: Mapping[str, str] = MappingProxyType(
    {
        "application/json": "modelpack_server.codecs.json_body:encode",
        "application/vnd.apache.arrow.stream": "modelpack_server.codecs.arrow_body:encode",
        "application/vnd.apache.parquet": "modelpack_server.codecs.parquet_body:encode",
        "application/x-npy": "modelpack_server.codecs.npy_body:encode",
        "application/x-npz": "modelpack_server.codecs.npz_body:encode",
        "text/csv": "modelpack_server.codecs.csv_body:encode",
        "application/x-ndjson": "modelpack_server.codecs.lines_body:encode",
    }
)


@cache
def _named(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def decoder(media: str) -> Decoder:
    """Return what reads bodies of this media type: ``decode(body, signature) -> Decoded``, raising InputError."""
    found: Decoder = _named(DECODERS[media])
    return found


def encoder(media: str) -> Encoder:
    """Return what writes predictions in this media type: ``encode(frame) -> bytes``.

    It raises OutputError for what no format can say, HttpProblem (406) for what this one cannot.
    """
    found: Encoder = _named(ENCODERS[media])
    return found


def possible(signature: Signature) -> tuple[str, ...]:
    """Return the media types in which a model can answer, as far as its signature tells; JSON is always the first."""
    rule: Callable[[Signature], tuple[str, ...]] = _named("modelpack_server.codecs.shapes:possible")
    return rule(signature)
