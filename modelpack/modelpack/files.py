"""Files on disk: hashing, the closed world, verified reading (spec/02-package.md, spec/04-digests.md)."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from modelpack.errors import Fault, IntegrityError
from modelpack.manifest import FileEntry
from modelpack.pathrules import MANIFEST, UNLISTED

__all__ = ["VerifiedFiles", "hash_file", "read_manifest", "scan", "verify"]

_BLOCK = 1024 * 1024
# A file of this size and more is read ahead in a thread while what has come is hashed, into memory it stays in.
_LARGE = 8 * _BLOCK
_AHEAD = 4 * _BLOCK
_DIFFERS = "is not the file the manifest describes"
# How much of what has been verified may be kept in memory until it is used.
MAX_KEPT = 2**32


def hash_file(path: Path) -> tuple[str, int]:
    """Return (``sha256:<hex>``, size in bytes) of a regular file."""
    digest, size, block = hashlib.sha256(), 0, memoryview(bytearray(_BLOCK))
    with _open_regular(path) as fd, io.FileIO(fd, closefd=False) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            size += count
    return f"sha256:{digest.hexdigest()}", size


def read_manifest(root: Path, *, max_bytes: int) -> bytes:
    """Return the bytes of ``modelpack.json``, at most one more than ``max_bytes``.

    Raises:
        IntegrityError: ``package-missing`` (no such directory), ``manifest-missing``, ``file-kind``.
    """
    if not root.is_dir():
        raise IntegrityError(f"{root} is not a directory", code="package-missing", hint="Give the package's directory.")
    try:
        with _open_regular(root / MANIFEST) as fd:
            return _read(fd, max_bytes + 1)
    except FileNotFoundError:
        raise IntegrityError(
            f"{root} has no {MANIFEST}", code="manifest-missing", hint="It is not a package, or not a whole one."
        ) from None


class _open_regular:  # noqa: N801 - reads as a function
    """Open a file for reading as a descriptor, only if it is a regular file; never block, never follow a link."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> int:
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            if isinstance(exc, FileNotFoundError):
                raise
            code = "file-kind" if exc.errno in (errno.ELOOP, errno.ENXIO) else "file-unreadable"
            raise IntegrityError(f"cannot be read: {exc.strerror}", code=code, path=self.path.name) from None
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            os.close(self.fd)
            raise IntegrityError("is not a regular file", code="file-kind", path=self.path.name)
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _read(fd: int, limit: int) -> bytes:
    """Return at most ``limit`` bytes; what comes in one piece, as files do, is not copied."""
    blocks: list[bytes] = []
    while limit > 0 and (block := os.read(fd, min(limit, 2**30))):
        blocks.append(block)
        limit -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _read_hashed(fd: int, size: int) -> tuple[bytes | memoryview, str]:
    """Return at most ``size`` + 1 bytes and the sha256 of them: reading costs no time beside hashing."""
    if size < _LARGE:
        raw = _read(fd, size + 1)
        return raw, hashlib.sha256(raw).hexdigest()
    # numpy asks the system for large pages, which is most of what a buffer of this size costs.
    buffer, digest, end = np.empty(size + 1, dtype=np.uint8).data, hashlib.sha256(), 0
    file = io.FileIO(fd, closefd=False)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:
        coming = ahead.submit(file.readinto, buffer[:_AHEAD])
        while count := coming.result():
            start, end = end, end + count
            coming = ahead.submit(file.readinto, buffer[end : end + _AHEAD])
            digest.update(buffer[start:end])
    return buffer[:end].toreadonly(), digest.hexdigest()


def scan(root: Path) -> tuple[dict[str, int], list[Fault]]:
    """Return the sizes of all regular files below ``root`` by path, and a fault for everything else found."""
    sizes: dict[str, int] = {}
    faults: list[Fault] = []
    stack = [""]
    while stack:
        prefix = stack.pop()
        try:
            entries = list(os.scandir(root / prefix))
        except OSError as exc:
            faults.append(Fault("file-unreadable", _shown(prefix).rstrip("/"), f"cannot be listed: {exc.strerror}"))
            continue
        for entry in entries:
            path = f"{prefix}{entry.name}"
            if entry.is_symlink():
                faults.append(
                    Fault("file-kind", _shown(path), "is a symbolic link; a package holds regular files only")
                )
            elif entry.is_dir(follow_symlinks=False):
                stack.append(f"{path}/")
            elif entry.is_file(follow_symlinks=False):
                sizes[path] = entry.stat(follow_symlinks=False).st_size
            else:
                faults.append(Fault("file-kind", _shown(path), "is not a regular file"))
    return sizes, faults


def _shown(name: str) -> str:
    """Return a file's name as text that can be printed; bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def verify(root: Path, files: Sequence[FileEntry], kept: dict[str, bytes | memoryview] | None = None) -> list[Fault]:
    """Return everything in which the directory differs from ``files``: kinds, missing, extra, sizes, digests.

    ``kept`` is given the bytes of the payload's files, by path, as they were when their digests were right.
    """
    sizes, faults = scan(root)
    for path in sorted(sizes.keys() - {entry.path for entry in files} - UNLISTED):
        faults.append(Fault("file-unexpected", _shown(path), "is in the package but not listed in its manifest"))
    strange = {fault.path for fault in faults}
    to_hash: list[FileEntry] = []
    for entry in files:
        if entry.path in sizes:
            if sizes[entry.path] == entry.size:
                to_hash.append(entry)
            else:
                message = f"is {sizes[entry.path]} bytes, not {entry.size}"
                faults.append(Fault("size-mismatch", entry.path, message))
        elif entry.path not in strange:
            faults.append(Fault("file-missing", entry.path, "is listed in the manifest but not there"))
    faults.extend(fault for fault in _hash_all(root, to_hash, kept) if fault)
    return sorted(faults, key=lambda fault: fault.path)


def _hash_all(
    root: Path, entries: Sequence[FileEntry], kept: dict[str, bytes | memoryview] | None
) -> Iterable[Fault | None]:
    """Check digests in parallel: hashlib lets other threads run."""
    total = sum(entry.size for entry in entries if entry.role == "payload")
    keep = kept if total <= MAX_KEPT else None
    workers = min(len(entries), os.cpu_count() or 1, 8)
    if workers < 2:
        return [_hash_fault(root, entry, keep) for entry in entries]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda entry: _hash_fault(root, entry, keep), entries))


def _hash_fault(root: Path, entry: FileEntry, kept: dict[str, bytes | memoryview] | None) -> Fault | None:
    try:
        if kept is not None and entry.role == "payload":
            kept[entry.path] = VerifiedFiles(root, [entry]).view(entry.path)
            return None
        digest, _ = hash_file(root / entry.path)
    except IntegrityError as exc:
        changed = exc.code == "digest-mismatch"
        return Fault(exc.code, entry.path, _DIFFERS if changed else exc.message)
    except FileNotFoundError:
        return Fault("file-missing", entry.path, "was removed while the package was read")
    if digest != entry.digest:
        return Fault("digest-mismatch", entry.path, _DIFFERS)
    return None


class VerifiedFiles:
    """The files of a package, or of one payload of it, read so that what is used is what was verified.

    Every read hashes the very bytes it returns; a file swapped after ``open`` is refused, whatever it is now.
    ``prefix`` is the directory that the paths given to :meth:`read` are relative to. ``kept`` holds bytes that have
    been verified already, by path in the package; these are not read again, and others are added.
    """

    def __init__(
        self,
        root: Path,
        entries: Iterable[FileEntry],
        prefix: str = "",
        kept: dict[str, bytes | memoryview] | None = None,
    ) -> None:
        self._kept = kept
        self._root = root
        self._prefix = prefix
        self._entries: Mapping[str, FileEntry] = {entry.path.removeprefix(prefix): entry for entry in entries}
        self._directory: Path | None = None

    def paths(self) -> Sequence[str]:
        """Return the paths, relative to the prefix, sorted."""
        return sorted(self._entries)

    def size(self, path: str) -> int:
        """Return the size of a file in bytes, as listed."""
        return self._entry(path).size

    def read(self, path: str) -> bytes:
        """Return the file's bytes.

        Raises:
            IntegrityError: ``file-missing``, ``file-kind``, ``size-mismatch`` or ``digest-mismatch``.
        """
        raw = self.view(path)
        if isinstance(raw, memoryview):
            raw = bytes(raw)
            if self._kept is not None:
                self._kept[self._entry(path).path] = raw
        return raw

    def view(self, path: str) -> bytes | memoryview:
        """Return the file's bytes; a large file's as a read-only view of the memory it was read into, never copied.

        Raises:
            IntegrityError: as :meth:`read`.
        """
        entry = self._entry(path)
        if self._kept is not None and entry.path in self._kept:
            return self._kept[entry.path]
        try:
            with _open_regular(self._root / entry.path) as fd:
                if os.fstat(fd).st_size != entry.size:
                    raise IntegrityError("the file changed since", code="size-mismatch", path=entry.path)
                raw, digest = _read_hashed(fd, entry.size)
        except FileNotFoundError:
            raise IntegrityError("the file is gone", code="file-missing", path=entry.path) from None
        if len(raw) != entry.size:
            raise IntegrityError("the file changed since", code="size-mismatch", path=entry.path)
        if f"sha256:{digest}" != entry.digest:
            raise IntegrityError("the file changed since", code="digest-mismatch", path=entry.path)
        if self._kept is not None:
            self._kept[entry.path] = raw
        return raw

    def directory(self) -> Path:
        """Return a private directory with verified copies of all files, removed when this object goes."""
        if self._directory is None:
            target = Path(tempfile.mkdtemp(prefix="modelpack-"))
            weakref.finalize(self, shutil.rmtree, target, ignore_errors=True)
            self.copy_to(target)
            self._directory = target
        return self._directory

    def copy_to(self, target: Path) -> None:
        """Write verified copies of all files into a directory.

        Raises:
            IntegrityError: as :meth:`read`.
        """
        for path in self.paths():
            copy = target / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(self.view(path))

    def _entry(self, path: str) -> FileEntry:
        if path not in self._entries:
            raise IntegrityError("no such file in the package", code="file-missing", path=self._prefix + path)
        return self._entries[path]
