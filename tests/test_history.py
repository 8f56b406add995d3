"""History and restore: what was committed, and the way back, which is a step forward."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from test_compact import JAN, day_bars, everything
from test_upsert import bar, batch

from klake.errors import BadRequest, LakeError
from klake.schemas.bar import Flag
from klake.schemas.clock import ManualClock
from klake.schemas.coverage import Series
from klake.schemas.freq import Freq
from klake.schemas.span import Span
from klake.storage.publisher import Publisher
from klake.storage.restore import Hole
from klake.storage.store import Store
from klake.storage.writer import Writer

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ask(store: Store, query: str, **params: Any) -> list[tuple[Any, ...]]:
    con = store.connect()
    try:
        return con.sql(query, params=params).fetchall()
    finally:
        con.close()


def as_of(store: Store, at: datetime) -> list[tuple[Any, ...]]:
    return ask(store, "SELECT symbol, session, close, state FROM bars_as_of($at) ORDER BY ALL", at=at)


def told(store: Store) -> list[dict[str, Any]]:
    """The bars of a lake, whenever they became known."""
    rows: list[dict[str, Any]] = everything(store)["bars"]
    return [{name: value for name, value in row.items() if name != "known_at"} for row in rows]


def files(store: Store, era: str = "current") -> set[str]:
    return {file.path for file in store.snapshot().of("bars") if f"era={era}/" in file.path}


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
    good = told(store)
    clock.wait(60)
    store.upsert(day_bars(5, JAN, 30, clock.now(), close=11.0))
    bad = told(store)
    clock.wait(60)

    done = store.restore(1)

    assert bad != good and told(store) == good
    assert (done.version, done.changed, done.returned, done.withdrawn) == (3, 60, 0, 90)
    assert (store.history(1)[0].operation, store.history(1)[0].rows) == ("restore 1", 60)
    assert ask(store, "SELECT DISTINCT known_at FROM bars") == [(clock.now(),)]


def test_what_was_known_before_a_restore_is_known_for_ever(store: Store, clock: ManualClock) -> None:
    instants = [clock.now()]
    store.upsert(day_bars(3, JAN, 20))
    for close in (11.0, 12.0):
        clock.wait(60)
        instants.append(clock.now())
        store.upsert(day_bars(5, JAN, 30, clock.now(), close=close))
    known = [as_of(store, at) for at in instants]
    clock.wait(60)

    store.restore(1)

    assert [as_of(store, at) for at in instants] == known and len(known[1]) == 150
    assert as_of(store, clock.now()) == known[0]


def test_a_restore_can_be_undone_and_written_upon(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(3, JAN, 20))
    clock.wait(60)
    store.upsert(day_bars(5, JAN, 30, clock.now(), close=11.0))
    bad = told(store)
    store.restore(1)

    done = store.restore(2)
    undone = told(store)
    clock.wait(60)
    report = store.upsert(day_bars(5, JAN, 31, clock.now(), close=11.0))

    assert undone == bad and (done.changed, done.returned, done.withdrawn) == (60, 90, 0)
    assert (report.new, report.same) == (5, 150)


def test_a_withdrawn_bar_is_a_tombstone_of_the_past_and_a_revision_without_a_successor(
    store: Store, clock: ManualClock
) -> None:
    store.upsert(batch(bar(10)))

    clock.wait(60)
    store.restore(0)

    past = DeltaTable(f"{store.path}/bars").to_pyarrow_table().select(["era", "close", "flags", "known_at"])
    assert sorted(tuple(row.values()) for row in past.to_pylist()) == [
        ("past", 10.0, 0, NOW), ("past", 10.0, Flag.WITHDRAWN, clock.now())
    ]  # fmt: skip
    assert ask(store, "SELECT close, new_close, new_state, replaced_at FROM revisions") == [
        (10.0, None, None, clock.now())
    ]
    assert store.bars(symbols=None, freq=Freq.D1).num_rows == 0


def test_a_withdrawn_bar_that_a_sync_brings_again_has_a_gap_in_its_history(
    store: Store, clock: ManualClock
) -> None:
    store.upsert(batch(bar(10)))
    for step in (lambda: store.restore(0), lambda: store.upsert(batch(bar(11, NOW + HOUR))), store.compact):
        clock.wait(60)
        step()

    closes = [
        [row[2] for row in as_of(store, NOW + timedelta(seconds=at))] for at in (-1, 0, 59, 60, 119, 120)
    ]

    assert closes == [[], [10.0], [10.0], [], [], [11.0]]
    assert ask(store, "SELECT close, new_close FROM revisions") == [(10.0, None)]


def test_an_open_bar_that_comes_back_hides_the_closed_one_and_leaves_no_history_itself(
    store: Store, clock: ManualClock
) -> None:
    store.upsert(batch(bar(10, state="open"), bar(10, symbol="AAPL.US")))
    clock.wait(60)
    store.upsert(batch(bar(11, NOW + HOUR, "closed")))
    clock.wait(60)
    store.restore(1)
    forming = ask(store, "SELECT close, new_close FROM revisions")
    clock.wait(60)
    store.upsert(batch(bar(12, NOW + HOUR, "final")))

    closes = [[row[2] for row in as_of(store, NOW + timedelta(seconds=at))] for at in (0, 60, 120, 180)]

    assert closes == [[10.0], [11.0, 10.0], [10.0], [12.0, 10.0]]
    assert forming == ask(store, "SELECT close, new_close FROM revisions") == [(11.0, None)]
    assert ask(store, "SELECT count(*) FROM revisions WHERE state = 'open'") == [(0,)]


def test_an_open_bar_that_goes_leaves_nothing(store: Store) -> None:
    store.upsert(batch(bar(10, state="open")))

    done = store.restore(0)

    assert done.withdrawn == 1 and store.snapshot().of("bars") == []


def test_a_restore_rewrites_only_files_whose_bars_differ(store: Store, clock: ManualClock) -> None:
    days = [date(2024, 1, 3), date(2025, 1, 3), date(2026, 1, 5)]
    store.upsert(batch(*(bar(session=day) for day in days)))
    store.upsert(batch(*(bar(session=day, symbol="AAPL.US") for day in days[:1])))
    clock.wait(60)
    store.upsert(batch(bar(11, NOW + HOUR, session=days[2])))
    before = files(store)

    done = store.restore(2)

    kept = {path for path in before if "period=2026" not in path}
    assert (done.changed, done.withdrawn, done.returned) == (1, 0, 0)
    assert files(store) >= kept and len(kept) == 2 and len(files(store)) == 3


def test_going_back_over_a_compaction_alone_makes_no_commit(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tiers", "compact", "upsert"):
        monkeypatch.setattr(f"klake.storage.{module}.SMALL", 16)
    store.upsert(day_bars(4, date(2026, 9, 1), 81))
    before = files(store)
    clock.wait(20 * 86_400)
    store.compact()
    after = files(store)

    done = store.restore(1)

    assert len(before) == 2 and len(after) == 1
    assert (done.version, done.changed, files(store)) == (2, 0, after)


def test_each_stretch_of_sessions_that_loses_bars_is_told_before_they_go(
    store: Store, clock: ManualClock
) -> None:
    week = [date(2026, 11, day) for day in (9, 10, 11, 12, 13, 16, 17)]  # Monday to Tuesday
    store.upsert(batch(bar(session=week[2]), bar(session=week[5], state="closed")))
    clock.wait(60)
    store.upsert(batch(*(bar(session=day, at=NOW + HOUR) for day in week)))
    store.upsert(batch(bar(session=week[4], symbol="AAPL.US"), bar(11, NOW + 2 * HOUR, session=week[2])))
    seen: list[tuple[list[Hole], int]] = []

    store.restore(1, lambda holes: seen.append((list(holes), store.version_of("bars"))))

    [(holes, version)] = seen
    assert version == 3
    assert [(h.series.symbol, h.sessions) for h in holes] == [
        ("600519.SH", Span(week[0], week[2])),
        ("600519.SH", Span(week[3], date(2026, 11, 18))),  # the 16th is final no more
        ("AAPL.US", Span(week[4], date(2026, 11, 14))),
    ]  # the 11th keeps a final bar, if an older one
    assert holes[0].series == Series("qos", "600519.SH", Freq.D1)


def test_whoever_writes_in_between_makes_the_restore_start_afresh(store: Store, clock: ManualClock) -> None:
    store.upsert(batch(bar(10)))
    store.upsert(batch(bar(10, session=date(2026, 1, 6))))
    other = Writer(store.path, Publisher(store.path, clock), clock, takes_turns=False)
    seen: list[int] = []

    def meddle(holes: Sequence[Hole]) -> None:
        seen.append(sum((hole.sessions.end - hole.sessions.start).days for hole in holes))
        other.upsert(batch(bar(10, session=date(2026, 1, 7 + min(len(seen), 2)))))

    done = store.restore(1, meddle)

    assert seen == [1, 3, 4] and done.withdrawn == 3  # the third time the other one brought nothing new
    assert [row[1] for row in as_of(store, clock.now() + HOUR)] == [date(2026, 1, 5)]


def test_restoring_what_is_there_makes_no_commit(store: Store) -> None:
    store.upsert(day_bars(3, JAN, 20))

    assert store.restore(1).version == 1 and len(store.history()) == 2


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
    good = told(store)
    clock.wait(60)
    at = clock.now()
    store.upsert(day_bars(3, date(2026, 11, 1), 20, at, close=11.0))
    bad = as_of(store, at)
    store.restore(1)

    clock.wait(30 * 86_400)
    store.vacuum()

    assert told(store) == good and as_of(store, at) == bad


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
    assert store.restore(40).version == 106 and store.version_of("bars") == 106
