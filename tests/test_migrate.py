"""A lake of an older format: refused with what to do, migrated beside itself, safe wherever the migration is killed."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from filelock import FileLock
from stand import Stand
from verbs import Klake

import klake as face
from klake.errors import LakeDamaged, LakeError, LakeTooNew, LakeTooOld
from klake.schemas.bar import INCOMING
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage import rebuild
from klake.storage.claims import claim
from klake.storage.layout import FORMAT
from klake.storage.migrate import Migrated, migrate
from klake.storage.raw import RawZone
from klake.storage.state import State
from klake.storage.store import Store
from klake.storage.tables import TABLES, DeltaLog

FORMAT_1 = Path(__file__).parent / "lakes" / "format1.tar.gz"
NOW = datetime(2026, 11, 20, 16, tzinfo=UTC)
JOB = '[jobs.daily]\nvendor = "qos"\nsymbols = ["600519.SH"]\nfreq = ["1d"]\nstart = "2026-10-01"\n'


class Killed(BaseException):
    """Stands for kill -9: nothing that klake would do on an error is done."""


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake that klake 0.1 filled from the sandbox: two revisions, a choice, raw pages, one of a run that died."""
    with tarfile.open(FORMAT_1) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "lake"


def contents(lake: Path) -> dict[str, Any]:
    """What must survive: the rows and version of each table, and every page."""
    held: dict[str, Any] = {}
    for name in TABLES:
        table = DeltaTable(str(lake / name))
        rows = table.to_pyarrow_table()
        held[name] = table.version(), rows.select(sorted(rows.column_names)).to_pylist()
        held[name][1].sort(key=str)
    held["pages"] = sorted((p.id, p.body) for p in RawZone(str(lake), ManualClock(NOW)).pages())
    return held


def files(lake: Path) -> dict[str, bytes]:
    return {
        p.relative_to(lake).as_posix(): p.read_bytes() for p in sorted(lake.rglob("*"))
        if p.is_file() and p.suffix != ".lock"
    }  # fmt: skip


def leftovers(lake: Path) -> list[str]:
    return sorted(p.name for p in lake.parent.iterdir() if p.name.startswith("lake"))


def test_an_older_lake_is_refused_with_what_to_do(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(lake)

    for opened in (
        lambda: Store.open(str(lake), ManualClock(NOW)),
        lambda: Store.open(str(lake), ManualClock(NOW), create=True),
        lambda: face.open(str(lake)),
    ):
        with pytest.raises(
            LakeTooOld, match=rf"format 1 .* \({FORMAT}\): run `klake doctor --migrate`"
        ) as refused:
            opened()
        assert (refused.value.found, refused.value.needed) == (1, FORMAT)
    monkeypatch.setenv("KLAKE_LANG", "zh")

    assert "低于本程序所需" in str(refused.value)
    assert files(lake) == before


def test_a_lake_of_format_1_migrates_with_all_it_holds(lake: Path) -> None:
    before, old = contents(lake), files(lake)

    done = migrate(str(lake))

    kept = lake.with_name("lake.format1")
    assert done == Migrated(str(lake), 1, FORMAT, str(kept), done.rows)
    assert done.rows == {name: len(before[name][1]) for name in TABLES} and done.rows["bars"] == 131
    assert contents(lake) == before and files(kept) == old
    assert leftovers(lake) == ["lake", "lake.format1"]
    store = Store.open(str(lake), ManualClock(NOW))
    assert [v.operation for v in store.history()] == ["upsert", "upsert", "upsert", "create table"]
    assert store.table("coverage").num_rows > 0 and store.table("sessions").num_rows == 20
    state = State.open(store.state_path, store.id)
    assert state.matches(store.id, store.version_of("requests"))
    assert {p.id for p in store.raw.unsettled({r["id"] for r in store.table("requests").to_pylist()})}
    with duckdb.connect(str(lake / "lake.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM bars").fetchall() == [(67,)]
        assert con.execute("SELECT count(*) FROM revisions").fetchall() == [(64,)]


def test_what_was_written_before_can_be_restored_after(lake: Path) -> None:
    migrate(str(lake))
    store = Store.open(str(lake), ManualClock(NOW))

    store.restore(3)
    store.vacuum()

    assert store.bars(symbols=None, freq=Freq.D1).num_rows == 67


def test_the_new_lake_shares_no_file_that_may_change(lake: Path) -> None:
    migrate(str(lake))
    store = Store.open(str(lake), ManualClock(NOW))
    kept = lake.with_name("lake.format1")
    before = files(kept)

    rows = store.bars(symbols=["600519.SH"], freq=Freq.D1).select(INCOMING.names)
    later = pa.array([NOW] * rows.num_rows, INCOMING.field("fetched_at").type)
    lower = pa.array([1.0] * rows.num_rows)
    place = {name: i for i, name in enumerate(rows.column_names)}
    changed = rows.set_column(place["low"], "low", lower).set_column(place["fetched_at"], "fetched_at", later)
    store.upsert(changed.cast(INCOMING))
    store.compact()
    store.raw.seal()
    store.clock.wait(30 * 86_400)
    store.vacuum()

    assert files(kept) == before


def test_a_reader_of_the_old_format_that_knows_the_newest_manifest_finds_a_newer(lake: Path) -> None:
    newest = max(int(p.stem) for p in lake.glob("_manifest/*.json"))

    migrate(str(lake))

    assert [int(p.stem) for p in lake.glob("_manifest/*.json")] == [newest + 1]


def test_a_lake_of_this_format_is_left_as_it_is(lake: Path) -> None:
    migrate(str(lake))
    before = files(lake)

    again = migrate(str(lake))

    assert (again.kept, again.found, again.format) == ("", FORMAT, FORMAT)
    assert files(lake) == before and leftovers(lake) == ["lake", "lake.format1"]


def test_a_lake_of_a_later_format_and_no_lake_are_told_apart(lake: Path, tmp_path: Path) -> None:
    (lake / "klake-lake.json").write_text(
        json.dumps({"id": "x", "format": 99, "origin": "real", "created_at": NOW.isoformat()})
    )

    with pytest.raises(LakeTooNew):
        migrate(str(lake))
    with pytest.raises(LakeError, match="no lake here"):
        migrate(str(tmp_path / "nothing"))


def steps(lake: Path) -> list[str]:
    """The changes to the disk that a migration of `lake` makes, of a copy."""
    told: list[str] = []
    copy = lake.with_name("copy") / "lake"
    shutil.copytree(lake, copy)
    migrate(str(copy), told.append)
    shutil.rmtree(copy.parent)
    return told


def killed_at(lake: Path, place: int) -> str:
    """Migrate until the change number `place`; return what that would have been."""
    count = 0

    def said(what: str) -> None:
        nonlocal count
        if count == place:
            raise Killed(what)
        count += 1

    with pytest.raises(Killed) as stopped:
        migrate(str(lake), said)
    return str(stopped.value)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.proof)])
@pytest.mark.parametrize("next_run", ["migrate", "open"])
def test_killed_at_any_step_the_next_run_ends_with_the_same_lake(
    lake: Path, next_run: str, every: int
) -> None:
    before, old, count = contents(lake), files(lake), len(steps(lake))
    kept = lake.with_name("lake.format1")
    pristine = lake.with_name("pristine")
    lake.rename(pristine)

    for place in sorted({*range(0, count, every), *range(count - 4, count)}):  # the last are the swap
        shutil.copytree(pristine, lake)
        what = killed_at(lake, place)
        swapped = not lake.exists() or what.startswith("forget")
        assert files(kept if swapped else lake) == old, what
        if next_run == "migrate" or not swapped:
            migrate(str(lake))
        else:
            Store.open(str(lake), ManualClock(NOW))  # any verb does the rename that is left

        assert contents(lake) == before and files(kept) == old, what
        assert leftovers(lake) == ["lake", "lake.format1"], what
        assert Store.open(str(lake), ManualClock(NOW)).bars(symbols=None, freq=Freq.D1).num_rows == 67
        shutil.rmtree(lake)
        shutil.rmtree(kept)
    assert count > 30


KILLED = """
import os, sys
from klake.storage.migrate import migrate
left = int(sys.argv[2])
def said(what):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
migrate(sys.argv[1], said)
"""


@pytest.mark.parametrize("every", [30, pytest.param(1, marks=pytest.mark.proof)])
def test_a_process_that_dies_leaves_what_the_next_can_finish(lake: Path, every: int) -> None:
    before, count = contents(lake), len(steps(lake))
    pristine = lake.with_name("pristine")
    lake.rename(pristine)

    for place in sorted({*range(0, count, every), count - 2, count - 1}):
        shutil.copytree(pristine, lake)
        died = subprocess.run([sys.executable, "-c", KILLED, str(lake), str(place)], check=False)
        migrate(str(lake))

        assert died.returncode == 9 and contents(lake) == before
        assert leftovers(lake) == ["lake", "lake.format1"]
        shutil.rmtree(lake)
        shutil.rmtree(lake.with_name("lake.format1"))


def test_a_lake_at_work_is_not_migrated(lake: Path) -> None:
    before = files(lake)
    raw = RawZone(str(lake), ManualClock(NOW))
    page = next(iter(raw.pages()))

    def refused(name: str) -> None:
        with pytest.raises(LakeError, match=rf"another process .* \(it holds {name}"):
            migrate(str(lake))

    for name in ("_spool/commit.lock", "_spool/keep.lock", "_state/sync-bf47c671659ecef5.lock"):
        with FileLock(str(lake / name)):
            refused(name)
    with claim(str(lake), 1):
        refused("_spool/claims")
    assert files(lake) == before
    raw.append([page])
    refused("_spool/qos")
    raw.seal()

    assert migrate(str(lake)).kept


def commits_beside(lake: Path, when: str) -> Callable[[str], None]:
    """An old klake that waited long enough for its turn: it commits without one."""

    left = [None]

    def said(what: str) -> None:
        if left and (what == when if when == "rename lake" else what.startswith(when)):
            left.pop()
            log = DeltaLog(str(lake), TABLES["bars"])
            log.version()
            log.commit([], [], None, 0)

    return said


@pytest.mark.parametrize("when", ["link bars", "verify", "mark", "rename lake"])
def test_a_write_during_a_migration_undoes_it(lake: Path, when: str) -> None:
    with pytest.raises(LakeError, match="during the migration, which was undone"):
        migrate(str(lake), commits_beside(lake, when))

    assert leftovers(lake) == ["lake"]
    migrate(str(lake))
    assert contents(lake)["bars"][0] == 4


def test_a_write_before_a_cut_off_swap_is_not_lost(lake: Path) -> None:
    count = len(steps(lake))
    killed_at(lake, count - 2)  # the old lake has its new name, the new one not yet
    assert leftovers(lake) == ["lake.format1", "lake.migrating"]
    commits_beside(lake.with_name("lake.format1"), "")("")

    with pytest.raises(LakeTooOld):
        Store.open(str(lake), ManualClock(NOW))

    migrate(str(lake))
    assert contents(lake)["bars"][0] == 4
    assert leftovers(lake) == ["lake", "lake.format1"]


def test_several_who_finish_a_cut_off_swap_at_once_all_find_the_lake(lake: Path) -> None:
    killed_at(lake, len(steps(lake)) - 2)
    found: list[int] = []

    def opens() -> None:
        found.append(Store.open(str(lake), ManualClock(NOW)).bars(symbols=None, freq=Freq.D1).num_rows)

    threads = [threading.Thread(target=opens) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert found == [67] * 4


def test_where_links_cannot_be_made_files_are_copied(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(lake)
    told: list[str] = []
    link = os.link

    def refuses(source: Any, target: Any, **_: Any) -> None:
        if str(target).endswith((".parquet", ".kraw")):
            raise PermissionError("no hard links on this disk")
        link(source, target)

    monkeypatch.setattr(os, "link", refuses)
    migrate(str(lake), told.append)

    assert contents(lake) == before
    assert sum(what.startswith("link") for what in told) == 1
    assert all(p.stat().st_nlink == 1 for p in lake.rglob("*.parquet"))


def test_a_damaged_file_stops_the_migration_and_nothing_is_changed(lake: Path) -> None:
    torn = next(lake.glob("bars/era=past/*/*/*/*.parquet"))
    torn.write_bytes(torn.read_bytes()[:100])
    before = files(lake)

    with pytest.raises(LakeDamaged, match="cannot be read"):
        migrate(str(lake))

    assert files(lake) == before and leftovers(lake) == ["lake"]


def test_a_step_that_loses_a_row_is_found_out(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loses(built: Path) -> None:
        log = DeltaLog(str(built), TABLES["bars"])
        log.version()
        log.commit([], [path for path in log.paths() if "era=past" in path][:1], None, 0)

    monkeypatch.setitem(rebuild.STEPS, 1, loses)

    with pytest.raises(LakeDamaged, match="bars does not hold the rows"):
        migrate(str(lake))
    assert leftovers(lake) == ["lake"]


def test_what_stands_in_the_way_is_named_and_kept(lake: Path) -> None:
    (lake.with_name("lake.migrating")).mkdir()
    (lake.with_name("lake.migrating") / "mine.txt").write_text("mine")
    lake.with_name("lake.format1").mkdir()

    with pytest.raises(LakeError, match=r"lake\.migrating: this folder is in the way"):
        migrate(str(lake))
    assert (lake.with_name("lake.migrating") / "mine.txt").exists()
    shutil.rmtree(lake.with_name("lake.migrating"))

    assert migrate(str(lake)).kept.endswith("lake.format1-2")


def test_a_lake_without_manifest_catalog_or_state_migrates_too(lake: Path) -> None:
    before = contents(lake)
    shutil.rmtree(lake / "_manifest")
    (lake / "_state" / "state.sqlite").write_bytes(b"no database")

    migrate(str(lake))

    assert contents(lake) == before


def of_today(path: Path) -> Store:
    """A lake of several partitions and dead files, written by this klake, set back to format 1."""
    store = Store.open(str(path), ManualClock(NOW), create=True)
    for number in range(4):
        at = NOW + timedelta(hours=number)
        rows = [
            {"vendor": vendor, "freq": "1d", "symbol": symbol, "session": day, "volume": 1.0, "flags": 0, "open": 9.0,
             "ts": datetime(day.year, day.month, day.day, 1, 30, tzinfo=UTC), "high": 20.0, "low": 1.0,
             "close": 10.0 + number, "amount": None, "state": "final", "fetched_at": at}
            for vendor in ("qos", "mm") for symbol in ("A.US", "B.US")
            for day in (datetime(2024 + n, 1, 5).date() for n in range(3))
        ]  # fmt: skip
        store.upsert(pa.Table.from_pylist(rows, schema=INCOMING))
    for stored in (path / "klake-lake.json", *path.glob("_manifest/*.json")):
        stored.write_text(json.dumps({**json.loads(stored.read_text()), "format": 1}))
    return store


def test_a_lake_of_many_partitions_migrates_with_its_dead_files(tmp_path: Path) -> None:
    of_today(tmp_path / "lake")
    before = contents(tmp_path / "lake")
    data = sorted(p.name for p in (tmp_path / "lake").rglob("*.parquet") if p.name[0] == "0")

    done = migrate(str(tmp_path / "lake"))

    store = Store.open(str(tmp_path / "lake"), ManualClock(NOW + timedelta(days=1)))
    assert contents(tmp_path / "lake") == before and done.rows["bars"] == 12 + 36
    assert sorted(p.name for p in (tmp_path / "lake").rglob("*.parquet") if p.name[0] == "0") == data
    with store.connect() as con:
        assert con.sql("SELECT count(*) FROM revisions").fetchall() == [(36,)]
        assert con.sql("SELECT count(DISTINCT vendor) FROM bars").fetchall() == [(2,)]


def test_the_verb_migrates_and_doctor_says_how(klake: Klake, stand: Stand, lake: Path) -> None:
    target = stand.folder / "lake"
    if target != lake:
        shutil.move(lake, target)

    told = klake("doctor")
    refused = klake("sync")
    done = klake("doctor", "--migrate")
    again = klake("doctor", "--migrate", "--json")

    assert (told.code, refused.code, done.code) == (1, 2, 0)
    assert "-> klake doctor --migrate" in told.out
    assert "klake doctor --migrate" in refused.sentence
    assert "format 1 became 2, 136 rows compared" in done.out and "lake.format1: delete it" in done.err
    assert again.json["kept"] == "" and again.json["rows"]["bars"] == 131
    assert klake("sync").code == 0
