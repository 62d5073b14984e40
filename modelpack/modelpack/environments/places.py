"""Where environments are built: beside their place, under a lock, so that each is whole or not there.

A builder that is killed leaves its installer running for a while. That one writes into a directory of its own, which
nobody else uses and which it holds a lock on as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelpack.environments import quick
from modelpack.errors import EnvironmentMismatch

__all__ = ["cache", "ending_cleanly", "locked", "staged", "sweep"]

# What was there before, until it is removed.
_GONE = "gone"


def cache(*, make: bool) -> Path:
    """Return the directory environments are kept in, which nobody else can write to; made if it is not there.

    Raises:
        EnvironmentMismatch: another user owns it, or can write to it (``cache-unsafe``).
        OSError: it cannot be made.
    """
    place = quick.folder()
    for part in (*reversed(place.parents), place) if make else ():
        # Of a umask that gives others everything nothing is taken over.
        with contextlib.suppress(FileExistsError):
            part.mkdir(mode=0o755)
    if reason := quick.unsafe(place):
        raise EnvironmentMismatch(
            f"environments in {place} are not used: {reason}",
            code="cache-unsafe",
            path="environment",
            hint=f"Make it yours alone (chmod go-w {place}), or let MODELPACK_ENVIRONMENTS name another directory.",
        )
    return place


@contextlib.contextmanager
def locked(place: Path, how: int) -> Iterator[int]:
    """Hold the lock of an environment, which is a file beside it: one builder at a time, others wait for it."""
    name = place.parent / f".{place.name}.lock"
    while True:
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, how)
            # Who prunes removes the file while holding the lock, and then this is the lock of nothing.
            if _is(file, name):
                yield file
                return
        finally:
            os.close(file)


@contextlib.contextmanager
def staged(place: Path, *, replace: bool) -> Iterator[tuple[Path, int]]:
    """Yield an empty directory that becomes ``place`` when the block ends without an error, and its lock.

    What there is at ``place`` is removed then (``replace``), or an error. Whoever inherits the lock's descriptor keeps
    the directory from being swept.
    """
    sweep(place)
    staging, lock = _staging(place)
    try:
        made = staging / place.name
        made.mkdir(mode=0o755)
        yield made, lock
        _close(made)
        if replace and place.is_dir():
            place.rename(staging / _GONE)
        made.rename(place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _staging(place: Path) -> tuple[Path, int]:
    """Make a directory, for this user alone, and lock it; another one if somebody swept it before it was locked."""
    while True:
        staging = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        staging.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is(lock, staging):
                return staging, lock
            os.close(lock)


def _is(file: int, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), name.stat())
    except FileNotFoundError:
        return False


def _close(root: Path) -> None:
    """Take from others the right to write to anything there, which a umask may have given them."""
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(folder, name)  # noqa: PTH118 - of many thousands
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode) and mode & 0o022:
                os.chmod(path, stat.S_IMODE(mode) & ~0o022)  # noqa: PTH101


def sweep(place: Path) -> None:
    """Remove what killed builders of this environment left, unless something still writes there."""
    ours = re.compile(re.escape(f".{place.name}.") + "[0-9a-f]{8}")
    for leftover in [path for path in place.parent.iterdir() if ours.fullmatch(path.name)]:
        with contextlib.suppress(OSError):
            lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if {path.name for path in leftover.iterdir()} <= {place.name, _GONE}:
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)


class _Ended(BaseException):
    """A signal that ends this process has come."""


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """See to it that a signal which ends this process (SIGTERM, SIGHUP) leaves nothing half: the block is left first.

    Whatever runs for it is stopped, as for Ctrl-C. Then the process ends by the signal, as it would have.
    """
    main = threading.current_thread() is threading.main_thread()
    # Who ignores one (nohup) or handles it goes on doing so.
    numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if main and signal.getsignal(one) is signal.SIG_DFL]
    came: list[int] = []

    def stop(number: int, _: Any) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        came.append(number)
        raise _Ended

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        if came:
            os.kill(os.getpid(), came[0])
