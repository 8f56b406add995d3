"""Rows of a file as readers hand them on: one table of canonical columns, and what could not be read."""

from dataclasses import dataclass
from typing import Final, cast

import polars as pl
import pyarrow as pa

from ...errors import BadRequest
from ...schemas.stamp import placed_in, times
from .mapping import Mapping

__all__ = ["ROWS", "Broken", "Piece", "piece"]

ROWS: Final = 65_536
"""Rows that a reader hands on at once: what bounds memory."""

_NUMBERS: Final = ("open", "high", "low", "close", "volume", "amount")
_NEEDED: Final = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class Broken:
    """One row that cannot be read: its line (from 1; 0: of no line), its text and what is wrong."""

    line: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Up to `ROWS` rows of a file, n × 8: symbol, ts or session, open … volume, amount.

    Units are canonical; `ts` holds aware instants labelled as the file labels them, `session`
    dates. `lines`: n line numbers of text files, row numbers of others, from 1.
    """

    table: pa.Table
    lines: pa.Array
    broken: tuple[Broken, ...] = ()


def piece(raw: pl.DataFrame, mapping: Mapping, broken: list[Broken], texts: list[str] | None = None) -> Piece:
    """Return the rows of `raw` in canonical columns and units.

    Parameters
    ----------
    raw : frame, n rows
        Columns of `mapping.FIELDS` as the file holds them, and `line`.
    broken : list of Broken
        What the reader could not even split; rows with cells that cannot be read are added.
    texts : list of str, length n, optional
        The rows as they stand in the file; without it a broken row is told by its cells.
    """
    given = raw.with_row_index("row")
    stamps = _stamped(given, mapping)
    frame = stamps.with_columns(_number(given, name, mapping) for name in _NUMBERS if name in given.columns)
    if "amount" not in frame.columns:
        frame = frame.with_columns(amount=pl.lit(None, pl.Float64))
    time = "session" if "session" in frame.columns else "ts"
    frame = frame.with_columns(_whys(frame, time))
    bad = frame.filter(pl.col("why").is_not_null()).select("row", "line", "why")
    for row, line, why in bad.iter_rows():
        text = texts[row] if texts is not None else _spelled(raw.row(row, named=True))
        broken.append(Broken(line, text, why))
    good = frame.filter(pl.col("why").is_null())
    symbol = pl.col("symbol") if "symbol" in good.columns else pl.lit(mapping.symbol)
    table = good.select(symbol.cast(pl.String).alias("symbol"), time, *_NUMBERS)
    return Piece(
        table.to_arrow(compat_level=pl.CompatLevel.oldest()), good["line"].cast(pl.Int64).to_arrow(),
        tuple(sorted(broken, key=lambda b: b.line)),
    )  # fmt: skip


def _stamped(given: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """Add `session` (dates, or naive times of daily bars) or `ts` (instants)."""
    if mapping.day is not None:
        since = given["ts"].cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
        midnight = pl.Series([mapping.day]).cast(pl.Datetime("us"))
        wall = midnight.new_from_index(0, len(given)) + pl.Series(since * 1_000).cast(pl.Duration("us"))
        return given.with_columns(placed_in(wall, mapping.zone).alias("ts"))
    stamp = given["ts"] if "ts" in given.columns else _joined(given)
    if mapping.freq.intraday and stamp.dtype == pl.Date:
        raise BadRequest("ts", str(stamp[0]), hint="intraday bars need a time of day, these are dates")
    read = times(stamp, mapping.time_format, dated=not mapping.freq.intraday)
    rest = given.drop("ts", "date", "time", strict=False)
    if cast("pl.Datetime", read.dtype).time_zone:
        return rest.with_columns(read.alias("ts"))
    if not mapping.freq.intraday:
        return rest.with_columns(read.dt.date().alias("session"))
    if not mapping.zone:
        raise BadRequest(
            "zone", "", hint="the times of this file have no zone: say where they were written, "
            "such as Asia/Shanghai", hint_zh="文件中的时间没有时区：请声明，例如 Asia/Shanghai",
        )  # fmt: skip
    return rest.with_columns(placed_in(read, mapping.zone).alias("ts"))


def _spelled(cells: dict[str, object]) -> str:
    """Return the cells of a row that is no text in its file, as one would write them."""
    return ", ".join(f"{name}={'' if v is None else v}" for name, v in cells.items() if name != "line")


def _joined(given: pl.DataFrame) -> pl.Series:
    """Return date and time of two columns as one text; a time without colons gets six digits."""
    if "time" not in given.columns:
        return given["date"]
    day = pl.col("date").cast(pl.String).str.strip_chars()
    clock = pl.col("time").cast(pl.String).str.strip_chars()
    digits = clock.str.contains(r"^\d{1,6}$")
    width = pl.when(clock.str.len_chars() > 4).then(clock.str.zfill(6)).otherwise(clock.str.zfill(4))
    return given.select(day + " " + pl.when(digits).then(width).otherwise(clock)).to_series()


def _number(given: pl.DataFrame, name: str, mapping: Mapping) -> pl.Expr:
    value = pl.col(name)
    if given.schema[name] == pl.String:
        value = value.str.strip_chars().str.replace_all(",", "", literal=True)
    factor = {"volume": mapping.volume_factor, "amount": mapping.amount_factor}.get(
        name, mapping.price_factor
    )
    return _scaled(value.cast(pl.Float64, strict=False).fill_nan(None), factor)


def _scaled(value: pl.Expr, factor: float) -> pl.Expr:
    """Return `value × factor`; a factor such as 0.0001 divides, so that prices come out exact."""
    if factor == 1.0:
        return value
    whole = round(1 / factor)
    return value / whole if factor < 1 and abs(whole * factor - 1) < 1e-12 else value * factor


def _whys(frame: pl.DataFrame, time: str) -> pl.Expr:
    absent = [pl.when(pl.col(name).is_null()).then(pl.lit(f"{name} cannot be read")) for name in _NEEDED]
    timeless = pl.when(pl.col(time).is_null()).then(pl.lit("the time cannot be read"))
    nobody = (
        [pl.when(pl.col("symbol").is_null()).then(pl.lit("no symbol"))] if "symbol" in frame.columns else []
    )
    return pl.coalesce(timeless, *nobody, *absent).alias("why")
