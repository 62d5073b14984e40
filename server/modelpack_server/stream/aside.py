"""Rows that do not fit, written to a Delta table of their own: each once, like the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from modelpack.errors import Fault
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.rejects import Refusal, refusals, too_many
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

    The table of rejects keeps a position too, one for each output. It is never behind that of the answers; a stream
    that is killed between the two commits scores the rows again, and leaves out the rejects that are there.
    """

    tolerant = True

    def __init__(self, target: Target, job: str, limit: int | None = None) -> None:
        self.count = 0
        self._target = target
        self._job = job
        self._table: Any | None = None
        self._limit = limit
        self._place: Position | None = None
        self._found: list[tuple[Position, Refusal]] = []

    @property
    def pending(self) -> int:
        """How many rows were refused since the last commit."""
        return len(self._found)

    def begin(self) -> None:
        """Forget the rows of a commit that came to nothing."""
        self._found = []

    def at(self, place: Position) -> None:
        """Say which file the next rows are from."""
        self._place = place

    def take(self, chunk: Chunk, faults: Sequence[Fault]) -> None:
        """Take the rows that are refused."""
        assert self._place is not None
        self.add(self._place, refusals(chunk, faults))

    def add(self, place: Position, found: Sequence[Refusal]) -> None:
        """Take rows of a file that were refused."""
        for refusal in found:
            self._found.append((place, refusal))
            if self._limit is not None and self.count + self.pending > self._limit:
                raise too_many(refusal.message, self._limit, refusal.path, "source")

    def commit(self, output: str, mark: Mark, facts: Mapping[str, Any]) -> int:
        """Commit the rejects up to a mark, unless they are there; return how many rows were refused on the way to it.

        ``output`` is the id of the table of answers.
        """
        job = f"{self._job}@{output}"
        if self._found:
            table = self._target.refresh(self._table)
            self._table = table = self._target.create(SCHEMA) if table is None else table
            # From the snapshot that the commit is made from.
            known = position.read(partial(self._target.moved, table), job)
            fresh = [(place, row) for place, row in self._found if known is None or place >= known.position]
            if fresh:
                with self._target.part() as part:
                    part.write(_rows(fresh))
                self._target.commit(table, [part], position.written(job, mark), facts)
        done = self.pending
        self.begin()
        self.count += done
        return done


def _rows(found: Sequence[tuple[Position, Refusal]]) -> pa.Table:
    records = [
        {**refusal.to_json(), "version": place.version, "record": cells.dump(refusal.record).decode()}
        for place, refusal in found
    ]
    return pa.Table.from_pylist(records, schema=SCHEMA)
