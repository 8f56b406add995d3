"""The state: opened by many at once, replaced when damaged, rebuilt when it is of another lake."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect, text, update

from klake.errors import LakeDamaged, LakeTooNew, LakeUnwritable
from klake.schemas.clock import ManualClock
from klake.schemas.coverage import Covered, Reason, Series, Standing
from klake.schemas.freq import Freq
from klake.schemas.report import Parked, RunReport, WriteReport
from klake.schemas.span import Span
from klake.storage.coverage import Ledger
from klake.storage.disk import network_of, set_aside
from klake.storage.runs import Run, Runs, run_id
from klake.storage.state import TAG, State, from_us, migrate, to_us

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)


def one_day(symbol: str, standing: Standing = Standing.FINAL) -> Covered:
    days = Span(date(2026, 11, 2), date(2026, 11, 3))
    return Covered(Series("qos", symbol, Freq.D1), days, standing, Reason.NONE, "p", "p", NOON)


def test_a_new_state_is_tagged_with_its_lake_and_keeps_the_tag(tmp_path: Path) -> None:
    state = State.open(tmp_path / "below" / "state.sqlite", "lake-1")
    fresh = state.tag()
    state.set_tag("lake-1", 7)
    state.close()

    again = State.open(tmp_path / "below" / "state.sqlite", "lake-2")

    assert fresh == ("lake-1", 0)
    assert again.tag() == ("lake-1", 7)
    assert (again.matches("lake-1"), again.matches("lake-2")) == (True, False)
    assert (again.matches("lake-1", 7), again.matches("lake-1", 6)) == (True, False)
    assert again.broken is None


def test_a_url_opens_the_same_file_as_its_path(tmp_path: Path) -> None:
    State.open(f"sqlite:///{tmp_path}/state.sqlite", "lake").set_tag("lake", 3)

    assert State.open(str(tmp_path / "state.sqlite"), "lake").tag() == ("lake", 3)


def test_a_reset_forgets_everything_and_takes_the_new_lakes_name(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.sqlite", "old")
    ledger, runs = Ledger(state), Runs(state)
    ledger.record([one_day("600519.SH")])
    ledger.park(Series("qos", "600519.SH", Freq.D1), "no right", None)
    ledger.set_fact("qos", "end_honoured", "yes", NOON)
    runs.start("r1", "daily", "qos", NOON)

    state.reset("new")

    assert state.tag() == ("new", 0)
    assert ledger.table().num_rows == 0
    assert (ledger.parked(), ledger.fact("qos", "end_honoured"), runs.last()) == ({}, None, [])


def test_a_file_that_is_no_database_is_set_aside_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"what a full disk left behind " * 200)
    (tmp_path / "state.sqlite.broken-1").write_text("an earlier one")

    state = State.open(path, "lake")

    assert state.broken == tmp_path / "state.sqlite.broken-2"
    assert state.broken.read_bytes().startswith(b"what a full disk")
    assert state.tag() == ("lake", 0)
    Ledger(state).record([one_day("600519.SH")])
    assert State.open(path, "lake").broken is None


def test_a_database_that_is_set_aside_takes_its_log_along(tmp_path: Path) -> None:
    for tail in ("", "-wal", "-shm"):
        (tmp_path / f"state.sqlite{tail}").write_text(tail)

    moved = set_aside(tmp_path / "state.sqlite")

    assert sorted(p.name for p in tmp_path.iterdir()) == [
        moved.name,
        f"{moved.name}-shm",
        f"{moved.name}-wal",
    ]


def test_a_database_with_torn_pages_is_set_aside_with_its_log_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = State.open(path, "lake")
    Ledger(state).record([one_day(f"{n:06d}.SZ") for n in range(3000)])
    state.close()
    torn = bytearray(path.read_bytes())
    torn[8192 : len(torn) // 2] = os.urandom(len(torn) // 2 - 8192)
    path.write_bytes(torn)

    replaced = State.open(path, "lake")

    assert replaced.broken is not None
    assert Ledger(replaced).table().num_rows == 0


def test_damage_that_shows_only_in_use_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    first = State.open(path, "lake")
    Ledger(first).record([one_day(f"{n:06d}.SZ") for n in range(3000)])
    first.close()
    state = State.open(path, "lake")
    state.close()
    torn = bytearray(path.read_bytes())
    torn[4096:] = os.urandom(len(torn) - 4096)
    path.write_bytes(torn)

    with pytest.raises(LakeDamaged, match="open it again"):
        Ledger(state).table()


def test_a_state_of_a_later_klake_is_left_alone(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.sqlite", "lake")
    with state.writing() as connection:
        connection.execute(update(TAG).values(schema=99))

    with pytest.raises(LakeTooNew, match="99"):
        State.open(tmp_path / "state.sqlite", "lake")


def test_migrations_take_the_steps_that_are_missing_and_no_other(tmp_path: Path) -> None:
    state, taken = State.open(tmp_path / "state.sqlite", "lake"), list[int]()
    steps = [lambda c, n=n: taken.append(n) for n in (2, 3, 4)]  # type: ignore[misc]

    with state.writing() as connection:
        reached = migrate(connection, 2, steps)

    assert (reached, taken) == (4, [3, 4])


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(LakeUnwritable, match="file"):
        State.open(tmp_path / "file" / "state.sqlite", "lake")


def test_the_database_is_set_up_for_many_readers_beside_a_writer(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.sqlite", "lake")

    with state.reading() as connection:
        answers = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]

    assert answers == ["wal", 1, 1, 30_000]


def test_a_reader_sees_one_instant_while_somebody_writes(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.sqlite", "lake")
    other = State.open(tmp_path / "state.sqlite", "lake")

    with state.reading() as connection:
        before = connection.execute(text("SELECT count(*) FROM coverage")).scalar()
        Ledger(other).record([one_day("600519.SH")])
        during = connection.execute(text("SELECT count(*) FROM coverage")).scalar()

    assert (before, during) == (0, 0)
    assert Ledger(state).table().num_rows == 1


def test_a_write_that_fails_half_way_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.sqlite", "lake")

    with pytest.raises(RuntimeError), state.writing() as connection:
        connection.execute(text("UPDATE tag SET version = 5"))
        raise RuntimeError

    assert state.tag() == ("lake", 0)


WRITER = """
import sys
from datetime import UTC, date, datetime, timedelta
from klake.schemas.coverage import Covered, Reason, Series, Standing
from klake.schemas.freq import Freq
from klake.schemas.span import Span
from klake.storage.coverage import Ledger
from klake.storage.state import State

mine = int(sys.argv[2])
ledger = Ledger(State.open(sys.argv[1], "lake"))
series = Series("qos", "600519.SH", Freq.D1)
for n in range(40):
    start = date(2020, 1, 1) + timedelta(days=2 * n + mine)
    at = datetime(2026, 11, 20, tzinfo=UTC)
    ledger.record([Covered(series, Span(start, start + timedelta(days=1)), Standing.FINAL, Reason.NONE, "p", "p", at)])
"""


def test_two_processes_that_record_on_one_series_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"

    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(mine)]) for mine in range(2)]
    codes = [writer.wait() for writer in writers]

    series = Series("qos", "600519.SH", Freq.D1)
    (whole,) = Ledger(State.open(path, "lake")).covered([series])[series]
    assert codes == [0, 0]
    assert whole.sessions == Span(date(2020, 1, 1), date(2020, 1, 1) + timedelta(days=80))


def test_threads_share_one_open_state(tmp_path: Path) -> None:
    ledger = Ledger(State.open(tmp_path / "state.sqlite", "lake"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.record([one_day(f"{n:06d}.SZ")]), range(60)))

    assert ledger.table().num_rows == 60


def test_a_table_that_somebody_dropped_is_named_as_damage(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.sqlite", "lake")
    with state.writing() as connection:
        connection.execute(text("DROP TABLE coverage"))

    with pytest.raises(LakeDamaged, match="coverage"):
        Ledger(state).table()


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
nas:/export /home nfs4 rw 0 0
/dev/sdb1 /home/me/fast\\040disk xfs rw 0 0
systemd-1 /mnt/share autofs rw 0 0
//nas/share /mnt/share cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lake/state.sqlite", ""),
        ("/home/me/state.sqlite", "nfs4"),
        ("/home/me/fast disk/state.sqlite", ""),
        ("/homeless/state.sqlite", ""),
        ("/mnt/share/lake/state.sqlite", "cifs"),
        (r"\\\\nas\\share\\state.sqlite", "smb"),
    ],
)
def test_a_network_file_system_is_found_out(path: str, kind: str) -> None:
    assert network_of(Path(path), MOUNTS) == kind


def test_a_state_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nnas:/lake {tmp_path}/nas nfs4 rw 0 0\n")
    monkeypatch.setattr("klake.storage.disk._MOUNTS", mounts)

    with pytest.raises(LakeUnwritable, match=r"network file system \(nfs4\).*local"):
        State.open(tmp_path / "nas" / "state.sqlite", "lake")


@given(st.integers(-(10**15), 4 * 10**15))
def test_instants_keep_their_microseconds(us: int) -> None:
    assert to_us(from_us(us)) == us
    assert to_us(NOON.astimezone()) == to_us(NOON)


def test_run_ids_sort_by_start_and_differ(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    first, twin = run_id(clock), run_id(clock)
    clock.wait(1)
    later = run_id(clock, lambda n: b"\xab\x12\xcd"[:n])

    assert first != twin
    assert later == "20261120T120001-ab12cd"
    assert max(first, twin) < later


def report(run: str, job: str = "daily") -> RunReport:
    return RunReport(
        run, job, "qos", expected=5, stored=3, empty={"halt": 2}, written=WriteReport(new=3, version=9),
        parked=[Parked("600519.SH", "1d", "no right", NOON), Parked("00700.HK", "1m", "none", None)], error="halb",
    )  # fmt: skip


def test_a_finished_run_gives_its_whole_report_back(tmp_path: Path) -> None:
    runs = Runs(State.open(tmp_path / "state.sqlite", "lake"))
    runs.start("r1", "daily", "qos", NOON)

    runs.finish(report("r1"), NOON + timedelta(seconds=9))

    assert runs.last() == [Run("r1", "daily", "qos", NOON, NOON + timedelta(seconds=9), report("r1"))]
    assert runs.interrupted() == []


def test_runs_come_newest_first_and_by_job(tmp_path: Path) -> None:
    runs = Runs(State.open(tmp_path / "state.sqlite", "lake"))
    for n in range(5):
        runs.start(f"r{n}", "daily" if n % 2 else "minutes", "qos", NOON + timedelta(hours=n))

    assert [run.run for run in runs.last(n=3)] == ["r4", "r3", "r2"]
    assert [run.run for run in runs.last("daily")] == ["r3", "r1"]


def test_a_run_that_never_finished_is_told_until_it_is_begun_anew_and_done(tmp_path: Path) -> None:
    runs = Runs(State.open(tmp_path / "state.sqlite", "lake"))
    runs.start("r1", "daily", "qos", NOON)
    runs.start("r2", "daily", "qos", NOON + timedelta(hours=1))
    runs.finish(report("r2"), NOON + timedelta(hours=2))

    cut_off = runs.interrupted()
    runs.start("r1", "daily", "qos", NOON + timedelta(hours=3))
    runs.finish(report("r1"), NOON + timedelta(hours=4))

    assert cut_off == [Run("r1", "daily", "qos", NOON, None, None)]
    assert runs.interrupted() == []


def test_the_report_of_a_run_whose_beginning_was_lost_is_kept(tmp_path: Path) -> None:
    runs = Runs(State.open(tmp_path / "state.sqlite", "lake"))

    runs.finish(report("r1"), NOON)

    assert runs.last() == [Run("r1", "daily", "qos", NOON, NOON, report("r1"))]


def test_every_table_of_the_room_is_made(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.sqlite", "lake")

    with state.reading() as connection:
        made = set(inspect(connection).get_table_names())

    assert made == {"coverage", "facts", "parked", "runs", "tag"}
