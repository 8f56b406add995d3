"""The grid of intraday bars: where bars may start, and where auction prints stand beside it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .freq import Freq
from .session import calendar

__all__ = ["Bools", "Grid", "Numbers", "day_number", "grid", "micros"]

Numbers: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_ZERO: Final = date(1970, 1, 1)
_CLOSING: Final = {"XSHG", "XSHE", "XHKG", "XNYS"}  # calendars whose close may be a print of its own
_OPENING: Final = {"XSHG", "XSHE", "XHKG"}  # in New York the minute before the open is pre-market trade


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Bar starts of some sessions, ascending, with the slots of auction prints among them.

    `starts`: n microseconds since 1970 UTC; `sessions`: n days since 1970; `auction`: n,
    true where the slot is no bar of its own but a print: exactly at the close (QOS, US
    16:00) or one step before the open.
    """

    starts: Numbers
    sessions: Numbers
    auction: Bools

    def place(self, ts: Numbers) -> tuple[Numbers, Bools, Bools]:
        """Return (session, on the grid, an auction print) for m starts, ascending or not.

        Where both flags are false the session is meaningless.
        """
        if not self.starts.size:
            nothing = np.zeros(ts.size, np.bool_)
            return np.zeros(ts.size, np.int64), nothing, nothing
        spot = np.minimum(np.searchsorted(self.starts, ts), self.starts.size - 1)
        hit = self.starts[spot] == ts
        auction = self.auction[spot] & hit
        return self.sessions[spot], hit & ~auction, auction


def micros(ts: datetime) -> int:
    """Return the microseconds since 1970 UTC of an aware instant."""
    delta = ts - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def day_number(day: date) -> int:
    """Return the days since 1970 of a date."""
    return (day - _DAY_ZERO).days


@lru_cache(maxsize=64)
def grid(name: str, freq: Freq, first: date, last: date) -> Grid:
    """Return the grid of the calendar `name` for sessions `first` to `last`, both included.

    Empty when nothing trades on those days. Regular hours only; anew after lunch.
    """
    step = freq.minutes * 60_000_000
    book = calendar(name)
    starts: list[Numbers] = []
    days: list[Numbers] = []
    prints: list[tuple[int, int]] = []
    for session in book.sessions(first, Freq.D1.following(last)):
        hours = book.hours(session)
        number = day_number(session)
        for segment in hours.segments:
            slots = np.arange(micros(segment.start), micros(segment.end), step, dtype=np.int64)
            starts.append(slots)
            days.append(np.full(slots.size, number, np.int64))
        prints += [(micros(hours.close), number)] if name in _CLOSING else []
        prints += [(micros(hours.open) - step, number)] if name in _OPENING else []
    return _together(starts, days, prints)


def _together(starts: list[Numbers], days: list[Numbers], prints: Iterable[tuple[int, int]]) -> Grid:
    extra = np.array(list(prints), np.int64).reshape(-1, 2)
    all_starts = np.concatenate([*starts, extra[:, 0]]) if starts else np.empty(0, np.int64)
    all_days = np.concatenate([*days, extra[:, 1]]) if starts else np.empty(0, np.int64)
    auction = np.zeros(all_starts.size, np.bool_)
    auction[all_starts.size - len(extra) :] = bool(len(extra))
    order = np.argsort(all_starts, kind="stable")
    return Grid(all_starts[order], all_days[order], auction[order])
