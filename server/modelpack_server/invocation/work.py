"""Requests through the model: decode, coerce, predict, check, encode.

One request, or several that belong together: then they are coerced and scored as one, and each gets its own rows of the
answer. If that fails for whatever reason, each is done again alone, so that no request can spoil another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from modelpack import coerce
from modelpack.dtypes import ELEMENTS
from modelpack.errors import Fault, InputError, ModelError, OutputError
from modelpack.frame import Frame
from modelpack.signature import Signature, Table, Tensors
from modelpack_server.codecs import Decoded, decoder, encoder, json_body, lines_apart
from modelpack_server.invocation.merging import merge, rows_of

__all__ = ["JSON", "Request", "Scorer", "Streamer", "Work", "coerced", "score"]

JSON = "application/json"
MAX_FAULTS = 100


class Scorer(Protocol):
    """What the server needs of a model to score requests (``modelpack.Model`` is one)."""

    @property
    def signature(self) -> Signature:
        """What goes in and what comes out."""

    def score(self, frame: Frame, params: Mapping[str, Any]) -> Frame:
        """Score coerced data and return the checked answer."""


@runtime_checkable
class Streamer(Scorer, Protocol):
    """A scorer of which some can answer piece by piece."""

    @property
    def streams(self) -> bool:
        """Whether this one can."""

    def score_stream(self, frame: Frame, params: Mapping[str, Any]) -> Iterator[Any]:
        """Score coerced data and yield the pieces of the answer."""


@dataclass(slots=True)
class Request:
    """A request on its way: its body until it is ``decoded``, the params of its query, the format of its reply."""

    media: str
    body: bytes | memoryview
    query: Mapping[str, Any] | None
    reply: str
    decoded: Decoded | None = None

    def decode(self, signature: Signature) -> Decoded:
        """Return the decoded body, params and all.

        Raises:
            InputError: the body is not in its format, or params came twice.
        """
        if self.decoded is None:
            decoded = decoder(self.media)(self.body, signature)
            if self.query is not None:
                if decoded.params is not None:
                    raise InputError(
                        "params are in the body and in the query",
                        code="params-twice",
                        path="params",
                        hint="Send them once.",
                    )
                decoded = replace(decoded, params=self.query)
            self.decoded = decoded
        return self.decoded


class Work:
    """What is done with a batch of requests: the bytes of a reply for each, or the exception that says why not."""

    def __init__(self, model: Scorer) -> None:
        self.model = model

    def __call__(self, requests: Sequence[Request]) -> Sequence[Any]:
        """Return a reply or an exception for each request; never raises."""
        if len(requests) < 2:
            return [self._alone(request) for request in requests]
        with contextlib.suppress(Exception):
            return self._together(requests)
        # Whatever went wrong, and for whichever of them, each gets to know its own part of it, and halves that hold
        # no bad one are scored together still.
        middle = len(requests) // 2
        return [*self(requests[:middle]), *self(requests[middle:])]

    def _alone(self, request: Request) -> bytes | Exception:
        try:
            decoded = request.decode(self.model.signature)
            return encoder(request.reply)(score(self.model, decoded, decoded.params))
        except Exception as exc:
            return exc

    def _together(self, requests: Sequence[Request]) -> Sequence[bytes]:
        parts = [request.decode(self.model.signature) for request in requests]
        whole = replace(parts[0], data=merge([part.data for part in parts]))
        answer = score(self.model, whole, whole.params)
        ends = list(accumulate(rows_of(part.data) for part in parts))
        if answer.rows != ends[-1]:
            raise OutputError("the answer has other rows than the requests", code="rows-mismatch")
        bounds = list(pairwise([0, *ends]))
        if all(request.reply == JSON for request in requests):
            return json_body.encode_parts(answer, bounds)
        slices = (answer.slice(start, stop) for start, stop in bounds)
        return [encoder(request.reply)(part) for request, part in zip(requests, slices, strict=True)]


def score(model: Scorer, request: Decoded, params: Mapping[str, Any] | None) -> Frame:
    """Return the model's checked answer to one request.

    Raises:
        InputError: data or params that do not fit the signature; the model was not called.
        OutputError, ModelError: the model failed.
    """
    signature = model.signature
    if request.apart and (groups := lines_apart.groups(request.data, signature)):
        return _score_apart(model, request, params, groups)
    return _scored(model, *coerced(request, params, signature))


def _score_apart(
    model: Scorer, request: Decoded, params: Mapping[str, Any] | None, groups: Sequence[lines_apart.Places]
) -> Frame:
    """Score rows that cannot go to the model together apart; none is scored unless all fit."""
    fed: list[tuple[Frame, Mapping[str, Any]]] = []
    faults: list[Fault] = []
    for places in groups:
        try:
            fed.append(coerced(replace(request, data=[request.data[row] for row in places]), params, model.signature))
        except InputError as exc:
            if any(fault.row is None for fault in exc.faults):
                raise
            faults += lines_apart.told(exc.faults, places)
    if faults:
        raise InputError.from_faults(sorted(faults, key=lambda fault: fault.row or 0)[:MAX_FAULTS])
    return lines_apart.joined([_scored(model, *given) for given in fed], groups)


def _scored(model: Scorer, frame: Frame, values: Mapping[str, Any]) -> Frame:
    signature = model.signature
    if frame.rows == 0:
        nothing = empty(signature, values)
        if nothing is not None:
            return nothing
    try:
        return model.score(frame, values)
    except Exception:
        raise
    except BaseException as exc:
        # sys.exit() inside a model must not end the server.
        raise ModelError(f"the model raised {type(exc).__name__}", code="model-raised") from exc


def coerced(
    request: Decoded, params: Mapping[str, Any] | None, signature: Signature
) -> tuple[Frame, Mapping[str, Any]]:
    """Return data and params of a request as the model takes them.

    Raises:
        InputError: they do not fit the signature.
    """
    try:
        frame = coerce.inputs(request.data, signature, wire=request.wire, at=request.at)
        return frame, coerce.params(params, signature, wire="json")
    except RecursionError as exc:
        raise InputError("the data is nested too deeply", code="data-depth", path=request.at) from exc


def empty(signature: Signature, params: Mapping[str, Any]) -> Frame | None:
    """Return the answer to no rows at all, or None if only the model can know it.

    Most estimators raise on an empty batch, yet the answer is known where the signature gives outputs row by row.
    """
    if coerce.changes_outputs(params, signature):
        return None
    match signature.outputs:
        case Table():
            return coerce.outputs([], signature.outputs, rows=0)
        case Tensors(tensors=tensors) if all(
            tensor.shape and not isinstance(tensor.shape[0], int) for tensor in tensors
        ):
            arrays = {
                tensor.name: np.empty(
                    (0, *(size if isinstance(size, int) else 0 for size in tensor.shape[1:])),
                    dtype=ELEMENTS[tensor.dtype].numpy,
                )
                for tensor in tensors
            }
            return Frame(rows=0, tensors=arrays)
        case _:
            return None
