"""Bars read back, in the quickest way for the shape of the question.

The manifest names the files that can hold the answer. A few symbols are cut out of row
groups kept in memory (`series`), and so are a few sessions of all symbols that are asked for
again and again (`panel`); anything wider is one query over those files (`scan`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Literal, cast

import duckdb
import pyarrow as pa

from ..errors import BadRequest, LakeDamaged
from ..schemas.bar import COLUMNS, SCHEMA, State
from ..schemas.freq import Freq
from . import series
from .index import Held, Index, index_of
from .manifest import LiveFile, Manifest
from .rowgroups import shared
from .views import Snapshot, best

__all__ = ["Wanted", "Way", "alone", "bars", "connection", "explain", "files", "held"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_MANY: Final = 400
"""Slices above which cutting them one by one takes longer than a query."""

_FEW: Final = 3
"""So many row groups are decoded at once for a question; more only when they are asked for again.

Decoding takes 5 ms per row group and serves every later question; a query takes 2 ms and serves one.
"""

_COLD: Final = 64
"""So many row groups are decoded for a question at most."""

_PANEL_GROUPS: Final = 64
_PANEL_ROWS: Final = 200_000
"""A panel of more row groups, or of more rows by estimate, is left to a query."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a question is answered: `series`, `panel` from row groups in memory, `scan` by a query, `nothing` held.

    `row_groups` and `size_bytes` (compressed) are those that can hold the answer; of the former,
    `cold` have to be decoded first.
    """

    name: Literal["nothing", "series", "panel", "scan"]
    files: tuple[str, ...] = ()
    row_groups: int = 0
    cold: int = 0
    size_bytes: int = 0

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.files)} files, {self.row_groups} row groups ({self.cold} to be decoded), "
            f"{self.size_bytes} bytes"
        )


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

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """The half-open range of keys, counted as the manifest counts them; None: no bound."""
        return self.start, self.end

    @property
    def key(self) -> str:
        """The column that bounds speak of."""
        return "ts" if self.freq.intraday else "session"

    def condition(self) -> str:
        """Return the SQL condition, of literals only, so that row groups are skipped by it."""
        key = self.key
        parts = [f"freq = '{self.freq.value}'"]
        if self.symbols is not None:
            parts.append(f"symbol IN ({', '.join(map(_text, sorted(self.symbols)))})")
        if self.vendor is not None:
            parts.append(f"vendor = {_text(self.vendor)}")
        if self.states is not None:
            parts.append(f"state IN ({', '.join(map(_text, self.states)) or 'NULL'})")
        for sign, bound in ((">=", self.start), ("<", self.end)):
            if bound is not None:
                literal = f"make_timestamptz({bound})" if key == "ts" else f"(DATE '1970-01-01' + {bound})"
                parts.append(f"{key} {sign} {literal}")
        return " AND ".join(parts)


def files(manifest: Manifest, wanted: Wanted) -> list[LiveFile]:
    """Return the live files that can hold wanted bars, by exact symbols and key ranges; may be none."""
    return [one.file for one in held(index_of(manifest), wanted)]


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

    Raises
    ------
    BadRequest
        An unknown column.
    LakeDamaged
        A live file cannot be read.
    """
    chosen = _checked(columns)
    index = index_of(manifest)
    live = held(index, wanted)
    if not live:
        return pa.schema([SCHEMA.field(name) for name in chosen]).empty_table()
    found = _pieces(root, manifest, index, wanted)
    if found is not None and _quick([piece.group for piece in found], [*chosen, wanted.key]):
        made = series.table(shared(), found, wanted.freq, wanted.bounds, chosen, wanted.states)
        if made is not None:
            return made
    slab = _slab(root, manifest, live, wanted)
    if slab and _quick([group for _, group in slab], [*chosen, wanted.key]):
        made = series.panel(shared(), slab, wanted.freq, _finite(wanted), chosen, wanted.states)
        if made is not None:
            return made
    shared().note([*(piece.group for piece in found or ()), *(group for _, group in slab)])
    return _scanned(con, root, manifest, live, wanted, chosen)


def explain(root: str, manifest: Manifest, wanted: Wanted, columns: Sequence[str] | None = None) -> Way:
    """Return how `bars` would answer now, without reading any bar."""
    chosen = _checked(columns)
    index = index_of(manifest)
    live = held(index, wanted)
    if not live:
        return Way("nothing")
    groups = shared()
    found = _pieces(root, manifest, index, wanted)
    name: Literal["series", "panel", "scan"] = "scan"
    asked = dict.fromkeys(
        (f"{root}/{held.file.path}", n) for held in live for n in _groups(root, held, wanted)
    )
    slices = dict.fromkeys(piece.group for piece in found or ())
    slab = dict.fromkeys(group for _, group in _slab(root, manifest, live, wanted))
    if found is not None and _quick(slices, [*chosen, wanted.key]):
        name, asked = "series", slices
    elif slab and _quick(slab, [*chosen, wanted.key]):
        name, asked = "panel", slab
    paths = dict.fromkeys(path for path, _ in asked)
    size = sum(groups.footer(path).size_of(n) for path, n in asked)
    cold = len(asked) if name == "scan" else groups.lacking(asked, [*chosen, wanted.key])
    names = tuple(path.removeprefix(f"{root}/") for path in paths)
    return Way(name, names, len(asked), cold, size)


def _checked(columns: Sequence[str] | None) -> list[str]:
    chosen = list(COLUMNS if columns is None else columns)
    for name in chosen:
        if name not in COLUMNS:
            raise BadRequest("columns", name, COLUMNS)
    return chosen


def held(index: Index, wanted: Wanted) -> list[Held]:
    """Return the files that can hold wanted bars."""
    live = [held for held in index.files(wanted.freq, wanted.vendor) if held.overlaps(*wanted.bounds)]
    if wanted.symbols is None:
        return live
    places = [place for name in wanted.symbols if (place := index.places.get(name)) is not None]
    return [held for held in live if any(held.holds(place) for place in places)]


def _pieces(root: str, manifest: Manifest, index: Index, wanted: Wanted) -> list[series.Piece] | None:
    """Return where the answer lies in row groups; None where there are too many, or a query is the only way."""
    if wanted.symbols is None or len(wanted.symbols) > _MANY:
        return None
    choices = series.chosen(root, manifest.names.get("choice", ())) if wanted.vendor is None else {}
    groups = shared()
    found = series.pieces(
        root, index, groups, wanted.freq, list(wanted.symbols), wanted.bounds, wanted.vendor, choices
    )
    return None if found is None or len(found) > _MANY else found


def _slab(root: str, manifest: Manifest, live: Sequence[Held], wanted: Wanted) -> series.Slab:
    """Return the row groups of a panel that is small enough to be cut out of them; none: it is not."""
    if wanted.symbols is not None or wanted.start is None or wanted.end is None:
        return []
    if not alone(manifest, live, wanted):
        return []
    rows = sum(_share(held.file, wanted.start, wanted.end) for held in live)
    footers = [(held, shared().footer(f"{root}/{held.file.path}")) for held in live[:_PANEL_GROUPS]]
    count = sum(len(footer.lows) for _, footer in footers)
    if rows > _PANEL_ROWS or count > _PANEL_GROUPS or len(live) > _PANEL_GROUPS:
        return []
    if not all(footer.regular for _, footer in footers):
        return []
    return [
        (held.where, (f"{root}/{held.file.path}", n))
        for held, footer in footers
        for n in range(len(footer.lows))
    ]


def _quick(wanted: Iterable[tuple[str, int]], columns: Sequence[str]) -> bool:
    """Say whether the row groups are in memory, but for a few, or were asked for before and are worth it."""
    once = dict.fromkeys(wanted)
    lacking = shared().lacking(once, columns)
    return lacking <= _FEW or (lacking <= _COLD and shared().asked(once))


def _finite(wanted: Wanted) -> tuple[int, int]:
    assert wanted.start is not None and wanted.end is not None
    return wanted.start, wanted.end


def _share(file: LiveFile, start: int, end: int) -> float:
    """Return about how many rows of the file have keys in `[start, end)`."""
    low, high = cast(int, file.low), cast(int, file.high)
    return file.rows * max(0, min(end, high + 1) - max(start, low)) / (high + 1 - low)


def alone(manifest: Manifest, live: Sequence[Held], wanted: Wanted) -> bool:
    """Say whether no other vendor's bars need to be told apart."""
    return wanted.vendor is not None or (
        len({held.where.vendor for held in live}) == 1
        and not manifest.names.get("choice")
        and not manifest.names.get("yields")
    )


def _groups(root: str, held: Held, wanted: Wanted) -> list[int]:
    """Return the row groups of a file that a query cannot skip by their statistics."""
    footer = shared().footer(f"{root}/{held.file.path}")
    low, high = min(wanted.symbols or [""]), max(wanted.symbols or ["\U0010ffff"])
    return [n for n in range(len(footer.lows)) if footer.lows[n] <= high and footer.highs[n] >= low]


def _scanned(
    con: duckdb.DuckDBPyConnection,
    root: str,
    manifest: Manifest,
    live: Sequence[Held],
    wanted: Wanted,
    columns: Sequence[str],
) -> pa.Table:
    """Return the wanted bars by one query over the files `live`."""
    source = Snapshot(root, {**manifest.names, "bars": tuple(held.file.path for held in live)})
    query = source.alone("bars") if alone(manifest, live, wanted) else best(source)
    picked = ", ".join(f'"{name}"' for name in columns)
    try:
        found = con.sql(f"SELECT {picked} FROM ({query}) WHERE {wanted.condition()} ORDER BY symbol, ts")
        return found.to_arrow_table().cast(pa.schema([SCHEMA.field(name) for name in columns]))
    except duckdb.Error as error:
        raise LakeDamaged(
            f"{root}: files that the lake names cannot be read ({error})",
            f"{root}：数据湖引用的文件无法读取（{error}）",
        ) from error


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
