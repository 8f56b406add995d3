"""Vacuum: only what nobody can need goes, and what a crash left goes at once."""

import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
from test_compact import JAN, day_bars, everything

from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage import claims, datafiles
from klake.storage.layout import CLAIMS, file_name
from klake.storage.publisher import microseconds
from klake.storage.store import Store
from klake.storage.tables import PUBLISHED

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
HOUR, DAY = 3_600, 86_400
YEAR = "bars/era=current/vendor=qos/freq=1d/period=2026"


def on_disk(store: Store) -> set[str]:
    return {str(p.relative_to(store.path)) for p in Path(store.path).rglob("*.parquet") if p.is_file()}


def live(store: Store) -> set[str]:
    return {file.path for file in store.snapshot().files}


def dead(store: Store) -> set[str]:
    return {p for p in on_disk(store) if p.startswith("bars/") and "_" not in p.rsplit("/", 1)[1]} - live(store) - {
        p for p in on_disk(store) if "_delta_log" in p
    }  # fmt: skip


def test_a_dead_hot_file_goes_after_an_hour(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, date(2026, 11, 1), 20))
    store.upsert(day_bars(3, date(2026, 11, 1), 21))
    (gone,) = dead(store)

    clock.wait(HOUR - 60)
    early = store.vacuum()
    clock.wait(120)
    rows = everything(store)
    late = store.vacuum()

    assert early.paths == () and late.paths == (gone,) and late.size_bytes > 0
    assert not (Path(store.path) / gone).exists() and everything(store) == rows


def test_a_dead_file_of_a_closed_period_goes_after_seven_days(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, date(2025, 3, 1), 20))
    store.upsert(day_bars(3, date(2025, 3, 1), 21))
    (gone,) = dead(store)

    clock.wait(7 * DAY - 60)
    early = store.vacuum()
    clock.wait(120)
    late = store.vacuum()

    assert early.paths == () and late.paths == (gone,)


def test_a_file_that_a_kept_manifest_names_stays(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, date(2026, 11, 1), 20))
    clock.wait(2 * HOUR)
    store.upsert(day_bars(3, date(2026, 11, 1), 21))
    clock.wait(60)

    assert store.vacuum().paths == () and len(dead(store)) == 1


def test_a_dry_run_deletes_nothing(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, date(2026, 11, 1), 20))
    store.upsert(day_bars(3, date(2026, 11, 1), 21))
    clock.wait(2 * HOUR)
    before = dead(store)

    told = store.vacuum(dry_run=True)

    assert set(told.paths) == before == dead(store) and len(before) == 1


def test_what_a_crash_left_goes_at_once_and_what_is_being_written_stays(
    store: Store, clock: ManualClock
) -> None:
    store.upsert(day_bars(1, JAN, 1))
    rows = store.bars(symbols=None, freq=Freq.D1).drop(["era", "vendor", "freq", "period"])
    at = microseconds(clock.now())
    with claims.claim(store.path, at) as token:
        path = f"{YEAR}/{file_name(at, token)}"
        datafiles.write(store.path, path, rows)
        draft = Path(store.path) / YEAR / f".{path.rsplit('/', 1)[1]}.00.writing"
        draft.write_bytes(b"torn")

        during = store.vacuum()

    after = store.vacuum()
    assert during.paths == ()
    assert set(after.paths) == {path, str(draft.relative_to(store.path))}
    assert store.bars(symbols=None, freq=Freq.D1).num_rows == 1


def test_a_killed_writer_leaves_no_orphan_for_the_next_vacuum(store: Store) -> None:
    code = (
        "import sys, os, signal; from datetime import date\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_compact import day_bars\n"
        "from klake.schemas.clock import SystemClock; from klake.storage import tables; from klake.storage.store import Store\n"
        "tables.DeltaLog.commit = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store.open(sys.argv[1], SystemClock()).upsert(day_bars(3, date(2026, 1, 5), 4))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, store.path, str(Path(__file__).parent)], check=False)
    left = dead(store)

    done = store.vacuum()

    assert ran.returncode == -signal.SIGKILL
    assert len(left) == 1 and set(done.paths) == left
    assert list((Path(store.path) / CLAIMS).iterdir()) != []


def test_locks_of_dead_writers_go_with_time(store: Store, clock: ManualClock) -> None:
    folder = Path(store.path) / CLAIMS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{microseconds(clock.now()):016x}-0123456789ab").touch()

    store.vacuum()
    young = list(folder.iterdir())
    clock.wait(2 * HOUR)
    store.vacuum()

    assert len(young) == 1 and list(folder.iterdir()) == []


def test_foreign_files_and_old_drafts_go_by_the_disks_clock(store: Store) -> None:
    manifest = Path(store.path) / "_manifest"
    fresh, old = manifest / ".fresh", manifest / ".old"
    foreign = Path(store.path) / "bars" / "part-0001.parquet"
    for path in (fresh, old, foreign):
        path.write_bytes(b"x")
    now = fresh.stat().st_mtime
    os.utime(old, (now - 2 * HOUR, now - 2 * HOUR))
    os.utime(foreign, (now - 8 * DAY, now - 8 * DAY))

    done = store.vacuum()

    assert set(done.paths) == {"_manifest/.old", "bars/part-0001.parquet"} and fresh.exists()


def test_what_a_crash_left_beside_the_tables_goes_and_files_of_others_stay(store: Store) -> None:
    root, name = Path(store.path), "0123456789abcdef" * 2
    log = root / "bars" / "_delta_log" / "00000000000000000000.json"
    left = {f"bars/_delta_log/{log.name}#1", f".{name}", f".lake.duckdb-{name}.wal", f"_spool/.{name}"}
    mine = root / ".my-notes"
    for path in (mine, *(root / path for path in left)):
        path.write_bytes(b"x")
    then = mine.stat().st_mtime - 2 * HOUR

    young = store.vacuum()
    for path in (log, mine, *(root / path for path in left)):
        os.utime(path, (then, then))
    old = store.vacuum()

    assert young.paths == () and set(old.paths) == left
    assert log.exists() and mine.exists()


def test_rows_of_the_past_stay_whatever_time_passes(store: Store, clock: ManualClock) -> None:
    for n in range(4):
        clock.wait(60)
        store.upsert(day_bars(3, JAN, 20, clock.now(), close=10.0 + n))
    rows = everything(store)

    clock.wait(40 * DAY)
    store.compact()
    clock.wait(40 * DAY)
    store.vacuum()

    assert everything(store) == rows and len(rows["revisions"]) == 180
    assert dead(store) == set()


def test_extras_keep_their_newest_file(store: Store, clock: ManualClock) -> None:
    rows = pa.table({"calendar": ["XSHG"], "session": [JAN]}).cast(
        pa.schema([PUBLISHED["sessions"].field(n) for n in ("calendar", "session")])
    )
    blank = pa.nulls(1, PUBLISHED["sessions"].field("open").type)
    for name in ("open", "break_start", "break_end", "close"):
        rows = rows.append_column(name, blank)
    store.publish_extra("sessions", rows)
    clock.wait(30 * DAY)

    store.vacuum()

    assert store.table("sessions").num_rows == 1
