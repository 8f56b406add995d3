"""Chains: many series paged at once, packed into requests, longest rests first."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ..ingest.fetch import Chain, Taken
from ..ingest.vendor import Vendor
from ..schemas.coverage import Series
from ..schemas.page import Page, SeriesPage
from .send import Refused, Sender

__all__ = ["Fetching", "Took"]

Answer = tuple[list[Page], list[Refused]]
Took = Callable[[Page, list[tuple[SeriesPage, Taken]]], None]


class Fetching:
    """Pages a set of chains to their ends.

    A request holds at most `products` entries, one per series; it goes out when it is full or
    when nothing else is under way.
    """

    def __init__(self, vendor: Vendor, sender: Sender, chains: Iterable[Chain], workers: int) -> None:
        self._vendor, self._sender, self._workers = vendor, sender, workers
        self._lanes: dict[Series, list[Chain]] = defaultdict(list)
        for chain in chains:
            self._lanes[chain.series].append(chain)
        self._refused: dict[Series, str] = {}
        self._busy: set[Series] = set()

    @property
    def gave_up(self) -> dict[Series, str]:
        """Return the series that did not come to their end, each with the reason."""
        stopped = {s: c.stopped for s, lane in self._lanes.items() for c in lane if c.stopped}
        return {**stopped, **self._refused}

    @property
    def series(self) -> set[Series]:
        """Return every series that is fetched."""
        return set(self._lanes)

    @property
    def end_ignored(self) -> bool:
        """Return whether a reply showed that this key gives its newest bars only."""
        return any(chain.end_ignored for lane in self._lanes.values() for chain in lane)

    def left(self) -> int:
        """Return how many requests are still to send, as far as the chains know."""
        rests = [self._rest(series) for series in self._lanes]
        return max(-(-sum(rests) // self._vendor.capability.products), max(rests, default=0))

    def run(self, took: Took, stop: Callable[[], None]) -> None:
        """Fetch until no chain wants more; hands each page, parsed and taken, to `took`.

        Raises what `Sender.pages` raises; what was handed over stays handed over. `stop` makes
        every wait of the sender end: it is called before anything is raised.
        """
        with ThreadPoolExecutor(self._workers, thread_name_prefix="klake-fetch") as pool:
            try:
                self._run(pool, took)
            except BaseException:
                stop()  # before the pool waits for its workers, which may be waiting for the quota
                raise

    def _run(self, pool: ThreadPoolExecutor, took: Took) -> None:
        flying: dict[Future[Answer], dict[Series, Chain]] = {}
        while True:
            while len(flying) < self._workers and (batch := self._batch(idle=not flying)):
                entries = [entry for chain in batch.values() if (entry := chain.next()) is not None]
                request = self._vendor.request(tuple(entries))
                flying[pool.submit(self._sender.pages, request)] = batch
                self._busy.update(batch)
            if not flying:
                return
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                batch = flying.pop(future)
                self._take(batch, *future.result(), took)
                self._busy.difference_update(batch)

    def _rest(self, series: Series) -> int:
        return 0 if series in self._refused else sum(chain.entries_left for chain in self._lanes[series])

    def _batch(self, *, idle: bool) -> dict[Series, Chain]:
        """Return the chains of the next request, longest rests first; none when it should wait for replies."""
        products = self._vendor.capability.products
        rests = sorted((-rest, s) for s in self._lanes if s not in self._busy and (rest := self._rest(s)))
        chosen = [series for _, series in rests[:products]]
        if not idle and len(chosen) < products:
            return {}
        return {s: next(chain for chain in self._lanes[s] if chain.entries_left) for s in chosen}

    def _take(
        self, batch: dict[Series, Chain], pages: list[Page], refused: list[Refused], took: Took
    ) -> None:
        for page in pages:
            taken: list[tuple[SeriesPage, Taken]] = []
            for part in self._vendor.parse(page):
                chain = batch[Series(self._vendor.name, part.entry.symbol, part.entry.freq)]
                taken.append((part, chain.take(part, page)))
            took(page, taken)
        for one in refused:
            self._refused[Series(self._vendor.name, one.entry.symbol, one.entry.freq)] = str(one)
