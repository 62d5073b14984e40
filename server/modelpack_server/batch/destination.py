"""Where output goes: a file that appears only when it is whole, or a stream; and what must not be in the way.

Everything is written under a hidden name beside the target (``.modelpack-<name>-…``), flushed to disk and renamed.
A killed process leaves the target as it was; what it leaves beside it is swept by the next run to the same target.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from modelpack.errors import UsageError
from modelpack_server.batch import formats
from modelpack_server.batch.formats import Kind
from modelpack_server.remote import RemoteFile
from modelpack_server.wholefile import exists, short, translated, whole_file

__all__ = [
    "MANIFEST",
    "SUCCESS",
    "Destination",
    "file",
    "is_ours",
    "is_stream",
    "place_of",
    "refuse_existing",
    "remote",
    "stream",
]

# Names with "_" before them are no data to any engine.
MANIFEST = "_manifest.json"
SUCCESS = "_SUCCESS"


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


@contextmanager
def stream(path: Path | None, stdout: IO[bytes] | None = None) -> Iterator[Destination]:
    """Write to standard output (None), a pipe or a device as rows are scored; nothing can be taken back."""
    # What is left in a buffer is written when the file is closed, which fails too where writing did.
    with translated("standard output" if path is None else str(path)), contextlib.ExitStack() as stack:
        raw = (stdout or sys.stdout.buffer) if path is None else stack.enter_context(path.open("wb"))
        yield _Single(raw)
        raw.flush()


@contextmanager
def file(path: Path, *, overwrite: bool) -> Iterator[Destination]:
    """Write one file."""
    with whole_file(path, overwrite=overwrite) as opened:
        yield _Single(opened)


@contextmanager
def remote(target: RemoteFile, *, overwrite: bool) -> Iterator[Destination]:
    """Write one file behind a URL."""
    with target.write(overwrite=overwrite) as opened:
        yield _Single(opened)


def place_of(target: Path) -> Path:
    """Return where the state of a run into a folder is kept."""
    real = Path(os.path.realpath(target))
    return real.parent / f".modelpack-{short(real.name)}.resume"


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError if something is in the way of the output (``output-exists``, ``output-foreign``)."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise exists(path)
    if path.is_dir() and not is_ours(path):
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


def is_ours(root: Path) -> bool:
    """Say whether a directory holds only what an earlier run may have written."""
    if root.is_symlink():
        return False
    return all(path.is_dir() or formats.has_suffix(path) for path in root.rglob("*") if not path.name.startswith("_"))
