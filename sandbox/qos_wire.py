"""How QOS spells the market: codes, types of K-line, labels, units, decimals."""

from typing import Any, Final

import numpy as np

from ..schemas.freq import Freq
from ..schemas.symbol import Symbol
from .grid import grid
from .instruments import Instrument
from .limits import Plan
from .market import Market, prices
from .minutes import CLOSING, OPENING, Prints
from .noise import Floats, Ints

__all__ = ["KINDS", "MARKETS", "code_of", "money", "quantity", "series", "split_codes", "symbol_of"]

MARKETS: Final = {"SH": "SH", "SZ": "SZ", "HK": "HK", "US": "US", "QOS": "CF"}
KINDS: Final = {
    1: Freq.M1, 5: Freq.M5, 15: Freq.M15, 30: Freq.M30, 60: Freq.H1, 120: Freq.H2, 240: Freq.H4,
    1001: Freq.D1, 1007: Freq.W1, 1030: Freq.MO1, 2001: Freq.Y1,
}  # fmt: skip
MOST: Final = 1000  # bars in one page
# Minutes lie on the session's own date in UTC, a local midnight up to a day before it.
_LONGEST: Final = {Freq.D1: 1, Freq.W1: 7, Freq.MO1: 31, Freq.Y1: 366}


def code_of(inst: Instrument, padded: bool = False) -> str:
    """Return `SH:600519`, `HK:700` (padded: `HK:00700`), `US:BRK.B`, `CF:BTCUSDT`."""
    code = inst.symbol.code.removesuffix(".P")
    return f"{MARKETS[inst.venue]}:{code.lstrip('0') if inst.venue == 'HK' and not padded else code}"


def symbol_of(code: str) -> str | None:
    """Return the canonical symbol of a QOS code, padded or not; None where it is none."""
    market, colon, plain = code.partition(":")
    venue = {m: v for v, m in MARKETS.items()}.get(market)
    if venue is None or not colon or not plain:
        return None
    if venue == "QOS":
        return f"{plain}.P.QOS"
    return str(Symbol(plain.zfill(5) if venue == "HK" else plain, venue))


def split_codes(text: str) -> list[str]:
    """Return the codes of `US:AAPL,TSLA`: several of one market may share one string."""
    market, colon, rest = text.partition(":")
    return [f"{market}{colon}{part.strip()}" for part in rest.split(",")] if colon else [text]


def series(
    market: Market,
    inst: Instrument,
    kt: int,
    count: int,
    end_s: int | None,
    adjusted: bool,
    plan: Plan,
    now_s: float,
) -> list[dict[str, Any]]:
    """Return at most `count` bars going back from `end_s` (None: now), ascending, as QOS writes them.

    Nothing lies beyond the newest `plan.depth` bars of that type. `end_s` filters on the
    bar's label, so that the bar which holds it comes whole.
    """
    freq, count = KINDS[kt], max(0, min(count, MOST))
    place = grid(inst.venue)
    newest = int(place.days[max(place.session_at(now_s), 0)])
    fold = (OPENING,) if inst.venue == "US" else (OPENING, CLOSING)
    if end_s is None or plan.end_mode == "ignored" or end_s > now_s:
        last, end_s = newest, None
    else:
        last = min(newest, end_s // 86_400 + _LONGEST.get(freq, 0))
    if plan.depth and end_s is not None:
        bars = market.tail(inst, freq, newest, plan.depth, now_s, fold, adjusted)
    else:
        wanted = min(count, plan.depth or count) if end_s is None else count + _spare(freq)
        bars = market.tail(inst, freq, last, wanted, now_s, fold, adjusted)
    label = _labels(inst, freq, bars)
    if end_s is not None:
        stop = int(np.searchsorted(label, end_s, side="right" if plan.end_mode == "inclusive" else "left"))
        bars, label = bars.take(slice(0, stop)), label[:stop]
    newest_rows = slice(max(label.size - count, 0), None)
    return _rows(inst, kt, bars.take(newest_rows), label[newest_rows], adjusted)


def _spare(freq: Freq) -> int:
    """Return how many bars can lie between `end_s` and the last day made for it: they are cut off again."""
    return 1440 // freq.minutes + 1 if freq.intraday else 3


def _labels(inst: Instrument, freq: Freq, bars: Prints) -> Ints:
    """Return the QOS time of each bar: minutes their start, days and longer local midnight of their anchor."""
    if freq.intraday:
        return bars.start
    # Every venue here opens on the same date in UTC as at home.
    return grid(inst.venue).at(bars.start // 86_400, 0)


def money(inst: Instrument, values: Floats, adjusted: bool = False) -> list[str]:
    """Return prices as strings, with the decimals that each market has."""
    if inst.venue in {"SH", "SZ"} or adjusted:
        return [f"{value:.3f}".rstrip("0").rstrip(".") for value in values.tolist()]
    places = inst.decimals if inst.venue != "QOS" else max(inst.decimals, 2)
    return [f"{value:.{places}f}" for value in values.tolist()]


def quantity(inst: Instrument, steps: Ints) -> list[str]:
    """Return volumes as strings: lots of 100 in Shanghai and Shenzhen, shares elsewhere, coins for CF."""
    if inst.venue == "QOS":
        scale = 10**inst.volume_decimals
        return [f"{step / scale:.8f}" for step in steps.tolist()]
    unit = inst.lot // 100 if inst.venue in {"SH", "SZ"} else inst.lot
    return [str(step * unit) for step in steps.tolist()]


def _rows(inst: Instrument, kt: int, bars: Prints, label: Ints, adjusted: bool) -> list[dict[str, Any]]:
    code = code_of(inst)
    columns = [
        money(inst, prices(inst, getattr(bars, n)), adjusted) for n in ("open", "close", "high", "low")
    ]
    rows = zip(*columns, quantity(inst, bars.volume), label.tolist(), strict=True)
    return [
        {"c": code, "o": o, "cl": cl, "h": h, "l": low, "v": v, "ts": ts, "kt": kt}
        for o, cl, h, low, v, ts in rows
    ]
