"""Tables of bars as people hold them → bar rows: symbols parsed, sessions found, labels made starts.

What cannot become a bar is rejected with its rule and its values; the rules over whole bars
(low > high, off the grid, …) are in `quality`. Nothing is guessed: units must be right already,
naive times need their zone, and a table whose columns are not understood is refused.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

import polars as pl
import pyarrow as pa

from ..errors import BadRequest
from .bar import INCOMING, State
from .freq import Freq
from .page import Reject
from .placing import LEFT_OUT, Declared, Label, placed
from .session import calendar
from .symbol import Symbol
from .venue import VENUES

__all__ = ["Declared", "Derived", "Label", "derived"]

_PRICES: Final = ("open", "high", "low", "close")
_NUMBERS: Final = (*_PRICES, "volume", "amount")
_TIMES: Final = ("ts", "datetime", "timestamp")
_DATES: Final = ("session", "date", *_TIMES)
_KNOWN: Final = ("symbol", "ts", "session", *_NUMBERS, "state", "flags")
_IGNORED: Final = ("vendor", "freq")  # a table read from the lake carries them; the arguments count


@dataclass(frozen=True, slots=True)
class Derived:
    """Bars of a table, and what did not become one.

    `bars` has the columns of `schemas.bar.INCOMING`, ascending by (symbol, ts); keys may still
    repeat. `rows` says from which row of the given table (from 0) each bar came; of bars that
    an auction print was folded into, the bar's own. `rejected_rows` says so for `rejected`.
    `left_out` counts bars outside regular hours that were not wanted.
    """

    bars: pa.Table
    rows: pa.Array
    rejected: tuple[Reject, ...]
    rejected_rows: tuple[int, ...]
    left_out: int = 0


def derived(
    table: pa.Table, *, vendor: str, freq: Freq, now: datetime, declared: Declared | None = None
) -> Derived:
    """Return the bars that `table` holds.

    Parameters
    ----------
    table : Arrow table, n rows
        Columns symbol; ts (session or date serve from 1d up); open, high, low, close, volume;
        optionally amount, state, flags. Any case, any order, any usual types; prices in quote
        currency as traded, volume in shares or base units. `frame.as_arrow` makes one of
        polars and pandas frames.
    now : datetime
        Aware; becomes `fetched_at`, and tells bars that have ended from forming ones.

    Raises
    ------
    BadRequest
        A column is missing or unknown, naive times without a zone, no readable time, or no
        row of the table names a symbol that klake knows.
    """
    said = declared or Declared()
    frame = _with_symbols(_with_marks(_with_numbers(_named(table, freq))))
    parts = [placed(part, venue, freq, now, said) for venue, part in _by_venue(frame)]
    whole = pl.concat(parts) if parts else placed(frame, "", freq, now, said)
    good = whole.filter(pl.col("rule").is_null()).sort("symbol", "ts", "row")
    bad = whole.filter(pl.col("rule").is_not_null() & (pl.col("rule") != LEFT_OUT)).sort("row")
    bars = _incoming(good, vendor, freq, now)
    rejects = tuple(_rejects(bad, table, freq))
    left_out = int((whole["rule"] == LEFT_OUT).sum() or 0)
    return Derived(bars, good["row"].to_arrow(), rejects, tuple(bad["row"].to_list()), left_out)


def _named(table: pa.Table, freq: Freq) -> pl.DataFrame:
    """Return the known columns under their names, the time as `stamp`; refuses what it does not know."""
    names = [str(name).strip().lower() for name in table.column_names]
    given = ", ".join(map(str, table.column_names))
    if len(set(names)) != len(names):
        raise BadRequest("columns", given, hint="two columns have one name", hint_zh="有两列同名")
    unknown = [n for n in names if n not in {*_KNOWN, *_DATES, *_IGNORED}]
    if unknown:
        raise BadRequest("column", ", ".join(unknown), _KNOWN)
    times = [n for n in (_TIMES if freq.intraday else _DATES) if n in names]
    lacking = [n for n in ("symbol", *_PRICES, "volume") if n not in names]
    lacking += [] if times else ["ts"]
    if lacking:
        raise BadRequest(
            "columns", given, hint=f"missing: {', '.join(lacking)}", hint_zh=f"缺少列：{', '.join(lacking)}"
        )
    frame = cast("pl.DataFrame", pl.from_arrow(table.rename_columns(names)))
    kept = [n for n in ("symbol", *_NUMBERS, "state", "flags") if n in names]
    return frame.select(pl.col(times[0]).alias("stamp"), *kept).with_row_index("row")


def _with_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with float64 numbers and a column `rule`: why a row is no bar, or null."""
    if "amount" not in frame.columns:
        frame = frame.with_columns(amount=pl.lit(None, pl.Float64))
    texts = [n for n in _NUMBERS if frame.schema[n] == pl.String]
    frame = frame.with_columns(pl.col(n).str.strip_chars() for n in texts)
    frame = frame.with_columns(pl.col(n).cast(pl.Float64, strict=False).fill_nan(None) for n in _NUMBERS)
    # Files without amounts write 0; a trade of shares for nothing does not exist.
    blank = (pl.col("amount") == 0) & (pl.col("volume") > 0)
    frame = frame.with_columns(amount=pl.when(blank).then(None).otherwise("amount"))
    absent = pl.any_horizontal(pl.col(n).is_null() for n in (*_PRICES, "volume"))
    return frame.with_columns(rule=pl.when(absent).then(pl.lit("missing value")))


def _with_marks(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with `state` (null: told from the time later) and `flags`."""
    state = pl.col("state") if "state" in frame.columns else pl.lit(None)
    flags = pl.col("flags") if "flags" in frame.columns else pl.lit(0)
    frame = frame.with_columns(state=state.cast(pl.String), flags=flags.cast(pl.Int32).fill_null(0))
    known = tuple(s.value for s in State)
    for value in frame["state"].drop_nulls().unique().to_list():
        if value not in known:
            raise BadRequest("state", value, known)
    return frame


def _with_symbols(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with canonical symbols and their `venue`; an unknown one is a rule.

    Raises the error of the first symbol when none of them is known.
    """
    texts = frame["symbol"].cast(pl.String)
    known: dict[str, Symbol] = {}
    first: BadRequest | None = None
    for text in texts.drop_nulls().unique(maintain_order=True).to_list():
        try:
            known[text] = Symbol.parse(text)
        except BadRequest as error:
            first = first or error
    if first is not None and not known:
        raise first
    table = pl.DataFrame(
        {"symbol": list(known), "canonical": [str(s) for s in known.values()],
         "venue": [s.venue for s in known.values()]},
        schema={"symbol": pl.String, "canonical": pl.String, "venue": pl.String},
    )  # fmt: skip
    joined = frame.with_columns(texts).join(table, on="symbol", how="left").sort("row")
    unknown = pl.when(pl.col("venue").is_null()).then(pl.lit("unknown symbol"))
    return joined.with_columns(
        symbol=pl.coalesce("canonical", "symbol"), rule=pl.coalesce(unknown, "rule")
    ).drop("canonical")


def _by_venue(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (name,), part in frame.partition_by("venue", as_dict=True, maintain_order=True).items():
        yield cast("str", name or ""), part


def _incoming(good: pl.DataFrame, vendor: str, freq: Freq, now: datetime) -> pa.Table:
    """Return the good rows in the columns of INCOMING."""
    told = _with_states(good, freq, now)
    said = told.with_columns(
        vendor=pl.lit(vendor), freq=pl.lit(freq.value), fetched_at=pl.lit(now).cast(pl.Datetime("us", "UTC"))
    )
    return said.select(INCOMING.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(INCOMING)


def _with_states(good: pl.DataFrame, freq: Freq, now: datetime) -> pl.DataFrame:
    """Fill `state` where the table gave none: final once the bar has ended at `now`, else open."""
    parts: list[pl.DataFrame] = []
    for venue, part in _by_venue(good):
        at = part["ts" if freq.intraday else "session"].to_arrow()
        ends = pl.Series(calendar(VENUES[venue].calendar).bar_ends(freq, at)).dt.replace_time_zone("UTC")
        state = pl.when(ends <= now).then(pl.lit(State.FINAL.value)).otherwise(pl.lit(State.OPEN.value))
        parts.append(part.with_columns(state=pl.coalesce("state", state)))
    return pl.concat(parts).sort("symbol", "ts", "row") if parts else good


def _rejects(bad: pl.DataFrame, table: pa.Table, freq: Freq) -> Iterator[Reject]:
    """Yield one Reject per bad row, its values as the given table held them."""
    values = cast("pl.DataFrame", pl.from_arrow(table))[bad["row"].to_list()].to_dicts()
    told = bad.select("symbol", "rule", "ts").iter_rows()
    for (symbol, rule, ts), row in zip(told, values, strict=True):
        yield Reject(symbol or "", freq, rule, json.dumps(row, default=str, ensure_ascii=False), ts)
