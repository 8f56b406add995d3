"""Horizons that a vendor declares: sessions before them are empty for a reason, and nobody asks for them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Final

from ..schemas.capability import Capability
from ..schemas.coverage import Covered, Reason, Series, Standing
from ..schemas.span import Span, missing

__all__ = ["beyond"]

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)  # any proof is younger, and stands against it


def beyond(
    covered: Mapping[Series, Sequence[Covered]], start: date, capability: Capability
) -> dict[Series, tuple[Covered, ...]]:
    """Return what a declared floor says of each series from `start` on, where nothing is known yet.

    No request proved it: its page ids are empty. Series without such stretches are left out.
    """
    out: dict[Series, tuple[Covered, ...]] = {}
    for series, held in covered.items():
        floor = capability.floor.get((series.symbol.rpartition(".")[2], series.freq))
        if floor is None:
            continue
        first, last = series.freq.anchor(start), series.freq.anchor(floor)
        parts = missing([c.sessions for c in held], Span(first, max(first, last)))
        if parts:
            out[series] = tuple(
                Covered(series, part, Standing.EMPTY, Reason.HORIZON, "", "", _LONG_AGO) for part in parts
            )
    return out
