"""Repair: what is damaged is let go of, what the raw pages hold comes back, and what is left to do is said."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..schemas.session import sessions_table
from ..storage.coverage import Ledger
from ..storage.damage import Damage
from ..storage.layout import DAMAGED
from ..storage.state import State
from ..storage.store import Store
from .desk import Books, Desk
from .replay import look_back, replay_again, stored
from .withdraw import Lost, outstanding, unheld, withdraw

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
    with books.store.booking():  # a sync in between would leave sessions that are called held and are not
        for one in found:
            if one.held is not None and not one.held.past:
                lost = Lost(one.held.vendor, one.held.freq, one.held.symbols, one.held.days)
                withdraw(books, [lost], f"damaged file {one.path.rsplit('/', 1)[-1]}", desk.clock.now())
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
        withdraw(books, claimed, "no bar in the lake", desk.clock.now())
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
    """Read the raw pages anew where anything is missing that they may hold, or some of them are not stored."""
    raw = books.store.raw
    if not outstanding(books) and not raw.unsettled(stored(books)):
        return
    report = replay_again(desk)
    back = report.written.new + report.written.updated
    told = f"{report.pages:,} pages read again, {back:,} bars came back, no request sent"
    if outstanding(books):
        yield Step(
            "raw", f"{told}; raw does not hold all that is missing", "run `klake sync`: it asks for the rest"
        )
    else:
        yield Step("raw", told)
    for problem in report.problems:
        yield Step("raw", problem, "nothing: what it held and the lake lacks is asked for by the next sync")
