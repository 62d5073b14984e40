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

__all__ = ["DECODERS", "ENCODERS", "Decoded", "decoder", "encoder"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A request body as data that ``modelpack.coerce`` takes.

    ``wire`` says how its values are written, ``at`` which part of the body they came from (the start of every path
    in an error). ``params`` is None where the format has no place for them.
    """

    data: Any
    wire: Literal["json", "python", "text"]
    at: str = ""
    params: Mapping[str, Any] | None = None


Decoder = Callable[[bytes, Signature], Decoded]
Encoder = Callable[[Frame], bytes]

DECODERS: Mapping[str, str] = MappingProxyType(
    {
        "application/json": "modelpack_server.codecs.json_body:decode",
        "text/csv": "modelpack_server.codecs.csv_body:decode",
        "application/vnd.apache.parquet": "modelpack_server.codecs.parquet_body:decode",
    }
)
ENCODERS: Mapping[str, str] = MappingProxyType({"application/json": "modelpack_server.codecs.json_body:encode"})


@cache
def _named(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def decoder(media: str) -> Decoder:
    """Return what reads bodies of this media type: ``decode(body, signature) -> Decoded``, raising InputError."""
    found: Decoder = _named(DECODERS[media])
    return found


def encoder(media: str) -> Encoder:
    """Return what writes predictions in this media type: ``encode(frame) -> bytes``, raising OutputError."""
    found: Encoder = _named(ENCODERS[media])
    return found
