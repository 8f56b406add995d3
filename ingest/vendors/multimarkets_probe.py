"""What only a MultiMarkets operator's own answers settle: at most five requests, each answer with its evidence."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from ...errors import BadRequest
from ...schemas.capability import Adjust
from ...schemas.clock import Clock
from ...schemas.freq import Freq
from ...schemas.page import Entry, SeriesPage
from ...schemas.symbol import Class, Symbol
from ..vendor import Answer, Vendor

__all__ = ["probe"]

_BACK: Final = timedelta(days=120)
_SPLITS: Final = (  # shares whose traded price fell to a fraction on one day that everybody knows
    ("AAPL.US", date(2020, 8, 31), 4.0),
    ("TSLA.US", date(2022, 8, 25), 3.0),
    ("00700.HK", date(2014, 5, 15), 5.0),
    ("601318.SH", date(2015, 7, 27), 2.0),
    ("002594.SZ", date(2025, 7, 29), 3.0),
)
_SHARES: Final = (Class.STOCK, Class.FUND)
_SLACK: Final = 0.2  # what a price may move by itself on such a day
_WITNESSES: Final = 2


def probe(vendor: Vendor, clock: Clock, symbols: Sequence[Symbol] = ()) -> Iterator[tuple[Answer, ...]]:
    """Yield answers, one request per step, five at most; the caller takes a quota slot before each step.

    Parameters
    ----------
    symbols : sequence of Symbol
        Series to ask about; by default the first that is mapped.

    Yields
    ------
    tuple of Answer
        M5 is the end honoured, M4 is it inclusive, M13 are prices of shares as traded.

    Raises
    ------
    VendorError
        A request fails.
    BadRequest
        Nothing is mapped.
    """
    mapped = [one.symbol for one in vendor.product_list()]
    shares = [s for s in mapped if s.klass in _SHARES]  # of these, above all, the end may be ignored (M5)
    lead = next((s for s in (*symbols, *shares, *mapped) if vendor.spell(s)), None)
    if lead is None:
        raise BadRequest("symbols", "", hint=f"{vendor.name} has no product that a symbol is mapped to")
    newest = _ask(vendor, lead, Freq.H1, None, 3)
    yield ()
    back = clock.now() - _BACK
    old = _ask(vendor, lead, Freq.H1, back, 3)
    alike = shares if lead.klass in _SHARES else [s for s in mapped if s.klass not in _SHARES]
    honoured = _honoured(lead, newest, old, back, " ".join(sorted({s.venue for s in alike})))
    yield (honoured,)
    if honoured.basis == "observed" and not honoured.field:  # else what comes back says nothing about the end
        oldest: datetime = old.bars["ts"][-1].as_py()
        yield (_inclusive(_ask(vendor, lead, Freq.H1, oldest, 3), oldest),)
    yield from _prices(vendor, {s.venue for s in shares}, set(mapped))


def _ask(vendor: Vendor, symbol: Symbol, freq: Freq, end: datetime | None, count: int) -> SeriesPage:
    adjust: Adjust = "none" if "none" in vendor.capability.adjusts else "unknown"
    request = vendor.request((Entry(str(symbol), freq, end, count, adjust),))
    return vendor.parse(vendor.send(request))[0]


def _honoured(lead: Symbol, newest: SeriesPage, old: SeriesPage, back: datetime, venues: str) -> Answer:
    asked = f"asked {lead} 1h up to {back:%Y-%m-%d %H:%M}Z"
    if not newest.bars.num_rows or not old.bars.num_rows:
        return Answer("M5", "not known: a page came back empty", asked, "assumed")
    got: datetime = old.bars["ts"][-1].as_py()
    evidence = f"{asked}, newest bar got {got:%Y-%m-%d %H:%M}Z"
    if got > back + timedelta(days=1):
        text = "the end is ignored: what comes is the newest bars"
        return Answer("M5", f"{text} of {venues}", evidence, "observed", "end_ignored", venues)
    return Answer("M5", "the end is honoured", evidence, "observed")


def _inclusive(again: SeriesPage, asked: datetime) -> Answer:
    if not again.bars.num_rows:
        return Answer("M4", "not known: the page came back empty", f"asked up to {asked}", "assumed")
    last: datetime = again.bars["ts"][-1].as_py()
    inclusive = last >= asked
    text = f"a bar that starts at the end is {'returned' if inclusive else 'left out'}"
    evidence = f"asked up to {asked:%Y-%m-%d %H:%M}Z, newest returned {last:%Y-%m-%d %H:%M}Z"
    return Answer("M4", text, evidence, "observed", "end_inclusive", str(inclusive).lower())


def _prices(vendor: Vendor, venues: set[str], mapped: set[Symbol]) -> Iterator[tuple[Answer, ...]]:
    """Ask about known splits: one share of each venue, two at most; all of them must agree, and be enough."""
    left, told = set(venues), list[str]()
    for text, ex, ratio in _SPLITS:
        symbol = Symbol.parse(text)
        if symbol.venue not in left or symbol not in mapped or len(told) == _WITNESSES:
            continue
        end = datetime.combine(ex, time(), UTC) + timedelta(days=1)
        fell = _fall(_ask(vendor, symbol, Freq.D1, end, 5), ex)
        if fell is None:
            yield ()
            continue
        told.append(f"{text} fell to 1/{fell:.2f} on {ex}, when 1 share became {ratio:g}")
        if abs(fell / ratio - 1) > _SLACK:
            yield (Answer("M13", "prices of shares are adjusted", "; ".join(told), "observed"),)
            return
        left.discard(symbol.venue)
        text = "prices of shares are as traded"
        if left:
            yield (
                Answer(
                    "M13",
                    f"{text}, as far as seen: {', '.join(sorted(left))} not",
                    "; ".join(told),
                    "observed",
                ),
            )
        else:
            yield (Answer("M13", text, "; ".join(told), "observed", "adjusts", "none"),)


def _fall(page: SeriesPage, ex: date) -> float | None:
    """Return close of the session before ÷ open of `ex`; None when one of them is not there."""
    rows = {row["session"]: row for row in page.bars.select(["session", "open", "close"]).to_pylist()}
    before = max((day for day in rows if day < ex), default=None)
    if before is None or ex not in rows:
        return None
    return float(rows[before]["close"] / rows[ex]["open"])
