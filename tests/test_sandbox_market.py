"""The sandbox market: one truth, computed directly, the same everywhere."""

import hashlib
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klake.errors import UnknownSymbol
from klake.sandbox.daily import events
from klake.sandbox.grid import grid, number
from klake.sandbox.instruments import catalogue
from klake.sandbox.market import Market, Restatement
from klake.schemas.freq import Freq

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
MARKET = Market()
SYMBOLS = sorted(MARKET.instruments)
LIVELY = [
    "600519.SH",
    "000001.SZ",
    "00700.HK",
    "08609.HK",
    "AAPL.US",
    "NAN.US",
    "BTCUSDT.P.QOS",
    "XMRUSDT.P.QOS",
]


def rows(symbol: str, freq: str, start: Any, end: Any, now: datetime = NOW, market: Market = MARKET) -> Any:
    return market.truth(symbol, Freq(freq), start, end, now).to_pylist()


def minutes(symbol: str, start: date, end: date, now: datetime = NOW, market: Market = MARKET) -> Any:
    """The minutes of the sessions in [start, end]: no venue here trades across midnight in UTC."""
    first, last = (datetime(d.year, d.month, d.day, tzinfo=UTC) for d in (start, end + timedelta(days=1)))
    return rows(symbol, "1m", first, last, now, market)


def summed(bars: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "open": bars[0]["open"], "high": max(b["high"] for b in bars), "low": min(b["low"] for b in bars),
        "close": bars[-1]["close"], "volume": pytest.approx(sum(b["volume"] for b in bars), rel=1e-12),
        "amount": pytest.approx(sum(b["amount"] for b in bars), rel=1e-12),
    }  # fmt: skip


def values(bar: dict[str, Any]) -> dict[str, Any]:
    return {name: bar[name] for name in ("open", "high", "low", "close", "volume", "amount")}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_minutes_of_a_day_open_bound_close_and_sum_as_the_day_does(symbol: str) -> None:
    inst = MARKET.instrument(symbol)
    end = min(inst.delisted or date(2026, 11, 19), date(2026, 11, 19))
    start = end - timedelta(days=25)

    daily = rows(symbol, "1d", start, end)
    by_day = {day: list(bars) for day, bars in groupby(minutes(symbol, start, end), lambda b: b["session"])}

    assert list(by_day) == [bar["session"] for bar in daily]
    for bar in daily:
        assert values(bar) == summed(by_day[bar["session"]]), bar["session"]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**40), place=st.integers(0, 79), day=st.dates(date(2002, 1, 1), date(2026, 11, 19))
)
def test_any_seed_and_day_keep_every_rule_of_a_bar(seed: int, place: int, day: date) -> None:
    inst = catalogue(seed, 80)[place]
    market, symbol = Market(seed, 80), str(inst.symbol)

    bars = [*minutes(symbol, day, day + timedelta(days=3), market=market), *rows(
        symbol, "1d", day, day + timedelta(days=9), market=market)]  # fmt: skip

    for bar in bars:
        assert (
            0 < bar["low"] <= min(bar["open"], bar["close"]) <= max(bar["open"], bar["close"]) <= bar["high"]
        )
        assert bar["volume"] > 0
        assert bar["low"] * (1 - 1e-12) <= bar["amount"] / bar["volume"] <= bar["high"] * (1 + 1e-12)
        assert bar["volume"] % 100 == 0 or inst.venue in {"US", "QOS"}
        assert round(bar["close"], inst.decimals) == bar["close"]
    starts = [bar["ts"] for bar in bars if bar["freq"] == "1m"]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("symbol", LIVELY)
def test_a_day_asked_for_alone_is_the_day_asked_for_with_its_year(symbol: str) -> None:
    year = rows(symbol, "1d", date(2025, 1, 1), date(2025, 12, 31))

    alone = [rows(symbol, "1d", bar["session"], bar["session"])[0] for bar in year[::37]]

    assert alone == year[::37]


def test_every_process_and_every_zone_sees_the_same_market() -> None:
    script = (
        "import hashlib; from datetime import *; from klake.sandbox.market import Market;"
        "from klake.schemas.freq import Freq; m = Market(7, 50); d = datetime(2026, 11, 20, 8, tzinfo=UTC);"
        "t = [m.truth(s, Freq(f), a, b, d).to_pylist() for s in sorted(m.instruments) for f, a, b in"
        " (('1d', date(2026, 1, 1), date(2026, 11, 20)), ('30m', d - timedelta(days=5), d))];"
        "print(hashlib.sha256(repr(t).encode()).hexdigest())"
    )

    seen = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "TZ": zone, "PYTHONHASHSEED": hashing},
            capture_output=True, text=True, check=True,
        ).stdout
        for zone, hashing in (("Asia/Shanghai", "1"), ("America/New_York", "2"))
    }  # fmt: skip

    assert len(seen) == 1
    assert len(seen.pop().strip()) == hashlib.sha256().digest_size * 2


@settings(max_examples=60, deadline=None)
@given(symbol=st.sampled_from(LIVELY), start_s=st.integers(0, 86_400), step_s=st.integers(1, 4_000))
def test_a_forming_bar_never_holds_the_future_and_only_grows(symbol: str, start_s: int, step_s: int) -> None:
    day = date(2026, 11, 19)
    early = datetime(2026, 11, 19, tzinfo=UTC) + timedelta(seconds=start_s)
    late = early + timedelta(seconds=step_s)

    before, after = (minutes(symbol, day, day, now) for now in (early, late))

    ended = [bar for bar in before if bar["state"] == "final"]
    assert after[: len(ended)] == ended
    assert len(before) - len(ended) <= 1 + (symbol.endswith("HK"))
    for old, new in zip(before, after, strict=False):
        assert old["ts"] < early
        assert (old["ts"], old["open"]) == (new["ts"], new["open"])
        assert old["low"] >= new["low"] and old["high"] <= new["high"] and old["volume"] <= new["volume"]
        assert old["low"] <= old["amount"] / old["volume"] * (1 + 1e-12)
        assert old["amount"] / old["volume"] <= old["high"] * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(symbol=st.sampled_from(LIVELY), minute=st.integers(0, 1_439), second=st.integers(1, 59))
def test_a_minute_in_progress_lacks_what_is_still_to_come(symbol: str, minute: int, second: int) -> None:
    day, now = (
        date(2026, 11, 19),
        datetime(2026, 11, 19, tzinfo=UTC) + timedelta(minutes=minute, seconds=second),
    )
    whole = {bar["ts"]: bar for bar in minutes(symbol, day, day)}

    forming = [bar for bar in minutes(symbol, day, day, now) if bar["state"] == "open"]

    for bar in forming:
        opening = whole[bar["ts"]] == min(whole.values(), key=lambda b: b["ts"])
        assert bar["volume"] < whole[bar["ts"]]["volume"]
        if second < 18 and not opening:  # peak and trough come after 30 % and 70 % of the minute
            assert bar["high"] == max(bar["open"], bar["close"])
            assert bar["low"] == min(bar["open"], bar["close"])


@settings(max_examples=30, deadline=None)
@given(symbol=st.sampled_from(LIVELY), start_s=st.integers(0, 86_400))
def test_the_day_in_progress_is_what_its_minutes_hold_so_far(symbol: str, start_s: int) -> None:
    day, now = date(2026, 11, 19), datetime(2026, 11, 19, tzinfo=UTC) + timedelta(seconds=start_s)

    daily, so_far = rows(symbol, "1d", day, day, now), minutes(symbol, day, day, now)

    assert [values(bar) for bar in daily] == ([summed(so_far)] if so_far else [])


@pytest.mark.parametrize("symbol", LIVELY)
@pytest.mark.parametrize("freq", ["3m", "5m", "15m", "30m", "1h", "2h", "4h"])
def test_a_longer_intraday_bar_is_its_minutes_and_never_crosses_lunch(symbol: str, freq: str) -> None:
    start, end = datetime(2026, 11, 18, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)
    lone = rows(symbol, "1m", start, end)

    longer = rows(symbol, freq, start, end)

    step = timedelta(minutes=Freq(freq).minutes)
    left = list(lone)
    for bar in longer:
        inside = [m for m in left if bar["ts"] <= m["ts"] < bar["ts"] + step]
        if symbol[-2:] in {"SH", "SZ", "HK"}:  # afternoons begin at 05:00 UTC
            inside = [m for m in inside if (m["ts"].hour < 5) == (bar["ts"].hour < 5)]
        assert values(bar) == summed(inside)
        left = left[len(inside) :]
    assert left == []


def test_a_longer_bar_is_over_at_the_end_of_its_segment_though_its_length_reaches_further() -> None:
    start, noon = datetime(2026, 11, 19, tzinfo=UTC), datetime(2026, 11, 19, 3, 30, tzinfo=UTC)

    before = rows("600519.SH", "4h", start, NOW, noon - timedelta(seconds=1))
    after = rows("600519.SH", "4h", start, NOW, noon)

    assert [bar["state"] for bar in (*before, *after)] == ["open", "final"]


@pytest.mark.parametrize("symbol", ["600519.SH", "AAPL.US", "BTCUSDT.P.QOS", "000333.SZ"])
@pytest.mark.parametrize("freq", ["1w", "1mo", "1q", "1y"])
def test_weeks_and_longer_are_their_days(symbol: str, freq: str) -> None:
    daily = rows(symbol, "1d", date(2024, 1, 1), date(2026, 11, 20))

    longer = rows(symbol, freq, date(2024, 1, 1), date(2026, 11, 20))

    grouped = {a: list(bars) for a, bars in groupby(daily, lambda b: Freq(freq).anchor(b["session"]))}
    assert {bar["session"]: values(bar) for bar in longer} == {a: summed(bars) for a, bars in grouped.items()}
    ended = symbol[-2:] in {"SH", "SZ"} and freq == "1w"  # NOW is a Friday, after the close in China
    assert [bar["state"] for bar in longer][-2:] == ["final", "final" if ended else "open"]


def test_china_trades_240_minutes_less_the_two_of_its_closing_auction() -> None:
    bars = minutes("600519.SH", date(2026, 11, 19), date(2026, 11, 19))

    walls = [(bar["ts"] + timedelta(hours=8)).strftime("%H:%M") for bar in bars]
    assert (walls[0], walls[-2:], len(walls)) == ("09:30", ["14:56", "14:59"], 238)
    assert not [wall for wall in walls if "11:30" <= wall < "13:00"]


def test_new_york_keeps_its_wall_clock_across_summer_time_and_closes_early() -> None:
    days = [date(2026, 10, 30), date(2026, 11, 2), date(2026, 11, 27)]

    spans = [minutes("AAPL.US", d, d, datetime(2026, 12, 1, tzinfo=UTC)) for d in days]

    edges = [(bars[0]["ts"].strftime("%H:%M"), bars[-1]["ts"].strftime("%H:%M")) for bars in spans]
    assert edges == [("13:30", "19:59"), ("14:30", "20:59"), ("14:30", "17:59")]
    assert grid("US").short(number(days[2])) and not grid("US").short(number(days[1]))


def test_nobody_trades_before_listing_after_delisting_or_in_a_halt() -> None:
    ever = date(2001, 1, 1), date(2026, 11, 20)

    sessions = {
        s: [b["session"] for b in rows(s, "1d", *ever)] for s in ("688999.SH", "600087.SH", "000333.SZ")
    }

    assert sessions["688999.SH"][0] == date(2026, 9, 15)
    assert sessions["600087.SH"][-1] == date(2014, 6, 4)
    assert date(2013, 8, 1) not in sessions["600087.SH"]
    assert sessions["000333.SZ"][-1] == date(2026, 11, 11)


def test_an_action_moves_the_price_by_its_declared_factor_but_a_reform_declares_none() -> None:
    split = next(
        e for e in events(MARKET.instrument("AAPL.US"), grid("US")) if e.action.ex == date(2020, 8, 31)
    )
    reform = next(e for e in events(MARKET.instrument("600000.SH"), grid("SH")) if e.action.kind == "reform")
    cash = next(e for e in events(MARKET.instrument("600519.SH"), grid("SH")) if e.action.kind == "dividend")

    opened = rows("AAPL.US", "1d", date(2020, 8, 31), date(2020, 8, 31))[0]["open"]

    assert split.factor == 0.25 and abs(opened / (split.prev_close * 0.25) - 1) < 0.03
    assert reform.factor == 1.0
    assert cash.factor == (cash.prev_close - cash.cash) / cash.prev_close < 1


def test_a_restated_day_changes_from_its_instant_on_and_stays_consistent() -> None:
    market, day = Market(), date(2026, 11, 18)
    market.restate(Restatement("600519.SH", number(day), number(day), NOW.timestamp()))

    before = rows("600519.SH", "1d", day, day, NOW - timedelta(seconds=1), market)[0]
    after = rows("600519.SH", "1d", day, day, NOW, market)[0]

    assert before == rows("600519.SH", "1d", day, day)[0] != after
    assert values(after) == summed(minutes("600519.SH", day, day, NOW, market))


def test_a_late_closing_auction_leaves_bars_closed_and_then_corrects_them() -> None:
    market, day = Market(), date(2026, 11, 19)
    market.closing_delay_s = 300.0
    close = datetime(2026, 11, 19, 7, tzinfo=UTC)

    pending = minutes("600519.SH", day, day, close + timedelta(seconds=299), market)
    young = rows("600519.SH", "1d", day, day, close + timedelta(seconds=299), market)[0]
    late = rows("600519.SH", "1d", day, day, close + timedelta(seconds=300), market)[0]

    assert young["state"] == "closed" and late["state"] == "final"
    assert pending[-1]["ts"] == close - timedelta(minutes=4)
    assert values(young) == summed(pending) and young["volume"] < late["volume"]


def test_a_larger_market_holds_the_smaller_one() -> None:
    large = Market(1, 300)

    assert list(large.instruments)[:40] == list(MARKET.instruments)
    assert len(large.instruments) == 300
    assert rows("AAPL.US", "1d", date(2026, 1, 1), NOW.date(), market=large) == rows(
        "AAPL.US", "1d", date(2026, 1, 1), NOW.date()
    )


def test_the_smallest_market_has_every_venue_and_an_unknown_symbol_is_an_error() -> None:
    market = Market(1, 5)

    assert {i.venue for i in market.instruments.values()} == {"SH", "SZ", "HK", "US", "QOS"}
    with pytest.raises(UnknownSymbol, match=r"NOPE\.US"):
        market.truth("NOPE.US", Freq.D1, NOW.date(), NOW.date(), NOW)


@settings(max_examples=25, deadline=None)
@given(symbol=st.sampled_from(LIVELY), freq=st.sampled_from(list(Freq)), count=st.integers(1, 300))
def test_the_tail_is_the_end_of_the_whole_history(symbol: str, freq: Freq, count: int) -> None:
    inst, last = MARKET.instrument(symbol), number(date(2026, 11, 18))
    first = last - (25 if freq.intraday else 10_000)
    whole = MARKET.bars(inst, freq, first, last, NOW.timestamp())
    count = min(count, max(whole.start.size - 1, 1))

    tail = MARKET.tail(inst, freq, last, count, NOW.timestamp())

    assert tail.start.tolist() == whole.start[-count:].tolist()
    assert tail.volume.tolist() == whole.volume[-count:].tolist()


@pytest.mark.parametrize(("freq", "count"), [("1m", 2_000), ("1d", 120), ("1h", 400)])
def test_the_tail_reaches_back_across_a_halt_of_half_a_year(freq: str, count: int) -> None:
    inst, last = MARKET.instrument("000002.SZ"), number(date(2016, 7, 8))

    tail = MARKET.tail(inst, Freq(freq), last, count, NOW.timestamp())

    assert tail.start.size == count
    assert tail.day[0] < number(date(2015, 12, 18)) < number(date(2016, 7, 4)) <= tail.day[-1]
