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
from modelpack_server.delta import keys
from modelpack_server.delta.commit import Target
from modelpack_server.delta.merge import Upsert, merge
from modelpack_server.delta.parts import Part
from modelpack_server.delta.position import Position, fingerprint
from modelpack_server.delta.storage import Root, Storage
from modelpack_server.delta.tables import open_table

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

    def _all(self, schema: pa.Schema) -> pa.Table:
        """Return all that was taken in, with the keys in the types of the output."""
        kinds = [schema.field(name).type for name in self.key]
        whole = pa.schema([*zip(self._inner, kinds, strict=True), ("moment", pa.int64()), ("row", pa.int64())])
        return pa.concat_tables([whole.empty_table(), *(table.cast(whole) for table in self._found)])

    def _left(self, found: pa.Table) -> pa.Table:
        """Return each key once, with the number of the row it ends with, or that it has none.

        Raises:
            InputError: a version adds two rows with one key (``key-repeated``).
        """
        if self._are_all_new(found):
            return found.drop_columns("moment")
        new = found.filter(pc.equal(pc.bit_wise_and(found.column("moment"), 1), 1))
        counts = new.group_by([*self._inner, "moment"]).aggregate([([], "count_all")])
        twice = counts.filter(pc.greater(counts.column("count_all"), 1))
        if twice.num_rows:
            raise self._repeated(pc.min(twice.column("moment")).as_py() // 2)
        last = found.group_by(self._inner).aggregate([("moment", "max")])
        both = found.join(last, keys=self._inner, join_type="inner")
        ends = both.filter(pc.equal(both.column("moment"), both.column("moment_max")))
        kept = ends.group_by(self._inner).aggregate([("row", "max")]).select([*self._inner, "row_max"])
        return kept.rename_columns([*self._inner, "row"])

    def _keys(self, table: pa.Table) -> pa.Table:
        """Return the keys of a table under their own names; inside they have others, as ours might be among them."""
        return table.select(self._inner).rename_columns(self.key)

    def _met(self, table: Any, found: pa.Table, left: pa.Table) -> bool:
        """Say whether the output has a row with one of the keys.

        A key that comes where there is a row with it already, and that none went with, is looked up in the source.

        Raises:
            InputError: the source has more than one row with it (``key-repeated``).
        """
        root = self._target.root
        again, first = self._bare(found, left.num_rows)
        met = keys.found(root, table, self._keys(first)).rename_columns(self._inner)
        self._check(pa.concat_tables([again, first.join(met, keys=self._inner, join_type="left semi")]))
        if met.num_rows or first.num_rows == left.num_rows:
            return bool(met.num_rows)
        rest = left.join(first, keys=self._inner, join_type="left anti")
        return keys.touches(root, table, self._keys(rest))

    def _bare(self, found: pa.Table, several: int) -> tuple[pa.Table, pa.Table]:
        """Return the keys that came in a version in which no row with them went, and when.

        First those that there was a row with before, in what was taken in; then those of which nothing is told there.
        ``several``: how many keys there are.
        """
        names = [*self._inner, "moment"]
        if several == found.num_rows:
            came = found.filter(pc.equal(pc.bit_wise_and(found.column("moment"), 1), 1)).select(names)
            return came.slice(0, 0), came
        events = found.group_by(names).aggregate([])
        ids = events.select(self._inner).group_by(self._inner).aggregate([])
        ids = ids.append_column("number", pa.array(np.arange(ids.num_rows)))
        events = events.join(ids, keys=self._inner, join_type="inner").combine_chunks()
        number, moment = (events.column(name).to_numpy() for name in ("number", "moment"))
        order = np.lexsort((moment, number))
        number, moment = number[order], moment[order]
        first = np.append(True, number[1:] != number[:-1])[: len(number)]
        before = np.append(0, moment[:-1])[: len(number)]
        bare = (moment % 2 == 1) & (first | (before != moment - 1))
        again = bare & ~first & (before % 2 == 1)
        return events.select(names).take(order[again]), events.select(names).take(order[bare & first])

    def _check(self, told: pa.Table) -> None:
        """Refuse keys that the source has more than once in the version in which they came."""
        moments = told.column("moment")
        for moment in sorted(pc.unique(moments).to_pylist()):
            some = self._keys(told.filter(pc.equal(moments, moment)))
            try:
                twice = keys.repeated(self._source, open_table(self._source, moment // 2), some)
            except FileNotFoundError:
                continue  # what was cleaned up since does not tell
            except (InputError, UsageError) as exc:
                if exc.code not in ("table-unreadable", "table-missing"):
                    raise
                continue
            if twice:
                raise self._repeated(moment // 2)

    def _repeated(self, version: int) -> InputError:
        return InputError(
            f"version {version} adds a row with the same {', '.join(map(repr, self.key))} as another one",
            code="key-repeated",
            path=str(self._source),
            hint="Name with --key the columns that tell all rows of the source apart.",
        )

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
            Conflict: somebody else has moved the position, or committed anything to the output meanwhile.
            InputError: the source has more than one row with a key (``key-repeated``).
        """
        target = self._target
        try:
            schema = pa.schema(table.schema().to_arrow())
            found = self._all(schema)
            left = self._left(found)
            stays = left.filter(pc.greater_equal(left.column("row"), 0))
            met = self._met(table, found, left)
            if not met and stays.num_rows == self._rows:
                mine, parts = parts, ()
                target.commit(table, mine, transactions, facts, alone=True)
            elif not met and not stays.num_rows:
                target.commit(table, [], transactions, facts, alone=True)
            else:
                new = _picked(target.files, parts, stays.column("row").to_numpy(), self._rows)
                merge(target.root, table, Upsert(self.key, new, self._keys(left), left.num_rows), transactions, facts)
            return int(left.num_rows - stays.num_rows)
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
