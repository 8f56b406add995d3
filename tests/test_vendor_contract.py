"""What every vendor kind must keep, each against its stand-in: one suite, one face per kind (tests/faces.py)."""

import dataclasses
import itertools
import json
import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from faces import FACES, SYMBOLS, Face, Nothing, dial, opened
from paging import Paged, rows

import klake
from klake.errors import BadRequest, Interrupted, UnitMismatch, VendorError
from klake.ingest.canary import canaries
from klake.ingest.normalise import fold
from klake.ingest.vendor import Vendor
from klake.jobs.config import load
from klake.jobs.desk import Desk, open_desk
from klake.jobs.sync import plan, sync
from klake.sandbox.market import Restatement
from klake.sandbox.server import Sandbox
from klake.schemas.bar import INCOMING
from klake.schemas.capability import Capability
from klake.schemas.events import Event, Fetched
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page
from klake.schemas.symbol import Symbol

NIGHT = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)  # every share venue has closed, auctions included
STARTS = {
    Freq.M1: date(2026, 11, 18), Freq.M5: date(2026, 11, 16), Freq.M15: date(2026, 11, 9), Freq.M30: date(2026, 11, 9),
    Freq.H1: date(2026, 10, 26), Freq.H2: date(2026, 10, 26), Freq.H4: date(2026, 10, 26), Freq.D1: date(2026, 2, 2),
    Freq.W1: date(2025, 9, 1), Freq.MO1: date(2024, 3, 1), Freq.Y1: date(2020, 1, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(clock_start=NIGHT, rate=0) as sandbox:
        yield sandbox


@pytest.fixture
def box(running: Sandbox) -> Sandbox:
    """A sandbox at NIGHT, everything as usual, without limits: what they are is asked apart."""
    running.faults.reset()
    running.market.calm()
    running.qos.reset()
    running.multimarkets.reset()
    running.longbridge.reset()
    running.journal.clear()
    running.clock.put(NIGHT)
    dial(running, dials={"limits": False})
    return running


@pytest.fixture(params=FACES, ids=lambda face: face.kind)
def face(request: pytest.FixtureRequest) -> Face:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def vendor(face: Face, box: Sandbox, tmp_path: Path) -> Iterator[Vendor]:
    one = opened(face, box, tmp_path)
    yield one
    one.close()


def is_the_market(
    box: Sandbox, vendor: Vendor, symbol: str, freq: Freq, start: date, now: datetime = NIGHT
) -> int:
    if vendor.spell(Symbol.parse(symbol)) is None:
        return 0
    got = Paged(vendor, symbol, freq, start, now)
    day: Any = freq.anchor(start)
    if freq.intraday:
        day = datetime(day.year, day.month, day.day, tzinfo=UTC)
    truth = box.market.truth(symbol, freq, day, now if freq.intraday else now.date(), now)
    assert got.chain.done and not got.chain.stopped, got.chain.stopped
    assert got.rows == rows(truth), (symbol, freq)
    return got.pages


def page(
    vendor: Vendor,
    symbol: str = "AAPL.US",
    freq: Freq = Freq.M30,
    end: datetime | None = None,
    count: int = 5,
) -> Page:
    return vendor.send(vendor.request((Entry(symbol, freq, end, count),)))


# Paging, labels, units, zones


@pytest.mark.parametrize("freq", list(STARTS), ids=str)
def test_every_freq_of_every_venue_is_the_market_s(
    face: Face, box: Sandbox, vendor: Vendor, freq: Freq
) -> None:
    if freq not in vendor.capability.freqs:
        with pytest.raises(BadRequest):
            vendor.request((Entry("AAPL.US", freq, None, 5),))
        return

    for symbol in ("600519.SH", "00700.HK", "CON.US", "BTCUSDT.P.QOS"):
        is_the_market(box, vendor, symbol, freq, STARTS[freq])


@pytest.mark.parametrize("limit", [3, 4, 7, 50])
def test_whatever_a_page_holds_nothing_is_lost(face: Face, box: Sandbox, tmp_path: Path, limit: int) -> None:
    vendor = opened(face, box, tmp_path, capability={"page_limit": limit})

    pages = [
        is_the_market(box, vendor, s, Freq.M30, date(2026, 11, 13))
        for s in ("000001.SZ", "08609.HK", "AAPL.US")
    ]
    pages += [
        is_the_market(box, vendor, s, Freq.D1, date(2026, 10, 1)) for s in ("000333.SZ", "BTCUSDT.P.QOS")
    ]

    assert max(pages) > 1
    vendor.close()


def test_auctions_are_whole_at_every_page_boundary(face: Face, box: Sandbox, tmp_path: Path) -> None:
    face.prints(box)

    for limit in range(3, 18):  # a session of New York has 13 half hours and a print
        vendor = opened(face, box, tmp_path, capability={"page_limit": limit})
        is_the_market(box, vendor, "AAPL.US", Freq.M30, date(2026, 11, 18))
        is_the_market(box, vendor, "600519.SH", Freq.M30, date(2026, 11, 19))
        vendor.close()


def test_a_bar_is_labelled_as_declared(face: Face, box: Sandbox, vendor: Vendor) -> None:
    for freq, symbol in itertools.product(
        set(vendor.capability.freqs) & set(STARTS), ("600519.SH", "AAPL.US")
    ):
        (got,) = vendor.parse(page(vendor, symbol, freq, None, 3))

        day: Any = STARTS[freq]
        first = datetime(day.year, day.month, day.day, tzinfo=UTC) if freq.intraday else day
        truth = box.market.truth(symbol, freq, first, NIGHT if freq.intraday else NIGHT.date(), NIGHT)
        assert fold(got.bars)["ts"][-1].as_py() == truth["ts"][-1].as_py(), (symbol, freq)


@pytest.mark.parametrize("change", ["2026-03-08", "2026-11-01"])
def test_summer_time_moves_no_bar(face: Face, box: Sandbox, vendor: Vendor, change: str) -> None:
    day = date.fromisoformat(change)
    now = datetime(day.year, day.month, day.day, 22, tzinfo=UTC) + timedelta(days=4)
    box.clock.put(now)

    for freq in (Freq.M30, Freq.H1, Freq.D1, Freq.W1):
        is_the_market(box, vendor, "AAPL.US", freq, day - timedelta(days=6), now)


def test_a_canary_tells_lots_from_shares(face: Face, box: Sandbox, vendor: Vendor, tmp_path: Path) -> None:
    symbols = [Symbol.parse("600519.SH")]
    told = [fact.value for fact in canaries(vendor, symbols, Nothing(), lambda call: call())]  # type: ignore[union-attr]
    assert len(told) == 1

    false = opened(face, box, tmp_path, **face.lots(box))

    with pytest.raises(UnitMismatch, match="volume_factor"):
        list(canaries(false, symbols, Nothing(), lambda call: call()))
    false.close()


# The present, and the past that changes


def test_the_bar_that_forms_is_open_then_closed_then_final(face: Face, box: Sandbox, vendor: Vendor) -> None:
    states = {}
    for name, now in (
        ("open", "2026-11-20T03:03:20Z"),
        ("closed", "2026-11-20T07:31:00Z"),
        ("final", "2026-11-20T22:30:00Z"),
    ):
        box.clock.put(datetime.fromisoformat(now))
        states[name] = [
            vendor.parse(page(vendor, "600519.SH", f, None, 3))[0].bars["state"][-1].as_py()
            for f in (Freq.M30, Freq.D1)
        ]

    assert states == {name: [name, name] for name in states}


def test_a_correction_of_the_vendor_is_seen(face: Face, box: Sandbox, vendor: Vendor) -> None:
    before = vendor.parse(page(vendor, "00700.HK", Freq.D1, None, 10))[0].bars
    day = before["session"][5].as_py()
    number = (day - date(1970, 1, 1)).days
    box.market.restate(Restatement("00700.HK", number, number, NIGHT.timestamp()))

    after = vendor.parse(page(vendor, "00700.HK", Freq.D1, None, 10))[0].bars

    changed = [i for i in range(10) if before["close"][i] != after["close"][i]]
    assert changed == [5]


def test_a_kept_page_says_the_same_for_ever(face: Face, box: Sandbox, vendor: Vendor, tmp_path: Path) -> None:
    kept = page(vendor, "600519.SH", Freq.M5, None, 20)
    (first,) = vendor.parse(kept)
    later = opened(face, box, tmp_path)

    (second,) = later.parse(kept)

    assert first.bars.equals(second.bars) and first.bars.schema.equals(INCOMING)
    assert first.bars.num_rows == 20
    later.close()


# What the Capability says


def test_the_capability_is_what_the_stand_in_does(face: Face, box: Sandbox, vendor: Vendor) -> None:
    can = vendor.capability
    (full,) = vendor.parse(page(vendor, "600519.SH", Freq.M1, None, can.page_limit))
    (thin,) = vendor.parse(page(vendor, "08609.HK", Freq.M1, None, 50))

    assert full.bars.num_rows == can.page_limit
    assert can.amount == (full.bars["amount"].null_count == 0)
    assert can.fills_gaps == (0.0 in thin.bars["volume"].to_pylist())
    old = NIGHT - timedelta(days=300)
    (back,) = vendor.parse(page(vendor, "600519.SH", Freq.M1, old, 5))
    assert can.end_honoured == (back.bars["ts"][-1].as_py() <= old)
    box.clock.put(datetime(2026, 11, 20, 3, 3, 20, tzinfo=UTC))
    (now,) = vendor.parse(page(vendor, "600519.SH", Freq.M1, None, 2))
    assert can.includes_unfinished == (now.bars["state"][-1].as_py() == "open")


def test_every_field_has_its_evidence_or_is_assumed(vendor: Vendor) -> None:
    names = {f.name for f in dataclasses.fields(Capability)}

    assert set(vendor.capability.evidence) <= names
    assert {e.basis for e in vendor.capability.evidence.values()} <= {"documented", "observed", "assumed"}


def test_what_cannot_be_one_request_is_refused_before_it_is_sent(vendor: Vendor) -> None:
    can = vendor.capability
    one = Entry("AAPL.US", Freq.D1, None, 5)
    wrong = [
        (), (one,) * (can.products + 1), (dataclasses.replace(one, count=0),), (dataclasses.replace(one, count=can.page_limit + 1),),
        (dataclasses.replace(one, symbol="NOPE.BINANCE"),),
        (dataclasses.replace(one, adjust="hfq"),),
    ]  # fmt: skip

    for entries in wrong:
        with pytest.raises(BadRequest):
            vendor.request(entries)


def test_symbols_are_spelled_and_read_back(vendor: Vendor) -> None:
    for text in (s for s in SYMBOLS if Symbol.parse(s).venue in vendor.capability.venues):
        symbol = Symbol.parse(text)
        spelling = vendor.spell(symbol)

        assert spelling is not None and vendor.symbol(spelling) == symbol
    assert vendor.spell(Symbol.parse("430047.BJ")) is None
    assert vendor.symbol("never seen") is None


def test_a_probe_asks_five_times_at_most_and_gives_its_evidence(
    face: Face, box: Sandbox, vendor: Vendor
) -> None:
    answers = [answer for step in vendor.probe((Symbol.parse("AAPL.US"),)) for answer in step]

    asked = [row for row in box.journal.rows() if row.vendor == face.kind]
    assert 1 <= len([row for row in asked if row.endpoint != "14008"]) <= 5
    assert answers and all(a.evidence and a.basis in ("observed", "assumed") for a in answers)
    inclusive = [a.value for a in answers if a.field == "end_inclusive"]
    assert inclusive == ["true"]


# Errors


def troubles() -> list[Any]:
    return [pytest.param(face, name, id=f"{face.kind}-{name}") for face in FACES for name in face.troubles()]


@pytest.mark.parametrize(("face", "name"), troubles())
def test_an_error_is_classed_once_masked_and_never_an_end_of_history(
    face: Face, box: Sandbox, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rule, wanted = face.troubles()[name]
    secret = face.secret(box)
    rule = {**rule, "text": f"{rule.get('text', '')} {secret}"} if "text" in rule else rule
    vendor = opened(face, box, tmp_path, timeout_s=0.5 if rule["kind"] == "drop" else 5)
    dial(box, rules=[{**rule, "next": 1, "endpoint": face.endpoint}])

    with caplog.at_level(logging.DEBUG), pytest.raises(VendorError) as raised:
        vendor.parse(page(vendor, end=NIGHT - timedelta(days=9)))

    assert type(raised.value) is wanted
    said = "".join(traceback.format_exception(raised.value)) + repr(raised.value.__dict__) + raised.value.zh
    assert secret not in said + caplog.text
    (after,) = vendor.parse(page(vendor, end=NIGHT - timedelta(days=9)))
    assert after.outcome == "bars"
    vendor.close()


def test_an_account_that_is_not_accepted_is_told_so(face: Face, box: Sandbox, tmp_path: Path) -> None:
    vendor = opened(face, box, tmp_path, **face.false(box))

    with pytest.raises(VendorError) as raised:
        page(vendor)

    assert raised.value.exit_code == 2
    assert not set(face.false(box).values()) & set(str(raised.value).split())
    vendor.close()


def test_no_page_no_request_and_no_vendor_shows_the_secret(
    face: Face, box: Sandbox, vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        kept = page(vendor)

    shown = (
        repr(kept) + repr(vendor) + vendor.account + json.dumps(dataclasses.asdict(kept.request), default=str)
    )
    assert face.secret(box) not in shown + caplog.text
    assert face.secret(box).encode() not in kept.body


@pytest.mark.parametrize("kind", ["duplicate_bar", "descending", "numeric_price"])
def test_a_page_in_another_order_or_form_says_the_same(
    face: Face, box: Sandbox, vendor: Vendor, kind: str
) -> None:
    plain = vendor.parse(page(vendor, end=NIGHT - timedelta(days=9)))[0].bars
    dial(box, rules=[{"kind": kind, "next": 1, "endpoint": face.endpoint}])

    (odd,) = vendor.parse(page(vendor, end=NIGHT - timedelta(days=9)))

    assert odd.bars.equals(plain) and not odd.rejects


def test_a_wrong_page_is_not_taken_for_the_series(face: Face, box: Sandbox, vendor: Vendor) -> None:
    dial(box, rules=[{"kind": "wrong_page", "next": 1, "endpoint": face.endpoint}])

    with suppress(VendorError):
        (got,) = vendor.parse(page(vendor, end=NIGHT - timedelta(days=9)))
        if (
            face.kind == "multimarkets"
        ):  # others repeat what was asked, or name nothing: their pages cannot tell
            assert got.outcome not in ("bars", "empty")


# Through the lake


def written(face: Face, box: Sandbox, folder: Path, **more: Any) -> Desk:
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else json.dumps(value)

    table = face.table(box, folder) | more
    nested = {k: v for k, v in table.items() if isinstance(v, dict)}
    lines = [f"{k} = {text(v)}" for k, v in table.items() if k not in nested]
    lines += [
        f"[vendors.it.{k}]\n" + "\n".join(f"{n} = {text(x)}" for n, x in v.items())
        for k, v in nested.items()
        if v
    ]
    job = '[jobs.daily]\nvendor = "it"\nsymbols = ["600519.SH", "00700.HK", "AAPL.US"]\nfreq = ["1d", "30m"]\nstart = "2026-10-26"\n'
    file = folder / "klake.toml"
    head = f'[lake]\npath = "lake"\n[sandbox]\ncontrol = "{box.control_url}"\n[vendors.it]\n'
    file.write_text(head + "\n".join(lines) + f"\n{job}", encoding="utf-8")
    assert load(file).jobs
    return open_desk(file)


def in_the_lake(box: Sandbox, folder: Path) -> None:
    lake = klake.open(str(folder / "lake"))
    for symbol, freq in itertools.product(("600519.SH", "00700.HK", "AAPL.US"), (Freq.D1, Freq.M30)):
        first: Any = date(2026, 10, 26) if freq is Freq.D1 else datetime(2026, 10, 26, tzinfo=UTC)
        truth = box.market.truth(symbol, freq, first, NIGHT if freq.intraday else NIGHT.date(), NIGHT)
        assert rows(lake.bars(symbol, freq.value, vendor="it").arrow()) == rows(truth), (symbol, freq)


def test_a_sync_keeps_to_the_limits_that_the_stand_in_enforces(
    face: Face, box: Sandbox, tmp_path: Path
) -> None:
    dial(box, dials={"limits": True})
    box.multimarkets.turn({"rate_s": 1.0})
    desk = written(face, box, tmp_path)

    report = sync(desk, "daily", desk.job("daily"))

    assert report.exit_code == 0, report
    assert report.requests_sent == report.requests_planned
    assert all(row.status == 200 for row in box.journal.rows()), "a limit was broken"
    in_the_lake(box, tmp_path)
    desk.close()


def test_a_run_that_is_stopped_ends_soon_and_the_next_one_asks_nothing_twice(
    face: Face, box: Sandbox, tmp_path: Path
) -> None:
    desk = written(face, box, tmp_path, products=1)
    fewest = plan(desk, "daily", desk.job("daily")).fewest
    desk.events = StopAfter(2)
    with pytest.raises(Interrupted):
        sync(desk, "daily", desk.job("daily"))
    asked = (face.endpoint, "/kline", "/quote/candlesticks")
    first = len([row for row in box.journal.rows() if row.endpoint in asked])

    again = written(face, box, tmp_path, products=1)
    report = sync(again, "daily", again.job("daily"))

    assert report.exit_code == 0, report
    total = len([row for row in box.journal.rows() if row.endpoint in asked])
    canaries = (
        2 if face.kind == "longbridge" else 0
    )  # it has no snapshot: a day's bar is asked for, once a run
    assert first >= 2 and total <= fewest + 1 + canaries
    in_the_lake(box, tmp_path)


class StopAfter:
    """Presses Ctrl-C when so many pages have come."""

    def __init__(self, pages: int) -> None:
        self._left = pages

    def emit(self, event: Event) -> None:
        if isinstance(event, Fetched):
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt


@pytest.mark.parametrize("seed", [1, 2])
def test_a_sync_through_every_fault_ends_with_the_market(
    face: Face, box: Sandbox, tmp_path: Path, seed: int
) -> None:
    box.faults._seed = seed
    kinds = [
        str(rule["kind"])
        for rule, error in face.troubles().values()
        if error.retryable and rule["kind"] not in ("error", "unnamed", "drop")
    ]
    kinds += ["http_429", "duplicate_bar", "descending"] + (["twice", "late"] if face.kind != "qos" else [])
    dial(
        box,
        rules=[
            {"kind": k, "probability": 0.2 / len(kinds) * 3, "endpoint": face.endpoint}
            for k in sorted(set(kinds))
        ],
    )
    desk = written(face, box, tmp_path)

    for _ in range(4):
        report = sync(desk, "daily", desk.job("daily"))
        if report.exit_code == 0:
            break
        ledger = desk.books().ledger
        for series in ledger.parked():  # the faults refused it three times in a row
            ledger.unpark(series)

    assert report.exit_code == 0, report
    assert report.written.quarantined == 0
    in_the_lake(box, tmp_path)


def test_closing_a_vendor_ends_what_waits(face: Face, box: Sandbox, tmp_path: Path) -> None:
    if face.kind == "qos":
        pytest.skip("a request over HTTP ends with its timeout")
    vendor = opened(face, box, tmp_path, timeout_s=30)
    dial(box, rules=[{"kind": "drop", "next": 1, "endpoint": face.endpoint}])
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            page(vendor, end=NIGHT - timedelta(days=9))
        except VendorError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not any(row.endpoint == face.endpoint and row.status for row in box.journal.rows()):
        pass
    vendor.close()
    thread.join(5)

    assert not thread.is_alive() and len(ended) == 1
