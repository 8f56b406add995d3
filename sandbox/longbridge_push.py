"""What Longbridge pushes by itself: quotes (101) and trades (104), from which its SDK builds candles."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ..schemas.freq import Freq
from .faults import Rule
from .grid import grid
from .instruments import Instrument
from .longbridge_wire import code_of, fold_of, unit_of
from .market import Market, prices
from .minutes import Prints
from .protobuf import field as part
from .protobuf import packed

__all__ = ["ENDPOINT", "Subscription", "pushes", "subscription"]

ENDPOINT: Final = "push"
_QUOTE, _TRADE = 1, 4
_QUOTES, _TRADES = 101, 104
_EOD: Final = 1  # the tag of a quote that the day's end corrects
_LATE_S: Final = 120


@dataclass(slots=True)
class Subscription:
    """One symbol of one connection: what it wants, and what was told of it until when.

    `sub_types`: 1 quotes, 4 trades. `seen_s`: the instant of the last look; `bar`: the minute that
    was forming then; `ended`: the session whose end was told.
    """

    inst: Instrument
    sub_types: frozenset[int]
    seen_s: float
    bar: "_Minute | None" = None
    ended: int = -1
    sequence: int = 0
    first: bool = False


@dataclass(frozen=True, slots=True)
class _Minute:
    start: int
    open: int
    high: int
    low: int
    close: int
    volume: int


def subscription(market: Market, inst: Instrument, now_s: float, *, first: bool) -> Subscription:
    """Return a subscription from `now_s` on: of the running minute only what is still to come is told."""
    place = grid(inst.venue)
    day = int(place.days[max(place.session_at(now_s), 0)])
    running = _minutes(market.bars(inst, Freq.M1, day, day, now_s, fold_of(inst)))[-1:]
    bar = running[0] if running and running[0].start == now_s // 60 * 60 else None
    return Subscription(inst, frozenset(), now_s, bar, first=first)


def pushes(
    market: Market, sub: Subscription, now_s: float, draw: Callable[[], tuple[Rule, ...]]
) -> list[tuple[int, bytes]]:
    """Return the (command, body) of each push about one symbol since the last look, and note it.

    `draw` is asked for faults when there is something to push: `late_trade` adds a trade of two minutes ago, which a client should drop; `eod_quote`
    a quote with a corrected close, `lost_push` drops everything.
    """
    if now_s <= sub.seen_s and not sub.first:
        return []
    place = grid(sub.inst.venue)
    day = int(place.days[max(place.session_at(now_s), 0)])
    minutes = market.bars(sub.inst, Freq.M1, day, day, now_s, fold_of(sub.inst))
    since = sub.bar.start if sub.bar else int(sub.seen_s) // 60 * 60
    fresh = minutes.take(minutes.start >= since)
    trades = [trade for row in _minutes(fresh) for trade in _trades(row, _before(sub, row), now_s)]
    told = bool(trades) or sub.first or (sub.ended != day and place.close(day) <= now_s)
    newest = _minutes(fresh)[-1:]
    sub.bar, sub.seen_s, sub.first = newest[0] if newest else sub.bar, now_s, False
    if place.close(day) <= now_s:
        sub.ended = day
    struck = {rule.kind for rule in draw()} if told else set[str]()
    out: list[tuple[int, bytes]] = []
    if told and _QUOTE in sub.sub_types:
        out += _quotes(market, sub, day, now_s, eod="eod_quote" in struck)
    if "late_trade" in struck and trades:
        trades.append(replace(trades[0], at=trades[0].at - _LATE_S, price=trades[0].price * 2))
    if trades and _TRADE in sub.sub_types:
        out.append((_TRADES, _trade_body(sub, trades)))
    return [] if "lost_push" in struck else out


@dataclass(frozen=True, slots=True)
class _Trade:
    at: int
    price: int
    volume: int


def _minutes(table: Prints) -> list[_Minute]:
    columns = (table.start, table.open, table.high, table.low, table.close, table.volume)
    return [_Minute(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def _before(sub: Subscription, row: _Minute) -> _Minute | None:
    return sub.bar if sub.bar is not None and sub.bar.start == row.start else None


def _trades(row: _Minute, before: _Minute | None, now_s: float) -> list[_Trade]:
    """Return trades that make the minute of `before` into that of `row`: extremes first, the close last."""
    path = [] if before else [row.open]
    path += [row.high] if row.high > (before.high if before else row.open) else []
    path += [row.low] if row.low < (before.low if before else row.open) else []
    volume = row.volume - (before.volume if before else 0)
    path += [row.close] if volume > 0 and (len(path) < 2 or path[-1] != row.close) else []
    if not path:
        return []
    single = [1 if volume > i + 1 else 0 for i in range(len(path) - 1)]
    volumes = [*single, volume - sum(single)]
    last = min(int(now_s), row.start + 59)
    ats = [row.start if i == 0 and not before else last for i in range(len(path))]
    return [_Trade(at, price, one) for at, price, one in zip(ats, path, volumes, strict=True)]


def _trade_body(sub: Subscription, trades: list[_Trade]) -> bytes:
    sub.sequence += 1
    unit, texts = unit_of(sub.inst), _money(sub.inst, [t.price for t in trades])
    rows = (
        part(1, text) + part(2, trade.volume * unit) + part(3, trade.at)
        for trade, text in zip(trades, texts, strict=True)
    )
    return part(1, code_of(sub.inst)) + part(2, sub.sequence) + packed(3, rows)


def _quotes(
    market: Market, sub: Subscription, day: int, now_s: float, *, eod: bool
) -> list[tuple[int, bytes]]:
    """Return the day as it stands; with `eod` once more, one tick higher, as the day's end corrects it."""
    inst, place = sub.inst, grid(sub.inst.venue)
    today = market.bars(inst, Freq.D1, day, day, now_s)
    if not today.start.size:
        return []
    names = ("close", "open", "high", "low")
    values: dict[str, int] = {name: int(getattr(today, name)[0]) for name in names}
    at, volume = int(min(now_s, place.close(day))), int(today.volume[0]) * unit_of(inst)
    paid = int(today.amount[0]) * inst.tick * inst.lot / 10 ** (inst.decimals + inst.volume_decimals)
    out: list[tuple[int, bytes]] = []
    for tag in (0, _EOD) if eod else (0,):
        sub.sequence += 1
        corrected = {"close", "high"} if tag else set[str]()
        texts = _money(inst, [values[name] + (name in corrected) for name in names])
        body = part(1, code_of(inst)) + part(2, sub.sequence)
        body += b"".join(part(number, text) for number, text in enumerate(texts, 3))
        out.append((_QUOTES, body + part(7, at) + part(8, volume) + part(9, f"{paid:.3f}") + part(14, tag)))
    return out


def _money(inst: Instrument, ticks: list[int]) -> list[str]:
    return [f"{value:.3f}" for value in prices(inst, np.array(ticks, np.int64)).tolist()]
