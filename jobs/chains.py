"""Chains: many series paged at once, packed into requests, longest rests first."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final

from ..errors import BadRequest, VendorError
from ..ingest.fetch import Chain, Taken
from ..ingest.vendor import Vendor
from ..schemas.bar import INCOMING, empty
from ..schemas.coverage import Series
from ..schemas.page import Page, SeriesPage
from .send import Answer, Sender

__all__ = ["Fetching", "Took", "unread"]

# A wait without an end did not hear Ctrl-C (12 of 14 tries, 2026-11-20), one with an end does: some
# engine's SIGINT handler, probably delta-rs's, lets waits for locks go on.
_LOOK_S: Final = 0.25
Took = Callable[[Page, list[tuple[SeriesPage, Taken]]], None]


class Fetching:
    """Pages a set of chains to their ends.

    A request holds at most `products` entries, one per series; it goes out when it is full or
    when nothing else is under way. Series of `alone` go in requests of their own: they were
    refused before, and would make the others of a request be asked again in halves.
    """

    def __init__(
        self, vendor: Vendor, sender: Sender, chains: Iterable[Chain], workers: int,
        alone: Collection[Series] = (),
    ) -> None:  # fmt: skip
        self._vendor, self._sender, self._workers = vendor, sender, workers
        self._alone = frozenset(alone)
        self._lanes: dict[Series, list[Chain]] = defaultdict(list)
        for chain in chains:
            self._lanes[chain.series].append(chain)
        self._refused: dict[Series, str] = {}
        self._busy: set[Series] = set()
        self._flying: dict[Future[Answer], dict[Series, Chain]] = {}

    @property
    def gave_up(self) -> dict[Series, str]:
        """Return the series that did not come to their end, each with the reason."""
        stopped = {s: c.stopped for s, lane in self._lanes.items() for c in lane if c.stopped}
        return {**stopped, **self._refused}

    @property
    def finished(self) -> set[Series]:
        """Return the series of which everything wanted is proven."""
        return {series for series, lane in self._lanes.items() if all(chain.done for chain in lane)}

    @property
    def end_ignored(self) -> tuple[str, ...]:
        """Return the venues of which a reply showed that this key gives the newest bars only, ascending."""
        venues = {
            s.symbol.rpartition(".")[2] for s, lane in self._lanes.items() if any(c.end_ignored for c in lane)
        }
        return tuple(sorted(venues))

    def left(self) -> int:
        """Return how many requests are still to send, as far as the chains know."""
        rests = [self._rest(series) for series in self._lanes if series not in self._alone]
        apart = sum(self._rest(series) for series in self._alone if series in self._lanes)
        return max(-(-sum(rests) // self._vendor.capability.products), max(rests, default=0)) + apart

    def run(self, took: Took, stop: Callable[[], None]) -> None:
        """Fetch until no chain wants more; hands each page, parsed and taken, to `took`.

        Raises
        ------
        VendorError, Interrupted
            The trouble of a request; what had come, of this request and of others under
            way, was handed over before. `stop` makes every wait of the sender end: it is
            called before anything is raised.
        """
        with ThreadPoolExecutor(self._workers, thread_name_prefix="klake-fetch") as pool:
            try:
                self._run(pool, took)
            except BaseException as error:
                stop()  # before the pool waits for its workers, which may be waiting for the quota
                if isinstance(error, VendorError):
                    self._land(took)
                raise

    def _run(self, pool: ThreadPoolExecutor, took: Took) -> None:
        flying = self._flying
        while True:
            while len(flying) < self._workers and (batch := self._batch(idle=not flying)):
                entries = [entry for chain in batch.values() if (entry := chain.next()) is not None]
                request = self._vendor.request(tuple(entries))
                flying[pool.submit(self._sender.answer, request)] = batch
                self._busy.update(batch)
            if not flying:
                return
            done, _ = wait(flying, _LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                batch, answer = flying.pop(future), future.result()
                self._take(batch, answer, took)
                self._busy.difference_update(batch)
                if answer.trouble is not None:
                    raise answer.trouble

    def _land(self, took: Took) -> None:
        """Hand over what the requests under way still bring; their own trouble adds nothing."""
        while self._flying:
            future, batch = self._flying.popitem()
            self._take(batch, future.result(), took)

    def _rest(self, series: Series) -> int:
        return 0 if series in self._refused else sum(chain.entries_left for chain in self._lanes[series])

    def _batch(self, *, idle: bool) -> dict[Series, Chain]:
        """Return the chains of the next request, longest rests first; none when it should wait for replies."""
        products = self._vendor.capability.products
        rests = sorted((-rest, s) for s in self._lanes if s not in self._busy and (rest := self._rest(s)))
        chosen = [series for _, series in rests if series not in self._alone][:products]
        if not chosen or (len(chosen) < products and not idle):
            chosen = [series for _, series in rests if series in self._alone][:1]
        batch = {s: next(chain for chain in self._lanes[s] if chain.entries_left) for s in chosen}
        return batch if self._fits(batch) else self._first_that_fit(batch)

    def _first_that_fit(self, batch: dict[Series, Chain]) -> dict[Series, Chain]:
        """Return as much of a batch as this vendor can tell apart in one reply."""
        taken: dict[Series, Chain] = {}
        for series, chain in batch.items():
            if self._fits({**taken, series: chain}):
                taken[series] = chain
        return taken

    def _fits(self, batch: dict[Series, Chain]) -> bool:
        if len(batch) < 2:
            return True
        try:
            self._vendor.request(tuple(e for chain in batch.values() if (e := chain.next()) is not None))
        except BadRequest:
            return False
        return True

    def _take(self, batch: dict[Series, Chain], answer: Answer, took: Took) -> None:
        for page, why in answer.unread:
            took(page, unread(page, why))
        for page, parts in answer.pages:
            taken: list[tuple[SeriesPage, Taken]] = []
            for part in parts:
                chain = batch[Series(self._vendor.name, part.entry.symbol, part.entry.freq)]
                taken.append((part, chain.take(part, page)))
            took(page, taken)
        for one in answer.refused:
            self._refused[Series(self._vendor.name, one.entry.symbol, one.entry.freq)] = str(one)


def unread(page: Page, why: str) -> list[tuple[SeriesPage, Taken]]:
    """Return what a page that cannot be read says of each series it was asked for: nothing, and why."""
    nothing = empty(INCOMING)
    return [(SeriesPage(entry, "failed", nothing, (), why), Taken(nothing)) for entry in page.request.entries]
