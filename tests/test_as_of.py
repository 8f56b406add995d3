"""As of: whatever is done to a lake, each instant's answer stays what was known then.

One machine does everything that changes bars or their files, in any order, beside a model
that is a few dictionaries.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from klake.errors import LakeError
from klake.schemas.bar import COLUMNS, INCOMING, VALUES
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage.follower import Follower
from klake.storage.store import Store

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
US = timedelta(microseconds=1)
RANK = {"open": 0, "closed": 1, "final": 1}
PROOF = os.environ.get("HYPOTHESIS_PROFILE") == "proof"

Row = dict[str, Any]
Key = tuple[str, str, str, object]

DAYS = [date(2025, 12, 31), date(2026, 10, 30), date(2026, 11, 18), date(2026, 11, 19)]
KEYS: list[Row] = [
    {"era": "current", "period": str(day.year), "vendor": vendor, "freq": "1d", "symbol": symbol, "session": day,
     "ts": datetime(day.year, day.month, day.day, 1, 30, tzinfo=UTC)}
    for vendor in ("qos", "other") for symbol in ("000001.SZ", "600519.SH", "600520.SH") for day in DAYS
] + [
    {"era": "current", "period": str(day)[:7], "vendor": "qos", "freq": "1m", "symbol": symbol, "session": day,
     "ts": datetime(day.year, day.month, day.day, 1, 30 + minute, tzinfo=UTC)}
    for symbol in ("000001.SZ", "600519.SH") for day in DAYS[1:] for minute in (0, 1)
]  # fmt: skip
NUMBERS = (0.1 + 0.2, 10.0, 1e15 / 3, 5e-324)  # none that a detour over text or float32 would survive


def key_of(row: Row) -> Key:
    return row["vendor"], row["freq"], row["symbol"], row["ts" if row["freq"] == "1m" else "session"]


def bar(key: int, hour: int, state: str, close: int, amount: int) -> Row:
    return {
        **KEYS[key], "open": 10.0, "high": 1e16, "low": 1e-300, "close": NUMBERS[close], "volume": 100.0,
        "amount": None if amount == 0 else NUMBERS[amount], "state": state, "flags": close * 32,
        "fetched_at": NOW + timedelta(hours=hour),
    }  # fmt: skip


BARS = st.builds(
    bar, st.integers(0, len(KEYS) - 1), st.integers(0, 5), st.sampled_from(["open", "closed", "final"]),
    st.integers(0, 3), st.integers(0, 1),
)  # fmt: skip
WAITS = st.sampled_from([0, 0.000001, 1, 3600])


@dataclass
class Model:
    """What the lake should hold: the bars now, the bars at each version, and per key what was known since when."""

    bars: dict[Key, Row] = field(default_factory=dict[Key, Row])
    versions: dict[int, dict[Key, Row]] = field(default_factory=dict[int, dict[Key, Row]])
    known: dict[Key, list[tuple[datetime, Row | None]]] = field(
        default_factory=dict[Key, list[tuple[datetime, Row | None]]]
    )
    newest: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    def upsert(self, rows: list[Row], now: datetime) -> bool:
        """Take a batch; say whether it changed anything."""
        at = max(now, self.newest + US)
        changed = False
        for key in {key_of(row): None for row in rows}:
            best = max((row for row in rows if key_of(row) == key), key=_order)
            verdict = _verdict(self.bars.get(key), best)
            changed |= verdict != "same"
            if verdict == "settled":
                self.bars[key].update(best)  # the same knowledge, in the past too
            elif verdict != "same":
                self._learn(key, best, at)
        self.newest = at if changed else self.newest
        return changed

    def restore(self, version: int, now: datetime) -> bool:
        then, at = self.versions[version], max(now, self.newest + US)
        differing = [
            key
            for key in then.keys() | self.bars.keys()
            if _plain(then.get(key)) != _plain(self.bars.get(key))
        ]
        for key in differing:
            self._learn(key, then.get(key), at)
        self.newest = at if differing else self.newest
        return bool(differing)

    def as_of(self, at: datetime) -> list[tuple[Any, ...]]:
        found = [[row for since, row in told if since <= at][-1:] for told in self.known.values()]
        return _table(row for rows in found for row in rows if row is not None)

    def remember(self, version: int) -> None:
        for each in range(len(self.versions), version + 1):  # a compaction commits partition by partition
            self.versions[each] = {key: dict(row) for key, row in self.bars.items()}

    def _learn(self, key: Key, row: Row | None, at: datetime) -> None:
        self.bars.pop(key, None)
        if row is not None:
            self.bars[key] = {**row, "known_at": at}
        ended = self.bars[key] if row is not None and row["state"] != "open" else None
        self.known.setdefault(key, []).append((at, ended))


def _order(row: Row) -> tuple[Any, ...]:
    values = [(row[name] is not None, row[name] or 0.0) for name in VALUES]
    return RANK[row["state"]], row["fetched_at"], row["state"] == "final", values, row["flags"]


def _verdict(old: Row | None, new: Row) -> str:
    if old is None:
        return "new"
    ours, theirs = RANK[new["state"]], RANK[old["state"]]
    equal = all(new[name] == old[name] for name in VALUES)
    if old["state"] == "open" and ours > theirs:
        return "updated"
    if (
        equal
        and (old["state"], new["state"]) == ("closed", "final")
        and new["fetched_at"] >= old["fetched_at"]
    ):
        return "settled"
    later = [(row["fetched_at"], [(row[n] is not None, row[n] or 0.0) for n in VALUES]) for row in (new, old)]
    if equal or not (ours > theirs or (ours == theirs and later[0] > later[1])):
        return "same"
    return "updated" if old["state"] == "open" else "revised"


def _plain(row: Row | None) -> Row | None:
    return None if row is None else {name: value for name, value in row.items() if name != "known_at"}


def _table(rows: Iterator[Row]) -> list[tuple[Any, ...]]:
    """Return rows as comparable tuples, floats by every bit."""
    exact = (tuple(v.hex() if isinstance(v := row[name], float) else v for name in COLUMNS) for row in rows)
    return sorted(exact, key=str)


class Lake(RuleBasedStateMachine):
    """A real lake, and what is done to it."""

    every_instant: ClassVar[bool] = PROOF

    @initialize()
    def make(self) -> None:
        self.folder = mkdtemp()
        self.clock = ManualClock(NOW)
        self.store = Store.open(str(Path(self.folder) / "lake"), self.clock, create=True)
        self.follower = Follower(self.store.path)
        self.model, self.instants, self.batches = Model(), list[datetime](), list[list[Row]]()
        self.model.remember(0)

    @rule(rows=st.lists(BARS, min_size=1, max_size=12), wait=WAITS)
    def upsert(self, rows: list[Row], wait: float) -> None:
        self._write(rows, wait)
        self.batches.append(rows)

    @rule(number=st.integers(0, 20), wait=WAITS, turned=st.booleans())
    def upsert_again(self, number: int, wait: float, turned: bool) -> None:
        if self.batches:
            rows = self.batches[number % len(self.batches)]
            self._write(rows[::-1] if turned else rows, wait)

    @rule(first=st.integers(0, len(KEYS) - 1), close=st.integers(0, 3), hour=st.integers(0, 5), wait=WAITS)
    def backfill(self, first: int, close: int, hour: int, wait: float) -> None:
        self._write([bar(key, hour, "final", close, 1) for key in range(first, len(KEYS))], wait)

    @rule(due_only=st.booleans())
    def compact(self, due_only: bool) -> None:
        self.store.compact(due_only=due_only)

    @rule(hours=st.sampled_from([0, 2, 24, 24 * 8, 24 * 40]), reopened=st.booleans())
    def vacuum(self, hours: int, reopened: bool) -> None:
        self.clock.wait(hours * 3600)
        self.store.vacuum()
        if reopened:
            self.store = Store.open(self.store.path, self.clock)

    @rule(number=st.integers(0, 8), wait=WAITS)
    def restore(self, number: int, wait: float) -> None:
        self.clock.wait(wait)
        listed = self.store.history(1000)
        chosen, before = listed[number % len(listed)], self.store.version_of("bars")
        if not chosen.restorable:
            with pytest.raises(LakeError):
                self.store.restore(chosen.version)
            return
        done = self.store.restore(chosen.version)
        changed = self.model.restore(chosen.version, self.clock.now())
        assert (done.version > before) == changed == bool(done.changed + done.returned + done.withdrawn)
        for name in ("changed", "returned", "withdrawn"):
            if getattr(done, name):
                event(f"a restore with {name} bars")
        self._committed(changed)

    def _write(self, rows: list[Row], wait: float) -> None:
        self.clock.wait(wait)
        report = self.store.upsert(pa.Table.from_pylist(rows, schema=INCOMING))
        changed = self.model.upsert(rows, self.clock.now())
        assert bool(report.commits) == changed
        self._committed(changed)

    def _committed(self, changed: bool) -> None:
        if changed:
            self.instants += [self.model.newest - US, self.model.newest]

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "store"):
            return
        self.model.remember(self.store.version_of("bars"))
        expected = _table(iter(self.model.bars.values()))
        read = [self.store.bars(symbols=None, freq=freq, vendor=None) for freq in (Freq.D1, Freq.M1)]
        mine = [row for table in read for row in table.to_pylist()]
        con = self.follower.connection(self.store.snapshot())
        assert _table(iter(con.sql("FROM bars").to_arrow_table().to_pylist())) == expected
        assert set(_table(iter(mine))) <= set(expected)  # of several vendors one is read
        for at in self.instants if self.every_instant else {*self.instants[-2:], *self.instants[::9]}:
            assert self._as_of(con.sql, at) == self.model.as_of(at), at
        assert _revisions(con.sql) == self._expected_revisions()

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        path = str(Path(self.store.path) / "lake.duckdb")
        try:
            with closing(duckdb.connect(path, read_only=True)) as con:
                con.execute("SET TimeZone = 'UTC'")
                for at in self.instants:
                    assert self._as_of(con.sql, at) == self.model.as_of(at), at
        finally:
            self.follower.close()
            rmtree(self.folder)

    def _as_of(self, sql: Callable[..., duckdb.DuckDBPyRelation], at: datetime) -> list[tuple[Any, ...]]:
        rows = sql("FROM bars_as_of($at)", params={"at": at}).to_arrow_table().to_pylist()
        assert len({key_of(row) for row in rows}) == len(rows)
        return _table(iter(rows))

    def _expected_revisions(self) -> list[tuple[Any, ...]]:
        """Return (known_at, close, replaced_at, new close) of each bar that another took the place of, or none."""
        out = []
        for told in self.model.known.values():
            for (_, old), (at, new) in pairwise(told):
                if old is not None:
                    out.append((old["known_at"], old["close"], at, new["close"] if new else None))
        return sorted(out, key=str)


def _revisions(sql: Callable[..., duckdb.DuckDBPyRelation]) -> list[tuple[Any, ...]]:
    table = sql("SELECT known_at, close, replaced_at, new_close FROM revisions").to_arrow_table()
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=str)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiers, files and pieces of a few rows, so that a small lake has several of each."""
    for module in ("tiers", "compact", "upsert", "writer"):
        monkeypatch.setattr(f"klake.storage.{module}.SMALL", 4)
    for module in ("rolling", "compact"):
        monkeypatch.setattr(f"klake.storage.{module}.FULL", 9)
    for module in ("rolling", "upsert"):
        monkeypatch.setattr(f"klake.storage.{module}.PIECE", 5)


@pytest.mark.usefixtures("small_pieces")
def test_as_of_answers_never_change_whatever_is_done_to_the_lake() -> None:
    examples, steps = (60, 40) if PROOF else (8, 30)

    run_state_machine_as_test(
        Lake,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=not PROOF,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
