"""How far a run is: a bar on a terminal, a line now and then elsewhere; or nothing at all."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import tqdm

from modelpack_server.batch.inputs import Source

__all__ = ["Bar", "Lines", "Progress", "Silent", "start"]

# Seconds between lines.
_EVERY = 30.0


class Progress(Protocol):
    """Is told what has been done."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """End."""

    def update(self, source: Source, position: int, rows: int) -> None:
        """``rows`` more rows are done, ``position`` bytes of ``source`` are behind us."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, source: Source, position: int, rows: int) -> None:
        """Show nothing."""


class _Count:
    """Rows and bytes of the input that are done; ``known``: how many bytes it has, 0 if that cannot be told."""

    def __init__(self, sources: Sequence[Source]) -> None:
        sizes = [source.size for source in sources]
        self.known = sum(size or 0 for size in sizes) if None not in sizes else 0
        self.rows = 0
        self._source: Source | None = None
        self._before = self._position = 0
        self._started = time.monotonic()

    @property
    def bytes(self) -> int:
        return self._before + self._position

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.rows / self.seconds:,.0f} rows/s"

    def add(self, source: Source, position: int, rows: int) -> None:
        if source is not self._source:
            self._before += (self._source.size or 0) if self._source else 0
            self._source, self._position = source, 0
        self.rows += rows
        self._position = max(position, self._position)


class Bar:
    """Shows a bar on stderr, filled by bytes of the input, since rows are not known beforehand."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._count = _Count(sources)
        known = self._count.known
        shape = "{percentage:3.0f}% |{bar}| {desc} [{elapsed}<{remaining}]" if known else "{desc} [{elapsed}]"
        self._bar = tqdm.tqdm(total=known or None, bar_format=shape, dynamic_ncols=True, leave=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._bar.total:
            self._bar.n = self._bar.total
        self._bar.refresh()
        self._bar.close()

    def update(self, source: Source, position: int, rows: int) -> None:
        """Move the bar."""
        self._count.add(source, position, rows)
        self._bar.set_description_str(str(self._count), refresh=False)
        self._bar.update(self._count.bytes - self._bar.n)


class Lines(Silent):
    """Writes a line to stderr every half a minute."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._count = _Count(sources)
        self._next = _EVERY

    def update(self, source: Source, position: int, rows: int) -> None:
        """Write a line, if it is time for one."""
        count = self._count
        count.add(source, position, rows)
        if (seconds := count.seconds) < self._next:
            return
        self._next = seconds + _EVERY
        share = count.bytes / count.known if count.known else 0
        left = f", {tqdm.tqdm.format_interval(seconds / share - seconds)} left" if share else ""
        done = f", {share:.0%} of the input{left}" if count.known else ""
        tqdm.tqdm.write(f"modelpack: {count}{done}", file=sys.stderr)


def start(sources: Sequence[Source], *, show: bool) -> Progress:
    """Return a bar or lines if they are wanted, as stderr is a terminal or not; else what shows nothing."""
    if not show:
        return Silent()
    return Bar(sources) if sys.stderr.isatty() else Lines(sources)
