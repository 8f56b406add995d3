"""Which day a daily, weekly or monthly bar of MultiMarkets means: nobody has written that down (M12)."""

from typing import Final

import numpy as np

from ...schemas.freq import Freq
from ...schemas.symbol import Symbol
from ..normalise import Rows, local_days

__all__ = ["dated"]

_DAY_US: Final = 86_400_000_000
_FRIDAY: Final = 4


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
