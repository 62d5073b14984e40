"""What calls of the model take, as measured all the time: what can be done at once, and how much is worth gathering."""

from __future__ import annotations

import math

__all__ = ["Costs"]

# Gathering more is of no use once a call takes this long, or twice as long as a call takes at least.
CALL_SECONDS = 0.1
# Rows are gathered up to here whether or not that makes each of them cheaper: so short a call keeps nobody waiting.
SHORT_SECONDS = 0.05
# Calls whose rows cost so much more than in the best call are as good as it, if they are shorter; and those of the size
# of now, so that no noise of the clock makes them longer.
ALIKE, STILL_ALIKE = 1.1, 1.2
# How many powers of two beyond what was ever measured a call may go.
STEP = 3
# What is left each time of a measurement that forbids to gather more, if it is so much more than smaller calls promise.
FORGETTING, DOUBTFUL = 0.999, 1.25
# What is worth gathering is worked out after each call that takes longer than this, and else after so many.
SLOW_SECONDS, SELDOM = 0.005, 16
# How much the newest measurement counts, and how much where sizes are compared.
WEIGHT, STEADY = 0.3, 0.1


class _Mean:
    """How long calls of about one size took, and of how many rows they were."""

    __slots__ = ("rows", "seconds", "thought")

    def __init__(self, rows: float, seconds: float) -> None:
        self.rows = rows
        self.seconds = seconds
        # The seconds as they are believed when sizes are compared: steadier, and a bad day is forgotten.
        self.thought = seconds

    def add(self, rows: int, seconds: float) -> None:
        self.rows += WEIGHT * (rows - self.rows)
        self.seconds += WEIGHT * (seconds - self.seconds)
        self.thought += STEADY * (seconds - self.thought)


class Costs:
    """How long a call of the model takes, by its number of rows: one running mean for each power of two."""

    def __init__(self) -> None:
        self._means: dict[int, _Mean] = {}
        self._unknown = 0.0
        self._room = 0
        self._size = 0
        self._count = 0
        self._stale = True
        # The seconds that a call should take at most, unless one request takes longer.
        self.longest = CALL_SECONDS
        # The seconds that a call takes which gathers as much as is worth it, and those that one row takes in it; 0 as
        # long as nothing is known.
        self.call = 0.0
        self.per_row = 0.0

    def worthwhile(self, most: int) -> int:
        """Return how many rows are gathered at most: so that a call takes no longer than it should, nor longer than
        makes its rows cheaper."""
        if not self._means:
            return most
        if self._stale:
            self._look(most)
        return self._room

    def _look(self, most: int) -> None:
        self._stale = False
        self.longest = max(CALL_SECONDS, 2 * min(mean.seconds for mean in self._means.values()))
        reach = 1
        while 2**reach <= most and self._hoped(reach + 1) <= self.longest:
            reach += 1
        self._size = size = self._enough(reach)
        for larger in range(size + 1, reach + 2):
            self._forget(larger)
        self._room = min(most, 2**size - 1)
        known = self._means.get(size)
        # What waits is weighed by what was measured, whatever is hoped of trying a size again.
        self.call = known.seconds if known else self._promised(size)
        self.per_row = self.call / (known.rows if known else self._room)

    def _enough(self, reach: int) -> int:
        """Return the smallest size up to this one whose rows cost no more than in the best of them."""
        known = [size for size in sorted(self._means) if size <= reach]
        if not known or reach not in self._means:
            return reach
        each = {size: self._means[size].thought / self._means[size].rows for size in known}
        best = min(each.values())
        size = next(size for size in known if each[size] <= ALIKE * best)
        if each.get(self._size, math.inf) <= STILL_ALIKE * best:
            size = min(size, self._size)
        while size < reach and self._hoped(size + 1) <= SHORT_SECONDS:
            size += 1
        return size

    def _hoped(self, size: int) -> float:
        """Return the seconds a call of this size is believed to take; infinity for one far beyond what was measured."""
        known = self._means.get(size)
        if known is not None:
            return known.thought
        larger = min((other for other in self._means if other > size), default=None)
        if larger is not None:
            return min(self._promised(size), self._means[larger].thought)
        return self._promised(size) if size <= max(self._means) + STEP else math.inf

    def _promised(self, size: int) -> float:
        """Return the seconds a call of this size takes if it goes on as the two sizes below say."""
        below = sorted(other for other in self._means if other < size)
        if not below:
            return min(mean.seconds for mean in self._means.values())
        last = self._means[below[-1]]
        power = 0.0
        if len(below) > 1:
            before = self._means[below[-2]]
            if last.seconds > before.seconds > 0:
                power = min(1.0, math.log(last.seconds / before.seconds) / math.log(last.rows / before.rows))
        known = self._means.get(size)
        rows = known.rows if known else 2**size - 1
        return float(last.seconds * (rows / last.rows) ** power)

    def _forget(self, size: int) -> None:
        """Believe a little less that calls of this size are slower than smaller ones promise: it may have been a bad
        day, and some time one is tried again."""
        known = self._means.get(size)
        if known is not None and known.thought > (likely := DOUBTFUL * self._promised(size)):
            known.thought = max(likely, known.thought * FORGETTING)

    def add(self, rows: int, seconds: float) -> None:
        """Take a measurement in; one of unknown rows (0) says nothing."""
        if not rows:
            self._unknown += (WEIGHT if self._unknown else 1.0) * (seconds - self._unknown)
            return
        size = rows.bit_length()
        mean = self._means.get(size)
        if mean is None:
            self._means[size] = _Mean(rows, seconds)
        else:
            mean.add(rows, seconds)
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
            return known.seconds
        smaller = max((other for other in self._means if other < size), default=None)
        if smaller is not None:
            return self._means[smaller].seconds * 2.0 ** (size - smaller)
        return min((mean.seconds for mean in self._means.values()), default=math.inf)
