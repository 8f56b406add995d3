"""Quality rules: each a named function over a bar table, with a severity.

*reject*: the row cannot be a bar; it goes to `quarantine`, the rest goes on. *suspect*: it
is stored with the flag SUSPECT and a row in `findings`. *note*: a row in `findings` only.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import permutations
from typing import Final, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .bar import Flag
from .compute import pc
from .freq import Freq
from .grid import Bools, Numbers, day_number, grid
from .symbol import Symbol

__all__ = ["RULES", "Bars", "Rule", "Severity", "jump", "repeated"]

Severity = Literal["reject", "suspect", "note"]
Floats = npt.NDArray[np.float64]

_PRICES: Final = ("open", "high", "low", "close")
_BLOCK: Final = 3  # identical bars in a row that are no chance
_DAY_LIMIT: Final = {"SH": 0.22, "SZ": 0.22, "BJ": 0.32}  # daily price limits of 20 % and 30 %, and rounding
_WIDE_JUMP: Final = 0.5
_ALIGNED_MINUTES: Final = 60  # from here up, no vendor says how its bars are aligned
_OUTSIDE_HOURS: Final = int(Flag.PRE_MARKET | Flag.POST_MARKET | Flag.OVERNIGHT)


class Bars:
    """The columns of a bar table as arrays of length n, made when a rule asks for them."""

    def __init__(
        self, table: pa.Table, actions: Collection[tuple[str, date]] | None = None,
        twins: Collection[frozenset[str]] = (),
    ) -> None:  # fmt: skip
        self.table, self.actions, self.twins = table, actions, twins

    def column(self, name: str) -> Floats:
        """Return a number column; null is NaN."""
        return cast("Floats", self.table[name].to_numpy())

    @cached_property
    def prices(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return open, high, low, close."""
        opened, high, low, close = (self.column(name) for name in _PRICES)
        return opened, high, low, close

    @cached_property
    def volume(self) -> Floats:
        """Return volume."""
        return self.column("volume")

    @cached_property
    def amount(self) -> Floats | None:
        """Return amount, NaN where null; None when every one is null."""
        column = self.table["amount"]
        return None if column.null_count == len(column) else self.column("amount")

    @cached_property
    def ts(self) -> Numbers:
        """Return bar starts, microseconds since 1970 UTC."""
        return cast("Numbers", self.table["ts"].to_numpy().astype("datetime64[us]").astype(np.int64))

    @cached_property
    def session(self) -> Numbers:
        """Return sessions, days since 1970."""
        return cast("Numbers", self.table["session"].to_numpy().astype("datetime64[D]").astype(np.int64))

    @cached_property
    def series(self) -> tuple[Numbers, list[tuple[str, str, str]]]:
        """Return (number of the series of each row, the (vendor, symbol, freq) of each number)."""
        code = np.zeros(len(self.ts), np.int64)
        names: list[tuple[str, ...]] = [()]
        for name in ("vendor", "symbol", "freq"):
            values, number = _numbered(self.table[name])
            code = code * len(values) + number
            names = [(*head, value) for head in names for value in values]
        return code, cast("list[tuple[str, str, str]]", names)

    @cached_property
    def order(self) -> Numbers:
        """Return positions by (series, ts); ties keep their order."""
        code, _ = self.series
        step, change = np.diff(self.ts) > 0, np.diff(code)
        if bool((((change == 0) & step) | (change > 0)).all()):
            return np.arange(len(self.ts))
        return np.lexsort((self.ts, code))

    @cached_property
    def neighbours(self) -> tuple[Bools, Bools]:
        """Return, for each pair next to each other in `order`: has it one key, has it equal values."""
        order, (code, _) = self.order, self.series
        same_key = (np.diff(code[order]) == 0) & (np.diff(self.ts[order]) == 0)
        same_values = np.ones_like(same_key)
        if same_key.any():
            columns = [*self.prices, self.volume] + ([] if self.amount is None else [self.amount])
            for column in columns:
                ordered = column[order]
                same_values &= (ordered[1:] == ordered[:-1]) | (
                    np.isnan(ordered[1:]) & np.isnan(ordered[:-1])
                )
        return same_key, same_values

    def kinds(self) -> Iterator[tuple[str, Freq, Bools]]:
        """Yield calendar, freq and the mask of its rows: a grid is one for all series of a kind.

        Daily series are left out: their grid is any day.
        """
        code, names = self.series
        kinds: dict[tuple[str, Freq], list[int]] = {}
        for number in np.unique(code).tolist():
            _, symbol, freq = names[number]
            if freq != Freq.D1:
                kinds.setdefault((Symbol.parse(symbol).place.calendar, Freq(freq)), []).append(number)
        for (name, freq), numbers in kinds.items():
            chosen = np.zeros(len(names), np.bool_)
            chosen[numbers] = True
            yield name, freq, chosen[code]


def _numbered(column: pa.ChunkedArray) -> tuple[list[str], Numbers]:
    """Return (distinct texts, the number of each row's text); quick where equal texts stand together."""
    n = len(column)
    if n < 2:
        return column.to_pylist() or [""], np.zeros(n, np.int64)
    differs = pc.not_equal(column.slice(1), column.slice(0, n - 1)).to_numpy()
    edges = np.concatenate([[0], np.flatnonzero(differs) + 1])
    if edges.size > n // 8:
        found = column.combine_chunks().dictionary_encode()
        return found.dictionary.to_pylist(), found.indices.to_numpy().astype(np.int64)
    texts: list[str] = column.take(pa.array(edges)).to_pylist()
    values = list(dict.fromkeys(texts))
    number = np.array([values.index(text) for text in texts], np.int64)
    return values, np.repeat(number, np.diff([*edges.tolist(), n]))


def not_finite(bars: Bars) -> Bools:
    """Return where a price, volume or amount is infinite or no number; a null amount is well."""
    wrong = ~np.isfinite(bars.volume)
    for price in bars.prices:
        wrong |= ~np.isfinite(price)
    return wrong if bars.amount is None else wrong | np.isinf(bars.amount)


def price_not_positive(bars: Bars) -> Bools:
    """Return where a price is 0 or less."""
    opened, high, low, close = bars.prices
    return np.minimum(np.minimum(opened, close), np.minimum(low, high)) <= 0


def negative_volume(bars: Bars) -> Bools:
    """Return where volume or amount is less than 0."""
    wrong = bars.volume < 0
    return wrong if bars.amount is None else wrong | (bars.amount < 0)


def low_above_high(bars: Bars) -> Bools:
    """Return where low is above high."""
    _, high, low, _ = bars.prices
    return low > high


def outside_range(bars: Bars) -> Bools:
    """Return where not low ≤ open, close ≤ high; real ones exist, in indices of the 1990s for one."""
    opened, high, low, close = bars.prices
    return (low > np.minimum(opened, close)) | (np.maximum(opened, close) > high)


def off_the_grid(bars: Bars) -> Bools:
    """Return where no bar of the freq may start.

    Below one hour: not a regular slot of its session (bars flagged as pre-market,
    post-market or overnight: not a whole multiple of the freq). Longer than one day: the
    session is no anchor. One day and the hours: nothing is asked.
    """
    wrong = np.zeros(len(bars.ts), np.bool_)
    flags: Numbers | None = None
    for name, freq, rows in bars.kinds():
        if not freq.intraday:
            days = bars.session[rows].astype("datetime64[D]").tolist()
            wrong[rows] = [freq.anchor(day) != day for day in days]
        elif freq.minutes < _ALIGNED_MINUTES:
            flags = bars.column("flags").astype(np.int64) if flags is None else flags
            wrong[rows] = _not_a_slot(name, freq, bars.ts[rows], flags[rows])
    return wrong


def _not_a_slot(name: str, freq: Freq, ts: Numbers, flags: Numbers) -> Bools:
    low, high = np.array([ts.min(), ts.max()]).astype("datetime64[us]").astype("datetime64[D]").tolist()
    first, last = date.fromordinal(low.toordinal() - 1), date.fromordinal(high.toordinal() + 1)
    _, fits, _ = grid(name, freq, first, last).place(ts)
    outside = (flags & _OUTSIDE_HOURS) != 0
    return np.where(outside, ts % (freq.minutes * 60_000_000) != 0, ~fits)


def key_twice(bars: Bars) -> Bools:
    """Return where a key comes more than once with different values; exact repetitions do not count."""
    same_key, same_values = bars.neighbours
    order = bars.order
    wrong = np.zeros(len(order), np.bool_)
    run = np.concatenate([[0], np.cumsum(~same_key)]) if len(order) else np.zeros(0, np.int64)
    differing = np.unique(run[1:][same_key & ~same_values])
    wrong[order] = np.isin(run, differing)
    return wrong


def repeated(bars: Bars) -> Bools:
    """Return where a row only repeats one before it; asked after `key_twice`."""
    same_key, same_values = bars.neighbours
    out = np.zeros(len(bars.order), np.bool_)
    out[bars.order[1:]] = same_key & same_values
    return out


def amount_outside_band(bars: Bars) -> Bools:
    """Return where amount ÷ volume lies outside [low, high] by more than a tick or so."""
    if bars.amount is None:
        return np.zeros(len(bars.ts), np.bool_)
    _, high, low, close = bars.prices
    # No vendor says its ticks: a cent, or 5 basis points where prices are large, 1 % below 1.
    tick = np.where(close >= 1, np.maximum(0.01, close * 0.0005), close * 0.01)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = bars.amount / bars.volume
        return (bars.volume > 0) & ((mean < low - tick) | (mean > high + tick))


def jump(bars: Bars) -> Bools:
    """Return where the close moved further than the venue's limit, and no action is known that day."""
    code, names = bars.series
    order = bars.order
    wrong = np.zeros(len(order), np.bool_)
    if len(order) < 2:
        return wrong
    bounds = np.array([_DAY_LIMIT.get(s.rpartition(".")[2], _WIDE_JUMP) for _, s, _ in names])
    daily = np.array([Freq(f).intraday or f == "1d" for _, _, f in names])
    close = bars.prices[3][order]
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.abs(close[1:] / close[:-1] - 1)
    ordered = code[order]
    wide = (np.diff(ordered) == 0) & daily[ordered[1:]] & (moved > bounds[ordered[1:]])
    wrong[order[1:]] = wide
    if bars.actions and wide.any():
        acted = {(symbol, day_number(day)) for symbol, day in bars.actions}
        for row in np.flatnonzero(wrong).tolist():
            wrong[row] = (names[code[row]][1], int(bars.session[row])) not in acted
    return wrong


def neighbour_twin(bars: Bars) -> Bools:
    """Return where three or more bars equal another symbol's, volume included: one reply for two names."""
    code, names = bars.series
    wrong = np.zeros(len(code), np.bool_)
    if len(names) < 2:
        return wrong
    mixed = bars.ts.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for column in (*bars.prices, bars.volume):
        mixed = (mixed ^ column.view(np.uint64)) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
    ordered = np.sort(mixed)
    if not (ordered[1:] == ordered[:-1]).any():
        return wrong
    _, back, counts = np.unique(mixed, return_inverse=True, return_counts=True)
    alike = np.flatnonzero((counts[back] > 1) & (bars.volume > 0))
    together: dict[tuple[int, int], list[int]] = {}
    groups: dict[int, list[int]] = {}
    for row in alike.tolist():
        groups.setdefault(int(back[row]), []).append(row)
    for rows in groups.values():
        for one, other in permutations(rows, 2):
            (_, left, freq), (_, right, its_freq) = names[code[one]], names[code[other]]
            if left != right and freq == its_freq and frozenset((left, right)) not in bars.twins:
                together.setdefault((int(code[one]), int(code[other])), []).append(one)
    for rows in together.values():
        if len(rows) >= _BLOCK:
            wrong[rows] = True
    return wrong


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name in quarantine and findings, its severity, where it is broken, and what it says."""

    name: str
    severity: Severity
    broken: Callable[[Bars], Bools]
    text: str


RULES: Final = (
    Rule("not finite", "reject", not_finite, "a value is infinite or no number"),
    Rule("price not positive", "reject", price_not_positive, "a price is 0 or less"),
    Rule("negative volume", "reject", negative_volume, "volume or amount is less than 0"),
    Rule("low above high", "reject", low_above_high, "low is above high"),
    Rule("off the grid", "reject", off_the_grid, "no bar of this freq starts there"),
    Rule("key twice", "reject", key_twice, "one key with different values"),
    Rule("outside low and high", "suspect", outside_range, "open or close lies outside low and high"),
    Rule("amount band", "suspect", amount_outside_band, "amount ÷ volume lies outside low and high"),
    Rule("neighbour twin", "suspect", neighbour_twin, "several bars equal those of another symbol"),
    Rule("jump", "suspect", jump, "the close moved further than the venue's limit"),
)
"""Every rule, in the order in which a row is judged: the first that rejects it names it."""
