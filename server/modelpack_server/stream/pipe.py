"""A stream in a pipe: JSON Lines in, JSON Lines out, in order, each as soon as it is there."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from modelpack import coerce
from modelpack.errors import InputError, SaveError
from modelpack.model import Model
from modelpack_server.batch.assemble import Assembler
from modelpack_server.batch.feed import wanted
from modelpack_server.batch.formats import Kind
from modelpack_server.batch.inputs import Source
from modelpack_server.batch.options import Options as BatchOptions
from modelpack_server.batch.readers.jsonlines import BOM, MAX_LINE, Page
from modelpack_server.batch.rejects import Aside, Rejects, Stop
from modelpack_server.batch.scoring import Scorer
from modelpack_server.batch.writers.jsonlines import JsonLinesWriter
from modelpack_server.stream.options import Options, Summary, Waiter

__all__ = ["run"]

# What is read at once, at most; a pipe gives what is there.
BLOCK = 1024 * 1024
_STDIN = Source(path=None, kind=Kind(format="jsonl"), stem="stdin")


def run(model: Model, source: IO[bytes], output: IO[bytes], options: Options, waiter: Waiter) -> Summary:
    """Score lines until they end or ``waiter`` says stop; what came together is scored together.

    Raises:
        InputError: a line that does not fit, unless ``options.on_error`` says where to write it.
        ModelError: the model raised, with the rows.
    """
    started = time.perf_counter()
    summary = Summary(package=model.digest)
    found = wanted(model.signature, BatchOptions(keep=options.keep))
    assembler, writer = Assembler("jsonl", found), JsonLinesWriter(output)
    values = coerce.params(options.params, model.signature)
    with _refused(options) as refused:
        scorer = Scorer(model, values, keep=options.keep, refused=refused)
        page = Page(_STDIN, whole=found.whole)
        for lines in _lines(source.fileno(), waiter):
            for number, line in lines:
                if line.strip():
                    page.add(line, number)
                if len(page.lines) == options.batch_size or number == lines[-1][0]:
                    summary.rows += _score(page, scorer, refused, assembler, writer)
                    page = Page(_STDIN, page.row, whole=found.whole)
            output.flush()
        summary.rejected = refused.count
    assembler.finish()
    summary.seconds = time.perf_counter() - started
    return summary


def _score(page: Page, scorer: Scorer, refused: Rejects, assembler: Assembler, writer: JsonLinesWriter) -> int:
    """Score and write the lines of a page; return how many rows were written."""
    if not page.lines:
        return 0
    scored = scorer(page.chunk(0))
    refused.take(scored.chunk, scored.faults)
    if scored.frame.rows:
        writer.write(assembler.add(scored.chunk, scored.frame, scored.answers, scored.rows))
    return scored.frame.rows


def _lines(file: int, waiter: Waiter) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the whole lines that have come, with their numbers; the last may end with the file."""
    held: list[bytes] = []  # a line that is long comes in many pieces
    number, ended = 0, False
    while not ended:
        waiter.wait(None, file)
        if waiter.asked:
            return
        block = os.read(file, BLOCK)
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
