"""Coverage: what klake knows about each session of a series, and why."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from .freq import Freq
from .span import Span

__all__ = ["Covered", "Reason", "Series", "Standing"]


class Standing(StrEnum):
    """How a stretch of sessions stands. What is in no stretch is missing."""

    FINAL = "final"  # bars held, nothing more to come
    CLOSED = "closed"  # bars held, ended, the vendor may still correct them
    OPEN = "open"  # bars held, the session was running when they were fetched
    EMPTY = "empty"  # no bar, for a reason
    MISSING = "missing"  # bars were held and are not any more: only ever recorded, see `Ledger.record`


class Reason(StrEnum):
    """Why there is no bar."""

    NONE = ""  # there are bars
    HOLIDAY = "holiday"
    HALT = "halt"
    NOT_LISTED = "not yet listed"
    DELISTED = "delisted"
    VENDOR_NONE = "vendor says none"
    HORIZON = "beyond the vendor's horizon"


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """One (vendor, symbol, freq) of as-traded bars."""

    vendor: str
    symbol: str
    freq: Freq


@dataclass(frozen=True, slots=True)
class Covered:
    """One stretch of sessions of a series that stands alike, half-open over calendar days.

    `first_request` and `last_request` are the page ids that proved it; `fetched_at` is the
    oldest of its proofs, by which it is decided whether an open session is due again.
    """

    series: Series
    sessions: Span[date]
    standing: Standing
    reason: Reason
    first_request: str
    last_request: str
    fetched_at: datetime
