"""The one market behind every stand-in: canonical bars of any instrument, at any instant.

Nothing is stored or played: a bar follows from the seed, the instrument and its day.
Prices are counted in ticks and volumes in steps of the instrument, as exact integers,
until `table` turns them into the columns of `schemas.bar`.
"""

import threading
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa

from ..errors import BadRequest, UnknownSymbol
from ..schemas.bar import SCHEMA, State
from ..schemas.freq import Freq
from .daily import Days, days, forward, traded
from .grid import Grid, grid, number
from .instruments import Instrument, catalogue
from .minutes import CLOSING, OPENING, Prints, folded, grouped, joined, prints
from .noise import Floats, Ints

__all__ = ["Market", "Restatement", "prices", "volumes"]

_COLUMNS: Final = (
    "freq",
    "symbol",
    "ts",
    "session",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "amount",
    "state",
)
_TRUTH: Final = pa.schema([SCHEMA.field(name) for name in _COLUMNS])
_DAYS_PER_BAR: Final = {Freq.D1: 1.55, Freq.W1: 7.2, Freq.MO1: 31.0, Freq.Q1: 92.0, Freq.Y1: 366.0}
_CHUNK: Final = 48  # days of minutes made at once, so that they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Restatement:
    """From `at_s` (UTC seconds) on, the days `[first, last]` of `symbol` have another close and volume."""

    symbol: str
    first: int
    last: int
    at_s: float


class Market:
    """A deterministic market: the same seed and count give the same bars in every process.

    `closing_delay_s` makes the closing auction print later than the venue's rule says.
    """

    def __init__(self, seed: int = 1, instruments: int = 40) -> None:
        self.seed = seed
        self.instruments: dict[str, Instrument] = {str(i.symbol): i for i in catalogue(seed, instruments)}
        self.closing_delay_s = 0.0
        self._restated: tuple[Restatement, ...] = ()
        self._lock = threading.Lock()

    def instrument(self, symbol: str) -> Instrument:
        """Return the instrument with that canonical symbol; UnknownSymbol when it is not listed here."""
        try:
            return self.instruments[symbol]
        except KeyError:
            raise UnknownSymbol(
                "symbol", symbol, hint="this sandbox does not list it; see /instruments"
            ) from None

    def restate(self, change: Restatement) -> None:
        """Correct days that are over, from `change.at_s` on."""
        self.instrument(change.symbol)
        with self._lock:
            self._restated = (*self._restated, change)

    def calm(self) -> None:
        """Forget every restatement and delay."""
        with self._lock:
            self._restated, self.closing_delay_s = (), 0.0

    def truth(
        self, symbol: str, freq: Freq, start: date | datetime, end: date | datetime, now: datetime
    ) -> pa.Table:
        """Return the canonical bars of one instrument as they stand at `now`.

        Parameters
        ----------
        symbol : str
            Canonical, such as `600519.SH`.
        start, end : date or datetime
            Inclusive dates for 1d and longer; half-open instants for intraday (a bare date is
            its midnight, UTC).
        now : datetime
            Aware. The bar that holds it has only what has been traded so far.

        Returns
        -------
        pa.Table, n rows × 11 columns
            freq, symbol, ts, session, open, high, low, close, volume, amount, state, typed as in
            `schemas.bar.SCHEMA`, ascending by ts. n = 0: nobody traded in that range.
        """
        inst, now_s = self.instrument(symbol), now.timestamp()
        if not freq.intraday:
            first, last = freq.anchor(_date(start)), freq.anchor(_date(end))
            bars = self.bars(inst, freq, number(first), number(freq.following(last)) - 1, now_s)
            keep = (_anchored(freq, bars.day) >= number(_date(start))) & (
                _anchored(freq, bars.day) <= number(last)
            )
            return self.table(inst, freq, bars.take(keep), now_s)
        low_s, high_s = _instant(start), _instant(end)
        bars = self.bars(inst, freq, int(low_s // 86_400) - 1, int(high_s // 86_400) + 1, now_s)
        return self.table(inst, freq, bars.take((bars.start >= low_s) & (bars.start < high_s)), now_s)

    def bars(
        self, inst: Instrument, freq: Freq, first: int, last: int, now_s: float,
        fold: tuple[int, ...] = (OPENING, CLOSING), adjusted: bool = False,
    ) -> Prints:  # fmt: skip
        """Return the bars of the sessions `[first, last]` (days since 1970), ascending.

        Daily and longer: `start` is the nominal open of the bar's anchor date, `day` its first
        traded session. Intraday: the auctions of `fold` are folded in, others stand apart.
        `adjusted`: prices forward-adjusted as of `now_s`, then no longer whole ticks.
        """
        place = grid(inst.venue)
        sessions = traded(inst, place, self._opened(place, first, last, now_s))
        if not freq.intraday:
            daily = self._daily(inst, place, sessions, now_s)
            return _longer(place, freq, _adjusted(inst, place, daily, now_s) if adjusted else daily, now_s)
        whole = self._whole(inst, place, sessions, now_s)
        parts = [
            folded(place, prints(inst, place, whole.take(np.arange(i, min(i + _CHUNK, sessions.size))), now_s,
                                 self.closing_delay_s), fold)
            for i in range(0, max(sessions.size, 1), _CHUNK)
        ]  # fmt: skip
        minutes = joined(parts)
        return _bucketed(place, freq, _adjusted(inst, place, minutes, now_s) if adjusted else minutes, now_s)

    def tail(
        self, inst: Instrument, freq: Freq, last: int, count: int, now_s: float,
        fold: tuple[int, ...] = (OPENING, CLOSING), adjusted: bool = False,
    ) -> Prints:  # fmt: skip
        """Return the newest `count` bars of sessions up to `last`, fewer only where history ends."""
        place = grid(inst.venue)
        newest = int(place.days[max(place.session_at(now_s), 0)])
        last, oldest = min(last, newest), max(number(inst.listed), int(place.days[1]))
        if inst.delisted is not None:
            last = min(last, number(inst.delisted))
        if freq.intraday:
            share = max(inst.traded, 0.02) * place.starts(newest).size / freq.minutes
            reach = (
                count / max(min(share, place.starts(newest).size / freq.minutes), 0.05) + 2
            ) * _DAYS_PER_BAR[Freq.D1]
        else:
            reach = (count + 2) * _DAYS_PER_BAR[freq]
        while True:
            first = max(oldest, last - int(reach) - 4)
            begin = int(_anchored(freq, np.array([first]))[0])
            bars = self.bars(inst, freq, begin, last, now_s, fold, adjusted)
            if bars.start.size >= count or first == oldest:
                return bars.take(slice(max(bars.start.size - count, 0), None))
            reach *= 2

    def table(self, inst: Instrument, freq: Freq, bars: Prints, now_s: float) -> pa.Table:
        """Return `bars` in quote currency and shares or base units, columns as in `truth`."""
        place = grid(inst.venue)
        sessions = bars.day if freq.intraday else _anchored(freq, bars.day)
        columns: dict[str, Any] = {
            "freq": [freq.value] * bars.start.size,
            "symbol": [str(inst.symbol)] * bars.start.size,
            "ts": pa.array(bars.start * 1_000_000, pa.timestamp("us", tz="UTC")),
            "session": pa.array(sessions.astype(np.int32)).cast(pa.date32()),
            **{name: prices(inst, getattr(bars, name)) for name in ("open", "high", "low", "close")},
            "volume": volumes(inst, bars.volume),
            "amount": bars.amount * (inst.tick * inst.lot) / 10 ** (inst.decimals + inst.volume_decimals),
            "state": self._states(place, freq, bars, now_s),
        }
        return pa.table(columns, schema=_TRUTH)

    def _states(self, place: Grid, freq: Freq, bars: Prints, now_s: float) -> list[str]:
        """Return the state of each bar: one that has ended is final, unless its closing auction is to come."""
        pending = place.closing_s + self.closing_delay_s
        days, back = np.unique(bars.day, return_inverse=True)
        closes = np.array([place.close(day) for day in days.tolist()], np.int64)[back]
        settled = closes + pending <= now_s
        if freq.intraday:
            settled |= bars.start + freq.minutes * 60 < closes
        ended = np.where(settled | (pending == 0), State.FINAL.value, State.CLOSED.value)
        return cast("list[str]", np.where(bars.over, ended, State.OPEN.value).tolist())

    def _settled(self, place: Grid, day: int, now_s: float, pending_s: float) -> bool:
        return place.close(day) + pending_s <= now_s

    def _opened(self, place: Grid, first: int, last: int, now_s: float) -> Ints:
        spot = place.session_at(now_s)
        return (
            place.between(max(first, int(place.days[1])), min(last, int(place.days[spot])))
            if spot > 0
            else _NONE
        )

    def _whole(self, inst: Instrument, place: Grid, sessions: Ints, now_s: float) -> Days:
        changes = [r for r in self._restated if r.symbol == str(inst.symbol) and r.at_s <= now_s]
        if not changes:
            return days(inst, place, sessions)
        return days(inst, place, sessions, np.concatenate([np.arange(r.first, r.last + 1) for r in changes]))

    def _daily(self, inst: Instrument, place: Grid, sessions: Ints, now_s: float) -> Prints:
        """Return one bar per session; those not settled yet are summed from their minutes."""
        whole, pending = self._whole(inst, place, sessions, now_s), place.closing_s + self.closing_delay_s
        young = sessions.size
        while young and not self._settled(place, int(sessions[young - 1]), now_s, pending):
            young -= 1
        old = whole.take(np.arange(young))
        start, zero = place.at(old.day, place.nominal), np.zeros(young, np.int64)
        bars = [
            Prints(
                start,
                old.day,
                zero,
                old.open,
                old.high,
                old.low,
                old.close,
                old.volume,
                old.amount,
                zero == 0,
            )
        ]
        if young < sessions.size:
            made = prints(
                inst, place, whole.take(np.arange(young, sessions.size)), now_s, self.closing_delay_s
            )
            forming = grouped(made, made.day)
            over = np.array([place.close(day) <= now_s for day in forming.day.tolist()], np.bool_)
            start, zero = place.at(forming.day, place.nominal), np.zeros(over.size, np.int64)
            bars.append(replace(forming, start=start, kind=zero, over=over))
        return joined(bars)


_NONE: Final = np.zeros(0, np.int64)


def prices(inst: Instrument, ticks: Ints) -> Floats:
    """Return ticks as quote currency: the float nearest to the decimal."""
    out: Floats = ticks * inst.tick / 10**inst.decimals
    return out


def volumes(inst: Instrument, steps: Ints) -> Floats:
    """Return steps as shares or base units: the float nearest to the decimal."""
    out: Floats = steps * inst.lot / 10**inst.volume_decimals
    return out


def _adjusted(inst: Instrument, place: Grid, bars: Prints, now_s: float) -> Prints:
    today = int(place.days[place.session_at(now_s)])
    factor = forward(inst, place, bars.day, today)
    values: dict[str, Any] = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
    return replace(bars, **values)


def _longer(place: Grid, freq: Freq, daily: Prints, now_s: float) -> Prints:
    """Return daily bars joined to weeks, months, quarters or years."""
    if freq is Freq.D1 or not daily.start.size:
        return daily
    label = _anchored(freq, daily.day)
    bars = grouped(daily, label)
    anchors = np.unique(label)
    newest = date.fromordinal(int(anchors[-1]) + 719_163)
    final = place.between(int(anchors[-1]), number(freq.following(newest)) - 1)
    over = bars.over.copy()
    over[-1] &= place.close(int(final[-1])) <= now_s
    return replace(bars, start=place.at(anchors, place.nominal), over=over)


def _anchored(freq: Freq, at: Ints) -> Ints:
    """Return the anchor date of each day, as `Freq.anchor` does for one."""
    if freq is Freq.W1:
        return at - (at + 3) % 7  # 1970-01-01 was a Thursday
    months = {Freq.MO1: 1, Freq.Q1: 3, Freq.Y1: 12}.get(freq)
    if months is None:
        return at
    month = at.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) // months * months
    return month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def _bucketed(place: Grid, freq: Freq, minutes: Prints, now_s: float) -> Prints:
    """Return minutes joined to bars of `freq`, counted from the start of each trading segment."""
    if freq is Freq.M1 or not minutes.start.size:
        return minutes
    edges = np.array([s for day in np.unique(minutes.day).tolist() for s in place.segments(day)], np.int64)
    spot = np.searchsorted(edges[:, 0], minutes.start, side="right") - 1
    begin, step = edges[spot, 0], freq.minutes * 60
    label = begin + (minutes.start - begin) // step * step
    bars = grouped(minutes, label)
    first = np.concatenate([[True], label[1:] != label[:-1]])
    ends = np.minimum(label[first] + step, np.maximum(edges[spot[first], 1], label[first] + 1))
    return replace(bars, start=label[first], over=ends <= now_s)


def _date(when: date | datetime) -> date:
    return when.date() if isinstance(when, datetime) else when


def _instant(when: date | datetime) -> float:
    if not isinstance(when, datetime):
        return datetime(when.year, when.month, when.day, tzinfo=UTC).timestamp()
    if when.tzinfo is None:
        raise BadRequest("start, end", when.isoformat(), hint="give an aware instant")
    return when.timestamp()
