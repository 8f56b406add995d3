"""What pages prove about sessions: which are held, which are empty and why."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from ..schemas.bar import State, state_of
from ..schemas.coverage import Covered, Reason, Series, Standing
from ..schemas.freq import Freq
from ..schemas.session import Calendar
from ..schemas.span import Span

__all__ = ["Witness", "empty_stretch", "ending", "expected", "started", "stretches"]

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
    series: Series, calendar: Calendar, days: Span[date], held: Collection[date], untold: Collection[date],
    witness: Witness,
) -> list[Covered]:  # fmt: skip
    """Return how the calendar `days` stand, of which every bar that exists was received.

    Parameters
    ----------
    days : Span of dates
        Proven complete; sessions of it that had not begun are not in it.
    held : collection of date
        Sessions with bars.
    untold : collection of date
        Sessions of which a row was refused: they stay missing.

    Returns
    -------
    list of Covered
        Ascending, disjoint; together `days` without the untold sessions. An expected session
        without a bar is EMPTY (vendor says none) once it has ended; a running one is OPEN.
    """
    sessions = expected(calendar, series.freq, days)
    if not days:
        return []
    if not sessions:
        return [empty_stretch(series, days, Reason.HOLIDAY, witness)]
    edges = [days.start, *sessions[1:], days.end]
    judge = _Judge(series.freq, calendar, witness)
    out: list[Covered] = []
    begin, before = edges[0], judge.of(sessions[0], held, untold)
    for session, edge in zip(sessions[1:], edges[1:], strict=False):
        verdict = judge.of(session, held, untold)
        if verdict != before:
            out += _covered(series, Span(begin, edge), before, witness)
            begin, before = edge, verdict
    return out + _covered(series, Span(begin, days.end), before, witness)


def empty_stretch(series: Series, days: Span[date], reason: Reason, witness: Witness) -> Covered:
    """Return `days` as empty for `reason`."""
    return Covered(
        series, days, Standing.EMPTY, reason, witness.first_request, witness.last_request, witness.fetched_at
    )


Verdict = tuple[Standing, Reason] | None


def _covered(series: Series, days: Span[date], verdict: Verdict, witness: Witness) -> list[Covered]:
    if verdict is None:
        return []
    standing, reason = verdict
    first, last = witness.first_request, witness.last_request
    return [Covered(series, days, standing, reason, first, last, witness.fetched_at)]


class _Judge:
    """How one session stands; asks the calendar only about sessions that may not have settled."""

    def __init__(self, freq: Freq, calendar: Calendar, witness: Witness) -> None:
        self._freq, self._calendar, self._witness = freq, calendar, witness
        settled = witness.fetched_at - timedelta(seconds=witness.settle_s)
        self._old = settled.date() - timedelta(days=_REACH.get(freq, 1) + 3)

    def of(self, session: date, held: Collection[date], untold: Collection[date]) -> Verdict:
        if session in untold:
            return None
        state = State.FINAL
        if session > self._old:
            end = ending(self._calendar, self._freq, session)
            state = state_of(end, self._witness.fetched_at, self._witness.settle_s)
        if session in held or state is State.OPEN:
            return _STANDING[state], Reason.NONE
        return Standing.EMPTY, Reason.VENDOR_NONE
