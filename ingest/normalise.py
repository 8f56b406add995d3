"""Rows as a vendor sent them → canonical bars: labels, units, sessions, states, whole sessions folded.

Nothing is invented here: what cannot be a bar becomes a Reject, what says "no trade" goes.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..schemas.bar import INCOMING, TIME, Flag, State, empty
from ..schemas.capability import Capability
from ..schemas.compute import pc
from ..schemas.freq import Freq
from ..schemas.grid import Bools, Numbers, grid, micros
from ..schemas.hours import offsets
from ..schemas.page import Entry, Reject, SeriesPage
from ..schemas.session import Anchor, calendar, nominal_ts_array
from ..schemas.symbol import Class, Symbol

__all__ = ["Floats", "Rows", "fold", "local_days", "series_page", "symbol_of"]

_DAY_US: Final = 86_400_000_000
_REACH: Final = {
    Freq.D1: 4,
    Freq.W1: 11,
    Freq.MO1: 35,
    Freq.Q1: 96,
    Freq.Y1: 370,
}  # days a bar may last, and more
_NEVER_FILLER: Final = {Class.INDEX, Class.FX}  # they move, or stand still, without volume
_EXACT: Final = 2.0**53 / 10_000  # below that a float has four exact decimals and more
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_RANK: Final = {State.OPEN.value: 0, State.CLOSED.value: 1, State.FINAL.value: 2}
_PRICES: Final = ("open", "high", "low", "close")
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Rows:
    """Bars of one series as the vendor sent them: n rows in columns, any order, its labels and units.

    `time`: n microseconds since 1970 UTC; `volume` in the vendor's unit; `amount` None
    where the vendor gives none.
    """

    time: Numbers
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    amount: Floats | None = None

    def taken(self, at: Any) -> "Rows":
        """Return the rows at `at`: a mask or positions."""
        amount = None if self.amount is None else self.amount[at]
        return Rows(
            self.time[at], self.open[at], self.high[at], self.low[at], self.close[at], self.volume[at], amount
        )

    def text(self, row: int) -> str:
        """Return one row as JSON, for quarantine."""
        values: dict[str, float | int] = {
            name: column[row].item()
            for name in ("time", *_PRICES, "volume", "amount")
            if (column := getattr(self, name)) is not None
        }
        return msgspec.json.encode(values).decode()


@lru_cache(maxsize=65_536)
def symbol_of(text: str) -> Symbol:
    """Return the symbol that a canonical text spells; remembered."""
    return Symbol.parse(text)


def series_page(
    entry: Entry, rows: Rows, vendor: str, capability: Capability, received_at: datetime,
    rejects: tuple[Reject, ...] = (),
) -> SeriesPage:  # fmt: skip
    """Return the bars of one series of one page, canonical but not folded.

    Parameters
    ----------
    rows : Rows, length n
        As the vendor sent them; n = 0 with no rejects is an empty page.
    rejects : tuple of Reject
        Rows that could not even be read; kept beside those found here.

    Returns
    -------
    SeriesPage
        Outcome `bars`; `empty` without any row; `failed` when every row was refused.
    """
    if not rows.time.size:
        return _nothing(entry, rejects)
    freq = entry.freq
    labelled = _from_label(rows.time, freq, capability.label.get(freq, "start"), symbol_of(entry.symbol))
    if not _ascending(labelled):
        order = np.argsort(labelled, kind="stable")
        rows, labelled = rows.taken(order), labelled[order]
    place = _place_intraday if freq.intraday else _place_daily
    ts, session, auction, wrong = place(entry.symbol, freq, labelled)
    doubled, repeated = _doubles(ts, rows)
    found = tuple(
        Reject(entry.symbol, freq, rule, rows.text(int(row)), _instant(int(ts[row])))
        for rule, mask in (("off the grid", wrong), ("key twice", doubled & ~wrong))
        for row in np.flatnonzero(mask)
    )
    drop = wrong | doubled | repeated
    if drop.any():
        keep = ~drop
        rows, ts, session, auction = rows.taken(keep), ts[keep], session[keep], auction[keep]
    all_rejects = (*rejects, *found)
    if not ts.size:
        return _nothing(entry, all_rejects)
    bars = _table(entry, rows, ts, session, auction, vendor, capability, received_at)
    return SeriesPage(entry, "bars", bars, all_rejects)


def _nothing(entry: Entry, rejects: tuple[Reject, ...]) -> SeriesPage:
    if not rejects:
        return SeriesPage(entry, "empty", empty(INCOMING))
    return SeriesPage(entry, "failed", empty(INCOMING), rejects, "none of its rows can be a bar")


def _from_label(time: Numbers, freq: Freq, label: str, symbol: Symbol) -> Numbers:
    """Return bar starts (intraday) or days since 1970 of sessions (daily and longer)."""
    if freq.intraday:
        if label != "end":
            return time
        if freq.minutes < 60:
            return time - freq.minutes * 60_000_000
        starts = calendar(symbol.place.calendar).buckets(freq, (time - 1).astype("datetime64[us]"))
        return starts.astype("datetime64[us]").astype(np.int64)
    days = local_days(time - 1 if label == "end" else time, symbol.place.zone)
    return _anchored(days, freq)


def local_days(time: Numbers, zone: str) -> Numbers:
    """Return the calendar day in `zone`, as days since 1970, of n UTC instants."""
    if zone == "UTC":
        return time // _DAY_US
    near = np.arange(time.min() // _DAY_US - 1, time.max() // _DAY_US + 2)
    shifts = offsets(zone, near)
    if (shifts == shifts[0]).all():  # no change of the clock lies between
        return cast("Numbers", (time + shifts[0]) // _DAY_US)
    local = pc.local_timestamp(pa.array(time, pa.timestamp("us", tz=zone)))
    return cast("Numbers", local.to_numpy(zero_copy_only=False).astype("datetime64[D]").astype(np.int64))


def _anchored(days: Numbers, freq: Freq) -> Numbers:
    """Return the `session` of each day, vectorised `Freq.anchor`."""
    if freq is Freq.W1:
        return cast("Numbers", days - (days + 3) % 7)  # 1970-01-01 was a Thursday
    if freq is Freq.D1:
        return days
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    per = {Freq.MO1: 1, Freq.Q1: 3, Freq.Y1: 12}[freq]
    first = (months // per * per).astype("datetime64[M]")
    return first.astype("datetime64[D]").astype(np.int64)


def _place_daily(symbol: str, freq: Freq, days: Numbers) -> tuple[Numbers, Numbers, Bools, Bools]:
    ts = nominal_ts_array(symbol_of(symbol).venue, days.astype("datetime64[D]"))
    nothing = np.zeros(days.size, np.bool_)
    return ts.to_numpy(zero_copy_only=False).astype("datetime64[us]").astype(np.int64), days, nothing, nothing


def _place_intraday(symbol: str, freq: Freq, ts: Numbers) -> tuple[Numbers, Numbers, Bools, Bools]:
    """Return (ts, session, is an auction print, is off the grid) of n ascending starts."""
    name = symbol_of(symbol).place.calendar
    if freq.minutes >= 60:
        return _place_hours(name, freq, ts)
    # A day more on both sides: FX sessions begin on the evening before.
    first, last = (_instant(int(t)).date() for t in (ts[0], ts[-1]))
    slots = grid(name, freq, first - timedelta(days=1), last + timedelta(days=1))
    session, fits, auction = slots.place(ts)
    return ts, session, auction, ~(fits | auction)


def _place_hours(name: str, freq: Freq, ts: Numbers) -> tuple[Numbers, Numbers, Bools, Bools]:
    """One hour and longer: how vendors align these is not known (QOS: U12), so any start in a session fits."""
    book = calendar(name)
    times = ts.astype("datetime64[us]")
    sessions = book.sessions_of(times)
    known = sessions.is_valid().to_numpy(zero_copy_only=False)
    session = sessions.cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    phase = book.phases(times)
    closes = np.zeros(ts.size, np.bool_)
    for row in np.flatnonzero((phase == "post") & known):
        day = date.fromordinal(int(session[row]) + _EPOCH_DAY)
        closes[row] = micros(book.hours(day).close) == ts[row]
    inside = known & ((phase == "regular") | (phase == "lunch") | (phase == "pre"))
    return ts, session, closes, ~(inside | closes)


def _ascending(values: Numbers) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _doubles(ts: Numbers, rows: Rows) -> tuple[Bools, Bools]:
    """Return (keys that come twice with different values, exact repetitions but the first)."""
    doubled, repeated = np.zeros(ts.size, np.bool_), np.zeros(ts.size, np.bool_)
    twice = ts[1:] == ts[:-1]
    if not twice.any():
        return doubled, repeated
    columns = [rows.open, rows.high, rows.low, rows.close, rows.volume]
    columns += [] if rows.amount is None else [rows.amount]
    same = np.logical_and.reduce([c[1:] == c[:-1] for c in columns])
    repeated[1:] = twice & same
    differing = np.unique(ts[1:][twice & ~same])
    doubled = np.isin(ts, differing)
    return doubled, repeated & ~doubled


def _table(
    entry: Entry, rows: Rows, ts: Numbers, session: Numbers, auction: Bools, vendor: str,
    capability: Capability, received_at: datetime,
) -> pa.Table:  # fmt: skip
    symbol, n = symbol_of(entry.symbol), ts.size
    factor = capability.factor(symbol.venue, symbol.klass)
    settle_s = capability.settle(symbol.venue)
    amount = pa.nulls(n, pa.float64()) if rows.amount is None else pa.array(rows.amount, from_pandas=True)
    columns = {
        "vendor": pa.repeat(vendor, n),
        "freq": pa.repeat(entry.freq.value, n),
        "symbol": pa.repeat(entry.symbol, n),
        "ts": pa.array(ts.view("datetime64[us]"), pa.timestamp("us")).cast(TIME),
        "session": pa.array(session.astype(np.int32)).cast(pa.date32()),
        "volume": pa.array(rows.volume * factor if factor != 1 else rows.volume),
        "amount": amount,
        "state": _states(symbol, entry.freq, ts, session, received_at, settle_s),
        "flags": pa.array(auction.astype(np.int32) * int(Flag.AUCTION)),
        "fetched_at": pa.repeat(pa.scalar(received_at, TIME), n),
        **{name: pa.array(getattr(rows, name)) for name in _PRICES},
    }
    return pa.Table.from_arrays([columns[name] for name in INCOMING.names], schema=INCOMING)


def _states(
    symbol: Symbol, freq: Freq, ts: Numbers, session: Numbers, received_at: datetime, settle_s: float
) -> pa.Array:  # fmt: skip
    """Return the state of n ascending bars: final ones, then closed, then open ones."""
    received, settle = micros(received_at), int(settle_s * 1_000_000)
    reach = freq.minutes * 60_000_000 if freq.intraday else _REACH[freq] * _DAY_US
    settled = int(np.searchsorted(ts, received - settle - reach, side="right"))
    if settled == ts.size:
        return pa.repeat(State.FINAL.value, ts.size)
    book = calendar(symbol.place.calendar)
    at = ts[settled:].view("datetime64[us]") if freq.intraday else session[settled:].astype("datetime64[D]")
    # Hours may count from midnight: such a bar can begin before the open.
    anchor: Anchor = "clock" if freq.intraday and freq.minutes >= 60 else "session"
    ends = book.bar_ends(freq, at, anchor).astype(np.int64)
    running = int(np.count_nonzero(ends > received))
    settled += int(np.count_nonzero(received - ends >= settle))
    counts = ((State.FINAL, settled), (State.CLOSED, ts.size - settled - running), (State.OPEN, running))
    return pa.concat_arrays([pa.repeat(state.value, n) for state, n in counts if n])


def _instant(time: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)


def fold(bars: pa.Table) -> pa.Table:
    """Return the bars of whole sessions of one series with auction prints folded in and fillers dropped.

    Parameters
    ----------
    bars : Arrow table, columns of INCOMING, n rows ascending by ts
        Whole sessions only: a print is folded into the first bar, or into the last slot of
        the grid, which is made where it is absent.

    Returns
    -------
    Arrow table, columns of INCOMING, at most n rows, ascending by ts
        Nothing stands outside the grid.
    """
    if not bars.num_rows:
        return bars
    symbol, freq = symbol_of(bars["symbol"][0].as_py()), Freq(bars["freq"][0].as_py())
    bars = _without_fillers(bars, symbol)
    if not freq.intraday or not bars.num_rows or not pc.max(_printed(bars)).as_py():
        return bars
    return _merged(bars, _slots(bars, symbol, freq))


def _without_fillers(bars: pa.Table, symbol: Symbol) -> pa.Table:
    """Return the bars of trade: a flat one without volume is how vendors write that there was none."""
    if symbol.klass in _NEVER_FILLER or pc.min(bars["volume"]).as_py() != 0:
        return bars
    still = pc.and_(pc.equal(bars["volume"], 0.0), pc.equal(bars["high"], bars["low"]))
    return bars.filter(pc.invert(still))


def _printed(bars: pa.Table) -> pa.ChunkedArray:
    return pc.not_equal(pc.bit_wise_and(bars["flags"], pa.scalar(int(Flag.AUCTION), pa.int32())), 0)


def _slots(bars: pa.Table, symbol: Symbol, freq: Freq) -> Numbers:
    """Return where each of n bars belongs: a print outside the hours to a slot, all others where they start."""
    book = calendar(symbol.place.calendar)
    ts = _numbers(bars["ts"])
    loose = _printed(bars).to_numpy() & (book.phases(ts.view("datetime64[us]")) != "regular")
    if not loose.any():
        return ts
    days = _numbers(bars["session"])
    first, last = (date.fromordinal(_EPOCH_DAY + int(day)) for day in (days[0], days[-1]))
    slots = grid(book.name, freq, first, last)
    starts, sessions = slots.starts[~slots.auction], slots.sessions[~slots.auction]
    opening = starts[np.searchsorted(sessions, days[loose], side="left")]
    closing = starts[np.searchsorted(sessions, days[loose], side="right") - 1]
    ts = ts.copy()
    ts[loose] = np.where(ts[loose] < opening, opening, closing)
    return ts


def _merged(bars: pa.Table, slots: Numbers) -> pa.Table:
    """Return one bar per slot: n rows ascending, those of one slot next to each other."""
    edges = np.flatnonzero(np.concatenate([[True], slots[1:] != slots[:-1]]))
    if edges.size == slots.size and bool((slots == _numbers(bars["ts"])).all()):
        return bars
    last = np.append(edges[1:], slots.size) - 1
    ranks = np.array([_RANK[state] for state in bars["state"].to_pylist()], np.int8)
    flags = bars["flags"].to_numpy()
    alone = np.diff(np.append(edges, slots.size)) == 1
    moved = slots[edges] != _numbers(bars["ts"])[edges]
    touched = np.where(~alone | moved, int(Flag.AUCTION), 0)
    names = list(_RANK)
    made: dict[str, Any] = {
        "ts": slots[edges].view("datetime64[us]"),
        "high": np.maximum.reduceat(bars["high"].to_numpy(), edges),
        "low": np.minimum.reduceat(bars["low"].to_numpy(), edges),
        "close": bars["close"].to_numpy()[last],
        "volume": np.add.reduceat(bars["volume"].to_numpy(), edges),
        "state": [names[rank] for rank in np.minimum.reduceat(ranks, edges).tolist()],
        "flags": np.bitwise_or.reduceat(flags, edges) | touched.astype(np.int32),
        "fetched_at": np.maximum.reduceat(_numbers(bars["fetched_at"]), edges).view("datetime64[us]"),
    }
    amount = bars["amount"]
    if amount.null_count < len(amount):
        made["amount"] = pa.array(_decimal(np.add.reduceat(amount.to_numpy(), edges)), from_pandas=True)
    out = bars.take(pa.array(edges))
    for name, values in made.items():
        at = INCOMING.get_field_index(name)
        out = out.set_column(at, INCOMING.field(at), pa.array(values, INCOMING.field(at).type))
    return out


def _decimal(sums: Floats) -> Floats:
    """Return sums of amounts as the floats next to the exact sums: these have four decimals at most."""
    rounded = np.round(sums, 4)
    return cast("Floats", np.where(np.abs(sums) < _EXACT, rounded, sums))


def _numbers(column: pa.ChunkedArray) -> Numbers:
    """Return times as microseconds, dates as days since 1970."""
    return cast("Numbers", column.to_numpy().astype(np.int64))
