"""What goes wrong with one symbol, one page, one run or one job stays there; the others go on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from stand import Stand
from test_sync import job, same

import klake
from klake.errors import CommitConflict, VendorDown
from klake.ingest.http import Http, Reply
from klake.ingest.registry import open_vendor
from klake.ingest.vendor import Answer
from klake.jobs.facts import keep, observed
from klake.jobs.send import Sender
from klake.jobs.sync import sync
from klake.jobs.turn import turn
from klake.jobs.vendors import probe
from klake.schemas.clock import ManualClock
from klake.schemas.events import Event, Finding, Planned
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page, PageRequest
from klake.schemas.quota import Quota, Slot
from klake.schemas.report import RunReport
from klake.storage.quotas import SharedQuotas
from klake.storage.raw import RawZone

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
SIX = ["600519.SH", "000001.SZ", "601398.SH", "000858.SZ", "00700.HK", "AAPL.US"]


def run(stand: Stand) -> RunReport:
    desk = stand.desk()
    return sync(desk, "daily", desk.job("daily"))


def faulty(stand: Stand, *rules: dict[str, object]) -> None:
    stand.control("POST", "/faults", {"rules": list(rules)})


def wanted(stand: Stand, symbols: list[str], start: str = "2026-11-02") -> None:
    stand.jobs = job(symbols, ["1d"], start)
    stand.write()


class Heard:
    """Events in a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class Free:
    """Quotas without a limit."""

    def reserve(self, account: str, quotas: tuple[Quota, ...]) -> Slot:
        return Slot(1, account, NOW)

    def settle(self, slot: Slot) -> None:
        pass

    def push_back(self, account: str, seconds: float) -> None:
        pass

    def free_at(self, account: str, quotas: tuple[Quota, ...], requests: int) -> datetime:
        return NOW


class Memory:
    """Pages in a list."""

    def __init__(self) -> None:
        self.pages: list[Page] = []

    def append(self, pages: list[Page]) -> None:
        self.pages += pages


def asking(answer: Callable[[httpx.Request], httpx.Response], *symbols: str):
    clock = ManualClock(NOW)
    client = httpx.Client(transport=httpx.MockTransport(answer))
    vendor = open_vendor("qos", {"kind": "qos", "key": "sandbox-x"}, clock, client=client)
    sender = Sender(vendor, Free(), Memory(), clock)
    return sender, vendor.request(tuple(Entry(s, Freq.D1, None, 3) for s in symbols))


def test_three_refused_symbols_side_by_side_cost_three_lines(stand: Stand) -> None:
    refused = {"SZ:000001": "000001.SZ", "SZ:000858": "000858.SZ", "HK:700": "00700.HK"}
    faulty(stand, *({"kind": "error", "next": 10**5, "codes": [code], "endpoint": "/kline", "text": "Unknown code"}
                    for code in refused))  # fmt: skip
    wanted(stand, SIX)

    report = run(stand)

    assert {p.symbol for p in report.parked} == set(refused.values())
    assert report.error == ""
    for symbol in set(SIX) - set(refused.values()):
        same(stand, symbol, "1d", "2026-11-02", "2026-11-20")


def test_an_entry_that_breaks_every_request_does_not_starve_the_others(stand: Stand) -> None:
    faulty(stand, {"kind": "http_504", "next": 10**5, "codes": ["SH:600519"], "endpoint": "/kline"})
    wanted(stand, SIX)

    report = run(stand)

    assert [p.symbol for p in report.parked] == ["600519.SH"]
    assert "504" in report.parked[0].error
    for symbol in SIX[1:]:
        same(stand, symbol, "1d", "2026-11-02", "2026-11-20")


def test_a_vendor_that_fails_on_everything_is_left_alone_and_what_was_given_up_is_kept(stand: Stand) -> None:
    faulty(stand, {"kind": "http_504", "next": 10**5, "endpoint": "/kline"})
    wanted(stand, SIX)

    report = run(stand)

    assert "3 requests in a row failed" in report.error
    assert len(report.parked) == 3
    assert report.requests_sent <= 25


def test_where_nobody_answers_the_request_is_not_halved() -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    sender, request = asking(nobody, *SIX)

    answer = sender.answer(request)

    assert isinstance(answer.trouble, VendorDown)
    assert (sender.sent, answer.refused) == (5, [])


def test_pages_and_refusals_before_the_breaker_are_handed_over() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if b"US:AAPL" in request.content and b"SH:" not in request.content:
            return httpx.Response(200, json={"msg": "OK", "data": []})
        return httpx.Response(504)

    sender, request = asking(answer, "AAPL.US", "600519.SH", "600000.SH", "601398.SH")

    got = sender.answer(request)

    assert [page.request.entries[0].symbol for page, _ in got.pages] == ["AAPL.US"]
    assert [one.entry.symbol for one in got.refused] == ["600519.SH", "600000.SH", "601398.SH"]
    assert isinstance(got.trouble, VendorDown)


def test_a_page_that_cannot_be_parsed_is_asked_again_and_noted(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, spoiled = Http.post, list[int]()

    def once(self: Http, path: str, *more: object) -> Reply:
        reply = post(self, path, *more)  # type: ignore[arg-type]
        if path == "/kline" and not spoiled:
            spoiled.append(1)
            return replace(reply, body=b'{"msg":"OK","data":{}}')
        return reply

    monkeypatch.setattr(Http, "post", once)
    wanted(stand, SIX)

    report, again = run(stand), run(stand)

    assert (report.exit_code, report.requests_sent, report.missing) == (0, 2, 0)
    assert again.replayed == 0
    failed = klake.open(str(stand.folder / "lake")).sql(
        "SELECT symbol FROM requests WHERE outcome = 'failed'"
    )
    assert {symbol for (symbol,) in failed.rows()} == set(SIX)


def unstored(stand: Stand, body: bytes, number: int = 1, at: datetime = NOW) -> None:
    """Put a page into the raw zone that no run came to storing."""
    entry = Entry("600519.SH", Freq.D1, None, 5)
    page = Page(f"p{number}", "r0", "qos", "a", PageRequest("qos", "/kline", (entry,)), at, 200, "c", body)
    raw = stand.desk().books(create=True).store.raw
    raw.append([page])
    raw.seal()


def test_an_unreadable_page_is_replayed_once(stand: Stand) -> None:
    unstored(stand, b'{"msg":"OK","data":{}}')
    wanted(stand, ["600519.SH"])

    first, second = run(stand), run(stand)

    assert (first.replayed, first.exit_code) == (1, 0)
    assert second.replayed == 0
    for file in (stand.folder / "lake").rglob("state.sqlite*"):
        file.unlink()
    assert run(stand).replayed == 0


def test_a_snapshot_that_is_asked_too_fast_is_asked_again(stand: Stand) -> None:
    faulty(stand, {"kind": "http_429", "next": 1, "endpoint": "/snapshot"})
    wanted(stand, ["600519.SH"])

    report = run(stand)

    assert (report.exit_code, report.canaries) == (0, 2)
    fact = stand.desk().books().ledger.fact("qos", "volume SH.stock")
    assert fact is not None and fact.value.startswith("100 (")


def test_a_unit_that_cannot_be_checked_is_told_and_stops_nothing(stand: Stand) -> None:
    faulty(stand, {"kind": "http_429", "next": 10**5, "endpoint": "/snapshot"})
    wanted(stand, ["600519.SH"])
    desk, heard = stand.desk(), Heard()
    desk.events = heard

    report = sync(desk, "daily", desk.job("daily"))

    told = [e.text for e in heard.events if isinstance(e, Finding)]
    assert report.exit_code == 0
    assert len(told) == 1 and "volume SH.stock is not verified" in told[0]
    assert desk.books().ledger.fact("qos", "volume SH.stock") is None


def test_pages_of_a_killed_run_are_stored_whole_by_a_job_that_wants_less(stand: Stand) -> None:
    stand.key = "deep"
    stand.jobs = job(["600519.SH"], ["1d"], "2026-11-02") + job(["600519.SH"], ["1d"], "2012-01-02").replace(
        "jobs.daily", "jobs.deep"
    )
    stand.write()
    code = (
        "import os, signal\nfrom klake.jobs.desk import open_desk\nfrom klake.jobs import sync as s, chains\n"
        "desk = open_desk('klake.toml')\nseen = 0\ntake = chains.Fetching._take\n"
        "def dying(self, *a):\n    global seen\n    take(self, *a)\n    seen += 1\n"
        "    if seen == 3:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "chains.Fetching._take = dying\ns.sync(desk, 'deep', desk.job('deep'))\n"
    )
    died = subprocess.run([sys.executable, "-c", code], cwd=stand.folder, env=dict(os.environ), check=False)
    assert died.returncode == -signal.SIGKILL

    little = run(stand)
    desk = stand.desk()
    deep = sync(desk, "deep", desk.job("deep"))

    assert little.replayed == 3
    assert (deep.exit_code, deep.missing) == (0, 0)
    assert len(stand.requests("/kline", "/history")) <= 5  # of four pages three were paid for, one overlaps
    same(stand, "600519.SH", "1d", "2012-01-02", "2026-11-20")


def test_a_second_run_of_the_same_job_ends_at_once_and_says_since_when(stand: Stand) -> None:
    wanted(stand, ["AAPL.US"])
    books = stand.desk().books(create=True)
    books.runs.start("r1", "daily", "qos", NOW)

    with turn(books, "qos", "daily"):
        with pytest.raises(
            CommitConflict, match=r"another klake sync of job daily is running since 2026-11-20"
        ) as caught:
            run(stand)
        sent = len(stand.requests())
        beside = klake.sync(
            config=stand.config, vendor="qos", symbols=["AAPL.US"], freq=["1d"], start=date(2026, 11, 2)
        )

    assert (sent, caught.value.exit_code) == (0, 1)
    assert beside.exit_code == 0  # a job that stands in no file may run beside it
    assert run(stand).exit_code == 0


def test_pages_that_another_run_is_storing_are_left_to_it(stand: Stand) -> None:
    wanted(stand, ["600519.SH"])
    entry = Entry("600519.SH", Freq.D1, None, 5)
    page = Page("p1", "r0", "qos", "a", PageRequest("qos", "/kline", (entry,)), NOW, 200, "c",
                b'{"msg":"OK","data":[]}')  # fmt: skip
    other = stand.desk().books(create=True).store.raw
    other.append([page])

    during = run(stand)
    other.seal()  # it ended, and had not stored it
    after = run(stand)

    assert (during.replayed, during.exit_code) == (0, 0)
    assert after.replayed == 1


def test_a_series_that_is_refused_again_waits_twice_as_long_a_week_at_most(stand: Stand) -> None:
    faulty(
        stand,
        {"kind": "error", "next": 10**5, "codes": ["US:AAPL"], "endpoint": "/kline", "text": "Unknown code"},
    )
    wanted(stand, ["AAPL.US"])
    waits: list[float] = []

    for _ in range(7):
        stand.advance(waits[-1] * 3600 + 1 if waits else 0)
        report = run(stand)
        retry_at = report.parked[0].retry_at
        assert retry_at is not None
        waits.append((retry_at - stand.desk().clock.now()).total_seconds() / 3600)

    desk, heard = stand.desk(), Heard()
    desk.events = heard
    sync(desk, "daily", desk.job("daily"))  # in vain: nothing is due

    planned = next(e for e in heard.events if isinstance(e, Planned))
    assert (planned.requests, planned.parked, planned.retry_at) == (0, 1, retry_at)
    assert waits == pytest.approx([6, 12, 24, 48, 96, 168, 168], abs=0.1)


def test_a_series_that_was_refused_goes_in_a_request_of_its_own(stand: Stand) -> None:
    faulty(
        stand,
        {"kind": "error", "next": 10**5, "codes": ["US:AAPL"], "endpoint": "/kline", "text": "Unknown code"},
    )
    wanted(stand, SIX)
    run(stand)
    before = len(stand.requests("/kline"))
    stand.advance(4 * 86400)

    report = run(stand)

    later = stand.requests("/kline")[before:]
    assert sorted(r["entries"] for r in later) == [1, 5]
    assert [p.symbol for p in report.parked] == ["AAPL.US"]


def test_a_series_that_is_given_again_is_parked_no_more(stand: Stand) -> None:
    faulty(
        stand,
        {"kind": "error", "next": 2, "codes": ["US:AAPL"], "endpoint": "/kline", "text": "Unknown code"},
    )
    wanted(stand, ["AAPL.US", "600519.SH"])
    first = run(stand)
    stand.advance(3 * 86400)

    second = run(stand)

    assert [p.symbol for p in first.parked] == ["AAPL.US"]
    assert (second.parked, second.exit_code) == ([], 0)


def test_a_series_whose_label_nobody_knows_is_never_asked(stand: Stand) -> None:
    wanted(stand, ["EURUSD.FX", "AAPL.US"])

    report = run(stand)
    stand.advance(7 * 3600)
    run(stand)

    assert [(p.symbol, p.freq, p.retry_at) for p in report.parked] == [("EURUSD.FX", "1d", None)]
    assert "U11" in report.parked[0].error
    assert {r["entries"] for r in stand.requests("/kline", "/history")} == {1}


def test_after_a_clean_run_nothing_of_the_raw_zone_is_read(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("the raw zone was read")

    wanted(stand, ["600519.SH"])
    run(stand)

    monkeypatch.setattr(RawZone, "unsettled", forbidden)

    assert run(stand).exit_code == 0


def test_after_a_run_that_broke_off_its_pages_are_looked_for_and_no_older_ones(stand: Stand) -> None:
    wanted(stand, ["600519.SH"])
    run(stand)
    stand.advance(5 * 86400)
    now = stand.desk().clock.now()
    stand.desk().books().runs.start("r0", "daily", "qos", now)
    unstored(stand, b'{"msg":"OK","data":[]}', 1, now)
    unstored(stand, b'{"msg":"OK","data":[]}', 2, NOW - timedelta(days=9))

    report = run(stand)

    assert report.replayed == 1


def test_a_lost_state_makes_the_whole_raw_zone_be_read(stand: Stand) -> None:
    wanted(stand, ["600519.SH"])
    run(stand)
    unstored(stand, b'{"msg":"OK","data":[]}', 1, NOW - timedelta(days=9))
    unseen = run(stand).replayed

    for file in (stand.folder / "lake").rglob("state.sqlite*"):
        file.unlink()
    found = run(stand).replayed

    assert (unseen, found) == (0, 1)


def test_a_probe_takes_one_slot_of_the_quota_per_request(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, slots = SharedQuotas.reserve, list[str]()

    def counted(self: SharedQuotas, account: str, quotas: tuple[Quota, ...]) -> Slot:
        slots.append(account)
        return reserve(self, account, quotas)

    monkeypatch.setattr(SharedQuotas, "reserve", counted)

    report = probe(stand.desk(), "qos")

    assert len(slots) == report.requests == len(stand.requests())
    assert stand.desk().books().ledger.fact("qos", "probe U2") is not None


@pytest.mark.parametrize(("days", "honoured"), [(29, False), (31, True)])
def test_what_was_observed_counts_for_thirty_days(stand: Stand, days: int, honoured: bool) -> None:
    desk = stand.desk()
    ledger, vendor = desk.books(create=True).ledger, desk.vendor("qos")
    keep(ledger, "qos", Answer("U2", "ignored", "", "observed", "end_honoured", "false"), NOW)

    observed(vendor, ledger, NOW + timedelta(days=days))

    assert vendor.capability.end_honoured is honoured
