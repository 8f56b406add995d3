"""The main job, end to end, against the sandbox: what it sends, what it stores, what it says."""

import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import date, datetime

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from stand import Stand

import klake
from klake.jobs.sync import plan, sync

ALL = ["600519.SH", "000001.SZ", "00700.HK", "AAPL.US", "BTCUSDT.P.QOS"]
VALUES = ["open", "high", "low", "close", "volume"]


def job(symbols: list[str] = ALL, freq: list[str] | None = None, start: str = "2026-10-01") -> str:
    return f'[jobs.daily]\nvendor = "qos"\nsymbols = {symbols}\nfreq = {freq or ["1d"]}\nstart = "{start}"\n'.replace(
        "'", '"'
    )


def truth(stand: Stand, symbol: str, freq: str, start: str, end: str) -> pl.DataFrame:
    rows = stand.control("GET", "/truth", symbol=symbol, freq=freq, start=start, end=end)
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.with_columns(
        pl.col("ts").str.to_datetime(time_unit="us", time_zone="UTC"), pl.col("session").str.to_date()
    )


def held(stand: Stand, symbol: str, freq: str) -> pl.DataFrame:
    return klake.open(str(stand.folder / "lake")).bars(symbol, freq).pl()


def same(stand: Stand, symbol: str, freq: str, start: str, end: str) -> None:
    ours = held(stand, symbol, freq).select("ts", "session", *VALUES)
    theirs = truth(stand, symbol, freq, start, end).select("ts", "session", *VALUES)
    assert ours.height > 0
    assert_frame_equal(ours, theirs.cast(dict(ours.schema)), rel_tol=1e-12)


@pytest.mark.parametrize("symbol", ALL)
def test_daily_bars_in_the_lake_are_the_market_s(stand: Stand, symbol: str) -> None:
    stand.jobs = job([symbol])
    stand.write()
    desk = stand.desk()

    report = sync(desk, "daily", desk.job("daily"))

    assert report.exit_code == 0, report
    same(stand, symbol, "1d", "2026-10-01", "2026-11-20")


@pytest.mark.parametrize("symbol", ALL)
def test_minute_bars_in_the_lake_are_the_market_s(stand: Stand, symbol: str) -> None:
    stand.key = "deep"
    stand.jobs = job([symbol], ["1m"], "2026-11-16")
    stand.write()
    desk = stand.desk()

    report = sync(desk, "daily", desk.job("daily"))

    assert report.exit_code == 0, report
    first = held(stand, symbol, "1m")["ts"].min()
    same(stand, symbol, "1m", first.isoformat().replace("+00:00", "Z"), "2026-11-20T08:31:00Z")


def test_the_plan_says_what_the_sync_then_sends(stand: Stand) -> None:
    stand.key = "deep"
    stand.jobs = job(ALL[:4], ["1d", "1h"], "2021-01-01")
    stand.write()
    desk = stand.desk()
    said = plan(desk, "daily", desk.job("daily"))
    assert stand.requests("/history", "/kline") == []

    report = sync(desk, "daily", desk.job("daily"))

    sent = stand.requests("/history", "/kline")
    assert said.requests == said.fewest
    assert (report.requests_planned, report.requests_sent) == (said.requests, len(sent))
    assert len(sent) == said.requests


def test_a_second_run_sends_at_most_two_requests_and_commits_nothing_twice(stand: Stand) -> None:
    stand.jobs = job(ALL, ["1d", "1m"], "2026-10-01")
    stand.write()
    desk = stand.desk()
    first = sync(desk, "daily", desk.job("daily"))
    before = len(stand.requests())

    second = sync(desk, "daily", desk.job("daily"))

    assert first.requests_sent > 0
    assert len(stand.requests()) - before <= 2
    assert second.exit_code == 0
    assert second.written.new <= len(ALL)  # only what a market that is open has added since


def test_a_run_that_brings_nothing_makes_no_commit(stand: Stand) -> None:
    stand.jobs = job(["600519.SH", "00700.HK"], ["1d", "1m"], "2026-10-01")
    stand.write()
    desk = stand.desk()
    sync(desk, "daily", desk.job("daily"))
    store = desk.store()
    version, files = store.version, sorted(p for p in (stand.folder / "lake" / "bars").rglob("*.parquet"))

    report = sync(desk, "daily", desk.job("daily"))

    assert report.requests_sent == 0
    assert report.written.commits == 0
    assert sorted(p for p in (stand.folder / "lake" / "bars").rglob("*.parquet")) == files
    assert desk.store().version == version


def test_the_next_day_brings_only_the_next_day(stand: Stand) -> None:
    stand.jobs = job(["600519.SH", "AAPL.US"], ["1d"], "2026-10-01")
    stand.write()
    desk = stand.desk()
    sync(desk, "daily", desk.job("daily"))
    stand.advance(3 * 86400)  # Monday

    report = sync(desk, "daily", desk.job("daily"))

    assert report.requests_sent == 1
    same(stand, "600519.SH", "1d", "2026-10-01", "2026-11-23")
    same(stand, "AAPL.US", "1d", "2026-10-01", "2026-11-23")


def test_a_closed_bar_is_settled_by_the_next_increment(stand: Stand) -> None:
    stand.jobs = job(["600519.SH"], ["1d"], "2026-11-01")
    stand.write()
    desk = stand.desk()
    sync(desk, "daily", desk.job("daily"))
    states = Counter(held(stand, "600519.SH", "1d")["state"].to_list())
    assert states["closed"] == 1
    stand.advance(3 * 86400)

    report = sync(desk, "daily", desk.job("daily"))

    assert report.written.settled == 1 or report.written.revised == 1
    assert Counter(held(stand, "600519.SH", "1d").head(-1)["state"].to_list()).keys() == {"final"}


def test_one_symbol_that_the_vendor_lacks_costs_one_line(stand: Stand) -> None:
    stand.jobs = job([*ALL, "NOSUCH.US"])
    stand.write()
    desk = stand.desk()

    report = sync(desk, "daily", desk.job("daily"))

    assert [p.symbol for p in report.parked] == ["NOSUCH.US"]
    assert report.exit_code == 1
    same(stand, "600519.SH", "1d", "2026-10-01", "2026-11-20")


@pytest.mark.parametrize(
    "fault",
    ["http_504", "http_429", "reset", "cut", "corrupt", "no_data", "null_data", "no_k", "null_k", "duplicate_bar",
     "descending", "missing_item", "http_500_ok"],
)  # fmt: skip
def test_a_fault_costs_requests_but_no_bar(stand: Stand, fault: str) -> None:
    stand.control("POST", "/faults", {"rules": [{"kind": fault, "next": 2, "endpoint": "/kline"}]})
    stand.jobs = job(ALL)
    stand.write()
    desk = stand.desk()

    report = sync(desk, "daily", desk.job("daily"))

    assert report.exit_code == 0, report
    for symbol in ALL:
        same(stand, symbol, "1d", "2026-10-01", "2026-11-20")


def test_an_ignored_end_is_found_out_and_never_loops(stand: Stand) -> None:
    stand.key = "recent"
    stand.vendor = "depth = 0"
    stand.jobs = job(["600519.SH"], ["1m"], "2026-01-01")
    stand.write()
    desk = stand.desk()

    first = sync(desk, "daily", desk.job("daily"))
    sent = len(stand.requests("/history", "/kline"))
    stand.advance(7 * 3600)
    second = sync(desk, "daily", desk.job("daily"))

    assert sent <= 3
    assert (first.missing > 0, [p.symbol for p in first.parked]) == (True, ["600519.SH"])
    assert "no progress" in first.parked[0].error
    assert held(stand, "600519.SH", "1m").height > 0
    assert (
        len(stand.requests("/history", "/kline")) - sent <= 1
    )  # now it is known, and nothing is asked beyond it
    assert second.empty["beyond the vendor's horizon"] > 0


def test_bars_of_a_killed_run_are_replayed_not_asked_again(stand: Stand) -> None:
    stand.key = "deep"
    stand.jobs = job(["600519.SH", "AAPL.US"], ["1d", "1m"], "2026-10-01")
    stand.write()
    desk = stand.desk()
    needed = plan(desk, "daily", desk.job("daily")).requests
    code = (
        "import os, signal\n"
        "from klake.jobs.desk import open_desk\nfrom klake.jobs import sync as s, chains\n"
        "desk = open_desk('klake.toml')\nseen = 0\n"
        "take = chains.Fetching._take\n"
        "def dying(self, *a):\n    global seen\n    take(self, *a)\n    seen += 1\n"
        "    if seen == 3:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "chains.Fetching._take = dying\n"
        "s.sync(desk, 'daily', desk.job('daily'))\n"
    )
    died = subprocess.run([sys.executable, "-c", code], cwd=stand.folder, env=dict(os.environ), check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(stand.requests("/history", "/kline")) == 3

    report = sync(desk, "daily", desk.job("daily"))

    assert report.replayed == 3
    assert report.exit_code == 0, report
    assert len(stand.requests("/history", "/kline")) <= needed + 1
    same(stand, "600519.SH", "1d", "2026-10-01", "2026-11-20")
    same(stand, "AAPL.US", "1m", "2026-10-01T00:00:00Z", "2026-11-20T08:31:00Z")


def test_the_quota_is_never_exceeded_by_arrival(stand: Stand) -> None:
    stand.key = "deep"
    stand.jobs = job(["600519.SH"], ["1m"], "2026-08-01")
    stand.write()
    desk = stand.desk()

    report = sync(desk, "daily", desk.job("daily"))

    arrived = sorted(datetime.fromisoformat(r["arrived"]) for r in stand.requests())
    assert len(arrived) > 12
    assert all(
        (later - first).total_seconds() > 60 for first, later in zip(arrived, arrived[10:], strict=False)
    )
    assert report.waited_s > 0
    assert not [r for r in stand.requests() if r["status"] == 429]


def test_the_report_accounts_for_every_session(stand: Stand) -> None:
    stand.jobs = job(ALL, ["1d"], "2015-01-01")
    stand.write()
    desk = stand.desk()

    report = sync(desk, "daily", desk.job("daily"))

    assert report.missing == 0
    assert report.expected == report.stored + sum(report.empty.values())
    assert report.empty["beyond the vendor's horizon"] > 0


def test_coverage_is_rebuilt_when_the_state_is_lost(stand: Stand) -> None:
    stand.jobs = job(ALL)
    stand.write()
    desk = stand.desk()
    sync(desk, "daily", desk.job("daily"))
    before = desk.books().ledger.table()
    for file in (stand.folder / "lake").rglob("state.sqlite*"):
        file.unlink()

    again = sync(desk, "daily", desk.job("daily"))

    assert again.requests_sent <= 1  # the market that never closes
    assert desk.books().ledger.table().num_rows >= before.num_rows


def test_the_python_face_syncs_what_the_file_says(stand: Stand) -> None:
    stand.jobs = job(ALL)
    stand.write()

    said = klake.plan("daily", config=stand.config)
    report = klake.sync("daily", config=stand.config)

    assert (said.requests, report.requests_sent) == (1, 1)
    assert klake.open(str(stand.folder / "lake")).bars(ALL).panel("close").width == len(ALL) + 1


def test_an_ad_hoc_job_needs_no_name(stand: Stand) -> None:
    report = klake.sync(
        config=stand.config, vendor="qos", symbols=["AAPL.US"], freq=["1d"], start=date(2026, 11, 2)
    )

    assert report.exit_code == 0
    assert held(stand, "AAPL.US", "1d")["session"].min() == date(2026, 11, 2)


def test_known_at_of_each_commit_is_later_than_that_of_the_one_before(stand: Stand) -> None:
    stand.jobs = job(["600519.SH"])
    stand.write()
    last: datetime | None = None

    for _ in range(3):
        known = set(held(stand, "600519.SH", "1d")["known_at"].to_list()) if last else set()
        desk = stand.desk()
        sync(desk, "daily", desk.job("daily"))
        fresh = set(held(stand, "600519.SH", "1d")["known_at"].to_list()) - known
        assert len(fresh) == 1  # one commit, one instant
        assert last is None or min(fresh) > last
        last = max(fresh)
        stand.advance(3 * 86400)


def test_a_day_whose_bar_was_refused_stays_missing_and_is_asked_again(stand: Stand) -> None:
    stand.control(
        "POST",
        "/faults",
        {"rules": [{"kind": "low_above_high", "next": 1, "endpoint": "/kline", "codes": ["SH:600519"]}]},
    )
    stand.jobs = job(["600519.SH"])
    stand.write()
    desk = stand.desk()

    first = sync(desk, "daily", desk.job("daily"))
    second = sync(desk, "daily", desk.job("daily"))

    assert (first.written.quarantined, first.missing, first.exit_code) == (1, 1, 1)
    assert (second.missing, second.exit_code) == (0, 0)
    same(stand, "600519.SH", "1d", "2026-10-01", "2026-11-20")
    said = klake.open(str(stand.folder / "lake")).sql("SELECT rule, symbol FROM quarantine").rows()
    assert said == [("low above high", "600519.SH")]


def test_the_history_of_the_lake_names_the_run(stand: Stand) -> None:
    stand.jobs = job(["600519.SH"])
    stand.write()
    desk = stand.desk()

    report = sync(desk, "daily", desk.job("daily"))

    assert [v.run for v in desk.store().history(1)] == [report.run]
