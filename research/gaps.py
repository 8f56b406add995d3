"""What an answer lacks: parts of the span asked for that the coverage ledger calls missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from ..schemas.compute import pc
from ..schemas.freq import Freq
from ..schemas.session import calendar
from ..schemas.span import Span, missing
from ..schemas.symbol import Symbol
from ..storage.store import Store

__all__ = ["Gap", "gaps"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Sessions of one series that nobody accounts for; `last` is inclusive."""

    symbol: str
    freq: Freq
    vendor: str
    first: date
    last: date

    def __str__(self) -> str:
        return (
            f"{self.symbol} {self.freq} from {self.vendor}: nothing is known of {self.first} to {self.last}; "
            f"`klake sync --vendor {self.vendor} --symbols {self.symbol} --freq {self.freq} "
            f"--start {self.first} --end {self.last}` would ask for it"
        )


def gaps(
    store: Store, symbols: Sequence[str], freq: Freq, start: object, end: object, vendor: str | None
) -> list[Gap]:
    """Return the sessions between `start` and `end` that coverage does not account for.

    Only series that a sync has covered are judged; without `start` the first covered session
    stands in for it, without `end` the last one.
    """
    covered = _covered(store, symbols, freq, vendor)
    out: list[Gap] = []
    for (name, symbol), spans in sorted(covered.items()):
        days = calendar(Symbol.parse(symbol).place.calendar)
        zone = ZoneInfo(days.zone)
        low = _day(start, zone) or min(s.start for s in spans)
        high = _day(end, zone) or max(s.end for s in spans) - timedelta(days=1)
        high = min(high, days.last_begun(store.clock.now()))  # nobody has the bars of tomorrow
        for hole in missing(spans, Span(freq.anchor(low), high + timedelta(days=1))):
            sessions = days.sessions(hole.start, hole.end)
            if sessions:
                out.append(Gap(symbol, freq, name, sessions[0], sessions[-1]))
    return out


def _covered(
    store: Store, symbols: Sequence[str], freq: Freq, vendor: str | None
) -> dict[tuple[str, str], list[Span[date]]]:
    """Return what the published coverage accounts for, by (vendor, symbol)."""
    wanted = (pc.field("freq") == freq.value) & pc.field("symbol").isin(list(symbols))
    if vendor is not None:
        wanted = wanted & (pc.field("vendor") == vendor)
    found: dict[tuple[str, str], list[Span[date]]] = {}
    for row in store.table("coverage").filter(wanted).to_pylist():
        found.setdefault((row["vendor"], row["symbol"]), []).append(Span(row["start"], row["end"]))
    return found


def _day(bound: object, zone: ZoneInfo) -> date | None:
    """Return the local day of a bound; None where there is none."""
    if bound is None:
        return None
    if isinstance(bound, str):
        text = bound.strip()
        bound = date.fromisoformat(text) if len(text) in (8, 10) else datetime.fromisoformat(text)
    if isinstance(bound, datetime):
        return bound.astimezone(zone).date() if bound.tzinfo else bound.date()
    return bound if isinstance(bound, date) else None
