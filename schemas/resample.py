"""Bars of a higher freq, made from bars of a lower one: by session, never across lunch or DST.

How the columns meet: first open, highest high, lowest low, last close, summed volume;
amount summed, null if any part has none (a partial sum would look like a true one); the
least state of the parts; all flags and `Flag.DERIVED`; the newest fetched_at and known_at.
"""

from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ..errors import BadRequest
from .bar import Flag, State
from .freq import Freq
from .session import Anchor, calendar, nominal_ts_array
from .venue import venue as venue_named

__all__ = ["resample"]

_IDENTITY: Final = ("era", "vendor", "symbol")
_EXTENDED: Final = int(Flag.PRE_MARKET | Flag.POST_MARKET | Flag.OVERNIGHT)
_STATES: Final = (State.OPEN, State.CLOSED, State.FINAL)
_TRUNCATE: Final = {Freq.W1: "1w", Freq.MO1: "1mo", Freq.Q1: "1q", Freq.Y1: "1y"}
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
    frame = cast("pl.DataFrame", pl.from_arrow(bars)).with_columns(pl.col("symbol").cast(pl.String))
    if not freq.intraday and "flags" in frame.columns:
        frame = frame.filter((pl.col("flags") & _EXTENDED) == 0)
    keys: list[str] = [name for name in _IDENTITY if name in frame.columns]
    grouped = _grouped(_ascending(frame, [*keys, "session", "ts"]), keys, freq, anchor)
    return _like(bars.schema, _finished(grouped, freq, anchor))


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


def _ascending(frame: pl.DataFrame, order: list[str]) -> pl.DataFrame:
    """Return the frame sorted by `order`; looking is ten times cheaper than sorting again."""
    later = pl.lit(False)
    for name in reversed(order):
        before = pl.col(name).shift()
        later = (pl.col(name) > before) | ((pl.col(name) == before) & later)
    return frame if frame.select(later.slice(1).all()).item() else frame.sort(order)


def _grouped(frame: pl.DataFrame, keys: list[str], freq: Freq, anchor: Anchor) -> pl.DataFrame:
    """Return one row per bar, in the order of `frame`; `ts` is the bar's start."""
    columns = frame.columns
    if freq.intraday:
        frame = frame.with_columns(_starts(frame, freq, anchor).alias("ts"))
    elif freq in _TRUNCATE:
        frame = frame.with_columns(pl.col("session").dt.truncate(_TRUNCATE[freq]))
    parts = [*keys, "session", "ts"] if freq.intraday else [*keys, "session"]
    # Parts of one bar stand together, so that runs are the groups: no hashing of texts.
    begins = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in parts).fill_null(True)
    frame = frame.with_columns(begins.cum_sum().alias("run")).set_sorted("run")
    out = frame.group_by("run").agg(_rules(columns)).sort("run")
    return out if freq.intraday else out.with_columns(_starts(out, freq, anchor).alias("ts"))


def _starts(frame: pl.DataFrame, freq: Freq, anchor: Anchor) -> pl.Series:
    """Return the start of the bar of `freq` that holds each row: by ts, or by session from a day up."""
    starts = np.empty(frame.height, "datetime64[us]")
    at = frame["ts" if freq.intraday else "session"].to_numpy()
    for name, rows in _by_venue(frame):
        if freq.intraday:
            starts[rows] = calendar(venue_named(name).calendar).buckets(freq, at[rows], anchor)
        else:
            starts[rows] = nominal_ts_array(name, at[rows]).to_numpy(zero_copy_only=False)
    return _instants(starts)


def _by_venue(frame: pl.DataFrame) -> "list[tuple[str, slice | npt.NDArray[np.bool_]]]":
    """Return each venue of the frame with its rows."""
    symbols = cast("list[str]", frame["symbol"].unique().to_list())
    venues = sorted({symbol.rpartition(".")[2] for symbol in symbols})
    if len(venues) == 1:
        return [(venues[0], slice(None))]
    return [(name, frame["symbol"].str.ends_with(f".{name}").to_numpy()) for name in venues]


def _instants(times: "npt.NDArray[np.datetime64]") -> pl.Series:
    return pl.Series(times).dt.replace_time_zone("UTC")


def _rules(columns: list[str]) -> list[pl.Expr]:
    """Return how each column is made from its parts, which stand in order of ts."""
    rank = pl.col("state").cast(pl.Enum([s.value for s in _STATES]))
    special = {
        "open": pl.col("open").first(),
        "high": pl.col("high").max(),
        "low": pl.col("low").min(),
        "volume": pl.col("volume").sum(),
        "amount": pl.when(pl.col("amount").is_null().any()).then(None).otherwise(pl.col("amount").sum()),
        "state": rank.min(),
        "flags": pl.col("flags").bitwise_or() | int(Flag.DERIVED),
        "fetched_at": pl.col("fetched_at").max(),
        "known_at": pl.col("known_at").max(),
    }
    return [special.get(name, pl.col(name).last()).alias(name) for name in columns]


def _finished(frame: pl.DataFrame, freq: Freq, anchor: Anchor) -> pl.DataFrame:
    """Write freq and period, and open the bars that had not ended when their parts were fetched."""
    new: list[pl.Expr] = []
    if "freq" in frame.columns:
        new.append(pl.lit(freq.value).alias("freq"))
    if "period" in frame.columns:
        new.append(pl.col("session").dt.strftime("%Y-%m" if freq.intraday else "%Y").alias("period"))
    if "state" in frame.columns:
        state = pl.col("state").cast(pl.String)
        if "fetched_at" in frame.columns:
            forming = _ends(frame, freq, anchor) > pl.col("fetched_at")
            state = pl.when(forming).then(pl.lit(State.OPEN.value)).otherwise(state)
        new.append(state.alias("state"))
    return frame.with_columns(new)


def _ends(frame: pl.DataFrame, freq: Freq, anchor: Anchor) -> pl.Expr:
    """Return the end of each bar, as a literal column."""
    ends = np.empty(frame.height, "datetime64[us]")
    at = frame["ts" if freq.intraday else "session"].to_numpy()
    for name, rows in _by_venue(frame):
        ends[rows] = calendar(venue_named(name).calendar).bar_ends(freq, at[rows], anchor)
    return pl.lit(_instants(ends))


def _like(schema: pa.Schema, frame: pl.DataFrame) -> pa.Table:
    """Return the frame in the columns and types of `schema`; dictionaries become plain."""
    plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema]
    table: Any = frame.select(schema.names).to_arrow()
    return table.cast(pa.schema(plain))
