"""The table `requests`: what each page asked of each series, and which sessions it proved.

One row is one (page, series, stretch): a page may prove several stretches of a series, such
as final sessions, a closed one, an open one and empty ones, each with its reason. A page that
proved nothing of a series still has its row, stretch 0, without standing and days.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal

import pyarrow as pa

from .bar import TIME
from .capability import Adjust
from .compute import pc
from .coverage import Standing
from .freq import Freq
from .page import Outcome
from .span import Span

__all__ = ["KEY", "SCHEMA", "Asked", "proving", "rows"]

SCHEMA: Final = pa.schema(
    [
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("freq", pa.string(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),  # the vendor's own word
        pa.field("asked_end", TIME),  # null: the newest bars
        pa.field("asked_count", pa.int32(), nullable=False),
        pa.field("adjust", pa.string(), nullable=False),  # capability.Adjust
        pa.field("proved_start", pa.date32()),  # null: this row proves nothing
        pa.field("proved_end", pa.date32()),  # exclusive
        pa.field("standing", pa.string()),  # coverage.Standing; null: this row proves nothing
        pa.field("rows", pa.int32(), nullable=False),  # bars inside the stretch
        pa.field(
            "outcome", pa.string(), nullable=False
        ),  # page.Outcome, or withdrawn: no page, a restore or repair
        pa.field("reason", pa.string(), nullable=False),  # coverage.Reason where proved, else free text
        pa.field("account", pa.string(), nullable=False),  # hash of vendor and credential
        pa.field("page_id", pa.string(), nullable=False),
        pa.field("stretch", pa.int16(), nullable=False),  # 0, 1, … within (page, series)
        pa.field("run", pa.string(), nullable=False),
        pa.field("fetched_at", TIME, nullable=False),
        pa.field("received_bytes", pa.int32(), nullable=False),  # of the whole page
    ]
)
"""n rows × 19 columns, any order."""

KEY: Final = ("page_id", "symbol", "freq", "stretch")
"""A row's deterministic id: replaying a page makes the same rows again."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One row of `requests`; the fields are its columns, `proved` is both days of the stretch."""

    vendor: str
    symbol: str
    freq: Freq
    endpoint: str
    asked_end: datetime | None
    asked_count: int
    adjust: Adjust
    proved: Span[date] | None
    standing: Standing | None
    rows: int
    outcome: Outcome | Literal["withdrawn"]
    reason: str
    account: str
    page_id: str
    stretch: int
    run: str
    fetched_at: datetime
    received_bytes: int


def rows(asked: Iterable[Asked]) -> pa.Table:
    """Return the Arrow table of `asked`, in its order: n rows × 19 columns as in `SCHEMA`."""
    given = list(asked)
    plain = [name for name in SCHEMA.names if name not in {"proved_start", "proved_end"}]
    columns: dict[str, list[object]] = {name: [getattr(a, name) for a in given] for name in plain}
    columns["proved_start"] = [a.proved.start if a.proved else None for a in given]
    columns["proved_end"] = [a.proved.end if a.proved else None for a in given]
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def proving(table: pa.Table) -> pa.Table:
    """Return the rows of a `requests` table that prove some session of `bars`, in their order.

    Rows that prove nothing are left out, and so are those of adjusted series, which never
    become `bars`.
    """
    proves = pc.and_(pc.is_valid(table["standing"]), pc.equal(table["adjust"], "none"))
    return table.filter(pc.and_(proves, pc.less(table["proved_start"], table["proved_end"])))
