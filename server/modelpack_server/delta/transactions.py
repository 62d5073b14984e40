"""Where applications are in a Delta table: looked up once, and then kept up with the commits that follow.

delta-rs reads all commits behind the last checkpoint for each question, which behind a URL is a request each.
"""

from __future__ import annotations

from typing import Any

from modelpack.errors import InputError
from modelpack_server.delta.log import read_commit
from modelpack_server.delta.storage import Root
from modelpack_server.delta.tables import reading

__all__ = ["Transactions"]


class Transactions:
    """What is known of the application transactions of one table at one version."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._version: int | None = None
        self._known: dict[str, int | None] = {}

    def forget(self) -> None:
        """Know nothing, as of another table."""
        self._version, self._known = None, {}

    def of(self, table: Any, name: str) -> int | None:
        """Return where an application is in an open table, in just its version; None if it was never there."""
        self._keep_up(table.version())
        if name not in self._known:
            with reading(self._root):
                self._known[name] = table.transaction_version(name)
        return self._known[name]

    def _keep_up(self, version: int) -> None:
        if self._version is None or self._version > version:
            self.forget()
            self._version = version
            # What the newest commit moved is there, and mostly it is our own.
            self._known.update(self._moved(version) or {})
        while self._version < version:
            moved = self._moved(self._version + 1)
            if moved is None:
                self._known = {}
                self._version = version
                return
            self._known.update(moved)
            self._version += 1

    def _moved(self, version: int) -> dict[str, int | None] | None:
        """Return what a commit has moved; None if that cannot be told."""
        try:
            commit = read_commit(self._root, version)
        except InputError:
            return None
        return None if commit is None else dict(commit.transactions)
