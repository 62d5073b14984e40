"""Rows by their key: what is left of all changes that one commit takes in, and how the output follows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelpack.errors import Fault, InputError, UsageError
from modelpack_server.batch.chunks import Chunk
from modelpack_server.batch.rejects import Rejects
from modelpack_server.batch.scoring import Scored
from modelpack_server.delta.commit import Target
from modelpack_server.delta.merge import Upsert, merge, touches
from modelpack_server.delta.parts import Part
from modelpack_server.delta.position import Position, fingerprint
from modelpack_server.delta.storage import Root, Storage

__all__ = ["Keyed", "check_key", "key_mark", "same_key"]

_NONE = -1


def key_mark(key: Sequence[str] | None) -> int | None:
    """Return the number that stands for a key in the output; None for none."""
    return None if key is None else fingerprint("\n".join(sorted(key)))


def same_key(made: int | None, key: int | None, output: Root) -> None:
    """Compare the mark of the key that an output was made with so far with that of a key.

    Raises:
        UsageError: it was another one (``key-changed``).
    """
    if made is not None and made != key:
        raise UsageError(
            f"{output} was made with another key so far (--changes upsert)",
            code="key-changed",
            hint="Give the same --key, or another output.",
        )


def check_key(key: Sequence[str], schema: pa.Schema, kept: Sequence[str], root: Root) -> None:
    """Refuse columns by which rows cannot be told apart.

    Raises:
        InputError: the source has no such column (``key-missing``), or it is of a type whose values are not compared
            bit by bit (``key-type``).
        UsageError: it is not kept (``key-not-kept``).
    """
    for name in key:
        if name not in schema.names:
            raise InputError(f"has no column {name!r} to be the key", code="key-missing", path=str(root))
        kind = schema.field(name).type
        if pa.types.is_floating(kind) or pa.types.is_nested(kind):
            message = f"the column {name!r} is {kind}, by which rows are not told apart"
            hint = "Take whole numbers, text, dates, times, decimals or bytes as the key."
            raise InputError(message, code="key-type", path=str(root), hint=hint)
        if name not in kept:
            message = f"the column {name!r} is the key, and must be kept in the output"
            raise UsageError(message, code="key-not-kept", path="--keep", hint="Name it with --keep too.")


class Keyed:
    """Collects the keys of what went and what came while a commit's rows are scored, and commits what is left.

    Rows that went count before those that came in the same version. What a key ends with is what counts: its last row,
    or that it is gone. A row that is refused leaves its key without a row.
    """

    def __init__(self, key: Sequence[str], source: Root, target: Target, refused: Rejects) -> None:
        self.key = list(key)
        self._target = target
        self._source = source
        self._refused = refused
        self._inner = [f"key{number}" for number in range(len(key))]
        self._place = Position(version=0)
        self._found: list[pa.Table] = []
        self._rows = 0

    def begin(self) -> None:
        """Forget the keys of a commit that came to nothing."""
        self._found, self._rows = [], 0

    def at(self, place: Position) -> None:
        """Say which file the next rows are from."""
        self._place = place

    def gone(self, table: pa.Table) -> None:
        """Take the keys of rows that are no more."""
        self._add(table.drop_null(), came=False)

    def told(self, chunk: Chunk) -> Chunk:
        """Return the rows of a chunk that have a key; the others are refused."""
        assert isinstance(chunk.data, pa.Table)
        faults, good = [], np.ones(len(chunk), dtype=bool)
        for name in self.key:
            missing = pc.is_null(chunk.data.column(name)).to_numpy()
            message = "a missing value in a column of the key"
            rows = np.flatnonzero(missing & good)
            faults += [Fault("key-null", "", message, row=int(row), column=name) for row in rows]
            good &= ~missing
        if not faults:
            return chunk
        self._refused.take(chunk, faults)
        return replace(chunk, data=chunk.data.filter(pa.array(good)), numbers=chunk.numbers[good])

    def came(self, scored: Scored, table: pa.Table | None) -> None:
        """Take the keys of rows that were scored, in the order in which they are written, and of those refused."""
        if scored.rows is not None:
            left = np.ones(len(scored.chunk), dtype=bool)
            left[scored.rows] = False
            assert isinstance(scored.chunk.data, pa.Table)
            self._add(scored.chunk.data.filter(pa.array(left)), came=True)
        if table is not None:
            self._add(table, came=True, first=self._rows)
            self._rows += table.num_rows

    def _add(self, table: pa.Table, *, came: bool, first: int = _NONE) -> None:
        size = table.num_rows
        rows = pa.repeat(_NONE, size) if first == _NONE else pa.array(np.arange(first, first + size))
        moment = pa.repeat(2 * self._place.version + came, size)
        columns = [table.column(name) for name in self.key]
        self._found.append(pa.table([*columns, moment, rows], names=[*self._inner, "moment", "row"]))

    def _left(self, schema: pa.Schema) -> pa.Table:
        """Return each key once, with the number of the row it ends with, or that it has none.

        Raises:
            InputError: a version adds two rows with one key (``key-repeated``).
        """
        kinds = [schema.field(name).type for name in self.key]
        whole = pa.schema([*zip(self._inner, kinds, strict=True), ("moment", pa.int64()), ("row", pa.int64())])
        found = pa.concat_tables([whole.empty_table(), *(table.cast(whole) for table in self._found)])
        if self._are_all_new(found):
            return found.drop_columns("moment").rename_columns([*self.key, "row"])
        new = found.filter(pc.equal(pc.bit_wise_and(found.column("moment"), 1), 1))
        counts = new.group_by([*self._inner, "moment"]).aggregate([([], "count_all")])
        twice = counts.filter(pc.greater(counts.column("count_all"), 1))
        if twice.num_rows:
            first = pc.min(twice.column("moment")).as_py()
            raise InputError(
                f"version {first // 2} adds more than one row with the same {', '.join(map(repr, self.key))}",
                code="key-repeated",
                path=str(self._source),
                hint="Name with --key the columns that tell all rows of the source apart.",
            )
        last = found.group_by(self._inner).aggregate([("moment", "max")])
        both = found.join(last, keys=self._inner, join_type="inner")
        ends = both.filter(pc.equal(both.column("moment"), both.column("moment_max")))
        kept = ends.group_by(self._inner).aggregate([("row", "max")]).select([*self._inner, "row_max"])
        return kept.rename_columns([*self.key, "row"])

    def _are_all_new(self, found: pa.Table) -> bool:
        """Say whether all rows came in one version and were taken, no two with one key: nothing is to be compared."""
        moments = pc.unique(found.column("moment"))
        if len(moments) != 1 or moments[0].as_py() % 2 == 0 or pc.min(found.column("row")).as_py() < 0:
            return False
        return bool(found.select(self._inner).group_by(self._inner).aggregate([]).num_rows == found.num_rows)

    def commit(
        self, table: Any, parts: Sequence[Part], transactions: Mapping[str, int], facts: Mapping[str, Any]
    ) -> int:
        """Make the output what the source is for these keys, and move the transactions; return how many keys are gone.

        The cheapest commit that does it: files that are added, where no row of the output has one of the keys.

        Raises:
            Conflict: somebody else has moved the position, or changed rows of the output meanwhile.
        """
        target = self._target
        try:
            schema = pa.schema(table.schema().to_arrow())
            left = self._left(schema)
            stays = left.filter(pc.greater_equal(left.column("row"), 0))
            gone = left.filter(pc.less(left.column("row"), 0)).select(self.key)
            met = touches(target.root, table, left.select(self.key))
            if not met and stays.num_rows == self._rows:
                mine, parts = parts, ()
                target.commit(table, mine, transactions, facts)
            elif not met and not stays.num_rows:
                target.commit(table, [], transactions, facts)
            else:
                new = _picked(target.files, parts, stays.column("row").to_numpy(), self._rows)
                merge(target.root, table, Upsert(self.key, new, gone, left.num_rows), transactions, facts)
            return int(gone.num_rows)
        finally:
            # A merge has written files of its own.
            target.withdraw(parts)
            self.begin()


def _picked(files: Storage, parts: Sequence[Part], rows: np.ndarray[Any, Any], total: int) -> Iterator[pa.Table]:
    """Yield those rows of the parts, which are counted one after the other."""
    mask = np.zeros(total, dtype=bool)
    mask[rows] = True
    first = 0
    for part in parts:
        with files.parquet(part.name) as file:
            for batch in file.iter_batches():
                table = pa.Table.from_batches([batch])
                yield table.filter(pa.array(mask[first : first + table.num_rows]))
                first += table.num_rows
