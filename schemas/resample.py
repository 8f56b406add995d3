"""Bars of a higher freq, made from bars of a lower one: by session, never across lunch or DST.

How the columns meet: first open, highest high, lowest low, last close, summed volume;
amount summed, null if any part has none (a partial sum would look like a true one); the
least state of the parts; all flags and `Flag.DERIVED`; the newest fetched_at and known_at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadRequest
from .bar import SCHEMA, TIME, Flag, State
from .compute import pc
from .freq import Freq
from .session import Anchor, calendar, nominal_ts_array
from .venue import venue as venue_named

__all__ = ["EXTENDED", "joined", "part", "resample"]

_IDENTITY: Final = ("era", "vendor", "symbol")
EXTENDED: Final = int(Flag.PRE_MARKET | Flag.POST_MARKET | Flag.OVERNIGHT)
_STATES: Final = (State.OPEN, State.CLOSED, State.FINAL)
_MONDAY: Final = 4  # 1970-01-05, in days since 1970
_NEEDED: Final = ("symbol", "ts", "session", "open", "high", "low", "close", "volume")


def resample(bars: pa.Table, freq: Freq, anchor: Anchor = "session", source: Freq | None = None) -> pa.Table:
    """Return the bars of `freq` that `bars` add up to.

    Parameters
    ----------
    bars : pa.Table
        n bars of one freq, any number of series and venues, any order; columns of
        `schemas.bar.SCHEMA` or `INCOMING`, or fewer: symbol, ts, session, open, high, low,
        close and volume are needed. Unique by key.
    freq : Freq
        Higher than theirs; intraday: a multiple of theirs.
    anchor : {"session", "clock"}
        Where intraday bars begin (`Calendar.buckets`); nothing to daily and longer ones.
    source : Freq, optional
        Their freq, where they have no column `freq`.

    Returns
    -------
    pa.Table
        The same columns, ascending by (era, vendor, symbol, ts); 0 rows for 0 rows. ts is the
        bar's start: of the grid below a day, the venue's nominal open from a day up. Pre-market,
        post-market and overnight bars (by their flags) do not enter daily and longer bars. A bar
        whose end is later than the newest fetched_at of its parts is open: more may come.

    Raises
    ------
    BadRequest
        Not higher, not a multiple (3m to 5m, 1w to 1mo), more than one freq, or a column is missing.
    """
    absent = [name for name in _NEEDED if name not in bars.column_names]
    if absent:
        lost = ", ".join(absent)
        raise BadRequest(
            "bars", bars.column_names, hint=f"columns are missing: {lost}", hint_zh=f"缺少列：{lost}"
        )
    if bars.num_rows == 0:
        return bars
    _check(_source(bars, source), freq)
    if not freq.intraday and "flags" in bars.column_names:
        extended = pc.not_equal(pc.bit_wise_and(bars["flags"], pa.scalar(EXTENDED, pa.int32())), 0)
        if pc.any(extended).as_py():
            bars = bars.filter(pc.invert(extended))
    plain = _plain(bars.schema)
    if bars.num_rows == 0:
        return plain.empty_table()
    made = _Groups.of(bars, freq, anchor)
    columns = [made.column(field.name).cast(field.type) for field in plain]
    return pa.Table.from_arrays(columns, schema=plain)


def part(bars: pa.Table, freq: Freq, source: Freq) -> pa.Table:
    """Return what some bars of `source` add up to, to be joined with what others do (`joined`).

    n bars ≥ 1 as `resample` takes them. The same columns and `last`; ts is that of the first bar
    of each part, last that of the last one (us).
    """
    _check(source, freq)
    made = _Groups.of(bars, freq, "session")
    ts, plain = _numbers(made.bars["ts"]), _plain(bars.schema)
    columns = [
        pa.array(ts[made.first], TIME) if field.name == "ts" else made.column(field.name).cast(field.type)
        for field in plain
    ]
    last = pa.array(ts[made.last], pa.int64())
    return pa.Table.from_arrays([*columns, last], schema=plain.append(pa.field("last", pa.int64())))


def joined(parts: pa.Table, freq: Freq) -> pa.Table | None:
    """Return the bars that parts made by `part` add up to, as `resample` would have from their bars at once.

    None where the bars of two parts interleave in time: which open and which close is not known.
    """
    made = _Groups.of(parts, freq, "session")
    ts, last = _numbers(made.bars["ts"]), _numbers(made.bars["last"])
    inner = np.ones(len(ts), np.bool_)
    inner[made.first] = False
    if (inner[1:] & (ts[1:] <= last[:-1])).any():
        return None
    kept = parts.schema.remove(parts.schema.get_field_index("last"))
    return pa.Table.from_arrays([made.column(f.name).cast(f.type) for f in kept], schema=kept)


def _source(bars: pa.Table, given: Freq | None) -> Freq:
    if "freq" not in bars.column_names:
        if given is None:
            raise BadRequest(
                "source", None, hint="the bars have no column freq: say which freq they are",
                hint_zh="K 线没有 freq 列：请说明它们的周期",
            )  # fmt: skip
        return given
    found = cast("list[str]", bars["freq"].unique().to_pylist())
    if len(found) != 1:
        raise BadRequest(
            "freq", sorted(found), hint="bars of one freq at a time can be resampled",
            hint_zh="一次只能重采样一种周期的 K 线",
        )  # fmt: skip
    return Freq.parse(found[0])


def _check(source: Freq, target: Freq) -> None:
    """Refuse what cannot add up: downwards, 3m to 5m, weeks to months."""
    order = list(Freq)
    known = tuple(f.value for f in order if order.index(f) > order.index(source) and _fits(source, f))
    if target.value not in known:
        raise BadRequest(
            "freq", target.value, known, hint=f"that is what {source.value} bars add up to",
            hint_zh=f"{source.value} K 线只能合成这些周期",
        )  # fmt: skip


def _fits(source: Freq, target: Freq) -> bool:
    if target.intraday:
        return target.minutes % source.minutes == 0
    return source is not Freq.W1


Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Groups:
    """Bars in order, and which rows of them (`first` to `last`, both included) make one bar each.

    Parts of one bar stand together, so that runs are the groups: nothing is hashed. `session`
    and `ts` are those of the bars made; `owner` gives the place of each bar's symbol in `symbols`.
    """

    bars: pa.Table
    freq: Freq
    anchor: Anchor
    first: Numbers
    last: Numbers
    session: Numbers
    ts: Numbers
    owner: Numbers
    symbols: list[str]

    @classmethod
    def of(cls, bars: pa.Table, freq: Freq, anchor: Anchor) -> "_Groups":
        """Return the groups of bars in any order, one at least."""
        keys = [_codes(bars[name]) for name in _IDENTITY if name in bars.column_names]
        session, ts = _numbers(bars["session"]), _numbers(bars["ts"])
        order = _order([codes for codes, names in keys if len(names) > 1], session, ts)
        if order is not None:
            bars, session, ts = bars.take(pa.array(order)), session[order], ts[order]
            keys = [(codes[order], names) for codes, names in keys]
        owner, symbols = keys[-1]
        if freq.intraday:
            ts = _starts(freq, anchor, ts, owner, symbols)
        session = _truncated(session, freq)
        begins = np.zeros(len(ts), np.bool_)
        begins[0] = True
        for part in [*(codes for codes, _ in keys), session, *([ts] if freq.intraday else [])]:
            begins[1:] |= part[1:] != part[:-1]
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(ts)) - 1
        session, owner = session[first], owner[first]
        ts = ts[first] if freq.intraday else _starts(freq, anchor, session, owner, symbols)
        return cls(bars, freq, anchor, first, last, session, ts, owner, symbols)

    def column(self, name: str) -> pa.Array:
        """Return one column of the bars made."""
        rules: dict[str, Callable[[], pa.Array]] = {
            "symbol": lambda: pa.array(self.symbols).take(pa.array(self.owner)),
            "session": lambda: pa.array(self.session.astype(np.int32)).cast(pa.date32()),
            "ts": lambda: pa.array(self.ts),
            "freq": lambda: pa.repeat(self.freq.value, len(self.first)),
            "period": self._period,
            "open": lambda: pa.array(_numbers(self.bars["open"])[self.first]),
            "high": lambda: pa.array(np.maximum.reduceat(_numbers(self.bars["high"]), self.first)),
            "low": lambda: pa.array(np.minimum.reduceat(_numbers(self.bars["low"]), self.first)),
            "volume": lambda: pa.array(np.add.reduceat(_numbers(self.bars["volume"]), self.first)),
            "amount": self._amount,
            "state": self._state,
            "flags": lambda: pa.array(
                np.bitwise_or.reduceat(_numbers(self.bars["flags"]), self.first) | np.int32(Flag.DERIVED)
            ),
            "fetched_at": lambda: pa.array(self._latest("fetched_at")),
            "known_at": lambda: pa.array(self._latest("known_at")),
        }
        if name in rules:
            return rules[name]()
        return pc.take(self.bars[name].combine_chunks(), pa.array(self.last))

    def _latest(self, name: str) -> Numbers:
        return np.maximum.reduceat(_numbers(self.bars[name]), self.first)

    def _amount(self) -> pa.Array:
        column = self.bars["amount"]
        sums = np.add.reduceat(_numbers(pc.fill_null(column, 0.0)), self.first)
        if not column.null_count:
            return pa.array(sums)
        absent = np.logical_or.reduceat(column.is_null().to_numpy(), self.first)
        return pa.array(sums, mask=absent)

    def _state(self) -> pa.Array:
        """Return the least state of the parts; open where the bar had not ended when they were fetched."""
        codes, names = _codes(self.bars["state"])
        ranks = np.array([_STATES.index(State(name)) for name in names], np.int8)
        least = np.minimum.reduceat(ranks[codes], self.first)
        if "fetched_at" in self.bars.column_names:
            at, ends = self.ts if self.freq.intraday else self.session, np.empty(len(least), np.int64)
            times = at.view("datetime64[us]") if self.freq.intraday else at.astype("datetime64[D]")
            for venue, rows in _by_venue(self.owner, self.symbols):
                made = calendar(venue_named(venue).calendar).bar_ends(self.freq, times[rows], self.anchor)
                ends[rows] = made.astype("datetime64[us]").view(np.int64)
            least = np.where(ends > self._latest("fetched_at"), 0, least)
        return pa.array([state.value for state in _STATES]).take(pa.array(least))

    def _period(self) -> pa.Array:
        unit, length = ("M", 7) if self.freq.intraday else ("Y", 4)
        periods, place = np.unique(
            self.session.astype("datetime64[D]").astype(f"datetime64[{unit}]"), return_inverse=True
        )
        return pa.array([str(period)[:length] for period in periods]).take(pa.array(place))


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return the schema with dictionaries as what they stand for."""
    return pa.schema(
        [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema]
    )


def _codes(column: pa.ChunkedArray) -> tuple[Numbers, list[str]]:
    """Return the place of each text among those of the column, which ascend."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    whole = encoded.unify_dictionaries().combine_chunks()
    names = cast("list[str]", whole.dictionary.to_pylist())
    ordered = sorted(set(names))
    places = {name: place for place, name in enumerate(ordered)}
    ranks = np.array([places[name] for name in names], np.int32)
    codes = whole.indices.to_numpy()
    return codes if names == ordered and codes.dtype == np.int32 else ranks[codes], ordered


def _numbers(column: pa.ChunkedArray) -> Numbers:
    """Return a column as NumPy has it: times as us, sessions as days since 1970."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(SCHEMA.field("ts").type).cast(pa.int64())
    elif pa.types.is_date(column.type):
        column = column.cast(pa.int32())
    return cast("Numbers", column.to_numpy())


def _order(keys: list[Numbers], session: Numbers, ts: Numbers) -> Numbers | None:
    """Return the rows in order of keys, session and ts; None where they are: looking is far cheaper than sorting."""
    later = ts[1:] > ts[:-1]
    for column in [session, *reversed(keys)]:
        step = column[1:] - column[:-1]
        later = (step > 0) | ((step == 0) & later)
    return None if later.all() else np.lexsort([ts, session, *reversed(keys)])


def _truncated(session: Numbers, freq: Freq) -> Numbers:
    """Return the first day of the week, month, quarter or year of each session, for these freqs."""
    if freq is Freq.W1:
        mondays: Numbers = session - (session - _MONDAY) % 7
        return mondays
    months = {Freq.MO1: 1, Freq.Q1: 3, Freq.Y1: 12}.get(freq)
    if months is None:
        return session
    low, high = int(session.min()), int(session.max())
    each = np.arange(low, high + 1).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    days = (each // months * months).astype("datetime64[M]").astype("datetime64[D]").astype(np.int32)
    return cast("Numbers", days[session - low])


def _starts(freq: Freq, anchor: Anchor, at: Numbers, owner: Numbers, symbols: list[str]) -> Numbers:
    """Return the start (us) of the bar of `freq` that holds each instant, or of each session from a day up."""
    starts = np.empty(len(at), np.int64)
    for venue, rows in _by_venue(owner, symbols):
        if freq.intraday:
            times = at[rows].view("datetime64[us]")
            made = calendar(venue_named(venue).calendar).buckets(freq, times, anchor)
            starts[rows] = made.astype("datetime64[us]").view(np.int64)
        else:
            sessions = at[rows].astype("datetime64[D]")
            starts[rows] = nominal_ts_array(venue, sessions).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return starts


def _by_venue(owner: Numbers, symbols: list[str]) -> "list[tuple[str, slice | npt.NDArray[np.bool_]]]":
    """Return each venue of the symbols with its rows."""
    venues = [symbol.rpartition(".")[2] for symbol in symbols]
    names = sorted(set(venues))
    if len(names) == 1:
        return [(names[0], slice(None))]
    places = np.array([names.index(venue) for venue in venues])[owner]
    return [(name, places == n) for n, name in enumerate(names)]
