"""A model whose calls are counted and timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

from modelpack.frame import Frame
from modelpack_server.invocation import Scorer, Streamer
from modelpack_server.metrics.meter import Meter

__all__ = ["Measured"]

_END = object()


class Measured:
    """A model that tells a meter of each of its calls."""

    def __init__(self, model: Scorer, meter: Meter) -> None:
        self.model = model
        self.meter = meter
        self.signature = model.signature

    def score(self, frame: Frame, params: Mapping[str, Any]) -> Frame:
        """Score coerced data and return the checked answer."""
        began = perf_counter()
        try:
            answer = self.model.score(frame, params)
        except BaseException as exc:
            self.meter.predicted(began, frame.rows, exc)
            raise
        self.meter.predicted(began, frame.rows)
        return answer

    @property
    def streams(self) -> bool:
        """Whether the model can answer piece by piece."""
        return bool(getattr(self.model, "streams", False))

    def score_stream(self, frame: Frame, params: Mapping[str, Any]) -> Iterator[Any]:
        """Score coerced data and yield the pieces of the answer; the time between them is not the model's."""
        assert isinstance(self.model, Streamer)
        pieces = self.model.score_stream(frame, params)
        seconds = 0.0
        failure: BaseException | None = None
        try:
            while True:
                began = perf_counter()
                try:
                    piece = next(pieces, _END)
                finally:
                    seconds += perf_counter() - began
                if piece is _END:
                    return
                yield piece
        except GeneratorExit:
            raise
        except BaseException as exc:
            failure = exc
            raise
        finally:
            self.meter.predicted(perf_counter() - seconds, frame.rows, failure)
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
