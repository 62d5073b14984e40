"""A stream in a pipe: rows in, answers out, in order, each as soon as it is there.

JSON Lines are answered in JSON Lines, an Arrow stream in an Arrow stream; the first byte tells which it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from modelpack import coerce
from modelpack.errors import InputError, SaveError
from modelpack.model import Model
from modelpack_server.batch.assemble import Assembler
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.feed import wanted
from modelpack_server.batch.formats import Kind
from modelpack_server.batch.inputs import Source
from modelpack_server.batch.options import Options as BatchOptions
from modelpack_server.batch.readers.columnar import read_raw, refuse_more
from modelpack_server.batch.readers.jsonlines import MAX_LINE, Page
from modelpack_server.batch.rejects import Aside, Rejects, Stop
from modelpack_server.batch.scoring import Scored, Scorer
from modelpack_server.batch.writers.jsonlines import JsonLinesWriter
from modelpack_server.codecs.lines_body import BOM
from modelpack_server.columnar import StreamWriter
from modelpack_server.stream.options import Options, Summary, Waiter

__all__ = ["run"]

# What is read at once, at most; a pipe gives what is there.
BLOCK = 1024 * 1024
# What an Arrow stream begins with, and no text in UTF-8 does.
ARROW = b"\xff"
_STDIN = Source(path=None, kind=Kind(format="jsonl"), stem="stdin")


def run(model: Model, source: IO[bytes], output: IO[bytes], options: Options, waiter: Waiter) -> Summary:
    """Score rows until they end or ``waiter`` says stop; what came together is scored together.

    Raises:
        InputError: a row that does not fit, unless ``options.on_error`` says where to write it.
        ModelError: the model raised, with the rows.
    """
    started = time.perf_counter()
    summary = Summary(package=model.digest)
    found = wanted(model.signature, BatchOptions(keep=options.keep))
    values = coerce.params(options.params, model.signature)
    pipe = _Pipe(source.fileno(), waiter)
    arrow = pipe.first.startswith(ARROW)
    assembler = Assembler("arrows" if arrow else "jsonl", found)
    writer: Any = StreamWriter(output) if arrow else JsonLinesWriter(output)
    chunks = _arrow(pipe, found, options.batch_size) if arrow else _texts(pipe, found, options.batch_size)
    try:
        with _refused(options) as refused:
            scorer = Scorer(model, values, keep=options.keep, refused=refused)
            for chunk in chunks:
                scored, failure = _scored(scorer, refused, chunk)
                if scored.frame.rows or arrow:
                    writer.write(assembler.add(scored.chunk, scored.frame, scored.answers, scored.rows))
                    summary.rows += scored.frame.rows
                output.flush()
                if failure is not None:
                    raise failure
            summary.rejected = refused.count
        assembler.finish()
    except BaseException:
        # Half a stream must not look whole.
        writer.abandon()
        raise
    writer.close()
    output.flush()
    if arrow and not waiter.asked:
        # Who keeps the pipe open behind a stream has all its answers by now.
        refuse_more(_STDIN, pipe)
    summary.seconds = time.perf_counter() - started
    return summary


def _scored(scorer: Scorer, refused: Rejects, chunk: Chunk) -> tuple[Scored, InputError | None]:
    """Return what is scored of a chunk, and the error of the line behind that, which ends the stream.

    Lines before one that does not fit are answered whether they came with it or alone.

    Raises:
        InputError: there is none before, or it is a batch of Arrow, whose rows are answered together or not at all.
    """
    failure = None
    while True:
        try:
            scored = scorer(chunk)
            refused.take(scored.chunk, scored.faults)
        except InputError as exc:
            rows = [fault.row for fault in exc.faults if fault.row is not None]
            if not rows or not isinstance(chunk.data, list):
                raise
            # Of many faults not all are told, so there may be one still before the first of them.
            chunk, failure = chunk.before(min(rows)), exc
            if not len(chunk):
                raise
        else:
            return scored, failure


class _Pipe:
    """What comes in, as the file that Arrow reads from; it ends too when the stream shall stop."""

    closed = False

    def __init__(self, file: int, waiter: Waiter) -> None:
        self._file = file
        self._waiter = waiter
        self.first = b""
        self.first = self.block()

    @property
    def asked(self) -> bool:
        """Whether the stream shall stop."""
        return self._waiter.asked

    def block(self) -> bytes:
        """Return what is there, as soon as something is; nothing at the end, or if the stream shall stop."""
        if self.first:
            block, self.first = self.first, b""
            return block
        self._waiter.wait(None, self._file)
        return b"" if self._waiter.asked else os.read(self._file, BLOCK)

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end."""
        pieces, missing = [], size
        while missing and (block := self.block()):
            pieces.append(block[:missing])
            self.first = block[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)


def _arrow(pipe: _Pipe, found: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the batches of an Arrow stream as they come."""
    try:
        yield from read_raw(_STDIN, pipe, found, size)
    except (pa.ArrowException, OSError) as exc:
        if pipe.asked:
            return  # it was told to stop in the middle of a batch
        raise InputError("is no whole Arrow stream", code="file-unreadable", path=_STDIN.name) from exc


def _texts(pipe: _Pipe, found: Wanted, size: int) -> Iterator[Chunk]:
    """Yield the lines that have come together."""
    page = Page(_STDIN, whole=found.whole)
    for lines in _lines(pipe):
        for number, line in lines:
            if line.strip():
                page.add(line, number)
            if page.lines and (len(page.lines) == size or number == lines[-1][0]):
                yield page.chunk(0)
                page = Page(_STDIN, page.row, whole=found.whole)


def _lines(pipe: _Pipe) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the whole lines that have come, with their numbers; the last may end with the file."""
    held: list[bytes] = []  # a line that is long comes in many pieces
    number, ended = 0, False
    while not ended:
        block = pipe.block()
        if pipe.asked:
            return
        ended = not block
        held.append(block)
        if b"\n" not in block and not ended:
            if sum(map(len, held)) > MAX_LINE:
                raise InputError(f"has a line longer than {MAX_LINE} bytes", code="line-too-long", path=_STDIN.name)
            continue
        *whole, rest = b"".join(held).split(b"\n")
        held = [rest]
        if ended and rest:
            whole = [*whole, rest]
        lines = list(enumerate(whole, start=number + 1))
        if lines and number == 0:
            lines[0] = 1, lines[0][1].removeprefix(BOM)
        number += len(lines)
        if lines:
            yield lines


@contextlib.contextmanager
def _refused(options: Options) -> Iterator[Rejects]:
    """Yield what takes lines that do not fit: they are added to a file at once, since a pipe may never end."""
    if options.on_error is None:
        yield Stop()
        return
    try:
        file = Path(options.on_error).open("ab", buffering=0)  # noqa: SIM115 - closed below
    except OSError as exc:
        message = f"{options.on_error} cannot be written: {exc.strerror}"
        raise SaveError(message, code="output-unwritable") from exc
    with file:
        yield Aside(file, options.max_rejects)
