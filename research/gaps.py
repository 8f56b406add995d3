"""What an answer lacks: sessions that nobody accounts for, and those beyond the vendor's horizon."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from ..schemas.coverage import Reason
from ..schemas.freq import Freq
from ..schemas.session import calendar
from ..schemas.span import Span, missing, overlap
from ..schemas.symbol import Symbol
from ..storage import datafiles
from ..storage.store import Store
from ..storage.tables import PUBLISHED

__all__ = ["Gap", "gaps"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Sessions of one series that an answer lacks; `last` is inclusive.

    `horizon`: the vendor does not go back that far, or cut the session; else nobody accounts
    for them.
    """

    symbol: str
    freq: Freq
    vendor: str
    first: date
    last: date
    horizon: bool = False

    def __str__(self) -> str:
        if self.horizon:
            return (
                f"{self.symbol} {self.freq} from {self.vendor}: {self.first} to {self.last} lie beyond the vendor's "
                "horizon; another vendor may have them, or `klake import` brings them"
            )
        return (
            f"{self.symbol} {self.freq} from {self.vendor}: nothing is known of {self.first} to {self.last}; "
            f"`klake sync --vendor {self.vendor} --symbols {self.symbol} --freq {self.freq} "
            f"--start {self.first} --end {self.last}` would ask for it"
        )


def gaps(
    store: Store, symbols: Sequence[str], freq: Freq, start: object, end: object, vendor: str | None
) -> list[Gap]:
    """Return the sessions between `start` and `end` that no bar answers for, by symbol and day.

    Only series that a sync has covered are judged; without `start` the first session that the
    vendor could give stands in for it, without `end` the last covered one.
    """
    out: list[Gap] = []
    for (name, symbol), held in sorted(_covered(store, symbols, freq, vendor).items()):
        days = calendar(Symbol.parse(symbol).place.calendar)
        zone = ZoneInfo(days.zone)
        given = [span for span, horizon in held if not horizon] or [span for span, _ in held]
        low = _day(start, zone) or min(s.start for s in given)
        high = _day(end, zone) or max(s.end for s, _ in held) - timedelta(days=1)
        high = min(high, days.last_begun(store.clock.now()))  # nobody has the bars of tomorrow
        asked = Span(freq.anchor(low), high + timedelta(days=1))
        found = [(hole, False) for hole in missing([span for span, _ in held], asked)]
        found += [(common, True) for span, horizon in held if horizon and (common := overlap(span, asked))]
        for hole, horizon in sorted(found, key=lambda one: one[0].start):
            sessions = days.sessions(hole.start, hole.end)
            if sessions:
                out.append(Gap(symbol, freq, name, sessions[0], sessions[-1], horizon))
    return out


class _Coverage:
    """The published coverage, found by symbol."""

    def __init__(self, rows: pa.Table) -> None:
        order = rows["symbol"].combine_chunks().dictionary_encode()
        codes = order.indices.to_numpy()
        self._rows, self._order = rows, np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[self._order], np.arange(len(order.dictionary) + 1))
        self._places = {name: place for place, name in enumerate(order.dictionary.to_pylist())}

    def of(self, symbol: str) -> list[dict[str, Any]]:
        """Return the rows of a symbol."""
        if (place := self._places.get(symbol)) is None:
            return []
        at = self._order[self._starts[place] : self._starts[place + 1]]
        found: list[dict[str, Any]] = self._rows.take(pa.array(at)).to_pylist()
        return found


@lru_cache(maxsize=4)
def _published(root: str, paths: tuple[str, ...]) -> _Coverage:
    """Return the coverage in the files `paths`, which never change: a new coverage has a new path."""
    columns = ["vendor", "symbol", "freq", "start", "end", "reason"]
    parts = [datafiles.read(root, path, columns) for path in paths]
    blank = pa.schema([PUBLISHED["coverage"].field(name) for name in columns]).empty_table()
    return _Coverage(pa.concat_tables([blank, *(part.select(columns).cast(blank.schema) for part in parts)]))


def _covered(
    store: Store, symbols: Sequence[str], freq: Freq, vendor: str | None
) -> dict[tuple[str, str], list[tuple[Span[date], bool]]]:
    """Return what the published coverage accounts for by (vendor, symbol), each with whether it lies beyond the horizon."""
    published = _published(store.path, store.snapshot().names.get("coverage", ()))
    found: dict[tuple[str, str], list[tuple[Span[date], bool]]] = {}
    for symbol in symbols:
        for row in published.of(symbol):
            if row["freq"] == freq.value and vendor in (None, row["vendor"]):
                stretch = Span(row["start"], row["end"]), row["reason"] == Reason.HORIZON
                found.setdefault((row["vendor"], symbol), []).append(stretch)
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
