"""The store: opening, refusing, appending, publishing, and what a crash leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from klake.errors import BadRequest, LakeDamaged, LakeError, LakeOrigin, LakeTooNew, LakeUnwritable
from klake.schemas.bar import INCOMING
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage.datafiles import write
from klake.storage.store import Store
from klake.storage.tables import TABLES, DeltaLog

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
DAY = date(2026, 1, 5)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


@pytest.fixture
def store(path: str, clock: ManualClock) -> Store:
    return Store.open(path, clock, create=True)


def bars(
    symbol: str = "600519.SH", sessions: int = 1, start: date = DAY, close: float = 10.0, at: datetime = NOW
) -> pa.Table:
    days = [start + timedelta(days=n) for n in range(sessions)]
    return pa.Table.from_pylist(
        [
            {
                "vendor": "qos", "freq": "1d", "symbol": symbol, "session": day,
                "ts": datetime(day.year, day.month, day.day, 1, 30, tzinfo=UTC), "open": close, "high": close,
                "low": close, "close": close, "volume": 1.0, "amount": None, "state": "final", "flags": 0,
                "fetched_at": at,
            }
            for day in days
        ],
        schema=INCOMING,
    )  # fmt: skip


def counted(store: Store, view: str = "bars") -> int:
    con = store.connect()
    try:
        (row,) = con.sql(f"SELECT count(*) FROM {view}").fetchall()
        return int(row[0])
    finally:
        con.close()


def manifests(store: Store) -> list[Path]:
    return sorted(Path(store.path).glob("_manifest/*.json"))


def test_a_lake_is_made_once_and_opened_again(store: Store, path: str, clock: ManualClock) -> None:
    store.upsert(bars())

    again = Store.open(path, clock, create=True)

    assert (again.id, again.origin, again.version) == (store.id, "real", store.version)
    assert counted(again) == 1


def test_opening_what_is_no_lake_says_so(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(LakeError, match="no lake here"):
        Store.open(str(tmp_path), clock)

    assert list(tmp_path.iterdir()) == []


def test_a_later_format_is_refused(store: Store, path: str, clock: ManualClock) -> None:
    marker = Path(path) / "klake-lake.json"
    marker.write_text(json.dumps({"format": 99, "shape": "unknown"}))

    with pytest.raises(LakeTooNew):
        Store.open(path, clock)


def test_sandbox_and_real_bars_never_meet(path: str, clock: ManualClock) -> None:
    Store.open(path, clock, origin="sandbox", create=True)

    assert Store.open(path, clock).origin == "sandbox"
    with pytest.raises(LakeOrigin):
        Store.open(path, clock, origin="real", create=True)


def test_a_place_that_cannot_be_written_is_said_so(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(LakeUnwritable, match="file"):
        Store.open(str(tmp_path / "file" / "lake"), clock, create=True)


def test_a_torn_marker_is_said_so(store: Store, path: str, clock: ManualClock) -> None:
    (Path(path) / "klake-lake.json").write_text('{"format": 1, "ver')

    with pytest.raises(LakeDamaged, match="cannot be read"):
        Store.open(path, clock)


def test_a_data_file_that_is_gone_is_said_so(store: Store, path: str, clock: ManualClock) -> None:
    store.upsert(bars())
    (live,) = store.snapshot().of("bars")
    (Path(path) / live.path).unlink()

    with pytest.raises(LakeDamaged, match=r"cannot be read"):
        store.upsert(bars(close=11.0, at=NOW + timedelta(hours=1)))


def test_the_manifest_tells_what_each_file_holds(store: Store) -> None:
    store.upsert(pa.concat_tables([bars("B.US", 3), bars("A.US", 2)]))
    store.upsert(bars("C.US", 1, date(2025, 3, 3)))

    manifest = store.snapshot()

    old, new = manifest.of("bars")
    assert (old.rows, new.rows) == (1, 5)
    assert manifest.symbols_of(old) == {"C.US"} and manifest.symbols_of(new) == {"A.US", "B.US"}
    assert (new.low, new.high) == ((DAY - date(1970, 1, 1)).days, (DAY - date(1970, 1, 1)).days + 2)
    assert manifest.series() == {("qos", "1d"): {"A.US", "B.US", "C.US"}}
    assert manifest.names["bars"] == (old.path, new.path)
    assert all(os.path.getsize(Path(store.path) / f.path) == f.size_bytes for f in manifest.files)


def test_a_commit_that_was_never_published_is_seen_after_the_next_open(
    store: Store, path: str, clock: ManualClock
) -> None:
    rows = pa.Table.from_pylist(
        [{**row, "known_at": NOW} for row in bars().to_pylist()], schema=TABLES["bars"].schema
    ).select(TABLES["bars"].file_schema.names)
    log = DeltaLog(path, TABLES["bars"])
    log.version()
    log.commit([write(path, "bars/era=current/vendor=qos/freq=1d/period=2026/0.parquet", rows)], [], 1, 0)
    before = counted(store)

    after = Store.open(path, clock)

    assert before == 0 and counted(after) == 1
    assert after.snapshot().symbols_of(after.snapshot().of("bars")[0]) == {"600519.SH"}


def test_lost_manifests_are_made_anew_from_the_logs(store: Store, path: str, clock: ManualClock) -> None:
    store.upsert(bars(sessions=3))
    for file in manifests(store):
        file.unlink()

    assert counted(Store.open(path, clock)) == 3


def test_manifests_stay_ten_minutes_after_they_are_superseded(store: Store, clock: ManualClock) -> None:
    for number in range(4):
        store.upsert(bars(start=DAY + timedelta(days=number)))
        clock.wait(240)

    kept = [int(file.stem) for file in manifests(store)]

    # Versions 0 to 3 were superseded at 0, 240, 480 and 720 s; the last look was at 720 s.
    assert kept == [1, 2, 3, 4]


def test_publishing_an_unchanged_lake_changes_nothing(store: Store) -> None:
    store.upsert(bars())
    before = {p: p.stat().st_mtime_ns for p in Path(store.path).rglob("*") if p.is_file()}

    store.publish()

    assert {p: p.stat().st_mtime_ns for p in Path(store.path).rglob("*") if p.is_file()} == before


def sessions(count: int) -> pa.Table:
    return pa.table(
        {
            "calendar": ["XSHG"] * count, "session": [DAY + timedelta(days=n) for n in range(count)],
            "open": [NOW] * count, "break_start": [None] * count, "break_end": [None] * count, "close": [NOW] * count,
        }
    )  # fmt: skip


def test_a_published_extra_is_seen_and_its_old_file_goes_in_time(store: Store, clock: ManualClock) -> None:
    for count in (2, 3, 3):
        store.publish_extra("sessions", sessions(count))
        clock.wait(1000)
    versions = store.version
    for number in range(2):
        store.upsert(bars(start=DAY + timedelta(days=number)))
        clock.wait(1000)

    assert versions == 2  # the third was what is there
    assert counted(store, "sessions") == 3
    assert len([p for p in Path(store.path).glob("sessions/*.parquet") if p.name[0] != "."]) == 1


def choice(vendor: str) -> pa.Table:
    return pa.table({"symbol": ["600519.SH"], "freq": ["1d"], "vendor": [vendor], "since": [DAY]})


def test_appending_drops_what_is_there_and_keeps_what_changed(store: Store) -> None:
    added = [store.append("choice", choice(vendor)) for vendor in ("qos", "qos", "mm", "mm", "qos")]

    assert added == [1, 0, 1, 0, 1]
    assert counted(store, "choice") == 1  # the view shows the newest of each id
    assert DeltaTable(f"{store.path}/choice").to_pyarrow_table()["vendor"].to_pylist().count("qos") == 2


def test_appending_nothing_new_makes_no_commit(store: Store) -> None:
    store.append("choice", choice("qos"))
    version = store.version

    assert store.append("choice", choice("qos")) == 0
    assert store.append("choice", choice("qos").slice(0, 0)) == 0
    assert store.version == version


def test_many_appends_do_not_leave_a_file_each(store: Store) -> None:
    for number in range(20):
        store.append(
            "members", pa.table({"universe": ["all"], "symbol": [f"{number:06d}.SZ"], "since": [DAY]})
        )

    assert len(store.snapshot().of("members")) <= 9
    assert counted(store, "members") == 20


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("bars", {"symbol": ["x"]}),
        ("nonsense", {"symbol": ["x"]}),
        ("choice", {"symbol": ["x"], "colour": ["red"]}),
        ("choice", {"symbol": [None], "freq": ["1d"], "vendor": ["qos"], "since": [DAY]}),
        ("choice", {"symbol": ["x"], "freq": ["1d"], "vendor": ["qos"], "since": ["yesterday"]}),
    ],
)
def test_rows_that_do_not_fit_are_refused(store: Store, table: str, rows: dict[str, list[object]]) -> None:
    with pytest.raises(BadRequest):
        store.append(table, pa.table(rows))


def test_every_table_can_be_read_by_a_plain_delta_reader(store: Store) -> None:
    store.upsert(bars(sessions=2))
    store.append("choice", choice("qos"))

    assert DeltaTable(f"{store.path}/bars").to_pyarrow_table().num_rows == 2
    assert DeltaTable(f"{store.path}/choice").to_pyarrow_table().num_rows == 1
    assert DeltaTable(f"{store.path}/requests").to_pyarrow_table().num_rows == 0


def test_deltas_own_vacuum_leaves_the_views_working(store: Store) -> None:
    store.upsert(bars())
    store.upsert(bars(close=11.0, at=NOW + timedelta(hours=1)))

    for name in TABLES:
        DeltaTable(f"{store.path}/{name}").vacuum(
            0, dry_run=False, enforce_retention_duration=False, full=True
        )

    assert counted(store) == 1 and counted(store, "requests") == 0


LOOP = """
import datetime, sys
import pyarrow as pa
from klake.schemas.clock import SystemClock
from klake.schemas.bar import INCOMING
from klake.storage.store import Store
store = Store.open(sys.argv[1], SystemClock())
start = int(sys.argv[2])
for number in range(start, 10_000):
    day = datetime.date(2020, 1, 1) + datetime.timedelta(days=number)
    at = datetime.datetime.now(datetime.UTC)
    rows = [
        {"vendor": "qos", "freq": "1d", "symbol": f"{s:06d}.SZ", "session": d, "volume": 1.0, "flags": 0,
         "ts": datetime.datetime(d.year, d.month, d.day, 1, 30, tzinfo=datetime.UTC), "open": c, "high": c,
         "low": c, "close": c, "amount": None, "state": "final", "fetched_at": at}
        for s in range(5) for d, c in ((day, 1.0), (day - datetime.timedelta(days=1), 2.0))
    ]
    store.upsert(pa.Table.from_pylist(rows, schema=INCOMING))
    print(number, flush=True)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.proof)])
def test_a_killed_writer_leaves_a_whole_lake(store: Store, path: str, clock: ManualClock, kills: int) -> None:
    done = 0
    for kill in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, path, str(done)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        until = time.perf_counter() + 0.02 + 0.0137 * (kill % 11)
        while time.perf_counter() < until:
            pass
        process.send_signal(signal.SIGKILL)
        told = process.communicate()[0].split()
        done = max(done, int(told[-1]) + 1 if told else done + 1)

        lake = Store.open(path, clock)
        found = lake.bars(symbols=None, freq=Freq.D1, columns=["symbol", "session"]).to_pylist()
        keys = {(row["symbol"], row["session"]) for row in found}
        assert len(found) == len(keys) and len(keys) % 5 == 0
        assert len(keys) in {5 * (done + 1), 5 * (done + 2)}  # the last one may have been committed, untold
        assert DeltaTable(f"{path}/bars").to_pyarrow_table().num_rows == len(found) + counted(
            lake, "revisions"
        )
