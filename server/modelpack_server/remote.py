"""Files behind URLs, such as `s3://bucket/rows.parquet`: read, and written whole or not at all (by fsspec).

Who may read and write comes from the environment, as the cloud's own tools take it; nothing of it is in a message, a
manifest or a URL here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

from modelpack import optional
from modelpack.errors import InputError, SaveError, UsageError
from modelpack_server.wholefile import exists

__all__ = ["UNREACHABLE", "RemoteFile", "file_system", "is_remote", "reading", "seen"]

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
    """One file (or, for outputs, a folder) behind a URL. ``modified``: seconds since 1970."""

    url: str
    size: int = 0
    tag: str = ""
    modified: float = 0.0

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.url).name

    def child(self, name: str, size: int = 0) -> RemoteFile:
        """Return the file of that name below this one, of a size that is known elsewhere."""
        return RemoteFile(url=f"{self.url.rstrip('/')}/{name}", size=size)

    def now(self) -> RemoteFile:
        """Return the file as it is now."""
        files, path = file_system(self.url)
        with reading(self.url):
            return seen(self.url, files.info(path))

    def exists(self) -> bool:
        """Say whether there is something."""
        files, path = file_system(self.url)
        with reading(self.url):
            return bool(files.exists(path))

    def below(self) -> list[str]:
        """Return what lies below a folder: paths from there, sorted."""
        files, path = file_system(self.url)
        with reading(self.url):
            found = [str(name) for name in files.find(path)]
        return sorted(name.removeprefix(path).lstrip("/") for name in found if name != path)

    def names(self) -> list[str]:
        """Return the names of what lies in a folder itself, files and folders."""
        files, path = file_system(self.url)
        try:
            with reading(self.url):
                return sorted(PurePosixPath(str(name)).name for name in files.ls(path, detail=False))
        except InputError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                return []
            raise

    def open(self) -> IO[bytes]:
        """Open it for reading; it can seek."""
        files, path = file_system(self.url)
        with reading(self.url):
            raw = _Raw(files.open(path, "rb", block_size=_BLOCK, cache_type="readahead"), self.url)
        return cast("IO[bytes]", io.BufferedReader(raw, 1024 * 1024))

    def read(self) -> bytes:
        """Return all of it, in one request."""
        files, path = file_system(self.url)
        with reading(self.url):
            return bytes(files.cat_file(path, max_concurrency=1))

    def put(self, data: bytes) -> None:
        """Write it, in the place of what is there."""
        with self.write(overwrite=True) as file:
            file.write(data)

    def remove(self) -> None:
        """Remove it."""
        files, path = file_system(self.url)
        with _writing(self.url):
            files.rm_file(path)

    @contextmanager
    def write(self, *, overwrite: bool, exclusive: bool = False) -> Iterator[IO[bytes]]:
        """Yield an open file that is there, whole, when the block ends without an error, and never otherwise.

        ``exclusive``: of several that write it at once the service takes one, which not every service can.
        """
        files, path = file_system(self.url)
        upload = _Upload(files, path, exclusive=exclusive, whole=self.url.startswith("memory:"))
        try:
            yield cast("IO[bytes]", _Sink(upload, self.url))
            if not (overwrite or exclusive) and self.exists():
                raise exists(self.url)
            with _writing(self.url):
                try:
                    upload.commit()
                except OSError as exc:
                    # Not all services say which condition was not met.
                    if isinstance(exc, FileExistsError) or (exclusive and exc.errno == errno.EINVAL):
                        raise exists(self.url) from exc
                    raise
        except BaseException:
            with contextlib.suppress(Exception):
                upload.discard()
            raise


class _Upload:
    """What is small is held and sent at once; anything else goes in parts, which are nothing until they are committed.

    ``whole``: it is held in any case.
    """

    def __init__(self, files: Any, path: str, *, exclusive: bool, whole: bool) -> None:
        self._files = files
        self._path = path
        self._exclusive = exclusive
        self._whole = whole
        self._held = io.BytesIO()
        self._parts: Any = None

    def write(self, data: bytes) -> int:
        """Append bytes."""
        if self._parts is None and not self._whole and self._held.tell() + len(data) > _BLOCK:
            mode = "xb" if self._exclusive else "wb"
            self._parts = self._files.open(self._path, mode, block_size=_BLOCK, autocommit=False)
            self._parts.write(self._held.getvalue())
            self._held = io.BytesIO()
        return int((self._held if self._parts is None else self._parts).write(data))

    def tell(self) -> int:
        """Return how much was written."""
        return int((self._held if self._parts is None else self._parts).tell())

    def commit(self) -> None:
        """Be there."""
        if self._parts is None:
            mode = "create" if self._exclusive else "overwrite"
            self._files.pipe_file(self._path, self._held.getvalue(), mode=mode)
        else:
            self._parts.close()
            self._parts.commit()

    def discard(self) -> None:
        """Take back what was sent."""
        if self._parts is not None:
            try:
                self._parts.discard()
            finally:
                self._parts.closed = True  # what is discarded has nothing to flush


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
        with reading(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Sink:
    """What writers write to; only :meth:`RemoteFile.write` closes the file."""

    closed = False

    def __init__(self, file: _Upload, url: str) -> None:
        self._file = file
        self._url = url

    def write(self, data: Any) -> int:
        """Append bytes."""
        with _writing(self._url):
            return self._file.write(bytes(data))

    def tell(self) -> int:
        """Return how much was written."""
        return self._file.tell()

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


def file_system(url: str, *, fresh: bool = True) -> tuple[Any, str]:
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


def seen(url: str, info: Any) -> RemoteFile:
    """Return a file as its file system describes it."""
    tag = info.get("ETag") or info.get("created") or ""
    when = info.get("LastModified") or info.get("created")
    modified = when.timestamp() if isinstance(when, dt.datetime) else 0.0
    return RemoteFile(url=url, size=int(info["size"]), tag=str(tag).strip('"'), modified=modified)


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Tell what cannot be read as InputError; it has FileNotFoundError as its cause if there is nothing."""
    try:
        yield
    except FileNotFoundError as exc:
        raise InputError(f"cannot be read: {_told(exc)}", code="file-unreadable", path=url) from exc
    except Exception as exc:
        hint = "Run again when it can be read; what is finished stays."
        raise InputError(f"cannot be read: {_told(exc)}", code=UNREACHABLE, path=url, hint=hint) from exc


@contextmanager
def _writing(url: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except Exception as exc:
        raise SaveError(f"{url} cannot be written: {_told(exc)}", code="output-unwritable") from exc


def _told(error: Exception) -> str:
    """Say what happened without a word of the service, which may name keys and accounts."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or bucket"
    if isinstance(error, PermissionError):
        return "access is denied"
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return "the service is busy"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    name = type(error).__name__
    if "Credentials" in name:
        return "the environment does not say who you are"
    return "the service cannot be reached" if "Connect" in name or "Timeout" in name else name
