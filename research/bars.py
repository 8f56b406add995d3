"""The answer to `lake.bars`: bars as Arrow, polars, pandas, NumPy or a wide panel; and its bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from ..errors import BadRequest, MissingExtra
from ..schemas.freq import Freq
from ..schemas.span import Span
from ..storage.read import Way

if TYPE_CHECKING:
    import pandas
    import polars

__all__ = ["Bars", "bounds"]

Bound = str | date | datetime | None
_EARLIEST, _LATEST = date(1900, 1, 1), date(2200, 1, 1)


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars in memory: n rows, ascending by (symbol, ts), times in UTC (ts is the bar's start).

    The columns are those of `schemas.bar.SCHEMA` without era and period, or the ones asked for.
    `way` says how they were read, when that was asked for (`explain=True`).
    """

    table: pa.Table
    freq: Freq
    way: Way | None = None

    def __repr__(self) -> str:
        shape = f"<{len(self)} bars of {self.freq}, {self.table.num_columns} columns"
        return f"{shape}>" if self.way is None else f"{shape}; read by {self.way}>"

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def arrow(self) -> pa.Table:
        """Return an Arrow table, n rows."""
        return self.table

    def pl(self) -> "polars.DataFrame":
        """Return a polars frame, n rows; `ts` is Datetime[us, UTC]."""
        import polars

        frame = polars.from_arrow(self.table)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def lazy(self) -> "polars.LazyFrame":
        """Return a lazy polars frame over the bars already read."""
        return self.pl().lazy()

    def pd(self) -> "pandas.DataFrame":
        """Return a pandas frame, n rows, with a plain integer index. Needs the extra `pandas`."""
        try:
            import pandas
        except ImportError:
            raise MissingExtra("pandas", "pandas") from None
        frame: pandas.DataFrame = self.table.to_pandas()
        return frame

    def numpy(self) -> dict[str, Any]:
        """Return one NumPy array of length n per column."""
        return {name: self.table[name].to_numpy() for name in self.table.column_names}

    def panel(self, field: str = "close") -> "polars.DataFrame":
        """Return a wide polars frame of one field: a time column, then one column per symbol.

        The time column is `session` from one day up, `ts` below; ascending; a symbol without
        a bar at a time has null there.
        """
        if field not in self.table.column_names:
            raise BadRequest("field", field, tuple(self.table.column_names))
        at = "ts" if self.freq.intraday else "session"
        symbols = sorted(set(self.table["symbol"].to_pylist()))
        frame = self.pl().select(at, "symbol", field)
        wide = frame.pivot(on="symbol", index=at, values=field, aggregate_function="first")
        return wide.select(at, *symbols).sort(at)


def bounds(freq: Freq, start: Bound, end: Bound, zone: str) -> Span[Any]:
    """Return the half-open span that a user's `start` and `end` mean.

    From one day up they are inclusive dates and the span is of sessions; below one day they
    are half-open instants (naive ones in `zone`, the venue's), and a plain date means its local
    midnight for `start` and the midnight after it for `end`.

    Raises
    ------
    BadRequest
        Not a date (`2024-01-02`, `20240102`) or instant, or the end lies before the start.
    """
    first, last = _bound("start", start), _bound("end", end)
    if not freq.intraday:
        low = _EARLIEST if first is None else _day(first)
        high = _LATEST if last is None else _day(last) + timedelta(days=1)
        if high <= low:
            raise BadRequest(
                "end", str(end), hint=f"lies before start={start}", hint_zh=f"早于 start={start}"
            )
        return Span(freq.anchor(low), high)
    low_at = _instant(first if first is not None else _EARLIEST, zone)
    high_at = _instant(last if last is not None else _LATEST, zone, day_after=True)
    if high_at < low_at or (high_at == low_at and last is not None):
        raise BadRequest("end", str(end), hint=f"lies before start={start}", hint_zh=f"早于 start={start}")
    return Span(low_at, high_at)


def _bound(name: str, given: Bound) -> date | datetime | None:
    if given is None or isinstance(given, date):
        return given
    text = str(given).strip()
    try:
        return date.fromisoformat(text) if len(text) in (8, 10) else datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(
            name, given, hint="write a date such as 2024-01-02 or 20240102, or an instant such as 2024-01-02T09:30",
            hint_zh="请写成 2024-01-02 或 20240102，或 2024-01-02T09:30",
        ) from None  # fmt: skip


def _day(value: date | datetime) -> date:
    return value.date() if isinstance(value, datetime) else value


def _instant(value: date | datetime, zone: str, *, day_after: bool = False) -> datetime:
    if not isinstance(value, datetime):
        value = datetime.combine(value + timedelta(days=1 if day_after else 0), time())
    if value.tzinfo is None:
        value = value.replace(tzinfo=ZoneInfo(zone))
    return value.astimezone(UTC)


def parsed_columns(columns: Sequence[str] | None, known: Sequence[str]) -> list[str] | None:
    """Return the columns asked for, or None for all; BadRequest names the unknown one."""
    for name in columns or ():
        if name not in known:
            raise BadRequest("columns", name, tuple(known))
    return list(columns) if columns else None
