"""Pack the sessions of XSHG, XSHE, XHKG and XNYS into `schemas/sessions.parquet`.

    python etc/pack_sessions.py           # write the file
    python etc/pack_sessions.py --check   # exit 1 when the file is not what would be written

Source: exchange_calendars, corrected by `session_overrides.csv` beside this script. Each
row: calendar, session, and open, break_start, break_end, close in local wall minutes since
midnight (breaks null where there is no lunch).
"""

import argparse
import csv
import sys
from dataclasses import dataclass, replace
from datetime import date
from math import isnan
from pathlib import Path

import exchange_calendars as ec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
PACKED = HERE.parent / "schemas" / "sessions.parquet"
OVERRIDES = HERE / "session_overrides.csv"

# Name → (name at exchange_calendars, first day, last day). Explicit ends: without them the
# library stops one year after today, and the file would differ from day to day.
SOURCES = {
    "XHKG": ("XHKG", "1990-01-01", "2030-12-31"),
    "XNYS": ("XNYS", "1962-01-01", "2030-12-31"),
    "XSHE": ("XSHG", "1990-12-19", "2026-12-31"),
    "XSHG": ("XSHG", "1990-12-19", "2026-12-31"),
}
SCHEMA = pa.schema(
    [
        pa.field("calendar", pa.string(), nullable=False),
        pa.field("session", pa.date32(), nullable=False),
        pa.field("open", pa.int16(), nullable=False),
        pa.field("break_start", pa.int16()),
        pa.field("break_end", pa.int16()),
        pa.field("close", pa.int16(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Row:
    """One session: local wall minutes since midnight."""

    calendar: str
    session: date
    open: int
    break_start: int | None
    break_end: int | None
    close: int


@dataclass(frozen=True, slots=True)
class Override:
    """One line of the override file: `field` of every session in [start, end], where it is `was`."""

    calendar: str
    start: date
    end: date
    field: str
    was: int | None
    value: int | None

    def apply(self, row: Row) -> Row | None:
        """Return the corrected row; None when it is not a session."""
        if row.calendar != self.calendar or not self.start <= row.session <= self.end:
            return row
        if self.field == "session":
            return None
        if self.was is not None and getattr(row, self.field) != self.was:
            return row
        return replace(row, **{self.field: self.value})


def minutes(text: str) -> int | None:
    """Return the minutes of `09:30`; None for an empty cell or a dash."""
    if text in {"", "-"}:
        return None
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)


def overrides() -> list[Override]:
    """Return the lines of the override file, in its order; `#` begins a comment line."""
    with OVERRIDES.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(line for line in file if not line.startswith("#"))
        return [override(line) for line in lines]


def override(line: dict[str, str]) -> Override:
    """Return one line of the override file."""
    start, end = date.fromisoformat(line["start"]), date.fromisoformat(line["end"])
    return Override(line["calendar"], start, end, line["field"], minutes(line["was"]), minutes(line["value"]))


def listed(name: str) -> list[Row]:
    """Return the sessions of one calendar as exchange_calendars has them."""
    source, start, end = SOURCES[name]
    book = ec.get_calendar(source, start=start, end=end)
    local = {
        column: (stamps.dt.tz_convert(book.tz).dt.hour * 60 + stamps.dt.tz_convert(book.tz).dt.minute)
        for column, stamps in book.schedule.items()
    }
    columns = [local[c].tolist() for c in ("open", "break_start", "break_end", "close")]
    whole = ([None if isnan(v) else int(v) for v in column] for column in columns)
    return [Row(name, day.date(), *cells) for day, *cells in zip(book.schedule.index, *whole, strict=True)]


def packed() -> pa.Table:
    """Return every session of every calendar, ascending by (calendar, session)."""
    rules = overrides()
    rows: list[Row] = []
    for name in sorted(SOURCES):
        for row in listed(name):
            kept: Row | None = row
            for rule in rules:
                kept = rule.apply(kept) if kept else None
            if kept:
                rows.append(kept)
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in SCHEMA}
    return pa.table(columns, schema=SCHEMA)


def main() -> int:
    """Write the file, or with `--check` say whether it is what would be written."""
    parser = argparse.ArgumentParser(description="pack the session table")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a difference")
    table = packed()
    if parser.parse_args().check:
        same = PACKED.exists() and pq.read_table(PACKED).equals(table)
        print(f"{PACKED.name}: {'up to date' if same else 'differs: run etc/pack_sessions.py'}")
        return 0 if same else 1
    stamped = SCHEMA.with_metadata({"exchange_calendars": ec.__version__})
    with pq.ParquetWriter(PACKED, stamped, compression="zstd", compression_level=19) as writer:
        for name in sorted(SOURCES):  # one row group per calendar: schemas/hours.py reads only its own
            writer.write_table(table.filter(pc.field("calendar") == name).cast(stamped))
    print(f"{PACKED.name}: {table.num_rows} sessions, {PACKED.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
