"""Trading sessions: which days, from when to when, and which session an instant belongs to.

A packed table (`sessions.parquet`, made by `etc/pack_sessions.py`) knows XSHG, XSHE, XHKG
and XNYS. Outside its years weekdays with the usual hours stand in, with one warning.
`24/7`: every UTC day. `FX`: Monday to Friday, each from 17:00 New York of the day before
to 17:00 New York; currency holidays are not known. All instants are UTC, all ranges half-open.
"""

import warnings
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadRequest
from .freq import Freq
from .hours import (
    BREAK_END,
    BREAK_START,
    CLOSE,
    DAWN,
    DAY,
    DUSK,
    EDGES,
    OPEN,
    RULES,
    Book,
    Days,
    book,
    number,
    offsets,
)
from .span import Span
from .venue import venue as venue_named

__all__ = [
    "Anchor", "Calendar", "CalendarGuess", "Hours", "calendar", "nominal_ts", "nominal_ts_array",
    "sessions_table",
]  # fmt: skip

Anchor = Literal["session", "clock"]
Times: TypeAlias = npt.NDArray[np.datetime64]
Column: TypeAlias = Any  # n times or dates: numpy datetime64, or an Arrow array, chunked or not

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO: Final = timedelta(microseconds=1)
_PHASES: Final = np.array(["overnight", "pre", "regular", "lunch", "regular", "post", "closed"])


class CalendarGuess(UserWarning):
    """A calendar was asked about days that its table does not know; weekdays were assumed."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Regular hours of one session: aware UTC instants; without lunch both breaks are None."""

    open: datetime
    break_start: datetime | None
    break_end: datetime | None
    close: datetime

    @property
    def segments(self) -> tuple[Span[datetime], ...]:
        """Return the one or two half-open stretches in which the venue trades."""
        if self.break_start is None or self.break_end is None:
            return (Span(self.open, self.close),)
        return (Span(self.open, self.break_start), Span(self.break_end, self.close))

    @property
    def minutes(self) -> int:
        """Return how many minutes of trading the session has."""
        return sum((s.end - s.start) // timedelta(minutes=1) for s in self.segments)


@dataclass(frozen=True, slots=True, eq=False)
class Calendar:
    """Every session of one venue; make it with `calendar(name)`.

    `known_until` is the last session that the packed table knows; `date.max` for 24/7 and FX.
    """

    name: str
    zone: str
    known_until: date
    _book: Book

    def sessions(self, start: date, end: date) -> list[date]:
        """Return the sessions in `[start, end)`, ascending; empty when there is none."""
        if start >= end:
            return []
        self._warn(start, end - timedelta(days=1))
        low, high = np.searchsorted(self._book.days, [number(start), number(end)])
        return cast("list[date]", self._book.days[low:high].astype("datetime64[D]").tolist())

    def bars(self, start: date, end: date, freq: Freq) -> int:
        """Return how many bars a series without a gap has over the calendar days `[start, end)`.

        Intraday: every slot of the grid; 1d: the sessions; longer: the bars whose first
        session lies in the range.
        """
        if start >= end:
            return 0
        low, high = np.searchsorted(self._book.days, [number(start), number(end)])
        totals = _totals(self.name, freq)
        return int(totals[high] - totals[low])

    def is_session(self, day: date) -> bool:
        """Return whether the venue trades, or traded, on `day`."""
        return self._index(day) is not None

    def hours(self, session: date) -> Hours:
        """Return the regular hours of `session`; BadRequest when it is not a session."""
        index = self._index(session)
        if index is None:
            raise BadRequest(
                "session", session.isoformat(), hint=f"{self.name} does not trade on that day",
                hint_zh=f"{self.name} 当天不交易",
            )  # fmt: skip
        edges = self._book.edges[index * EDGES : (index + 1) * EDGES].tolist()
        opened, start, end, close = (_instant(edges[i]) for i in (OPEN, BREAK_START, BREAK_END, CLOSE))
        return Hours(opened, None, None, close) if start == end else Hours(opened, start, end, close)

    def previous(self, day: date) -> date:
        """Return the newest session strictly before `day`."""
        found = self._at(int(np.searchsorted(self._book.days, number(day))) - 1)
        self._warn(found, found)
        return found

    def next(self, day: date) -> date:
        """Return the oldest session strictly after `day`."""
        found = self._at(int(np.searchsorted(self._book.days, number(day), side="right")))
        self._warn(found, found)
        return found

    def last_ended(self, now: datetime) -> date:
        """Return the newest session whose close is at or before `now`."""
        closes = self._book.edges[CLOSE::EDGES]
        found = self._at(int(np.searchsorted(closes, _micros(now), side="right")) - 1)
        self._warn(found, found)
        return found

    def last_begun(self, now: datetime) -> date:
        """Return the newest session whose open is at or before `now`."""
        found = self._at(int(np.searchsorted(self._book.edges[OPEN::EDGES], _micros(now), side="right")) - 1)
        self._warn(found, found)
        return found

    def session_of(self, ts: datetime) -> date | None:
        """Return the session that the instant `ts` belongs to; None when nothing trades then.

        Regular hours with the lunch between them; in China and Hong Kong also 30 minutes
        before the open and after the close (auctions); for XNYS everything from 20:00 New
        York of the day before (overnight) until 20:00.
        """
        return cast("date | None", self.sessions_of(np.array([_micros(ts)], "datetime64[us]"))[0].as_py())

    def sessions_of(self, ts: Column) -> pa.Array:
        """Return `session_of` for many instants: n date32 values, null where nothing trades.

        `ts`: n UTC instants, numpy datetime64 or Arrow timestamps; null stays null.
        """
        times, absent = _numbers(ts, "us")
        index, phase = self._place(times)
        outside = (phase == DUSK) | absent
        self._warn_days(self._book.days[index[~outside]])
        return pa.array(self._book.days[index].astype(np.int32), mask=outside).cast(pa.date32())

    def starts(self, session: date, freq: Freq) -> list[datetime]:
        """Return the bar starts of an intraday `freq` in `session`, ascending, regular hours only.

        The grid begins anew with each trading segment, so that no bar crosses lunch; the
        last bar of a segment may be short.
        """
        step = _step(freq)
        out: list[datetime] = []
        for span in self.hours(session).segments:
            count = -((span.start - span.end) // step)
            out += [span.start + i * step for i in range(count)]
        return out

    def bar_end(self, session: date, freq: Freq, ts: datetime | None = None) -> datetime:
        """Return the instant at which a bar ends.

        Intraday: `ts` plus the freq, cut at the end of its trading segment. Daily and longer:
        the close of the last session in the bar's period (before it, if it holds none).
        """
        if not freq.intraday:
            return _instant(int(self._period_ends(freq, np.array([number(session)]))[0]))
        if ts is None:
            raise BadRequest(
                "ts",
                ts,
                hint="the end of an intraday bar needs its start",
                hint_zh="日内 K 线的结束时间需要其开始时间",
            )
        return _instant(int(self._cut_ends(freq, np.array([_micros(ts)]))[0]))

    def bar_ends(self, freq: Freq, at: Column, anchor: Anchor = "session") -> Times:
        """Return `bar_end` of n bars, as n UTC datetime64[us].

        `at`: bar starts for an intraday freq, `session` values for others; no nulls.
        `anchor="clock"`: a bar that starts before the open goes on into the morning.
        """
        if freq.intraday:
            ends = self._cut_ends(freq, _numbers(at, "us")[0], anchor)
        else:
            ends = self._period_ends(freq, _numbers(at, "D")[0])
        return ends.astype("datetime64[us]")

    def buckets(self, freq: Freq, ts: Column, anchor: Anchor = "session") -> Times:
        """Return the start of the intraday bar that holds each instant, as n UTC datetime64[us].

        `anchor="session"`: the grid begins with each trading segment (overnight, pre-market,
        morning, afternoon, post-market). `"clock"`: multiples of the freq since local
        midnight, so that the first bar may begin before the open, as 09:00 for 1h in New
        York; where that would reach into lunch, or before the session's first auction or
        overnight trade, the start of what follows.
        Instants outside every session lie on multiples of the freq in UTC. Starts never
        descend where the instants do not.
        """
        times, _ = _numbers(ts, "us")
        step = _step(freq) // _MICRO
        index, phase = self._place(times)
        edge = self._book.edges[index * EDGES + phase]
        if anchor == "session":
            start = edge + (times - edge) // step * step
        else:
            day = self._book.days[index]
            midnight = day * DAY - offsets(self.zone, day)
            floor = np.where(phase <= OPEN, self._book.edges[index * EDGES + DAWN], edge)
            start = np.maximum(midnight + (times - midnight) // step * step, floor)
        outside = np.maximum(times // step * step, edge)
        found: Times = np.where(phase == DUSK, outside, start).astype("datetime64[us]")
        return found

    def phases(self, ts: Column) -> npt.NDArray[np.str_]:
        """Return where each of n instants lies: overnight, pre, regular, lunch, post or closed.

        In China and Hong Kong `pre` and `post` are the auctions' 30 minutes.
        """
        return cast("npt.NDArray[np.str_]", _PHASES[self._place(_numbers(ts, "us")[0])[1]])

    def _place(self, times: Days) -> tuple[Days, Days]:
        """Return (row of the session, phase) of each instant; phase `DUSK`: outside of all."""
        spot = np.searchsorted(self._book.edges, times, side="right") - 1
        index, phase = np.divmod(np.maximum(spot, 0), EDGES)
        return index, np.where(spot < 0, DUSK, phase)

    def _cut_ends(self, freq: Freq, times: Days, anchor: Anchor = "session") -> Days:
        index, phase = self._place(times)
        if anchor == "clock":
            phase = np.maximum(phase, OPEN)
        ends = times + _step(freq) // _MICRO
        limit = self._book.edges[np.minimum(index * EDGES + phase + 1, self._book.edges.size - 1)]
        return np.where(phase == DUSK, ends, np.minimum(ends, limit))

    def _period_ends(self, freq: Freq, sessions: Days) -> Days:
        unique, back = np.unique(sessions, return_inverse=True)
        days = cast("list[date]", unique.astype("datetime64[D]").tolist())
        following = np.array([number(freq.following(day)) for day in days], np.int64)
        last = np.maximum(np.searchsorted(self._book.days, following) - 1, 0)
        self._warn_days(self._book.days[last])
        ends: Days = self._book.edges[last * EDGES + CLOSE][back]
        return ends

    def _index(self, day: date) -> int | None:
        self._warn(day, day)
        spot = int(np.searchsorted(self._book.days, number(day)))
        return spot if spot < self._book.days.size and self._book.days[spot] == number(day) else None

    def _at(self, index: int) -> date:
        day = self._book.days[min(max(index, 0), self._book.days.size - 1)]
        return cast("date", day.astype("datetime64[D]").item())

    def _warn(self, first: date, last: date) -> None:
        if first < self._book.known.start or last >= self._book.known.end:
            _warn_once(self.name)

    def _warn_days(self, days: Days) -> None:
        if days.size:
            low, high = np.array([days.min(), days.max()]).astype("datetime64[D]").tolist()
            self._warn(low, high)


@lru_cache
def calendar(name: str) -> Calendar:
    """Return the calendar called `name`: XSHG, XSHE, XHKG, XNYS, 24/7 or FX; made once."""
    if name not in RULES:
        raise BadRequest("calendar", name, tuple(RULES))
    made = book(name)
    return Calendar(name, made.zone, made.known_until, made)


def nominal_ts(venue: str, session: date) -> datetime:
    """Return the `ts` of daily and longer bars: the venue's nominal open on `session`, in UTC."""
    place = venue_named(venue)
    return datetime.combine(session, place.nominal_open, ZoneInfo(place.zone)).astimezone(UTC)


def nominal_ts_array(venue: str, sessions: Column) -> pa.Array:
    """Return `nominal_ts` for n sessions (date32 or datetime64) as n timestamps [us, UTC]."""
    place = venue_named(venue)
    days, absent = _numbers(sessions, "D")
    wall = timedelta(hours=place.nominal_open.hour, minutes=place.nominal_open.minute) // _MICRO
    return pa.array(days * DAY + wall - offsets(place.zone, days), pa.timestamp("us", tz="UTC"), mask=absent)


def sessions_table() -> pa.Table:
    """Return every session that the packed table knows, for SQL.

    n rows × 6: calendar, session (date32), open, break_start, break_end, close (UTC; both
    breaks null where there is none), ascending by (calendar, session). Calendars that trade
    every day or every weekday (24/7, FX) are not in it.
    """
    parts: list[pa.Table] = []
    for name in sorted(name for name, rule in RULES.items() if rule.packed):
        made = book(name)
        low, high = np.searchsorted(made.days, [number(made.known.start), number(made.known_until) + 1])
        edges = made.edges.reshape(-1, EDGES)[low:high]
        whole = edges[:, BREAK_START] == edges[:, BREAK_END]
        columns = {"calendar": pa.repeat(pa.scalar(name), high - low)}
        columns["session"] = pa.array(made.days[low:high].astype(np.int32)).cast(pa.date32())
        for key, at in (
            ("open", OPEN),
            ("break_start", BREAK_START),
            ("break_end", BREAK_END),
            ("close", CLOSE),
        ):
            mask = whole if key.startswith("break") else None
            columns[key] = pa.array(edges[:, at], pa.timestamp("us", tz="UTC"), mask=mask)
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


@lru_cache
def _totals(name: str, freq: Freq) -> Days:
    """Return how many bars of `freq` begin before each session: n + 1 counts."""
    made = book(name)
    if freq.intraday:
        edges, step = made.edges.reshape(-1, EDGES), _step(freq) // _MICRO
        parts = (edges[:, BREAK_START] - edges[:, OPEN], edges[:, CLOSE] - edges[:, BREAK_END])
        counts = -(-parts[0] // step) - (-parts[1] // step)
    elif freq is Freq.D1:
        counts = np.ones(made.days.size, np.int64)
    else:
        days = cast("list[date]", made.days.astype("datetime64[D]").tolist())
        anchors = np.array([number(freq.anchor(day)) for day in days], np.int64)
        counts = (np.diff(anchors, prepend=anchors[0] - 1) > 0).astype(np.int64)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@lru_cache
def _warn_once(name: str) -> None:
    known = book(name).known
    warnings.warn(
        f"{name}: sessions are known from {known.start} until {known.end} (exclusive); outside, "
        "weekdays with the usual hours are assumed; a newer klake may know more",
        CalendarGuess,
        stacklevel=4,
    )


def _step(freq: Freq) -> timedelta:
    if not freq.intraday:
        raise BadRequest(
            "freq", freq.value, hint="an intraday freq is needed here", hint_zh="此处需要日内周期"
        )
    return timedelta(minutes=freq.minutes)


def _micros(ts: datetime) -> int:
    if ts.tzinfo is None:
        raise BadRequest(
            "ts", ts.isoformat(), hint="give an aware instant: a naive time has no zone",
            hint_zh="请给出带时区的时间",
        )  # fmt: skip
    return (ts - _EPOCH) // _MICRO


def _instant(micros: int) -> datetime:
    return _EPOCH + micros * _MICRO


def _numbers(values: Column, unit: str) -> tuple[Days, npt.NDArray[np.bool_]]:
    """Return (integers since 1970 in `unit`, where null) of numpy or Arrow times or dates."""
    if isinstance(values, pa.ChunkedArray):
        values = values.to_numpy()
    elif isinstance(values, pa.Array):
        values = values.to_numpy(zero_copy_only=False)
    times = np.asarray(values).astype(f"datetime64[{unit}]")
    absent = np.isnat(times)
    return np.where(absent, 0, times.astype(np.int64)), absent
