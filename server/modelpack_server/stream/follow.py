"""Following a source table: which files come next, and whether it is still the table that it was."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from modelpack.errors import InputError, UsageError
from modelpack_server.delta import rows
from modelpack_server.delta.changes import ENABLE, changes, has_feed, vectors
from modelpack_server.delta.kinds import widens
from modelpack_server.delta.log import Add, Shape, first_version, look, read_commit, seal
from modelpack_server.delta.position import UNSEALED, Position, fingerprint
from modelpack_server.delta.snapshots import files_of, shape_of
from modelpack_server.delta.storage import Look, Root, inside, storage
from modelpack_server.delta.tables import open_table
from modelpack_server.stream.options import Options

__all__ = ["Follower", "Piece", "Work"]

# An idle stream looks for the next commit with every tick; at the whole table as seldom as this, in seconds, and so
# that it takes no more than one part in so many of the time.
LOOK_AGAIN = 30.0
SHARE = 200
# Behind a URL a look at the whole table is a request for each commit behind its last checkpoint.
SELDOM = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One file to score, and its place in the order of all."""

    place: Position
    add: Add


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is scored in one commit, and where the stream is behind it."""

    pieces: Sequence[Piece]
    end: Position


class Follower:
    """Reads the log of a source table from a position on.

    ``needed`` are the columns that may not change on the way (None: all).
    """

    def __init__(self, root: Root, options: Options) -> None:
        self.root = root
        self.needed: Sequence[str] | None = None
        self.gone: Collection[str] = frozenset()  # columns that were there where the stream goes on, and are not now
        self._options = options
        table = open_table(root)
        self.shape: Shape = shape_of(table, root)
        self._check_feed(self.shape)
        self.fingerprint = fingerprint(self.shape.id)
        self.latest: int = table.version()
        self._opened = self.latest
        # What the table was at versions whose files are laid out otherwise than those before: each file is read as it
        # was written. And from which version on, and up to which, that is known.
        self._layouts = {self._opened: self.shape}
        self._read = self._opened, self._opened
        self._seen: set[str] = set()  # names of columns that the table had on the way
        self._known: tuple[int, Sequence[Add]] | None = None  # the version at work: it may take several commits
        self._last: tuple[int, Look | None] | None = None
        self._seals: dict[int, int] = {}
        self._pause = LOOK_AGAIN if storage(root).cheap else SELDOM * LOOK_AGAIN
        self._next_look = time.monotonic() + self._pause

    def first(self) -> Position:
        """Return where a new stream begins."""
        asked = self._options.from_version
        if asked is None:
            return Position(version=self.latest, base=self.latest)
        if asked > self.latest + 1:
            raise UsageError(
                f"{self.root} has no version {asked} yet; it is at {self.latest}",
                code="version-absent",
                path="--from-version",
            )
        return Position(version=asked)

    def belongs(self, source: int, output: Root | str) -> None:
        """Compare the fingerprint of a source in an output with the table.

        Raises:
            InputError: it is that of another table (``source-replaced``).
        """
        if source != self.fingerprint:
            raise self._replaced(f"is not the table that {output} was made from so far")

    def check(self, position: Position, sealed: int = UNSEALED) -> None:
        """Compare a position, and the seal behind it, with the source as it is.

        What is read from there on has the columns and types that the table had there, and those that came later.

        Raises:
            InputError: the position lies beyond what the table has, or behind another commit (``source-replaced``); a
                column that is needed was changed in what somebody else has read (``source-columns``).
        """
        if position.version > self.latest + 1:
            self._look()
        if position.version > self.latest + 1:
            raise self._replaced(f"is at version {self.latest}, and was at {position.version - 1} before")
        self._compare(position.last, sealed)
        first, last = self._read
        if position.version > last + 1:
            self._jump(position.version - 1)
        elif position.version < first:
            self._go_back(position.version)

    def _jump(self, version: int) -> None:
        """Go on behind a version without having read it; where it cannot be had, each file tells its own types."""
        if (table := self._table_at(version)) is not None:
            shape = shape_of(table, self.root)
            self._reshape(shape, version)
            self._layouts[version] = shape
        self._read = version, version

    def _go_back(self, version: int) -> None:
        """Go on at a version that is behind us."""
        begun, self._read = self._read[0] < self._opened, (version, version - 1)
        if (table := self._table_at(version)) is None:
            return  # what is missing of the log is said when it is read, and each file tells its own types
        shape = self._layouts[version] = shape_of(table, self.root)
        if begun:
            return
        was, now = shape.schema, self.shape.schema
        self._seen = set(was.names)
        fields = [
            field.with_type(was.field(field.name).type)
            if field.name in self._seen and not widens(was.field(field.name).type, field.type)
            else field
            for field in now
        ]
        self.gone = frozenset(was.names) - frozenset(now.names)
        schema = pa.schema([*fields, *(field for field in was if field.name in self.gone)])
        # A name stands for the column that it stood for there.
        self.shape = replace(self.shape, schema=schema, naming=shape.named_by(self.shape).naming)

    def narrow(self, named: Collection[str]) -> None:
        """Leave out the columns that are there no more, but for those that somebody has named."""
        kept = [field for field in self.shape.schema if field.name not in self.gone or field.name in named]
        self.shape = replace(self.shape, schema=pa.schema(kept))

    def _layout(self, version: int) -> Shape:
        """Return what the table was when the files of a version came."""
        return self._layouts[max((known for known in self._layouts if known <= version), default=self._opened)]

    def seal(self, position: Position) -> int:
        """Return the fingerprint of the commit that was read last before a position."""
        return self._seals.get(position.last, UNSEALED)

    def _compare(self, version: int, sealed: int) -> None:
        """Notice a table that was set back, by a copy, to before a commit that was read, and has gone on from there."""
        found = seal(self.root, version) if version >= 0 and sealed != UNSEALED else UNSEALED
        if UNSEALED not in (found, sealed) and found != sealed:
            raise self._replaced(f"has another version {version} than the one that was scored")
        self._seals = {version: sealed}

    def gather(self, position: Position) -> Work:
        """Return the files from the position on that make one commit: at least one file, if there is any.

        Raises:
            InputError: what follows cannot be had (``source-gap``), is more than added rows (``source-changed``), or
                belongs to another table (``source-replaced``).
        """
        pieces: list[Piece] = []
        self._seals = {version: sealed for version, sealed in self._seals.items() if version >= position.last}
        version, index, total = position.version, position.index, 0
        whole = self._options.changes == "upsert"  # what went and what came in a version belongs together
        if whole:
            index = 0
        while True:
            try:
                adds = self._adds(version, position.base)
            except InputError as exc:
                # What is before it is scored first: a stream that is started again goes on behind it.
                if exc.code != "source-columns" or version == position.version:
                    raise
                break
            if adds is None:
                break
            known, files = adds
            if known != version:
                version, index = known, 0
            while index < len(files):
                place = Position(version=version, index=index, base=position.base)
                end = len(files) if whole else index + 1
                size = sum(map(self._size, files[index:end]))
                if pieces and total + size > self._options.max_rows:
                    return Work(pieces=pieces, end=place)
                pieces += [Piece(place=place, add=add) for add in files[index:end]]
                total, index = total + size, end
            version, index = version + 1, 0
            if total >= self._options.max_rows:
                break
        return Work(pieces=pieces, end=Position(version=version, index=index, base=position.base))

    def missing(self, add: Add) -> InputError:
        """Return the error for a data file that is gone."""
        self._look()
        return InputError(
            "is gone: the source was vacuumed before the stream came to it",
            code="source-gap",
            path=str(inside(self.root, add.path)),
            hint="Its rows cannot be had any more. With --on-gap skip the stream goes on without them.",
        )

    def _size(self, add: Add) -> int:
        try:
            return rows.count(self.root, add)
        except FileNotFoundError:
            return 0  # said when it is read

    def _adds(self, version: int, base: int) -> tuple[int, Sequence[Add]] | None:
        """Return the files of a version, or of a later one where there is a gap to skip; None if there are none yet."""
        if self._known is not None and self._known[0] == version:
            return self._known
        found = self._snapshot(version) if version == base else self._commit(version)
        if found is None and version <= self.latest:
            version, found = self._gap(version)
        if found is not None:
            self._known = version, found
            self._read = min(self._read[0], version), max(self._read[1], version)
            self.latest = max(self.latest, version)
            self._last = version, look(self.root, version)
            return self._known
        if time.monotonic() > self._next_look:
            self._look()
        return None

    def _snapshot(self, version: int) -> Sequence[Add] | None:
        table = self._table_at(version)
        if table is None:
            return None
        shape = self._layouts[version] = shape_of(table, self.root)
        self._seals[version] = seal(self.root, version)
        return [add.seen_later(shape, self.shape) for add in files_of(table, self.root)]

    def _table_at(self, version: int) -> Any | None:
        try:
            return open_table(self.root, version)
        except (InputError, UsageError) as exc:
            # Without its commits, delta-rs sees no table at that version.
            if exc.code not in ("table-unreadable", "table-missing"):
                raise
            return None

    def _commit(self, version: int) -> Sequence[Add] | None:
        commit = read_commit(self.root, version)
        if commit is not None or storage(self.root).cheap:
            self._same_as_before(version)
        if commit is None:
            return None
        self._seals[version] = commit.seal
        if commit.shape is not None:
            self._reshape(commit.shape, version)
            self._layouts[version] = commit.shape
        commit = commit.laid_out(self._layout(version).named_by(self.shape))
        if self._options.changes == "upsert":
            return changes(self.root, commit, self.shape)
        if commit.removed and self._options.changes == "fail":
            raise InputError(
                f"version {version} deletes or rewrites rows ({commit.removed[0]}), and the stream knows only new ones",
                code="source-changed",
                path=str(self.root),
                hint="With --changes append it goes on: new and changed rows are scored, deleted ones stay; with "
                "--changes upsert the output follows by a key.",
            )
        if commit.removed and commit.changes:
            return commit.changes  # each row that is new or was changed, and no other
        gone = set(commit.removed)
        # A file that is removed and added again has fewer rows than before, and none that is new.
        return vectors(self.root, version, [add for add in commit.adds if add.path not in gone])

    def _reshape(self, shape: Shape, version: int) -> None:
        if shape.id != self.shape.id:
            raise self._replaced("is another table of that name")
        # What was opened has columns that came later, and may have widened what was there. Anything else is a change.
        earlier = version <= self._opened
        for field in self.shape.schema:
            if self.needed is not None and field.name not in self.needed:
                continue
            kind = self._kind_in(shape, field.name, earlier=earlier)
            comes_later = kind is None and field.name not in self._seen
            if kind != field.type and not (earlier and (comes_later or (kind and widens(kind, field.type)))):
                named = "is gone" if shape.inner(field.name) is None else "is another column"
                now = named if kind is None else f"is {kind}"
                raise InputError(
                    f"the column {field.name!r} was {field.type} and {now} from version {version} on",
                    code="source-columns",
                    path=str(self.root),
                    hint="If the model takes it like that, start the stream again.",
                )
        self._seen |= set(shape.schema.names)
        if not earlier:
            self._check_feed(shape)
            self.shape = shape

    def _kind_in(self, shape: Shape, name: str, *, earlier: bool) -> pa.DataType | None:
        """Return the type that a column of ours has in another shape of the table; None if it is not there."""
        inner = self.shape.inner(name)
        if shape.inner(name) == inner:
            return shape.schema.field(name).type
        # It may have got its name later.
        before = [other for other in shape.schema.names if shape.inner(other) == inner]
        return shape.schema.field(before[0]).type if earlier and before and shape.inner(name) is None else None

    def _check_feed(self, shape: Shape) -> None:
        """Refuse to follow updates in a table that does not tell which rows they are."""
        if self._options.changes == "upsert" and not has_feed(shape.configuration):
            raise InputError(
                f"has no change data feed: {ENABLE} is not true",
                code="feed-missing",
                path=str(self.root),
                hint=f"Set the table property {ENABLE} to true; or score new rows only (--changes append).",
            )

    def _gap(self, version: int) -> tuple[int, Sequence[Add]]:
        """Deal with commits that have been cleaned out of the log: return the last of them, as if it were empty."""
        self._look()
        left = first_version(self.root, version + 1)
        if self._options.on_gap == "fail":
            raise InputError(
                f"the log has no version {version} any more: the stream was stopped for longer than the table keeps it",
                code="source-gap",
                path=str(self.root),
                hint="With --on-gap skip it goes on at the first version that is left; what was added between is lost.",
            )
        last = (self.latest + 1 if left is None else left) - 1
        self._jump(last if left is None else left)
        self._options.say(f"{self.root}: versions {version} to {last} are not in the log any more; skipped")
        return last, ()

    def _same_as_before(self, version: int) -> None:
        """Notice a table that was put in the place of the old one: the commit before the next is another file."""
        if self._last is None or self._last[0] >= version:
            return
        if look(self.root, self._last[0]) != self._last[1]:
            self._look()
            self._compare(self._last[0], self._seals.get(self._last[0], UNSEALED))
            self._last = self._last[0], look(self.root, self._last[0])

    def _look(self) -> None:
        """Open the table anew, and see that it is still the same."""
        started = time.monotonic()
        try:
            table = open_table(self.root)
        except UsageError as exc:
            raise self._replaced("is gone") from exc
        if table.metadata().id != self.shape.id:
            raise self._replaced("is another table of that name")
        if table.version() < self.latest:
            raise self._replaced(f"went back from version {self.latest} to {table.version()}")
        self.latest = table.version()
        now = time.monotonic()
        self._next_look = now + max(self._pause, SHARE * (now - started))

    def _replaced(self, what: str) -> InputError:
        return InputError(
            f"{what}, so the position of this stream means nothing in it",
            code="source-replaced",
            path=str(self.root),
            hint="Begin anew with another output, or under another name (--job).",
        )
