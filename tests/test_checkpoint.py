"""Checkpoints of the Delta logs: durable before they are named, every hundred commits, and old entries go."""

import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from klake.schemas.bar import INCOMING
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage import checkpoint
from klake.storage.checkpoint import checkpointed
from klake.storage.store import Store
from klake.storage.tables import TABLES, DeltaLog

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


def bar(day: date) -> pa.Table:
    return pa.Table.from_pylist(
        [{"vendor": "qos", "freq": "1d", "symbol": "600519.SH", "session": day, "volume": 1.0, "flags": 0,
          "ts": datetime(day.year, day.month, day.day, 1, 30, tzinfo=UTC), "open": 1.0, "high": 1.0, "low": 1.0,
          "close": 1.0, "amount": None, "state": "final", "fetched_at": NOW}], schema=INCOMING,
    )  # fmt: skip


@pytest.fixture
def table(store: Store) -> Path:
    return Path(store.path) / "bars"


def committed(store: Store, count: int) -> DeltaLog:
    """The log of `bars` after so many commits that change nothing."""
    log = DeltaLog(store.path, TABLES["bars"])
    for _ in range(count):
        log.version()
        log.commit([], [], log.last_known_at() + 1, 0)
    return log


def checkpoints(table: Path) -> list[int]:
    return sorted(int(p.name[:20]) for p in (table / "_delta_log").glob("*.checkpoint.parquet"))


def entries(table: Path) -> list[int]:
    return sorted(int(p.stem) for p in (table / "_delta_log").glob("*.json"))


def aged(table: Path, days: int, below: int = 10**9) -> None:
    at = time.time() - days * 86_400
    for path in (table / "_delta_log").iterdir():
        if path.name[0] == "0" and int(path.name[:20]) < below:
            os.utime(path, (at, at))


def test_every_hundred_commits_there_is_a_checkpoint_from_which_the_table_opens(
    store: Store, table: Path
) -> None:
    store.upsert(bar(date(2026, 1, 5)))

    log = committed(store, 210)

    assert checkpoints(table) == [99, 199] and checkpointed(table) == 199
    for number in range(150):  # what the newest checkpoint says is not needed twice
        (table / "_delta_log" / f"{number:020d}.json").unlink()
    opened = DeltaTable(str(table))
    assert (opened.version(), opened.to_pyarrow_table().num_rows) == (211, 1)
    assert opened.transaction_version("known_at") == log.last_known_at()


def test_a_checkpoint_is_durable_before_anything_names_it(
    store: Store, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(store, 98)
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(fd: int) -> None:
        events.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
        fsync(fd)

    def placed(self: Path, target: Any) -> Path:
        events.append(("place", Path(target).name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", placed)
    committed(store, 1)

    name = f"{99:020d}.checkpoint.parquet"
    assert events[-6:] == [
        ("fsync", name), ("place", name), ("fsync", "_delta_log"),
        ("fsync", "_last_checkpoint"), ("place", "_last_checkpoint"), ("fsync", "_delta_log"),
    ]  # fmt: skip


@pytest.mark.parametrize("place", range(3))
def test_a_crash_while_a_checkpoint_is_made_costs_nothing(
    store: Store, table: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    class Killed(BaseException):
        pass

    def dies(*_: Any) -> None:
        raise Killed

    committed(store, 98)
    with monkeypatch.context() as patch:
        original = checkpoint._place
        calls = [original] * (place - 1) + [dies]
        if place == 0:
            patch.setattr(checkpoint, "_make", dies)
        else:
            patch.setattr(checkpoint, "_place", lambda *args: calls.pop(0)(*args))
        with pytest.raises(Killed):
            committed(store, 1)

    assert DeltaTable(str(table)).version() == 99
    committed(store, 1)
    assert checkpoints(table)[-1] == (99 if place == 2 else 100)
    assert DeltaTable(str(table)).version() == 100
    committed(store, 100)
    assert checkpoints(table)[-1] >= 199
    assert not (Path(store.path) / "_spool" / "checkpoint").exists()


def test_entries_older_than_a_month_go_when_a_checkpoint_says_what_they_said(
    store: Store, table: Path, clock: ManualClock
) -> None:
    for number in range(3):
        store.upsert(bar(date(2026, 1, 5) + timedelta(days=number)))
    early, log = DeltaLog(store.path, TABLES["bars"]), committed(store, 205)
    early.version()
    aged(table, 40, below=190)

    committed(store, 95)

    assert entries(table)[0] == 99  # of the newest checkpoint that was old enough
    assert early.version() == log.version() == 303
    assert store.bars(symbols=None, freq=Freq.D1).num_rows == 3
    assert store.history(1000)[-1].version == 99
    assert not store.vacuum().paths
    assert Store.open(store.path, clock).bars(symbols=None, freq=Freq.D1).num_rows == 3


def test_younger_entries_stay_for_history_and_restore(store: Store, table: Path) -> None:
    store.upsert(bar(date(2026, 1, 5)))
    aged(table, 20)

    committed(store, 220)

    assert entries(table) == list(range(222))
    assert len(store.history(1000)) == 222


def test_a_checkpoint_whose_name_is_lost_is_found_again(store: Store, table: Path) -> None:
    committed(store, 105)
    (table / "_delta_log" / "_last_checkpoint").unlink()

    committed(store, 95)

    assert checkpoints(table) == [99, 199]
    assert DeltaTable(str(table)).version() == 200
