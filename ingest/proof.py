"""What pages prove about sessions: which are held, which are empty and why."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from ..schemas.bar import State, state_of
from ..schemas.coverage import Covered, Reason, Series, Standing
from ..schemas.freq import Freq
from ..schemas.page import Reject
from ..schemas.session import Calendar, calendar
from ..schemas.span import Span
from .normalise import symbol_of

__all__ = ["Refusals", "Witness", "empty_stretch", "ending", "expected", "session_of", "started", "stretches"]

_REACH: Final = {Freq.W1: 7, Freq.MO1: 31, Freq.Q1: 92, Freq.Y1: 366}
_STANDING: Final = {State.FINAL: Standing.FINAL, State.CLOSED: Standing.CLOSED, State.OPEN: Standing.OPEN}


@dataclass(frozen=True, slots=True)
class Witness:
    """Who proves it: the first and the last page that did, when, and how long bars take to settle."""

    first_request: str
    last_request: str
    fetched_at: datetime
    settle_s: float


def expected(calendar: Calendar, freq: Freq, days: Span[date]) -> list[date]:
    """Return the `session` values that bars of `freq` should have over calendar `days`, ascending.

    For 1w and longer the anchors whose period begins in `days` and holds a session.
    """
    if freq.intraday or freq is Freq.D1:
        return calendar.sessions(days.start, days.end)
    anchors: list[date] = []
    cursor = freq.anchor(days.start)
    while cursor < days.end:
        after = freq.following(cursor)
        if cursor >= days.start and calendar.sessions(cursor, after):
            anchors.append(cursor)
        cursor = after
    return anchors


def ending(calendar: Calendar, freq: Freq, session: date) -> datetime:
    """Return when nothing more is traded for `session`: its close, or that of its period."""
    return calendar.bar_end(session, Freq.D1 if freq.intraday else freq)


def started(calendar: Calendar, freq: Freq, days: Span[date], now: datetime) -> date:
    """Return the end of the part of `days` of which all can be told at `now`; half-open.

    It ends where the first session begins that has not begun by `now`.
    """
    horizon = min(days.end, now.date() + timedelta(days=2))
    if horizon <= days.start:
        return days.start
    for session in reversed(expected(calendar, freq, Span(days.start, horizon))):
        first = session if freq.intraday or freq is Freq.D1 else calendar.next(session - timedelta(days=1))
        if calendar.hours(first).open <= now:
            after = calendar.next(session) if freq.intraday or freq is Freq.D1 else freq.following(session)
            return min(days.end, after)
    return days.start


def stretches(
    series: Series, calendar: Calendar, days: Span[date], held: Collection[date], witness: Witness
) -> list[Covered]:
    """Return how the calendar `days` stand, of which every bar that exists was received.

    Parameters
    ----------
    days : Span of dates
        Proven complete; sessions of it that had not begun are not in it.
    held : collection of date
        Sessions with bars.

    Returns
    -------
    list of Covered
        Ascending, disjoint; together `days`. An expected session without a bar is EMPTY (vendor
        says none) once it has ended; a running one is OPEN for that reason.
    """
    sessions = expected(calendar, series.freq, days)
    if not days:
        return []
    if not sessions:
        return [empty_stretch(series, days, Reason.HOLIDAY, witness)]
    edges = [days.start, *sessions[1:], days.end]
    judge = _Judge(series.freq, calendar, witness)
    out: list[Covered] = []
    begin, before = edges[0], judge.of(sessions[0], held)
    for session, edge in zip(sessions[1:], edges[1:], strict=False):
        verdict = judge.of(session, held)
        if verdict != before:
            out.append(_covered(series, Span(begin, edge), before, witness))
            begin, before = edge, verdict
    return [*out, _covered(series, Span(begin, days.end), before, witness)]


def empty_stretch(series: Series, days: Span[date], reason: Reason, witness: Witness) -> Covered:
    """Return `days` as empty for `reason`."""
    return Covered(
        series, days, Standing.EMPTY, reason, witness.first_request, witness.last_request, witness.fetched_at
    )


Verdict = tuple[Standing, Reason]


def _covered(series: Series, days: Span[date], verdict: Verdict, witness: Witness) -> Covered:
    first, last = witness.first_request, witness.last_request
    return Covered(series, days, *verdict, first, last, witness.fetched_at)


class _Judge:
    """How one session stands; asks the calendar only about sessions that may not have settled."""

    def __init__(self, freq: Freq, calendar: Calendar, witness: Witness) -> None:
        self._freq, self._calendar, self._witness = freq, calendar, witness
        settled = witness.fetched_at - timedelta(seconds=witness.settle_s)
        self._old = settled.date() - timedelta(days=_REACH.get(freq, 1) + 3)

    def of(self, session: date, held: Collection[date]) -> Verdict:
        state = State.FINAL
        if session > self._old:
            end = ending(self._calendar, self._freq, session)
            state = state_of(end, self._witness.fetched_at, self._witness.settle_s)
        if session in held:
            return _STANDING[state], Reason.NONE
        return Standing.OPEN if state is State.OPEN else Standing.EMPTY, Reason.VENDOR_NONE


def session_of(symbol: str, freq: Freq, ts: datetime) -> date | None:
    """Return the `session` of a bar that starts at `ts`; None where nothing trades then."""
    place = symbol_of(symbol).place
    if freq.intraday:
        return calendar(place.calendar).session_of(ts)
    return freq.anchor(ts.astimezone(ZoneInfo(place.zone)).date())


class Refusals:
    """Which sessions of a series lost a row that was refused, until a page proves those sessions."""

    def __init__(self, series: Series, calendar: Calendar) -> None:
        self._series, self._calendar = series, calendar
        self._lost: dict[date, dict[Reject, None]] = {}

    def note(self, rejects: Iterable[Reject], days: Span[date]) -> None:
        """Remember the rows that a page refused; one without a time may be missing anywhere in `days`."""
        freq = self._series.freq
        for one in rejects:
            named = session_of(self._series.symbol, freq, one.ts) if one.ts is not None else None
            if one.ts is None:
                sessions = expected(self._calendar, freq, days)
            else:
                sessions = [] if named is None else [named]
            for session in sessions:
                self._lost.setdefault(session, {})[one] = None

    def within(self, days: Span[date]) -> dict[date, tuple[Reject, ...]]:
        """Return the sessions in `days` that lost rows, each with those rows."""
        return {s: tuple(rows) for s, rows in self._lost.items() if days.start <= s < days.end}
