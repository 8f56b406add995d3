"""Bars read back: the files that can hold them, picked by the manifest, then one query over those."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final, cast

import duckdb
import pyarrow as pa

from ..errors import BadRequest
from ..schemas.bar import COLUMNS, SCHEMA, State
from ..schemas.freq import Freq
from .layout import CURRENT, Partition
from .manifest import LiveFile, Manifest
from .views import Snapshot, best

__all__ = ["Wanted", "bars", "connection", "files"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Wanted:
    """Which bars are asked for; `start` and `end` are half-open: instants below one day, sessions from one day up.

    `symbols` None: all. `vendor` None: one vendor per symbol, as the table `choice` says.
    `states` None: all three.
    """

    def __init__(
        self,
        freq: Freq,
        symbols: Sequence[str] | None = None,
        start: datetime | date | None = None,
        end: datetime | date | None = None,
        vendor: str | None = None,
        states: Sequence[State] | None = None,
    ) -> None:
        self.freq, self.vendor = freq, vendor
        self.symbols = None if symbols is None else frozenset(symbols)
        self.states = None if states is None else [State(state).value for state in states]
        self.start, self.end = _bound("start", start, freq), _bound("end", end, freq)

    def holds(self, file: LiveFile, manifest: Manifest) -> bool:
        """Say whether `file` can hold such a bar."""
        if file.table != "bars" or (where := Partition.parse(file.path)).era != CURRENT:
            return False
        if where.freq is not self.freq or self.vendor not in (None, where.vendor):
            return False
        low, high = cast(int, file.low), cast(int, file.high)
        if (self.start is not None and high < self.start) or (self.end is not None and low >= self.end):
            return False
        return self.symbols is None or not self.symbols.isdisjoint(manifest.symbols_of(file))

    def condition(self) -> str:
        """Return the SQL condition, of literals only, so that row groups are skipped by it."""
        key = "ts" if self.freq.intraday else "session"
        parts = [f"freq = '{self.freq.value}'"]
        if self.symbols is not None:
            parts.append(f"symbol IN ({', '.join(map(_text, sorted(self.symbols)))})")
        if self.vendor is not None:
            parts.append(f"vendor = {_text(self.vendor)}")
        if self.states is not None:
            parts.append(f"state IN ({', '.join(map(_text, self.states))})")
        for sign, bound in ((">=", self.start), ("<", self.end)):
            if bound is not None:
                literal = f"make_timestamptz({bound})" if key == "ts" else f"(DATE '1970-01-01' + {bound})"
                parts.append(f"{key} {sign} {literal}")
        return " AND ".join(parts)


def files(manifest: Manifest, wanted: Wanted) -> list[LiveFile]:
    """Return the live files that can hold wanted bars, by exact symbols and key ranges; may be none."""
    if wanted.symbols is not None and not wanted.symbols:
        return []
    return [file for file in manifest.files if wanted.holds(file, manifest)]


def bars(
    con: duckdb.DuckDBPyConnection,
    root: str,
    manifest: Manifest,
    wanted: Wanted,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return the wanted bars of one lake version.

    Parameters
    ----------
    con : duckdb.DuckDBPyConnection
        As `connection` gives it.
    root : str
        The lake's folder.
    manifest : Manifest
        The version to read.
    wanted : Wanted
        Which bars.
    columns : sequence of str, optional
        In the order wanted; all of `schemas.bar.SCHEMA` when None.

    Returns
    -------
    pyarrow.Table, n rows × the columns asked for
        Ascending by (symbol, ts), one row per bar (per vendor, when a vendor is named, trivially).
        n = 0: the lake holds none of them.
    """
    chosen = list(COLUMNS if columns is None else columns)
    for name in chosen:
        if name not in COLUMNS:
            raise BadRequest("columns", name, COLUMNS)
    schema = pa.schema([SCHEMA.field(name) for name in chosen])
    live = files(manifest, wanted)
    if not live:
        return schema.empty_table()
    names = {**manifest.names, "bars": tuple(file.path for file in live)}
    source = Snapshot(root, names)
    vendors = {Partition.parse(file.path).vendor for file in live}
    alone = wanted.vendor is not None or (len(vendors) == 1 and not manifest.names.get("choice"))
    query = source.alone("bars") if alone else best(source)
    picked = ", ".join(f'"{name}"' for name in chosen)
    found = con.sql(f"SELECT {picked} FROM ({query}) WHERE {wanted.condition()} ORDER BY symbol, ts")
    return found.to_arrow_table().cast(schema)


def connection() -> duckdb.DuckDBPyConnection:
    """Return a new in-memory DuckDB that speaks UTC, never looks for extensions and remembers file footers."""
    con = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"})
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET parquet_metadata_cache = true")  # safe: a data file never changes
    return con


def _bound(name: str, value: datetime | date | None, freq: Freq) -> int | None:
    """Return the bound as the manifest counts keys: us for instants, days for sessions."""
    if value is None:
        return None
    if freq.intraday:
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise BadRequest(
                name, value, hint=f"{freq.value} bars are asked for by instants with a time zone"
            )
        return (value - _EPOCH) // (datetime.resolution)
    if isinstance(value, datetime):
        raise BadRequest(name, value, hint=f"{freq.value} bars are asked for by dates")
    return (value - _EPOCH.date()).days


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
