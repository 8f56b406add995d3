"""Compaction: files fold into their tiers, no row changes, beside writers and readers."""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klake.errors import LakeDamaged, LakeError
from klake.jobs.maintain import maintain
from klake.schemas.bar import INCOMING
from klake.schemas.clock import ManualClock
from klake.storage import compact, rolling, tiers
from klake.storage.store import Store

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
JAN = date(2026, 1, 5)


def day_bars(
    symbols: int, first: date, days: int, at: datetime = NOW, close: float = 10.0, state: str = "final"
) -> pa.Table:
    """Daily bars of `symbols` symbols on `days` days."""
    sessions = [first + timedelta(days=n) for n in range(days)]
    names = [f"{n:06d}.SZ" for n in range(symbols)]
    n = symbols * days
    columns: dict[str, Any] = {
        "vendor": ["qos"] * n, "freq": ["1d"] * n, "symbol": [name for name in names for _ in sessions],
        "ts": [datetime(d.year, d.month, d.day, 1, 30, tzinfo=UTC) for d in sessions] * symbols,
        "session": sessions * symbols, "open": [10.0] * n, "high": [20.0] * n, "low": [1.0] * n,
        "close": [close] * n, "volume": [100.0] * n, "amount": [None] * n, "state": [state] * n,
        "flags": [0] * n, "fetched_at": [at] * n,
    }  # fmt: skip
    return pa.table(columns, schema=INCOMING)


def everything(store: Store) -> dict[str, list[dict[str, Any]]]:
    con = store.connect()
    try:
        return {
            view: con.sql(f"SELECT * FROM {view} ORDER BY ALL").to_arrow_table().to_pylist()
            for view in ("bars", "revisions")
        }
    finally:
        con.close()


def spans(store: Store) -> list[tuple[int, str, str]]:
    day = date(1970, 1, 1)
    return sorted(
        (f.rows, str(day + timedelta(days=int(f.low))), str(day + timedelta(days=int(f.high))))
        for f in store.snapshot().of("bars")
        if "era=current" in f.path
    )


@pytest.fixture
def small_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiers of a few rows, so that a small lake has all of them."""
    for module in (tiers, compact):
        monkeypatch.setattr(module, "SMALL", 16)
    monkeypatch.setattr("klake.storage.upsert.SMALL", 16)


@pytest.mark.usefixtures("small_tiers")
def test_a_hot_month_folds_into_the_year_once_it_has_cooled_down(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(4, date(2026, 9, 1), 81))
    before, rows = spans(store), everything(store)

    clock.wait(20 * 86_400)
    done = store.compact(due_only=True)

    assert before == [(80, "2026-11-01", "2026-11-20"), (244, "2026-09-01", "2026-10-31")]
    assert (done.partitions, done.files_before, done.files_after) == (1, 2, 1)
    assert spans(store) == [(324, "2026-09-01", "2026-11-20")]
    assert everything(store) == rows


@pytest.mark.usefixtures("small_tiers")
def test_a_daily_increment_rewrites_the_hot_month_only(store: Store, clock: ManualClock) -> None:
    store.upsert(day_bars(4, JAN, 320))
    large = max(store.snapshot().of("bars"), key=lambda f: f.rows)

    clock.wait(86_400)
    report = store.upsert(day_bars(4, date(2026, 11, 20), 2, clock.now(), close=11.0))

    assert (report.new, report.revised) == (4, 4)
    assert large in store.snapshot().of("bars")
    assert spans(store)[0] == (84, "2026-11-01", "2026-11-21")


@pytest.mark.usefixtures("small_tiers")
def test_compacting_twice_does_nothing_the_second_time(store: Store, clock: ManualClock) -> None:
    for n in range(5):
        clock.wait(60)
        store.upsert(day_bars(4 + n, JAN, 320, clock.now(), close=10.0 + n))
    rows = everything(store)

    first, version = store.compact(), store.version
    second = store.compact()

    assert first.partitions >= 1 and second.partitions == 0 and store.version == version
    assert everything(store) == rows
    assert {f.path.split("/")[1] for f in store.snapshot().of("bars")} == {"era=current", "era=past"}


@pytest.mark.usefixtures("small_tiers")
def test_a_file_over_several_tiers_is_cut_at_their_border(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tiers.Tiers, "hot_from", property(lambda self: self.newest + 1))
        store.upsert(day_bars(4, JAN, 320))
    whole = spans(store)

    store.compact(due_only=True)

    assert whole == [(1280, "2026-01-05", "2026-11-20")]
    assert spans(store) == [(80, "2026-11-01", "2026-11-20"), (1200, "2026-01-05", "2026-10-31")]


def test_large_tiers_are_several_files_by_symbol_range(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "PIECE", 100)
    monkeypatch.setattr(rolling, "FULL", 300)
    monkeypatch.setattr(compact, "FULL", 300)
    clock.wait(400 * 86_400)
    store.upsert(day_bars(20, JAN, 100))
    rows = everything(store)

    done = store.compact()

    manifest = store.snapshot()
    held = sorted(sorted(manifest.symbols_of(f)) for f in manifest.of("bars"))
    assert done.files_after == len(held) == 7
    assert all(left[-1] < right[0] for left, right in pairwise(held))
    assert everything(store) == rows and store.compact().partitions == 0


@pytest.mark.usefixtures("small_tiers")
def test_what_cannot_be_verified_is_not_committed(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upsert(day_bars(4, JAN, 320))
    clock.wait(20 * 86_400)
    before, files = everything(store), {p for p in Path(store.path).rglob("*.parquet")}
    honest = compact._Job.split
    monkeypatch.setattr(
        compact._Job, "split", lambda job, rows: [part.slice(1) for part in honest(job, rows)]
    )

    with pytest.raises(LakeDamaged, match="nothing was changed"):
        store.compact()

    assert everything(store) == before
    assert {p for p in Path(store.path).rglob("*.parquet")} == files


def test_a_run_end_with_nothing_due_is_quick(store: Store) -> None:
    store.upsert(day_bars(3, JAN, 20))
    maintain(store)
    version = store.version

    best = min(_seconds(lambda: maintain(store)) for _ in range(20))

    assert store.version == version
    assert best < 0.005


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


STEPS = st.one_of(
    st.tuples(
        st.just("upsert"), st.integers(0, 3), st.integers(0, 300), st.integers(1, 60), st.integers(0, 5)
    ),
    st.tuples(st.just("compact"), st.booleans()),
    st.tuples(st.just("vacuum"), st.integers(0, 200)),
    st.tuples(st.just("restore"), st.integers(0, 20)),
)


@given(st.lists(STEPS, min_size=2, max_size=9))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@pytest.mark.usefixtures("small_tiers")
def test_maintenance_changes_no_answer(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    clock = ManualClock(NOW)
    store = Store.open(str(tmp_path_factory.mktemp("kept") / "lake"), clock, create=True)
    now, moments = everything(store), list[tuple[datetime, list[Any]]]()
    states = {0: now}
    for step in steps:
        clock.wait(60)
        if step[0] == "upsert":
            _, symbols, first, days, close = step
            store.upsert(day_bars(symbols + 1, JAN + timedelta(days=first), days, clock.now(), 10.0 + close))
            now = everything(store)
        elif step[0] == "compact":
            store.compact(due_only=step[1])
        elif step[0] == "vacuum":
            clock.wait(step[1] * 3600)
            store.vacuum()
        else:
            version = step[1] % (store.version_of("bars") + 1)
            try:
                store.restore(version)
            except LakeError:
                assert not next(v for v in store.history(100) if v.version == version).restorable
            else:
                now = everything(store)
                assert _told(now) == _told(states[version])
        states[store.version_of("bars")] = now
        assert everything(store) == now
        moments.append((clock.now(), _as_of(store, clock.now())))
        clock.wait(1)
    assert all(_as_of(store, at) == rows for at, rows in moments)


def _told(state: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the bars of a state, whenever they became known."""
    return [{name: value for name, value in row.items() if name != "known_at"} for row in state["bars"]]


def _as_of(store: Store, at: datetime) -> list[dict[str, Any]]:
    con = store.connect()
    try:
        query = "SELECT * FROM bars_as_of($at) ORDER BY ALL"
        return list(con.sql(query, params={"at": at}).to_arrow_table().to_pylist())
    finally:
        con.close()
