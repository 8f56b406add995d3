"""The plan: what is wanted and not covered, packed into the fewest requests. Pure."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

from ..ingest.fetch import entries_needed
from ..schemas.capability import Capability
from ..schemas.coverage import Covered, Reason, Series, Standing
from ..schemas.freq import Freq
from ..schemas.quota import Quota
from ..schemas.session import Calendar, Hours, calendar
from ..schemas.span import Span, missing, overlap
from ..schemas.symbol import Symbol

__all__ = ["Plan", "Want", "due", "make_plan", "rounds", "seen", "wanted"]

_REPLY_S: Final = (0.2, 1.0)  # a reply takes this long, at best and at worst


@dataclass(frozen=True, slots=True)
class Want:
    """One chain of pages: a series, the sessions it must cover, and what that should take."""

    series: Series
    sessions: Span[date]
    bars: int
    entries: int
    seen: tuple[tuple[date, datetime], ...] = ()  # sessions that the lake holds up to an instant


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sync will send. Nothing was sent to make it.

    `requests` is what the packing gives, `fewest` what no packing could beat; `bars` is the
    expected count; `finish` is a range of instants; `unspelled` are symbols that the vendor
    cannot spell; `ready` says how many series are complete after how many requests.
    """

    job: str
    vendor: str
    wants: tuple[Want, ...]
    requests: int
    fewest: int
    bars: int
    quotas: tuple[Quota, ...]
    now: datetime
    finish: tuple[datetime, datetime]
    unspelled: tuple[str, ...] = ()
    ready: tuple[tuple[int, int], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain values, for `--json`."""
        return {
            "job": self.job, "vendor": self.vendor, "requests": self.requests, "fewest": self.fewest,
            "series": len({w.series for w in self.wants}), "bars": self.bars,
            "quotas": [{"n": q.n, "window_s": q.window_s, "scope": q.scope, "windows": -(-self.requests // q.n)} for q in self.quotas],
            "finish_from": self.finish[0].isoformat(), "finish_to": self.finish[1].isoformat(),
            "unspelled": list(self.unspelled), "ready": [list(r) for r in self.ready],
            "wants": [
                {"symbol": w.series.symbol, "freq": w.series.freq.value, "start": w.sessions.start.isoformat(),
                 "end": w.sessions.end.isoformat(), "bars": w.bars, "entries": w.entries}
                for w in self.wants
            ],
        }  # fmt: skip


def wanted(days: Calendar, freq: Freq, start: date, end: date | None, now: datetime) -> Span[date]:
    """Return the sessions that a job wants at `now`.

    `start` and `end` are inclusive dates; the newest session is the one that has opened by
    `now`. For 1w and longer both ends are the anchors of whole bars.
    """
    newest = days.last_ended(now)
    running = days.next(newest)
    if days.hours(running).open <= now:
        newest = running
    last = min(newest, end) if end is not None else newest
    first = freq.anchor(start)
    return Span(first, max(first, freq.following(freq.anchor(last))))


def due(stretch: Covered, days: Calendar, now: datetime) -> bool:
    """Tell whether a held stretch has to be asked for again.

    Only an open one can be: below one day when one more bar has ended since it was fetched,
    from one day up when the session (for 1w and longer: one of its sessions) has ended.
    """
    if stretch.standing is not Standing.OPEN:
        return False
    freq = stretch.series.freq
    if freq.intraday:
        newest = days.previous(stretch.sessions.end)
        end = _next_end(days.hours(newest), freq, stretch.fetched_at)
        return end is not None and end <= now
    newest = freq.anchor(stretch.sessions.end - timedelta(days=1))
    ended = min(days.last_ended(now), days.previous(freq.following(newest)))
    return days.hours(ended).close > stretch.fetched_at


def _next_end(hours: Hours, freq: Freq, after: datetime) -> datetime | None:
    """Return when the first bar of a session ends that ends after `after`; None when there is none."""
    step = timedelta(minutes=freq.minutes)
    for segment in hours.segments:
        if after < segment.end:
            whole = max(after - segment.start, timedelta()) // step
            return min(segment.start + (whole + 1) * step, segment.end)
    return None


def _riding(stretch: Covered, days: Calendar, capability: Capability) -> Span[date] | None:
    """Return the part of a stretch that is worth another look when its series is asked anyway.

    That is what had not settled when it was fetched; None: nothing.
    """
    unsure = stretch.standing is Standing.EMPTY and stretch.reason is Reason.VENDOR_NONE
    if not unsure and stretch.standing not in (Standing.OPEN, Standing.CLOSED):
        return None
    settle_s = capability.settle(Symbol.parse(stretch.series.symbol).venue)
    settled = days.last_ended(stretch.fetched_at - timedelta(seconds=settle_s))
    first = stretch.series.freq.anchor(days.next(settled))
    return overlap(stretch.sessions, Span(first, date.max))


def make_plan(
    *, job: str, vendor: str, symbols: Sequence[Symbol], freqs: Sequence[Freq], start: date, end: date | None,
    covered: Mapping[Series, Sequence[Covered]], capability: Capability, now: datetime,
    unspelled: Sequence[str] = (), parked: Iterable[Series] = (),
) -> Plan:  # fmt: skip
    """Return the plan of one job at one vendor.

    Parameters
    ----------
    symbols : sequence of Symbol
        The universe, as far as the vendor can spell it.
    start, end : date
        Inclusive; end None means up to now.
    covered : mapping
        What the ledger says of each series; a series that is not in it is wholly missing.
    parked : iterable of Series
        Given up until later: left out.
    """
    wants: list[Want] = []
    skip = set(parked)
    for symbol in symbols:
        days = calendar(symbol.place.calendar)
        for freq in freqs:
            series = Series(vendor, str(symbol), freq)
            if series not in skip and freq in capability.freqs:
                span = wanted(days, freq, start, end, now)
                wants += _wants(series, span, covered.get(series, ()), days, capability, now)
    lanes = Counter[Series]()  # the chains of one series follow each other
    for want in wants:
        lanes[want.series] += want.entries
    wants.sort(key=lambda w: (-lanes[w.series], w.series))  # within a series the newest stays first
    lengths = list(lanes.values())
    packed = rounds(lengths, capability.products)
    fewest = max(-(-sum(lengths) // capability.products), max(lengths, default=0))
    return Plan(
        job=job, vendor=vendor, wants=tuple(wants), requests=len(packed), fewest=fewest,
        bars=sum(w.bars for w in wants), quotas=capability.quotas, now=now,
        finish=_finish(now, len(packed), capability.quotas), unspelled=tuple(unspelled),
        ready=_ready(lengths, packed),
    )  # fmt: skip


def _wants(
    series: Series,
    span: Span[date],
    held: Sequence[Covered],
    days: Calendar,
    capability: Capability,
    now: datetime,
) -> list[Want]:
    """Return the chains that fill `span`: holes merged where one page reaches over both."""
    settled = [c.sessions for c in held if not due(c, days, now)]
    holes = missing(settled, span)
    if not holes:
        return []
    looked = (part for c in held if (part := _riding(c, days, capability)))
    riders = [inside for part in looked if (inside := overlap(part, span))]
    holes = missing(missing_of(settled, riders), span)
    out: list[Want] = []
    for hole in reversed(holes):
        want = _want(series, hole, days, capability, now)
        if want is None:
            continue
        if out:
            joined = _want(series, Span(hole.start, out[-1].sessions.end), days, capability, now)
            if joined is not None and joined.entries < want.entries + out[-1].entries:
                out[-1] = joined
                continue
        out.append(want)
    known = seen(held, days)
    return [
        replace(w, seen=tuple(s for s in known if w.sessions.start <= s[0] < w.sessions.end)) for w in out
    ]


def seen(held: Iterable[Covered], days: Calendar) -> list[tuple[date, datetime]]:
    """Return the sessions whose bars are held without a gap up to the instant at which they were fetched."""
    running = (c for c in held if c.standing in (Standing.OPEN, Standing.CLOSED) and c.reason is Reason.NONE)
    return [
        (session, c.fetched_at)
        for c in running
        if c.series.freq.intraday
        for session in days.sessions(c.sessions.start, c.sessions.end)
    ]


def missing_of(held: Iterable[Span[date]], taken: Iterable[Span[date]]) -> list[Span[date]]:
    """Return what is left of `held` when the spans `taken` are cut out of it."""
    return [part for span in held for part in missing(taken, span)]


def _want(
    series: Series, span: Span[date], days: Calendar, capability: Capability, now: datetime
) -> Want | None:
    """Return one chain over `span`, no deeper than the vendor's horizon; None when nothing trades in it."""
    venue = series.symbol.rpartition(".")[2]
    capability = capability.at(venue)
    bars = expected_bars(days, span, series.freq, capability.session_extra.get((venue, series.freq), 0))
    if not bars:
        return None
    if capability.reach:
        newer = wanted(days, series.freq, span.end, None, now)
        reach = capability.reach - expected_bars(days, newer, series.freq, 0)
        bars = max(1, min(bars, reach))
    return Want(series, span, bars, entries_needed(bars, capability.page_limit))


def expected_bars(days: Calendar, span: Span[date], freq: Freq, extra: int) -> int:
    """Return how many bars a series that trades every minute has in `span`.

    `extra` is the number of bars per session that stand on the wire beyond the grid.
    """
    prints = extra * days.bars(span.start, span.end, Freq.D1) if extra and freq.intraday else 0
    return days.bars(span.start, span.end, freq) + prints


def rounds(lengths: Sequence[int], products: int) -> list[tuple[int, ...]]:
    """Return requests as tuples of chain numbers, at most `products` each, longest chains first.

    The pages of a chain follow each other, so a chain stands once in a request at most; by
    always taking the longest rests, the count is max(⌈Σ ÷ products⌉, longest chain).
    """
    heap = [(-length, number) for number, length in enumerate(lengths) if length > 0]
    heapq.heapify(heap)
    out: list[tuple[int, ...]] = []
    while heap:
        taken = [heapq.heappop(heap) for _ in range(min(products, len(heap)))]
        out.append(tuple(number for _, number in taken))
        for rest, number in taken:
            if rest < -1:
                heapq.heappush(heap, (rest + 1, number))
    return out


def _ready(lengths: Sequence[int], packed: Sequence[tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
    """Return (requests sent, series complete by then), at each quarter of the way."""
    left = list(lengths)
    done, out = 0, []
    marks = {max(1, round(len(packed) * part)) for part in (0.25, 0.5, 0.75, 1.0)} if packed else set[int]()
    for sent, chosen in enumerate(packed, 1):
        for number in chosen:
            left[number] -= 1
            done += left[number] == 0
        if sent in marks:
            out.append((sent, done))
    return tuple(out)


def _finish(now: datetime, requests: int, quotas: Sequence[Quota]) -> tuple[datetime, datetime]:
    """Return the earliest and the latest likely end: full windows first, then replies and one retry in ten."""

    def end(count: int, reply_s: float) -> datetime:
        waits = [
            (-(-count // q.n) - 1) * (q.window_s + reply_s) for q in quotas if q.scope != "month-symbols"
        ]
        burst = min([count, *(q.n for q in quotas if q.scope != "month-symbols")])
        return now + timedelta(seconds=max([0.0, *waits]) + burst * reply_s)

    if not requests:
        return now, now
    return end(requests, _REPLY_S[0]), end(requests + -(-requests // 10), _REPLY_S[1])
