"""Where bars lie in time: stamps → bar start and session, END labels → starts, auctions folded.

Every row of a frame gets `ts` and `session`, or a rule that says why it has none:
`unreadable time`, `in the future`, `no session` (nothing trades on that day), `closed`
(nothing trades at that time), `not an end` (no bar of the freq ends then), `lone auction`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from .auction import folded
from .bar import Flag
from .freq import Freq
from .hours import RULES
from .session import Anchor, Calendar, calendar, nominal_ts_array
from .stamp import days, instants
from .venue import VENUES

__all__ = ["LEFT_OUT", "Declared", "HoursWanted", "Label", "placed"]

Label = Literal["start", "end"]
HoursWanted = Literal["regular", "all"]

_Times: TypeAlias = npt.NDArray[np.datetime64]

LEFT_OUT: Final = "left out"
"""The rule of rows outside regular hours that were not wanted: counted, never quarantined."""

_UTC: Final = pl.Datetime("us", "UTC")
_OUT: Final = (
    "row", "symbol", "venue", "ts", "session", "open", "high", "low", "close", "volume", "amount", "state", "flags",
)  # fmt: skip
_UNREADABLE: Final = "unreadable time"
_TICK: Final = np.timedelta64(1, "us")
_EXTENDED: Final = {
    "pre": Flag.PRE_MARKET.value, "post": Flag.POST_MARKET.value, "overnight": Flag.OVERNIGHT.value,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Declared:
    """What a table's owner says about its times.

    `zone`: where naive times were written; empty: there are none. `label`: whether intraday
    times are bar starts or ends. `time_format`: a strptime form, or s, ms, us, ns for epochs.
    `hours`: `regular` leaves pre-market, post-market and overnight bars out, `all` keeps them
    with their flag. `break_end_is_last`: an END stamp at the end of the lunch break belongs to
    the last bar of the morning (some A-share files stamp 11:30 as 13:00); without it such a
    row is rejected, because nothing tells whose it is. `anchor="clock"`: hours and the like
    count from local midnight (Lean stamps 09:00 what New York trades from 09:30); their first
    bar is given the session's open as its start. Such bars are off klake's grid, and good for
    making days of them only.
    """

    zone: str = ""
    label: Label = "start"
    time_format: str = ""
    hours: HoursWanted = "regular"
    break_end_is_last: bool = False
    anchor: Anchor = "session"


def placed(part: pl.DataFrame, venue: str, freq: Freq, now: datetime, said: Declared) -> pl.DataFrame:
    """Return the rows of one venue with `ts` (UTC) and `session` in place of `stamp`.

    Adds to `rule` and `flags`; folds auction prints into their bars, so that fewer rows may
    come back. `venue` is empty for rows whose symbol is unknown.
    """
    if not venue:
        there = part.with_columns(ts=pl.lit(None, _UTC), session=pl.lit(None, pl.Date))
    else:
        there = (_intraday if freq.intraday else _daily)(part, venue, freq, said)
    late = pl.when(pl.col("ts") > now).then(pl.lit("in the future"))
    return there.select(*_OUT, rule=pl.coalesce("rule", late))


def _daily(part: pl.DataFrame, venue: str, freq: Freq, said: Declared) -> pl.DataFrame:
    """Place daily and longer bars by their date; of longer ones any day of the period serves."""
    place = VENUES[venue]
    dates = days(part["stamp"], place.zone, said.time_format).rename("day")
    unique = dates.drop_nulls().unique().sort()
    sessions: set[Any] = set()
    if len(unique):
        first, last = unique[0], unique[-1]
        sessions = set(calendar(place.calendar).sessions(first, freq.following(freq.anchor(last))))
    known = pl.DataFrame(
        {"day": unique, "session": [freq.anchor(d) for d in unique.to_list()],
         "trades": [not (freq is Freq.D1) or d in sessions for d in unique.to_list()]},
        schema={"day": pl.Date, "session": pl.Date, "trades": pl.Boolean},
    )  # fmt: skip
    there = part.with_columns(dates).join(known, on="day", how="left").sort("row")
    stamps = pl.Series("ts", nominal_ts_array(venue, there["session"].to_arrow())).cast(_UTC)
    rule = (
        pl.when(pl.col("day").is_null()).then(pl.lit(_UNREADABLE))
        .when(~pl.col("trades")).then(pl.lit("no session"))
    )  # fmt: skip
    return there.with_columns(stamps, rule=pl.coalesce("rule", rule)).drop("day", "trades")


def _intraday(part: pl.DataFrame, venue: str, freq: Freq, said: Declared) -> pl.DataFrame:
    """Place intraday bars: END labels become starts, the phase of the day tells what a row is."""
    at = instants(part["stamp"], said.zone, said.time_format)
    if at.null_count() == len(at):
        return part.with_columns(
            ts=pl.lit(None, _UTC),
            session=pl.lit(None, pl.Date),
            rule=pl.coalesce("rule", pl.lit(_UNREADABLE)),
        )
    cal = calendar(VENUES[venue].calendar)
    times = cast("_Times", at.fill_null(at.drop_nulls()[0]).to_numpy().astype("datetime64[us]"))
    start, inside, fits = _starts(cal, freq, times, said)
    phase = pl.Series("phase", cal.phases(inside).tolist(), dtype=pl.String)
    there = part.with_columns(
        phase,
        pl.Series("ts", start).dt.replace_time_zone("UTC").set(at.is_null(), None),
        pl.Series("session", cal.sessions_of(inside)).cast(pl.Date),
        pl.Series("fits", fits),
    )
    return _judged(there, cal, venue, freq, said)


def _starts(
    cal: Calendar, freq: Freq, times: _Times, said: Declared
) -> tuple[_Times, _Times, npt.NDArray[np.bool_]]:
    """Return (bar starts, an instant inside each bar, whether the label can be one) of n stamps.

    A bar that ends at lunch or at the close may be short, so an END label is looked up in
    the session's grid, never reckoned back by the freq.
    """
    sure = np.ones(len(times), np.bool_)
    if said.anchor == "clock":
        start = _clocked(cal, freq, times if said.label == "start" else times - _length(freq))
        return start, start, sure
    if said.label == "start":
        return times, times, sure
    inside = times - _TICK
    segment = cal.buckets(Freq.H4, inside)  # lunch is shorter than 4h: this is its own start
    if said.break_end_is_last:
        back = (cal.phases(inside) == "lunch") & (cal.phases(times) == "regular")
        times = np.where(back, segment, times)
        inside = times - _TICK
    start = cal.buckets(freq, inside)
    return start, inside, cal.bar_ends(freq, start) == times


def _clocked(cal: Calendar, freq: Freq, begins: _Times) -> _Times:
    """Return the starts of bars that count from midnight: one that the open cuts starts there."""
    last = begins + _length(freq) - _TICK
    cut = (cal.phases(begins) != "regular") & (cal.phases(last) == "regular")
    return np.where(cut, cal.buckets(Freq.H4, cal.buckets(Freq.M1, last)), begins)


def _length(freq: Freq) -> np.timedelta64:
    return np.timedelta64(freq.minutes, "m")


def _judged(there: pl.DataFrame, cal: Calendar, venue: str, freq: Freq, said: Declared) -> pl.DataFrame:
    """Set rule and flags by the phase of the day; fold auction prints where the venue has them."""
    phase = pl.col("phase")
    if said.anchor == "clock":
        # Lean's days hold what was traded after an early close, up to the usual one.
        place = VENUES[venue]
        wall = pl.col("ts").dt.convert_time_zone(place.zone)
        before = wall.dt.hour().cast(pl.Int32) * 60 + wall.dt.minute() < RULES[place.calendar].close
        phase = pl.when((phase == "post") & before).then(pl.lit("regular")).otherwise(phase)
    off_hours = phase.is_in(list(_EXTENDED))
    rule = (
        pl.when(pl.col("ts").is_null()).then(pl.lit(_UNREADABLE))
        .when(phase.is_in(["closed", "lunch"])).then(pl.lit("closed"))
        .when(~pl.col("fits") & ~(off_hours & (venue != "US"))).then(pl.lit("not an end"))
    )  # fmt: skip
    there = there.with_columns(rule=pl.coalesce("rule", rule))
    if venue != "US":
        return folded(there, cal, freq)
    flags = phase.replace_strict(_EXTENDED, default=0, return_dtype=pl.Int32)
    unwanted = pl.when(off_hours & (said.hours == "regular")).then(pl.lit(LEFT_OUT))
    return there.with_columns(flags=pl.col("flags") | flags, rule=pl.coalesce("rule", unwanted))
