"""Does a file contradict what was declared of it? A false unit, label or zone stops the whole file.

Nothing here is proof: a file that cannot tell passes. What is refused contradicts itself on
more than half of its sessions or rows, so that odd days do not stop a good file.
"""

from collections import Counter
from typing import Final, cast

import polars as pl
import pyarrow as pa

from ...errors import BadRequest
from ...schemas.derive import Derived
from ...schemas.session import Calendar, calendar
from ...schemas.symbol import Class, Symbol
from .mapping import Mapping

__all__ = ["check_label", "check_places", "check_units"]

_MISPLACED: Final = {"closed", "not an end", "no session"}
_FEW: Final = 10  # rows that say nothing about a file


def check_units(table: pa.Table) -> None:
    """Refuse units that the file's own amounts contradict: amount ÷ volume is not near the price.

    Indices are exempt: their points are no price per share.
    """
    frame = cast("pl.DataFrame", pl.from_arrow(table)).filter((pl.col("amount") > 0) & (pl.col("volume") > 0))
    names = [text for text, symbol in _symbols(frame).items() if symbol.klass is not Class.INDEX]
    frame = frame.filter(pl.col("symbol").is_in(names))
    ratio = frame.select((pl.col("amount") / pl.col("volume") / pl.col("close")).median()).item()
    if ratio is not None and not 0.5 < ratio < 2:
        raise BadRequest(
            "volume_factor", f"amount ÷ (volume × close) = {ratio:.4g}",
            hint="it should be near 1: declare price_factor, volume_factor (100: lots) and amount_factor, "
            "or leave the amount out",
            hint_zh="应接近 1：请声明 price_factor、volume_factor（手为 100）与 amount_factor，或不导入成交额",
        )  # fmt: skip


def check_label(table: pa.Table, mapping: Mapping) -> None:
    """Refuse a label that the stamps contradict.

    A file of starts has stamps at the open and none at the close, one of ends the reverse and
    its first stamp one bar after the open; only ends are stamped with the beginning of lunch.
    """
    if not mapping.freq.intraday or mapping.anchor == "clock":
        return
    frame = cast("pl.DataFrame", pl.from_arrow(table)).select("symbol", "ts")
    starts = ends = total = 0
    for text, symbol in _symbols(frame).items():
        name = symbol.place.calendar
        if name in {"24/7", "FX"}:  # a session's end is the next one's start: nothing to see
            continue
        step = pl.duration(minutes=mapping.freq.minutes)
        days = _edges(frame.filter(pl.col("symbol") == text)["ts"], calendar(name), step)
        starts += days.filter(
            pl.col("opens") & ~pl.col("closes") & ~pl.col("lunches").fill_null(False)
        ).height
        late = pl.col("lunches").fill_null(False) | pl.col("seconds")
        ends += days.filter(pl.col("closes") & ~pl.col("opens") & late).height
        total += days.height
    wrong = starts if mapping.label == "end" else ends
    if wrong * 2 > total:
        raise BadRequest(
            "label", mapping.label, (),
            f"{wrong} of {total} sessions of this file are stamped with the other end of the bar",
            f"该文件 {total} 个交易日中有 {wrong} 个的时间标在另一端",
        )  # fmt: skip


def check_places(made: Derived, rows: int) -> None:
    """Refuse times of which most fall where the venue does not trade: zone, label or dates are false."""
    lost = Counter(reject.rule for reject in made.rejected if reject.rule in _MISPLACED)
    if rows >= _FEW and lost.total() * 2 > rows:
        raise BadRequest(
            "zone", f"{lost.total()} of {rows} rows",
            hint="they fall where the venue does not trade: zone, label or time_format is false",
            hint_zh="落在非交易时间：zone、label 或 time_format 有误",
        )  # fmt: skip


def _symbols(frame: pl.DataFrame) -> dict[str, Symbol]:
    out: dict[str, Symbol] = {}
    for text in frame["symbol"].unique().to_list():
        try:
            out[text] = Symbol.parse(text)
        except BadRequest:
            continue  # its rows are rejected one by one later
    return out


def _edges(stamps: pl.Series, book: Calendar, step: pl.Expr) -> pl.DataFrame:
    """Return per session whether a stamp is at its open, one step later, at its close, at lunch.

    `lunches` is null where there is no lunch. Sessions with stamps outside regular hours
    are left out: there the close is a stamp like any other.
    """
    frame = pl.DataFrame(
        {"ts": stamps, "session": pl.Series(book.sessions_of(stamps.to_arrow()))}
    ).drop_nulls()
    sessions = frame["session"].unique().to_list()
    hours = [book.hours(day) for day in sessions]
    kind = pl.Datetime("us", "UTC")
    edges = pl.DataFrame(
        {"session": sessions, "open": [h.open for h in hours], "close": [h.close for h in hours],
         "lunch": [h.break_start for h in hours]},
        schema={"session": pl.Date, "open": kind, "close": kind, "lunch": kind},
    )  # fmt: skip
    ts = pl.col("ts")
    per_day = frame.join(edges, on="session").group_by("session").agg(
        opens=(ts == pl.col("open")).any(), seconds=(ts == pl.col("open") + step).any(), closes=(ts == pl.col("close")).any(),
        lunches=pl.when(pl.col("lunch").is_not_null().any()).then((ts == pl.col("lunch")).any()),
        beyond=((ts < pl.col("open")) | (ts > pl.col("close"))).any(),
    )  # fmt: skip
    return per_day.filter(~pl.col("beyond")).drop("beyond")
