"""The QOS client: spellings, requests, and what it makes of a vendor that misbehaves."""

import json
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from klake.errors import (
    BadCredentials,
    BadPage,
    BadRequest,
    ConfigError,
    CredentialsMissing,
    RateLimited,
    SymbolRefused,
    UnitMismatch,
    VendorDown,
    VendorError,
    VendorRefused,
)  # fmt: skip
from klake.ingest.canary import Fact, Unverified, canaries, fact_names
from klake.ingest.clock import SandboxClock
from klake.ingest.registry import kinds, open_vendor, vendor_class
from klake.ingest.vendor import MarketDay, PageIds, account_of
from klake.sandbox.server import Sandbox
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page
from klake.schemas.quota import Quota
from klake.schemas.symbol import Class, Symbol

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
KEY = "sandbox-a-key-nobody-may-see"
SYMBOLS = tuple(map(Symbol.parse, ("600519.SH", "000001.SZ", "00700.HK", "AAPL.US", "BTCUSDT.P.QOS")))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(clock_start=NOW, rate=0) as running:
        yield running


def client(sandbox: Sandbox, plan: str = "default", **more: object):
    table = {"kind": "qos", "key": sandbox.secrets["qos"][plan], "url": sandbox.qos_url, **more}
    return open_vendor("qos", table, sandbox.clock, run="r1")


def told(answer: Callable[[httpx.Request], httpx.Response], **more: object):
    table = {"kind": "qos", "key": KEY, **more}
    return open_vendor(
        "qos", table, ManualClock(NOW), client=httpx.Client(transport=httpx.MockTransport(answer))
    )


def entries(
    *symbols: str, freq: Freq = Freq.D1, end: datetime | None = None, count: int = 5
) -> tuple[Entry, ...]:
    return tuple(Entry(symbol, freq, end, count) for symbol in symbols)


@pytest.mark.parametrize(
    ("symbol", "spelling"),
    [
        ("AAPL.US", "US:AAPL"), ("BRK.B.US", "US:BRK.B"), ("00700.HK", "HK:700"), ("600519.SH", "SH:600519"),
        ("000001.SZ", "SZ:000001"), ("BTCUSDT.P.QOS", "CF:BTCUSDT"), ("EURUSD.FX", "FX:EURUSD"), ("XAUUSD.CM", "CM:XAUUSD"),
    ],
)  # fmt: skip
def test_a_symbol_is_spelled_as_qos_does_and_read_back(symbol, spelling):
    vendor = told(lambda request: httpx.Response(200))

    assert vendor.spell(Symbol.parse(symbol)) == spelling
    assert vendor.symbol(spelling) == Symbol.parse(symbol)


def test_padded_hong_kong_codes_mean_the_same_and_chinese_zeros_stay():
    vendor = told(lambda request: httpx.Response(200))

    assert vendor.symbol("HK:00700") == vendor.symbol("hk:700") == Symbol("00700", "HK")
    assert vendor.symbol("SZ:000001") == Symbol("000001", "SZ")


@pytest.mark.parametrize("symbol", ["BTCUSDT.QOS", "BTCUSDT.BINANCE", "430047.BJ", "HSI.HK", "^SPX.US"])
def test_what_qos_has_not_it_cannot_spell(symbol):
    code, _, venue = symbol.rpartition(".")

    assert told(lambda request: httpx.Response(200)).spell(Symbol(code, venue)) is None


@pytest.mark.parametrize("spelling", ["XX:1", "AAPL", "US:", "IX:SPX", "US:a b/c..d", ""])
def test_a_spelling_that_klake_has_no_venue_for_means_nothing(spelling):
    assert told(lambda request: httpx.Response(200)).symbol(spelling) is None


def test_ten_series_with_their_own_ends_go_in_one_request():
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"msg": "OK", "data": []})

    vendor = told(answer)
    end = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    asked = (Entry("AAPL.US", Freq.M1, end, 7), Entry("00700.HK", Freq.D1, None, 9))

    page = vendor.send(vendor.request(asked))

    body = json.loads(seen[0].content)["kline_reqs"]
    assert seen[0].url.path == page.request.endpoint == "/history"
    assert body[0] == {"c": "US:AAPL", "co": 7, "a": 0, "kt": 1, "e": 1767323045}
    assert body[1]["e"] > NOW.timestamp()
    assert (page.status, page.received_at, page.account, page.kind) == (
        200,
        NOW,
        account_of("qos", KEY),
        "qos",
    )


def test_newest_bars_are_asked_of_kline_without_an_end():
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"msg": "OK", "data": []})

    vendor = told(answer)
    vendor.send(vendor.request(entries("AAPL.US")))

    assert seen[0].url.path == "/kline"
    assert json.loads(seen[0].content) == {"kline_reqs": [{"c": "US:AAPL", "co": 5, "a": 0, "kt": 1001}]}


@pytest.mark.parametrize(("key_in", "header", "query"), [("header", KEY, None), ("query", None, KEY)])
def test_the_key_goes_where_the_config_says(key_in, header, query):
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"msg": "OK", "data": []})

    vendor = told(answer, key_in=key_in)
    vendor.send(vendor.request(entries("AAPL.US")))

    assert (seen[0].headers.get("key"), seen[0].url.params.get("key")) == (header, query)


@pytest.mark.parametrize(
    "asked",
    [
        (),
        entries(*[f"6005{n:02d}.SH" for n in range(11)]),
        entries("AAPL.US", "AAPL.US"),
        entries("AAPL.US", freq=Freq.M3),
        entries("BTCUSDT.BINANCE"),
        entries("AAPL.US", count=1001),
        (Entry("AAPL.US", Freq.D1, None, 5, "qfq"),),
    ],
)
def test_a_request_that_cannot_be_one_is_refused_before_it_is_sent(asked):
    vendor = told(lambda request: pytest.fail("nothing may be sent"))

    with pytest.raises(BadRequest):
        vendor.request(asked)


@pytest.mark.parametrize(
    ("status", "message", "ours"),
    [
        (200, "Key expired.", BadCredentials),
        (403, "Invalid key.", BadCredentials),
        (200, "Request frequency exceeded.", RateLimited),
        (429, "slow down", RateLimited),
        (200, "请求过于频繁", RateLimited),
        (200, "Product count exceeded.", VendorRefused),
        (200, "code US:AAPL not found", SymbolRefused),
        (200, "no permission for symbol", SymbolRefused),
        (200, "ok", BadPage),
        (200, "the moon is full", BadPage),
        (500, "OK", VendorDown),
        (504, "upstream", VendorDown),
    ],
)
def test_what_qos_says_is_classed_whatever_the_status(status, message, ours):
    vendor = told(lambda request: httpx.Response(status, json={"msg": message}))

    with pytest.raises(VendorError) as caught:
        vendor.send(vendor.request(entries("AAPL.US", "00700.HK")))

    assert type(caught.value) is ours


def test_a_refused_symbol_is_named_when_the_vendor_names_it():
    vendor = told(lambda request: httpx.Response(200, json={"msg": "code HK:00700 not found"}))

    with pytest.raises(SymbolRefused) as caught:
        vendor.send(vendor.request(entries("AAPL.US", "00700.HK")))

    assert caught.value.symbol == "00700.HK"


@pytest.mark.parametrize(
    "body", [b'{"msg":"OK"}', b'{"msg":"OK","data":null}', b'{"msg":"OK","data":[', b"[]", b"", b"\xff\x00"]
)
def test_ok_without_data_is_a_bad_page_and_never_an_empty_one(body):
    vendor = told(lambda request: httpx.Response(200, content=body))

    with pytest.raises(BadPage):
        vendor.send(vendor.request(entries("AAPL.US")))


@pytest.mark.parametrize("key_in", ["header", "query"])
@pytest.mark.parametrize("kind", ["refused", "echoed", "html"])
def test_the_key_is_in_no_message_no_page_and_no_repr(key_in, kind):
    def answer(request: httpx.Request) -> httpx.Response:
        if kind == "refused":
            raise httpx.ConnectError(f"cannot reach {request.url} with {KEY}")
        if kind == "html":
            return httpx.Response(502, html=f"<html>{KEY}</html>")
        return httpx.Response(200, json={"msg": f"what is {KEY}?"})

    vendor = told(answer, key_in=key_in)
    with pytest.raises(VendorError) as caught:
        vendor.send(vendor.request(entries("AAPL.US")))

    words = "".join(traceback.format_exception(caught.value)) + caught.value.zh + repr(vars(caught.value))
    assert KEY not in words
    assert KEY not in repr(vendor) + vendor.account


@pytest.mark.parametrize(
    ("fault", "ours"),
    [
        ("http_504", VendorDown), ("http_429", RateLimited), ("http_500_ok", VendorDown), ("reset", VendorDown),
        ("cut", VendorDown), ("corrupt", BadPage), ("error", BadPage), ("no_data", BadPage), ("null_data", BadPage),
    ],
)  # fmt: skip
def test_a_fault_of_the_whole_reply_is_an_error_to_retry(sandbox, fault, ours):
    sandbox.faults.put([{"kind": fault, "next": 1}], {})
    vendor = client(sandbox)

    with pytest.raises(VendorError) as caught:
        vendor.send(vendor.request(entries("AAPL.US")))
    again = vendor.parse(vendor.send(vendor.request(entries("AAPL.US"))))

    assert type(caught.value) is ours
    assert caught.value.retryable
    assert again[0].outcome == "bars"


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("no_k", "failed"), ("null_k", "failed"), ("empty_page", "empty"), ("missing_item", "absent"),
        ("numeric_price", "bars"), ("duplicate_bar", "bars"), ("descending", "bars"),
    ],
)  # fmt: skip
def test_a_fault_of_one_item_leaves_the_other_nine_alone(sandbox, fault, outcome):
    asked = entries(*map(str, SYMBOLS))
    vendor = client(sandbox)
    before = vendor.parse(vendor.send(vendor.request(asked)))
    sandbox.faults.put([{"kind": fault, "next": 1, "codes": ["HK:700", "HK:00700"]}], {})

    got = vendor.parse(vendor.send(vendor.request(asked)))

    spoiled = 2
    assert [p.outcome for p in got] == ["bars", "bars", outcome, "bars", "bars"]
    for place, (one, other) in enumerate(zip(got, before, strict=True)):
        if place != spoiled or outcome == "bars":
            assert one.bars.drop_columns(["fetched_at"]).equals(other.bars.drop_columns(["fetched_at"]))


def test_a_slow_vendor_is_given_up_after_the_timeout(sandbox):
    sandbox.faults.put([{"kind": "slow", "next": 1}], {"slow_s": 1.0})
    vendor = client(sandbox, timeout_s=0.2)

    with pytest.raises(VendorDown):
        vendor.send(vendor.request(entries("AAPL.US")))


def test_an_unknown_code_is_absent_and_compressed_replies_are_read(sandbox):
    sandbox.faults.put(None, {"gzip": True})
    vendor = client(sandbox)

    got = vendor.parse(vendor.send(vendor.request(entries("ZZZZ.US", "AAPL.US"))))

    assert [p.outcome for p in got] == ["absent", "bars"]


def test_an_expired_key_is_wrong_credentials(sandbox):
    vendor = client(sandbox, "expired")

    with pytest.raises(BadCredentials, match=r"vendors\.qos"):
        vendor.send(vendor.request(entries("AAPL.US")))


def test_instruments_products_and_calendar_are_read(sandbox):
    vendor = client(sandbox)

    known = {i.symbol: i for i in vendor.instruments(SYMBOLS)}
    listed = vendor.product_list()
    days = vendor.market_calendar()

    assert set(known) == set(SYMBOLS)
    assert known[SYMBOLS[2]].currency == "HKD"
    assert {i.symbol for i in listed} >= {Symbol("00700", "HK")}
    assert vendor.find("aapl")[0].symbol == Symbol("AAPL", "US")
    assert MarketDay("US", date(2026, 11, 27), True) in days
    assert days == sorted(days, key=lambda d: (d.venue, d.session))


class Noted:
    """Facts in a dict; requests counted."""

    def __init__(self) -> None:
        self.kept: dict[str, Fact] = {}
        self.sent = 0

    def fact(self, vendor: str, name: str) -> Fact | None:
        return self.kept.get(name)

    def asked(self, call: Callable[[], Page]) -> Page:
        self.sent += 1
        return call()


def checked(vendor, notes: Noted, symbols=SYMBOLS) -> dict[str, str]:
    """Return the facts that the canaries find, and keep them."""
    facts = [f for f in canaries(vendor, symbols, notes, notes.asked) if isinstance(f, Fact)]
    notes.kept |= {f.name: f for f in facts}
    return {f.name: f.value for f in facts}


def quoting(**volumes: float):
    """Return a vendor whose snapshots have the price 100 and a turnover of a million."""
    quotes = [
        {"c": code.replace("_", ":"), "lp": "100", "h": "101", "l": "99", "v": str(volume), "t": "1000000", "ts": 1763600000}
        for code, volume in volumes.items()
    ]  # fmt: skip
    return told(lambda request: httpx.Response(200, json={"msg": "OK", "data": quotes}))


def spelled(*texts: str) -> list[Symbol]:
    return [Symbol.parse(text) for text in texts]


def test_the_volume_unit_is_checked_once_per_venue_and_class(sandbox):
    vendor, notes = client(sandbox), Noted()

    first, second = checked(vendor, notes), checked(vendor, notes)

    assert set(first) >= {"volume SH.stock", "volume SZ.stock", "volume HK.stock"}
    assert first["volume SH.stock"].startswith("100 (600519.SH: ")
    assert second == {}
    assert notes.sent == 1


def test_a_unit_that_is_declared_anew_is_checked_anew(sandbox):
    notes = Noted()
    checked(client(sandbox), notes)
    overridden = client(sandbox, capability={"volume_factor": {"SH.stock": 1}})

    with pytest.raises(UnitMismatch, match="declared as 1 per unit"):
        checked(overridden, notes)


def test_the_star_board_is_a_group_of_its_own(sandbox):
    found = checked(client(sandbox), Noted(), spelled("600519.SH", "688999.SH"))

    assert set(found) == {"volume SH.stock", "volume SH.stock.688"}
    assert "688999.SH" in found["volume SH.stock.688"]
    assert set(fact_names(["SH"])) >= set(found)


@pytest.mark.parametrize("false", ["SH_688981", "SH_601398"])
def test_every_symbol_that_was_traded_must_fit_and_who_does_not_is_named(false):
    vendor = quoting(**{"SH_600519": 100, "SH_600000": 100, false: 10_000})
    symbol = f"{false[3:]}.SH"

    with pytest.raises(
        UnitMismatch, match=rf"is: {symbol} 1;.*Leave these out.*a second \[vendors"
    ) as caught:
        checked(vendor, Noted(), spelled("600519.SH", "600000.SH", symbol))

    assert "600519" not in str(caught.value)


def test_an_index_has_no_price_to_check_its_volume_by():
    vendor, notes = quoting(SH_000300=1), Noted()

    assert checked(vendor, notes, spelled("000300.SH")) == {}
    assert notes.sent == 0


def test_a_false_volume_unit_stops_everything_and_says_how_to_go_on(sandbox):
    vendor, notes = client(sandbox, capability={"volume_factor": {"SH.stock": 1}}), Noted()

    with pytest.raises(
        UnitMismatch, match=r'volume_factor = \{ "SH.stock" = 100 \} under \[vendors.qos.capability\]'
    ):
        checked(vendor, notes)


@pytest.mark.parametrize(
    "reply",
    [httpx.Response(504), httpx.Response(429), httpx.Response(200, json={"msg": "OK", "data": {}}),
     httpx.Response(200, json={"msg": "Unknown code"})],
    ids=["down", "too fast", "unreadable", "refused"],
)  # fmt: skip
def test_a_snapshot_that_does_not_come_leaves_units_unverified(reply):
    vendor, notes = told(lambda request: reply), Noted()

    found = list(canaries(vendor, SYMBOLS[:2], notes, notes.asked))

    assert [(type(f), f.name) for f in found] == [
        (Unverified, "volume SH.stock"),
        (Unverified, "volume SZ.stock"),
    ]


def test_a_429_is_about_the_rate_whatever_it_names():
    vendor = told(lambda request: httpx.Response(429, json={"msg": "slow down with these codes"}))

    with pytest.raises(RateLimited):
        vendor.send(vendor.request(entries("AAPL.US")))


def test_a_symbol_that_is_called_key_is_no_matter_of_the_key():
    vendor = told(lambda request: httpx.Response(200, json={"msg": "US:KEY not found"}))

    with pytest.raises(SymbolRefused, match=r"KEY\.US"):
        vendor.send(vendor.request(entries("KEY.US")))


@pytest.mark.parametrize(
    ("mode", "honoured", "inclusive"),
    [
        ("inclusive", "the end is honoured", "true"),
        ("exclusive", "the end is honoured", "false"),
        ("ignored", "the end is ignored", None),
    ],
)
def test_a_probe_settles_the_open_questions_within_five_requests(sandbox, mode, honoured, inclusive):
    plan = sandbox.qos.plans["default"]
    sandbox.qos.plans["default"] = type(plan)(
        **{**{f: getattr(plan, f) for f in plan.__slots__}, "end_mode": mode}
    )

    answers = {a.question: a for step in client(sandbox).probe() for a in step}

    assert len(sandbox.journal.rows()) <= 5
    assert set(answers) >= {"U2", "U3", "U4", "U9"}
    assert answers["U2"].text.startswith(honoured)
    assert "left out" in answers["U4"].text
    if inclusive is not None:
        assert (answers["U1"].field, answers["U1"].value) == ("end_inclusive", inclusive)


def test_a_key_that_is_not_set_is_answered_with_the_line_to_write():
    with pytest.raises(CredentialsMissing) as caught:
        open_vendor("my-qos", {"kind": "qos"}, ManualClock(NOW), where="/x/klake.toml")

    assert 'key = "env:MY_QOS_KEY"' in str(caught.value)
    assert caught.value.where == "/x/klake.toml"


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ({"kind": "qoz", "key": KEY}, "vendors.qos.kind", "qos"),
        ({"kind": "qos", "key": KEY, "urll": "x"}, "vendors.qos.urll", "no such key"),
        ({"kind": "qos", "key": KEY, "timeout_s": 0}, "vendors.qos.timeout_s", "greater than 0"),
        ({"kind": "qos", "key": KEY, "key_in": "body"}, "vendors.qos.key_in", "query"),
        (
            {"kind": "qos", "key": KEY, "capability": {"colour": 1}},
            "vendors.qos.capability.colour",
            "page_limit",
        ),
        (
            {"kind": "qos", "key": KEY, "capability": {"page_limit": "x"}},
            "vendors.qos.capability.page_limit",
            "integer",
        ),
        (
            {"kind": "qos", "key": KEY, "capability": {"volume_factor": {"SH.hat": 1}}},
            "vendors.qos.capability.volume_factor",
            "SH.stock",
        ),
        ({"kind": "qos", "key": 5}, "vendors.qos.key", "string"),
    ],
)
def test_a_wrong_table_is_answered_with_file_key_and_what_is_allowed(table, key, hint):
    with pytest.raises(ConfigError) as caught:
        open_vendor("qos", table, ManualClock(NOW), where="klake.toml")

    assert (caught.value.where, caught.value.key) == ("klake.toml", key)
    assert hint in str(caught.value)
    assert KEY not in str(caught.value)


def test_the_plan_of_the_user_goes_over_the_capability():
    vendor = told(
        lambda request: httpx.Response(200), quota=[[60, "30s"], [10, 1]], products=3, depth=0,
        capability={"end_inclusive": True, "settle_s": {"*": 60}, "volume_factor": {"SH.index": 1}},
    )  # fmt: skip

    assert vendor.capability.quotas == (Quota(60, 30.0), Quota(10, 1.0))
    assert (vendor.capability.products, vendor.capability.depth) == (3, 0)
    assert vendor.capability.end_inclusive is True
    assert vendor.capability.settle("US") == 60.0
    assert vendor.capability.factor("SH", Class.INDEX) == 1.0
    assert vendor.capability.factor("SH", Class.STOCK) == 100.0
    assert vendor.capability.known("end_inclusive").basis == "documented"


def test_kinds_are_found_by_their_entry_points():
    assert "qos" in kinds()
    assert vendor_class("qos").kind == "qos"
    with pytest.raises(BadRequest, match="qos"):
        vendor_class("qoz")


def test_a_sandbox_key_is_known_and_an_account_has_one_name():
    assert told(lambda request: httpx.Response(200)).sandbox
    assert account_of("qos", "a") == account_of("qos", "a") != account_of("qos", "b")
    assert account_of("qos", "a") != account_of("other", "a")


def test_page_ids_ascend_and_never_repeat():
    ids = PageIds()
    made = [ids.next(NOW), ids.next(NOW), ids.next(NOW + timedelta(microseconds=1))]

    assert made == sorted(set(made))
    assert PageIds().next(NOW) != ids.next(NOW)


def test_the_sandbox_clock_moves_when_somebody_waits(sandbox):
    clock = SandboxClock(sandbox.control_url)

    clock.wait(90)

    assert clock.now() == sandbox.clock.now() == NOW + timedelta(seconds=90)


def test_the_sandbox_clock_sleeps_for_real_while_time_runs(sandbox):
    class Sleeper(ManualClock):
        def wait(self, seconds: float) -> None:
            slept.append(seconds)
            sandbox.clock.advance(seconds * 100)

    slept: list[float] = []
    sandbox.clock.put(rate=100.0)
    clock = SandboxClock(sandbox.control_url, Sleeper(NOW))

    clock.wait(90)

    assert clock.now() >= NOW + timedelta(seconds=90)
    assert slept
    assert max(slept) <= 0.25


def test_a_sandbox_that_is_gone_is_a_vendor_that_is_down():
    with Sandbox(clock_start=NOW) as gone:
        clock = SandboxClock(gone.control_url)

    with pytest.raises(VendorDown, match="sandbox run"):
        clock.now()
