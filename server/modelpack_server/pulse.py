"""Signs of life of a worker, in memory it shares with its supervisor.

A worker whose event loop stands still cannot say why: a prediction may hold the interpreter for minutes, and that is no
fault. So it writes down beforehand what it is about to do: a count of the beats of its loop, and how many predictions
are running. Reading both needs nothing of the worker.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from modelpack.frame import Frame
from modelpack_server.invocation import Around, Scorer

__all__ = ["Marked", "Pulse"]

_SIZE = 16


class Pulse:
    """Two numbers in shared memory, written by one process, read by another; in its own with the descriptor -1."""

    def __init__(self, fd: int) -> None:
        self._numbers = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")
        # Predictions run in several threads.
        self._lock = threading.Lock()

    @staticmethod
    def memory() -> int:
        """Return the descriptor of new memory, all zero."""
        if sys.platform == "linux":
            fd = os.memfd_create("modelpack-pulse", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.truncate(fd, _SIZE)
        return fd

    @property
    def beats(self) -> int:
        """How often the event loop has come round; 0 until it runs."""
        return self._numbers[0]

    @property
    def predicting(self) -> bool:
        """Whether the model is at work."""
        return self._numbers[1] > 0

    def beat(self) -> None:
        """Count one round of the event loop."""
        self._numbers[0] += 1

    def enter(self) -> None:
        """Say that a prediction begins."""
        with self._lock:
            self._numbers[1] += 1

    def leave(self) -> None:
        """Say that a prediction has ended."""
        with self._lock:
            self._numbers[1] -= 1


class Marked(Around):
    """A model that says when it is at work."""

    def __init__(self, model: Scorer, pulse: Pulse) -> None:
        super().__init__(model)
        self.pulse = pulse

    def score(self, frame: Frame, params: Mapping[str, Any]) -> Frame:
        """Score coerced data and return the checked answer."""
        self.pulse.enter()
        try:
            return self.model.score(frame, params)
        finally:
            self.pulse.leave()

    def score_stream(self, frame: Frame, params: Mapping[str, Any]) -> Iterator[Any]:
        """Score coerced data and yield the pieces of the answer."""
        return self.pieces(frame, params, _AtWork(self.pulse))


class _AtWork:
    """A prediction, from entering to leaving."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def __enter__(self) -> None:
        self._pulse.enter()

    def __exit__(self, *_: object) -> None:
        self._pulse.leave()
