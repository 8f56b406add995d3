"""Longbridge's file: spellings, requests, pages, errors; golden bytes that the sandbox had no hand in."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from longbridge_stand import LongbridgeStand
from websockets.sync.server import ServerConnection, serve

from klake.errors import (
    BadCredentials,
    BadPage,
    BadRequest,
    ConfigError,
    CredentialsMissing,
    MissingExtra,
    MonthQuota,
    RateLimited,
    SymbolRefused,
    UnitMismatch,
    VendorDown,
    VendorRefused,
)
from klake.ingest.canonical import decoded, encoded
from klake.ingest.registry import open_vendor
from klake.ingest.vendors import longbridge as file
from klake.ingest.vendors.longbridge_sdk import columns_of, failure
from klake.sandbox.server import Sandbox
from klake.schemas.capability import Capability
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page, PageRequest
from klake.schemas.symbol import Symbol

NOON = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
SECRETS = {"app_key": "the-key", "app_secret": "the-secret", "access_token": "the-token"}
# The answer that open.longbridge.com prints for history candlesticks of 700.HK, five days.
DOCUMENTED = """{"symbol":"700.HK","candlesticks":[
{"close":"362.000","open":"364.600","low":"361.600","high":"368.800","volume":10853604,"turnover":"3954556819.000","timestamp":1650384000},
{"close":"348.000","open":"352.000","low":"343.000","high":"356.200","volume":25738562,"turnover":"8981529950.000","timestamp":1650470400},
{"close":"340.600","open":"334.800","low":"334.200","high":"343.000","volume":28031299,"turnover":"9492674293.000","timestamp":1650556800},
{"close":"327.400","open":"332.200","low":"325.200","high":"338.600","volume":25788422,"turnover":"8541441823.000","timestamp":1650816000},
{"close":"335.800","open":"332.200","low":"330.600","high":"341.600","volume":27288328,"turnover":"9166022626.000","timestamp":1650902400}]}"""
DAYS = [
    (date(2022, 4, 20), 364.6, 368.8, 361.6, 362.0, 10853604.0, 3954556819.0),
    (date(2022, 4, 21), 352.0, 356.2, 343.0, 348.0, 25738562.0, 8981529950.0),
    (date(2022, 4, 22), 334.8, 343.0, 334.2, 340.6, 28031299.0, 9492674293.0),
    (date(2022, 4, 25), 332.2, 338.6, 325.2, 327.4, 25788422.0, 8541441823.0),
    (date(2022, 4, 26), 332.2, 341.6, 330.6, 335.8, 27288328.0, 9166022626.0),
]
# The first of these rows as the public protobuf has it: close 1, open 2, low 3, high 4, volume 5, turnover 6, timestamp 7.
PACKED = (
    "0a06 3730302e484b 123f 0a07 3336322e303030 1207 3336342e363030 1a07 3336312e363030 2207 3336382e383030"
    " 28 e4b99605 320e 333935343535363831392e303030 38 80b9fb9206"
)


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(instruments=15, clock_start=NOON) as sandbox:
        yield sandbox


@pytest.fixture
def lb(running: Sandbox, tmp_path: Path) -> LongbridgeStand:
    running.clock.put(NOON)
    running.faults.reset()
    running.longbridge.reset()
    return LongbridgeStand(running, tmp_path)


def vendor(**more: Any) -> Any:
    """A vendor that nobody serves."""
    return open_vendor("lb", {"kind": "longbridge", **SECRETS, **more}, ManualClock(NOON))


def page(columns: dict[str, list[Any]], entry: Entry, code: str) -> Page:
    body = encoded("longbridge 5.3.0", {code: columns})
    request = PageRequest("lb", "history_candlesticks_by_offset", (entry,))
    return Page("p", "r", "longbridge", "a", request, NOON, 200, "klake-longbridge/1", body)


def fetched(one: Any, symbol: str, freq: Freq, end: datetime | None, count: int) -> Any:
    return one.parse(one.send(one.request((Entry(symbol, freq, end, count),))))[0]


def values(bars: Any) -> list[tuple[Any, ...]]:
    names = ("session", "open", "high", "low", "close", "volume", "amount")
    return [tuple(row[n] for n in names) for row in bars.to_pylist()]


@pytest.mark.parametrize(
    ("symbol", "code"),
    [
        ("00700.HK", "700.HK"), ("HSI.HK", "HSI.HK"), ("AAPL.US", "AAPL.US"), ("BRK.B.US", "BRK.B.US"),
        ("^DJI.US", ".DJI.US"), ("600519.SH", "600519.SH"), ("399001.SZ", "399001.SZ"),
        ("BTCUSDT.BINANCE", None), ("430047.BJ", None), ("EURUSD.FX", None),
    ],
)  # fmt: skip
def test_symbols_are_spelled_as_the_vendor_does(symbol: str, code: str | None) -> None:
    one = vendor()

    known = Symbol(*symbol.rsplit(".", 1))

    assert one.spell(known) == code
    assert code is None or one.symbol(code) == known
    assert one.symbol("D05.SG") is None


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (Entry("AAPL.US", Freq.D1, None, 5), Entry("00700.HK", Freq.D1, None, 5)),
        (Entry("AAPL.US", Freq.D1, None, 1001),),
        (Entry("AAPL.US", Freq.D1, None, 0),),
        (Entry("AAPL.US", Freq.D1, None, 5, "qfq"),),
        (Entry("BTCUSDT.BINANCE", Freq.D1, None, 5),),
    ],
    ids=str,
)
def test_what_the_vendor_would_answer_wrongly_is_never_asked(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(BadRequest):
        vendor().request(entries)


def test_the_newest_bars_and_those_before_an_end_are_two_calls() -> None:
    one = vendor()

    newest = one.request((Entry("AAPL.US", Freq.M1, None, 5),))
    before = one.request((Entry("AAPL.US", Freq.M1, NOON, 5),))

    assert (newest.endpoint, before.endpoint) == ("candlesticks", "history_candlesticks_by_offset")


@pytest.mark.parametrize(
    ("symbol", "freq", "end", "wall", "more"),
    [
        ("AAPL.US", Freq.M1, "2026-11-19T15:00:00+00:00", "2026-11-19T10:00", 0),  # winter
        ("AAPL.US", Freq.M1, "2026-07-15T15:00:00+00:00", "2026-07-15T11:00", 0),  # summer
        (
            "00700.HK",
            Freq.M5,
            "2026-11-19T02:00:01+00:00",
            "2026-11-19T10:01",
            0,
        ),  # seconds are dropped: not ours
        ("600519.SH", Freq.D1, "2026-11-19T01:30:00+00:00", "2026-11-19T09:30", 0),  # a bar's own start
        (
            "600519.SH",
            Freq.D1,
            "2026-11-19T08:00:00+00:00",
            "2026-11-20T16:00",
            1,
        ),  # after it: that day is wanted
    ],
)
def test_an_end_is_told_on_the_markets_own_clock(
    symbol: str, freq: Freq, end: str, wall: str, more: int
) -> None:
    told, count = file._wall(Entry(symbol, freq, datetime.fromisoformat(end), 10))

    assert told == datetime.fromisoformat(wall) and told.tzinfo is None
    assert count == 10 + more


class Printed(BaseHTTPRequestHandler):
    """Answers every POST with what the vendor's page prints."""

    def do_POST(self) -> None:
        body = f'{{"code":0,"message":"","data":{DOCUMENTED}}}'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_the_answer_that_the_vendors_page_prints_becomes_these_bars() -> None:
    server = HTTPServer(("127.0.0.1", 0), Printed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    one = vendor(transport="http", url=f"http://127.0.0.1:{server.server_port}")

    got = fetched(one, "00700.HK", Freq.D1, None, 5)
    one.close()
    server.shutdown()

    assert values(got.bars) == DAYS
    assert set(got.bars["state"].to_pylist()) == {"final"}
    assert got.bars["ts"][0].as_py() == datetime(2022, 4, 20, 1, 30, tzinfo=UTC)


def test_a_packet_written_by_hand_becomes_the_same_bar() -> None:
    body = bytes.fromhex(PACKED)

    def talk(connection: ServerConnection) -> None:
        for message in connection:
            assert isinstance(message, bytes)
            command, request = message[1], message[2:6]
            answer = body if command == 19 else b""  # empty: authenticated, without a profile
            connection.send(bytes([2, command]) + request + b"\x00" + len(answer).to_bytes(3, "big") + answer)

    otp = b'{"code":0,"message":"","data":{"otp":"x","limit":10,"online":0}}'

    class Password(Printed):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(otp)))
            self.end_headers()
            self.wfile.write(otp)

    server, line = HTTPServer(("127.0.0.1", 0), Password), serve(talk, "127.0.0.1", 0, compression=None)
    for serving in (server, line):
        threading.Thread(target=serving.serve_forever, daemon=True).start()
    quote_url = f"ws://127.0.0.1:{line.socket.getsockname()[1]}"
    one = vendor(url=f"http://127.0.0.1:{server.server_port}", quote_url=quote_url)

    got = fetched(one, "00700.HK", Freq.D1, None, 5)
    one.close()
    server.shutdown()
    line.shutdown()

    assert values(got.bars) == DAYS[:1]


KEPT = (
    b'{"sdk":"longbridge 5.3.0","tables":{"700.HK":{"timestamp":[1650384000],"open":["364.600"],"high":["368.800"],'
    b'"low":["361.600"],"close":["362.000"],"turnover":["3954556819.000"],"volume":[10853604],"trade_session":["Intraday"]}}}'
)


def test_a_kept_page_is_these_bytes_and_is_read_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "longbridge", None)
    one = vendor()
    kept = Page(
        "p", "r", "longbridge", "a", one.request((Entry("00700.HK", Freq.D1, None, 5),)), NOON, 200, "c", KEPT
    )

    assert values(one.parse(kept)[0].bars) == DAYS[:1]
    columns = {
        "timestamp": [1650384000], "open": [Decimal("364.600")], "high": ["368.800"], "low": ["361.600"],
        "close": ["362.000"], "turnover": ["3954556819.000"], "volume": [10853604], "trade_session": ["Intraday"],
    }  # fmt: skip
    assert encoded("longbridge 5.3.0", {"700.HK": columns}) == KEPT


def test_without_the_sdk_asking_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "longbridge", None)
    one = vendor()

    with pytest.raises(MissingExtra, match=r'pip install "klake\[longbridge\]"'):
        one.send(one.request((Entry("AAPL.US", Freq.D1, None, 5),)))


@given(
    st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=6), max_size=5),
    st.lists(st.integers(0, 2**53)),
)
def test_what_was_kept_comes_back_digit_for_digit(prices: list[Decimal], counts: list[int]) -> None:
    class Columns(msgspec.Struct):
        price: list[str]
        count: list[int]

    body = encoded("an sdk", {"X": {"price": prices, "count": counts}})

    got = decoded(body, Columns, "lb")["X"]
    assert (got.price, got.count) == ([str(p) for p in prices], counts)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"sdk":"","tables":{"700.HK":{"timestamp":[1]}}}', b"\xff"])
def test_a_torn_page_is_a_bad_page(body: bytes) -> None:
    one = vendor()
    request = one.request((Entry("00700.HK", Freq.D1, None, 5),))

    with pytest.raises(BadPage):
        one.parse(Page("p", "r", "longbridge", "a", request, NOON, 200, "c", body))


def test_columns_of_different_lengths_are_a_bad_page() -> None:
    columns: dict[str, list[Any]] = {
        n: [1] for n in ("timestamp", "open", "high", "low", "close", "turnover")
    }

    with pytest.raises(BadPage):
        vendor().parse(page(columns | {"volume": []}, Entry("00700.HK", Freq.D1, None, 5), "700.HK"))


def test_candles_that_are_younger_than_the_end_are_left_out() -> None:
    stamps = [1650384000, 1650470400, 1650556800]
    columns: dict[str, list[Any]] = {"timestamp": stamps, "volume": [100] * 3, "turnover": ["1000"] * 3}
    columns |= {name: ["10"] * 3 for name in ("open", "high", "low", "close")}

    got = vendor().parse(
        page(columns, Entry("00700.HK", Freq.D1, datetime(2022, 4, 21, 1, 30, tzinfo=UTC), 5), "700.HK")
    )

    assert got[0].bars["session"].to_pylist() == [date(2022, 4, 20), date(2022, 4, 21)]


@pytest.mark.parametrize(
    ("symbol", "code", "turnover", "factor"),
    [("000001.SZ", "000001.SZ", "1000.00", 1), ("00700.HK", "700.HK", "100000.00", 100)],
)  # fmt: skip
def test_amounts_that_contradict_the_declared_unit_stop_the_page(
    symbol: str, code: str, turnover: str, factor: int
) -> None:
    columns: dict[str, list[Any]] = {"timestamp": [1650384000], "volume": [100], "turnover": [turnover]}
    columns |= {name: ["10.00"] for name in ("open", "high", "low", "close")}

    with pytest.raises(UnitMismatch, match=f'"{symbol[-2:]}.stock" = {factor}'):
        vendor().parse(page(columns, Entry(symbol, Freq.D1, None, 5), code))


class Told(Exception):
    """An error as the SDK raises them."""

    def __init__(self, kind: str, code: int | None, message: str) -> None:
        self.kind, self.code, self.message = f"ErrorKind.{kind}", code, message


@pytest.mark.parametrize(
    ("kind", "code", "message", "meant"),
    [
        ("OpenApi", 301606, "rate limit", RateLimited),
        ("OpenApi", 301607, "history kline symbol count out of limit", MonthQuota),
        ("OpenApi", 301604, "no access", SymbolRefused),
        ("OpenApi", 301603, "no quotes", SymbolRefused),
        ("OpenApi", 301600, "out of minute kline begin date", SymbolRefused),
        ("OpenApi", 301602, "server error", VendorDown),
        ("OpenApi", 401003, "token expired", BadCredentials),
        ("OpenApi", 401004, "token invalid", BadCredentials),
        ("OpenApi", 403201, "signature invalid", BadCredentials),
        ("OpenApi", 429002, "api request is limited", RateLimited),
        ("OpenApi", 500000, "internal error", VendorDown),
        ("OAuth", None, "token expired", BadCredentials),
        ("Other", None, "request timeout", VendorDown),
        ("Other", None, "Client is closed", VendorDown),
        ("Other", None, "connections limitation is hit, limit = 1, online = 2", VendorDown),
        ("Other", None, "response error: 7: detail:None", VendorDown),
        ("Other", None, "error sending request for url (https://x/y)", VendorDown),
        ("Other", None, "unexpected response", BadPage),
        ("Other", None, "failed to decode Protobuf message: invalid varint", BadPage),
        ("Other", None, "unexpected HTTP response: status=504 Gateway Timeout, trace_id=, body=", VendorDown),
        ("Other", None, "unexpected HTTP response: status=401 Unauthorized", BadCredentials),
    ],
)
def test_each_error_of_the_sdk_is_classed_once(
    kind: str, code: int | None, message: str, meant: type
) -> None:
    error = failure(Told(kind, code, message), "lb", "AAPL.US", ())

    assert type(error) is meant
    assert not isinstance(error, RateLimited) or error.wait_s == 30.0


def test_no_error_holds_a_secret() -> None:
    said = failure(
        Told("Other", None, "GET /?token=the-token&key=the-key"), "lb", "AAPL.US", tuple(SECRETS.values())
    )

    assert not any(secret in str(said) for secret in SECRETS.values())


@pytest.mark.parametrize("missing", list(SECRETS))
def test_a_secret_that_is_not_set_is_named(missing: str) -> None:
    table = {"kind": "longbridge", **SECRETS} | {missing: ""}

    with pytest.raises(CredentialsMissing, match=f"LB_{missing.upper()}"):
        open_vendor("lb", table, ManualClock(NOON))


def test_variables_and_env_files_change_nothing(lb: LongbridgeStand) -> None:
    script = (
        "import json, os, sys, datetime\n"
        "from klake.ingest.registry import open_vendor\nfrom klake.schemas.clock import SystemClock\n"
        "from klake.schemas.page import Entry\nfrom klake.schemas.freq import Freq\n"
        "v = open_vendor('lb', json.loads(sys.argv[1]), SystemClock())\n"
        "print(v.parse(v.send(v.request((Entry('00700.HK', Freq.D1, None, 5),))))[0].bars.num_rows)\n"
    )
    (lb.folder / ".env").write_text("LONGBRIDGE_HTTP_URL=http://127.0.0.1:9\nLONGBRIDGE_QUOTE_TRANSPORT=ws\n")
    env = {
        "LONGBRIDGE_QUOTE_WS_URL": "ws://127.0.0.1:9",
        "LONGBRIDGE_LANGUAGE": "zh-CN",
        "LONGBRIDGE_REGION": "cn",
    }
    for transport in ("ws", "http"):
        lb.transport = transport
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(lb.table)], check=False, cwd=lb.folder, capture_output=True,
            text=True, env={**os.environ, **env},
        )  # fmt: skip
        assert done.stdout == "5\n", done.stderr  # and the SDK printed nothing of its own


def test_those_who_use_one_account_share_one_connection(lb: LongbridgeStand) -> None:
    lb.transport = "ws"
    lb.sandbox.longbridge.turn({"accounts": {"default": {"connections": 1}}})
    first, second = lb.vendor(), lb.vendor()
    lb.sandbox.journal.clear()

    got = [fetched(one, "AAPL.US", Freq.D1, None, 3).bars.num_rows for one in (first, second)]
    first.close()
    got.append(fetched(second, "AAPL.US", Freq.D1, None, 3).bars.num_rows)
    second.close()

    assert got == [3, 3, 3]
    assert [r.endpoint for r in lb.sandbox.journal.rows()].count("/v1/socket/token") == 1


def test_a_connection_that_another_program_holds_is_told(lb: LongbridgeStand) -> None:
    lb.transport = "ws"
    lb.sandbox.longbridge.turn({"accounts": {"default": {"connections": 1}}, "online": 1})
    one = lb.vendor()

    with pytest.raises(VendorDown, match="another program holds the account's connection"):
        fetched(one, "AAPL.US", Freq.D1, None, 3)
    one.close()


def test_a_request_that_nobody_answers_ends(lb: LongbridgeStand) -> None:
    lb.transport = "ws"
    one = lb.vendor(timeout_s=1)
    fetched(one, "AAPL.US", Freq.D1, None, 3)
    lb.sandbox.faults.put([{"kind": "drop", "next": 1}], {})

    with pytest.raises(VendorDown, match="no reply in time"):
        fetched(one, "AAPL.US", Freq.D1, None, 3)
    after = fetched(one, "AAPL.US", Freq.D1, None, 3)
    one.close()

    assert after.bars.num_rows == 3


def test_instruments_and_the_calendar_come_from_the_vendor(lb: LongbridgeStand) -> None:
    one = lb.vendor()

    found = one.instruments([Symbol("00700", "HK"), Symbol("AAPL", "US"), Symbol("BTCUSDT.P", "QOS")])
    exact, nothing = one.find("700.HK"), one.find("Tencent")
    days = one.market_calendar()
    with pytest.raises(VendorRefused):
        one.product_list()
    one.close()

    assert [(i.symbol, i.name_zh, i.currency, i.lot) for i in found] == [
        (Symbol("00700", "HK"), "腾讯控股", "HKD", 100), (Symbol("AAPL", "US"), "苹果", "USD", 1),
    ]  # fmt: skip
    assert [i.symbol for i in exact] == [Symbol("00700", "HK")] and nothing == []
    assert days[-1].session == date(2026, 11, 20) and date(2026, 11, 14) not in {d.session for d in days}


@pytest.mark.parametrize("anchor", ["inclusive", "exclusive"])
def test_a_probe_finds_out_whether_the_anchor_is_given_and_on_whose_clock(
    lb: LongbridgeStand, anchor: str
) -> None:
    lb.sandbox.longbridge.turn({"anchor": anchor})
    lb.sandbox.clock.put(datetime(2026, 11, 19, 16, 0, 30, tzinfo=UTC))  # New York trades
    one = lb.vendor()

    answers = {a.question: a for told in one.probe() for a in told}
    one.close()

    assert answers["U1"].value == str(anchor == "inclusive").lower()
    assert (answers["U2"].value, answers["U3"].value) == ("venue", "true")


def test_the_capability_says_what_the_vendors_page_says() -> None:
    known: Capability = vendor(symbols_a_month=400).capability

    assert known.freqs[Freq.D1] == "1000" and known.freqs[Freq.Q1] == "3500" and known.freqs[Freq.M1] == "1"
    assert [(q.n, q.window_s) for q in known.quotas[:2]] == [(60, 30.0), (10, 1.0)]
    assert (known.quotas[2].n, known.quotas[2].scope) == (400, "month-symbols")
    assert known.floor["HK", Freq.M1] == date(2022, 9, 28) and known.floor["US", Freq.D1] == date(2010, 6, 1)
    assert (known.page_limit, known.products, known.amount) == (1000, 1, True)


class Row:
    """A candle as the SDK gives them, in New York's hour that comes twice (2026-11-01)."""

    open = high = low = close = turnover = Decimal("1.10")
    volume, trade_session = 7, "TradeSession.Intraday"

    def __init__(self, fold: int) -> None:
        self.timestamp = datetime(2026, 11, 1, 1, 30, fold=fold)


def test_the_hour_that_comes_twice_is_told_apart() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_longbridge_vendor import Row, columns_of\n"
        "print(columns_of([Row(0), Row(1)])['timestamp'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)], check=False, capture_output=True, text=True,
        env={**os.environ, "TZ": "America/New_York"},
    )  # fmt: skip

    assert done.stdout.strip() == "[1793511000, 1793514600]", done.stderr
    assert columns_of([Row(0)])["close"] == ["1.10"]


OAUTH = """
import json, sys
from klake.errors import KlakeError
from klake.ingest.registry import open_vendor
from klake.schemas.clock import SystemClock
from klake.schemas.page import Entry
from klake.schemas.freq import Freq
vendor = open_vendor("lb", json.loads(sys.argv[1]), SystemClock())
try:
    page = vendor.send(vendor.request((Entry("00700.HK", Freq.D1, None, 5),)))
    print(vendor.parse(page)[0].bars.num_rows, vendor.expires_at.isoformat(), vendor.sandbox)
except KlakeError as error:
    print(type(error).__name__, error)
"""


def logged_in(lb: LongbridgeStand, home: Path) -> str:
    """Ask with a login instead of secrets, in a process whose home is `home`; return what came of it."""
    table = {k: v for k, v in lb.table.items() if k not in SECRETS} | {"client_id": "sandbox-client"}
    done = subprocess.run(
        [sys.executable, "-c", OAUTH, json.dumps(table)], check=False, capture_output=True, text=True,
        env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("transport", ["ws", "http"])
def test_a_login_serves_instead_of_the_three_secrets(
    lb: LongbridgeStand, tmp_path: Path, transport: str
) -> None:
    lb.transport = transport
    file = tmp_path / ".longbridge" / "openapi" / "tokens" / "sandbox-client"
    file.parent.mkdir(parents=True)
    token = lb.sandbox.secrets["longbridge"]["default.access_token"]
    ends = 4_000_000_000
    told = {"client_id": "sandbox-client", "access_token": token, "refresh_token": "r", "expires_at": ends}
    file.write_text(json.dumps(told))

    assert logged_in(lb, tmp_path) == f"5 {datetime.fromtimestamp(ends, UTC).isoformat()} True"


def test_without_a_login_a_sync_says_how_to_log_in(lb: LongbridgeStand, tmp_path: Path) -> None:
    assert "BadCredentials lb: nobody is logged in: run `klake vendors login lb`" in logged_in(lb, tmp_path)


def test_a_login_and_secrets_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="give one form"):
        vendor(client_id="a-client")


def test_an_account_with_secrets_has_nothing_to_log_in_to() -> None:
    with pytest.raises(BadRequest, match="it has its secrets"):
        vendor().login(print)


def test_an_access_token_tells_when_it_ends() -> None:
    claims = base64.urlsafe_b64encode(b'{"exp":1783420934,"aid":1}').decode().rstrip("=")

    assert vendor(access_token=f"m_head.{claims}.tail").expires_at == datetime.fromtimestamp(1783420934, UTC)
    assert vendor().expires_at is None
