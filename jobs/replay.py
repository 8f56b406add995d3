"""Replay: pages that were received but not stored, stored now, without a request.

How far back that must look is kept among the vendor's facts, as `settled`: every page
received before that instant is stored. Where the state was lost, or is of a later lake than
this one, all of the raw zone is looked through.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from ..errors import BadPage
from ..ingest.fetch import Chain
from ..ingest.vendor import Vendor
from ..schemas.compute import pc
from ..schemas.coverage import Series, Standing
from ..schemas.page import Page
from ..schemas.session import calendar
from ..schemas.span import Span
from ..schemas.symbol import Symbol
from ..storage.coverage import Ledger
from .chains import unread
from .desk import Books
from .harvest import Harvest

__all__ = ["Replay", "look_back", "replay", "settle", "stored_pages"]

_BEGINNING: Final = date(1970, 1, 1)
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

    A page counts as stored when the table `requests` names it, and nothing that it proved was
    lost since. Pages go in the order of
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
    known = stored_pages(books)
    pages = [p for p in raw.unsettled(known, since, living) if p.request.vendor == vendor.name]
    if pages:
        begin, chains = starts(), dict[Series, Chain]()
        newest = max(page.received_at for page in pages)
        for page in sorted(pages, key=lambda p: (p.received_at, p.id)):
            _replay(page, vendor, chains, harvest, begin, newest)
        harvest.flush()
    return Replay(len(pages), not living)


def stored_pages(books: Books) -> set[str]:
    """Return the ids of the pages that need no replay."""
    asked = books.store.table("requests", columns=["id", "page_id", "standing", "known_at"])
    pages = set(asked["page_id"].to_pylist())
    if not pc.any(pc.equal(asked["standing"], Standing.MISSING.value)).as_py():
        return pages
    rows = asked.sort_by("known_at").select(["id", "page_id", "standing"])
    newest = {key: (page, standing) for key, page, standing in zip(*rows.to_pydict().values(), strict=True)}
    return pages - {page for page, standing in newest.values() if standing == Standing.MISSING.value}


def look_back(ledger: Ledger) -> None:
    """Make the next replay of each vendor look through all of the raw zone."""
    ledger.forget_fact(_SETTLED)


def settle(books: Books, vendor: str, run: str, at: datetime) -> None:
    """Note that every page of `vendor` received before `at` is stored; `run` is the run that saw to it."""
    version = books.store.version_of("requests")
    books.ledger.set_fact(vendor, _SETTLED, f"{version} {run}", at)


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
    newest = next((r.run for r in books.runs.last() if r.vendor == vendor and r.run != run), "")
    return fact is not None and fact.seen_at == since and fact.value.partition(" ")[2] == newest


def _replay(
    page: Page, vendor: Vendor, chains: dict[Series, Chain], harvest: Harvest, starts: Mapping[Series, date],
    newest: datetime,
) -> None:  # fmt: skip
    try:
        parts = vendor.parse(page)
    except BadPage as error:
        harvest.add(page, unread(page, str(error)))
        return
    taken = []
    for part in parts:
        series = Series(vendor.name, part.entry.symbol, part.entry.freq)
        if series not in chains:
            chains[series] = _chain(series, vendor, newest, starts.get(series, _BEGINNING))
        taken.append((part, chains[series].take(part, page)))
    harvest.add(page, taken)


def _chain(series: Series, vendor: Vendor, newest: datetime, start: date) -> Chain:
    """Return a chain that wants everything from `start` up to the day of the newest page."""
    days = calendar(Symbol.parse(series.symbol).place.calendar)
    wanted = Span(start, newest.date() + timedelta(days=2))
    return Chain(series, wanted, vendor.capability, days, newest)
