"""Replay: pages that were received but not stored, stored now, without a request."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final

from ..errors import BadPage
from ..ingest.fetch import Chain
from ..ingest.vendor import Vendor
from ..schemas.coverage import Series
from ..schemas.page import Page
from ..schemas.session import calendar
from ..schemas.span import Span
from ..schemas.symbol import Symbol
from .desk import Books
from .harvest import Harvest

__all__ = ["replay"]

_BEGINNING: Final = date(1970, 1, 1)


def replay(books: Books, vendor: Vendor, harvest: Harvest, starts: Mapping[Series, date]) -> int:
    """Bring the unstored pages of `vendor` into the lake and return how many there were.

    A page counts as stored when the table `requests` names it. Pages go in the order of
    receipt through chains of their own, so that sessions cut by a page's edge are put
    together again; what stays cut is asked for anew by the next plan.

    Parameters
    ----------
    starts : mapping
        From which session on a series is wanted; one that is not in it is taken whole.
    """
    known = set(books.store.table("requests", columns=["page_id"])["page_id"].to_pylist())
    pages = [page for page in books.store.raw.unsettled(known) if page.request.vendor == vendor.name]
    chains: dict[Series, Chain] = {}
    for page in sorted(pages, key=lambda p: (p.received_at, p.id)):
        _replay(page, vendor, chains, harvest, starts)
    harvest.flush()
    return len(pages)


def _replay(
    page: Page, vendor: Vendor, chains: dict[Series, Chain], harvest: Harvest, starts: Mapping[Series, date]
) -> None:
    try:
        parts = vendor.parse(page)
    except BadPage:
        return  # it was unreadable when it came, too: the plan asks again
    taken = []
    for part in parts:
        series = Series(vendor.name, part.entry.symbol, part.entry.freq)
        if series not in chains:
            chains[series] = _chain(series, vendor, page, starts.get(series, _BEGINNING))
        taken.append((part, chains[series].take(part, page)))
    harvest.add(page, taken)


def _chain(series: Series, vendor: Vendor, page: Page, start: date) -> Chain:
    """Return a chain that wants everything from `start` up to the page's day."""
    days = calendar(Symbol.parse(series.symbol).place.calendar)
    wanted = Span(start, page.received_at.date() + timedelta(days=2))
    return Chain(series, wanted, vendor.capability, days, page.received_at)
