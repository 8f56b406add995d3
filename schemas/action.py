"""Corporate actions: splits, dividends, allotments, as events; bars are never adjusted in the lake."""

import hashlib
from enum import StrEnum
from typing import Final

import pyarrow as pa

from .bar import TIME

__all__ = ["NEEDS", "SCHEMA", "Kind", "action_id"]


class Kind(StrEnum):
    """What happened on the ex-date."""

    SPLIT = "split"  # `shares` new shares for each old one (2.0: two for one; 0.1: ten into one)
    DIVIDEND = "dividend"  # `cash` per old share
    BONUS = "bonus"  # `shares` further shares given per old share (0.3: three for ten)
    ALLOTMENT = "allotment"  # `shares` further shares offered per old share at `price`
    REFORM = "reform"  # shares given without an ex-price (share reform): adjusts nothing
    RATIO = "ratio"  # `ratio`: adjusted ÷ raw of a vendor, with an `error` bound; qfq and hfq only


NEEDS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.SPLIT: ("shares",),
    Kind.DIVIDEND: ("cash",),
    Kind.BONUS: ("shares",),
    Kind.ALLOTMENT: ("shares", "price"),
    Kind.REFORM: (),
    Kind.RATIO: ("ratio",),
}
"""The columns that an event of each kind must have."""

SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # deterministic: of vendor, symbol, ex_date, kind
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("ex_date", pa.date32(), nullable=False),  # first session that trades without the right
        pa.field("kind", pa.string(), nullable=False),  # Kind
        pa.field("shares", pa.float64()),  # per old share
        pa.field("cash", pa.float64()),  # quote currency per old share, before tax
        pa.field("price", pa.float64()),  # of an allotted share, quote currency
        pa.field("ratio", pa.float64()),  # adjusted ÷ raw before the ex-date
        pa.field("error", pa.float64()),  # bound of the relative error of `ratio`
        pa.field("known_at", TIME, nullable=False),
    ]
)
"""One row is one event of one symbol."""


def action_id(vendor: str, symbol: str, ex_date: str, kind: str) -> str:
    """Return the id of an action: the same event from the same vendor has the same id."""
    return hashlib.sha256(f"{vendor}\x1f{symbol}\x1f{ex_date}\x1f{kind}".encode()).hexdigest()[:24]
