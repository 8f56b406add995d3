"""Replay: pages of the raw zone brought into the lake without a request.

Each run begins by storing the pages that were received but not stored. How far back that must
look is kept among the vendor's facts, as `settled`: every page that came before that instant is
stored. Where the state was lost, or is of a later lake than this one, all of the raw zone is
looked through. `replay_again` reads stored pages anew, as after the mending of a parser, or
where what they once gave is damaged.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from ..errors import BadRequest, ConfigError, KlakeError
from ..ingest.registry import open_parser
from ..ingest.vendor import Vendor
from ..schemas.coverage import Series
from ..schemas.events import Reread
from ..schemas.report import ReplayReport, RunReport
from ..storage.coverage import Ledger
from ..storage.raw import RawZone
from ..storage.records import Head, Ref
from ..storage.runs import run_id
from .desk import Books, Desk
from .facts import observed
from .harvest import Harvest
from .maintain import end_run
from .pages import read_pages, starts_of, starts_of_jobs

__all__ = [
    "JOB",
    "Replay",
    "Work",
    "look_back",
    "parser_of",
    "replay",
    "replay_again",
    "settle",
    "stored",
    "work_on",
]

JOB: Final = "replay"
_SETTLED: Final = "settled"
_SLOW: Final = timedelta(days=1)  # a run has its first page within that time, or it is none that lives


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay did: pages stored, and whether it saw every page (no other run was at work)."""

    pages: int
    whole: bool


def replay(
    books: Books, vendor: Vendor, run: str, harvest: Harvest, starts: Callable[[], Mapping[Series, date]]
) -> Replay:
    """Bring the unstored pages of `vendor` into the lake and return how many there were.

    A page counts as stored when the table `requests` names it. Pages go in the order of
    receipt through chains of their own, so that sessions cut by a page's edge are put
    together again; what stays cut is asked for anew by the next plan. Pages of runs that are
    at work in other processes are theirs.

    Parameters
    ----------
    run : str
        The run that asks.
    starts : callable
        Says from which session on each series is wanted by any job; one that is not in it is
        taken whole.
    """
    raw = books.store.raw
    living = raw.living()
    since = _since(books, vendor.name, run)
    if since is not None and _quiet_since(books, vendor.name, run, since):
        return Replay(0, not living)
    pages = raw.unsettled(stored(books), since, living, vendor.name)
    done = 0
    for page, parts in read_pages(raw, pages, vendor, books.ledger, starts() if pages else {}):
        harvest.add(page, parts)
        done += 1
    harvest.flush()
    return Replay(done, not living)


def settle(books: Books, vendor: str, run: str, at: datetime) -> None:
    """Note that every page of `vendor` that came before `at` is stored; `run` is the run that saw to it."""
    version = books.store.version_of("requests")
    books.ledger.set_fact(vendor, _SETTLED, f"{version} {run}", at)


def look_back(ledger: Ledger) -> None:
    """Make the next sync of each vendor look for unstored pages in all of the raw zone."""
    ledger.forget_fact(_SETTLED)


def stored(books: Books) -> frozenset[str]:
    """Return the ids of all pages that are stored."""
    return frozenset(books.store.table("requests", columns=["page_id"])["page_id"].to_pylist())


def replay_again(
    desk: Desk, vendor: str = "", since: datetime | None = None, symbols: Sequence[str] | None = None
) -> ReplayReport:
    """Normalise pages of the raw zone anew, store what they say now, and return what that changed.

    Bars of a page replace what the same page gave before, the old values go to era past; bars
    that were fetched later stay. Sessions that nobody accounts for and that a page proves are
    accounted for again. No request is sent and no key is needed.

    Parameters
    ----------
    vendor : str
        Whose pages; empty: everybody's.
    since : datetime or None
        Only pages received at or after it.
    symbols : sequence of str or None
        Only what pages say of these, canonical.

    Raises
    ------
    BadRequest
        There are no pages of that vendor.
    LakeError
        There is no lake, or it cannot be written.
    """
    books, began = desk.books(), desk.clock.now()
    report = ReplayReport(sandbox=desk.sandbox)
    known = books.store.raw.vendors()
    if vendor and vendor not in known:
        raise BadRequest("vendor", vendor, tuple(known), hint="the raw zone holds no page of it",
                         hint_zh="原始页区中没有它的数据")  # fmt: skip
    wanted = None if symbols is None else frozenset(symbols)
    try:
        for name in [vendor] if vendor else known:
            try:
                with work_on(desk, books, name, report) as work:
                    _again(work, since, wanted)
            except ConfigError as error:
                report.problems.append(str(error))
    finally:
        end_run(books, desk.settings.lake.raw_days)
    report.problems += [str(problem) for problem in books.store.raw.problems()]
    report.seconds = (desk.clock.now() - began).total_seconds()
    return report


@dataclass(frozen=True, slots=True)
class Work:
    """A replay of one vendor's pages: what it works with, and where it says what it did."""

    desk: Desk
    books: Books
    vendor: Vendor
    report: ReplayReport
    told: RunReport

    def read(
        self, raw: RawZone, pages: Sequence[Ref], harvest: Harvest, starts: Mapping[Series, date],
        symbols: frozenset[str] | None = None,
    ) -> None:  # fmt: skip
        """Store what `pages` say, with progress; the reports count it."""
        report = self.report
        try:
            for page, parts in read_pages(raw, pages, self.vendor, self.books.ledger, starts, symbols):
                harvest.add(page, parts)
                report.pages += 1
                self.told.replayed += 1
                report.unreadable += bool(parts) and all(sp.outcome == "failed" for sp, _ in parts)
                rows = sum(part.bars.num_rows for _, part in parts)
                self.desk.events.emit(Reread(self.told.replayed, len(pages), rows))
            harvest.flush()
        finally:
            self.told.written = harvest.written
            report.written += harvest.written
            report.findings += harvest.findings
            report.proved += harvest.proved


@contextmanager
def work_on(desk: Desk, books: Books, name: str, report: ReplayReport) -> Generator[Work]:
    """Yield what a replay of one vendor's pages works with; it is a run of its own in the books.

    ConfigError: the configuration does not say how these pages are to be read.
    """
    vendor, began = parser_of(desk, name), desk.clock.now()
    told = RunReport(run=run_id(desk.clock), job=JOB, vendor=name, sandbox=desk.sandbox)
    books.store.told_by(told.run)
    books.runs.start(told.run, JOB, name, began)
    try:
        observed(vendor, books.ledger, began)
        yield Work(desk, books, vendor, report, told)
    except BaseException as error:
        told.error = str(error) if isinstance(error, KlakeError) else type(error).__name__
        raise
    finally:
        vendor.close()
        told.seconds = (desk.clock.now() - began).total_seconds()
        books.runs.finish(told, desk.clock.now())


def parser_of(desk: Desk, name: str) -> Vendor:
    """Return a vendor for parsing its pages; needs its table in the configuration, but no key.

    Not even its kind is guessed from the pages: what its table says of units counts, too.
    """
    if name not in desk.settings.vendors:
        raise ConfigError(
            desk.settings.where, f"vendors.{name}", "", f"the pages of {name} cannot be read without it: add "
            f"[vendors.{name}] with the kind and capability that it had; a key is not needed for a replay",
            f"缺少它就无法读取 {name} 的数据页：请补上 [vendors.{name}]（原来的 kind 与 capability），重放不需要密钥",
        )  # fmt: skip
    return open_parser(name, desk.settings.vendors[name], desk.clock, desk.settings.where)


def _again(work: Work, since: datetime | None, symbols: frozenset[str] | None) -> None:
    def wanted(head: Head) -> bool:
        asked = {entry.symbol for entry in head.request.entries}
        return (since is None or head.received_at >= since) and (symbols is None or bool(asked & symbols))

    raw, known = work.books.store.raw, stored(work.books)
    living = raw.living()
    every = raw.refs(since, work.vendor.name, wanted)
    pages = [ref for ref in every if ref.segment not in living]
    work.report.left += len(every) - len(pages)
    if symbols is not None:  # a page that was never stored must not be stored in part: the next sync takes it
        pages = [ref for ref in pages if ref.id in known]
    harvest = Harvest(work.books, work.desk.clock, work.desk.events, again=known, run=work.told.run)
    starts = {**starts_of_jobs(work.desk, work.vendor.name), **starts_of(work.books.store)}
    work.read(raw, pages, harvest, starts, symbols)


def _since(books: Books, vendor: str, run: str) -> datetime | None:
    """Return the instant before which every page is stored; None where nothing is known."""
    fact = books.ledger.fact(vendor, _SETTLED)
    if fact is None or int(fact.value.partition(" ")[0]) > books.store.version_of("requests"):
        return None
    # A run that began before the note was made may have got its first page after that, and died.
    cut_off = [
        r.started_at
        for r in books.runs.interrupted()
        if r.vendor == vendor and r.run != run and r.started_at > fact.seen_at - _SLOW
    ]
    return min([fact.seen_at, *cut_off])


def _quiet_since(books: Books, vendor: str, run: str, since: datetime) -> bool:
    """Return whether no run has sent anything since the one that noted `since`."""
    fact = books.ledger.fact(vendor, _SETTLED)
    if fact is None or fact.seen_at != since:
        return False
    noted = fact.value.partition(" ")[2]
    others = [r for r in books.runs.last() if r.vendor == vendor and r.run != run]
    # One that began before the noted one may have ended, or been killed, with pages in its hands.
    late = [
        r for r in others if r.run != noted and (r.ended_at > since if r.ended_at else r.started_at >= since)
    ]
    return not late and bool(others) and others[0].run == noted
