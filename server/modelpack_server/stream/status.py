"""How far a stream is, and what is still before it: told by its tables, whether it runs or not."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from modelpack_server.delta import position, rows
from modelpack_server.delta.commit import Target
from modelpack_server.delta.log import Add, look
from modelpack_server.delta.position import fingerprint
from modelpack_server.delta.storage import Root, root_of
from modelpack_server.stream.follow import Follower, Work
from modelpack_server.stream.options import Options
from modelpack_server.stream.upsert import key_mark, same_key

__all__ = ["Status", "status"]

_ALL = 2**62


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A stream as its tables show it.

    ``scored``: the last version of the source of which every row is scored (None: the stream is new). ``version`` and
    ``index`` say where it goes on. ``versions``, ``files`` and ``rows`` are before it, of what
    was updated the rows as they became; ``lag`` is how many seconds ago the first of them were added. ``package``:
    whether the output was made with this one (None: by none yet).
    """

    source_version: int
    output_version: int | None
    scored: int | None
    version: int
    index: int
    versions: int
    files: int
    rows: int
    lag: float
    package: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON data."""
        return {
            "source": {"version": self.source_version},
            "output": {"version": self.output_version},
            "position": {"scored": self.scored, "version": self.version, "file": self.index},
            "backlog": {"versions": self.versions, "files": self.files, "rows": self.rows},
            "lag_seconds": round(self.lag, 3),
            "same_package": self.package,
        }


def status(digest: str, source: str | Path, output: str | Path, options: Options) -> Status:
    """Return how far the stream of the package with this digest is; what would stop it with these options is raised.

    Raises:
        UsageError: there is no source table, another job follows rows by their key in the output (``output-keyed``), or
            the output was made with another key (``key-changed``).
        InputError: the source is not what it was, as in :func:`modelpack_server.stream.run`.
    """
    follower = Follower(root_of(source), replace(options, max_rows=_ALL))
    target = Target(root_of(output), family="stream")
    table = target.open()
    mark = None
    key = key_mark(options.key)
    if table is not None:
        mark = position.read(partial(target.moved, table), options.job)
        position.shared(partial(target.moved, table), options.job, keyed=key is not None)
    if mark is not None:
        follower.belongs(mark.source, root_of(output))
        same_key(mark.key, key, target.root)
        follower.check(mark.position, mark.seal)
    begin = mark.position if mark is not None else follower.first()
    work = follower.gather(begin)
    if work.end != begin:
        follower.gather(work.end)  # what would stop it behind these rows
    return Status(
        source_version=follower.latest,
        output_version=None if table is None else table.version(),
        scored=None if mark is None else begin.version - 1,
        version=begin.version,
        index=begin.index,
        versions=max(0, follower.latest + 1 - begin.version),
        files=len({piece.add.path for piece in work.pieces}),
        rows=sum(_rows(follower, piece.add, options) for piece in work.pieces),
        lag=_lag(follower.root, work),
        package=None if mark is None else mark.package == fingerprint(digest),
    )


def _rows(follower: Follower, add: Add, options: Options) -> int:
    try:
        return rows.count_new(follower.root, add)
    except FileNotFoundError:
        if options.on_gap == "skip":
            return 0
        raise follower.missing(add) from None


def _lag(root: Root, work: Work) -> float:
    """Return the age of the first commit whose rows are not scored."""
    if not work.pieces:
        return 0.0
    found = look(root, work.pieces[0].place.version)
    return 0.0 if found is None else max(0.0, time.time() - found.modified)
