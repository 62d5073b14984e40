"""What a stream is told, and what it tells when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from modelpack.errors import UsageError
from modelpack_server.batch.options import BATCH_SIZE, check_rejects

__all__ = ["MAX_ROWS", "Changes", "OnGap", "Options", "Summary", "Waiter"]

MAX_ROWS = 100_000

OnGap = Literal["fail", "skip"]
Changes = Literal["fail", "append", "upsert"]


def _silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to score a table as it grows.

    ``keep``: columns written beside the answers (None: all). ``once``: stop when all that is there is scored.
    ``from_version``: where a new stream begins (None: with all rows there are). ``on_error``: where rows that do not
    fit are written (None: the first one ends the stream), at most ``max_rejects`` of them; for tables another one.
    ``changes``: what becomes of rows that are updated or deleted; ``upsert`` follows them by the columns ``key``.
    ``job``: the name under which the position is kept. ``new_package``: go on although another package scored up to
    here. ``metrics``: the address where Prometheus may ask. ``say``: is told what happens, in a line each.
    ``engine``: scores the files elsewhere (None: here).
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    keep: Sequence[str] | None = None
    once: bool = False
    from_version: int | None = None
    max_rows: int = MAX_ROWS
    interval: float = 1.0
    on_gap: OnGap = "fail"
    changes: Changes = "fail"
    key: Sequence[str] | None = None
    on_error: str | Path | None = None
    max_rejects: int | None = None
    job: str = "default"
    new_package: bool = False
    batch_size: int = BATCH_SIZE
    metrics: tuple[str, int] | None = None
    say: Callable[[str], None] = _silent
    engine: Any = None

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.batch_size < 1:
            raise UsageError("a commit has at least one row", code="batch-size", path="max_rows")
        check_rejects(self.on_error)
        if not self.job or "/" in self.job:
            raise UsageError("a job has a name without '/'", code="job-name", path="job")
        if (self.changes == "upsert") != bool(self.key):
            needs = "--changes upsert needs --key" if self.key is None else "--key needs --changes upsert"
            raise UsageError(needs, code="option-alone", path="--key" if self.key else "--changes")
        if self.key and self.engine is not None:
            message = "the engine spark does not follow rows by their key"
            raise UsageError(message, code="engine-unsupported", path="--changes", hint="Leave out --engine.")
        for name in self.keep or ():
            if list(self.keep or ()).count(name) > 1:
                raise UsageError(f"the column {name!r} is kept twice", code="keep-repeated", path="keep")


@dataclass(kw_only=True, slots=True)
class Summary:
    """What a stream did: ``rows`` scored and committed, ``rejected`` written aside, the source's ``version`` reached.

    ``deleted``: keys that were gone at the end of a commit. ``conflicts``: how often another process was faster with
    the same rows.
    """

    package: str
    rows: int = 0
    rejected: int = 0
    deleted: int = 0
    commits: int = 0
    conflicts: int = 0
    version: int | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON data."""
        return {
            "rows": self.rows,
            "rejected": self.rejected,
            "deleted": self.deleted,
            "commits": self.commits,
            "conflicts": self.conflicts,
            "version": self.version,
            "seconds": round(self.seconds, 3),
            "package": self.package,
        }


class Waiter(Protocol):
    """Waits while there is nothing to do, and says when to stop."""

    @property
    def asked(self) -> bool:
        """Whether the stream shall stop."""

    def wait(self, seconds: float | None, file: int | None = None) -> None:
        """Wait until there is something to read in ``file``, or the stream shall stop, or the time is over."""
