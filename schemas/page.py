"""What is asked of a vendor, what came back, and what it proves."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa

from .capability import Adjust
from .freq import Freq

__all__ = ["Entry", "Outcome", "Page", "PageRequest", "Reject", "SeriesPage"]

Outcome = Literal["bars", "empty", "absent", "refused", "failed"]
"""bars: rows came. empty: the vendor says there are none. absent: it left the series out.
refused: it cannot or will not give this series. failed: the entry could not be read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one request asks of one series: at most `count` bars, going back from `end`.

    `end` is an instant; whether a bar that starts at it belongs is the vendor's affair, so
    pages overlap. None: the newest bars.
    """

    symbol: str
    freq: Freq
    end: datetime | None
    count: int
    adjust: Adjust = "none"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One request to a vendor; holds no secret. `endpoint` is the vendor's own word."""

    vendor: str
    endpoint: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One vendor reply as it came: the raw record.

    `id` is unique; `account` is a hash of vendor and credential; `body` holds the wire
    bytes (for SDK vendors a canonical encoding); `client` names client and parser version;
    `run` is the run that fetched it. Holds no secret.
    """

    id: str
    run: str
    kind: str
    account: str
    request: PageRequest
    received_at: datetime
    status: int
    client: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that cannot become a bar: the rule that refused it and the values as they came."""

    symbol: str
    freq: Freq
    rule: str
    values: str  # JSON text
    ts: datetime | None = None


@dataclass(frozen=True, slots=True)
class SeriesPage:
    """What one page says about one series.

    `bars` is an Arrow table with the columns of `schemas.bar.INCOMING`, ascending by ts,
    one row per key, units and labels already canonical, auction prints not yet folded
    (flag AUCTION on a print that stands outside the grid). n = 0 unless outcome is "bars".
    """

    entry: Entry
    outcome: Outcome
    bars: pa.Table
    rejects: tuple[Reject, ...] = ()
    reason: str = ""
