"""A model that does as another does, with something else around each of its calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from modelpack.frame import Frame
from modelpack.signature import Signature
from modelpack_server.invocation.work import Scorer, Streamer

__all__ = ["Around"]

_END = object()


class Around:
    """What is the same whatever is around the calls."""

    def __init__(self, model: Scorer) -> None:
        self.model = model

    @property
    def signature(self) -> Signature:
        """What goes in and what comes out."""
        return self.model.signature

    @property
    def streams(self) -> bool:
        """Whether the model can answer piece by piece."""
        return bool(getattr(self.model, "streams", False))

    def pieces(self, frame: Frame, params: Mapping[str, Any], step: AbstractContextManager[object]) -> Iterator[Any]:
        """Yield the pieces of the answer; ``step`` is entered while the model makes one, again for each."""
        assert isinstance(self.model, Streamer)
        pieces = self.model.score_stream(frame, params)
        try:
            while True:
                with step:
                    piece = next(pieces, _END)
                if piece is _END:
                    return
                yield piece
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
