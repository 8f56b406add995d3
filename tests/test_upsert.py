"""Upsert: who wins, what is counted, and that order, repeats and delays change nothing."""

import json
import multiprocessing
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klake.errors import BadRequest, CommitConflict
from klake.schemas.bar import INCOMING, SCHEMA
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage.datafiles import write
from klake.storage.layout import QUICK
from klake.storage.publisher import Publisher
from klake.storage.store import Store
from klake.storage.tables import TABLES, DeltaLog
from klake.storage.writer import Writer

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
DAY = date(2026, 1, 5)
HOUR = timedelta(hours=1)


def bar(close: float = 10.0, at: datetime = NOW, state: str = "final", **other: object) -> dict[str, object]:
    """One incoming daily bar as a row; `other` overrides columns."""
    day = other.get("session", DAY)
    assert isinstance(day, date)
    row: dict[str, object] = {
        "vendor": "qos", "freq": "1d", "symbol": "600519.SH",
        "ts": datetime(day.year, day.month, day.day, 1, 30, tzinfo=UTC), "session": day,
        "open": 10.0, "high": 11.0, "low": 9.0, "close": close, "volume": 100.0, "amount": None,
        "state": state, "flags": 0, "fetched_at": at,
    }  # fmt: skip
    return {**row, **other}


def batch(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=INCOMING)


def rows_of(store: Store, view: str = "bars") -> list[dict[str, object]]:
    con = store.connect()
    try:
        found: list[dict[str, object]] = (
            con.sql(f"SELECT * FROM {view} ORDER BY ALL").to_arrow_table().to_pylist()
        )
        return found
    finally:
        con.close()


def files_of(store: Store) -> set[str]:
    return {str(p.relative_to(store.path)) for p in Path(store.path).rglob("*") if p.is_file()}


def test_a_written_bar_reads_back_the_same(store: Store) -> None:
    given = bar(close=0.1 + 0.2, amount=1e15 / 3, flags=65, volume=123456789.123)

    store.upsert(batch(given))

    (found,) = store.bars(symbols=None, freq=Freq.D1).to_pylist()
    assert {name: found[name] for name in INCOMING.names} == given
    assert (found["era"], found["period"]) == ("current", "2026")
    assert store.bars(symbols=None, freq=Freq.D1).schema.equals(SCHEMA)


def test_the_period_comes_from_the_session_not_from_the_instant(store: Store) -> None:
    # A US evening is next year's morning in UTC.
    late = datetime(2026, 1, 1, 0, 59, tzinfo=UTC)

    store.upsert(batch(bar(freq="1m", symbol="AAPL.US", ts=late, session=date(2025, 12, 31))))

    (found,) = store.bars(symbols=None, freq=Freq.M1).to_pylist()
    assert found["period"] == "2025-12"


def test_a_batch_that_brings_nothing_new_changes_no_file(store: Store, clock: ManualClock) -> None:
    store.upsert(batch(bar(), bar(symbol="AAPL.US", state="open")))
    before = files_of(store)

    clock.wait(3600)
    report = store.upsert(batch(bar(at=NOW + HOUR), bar(at=NOW - HOUR), bar(symbol="AAPL.US", state="open")))

    assert (report.same, report.commits, report.bytes_written) == (3, 0, 0)
    assert files_of(store) == before


@pytest.mark.parametrize(
    ("stored", "incoming", "verdict", "close"),
    [
        (bar(10, NOW), bar(11, NOW + HOUR), "revised", 11),
        (bar(10, NOW), bar(11, NOW - HOUR), "same", 10),
        (bar(10, NOW, "open"), bar(11, NOW + HOUR, "open"), "updated", 11),
        (bar(10, NOW, "open"), bar(11, NOW - HOUR, "open"), "same", 10),
        (bar(10, NOW, "open"), bar(10, NOW + HOUR, "closed"), "updated", 10),
        (bar(10, NOW, "open"), bar(11, NOW - HOUR, "closed"), "updated", 11),
        (bar(10, NOW, "closed"), bar(11, NOW + HOUR, "open"), "same", 10),
        (bar(10, NOW, "final"), bar(11, NOW + HOUR, "open"), "same", 10),
        (bar(10, NOW, "closed"), bar(10, NOW + HOUR, "final"), "settled", 10),
        (bar(10, NOW, "closed"), bar(11, NOW + HOUR, "final"), "revised", 11),
        (bar(10, NOW, "final"), bar(11, NOW + HOUR, "closed"), "revised", 11),
        (bar(10, NOW, "final"), bar(10, NOW + HOUR, "closed"), "same", 10),
        (bar(10, NOW, amount=None), bar(10, NOW + HOUR, amount=5.0), "revised", 10),
    ],
)
def test_an_incoming_bar_wins_by_state_and_time(
    store: Store, stored: dict[str, object], incoming: dict[str, object], verdict: str, close: float
) -> None:
    store.upsert(batch(stored))

    report = store.upsert(batch(incoming))

    assert getattr(report, verdict) == 1
    assert report.new + report.same + report.updated + report.settled + report.revised == 1
    assert [row["close"] for row in rows_of(store)] == [close]
    assert len(rows_of(store, "revisions")) == (verdict == "revised")


def test_settling_keeps_known_at_and_writes_no_history(store: Store, clock: ManualClock) -> None:
    store.upsert(batch(bar(state="closed")))
    (before,) = rows_of(store)
    clock.wait(3600)

    store.upsert(batch(bar(state="final", at=NOW + HOUR)))

    (after,) = rows_of(store)
    assert (after["state"], after["known_at"]) == ("final", before["known_at"])
    assert rows_of(store, "revisions") == []


def test_the_superseded_row_moves_to_the_past_in_the_same_commit(store: Store) -> None:
    store.upsert(batch(bar(10)))
    before = DeltaTable(f"{store.path}/bars").version()

    store.upsert(batch(bar(11, NOW + HOUR)))

    table = DeltaTable(f"{store.path}/bars")
    eras = {row["era"]: row["close"] for row in table.to_pyarrow_table().to_pylist()}
    assert table.version() == before + 1
    assert eras == {"current": 11.0, "past": 10.0}


def test_within_one_batch_the_winner_is_taken_whatever_the_order(store: Store) -> None:
    rows = [bar(10, NOW), bar(12, NOW + 2 * HOUR), bar(11, NOW + HOUR), bar(13, NOW + 3 * HOUR, "open")]

    report = store.upsert(batch(*rows))

    assert (report.new, report.same) == (1, 3)
    assert [row["close"] for row in rows_of(store)] == [12.0]


def test_known_at_grows_when_the_hosts_clock_goes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "lake")
    Store.open(path, ManualClock(NOW), create=True).upsert(batch(bar(10)))
    behind = Store.open(path, ManualClock(NOW - timedelta(days=400)))

    behind.upsert(batch(bar(11, NOW + HOUR)))

    (revision,) = rows_of(behind, "revisions")
    (row,) = rows_of(behind)
    assert revision["known_at"] == NOW
    assert row["known_at"] == NOW + timedelta(microseconds=1)


def test_several_vendors_freqs_and_periods_go_in_one_commit(store: Store) -> None:
    minute = datetime(2026, 2, 2, 1, 30, tzinfo=UTC)
    rows = [
        bar(), bar(vendor="longbridge"), bar(session=date(2025, 1, 2)),
        *(bar(freq="1m", session=date(2026, 2, 2), ts=minute + timedelta(minutes=i)) for i in range(3)),
    ]  # fmt: skip

    report = store.upsert(batch(*random.Random(1).sample(rows, len(rows))))

    assert (report.new, report.commits) == (6, 1)
    assert len({file.path.rsplit("/", 1)[0] for file in store.snapshot().of("bars")}) == 4


def test_daily_bars_are_one_per_session_whatever_their_ts(store: Store) -> None:
    store.upsert(batch(bar(10)))

    report = store.upsert(batch(bar(11, NOW + HOUR, ts=datetime(2026, 1, 5, tzinfo=UTC))))

    assert (report.revised, len(rows_of(store))) == (1, 1)


@pytest.mark.parametrize(
    "wrong", [{"vendor": "../x"}, {"vendor": "CON"}, {"freq": "7m"}, {"state": "done"}, {"close": None}]
)
def test_a_row_that_cannot_be_stored_refuses_the_batch(store: Store, wrong: dict[str, object]) -> None:
    before = files_of(store)

    with pytest.raises(BadRequest):
        store.upsert(
            pa.Table.from_pylist(
                [bar(), {**bar(), **wrong}], schema=pa.schema([f.with_nullable(True) for f in INCOMING])
            )
        )

    assert files_of(store) == before


@pytest.mark.parametrize("symbol", ["CON.US", "../../x.US", "a/b\\c.US", "it's.US", "'; DROP.US"])
def test_a_symbol_never_becomes_a_path(store: Store, symbol: str) -> None:
    store.upsert(batch(bar(symbol=symbol)))

    assert store.bars(symbols=[symbol], freq=Freq.D1).num_rows == 1
    assert not any("CON" in name or ".." in name or "DROP" in name for name in files_of(store))


def test_large_files_are_left_alone_by_increments(store: Store) -> None:
    symbols = [f"{n:06d}.SZ" for n in range(400)]
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(90)]
    store.upsert(batch(*(bar(symbol=s, session=d) for s in symbols for d in days)))
    (large,) = store.snapshot().of("bars")

    reports = [
        store.upsert(
            batch(*(bar(11, NOW + HOUR, symbol=s, session=days[-1] + timedelta(days=n)) for s in symbols))
        )
        for n in (1, 2)
    ]
    left_alone = large in store.snapshot().of("bars")
    revised = store.upsert(batch(bar(12, NOW + HOUR, symbol=symbols[7], session=days[3])))

    assert [r.new for r in reports] == [400, 400] and revised.revised == 1
    assert left_alone
    assert sorted(f.rows for f in store.snapshot().of("bars")) == [1, 800, 36_000]


def test_increments_do_not_leave_a_file_each(store: Store) -> None:
    for number in range(12):
        store.upsert(batch(bar(session=DAY + timedelta(days=number))))

    assert len(store.snapshot().of("bars")) == 1
    assert len(rows_of(store)) == 12


def test_files_have_the_agreed_shape(store: Store) -> None:
    store.upsert(batch(*(bar(symbol=s, amount=1.5) for s in ("B.US", "A.US"))))

    (live,) = store.snapshot().of("bars")
    with pq.ParquetFile(Path(store.path) / live.path) as file:
        group = file.metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
        assert file.read()["symbol"].to_pylist() == ["A.US", "B.US"]
        assert list(columns) == [
            name for name in SCHEMA.names if name not in {"era", "vendor", "freq", "period"}
        ]
    assert {c.compression for name, c in columns.items() if name not in QUICK[Freq.D1]} == {"ZSTD"}
    assert {columns[name].compression for name in QUICK[Freq.D1]} == {"SNAPPY"}
    assert "BYTE_STREAM_SPLIT" in columns["amount"].encodings
    assert "DELTA_BINARY_PACKED" in columns["ts"].encodings
    assert all("RLE_DICTIONARY" in columns[name].encodings for name in ("symbol", "open", "close"))
    assert all(c.statistics is not None for c in columns.values())


# An account of one bar: what a vendor says of it at each instant. Values differ at every
# instant; only closed → final may repeat them.
SAYINGS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from(["open", "closed", "final"])),
    min_size=1, max_size=12,
)  # fmt: skip


def said(vendor: str, key: int, hour: int, state: str) -> dict[str, object]:
    return bar(float(hour + 1), NOW + hour * HOUR, state, session=DAY + timedelta(days=key), vendor=vendor)


def seen(
    store: Store, vendor: str, view: str = "bars", *, without: tuple[str, ...]
) -> list[tuple[object, ...]]:
    names = [name for name in SCHEMA.names if name not in {"vendor", "era", *without}]
    return sorted(
        (
            tuple(str(row[name]) for name in names)
            for row in rows_of(store, f"{view} WHERE vendor = '{vendor}'")
        ),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(SAYINGS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_order_batches_and_repeats_end_in_the_same_bars(
    store: Store, sayings: list[tuple[int, int, str]], chance: random.Random, size: int
) -> None:
    one, other = f"a{uuid4().hex}", f"b{uuid4().hex}"
    order = sorted(sayings, key=lambda saying: saying[1])
    shuffled = chance.sample(sayings + sayings[: len(sayings) // 2], len(sayings) + len(sayings) // 2)

    store.upsert(batch(*(said(one, *saying) for saying in order)))
    for start in range(0, len(shuffled), size):
        store.upsert(batch(*(said(other, *saying) for saying in shuffled[start : start + size])))

    assert seen(store, one, without=("known_at",)) == seen(store, other, without=("known_at",))


def _fill(path: str, start: int, count: int, shared: int) -> None:
    """One process: `count` upserts of a bar of its own and a bar that both processes write."""
    clock = ManualClock(NOW)
    writer = Writer(path, Publisher(path, clock), clock, takes_turns=False)
    for number in range(count):
        own = bar(symbol=f"{start + number:06d}.SZ")
        both = bar(float(number), NOW + number * HOUR, session=DAY + timedelta(days=number % shared))
        for _ in range(50):
            try:
                writer.upsert(batch(own, both))
                break
            except CommitConflict:
                continue


def test_two_processes_lose_nothing_and_double_nothing(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(store.path, start, 12, 3)) for start in (100, 200)]

    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    store.publish()
    rows = rows_of(store)
    keys = [(row["symbol"], row["session"]) for row in rows]
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(keys) == len(set(keys)) == 24 + 3
    assert sorted(row["close"] for row in rows if row["symbol"] == "600519.SH") == [9.0, 10.0, 11.0]
    assert DeltaTable(f"{store.path}/bars").to_pyarrow_table().num_rows == len(rows) + len(
        rows_of(store, "revisions")
    )


def test_two_stale_handles_cannot_both_append_the_same_key(store: Store) -> None:
    logs = [DeltaLog(store.path, TABLES["bars"]) for _ in range(2)]
    rows = pa.Table.from_pylist([{**bar(), "known_at": NOW}], schema=TABLES["bars"].file_schema)
    files = [
        write(store.path, f"bars/era=current/vendor=qos/freq=1d/period=2026/{name}.parquet", rows)
        for name in "12"
    ]
    versions = [log.version() for log in logs]

    logs[0].commit(files[:1], [], 1, 0)

    assert versions == [0, 0]
    with pytest.raises(CommitConflict):
        logs[1].commit(files[1:], [], 1, 0)


class Meddler(ManualClock):
    """A clock that lets another writer commit whenever it is read, while it is armed."""

    def __init__(self, path: str) -> None:
        super().__init__(NOW)
        self.armed, self._count = 0, 0
        self._other = Writer(path, Publisher(path, ManualClock(NOW)), ManualClock(NOW), takes_turns=False)

    def now(self) -> datetime:
        if self.armed:
            self.armed -= 1
            self._count += 1
            self._other.upsert(batch(bar(50.0 + self._count, NOW + self._count * HOUR)))
        return super().now()


def test_a_commit_in_between_makes_the_upsert_start_afresh(store: Store) -> None:
    clock = Meddler(store.path)
    writer = Writer(store.path, Publisher(store.path, clock), clock, takes_turns=False)
    clock.armed = 1

    report = writer.upsert(batch(bar(10, NOW)))  # older than what the other one brings

    assert (report.same, report.commits) == (1, 0)
    assert [row["close"] for row in rows_of(store)] == [51.0]


def test_ten_conflicts_in_a_row_are_given_up_without_a_trace(store: Store) -> None:
    clock = Meddler(store.path)
    writer = Writer(store.path, Publisher(store.path, clock), clock, takes_turns=False)
    clock.armed = 1000

    with pytest.raises(CommitConflict):
        writer.upsert(batch(bar(10, NOW, symbol="AAPL.US")))

    clock.armed = 0
    logs = sorted((Path(store.path) / "bars" / "_delta_log").glob("*.json"))
    committed = {
        f"bars/{action['add']['path']}"
        for log in logs for action in map(json.loads, log.read_text().splitlines()) if "add" in action
    }  # fmt: skip
    on_disk = {name for name in files_of(store) if name.endswith(".parquet") and "vendor=qos" in name}
    assert len(logs) > 10 and on_disk == committed


def test_another_stores_commit_is_seen_before_the_next_one(store: Store, clock: ManualClock) -> None:
    other = Store.open(store.path, clock)
    store.upsert(batch(bar(10)))

    report = other.upsert(batch(bar(11, NOW + HOUR)))

    assert report.revised == 1
    assert [row["close"] for row in rows_of(store)] == [11.0]
