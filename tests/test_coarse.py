"""Bars of a higher freq made file by file equal those made of all bars at once."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.data import NOW, daily, minutes, sessions
from klake.errors import BadRequest
from klake.schemas.bar import SCHEMA, Flag
from klake.schemas.clock import ManualClock
from klake.schemas.compute import pc
from klake.schemas.freq import Freq
from klake.schemas.resample import joined, part, resample
from klake.storage.store import Store

CLOCK = ManualClock(NOW)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A lake of three years of days, hot month included, and of three days of minutes."""
    made = Store.open(str(tmp_path / "lake"), CLOCK, create=True)
    days = sessions(600, "2026-11-20")
    made.upsert(daily(70, days[:-20]))
    made.upsert(daily(70, days[-20:]))
    made.upsert(minutes(5, days[-3:]))
    return made


def at_once(store: Store, freq: Freq, source: Freq) -> pa.Table:
    return resample(store.bars(symbols=None, freq=source), freq)


@pytest.mark.parametrize("freq", [Freq.W1, Freq.MO1, Freq.Q1, Freq.Y1])
def test_bars_that_files_share_are_joined(store: Store, freq: Freq) -> None:
    made = store.resampled(freq, Freq.D1)

    assert len(store.snapshot().of("bars")) > 3
    assert made.equals(at_once(store, freq, Freq.D1))


def test_minutes_make_hours_and_days(store: Store) -> None:
    for freq in (Freq.H1, Freq.D1):
        assert store.resampled(freq, Freq.M1).equals(at_once(store, freq, Freq.M1))


def test_bounds_and_columns_are_those_asked_for(store: Store) -> None:
    low, high = NOW.date() - timedelta(days=90), NOW.date() - timedelta(days=10)

    made = store.resampled(Freq.MO1, Freq.D1, start=low, end=high, columns=["symbol", "session", "close"])

    bars = store.bars(symbols=None, freq=Freq.D1, start=low, end=high)
    assert made.equals(resample(bars, Freq.MO1).select(["symbol", "session", "close"]))
    assert store.resampled(Freq.MO1, Freq.D1, start=high, end=high).num_rows == 0


def test_two_vendors_of_one_freq_are_told_apart(store: Store) -> None:
    store.upsert(daily(70, sessions(3, "2026-09-01"), vendor="other"))

    made, theirs = store.resampled(Freq.MO1, Freq.D1), store.resampled(Freq.MO1, Freq.D1, vendor="other")

    assert made.equals(at_once(store, Freq.MO1, Freq.D1))
    assert theirs["vendor"].unique().to_pylist() == ["other"]


def test_parts_that_interleave_are_not_joined() -> None:
    days = daily(2, sessions(9, "2026-08-01")).sort_by([("symbol", "ascending"), ("ts", "ascending")])
    odd = pa.array([n % 2 == 1 for n in range(18)])

    def joint(*some: pa.Table) -> pa.Table | None:
        return joined(pa.concat_tables([part(bars, Freq.MO1, Freq.D1) for bars in some]), Freq.MO1)

    assert joint(days.filter(odd), days.filter(pc.invert(odd))) is None
    assert joint(days.slice(12), days.slice(0, 12)) == resample(days, Freq.MO1)


def test_bars_of_extended_hours_stay_out_of_days(store: Store) -> None:
    rows = minutes(5, sessions(1, "2026-11-22"))
    flags = pa.array([int(Flag.PRE_MARKET) if n % 7 == 0 else 0 for n in range(rows.num_rows)], pa.int32())
    store.upsert(rows.set_column(rows.schema.get_field_index("flags"), SCHEMA.field("flags"), flags))

    assert store.resampled(Freq.D1, Freq.M1).equals(at_once(store, Freq.D1, Freq.M1))


def test_what_cannot_add_up_is_refused(store: Store) -> None:
    with pytest.raises(BadRequest):
        store.resampled(Freq.M1, Freq.D1)
