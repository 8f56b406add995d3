"""Resampling: bars of a higher freq from lower ones, by session, never across lunch or DST."""

import io
import os
import zipfile
from datetime import UTC, date, datetime, timedelta
from itertools import combinations, pairwise
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from klake.errors import BadRequest
from klake.schemas.bar import INCOMING, SCHEMA, Flag, State
from klake.schemas.freq import Freq
from klake.schemas.resample import resample
from klake.schemas.session import Anchor, calendar, nominal_ts
from klake.schemas.symbol import Symbol

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("KLAKE_REAL_DATA", ROOT.parent / "shared" / "data"))
LATER = datetime(2030, 1, 1, tzinfo=UTC)
SYMBOLS = ("600519.SH", "00700.HK", "BRK.B.US", "BTCUSDT.P.BINANCE", "EURUSD.FX")

real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"no real K-lines at {REAL}: set KLAKE_REAL_DATA"),
]


def minutes(symbol: str, sessions: list[date], seed: int = 0, keep: float = 1.0) -> pl.DataFrame:
    """Return random final 1m bars of a symbol on its grid; `keep` is the share of minutes that traded."""
    book = calendar(Symbol.parse(symbol).place.calendar)
    grid = [(t, s) for s in sessions for t in book.starts(s, Freq.M1)]
    rng = np.random.default_rng(seed)
    grid = [slot for slot, kept in zip(grid, rng.random(len(grid)) < keep, strict=True) if kept]
    path = rng.integers(900, 1_100, (len(grid), 4)) / 100
    volume = rng.integers(0, 1_000, len(grid)).astype(float)
    return pl.DataFrame(
        {
            "vendor": "v", "freq": "1m", "symbol": symbol,
            "ts": pl.Series([t for t, _ in grid], dtype=pl.Datetime("us", "UTC")),
            "session": pl.Series([s for _, s in grid], dtype=pl.Date),
            "open": path[:, 0], "high": path.max(axis=1), "low": path.min(axis=1), "close": path[:, 1],
            "volume": volume, "amount": volume * 10, "state": "final",
            "flags": pl.Series([0] * len(grid), dtype=pl.Int32),
            "fetched_at": pl.Series([LATER] * len(grid), dtype=pl.Datetime("us", "UTC")),
        }
    )  # fmt: skip


def bars(frame: pl.DataFrame) -> pa.Table:
    return frame.select(INCOMING.names).to_arrow().cast(INCOMING)


def days_of(symbol: str, start: date, count: int) -> list[date]:
    book = calendar(Symbol.parse(symbol).place.calendar)
    return book.sessions(start, start + timedelta(days=count))


def frame_of(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def test_five_minutes_become_one_bar() -> None:
    day = date(2024, 1, 3)
    table = bars(minutes("600519.SH", [day]).head(5).reverse())

    (bar,) = resample(table, Freq.M5).to_pylist()

    ordered = sorted(table.to_pylist(), key=lambda row: row["ts"])
    assert bar["ts"] == ordered[0]["ts"] and bar["freq"] == "5m" and bar["session"] == day
    assert (bar["open"], bar["close"]) == (ordered[0]["open"], ordered[-1]["close"])
    assert bar["high"] == max(r["high"] for r in ordered) and bar["low"] == min(r["low"] for r in ordered)
    assert bar["volume"] == sum(r["volume"] for r in ordered) and bar["amount"] == bar["volume"] * 10
    assert bar["flags"] == Flag.DERIVED and bar["state"] == "final"


def test_the_columns_that_came_in_go_out_in_their_order_and_types() -> None:
    incoming = bars(minutes("AAPL.US", [date(2024, 1, 3)]))
    known = pl.lit(LATER).cast(pl.Datetime("us", "UTC"))
    full = frame_of(incoming).with_columns(era=pl.lit("current"), period=pl.lit("2024-01"), known_at=known)
    whole = full.select(SCHEMA.names).to_arrow().cast(SCHEMA)

    small, large = resample(incoming, Freq.M15), resample(whole, Freq.D1)

    assert small.schema == INCOMING and large.schema == SCHEMA
    assert large["period"].to_pylist() == ["2024"]
    assert resample(whole, Freq.H1)["period"].unique().to_pylist() == ["2024-01"]


def test_dictionary_columns_come_back_plain() -> None:
    table = bars(minutes("AAPL.US", [date(2024, 1, 3)]))
    place = table.schema.get_field_index("symbol")
    encoded = table.set_column(place, "symbol", table["symbol"].dictionary_encode())

    out = resample(encoded, Freq.H1)

    assert out.schema.field("symbol").type == pa.string()


def test_an_hour_never_crosses_lunch_in_china_or_hong_kong() -> None:
    day = date(2024, 1, 3)
    table = pa.concat_tables([bars(minutes(s, [day])) for s in ("600519.SH", "00700.HK")])

    hours = frame_of(resample(table, Freq.H1)).with_columns(
        pl.col("ts").dt.convert_time_zone("Asia/Shanghai")
    )

    clock = {
        s: g["ts"].dt.strftime("%H%M").to_list() for (s,), g in hours.group_by("symbol", maintain_order=True)
    }
    assert clock["600519.SH"] == ["0930", "1030", "1300", "1400"]
    assert clock["00700.HK"] == ["0930", "1030", "1130", "1300", "1400", "1500"]


def test_the_clock_anchor_stamps_the_first_new_york_hour_at_nine() -> None:
    table = bars(minutes("AAPL.US", [date(2024, 1, 3)]))

    session = frame_of(resample(table, Freq.H1))["ts"].dt.convert_time_zone("America/New_York")
    clock = frame_of(resample(table, Freq.H1, anchor="clock"))["ts"].dt.convert_time_zone("America/New_York")

    assert session.dt.strftime("%H%M").to_list()[:2] == ["0930", "1030"]
    assert clock.dt.strftime("%H%M").to_list() == ["0900", "1000", "1100", "1200", "1300", "1400", "1500"]


def test_daily_bars_meet_in_weeks_months_quarters_and_years() -> None:
    days = days_of("600519.SH", date(2023, 11, 1), 120)
    daily = resample(bars(minutes("600519.SH", days, keep=0.05)), Freq.D1)

    out = {f: frame_of(resample(daily, f)) for f in (Freq.W1, Freq.MO1, Freq.Q1, Freq.Y1)}

    for freq, frame in out.items():
        held = sorted({freq.anchor(d) for d in days})
        assert frame["session"].to_list() == held
        assert frame["ts"].to_list() == [nominal_ts("SH", s) for s in held]
        assert frame["volume"].sum() == frame_of(daily)["volume"].sum()


def test_summer_time_moves_the_stamp_of_new_york_but_not_its_session() -> None:
    days = [date(2024, 3, 8), date(2024, 3, 11)]

    daily = frame_of(resample(bars(minutes("AAPL.US", days)), Freq.D1))

    assert daily["session"].to_list() == days
    assert [t.hour for t in daily["ts"].to_list()] == [14, 13]


def test_a_missing_amount_leaves_the_sum_unknown() -> None:
    frame = minutes("600519.SH", [date(2024, 1, 3)])
    holed = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(None).otherwise("amount").alias("amount")
    )

    out = frame_of(resample(bars(holed), Freq.M5))

    assert out["amount"].is_null().to_list()[:3] == [False, True, False]


def test_the_state_is_the_least_of_the_parts() -> None:
    states = pl.Series(["final", "closed", "final", "final", "open", "closed"])
    frame = minutes("600519.SH", [date(2024, 1, 3)]).head(6).with_columns(states.alias("state"))

    out = frame_of(resample(bars(frame), Freq.M3))
    undated = resample(bars(frame).drop_columns(["fetched_at"]), Freq.M3)

    assert out["state"].to_list() == ["closed", "open"]
    assert undated["state"].to_pylist() == ["closed", "open"]


def test_a_bar_that_had_not_ended_when_its_parts_came_is_open() -> None:
    day = date(2024, 1, 3)
    morning = calendar("XSHG").hours(day).break_start
    frame = minutes("600519.SH", [day]).with_columns(
        pl.lit(morning).dt.cast_time_unit("us").alias("fetched_at")
    )
    table = bars(frame.filter(pl.col("ts") < morning))

    daily, hourly = (frame_of(resample(table, f)) for f in (Freq.D1, Freq.H1))

    assert daily["state"].to_list() == [State.OPEN]
    assert hourly["state"].to_list() == [State.FINAL, State.FINAL]


def test_flags_meet_and_extended_hours_stay_out_of_daily_bars() -> None:
    book, day = calendar("XNYS"), date(2024, 1, 3)
    regular = minutes("AAPL.US", [day])
    early = regular.head(30).with_columns(
        ts=pl.col("ts") - timedelta(minutes=30),
        flags=pl.lit(int(Flag.PRE_MARKET), pl.Int32),
        volume=pl.lit(1e9),
    )
    marked = regular.with_columns(flags=pl.lit(int(Flag.AUCTION), pl.Int32))
    table = bars(pl.concat([early, marked]))

    daily, halves = frame_of(resample(table, Freq.D1)), frame_of(resample(table, Freq.M30))

    assert daily["volume"].to_list() == [regular["volume"].sum()]
    assert daily["flags"].to_list() == [Flag.AUCTION | Flag.DERIVED]
    assert halves["flags"].to_list()[:2] == [Flag.PRE_MARKET | Flag.DERIVED, Flag.AUCTION | Flag.DERIVED]
    assert halves["ts"].to_list()[1] == book.hours(day).open


@pytest.mark.parametrize(
    ("source", "target"),
    [("3m", "5m"), ("15m", "5m"), ("5m", "5m"), ("1d", "1h"), ("1w", "1mo"), ("1w", "1y"), ("1mo", "1w")],
)
def test_what_cannot_add_up_is_refused(source: str, target: str) -> None:
    table = bars(minutes("600519.SH", [date(2024, 1, 3)]).with_columns(freq=pl.lit(source)))

    with pytest.raises(BadRequest, match=source):
        resample(table, Freq(target))


def test_mixed_freqs_a_nameless_freq_and_missing_columns_are_refused() -> None:
    frame = minutes("600519.SH", [date(2024, 1, 3)])
    mixed = bars(pl.concat([frame, frame.with_columns(freq=pl.lit("5m"))]))

    with pytest.raises(BadRequest, match="one freq"):
        resample(mixed, Freq.H1)
    with pytest.raises(BadRequest, match="source"):
        resample(bars(frame).drop_columns(["freq"]), Freq.H1)
    with pytest.raises(BadRequest, match="close"):
        resample(bars(frame).drop_columns(["close"]), Freq.H1)


def test_no_rows_give_no_rows() -> None:
    empty = INCOMING.empty_table()

    out = resample(empty, Freq.D1)

    assert out.num_rows == 0 and out.schema == INCOMING


def test_bars_of_extended_hours_alone_make_no_day() -> None:
    early = minutes("AAPL.US", [date(2024, 1, 3)]).with_columns(flags=pl.lit(int(Flag.PRE_MARKET), pl.Int32))

    out = resample(bars(early), Freq.D1)

    assert out.num_rows == 0 and out.schema == INCOMING


def test_a_forming_clock_hour_is_open_until_its_hour_is_over() -> None:
    opened = calendar("XNYS").hours(date(2024, 1, 3)).open
    frame = minutes("AAPL.US", [date(2024, 1, 3)]).head(10)
    moments = {m: opened + timedelta(minutes=m) for m in (10, 29, 30)}

    states = {}
    for minute, fetched in moments.items():
        table = bars(frame.with_columns(fetched_at=pl.lit(fetched).dt.cast_time_unit("us")))
        states[minute] = resample(table, Freq.H1, anchor="clock")["state"].to_pylist()

    assert states == {10: ["open"], 29: ["open"], 30: ["final"]}


def test_vendors_and_eras_never_meet_in_one_bar() -> None:
    frame = minutes("600519.SH", [date(2024, 1, 3)])
    table = bars(pl.concat([frame, frame.with_columns(vendor=pl.lit("w"))]))

    daily = resample(table, Freq.D1)

    assert daily["vendor"].to_pylist() == ["v", "w"]
    assert daily["volume"].to_pylist() == [frame["volume"].sum()] * 2


# Half days, DST changes, a late open and old lunch hours lie near these days.
starts = st.sampled_from(
    [
        date(2024, 3, 7),
        date(2024, 10, 31),
        date(2024, 12, 23),
        date(2020, 8, 17),
        date(2011, 3, 3),
        date(2012, 3, 1),
    ]
)


CHAINS = [
    steps
    for length in (1, 2, 3)
    for steps in combinations(list(Freq)[1:], length)
    if all(a is not Freq.W1 and (not b.intraday or b.minutes % a.minutes == 0) for a, b in pairwise(steps))
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=3, unique=True), starts,
    st.integers(0, 2**32), st.sampled_from([1.0, 0.5, 0.02]), st.sampled_from(["session", "clock"]),
    st.sampled_from(CHAINS),
)  # fmt: skip
@example(["EURUSD.FX", "600519.SH"], date(2024, 10, 31), 0, 1.0, "clock", (Freq.H1, Freq.H2, Freq.H4))
def test_resampling_in_steps_equals_resampling_at_once(
    symbols: list[str], start: date, seed: int, keep: float, anchor: Anchor, steps: tuple[Freq, ...]
) -> None:
    table = pa.concat_tables([bars(minutes(s, days_of(s, start, 5), seed, keep)) for s in symbols])

    at_once = resample(table, steps[-1], anchor)
    by_steps = table
    for freq in steps:
        by_steps = resample(by_steps, freq, anchor)

    assert by_steps.equals(at_once)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SYMBOLS), starts, st.integers(0, 2**32), st.sampled_from([f for f in list(Freq)[1:8]]))
def test_every_intraday_bar_lies_on_the_grid_of_its_session(
    symbol: str, start: date, seed: int, freq: Freq
) -> None:
    table = bars(minutes(symbol, days_of(symbol, start, 4), seed, 0.1))
    book = calendar(Symbol.parse(symbol).place.calendar)

    out = frame_of(resample(table, freq))

    for (session,), held in out.group_by("session"):
        assert set(held["ts"]) <= set(book.starts(cast("date", session), freq))
    assert out["volume"].sum() == table["volume"].to_numpy().sum()
    assert not out.select(pl.struct("vendor", "symbol", "ts").is_duplicated().any()).item()


def lean(kind: str) -> pl.DataFrame:
    """Return AAPL of QuantConnect's sample data: New York times of bar starts, prices ×10000."""
    raw = zipfile.ZipFile(REAL / "us" / "lean" / kind / "aapl.zip").read("aapl.csv")
    names = ["at", "open", "high", "low", "close", "volume"]
    wall = (
        pl.col("at").str.to_datetime("%Y%m%d %H:%M", time_unit="us").dt.replace_time_zone("America/New_York")
    )
    return pl.read_csv(io.BytesIO(raw), has_header=False, new_columns=names).select(
        pl.lit("AAPL.US").alias("symbol"), wall.dt.date().alias("day"), wall.dt.convert_time_zone("UTC").alias("ts"),
        *(pl.col(c) / 10_000 for c in ("open", "high", "low", "close")), pl.col("volume").cast(pl.Float64),
    )  # fmt: skip


def with_session(frame: pl.DataFrame, name: str) -> pa.Table:
    table = frame.to_arrow()
    return table.append_column("session", calendar(name).sessions_of(table["ts"]))


@pytest.mark.parametrize("kind", [pytest.param("hour", marks=real_data)])
def test_real_hours_of_aapl_add_up_to_its_real_days(kind: str) -> None:
    hours, days = with_session(lean(kind).drop("day"), "XNYS"), lean("daily")

    made = frame_of(resample(hours, Freq.D1, source=Freq.H1))

    assert made.height == days.height == 5_849
    assert made["session"].to_list() == days["day"].to_list()
    for column in ("open", "high", "low", "close", "volume"):
        assert made[column].to_list() == days[column].to_list()
    assert made["ts"][0] == datetime(1998, 1, 2, 9, 30, tzinfo=ZoneInfo("America/New_York"))


@pytest.mark.parametrize("name", [pytest.param("000001.XSHG_1min", marks=real_data)])
def test_real_minutes_of_the_shanghai_index_add_up_to_its_days_in_shares(name: str) -> None:
    raw = zipfile.ZipFile(REAL / "cn" / "czsc" / f"{name}.zip").read(f"{name}.csv")
    end = pl.col("dt").str.to_datetime(time_unit="us").dt.replace_time_zone("Asia/Shanghai")
    table = pl.read_csv(io.BytesIO(raw)).select(
        pl.lit("000001.SH").alias("symbol"), (end - timedelta(minutes=1)).dt.convert_time_zone("UTC").alias("ts"),
        "open", "high", "low", "close", pl.col("vol").cast(pl.Float64).alias("volume"),
    )  # fmt: skip
    lots = pl.read_csv(REAL / "cn" / "czsc" / "000001.SH_D.csv").with_columns(
        pl.col("dt").str.to_datetime().dt.date().alias("session")
    )

    made = frame_of(resample(with_session(table, "XSHG"), Freq.D1, source=Freq.M1))

    ratio = made.join(lots, on="session", how="inner", maintain_order="left").select(
        pl.col("volume") / pl.col("vol")
    )
    assert made["session"].to_list() == calendar("XSHG").sessions(date(2015, 1, 5), date(2019, 2, 13))
    # The source itself differs on a dozen days: its minutes and days come from two feeds.
    assert ((ratio["volume"] - 100).abs() < 0.01).sum() == 988
    assert ratio.height == 1_000
