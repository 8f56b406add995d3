"""History and restore: what was committed, and the way back."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable
from test_compact import JAN, day_bars, everything

from klake.errors import BadRequest, LakeError
from klake.schemas.clock import ManualClock
from klake.storage.store import Store

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


def test_history_tells_what_each_commit_was(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, JAN, 20))
    clock.wait(60)
    store.upsert(day_bars(3, JAN, 20, clock.now(), close=11.0))

    newest, before, made = store.history()

    assert (newest.version, newest.operation, newest.rows, newest.at) == (2, "upsert", 60, clock.now())
    assert (before.version, before.rows, before.restorable) == (1, 60, True)
    assert (made.version, made.operation) == (0, "create table")
    assert [v.version for v in store.history(1)] == [2]


def test_restoring_is_a_new_commit_that_holds_what_the_old_one_held(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, JAN, 20))
    good = everything(store)
    clock.wait(60)
    store.upsert(day_bars(5, JAN, 30, clock.now(), close=11.0))
    bad = everything(store)

    made = store.restore(1)

    assert bad != good and everything(store) == good
    assert (made, store.history(1)[0].operation) == (3, "restore 1")
    assert DeltaTable(f"{store.path}/bars").to_pyarrow_table().num_rows == 60


def test_a_restore_can_be_undone_and_written_upon(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, JAN, 20))
    clock.wait(60)
    store.upsert(day_bars(5, JAN, 30, clock.now(), close=11.0))
    bad = everything(store)
    store.restore(1)

    store.restore(2)
    undone = everything(store)
    clock.wait(60)
    report = store.upsert(day_bars(5, JAN, 31, clock.now(), close=11.0))

    assert undone == bad and (report.new, report.same) == (5, 150)


def test_restoring_what_is_there_makes_no_commit(store: Store) -> None:
    store.upsert(day_bars(3, JAN, 20))

    assert store.restore(1) == 1 and len(store.history()) == 2


def test_a_version_whose_files_are_gone_is_refused(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, date(2026, 11, 1), 20))
    clock.wait(60)
    store.upsert(day_bars(3, date(2026, 11, 1), 20, clock.now(), close=11.0))
    clock.wait(2 * 3600)
    store.vacuum()
    rows = everything(store)

    with pytest.raises(LakeError, match=r"1 of its files are deleted.*klake history"):
        store.restore(1)

    assert [v.restorable for v in store.history(2)] == [True, False] and everything(store) == rows


def test_a_version_that_never_was_is_refused(store: Store) -> None:
    with pytest.raises(BadRequest, match="klake history"):
        store.restore(99)


def test_what_was_brought_back_survives_the_next_vacuum(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, date(2026, 11, 1), 20))
    good = everything(store)
    clock.wait(60)
    store.upsert(day_bars(3, date(2026, 11, 1), 20, clock.now(), close=11.0))
    store.restore(1)

    clock.wait(30 * 86_400)
    store.vacuum()

    assert everything(store) == good


def test_the_log_reaches_over_checkpoints(store: Store, clock: ManualClock) -> None:
    for n in range(105):
        clock.wait(1)
        store.upsert(day_bars(1, JAN, 1, clock.now(), close=10.0 + n % 2, state="open"))

    found = store.history(1000)
    con = store.connect()

    assert len(found) == 106 and found[0].rows == 1
    assert any("checkpoint" in p.name for p in (Path(store.path) / "bars" / "_delta_log").iterdir())
    assert con.sql("SELECT count(*) FROM bars").fetchall() == [(1,)]
    con.close()
    assert store.restore(40) == 106 and store.version_of("bars") == 106
