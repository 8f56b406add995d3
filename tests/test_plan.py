"""The plan: what is missing, in the fewest requests, said before anything is sent."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klake.ingest.fetch import entries_needed
from klake.jobs.plan import Plan, due, make_plan, rounds, wanted
from klake.schemas.capability import Capability
from klake.schemas.coverage import Covered, Reason, Series, Standing
from klake.schemas.freq import Freq
from klake.schemas.quota import Quota
from klake.schemas.session import calendar
from klake.schemas.span import Span
from klake.schemas.symbol import Class, Symbol
from klake.storage.coverage import Ledger
from klake.storage.state import State

NOW = datetime(
    2026, 11, 20, 8, 30, tzinfo=UTC
)  # a Friday: Shanghai and Hong Kong have closed, New York has not opened
CAPABILITY = Capability(
    venues=("SH", "US", "QOS"), classes=(Class.STOCK, Class.CRYPTO), freqs={Freq.D1: "1001", Freq.M1: "1", Freq.W1: "1007"},
    label={}, time_unit="s", zone="UTC", volume_factor={}, amount=False, adjusts=("none",), page_limit=1000,
    products=10, order="ascending", end_inclusive=True, includes_unfinished=True, fills_gaps=False,
    quotas=(Quota(10, 60.0),), settle_s={"*": 7200.0}, restates=True,
)  # fmt: skip


def planned(symbols: list[str], freqs: list[Freq], start: date, covered: dict[Series, list[Covered]] | None = None,
            capability: Capability = CAPABILITY, now: datetime = NOW) -> Plan:  # fmt: skip
    return make_plan(
        job="test", vendor="qos", symbols=[Symbol.parse(s) for s in symbols], freqs=freqs, start=start, end=None,
        covered=covered or {}, capability=capability, now=now,
    )  # fmt: skip


def stretch(symbol: str, freq: Freq, start: date, end: date, standing: Standing, at: datetime = NOW,
            reason: Reason = Reason.NONE) -> Covered:  # fmt: skip
    return Covered(Series("qos", symbol, freq), Span(start, end), standing, reason, "p1", "p1", at)


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 10))
def test_packing_reaches_the_fewest_requests_there_can_be(lengths: list[int], products: int) -> None:
    packed = rounds(lengths, products)

    assert len(packed) == max(-(-sum(lengths) // products), max(lengths, default=0))
    assert all(len(set(r)) == len(r) <= products for r in packed)
    assert [sum(n in r for r in packed) for n in range(len(lengths))] == lengths


@pytest.mark.parametrize("bars, entries", [(1, 1), (1000, 1), (1001, 2), (1999, 2), (2000, 3)])
def test_pages_overlap_by_one_bar(bars: int, entries: int) -> None:
    assert entries_needed(bars, 1000) == entries


def test_an_empty_lake_wants_everything_since_the_start() -> None:
    plan = planned(["600519.SH"], [Freq.D1], date(2026, 11, 2))

    assert [(w.sessions, w.bars, w.entries) for w in plan.wants] == [
        (Span(date(2026, 11, 2), date(2026, 11, 21)), 15, 1)
    ]
    assert (plan.requests, plan.fewest) == (1, 1)


def test_what_is_covered_is_not_asked_again() -> None:
    series = Series("qos", "600519.SH", Freq.D1)
    held = stretch("600519.SH", Freq.D1, date(2020, 1, 1), date(2026, 11, 21), Standing.FINAL)

    assert planned(["600519.SH"], [Freq.D1], date(2020, 1, 1), {series: [held]}).requests == 0


def test_a_hole_in_the_middle_is_asked_alone() -> None:
    series = Series("qos", "600519.SH", Freq.D1)
    held = [
        stretch("600519.SH", Freq.D1, date(2010, 1, 1), date(2015, 1, 1), Standing.FINAL),
        stretch("600519.SH", Freq.D1, date(2015, 2, 1), date(2026, 11, 21), Standing.FINAL),
    ]

    plan = planned(["600519.SH"], [Freq.D1], date(2010, 1, 1), {series: held})

    assert [w.sessions for w in plan.wants] == [Span(date(2015, 1, 1), date(2015, 2, 1))]


def test_two_holes_that_one_page_reaches_are_one_chain() -> None:
    series = Series("qos", "600519.SH", Freq.D1)
    held = [
        stretch("600519.SH", Freq.D1, date(2026, 1, 1), date(2026, 6, 1), Standing.FINAL),
        stretch("600519.SH", Freq.D1, date(2026, 6, 5), date(2026, 11, 19), Standing.FINAL),
    ]

    plan = planned(["600519.SH"], [Freq.D1], date(2026, 1, 1), {series: held})

    assert [(w.sessions, w.entries) for w in plan.wants] == [(Span(date(2026, 6, 1), date(2026, 11, 21)), 1)]


def test_a_closed_session_rides_along_but_is_no_reason_to_ask() -> None:
    series = Series("qos", "600519.SH", Freq.D1)
    closed = stretch(
        "600519.SH", Freq.D1, date(2026, 11, 19), date(2026, 11, 20), Standing.CLOSED, NOW - timedelta(days=1)
    )
    old = stretch("600519.SH", Freq.D1, date(2026, 11, 1), date(2026, 11, 19), Standing.FINAL)
    today = stretch("600519.SH", Freq.D1, date(2026, 11, 20), date(2026, 11, 21), Standing.FINAL)

    alone = planned(["600519.SH"], [Freq.D1], date(2026, 11, 2), {series: [old, closed, today]})
    riding = planned(["600519.SH"], [Freq.D1], date(2026, 11, 2), {series: [old, closed]})

    assert alone.requests == 0
    assert [w.sessions for w in riding.wants] == [Span(date(2026, 11, 19), date(2026, 11, 21))]


def utc(day: int, hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, second, tzinfo=UTC)


@pytest.mark.parametrize(
    ("symbol", "freq", "fetched", "now", "is_due"),
    [
        ("600519.SH", Freq.D1, utc(20, 5, 0), utc(20, 8, 30), True),  # the session has ended since
        ("600519.SH", Freq.D1, utc(20, 5, 0), utc(20, 6, 59), False),
        ("600519.SH", Freq.D1, utc(20, 7, 0, 1), utc(25, 8, 30), False),  # other sessions do not matter
        ("600519.SH", Freq.M1, utc(20, 5, 0), utc(20, 8, 30), True),
        ("600519.SH", Freq.M1, utc(20, 6, 59, 30), utc(20, 6, 59, 59), False),
        ("600519.SH", Freq.M1, utc(20, 6, 59, 30), utc(20, 7, 0), True),  # the last minute has ended
        ("600519.SH", Freq.M1, utc(20, 6, 59, 30), utc(21, 12, 0), True),  # Saturday
        ("600519.SH", Freq.M1, utc(20, 7, 0), utc(21, 12, 0), False),
        ("600519.SH", Freq.H1, utc(20, 6, 10), utc(22, 12, 0), True),  # Sunday
        ("600519.SH", Freq.M1, utc(20, 3, 35), utc(20, 3, 37), False),  # lunch
        ("600519.SH", Freq.M1, utc(20, 3, 35), utc(20, 5, 1), True),
        ("600519.SH", Freq.M1, utc(20, 3, 29, 59), utc(20, 3, 37), True),
        ("600519.SH", Freq.M15, utc(20, 2, 14), utc(20, 2, 15), True),
        ("600519.SH", Freq.M15, utc(20, 2, 15), utc(20, 2, 29), False),
        ("BTCUSDT.P.QOS", Freq.H4, utc(20, 3, 59), utc(20, 7, 58), True),  # one ended at 04:00
        ("BTCUSDT.P.QOS", Freq.H4, utc(20, 4, 1), utc(20, 7, 58), False),
    ],
)
def test_an_open_session_is_due_when_something_has_ended(
    symbol: str, freq: Freq, fetched: datetime, now: datetime, is_due: bool
) -> None:
    held = stretch(symbol, freq, date(2026, 11, 20), date(2026, 11, 21), Standing.OPEN, fetched)

    assert due(held, calendar(Symbol.parse(symbol).place.calendar), now) is is_due


def test_a_week_is_due_after_each_of_its_sessions_and_not_after_those_of_the_next() -> None:
    held = stretch("600519.SH", Freq.W1, date(2026, 11, 16), date(2026, 11, 23), Standing.OPEN, utc(18, 8, 0))
    late = stretch("600519.SH", Freq.W1, date(2026, 11, 16), date(2026, 11, 23), Standing.OPEN, utc(20, 8, 0))

    assert [due(held, calendar("XSHG"), at) for at in (utc(19, 6, 0), utc(19, 7, 0))] == [False, True]
    assert not due(late, calendar("XSHG"), utc(24, 9, 0))


def test_only_what_had_not_settled_when_it_was_fetched_rides_along() -> None:
    series = Series("qos", "600519.SH", Freq.D1)
    none = {"standing": Standing.EMPTY, "reason": Reason.VENDOR_NONE}
    held = [
        stretch("600519.SH", Freq.D1, date(2026, 10, 1), date(2026, 11, 17), Standing.FINAL),
        stretch("600519.SH", Freq.D1, date(2026, 11, 17), date(2026, 11, 18), at=utc(18, 1, 0), **none),
        stretch("600519.SH", Freq.D1, date(2026, 11, 18), date(2026, 11, 19), at=utc(18, 7, 1), **none),
    ]

    plan = planned(["600519.SH"], [Freq.D1], date(2026, 10, 1), {series: held}, now=utc(19, 7, 1))

    assert [w.sessions for w in plan.wants] == [Span(date(2026, 11, 18), date(2026, 11, 20))]


def test_a_long_halt_does_not_ride_every_night_as_a_whole(tmp_path: Path) -> None:
    days, series = calendar("XSHG"), Series("qos", "600519.SH", Freq.M1)
    ledger = Ledger(State.open(tmp_path / "state.sqlite", "lake"))

    asked: list[Span[date]] = []
    for day in days.sessions(date(2026, 1, 5), date(2026, 5, 1)):
        now = days.hours(day).close + timedelta(minutes=20)
        plan = planned(
            ["600519.SH"], [Freq.M1], date(2026, 1, 5), {series: ledger.covered([series])[series]}, now=now
        )
        asked = [w.sessions for w in plan.wants]
        ledger.record(
            Covered(series, span, Standing.EMPTY, Reason.VENDOR_NONE, "p", "p", now) for span in asked
        )

    assert asked == [Span(date(2026, 4, 29), date(2026, 5, 1))]


def test_the_newest_hole_of_a_series_goes_first() -> None:
    series = Series("qos", "600519.SH", Freq.D1)
    held = [stretch("600519.SH", Freq.D1, date(2016, 1, 1), date(2026, 11, 19), Standing.FINAL)]

    plan = planned(["600519.SH"], [Freq.D1], date(2000, 1, 1), {series: held})

    assert [w.sessions.start for w in plan.wants] == [date(2026, 11, 19), date(2000, 1, 1)]


def test_a_job_wants_the_session_that_has_opened() -> None:
    morning = datetime(2026, 11, 20, 1, 45, tzinfo=UTC)  # 09:45 in Shanghai
    night = datetime(2026, 11, 20, 0, 15, tzinfo=UTC)  # 08:15 in Shanghai

    assert wanted(calendar("XSHG"), Freq.D1, date(2026, 11, 2), None, morning).end == date(2026, 11, 21)
    assert wanted(calendar("XSHG"), Freq.D1, date(2026, 11, 2), None, night).end == date(2026, 11, 20)


def test_a_week_is_wanted_whole() -> None:
    span = wanted(calendar("XSHG"), Freq.W1, date(2026, 11, 4), None, NOW)

    assert span == Span(date(2026, 11, 2), date(2026, 11, 23))


def test_a_key_with_a_horizon_is_not_asked_beyond_it() -> None:
    from dataclasses import replace

    plan = planned(["600519.SH"], [Freq.M1], date(2020, 1, 1), capability=replace(CAPABILITY, depth=1000))

    assert plan.requests == 1


def test_the_finish_time_follows_from_the_quota() -> None:
    plan = planned([f"{600000 + n}.SH" for n in range(1000)], [Freq.D1], date(2026, 1, 1))

    assert plan.requests == plan.fewest == 100
    assert timedelta(seconds=9 * 60) <= plan.finish[0] - NOW <= timedelta(seconds=9.2 * 60)
    assert plan.finish[1] > plan.finish[0]
