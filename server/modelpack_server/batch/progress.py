"""A bar on the terminal: rows, rows a second, how much of the input is done; or nothing at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import tqdm

from modelpack_server.batch.inputs import Source

__all__ = ["Bar", "Progress", "Silent", "start"]


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


class Bar:
    """Shows a bar on stderr, filled by bytes of the input, since rows are not known beforehand."""

    def __init__(self, sources: Sequence[Source]) -> None:
        sizes = [source.size for source in sources]
        known = sum(size or 0 for size in sizes) if None not in sizes else 0
        shape = "{percentage:3.0f}% |{bar}| {desc} [{elapsed}<{remaining}]" if known else "{desc} [{elapsed}]"
        self._bar = tqdm.tqdm(total=known or None, bar_format=shape, dynamic_ncols=True, leave=True)
        self._source: Source | None = None
        self._before = self._position = self._rows = 0
        self._started = time.monotonic()

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
        if source is not self._source:
            self._before += (self._source.size or 0) if self._source else 0
            self._source, self._position = source, 0
        self._rows += rows
        self._position = max(position, self._position)
        rate = self._rows / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_description_str(f"{self._rows:,} rows, {rate:,.0f} rows/s", refresh=False)
        self._bar.update(self._before + self._position - self._bar.n)


def start(sources: Sequence[Source], *, show: bool) -> Progress:
    """Return a bar if it is wanted, else what shows nothing."""
    return Bar(sources) if show else Silent()
