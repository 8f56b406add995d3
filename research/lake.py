"""The lake as users hold it: bars, SQL, writing. It delegates and decides little."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import pyarrow as pa

from ..errors import BadRequest, Incomplete, MissingExtra, UnknownSymbol
from ..schemas.bar import COLUMNS, State
from ..schemas.clock import Clock, SystemClock
from ..schemas.freq import Freq
from ..schemas.report import WriteReport
from ..schemas.symbol import Symbol
from ..storage.follower import Follower
from ..storage.index import Index, index_of
from ..storage.read import Wanted
from ..storage.read import explain as explained
from ..storage.store import Store
from .bars import Bars, bounds, parsed_columns
from .gaps import Gap, gaps
from .write import write_actions, write_bars

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars

__all__ = ["Answer", "Lake", "SeveralVendors", "ShortAnswer", "open_lake"]

Bound = str | date | datetime | None
_SHOWN = tuple(name for name in COLUMNS if name not in {"era", "period"})


class ShortAnswer(UserWarning):
    """Fewer bars came than were asked for; says which are missing, why, and what would fill them."""


class SeveralVendors(UserWarning):
    """A symbol is held by several vendors and none was chosen; says which one is read."""


class Answer:
    """The answer to a query: n rows, read anew by each call."""

    def __init__(self, relation: "duckdb.DuckDBPyRelation") -> None:
        self._relation = relation

    def arrow(self) -> pa.Table:
        """Return an Arrow table."""
        return self._relation.to_arrow_table()

    def pl(self) -> "polars.DataFrame":
        """Return a polars frame; times are Datetime[us, UTC]."""
        frame: polars.DataFrame = self._relation.pl()
        return frame

    def pd(self) -> "pandas.DataFrame":
        """Return a pandas frame. Needs the extra `pandas`."""
        try:
            import pandas
        except ImportError:
            raise MissingExtra("pandas", "pandas") from None
        frame: pandas.DataFrame = self.arrow().to_pandas()
        return frame

    def rows(self) -> list[tuple[Any, ...]]:
        """Return Python rows, one tuple each; times are aware datetimes in UTC."""
        table = self.arrow()
        return (
            list(zip(*(column.to_pylist() for column in table.columns), strict=True))
            if table.num_columns
            else []
        )

    def __repr__(self) -> str:
        return repr(self.pl())


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one call of `Lake.bars` asks, besides the symbols."""

    freq: Freq
    start: Bound
    end: Bound
    last: int | None
    vendor: str | None
    states: tuple[State, ...] | None
    shown: tuple[str, ...]
    require: str | None
    explain: bool


class Lake:
    """A lake that is open for reading and writing; never blocks a sync and is never blocked by one.

    Each call sees the newest commit. Use it as a context manager, or call `close`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._follower = Follower(store.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<klake lake {self._store.path} version {self._store.version} ({self._store.origin})>"

    @property
    def version(self) -> int:
        """Return the number of the newest commit."""
        return self._store.version

    @property
    def store(self) -> Store:
        """Return the tables below."""
        return self._store

    def close(self) -> None:
        """Let go of the query connection; nothing is lost."""
        self._follower.close()

    def bars(
        self, symbols: str | Symbol | Sequence[str | Symbol] | None = None, freq: str | Freq = "1d", *,
        start: Bound = None, end: Bound = None, last: int | None = None, vendor: str | None = None,
        columns: Sequence[str] | None = None, state: Literal["open", "closed", "final"] | None = None,
        require: Literal["complete"] | None = None, explain: bool = False,
    ) -> Bars:  # fmt: skip
        """Return bars as traded, ascending by (symbol, ts), one row per bar.

        Parameters
        ----------
        symbols : str, Symbol, sequence of them, or None
            Any usual spelling; None means all.
        freq : str
            `1m` … `1y`.
        start, end : str, date, datetime or None
            From one day up inclusive dates; below one day half-open instants `[start, end)`,
            naive ones in the zone of each symbol's own venue (UTC where all symbols are meant),
            a plain date as `end` including that whole day.
        last : int or None
            Only the newest `last` bars of each symbol.
        vendor : str or None
            None: for each symbol and freq the vendor that `choice` names (view `bars_best`).
        columns : sequence of str or None
            None: all but the partition columns era and period.
        state : {"open", "closed", "final"} or None
            The least wanted: "closed" leaves out forming bars, "final" also unsettled ones. None: all.
        require : {"complete"} or None
            Where an answer is shorter than what was asked, raise Incomplete; None warns (ShortAnswer).
        explain : bool
            True: the answer's `way` says how it was read, of how many files, row groups and bytes.

        Returns
        -------
        Bars, with `.pl()`, `.pd()`, `.arrow()`, `.lazy()`, `.numpy()`, `.panel(field)`

        Raises
        ------
        UnknownSymbol
            The lake holds no bar of a symbol in this freq.
        BadRequest
            A freq, bound, column or spelling that means nothing.
        """
        asked = _Asked(
            freq if isinstance(freq, Freq) else Freq.parse(freq), start, end, last, vendor, _states(state),
            tuple(parsed_columns(columns, _SHOWN) or _SHOWN), require, explain,
        )  # fmt: skip
        names = _names(symbols)
        self._check(names or (), asked)
        places = _by_zone(names) if asked.freq.intraday and not _aware(start, end) else []
        if len(places) < 2:
            return self._bars(names, asked)
        whole = replace(asked, shown=_SHOWN)  # each in its own zone, then as one
        parts = pa.concat_tables([self._bars(some, whole).table for some in places])
        ordered = parts.sort_by([("symbol", "ascending"), ("ts", "ascending")])
        return Bars(ordered.select(list(asked.shown)), asked.freq)

    def _bars(self, names: list[str] | None, asked: "_Asked") -> Bars:
        """Return bars of symbols whose naive bounds mean the same instants."""
        zone = Symbol.parse(names[0]).place.zone if names else "UTC"
        span = bounds(asked.freq, asked.start, asked.end, zone)
        needed = list(dict.fromkeys([*asked.shown, *(("symbol", "ts") if asked.last is not None else ())]))
        wanted = Wanted(asked.freq, names, span.start, span.end, asked.vendor, asked.states)
        way = explained(self._store.path, self._store.snapshot(), wanted, needed) if asked.explain else None
        table = self._store.bars(
            symbols=names, freq=asked.freq, start=span.start, end=span.end, vendor=asked.vendor, columns=needed,
            states=asked.states,
        )  # fmt: skip
        if asked.last is not None:
            table = _newest(table, asked.last).select(list(asked.shown))
        if names is not None:
            found = gaps(self._store, names, asked.freq, asked.start, asked.end, asked.vendor)
            self._say_short(found, asked.require)
        return Bars(table, asked.freq, way)

    def sql(self, query: str, params: Sequence[object] | Mapping[str, object] | None = None) -> Answer:
        """Return the answer to `query` over the views (`bars`, `bars_1d`, `revisions`, `coverage`, …).

        `params` fill `?` (a sequence) or `$name` (a mapping). A mistake in the query raises
        BadRequest with DuckDB's own words.
        """
        import duckdb

        try:
            # DuckDB gives None for a statement without an answer; its types do not say so.
            relation = cast("duckdb.DuckDBPyRelation | None", self.connection().sql(query, params=params))
        except duckdb.Error as error:
            raise BadRequest("sql", query, hint=str(error)) from error
        if relation is None:
            raise BadRequest("sql", query, hint="this statement answers nothing: `lake.connection()` runs any",
                             hint_zh="该语句没有结果：可用 `lake.connection()` 执行")  # fmt: skip
        return Answer(relation)

    def connection(self) -> "duckdb.DuckDBPyConnection":
        """Return an in-memory DuckDB connection whose views show the newest commit; UTC.

        It is the one that `sql` uses: temporary tables, settings and registered frames stay from
        call to call. Its views stand at the commit that was the newest when this, or `sql`, was
        last called: call again for a newer one (a millisecond or two; the same connection).
        Take `.cursor()` for another thread. The lake closes it.
        """
        return self._follower.connection(self._store.snapshot())

    def write(self, table: object, *, vendor: str, freq: str | Freq, zone: str | None = None) -> WriteReport:
        """Put your own bars into the lake and return what that did.

        Parameters
        ----------
        table : Arrow table, polars or pandas frame
            Columns symbol, ts (or session, from one day up), open, high, low, close, volume
            (shares or base units) and optionally amount; prices as traded; ts is the bar's
            start.
        vendor : str
            The name under which the bars are kept.
        freq : str
            `1m` … `1y`.
        zone : str or None
            The zone of naive times; None refuses them.

        Returns
        -------
        WriteReport
            new, same, updated, settled, revised, quarantined (rows that a *reject* rule
            refused), bytes_written, version.
        """
        wanted_freq = freq if isinstance(freq, Freq) else Freq.parse(freq)
        return write_bars(self._store, table, vendor=vendor, freq=wanted_freq, zone=zone)

    def write_actions(self, table: object, *, vendor: str) -> WriteReport:
        """Put corporate actions into the lake (see `schemas.action`) and return what that did."""
        return write_actions(self._store, table, vendor=vendor)

    def _check(self, names: Sequence[str], asked: "_Asked") -> None:
        """Refuse what means nothing; say which vendor is read where several hold a symbol and none was chosen."""
        if asked.require not in (None, "complete"):
            raise BadRequest("require", asked.require, ("complete",))
        index = index_of(self._store.snapshot())
        held = index.every_vendor()
        if asked.vendor is not None and asked.vendor not in held:
            raise BadRequest("vendor", asked.vendor, tuple(held))
        self._known(index, names, asked.freq)
        for name in names if asked.vendor is None else ():
            owners = index.vendors(asked.freq, name)
            if len(owners) > 1 and name not in set(
                self._store.table("choice", ["symbol"])["symbol"].to_pylist()
            ):
                warnings.warn(
                    f"{name} {asked.freq} is held by {', '.join(owners)}: {owners[0]} is read, the first by name; "
                    "name vendor= to read another one", SeveralVendors, stacklevel=4,
                )  # fmt: skip

    def _known(self, index: Index, names: Sequence[str], freq: Freq) -> None:
        for name in names:
            if not index.has(freq, name):
                other = [f.value for f in Freq if f is not freq and index.has(f, name)]
                if other:
                    raise UnknownSymbol(
                        "symbol", name, hint=f"the lake holds {', '.join(other)} of it, but no {freq}; "
                        f"`klake sync --symbols {name} --freq {freq}` with a vendor and a start fetches it",
                        hint_zh=f"数据湖中有它的 {', '.join(other)}，但没有 {freq}；可用 `klake sync --symbols {name} --freq {freq}` 下载",
                    )  # fmt: skip
                raise UnknownSymbol(
                    "symbol", name, hint=f"the lake holds no {freq} bar of it; `klake symbols find {name}` looks for it",
                    hint_zh=f"数据湖中没有它的 {freq} K 线；可用 `klake symbols find {name}` 查找",
                )  # fmt: skip

    def _say_short(self, found: Sequence[Gap], require: str | None) -> None:
        if not found:
            return
        text = "; ".join(str(gap) for gap in found[:3])
        if len(found) > 3:
            text += f"; and {len(found) - 3} more"
        if require == "complete":
            raise Incomplete(f"bars are missing: {text}", f"缺少 K 线：{text}")
        warnings.warn(text, ShortAnswer, stacklevel=3)


def open_lake(path: str | Path = "data/lake", *, create: bool = False, clock: Clock | None = None) -> Lake:
    """Return the lake at `path` (a directory), open for reading and writing.

    `create` makes it where there is none. `clock` stamps what is written; None: the machine's.

    Raises
    ------
    LakeError
        There is no lake there and `create` is False; it was made by a later klake; it is damaged.
    """
    return Lake(Store.open(str(path), clock or SystemClock(), create=create))


def _names(symbols: str | Symbol | Sequence[str | Symbol] | None) -> list[str] | None:
    if symbols is None:
        return None
    given = [symbols] if isinstance(symbols, str | Symbol) else list(symbols)
    if not given:
        raise BadRequest("symbols", symbols, hint="name at least one, or leave it out for all")
    return [str(s if isinstance(s, Symbol) else Symbol.parse(s)) for s in given]


def _by_zone(names: Sequence[str] | None) -> list[list[str]]:
    """Return the symbols in groups of one zone each."""
    groups: dict[str, list[str]] = {}
    for name in names or ():
        groups.setdefault(Symbol.parse(name).place.zone, []).append(name)
    return list(groups.values())


def _aware(start: Bound, end: Bound) -> bool:
    """Return whether both bounds, where given, name their own zone."""
    given = [b for b in (start, end) if b is not None]
    return all(isinstance(b, datetime) and b.tzinfo is not None for b in given)


def _states(least: str | None) -> tuple[State, ...] | None:
    if least is None or least == State.OPEN:
        return None
    if least not in {State.CLOSED, State.FINAL}:
        raise BadRequest("state", least, tuple(s.value for s in State))
    return (State.FINAL,) if least == State.FINAL else (State.CLOSED, State.FINAL)


def _newest(table: pa.Table, count: int) -> pa.Table:
    """Return the last `count` rows of each symbol of a table sorted by (symbol, ts)."""
    if count < 1:
        raise BadRequest("last", count, hint="ask for one bar at least")
    if not table.num_rows or table["symbol"][0].equals(table["symbol"][-1]):  # sorted: one symbol only
        return table.slice(max(0, table.num_rows - count))
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    rest = frame.filter(pl.int_range(pl.len()).reverse().over("symbol") < count)
    return rest.to_arrow().cast(table.schema)
