"""Dates, timestamps and durations as exact integers: from text, from Python and numpy objects, and back to text."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack.coerce.faults import Misfit

__all__ = [
    "PER_SECOND",
    "Instant",
    "date_days",
    "date_text",
    "duration_count",
    "duration_from_text",
    "duration_text",
    "interval_text",
    "timestamp_count",
    "timestamp_from_text",
    "timestamp_text",
]

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# numpy's finer units, for values that come as datetime64.
_TICKS = {**PER_SECOND, "ps": 10**12, "fs": 10**15, "as": 10**18}
_SECONDS = {"m": 60, "h": 3600, "D": 86400, "W": 604800}
_LIMIT = 2**63 - 1
_EPOCH = dt.datetime(1970, 1, 1)
# Years beyond four digits carry a sign, as ISO 8601 writes them; RFC 3339 has none.
_DATE = r"(\d{4}|[+-]\d{4,12})-(\d\d)-(\d\d)"
_DAY = re.compile(_DATE, re.ASCII)
_TIME = re.compile(
    _DATE + r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,18}))?)?([Zz]|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)
_DURATION = re.compile(
    r"([+-])?P(?:(\d{1,12})W|(?:(\d{1,15})D)?(?:T(?:(\d{1,15})H)?(?:(\d{1,15})M)?(?:(\d{1,19})(?:\.(\d{1,18}))?S)?)?)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Instant:
    """A numpy datetime64 that is known to be an instant in UTC (numpy itself cannot say so)."""

    value: np.datetime64

    def to_python(self) -> Any:
        """Return an aware datetime, or the datetime64 where that would cut digits or overflow."""
        out = self.value.astype("M8[us]")
        stamp = out.item()
        if out != self.value or not isinstance(stamp, dt.datetime):
            return self.value
        return stamp.replace(tzinfo=dt.UTC)


def _days(year: int, month: int, day: int) -> int:
    """Return days since 1970-01-01 in the proleptic Gregorian calendar, for any year."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def _checked_days(year: str, month: str, day: str) -> int:
    days = _days(int(year), int(month), int(day))
    # A day that does not exist (30 February, month 13) comes back as another one.
    if not 1 <= int(month) <= 12 or int(day) < 1 or _civil(days) != (int(year), int(month), int(day)):
        raise Misfit("timestamp-invalid", "a day that is not in the calendar")
    return days


def _civil(days: int) -> tuple[int, int, int]:
    """Return year, month, day of a day count: the inverse of :func:`_days`."""
    era, of_era = divmod(days + 719468, 146097)
    of_cycle = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * of_cycle + of_cycle // 4 - of_cycle // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return of_cycle + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1


def _scaled(count: int, per_second: int, unit: str, what: str) -> int:
    """Return ``count`` ticks of ``per_second`` as ticks of ``unit``, exactly or not at all."""
    ticks, rest = divmod(count * PER_SECOND[unit], per_second)
    if rest:
        raise Misfit("not-exact", f"a {what} finer than the unit {unit}")
    if not -_LIMIT <= ticks <= _LIMIT:
        raise Misfit("out-of-range", f"a {what} outside the range of the unit {unit}")
    return ticks


def date_days(value: Any, expected: str) -> int:
    """Return the day count of a date, a midnight without zone, or a ``YYYY-MM-DD`` text."""
    if isinstance(value, str):
        match = _DAY.fullmatch(value)
        if match is None:
            raise Misfit("timestamp-invalid", f"text that is not a YYYY-MM-DD date where {expected} is expected")
        return _in_date32(_checked_days(*match.groups()))
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value.toordinal() - 719163
    if isinstance(value, Instant) or (isinstance(value, dt.datetime) and value.tzinfo is not None):
        raise Misfit("type-mismatch", f"a timestamp with a zone where {expected} is expected")
    count, per_second = _ticks(value)
    days, rest = divmod(count, 86400 * per_second)
    if rest:
        raise Misfit("not-exact", f"a timestamp with a time of day where {expected} is expected")
    return _in_date32(days)


def _in_date32(days: int) -> int:
    if not -(2**31) <= days < 2**31:
        raise Misfit("out-of-range", "a date outside the range of date32")
    return days


def _ticks(value: Any) -> tuple[int, int]:
    """Return a datetime, datetime64 or Instant as (count since 1970 in UTC, ticks per second)."""
    if isinstance(value, Instant):
        value = value.value
    if isinstance(value, dt.datetime) and hasattr(value, "to_datetime64"):
        value = value.to_datetime64()  # pandas: the instant in UTC, with all digits
    if isinstance(value, dt.datetime):
        # In this order nothing overflows: a difference may lie beyond the years a datetime can name.
        gap = (value.replace(tzinfo=None) - _EPOCH) - (value.utcoffset() or dt.timedelta())
        return _microseconds(gap), 10**6
    return _numpy_ticks(value.astype("M8[D]") if np.datetime_data(value)[0] in "YM" else value)


def _microseconds(gap: dt.timedelta) -> int:
    return (gap.days * 86400 + gap.seconds) * 10**6 + gap.microseconds


def _numpy_ticks(value: np.datetime64 | np.timedelta64) -> tuple[int, int]:
    unit, step = np.datetime_data(value)
    count = int(value.astype(np.int64)) * step
    if unit in _TICKS:
        return count, _TICKS[unit]
    if unit not in _SECONDS:
        raise Misfit("type-mismatch", "a time difference in years, months or without a unit")
    return count * _SECONDS[unit], 1


def timestamp_count(value: Any, unit: str, tz: str | None, expected: str) -> int:
    """Return a datetime, date, datetime64 or Instant as a count of ``unit`` since 1970."""
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        if tz is not None:
            raise Misfit("type-mismatch", f"a date without a zone where {expected} is expected")
        return _scaled(date_days(value, expected) * 86400, 1, unit, "timestamp")
    aware = isinstance(value, Instant) or (isinstance(value, dt.datetime) and value.utcoffset() is not None)
    if aware != (tz is not None):
        has = "with" if aware else "without"
        raise Misfit("type-mismatch", f"a timestamp {has} a zone where {expected} is expected")
    return _scaled(*_ticks(value), unit, "timestamp")


def timestamp_from_text(text: str, unit: str, tz: str | None, expected: str) -> int:
    """Return the count of ``unit`` since 1970 that an RFC 3339 text stands for.

    With a zone the text must carry an offset; without one it must not, and a date alone is its midnight.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise Misfit("timestamp-invalid", f"text that is not an RFC 3339 time where {expected} is expected")
    hour, minute, second, fraction, offset = match.groups()[3:]
    if (offset is not None) != (tz is not None):
        rule = "needs an offset (Z or +hh:mm)" if tz is not None else "must not have an offset"
        raise Misfit("timestamp-invalid", f"a time that {rule} where {expected} is expected")
    count = _checked_days(*match.groups()[:3]) * 86400
    if hour is not None:
        if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
            raise Misfit("timestamp-invalid", "a time of day that is not on the clock")
        count += int(hour) * 3600 + int(minute) * 60 + int(second or 0) - _offset(offset)
    digits = (fraction or "").rstrip("0")
    per_second: int = 10 ** len(digits)
    return _scaled(count * per_second + int(digits or 0), per_second, unit, "timestamp")


def _offset(text: str | None) -> int:
    if text is None or text in "Zz":
        return 0
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 23 or minutes > 59:
        raise Misfit("timestamp-invalid", "an offset that is not on the clock")
    return (hours * 3600 + minutes * 60) * (-1 if text[0] == "-" else 1)


def duration_count(value: Any, unit: str) -> int:
    """Return a timedelta or timedelta64 as a count of ``unit``."""
    if isinstance(value, dt.timedelta) and hasattr(value, "to_timedelta64"):
        value = value.to_timedelta64()
    if isinstance(value, dt.timedelta):
        return _scaled(_microseconds(value), 10**6, unit, "duration")
    return _scaled(*_numpy_ticks(value), unit, "duration")


def duration_from_text(text: str, unit: str, expected: str) -> int:
    """Return the count of ``unit`` that an ISO 8601 duration such as ``PT1.5S`` stands for."""
    match = _DURATION.fullmatch(text)
    if match is None or text[-1] in "PT":
        raise Misfit("duration-invalid", f"text that is not an ISO 8601 duration where {expected} is expected")
    sign, weeks, days, hours, minutes, seconds, fraction = match.groups()
    whole = int(weeks or 0) * 604800 + int(days or 0) * 86400 + int(hours or 0) * 3600
    whole += int(minutes or 0) * 60 + int(seconds or 0)
    digits = (fraction or "").rstrip("0")
    per_second: int = 10 ** len(digits)
    count = whole * per_second + int(digits or 0)
    return _scaled(-count if sign == "-" else count, per_second, unit, "duration")


def date_text(days: int) -> str:
    """Return ``YYYY-MM-DD`` (``+YYYYY-MM-DD`` beyond the year 9999)."""
    year, month, day = _civil(days)
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    return f"{sign}{abs(year):04d}-{month:02d}-{day:02d}"


def timestamp_text(count: int, unit: str, tz: str | None) -> str:
    """Return the RFC 3339 text of a count; with a zone as UTC (``Z``)."""
    per_second = PER_SECOND[unit]
    seconds, fraction = divmod(count, per_second)
    days, clock = divmod(seconds, 86400)
    text = f"{date_text(days)}T{clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}"
    return text + _fraction(fraction, per_second) + ("" if tz is None else "Z")


def duration_text(count: int, unit: str) -> str:
    """Return the ISO 8601 text of a count, in seconds: ``PT1.5S``."""
    seconds, fraction = divmod(abs(count), PER_SECOND[unit])
    return f"{'-' if count < 0 else ''}PT{seconds}{_fraction(fraction, PER_SECOND[unit])}S"


def interval_text(months: int, days: int, nanoseconds: int) -> str:
    """Return the ISO 8601 text of an interval, with a sign before each part that is negative: ``P1M-2DT1.5S``."""
    time = duration_text(abs(nanoseconds), "ns").removeprefix("P")
    parts = f"{months}M" if months else "", f"{days}D" if days else ""
    text = "".join(parts) + (time if nanoseconds >= 0 else f"T-{time.removeprefix('T')}")
    return "P" + (text if nanoseconds or not any(parts) else "".join(parts))


def _fraction(count: int, per_second: int) -> str:
    if not count:
        return ""
    return "." + str(count).rjust(len(str(per_second)) - 1, "0").rstrip("0")
