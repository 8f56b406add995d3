"""Whole days of one instrument, computed directly: no day needs the one before it."""

from dataclasses import dataclass, fields
from datetime import date
from functools import lru_cache
from typing import Final

import numpy as np

from ..schemas.symbol import Class
from .grid import Grid, number
from .instruments import Action, Instrument
from .noise import Floats, Ints, key, normal, smooth, uniform

__all__ = ["Days", "Event", "days", "events", "forward", "traded"]

_REFERENCE: Final = number(date(2026, 1, 1))  # where `Instrument.price` holds
_OCTAVES: Final = 11
_LEAST: Final = 5  # no price falls below this many ticks


@dataclass(frozen=True, slots=True)
class Days:
    """n days of one instrument: prices in ticks, volumes in steps, amount in ticks × steps.

    `opening` and `closing` are the volumes of the two auctions, which print at `open` and
    `close`; `volume` and `amount` hold them too.
    """

    day: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    amount: Ints
    opening: Ints
    closing: Ints

    def take(self, rows: Ints) -> "Days":
        """Return the rows of an index array, or of a mask."""
        return Days(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Event:
    """A corporate action on its session: declared numbers and what adjusting for it means.

    `cash` per old share in quote currency; `factor` scales every price before `day` in a
    forward-adjusted series: (prev_close - cash) ÷ prev_close ÷ shares, exactly 1 for a reform.
    """

    action: Action
    day: int
    prev_close: float
    cash: float
    factor: float


def traded(inst: Instrument, grid: Grid, sessions: Ints) -> Ints:
    """Return those of `sessions` on which the instrument has at least one trade."""
    keep = sessions >= number(inst.listed)
    if inst.delisted is not None:
        keep &= sessions < number(inst.delisted)
    for start, end in inst.halts:
        keep &= (sessions < number(start)) | (sessions >= number(end))
    if inst.traded < 0.1:
        keep &= uniform(key(inst.key, "idle"), sessions) >= 0.06
    return sessions[keep]


def days(inst: Instrument, grid: Grid, sessions: Ints, restated: Ints | None = None) -> Days:
    """Return the days of `sessions` (ascending), all of them over; `restated` ones corrected."""
    if not sessions.size:
        return Days(*(np.zeros(0, np.int64) for _ in fields(Days)))
    before, level = grid.before(sessions), _level(inst, grid, sessions)
    gap = inst.swing * (0.02 if grid.round_the_clock else 0.35)
    span = grid.between(int(before[0]), int(sessions[-1]))
    trend = _trend(inst, span)
    start, end = trend[np.searchsorted(span, before)], trend[np.searchsorted(span, sessions)]
    opened = _ticks(inst, start + gap * normal(key(inst.key, "gap"), sessions) + level)
    close = _ticks(inst, end + level)
    reach = 0.6 * inst.swing * close
    high = np.maximum(opened, close) + np.rint(reach * uniform(key(inst.key, "high"), sessions) ** 2).astype(
        np.int64
    )
    low = np.minimum(opened, close) - np.rint(reach * uniform(key(inst.key, "low"), sessions) ** 2).astype(
        np.int64
    )
    low = np.maximum(low, 1)
    mood = 0.35 * normal(key(inst.key, "volume"), sessions) + 0.15 * smooth(
        key(inst.key, "mood"), sessions, 6
    )
    volume = np.maximum(np.rint(inst.daily * np.exp(mood - level)), 1).astype(np.int64)
    if restated is not None and restated.size:
        changed = np.isin(sessions, restated)
        volume = np.where(changed, volume + volume // 50 + 1, volume)
        close = np.where(changed, np.where(close < high, close + 1, np.maximum(close - 1, low)), close)
    return _with_auctions(inst, grid, sessions, (opened, high, low, close), volume)


def _with_auctions(
    inst: Instrument, grid: Grid, sessions: Ints, prices: tuple[Ints, Ints, Ints, Ints], volume: Ints
) -> Days:
    opened, high, low, close = prices
    share = 0.0 if grid.round_the_clock else 1.0
    opening = (volume * share * (0.005 + 0.02 * uniform(key(inst.key, "opening"), sessions))).astype(np.int64)
    closing = (volume * share * (0.01 + 0.07 * uniform(key(inst.key, "closing"), sessions))).astype(np.int64)
    rest = volume - opening - closing
    centre = (opened + high + low + close) / 4 + 0.08 * (high - low) * normal(key(inst.key, "mean"), sessions)
    middle = np.clip(np.rint(centre * rest).astype(np.int64), low * rest, high * rest)
    amount = opened * opening + close * closing + middle
    return Days(sessions, opened, high, low, close, volume, amount, opening, closing)


def _trend(inst: Instrument, at: Ints) -> Floats:
    """Return the log of price ÷ `inst.price`, actions undone: n values for ascending days."""
    wave = key(inst.key, "trend")
    drift = inst.yearly + (0.2 if inst.klass is Class.CRYPTO else 0.04)
    here = smooth(wave, np.array([_REFERENCE]), _OCTAVES)
    out: Floats = inst.swing * (smooth(wave, at, _OCTAVES) - here) + drift / 365 * (at - _REFERENCE)
    return out


def _ticks(inst: Instrument, log_price: Floats) -> Ints:
    scale = inst.price * 10**inst.decimals / inst.tick
    out: Ints = np.maximum(np.rint(scale * np.exp(log_price)), _LEAST).astype(np.int64)
    return out


def _level(inst: Instrument, grid: Grid, at: Ints) -> Floats:
    """Return the log of what actions did to the as-traded price, relative to the reference."""
    sessions, logs = _effective(inst, grid)
    reached: Floats = np.concatenate([[0.0], np.cumsum(logs)])
    out: Floats = (
        reached[np.searchsorted(sessions, at, side="right")]
        - reached[int(np.searchsorted(sessions, _REFERENCE))]
    )
    return out


@lru_cache(8192)
def _effective(inst: Instrument, grid: Grid) -> tuple[Ints, Floats]:
    """Return (session, log of the drop) of each action; one that falls on no session waits for the next."""
    places = np.searchsorted(grid.days, [number(a.ex) for a in inst.actions])
    inside = places < grid.days.size
    logs = np.log(np.array([a.drop for a in inst.actions], np.float64))
    return grid.days[places[inside]], logs[inside]


@lru_cache(1024)
def events(inst: Instrument, grid: Grid) -> tuple[Event, ...]:
    """Return every action of the instrument's life with its declared numbers, ascending by day."""
    ex_days, _ = _effective(inst, grid)
    life = traded(inst, grid, grid.days[1:])
    places = np.searchsorted(life, ex_days)
    # An action before the first trade, or after the last one of a delisted name, touches no price.
    valid = (places > 0) & ((places < life.size) | (inst.delisted is None))
    closes = days(inst, grid, life[places[valid] - 1]).close * inst.tick / 10**inst.decimals
    chosen = [action for action, keep in zip(inst.actions, valid.tolist(), strict=False) if keep]
    return tuple(map(_declared, chosen, ex_days[valid].tolist(), closes.tolist()))


def _declared(action: Action, day: int, close: float) -> Event:
    cash = round(close * action.ratio, 4) if action.kind == "dividend" else 0.0
    shares = action.ratio if action.kind in {"split", "bonus"} else 1.0
    return Event(action, day, close, cash, (close - cash) / close / shares)


def forward(inst: Instrument, grid: Grid, at: Ints, today: int) -> Floats:
    """Return the factor that turns prices of days `at` into forward-adjusted ones as of `today`."""
    known = [e for e in events(inst, grid) if e.day <= today]
    logs = np.log(np.array([e.factor for e in known], np.float64))
    reached: Floats = np.concatenate([[0.0], np.cumsum(logs)])
    here: Floats = reached[np.searchsorted([e.day for e in known], at, side="right")]
    out: Floats = np.exp(reached[-1] - here)
    return out
