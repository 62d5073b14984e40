"""Scores chunks of rows: coerced, through the model, answers as columns; what goes wrong says in which file and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack.errors import Fault, InputError, ModelpackError
from modelpack.frame import Frame
from modelpack.model import Model
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.feed import Fed, feed
from modelpack_server.batch.rejects import Rejects
from modelpack_server.codecs import answers

__all__ = ["Scored", "Scorer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A chunk, what the model saw of it, its answers, and the numbers of its rows that fit (None: all)."""

    chunk: Chunk
    frame: Frame
    answers: pa.Table
    rows: np.ndarray[Any, Any] | None
    faults: Sequence[Fault]


class Scorer:
    """One model with its params; ``refused`` decides whether rows that do not fit are sorted out or end the run."""

    def __init__(
        self, model: Model, params: Mapping[str, Any], *, keep: Sequence[str] | None, refused: Rejects
    ) -> None:
        self._model = model
        self._params = params
        self._keep = keep
        self._refused = refused

    def __call__(self, chunk: Chunk) -> Scored:
        """Score one chunk. Calls share nothing, so several may be under way at once."""
        frame, rows, faults = self._fed(chunk)
        table = self._answer(chunk, frame) if frame.rows else answers.empty(self._model.signature.outputs)
        return Scored(chunk=chunk, frame=frame, answers=table, rows=rows, faults=faults)

    def _fed(self, chunk: Chunk) -> Fed:
        if not len(chunk) and _bare(chunk):
            return Frame(rows=0, columns={}), None, []
        tolerant = self._refused.tolerant
        try:
            return feed(chunk, self._model.signature, self._keep, tolerant=tolerant)
        except InputError as exc:
            if all(fault.row is not None for fault in exc.faults):
                if tolerant:
                    return Frame(rows=0, columns={}), np.arange(0), list(exc.faults)
                self._refused.take(chunk, exc.faults)
            path = f"{chunk.source.name}{_at(exc.path)}"
            raise InputError(exc.message, code=exc.code, path=path, hint=exc.hint or _hint(exc, chunk)) from exc

    def _answer(self, chunk: Chunk, frame: Frame) -> pa.Table:
        try:
            return answers.to_table(self._model.score(frame, self._params), frame.rows)
        except ModelpackError as exc:
            path = f"{chunk.source.name}, rows {chunk.numbers[0]} to {chunk.numbers[-1]}{_at(exc.path)}"
            raise type(exc)(exc.message, code=exc.code, path=path, hint=exc.hint) from exc.__cause__


def _bare(chunk: Chunk) -> bool:
    """Say whether there are not even columns to check: an empty file, or JSON without a row."""
    return isinstance(chunk.data, list) or not chunk.data.num_columns


def _hint(error: InputError, chunk: Chunk) -> str:
    """Return what to do about a column that is missing, and in the names of directories."""
    for fault in error.faults:
        if any(step.startswith(f"{fault.column}=") for step in PurePath(chunk.source.name).parts[:-1]):
            return f"The directory tells {fault.column!r}, but only columns in the files are read: write it into them."
    return ""


def _at(path: str) -> str:
    return f": {path}" if path else ""
