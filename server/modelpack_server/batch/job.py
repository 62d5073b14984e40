"""The loop: read, coerce, score, write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelpack import coerce
from modelpack.model import Model
from modelpack_server.batch import plan as plans
from modelpack_server.batch import progress, readers, rejects, writers
from modelpack_server.batch.assemble import Assembler
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.destination import Destination
from modelpack_server.batch.feed import wanted
from modelpack_server.batch.options import Options, Summary
from modelpack_server.batch.plan import Part, Plan
from modelpack_server.batch.progress import Progress
from modelpack_server.batch.rejects import Rejects
from modelpack_server.batch.scoring import Scored, Scorer

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


class _Job:
    def __init__(
        self, model: Model, params: Mapping[str, Any], options: Options, refused: Rejects, shown: Progress
    ) -> None:
        self.rows = 0
        self._options = options
        self._refused = refused
        self._shown = shown
        self._wanted = wanted(model.signature, options)
        self._scorer = Scorer(model, params, keep=options.keep, refused=refused)

    def score(self, part: Part, destination: Destination) -> None:
        """Make one output file."""
        assembler = Assembler(part.kind.format, self._wanted)
        head: Scored | None = None
        written = False
        with destination.open(part.stem, part.kind) as file, writers.writer(part.kind, file) as out:
            for scored in map(self._scorer, self._chunks(part)):
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
