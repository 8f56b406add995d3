"""What coverage claims, end to end: bars that are held stay held, and nothing is said that nobody proved."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from stand import Stand

import klake
from klake.ingest.fetch import Chain
from klake.ingest.normalise import Rows, series_page
from klake.ingest.vendors.qos import CAPABILITY
from klake.jobs.desk import open_desk
from klake.jobs.harvest import Harvest
from klake.jobs.sync import sync
from klake.schemas.clock import ManualClock
from klake.schemas.coverage import Series
from klake.schemas.events import Event, Fetched, Quiet
from klake.schemas.freq import Freq
from klake.schemas.grid import micros
from klake.schemas.page import Page, PageRequest, Reject
from klake.schemas.report import RunReport
from klake.schemas.session import calendar
from klake.schemas.span import Span

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MOUTAI = "600519.SH"
SERIES = Series("qos", MOUTAI, Freq.D1)
NONE, HORIZON = "vendor says none", "beyond the vendor's horizon"


def run(
    stand: Stand, symbols: Sequence[str] = (MOUTAI,), freq: str = "1d", start: str = "2026-10-01"
) -> RunReport:
    names = ", ".join(f'"{s}"' for s in symbols)
    stand.jobs = f'[jobs.daily]\nvendor = "qos"\nsymbols = [{names}]\nfreq = ["{freq}"]\nstart = "{start}"\n'
    stand.write()
    desk = stand.desk()
    return sync(desk, "daily", desk.job("daily"))


def rows(days: Sequence[date]) -> Rows:
    at = np.array([micros(datetime(d.year, d.month, d.day, tzinfo=UTC)) for d in days], np.int64)
    price = np.full(at.size, 10.0)
    return Rows(at, price, price + 1, price - 1, price, price)


def at(stand: Stand, now: str) -> None:
    stand.control("POST", "/clock", {"now": now})


def fault(stand: Stand, kind: str, times: int = 1, endpoint: str = "/kline") -> None:
    rule = {"kind": kind, "next": times, "endpoint": endpoint, "codes": ["SH:600519"]}
    stand.control("POST", "/faults", {"rules": [rule]})


def claims(stand: Stand) -> list[tuple[str, str, str, str]]:
    rows = stand.desk().books().ledger.table().sort_by([("symbol", "ascending"), ("start", "ascending")])
    return [
        (f"{r['start']:%m-%d}", f"{r['end']:%m-%d}", r["standing"], r["reason"]) for r in rows.to_pylist()
    ]


def query(stand: Stand, text: str) -> list[tuple[Any, ...]]:
    with klake.open(str(stand.folder / "lake")) as lake:
        return lake.sql(text).rows()


def counts(stand: Stand) -> dict[date, int]:
    return dict(query(stand, "SELECT session, count(*) FROM bars GROUP BY 1 ORDER BY 1"))


def test_a_chain_that_ends_at_the_horizon_leaves_what_is_held_final(stand: Stand) -> None:
    at(stand, "2026-11-20T08:30:00Z")
    run(stand, freq="1m", start="2026-11-17")
    stand.advance(8 * 86400)

    report = run(stand, freq="1m", start="2026-11-02")

    held = counts(stand)
    beyond = [c for c in claims(stand) if c[3] == HORIZON]
    assert (report.missing, report.stored) == (0, len(held))
    assert all(f"{day:%m-%d}" < start or f"{day:%m-%d}" >= end for day in held for start, end, *_ in beyond)
    assert beyond[0][:2] == ("11-02", "11-17")


def test_rebuilding_says_the_same_as_the_runs_did(stand: Stand) -> None:
    run(stand, freq="1m", start="2026-11-17")
    stand.advance(8 * 86400)
    run(stand, freq="1m", start="2026-11-02")
    before = claims(stand)

    for file in (stand.folder / "lake").rglob("state.sqlite*"):
        file.unlink()

    assert claims(stand) == before


@pytest.mark.parametrize("key", ["default", "deep"])
def test_where_a_vendor_s_bars_begin_no_cut_session_is_kept_and_no_listing_is_claimed(
    stand: Stand, key: str
) -> None:
    stand.key = key
    stand.control("POST", "/faults", {"keys": {key: {"depth": 900}}})

    report = run(stand, freq="1m")

    assert (report.missing, list(report.empty)) == (0, [NONE])
    assert set(counts(stand)) == {date(2026, 11, 18), date(2026, 11, 19), date(2026, 11, 20)}
    assert claims(stand)[0] == ("10-01", "11-18", "empty", NONE)


def test_a_minute_that_was_refused_leaves_its_session_missing_until_it_comes(stand: Stand) -> None:
    fault(stand, "low_above_high")

    first = run(stand, freq="1m", start="2026-11-19")
    second = run(stand, freq="1m", start="2026-11-19")

    assert (first.missing, first.exit_code, first.written.quarantined) == (1, 1, 1)
    assert (second.missing, second.exit_code, second.written.new) == (0, 0, 1)
    assert set(counts(stand).values()) == {238}


@pytest.mark.parametrize("freq", ["1d", "1m"])
def test_a_row_that_is_always_refused_is_a_finding_and_not_asked_for_ever(stand: Stand, freq: str) -> None:
    fault(stand, "low_above_high", times=100)

    reports = [run(stand, freq=freq, start="2026-11-19") for _ in range(3)]

    assert [(r.missing, r.exit_code) for r in reports] == [(1, 1), (0, 0), (0, 0)]
    assert [r.requests_sent for r in reports] == [1, 1, 0]
    assert len(query(stand, "SELECT DISTINCT rule, ts, values FROM quarantine")) == 1


def test_two_empty_pages_write_off_no_history(stand: Stand) -> None:
    fault(stand, "empty_page", times=2)

    first = run(stand)
    stand.advance(7 * 3600)
    second = run(stand)

    assert [(p.symbol, p.error) for p in first.parked] == [(MOUTAI, "the vendor gives no bars at all")]
    assert (first.exit_code, first.empty, first.missing) == (1, {}, first.expected)
    assert (second.exit_code, second.missing, second.parked) == (0, 0, [])
    assert len(counts(stand)) == second.stored > 20


def test_a_symbol_that_the_vendor_answers_with_nothing_is_parked(stand: Stand) -> None:
    stand.control("POST", "/faults", {"dials": {"unknown_codes": "empty"}})

    report = run(stand, ["AAPLE.US", MOUTAI])

    assert [p.symbol for p in report.parked] == ["AAPLE.US"]
    assert report.exit_code == 1
    assert claims(stand)[-1][2] == "closed"


class Healing:
    """Lets the vendor honour ends again after `pages` pages."""

    def __init__(self, stand: Stand, pages: int) -> None:
        self._stand, self._pages = stand, pages

    def emit(self, event: Event) -> None:
        if isinstance(event, Fetched) and event.done == self._pages:
            self._stand.control("POST", "/faults", {"keys": {"deep": {"end_mode": "inclusive"}}})


@pytest.mark.parametrize(("pages", "known"), [(2, False), (3, True)])
def test_one_wrong_page_does_not_mark_the_key_for_good_and_two_do(
    stand: Stand, pages: int, known: bool
) -> None:
    stand.key = "deep"
    stand.control("POST", "/faults", {"keys": {"deep": {"end_mode": "ignored"}}})
    stand.jobs = (
        f'[jobs.daily]\nvendor = "qos"\nsymbols = ["{MOUTAI}"]\nfreq = ["1d"]\nstart = "2020-01-01"\n'
    )
    stand.write()
    desk = open_desk(stand.config, Healing(stand, pages))

    report = sync(desk, "daily", desk.job("daily"))

    assert (report.missing > 0, len(report.parked)) == (known, int(known))
    assert (desk.books().ledger.fact("qos", "probe U2") is not None) is known


def test_a_refused_row_that_tells_no_time_leaves_every_day_without_a_bar_missing(stand: Stand) -> None:
    books, clock = stand.desk().books(create=True), ManualClock(NOW)
    days = calendar("XSHG").sessions(date(2026, 11, 9), date(2026, 11, 21))
    given = [day for day in days if day != date(2026, 11, 12)]
    bad = Reject(MOUTAI, Freq.D1, "impossible time", '{"ts": 1}')

    missing: list[int] = []
    for run_name in ("one", "two"):
        chain = Chain(SERIES, Span(days[0], date(2026, 11, 21)), CAPABILITY, calendar("XSHG"), NOW)
        entry = chain.next()
        assert entry is not None
        page = Page(
            f"page-{run_name}",
            run_name,
            "qos",
            "acc",
            PageRequest("qos", "/kline", (entry,)),
            NOW,
            200,
            "c",
            b"",
        )
        got = series_page(entry, rows(given), "qos", CAPABILITY, NOW, (bad,))
        harvest = Harvest(books, clock, Quiet())
        harvest.add(page, [(got, chain.take(got, page))])
        harvest.flush()
        spans = [c.sessions for c in books.ledger.covered([SERIES])[SERIES]]
        missing.append(sum(not any(s.start <= day < s.end for s in spans) for day in days))

    assert missing == [1, 0]  # the same row again will not get better
    assert [c[2:] for c in claims(stand) if c[0] == "11-12"] == [("empty", NONE)]


def test_a_key_that_gives_one_page_knows_where_a_short_series_begins(stand: Stand) -> None:
    stand.key = "recent"
    stand.vendor = "depth = 0\n[vendors.qos.capability]\nend_honoured = false"

    report = run(stand, ["688999.SH"], start="2020-01-01")

    assert (report.exit_code, report.missing, list(report.empty)) == (0, 0, [NONE])
    assert report.requests_sent == 1


def test_the_last_minutes_of_a_day_are_asked_for_in_the_evening_and_on_sunday(stand: Stand) -> None:
    for evening in ("2026-11-20T12:00:00Z", "2026-11-22T12:00:00Z"):
        at(stand, "2026-11-20T06:59:30Z")
        run(stand, freq="1m", start="2026-11-18")
        at(stand, evening)

        report = run(stand, freq="1m", start="2026-11-18")

        assert report.missing == 0
        assert query(stand, "SELECT count(*) FROM bars WHERE session = '2026-11-20'") == [(238,)]
        assert "open" not in {c[2] for c in claims(stand)}


def test_a_day_round_the_clock_is_put_together_from_several_runs(stand: Stand) -> None:
    """A page of 1,000 minutes never holds a whole day of crypto; several runs a day together do."""
    stand.jobs = (
        '[jobs.daily]\nvendor = "qos"\nsymbols = ["BTCUSDT.P.QOS"]\nfreq = ["1m"]\nstart = "2026-11-16"\n'
    )
    stand.write()
    desk = stand.desk()

    for hours in (0, 12, 12, 12, 12):
        stand.advance(hours * 3600)
        report = sync(desk, "daily", desk.job("daily"))
        assert report.exit_code == 0, report

    ours = klake.open(str(stand.folder / "lake")).bars("BTCUSDT.P.QOS", "1m", state="closed").pl()
    rows = stand.control(
        "GET",
        "/truth",
        symbol="BTCUSDT.P.QOS",
        freq="1m",
        start="2026-11-19T15:50:00Z",
        end="2026-11-22T08:30:00Z",
    )
    assert ours["ts"].n_unique() == ours.height == len(rows)
    cut = [c for c in desk.books().ledger.table().to_pylist() if c["reason"] == "beyond the vendor's horizon"]
    assert [(str(c["start"]), str(c["end"]), c["standing"]) for c in cut] == [
        ("2026-11-16", "2026-11-19", "empty"), ("2026-11-19", "2026-11-20", "final"),
    ]  # fmt: skip
