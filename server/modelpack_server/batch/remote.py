"""Files behind URLs, such as `s3://bucket/rows.parquet`: found, read, and written whole or not at all (by fsspec).

Who may read and write comes from the environment, as the cloud's own tools take it; nothing of it is in a message, a
manifest or a URL here.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

from modelpack import optional
from modelpack.errors import InputError, SaveError, UsageError
from modelpack_server.delta.tables import LOG
from modelpack_server.wholefile import exists

__all__ = ["UNREACHABLE", "RemoteFile", "expand", "in_table", "is_remote", "is_table"]

# The code of errors which say nothing of the file: it may well be there, and as it was.
UNREACHABLE = "file-unreachable"

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEMES = ("s3", "memory")
_BLOCK = 8 * 1024 * 1024


def is_remote(text: str) -> bool:
    """Say whether a name is a URL, of anything but a local file."""
    return _URL.match(text) is not None and not text.startswith("file:")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file (or, for outputs, a folder) behind a URL."""

    url: str
    size: int = 0
    tag: str = ""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.url).name

    def child(self, name: str, size: int = 0) -> RemoteFile:
        """Return the file of that name below this one, of a size that is known elsewhere."""
        return RemoteFile(url=f"{self.url.rstrip('/')}/{name}", size=size)

    def now(self) -> RemoteFile:
        """Return the file as it is now."""
        files, path = _open(self.url)
        with _reading(self.url):
            return _seen(self.url, files.info(path))

    def exists(self) -> bool:
        """Say whether there is something."""
        files, path = _open(self.url)
        with _reading(self.url):
            return bool(files.exists(path))

    def below(self) -> list[str]:
        """Return what lies below a folder: paths from there, sorted."""
        files, path = _open(self.url)
        with _reading(self.url):
            found = [str(name) for name in files.find(path)]
        return sorted(name.removeprefix(path).lstrip("/") for name in found if name != path)

    def open(self) -> IO[bytes]:
        """Open it for reading; it can seek."""
        files, path = _open(self.url)
        with _reading(self.url):
            raw = _Raw(files.open(path, "rb", block_size=_BLOCK, cache_type="readahead"), self.url)
        return cast("IO[bytes]", io.BufferedReader(raw, 1024 * 1024))

    def read(self) -> bytes:
        """Return all of it."""
        with self.open() as file:
            return file.read()

    def put(self, data: bytes) -> None:
        """Write it, in the place of what is there."""
        with self.write(overwrite=True) as file:
            file.write(data)

    def remove(self) -> None:
        """Remove it."""
        files, path = _open(self.url)
        with _writing(self.url):
            files.rm_file(path)

    @contextmanager
    def write(self, *, overwrite: bool) -> Iterator[IO[bytes]]:
        """Yield an open file that is there, whole, when the block ends without an error, and never otherwise."""
        files, path = _open(self.url)
        with _writing(self.url):
            file = _Held(files, path) if self.url.startswith("memory:") else _upload(files, path)
        try:
            yield cast("IO[bytes]", _Sink(file, self.url))
            with _writing(self.url):
                file.close()
            if not overwrite and self.exists():
                raise exists(self.url)
            with _writing(self.url):
                file.commit()
        except BaseException:
            with contextlib.suppress(Exception):
                file.discard()
            file.closed = True  # what is discarded has nothing to flush
            raise


def _upload(files: Any, path: str) -> Any:
    """Begin an upload in parts, which is nothing until it is committed."""
    return files.open(path, "wb", block_size=_BLOCK, autocommit=False)


class _Held(io.BytesIO):
    """A file in memory: fsspec shows such at once, and this one when it is committed."""

    closed = False

    def __init__(self, files: Any, path: str) -> None:
        super().__init__()
        self._files = files
        self._path = path

    def close(self) -> None:
        """Keep what was written."""

    def commit(self) -> None:
        """Be there."""
        self._files.pipe_file(self._path, self.getvalue())

    def discard(self) -> None:
        """Forget it."""


class _Raw(io.RawIOBase):
    """A remote file as Python's own files are, with errors that say no more than they should."""

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        with _reading(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Sink:
    """What writers write to; only :meth:`RemoteFile.write` closes the file."""

    closed = False

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def write(self, data: Any) -> int:
        """Append bytes."""
        with _writing(self._url):
            return int(self._file.write(bytes(data)))

    def tell(self) -> int:
        """Return how much was written."""
        return int(self._file.tell())

    def flush(self) -> None:
        """Nothing is there before all of it is."""

    def close(self) -> None:
        """Leave that to the owner."""

    def readable(self) -> bool:
        """It is not."""
        return False

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is not."""
        return False


def expand(url: str) -> list[tuple[RemoteFile, str]]:
    """Return the files behind a URL, a folder or a pattern, sorted, each with its path from there.

    Raises:
        UsageError: there is nothing (``input-missing``), or a Delta table among them (``table-location``).
    """
    files, path = _open(url)
    scheme = url.partition("://")[0]
    with _reading(url):
        pattern = any(mark in path for mark in "*?[")
        if not pattern and files.isfile(path):
            return [(_seen(url, files.info(path)), PurePosixPath(path).name)]
        details = files.glob(path, detail=True) if pattern else files.find(path, detail=True)
    if any(f"/{LOG}/" in name for name in details):
        message = f"{url} holds a Delta table, and tables behind URLs are read one by one"
        raise UsageError(message, code="table-location", hint="Give the URL of the table.")
    found = []
    for name, info in sorted(details.items()):
        inside = PurePosixPath(name).name if pattern else name.removeprefix(path).lstrip("/")
        if info["type"] == "file" and not any(part.startswith((".", "_")) for part in PurePosixPath(inside).parts):
            found.append((_seen(f"{scheme}://{name.lstrip('/')}", info), inside))
    if not details:
        raise UsageError(f"there is no input {url}", code="input-missing", hint="Give a file, a folder or a pattern.")
    return found


def is_table(url: str) -> bool:
    """Say whether a URL is that of a Delta table."""
    files, path = _open(url)
    with _reading(url):
        return not files.isfile(path) and _has_log(files, path)


def in_table(urls: Iterable[str]) -> str | None:
    """Return the URL of the first of these files that lies in a Delta table; None if none does."""
    known: dict[str, bool] = {}
    for url in urls:
        files, path = _open(url, fresh=False)
        for parent in map(str, PurePosixPath(path).parents):
            if parent not in known:
                known[parent] = parent not in (".", "/") and _has_log(files, parent)
            if known[parent]:
                return url
    return None


def _has_log(files: Any, path: str) -> bool:
    """Say whether there is the log of a table; who may only read files that they know sees none."""
    try:
        return bool(files.isdir(f"{path.rstrip('/')}/{LOG}"))
    except PermissionError:
        return False


def _open(url: str, *, fresh: bool = True) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it; ``fresh``: nothing is taken from earlier looks."""
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        message = f"there are no files behind {scheme}:// here"
        raise UsageError(message, code="url-scheme", hint="Give a path, or a URL that begins with s3://.")
    if "@" in rest.partition("/")[0]:
        # The URL is not repeated: it has a secret in it.
        message = f"a URL of {scheme}:// has a name or a key before its bucket"
        raise UsageError(message, code="url-secret", hint="Let the environment say who you are: AWS_ACCESS_KEY_ID.")
    if scheme == "s3":
        optional.require("s3fs", what="A file behind s3://", extra="s3")
    files, path = optional.require("fsspec.core", what=f"A file behind {scheme}://", extra="s3").url_to_fs(url)
    if fresh:
        files.invalidate_cache()
    return files, path


def _seen(url: str, info: Any) -> RemoteFile:
    tag = info.get("ETag") or info.get("created") or ""
    return RemoteFile(url=url, size=int(info["size"]), tag=str(tag).strip('"'))


@contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise InputError(f"cannot be read: {_reason(exc)}", code="file-unreadable", path=url) from exc
    except Exception as exc:
        hint = "Run again when it can be read; what is finished stays."
        raise InputError(f"cannot be read: {_reason(exc)}", code=UNREACHABLE, path=url, hint=hint) from exc


@contextmanager
def _writing(url: str) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        raise SaveError(f"{url} cannot be written: {_reason(exc)}", code="output-unwritable") from exc


def _reason(error: Exception) -> str:
    """Say what happened without a word of the service, which may name keys and accounts."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or bucket"
    if isinstance(error, PermissionError):
        return "access is denied"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
