"""Directories that appear whole or not at all (spec/02-package.md#saving).

The content is written into a hidden directory beside the target, flushed to disk, and moved into place with one
rename. A process killed at any moment leaves the target as it was: absent, or the whole old one. What it leaves
beside it, ``.modelpack-<name>-…``, is swept by the next one that writes to the same target.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from modelpack.errors import SaveError
from modelpack.pathrules import MANIFEST

__all__ = ["directory", "flush", "place"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def _is_package(target: Path) -> bool:
    return not target.is_symlink() and (target / MANIFEST).is_file()


@contextlib.contextmanager
def directory(target: Path, *, overwrite: bool, replaceable: Callable[[Path], bool] = _is_package) -> Iterator[Path]:
    """Yield an empty staging directory that becomes ``target`` when the block ends without an error.

    ``replaceable`` says whether what is there may be overwritten: by default a package and nothing else.

    Raises:
        SaveError: ``target-exists``, ``target-not-package`` (what is there is not replaceable), or
            ``target-unwritable``.
    """
    allowed = replaceable if overwrite else None
    _check(target, allowed)
    prefix = f".modelpack-{target.name}-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent, prefix)
        staging, lock = _staging(target.parent, prefix)
    except OSError as exc:
        raise SaveError(f"{target} cannot be written: {exc.strerror}", code="target-unwritable") from exc
    try:
        yield staging
        flush(staging)
        staging.chmod(0o777 & ~_umask())
        place(staging, target, allowed)
        _flush_entry(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _staging(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a staging directory, and lock it; another one if somebody swept it before it was locked."""
    while True:
        staging = parent / f"{prefix}{secrets.token_hex(6)}"
        staging.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if staging.exists():
                return staging, lock
            os.close(lock)


def _check(target: Path, replaceable: Callable[[Path], bool] | None) -> None:
    if not os.path.lexists(target) or _is_empty(target):
        return
    if replaceable is None:
        raise SaveError(
            f"{target} exists", code="target-exists", hint="Choose another path, or pass overwrite=True to replace it."
        )
    if not replaceable(target):
        raise SaveError(
            f"{target} is not {'a package' if replaceable is _is_package else 'ours'}, so it is not overwritten",
            code="target-not-package",
            hint="Choose another path, or remove it yourself.",
        )


def _is_empty(target: Path) -> bool:
    return target.is_dir() and not target.is_symlink() and not any(target.iterdir())


def place(staging: Path, target: Path, replaceable: Callable[[Path], bool] | None) -> None:
    """Give a directory that is whole the name ``target``, in one step.

    An old one that is ``replaceable`` (None: none is) then has the name ``staging``.
    """
    try:
        staging.rename(target)
        return
    except OSError as exc:
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST) or replaceable is None:
            _check(target, replaceable)
            raise SaveError(f"{target} cannot be written: {exc.strerror}", code="target-unwritable") from exc
    # Both names are taken: swap them in one step, so that there is no moment without a whole package.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(staging), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise SaveError(
            f"{target} cannot be replaced in one step: {os.strerror(number)}",
            code="target-unwritable",
            hint="Remove the old package first, or save under another path.",
        )


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what killed writers left: staging directories that nobody holds a lock on."""
    for leftover in parent.glob(f"{_glob_escape(prefix)}*"):
        with contextlib.suppress(OSError):
            fd = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(fd)


def _glob_escape(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def flush(root: Path) -> None:
    """See to it that a directory with all that is in it is on the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            _flush_entry(Path(folder, name))
        _flush_entry(Path(folder))


def _flush_entry(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _umask() -> int:
    """Return the process's umask (there is no way to read it but to set it)."""
    current = os.umask(0o077)
    os.umask(current)
    return current
