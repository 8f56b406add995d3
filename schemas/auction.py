"""Auction prints of tables that are at hand whole: folded into the first and the last bar.

A print stands outside regular hours (09:30 END, 15:00 START in China; up to 16:10 in Hong
Kong). The opening one joins the first bar of its session, the closing one the last grid slot,
which it makes where the table has none, so that a day never has more bars than its grid.
"""

from typing import Final

import polars as pl

from .bar import Flag
from .freq import Freq
from .session import Calendar

__all__ = ["folded"]

_CLOSING: Final = pl.duration(minutes=10)  # Hong Kong prints its closing auction until 16:10
_KEY: Final = ("symbol", "ts")
_VALUES: Final = ("open", "high", "low", "close", "volume", "amount")


def folded(there: pl.DataFrame, cal: Calendar, freq: Freq) -> pl.DataFrame:
    """Return the rows of one venue, auction prints folded into bars.

    `there`: `ts`, `session`, `phase` (pre and post are prints), values, `flags`, `rule`.
    Prints that cannot be folded keep their row and get a rule: `closed` (later than a closing
    auction), `no trade` (a print without volume), `lone auction` (the table has no bar of that
    session to fold into), `key twice` (the same print, or its bar, with two sets of values).
    """
    prints = there.filter(pl.col("phase").is_in(["pre", "post"]) & pl.col("rule").is_null())
    if prints.is_empty():
        return there
    rest = there.join(prints.select("row"), on="row", how="anti")
    bars = rest.filter(pl.col("rule").is_null())
    prints = _slotted(prints, cal, freq).unique([*_KEY, *_VALUES], keep="first").sort("row")
    prints = prints.with_columns(rule=_reason(prints, bars))
    good = prints.filter(pl.col("rule").is_null()).with_columns(
        ts="slot", flags=pl.col("flags") | Flag.AUCTION
    )
    whole = bars.join(good, on=list(_KEY), how="semi")
    untouched = rest.join(whole.select("row"), on="row", how="anti")
    refused = prints.filter(pl.col("rule").is_not_null())
    return pl.concat([untouched, _joined(whole, good), refused], how="diagonal")


def _slotted(prints: pl.DataFrame, cal: Calendar, freq: Freq) -> pl.DataFrame:
    """Return the prints with `slot` (the start of the bar they belong to), `ends` and `order`."""
    sessions = prints["session"].unique().sort()
    hours = [cal.hours(day) for day in sessions.to_list()]
    last = [cal.starts(day, freq)[-1] for day in sessions.to_list()]
    edges = pl.DataFrame(
        {
            "session": sessions,
            "first": [h.open for h in hours],
            "last": last,
            "ends": [h.close for h in hours],
        },
        schema={"session": pl.Date, **dict.fromkeys(("first", "last", "ends"), pl.Datetime("us", "UTC"))},
    )
    opening = pl.col("phase") == "pre"
    return prints.join(edges, on="session", how="left").with_columns(
        slot=pl.when(opening).then("first").otherwise("last"), order=pl.when(opening).then(-1).otherwise(1)
    ).drop("first", "last")  # fmt: skip


def _reason(prints: pl.DataFrame, bars: pl.DataFrame) -> pl.Series:
    """Return why each print cannot be folded, or null."""
    told = prints.join(
        bars.group_by("symbol", "session").agg(beside=pl.len()), on=["symbol", "session"], how="left"
    ).join(
        bars.unique([*_KEY, *_VALUES]).group_by("symbol", pl.col("ts").alias("slot")).agg(twins=pl.len()),
        on=["symbol", "slot"], how="left",
    )  # fmt: skip
    return told.sort("row").select(
        pl.when(pl.col("ts") > pl.col("ends") + _CLOSING).then(pl.lit("closed"))
        .when(pl.col("volume") == 0).then(pl.lit("no trade"))
        .when(pl.col("beside").is_null()).then(pl.lit("lone auction"))
        .when((pl.len().over(_KEY) > 1) | (pl.col("twins") > 1)).then(pl.lit("key twice"))
    ).to_series()  # fmt: skip


def _joined(bars: pl.DataFrame, prints: pl.DataFrame) -> pl.DataFrame:
    """Return one row per bar: its prints and itself in the order of the day."""
    ordered = pl.concat(
        [bars.unique([*_KEY, *_VALUES]).with_columns(order=pl.lit(0)), prints], how="diagonal"
    )
    ordered = ordered.sort(*_KEY, "order", "ts", "row")
    values = [c for c in ordered.columns if c not in {*_KEY, *_VALUES, "flags", "row", "order"}]
    return ordered.group_by(*_KEY, maintain_order=True).agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
        pl.col("volume").sum(),
        pl.when(pl.col("amount").null_count() == 0).then(pl.col("amount").sum()).alias("amount"),
        pl.col("flags").bitwise_or(), pl.col("row").sort_by(pl.col("order").abs()).first(),
        *(pl.col(c).first() for c in values),
    )  # fmt: skip
