"""What became of the rows that an application brought into a Delta table, as the commits behind its own tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from modelpack.errors import InputError, UsageError
from modelpack_server.delta.log import Commit, data_path, read_commit
from modelpack_server.delta.storage import Root
from modelpack_server.delta.tables import open_table, reading

__all__ = ["is_replaced", "is_untouched"]

# What changes some rows and means them.
_BY_ROW = frozenset({"DELETE", "UPDATE", "MERGE", "TRUNCATE"})


def is_replaced(table: Any, root: Root, name: str) -> bool:
    """Say whether the whole table was replaced since the last commit that moved this transaction, or set back.

    Rows that were deleted or updated are no replacement. What a log that was cleaned does not tell has not happened.
    """
    return any(commit is not None and _replaces(commit, root) for commit in _since(table, root, name))


def is_untouched(table: Any, root: Root, name: str) -> bool:
    """Say whether rows were only added, and files compacted, since the last commit that moved this transaction.

    It is not known, and so denied, if the log was cleaned up to there.
    """
    return all(commit is not None and not commit.removed and not _overwrites(commit)
               for commit in _since(table, root, name))  # fmt: skip


def _since(table: Any, root: Root, name: str) -> Iterator[Commit | None]:
    """Yield the commits behind the one that moved a transaction, the newest first; None where the log was cleaned.

    What RESTORE made undone is left out. One that undid the commit itself is the last.
    """
    version = table.version()
    while (commit := read_commit(root, version)) is not None:
        if name in commit.transactions:
            return
        back = _back(commit)
        if back is None or back >= version:
            yield commit
            version -= 1
        elif _is_at(root, back, name):
            version = back
        else:
            yield commit
            return
    yield None


def _is_at(root: Root, version: int, name: str) -> bool:
    """Say whether a transaction was there at a version; a version that cannot be had any more is taken for a newer."""
    table = _at(root, version)
    with reading(root):
        return table is None or table.transaction_version(name) is not None


def _overwrites(commit: Commit) -> bool:
    narrow = commit.parameters.get("predicate") not in (None, "", "[]", "null")
    return commit.operation == "WRITE" and str(commit.parameters.get("mode")).lower() == "overwrite" and not narrow


def _replaces(commit: Commit, root: Root) -> bool:
    # Of those that set the table back to a version only that is looked at which undid the rows.
    if _overwrites(commit) or _back(commit) is not None:
        return True
    if commit.operation in {*_BY_ROW, "WRITE"} or not commit.removed:
        return False
    # Something else, or of somebody who does not say what: it replaces the table if it has left no file of it.
    before = _at(root, commit.version - 1)
    files = [] if before is None else pa.table(before.get_add_actions())["path"].to_pylist()
    return bool(files) and {data_path(path, root) for path in files} <= set(commit.removed)


def _at(root: Root, version: int) -> Any | None:
    try:
        return open_table(root, version)
    except (InputError, UsageError):
        return None


def _back(commit: Commit) -> int | None:
    """Return the version that a commit has set the table back to, where it says one."""
    text = str(commit.parameters.get("version"))
    return int(text) if commit.operation == "RESTORE" and text.isdecimal() else None
