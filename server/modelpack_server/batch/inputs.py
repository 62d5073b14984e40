"""Which files are scored, in which order: files, directories, globs, Delta tables and standard input."""

from __future__ import annotations

import glob
import gzip
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from modelpack.errors import UsageError
from modelpack_server.batch import formats, urls
from modelpack_server.batch.formats import Format, Kind
from modelpack_server.batch.urls import expand
from modelpack_server.batch.where.bounds import Bounds, may_hold, of_partition
from modelpack_server.batch.where.grammar import parse
from modelpack_server.batch.where.terms import Term, tests_of
from modelpack_server.batch.where.typed import check
from modelpack_server.delta.history import NOW, When, is_table, snapshot_at
from modelpack_server.delta.log import Add, Shape
from modelpack_server.delta.rows import constant
from modelpack_server.delta.storage import Root, local
from modelpack_server.remote import RemoteFile, is_remote

__all__ = ["STDIN", "Piece", "Source", "TableFile", "find"]

STDIN = "-"
_SPOOL_BLOCK = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """One data file of a Delta table at a version; ``add`` is None for a table that has none.

    ``root``: the directory of the table, or its URL.
    """

    root: Root
    version: int
    shape: Shape
    add: Add | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Row groups of a Parquet file, from the ``first`` to the ``last``: so many bytes (``size``) and ``rows``.

    ``number``: which piece of the file it is. ``before``: how many rows the file has before it.
    """

    number: int
    first: int
    last: int
    size: int
    before: int
    rows: int

    def groups(self, chosen: Iterable[int] | None = None) -> list[int]:
        """Return its row groups, or those of them that are among the ``chosen``."""
        mine = range(self.first, self.last + 1)
        return list(mine) if chosen is None else [group for group in chosen if group in mine]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One input file: at a path, behind a URL (``remote``), or else standard input.

    ``stem`` is the path its output file gets inside an output directory, without the suffix. ``table``: the Delta
    table that it is a file of. ``piece``: what of the file it is (None: all).
    """

    path: Path | None
    kind: Kind
    stem: str
    table: TableFile | None = None
    remote: RemoteFile | None = None
    piece: Piece | None = None

    @property
    def name(self) -> str:
        """The name used in messages."""
        if self.remote is not None:
            return self.remote.url
        return "<stdin>" if self.path is None else str(self.path)

    @property
    def size(self) -> int | None:
        """Bytes of the file, or of its piece (None: not known beforehand)."""
        if self.piece is not None:
            return self.piece.size
        if self.table is not None and self.table.add is None:
            return 0
        if self.remote is not None:
            return self.remote.size
        if self.path is None or not self.path.is_file():
            return None
        return self.path.stat().st_size

    def open_raw(self) -> IO[bytes]:
        """Open the bytes as they are."""
        if self.remote is not None:
            return self.remote.open()
        if self.path is None:
            return sys.stdin.buffer
        return self.path.open("rb")

    def unpacked(self, raw: IO[bytes]) -> IO[bytes]:
        """Return the stream of the format's own bytes from what :meth:`open_raw` gave."""
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw, mode="rb")) if self.kind.gzip else raw

    def open_seekable(self) -> IO[bytes]:
        """Open for formats that are read from the end: what cannot seek is first copied into a nameless file."""
        raw = self.open_raw()
        if raw.seekable():
            return raw
        spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        while block := raw.read(_SPOOL_BLOCK):
            spool.write(block)
        spool.seek(0)
        return spool


def find(
    inputs: Sequence[str | Path], override: Format | None = None, when: When = NOW, where: str | None = None
) -> list[Source]:
    """Return the files behind ``inputs`` in the order given, each once.

    A directory with a ``_delta_log`` is a Delta table, taken as it was ``when``. Any other is walked, sorted by path;
    only data files and tables count, and no name that starts with ``.`` or ``_``. A pattern (``*``, ``?``, ``[…]``,
    ``**``) that is not itself a file is expanded, sorted. Files of tables whose partition rules out ``where`` are left
    out.

    Raises:
        UsageError: nothing there, or a link to nothing (``input-missing``), no data file in a directory
            (``input-empty``), a name that does not tell the format (``input-format``), a file of a table without the
            table (``input-in-table``), no such version (``table-version``).
    """
    if not inputs:
        raise UsageError("no input given", code="input-missing", hint="Give a file, a directory, a pattern or '-'.")
    finder = _Finder(override, when, parse(where) if where else None)
    found: dict[Path | str, Source] = {}
    for given in inputs:
        for source in finder.expand(str(given)):
            found.setdefault(source.path.resolve() if source.path else source.name, source)
    if when != NOW and len(finder.tables) != 1:
        many = "several inputs are Delta tables" if finder.tables else "no input is a Delta table"
        message = f"a version or a time of a table was asked for, and {many}"
        raise UsageError(message, code="table-version", hint="Give one Delta table.")
    return list(found.values())


class _Finder:
    def __init__(self, override: Format | None, when: When, where: Term | None) -> None:
        self.tables: set[Root] = set()
        self._override = override
        self._when = when
        self._where = where

    def expand(self, given: str) -> Iterator[Source]:
        if is_remote(given):
            yield from self._remote(given)
            return
        path = local(given) if given.startswith("file:") else Path(given)
        if given == STDIN:
            yield Source(path=None, kind=Kind(format=self._override or "jsonl"), stem="stdin")
        elif is_table(path):
            self._take_no_format(path)
            yield from self._table(path, path.resolve().name)
        elif path.is_dir():
            yield from self._walk(path)
        elif path.exists():
            yield self._file(path)
        else:
            yield from self._matches(given)

    def _remote(self, url: str) -> Iterator[Source]:
        if not glob.has_magic(url) and urls.is_table(url):
            self._take_no_format(url)
            yield from self._table(url.rstrip("/"), PurePosixPath(url).name)
            return
        found, files = False, expand(url)
        if not self._override and (theirs := urls.in_table(file.url for file, _ in files)) is not None:
            raise _in_table(f"{theirs} belongs to a Delta table, whose log says what of it counts")
        for file, inside in files:
            # What is named by itself must tell its format; of a folder only data files count.
            alone = len(files) == 1 and file.url == url
            kind = formats.of(PurePosixPath(file.name), self._override)
            if kind is None and alone:
                message, hint = f"the name of {url} does not tell its format", "Pass --input-format."
                raise UsageError(message, code="input-format", hint=hint)
            if kind is not None:
                found = True
                stem = str(PurePosixPath(inside).parent / _stem(file.name, kind))
                yield Source(path=None, kind=kind, stem=stem, remote=file)
        if not found:
            hint = f"Data files end in {', '.join(formats.SUFFIXES)} (or .csv.gz, .jsonl.gz)."
            raise UsageError(f"{url} holds no data file", code="input-empty", hint=hint)

    def _matches(self, given: str) -> Iterator[Source]:
        matches = sorted(glob.glob(given, recursive=True)) if glob.has_magic(given) else []  # noqa: PTH207 - Path.glob takes no absolute patterns
        if not matches:
            raise UsageError(f"there is no input {given}", code="input-missing", hint="Give a file or a directory.")
        tables = {match for match in map(Path, matches) if is_table(match)}
        for match in map(Path, matches):
            if match in tables:
                yield from self._table(match, match.resolve().name)
            elif not tables.isdisjoint(match.parents):
                continue  # "**" walks into tables too
            elif match.is_file():
                yield self._file(match)
            elif _leads_nowhere(match):
                raise _dangling(match)
            elif "**" not in given:  # "**" has walked the directories itself
                yield from self._walk(match)

    def _file(self, path: Path) -> Source:
        kind = formats.of(path, self._override)
        if kind is None:
            raise UsageError(
                f"the name of {path} does not tell its format",
                code="input-format",
                hint=f"Pass --input-format: {', '.join(formats.FILES)}.",
            )
        above = next((parent for parent in path.absolute().parents if is_table(parent)), None)
        if above is not None and not self._override:
            # It may hold rows that the table no longer has, and lacks the columns that it is partitioned by.
            raise _in_table(f"{path} belongs to the Delta table {above}, whose log says what of it counts")
        return Source(path=path, kind=kind, stem=_stem(path.name, kind))

    def _walk(self, root: Path) -> Iterator[Source]:
        found, override = False, self._override
        tables: set[Path] = set()
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            if any(part.startswith((".", "_")) for part in inside.parts) or not tables.isdisjoint(path.parents):
                continue
            if _leads_nowhere(path):
                raise _dangling(path)
            if is_table(path):
                tables.add(path)
                if not override:
                    found = True
                    yield from self._table(path, str(inside))
                continue
            # With an explicit format a file without a telling suffix is taken too, but none of another format.
            kind = formats.of(path) or formats.of(path, override) if override else formats.of(path)
            if kind is None or (override and kind.format != override) or not path.is_file():
                continue
            found = True
            yield Source(path=path, kind=kind, stem=str(inside.parent / _stem(path.name, kind)))
        if not found:
            raise UsageError(
                f"the directory {root} holds no data file",
                code="input-empty",
                hint=f"Data files end in {', '.join(formats.SUFFIXES)} (or .csv.gz, .jsonl.gz).",
            )

    def _table(self, root: Root, stem: str) -> Iterator[Source]:
        """Yield a source for each data file of a table; one for a table that has none."""
        self.tables.add(root.resolve() if isinstance(root, Path) else root)
        found = snapshot_at(root, self._when)
        for number, add in enumerate(self._some(found.adds, found.shape, root) or [None]):
            part = TableFile(root=root, version=found.version, shape=found.shape, add=add)
            source = Source(path=None, kind=Kind(format="delta"), stem=f"{stem}-{number:05d}", table=part)
            if isinstance(root, Path):
                yield replace(source, path=root if add is None else root / add.path)
            else:
                whole = RemoteFile(url=root)
                yield replace(source, remote=whole if add is None else whole.child(add.path, add.size or 0))

    def _take_no_format(self, root: Root) -> None:
        if self._override:
            message = f"{root} is a Delta table, so there is no format to say"
            raise UsageError(message, code="input-format", hint="Leave out --input-format.")

    def _some(self, adds: Sequence[Add], shape: Shape, root: Root) -> Sequence[Add]:
        """Return the files of a table whose partition does not rule out all of their rows."""
        term = self._where
        if term is None:
            return adds
        check(shape.schema, tests_of(term), str(root))

        def told(add: Add, name: str) -> Bounds | None:
            known = name in shape.partitions
            return of_partition(add.partition.get(name), shape.schema.field(name).type, constant) if known else None

        return [add for add in adds if may_hold(term, partial(told, add))]


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _dangling(path: Path) -> UsageError:
    return UsageError(f"the link {path} leads nowhere", code="input-missing", hint="Mend the link, or remove it.")


def _in_table(message: str) -> UsageError:
    hint = "Give the table, or pass --input-format to read the file as it is."
    return UsageError(message, code="input-in-table", hint=hint)


def _stem(name: str, kind: Kind) -> str:
    if kind.gzip:
        name = name[: -len(".gz")]
    return Path(name).stem if formats.has_suffix(Path(name)) else name
