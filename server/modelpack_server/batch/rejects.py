"""Rows that cannot be scored: they stop the run, or are written aside with the reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from modelpack.errors import Fault, InputError, UsageError
from modelpack_server.batch import destination
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.inputs import Source
from modelpack_server.batch.readers.delimited import LineFinder
from modelpack_server.codecs import cells
from modelpack_server.wholefile import whole_file

__all__ = [
    "Aside",
    "Refusal",
    "Rejects",
    "Stop",
    "digest",
    "gather",
    "opened",
    "refusals",
    "taken",
    "too_many",
    "within",
]

MAX_FAULTS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """One row, and the first reason why it is refused."""

    source: Source
    row: int
    line: int | None
    column: str | None
    code: str
    message: str
    record: Any

    @property
    def path(self) -> str:
        """Where it is, for messages."""
        return _place(self.source.name, self.row, self.line, self.column)

    def to_json(self) -> dict[str, Any]:
        """Return the line of the rejects file."""
        return {
            "file": self.source.name,
            "row": self.row,
            "line": self.line,
            "column": self.column,
            "code": self.code,
            "message": self.message,
            "record": self.record,
        }


def _place(file: str, row: int, line: int | None, column: str | None) -> str:
    """Return where a row is, for messages."""
    words = "" if line is None else f" (line {line})"
    return f"{file}, row {row}{words}" + ("" if column is None else f", column {column!r}")


def refusals(chunk: Chunk, faults: Sequence[Fault]) -> list[Refusal]:
    """Return the rows of a chunk that are broken or do not fit the signature, in order, each once."""
    found: dict[int, Refusal] = {}
    for broken in chunk.broken:
        found[broken.row] = Refusal(
            source=chunk.source, row=broken.row, line=broken.line, column=None,
            code=broken.code, message=broken.message, record=broken.record,
        )  # fmt: skip
    for fault in faults:
        assert fault.row is not None
        row = int(chunk.numbers[fault.row])
        if row not in found:
            found[row] = Refusal(
                source=chunk.source, row=row, line=None if chunk.lines is None else int(chunk.lines[fault.row]),
                column=fault.column, code=fault.code, message=fault.message, record=chunk.record(fault.row),
            )  # fmt: skip
    return [found[row] for row in sorted(found)]


class Rejects(Protocol):
    """Decides what becomes of refused rows."""

    count: int
    tolerant: bool

    def take(self, chunk: Chunk, faults: Sequence[Fault]) -> None:
        """Take the rows that are refused."""


class _Lines:
    """Adds line numbers to refusals of CSV rows."""

    def __init__(self) -> None:
        self._source: Source | None = None
        self._finder: LineFinder | None = None

    def add(self, refusal: Refusal) -> Refusal:
        if refusal.line is not None or refusal.source.kind.format != "csv":
            return refusal
        if self._finder is None or refusal.source is not self._source:
            self._source, self._finder = refusal.source, LineFinder(refusal.source)
        line = self._finder.find(refusal.row)
        return Refusal(
            source=refusal.source, row=refusal.row, line=line, column=refusal.column,
            code=refusal.code, message=refusal.message, record=refusal.record,
        )  # fmt: skip


class Stop:
    """The first chunk with a refused row ends the run."""

    tolerant = False

    def __init__(self, into: str = "FILE") -> None:
        self.count = 0
        self._hint = f"With --on-error {into} such rows are written aside, and the others scored."

    def take(self, chunk: Chunk, faults: Sequence[Fault]) -> None:
        """Raise InputError for the rows that are refused, if there are any."""
        found = refusals(chunk, faults)
        if not found:
            return
        lines = _Lines()
        raise InputError.from_faults(
            [
                Fault(refusal.code, refusal.path, refusal.message, row=refusal.row, column=refusal.column)
                for refusal in map(lines.add, found[:MAX_FAULTS])
            ],
            hint=self._hint,
        )


class Aside:
    """Refused rows are written to a file, up to a limit."""

    tolerant = True

    def __init__(self, file: IO[bytes], limit: int | None, count: int = 0) -> None:
        self.count = count
        self._file = file
        self._limit = limit
        self._lines = _Lines()

    def take(self, chunk: Chunk, faults: Sequence[Fault]) -> None:
        """Write the rows that are refused."""
        for refusal in map(self._lines.add, refusals(chunk, faults)):
            self.count += 1
            if self._limit is not None and self.count > self._limit:
                raise too_many(refusal.message, self._limit, refusal.path, "input")
            self._file.write(cells.dump(refusal.to_json()) + b"\n")


def taken(file: IO[bytes] | None, limit: int | None, *, count: int) -> Rejects:
    """Return what takes refused rows into an open file (None: it stops the run), ``count`` of which there were."""
    return Stop() if file is None else Aside(file, limit, count)


@contextmanager
def opened(path: Path | None, limit: int | None, *, overwrite: bool) -> Iterator[Rejects]:
    """Yield what takes refused rows; the file appears when the block ends well, empty if no row was refused."""
    if path is None:
        yield Stop()
        return
    with whole_file(path, overwrite=overwrite) as file:
        yield Aside(file, limit)


def too_many(message: str, limit: int, path: str, what: str) -> InputError:
    """Return the error for the first row beyond the limit."""
    return InputError(
        f"{message} (more than {limit} rows refused)",
        code="too-many-rejects",
        path=path,
        hint=f"Allow more, or mend the {what}.",
    )


def within(limit: int | None, before: int, file: Path) -> int:
    """Return how many rows a file of rejects has; with those ``before`` they must not be too many.

    Raises:
        InputError: they are (``too-many-rejects``); it tells the first row beyond the limit.
    """
    number = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if limit is not None and before + number > limit:
                found = json.loads(line)
                place = _place(found["file"], found["row"], found["line"], found["column"])
                raise too_many(found["message"], limit, place, "input")
    return number


def digest(*files: Path) -> str | None:
    """Return the SHA-256 of what is in the files, one after the other; None if one is not there."""
    found = hashlib.sha256()
    for path in files:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()


def gather(path: Path, files: Sequence[Path], *, overwrite: bool) -> None:
    """Write the files of rejects of all parts into one, unless it holds just that.

    Raises:
        UsageError: another one is there (``output-exists``).
    """
    if destination.is_stream(path):
        with path.open("wb") as out:
            _copy(files, out)
        return
    try:
        with whole_file(path, overwrite=overwrite) as out:
            _copy(files, out)
    except UsageError:
        # A run of the same that was killed had placed it, or one at the same time has.
        if digest(path) != digest(*files):
            raise


def _copy(files: Sequence[Path], out: IO[bytes]) -> None:
    for path in files:
        with path.open("rb") as file:
            shutil.copyfileobj(file, out)
