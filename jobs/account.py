"""Accounting: of the sessions that a job wants, which are stored, empty for a reason, missing."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from ..schemas.coverage import Covered, Series, Standing
from ..schemas.freq import Freq
from ..schemas.session import calendar
from ..schemas.span import Span, overlap
from ..schemas.symbol import Symbol

__all__ = ["Balance", "balance"]


@dataclass(slots=True)
class Balance:
    """Counts of sessions: expected = stored + empty + missing."""

    expected: int = 0
    stored: int = 0
    open: int = 0  # of the stored ones: still forming when fetched
    empty: Counter[str] = field(default_factory=Counter[str])
    missing: int = 0

    def add(self, other: "Balance") -> None:
        """Add another balance to this one."""
        self.expected += other.expected
        self.stored += other.stored
        self.open += other.open
        self.empty += other.empty
        self.missing += other.missing


def balance(
    wants: Iterable[tuple[Series, Span[date]]], covered: Mapping[Series, Sequence[Covered]]
) -> Balance:
    """Return how the sessions that are wanted stand, over all series together."""
    total = Balance()
    for series, span in wants:
        days = calendar(Symbol.parse(series.symbol).place.calendar)
        unit = Freq.D1 if series.freq.intraday else series.freq
        one = Balance(expected=days.bars(span.start, span.end, unit))
        for stretch in covered.get(series, ()):
            part = overlap(stretch.sessions, span)
            if part is None:
                continue
            sessions = days.bars(part.start, part.end, unit)
            if stretch.standing is Standing.EMPTY:
                one.empty[stretch.reason.value] += sessions
            else:
                one.stored += sessions
                one.open += sessions if stretch.standing is Standing.OPEN else 0
        one.missing = max(0, one.expected - one.stored - sum(one.empty.values()))
        total.add(one)
    return total
