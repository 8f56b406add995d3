"""Tiers: which file a bar belongs to, and how files are cut."""

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klake.schemas.freq import Freq
from klake.storage.layout import CURRENT, PAST, SHAPE, Partition, born, file_name, token_of, writer_options
from klake.storage.manifest import LiveFile
from klake.storage.rolling import ranges
from klake.storage.tiers import BASE, SMALL, Tiers, cuts, newest_day

EPOCH = date(1970, 1, 1)
DAY_US = 86_400_000_000


def days(at: date) -> int:
    return (at - EPOCH).days


def of(freq: Freq, newest: date, era: str = CURRENT) -> Tiers:
    period = f"{newest:%Y-%m}" if freq.intraday else f"{newest:%Y}"
    return Tiers(Partition(era, "qos", freq, period), days(newest))


def file(low: int, high: int, rows: int = 100) -> LiveFile:
    return LiveFile("bars", "bars/x.parquet", rows, 1, low, high, ())


@pytest.mark.parametrize(
    ("freq", "newest", "hot_from"),
    [
        (Freq.D1, date(2026, 11, 20), date(2026, 11, 1)),
        (Freq.D1, date(2026, 11, 3), date(2026, 10, 1)),  # the last days of October still settle
        (Freq.W1, date(2026, 11, 20), date(2026, 11, 1)),
        (Freq.M1, date(2026, 11, 20), date(2026, 11, 16)),  # a Friday; its Monday
        (Freq.H1, date(2026, 11, 16), date(2026, 11, 16)),
        (Freq.MO1, date(2026, 11, 20), date(2026, 11, 21)),  # nothing is hot
    ],
)
def test_what_is_hot_depends_on_freq_and_newest_day(freq: Freq, newest: date, hot_from: date) -> None:
    assert of(freq, newest).hot_from == days(hot_from)


def test_minutes_have_a_tier_per_day_and_days_one_per_month() -> None:
    minutes, daily = of(Freq.M1, date(2026, 11, 20)), of(Freq.D1, date(2026, 11, 3))

    assert [minutes.tier(days(date(2026, 11, d))) for d in (15, 16, 17)] == [
        BASE, days(date(2026, 11, 16)), days(date(2026, 11, 17)),
    ]  # fmt: skip
    assert [daily.tier(days(d)) for d in (date(2026, 9, 30), date(2026, 10, 31), date(2026, 11, 1))] == [
        BASE, days(date(2026, 10, 1)), days(date(2026, 11, 1)),
    ]  # fmt: skip
    assert of(Freq.M1, date(2026, 11, 20), PAST).tier(days(date(2026, 11, 20))) == BASE


def test_a_closed_period_has_one_tier_by_the_clock() -> None:
    partition = Partition(CURRENT, "qos", Freq.D1, "2025")
    live = [file(days(date(2025, 1, 2)), days(date(2025, 12, 31)))]

    newest = newest_day(partition, live, datetime(2026, 11, 20, tzinfo=UTC))

    assert {Tiers(partition, newest).tier(days(date(2025, 1, 1)) + n) for n in range(365)} == {BASE}


def test_a_hot_file_goes_stale_and_a_year_to_date_does_not() -> None:
    october = file(days(date(2026, 10, 1)), days(date(2026, 10, 30)))
    year = file(days(date(2026, 1, 2)), days(date(2026, 9, 30)))
    monday = file(days(date(2026, 11, 16)) * DAY_US + 1, days(date(2026, 11, 16)) * DAY_US + 9)

    assert not of(Freq.D1, date(2026, 11, 2)).stale(october)
    assert of(Freq.D1, date(2026, 11, 20)).stale(october)
    assert not of(Freq.D1, date(2026, 11, 20)).stale(year)
    assert not of(Freq.M1, date(2026, 11, 20)).stale(monday)
    assert of(Freq.M1, date(2026, 11, 23)).stale(monday)


def test_the_tiers_of_a_file_share_its_rows_by_days() -> None:
    daily = of(Freq.D1, date(2026, 11, 20))

    shares = daily.shares(file(days(date(2026, 10, 22)), days(date(2026, 11, 20)), rows=300))

    assert shares == {BASE: 100, days(date(2026, 11, 1)): 200}


@given(st.dictionaries(st.integers(BASE, 40), st.integers(0, 2 * SMALL), min_size=1))
def test_tiers_share_a_file_only_while_it_stays_small(rows: dict[int, int]) -> None:
    starts = cuts(rows)

    held = [
        [rows[t] for t in sorted(rows) if start <= t < end]
        for start, end in zip(starts, [*starts[1:], 10**9], strict=True)
    ]
    assert sorted(n for part in held for n in part) == sorted(rows.values())
    assert all(len(part) == 1 or sum(part) < SMALL for part in held)


@given(st.dictionaries(st.text("ABC", min_size=1, max_size=3), st.floats(0, 600_000), min_size=1))
def test_ranges_cover_every_symbol_once(weights: dict[str, float]) -> None:
    found = ranges(weights)

    met = {s: sum((a is None or s > a) and (b is None or s <= b) for a, b in found) for s in weights}
    assert set(met.values()) == {1}


def test_a_file_name_tells_when_and_for_which_write() -> None:
    name = file_name(1_795_161_600_000_000, "0123456789ab")

    assert (born(name), token_of(name)) == (1_795_161_600_000_000, "0123456789ab")
    assert (born(f".{name}.writing"), token_of(f".{name}.writing")) == (born(name), token_of(name))
    assert (born("part-00000-c000.parquet"), token_of("_seed.parquet")) == (None, "")


def test_the_chosen_encodings_are_smaller_than_dictionaries_everywhere() -> None:
    rng = np.random.default_rng(7)
    n = 60_000
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.001, n))), 2)
    volume = np.round(rng.lognormal(8, 1.2, n)) * 100
    ts = (np.datetime64("2026-01-05T01:30", "us") + np.arange(n) * np.timedelta64(60, "s")).astype("int64")
    rows = pa.table(
        {
            "ts": pa.array(ts).cast(pa.timestamp("us", "UTC")), "open": close, "high": close + 0.03,
            "low": close - 0.02, "close": close, "volume": volume, "amount": np.round(close * volume, 2),
        }
    )  # fmt: skip

    ours = _size(rows, **writer_options(rows.schema, Freq.M1))
    plain = _size(rows, compression="zstd", compression_level=3, use_dictionary=True)

    assert ours / plain < 0.88
    assert set(SHAPE) == set(Freq)


def _size(rows: pa.Table, **options: object) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=65_536, **options)
    return int(sink.getvalue().size)


def test_a_week_of_hot_days_is_hot_to_vacuum_and_a_year_is_not() -> None:
    daily = of(Freq.D1, date(2026, 11, 20))
    first, last = days(date(2026, 1, 2)), days(date(2026, 11, 20))

    assert daily.is_hot(days(date(2026, 11, 1)), last, 10**6)
    assert daily.is_hot(first, last, SMALL - 1)
    assert not daily.is_hot(first, last, SMALL)
    assert not daily.is_hot(first, days(date(2026, 10, 31)), 10)
