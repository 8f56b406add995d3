"""A series paged back through a vendor, without lake, quota or plan."""

from datetime import date, datetime

import pyarrow as pa

from klake.ingest.fetch import Chain
from klake.ingest.vendor import Vendor
from klake.schemas.coverage import Series
from klake.schemas.freq import Freq
from klake.schemas.page import Reject
from klake.schemas.quality import check
from klake.schemas.session import calendar
from klake.schemas.span import Span
from klake.schemas.symbol import Symbol

KEYS = ("ts", "session")
VALUES = ("open", "high", "low", "close", "volume")


class Paged:
    """What paging one series brought: bars that a rule would keep, rejects, and how the chain ended."""

    def __init__(self, vendor: Vendor, symbol: str, freq: Freq, start: date, now: datetime) -> None:
        days = calendar(Symbol.parse(symbol).place.calendar)
        wanted = Span(freq.anchor(start), now.date().replace(year=now.year + 1))
        self.chain = Chain(Series(vendor.name, symbol, freq), wanted, vendor.capability, days, now)
        self.rejects: list[Reject] = []
        self.pages = 0
        parts: list[pa.Table] = []
        while (entry := self.chain.next()) is not None and self.pages < 200:
            page = vendor.send(vendor.request((entry,)))
            (series,) = vendor.parse(page)
            taken = self.chain.take(series, page)
            parts.append(taken.bars)
            self.rejects += taken.rejects
            self.pages += 1
        whole = pa.concat_tables(parts[::-1])
        self.bars = (
            check(whole, page_id="p", run="r", now=now).kept.sort_by("ts") if whole.num_rows else whole
        )

    @property
    def rows(self) -> list[tuple[object, ...]]:
        """Keys and values, ascending."""
        return rows(self.bars)


def rows(table: pa.Table) -> list[tuple[object, ...]]:
    """Keys and values of a table of bars, row by row."""
    return list(zip(*(table[name].to_pylist() for name in (*KEYS, *VALUES)), strict=True))
