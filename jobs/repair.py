"""Repair: what is damaged is let go of, what the raw pages hold comes back, and what is left to do is said."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from ..errors import KlakeError
from ..ingest.vendor import Vendor
from ..schemas.coverage import Series
from ..schemas.events import Quiet
from ..schemas.session import sessions_table
from ..storage.coverage import Ledger
from ..storage.damage import Damage
from ..storage.layout import DAMAGED
from ..storage.state import State
from ..storage.store import Store
from .desk import Books, Desk
from .harvest import Harvest
from .replay import look_back, replay, stored_pages
from .withdraw import Lost, unheld, withdraw

__all__ = ["Step", "rebuild_state", "repair"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, or that is left for the user to `do` (empty: nothing)."""

    name: str
    told: str
    do: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        return asdict(self)


def repair(desk: Desk, *, deep: bool = False) -> Iterator[Step]:
    """Yield what was done about each damage; afterwards the lake holds only files that can be read.

    Sends no request. May be cut off at any moment: what coverage calls missing by then is
    replayed from raw, or asked for, by the next sync.

    Parameters
    ----------
    deep : bool
        Decode every file, which finds bits that turned; the time of reading the whole lake.
    """
    for log in Store.mend_logs(desk.settings.lake_path, desk.clock):
        yield Step(
            "log", f"{log.en}: mended by the newest manifest; what could not be read is kept in {DAMAGED}/"
        )
    store = desk.store()
    found = store.damage(deep=deep)
    yield from _others(store, [one for one in found if one.table != "bars"])
    books = desk.books()
    yield from _bars(desk, books, [one for one in found if one.table == "bars"])
    books.store.renew()
    yield from _settle(desk, books)


def rebuild_state(desk: Desk) -> Iterator[Step]:
    """Yield what was done to make the state anew from `requests`, the raw pages and `bars`; sends no request.

    Runs, parked series and what probes found out stay.
    """
    books = desk.books()
    if books.state.broken is not None:
        yield Step("state", f"the old one was damaged and is kept as {books.state.broken}")
    version = books.store.version_of("requests")
    rows = books.store.table("requests")
    books.ledger.rebuild(rows, tag=(books.store.id, version))
    look_back(books.ledger)
    made = books.ledger.table()
    series = made.group_by(["vendor", "symbol", "freq"]).aggregate([]).num_rows
    yield Step(
        "state",
        f"rebuilt from {rows.num_rows:,} rows of requests: {made.num_rows:,} stretches of {series:,} series",
    )
    yield from _settle(desk, books)


def _others(store: Store, found: Sequence[Damage]) -> Iterator[Step]:
    """Let go of damaged files of other tables than bars."""
    if any(one.table == "requests" for one in found):
        state = State.open(store.state_path, store.id)
        look_back(Ledger(state))  # before the rows are gone: the pages that they were about are unknown then
        state.close()
    store.let_go(found)
    for one in found:
        told, do = _lost_of(one)
        yield Step(one.table, f"{one.path}: {one.wrong}; {told}", do)


def _lost_of(one: Damage) -> tuple[str, str]:
    if one.table == "requests":
        return f"let go of, {one.rows:,} rows about pages: the raw pages tell them again", ""
    if one.table in {"coverage", "sessions", "yields"}:
        return "made anew", ""
    if one.table in {"quarantine", "findings"}:
        return f"let go of, {one.rows:,} rows: those about pages that are replayed come back", ""
    return f"let go of, {one.rows:,} rows are lost", f"bring the {one.table} again from where they came"


def _bars(desk: Desk, books: Books, found: Sequence[Damage]) -> Iterator[Step]:
    for one in found:
        if one.held is not None and not one.held.past:
            lost = Lost(one.held.vendor, one.held.freq, one.held.symbols, one.held.days)
            withdraw(books, [lost], f"damaged file {one.path.rsplit('/', 1)[-1]}")
    books.store.let_go(found)
    for one in found:
        yield Step(
            "bars", f"{one.path}: {one.wrong}; let go of, it held {one.holding}", _bring_again(desk, one)
        )


def _bring_again(desk: Desk, one: Damage) -> str:
    """Return what to do about bars that no vendor's pages hold; empty where there is nothing."""
    if one.held is None or one.held.vendor in desk.settings.vendors:
        return ""
    vendor, freq = one.held.vendor, one.held.freq.value
    return f"bring them again: `klake import FILE --vendor {vendor} --freq {freq}`, or write them as before"


def _settle(desk: Desk, books: Books) -> Iterator[Step]:
    """Say and withdraw what coverage claims and bars lack, replay, publish."""
    _published(books)  # first: no query runs while one of the views lacks its file
    claimed = unheld(books)
    if claimed:
        count = sum(len(lost.symbols) for lost in claimed)
        withdraw(books, claimed, "no bar in the lake")
        yield Step(
            "coverage",
            f"{count:,} sessions were called held and have no bar in the lake: they are missing now",
        )
    yield from _replayed(desk, books)
    _published(books)


def _published(books: Books) -> None:
    books.store.publish_extra("coverage", books.ledger.table())
    books.store.publish_extra("sessions", sessions_table())
    books.store.publish()


def _replayed(desk: Desk, books: Books) -> Iterator[Step]:
    known = stored_pages(books)
    waiting = {page.request.vendor for page in books.store.raw.unsettled(known)}
    for name in sorted(waiting):
        try:
            vendor = desk.vendor(name)
        except KlakeError as error:
            yield Step(
                "raw", f"pages of {name} wait to be replayed: {error}", "the next sync of it replays them"
            )
            continue
        try:
            yield _of_vendor(desk, books, vendor)
        finally:
            vendor.close()
    for problem in books.store.raw.problems():
        yield Step(
            "raw", str(problem), "nothing: what it held and the lake lacks is asked for by the next sync"
        )


def _of_vendor(desk: Desk, books: Books, vendor: Vendor) -> Step:
    harvest = Harvest(books, desk.clock, Quiet())
    done = replay(books, vendor, "repair", harvest, lambda: _starts(desk, vendor.name))
    rows = harvest.written.new + harvest.written.updated
    return Step(
        "raw", f"{done.pages:,} pages of {vendor.name} replayed, {rows:,} bars came back, no request sent"
    )


def _starts(desk: Desk, vendor: str) -> dict[Series, date]:
    """Return the first day that any job wants of each series."""
    starts: dict[Series, date] = {}
    for job in desk.settings.jobs.values():
        try:
            symbols = desk.symbols(job)
        except KlakeError:
            return {}  # nobody knows what that job wants: everything is taken whole
        for series in (Series(vendor, str(s), f) for s in symbols for f in job.freq if job.vendor == vendor):
            starts[series] = min(job.start, starts.get(series, job.start))
    return starts
