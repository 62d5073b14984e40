"""Files that appear whole or not at all.

A file is written under a hidden name beside its place (``.modelpack-<name>-…``), flushed to disk and renamed. A killed
process leaves the place as it was; what it leaves beside it is swept by the next one that writes there.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from modelpack.errors import SaveError, UsageError

__all__ = ["exists", "flush_directory", "short", "translated", "whole_file"]

_LONGEST = 160


@contextmanager
def whole_file(path: Path, *, overwrite: bool, family: str = "") -> Iterator[IO[bytes]]:
    """Yield an open file that gets its name when the block ends without an error, and vanishes otherwise.

    What a killed run left is swept by the next one to the same path, or to one of the same ``family``.
    """
    path = Path(os.path.realpath(path))
    with translated(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".modelpack-{family or short(path.name)}-"
        _sweep(path.parent, prefix)
        placed = False
        while not placed:
            hidden = path.parent / f"{prefix}{secrets.token_hex(6)}"
            try:  # before there is a file: a signal may end the run at any moment
                with hidden.open("xb") as opened:
                    # Locked, so that no other run takes it for a leftover; one may have swept it just before.
                    fcntl.flock(opened, fcntl.LOCK_EX)
                    if hidden.exists():
                        yield opened
                        opened.flush()
                        os.fsync(opened.fileno())
                        _place(hidden, path, overwrite=overwrite)
                        placed = True
            finally:
                hidden.unlink(missing_ok=True)
        flush_directory(path.parent)


def short(name: str) -> str:
    """Return the name of a file, or what stands for it within a longer name: file names have at most 255 bytes."""
    if len(raw := os.fsencode(name)) <= _LONGEST:
        return name
    return f"{name[:20]}-{hashlib.sha256(raw).hexdigest()[:32]}"


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Say of what cannot be written that it is the output called ``name``.

    Readers and models translate their own errors, so what is left is the output's.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise SaveError(f"{name} cannot be written: {reason}", code="output-unwritable") from exc


def exists(path: Path | str) -> UsageError:
    """Return the error that says that something is in the way of an output."""
    return UsageError(
        f"{path} exists", code="output-exists", hint="Choose another output, or replace it with --overwrite."
    )


def _place(hidden: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        hidden.replace(path)
        return
    try:
        # A rename would replace what has come up meanwhile; a link refuses.
        os.link(hidden, path)
    except FileExistsError as exc:
        raise exists(path) from exc
    except OSError as exc:
        if os.path.lexists(path):
            raise exists(path) from exc
        hidden.rename(path)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove files that killed runs left: those that nobody holds a lock on."""
    for leftover in parent.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError), leftover.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def flush_directory(path: Path) -> None:
    """See to it that the names in a directory are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
