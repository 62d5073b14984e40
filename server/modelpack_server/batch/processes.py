"""Processes of this machine as the engine of a batch run: each has a model of its own, and makes file after file."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Pipe
from typing import Any, Self, TypeVar

from modelpack.errors import SaveError
from modelpack.model import Model
from modelpack_server.handing import Handed

__all__ = ["Processes"]

T = TypeVar("T")
R = TypeVar("R")


class Processes:
    """Has work done by up to so many processes, which end with the block."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._hands: list[_Hand] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def each(
        self, model: Model, work: Callable[[Model, T], R], items: Sequence[T], held: Sequence[int] = ()
    ) -> Generator[tuple[T, R]]:
        """Yield each item with ``work(model, item)``, as they get done; the first error ends all of it.

        Raises:
            SaveError: a process has ended by itself, or was killed (``worker-died``).
        """
        todo: queue.SimpleQueue[T] = queue.SimpleQueue()
        for item in items:
            todo.put(item)
        while len(self._hands) < min(self._workers, len(items)):
            self._hands.append(_Hand(model, held))
        done: queue.SimpleQueue[tuple[T, Any]] = queue.SimpleQueue()
        threads = [threading.Thread(target=hand.go_on, args=(work, todo, done), daemon=True) for hand in self._hands]
        for thread in threads:
            thread.start()
        try:
            for _ in items:
                item, found = done.get()
                if isinstance(found, Exception):
                    raise found
                yield item, found
        except BaseException:
            self._end()
            raise
        finally:
            for thread in threads:
                thread.join()

    def _end(self) -> None:
        for hand in self._hands:
            hand.end()
        self._hands = []


class _Hand:
    """One process."""

    def __init__(self, model: Model, held: Sequence[int]) -> None:
        self._ours, theirs = Pipe()
        with theirs:
            # -P: the directory the run was started in is no place to import from.
            line = [sys.executable, "-P", "-m", "modelpack_server.batch.hand", str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                line,
                stdin=subprocess.PIPE,
                pass_fds=(theirs.fileno(), *held),
                start_new_session=True,  # Ctrl-C in a terminal is for the run, which ends them
            )
        self._ours.send((Handed.of(model), model.package.path.absolute()))

    def go_on(
        self, work: Callable[[Model, T], R], todo: queue.SimpleQueue[T], done: queue.SimpleQueue[tuple[T, Any]]
    ) -> None:
        """Have one item after another done until none is left, or one goes wrong."""
        found = None
        while not isinstance(found, Exception):
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            found = self._do(work, item)
            done.put((item, found))

    def _do(self, work: Callable[[Model, T], R], item: T) -> R | Exception:
        """Return what it gave, or the error it ended with."""
        try:
            self._ours.send((work, item))
            found: R | Exception = self._ours.recv()
        except (EOFError, ConnectionError):
            return SaveError(
                f"a process that made files has ended (code {self._process.wait()})",
                code="worker-died",
                hint="If memory ran out, have fewer (--workers). The same command goes on with what is missing.",
            )
        return found

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._ours.close()
