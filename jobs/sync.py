"""Sync: the main job. Replay, plan, reserve, fetch, keep raw, normalise, check, upsert, cover, report.

A page is durable in the raw zone before anything else happens to it, so a run that is
killed at any moment costs no request twice: the next run replays what was received.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from ..errors import BadCredentials, BadRequest, Interrupted, UnitMismatch, VendorError
from ..ingest.canary import Unverified, canaries
from ..ingest.fetch import Chain, Taken
from ..ingest.vendor import Vendor
from ..schemas.coverage import Series
from ..schemas.events import Fetched, Finding, Gave, Planned, Replayed, RunEnded, RunStarted, Waiting
from ..schemas.page import Entry, Page, SeriesPage
from ..schemas.report import Parked, RunReport
from ..schemas.session import calendar
from ..schemas.settings import Job
from ..schemas.symbol import Symbol
from ..storage.coverage import Parking
from ..storage.runs import run_id
from .account import balance
from .chains import Fetching
from .desk import Books, Desk
from .facts import ignored, keep, observed
from .harvest import Harvest
from .horizon import beyond
from .maintain import end_run
from .pages import starts_of_jobs
from .peak import peak_mb
from .plan import Plan, make_plan, wanted
from .replay import replay, settle
from .send import Sender, Stop
from .turn import turn

__all__ = ["plan", "sync"]

_PARK: Final = timedelta(hours=6)  # after the first refusal; twice as long after each further one
_PARK_LONGEST: Final = timedelta(days=7)
_WORKERS: Final = 8


def plan(desk: Desk, name: str, job: Job) -> Plan:
    """Return what `sync` would send for a job, without sending anything.

    Pages that an earlier run received but did not store are counted as still to fetch.
    """
    books, vendor = desk.books(create=True), desk.vendor(job.vendor)
    try:
        books.store.refuse_damage()
        observed(vendor, books.ledger, desk.clock.now())
        return _planned(desk, name, job, vendor, _known(books, vendor, desk.symbols(job), job))
    finally:
        vendor.close()


@dataclass(frozen=True, slots=True)
class _Known:
    """The universe as the vendor spells it, and what the books say of it.

    `series` are those that can be asked for; `refused` those that cannot, each with the reason.
    """

    symbols: Sequence[Symbol]
    unspelled: tuple[str, ...]
    series: Sequence[Series]
    refused: Mapping[Series, str]
    books: Books


def sync(desk: Desk, name: str, job: Job) -> RunReport:
    """Run a job once and return its report; the lake then holds what the vendor could give.

    Raises
    ------
    BadCredentials, LakeOrigin, ConfigError, LakeError
        Nothing can be done at all. What vendors refuse or fail to deliver otherwise is in
        the report: `parked`, `missing`, `error`.
    CommitConflict
        A job of the configuration is being run by another process. Jobs that stand in no
        file may run beside each other.
    Interrupted
        Ctrl-C; what was received is stored or will be replayed.
    """
    books = desk.books(create=True)
    books.store.refuse_damage()  # else coverage would call bars held that cannot be read any more
    with turn(books, job.vendor, name) if desk.settings.jobs.get(name) == job else nullcontext():
        return _reported(desk, name, job, books)


def _reported(desk: Desk, name: str, job: Job, books: Books) -> RunReport:
    run, began, cpu = run_id(desk.clock), desk.clock.now(), time.process_time()
    vendor = desk.vendor(job.vendor, run)
    report = RunReport(run=run, job=name, vendor=job.vendor, sandbox=desk.sandbox)
    desk.events.emit(RunStarted(run, name, job.vendor, desk.sandbox))
    books.runs.start(run, name, job.vendor, began)
    try:
        _Run(desk, name, job, vendor, books, report).go()
    finally:
        vendor.close()
        books.store.raw.release()
        report.seconds = (desk.clock.now() - began).total_seconds()
        report.cpu_s, report.peak_mb = time.process_time() - cpu, peak_mb()
        books.runs.finish(report, desk.clock.now())
        desk.events.emit(RunEnded(report))
    return report


class _Run:
    """One run of one job."""

    def __init__(
        self, desk: Desk, name: str, job: Job, vendor: Vendor, books: Books, report: RunReport
    ) -> None:
        self._desk, self._name, self._job, self._vendor = desk, name, job, vendor
        self._books, self._report, self._events = books, report, desk.events
        books.store.told_by(report.run)
        self._stop = Stop(desk.clock)
        self._quotas = desk.quotas(self._stop, self._waiting)
        self._sender = Sender(vendor, self._quotas, books.store.raw, self._stop)
        self._harvest = Harvest(books, desk.clock, desk.events)

    def go(self) -> None:
        """Replay, plan, fetch, store; the report is filled whatever happens."""
        whole, looked = False, self._desk.clock.now()
        try:
            observed(self._vendor, self._books.ledger, self._desk.clock.now())
            whole = self._replay()
            known = _known(self._books, self._vendor, self._desk.symbols(self._job), self._job)
            self._note_floors(known)
            made = _planned(self._desk, self._name, self._job, self._vendor, known)
            self._report.requests_planned, self._report.requests_fewest = made.requests, made.fewest
            series = len({w.series for w in made.wants})
            aside = _aside(known, made.now).values()
            self._events.emit(Planned(
                made.requests, made.fewest, made.bars, series, made.finish[0], parked=len(aside),
                retry_at=min((p.retry_at for p in aside if p.retry_at is not None), default=None),
            ))  # fmt: skip
            self._fetch(made)
        except (KeyboardInterrupt, Interrupted):
            self._stop.tell()
            self._report.error, self._report.stopped_with = "interrupted", Interrupted.exit_code
            raise Interrupted from None
        except (BadCredentials, UnitMismatch) as error:
            self._report.error, self._report.stopped_with = str(error), error.exit_code
            raise
        except VendorError as error:
            self._report.error = str(error)
        finally:
            self._close()
        if whole and not self._report.error:
            settle(self._books, self._vendor.name, self._report.run, looked)

    def _replay(self) -> bool:
        """Store what earlier runs received and did not store; return whether all of it was seen."""
        done = replay(self._books, self._vendor, self._report.run, self._harvest, self._starts)
        self._report.replayed = done.pages
        for problem in self._books.store.raw.problems():
            self._events.emit(Finding("raw page", "", str(problem)))
        if done.pages:
            self._events.emit(Replayed(done.pages))
        return done.whole

    def _starts(self) -> dict[Series, date]:
        return starts_of_jobs(self._desk, self._vendor.name, self._job)

    def _note_floors(self, known: _Known) -> None:
        """Record what lies before the vendor's declared floors, so that readers are told why it is not there."""
        held = self._books.ledger.covered(known.series)
        floors = beyond(held, self._job.start, self._vendor.capability)
        self._books.ledger.record(one for some in floors.values() for one in some)

    def _fetch(self, made: Plan) -> None:
        if not made.wants:
            return
        self._canaries(made)
        chains = [
            Chain(w.series, w.sessions, self._vendor.capability,
                  calendar(Symbol.parse(w.series.symbol).place.calendar), made.now, seen=dict(w.seen))
            for w in made.wants
        ]  # fmt: skip
        parked = self._books.ledger.parked().keys()
        fetching = Fetching(self._vendor, self._sender, chains, _workers(self._vendor), alone=parked)

        def took(page: Page, parts: list[tuple[SeriesPage, Taken]]) -> None:
            self._harvest.add(page, parts)
            rows = sum(part.bars.num_rows for part, _ in parts)
            done = self._sender.sent - self._report.canaries
            self._events.emit(Fetched(done, done + fetching.left(), rows, len(page.body)))

        try:
            fetching.run(took, self._stop.tell)
        finally:
            self._park(fetching)
            if fetching.end_ignored:
                told = ignored(self._vendor.capability, fetching.end_ignored)
                keep(self._books.ledger, self._vendor.name, told, self._desk.clock.now())

    def _canaries(self, made: Plan) -> None:
        """Check units once per group of symbols, under the quota, apart from the plan's requests."""
        symbols = list(dict.fromkeys(Symbol.parse(w.series.symbol) for w in made.wants))
        before, name = self._sender.sent, self._vendor.name
        try:
            for fact in canaries(self._vendor, symbols, self._books.ledger, self._sender.page):
                if isinstance(fact, Unverified):
                    self._events.emit(Finding("volume unit", "", f"{fact.name} is not verified: {fact.why}"))
                else:
                    self._books.ledger.set_fact(name, fact.name, fact.value, self._desk.clock.now())
        finally:
            self._report.canaries = self._sender.sent - before

    def _park(self, fetching: Fetching) -> None:
        """Set aside the series that the vendor did not give, each with its reason and its own retry clock."""
        now, parked = self._desk.clock.now(), self._books.ledger.parked()
        for series in (fetching.finished & parked.keys()) - fetching.gave_up.keys():
            self._books.ledger.unpark(series)
        for series, why in fetching.gave_up.items():
            before = parked[series].tries if series in parked else 0
            self._books.ledger.park(series, why, _retry_at(now, before))
            self._events.emit(Gave(series.symbol, series.freq.value, why))

    def _close(self) -> None:
        """Store what is gathered, seal raw, publish, and fill the report."""
        stopped = False
        try:
            self._harvest.flush()
            end_run(self._books, self._desk.settings.lake.raw_days)
        except KeyboardInterrupt:  # what is not stored now is replayed by the next run
            stopped = True
        report, harvest = self._report, self._harvest
        report.written, report.findings = harvest.written, harvest.findings
        report.requests_sent = self._sender.sent - report.canaries
        report.bytes_received = self._sender.received
        self._balance()
        if stopped:
            report.error = "interrupted"
            raise Interrupted

    def _balance(self) -> None:
        known = _known(self._books, self._vendor, self._desk.symbols(self._job), self._job)
        now = self._desk.clock.now()
        wants = [
            (
                s,
                wanted(
                    calendar(Symbol.parse(s.symbol).place.calendar),
                    s.freq,
                    self._job.start,
                    self._job.end,
                    now,
                ),
            )
            for s in known.series
        ]
        total = balance(wants, self._books.ledger.covered(known.series))
        report = self._report
        report.expected, report.stored, report.missing = total.expected, total.stored, total.missing
        report.empty = dict(total.empty)
        parked = self._books.ledger.parked()
        report.parked = [
            Parked(s.symbol, s.freq.value, parked[s].error, parked[s].retry_at)
            for s in known.series
            if s in parked
        ]
        report.parked += [Parked(s.symbol, s.freq.value, why, None) for s, why in known.refused.items()]
        report.parked += [Parked(text, "", "the vendor cannot spell it", None) for text in known.unspelled]

    def _waiting(self, seconds: float, why: str) -> None:
        self._report.waited_s += seconds
        self._events.emit(Waiting(seconds, why))


def _known(books: Books, vendor: Vendor, symbols: Sequence[Symbol], job: Job) -> _Known:
    spelled = [s for s in symbols if vendor.spell(s) is not None]
    unspelled = tuple(str(s) for s in symbols if vendor.spell(s) is None)
    for freq in job.freq:
        if freq not in vendor.capability.freqs:
            offered = tuple(f.value for f in vendor.capability.freqs)
            raise BadRequest("freq", freq.value, offered, hint=f"{vendor.name} offers no other ones",
                             hint_zh=f"{vendor.name} 不提供其他周期")  # fmt: skip
    every = [Series(vendor.name, str(s), f) for s in spelled for f in job.freq]
    refused = {series: why for series in every if (why := _why_not(vendor, series))}
    return _Known(spelled, unspelled, [s for s in every if s not in refused], refused, books)


def _why_not(vendor: Vendor, series: Series) -> str:
    """Return why a series cannot be asked for at all; empty when it can."""
    try:
        vendor.request((Entry(series.symbol, series.freq, None, 1),))
    except BadRequest as error:
        return error.hint or str(error)
    return ""


def _retry_at(now: datetime, refusals: int) -> datetime:
    """Return when a series is asked again that was refused `refusals` times before this one."""
    return now + min(_PARK * (1 << min(refusals, 10)), _PARK_LONGEST)


def _aside(known: _Known, now: datetime) -> dict[Series, Parking]:
    """Return the wanted series whose time to be asked again has not come."""
    parked = known.books.ledger.parked()
    held = {series: parked[series] for series in known.series if series in parked}
    return {series: p for series, p in held.items() if p.retry_at is None or p.retry_at > now}


def _planned(desk: Desk, name: str, job: Job, vendor: Vendor, known: _Known) -> Plan:
    now = desk.clock.now()
    cannot = [f"{series.symbol} {series.freq}" for series in known.refused]
    covered = known.books.ledger.covered(known.series)
    floors = beyond(covered, job.start, vendor.capability)
    return make_plan(
        job=name, vendor=vendor.name, symbols=known.symbols, freqs=job.freq, start=job.start, end=job.end,
        covered={**covered, **{s: (*covered[s], *more) for s, more in floors.items()}},
        capability=vendor.capability, now=now,
        unspelled=(*known.unspelled, *cannot), parked=[*_aside(known, now), *known.refused],
    )  # fmt: skip


def _workers(vendor: Vendor) -> int:
    """Return how many requests may be under way at once, so that replies of a second keep up with the quota."""
    rates = [q.n / q.window_s for q in vendor.capability.quotas if q.scope in {"account", "ip"}]
    return min(_WORKERS, max(1, math.ceil(min(rates, default=1.0) * 1.5)))
