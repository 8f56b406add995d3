"""Usual trading hours, and the packed session table: what `session` computes with.

Local wall times here are minutes since the session's midnight; below 0 is the day before.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias, cast
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from .span import Span

__all__ = [
    "BREAK_END",
    "BREAK_START",
    "CLOSE",
    "DAWN",
    "DAY",
    "DUSK",
    "EDGES",
    "OPEN",
    "PRE",
    "RULES",
    "Book",
    "Days",
    "Rule",
    "book",
    "number",
    "offsets",
]

Days: TypeAlias = npt.NDArray[np.int64]

_MINUTE: Final = 60_000_000
DAY: Final = 1_440 * _MINUTE
"""One day in microseconds."""

_FIRST, _LAST = date(1900, 1, 1), date(2100, 12, 31)  # outside, the nearest of the two stands in
_PACKED: Final = Path(__file__).with_name("sessions.parquet")

# Edges of one session, in this order; a phase runs from its edge to the next one.
DAWN, PRE, OPEN, BREAK_START, BREAK_END, CLOSE, DUSK = range(7)
EDGES: Final = 7


@dataclass(frozen=True, slots=True)
class Rule:
    """A venue's usual hours, in local minutes."""

    zone: str
    open: int
    close: int
    lunch: tuple[int, int] | None = None
    every_day: bool = False
    packed: bool = True
    auction: int = 0  # minutes before the open and after the close that belong to the session
    extended: tuple[int, int, int] | None = None  # overnight from, pre-market from, post-market until


_CHINA: Final = Rule("Asia/Shanghai", 570, 900, lunch=(690, 780), auction=30)
RULES: Final = {
    "XSHG": _CHINA,
    "XSHE": _CHINA,
    "XHKG": Rule("Asia/Hong_Kong", 570, 960, lunch=(720, 780), auction=30),
    "XNYS": Rule("America/New_York", 570, 960, extended=(-240, 240, 1_200)),
    "24/7": Rule("UTC", 0, 1_440, every_day=True, packed=False),
    "FX": Rule("America/New_York", -420, 1_020, packed=False),
}


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """Every session of one calendar, 1900 to 2100: n sessions."""

    zone: str
    known_until: date  # last session of the packed table; date.max where none is needed
    known: Span[date]  # outside of these years, days are guessed
    days: Days  # n days since 1970, ascending
    edges: Days  # 7 n UTC microseconds, never descending


@lru_cache
def book(name: str) -> Book:
    """Return the sessions of the calendar `name` (a key of `RULES`), read and computed once."""
    rule = RULES[name]
    if rule.packed:
        days, walls = _packed(name)
        first, last = (cast("date", d.item()) for d in days[[0, -1]].astype("datetime64[D]"))
        known = Span(date(first.year, 1, 1), date(last.year + 1, 1, 1))
        early, late = (_weekdays(rule, a, b) for a, b in ((_FIRST, known.start), (known.end, _LAST)))
        days = np.concatenate([early, days, late])
        walls = np.concatenate([_usual(rule, early.size), walls, _usual(rule, late.size)])
    else:
        last, known = date.max, Span(date.min, date.max)
        days = _weekdays(rule, _FIRST, _LAST)
        walls = _usual(rule, days.size)
    midnight = days * DAY - offsets(rule.zone, days)
    edges = midnight[:, None] + _edges(rule, walls) * _MINUTE
    return Book(rule.zone, last, known, days, edges.reshape(-1))


def offsets(zone: str, days: Days) -> Days:
    """Return local minus UTC, in microseconds, at noon of each day; n days since 1970.

    Zones change at night on days without trading, so that one offset serves a session.
    """
    last = number(_LAST) - number(_FIRST)
    return _noons(zone)[np.clip(days - number(_FIRST), 0, last)]


def number(day: date) -> int:
    """Return `day` as days since 1970."""
    return day.toordinal() - 719_163


@lru_cache
def _noons(zone: str) -> Days:
    """Return the offset of every day from `_FIRST` to `_LAST`, asking the zone once a month."""
    place = ZoneInfo(zone)

    def at(day: date) -> int:
        offset = datetime.combine(day, time(12), place).utcoffset() or timedelta()
        return offset // timedelta(microseconds=1)

    months = [date(y, m, 1) for y in range(_FIRST.year, _LAST.year + 1) for m in range(1, 13)]
    out: list[int] = []
    for first, following in zip(months, [*months[1:], _LAST + timedelta(days=1)], strict=True):
        count, offset = (following - first).days, at(first)
        if offset == at(following):
            out += [offset] * count
        else:
            out += [at(first + timedelta(days=i)) for i in range(count)]
    return np.array(out, np.int64)


def _packed(name: str) -> tuple[Days, Days]:
    """Return the table's days (n) and local minutes (n × 4: open, break start, break end, close)."""
    import pyarrow.parquet as pq

    # The file has one row group per calendar; pq.read_table would load all of pyarrow.dataset (0.3 s).
    file: Any = pq.ParquetFile(_PACKED)
    groups = [file.metadata.row_group(i).column(0).statistics.min for i in range(file.num_row_groups)]
    table = file.read_row_group(groups.index(name))
    days = table["session"].to_numpy().astype("datetime64[D]").astype(np.int64)
    columns = [
        np.nan_to_num(table[c].to_numpy().astype(np.float64), nan=-1).astype(np.int64)
        for c in ("open", "break_start", "break_end", "close")
    ]
    walls = np.stack(columns, axis=1)
    # Without lunch both breaks fall on the close: two empty phases that no instant hits.
    return days, np.where(walls < 0, walls[:, 3:], walls)


def _usual(rule: Rule, count: int) -> Days:
    lunch = rule.lunch or (rule.close, rule.close)
    return np.tile(np.array([rule.open, *lunch, rule.close], np.int64), (count, 1))


def _weekdays(rule: Rule, start: date, end: date) -> Days:
    days = np.arange(number(start), number(end), dtype=np.int64)
    return days if rule.every_day else days[(days + 3) % 7 < 5]  # 1970-01-01 was a Thursday


def _edges(rule: Rule, walls: Days) -> Days:
    """Return local minutes of the seven edges, n × 7, from n × 4 regular ones."""
    opened, close = walls[:, :1], walls[:, 3:]
    if rule.extended is None:
        dawn = pre = opened - rule.auction
        dusk = close + rule.auction
    else:
        dawn, pre, dusk = (np.full_like(opened, minute) for minute in rule.extended)
    return np.concatenate([dawn, pre, walls, dusk], axis=1)
