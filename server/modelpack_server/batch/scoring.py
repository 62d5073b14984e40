"""Scores chunks of rows: coerced, through the model, answers as columns; what goes wrong says in which file and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from modelpack.errors import Fault, InputError, ModelpackError, OutputError
from modelpack.frame import Frame
from modelpack.model import Model
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.feed import Fed, Group, apart, feed, with_optional
from modelpack_server.batch.rejects import Rejects
from modelpack_server.codecs import answers, lines_apart

__all__ = ["Scored", "Scorer"]

# Numbers of rows in a chunk; None for all of them.
Rows = np.ndarray[Any, Any] | None


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
        signature = self._model.signature
        groups = lines_apart.groups(chunk.data, signature)
        if not groups:
            frame, rows, faults = self._fed(chunk)
            answer = self._answer(chunk, frame, rows) if frame.rows else None
        else:
            parts, faults = self._apart(chunk, groups)
            answer, frame, rows = self._answers(chunk, parts)
        table = answers.empty(signature.outputs) if answer is None else self._table(chunk, answer, frame.rows)
        if isinstance(chunk.data, list):
            frame = with_optional(frame, signature)
        return Scored(chunk=chunk, frame=frame, answers=table, rows=rows, faults=faults)

    def _fed(self, chunk: Chunk) -> Fed:
        if not len(chunk) and _bare(chunk):
            return Frame(rows=0, columns={}), None, []
        tolerant = self._refused.tolerant
        try:
            return feed(chunk, self._model.signature, self._keep, tolerant=tolerant)
        except InputError as exc:
            if tolerant and all(fault.row is not None for fault in exc.faults):
                return Frame(rows=0, columns={}), np.arange(0), list(exc.faults)
            raise self._told(chunk, exc) from exc

    def _apart(self, chunk: Chunk, groups: Sequence[lines_apart.Places]) -> tuple[list[Group], list[Fault]]:
        try:
            return apart(chunk, groups, self._model.signature, self._keep, tolerant=self._refused.tolerant)
        except InputError as exc:
            raise self._told(chunk, exc) from exc

    def _answers(self, chunk: Chunk, parts: Sequence[Group]) -> tuple[Frame | None, Frame, Rows]:
        """Return the answers to rows that go to the model apart, what it saw of them, and their numbers."""
        if not parts:
            return None, Frame(rows=0, columns={}), np.arange(0)
        places = [group for _, group in parts]
        found = [self._answer(chunk, frame, group) for frame, group in parts]
        rows = np.sort(np.concatenate(places))
        seen = [with_optional(frame, self._model.signature) for frame, _ in parts]
        # Tensors are written as they came, and those of two groups need not be of one shape.
        frame = lines_apart.joined(seen, places) if seen[0].columns is not None else Frame(rows=len(rows), tensors={})
        try:
            return lines_apart.joined(found, places), frame, None if len(rows) == len(chunk) else rows
        except OutputError as exc:
            raise _failed(chunk, rows, exc) from exc

    def _told(self, chunk: Chunk, exc: InputError) -> InputError:
        """Return the error as it is told of the file; rows that are refused may end the run right here."""
        if all(fault.row is not None for fault in exc.faults):
            self._refused.take(chunk, exc.faults)
        path = f"{chunk.source.name}{_at(exc.path)}"
        return InputError(exc.message, code=exc.code, path=path, hint=exc.hint or _hint(exc, chunk))

    def _answer(self, chunk: Chunk, frame: Frame, rows: Rows) -> Frame:
        try:
            return self._model.score(frame, self._params)
        except ModelpackError as exc:
            raise _failed(chunk, rows, exc) from exc.__cause__

    def _table(self, chunk: Chunk, answer: Frame, rows: int) -> pa.Table:
        try:
            return answers.to_table(answer, rows)
        except ModelpackError as exc:
            raise _failed(chunk, None, exc) from exc.__cause__


def _failed(chunk: Chunk, rows: Rows, exc: ModelpackError) -> ModelpackError:
    """Return an error of the model's as it is told of these rows of the file."""
    numbers = chunk.numbers if rows is None else chunk.numbers[rows]
    path = f"{chunk.source.name}, rows {numbers[0]} to {numbers[-1]}{_at(exc.path)}"
    return type(exc)(exc.message, code=exc.code, path=path, hint=exc.hint)


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
