"""A batch run whose files are made by other processes: what they are told, and what an engine must do.

The plan, the record, the names of the files and the commit are those of any other run; only the files are made
elsewhere, under names that the driver gives. One that is made twice is the same file twice.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from modelpack.model import Model
from modelpack_server.batch import record, rejects, writers
from modelpack_server.batch.making import Maker
from modelpack_server.batch.options import Options
from modelpack_server.batch.plan import Part
from modelpack_server.batch.progress import Silent
from modelpack_server.batch.record import Record
from modelpack_server.batch.resume import rejects_of
from modelpack_server.wholefile import flush_directory

__all__ = ["Engine", "FolderWork", "TableWork"]

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Has work done by processes that see the same paths as this one."""

    def each(
        self, model: Model, work: Callable[[Model, T], R], items: Sequence[T], held: Sequence[int] = ()
    ) -> Generator[tuple[T, R]]:
        """Yield each item with ``work(model, item)``, as they get done; the first error ends all of it.

        When it is closed, nothing works any more. ``held``: descriptors of locks, which processes of this machine hold
        too, so that nobody has them as long as one of these lives.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderWork:
    """Makes one file of a folder, and that of the rows it refuses; returns its rows and how many seconds it took."""

    root: Path
    run: Record
    params: Mapping[str, Any]
    options: Options

    def __call__(self, model: Model, part: Part) -> tuple[int, float]:
        """Make the file of a part."""
        began = time.perf_counter()
        name = part.name
        path = self.root / "out" / name
        made = self.root / "made"
        made.mkdir(exist_ok=True)
        hidden = made / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{secrets.token_hex(6)}"
        aside = hidden.with_suffix(".rejects") if self.options.on_error is not None else None
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(path.open("xb")) for path in (hidden, aside) if path is not None]
                # Other processes refuse rows too: all of them together are counted where the run was started.
                refused = rejects.taken(files[1] if aside else None, self.options.max_rejects, count=0)
                with writers.writer(part.kind, files[0]) as out:
                    rows = Maker(model, self.params, self.options, Silent()).make(part, out, refused)
                for file in files:
                    file.flush()
                    os.fsync(file.fileno())
            record.unchanged(part.sources, self.run)
            path.parent.mkdir(parents=True, exist_ok=True)
            if aside is not None:
                aside.replace(rejects_of(self.root, name))
                flush_directory(self.root / "rejects")
            hidden.replace(path)
        finally:
            for left in (hidden, aside):
                if left is not None:
                    left.unlink(missing_ok=True)
        flush_directory(path.parent)
        return rows, round(time.perf_counter() - began, 3)


class _Load(Protocol):
    """A run into a table (:mod:`modelpack_server.batch.into_table`)."""

    def make(self, number: int, part: Part, maker: Maker) -> Any:
        """Make a data file, and that of the rows it refuses, unless they are there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableWork:
    """Makes one data file of a table."""

    load: _Load
    params: Mapping[str, Any]
    options: Options

    def __call__(self, model: Model, item: tuple[int, Part]) -> None:
        """Make the file of a part, unless it is there."""
        number, part = item
        self.load.make(number, part, Maker(model, self.params, self.options, Silent()))
