"""How Longbridge spells the market: symbols, periods, labels, units, and its three ways to ask for candles."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

import numpy as np

from ..schemas.freq import Freq
from ..schemas.symbol import Symbol
from .grid import Grid, grid, number
from .instruments import Instrument
from .market import Market, prices
from .minutes import CLOSING, OPENING, Prints
from .noise import Ints

__all__ = [
    "FLOORS", "MOST", "PERIODS", "Query", "candles", "code_of", "day_text", "fold_of", "market_of", "symbol_of", "unit_of",
]  # fmt: skip

PERIODS: Final = {
    1: Freq.M1, 3: Freq.M3, 5: Freq.M5, 15: Freq.M15, 30: Freq.M30, 60: Freq.H1, 120: Freq.H2, 240: Freq.H4,
    1000: Freq.D1, 2000: Freq.W1, 3000: Freq.MO1, 3500: Freq.Q1, 4000: Freq.Y1,
}  # fmt: skip
MOST: Final = 1000  # candles in one answer, never more, and never a word about it
_DEFAULT: Final = 10  # what an absent count means
_MARKET: Final = {"SH": "CN", "SZ": "CN", "HK": "HK", "US": "US"}
FLOORS: Final = {  # market → (first minute, first day)
    "CN": (date(2022, 8, 25), date(1999, 11, 1)),
    "HK": (date(2022, 9, 28), date(2004, 6, 1)),
    "US": (date(2023, 12, 4), date(2010, 6, 1)),
}
_LONGEST: Final = {Freq.D1: 1, Freq.W1: 7, Freq.MO1: 31, Freq.Q1: 92, Freq.Y1: 366}


@dataclass(frozen=True, slots=True)
class Query:
    """One request for candles, whatever the transport was; texts as they came.

    `way`: `latest` (command 19), `offset` or `date` (command 27, query types 1 and 2).
    """

    symbol: str
    period: int
    way: Literal["latest", "offset", "date"]
    count: int = 0
    adjust: int = 0
    session: int = 0
    forward: bool = False
    day: str = ""
    minute: str = ""
    start: str = ""
    end: str = ""


def code_of(inst: Instrument) -> str:
    """Return `700.HK`, `AAPL.US`, `600519.SH`: no zero in front in Hong Kong."""
    code = inst.symbol.code
    return f"{code.lstrip('0') if inst.venue == 'HK' else code}.{inst.venue}"


def symbol_of(code: str) -> str:
    """Return the canonical symbol of `700.HK`; a text that no instrument has where it is none."""
    plain, _, venue = code.rpartition(".")
    if venue == "HK" and plain.startswith("0"):
        return ""  # the vendor does not pad
    return str(Symbol(plain.zfill(5) if venue == "HK" and plain.isdigit() else plain, venue))


def market_of(inst: Instrument) -> str:
    """Return CN, HK or US; empty where Longbridge does not trade."""
    return _MARKET.get(inst.venue, "")


def day_text(day: int) -> str:
    """Return a day since 1970 as YYYYMMDD."""
    return f"{date(1970, 1, 1) + timedelta(days=day):%Y%m%d}"


def candles(
    market: Market, inst: Instrument, query: Query, now_s: float, *, inclusive: bool = True
) -> list[dict[str, Any]]:
    """Return the candles that a query finds, ascending; `inclusive`: is the anchor's own one among them.

    Nothing lies before the market's floor. By date the cut to 1,000 keeps the end where an
    end is given, the start where only a start is.
    """
    freq, place = PERIODS[query.period], grid(inst.venue)
    floor = number(FLOORS[market_of(inst)][not freq.intraday])
    newest = int(place.days[max(place.session_at(now_s), 0)])
    if query.way == "date":
        first = max(floor, _day(query.start)) if query.start else floor
        last = min(newest, _day(query.end)) if query.end else newest
        keep_start = bool(query.start) and not query.end
        table = _between(market, inst, query, first, last, now_s)
        return _rows(inst, freq, table.take(slice(0, MOST) if keep_start else slice(-MOST, None)))
    count = min(query.count or _DEFAULT, MOST)
    if query.way == "latest" or not query.day:
        return _rows(inst, freq, _back(market, inst, query, newest, count, now_s, floor))
    anchor = _anchor(place, query, intraday=freq.intraday)
    return _rows(inst, freq, _offset(market, inst, query, (anchor, floor, newest, count), now_s, inclusive))


def _offset(
    market: Market,
    inst: Instrument,
    query: Query,
    at: tuple[int, int, int, int],
    now_s: float,
    inclusive: bool,
) -> Prints:
    """Return `count` bars beside the anchor: before it, or after it where the query goes forward."""
    anchor, floor, newest, count = at
    freq, day = PERIODS[query.period], _day(query.day)
    if query.forward:
        reach = int((count + 2) * 3 * _LONGEST.get(freq, 1)) if not freq.intraday else count // 4 + 14
        begin = max(floor, day)
        while True:
            table = _between(market, inst, query, begin, min(newest, begin + reach), now_s)
            label = _labels(inst, freq, table)
            table = table.take(label >= anchor if inclusive else label > anchor)
            if table.start.size >= count or begin + reach >= newest:
                return table.take(slice(0, count))
            reach *= 2
    spare = 1440 // freq.minutes + 1 if freq.intraday else 3
    last = min(newest, day + _LONGEST.get(freq, 0))
    table = _back(market, inst, query, last, count + spare, now_s, floor)
    label = _labels(inst, freq, table)
    stop = int(np.searchsorted(label, anchor, side="right" if inclusive else "left"))
    return table.take(slice(max(stop - count, 0), stop))


def _back(
    market: Market, inst: Instrument, query: Query, last: int, count: int, now_s: float, floor: int
) -> Prints:
    freq = PERIODS[query.period]
    table = market.tail(inst, freq, last, count, now_s, fold_of(inst), query.adjust == 1)
    return table.take(_labels(inst, freq, table) >= _midnight(inst, freq, floor))


def _between(market: Market, inst: Instrument, query: Query, first: int, last: int, now_s: float) -> Prints:
    freq = PERIODS[query.period]
    table = market.bars(inst, freq, first, last, now_s, fold_of(inst), query.adjust == 1)
    return table.take(_labels(inst, freq, table) >= _midnight(inst, freq, first))


def fold_of(inst: Instrument) -> tuple[int, ...]:
    """Return the auctions that lie inside a minute: the closing one stands alone, but for New York."""
    return (OPENING, CLOSING) if inst.venue == "US" else (OPENING,)


def unit_of(inst: Instrument) -> int:
    """Return how many of the vendor's units one step of volume is: lots of 100 in China, else shares."""
    return inst.lot // 100 if inst.venue in {"SH", "SZ"} else inst.lot


def _labels(inst: Instrument, freq: Freq, table: Prints) -> Ints:
    """Return the time of each candle: minutes their start, days and longer local midnight of their anchor."""
    return table.start if freq.intraday else grid(inst.venue).at(table.start // 86_400, 0)


def _midnight(inst: Instrument, freq: Freq, day: int) -> int:
    anchor = number(freq.anchor(date(1970, 1, 1) + timedelta(days=day)))
    return int(grid(inst.venue).at(np.array([anchor]), 0)[0])


def _anchor(place: Grid, query: Query, *, intraday: bool) -> int:
    """Return the instant that `date` and `minute` name on the market's own clock."""
    minute = query.minute or "2359"
    wall = int(minute[:2]) * 60 + int(minute[2:]) if intraday else 0
    day = date(int(query.day[:4]), int(query.day[4:6]), int(query.day[6:]))
    local = datetime(day.year, day.month, day.day, wall // 60, wall % 60, tzinfo=place.zone)
    return int(local.astimezone(UTC).timestamp())


def _day(text: str) -> int:
    return number(date(int(text[:4]), int(text[4:6]), int(text[6:8])))


def _rows(inst: Instrument, freq: Freq, table: Prints) -> list[dict[str, Any]]:
    """Return candles as Longbridge writes them: prices with three decimals, lots of 100 in China."""
    texts = [
        [f"{v:.3f}" for v in prices(inst, getattr(table, n)).tolist()]
        for n in ("close", "open", "low", "high")
    ]
    paid = table.amount * (inst.tick * inst.lot) / 10 ** (inst.decimals + inst.volume_decimals)
    turnover = [f"{v:.3f}" for v in paid.tolist()]
    volume, times = (table.volume * unit_of(inst)).tolist(), _labels(inst, freq, table).tolist()
    return [
        {
            "close": c,
            "open": o,
            "low": low,
            "high": h,
            "volume": v,
            "turnover": t,
            "timestamp": ts,
            "trade_session": 0,
        }
        for c, o, low, h, v, t, ts in zip(*texts, volume, turnover, times, strict=True)
    ]
