"""Stamps as files and frames carry them → UTC instants, or trading dates.

Text in the usual forms (`2026-11-20 9:31`, `2026/11/20 09:31:00`, `20261120`, ISO with an
offset), dates, timestamps of any unit and zone, integers (`20261120`, or epochs where the
form says `s`, `ms`, `us` or `ns`). What cannot be read is null; what is ambiguous raises.
"""

from typing import Final

import polars as pl

from ..errors import BadRequest

__all__ = ["days", "instants", "placed_in", "times"]

_EPOCHS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_DATES: Final = ("%Y-%m-%d", "%Y%m%d")
_TIMES: Final = (" %H:%M:%S", " %H:%M", " %H:%M:%S%.f", " %H%M%S", " %H%M", "%H%M%S", "%H%M")
_NAIVE: Final = pl.Datetime("us")
_AWARE: Final = pl.Datetime("us", "UTC")


def instants(stamps: pl.Series, zone: str = "", form: str = "") -> pl.Series:
    """Return n UTC instants [us] of n stamps; null where a stamp is missing or unreadable.

    Parameters
    ----------
    stamps : Series, length n
        Text, timestamps or integers.
    zone : str
        Where naive stamps were written, such as `Asia/Shanghai`. An hour that a DST change
        repeats or skips is null: it cannot be told which of two instants was meant.
    form : str
        A strptime form for text, or `s`, `ms`, `us`, `ns` for epochs; empty: the usual ones.

    Raises
    ------
    BadRequest
        Naive stamps without a zone, dates where instants are needed, or no stamp is readable.
    """
    if stamps.dtype == pl.Date:
        raise BadRequest(
            "ts", _sample(stamps), hint="intraday bars need a time of day, these are dates",
            hint_zh="分钟线需要时刻，这里只有日期",
        )  # fmt: skip
    read = times(stamps, form, dated=False)
    if read.dtype == _AWARE:
        return read
    if not zone:
        raise BadRequest(
            "ts", _sample(stamps),
            hint="these times have no zone: say where they were written, such as zone='Asia/Shanghai'",
            hint_zh="这些时间没有时区：请注明，例如 zone='Asia/Shanghai'",
        )  # fmt: skip
    return placed_in(read, zone)


def placed_in(walls: pl.Series, zone: str) -> pl.Series:
    """Return naive wall times of `zone` as UTC instants; null in an hour that DST repeats or skips."""
    try:
        local = walls.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    except pl.exceptions.ComputeError as error:
        raise BadRequest("zone", zone, hint="name an IANA zone, such as Asia/Shanghai") from error
    return local.dt.convert_time_zone("UTC")


def days(stamps: pl.Series, zone: str, form: str = "") -> pl.Series:
    """Return n trading dates of n stamps of daily or longer bars; null where unreadable.

    Dates and naive stamps are taken as they stand. An aware one is read in `zone`, the
    venue's, except 00:00 UTC, which is how tables without a date type write a date.
    """
    if stamps.dtype == pl.Date:
        return stamps
    read = times(stamps, form, dated=True)
    if read.dtype != _AWARE:
        return read.dt.date()
    frame = read.rename("t").to_frame()
    local = pl.col("t").dt.convert_time_zone(zone).dt.date()
    midnight = pl.col("t").dt.time() == pl.time(0)
    return frame.select(pl.when(midnight).then(pl.col("t").dt.date()).otherwise(local)).to_series()


def times(stamps: pl.Series, form: str, dated: bool) -> pl.Series:
    """Return naive or UTC datetimes [us] of n stamps; null where one is missing or unreadable.

    `form` as in `instants`; `dated`: the time of day may be missing. Raises BadRequest when
    no stamp is readable.
    """
    if isinstance(stamps.dtype, pl.Datetime):
        fine = stamps.dt.cast_time_unit("us")
        return fine.dt.convert_time_zone("UTC") if stamps.dtype.time_zone else fine
    if stamps.dtype == pl.Date:
        return stamps.cast(_NAIVE)
    if stamps.dtype.is_integer() or stamps.dtype.is_float():
        if form in _EPOCHS or form == "ns":
            return _epoch(stamps, form)
        stamps = stamps.cast(pl.Int64, strict=False).cast(pl.String)
    if stamps.dtype != pl.String:
        raise BadRequest("ts", str(stamps.dtype), hint="times are timestamps, dates, texts or integers")
    if form in _EPOCHS or form == "ns":
        return _epoch(stamps.str.strip_chars().cast(pl.Int64, strict=False), form)
    return _text(stamps, form, dated)


def _epoch(stamps: pl.Series, form: str) -> pl.Series:
    if form == "ns":
        return (stamps.cast(pl.Int64, strict=False) // 1_000).cast(_NAIVE).dt.replace_time_zone("UTC")
    micros = (stamps * _EPOCHS[form]).cast(pl.Int64, strict=False)
    return micros.cast(_NAIVE).dt.replace_time_zone("UTC")


def _text(stamps: pl.Series, form: str, dated: bool) -> pl.Series:
    plain = stamps.str.strip_chars()
    if form:
        forms: tuple[str, ...] = (form,)
    else:
        plain = (
            plain.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "${1}-${2}-${3}")
            .str.replace(r"[Tt ]\s*(\d)", " ${1}")
            .str.replace(r"[Zz]$", "+0000")
            .str.replace(r"\s*([+-]\d{2}):?(\d{2})$", "${1}${2}")
        )
        # 2026-11-20 ends like an offset does; only a stamp with a clock time has one.
        aware = plain.str.contains(r":\d+(\.\d+)?[+-]\d{4}$").fill_null(False)
        if aware.any():
            return _first_fit(
                plain.set(~aware, None), tuple(f"{d}{t}%z" for d in _DATES for t in _TIMES), stamps
            )
        forms = tuple(f"{d}{t}" for d in _DATES for t in (("", *_TIMES) if dated else _TIMES))
    return _first_fit(plain, forms, stamps)


def _first_fit(plain: pl.Series, forms: tuple[str, ...], given: pl.Series) -> pl.Series:
    """Return each text in the first of `forms` that reads it; raises when none reads any."""
    target = _AWARE if forms[0].endswith("%z") else _NAIVE
    out = pl.Series(plain.name, [None], dtype=target).new_from_index(0, len(plain))
    wanted = len(plain) - plain.null_count()
    for form in forms:
        # A form that reads the first open text is likely the file's; the others cost nothing.
        read = plain.str.strptime(target, form, strict=False)
        read = read.set((read.dt.year() < 1900).fill_null(False), None)
        out = read if out.null_count() == len(out) else out.zip_with(out.is_not_null(), read)
        if len(out) - out.null_count() == wanted:
            break
    if wanted and out.null_count() == len(out):
        raise BadRequest(
            "ts", _sample(given), hint="no usual form of time: give time_format, such as '%d.%m.%Y %H:%M'",
            hint_zh="无法识别时间格式：请给出 time_format，例如 '%d.%m.%Y %H:%M'",
        )  # fmt: skip
    return out


def _sample(stamps: pl.Series) -> str:
    known = stamps.drop_nulls()
    return str(known[0]) if len(known) else "nothing"
