"""The minutes of given days: prints that open, bound, close and sum exactly as the day does."""

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .daily import Days
from .grid import Grid
from .instruments import Instrument
from .noise import Floats, Ints, key, normal, uniform

__all__ = ["CLOSING", "CONTINUOUS", "OPENING", "Prints", "folded", "grouped", "joined", "prints"]

CONTINUOUS, OPENING, CLOSING = 0, 1, 2
_QUIET_END: Final = {"SH": 3, "SZ": 3}  # from 14:57 on, China only collects orders for the auction


@dataclass(frozen=True, slots=True)
class Prints:
    """n minutes in which somebody traded, ascending by start; auctions stand apart.

    `start` in UTC seconds: for the opening auction that of the first minute, for the closing
    auction the end of the last one. `kind` is CONTINUOUS, OPENING or CLOSING. Prices in
    ticks, volume in steps, amount in ticks × steps. `over` is false for a bar still forming.
    """

    start: Ints
    day: Ints
    kind: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    amount: Ints
    over: npt.NDArray[np.bool_]

    def take(self, rows: Any) -> "Prints":
        """Return the rows of an index array, a mask or a slice."""
        return Prints(*(getattr(self, f.name)[rows] for f in fields(self)))


_NONE: Final = np.zeros(0, np.int64)
_NOTHING: Final = Prints(_NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, np.zeros(0, np.bool_))


def joined(parts: list[Prints]) -> Prints:
    """Return several tables, each later than the one before, as one."""
    return Prints(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Prints)))


def prints(
    inst: Instrument, grid: Grid, whole: Days, now_s: float = np.inf, closing_delay_s: float = 0.0
) -> Prints:
    """Return what was traded in the days of `whole` until the instant `now_s` (UTC seconds).

    The minute that holds `now_s` comes with what it has seen so far. The closing auction
    prints `closing_delay_s` later than the venue's rule says.
    """
    if not whole.day.size:
        return _NOTHING
    starts, minutes = _padded(grid, whole.day)
    volume = _volumes(inst, whole, starts, minutes)
    paid, path, amount = _path(inst, whole, starts, minutes, volume)
    opened, high, low, close = _shaped(inst, whole, starts, volume, paid, path)
    pick = np.nonzero(volume)
    rows = pick[0]
    made = Prints(
        starts[pick], whole.day[rows], np.full(rows.size, CONTINUOUS), opened[pick], high[pick], low[pick], close[pick],
        volume[pick], amount[pick], np.ones(rows.size, np.bool_),
    )  # fmt: skip
    return _merged([_cut(inst, made, now_s), *_auctions(grid, whole, starts, now_s, closing_delay_s)])


def folded(grid: Grid, given: Prints, kinds: tuple[int, ...] = (OPENING, CLOSING)) -> Prints:
    """Return `given` with the auctions of `kinds` inside the first and last minute of their session.

    A minute is made where nobody traded in it. This is the canonical form.
    """
    start = given.start.copy()
    if CLOSING in kinds:
        start[given.kind == CLOSING] -= 60
    moved = np.isin(given.kind, kinds)
    table = replace(given, start=start, kind=np.where(moved, CONTINUOUS, given.kind))
    return grouped(table, start * 4 + table.kind)


def grouped(table: Prints, label: Ints) -> Prints:
    """Return one bar for each run of equal `label`: first open, highest, lowest, last close, sums."""
    if not table.start.size:
        return table
    first = np.flatnonzero(np.concatenate([[True], label[1:] != label[:-1]]))
    last = np.concatenate([first[1:], [label.size]]) - 1
    return Prints(
        table.start[first], table.day[first], table.kind[first], table.open[first],
        np.maximum.reduceat(table.high, first), np.minimum.reduceat(table.low, first), table.close[last],
        np.add.reduceat(table.volume, first), np.add.reduceat(table.amount, first),
        np.logical_and.reduceat(table.over, first),
    )  # fmt: skip


def _padded(grid: Grid, days: Ints) -> tuple[Ints, Ints]:
    """Return the minute starts of each day (days × longest) and how many of them are real."""
    each = [grid.starts(day) for day in days.tolist()]
    minutes = np.array([s.size for s in each], np.int64)
    longest = int(minutes.max())
    out = np.zeros((len(each), longest), np.int64)
    for row, starts in enumerate(each):
        out[row, : starts.size] = starts
    return out, minutes


def _volumes(inst: Instrument, whole: Days, starts: Ints, minutes: Ints) -> Ints:
    """Return the continuous volume of each minute, days × minutes; it sums to the day's, exactly."""
    index = starts // 60
    spot = np.arange(int(starts.shape[1]))[None, :]
    part: Floats = (spot + 0.5) / minutes[:, None]
    weight: Floats = (0.45 + 2.2 * (part - 0.55) ** 2) * (0.15 + uniform(key(inst.key, "weight"), index) ** 2)
    if inst.traded < 1:
        weight *= uniform(key(inst.key, "thin"), index) < inst.traded
    weight[spot >= minutes[:, None] - _QUIET_END.get(inst.venue, 0)] = 0.0
    silent = weight.sum(axis=1) == 0
    weight[silent, 0] = 1.0
    reached = np.cumsum(weight, axis=1)
    rest = (whole.volume - whole.opening - whole.closing)[:, None]
    steps = np.rint(reached / reached[:, -1:] * rest).astype(np.int64)
    return np.diff(steps, axis=1, prepend=0)


def _path(
    inst: Instrument, whole: Days, starts: Ints, minutes: Ints, volume: Ints
) -> tuple[Floats, Floats, Ints]:
    """Return (average price per minute, price at the n + 1 borders, amount per minute).

    A bridge from open to close inside [low, high], bent so that the amounts sum to the day's.
    """
    low, high = whole.low[:, None], whole.high[:, None]
    count = int(starts.shape[1])
    part = np.minimum(np.arange(count + 1)[None, :] / minutes[:, None], 1.0)
    walk = np.zeros((starts.shape[0], count + 1))
    np.cumsum(normal(key(inst.key, "walk"), starts // 60), axis=1, out=walk[:, 1:])
    walk -= part * np.take_along_axis(walk, minutes[:, None], axis=1)
    walk *= (high - low) * (0.7 / np.sqrt(minutes))[:, None]
    path = np.clip(whole.open[:, None] + (whole.close - whole.open)[:, None] * part + walk, low, high)
    paid = (path[:, :-1] + path[:, 1:]) / 2
    rest = volume.sum(axis=1)
    over = whole.amount - whole.open * whole.opening - whole.close * whole.closing - whole.low * rest
    short = over - (volume * (paid - low)).sum(axis=1)
    goal = np.where(short > 0, whole.high, whole.low)[:, None]
    room: Floats = (volume * np.abs(goal - paid)).sum(axis=1)
    bend = np.divide(np.abs(short), room, out=np.zeros(room.size), where=room > 0).clip(0, 1)[:, None]
    paid, path = paid + bend * (goal - paid), path + bend * (goal - path)
    # Relative to `low` the running sum stays small enough for floats to be exact where it matters.
    reached = np.minimum(np.rint(np.cumsum(volume * (paid - low), axis=1)).astype(np.int64), over[:, None])
    last = np.cumsum(volume, axis=1) == rest[:, None]
    reached = np.where(last, over[:, None], reached)
    return paid, path, np.diff(reached, axis=1, prepend=0) + volume * low


def _shaped(
    inst: Instrument, whole: Days, starts: Ints, volume: Ints, paid: Floats, path: Floats
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return open, high, low, close of each minute, days × minutes, in ticks."""
    low, high = whole.low[:, None], whole.high[:, None]
    rows = np.arange(int(starts.shape[0]))
    begin, end = (np.rint(path[:, cut]).astype(np.int64) for cut in (slice(None, -1), slice(1, None)))
    active = volume > 0
    first, last = active.argmax(axis=1), starts.shape[1] - 1 - active[:, ::-1].argmax(axis=1)
    # Without an auction the first and last trade make the day's open and close.
    lone, ended = rows[whole.opening == 0], rows[whole.closing == 0]
    begin[lone, first[lone]] = whole.open[lone]
    end[ended, last[ended]] = whole.close[ended]
    wick = (0.6 / np.sqrt(starts.shape[1])) * (high - low)
    up, down = (wick * uniform(key(inst.key, w), starts // 60) ** 2 for w in ("up", "down"))
    top = np.maximum(np.maximum(begin, end), np.ceil(paid) + np.rint(up)).astype(np.int64)
    bottom = np.minimum(np.minimum(begin, end), np.floor(paid) - np.rint(down)).astype(np.int64)
    top, bottom = np.minimum(top, high), np.maximum(bottom, low)
    highest = np.where(active, top, -1).argmax(axis=1)
    lowest = np.where(active, bottom, np.iinfo(np.int64).max).argmin(axis=1)
    top[rows, highest], bottom[rows, lowest] = whole.high, whole.low
    return begin, top, bottom, end


def _auctions(grid: Grid, whole: Days, starts: Ints, now_s: float, delay_s: float) -> list[Prints]:
    opens = starts[:, 0]
    closes = np.array([grid.close(day) for day in whole.day.tolist()], np.int64)
    out: list[Prints] = []
    for kind, at, seen_s, volume, price in (
        (OPENING, opens, opens, whole.opening, whole.open),
        (CLOSING, closes, closes + grid.closing_s + delay_s, whole.closing, whole.close),
    ):
        rows = np.flatnonzero((volume > 0) & (seen_s <= now_s))
        same = price[rows]
        out.append(Prints(
            at[rows], whole.day[rows], np.full(rows.size, kind), same, same, same, same, volume[rows],
            same * volume[rows], np.ones(rows.size, np.bool_),
        ))  # fmt: skip
    return out


def _merged(parts: list[Prints]) -> Prints:
    table = joined(parts)
    rank = np.array([1, 0, 2])[table.kind]  # an opening print comes before the minute it starts with
    return table.take(np.lexsort((rank, table.start)))


def _cut(inst: Instrument, table: Prints, now_s: float) -> Prints:
    """Return the rows begun before `now_s`, the newest of them with what it has seen so far."""
    count = int(np.searchsorted(table.start, now_s))
    if not count or table.start[count - 1] + 60 <= now_s:
        return table.take(slice(0, count))
    whole, forming = table.take(slice(0, count - 1)), table.take(slice(count - 1, count))
    part = (now_s - int(forming.start[0])) / 60
    volume = int(forming.volume[0] * part)
    if not volume:
        return whole
    price, top, bottom = _seen(inst, forming, part)
    average = min(max(forming.amount[0] / forming.volume[0], bottom), top)
    grown = replace(
        forming, high=np.array([top]), low=np.array([bottom]), close=np.array([price]), volume=np.array([volume]),
        amount=np.array([round(average * volume)]), over=np.array([False]),
    )  # fmt: skip
    return joined([whole, grown])


def _seen(inst: Instrument, bar: Prints, part: float) -> tuple[int, int, int]:
    """Return (price, high, low) when `part` of the minute is over: a line open, peak, trough, close."""
    opened, top, bottom, close = (int(getattr(bar, n)[0]) for n in ("open", "high", "low", "close"))
    rising = float(uniform(key(inst.key, "order"), bar.start)[0]) < 0.5
    turns = [opened, *((top, bottom) if rising else (bottom, top)), close]
    moments = [0.0, 0.3, 0.7, 1.0]
    price = round(float(np.interp(part, moments, turns)))
    past = [t for t, m in zip(turns, moments, strict=True) if m <= part]
    return price, max(price, *past), min(price, *past)
