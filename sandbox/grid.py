"""When each venue of the sandbox trades: its sessions as day numbers, its minutes in UTC seconds."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from ..schemas.session import calendar
from ..schemas.venue import venue
from .noise import Ints

__all__ = ["FIRST", "Grid", "grid", "number"]

FIRST: Final = date(2000, 12, 1)
_LAST: Final = date(2031, 1, 1)
_CLOSING_S: Final = {"HK": 510}  # Hong Kong's closing auction ends between 16:08 and 16:10


def number(day: date) -> int:
    """Return `day` as days since 1970-01-01."""
    return (day - date(1970, 1, 1)).days


class Grid:
    """Sessions and minutes of one venue, from `FIRST` to the last year that the calendar knows.

    `days` holds every session, ascending, as days since 1970. `closing_s` is how long after
    the close the closing auction prints.
    """

    def __init__(self, venue_name: str) -> None:
        place = venue(venue_name)
        self.zone = ZoneInfo(place.zone)
        self.nominal = place.nominal_open.hour * 60 + place.nominal_open.minute
        self.closing_s = _CLOSING_S.get(venue_name, 0)
        self.round_the_clock = place.calendar == "24/7"
        self._calendar = calendar(place.calendar)
        # A guessed year would warn whoever shares this process, so history ends with the known ones.
        until = min(_LAST, self._calendar.known_until)
        self.days: Ints = np.array([number(d) for d in self._calendar.sessions(FIRST, until)], np.int64)
        self.segments: Callable[[int], tuple[tuple[int, int], ...]] = lru_cache(8192)(self._segments)
        self.starts: Callable[[int], Ints] = lru_cache(4096)(self._starts)

    def between(self, first: int, last: int) -> Ints:
        """Return the sessions in `[first, last]`, ascending."""
        low, high = np.searchsorted(self.days, [first, last + 1])
        return self.days[low:high]

    def before(self, days: Ints) -> Ints:
        """Return the session before each of `days`; each must be a session, none the very first."""
        return self.days[np.searchsorted(self.days, days) - 1]

    def session_at(self, now_s: float) -> int:
        """Return the newest session that has opened at `now_s`, as its place in `days`; -1: none."""
        local = datetime.fromtimestamp(now_s, UTC).astimezone(self.zone).date()
        spot = int(np.searchsorted(self.days, number(local), side="right")) - 1
        if spot >= 0 and self.segments(int(self.days[spot]))[0][0] > now_s:
            spot -= 1
        return spot

    def close(self, day: int) -> int:
        """Return when continuous trading of the session ends, in UTC seconds."""
        return self.segments(day)[-1][1]

    def short(self, day: int) -> bool:
        """Return whether the session is a half day."""
        usual = (
            1440
            if self.round_the_clock
            else (330 if self.closing_s else (390, 240)[len(self.segments(day)) - 1])
        )
        return self.starts(day).size < usual

    def at(self, days: Ints, minute: int) -> Ints:
        """Return the UTC seconds of the local wall time `minute` (since midnight) of each day."""
        return days * 86_400 + minute * 60 - _offsets(self.zone.key, minute)[days - number(FIRST)]

    def _segments(self, day: int) -> tuple[tuple[int, int], ...]:
        hours = self._calendar.hours(date(1970, 1, 1) + timedelta(days=day))
        return tuple((int(s.start.timestamp()), int(s.end.timestamp())) for s in hours.segments)

    def _starts(self, day: int) -> Ints:
        return np.concatenate(
            [np.arange(start, end, 60, dtype=np.int64) for start, end in self.segments(day)]
        )


@lru_cache
def grid(venue_name: str) -> Grid:
    """Return the grid of the venue; made once."""
    return Grid(venue_name)


@lru_cache
def _offsets(zone: str, minute: int) -> Ints:
    """Return local minus UTC, in seconds, at a wall time of every day from `FIRST` to `_LAST`."""
    place, wall = ZoneInfo(zone), time(minute // 60, minute % 60)

    def offset(day: date) -> int:
        return int((datetime.combine(day, wall, place).utcoffset() or timedelta()).total_seconds())

    return np.array([offset(FIRST + timedelta(days=i)) for i in range((_LAST - FIRST).days)], np.int64)
