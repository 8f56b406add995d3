"""Tiers: which file of a partition a bar belongs to, so that an increment rewrites little.

A closed period is one file. The open year is a year-to-date file and a hot file of the
month; bars below one day have a hot file per day of the current week. The border is a pure
function of the freq and the newest day, recorded nowhere: a file's tier is read from the
lowest and highest key that it holds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, cast

import polars as pl

from ..schemas.freq import Freq
from .layout import CURRENT, Partition
from .manifest import LiveFile

__all__ = ["BASE", "FULL", "SMALL", "Tiers", "cuts", "day_of", "newest_day", "tier_column"]

BASE: Final = -1
"""The tier of everything that is not hot: a closed period, a year or a month to date."""

SMALL: Final = 32_768
"""Tiers with fewer rows share a file: half a row group is not worth one of its own."""

FULL: Final = 8_388_608
"""Rows at which a file is full, about 128 MB: from here on a tier is cut by symbols."""

_DAY_US: Final = 86_400_000_000
_GRACE: Final = timedelta(days=5)  # the last session of a month is corrected, and settles, in these days
_EPOCH: Final = date(1970, 1, 1)
_COARSE: Final = (Freq.MO1, Freq.Q1, Freq.Y1)


def day_of(freq: Freq, key: int | str) -> int:
    """Return the day since 1970 of a key as the manifest holds it: us below one day, else days."""
    return cast(int, key) // _DAY_US if freq.intraday else cast(int, key)


def newest_day(partition: Partition, live: Iterable[LiveFile], now: datetime) -> int:
    """Return the newest day that matters to a partition: the clock's, or that of its newest bar."""
    today = (now.astimezone(UTC).date() - _EPOCH).days
    return max([today, *(day_of(partition.freq, file.high) for file in live)])


def cuts(rows: Mapping[int, int]) -> list[int]:
    """Return the first tier of each file that the tiers with these rows make.

    Neighbours with fewer than `SMALL` rows together share a file.
    """
    starts, held = list[int](), 0
    for tier in sorted(rows):
        if starts and held + rows[tier] < SMALL:
            held += rows[tier]
        else:
            starts.append(tier)
            held = rows[tier]
    return starts


@dataclass(frozen=True, slots=True)
class Tiers:
    """The tiers of one partition while `newest` (days since 1970) is its newest day."""

    partition: Partition
    newest: int

    @property
    def hot_from(self) -> int:
        """The first day that is hot; past the newest one where nothing is."""
        if self.partition.era != CURRENT or self.partition.freq in _COARSE:
            return self.newest + 1
        newest = _EPOCH + timedelta(days=self.newest)
        if self.partition.freq.intraday:
            return self.newest - newest.weekday()
        return ((newest - _GRACE).replace(day=1) - _EPOCH).days

    def tier(self, day: int) -> int:
        """Return the tier of a day: `BASE`, or the first day of the hot file that it belongs to."""
        if day < self.hot_from:
            return BASE
        if self.partition.freq.intraday:
            return day
        return ((_EPOCH + timedelta(days=day)).replace(day=1) - _EPOCH).days

    def of(self, file: LiveFile) -> int:
        """Return the tier of a live file, which is that of its oldest bar."""
        return self.tier(day_of(self.partition.freq, file.low))

    def span(self, file: LiveFile) -> tuple[int, int]:
        """Return the tiers of the oldest and of the newest bar of a live file."""
        return self.of(file), self.tier(day_of(self.partition.freq, file.high))

    def shares(self, file: LiveFile) -> dict[int, int]:
        """Return about how many rows of a live file are of each tier; exact when they are of one."""
        first, last = (day_of(self.partition.freq, key) for key in (file.low, file.high))
        if self.tier(first) == self.tier(last):
            return {self.tier(first): file.rows}
        days: dict[int, int] = {BASE: self.hot_from - first} if first < self.hot_from else {}
        for day in range(max(first, self.hot_from), last + 1):
            days[self.tier(day)] = days.get(self.tier(day), 0) + 1
        return {tier: file.rows * n // (last - first + 1) for tier, n in days.items()}

    def stale(self, file: LiveFile) -> bool:
        """Say whether `file` was a hot file and is none any more."""
        low, high = (day_of(self.partition.freq, key) for key in (file.low, file.high))
        if self.of(file) != BASE or self.partition.era != CURRENT or self.partition.freq in _COARSE:
            return False
        return Tiers(self.partition, high).tier(low) != BASE

    def is_hot(self, low: int | str, high: int | str, rows: int) -> bool:
        """Say whether a file of these keys is one that increments rewrite all the time."""
        first, last = (day_of(self.partition.freq, key) for key in (low, high))
        return last >= self.hot_from and (first >= self.hot_from or rows < SMALL)


def tier_column(rows: pl.DataFrame, tiers: Tiers) -> pl.Series:
    """Return the tier of each row of bars."""
    if tiers.partition.freq.intraday:
        days = rows["ts"].dt.epoch("us") // _DAY_US
    else:
        days = rows["session"].dt.epoch("d").cast(pl.Int64)
    table = {int(day): tiers.tier(int(day)) for day in days.unique()}
    return days.replace_strict(list(table), list(table.values()), return_dtype=pl.Int64) if table else days
