"""The session table: which days, from when to when, and which session an instant belongs to."""

import csv
import os
import struct
import subprocess
import sys
import warnings
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klake.errors import BadRequest
from klake.schemas.freq import Freq
from klake.schemas.session import (
    Calendar,
    CalendarGuess,
    _warn_once,
    calendar,
    nominal_ts,
    nominal_ts_array,
    sessions_table,
)  # fmt: skip
from klake.schemas.venue import VENUES

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("KLAKE_REAL_DATA", ROOT.parent / "shared" / "data"))
NAMES = ("XSHG", "XSHE", "XHKG", "XNYS", "24/7", "FX")
NEW_YORK, HONG_KONG, SHANGHAI = map(ZoneInfo, ("America/New_York", "Asia/Hong_Kong", "Asia/Shanghai"))

real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"no real K-lines at {REAL}: set KLAKE_REAL_DATA"),
]
moments = st.datetimes(datetime(1995, 1, 1), datetime(2026, 11, 1)).map(lambda t: t.replace(tzinfo=UTC))
days = st.dates(date(1995, 1, 1), date(2024, 6, 1))
calendars = st.sampled_from(NAMES).map(calendar)


def local(zone: ZoneInfo, day: date, *wall: int) -> datetime:
    return datetime.combine(day, time(*wall), zone).astimezone(UTC)


def test_a_shanghai_session_has_240_minutes_around_lunch() -> None:
    day = date(2024, 1, 3)

    hours = calendar("XSHG").hours(day)

    assert (hours.open, hours.close) == (local(SHANGHAI, day, 9, 30), local(SHANGHAI, day, 15))
    assert (hours.break_start, hours.break_end) == (local(SHANGHAI, day, 11, 30), local(SHANGHAI, day, 13))
    assert hours.minutes == 240
    assert len(hours.segments) == 2


@pytest.mark.parametrize(
    ("day", "minutes"),
    [(date(2010, 1, 4), 240), (date(2011, 6, 1), 300), (date(2012, 3, 5), 330), (date(2024, 12, 24), 150)],
)
def test_hong_kong_lunch_and_half_days_follow_the_rules_of_their_year(day: date, minutes: int) -> None:
    book = calendar("XHKG")

    hours = book.hours(day)

    assert hours.minutes == minutes


@pytest.mark.parametrize("day", [date(2023, 9, 1), date(2023, 9, 8)])
def test_days_that_a_storm_closed_are_not_sessions(day: date) -> None:
    book = calendar("XHKG")

    around = book.sessions(day - timedelta(days=1), day + timedelta(days=1))

    assert not book.is_session(day)
    assert around == [day - timedelta(days=1)]
    with pytest.raises(BadRequest, match="does not trade"):
        book.hours(day)


@pytest.mark.parametrize(
    ("day", "opened", "closed"),
    [
        (date(2020, 8, 19), (13, 30), (16, 0)),
        (date(2021, 6, 28), (13, 30), (16, 0)),
        (date(2023, 10, 9), (14, 0), (16, 0)),
        (date(2022, 11, 2), (9, 30), (13, 55)),
    ],
)
def test_late_opens_and_early_closes_of_hong_kong_are_known(
    day: date, opened: tuple[int, int], closed: tuple[int, int]
) -> None:
    book = calendar("XHKG")

    hours = book.hours(day)

    assert hours.open == local(HONG_KONG, day, *opened)
    assert hours.close == local(HONG_KONG, day, *closed)


def test_new_york_half_days_and_summer_time_are_kept() -> None:
    book = calendar("XNYS")

    half, before, after = (book.hours(d) for d in (date(2024, 11, 29), date(2024, 3, 8), date(2024, 3, 11)))

    assert half.minutes == 210
    assert (before.open.hour, after.open.hour) == (14, 13)
    assert after.minutes == 390


def test_the_hour_grid_begins_anew_after_lunch() -> None:
    day = date(2024, 1, 3)

    china = calendar("XSHG").starts(day, Freq.H1)
    hong_kong = calendar("XHKG").starts(day, Freq.H1)
    new_york = calendar("XNYS").starts(day, Freq.H1)

    assert [t.astimezone(SHANGHAI).strftime("%H%M") for t in china] == ["0930", "1030", "1300", "1400"]
    assert len(hong_kong) == 6 and hong_kong[2] == local(HONG_KONG, day, 11, 30)
    assert len(new_york) == 7 and new_york[-1] == local(NEW_YORK, day, 15, 30)


def test_a_bar_ends_with_its_segment_and_a_period_with_its_last_session() -> None:
    book, day = calendar("XHKG"), date(2024, 1, 3)

    before_lunch = book.bar_end(day, Freq.H1, local(HONG_KONG, day, 11, 30))
    minute = book.bar_end(day, Freq.M1, local(HONG_KONG, day, 9, 30))
    daily, weekly, yearly = (book.bar_end(f.anchor(day), f) for f in (Freq.D1, Freq.W1, Freq.Y1))

    assert before_lunch == local(HONG_KONG, day, 12)
    assert minute == local(HONG_KONG, day, 9, 31)
    assert daily == book.hours(day).close
    assert weekly == book.hours(date(2024, 1, 5)).close
    assert yearly == book.hours(date(2024, 12, 31)).close


def test_a_period_without_a_session_ends_with_the_session_before_it() -> None:
    book, golden_week = calendar("XSHG"), date(2024, 9, 30)

    monday = book.bar_end(golden_week, Freq.W1)
    empty = book.bar_end(date(2024, 2, 12), Freq.W1)

    assert monday == book.hours(date(2024, 9, 30)).close
    assert empty == book.hours(date(2024, 2, 8)).close


def test_the_end_of_an_intraday_bar_needs_its_start() -> None:
    book = calendar("XNYS")

    with pytest.raises(BadRequest, match="ts="):
        book.bar_end(date(2024, 1, 3), Freq.M1)

    with pytest.raises(BadRequest, match="intraday"):
        book.starts(date(2024, 1, 3), Freq.D1)


def test_extended_hours_of_new_york_belong_to_a_session() -> None:
    book, friday, monday = calendar("XNYS"), date(2024, 1, 5), date(2024, 1, 8)

    at = {
        wall: book.session_of(local(NEW_YORK, day, *wall))
        for day, wall in [
            (friday, (3, 59)), (friday, (4, 0)), (friday, (19, 59)), (friday, (20, 0)),
            (date(2024, 1, 7), (19, 58)), (date(2024, 1, 7), (20, 1)),
        ]
    }  # fmt: skip
    late = book.session_of(local(NEW_YORK, date(2024, 1, 4), 20))

    assert late == friday
    assert at[3, 59] == at[4, 0] == at[19, 59] == friday
    assert at[20, 0] is None and at[19, 58] is None
    assert at[20, 1] == monday


def test_auctions_belong_to_the_session_of_their_day() -> None:
    book, day = calendar("XHKG"), date(2024, 12, 24)

    early, auction, later = (book.session_of(local(HONG_KONG, day, *t)) for t in [(9, 0), (12, 9), (12, 30)])
    shanghai = [
        calendar("XSHG").session_of(local(SHANGHAI, day, *t)) for t in [(9, 15), (11, 45), (15, 29), (15, 30)]
    ]

    assert early == auction == day
    assert later is None
    assert shanghai == [day, day, day, None]


def test_an_fx_session_runs_from_new_yorks_evening_to_the_next() -> None:
    book = calendar("FX")

    hours = book.hours(date(2024, 7, 1))
    opened = book.session_of(local(NEW_YORK, date(2024, 6, 30), 17))
    weekend = book.session_of(local(NEW_YORK, date(2024, 6, 29), 12))

    assert hours.open == local(NEW_YORK, date(2024, 6, 30), 17)
    assert hours.close == local(NEW_YORK, date(2024, 7, 1), 17)
    assert opened == date(2024, 7, 1)
    assert weekend is None


def test_crypto_trades_every_day_of_utc() -> None:
    book = calendar("24/7")

    week = book.sessions(date(2024, 2, 26), date(2024, 3, 4))
    midnight = book.session_of(datetime(2024, 3, 1, tzinfo=UTC))

    assert len(week) == 7
    assert book.hours(date(2024, 2, 29)).minutes == 1_440
    assert midnight == date(2024, 3, 1)
    assert book.known_until == date.max


def test_the_newest_ended_session_changes_at_the_close() -> None:
    book, day = calendar("XSHG"), date(2024, 1, 3)
    close = book.hours(day).close

    at, before = book.last_ended(close), book.last_ended(close - timedelta(microseconds=1))

    assert (before, at) == (date(2024, 1, 2), day)


def test_beyond_the_table_weekdays_stand_in_with_one_warning() -> None:
    _warn_once.cache_clear()
    book = calendar("XSHG")

    with pytest.warns(CalendarGuess, match="XSHG") as first:
        found = book.sessions(date(2035, 1, 1), date(2035, 1, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = book.hours(date(2035, 1, 2))

    assert len(found) == 5 and len(first) == 1
    assert again.minutes == 240
    assert book.next(book.known_until).year == book.known_until.year + 1


def test_inside_the_table_nothing_warns() -> None:
    _warn_once.cache_clear()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts = [len(calendar(n).sessions(date(2024, 1, 1), date(2025, 1, 1))) for n in NAMES]

    assert counts == [242, 242, 246, 252, 366, 262]


def test_an_unknown_calendar_and_a_naive_time_are_refused() -> None:
    with pytest.raises(BadRequest, match="XSHG"):
        calendar("XTKS")

    with pytest.raises(BadRequest, match="aware"):
        calendar("XSHG").session_of(datetime(2024, 1, 3))


def test_nulls_stay_null_and_a_million_rows_take_no_time() -> None:
    book = calendar("XNYS")
    times = pa.chunked_array(
        [pa.array([datetime(2024, 1, 3, 15, tzinfo=UTC), None], pa.timestamp("us", tz="UTC"))]
    )
    many = np.datetime64("2020-01-01", "us") + np.arange(1_000_000) * np.timedelta64(60_000_000, "us")

    few, all_of_them = book.sessions_of(times), book.sessions_of(many)

    assert few.to_pylist() == [date(2024, 1, 3), None]
    assert len(all_of_them) == 1_000_000


def test_the_stamp_of_a_daily_bar_ignores_half_days_and_late_opens() -> None:
    late = date(2020, 8, 19)

    stamp = nominal_ts("HK", late)

    assert stamp == local(HONG_KONG, late, 9, 30)
    assert nominal_ts("BINANCE", late) == datetime(2020, 8, 19, tzinfo=UTC)


def test_the_phase_of_an_instant_has_a_name() -> None:
    day = date(2024, 1, 3)
    walls = [(3, 0), (8, 0), (10, 0), (17, 0), (21, 0)]

    phases = calendar("XNYS").phases(np.array([local(NEW_YORK, day, *w).replace(tzinfo=None) for w in walls]))
    lunch = calendar("XSHG").phases(np.array([local(SHANGHAI, day, 12).replace(tzinfo=None)]))

    assert phases.tolist() == ["overnight", "pre", "regular", "post", "overnight"]
    assert lunch.tolist() == ["lunch"]


def test_the_clock_grid_may_begin_before_the_open_but_never_in_lunch() -> None:
    day = date(2011, 6, 1)  # Hong Kong lunch 12:00-13:30
    first, after = (local(HONG_KONG, day, *w).replace(tzinfo=None) for w in [(9, 31), (13, 31)])

    clock = calendar("XHKG").buckets(Freq.H1, np.array([first, after]), "clock")

    assert clock[0] == np.datetime64(local(HONG_KONG, day, 9).replace(tzinfo=None))
    assert clock[1] == np.datetime64(local(HONG_KONG, day, 13, 30).replace(tzinfo=None))


def test_an_instant_outside_every_session_still_falls_on_a_grid() -> None:
    sunday = datetime(2024, 1, 7, 3, 7)

    bucket = calendar("XSHG").buckets(Freq.M5, np.array([sunday]))

    assert bucket[0] == np.datetime64("2024-01-07T03:05")


@given(calendars, moments)
def test_one_instant_and_many_agree(book: Calendar, moment: datetime) -> None:
    many = np.array([moment.replace(tzinfo=None)] * 2, "datetime64[us]")

    one, both = book.session_of(moment), book.sessions_of(many)

    assert both.to_pylist() == [one, one]


@given(calendars, days, st.integers(0, 400), st.integers(0, 400))
def test_sessions_are_half_open_and_add_up(book: Calendar, start: date, a: int, b: int) -> None:
    middle, end = start + timedelta(days=a), start + timedelta(days=a + b)

    whole = book.sessions(start, end)

    assert whole == book.sessions(start, middle) + book.sessions(middle, end)
    assert book.sessions(start, start) == []
    assert all(book.is_session(d) for d in whole)


@given(calendars, days)
def test_previous_and_next_are_strict_and_inverse(book: Calendar, day: date) -> None:
    before, after = book.previous(day), book.next(day)

    assert before < day < after
    assert book.next(before) == (day if book.is_session(day) else after)
    assert book.sessions(before + timedelta(days=1), after) == ([day] if book.is_session(day) else [])


@given(calendars, days, st.sampled_from([f for f in Freq if f.intraday]))
def test_the_grid_of_a_session_covers_its_segments_exactly(book: Calendar, day: date, freq: Freq) -> None:
    session = book.next(day)
    hours = book.hours(session)

    starts = book.starts(session, freq)
    ends = [book.bar_end(session, freq, t) for t in starts]

    assert sum((e - s).total_seconds() for s, e in zip(starts, ends, strict=True)) == hours.minutes * 60
    assert all(
        any(g.start <= s < e <= g.end for g in hours.segments) for s, e in zip(starts, ends, strict=True)
    )
    assert all(book.session_of(t) == session for t in starts)
    naive = np.array([t.replace(tzinfo=None) for t in starts], "datetime64[us]")
    assert (book.buckets(freq, naive) == naive).all()
    assert (
        book.bar_ends(freq, naive) == np.array([e.replace(tzinfo=None) for e in ends], "datetime64[us]")
    ).all()


@given(st.sampled_from(sorted(VENUES)), st.lists(st.dates(date(1990, 1, 1), date(2030, 12, 31)), max_size=5))
def test_many_daily_stamps_equal_one_by_one(venue: str, sessions: list[date]) -> None:
    stamps = nominal_ts_array(venue, pa.array(sessions, pa.date32()))

    assert stamps.to_pylist() == [nominal_ts(venue, s) for s in sessions]


def test_the_packed_table_is_what_its_script_would_write() -> None:
    source = pytest.importorskip("exchange_calendars")
    packed = pq.read_schema(ROOT / "schemas" / "sessions.parquet").metadata[b"exchange_calendars"].decode()
    if source.__version__ != packed:
        pytest.skip(f"packed from exchange_calendars {packed}, here is {source.__version__}")

    done = subprocess.run(
        [sys.executable, str(ROOT / "etc" / "pack_sessions.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", [pytest.param("XSHG", marks=real_data), pytest.param("XNYS", marks=real_data)]
)
def test_sessions_and_hours_equal_the_published_answers(name: str) -> None:
    with (REAL / "calendar" / f"{name.lower()}.csv").open() as file:
        rows = [row for row in csv.reader(file) if row[0][:10] >= "1990-12-19"][1:]
    answers = {date.fromisoformat(r[0][:10]): [datetime.fromisoformat(c) for c in r[1:] if c] for r in rows}
    first, last = min(answers), max(answers)

    book = calendar(name)
    ours = book.sessions(first, min(last, book.known_until) + timedelta(days=1))

    assert ours == [d for d in answers if d <= book.known_until]
    for day in ours:
        hours = book.hours(day)
        assert answers[day][:2] == [hours.open, hours.close]
        assert answers[day][2:] == [t for t in (hours.break_start, hours.break_end) if t]


@pytest.mark.parametrize("code", [pytest.param("sh000001", marks=real_data)])
def test_the_days_of_the_shanghai_index_are_its_sessions(code: str) -> None:
    raw = (REAL / "cn" / "hikyuu" / f"{code}.day").read_bytes()
    traded = [datetime.strptime(str(r[0]), "%Y%m%d").date() for r in struct.iter_unpack("<IIIIIfII", raw)]

    sessions = calendar("XSHG").sessions(date(1990, 12, 19), date(2025, 8, 6))

    assert len(traded) == 8_455
    assert sessions == traded


@given(
    st.sampled_from(["XSHG", "XHKG", "XNYS", "24/7", "FX"]), st.sampled_from([f for f in Freq if f.value != "1w"]),
    st.dates(date(2005, 1, 1), date(2025, 1, 1)), st.integers(0, 40),
)  # fmt: skip
def test_bars_counted_are_the_bars_of_the_grid(name: str, freq: Freq, start: date, days: int) -> None:
    book, end = calendar(name), start + timedelta(days=days)
    first = freq.anchor(start) if not freq.intraday else start

    counted = book.bars(first, end, freq)

    sessions = book.sessions(first, end)
    grid = (
        sum(len(book.starts(s, freq)) for s in sessions)
        if freq.intraday
        else len({freq.anchor(s) for s in sessions})
    )
    assert counted == grid


def test_the_session_table_for_sql_is_what_the_calendars_say() -> None:
    table = sessions_table()

    rows = table.filter(pc.field("calendar") == "XHKG").select(["session", "open", "close"]).to_pylist()
    assert table.num_rows > 40_000
    for row in rows[-300:]:
        hours = calendar("XHKG").hours(row["session"])
        assert (row["open"], row["close"]) == (hours.open, hours.close)
