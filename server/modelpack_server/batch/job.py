"""The loop: read, coerce, score, write."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack import coerce
from modelpack.errors import InputError, ModelpackError
from modelpack.frame import Frame
from modelpack.model import Model
from modelpack_server.batch import plan as plans
from modelpack_server.batch import progress, readers, rejects, writers
from modelpack_server.batch.assemble import Assembler
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.destination import Destination
from modelpack_server.batch.feed import Fed, feed, wanted
from modelpack_server.batch.options import Options, Summary
from modelpack_server.batch.plan import Part, Plan
from modelpack_server.batch.progress import Progress
from modelpack_server.batch.rejects import Rejects
from modelpack_server.codecs import answers

__all__ = ["predict_files", "run"]


def predict_files(
    model: Model,
    inputs: Sequence[str | Path],
    output: str | Path,
    options: Options = Options(),  # noqa: B008 - frozen
) -> Summary:
    """Score files into files, in bounded memory, and return what was done.

    The output appears only when it is whole; an error leaves nothing behind.

    Raises:
        UsageError: the inputs or the output cannot be what they should be.
        InputError: a row that does not fit the signature, by file and row number, unless ``options.on_error`` says
            where to write such rows; or a file that cannot be read.
        ModelError: the model raised, with file and rows.
    """
    return run(model, plans.make(inputs, output, options), options)


def run(model: Model, plan: Plan, options: Options) -> Summary:
    """Carry out a plan."""
    started = time.perf_counter()
    values = coerce.params(options.params, model.signature)
    with (
        # The rejects get their name first: an output that is there is complete in every way.
        plan.open(overwrite=options.overwrite) as destination,
        rejects.opened(options.on_error, options.max_rejects, overwrite=options.overwrite) as refused,
        progress.start(plan.sources, show=options.progress) as shown,
    ):
        job = _Job(model, values, options, refused, shown)
        for part in plan.parts:
            job.score(part, destination)
    return Summary(
        rows=job.rows,
        rejected=refused.count,
        files=len(plan.sources),
        seconds=time.perf_counter() - started,
        package=model.digest,
        outputs=plan.outputs,
        rejects=str(options.on_error) if options.on_error else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """A chunk, what the model saw of it, its answers, and the numbers of its rows that fit (None: all)."""

    chunk: Chunk
    frame: Frame
    answers: pa.Table
    rows: np.ndarray[Any, Any] | None
    faults: Sequence[Any]


class _Job:
    def __init__(
        self, model: Model, params: Mapping[str, Any], options: Options, refused: Rejects, shown: Progress
    ) -> None:
        self.rows = 0
        self._model = model
        self._params = params
        self._options = options
        self._refused = refused
        self._shown = shown
        self._wanted = wanted(model.signature, options)

    def score(self, part: Part, destination: Destination) -> None:
        """Make one output file."""
        assembler = Assembler(part.kind.format, self._wanted)
        head: _Scored | None = None
        written = False
        with destination.open(part.stem, part.kind) as file, writers.writer(part.kind, file) as out:
            for scored in self._scored(self._chunks(part)):
                self._options.check()
                self._refused.take(scored.chunk, scored.faults)
                if scored.frame.rows:
                    out.write(assembler.add(scored.chunk, scored.frame, scored.answers, scored.rows))
                    written = True
                head = head or scored
                self.rows += scored.frame.rows
                self._shown.update(scored.chunk.source, scored.chunk.position, len(scored.chunk))
            if not written and head is not None:
                # No row at all: the output still gets its columns, as far as they are known.
                out.write(assembler.add(head.chunk, head.frame, head.answers, np.arange(0)))
            assembler.finish()

    def _chunks(self, part: Part) -> Iterator[Chunk]:
        for source in part.sources:
            yield from readers.read(source, self._wanted, self._options.batch_size)

    def _scored(self, chunks: Iterable[Chunk]) -> Iterator[_Scored]:
        """Score chunk by chunk, in order. The place to score several at once: ``_one`` shares nothing."""
        return map(self._one, chunks)

    def _one(self, chunk: Chunk) -> _Scored:
        frame, rows, faults = self._fed(chunk)
        table = self._answer(chunk, frame) if frame.rows else answers.empty(self._model.signature.outputs)
        return _Scored(chunk=chunk, frame=frame, answers=table, rows=rows, faults=faults)

    def _fed(self, chunk: Chunk) -> Fed:
        if not len(chunk) and _bare(chunk):
            return Frame(rows=0, columns={}), None, []
        tolerant = self._refused.tolerant
        try:
            return feed(chunk, self._model.signature, self._options.keep, tolerant=tolerant)
        except InputError as exc:
            if all(fault.row is not None for fault in exc.faults):
                if tolerant:
                    return Frame(rows=0, columns={}), np.arange(0), list(exc.faults)
                self._refused.take(chunk, exc.faults)
            path = f"{chunk.source.name}{_at(exc.path)}"
            raise InputError(exc.message, code=exc.code, path=path, hint=exc.hint) from exc

    def _answer(self, chunk: Chunk, frame: Frame) -> pa.Table:
        try:
            return answers.to_table(self._model.score(frame, self._params), frame.rows)
        except ModelpackError as exc:
            path = f"{chunk.source.name}, rows {chunk.numbers[0]} to {chunk.numbers[-1]}{_at(exc.path)}"
            raise type(exc)(exc.message, code=exc.code, path=path, hint=exc.hint) from exc.__cause__


def _bare(chunk: Chunk) -> bool:
    """Say whether there are not even columns to check: an empty file, or JSON without a row."""
    return isinstance(chunk.data, list) or not chunk.data.num_columns


def _at(path: str) -> str:
    return f": {path}" if path else ""
