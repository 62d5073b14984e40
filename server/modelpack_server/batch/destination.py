"""Where output goes: a file or a directory that appears only when it is whole, or a stream.

Everything is written under a hidden name beside the target (``.modelpack-<name>-…``), flushed to disk and renamed.
A killed process leaves the target as it was; what it leaves beside it is swept by the next run to the same target.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from modelpack import atomic
from modelpack.errors import SaveError, UsageError
from modelpack_server.batch import formats
from modelpack_server.batch.formats import Kind

__all__ = ["Destination", "file", "folder", "is_stream", "refuse_existing", "stream", "whole_file"]


class Destination(Protocol):
    """Gives out open files for the parts of the output."""

    def open(self, stem: str, kind: Kind) -> AbstractContextManager[IO[bytes]]:
        """Open the file for one part."""


class _Single:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    @contextmanager
    def open(self, stem: str, kind: Kind) -> Iterator[IO[bytes]]:
        yield self._file


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def open(self, stem: str, kind: Kind) -> Iterator[IO[bytes]]:
        path = self._root / f"{stem}{kind.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            yield file


@contextmanager
def stream(path: Path | None) -> Iterator[Destination]:
    """Write to standard output (None), a pipe or a device as rows are scored; nothing can be taken back."""
    with contextlib.ExitStack() as stack:
        raw = sys.stdout.buffer if path is None else stack.enter_context(path.open("wb"))
        with _translated("standard output" if path is None else str(path)):
            yield _Single(raw)
            raw.flush()


@contextmanager
def file(path: Path, *, overwrite: bool) -> Iterator[Destination]:
    """Write one file."""
    with whole_file(path, overwrite=overwrite) as opened:
        yield _Single(opened)


@contextmanager
def folder(path: Path, *, overwrite: bool) -> Iterator[Destination]:
    """Write a directory of files; it appears with all of them."""
    with _translated(str(path)), atomic.directory(path, overwrite=overwrite, replaceable=_is_ours) as staging:
        yield _Folder(staging)


@contextmanager
def whole_file(path: Path, *, overwrite: bool, family: str = "") -> Iterator[IO[bytes]]:
    """Yield an open file that gets its name when the block ends without an error, and vanishes otherwise.

    What a killed run left is swept by the next one to the same path, or to one of the same ``family``.
    """
    path = Path(os.path.realpath(path))
    with _translated(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        # File names are at most 255 bytes long, and this one is longer than the target's.
        prefix = f".modelpack-{family or path.name[:60]}-"
        _sweep(path.parent, prefix)
        with _locked(path.parent / prefix) as opened:
            hidden = Path(opened.name)
            try:
                yield opened
                opened.flush()
                os.fsync(opened.fileno())
                _place(hidden, path, overwrite=overwrite)
            finally:
                hidden.unlink(missing_ok=True)
        _flush_directory(path.parent)


def _locked(prefix: Path) -> IO[bytes]:
    """Open a new file and lock it, so that no other run takes it for a leftover."""
    while True:
        opened = Path(f"{prefix}{secrets.token_hex(6)}").open("xb")  # noqa: SIM115 - the caller closes it
        fcntl.flock(opened, fcntl.LOCK_EX)
        # Another run may have swept it between the two calls above.
        if Path(opened.name).exists():
            return opened
        opened.close()


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Readers and models translate their own errors, so what is left is the output's."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise SaveError(f"{name} cannot be written: {reason}", code="output-unwritable") from exc


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError if something is in the way of the output (``output-exists``, ``output-foreign``)."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise UsageError(
            f"{path} exists", code="output-exists", hint="Choose another output, or replace it with --overwrite."
        )
    if path.is_dir() and not _is_ours(path):
        raise UsageError(
            f"{path} holds more than data files, so it is not overwritten",
            code="output-foreign",
            hint="Choose another directory, or remove it yourself.",
        )


def is_stream(path: Path) -> bool:
    """Say whether the path is a pipe or a device, which is written as it is."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_ours(root: Path) -> bool:
    """Say whether a directory holds only what an earlier run may have written."""
    if root.is_symlink():
        return False
    return all(path.is_dir() or formats.has_suffix(path) for path in root.rglob("*") if not path.name.startswith("_"))


def _place(hidden: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        hidden.replace(path)
        return
    try:
        # A rename would replace what has come up meanwhile; a link refuses.
        os.link(hidden, path)
    except FileExistsError:
        refuse_existing(path, overwrite=False)
    except OSError:
        refuse_existing(path, overwrite=False)
        hidden.rename(path)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove files that killed runs left: those that nobody holds a lock on."""
    for leftover in parent.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError), leftover.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _flush_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
