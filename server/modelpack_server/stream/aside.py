"""Rows that do not fit, written to a Delta table of their own: each once, like the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from modelpack.errors import Fault, InputError
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.rejects import Refusal, refusals
from modelpack_server.codecs import cells
from modelpack_server.delta import position
from modelpack_server.delta.commit import Target
from modelpack_server.delta.position import Mark, Position

__all__ = ["SCHEMA", "Aside"]

SCHEMA = pa.schema(
    [
        pa.field("version", pa.int64()),
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("column", pa.string()),
        pa.field("code", pa.string()),
        pa.field("message", pa.string()),
        pa.field("record", pa.string()),
    ]
)


class Aside:
    """Collects refused rows while a commit's rows are scored, and commits them before it.

    The table of rejects keeps a position too. It is never behind that of the answers; a stream that is killed between
    the two commits scores the rows again, and leaves out the rejects that are there.
    """

    tolerant = True

    def __init__(self, target: Target, job: str, limit: int | None = None) -> None:
        self.count = 0
        self._target = target
        self._job = job
        self._limit = limit
        self._table: Any = None
        self._reached: Position | None = None
        self._place: Position | None = None
        self._found: list[tuple[int, Refusal]] = []
        self.pending = 0

    def begin(self) -> None:
        """Look how far the rejects are; forget those of a commit that came to nothing."""
        self._table = self._target.open()
        mark = position.read(self._table, self._job) if self._table is not None else None
        self._reached = mark.position if mark else None
        self._found, self.pending = [], 0

    def at(self, place: Position) -> None:
        """Say which file the next rows are from."""
        self._place = place

    def take(self, chunk: Chunk, faults: Sequence[Fault]) -> None:
        """Take the rows that are refused."""
        place = self._place
        assert place is not None
        for refusal in refusals(chunk, faults):
            self.pending += 1
            if self._limit is not None and self.count + self.pending > self._limit:
                raise InputError(
                    f"{refusal.message} (more than {self._limit} rows refused)",
                    code="too-many-rejects",
                    path=refusal.path,
                    hint="Allow more, or mend the source.",
                )
            if self._reached is None or place >= self._reached:
                self._found.append((place.version, refusal))

    def commit(self, mark: Mark, facts: Mapping[str, Any]) -> int:
        """Commit the rejects up to a mark; return how many rows were refused on the way to it."""
        if self._found:
            if self._table is None:
                self._table = self._target.create(SCHEMA)
            with self._target.part() as part:
                part.write(_rows(self._found))
            self._target.commit(self._table, [part], position.written(self._job, mark), facts)
        done, self._found, self.pending = self.pending, [], 0
        self.count += done
        return done


def _rows(found: Sequence[tuple[int, Refusal]]) -> pa.Table:
    records = [
        {**refusal.to_json(), "version": version, "record": cells.dump(refusal.record).decode()}
        for version, refusal in found
    ]
    return pa.Table.from_pylist(records, schema=SCHEMA)
