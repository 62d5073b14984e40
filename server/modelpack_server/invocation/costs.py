"""What calls of the model take, as measured all the time: what can be done at once, and how much is worth gathering."""

from __future__ import annotations

import math

__all__ = ["Costs"]

# Gathering more is of no use once a call takes this long, or twice as long as a call takes at least.
CALL_SECONDS = 0.1
# How much less than its rows say a call of a size that was never tried is hoped to take.
EAGER = 8.0
# What is left each time of a measurement that forbids to gather more.
FORGETTING = 0.999
# What is worth gathering is worked out after each call that takes longer than this, and else after so many.
SLOW_SECONDS, SELDOM = 0.005, 16
# How much the newest measurement counts.
WEIGHT = 0.3


class Costs:
    """How long a call of the model takes, by its number of rows: one running mean for each power of two."""

    def __init__(self) -> None:
        self._means: dict[int, float] = {}
        self._unknown = 0.0
        self._room = 0
        self._count = 0
        self._stale = True
        # The seconds that a call should take at most, unless one request takes longer.
        self.longest = CALL_SECONDS
        # The seconds that one row takes in a large call; 0 as long as nothing is known.
        self.per_row = 0.0

    def worthwhile(self, most: int) -> int:
        """Return how many rows are gathered at most, so that a call takes no longer than it should."""
        if not self._means:
            return most
        if self._stale:
            self._look(most)
        return self._room

    def _look(self, most: int) -> None:
        self._stale = False
        size = 1
        self.longest = max(CALL_SECONDS, 2 * min(self._means.values()))
        while 2**size <= most and self._hoped(size + 1) <= self.longest:
            size += 1
        if size + 1 in self._means and 2**size <= most:
            # It was measured once, maybe on a bad day: some time it is tried again.
            self._means[size + 1] *= FORGETTING
        self._room = min(most, 2**size - 1)
        self.per_row = self._hoped(self._room.bit_length()) / self._room

    def _hoped(self, size: int) -> float:
        """Return the seconds a call may take; of a size that was never tried, that it gains by being large."""
        known = self._means.get(size)
        return known if known is not None else self.expected(2**size - 1) / EAGER

    def add(self, rows: int, seconds: float) -> None:
        """Take a measurement in; one of unknown rows (0) says nothing."""
        if not rows:
            self._unknown += (WEIGHT if self._unknown else 1.0) * (seconds - self._unknown)
            return
        size = rows.bit_length()
        mean = self._means.get(size)
        self._means[size] = seconds if mean is None else mean + WEIGHT * (seconds - mean)
        # Of quick calls there are thousands a second, and not each of them is news.
        self._count += 1
        self._stale = self._stale or mean is None or seconds > SLOW_SECONDS or not self._count % SELDOM

    def alone(self, rows: int) -> float:
        """Return the seconds a call with so many rows has taken; of unknown rows (0), what such calls have taken."""
        return self._unknown if not rows else self.expected(rows) if self._means else 0.0

    def expected(self, rows: int) -> float:
        """Return the seconds a call with so many rows may take; infinity as long as nothing is known."""
        size = rows.bit_length()
        if not rows:
            return math.inf
        known = self._means.get(size)
        if known is not None:
            return known
        smaller = max((other for other in self._means if other < size), default=None)
        if smaller is not None:
            return float(self._means[smaller] * 2 ** (size - smaller))
        return min(self._means.values(), default=math.inf)
