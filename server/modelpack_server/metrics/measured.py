"""A model whose calls are counted and timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

from modelpack.frame import Frame
from modelpack_server.invocation import Around, Scorer
from modelpack_server.metrics.meter import Meter

__all__ = ["Measured"]


class Measured(Around):
    """A model that tells a meter of each of its calls."""

    def __init__(self, model: Scorer, meter: Meter) -> None:
        super().__init__(model)
        self.meter = meter

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

    def score_stream(self, frame: Frame, params: Mapping[str, Any]) -> Iterator[Any]:
        """Score coerced data and yield the pieces of the answer; the time between them is not the model's."""
        clock = _Clock()
        failure: BaseException | None = None
        try:
            yield from self.pieces(frame, params, clock)
        except GeneratorExit:
            raise
        except BaseException as exc:
            failure = exc
            raise
        finally:
            self.meter.predicted(perf_counter() - clock.seconds, frame.rows, failure)


class _Clock:
    """The time between entering and leaving, all together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += perf_counter() - self._began
