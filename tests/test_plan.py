"""The plan: what is missing, in the fewest requests, said before anything is sent."""

from datetime import UTC, date, datetime, timedelta

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


@pytest.mark.parametrize(
    "freq, fetched, is_due",
    [
        (
            Freq.D1,
            datetime(2026, 11, 20, 5, tzinfo=UTC),
            True,
        ),  # fetched at 13:00, the session has ended since
        (Freq.M1, datetime(2026, 11, 20, 5, tzinfo=UTC), True),
        (
            Freq.M1,
            datetime(2026, 11, 20, 6, 59, 30, tzinfo=UTC),
            False,
        ),  # not one more minute has ended since
    ],
)
def test_an_open_session_is_due_when_something_has_ended(freq: Freq, fetched: datetime, is_due: bool) -> None:
    held = stretch("600519.SH", freq, date(2026, 11, 20), date(2026, 11, 21), Standing.OPEN, fetched)

    assert due(held, calendar("XSHG"), NOW) is is_due


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
