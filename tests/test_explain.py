"""Which way an answer is read, and that every way gives what the SQL views give."""

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import klake
from klake.errors import LakeDamaged
from klake.schemas.bar import COLUMNS, INCOMING, State
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage import read, rowgroups
from klake.storage.read import Wanted
from klake.storage.store import Store

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
SYMBOLS = ("000001.SZ", "00700.HK", "600519.SH", "AAPL.US")
FIRST = date(2025, 12, 20)
DAYS = [FIRST + timedelta(days=n) for n in range(24)]
VENDORS = ("mm", "qos", "zz")


@dataclass(frozen=True)
class Batch:
    """Bars of one vendor and freq, some symbols and days."""

    vendor: str
    freq: Freq
    symbols: tuple[str, ...]
    days: tuple[int, ...]
    price: int
    state: str

    def table(self, number: int) -> pa.Table:
        rows = [
            {
                "vendor": self.vendor, "freq": self.freq.value, "symbol": symbol, "session": DAYS[n], "ts": at,
                "open": self.price + n, "high": self.price + n, "low": self.price + n, "close": self.price + n,
                "volume": 1.0, "amount": None if n % 2 else 5.0, "state": self.state, "flags": n % 3,
                "fetched_at": NOW + timedelta(minutes=number),
            }
            for symbol in self.symbols for n in self.days for at in self._times(DAYS[n])
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=INCOMING)

    def _times(self, day: date) -> list[datetime]:
        opens = datetime(day.year, day.month, day.day, 1, 30, tzinfo=UTC)
        return [opens + timedelta(minutes=m) for m in range(3 if self.freq.intraday else 1)]


some_days = st.lists(st.integers(0, len(DAYS) - 1), min_size=1, unique=True).map(lambda d: tuple(sorted(d)))
batches = st.builds(
    Batch,
    st.sampled_from(VENDORS),
    st.sampled_from([Freq.D1, Freq.D1, Freq.M1]),
    st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True).map(tuple),
    some_days,
    st.integers(10, 99),
    st.sampled_from(["open", "closed", "final"]),
)
choices = st.tuples(
    st.sampled_from(SYMBOLS), st.sampled_from(["1d", "1m"]), st.sampled_from(VENDORS), st.sampled_from(DAYS)
)


@dataclass(frozen=True)
class Question:
    """What is asked of a lake; days are places in DAYS."""

    freq: Freq
    symbols: tuple[str, ...] | None
    start: int | None
    end: int | None
    vendor: str | None
    columns: tuple[str, ...] | None
    states: tuple[str, ...] | None

    def bound(self, place: int | None) -> datetime | date | None:
        if place is None or not self.freq.intraday:
            return None if place is None else DAYS[place]
        day = DAYS[place]
        return datetime(day.year, day.month, day.day, 1, 31, tzinfo=UTC)

    def sql(self) -> str:
        """Return the same question to the views."""
        parts = [f"freq = '{self.freq.value}'"]
        if self.symbols is not None:
            parts.append(f"symbol IN ({', '.join(repr(s) for s in (*self.symbols, 'no'))})")
        key, cast = ("ts", "TIMESTAMPTZ") if self.freq.intraday else ("session", "DATE")
        parts += [] if self.start is None else [f"{key} >= {cast} '{self.bound(self.start)}'"]
        parts += [] if self.end is None else [f"{key} < {cast} '{self.bound(self.end)}'"]
        parts += [] if self.vendor is None else [f"vendor = '{self.vendor}'"]
        parts += (
            [] if self.states is None else [f"state IN ({', '.join(repr(s) for s in (*self.states, 'no'))})"]
        )
        view = "bars_best" if self.vendor is None else "bars"
        columns = ", ".join(self.columns or COLUMNS)
        return f"SELECT {columns} FROM {view} WHERE {' AND '.join(parts)} ORDER BY symbol, ts"


places = st.none() | st.integers(0, len(DAYS) - 1)
questions = st.builds(
    Question,
    st.sampled_from([Freq.D1, Freq.M1]),
    st.none() | st.lists(st.sampled_from([*SYMBOLS, "NONE.US"]), max_size=3).map(tuple),
    places,
    places,
    st.none() | st.sampled_from(VENDORS),
    st.none() | st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True).map(tuple),
    st.none() | st.lists(st.sampled_from(["open", "closed", "final"]), unique=True).map(tuple),
)


@contextmanager
def lake_of(made: list[Batch], chosen: list[tuple[str, str, str, date]]) -> Iterator[Store]:
    """Small files and row groups, so that a few bars make a lake of many."""
    folder = tempfile.mkdtemp()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for module in ("datafiles.ROW_GROUP", "upsert.SMALL"):
                patch.setattr(f"klake.storage.{module}", 5)
            store = Store.open(folder, ManualClock(NOW), create=True)
            for number, batch in enumerate(made):
                store.upsert(batch.table(number))
            if chosen:
                names = ("symbol", "freq", "vendor", "since")
                store.append("choice", pa.table(dict(zip(names, zip(*chosen, strict=True), strict=True))))
            yield store
    finally:
        shutil.rmtree(folder)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(batches, min_size=1, max_size=4),
    st.lists(choices, max_size=3),
    st.lists(questions, min_size=6, max_size=12),
)
def test_every_way_gives_what_the_views_give(
    made: list[Batch], chosen: list[tuple[str, str, str, date]], asked: list[Question]
) -> None:
    with lake_of(made, chosen) as store, store.connect() as con:
        for one in asked:
            expected = con.sql(one.sql()).to_arrow_table().to_pylist()
            for few, cold in ((0, 64), (0, 64), (64, 64), (-1, -1)):  # once, again, at once, always a query
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(read, "_FEW", few)
                    patch.setattr(read, "_COLD", cold)
                    found = store.bars(
                        symbols=one.symbols, freq=one.freq, start=one.bound(one.start), end=one.bound(one.end),
                        vendor=one.vendor, columns=one.columns,
                        states=None if one.states is None else [State(s) for s in one.states],
                    )  # fmt: skip

                assert found.to_pylist() == expected


def daily(symbols: tuple[str, ...] = SYMBOLS, price: int = 10, vendor: str = "qos") -> pa.Table:
    return Batch(vendor, Freq.D1, symbols, tuple(range(len(DAYS))), price, "final").table(price)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(str(tmp_path / "lake"), ManualClock(NOW), create=True)
    made.upsert(daily())
    return made


def way(store: Store, symbols: list[str] | None = None, **wanted: object) -> read.Way:
    return read.explain(store.path, store.snapshot(), Wanted(Freq.D1, symbols, **wanted))  # type: ignore[arg-type]


@pytest.mark.parametrize("freq", [Freq.D1, Freq.M1])
def test_a_choice_takes_its_turn_in_every_way(tmp_path: Path, freq: Freq) -> None:
    store = Store.open(str(tmp_path / "lake"), ManualClock(NOW), create=True)
    for price, vendor in ((10, "mm"), (50, "qos")):
        store.upsert(Batch(vendor, freq, SYMBOLS[:2], tuple(range(20)), price, "final").table(price))
    turns = {
        "symbol": [SYMBOLS[0]] * 2,
        "freq": [freq.value] * 2,
        "vendor": ["qos", "mm"],
        "since": [DAYS[5], DAYS[9]],
    }
    store.append("choice", pa.table(turns))
    with store.connect() as con:
        query = (
            f"SELECT symbol, session, vendor FROM bars_best WHERE freq = '{freq.value}' ORDER BY symbol, ts"
        )
        expected = con.sql(query).to_arrow_table().to_pylist()

    columns = ["symbol", "session", "vendor"]
    at_once = store.bars(symbols=list(SYMBOLS), freq=freq, columns=columns).to_pylist()
    queried = store.bars(symbols=None, freq=freq, columns=columns).to_pylist()

    assert at_once == queried == expected
    assert {row["session"] for row in expected if row["vendor"] == "qos"} == set(DAYS[5:9])


def test_one_symbol_is_cut_out_of_row_groups_and_decoded_once(store: Store) -> None:
    before = way(store, ["600519.SH"])

    store.bars(symbols=["600519.SH"], freq=Freq.D1)
    after = way(store, ["AAPL.US"])

    assert (before.name, len(before.files), before.row_groups, before.cold) == ("series", 2, 2, 2)
    assert (after.name, after.cold) == ("series", 0)  # its neighbour's row group holds it, too
    assert before.size_bytes > 0


def test_a_panel_is_one_query_over_the_files_of_its_period(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_FEW", 0)
    asked = way(store, None, start=date(2026, 1, 2), end=date(2026, 1, 3))

    assert asked.name == "scan" and ["period=2026" in path for path in asked.files] == [True]


def test_panels_asked_for_again_are_cut_out_of_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_FEW", 0)
    spans = [{"start": DAYS[n], "end": DAYS[n + 1]} for n in (14, 15, 16)]

    ways = []
    for span in spans:
        ways.append(way(store, None, **span))
        store.bars(symbols=None, freq=Freq.D1, **span)  # type: ignore[arg-type]

    assert [(w.name, w.cold) for w in ways] == [("scan", 1), ("panel", 1), ("panel", 0)]


def test_nothing_held_opens_nothing(store: Store) -> None:
    assert way(store, ["NONE.US"]) == way(store, None, start=date(2030, 1, 1)) == read.Way("nothing")


def test_what_no_row_group_holds_yet_is_a_query_until_it_is_asked_for_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_FEW", 1)

    first = way(store, ["AAPL.US"])
    store.bars(symbols=["AAPL.US"], freq=Freq.D1)
    second = way(store, ["AAPL.US"])
    store.bars(symbols=["AAPL.US"], freq=Freq.D1)

    assert [(w.name, w.cold) for w in (first, second, way(store, ["AAPL.US"]))] == [
        ("scan", 2),
        ("series", 2),
        ("series", 0),
    ]


def test_the_lake_says_how_it_read(store: Store) -> None:
    with klake.open(store.path) as lake:
        told, silent = lake.bars("600519.SH", explain=True), lake.bars("600519.SH")

    assert told.way is not None and told.way.name == "series" and silent.way is None
    assert repr(told).startswith("<24 bars of 1d, 15 columns; read by series: 2 files, 2 row groups (")


def test_a_commit_of_another_process_is_seen_by_the_next_call(store: Store) -> None:
    with klake.open(store.path) as lake:
        first = lake.bars("600519.SH", columns=["close"]).numpy()["close"][0]
        counted = lake.sql("SELECT max(close) FROM bars_1d").rows()

        Store.open(store.path, ManualClock(NOW)).upsert(daily(price=50))

        assert (first, lake.bars("600519.SH", columns=["close"]).numpy()["close"][0]) == (10.0, 50.0)
        assert (counted, lake.sql("SELECT max(close) FROM bars_1d").rows()) == ([(33.0,)], [(73.0,)])


def test_a_published_view_of_one_freq_lists_no_folder_of_another(store: Store) -> None:
    other = Path(store.path) / "bars/era=current/vendor=a/freq=1m/period=2026-01"
    other.mkdir(parents=True)
    (other / "0.parquet").write_bytes(b"PAR1 torn")

    with duckdb.connect(f"{store.path}/lake.duckdb", read_only=True) as con:
        listed = {name: _listed(con, name) for name in ("bars", "bars_1d", "bars_1w")}
        daily = con.execute("SELECT count(*) FROM bars_1d").fetchall()

    assert any("freq=1m" in path for path in listed["bars"])
    assert not any("freq=1m" in path for path in listed["bars_1d"] | listed["bars_1w"])
    assert daily == [(len(SYMBOLS) * len(DAYS),)]


def _listed(con: duckdb.DuckDBPyConnection, view: str) -> set[str]:
    """Return the files that the pattern of a view finds."""
    (text,) = con.execute("SELECT sql FROM duckdb_views() WHERE view_name = ?", [view]).fetchall()[0]
    (pattern,) = set(re.findall(r"'([^']*era=current[^']*)'", text))
    return {path for (path,) in con.execute("SELECT file FROM glob(?)", [pattern]).fetchall()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_starts_with_row_groups_of_its_own(store: Store) -> None:
    store.bars(symbols=["AAPL.US"], freq=Freq.D1)  # held by the parent

    with warnings.catch_warnings(), get_context("fork").Pool(1) as pool:
        warnings.simplefilter("ignore", DeprecationWarning)
        held = pool.apply_async(_row_groups_held)

        assert held.get(timeout=20) == 0


def _row_groups_held() -> int:
    return len(rowgroups.shared()._held)


def test_what_users_made_on_the_connection_outlives_a_commit(store: Store) -> None:
    with klake.open(store.path) as lake:
        lake.connection().execute("CREATE TEMP TABLE mine AS SELECT 'AAPL.US' AS symbol")

        store.upsert(daily(("600036.SH",)))

        assert lake.sql("SELECT count(*) FROM bars SEMI JOIN mine USING (symbol)").rows() == [(24,)]
        assert lake.sql("SELECT count(DISTINCT symbol) FROM bars").rows() == [(5,)]


def test_row_groups_in_memory_stay_within_their_budget(store: Store) -> None:
    groups = rowgroups.RowGroups(budget=1)
    (path, *_) = [f"{store.path}/{file.path}" for file in store.snapshot().of("bars")]
    store.upsert(daily(vendor="mm"))
    other = f"{store.path}/{store.snapshot().of('bars')[0].path}"

    groups.read([(path, 0)], ["close"], "session")
    groups.read([(other, 0)], ["close"], "session")

    assert groups.lacking([(path, 0)], ["close"]) == 1 and groups.lacking([(other, 0)], ["close"]) == 0


@pytest.mark.parametrize("by_symbol", ["ascending", "descending"])
def test_a_file_of_another_writer_is_read_by_a_query(store: Store, by_symbol: str) -> None:
    for file in store.snapshot().of("bars"):
        path = Path(store.path) / file.path
        rows = pq.ParquetFile(path).read()
        pq.write_table(rows.sort_by([("symbol", by_symbol), ("ts", "descending")]), path)
    rowgroups.shared().clear()

    found = store.bars(symbols=["AAPL.US"], freq=Freq.D1, columns=["session"])

    assert found["session"].to_pylist() == DAYS


@pytest.mark.parametrize("symbols", [["AAPL.US"], None])
def test_a_live_file_that_is_torn_is_named(store: Store, symbols: list[str] | None) -> None:
    (file, *_) = store.snapshot().of("bars")
    (Path(store.path) / file.path).write_bytes(b"PAR1 half")
    rowgroups.shared().clear()

    with pytest.raises(LakeDamaged, match=file.path):
        store.bars(symbols=symbols, freq=Freq.D1)
