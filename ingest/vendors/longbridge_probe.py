"""What Longbridge leaves open, asked of it: two requests."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from ...schemas.clock import Clock
from ...schemas.freq import Freq
from ...schemas.page import Entry, SeriesPage
from ...schemas.session import calendar
from ...schemas.symbol import Symbol
from ..vendor import Answer, Vendor

__all__ = ["probe"]

_LEADS: Final = (
    Symbol("AAPL", "US"),
    Symbol("00700", "HK"),
)  # the first one's clock is farthest from China's
_INTO: Final = timedelta(minutes=90)  # after the open: every busy symbol trades then
_COUNT: Final = 3


def probe(vendor: Vendor, clock: Clock, symbols: Sequence[Symbol] = ()) -> Iterator[tuple[Answer, ...]]:
    """Yield answers, one request per step; the caller takes a quota slot before each step.

    Yields
    ------
    tuple of Answer
        U1: is the candle at the anchor given; U2: is the anchor read on the market's own
        clock; U3: is the newest candle the running one.

    Raises
    ------
    VendorError
        The first request fails: nothing can be learned then.
    """
    lead = next(s for s in (*symbols, *_LEADS) if vendor.spell(s))
    book = calendar(lead.place.calendar)
    anchor = book.hours(book.previous(book.last_ended(clock.now()))).open + _INTO
    yield _anchored(_asked(vendor, lead, anchor), anchor, lead)
    yield (_newest(_asked(vendor, lead, None), clock.now(), lead),)


def _asked(vendor: Vendor, lead: Symbol, end: datetime | None) -> SeriesPage:
    return vendor.parse(vendor.send(vendor.request((Entry(str(lead), Freq.M1, end, _COUNT),))))[0]


def _anchored(got: SeriesPage, anchor: datetime, lead: Symbol) -> tuple[Answer, ...]:
    asked = f"asked {_COUNT} minutes of {lead} up to {anchor:%Y-%m-%d %H:%M}Z"
    if not got.bars.num_rows:
        return (Answer("U1", "not known: the page came back empty", asked, "assumed"),)
    last: datetime = got.bars["ts"][-1].as_py()
    evidence = f"{asked}, the newest that came is {last:%Y-%m-%d %H:%M}Z"
    if anchor - last > timedelta(minutes=30):
        text = "the anchor is not read on the market's own clock: pages would be off by hours"
        return (Answer("U2", text, evidence, "observed"),)
    inclusive = last == anchor
    text = "the candle at the anchor is given" if inclusive else "the candle at the anchor is left out"
    return (
        Answer("U1", text, evidence, "observed", "end_inclusive", str(inclusive).lower()),
        Answer("U2", "the anchor is read on the market's own clock", evidence, "observed", "zone", "venue"),
    )


def _newest(got: SeriesPage, now: datetime, lead: Symbol) -> Answer:
    asked = f"asked the newest {_COUNT} minutes of {lead} at {now:%H:%M:%S}Z"
    if not got.bars.num_rows:
        return Answer("U3", "not known: the page came back empty", asked, "assumed")
    last: datetime = got.bars["ts"][-1].as_py()
    book = calendar(lead.place.calendar)
    hours = book.hours(book.next(book.last_ended(now)))
    if not any(segment.start <= now < segment.end for segment in hours.segments):
        return Answer("U3", f"not known: {lead} is not trading now", f"{asked}, got {last:%H:%M}Z", "assumed")
    running = last + timedelta(minutes=1) > now
    text = "the newest candle is the running one" if running else "the running candle is not given"
    return Answer(
        "U3", text, f"{asked}, got {last:%H:%M}Z", "observed", "includes_unfinished", str(running).lower()
    )
