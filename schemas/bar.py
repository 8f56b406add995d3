"""The bar table: columns, keys, states, flags.

Times are UTC microseconds, spans half-open, prices in quote currency as traded,
volume in shares or base units (never lots), amount in quote currency.
"""

from datetime import datetime
from enum import IntFlag, StrEnum
from typing import Final

import pyarrow as pa

from .freq import Freq

__all__ = [
    "COLUMNS", "DAILY_KEY", "INCOMING", "INTRADAY_KEY", "PARTITION", "SCHEMA", "STATE_RANK", "TIME", "VALUES",
    "Flag", "State", "empty", "key_of", "state_of",
]  # fmt: skip

TIME: Final = pa.timestamp("us", tz="UTC")

SCHEMA: Final = pa.schema(
    [
        pa.field("era", pa.string(), nullable=False),  # partition: current, or past (superseded)
        pa.field("vendor", pa.string(), nullable=False),  # partition: the vendor's name in the config
        pa.field("freq", pa.string(), nullable=False),  # partition
        pa.field("period", pa.string(), nullable=False),  # partition, computed from session and freq
        pa.field("symbol", pa.string(), nullable=False),  # canonical CODE.VENUE
        pa.field("ts", TIME, nullable=False),  # bar start
        pa.field("session", pa.date32(), nullable=False),  # trading date, venue-local
        pa.field("open", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("close", pa.float64(), nullable=False),
        pa.field("volume", pa.float64(), nullable=False),  # shares or base units
        pa.field("amount", pa.float64()),  # quote currency; null where the vendor gives none
        pa.field("state", pa.string(), nullable=False),  # open, closed, final
        pa.field("flags", pa.int32(), nullable=False),  # bits of Flag
        pa.field("fetched_at", TIME, nullable=False),  # when the page was received
        pa.field("known_at", TIME, nullable=False),  # stamped in the commit, strictly increasing
    ]
)
"""One row is one bar; fixed column order; n rows × 17 columns."""

COLUMNS: Final = tuple(SCHEMA.names)
PARTITION: Final = ("era", "vendor", "freq", "period")
VALUES: Final = ("open", "high", "low", "close", "volume", "amount")
INTRADAY_KEY: Final = ("vendor", "symbol", "freq", "ts")
DAILY_KEY: Final = ("vendor", "symbol", "freq", "session")

INCOMING: Final = pa.schema([f for f in SCHEMA if f.name not in {"era", "period", "known_at"}])
"""What ingest hands to storage: SCHEMA without era, period and known_at, which the commit adds."""


class State(StrEnum):
    """How far a bar had come when it was fetched."""

    OPEN = "open"  # still forming
    CLOSED = "closed"  # ended, inside the vendor's settle time
    FINAL = "final"  # ended, and the vendor has had time to correct it


STATE_RANK: Final = {State.OPEN: 0, State.CLOSED: 1, State.FINAL: 1}
"""An incoming bar wins by (state rank, fetched_at); closed and final rank alike."""


class Flag(IntFlag):
    """Bits of the column `flags`."""

    AUCTION = 1  # an auction print is folded in
    PRE_MARKET = 2
    POST_MARKET = 4
    OVERNIGHT = 8
    DERIVED = 16  # resampled from a lower freq
    AUCTION_PENDING = 32  # the closing auction had not been printed yet
    SUSPECT = 64  # a quality rule doubts it; see findings
    WITHDRAWN = 128  # only in era past: from known_at on there is no such bar (a restore took it out)


def key_of(freq: Freq) -> tuple[str, ...]:
    """Return the key columns of a freq: by ts below one day, by session from one day up."""
    return INTRADAY_KEY if freq.intraday else DAILY_KEY


def empty(schema: pa.Schema = SCHEMA) -> pa.Table:
    """Return a table of 0 rows with the columns of `schema`."""
    return schema.empty_table()


def state_of(bar_end: datetime, fetched_at: datetime, settle_s: float) -> State:
    """Return how far a bar that ends at `bar_end` had come when it was fetched.

    `settle_s` is the vendor's settle time, in seconds after the end: a bar fetched that
    late or later is final at once.
    """
    if bar_end > fetched_at:
        return State.OPEN
    return State.FINAL if (fetched_at - bar_end).total_seconds() >= settle_s else State.CLOSED
