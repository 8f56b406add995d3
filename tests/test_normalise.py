"""Labels, sessions, states and folding: from a vendor's rows to canonical bars."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klake.ingest.normalise import Rows, fold, series_page
from klake.ingest.vendors.qos import CAPABILITY
from klake.schemas.bar import INCOMING, Flag
from klake.schemas.capability import Capability
from klake.schemas.freq import Freq
from klake.schemas.grid import grid, micros
from klake.schemas.page import Entry, SeriesPage
from klake.schemas.session import calendar
from klake.schemas.symbol import Symbol

LATER = datetime(2026, 11, 27, 12, tzinfo=UTC)
FRIDAY = date(2026, 11, 20)


def rows(
    starts: list[datetime], price: float = 10.0, volume: float = 5.0, amount: float | None = None
) -> Rows:
    n = len(starts)
    prices = np.full(n, price) + np.arange(n) / 100
    time = np.array([micros(t) for t in starts], np.int64)
    money = None if amount is None else np.full(n, amount)
    return Rows(time, prices, prices + 1, prices - 1, prices, np.full(n, volume), money)


def page(
    symbol: str, freq: Freq, given: Rows, capability: Capability = CAPABILITY, received: datetime = LATER
) -> SeriesPage:
    return series_page(Entry(symbol, freq, None, 1000), given, "v", capability, received)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def labelled(freq: Freq, label: str) -> Capability:
    return replace(CAPABILITY, label={freq: label})


def test_bars_labelled_by_their_end_start_one_bar_earlier():
    ends = [utc(2026, 11, 20, 1, 31), utc(2026, 11, 20, 3, 30), utc(2026, 11, 20, 5, 1), utc(2026, 11, 20, 7)]

    got = page("600519.SH", Freq.M1, rows(ends), labelled(Freq.M1, "end"))

    assert got.bars["ts"].to_pylist() == [end - timedelta(minutes=1) for end in ends]
    assert got.bars["flags"].to_pylist() == [0, 0, 0, 0]
    assert got.rejects == ()


def test_an_hour_that_ends_at_noon_began_when_the_morning_left_room_for_it():
    ends = [utc(2026, 11, 20, 2, 30), utc(2026, 11, 20, 3, 30), utc(2026, 11, 20, 6), utc(2026, 11, 20, 7)]

    got = page("600519.SH", Freq.H1, rows(ends), labelled(Freq.H1, "end"))

    starts = [utc(2026, 11, 20, h, m) for h, m in ((1, 30), (2, 30), (5, 0), (6, 0))]
    assert got.bars["ts"].to_pylist() == starts


@pytest.mark.parametrize(
    ("label", "stamp"),
    [("start", utc(2026, 11, 19, 16)), ("date", utc(2026, 11, 20, 6)), ("end", utc(2026, 11, 20, 7))],
)
def test_any_label_of_a_day_gives_its_session(label, stamp):
    got = page("600519.SH", Freq.D1, rows([stamp]), labelled(Freq.D1, label))

    assert got.bars["session"].to_pylist() == [FRIDAY]
    assert got.bars["ts"].to_pylist() == [utc(2026, 11, 20, 1, 30)]


@pytest.mark.parametrize(
    ("freq", "stamp", "session"),
    [
        (Freq.W1, utc(2026, 11, 17, 16), date(2026, 11, 16)),
        (Freq.MO1, utc(2026, 11, 19, 16), date(2026, 11, 1)),
        (Freq.Q1, utc(2026, 11, 19, 16), date(2026, 10, 1)),
        (Freq.Y1, utc(2026, 11, 19, 16), date(2026, 1, 1)),
    ],
)
def test_longer_bars_are_anchored_wherever_in_them_the_label_lies(freq, stamp, session):
    got = page("600519.SH", freq, rows([stamp]))

    assert got.bars["session"].to_pylist() == [session]


def test_a_year_of_new_york_keeps_its_dates_through_both_changes_of_the_clock():
    days = calendar("XNYS").sessions(date(2025, 1, 1), date(2026, 1, 1))
    midnights = [calendar("XNYS").hours(d).open - timedelta(hours=9, minutes=30) for d in days]

    got = page("AAPL.US", Freq.D1, rows(midnights))

    assert got.bars["session"].to_pylist() == days


def test_local_midnights_keep_their_dates_when_shanghai_had_summer_time():
    days = [date(1991, 3, 1), date(1991, 6, 3), date(1991, 6, 4), date(1991, 9, 16), date(1992, 3, 2)]
    midnights = [datetime(d.year, d.month, d.day, tzinfo=ZoneInfo("Asia/Shanghai")) for d in days]

    got = page("000001.SH", Freq.D1, rows(midnights))

    assert got.bars["session"].to_pylist() == days


@given(
    st.lists(st.dates(date(1975, 1, 1), date(2030, 1, 1)), min_size=1, max_size=5, unique=True),
    st.sampled_from(["600519.SH", "00700.HK", "AAPL.US"]),
)
def test_a_local_midnight_is_of_its_own_day_in_every_year(days, symbol):
    zone = ZoneInfo(Symbol.parse(symbol).place.zone)
    midnights = [datetime(d.year, d.month, d.day, 0, 0, tzinfo=zone) for d in sorted(days)]

    got = page(symbol, Freq.D1, rows(midnights))

    assert got.bars["session"].to_pylist() == sorted(days)


@pytest.mark.parametrize(
    "start",
    [
        utc(2026, 11, 20, 3, 30), utc(2026, 11, 20, 4, 0), utc(2026, 11, 20, 7, 1), utc(2026, 11, 20, 1, 28),
        utc(2026, 11, 21, 2, 0), utc(2026, 11, 20, 2, 0, 30),
    ],
)  # fmt: skip
def test_a_minute_outside_the_hours_is_off_the_grid_and_goes_alone(start):
    good = utc(2026, 11, 20, 2, 0)

    got = page("600519.SH", Freq.M1, rows([start, good]))

    assert got.bars["ts"].to_pylist() == [good]
    assert [(r.rule, r.ts) for r in got.rejects] == [("off the grid", start)]
    assert f'"time":{micros(start)}' in got.rejects[0].values


def test_a_half_day_ends_when_it_ends():
    close = utc(2026, 11, 27, 18)  # 13:00 in New York, the day after Thanksgiving

    got = page(
        "AAPL.US",
        Freq.M1,
        rows([close - timedelta(minutes=1), close, close + timedelta(minutes=1)]),
        received=utc(2026, 11, 30),
    )

    assert got.bars["flags"].to_pylist() == [0, int(Flag.AUCTION)]
    assert [r.ts for r in got.rejects] == [close + timedelta(minutes=1)]


def test_nothing_but_refused_rows_is_a_failure_and_no_row_at_all_is_empty():
    bad = page("600519.SH", Freq.M1, rows([utc(2026, 11, 21, 2)]))
    none = page("600519.SH", Freq.M1, rows([]))

    assert (bad.outcome, bad.bars.num_rows, len(bad.rejects)) == ("failed", 0, 1)
    assert (none.outcome, none.bars.num_rows, none.rejects) == ("empty", 0, ())


def test_hours_may_begin_where_the_vendor_likes_inside_a_session():
    starts = [utc(2026, 11, 20, 1, 30), utc(2026, 11, 20, 2), utc(2026, 11, 20, 12)]

    got = page("600519.SH", Freq.H2, rows(starts))

    assert got.bars["ts"].to_pylist() == starts[:2]
    assert [r.ts for r in got.rejects] == starts[2:]


def test_minutes_are_open_closed_or_final_by_their_own_end():
    starts = calendar("XSHG").starts(FRIDAY, Freq.M30)
    received = utc(2026, 11, 20, 6, 45)

    got = page("600519.SH", Freq.M30, rows(starts[:8]), replace(CAPABILITY, settle_s={"*": 3600.0}), received)

    assert got.bars["state"].to_pylist() == ["final"] * 5 + ["closed", "closed", "open"]


@pytest.mark.parametrize(("minute", "state"), [(45, "open"), (60, "closed")])
def test_an_hour_that_begins_before_the_open_ends_an_hour_later(minute, state):
    begun = utc(2026, 11, 19, 14, 0)  # 09:00 in New York

    got = page("AAPL.US", Freq.H1, rows([begun]), received=begun + timedelta(minutes=minute))

    assert got.bars["state"].to_pylist() == [state]


def test_a_print_after_the_close_keeps_the_last_bar_from_being_final_too_soon():
    close = utc(2026, 11, 20, 21)
    capability = replace(CAPABILITY, settle_s={"*": 60.0})

    got = page(
        "AAPL.US",
        Freq.M1,
        rows([close - timedelta(minutes=1), close]),
        capability,
        close + timedelta(seconds=61),
    )

    assert got.bars["state"].to_pylist() == ["final", "closed"]
    assert fold(got.bars)["state"].to_pylist() == ["closed"]


def test_amount_is_kept_where_the_vendor_gives_one():
    got = page("00700.HK", Freq.D1, rows([utc(2026, 11, 19, 16)], amount=50.0))

    assert got.bars["amount"].to_pylist() == [50.0]
    assert got.bars.schema.equals(INCOMING)


def test_an_opening_print_joins_the_first_bar_and_a_closing_one_makes_the_last():
    opening, first, closing = utc(2026, 11, 20, 1, 29), utc(2026, 11, 20, 1, 30), utc(2026, 11, 20, 7)

    got = fold(page("000001.SZ", Freq.M1, rows([opening, first, closing], amount=7.0)).bars).to_pylist()

    assert [row["ts"] for row in got] == [first, closing - timedelta(minutes=1)]
    assert [(row["open"], row["close"], row["high"], row["low"]) for row in got] == [
        (10.0, 10.01, 11.01, 9.0),
        (10.02, 10.02, 11.02, 9.02),
    ]
    assert [(row["volume"], row["amount"], row["flags"]) for row in got] == [
        (1000.0, 14.0, 1),
        (500.0, 7.0, 1),
    ]


def test_amounts_that_are_added_stay_the_decimals_that_they_are():
    bar, closing = utc(2026, 11, 20, 6, 59), utc(2026, 11, 20, 7)
    given = rows([bar, closing])
    given.amount = np.array([0.1, 0.2])

    got = fold(page("000001.SZ", Freq.M1, given).bars)

    assert got["amount"].to_pylist() == [0.3]


def test_folding_twice_changes_nothing_more():
    bars = page("AAPL.US", Freq.M1, rows([utc(2026, 11, 20, 20, 59), utc(2026, 11, 20, 21)])).bars

    once = fold(bars)

    assert fold(once).equals(once)


def test_a_flat_bar_without_volume_is_no_trade_but_an_index_has_none_anyway():
    stock = page("600519.SH", Freq.D1, rows([utc(2026, 11, 18, 16), utc(2026, 11, 19, 16)], volume=0.0)).bars
    at, named = stock.schema.get_field_index, stock.schema.field
    flat = stock.set_column(at("high"), named("high"), [[10.0, 10.0]])
    flat = flat.set_column(at("low"), named("low"), [[10.0, 9.0]])
    index = flat.set_column(
        flat.schema.get_field_index("symbol"), flat.schema.field("symbol"), [["000300.SH"] * 2]
    )

    assert fold(flat)["session"].to_pylist() == [FRIDAY]
    assert fold(index).num_rows == 2


@given(st.lists(st.integers(0, 390), min_size=1, unique=True), st.randoms())
@settings(max_examples=40, deadline=None)
def test_folding_keeps_all_volume_and_never_exceeds_the_grid(slots, random):
    opened = calendar("XNYS").hours(FRIDAY).open
    starts = [opened + timedelta(minutes=slot) for slot in slots]
    random.shuffle(starts)

    got = page("AAPL.US", Freq.M1, rows(starts)).bars
    folded = fold(got)

    assert sum(folded["volume"].to_pylist()) == 5.0 * len(slots)
    assert folded.num_rows == len({min(slot, 389) for slot in slots})
    assert set(folded["ts"].to_pylist()) <= set(calendar("XNYS").starts(FRIDAY, Freq.M1))
    assert folded["ts"].to_pylist() == sorted(folded["ts"].to_pylist())


def test_a_grid_of_days_without_trade_is_empty():
    weekend = grid("XSHG", Freq.M1, date(2026, 11, 21), date(2026, 11, 22))

    session, fits, auction = weekend.place(np.array([0, 1]))

    assert weekend.starts.size == 0
    assert not fits.any() and not auction.any() and session.tolist() == [0, 0]


@pytest.mark.parametrize(("name", "slots"), [("XSHG", 240), ("XHKG", 330), ("XNYS", 390), ("24/7", 1440)])
def test_a_regular_day_has_as_many_minutes_as_the_design_says(name, slots):
    day = grid(name, Freq.M1, date(2026, 11, 18), date(2026, 11, 18))

    assert int((~day.auction).sum()) == slots
