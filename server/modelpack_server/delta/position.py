"""How far a stream has come: kept in its output table, in the same commits as the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelpack.errors import UsageError

__all__ = ["NO_SNAPSHOT", "UNSEALED", "Mark", "Moved", "Position", "fingerprint", "read", "shared", "written"]

NO_SNAPSHOT = -1
UNSEALED = 0

# Tells where an application is in a table; None: it was never there.
Moved = Callable[[str], int | None]

# Which job has written to an output, and which follows rows by their key in it.
_WRITER = "modelpack/stream-writer"
_KEYED = "modelpack/stream-keyed"
_SEVERAL = 0


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Position:
    """The next file to score: number ``index`` of the source's version ``version``.

    The version ``base`` stands for all files the table had then (:data:`NO_SNAPSHOT`: none does), any other for those
    its commit added.
    """

    version: int
    index: int = 0
    base: int = NO_SNAPSHOT

    @property
    def last(self) -> int:
        """The version that was read last, whole or up to a file."""
        return self.version if self.index else self.version - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A position, and fingerprints of the table it is in and of the package that scored up to there.

    ``key``: a fingerprint of the columns that tell the rows of the output apart (None: rows are only added). ``seal``:
    that of the last commit of the source that was read, ``position.last`` (:data:`UNSEALED`: it is not known).
    """

    position: Position
    source: int
    package: int
    key: int | None = None
    seal: int = UNSEALED


def fingerprint(text: str | bytes) -> int:
    """Return a number for a text: a transaction of Delta holds a name and a 64-bit integer, and nothing else."""
    raw = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big") >> 1


def written(job: str, mark: Mark) -> Mapping[str, int]:
    """Return the application transactions that hold a mark."""
    position = mark.position
    key = {} if mark.key is None else {f"{_prefix(job)}/key": mark.key}
    return {
        f"{_prefix(job)}/base": position.base,
        f"{_prefix(job)}/version": position.version,
        f"{_prefix(job)}/index": position.index,
        f"{_prefix(job)}/source": mark.source,
        f"{_prefix(job)}/package": mark.package,
        f"{_prefix(job)}/seal": mark.seal,
        **key,
    }


def read(moved: Moved, job: str) -> Mark | None:
    """Return the mark in a table; None before the first commit of the job."""
    found = [moved(f"{_prefix(job)}/{name}") for name in ("base", "version", "index", "source", "package")]
    base, version, index, source, package = found
    if base is None or version is None or index is None or source is None or package is None:
        return None
    key, seal = (moved(f"{_prefix(job)}/{name}") for name in ("key", "seal"))
    place = Position(version=version, index=index, base=base)
    return Mark(position=place, source=source, package=package, key=key, seal=seal or UNSEALED)


def shared(moved: Moved, job: str, *, keyed: bool) -> Mapping[str, int]:
    """Return the application transactions that say who writes to a table, if a job begins or changes to.

    They are moved by whoever comes first, so of two that begin at once only one commit is taken.

    Raises:
        UsageError: another job writes to the table, and one of the two follows rows by their key (``output-keyed``).
    """
    me = fingerprint(job)
    writer, owner = (moved(name) for name in (_WRITER, _KEYED))
    if (owner is not None and owner != me) or (owner is None and keyed and writer not in (None, me)):
        message = f"another job adds rows to this output, which the job {job!r} would replace or remove"
        if owner is not None:
            message = f"another job follows rows by their key in this output, and would remove those of the job {job!r}"
        raise UsageError(message, code="output-keyed", path="--to", hint="Give each job an output of its own.")
    found = {} if writer in (me, _SEVERAL) else {_WRITER: me if writer is None else _SEVERAL}
    return {**found, _KEYED: me} if keyed and owner is None else found


def _prefix(job: str) -> str:
    return f"modelpack/stream/{job}"
