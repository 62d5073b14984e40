"""Makes one part of the output: read, coerce, score, write."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from modelpack.model import Model
from modelpack_server.batch import readers
from modelpack_server.batch.ahead import ahead
from modelpack_server.batch.assemble import Assembler
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.feed import wanted
from modelpack_server.batch.options import Options
from modelpack_server.batch.plan import Part
from modelpack_server.batch.progress import Progress
from modelpack_server.batch.rejects import Rejects
from modelpack_server.batch.scoring import Scored, Scorer
from modelpack_server.batch.together import jobs, together
from modelpack_server.batch.writers import Writer

__all__ = ["Maker"]

# How many chunks are read while one is scored.
_AHEAD = 2


class Maker:
    """One model with its params, for all parts of a run."""

    def __init__(self, model: Model, params: Mapping[str, Any], options: Options, shown: Progress) -> None:
        self._model = model
        self._params = params
        self._options = options
        self._shown = shown
        self._wanted = wanted(model.signature, options)

    def make(self, part: Part, out: Writer, refused: Rejects) -> int:
        """Score the inputs of a part, write its rows, and return how many they are."""
        scorer = Scorer(self._model, self._params, keep=self._options.keep, refused=refused)
        assembler = Assembler(part.kind.format, self._wanted)
        head: Scored | None = None
        rows = 0
        # Closed even after an error, whose traceback would keep the file open.
        with closing(self._chunks(part)) as chunks, closing(together(scorer, chunks, self._calls(part))) as results:
            for scored in results:
                self._options.check()
                refused.take(scored.chunk, scored.faults)
                if scored.frame.rows:
                    out.write(assembler.add(scored.chunk, scored.frame, scored.answers, scored.rows))
                head = head or scored
                rows += scored.frame.rows
                self._shown.update(scored.chunk.source, scored.chunk.position, len(scored.chunk))
        if not rows and head is not None:
            # No row at all: the output still gets its columns, as far as they are known.
            out.write(assembler.add(head.chunk, head.frame, head.answers, np.arange(0)))
        assembler.finish()
        return rows

    def _calls(self, part: Part) -> int:
        # What came through a pipe is answered before more of it is waited for.
        return 1 if _piped(part) else jobs(self._model.candidate.trust, self._options.jobs)

    def _chunks(self, part: Part) -> Generator[Chunk]:
        chunks = self._read(part)
        # A read from a pipe could not be called off.
        return chunks if _piped(part) else ahead(chunks, _AHEAD)

    def _read(self, part: Part) -> Generator[Chunk]:
        for source in part.sources:
            yield from readers.read(source, self._wanted, self._options.batch_size)


def _piped(part: Part) -> bool:
    return any(source.size is None for source in part.sources)
