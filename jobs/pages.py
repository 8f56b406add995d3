"""Pages of a raw zone, read: parsed, and put through chains of their own, as when they came."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Final

from ..errors import BadPage, KlakeError
from ..ingest.fetch import Chain, Taken
from ..ingest.vendor import Vendor
from ..schemas.coverage import Covered, Series
from ..schemas.freq import Freq
from ..schemas.page import Page, SeriesPage
from ..schemas.requests import proving
from ..schemas.session import calendar
from ..schemas.settings import Job
from ..schemas.symbol import Symbol
from ..storage.coverage import Ledger
from ..storage.raw import RawZone
from ..storage.records import Ref
from ..storage.store import Store
from .chains import unread
from .desk import Desk
from .plan import seen, wanted

__all__ = ["Parts", "read_pages", "starts_of", "starts_of_jobs"]

_PROOFS: Final = ("vendor", "symbol", "freq", "adjust", "proved_start", "proved_end", "standing")
_BEGINNING: Final = date(1970, 1, 1)
Parts = list[tuple[SeriesPage, Taken]]


def starts_of_jobs(desk: Desk, vendor: str, *more: Job) -> dict[Series, date]:
    """Return the first day that any job wants of each series; a later one must not cut a page for all.

    Empty where nobody knows what some job wants: everything is taken whole then.
    """
    starts: dict[Series, date] = {}
    for job in (*more, *desk.settings.jobs.values()):
        if job.vendor != vendor:
            continue
        try:
            symbols = desk.symbols(job)
        except KlakeError:
            return {}
        for series in (Series(vendor, str(s), freq) for s in symbols for freq in job.freq):
            starts[series] = min(job.start, starts.get(series, job.start))
    return starts


def starts_of(store: Store) -> dict[Series, date]:
    """Return the first session of each series of which the table `requests` ever told something."""
    told = proving(store.table("requests", _PROOFS)).group_by(["vendor", "symbol", "freq"])
    rows = told.aggregate([("proved_start", "min")]).to_pylist()
    return {Series(row["vendor"], row["symbol"], Freq(row["freq"])): row["proved_start_min"] for row in rows}


def read_pages(
    raw: RawZone, pages: Sequence[Ref], vendor: Vendor, ledger: Ledger, starts: Mapping[Series, date],
    symbols: frozenset[str] | None = None,
) -> Iterator[tuple[Page, Parts]]:  # fmt: skip
    """Yield each page with what it says and proves, in the order given; pages that are damaged are left out.

    `starts`: the first session wanted of each series; one that is not in it is taken whole.
    `symbols`: only what pages say of these.
    """
    chains, left = _Chains(vendor, ledger, starts), Counter(ref.run for ref in pages)
    for ref in pages:
        page = raw.page(ref)
        if page is not None:
            yield page, chains.parts(page, symbols)
        left[ref.run] -= 1
        if not left[ref.run]:
            chains.end(ref.run)


class _Chains:
    """The chains of a replay: one per run and series, as it was when the pages came."""

    def __init__(self, vendor: Vendor, ledger: Ledger, starts: Mapping[Series, date]) -> None:
        self._vendor, self._ledger, self._starts = vendor, ledger, starts
        self._chains: dict[str, dict[Series, Chain]] = {}
        self._seen: dict[Series, dict[date, datetime]] = {}

    def parts(self, page: Page, symbols: frozenset[str] | None) -> Parts:
        """Return what a page says of each series, and what that adds."""
        try:
            parts = self._vendor.parse(page)
        except BadPage as error:
            return [(part, none) for part, none in unread(page, str(error)) if _of(part, symbols)]
        return [(part, self._taken(part, page)) for part in parts if _of(part, symbols)]

    def end(self, run: str) -> None:
        """Forget the chains of a run of which no page is left."""
        self._chains.pop(run, None)

    def _taken(self, part: SeriesPage, page: Page) -> Taken:
        series = Series(self._vendor.name, part.entry.symbol, part.entry.freq)
        chains = self._chains.setdefault(page.run, {})
        if series not in chains:
            chains[series] = self._chain(series, page)
        taken = chains[series].take(part, page)
        self._note(series, taken.stretches)
        return taken

    def _chain(self, series: Series, page: Page) -> Chain:
        """Return a chain that wants what a plan would have wanted when the page came."""
        days = calendar(Symbol.parse(series.symbol).place.calendar)
        if series not in self._seen:
            self._seen[series] = {}
            self._note(series, self._ledger.covered([series])[series])
        now, start = page.received_at, self._starts.get(series, _BEGINNING)
        span = wanted(days, series.freq, start, None, now)
        return Chain(series, span, self._vendor.capability, days, now, seen=self._seen[series])

    def _note(self, series: Series, stretches: Sequence[Covered]) -> None:
        """Note up to when running sessions are held, so that the next run's page need not reach back further."""
        days = calendar(Symbol.parse(series.symbol).place.calendar)
        self._seen[series].update(seen(stretches, days))


def _of(part: SeriesPage, symbols: frozenset[str] | None) -> bool:
    return symbols is None or part.entry.symbol in symbols
