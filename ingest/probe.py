"""Questions that only a vendor's own answers settle: at most five requests, each answer with its evidence."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from ..errors import VendorError
from ..schemas.clock import Clock
from ..schemas.freq import Freq
from ..schemas.page import Entry, SeriesPage
from ..schemas.symbol import Symbol
from .vendor import Answer, Vendor

__all__ = ["probe"]

_KNOWN: Final = tuple(Symbol.parse(text) for text in ("AAPL.US", "00700.HK", "600519.SH"))
_UNKNOWN: Final = Symbol("ZZZZZQ", "US")
_BACK: Final = timedelta(days=120)


def probe(vendor: Vendor, clock: Clock, symbols: Sequence[Symbol] = ()) -> Iterator[tuple[Answer, ...]]:
    """Yield answers, one request per step, five at most; the caller takes a quota slot before each step.

    Parameters
    ----------
    symbols : sequence of Symbol
        Series known to exist; by default AAPL.US, 00700.HK, 600519.SH.

    Yields
    ------
    tuple of Answer
        U2 is the end honoured, U1 is it inclusive, U3 what a count above the limit gives,
        U4 what an unknown code does, U9 how Hong Kong codes come back.

    Raises
    ------
    VendorError
        The first request fails: nothing can be learned then.
    """
    subjects = [s for s in (symbols or _KNOWN) if vendor.spell(s)]
    lead = subjects[0]
    newest = _ask(vendor, [(s, None, 10) for s in subjects])
    yield (_padding(newest, subjects),)
    back = clock.now() - _BACK
    old = _ask(vendor, [(lead, back, 2)])[0]
    honoured = _honoured(newest[0], old, back)
    yield (honoured,)
    if old.bars.num_rows and honoured.value == "true":  # else what comes back says nothing about the end
        oldest: datetime = old.bars["ts"][-1].as_py()
        again = _ask(vendor, [(lead, _label_of(oldest, lead), 2)])[0]
        yield (_inclusive(again, oldest),)
    yield (_unknown_code(vendor, lead),)
    yield (_full_page(vendor, lead),)


def _ask(vendor: Vendor, wanted: Sequence[tuple[Symbol, datetime | None, int]]) -> list[SeriesPage]:
    entries = tuple(Entry(str(symbol), Freq.D1, end, count) for symbol, end, count in wanted)
    return vendor.parse(vendor.send(vendor.request(entries)))


def _label_of(ts: datetime, symbol: Symbol) -> datetime:
    """Return local midnight of a daily bar: the instant that QOS labels it with."""
    from zoneinfo import ZoneInfo

    local = ts.astimezone(ZoneInfo(symbol.place.zone))
    return local.replace(hour=0, minute=0, second=0, microsecond=0)


def _padding(pages: Sequence[SeriesPage], subjects: Sequence[Symbol]) -> Answer:
    answered = [str(s) for s, page in zip(subjects, pages, strict=True) if page.outcome == "bars"]
    text = (
        "every known code came back and was recognised"
        if len(answered) == len(pages)
        else "some codes did not come back"
    )
    return Answer(
        "U9", text, f"asked {', '.join(map(str, subjects))}; got {', '.join(answered) or 'none'}", "observed"
    )


def _honoured(newest: SeriesPage, old: SeriesPage, back: datetime) -> Answer:
    if not newest.bars.num_rows or not old.bars.num_rows:
        return Answer(
            "U2", "not known: a page came back empty", f"asked 2 bars up to {back:%Y-%m-%d}", "assumed"
        )
    first, last = newest.bars["session"][-1].as_py(), old.bars["session"][-1].as_py()
    evidence = f"newest bar {first}; asked up to {back:%Y-%m-%d}, got {last}"
    if last >= first:
        return Answer(
            "U2",
            "the end is ignored: this key gives the newest bars only",
            evidence,
            "observed",
            "end_honoured",
            "false",
        )
    return Answer("U2", "the end is honoured", evidence, "observed", "end_honoured", "true")


def _inclusive(again: SeriesPage, asked: datetime) -> Answer:
    if not again.bars.num_rows:
        return Answer("U1", "not known: the page came back empty", f"asked up to {asked}", "assumed")
    last = again.bars["ts"][-1].as_py()
    inclusive = last >= asked
    text = (
        "a bar that starts at the end is returned"
        if inclusive
        else "a bar that starts at the end is left out"
    )
    evidence = f"asked up to the label of {asked:%Y-%m-%d}, newest returned {last:%Y-%m-%d}"
    return Answer("U1", text, evidence, "observed", "end_inclusive", str(inclusive).lower())


def _unknown_code(vendor: Vendor, lead: Symbol) -> Answer:
    asked = f"asked {lead} together with {_UNKNOWN}"
    try:
        pages = _ask(vendor, [(lead, None, 2), (_UNKNOWN, None, 2)])
    except VendorError as error:
        return Answer("U4", "an unknown code fails the whole request", f"{asked}: {error}", "observed")
    words = {"absent": "is left out", "empty": "comes back empty"}
    text = f"an unknown code {words.get(pages[1].outcome, f'comes back as {pages[1].outcome}')}"
    return Answer("U4", text, f"{asked}: {lead} gave {pages[0].outcome}", "observed")


def _full_page(vendor: Vendor, lead: Symbol) -> Answer:
    """Never more than the documented limit is sent (U3); what is learned is whether a full page comes."""
    limit = vendor.capability.page_limit
    entry = Entry(str(lead), Freq.M1, None, limit)
    page = vendor.parse(vendor.send(vendor.request((entry,))))[0]
    got = page.bars.num_rows
    text = "a full page comes" if got >= limit - 1 else "fewer bars than asked came: a short page is normal"
    return Answer("U3", text, f"asked {limit} 1m bars of {lead}, got {got}", "observed")
