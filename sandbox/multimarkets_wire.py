"""How MultiMarkets spells the market: ids, types of K-line, labels, fields, packings."""

import gzip
import zlib
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, cast, get_args
from urllib.parse import quote

import msgspec
import numpy as np

from ..errors import BadRequest
from ..schemas.freq import Freq
from ..schemas.symbol import Class
from .grid import grid
from .instruments import Instrument
from .market import Market, prices
from .minutes import CLOSING, CONTINUOUS, OPENING, Prints, joined
from .noise import Floats, Ints, key

__all__ = [
    "STOCK",
    "TYPES",
    "Switches",
    "kline",
    "packed",
    "product_id",
    "realtime",
    "rolling",
    "tick",
    "written",
]

TYPES: Final = {
    1: Freq.M1, 2: Freq.M5, 3: Freq.M15, 4: Freq.M30, 5: Freq.H1, 6: Freq.H2, 7: Freq.H4, 8: Freq.D1,
    9: Freq.W1, 10: Freq.MO1,
}  # fmt: skip
STOCK: Final = 6
_LONGEST: Final = {Freq.D1: 1, Freq.W1: 7, Freq.MO1: 31}
_SCALE: Final = {"s": 1, "ms": 1_000, "us": 1_000_000}
_WIDE: Final = {"symbol_id", "timestamp", "last_tick_time", "last_tick_seq", "tick_time", "seq"}
_STALE: Final = 2  # where old copies are sent beside the new ones, one bar in so many has one


@dataclass(frozen=True, slots=True)
class Switches:
    """How the stand-in behaves where the vendor's way is unknown, or where operators differ.

    `silence_s` and `late_s` are seconds of the wall: sockets live in real time. `rate_s`: least
    sandbox seconds between two requests of a connection, 0: any. `twins`: repeated bars, the
    same or an older copy. `pushes`: unasked `p(…)` frames between a request and its reply.
    """

    bad_token: Literal["http_401", "ret_401", "close"] = "http_401"
    errors_named: bool = True
    errors_packed: bool = True
    silence_s: float = 30.0
    end: Literal["inclusive", "exclusive", "ignored", "ignored_for_stocks"] = "inclusive"
    most: int = 500
    order: Literal["ascending", "descending", "rotated"] = "ascending"
    twins: Literal["none", "same", "stale"] = "none"
    padding: bool = False
    packing: Literal["zlib", "gzip", "deflate", "text", "plain", "percent"] = "zlib"
    integers: Literal["number", "wide_text", "text"] = "number"
    tick_unit: Literal["s", "ms", "us"] = "us"
    label: Literal["start", "end"] = "start"
    day_label: Literal["local", "utc", "open"] = "local"
    volume: Literal["shares", "lots"] = "shares"
    closing: Literal["folded", "apart"] = "folded"
    adjusted: bool = False
    connections: int = 1
    rate_s: float = 0.0
    batch: Literal["off", "on", "newest"] = "off"
    rolling: bool = True
    pushes: bool = False
    glued: bool = False
    late_s: float = 0.05

    def turned(self, changes: dict[str, Any]) -> "Switches":
        """Return these with some turned; BadRequest names what is unknown."""
        known = {f.name: f.type for f in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise BadRequest("switch", name, tuple(known))
            choices = get_args(known[name])
            if choices and value not in choices:
                raise BadRequest(name, value, choices)
        return replace(self, **changes)


def product_id(seed: int, symbol: str) -> int:
    """Return the id of an instrument at this operator: of up to 19 digits, beyond what a float holds."""
    return (key(seed, "multimarkets", symbol) >> 1) | 1


def kline(
    market: Market, inst: Instrument, freq: Freq, count: int, end_s: int, shift: int, switches: Switches,
    now_s: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return at most `count` bars going back from `end_s` (0: now), as the switches order them.

    `shift`: ticks by which this trade type's prices lie above the market's.
    """
    count = max(1, min(count, switches.most))
    bars, label = _bars(market, inst, freq, count, end_s, switches, now_s)
    rows = _rows(inst, freq, bars, label, shift, switches, now_s)
    if switches.twins == "same":
        rows = [row for i, row in enumerate(rows) for _ in range(1 + (i % _STALE == 0))]
    if switches.twins == "stale":
        old = [_older(row) for row in rows[::_STALE]]
        rows = [*old[: len(old) // 2], *rows, *old[len(old) // 2 :]]
    if switches.order == "descending":
        return rows[::-1]
    return [*rows[-2:], *rows] if switches.order == "rotated" and len(rows) > 2 else rows


def _bars(
    market: Market, inst: Instrument, freq: Freq, count: int, end_s: int, switches: Switches, now_s: float
) -> tuple[Prints, Ints]:
    place = grid(inst.venue)
    newest = int(place.days[max(place.session_at(now_s), 0)])
    stock = inst.klass is not Class.CRYPTO
    ignored = switches.end == "ignored" or (switches.end == "ignored_for_stocks" and stock)
    if ignored or not 0 < end_s <= now_s:
        end_s, last, wanted = 0, newest, count
    else:
        last = min(newest, end_s // 86_400 + _LONGEST.get(freq, 0))
        wanted = count + (1440 // freq.minutes + 1 if freq.intraday else 3)
    fold = (OPENING, CLOSING) if switches.closing == "folded" else (OPENING,)
    bars = market.tail(inst, freq, last, wanted, now_s, fold, switches.adjusted and stock)
    if switches.padding:
        bars = _filled(inst, freq, bars, now_s)
    label = _labels(inst, freq, bars, switches)
    if end_s:
        side: Literal["left", "right"] = "left" if switches.end == "exclusive" else "right"
        stop = int(np.searchsorted(label, end_s, side=side))
        bars, label = bars.take(slice(0, stop)), label[:stop]
    tail = slice(max(label.size - count, 0), None)
    return bars.take(tail), label[tail]


def _labels(inst: Instrument, freq: Freq, bars: Prints, switches: Switches) -> Ints:
    if freq.intraday and switches.label == "start":
        return bars.start
    if freq.intraday:
        place = grid(inst.venue)
        edges = np.array([s for day in np.unique(bars.day).tolist() for s in place.segments(day)], np.int64)
        until = edges[np.searchsorted(edges[:, 0], bars.start, side="right") - 1, 1]
        ends: Ints = np.minimum(bars.start + freq.minutes * 60, np.maximum(until, bars.start))
        return ends
    if switches.day_label == "open":
        return bars.start
    # Every venue here opens on the same date in UTC as at home.
    days = bars.start // 86_400
    return days * 86_400 if switches.day_label == "utc" else grid(inst.venue).at(days, 0)


def _filled(inst: Instrument, freq: Freq, bars: Prints, now_s: float) -> Prints:
    """Return the bars with flat ones of no volume between them, where nobody traded; indices have none."""
    if inst.klass is Class.INDEX or (freq in _LONGEST and freq is not Freq.D1) or bars.start.size < 2:
        return bars
    place, first, last = grid(inst.venue), int(bars.start[0]), int(bars.start[-1])
    days = place.between(int(bars.day[0]), int(bars.day[-1]))
    if freq.intraday:
        step = freq.minutes * 60
        slots = np.concatenate([
            np.arange(begin, end, step) for day in days.tolist() for begin, end in place.segments(day)
        ])  # fmt: skip
    else:
        slots = place.at(days, place.nominal)
    lacking = np.setdiff1d(slots[(slots > first) & (slots < last) & (slots < now_s)], bars.start)
    before = np.searchsorted(bars.start, lacking) - 1
    price, nothing = bars.close[before], np.zeros(lacking.size, np.int64)
    flat = Prints(
        lacking,
        bars.day[before],
        nothing + CONTINUOUS,
        price,
        price,
        price,
        price,
        nothing,
        nothing,
        nothing == 0,
    )
    both = joined([bars, flat])
    return both.take(np.argsort(both.start, kind="stable"))


def _rows(
    inst: Instrument, freq: Freq, bars: Prints, label: Ints, shift: int, switches: Switches, now_s: float
) -> list[dict[str, Any]]:
    columns = [_money(inst, getattr(bars, n) + shift) for n in ("open", "close", "high", "low")]
    ends = np.minimum(bars.start + (freq.minutes * 60 if freq.intraday else 86_400), int(now_s))
    scale = _SCALE[switches.tick_unit]
    return [
        {"timestamp": ts, "open_price": o, "close_price": c, "high_price": h, "low_price": low,
         "last_tick_time": at * scale, "last_tick_seq": at * 1_000_000 + 1, "transactions_number": v}
        for o, c, h, low, v, ts, at in zip(
            *columns, _quantity(inst, bars.volume, switches), label.tolist(), ends.tolist(), strict=True
        )
    ]  # fmt: skip


def _older(row: dict[str, Any]) -> dict[str, Any]:
    """Return an earlier copy of a bar, as its last tick tells."""
    return row | {
        "last_tick_seq": row["last_tick_seq"] - 7, "close_price": row["open_price"], "high_price": row["open_price"],
        "low_price": row["open_price"],
    }  # fmt: skip


def _money(inst: Instrument, ticks: Any) -> list[str]:
    values: Floats = prices(inst, ticks)
    if values.dtype.kind == "f" and not np.issubdtype(np.asarray(ticks).dtype, np.integer):
        return [repr(value) for value in values.tolist()]  # adjusted: no whole ticks
    return [f"{value:.{inst.decimals}f}" for value in values.tolist()]


def _quantity(inst: Instrument, steps: Ints, switches: Switches) -> list[str]:
    if inst.volume_decimals:
        return [
            f"{step * inst.lot / 10**inst.volume_decimals:.{inst.volume_decimals}f}"
            for step in steps.tolist()
        ]
    lots = switches.volume == "lots" and inst.venue in {"SH", "SZ"}
    return [str(step * (inst.lot // 100 if lots else inst.lot)) for step in steps.tolist()]


def _today(market: Market, inst: Instrument, now_s: float) -> Prints | None:
    place = grid(inst.venue)
    bars = market.tail(inst, Freq.D1, int(place.days[max(place.session_at(now_s), 0)]), 2, now_s)
    return bars if bars.start.size else None


def rolling(
    market: Market, inst: Instrument, ids: tuple[int, int, int], switches: Switches, now_s: float
) -> str:
    """Return the `pr(…)` of an instrument: the newest day's prices, volume and amount; empty before any trade."""
    bars = _today(market, inst, now_s)
    if bars is None:
        return ""
    day = bars.take(slice(-1, None))
    last, first, high, low = (_money(inst, getattr(day, n))[0] for n in ("close", "open", "high", "low"))
    amount = int(day.amount[0]) * inst.tick * inst.lot / 10 ** (inst.decimals + inst.volume_decimals)
    numbers = ",".join(map(str, ids))
    return (
        f"pr({numbers},{last},{first},{high},{low},{_quantity(inst, day.volume, switches)[0]},{amount:.2f})"
    )


def tick(
    market: Market, inst: Instrument, ids: tuple[int, int, int], switches: Switches, now_s: float
) -> dict[str, Any] | None:
    """Return the newest quote of an instrument as 14001 has it; None before any trade."""
    bars = _today(market, inst, now_s)
    if bars is None:
        return None
    day, before = bars.take(slice(-1, None)), bars.take(slice(0, 1))
    last, opened, high, low = (_money(inst, getattr(day, n))[0] for n in ("close", "open", "high", "low"))
    at = int(min(now_s, grid(inst.venue).close(int(day.day[0]))))
    return {
        "symbol_id": ids[0], "trade_type": ids[1], "trade_mode": ids[2], "seq": at * 1_000_000 + 1,
        "tick_time": at * _SCALE[switches.tick_unit], "price_digits": inst.decimals, "price": last,
        "tick_deep": [{"price_bid": last, "price_ask": last, "volume_bid": "1", "volume_ask": "1"}],
        "open_price": opened, "close_price": last, "high_price": high, "low_price": low,
        "yesterday_close_price": _money(inst, before.close)[0],
    }  # fmt: skip


def realtime(one: dict[str, Any]) -> str:
    """Return the `p(…);` of a quote."""
    deep = one["tick_deep"][0]
    parts = [*(one[n] for n in ("symbol_id", "trade_type", "trade_mode", "seq", "tick_time", "price")),
             *(deep[n] for n in ("price_bid", "price_ask", "volume_bid", "volume_ask"))]  # fmt: skip
    return f"p({','.join(map(str, parts))});"


def written(value: Any, switches: Switches) -> bytes:
    """Return a reply as JSON, its integers as the switches write them."""
    if switches.integers == "number":
        return msgspec.json.encode(value)
    return msgspec.json.encode(_worded(value, "", wide=switches.integers == "wide_text"))


def _worded(value: Any, name: str, *, wide: bool) -> Any:
    if isinstance(value, dict):
        return {k: _worded(v, k, wide=wide) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        return [_worded(v, name, wide=wide) for v in items]
    return str(value) if type(value) is int and (name in _WIDE or not wide) else value


def packed(text: bytes, switches: Switches) -> str | bytes:
    """Return the frame that carries a text: str for a text frame, bytes for a binary one."""
    match switches.packing:
        case "text":
            return text.decode()
        case "plain":
            return text
        case "gzip":
            return gzip.compress(text, mtime=0)
        case "deflate":
            stream = zlib.compressobj(wbits=-15)
            return stream.compress(text) + stream.flush()
        case "percent":
            return zlib.compress(quote(text.decode(), safe="").encode())
        case _:
            return zlib.compress(text)
