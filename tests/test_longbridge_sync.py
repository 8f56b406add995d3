"""Longbridge end to end: its stand-in's market, through the real SDK, is in the lake as it is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from longbridge_child import ROOT
from longbridge_stand import LongbridgeStand

from klake.errors import UnitMismatch
from klake.sandbox.grid import number
from klake.sandbox.market import Restatement
from klake.sandbox.server import Sandbox

NOON = datetime.fromisoformat("2026-11-20T08:30:00Z")
FEW = ["600519.SH", "000001.SZ", "00700.HK", "AAPL.US", "000300.SH"]


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(instruments=40, clock_start=NOON) as sandbox:
        yield sandbox


@pytest.fixture
def lb(running: Sandbox, tmp_path: Path) -> LongbridgeStand:
    running.clock.put(NOON)
    running.journal.clear()
    running.faults.reset()
    running.longbridge.reset()
    return LongbridgeStand(running, tmp_path)


def strike(lb: LongbridgeStand, *kinds: str, chance: float = 1.0, **dials: Any) -> None:
    lb.sandbox.faults.put([{"kind": kind, "probability": chance} for kind in kinds], dials)


@pytest.mark.parametrize("transport", ["ws", "http"])
@pytest.mark.parametrize("anchor", ["inclusive", "exclusive"])
@pytest.mark.parametrize("spoiled", [(), ("descending", "duplicate_bar"), ("unsorted", "stray_bar")], ids=str)
def test_the_lake_holds_the_sandboxs_truth_whatever_the_vendors_way_is(
    lb: LongbridgeStand, transport: str, anchor: str, spoiled: tuple[str, ...]
) -> None:
    lb.transport = transport
    strike(lb, *spoiled, gzip=anchor == "exclusive")
    numbers = "text" if anchor == "exclusive" else "plain"
    lb.sandbox.longbridge.turn({"anchor": anchor, "numbers": numbers, "session_field": not spoiled})

    report = lb.sync(FEW, ["1d", "1m", "1w"], "2026-11-12")

    assert report.exit_code == 0, report
    assert lb.wrong(FEW, ["1d", "1m", "1w"], "2026-11-12") == []


@pytest.mark.parametrize("limit", [9, 10, 17, 18, 19, 33])
@pytest.mark.parametrize("anchor", ["inclusive", "exclusive"])
def test_a_closing_auction_is_folded_wherever_a_page_ends(
    lb: LongbridgeStand, limit: int, anchor: str
) -> None:
    lb.sandbox.longbridge.turn({"anchor": anchor})

    report = lb.sync(["600519.SH", "00700.HK"], ["15m"], "2026-11-16", f"page_limit = {limit}")

    assert report.exit_code == 0, report
    for symbol, bars in (("600519.SH", 16), ("00700.HK", 22)):
        assert len(lb.held(symbol, "15m")) == 5 * bars
        assert lb.held(symbol, "15m") == lb.truth(symbol, "15m", "2026-11-16")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_the_machines_zone_changes_nothing(zone: str) -> None:
    said = child(zone, "12", "1d,1w,1mo,15m,1m", "2026-11-17")

    assert said == {"exit_code": 0, "wrong": [], "series": 50}


@pytest.mark.proof
@pytest.mark.parametrize("transport", ["ws", "http"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_forty_instruments_in_every_freq_are_the_sandboxs_truth(zone: str, transport: str) -> None:
    said = child(zone, "40", "1m,3m,5m,15m,30m,1h,2h,4h,1d,1w,1mo,1q,1y", "2026-09-21", transport)

    assert said["wrong"] == [] and said["series"] > 400, said


def child(zone: str, *argv: str) -> dict[str, Any]:
    """Run a sync in a process whose clock on the wall is another one."""
    env = {**os.environ, "TZ": zone, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    script = Path(__file__).with_name("longbridge_child.py")
    done = subprocess.run(
        [sys.executable, str(script), *argv], check=False, env=env, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_second_sync_brings_nothing_new(lb: LongbridgeStand) -> None:
    lb.sync(FEW, ["1d"], "2026-11-02")
    lb.sandbox.journal.clear()

    again = lb.sync(FEW, ["1d"], "2026-11-02")

    assert (again.written.commits, again.requests_sent) == (0, 0)


def test_a_running_session_is_completed_later(lb: LongbridgeStand) -> None:
    lb.sandbox.clock.put(
        datetime.fromisoformat("2026-11-20T03:10:20Z")
    )  # before lunch in Shanghai and Hong Kong
    lb.sync(FEW, ["1d", "5m"], "2026-11-16")
    early = {symbol: lb.held(symbol, "5m") for symbol in FEW}
    for symbol, rows in early.items():  # the newest one was still forming
        assert rows[:-1] == lb.truth(symbol, "5m", "2026-11-16")[: len(rows) - 1], symbol
    lb.sandbox.clock.put(datetime.fromisoformat("2026-11-20T12:40:00Z"))

    report = lb.sync(FEW, ["1d", "5m"], "2026-11-16")

    assert report.exit_code == 0
    assert lb.wrong(FEW, ["1d", "5m"], "2026-11-16") == []


@pytest.mark.parametrize("transport", ["ws", "http"])
def test_with_a_fifth_of_all_replies_spoiled_the_lake_is_that_of_a_clean_run(
    lb: LongbridgeStand, transport: str
) -> None:
    lb.transport = transport
    kinds = ["error", "bad_error", "corrupt", "unsorted", "duplicate_bar", "stray_bar", "http_429", "http_429_json",
             "http_504", "not_json", "no_data", "cut", "reset"]  # fmt: skip
    # A connection that breaks costs the SDK two seconds on the wall: on the long one, only some do.
    strike(lb, *(kinds if transport == "http" else kinds[:6]), chance=0.2 / 3)

    reports = [lb.sync(FEW, ["1d", "5m"], "2026-10-19")]
    while reports[-1].exit_code and len(reports) < 12:
        lb.sandbox.clock.advance(7 * 86_400)
        lb.sandbox.clock.put(NOON)
        reports.append(lb.sync(FEW, ["1d", "5m"], "2026-10-19"))

    assert reports[-1].missing == 0, reports[-1]
    assert lb.wrong(FEW, ["1d", "5m"], "2026-10-19") == []


def test_an_empty_price_is_quarantined_and_the_rest_stored(lb: LongbridgeStand) -> None:
    strike(lb, "empty_price")

    report = lb.sync(["AAPL.US"], ["1d"], "2026-11-02")

    assert report.written.quarantined == 1
    assert len(lb.held("AAPL.US", "1d")) == len(lb.truth("AAPL.US", "1d", "2026-11-02")) - 1


def test_the_months_symbols_are_counted_and_those_beyond_are_not_asked(lb: LongbridgeStand) -> None:
    lb.symbols_a_month = 2

    first = lb.sync(["AAPL.US", "00700.HK"], ["1d"], "2026-11-02")
    second = lb.sync(["AAPL.US", "00700.HK", "600519.SH"], ["1d", "1w"], "2026-11-02")

    assert first.exit_code == 0
    assert [p.symbol for p in second.parked] == ["600519.SH", "600519.SH"]
    assert "2 symbols that this month allows are spent" in second.parked[0].error
    assert lb.held("AAPL.US", "1w") == lb.truth("AAPL.US", "1w", "2026-11-02")
    assert not lb.held("600519.SH", "1d")


def test_a_new_month_lets_new_symbols_in(lb: LongbridgeStand) -> None:
    lb.symbols_a_month = 1
    lb.sync(["AAPL.US", "00700.HK"], ["1d"], "2026-11-02")
    lb.sandbox.clock.put(datetime.fromisoformat("2026-12-01T09:00:00Z"))

    report = lb.sync(["00700.HK"], ["1d"], "2026-11-02")

    assert report.exit_code == 0
    assert lb.held("00700.HK", "1d") == lb.truth("00700.HK", "1d", "2026-11-02")


def test_what_the_vendor_itself_says_of_spent_symbols_costs_those_and_no_others(lb: LongbridgeStand) -> None:
    lb.account = "poor"  # two symbols a month, as the vendor counts; the configuration believes in a thousand
    lb.sandbox.longbridge.turn({"newest_counts": True})

    report = lb.sync(["AAPL.US", "00700.HK", "600519.SH", "MSFT.US"], ["1d"], "2026-11-02")

    lake = lb.lake()
    assert len(report.parked) == 2 and all("301607" in p.error for p in report.parked)
    assert not report.error
    assert sorted({symbol for symbol, _ in lake} | {p.symbol for p in report.parked}) == [
        "00700.HK", "600519.SH", "AAPL.US", "MSFT.US",
    ]  # fmt: skip
    assert all(rows == lb.truth(*series, "2026-11-02") for series, rows in lake.items())


def test_what_lies_before_the_vendors_history_is_told_and_not_asked(lb: LongbridgeStand) -> None:
    report = lb.sync(["AAPL.US"], ["1d", "30m"], "2010-01-04")

    days = lb.truth("AAPL.US", "1d", "2010-06-01")
    assert report.missing == 0 and report.empty["beyond the vendor's horizon"] > 3500
    assert lb.held("AAPL.US", "1d") == days
    assert lb.held("AAPL.US", "30m")[0][1].isoformat() == "2023-12-04"


def test_pages_are_paged_backward_by_offset_and_overlap(lb: LongbridgeStand) -> None:
    lb.sync(["00700.HK"], ["1m"], "2026-11-09")

    asked = [row.endpoint for row in lb.sandbox.journal.rows() if row.vendor == "longbridge"]
    bars = 10 * 331
    assert asked.count("/quote/history-candlesticks") == -(-bars // 999) - 1
    assert asked.count("/quote/candlesticks") == 2  # the canary's day, and the newest page


def test_a_page_whose_volume_counts_otherwise_is_stopped_before_it_is_stored(lb: LongbridgeStand) -> None:
    with pytest.raises(UnitMismatch, match=r'"SZ.stock" = 100'):
        lb.sync(["000001.SZ"], ["1d"], "2026-11-02", 'volume_factor = { "SZ.stock" = 1 }')

    assert not lb.lake()


def test_a_correction_after_the_close_replaces_the_bar_and_keeps_the_old_one(lb: LongbridgeStand) -> None:
    lb.sync(["00700.HK"], ["1d"], "2026-11-16")  # half an hour after the close: closed, not final
    today = number(NOON.date())
    lb.sandbox.market.restate(Restatement("00700.HK", today, today, NOON.timestamp() + 3600))
    lb.sandbox.clock.put(NOON + timedelta(days=3))  # what had not settled rides on the next increment

    report = lb.sync(["00700.HK"], ["1d"], "2026-11-16")

    truth = lb.truth("00700.HK", "1d", "2026-11-16")
    lb.sandbox.market.calm()
    assert report.written.revised == 1
    assert lb.held("00700.HK", "1d") == truth
