"""A chain of pages: one series backward over wanted sessions, safe by construction.

Next end = oldest bar seen, so that pages overlap under both readings of "end"; strict
progress or stop; an empty or unmoved page is confirmed once; an error is never an end of
history; only whole sessions leave the chain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from ..schemas.bar import INCOMING, empty
from ..schemas.capability import Capability
from ..schemas.compute import pc
from ..schemas.coverage import Covered, Reason, Series
from ..schemas.freq import Freq
from ..schemas.grid import grid
from ..schemas.page import Entry, Page, Reject, SeriesPage
from ..schemas.session import Calendar
from ..schemas.span import Span
from .normalise import fold, symbol_of
from .proof import Refusals, Witness, empty_stretch, ending, expected, started, stretches

__all__ = ["Chain", "Taken", "entries_needed"]

_AFTER_CLOSE: Final = timedelta(hours=1)  # closing auctions are printed after the close
_TRIES: Final = 2  # the first answer and its confirmation
_SPOILED: Final = 3  # replies that leave the series out or cannot be read, in a row, before it is given up
_ANOTHER: Final = timedelta(seconds=1)  # a later end asks for the same bars, but no kept reply answers it


@dataclass(frozen=True, slots=True)
class Taken:
    """What one page added: whole folded sessions, what is proven of which days, refused rows.

    `bars`: Arrow table, columns of INCOMING, n rows ascending by ts; n = 0 when the page
    completed no session. `untold`: sessions inside `stretches` that lack refused rows, each
    with those rows: they are only proven when nothing better is to be had.
    """

    bars: pa.Table
    stretches: tuple[Covered, ...] = ()
    rejects: tuple[Reject, ...] = ()
    untold: Mapping[date, tuple[Reject, ...]] = field(default_factory=dict[date, tuple[Reject, ...]])


def entries_needed(bars: int, page: int) -> int:
    """Return how many overlapping pages of `page` bars hold a series of `bars` bars: at least 1.

    Examples
    --------
    >>> entries_needed(1000, 1000), entries_needed(1001, 1000), entries_needed(0, 1000)
    (1, 2, 1)
    """
    return max(1, -(-(bars - 1) // max(page - 1, 1)))


class Chain:
    """Pages one series backward until the wanted sessions are proven, or it must stop.

    Parameters
    ----------
    wanted : Span of dates
        Sessions as calendar days, half-open; for 1w and longer, of the anchors.
    now : datetime
        Sessions that have not begun by then are left out.
    known_begin : date, optional
        The first session that can have bars; older ones are not asked for.
    seen : mapping of date to datetime, optional
        Sessions of which the lake holds every bar up to an instant, as when they were fetched
        while they ran: a page need not reach back further.

    Attributes
    ----------
    stopped : str
        Why the chain gave up before everything was proven; empty while it has not.
    asked : Entry or None
        What `next` asked last.
    end_ignored : bool
        True when that is why: every page is the newest one.
    """

    def __init__(
        self, series: Series, wanted: Span[date], capability: Capability, calendar: Calendar, now: datetime,
        known_begin: date | None = None, seen: Mapping[date, datetime] | None = None,
    ) -> None:  # fmt: skip
        freq = series.freq
        self.series, self.stopped = series, ""
        self.end_ignored = False
        self.asked: Entry | None = None
        self._venue = symbol_of(series.symbol).venue
        self._freq, self._calendar, self._now = freq, calendar, now
        self._capability = capability = capability.at(self._venue)
        self._zone = ZoneInfo(symbol_of(series.symbol).place.zone)
        self._begin = freq.anchor(wanted.start)
        self._start = max(self._begin, freq.anchor(known_begin)) if known_begin else self._begin
        self._wanted = Span(self._start, max(self._start, wanted.end))
        self._pages = self._received = self._doubts = 0
        self._whole_page, self._seen = False, dict(seen or {})
        self._goes_back_from(None, now)
        self._end = self._first_end()
        self._newer = self._bars_above(self._low, now) if self._end else 0
        self._reaches_now = not self._begun_since(self._low)
        self._total, self._fullest = self._bars_left(), capability.page_limit // 8
        self._done = not self._missing_below(self._low)

    @property
    def done(self) -> bool:
        """Return whether every wanted session is proven."""
        return self._done

    @property
    def entries_left(self) -> int:
        """Return how many further entries this chain needs, as far as can be known."""
        if self._done or self.stopped:
            return 0
        left = self._bars_left() + self._prints() + (self._oldest is not None)
        if self._capability.reach:
            left = min(left, max(1, self._capability.reach - self._received))
        return entries_needed(left, self._capability.page_limit)

    def next(self) -> Entry | None:
        """Return what to ask next; None when the chain is done or stopped."""
        if self._done or self.stopped:
            return None
        # One more for the overlap, one to see a bar before the first wanted one.
        limit = self._capability.page_limit
        count = min(limit, max(3, self._bars_left() + self._prints() + 2))
        if self._whole_page or (self._end is None and not self._reaches_now):
            count = limit  # the newest bars come first, the wanted ones lie behind them
        self.asked = Entry(self.series.symbol, self._freq, self._end, count)
        return self.asked

    def take(self, got: SeriesPage, page: Page) -> Taken:
        """Return what `got` adds, and move on.

        Normally the answer to the entry last asked. A page with another end (a replayed
        one) starts the chain anew from there: it proves nothing that is younger than it asked.
        """
        self._pages += 1
        if got.entry.end != self._end:
            self._goes_back_from(got.entry.end, page.received_at)
        if got.outcome == "refused":
            return self._stop(got.reason or "the vendor refuses this series", got.rejects)
        if got.outcome in ("absent", "failed"):
            return self._doubted(got.reason or f"the series is {got.outcome} in the reply", got.rejects)
        if got.outcome == "empty":
            return self._at_beginning(page, got.rejects)
        if self._end is not None and self._newer_than(self._end, got.bars):
            return self._strayed(self._end, got.rejects)
        self._astray = False
        oldest: datetime = got.bars["ts"][0].as_py()
        if self._oldest is not None and oldest >= self._oldest:
            return self._at_beginning(page, got.rejects)
        if self._leaves_hole(got.bars) and self._doubts + 1 < _TRIES:
            self._doubts += 1
            return Taken(empty(INCOMING), (), got.rejects)
        self._doubts = 0
        return self._advance(got, page, oldest)

    def _goes_back_from(self, end: datetime | None, now: datetime) -> None:
        """Forget what was held; what lies below `end` (None: what has begun by `now`) is to be proven."""
        self._end = end
        self._low = started(self._calendar, self._freq, self._wanted, now)
        if end is not None:
            last = self._freq.anchor(self._calendar.last_ended(end))
            whole = self._ending(last) <= end
            self._low = max(self._start, min(self._low, self._freq.following(last) if whole else last))
        self._newer = self._bars_above(self._low, now) if end else 0
        self._oldest: datetime | None = None  # ts of the oldest bar seen
        self._held = empty(INCOMING)  # the oldest session, while it may be partial
        self._held_page = ""
        self._refusals = Refusals(self.series, self._calendar)
        self._received = self._doubts = 0
        self._astray = False

    def _ending(self, session: date) -> datetime:
        return ending(self._calendar, self._freq, session)

    def _bars_above(self, low: date, now: datetime) -> int:
        return self._calendar.bars(low, now.date() + timedelta(days=1), self._freq)

    def _first_end(self) -> datetime | None:
        """Return the instant from which the first page goes back; None for the newest bars."""
        wanted = expected(self._calendar, self._freq, Span(self._start, self._low))
        if not wanted or not self._capability.end_honoured:
            return None
        end = self._ending(wanted[-1])
        end += _AFTER_CLOSE if self._calendar.name.startswith("X") else timedelta()
        return end if end < self._now and self._begun_since(self._freq.following(wanted[-1])) else None

    def _begun_since(self, day: date) -> bool:
        """Return whether a session on or after `day` has begun: else the newest page is the one wanted."""
        return started(self._calendar, self._freq, Span(day, date.max), self._now) > day

    def _bars_left(self) -> int:
        low = self._low
        if self._held.num_rows:  # the held session is asked for again
            low = max(low, self._freq.following(self._held["session"][0].as_py()))
        return self._calendar.bars(self._start, low, self._freq)

    def _prints(self) -> int:
        """Return how many auction prints may come beside the wanted bars."""
        extra = self._capability.session_extra.get((self._venue, self._freq), 0)
        return extra * self._calendar.bars(self._start, self._low, Freq.D1)

    def _missing_below(self, low: date) -> bool:
        return bool(expected(self._calendar, self._freq, Span(self._start, low)))

    def _newer_than(self, end: datetime, bars: pa.Table) -> bool:
        if self._freq.intraday:
            return bool(bars["ts"][-1].as_py() > end)
        return bool(bars["session"][-1].as_py() > self._freq.anchor(end.astimezone(self._zone).date()))

    def _strayed(self, end: datetime, rejects: tuple[Reject, ...]) -> Taken:
        """Ask once more when a page is newer than its end; the second one in a row shows how the vendor is."""
        if self._astray:
            self.end_ignored = True
            return self._stop(
                "no progress: the vendor ignores the end of a page and gives its newest bars", rejects
            )
        self._astray, self._end = True, end + _ANOTHER
        return Taken(empty(INCOMING), (), rejects)

    def _leaves_hole(self, bars: pa.Table) -> bool:
        """Return whether whole sessions lie between this page and the one before: a wrong page, or a halt."""
        if self._oldest is None or bars["ts"][-1].as_py() >= self._oldest:
            return False
        newest: date = bars["session"][-1].as_py()
        upper = self._held["session"][0].as_py() if self._held.num_rows else self._low
        return bool(expected(self._calendar, self._freq, Span(self._freq.following(newest), upper)))

    def _advance(self, got: SeriesPage, page: Page, oldest: datetime) -> Taken:
        bars = self._joined(got.bars)
        self._received += _count_before(got.bars, self._oldest) + len(got.rejects)
        self._oldest = oldest
        self._end = oldest if self._capability.end_honoured else None
        self._refusals.note(got.rejects, Span(got.bars["session"][0].as_py(), self._low))
        low, held = self._complete_from(bars)
        proven = Span(low, self._low)
        witness = self._witness(page)
        whole = bars if not held.num_rows else bars.slice(held.num_rows)
        self._held, self._held_page = held, page.id if held.num_rows else ""
        self._done = not self._missing_below(low)
        if self._done:
            proven = Span(self._start, self._low)
        self._low = max(self._start, min(low, self._low))
        taken = self._taken(whole, proven, witness, got.rejects)
        if self._done:
            return self._closed(taken, (), witness)
        depth = self._capability.reach
        if depth and self._received >= depth:
            return self._at_horizon(taken, witness)
        if not self._capability.end_honoured:
            return self._after_only_page(got, taken, witness)
        # A vendor may cut pages silently: down to an eighth of its limit that is no reason to stop.
        self._fullest = max(self._fullest, got.bars.num_rows)
        if self._pages >= 2 * entries_needed(self._total, self._fullest) + 8:
            self.stopped = f"page cap: {self._pages} pages did not reach {self._start}"
        return taken

    def _after_only_page(self, got: SeriesPage, taken: Taken, witness: Witness) -> Taken:
        """Go on after the newest page of a vendor that gives no other one: a full one may be longer."""
        if got.bars.num_rows + len(got.rejects) < got.entry.count:
            return self._begun(taken, witness)
        if got.entry.count >= self._capability.page_limit:
            return self._at_horizon(taken, witness)
        self._whole_page = True
        return taken

    def _at_horizon(self, taken: Taken, witness: Witness) -> Taken:
        """End the chain where the vendor gives no older bars.

        What it has of the session that the horizon cuts is kept where no auction can be
        missing from it: round the clock, where no page may ever hold a whole day. It stands as
        held, with the horizon as the reason for what it lacks.
        """
        held = self._held
        if held.num_rows:
            session: date = held["session"][0].as_py()
            if session >= self._start and not any(
                grid(self._calendar.name, self._freq, session, session).auction
            ):
                found = stretches(self.series, self._calendar, Span(session, self._low), {session}, witness)
                cut = tuple(replace(one, reason=Reason.HORIZON) for one in found)
                bars = pa.concat_tables([fold(held), taken.bars])
                taken = Taken(bars, (*cut, *taken.stretches), taken.rejects, taken.untold)
                self._low = session
        return self._closed(taken, (self._older(Reason.HORIZON, witness),), witness)

    def _joined(self, bars: pa.Table) -> pa.Table:
        """Return the page's bars below what is proven, the held session's newer part behind them."""
        below = bars.filter(pc.less(bars["session"], pa.scalar(self._low, pa.date32())))
        if not self._held.num_rows:
            return below
        newest = bars["ts"][-1]
        return pa.concat_tables([below, self._held.filter(pc.greater(self._held["ts"], newest))])

    def _complete_from(self, bars: pa.Table) -> tuple[date, pa.Table]:
        """Return (first session of which everything is here, bars of the one before it)."""
        if not bars.num_rows:
            return self._low, bars
        first: date = bars["session"][0].as_py()
        if not self._freq.intraday:
            return first, bars.slice(0, 0)
        if self._opens(bars, first):
            return first, bars.slice(0, 0)
        partial = pc.sum(pc.equal(bars["session"], bars["session"][0])).as_py()
        # A copy: a slice would keep the whole page in memory until the next one comes.
        return min(self._calendar.next(first), self._low), bars.take(np.arange(partial))

    def _opens(self, bars: pa.Table, session: date) -> bool:
        """Return whether nothing of `session` can stand before its first bar here."""
        ts, opened = bars["ts"][0].as_py(), self._calendar.hours(session).open
        if session in self._seen and ts + timedelta(minutes=self._freq.minutes) <= self._seen[session]:
            return True  # the lake holds what comes before
        if ts != opened:
            return bool(ts < opened)
        printed = grid(self._calendar.name, self._freq, session, session).auction
        return not printed[0]  # else the print of the opening auction may be on the page before

    def _at_beginning(self, page: Page, rejects: tuple[Reject, ...]) -> Taken:
        """Believe an empty or unmoved page when it comes twice."""
        self._doubts += 1
        nothing = Taken(empty(INCOMING), (), rejects)
        if self._doubts < _TRIES:
            return nothing
        if self._oldest is None and self._end is None:
            return self._stop("the vendor gives no bars at all", rejects)
        witness = self._witness(page)
        depth = self._capability.reach
        if depth and self._received + self._newer >= depth:
            return self._at_horizon(nothing, witness)
        return self._begun(nothing, witness)

    def _begun(self, taken: Taken, witness: Witness) -> Taken:
        """End the chain where the vendor's bars begin; what it has of a session that it cut is not kept."""
        held = self._held
        if held.num_rows and held["ts"][0].as_py() > self._calendar.hours(held["session"][0].as_py()).open:
            held = empty(INCOMING)
        more = self._taken(held, Span(self._start, self._low), witness, taken.rejects)
        bars = pa.concat_tables([more.bars, taken.bars])
        both = Taken(bars, more.stretches + taken.stretches, taken.rejects, {**more.untold, **taken.untold})
        return self._closed(both, (), witness)

    def _taken(
        self, bars: pa.Table, proven: Span[date], witness: Witness, rejects: tuple[Reject, ...]
    ) -> Taken:
        wanted = fold(bars.filter(pc.greater_equal(bars["session"], pa.scalar(self._start, pa.date32()))))
        sessions: set[date] = set(pc.unique(wanted["session"]).to_pylist())
        untold = self._refusals.within(proven)
        if not self._freq.intraday:  # a day's only bar: it is there, or its session lacks everything
            untold = {s: rows for s, rows in untold.items() if s not in sessions}
            sessions |= {s for s, rows in untold.items() if any(r.ts is not None for r in rows)}
        found = stretches(self.series, self._calendar, proven, sessions, witness)
        return Taken(wanted, tuple(found), rejects, untold)

    def _older(self, reason: Reason, witness: Witness) -> Covered:
        return empty_stretch(self.series, Span(self._start, self._low), reason, witness)

    def _closed(self, taken: Taken, older: tuple[Covered, ...], witness: Witness) -> Taken:
        """End the chain: everything wanted is accounted for."""
        self._done = True
        self._held = empty(INCOMING)
        before = Span(self._begin, self._start)
        unlisted = (empty_stretch(self.series, before, Reason.NOT_LISTED, witness),) if before else ()
        told = (*unlisted, *(o for o in older if o.sessions), *taken.stretches)
        return Taken(taken.bars, told, taken.rejects, taken.untold)

    def _witness(self, page: Page) -> Witness:
        return Witness(
            self._held_page or page.id, page.id, page.received_at, self._capability.settle(self._venue)
        )

    def _doubted(self, reason: str, rejects: tuple[Reject, ...]) -> Taken:
        self._doubts += 1
        return (
            self._stop(reason, rejects) if self._doubts >= _SPOILED else Taken(empty(INCOMING), (), rejects)
        )

    def _stop(self, reason: str, rejects: tuple[Reject, ...]) -> Taken:
        self.stopped = reason
        return Taken(empty(INCOMING), (), rejects)


def _count_before(bars: pa.Table, oldest: datetime | None) -> int:
    """Return how many bars of a page had not been seen before."""
    if oldest is None:
        return int(bars.num_rows)
    return int(pc.sum(pc.less(bars["ts"], pa.scalar(oldest))).as_py() or 0)
