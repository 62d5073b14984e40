"""The files of a commit, each scored on its own: here one after the other, or by an engine all at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelpack.errors import Fault, InputError, UsageError
from modelpack.model import Model
from modelpack_server.batch.assemble import Assembler
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.formats import Kind
from modelpack_server.batch.inputs import Source
from modelpack_server.batch.rejects import Refusal, Rejects, Stop, refusals
from modelpack_server.batch.scoring import Scorer
from modelpack_server.delta import rows
from modelpack_server.delta.commit import Target, fit
from modelpack_server.delta.log import Shape
from modelpack_server.delta.parts import Part
from modelpack_server.delta.storage import Root, inside
from modelpack_server.remote import RemoteFile
from modelpack_server.stream.follow import Piece

__all__ = ["Done", "PieceWork", "chunks"]


def chunks(
    root: Root, shape: Shape, piece: Piece, wanted: Wanted, size: int, gone: Callable[[Exception], None]
) -> Iterator[Chunk]:
    """Yield the rows of one file of the source; ``gone`` is called if the file is not there any more.

    Raises:
        InputError: the file cannot be read, or has a column in a type that is not the table's (``source-columns``).
    """
    place = inside(root, piece.add.path)
    remote = RemoteFile(url=place) if isinstance(place, str) else None
    path = place if isinstance(place, Path) else None
    source = Source(path=path, remote=remote, kind=Kind(format="parquet"), stem="")
    names = wanted.pick(shape.schema.names) or shape.schema.names
    try:
        for table, numbers in rows.read(root, piece.add, shape, names, size):
            if table.num_rows:  # else all of them are deleted
                yield Chunk(source=source, wire="python", data=table, numbers=numbers)
    except FileNotFoundError as exc:
        gone(exc)
    except InputError as exc:
        if exc.code != "source-columns":
            raise
        message = f"{exc.message} (version {piece.place.version})"
        hint = "Begin behind it, with --from-version and another --job."
        raise InputError(message, code=exc.code, path=exc.path, hint=hint) from exc


class _Gone(Exception):
    """The file of the source was vacuumed."""


def _raise(error: Exception) -> None:
    raise _Gone from error


class _Collected:
    """Collects refused rows for those who commit them; more than may be refused in all are not looked for."""

    tolerant = True

    def __init__(self, limit: int | None) -> None:
        self.count = 0
        self.found: list[Refusal] = []
        self._limit = limit

    @property
    def full(self) -> bool:
        """Whether there are too many already."""
        return self._limit is not None and self.count > self._limit

    def take(self, chunk: Chunk, faults: Sequence[Fault]) -> None:
        """Take the rows that are refused."""
        self.found += refusals(chunk, faults)
        self.count = len(self.found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What has become of a file: how many rows it has now (None: it is gone), and which were refused."""

    rows: int | None
    refused: Sequence[Refusal] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PieceWork:
    """Scores one file of the source into one of the output that no log lists yet, under a name that it is given.

    ``aside``: rows that do not fit are returned, up to the first beyond ``limit``; else they are an error.
    """

    root: Root
    shape: Shape
    wanted: Wanted
    keep: Sequence[str] | None
    params: Mapping[str, Any]
    size: int
    output: Root
    schema: pa.Schema
    aside: bool = False
    limit: int | None = None

    def __call__(self, model: Model, item: tuple[str, Piece]) -> Done:
        """Make the file, which is not there if it would have no row."""
        name = item[0]
        target = Target(self.output, family="stream")
        collected = _Collected(self.limit)
        # It is there if an executor made it that was lost before it could say so, and it stays, as this one may be late
        # and the commit done: only which rows are refused is looked for. The second file, the same, gets no place.
        if self.aside or target.files.look(name) is None:
            refused: Rejects = collected if self.aside else Stop("TABLE")
            try:
                self._make(model, target, item, refused)
            except _Gone:
                return Done(rows=None)
            except UsageError as exc:
                if exc.code != "output-exists":
                    raise
        there = target.files.look(name) is not None
        return Done(rows=target.existing(name).rows if there else 0, refused=collected.found)

    def _make(self, model: Model, target: Target, item: tuple[str, Piece], refused: Rejects) -> None:
        name, piece = item
        scorer = Scorer(model, self.params, keep=self.keep, refused=refused)
        assembler = Assembler("delta", self.wanted)
        with contextlib.ExitStack() as stack:
            part: Part | None = None
            for scored in map(scorer, chunks(self.root, self.shape, piece, self.wanted, self.size, _raise)):
                refused.take(scored.chunk, scored.faults)
                if isinstance(refused, _Collected) and refused.full:
                    return
                if not scored.frame.rows:
                    continue
                table = assembler.add(scored.chunk, scored.frame, scored.answers, scored.rows)
                part = part or stack.enter_context(target.part(name))
                part.write(fit(table, self.schema, self.output))
