"""Where the files of a Delta table lie: in a directory, or behind a URL. Each is read, written and looked at alike.

Files are named by their paths from there. What is not there is FileNotFoundError in both; what else goes wrong behind a
URL is one of our own errors already.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq

from modelpack.errors import InputError, UsageError
from modelpack_server.remote import RemoteFile, file_system, is_remote
from modelpack_server.wholefile import whole_file

__all__ = ["PIECE", "Look", "Root", "Storage", "inside", "local", "root_of", "same", "storage"]

# The directory of a table, or its URL.
Root = Path | str

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://|^file:")

# Columns of a Parquet file are read piece by piece, so that memory does not depend on its row groups: many writers make
# them of a million rows. Reading ahead (pre_buffer) would hold them whole. Behind a URL each piece would be a request
# of its own. Spark still writes int96.
PIECE = 65_536
_PARQUET = {"pre_buffer": False, "coerce_int96_timestamp_unit": "us"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A file as it is now: its size, when it was written, and what tells it from another one of that name."""

    size: int
    modified: float
    tag: tuple[int, int] | str


class Storage(Protocol):
    """The files of one table."""

    @property
    def cheap(self) -> bool:
        """Whether a look costs nothing worth saving."""

    def look(self, name: str) -> Look | None:
        """Return what can be seen of a file; None if it is not there."""

    def names(self, folder: str = "") -> list[str]:
        """Return the names of what lies in a folder itself; none if there is nothing, its own if it is a file."""

    def begun(self, folder: str) -> bool:
        """Say whether a folder, that of a log, holds commits."""

    def read(self, name: str) -> bytes:
        """Return all of a file."""

    def parquet(self, name: str) -> AbstractContextManager[Any]:
        """Yield an open Parquet file."""

    def write(self, name: str, *, unique: bool, family: str) -> AbstractContextManager[IO[bytes]]:
        """Yield an open file that is there, whole, when the block ends without an error, and never otherwise.

        ``unique``: nobody else uses this name; else a file that is there is an error (``output-exists``). ``family``:
        which hidden leftovers of killed processes are swept, where writing leaves any.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def made(self) -> bool:
        """Say whether there is a folder for the table, where folders have to be made."""

    def make(self) -> None:
        """Make it."""

    def unmake(self) -> None:
        """Remove it, if nothing is in it."""

    def alone(self) -> AbstractContextManager[bool]:
        """Let no other process do the same at the same time, and yield true; false where that cannot be had."""


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """Files in a directory."""

    cheap: ClassVar[bool] = True

    root: Path

    def look(self, name: str) -> Look | None:
        """Return what can be seen of a file."""
        try:
            stat = os.stat(f"{self.root}/{name}")  # noqa: PTH116 - a stream asks with every tick
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Look(size=stat.st_size, modified=stat.st_mtime, tag=(stat.st_ino, stat.st_mtime_ns))

    def names(self, folder: str = "") -> list[str]:
        """Return the names of what lies in a folder."""
        try:
            return [path.name for path in (self.root / folder).iterdir()]
        except NotADirectoryError:
            found = self.root / folder
            return [found.name] if found.exists() else []
        except FileNotFoundError:
            return []

    def begun(self, folder: str) -> bool:
        """Say whether a log has a commit: one without is one that is being made, or never was."""
        return any(name.endswith((".json", ".parquet")) for name in self.names(folder))

    def read(self, name: str) -> bytes:
        """Return all of a file."""
        return (self.root / name).read_bytes()

    @contextmanager
    def parquet(self, name: str) -> Iterator[Any]:
        """Yield an open Parquet file."""
        with pq.ParquetFile(self.root / name, buffer_size=PIECE, **_PARQUET) as file:
            yield file

    def write(self, name: str, *, unique: bool, family: str) -> AbstractContextManager[IO[bytes]]:
        """Yield an open file, which is hidden until it is whole."""
        return whole_file(self.root / name, overwrite=unique, family=family)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.root / name).unlink(missing_ok=True)

    def made(self) -> bool:
        """Say whether there is a directory."""
        return self.root.is_dir()

    def make(self) -> None:
        """Make the directory."""
        self.root.mkdir(parents=True, exist_ok=True)

    def unmake(self) -> None:
        """Remove the directory, if nothing is in it."""
        with contextlib.suppress(OSError):
            self.root.rmdir()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Let no other process of this machine do the same at the same time; the directory must be there."""
        lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield True
        finally:
            os.close(lock)


@dataclass(frozen=True, slots=True)
class RemoteStorage:
    """Files behind a URL, where each look is a request."""

    cheap: ClassVar[bool] = False

    root: str

    def _file(self, name: str) -> RemoteFile:
        return RemoteFile(url=self.root).child(name) if name else RemoteFile(url=self.root)

    def look(self, name: str) -> Look | None:
        """Return what can be seen of a file."""
        try:
            with _missing():
                found = self._file(name).now()
        except FileNotFoundError:
            return None
        return Look(size=found.size, modified=found.modified, tag=found.tag)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of what lies in a folder."""
        return self._file(folder).names()

    def begun(self, folder: str) -> bool:
        """Say whether there is a log: nothing of it is listed, as it may be long."""
        return self._file(folder).exists()

    def read(self, name: str) -> bytes:
        """Return all of a file."""
        with _missing():
            return self._file(name).read()

    @contextmanager
    def parquet(self, name: str) -> Iterator[Any]:
        """Yield an open Parquet file."""
        with _missing():
            raw = self._file(name).open()
        with raw, pq.ParquetFile(raw, buffer_size=0, **_PARQUET) as file:
            yield file

    def write(self, name: str, *, unique: bool, family: str) -> AbstractContextManager[IO[bytes]]:
        """Yield an open file, which is nothing until it is whole."""
        return self._file(name).write(overwrite=unique, exclusive=not unique)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._file(name).remove()

    def made(self) -> bool:
        """Say that all is made: there are no folders."""
        return True

    def make(self) -> None:
        """Make nothing."""

    def unmake(self) -> None:
        """Remove nothing."""

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Keep nobody out: there are no locks."""
        yield False


def storage(root: Root) -> Storage:
    """Return the files of a table."""
    return LocalStorage(root) if isinstance(root, Path) else RemoteStorage(root)


def inside(root: Root, name: str) -> Root:
    """Return where a file of a table is."""
    return root / name if isinstance(root, Path) else f"{root}/{name}"


def same(one: Root, other: Root) -> bool:
    """Say whether two tables are one."""
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return one == other


def root_of(table: str | Path) -> Root:
    """Return where a table is that somebody has named: by its path, or its URL.

    Raises:
        UsageError: it is neither on a local file system nor behind `s3://` (``table-location``); the URL has a key in
            it (``url-secret``).
    """
    text = str(table)
    if text.startswith("s3://"):
        file_system(text, fresh=False)  # refuses what holds a secret
        return text.rstrip("/")
    if is_remote(text):
        message = f"{text} is neither on a local file system nor behind s3://"
        raise UsageError(message, code="table-location", hint="Give the path of a directory, or the URL of the table.")
    return local(table)


def local(table: str | Path) -> Path:
    """Return the directory of a table.

    Raises:
        UsageError: the table is not on a local file system (``table-location``).
    """
    text = str(table)
    if text.startswith("file:"):
        return Path(unquote(urlsplit(text).path))
    if _SCHEME.match(text):
        message = f"{text} is not on a local file system"
        raise UsageError(message, code="table-location", hint="Give the path of a directory.")
    return Path(text)


@contextmanager
def _missing() -> Iterator[None]:
    """Say of what is not there that it is not, as a local file system does."""
    try:
        yield
    except InputError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise exc.__cause__ from exc
        raise
