"""K-line intervals: the closed set of `freq`, their length, and the period that holds them."""

from datetime import date, timedelta
from enum import StrEnum

from ..errors import BadRequest

__all__ = ["Freq"]

_MINUTES = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240}
_ALIASES = {
    "1min": "1m", "3min": "3m", "5min": "5m", "15min": "15m", "30min": "30m", "60m": "1h", "60min": "1h",
    "120m": "2h", "240m": "4h", "d": "1d", "day": "1d", "daily": "1d", "w": "1w", "week": "1w", "weekly": "1w",
    "mo": "1mo", "1mon": "1mo", "month": "1mo", "monthly": "1mo", "quarter": "1q", "year": "1y",
}  # fmt: skip


class Freq(StrEnum):
    """One K-line interval; the value is its only spelling in the lake (`1m` … `1y`)."""

    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    D1 = "1d"
    W1 = "1w"
    MO1 = "1mo"
    Q1 = "1q"
    Y1 = "1y"

    @classmethod
    def parse(cls, text: str) -> "Freq":
        """Return the freq that `text` spells.

        Parameters
        ----------
        text : str
            A canonical value or a usual alias (`60min`, `daily`), any case except `1M`.

        Raises
        ------
        BadRequest
            Unknown, or `1M`, which means a month to some and a minute to others.
        """
        if text in {"1M", "M"}:
            raise BadRequest(
                "freq", text, hint="write 1mo for a month, 1m for a minute",
                hint_zh="月线请写 1mo，分钟线请写 1m",
            )  # fmt: skip
        lower = text.strip().lower()
        try:
            return cls(_ALIASES.get(lower, lower))
        except ValueError:
            raise BadRequest("freq", text, tuple(f.value for f in cls)) from None

    @property
    def intraday(self) -> bool:
        """True below one day: such bars are keyed by ts; longer ones by session."""
        return self.value in _MINUTES

    @property
    def minutes(self) -> int:
        """Length in minutes; for one day and longer 0, because sessions differ."""
        return _MINUTES.get(self.value, 0)

    def anchor(self, day: date) -> date:
        """Return the `session` value of the bar that holds the trading date `day`.

        Intraday and daily: `day` itself. 1w: its Monday. 1mo, 1q, 1y: the first calendar
        day, trading day or not.
        """
        if self is Freq.W1:
            return day - timedelta(days=day.weekday())
        if self is Freq.MO1:
            return day.replace(day=1)
        if self is Freq.Q1:
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        if self is Freq.Y1:
            return day.replace(month=1, day=1)
        return day

    def following(self, session: date) -> date:
        """Return the first calendar day after the bar anchored at `session`."""
        if self is Freq.W1:
            return session + timedelta(days=7)
        if self in (Freq.MO1, Freq.Q1, Freq.Y1):
            months = {Freq.MO1: 1, Freq.Q1: 3, Freq.Y1: 12}[self]
            index = session.year * 12 + session.month - 1 + months
            return date(index // 12, index % 12 + 1, 1)
        return session + timedelta(days=1)

    def period(self, session: date) -> str:
        """Return the partition that holds a bar of `session`: `2026` from 1d up, `2026-11` below."""
        return f"{session.year:04d}-{session.month:02d}" if self.intraday else f"{session.year:04d}"
