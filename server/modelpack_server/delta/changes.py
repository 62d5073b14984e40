"""What one version of a Delta table did to its rows: those that are no more, and those that are there now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelpack.errors import InputError, UsageError
from modelpack_server.delta.log import Add, Commit, Shape
from modelpack_server.delta.snapshots import files_of, shape_of
from modelpack_server.delta.storage import Root
from modelpack_server.delta.tables import open_table

__all__ = ["ENABLE", "changes", "has_feed"]

ENABLE = "delta.enableChangeDataFeed"


def has_feed(configuration: Mapping[str, str]) -> bool:
    """Say whether a table with these properties writes a change data feed."""
    return configuration.get(ENABLE, "false").lower() == "true"


def changes(root: Root, commit: Commit, later: Shape) -> Sequence[Add]:
    """Return the rows that a commit took away or replaced (``old``), then those that it added.

    Columns have the names that they have in ``later``.

    As the protocol has it: the files of the change data feed tell all there is to tell. Where a commit has none, all
    rows of the files it removed went and all rows of the files it added came; of a file that is in both, because its
    deletion vector changed, those in which the two differ.

    Raises:
        InputError: what was removed is not known any more (``source-gap``).
    """
    if commit.changes:
        return [*(replace(add, old=True) for add in commit.changes), *commit.changes]
    if not commit.removed:
        return vectors(root, commit.version, commit.adds)
    before = _files(root, commit.version - 1, set(commit.removed), later)
    after = {add.path: add for add in vectors(root, commit.version, commit.adds)}
    gone, come = [], []
    for path, add in sorted(before.items()):
        new = after.pop(path, None)
        if new is None:
            gone.append(replace(add, old=True))
            continue
        was, now = _both(add, new)
        if (was & ~now).any():
            gone.append(replace(add, alive=was & ~now, old=True))
        if (now & ~was).any():
            come.append(replace(new, alive=now & ~was))
    return [*gone, *come, *after.values()]


def vectors(root: Root, version: int, adds: Sequence[Add]) -> Sequence[Add]:
    """Return files that a version added, those with a deletion vector with what it leaves alive."""
    marked = {add.path for add in adds if add.has_vector}
    if not marked:
        return adds
    known = _files(root, version, marked)
    return [replace(add, alive=known[add.path].alive) if add.path in marked else add for add in adds]


def _both(was: Add, now: Add) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return which rows of one file were alive and which are; where nothing says so, all."""
    size = max(0 if add.alive is None else len(add.alive) for add in (was, now))
    old, new = np.ones(size, dtype=bool), np.ones(size, dtype=bool)
    for whole, add in ((old, was), (new, now)):
        if add.alive is not None:
            whole[: len(add.alive)] = add.alive
    return old, new


def _files(root: Root, version: int, paths: set[str], later: Shape | None = None) -> Mapping[str, Add]:
    """Return those files, as the table had them at a version."""
    try:
        table = open_table(root, version)
    except (InputError, UsageError) as exc:
        if exc.code not in ("table-unreadable", "table-missing"):
            raise
        raise InputError(
            f"the log does not reach back to version {version}, which had files that were rewritten behind it",
            code="source-gap",
            path=str(root),
            hint="What was deleted cannot be had any more. Begin anew with another output.",
        ) from exc
    shape = shape_of(table, root)
    return {add.path: add.seen_later(shape, later or shape) for add in files_of(table, root) if add.path in paths}
