"""A Delta table as it was at a version or at a time."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack.errors import InputError, UsageError
from modelpack_server.delta.log import versions
from modelpack_server.delta.snapshots import Snapshot, files_of, shape_of
from modelpack_server.delta.storage import Root
from modelpack_server.delta.tables import LOG, open_table, reading

__all__ = ["NOW", "When", "is_table", "snapshot_at"]


@dataclass(frozen=True, kw_only=True, slots=True)
class When:
    """A version, or the last one committed at a time or before; neither: the newest."""

    version: int | None = None
    time: dt.datetime | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.time is not None:
            raise UsageError("a version and a time are two ways to say the same", code="table-version", path="at_time")
        if self.time is not None and self.time.tzinfo is None:
            raise UsageError("a time needs its zone", code="table-version", path="at_time", hint="End it with Z.")


NOW = When()


def is_table(path: Path) -> bool:
    """Say whether a directory is a Delta table."""
    return (path / LOG).is_dir()


def snapshot_at(root: Root, when: When = NOW) -> Snapshot:
    """Return the table as it was then, its files in the order of their paths.

    Raises:
        UsageError: there is no table, or it had no such version (``table-version``).
        InputError: it cannot be read (``table-unreadable``, ``table-unsupported``).
    """
    table = open_table(root)
    version = when.version if when.time is None else _version_at(table, root, when.time)
    newest = table.version()
    if version is not None and version > newest:
        raise UsageError(f"{root} has no version {version}: the newest is {newest}", code="table-version")
    if version is not None and version != newest:
        table = _older(root, version)
    return Snapshot(version=table.version(), shape=shape_of(table, root), adds=files_of(table, root))


def _older(root: Root, version: int) -> Any:
    try:
        return open_table(root, version)
    except InputError as exc:
        message = f"version {version} cannot be read: {exc.message}"
        hint = "Its part of the log may have been cleaned up; choose a newer one."
        raise InputError(message, code=exc.code, path=str(root), hint=hint) from exc


def _version_at(table: Any, root: Root, time: dt.datetime) -> int:
    """Return the last version up to a time, by what the commits say: times of files change when they are copied."""
    with reading(root):
        entries = table.history()
    newest = table.version()
    # delta-rs gives numbers to the commits that say something of themselves, from the newest down: a silent one between
    # them would put all before it one too high.
    if len(entries) != sum(number <= newest for number in versions(root)):
        message = "has commits that do not say their time, or lacks the first ones of its log"
        raise InputError(message, code="table-unreadable", path=str(root), hint="Choose by version.")
    known = {}
    for entry in entries:
        stamp = entry.get("inCommitTimestamp") or entry.get("timestamp")
        if stamp is None:
            message = f"the commit of version {entry['version']} does not say its time"
            raise InputError(message, code="table-unreadable", path=str(root), hint="Choose by version.")
        known[int(entry["version"])] = dt.datetime.fromtimestamp(int(stamp) / 1000, dt.UTC)
    found = [version for version, stamp in known.items() if stamp <= time]
    if not found:
        first = min(known)
        message = f"{root} is known since {known[first].isoformat()} (version {first}), which is later than that"
        raise UsageError(message, code="table-version", hint="Choose a later time.")
    return max(found)
