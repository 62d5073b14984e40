"""One request through the model: coerce, predict, check; in a thread, so that the event loop only reads and writes.

This is the seam for batching: whatever gathers requests replaces :meth:`Invocations.run`, and nothing else changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from modelpack import coerce
from modelpack.dtypes import ELEMENTS
from modelpack.errors import InputError, ModelError
from modelpack.frame import Frame
from modelpack.signature import Signature, Table, Tensors
from modelpack_server.codecs import Decoded

__all__ = ["Invocations", "Scorer", "score"]

T = TypeVar("T")


class Scorer(Protocol):
    """What the server needs of a model to score requests (``modelpack.Model`` is one)."""

    @property
    def signature(self) -> Signature:
        """What goes in and what comes out."""

    def score(self, frame: Frame, params: Mapping[str, Any]) -> Frame:
        """Score coerced data and return the checked answer."""


class Invocations:
    """Runs the work of requests in threads, at most ``threads`` at a time."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="invocation")
        self._running: set[Future[Any]] = set()

    @property
    def running(self) -> int:
        """How many requests are being worked on or wait for a thread."""
        return len(self._running)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; raises what it raises."""
        future = self._executor.submit(work)
        # A cancelled request does not stop its thread: it counts until the thread is done.
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Take no more work; what runs goes on."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def score(model: Scorer, request: Decoded, params: Mapping[str, Any] | None) -> Frame:
    """Return the model's checked answer to one request.

    Raises:
        InputError: data or params that do not fit the signature; the model was not called.
        OutputError, ModelError: the model failed.
    """
    signature = model.signature
    try:
        frame = coerce.inputs(request.data, signature, wire=request.wire, at=request.at)
        values = coerce.params(params, signature, wire="json")
    except RecursionError as exc:
        raise InputError("the data is nested too deeply", code="data-depth", path=request.at) from exc
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


def empty(signature: Signature, params: Mapping[str, Any]) -> Frame | None:
    """Return the answer to no rows at all, or None if only the model can know it.

    Most estimators raise on an empty batch, yet the answer is known where the signature gives outputs row by row.
    """
    if any(param.changes_outputs and params.get(param.name) != param.default for param in signature.params):
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
