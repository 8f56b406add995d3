"""What QOS tells of the present: snapshots, order books, single trades, instruments."""

from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from ..schemas.freq import Freq
from ..schemas.symbol import Class
from .grid import grid
from .instruments import Instrument
from .market import Market, prices
from .minutes import Prints
from .noise import key, uniform
from .qos_wire import code_of, money, quantity

__all__ = ["MOST_TRADES", "book", "info", "snapshot", "trades"]

MOST_TRADES: Final = 50
_LEVELS: Final = {"SH": 5, "SZ": 5, "HK": 10, "US": 1, "QOS": 5}
_CURRENCY: Final = {"SH": "CNY", "SZ": "CNY", "HK": "HKD", "US": "USD", "QOS": "USDT"}
_EXCHANGE: Final = {"SH": "SSE", "SZ": "SZSE", "HK": "SEHK", "US": "NASD", "QOS": "QOS"}


def info(market: Market, inst: Instrument, now_s: float) -> dict[str, Any]:
    """Return the instrument's facts; of a perpetual contract only code, exchange and currency."""
    facts: dict[str, Any] = {"c": code_of(inst), "e": _EXCHANGE[inst.venue], "tc": _CURRENCY[inst.venue]}
    if inst.klass is Class.CRYPTO:
        return facts
    price = inst.price
    return facts | {
        "nc": inst.name_zh, "ne": inst.name_en, "ls": inst.lot, "ts": inst.shares, "os": inst.shares * 4 // 5,
        "ep": f"{price / 21:.4f}", "na": f"{price / 3:.4f}", "dy": f"{inst.yearly * 100:.3f}",
    }  # fmt: skip


def snapshot(market: Market, inst: Instrument, now_s: float) -> dict[str, Any] | None:
    """Return the day as it stands; None before the instrument's first trade."""
    bars = _recent(market, inst, now_s)
    if not bars.start.size:
        return None
    today, place = bars.take(slice(-1, None)), grid(inst.venue)
    newest = int(place.days[max(place.session_at(now_s), 0)])
    last, opened, high, low = (_money(inst, today, n) for n in ("close", "open", "high", "low"))
    turnover = int(today.amount[0]) * inst.tick * inst.lot / 10 ** (inst.decimals + inst.volume_decimals)
    stamp = int(min(now_s, place.close(int(today.day[0]))))
    quote: dict[str, Any] = {"c": code_of(inst), "lp": last}
    if inst.klass is not Class.CRYPTO and bars.start.size > 1:
        quote["yp"] = _money(inst, bars.take(slice(-2, -1)), "close")
    halted = any(_between(newest, start, end) for start, end in inst.halts)
    quote |= {
        "o": opened, "h": high, "l": low, "ts": stamp, "v": quantity(inst, today.volume)[0],
        "t": f"{turnover:.10f}", "s": int(halted),
    }  # fmt: skip
    return quote | (_phases(last, stamp, now_s) if inst.venue == "US" else {})


def book(market: Market, inst: Instrument, now_s: float) -> dict[str, Any] | None:
    """Return the order book around the last price; None before the first trade."""
    bars = _recent(market, inst, now_s)
    if not bars.start.size:
        return None
    last, levels = bars.close[-1:], np.arange(1, _LEVELS[inst.venue] + 1)
    sizes = 1 + np.rint(uniform(key(inst.key, "book", int(now_s)), np.arange(2 * levels.size)) * 90).astype(
        np.int64
    )

    def side(direction: int, steps: Any) -> list[dict[str, str]]:
        at = money(inst, prices(inst, np.maximum(last + direction * levels, 1)))
        return [{"p": p, "v": v} for p, v in zip(at, quantity(inst, steps), strict=True)]

    bids, asks = side(-1, sizes[: levels.size]), side(1, sizes[levels.size :])
    return {"c": code_of(inst), "b": bids, "a": asks, "ts": int(now_s)}


def trades(market: Market, inst: Instrument, count: int, now_s: float) -> list[dict[str, Any]]:
    """Return the newest trades, ascending: each minute's whole volume at its close, as one print."""
    place = grid(inst.venue)
    newest = int(place.days[max(place.session_at(now_s), 0)])
    bars = market.tail(inst, Freq.M1, newest, max(1, min(count, MOST_TRADES)), now_s)
    code, side = code_of(inst), (uniform(key(inst.key, "side"), bars.start) * 3).astype(np.int64)
    at = money(inst, prices(inst, bars.close))
    rows = zip(at, quantity(inst, bars.volume), bars.start.tolist(), side.tolist(), strict=True)
    return [{"c": code, "p": p, "v": v, "ts": int(min(ts + 59, now_s)), "d": d} for p, v, ts, d in rows]


def _recent(market: Market, inst: Instrument, now_s: float) -> Prints:
    place = grid(inst.venue)
    return market.tail(inst, Freq.D1, int(place.days[max(place.session_at(now_s), 0)]), 2, now_s)


def _money(inst: Instrument, bars: Prints, name: str) -> str:
    return money(inst, prices(inst, getattr(bars, name)))[0]


def _between(day: int, start: Any, end: Any) -> bool:
    low, high = np.array([start, end], "datetime64[D]").astype(np.int64).tolist()
    return bool(low <= day < high)


def _phases(last: str, stamp: int, now_s: float) -> dict[str, Any]:
    """Return the US part of a snapshot: the phase of the day, and flat quotes for the other phases."""
    wall = datetime.fromtimestamp(now_s, UTC).astimezone(ZoneInfo("America/New_York"))
    minute = wall.hour * 60 + wall.minute
    phase = 1 if minute < 240 or minute >= 1200 else 2 if minute < 570 else 3 if minute < 960 else 4
    flat = {"lp": last, "yp": last, "h": last, "l": last, "ts": stamp, "v": "0", "t": "0"}
    return {"tt": phase, "pq": flat, "aq": flat, "nq": flat}
