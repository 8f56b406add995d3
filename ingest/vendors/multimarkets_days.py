"""What the time of a bar means here: nobody has written it down (M12), so every page is looked at."""

from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from ...schemas.compute import pc
from ...schemas.freq import Freq
from ...schemas.session import calendar
from ...schemas.symbol import Symbol
from ..normalise import Rows, local_days

__all__ = ["dated", "labelled_by_end"]

_DAY_US: Final = 86_400_000_000
_FRIDAY: Final = 4
_DENSE: Final = 0.8  # of a session's bars: then its first one is among them


def dated(rows: Rows, symbol: Symbol, freq: Freq) -> str:
    """Return why daily or longer bars cannot be dated; empty: their times now lie inside the days they mean.

    The venue's midnight, its open and midnight UTC all mean the same day; they are told apart
    by the hour alone. Round the clock a day is the UTC day, or the bar holds other trades.
    """
    at_midnight = rows.time % _DAY_US == 0
    if symbol.place.zone == "UTC":
        if not at_midnight.all():
            return "its days do not begin at 00:00 UTC: klake keeps no others (M12)"
    else:
        rows.time = np.where(at_midnight, rows.time + _DAY_US // 2, rows.time)
    days = local_days(rows.time, symbol.place.zone) if rows.time.size else rows.time
    weekday = (days + 3) % 7
    if freq is Freq.W1 and bool((weekday > (0 if symbol.place.zone == "UTC" else _FRIDAY)).any()):
        return "its weeks do not begin on a Monday (M12)"
    dates = days.astype("datetime64[D]")
    first = dates == dates.astype("datetime64[M]").astype("datetime64[D]")
    if freq is Freq.MO1 and symbol.place.zone == "UTC" and not first.all():
        return "its months do not begin on the first (M12)"
    return ""


def labelled_by_end(bars: pa.Table, symbol: Symbol, freq: Freq, received_at: datetime) -> bool:
    """Return whether intraday bars, read as labelled by their start, can only be labelled by their end.

    A bar that begins up to its length after it was received; or sessions full of bars, none of which
    begins with the session, but all of which have one that begins with the close.
    """
    if not bars.num_rows:
        return False
    ahead = bars["ts"][-1].as_py() - received_at
    # Half of a bar is left to clocks that disagree.
    if timedelta(seconds=max(30, freq.minutes * 30)) < ahead <= timedelta(minutes=freq.minutes + 1):
        return True
    book = calendar(symbol.place.calendar)
    if not book.name.startswith("X"):
        return False
    oldest: date = bars["session"][0].as_py()
    told: list[bool] = []
    for session in book.sessions(oldest + timedelta(days=1), received_at.date() + timedelta(days=1)):
        hours = book.hours(session)
        mine = bars.filter(pc.equal(bars["session"], pa.scalar(session)))["ts"]
        if hours.close <= received_at and len(mine) >= _DENSE * book.bars(
            session, freq.following(session), freq
        ):
            first, last = mine[0].as_py(), mine[-1].as_py()
            told.append(first > hours.open and last == hours.close)
    return bool(told) and all(told)
