"""The Longbridge stand-in, driven by the vendor's own SDK (longbridge 5.x, unmodified), over both transports."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
from longbridge import OpenApiException
from longbridge.openapi import (
    AdjustType,
    AsyncQuoteContext,
    Config,
    Market,
    Period,
    PushCandlestickMode,
    QuoteTransport,
    TradeSessions,
)

from klake.sandbox.longbridge_http import _query
from klake.sandbox.longbridge_socket import _Packet, _read, _response
from klake.sandbox.longbridge_wire import Query
from klake.sandbox.server import Sandbox
from klake.schemas.freq import Freq

NOON = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
RAW = AdjustType.NoAdjust
BOTH = pytest.mark.parametrize("transport", ["ws", "http"])


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(instruments=15, clock_start=NOON) as sandbox:
        yield sandbox


@pytest.fixture
def box(running: Sandbox) -> Sandbox:
    running.clock.put(NOON)
    running.journal.clear()
    running.faults.reset()
    running.longbridge.reset()
    running.longbridge.turn({"accounts": {"default": {"calls": [], "quotas": []}}})
    return running


def config(
    box: Sandbox,
    transport: str,
    account: str = "default",
    mode: Any = PushCandlestickMode.Realtime,
    **more: Any,
) -> Any:
    secrets = box.secrets["longbridge"]
    given = {name: secrets[f"{account}.{name}"] for name in ("app_key", "app_secret", "access_token")} | more
    return Config.from_apikey(
        **given, http_url=box.urls["longbridge"], quote_ws_url=box.urls["longbridge_quote"],
        enable_print_quote_packages=False, push_candlestick_mode=mode,
        quote_transport=QuoteTransport.Http if transport == "http" else QuoteTransport.WebSocket,
    )  # fmt: skip


def asked(made: Any, *calls: Callable[[Any], Awaitable[Any]]) -> list[Any]:
    """Return what the SDK gave for each call through one context; an exception where it raised one."""

    async def go() -> list[Any]:
        context, out = AsyncQuoteContext.create(made), []
        for call in calls:
            try:
                out.append(await call(context))
            except OpenApiException as error:
                out.append(error)
        return out

    return asyncio.run(go())


def offset(
    symbol: str = "700.HK",
    period: Any = Period.Day,
    count: int = 5,
    time: datetime | None = None,
    forward: bool = False,
) -> Callable[[Any], Awaitable[Any]]:
    return lambda c: c.history_candlesticks_by_offset(
        symbol=symbol, period=period, adjust_type=RAW, forward=forward, count=count, time=time
    )


def dated(start: date | None, end: date | None, symbol: str = "700.HK", period: Any = Period.Day) -> Any:
    return lambda c: c.history_candlesticks_by_date(
        symbol=symbol, period=period, adjust_type=RAW, start=start, end=end
    )


def stamps(candles: Any) -> list[int]:
    assert not isinstance(candles, Exception), candles
    return [int(c.timestamp.timestamp()) for c in candles]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@BOTH
def test_the_sdk_reads_the_newest_days_as_the_truth_has_them(box: Sandbox, transport: str) -> None:
    symbols = {"700.HK": ("00700.HK", 1), "600519.SH": ("600519.SH", 100), "BRK.B.US": ("BRK.B.US", 1)}

    found = asked(config(box, transport), *(
        lambda c, s=s: c.candlesticks(symbol=s, period=Period.Day, count=3, adjust_type=RAW) for s in symbols
    ))  # fmt: skip

    for (symbol, lot), candles in zip(symbols.values(), found, strict=True):
        truth = box.market.truth(symbol, Freq.D1, date(2026, 11, 1), NOON.date(), NOON).to_pylist()[-3:]
        got = [
            (float(c.open), float(c.high), float(c.low), float(c.close), c.volume * lot, float(c.turnover))
            for c in candles
        ]
        assert got == [
            tuple(t[n] for n in ("open", "high", "low", "close", "volume", "amount")) for t in truth
        ]


@BOTH
def test_times_are_starts_of_minutes_and_local_midnights_of_days(box: Sandbox, transport: str) -> None:
    minute, day, week, month, auction = asked(
        config(box, transport),
        offset("AAPL.US", Period.Min_1, 390, datetime(2026, 11, 19, 16, 0)),
        offset("AAPL.US", Period.Day, 1, datetime(2026, 11, 19)),
        offset("700.HK", Period.Week, 1, datetime(2026, 11, 19)),
        offset("700.HK", Period.Month, 1, datetime(2026, 11, 19)),
        offset("600519.SH", Period.Min_1, 2, datetime(2026, 11, 19, 15, 0)),
    )

    assert stamps(minute)[0] == at("2026-11-19T09:30:00-05:00")
    assert stamps(minute)[-1] == at("2026-11-19T15:59:00-05:00")
    assert stamps(day) == [at("2026-11-19T00:00:00-05:00")]
    assert stamps(week) == [at("2026-11-16T00:00:00+08:00")]
    assert stamps(month) == [at("2026-11-01T00:00:00+08:00")]
    assert stamps(auction) == [at("2026-11-19T14:56:00+08:00"), at("2026-11-19T15:00:00+08:00")]


@BOTH
def test_by_date_the_silent_cut_keeps_the_side_that_the_page_documents(box: Sandbox, transport: str) -> None:
    first, last = date(2015, 1, 5), date(2026, 11, 10)

    none, start, end, both = asked(
        config(box, transport), dated(None, None), dated(first, None), dated(None, last), dated(first, last)
    )

    assert {len(c) for c in (none, start, end, both)} == {1000}
    assert stamps(none)[-1] == at("2026-11-20T00:00:00+08:00")
    assert stamps(start)[0] == at("2015-01-05T00:00:00+08:00")
    assert stamps(end)[-1] == stamps(both)[-1] == at("2026-11-10T00:00:00+08:00")


@BOTH
@pytest.mark.parametrize("anchor", ["inclusive", "exclusive"])
def test_by_offset_both_directions_begin_at_the_anchor_or_beside_it(
    box: Sandbox, transport: str, anchor: str
) -> None:
    box.longbridge.turn({"anchor": anchor})
    when = datetime(2026, 11, 12, 10, 30)

    back, forth = asked(
        config(box, transport),
        offset("700.HK", Period.Min_5, 3, when), offset("700.HK", Period.Min_5, 3, when, forward=True),
    )  # fmt: skip

    here, step = at("2026-11-12T10:30:00+08:00"), 300
    shift = 0 if anchor == "inclusive" else step
    assert stamps(back) == [here - shift - 2 * step, here - shift - step, here - shift]
    assert stamps(forth) == [here + shift, here + shift + step, here + shift + 2 * step]


@BOTH
def test_a_count_of_nothing_means_ten_and_a_day_without_trade_is_an_empty_list(
    box: Sandbox, transport: str
) -> None:
    ten, newest, before = asked(
        config(box, transport), offset(count=0), offset(count=3), offset("9988.HK", time=datetime(2010, 1, 4))
    )

    assert (len(ten), len(newest), before) == (10, 3, [])
    assert stamps(newest)[-1] == at("2026-11-20T00:00:00+08:00")


@BOTH
def test_refusals_come_with_the_codes_of_the_page(box: Sandbox, transport: str) -> None:
    early, unknown, many = asked(
        config(box, transport),
        offset("700.HK", Period.Min_1, 5, datetime(2020, 1, 2, 10, 0)), offset("00700.HK"), offset(count=5000),
    )  # fmt: skip
    denied = asked(config(box, transport, "american"), offset("700.HK"), offset("AAPL.US"))
    expired = asked(config(box, transport, "expired"), offset())[0]
    forged = asked(config(box, transport, app_secret="another"), offset())[0]

    assert (early.code, early.message) == (301600, "out of minute kline begin date")
    assert (unknown.code, many.code, denied[0].code, len(denied[1])) == (301600, 301600, 301604, 5)
    assert (expired.code, forged.code) == (401003, 403201)


@BOTH
def test_the_months_symbols_run_out_and_those_counted_go_on(box: Sandbox, transport: str) -> None:
    made = config(box, transport, "poor")

    found = asked(made, *(offset(s) for s in ("700.HK", "AAPL.US", "600519.SH", "700.HK")))
    none = asked(config(box, transport, "none"), offset())[0]
    box.clock.put(datetime(2026, 12, 1, tzinfo=UTC))
    later = asked(made, offset("600519.SH"))[0]

    assert [len(found[i]) for i in (0, 1, 3)] == [5, 5, 5]
    assert (found[2].code, none.code, len(later)) == (301607, 301607, 5)
    assert found[2].message == "history kline symbol count out of limit"


def test_sixty_history_requests_fit_thirty_seconds(box: Sandbox) -> None:
    box.longbridge.turn({"accounts": {"default": {"calls": [], "quotas": [[60, 30.0]]}}})

    found = asked(config(box, "http"), *([offset(count=1)] * 61))
    box.clock.advance(30.1)
    later = asked(config(box, "http"), offset(count=1))

    assert [isinstance(one, Exception) for one in found] == [False] * 60 + [True]
    assert found[-1].code == 301606 and len(later[0]) == 1


def test_the_profile_makes_the_sdk_throttle_itself(box: Sandbox) -> None:
    box.longbridge.turn({"accounts": {"default": {"rates": [[27, 4, 2]], "calls": [], "quotas": []}}})

    began = time.monotonic()
    asked(config(box, "ws"), *([offset(count=1)] * 5))

    assert time.monotonic() - began > 0.7  # two at once, then four a second


def test_frames_may_be_compressed(box: Sandbox) -> None:
    box.faults.put(None, {"gzip": True})

    found = asked(config(box, "ws"), offset(count=1000))

    assert len(found[0]) == 1000


def test_a_connection_that_breaks_is_resumed_and_the_request_repeated(box: Sandbox) -> None:
    box.faults.put([{"kind": "close", "next": 1}], {})

    first, second = asked(config(box, "ws"), offset(), offset())

    # One time in four the SDK (5.3.0) gives the request up instead: it races with its own reconnecting.
    assert (
        len(first) == 5
        if isinstance(first, list)
        else first.message in {"Client is closed", "request timeout"}
    )
    assert len(second) == 5
    assert [r.endpoint for r in box.journal.rows()].count(
        "/v1/socket/token"
    ) == 1  # resumed without a password


def test_only_so_many_connections_stand_at_once(box: Sandbox) -> None:
    box.longbridge.turn({"accounts": {"default": {"connections": 1}}, "online": 1})

    error = asked(config(box, "ws"), offset())[0]

    assert "connections limitation is hit" in error.message


@pytest.mark.parametrize(
    ("kind", "transport", "said"),
    [
        ("bad_error", "ws", "response error: 7: detail:None"),
        ("corrupt", "ws", "decode"),
        ("error", "ws", "Internal error."),
        ("error", "http", "Internal error."),
        ("http_504", "http", "status=504"),
        ("http_429_json", "http", "api request is limited"),
        ("not_json", "http", "expected value"),
        ("no_data", "http", "unexpected response"),
        ("cut", "http", "body"),
        ("reset", "http", "error sending request"),
    ],
)
def test_faults_arrive_at_the_sdk_as_its_own_errors(
    box: Sandbox, kind: str, transport: str, said: str
) -> None:
    box.faults.put([{"kind": kind, "next": 1}], {})

    error, after = asked(config(box, transport), offset(), offset())

    assert said in error.message
    assert len(after) == 5


def test_a_429_without_an_envelope_is_repeated_by_the_sdk_itself(box: Sandbox) -> None:
    box.faults.put([{"kind": "http_429", "next": 2}], {})

    assert len(asked(config(box, "http"), offset())[0]) == 5


@BOTH
def test_faults_of_the_data_are_passed_on_without_a_word(box: Sandbox, transport: str) -> None:
    seen = {}
    for kind in (
        "empty_price",
        "stray_bar",
        "duplicate_bar",
        "descending",
        "unsorted",
        "low_above_high",
        "empty_page",
    ):
        box.faults.put([{"kind": kind, "next": 1}], {})
        seen[kind] = asked(config(box, transport), offset(time=datetime(2026, 11, 10)))[0]

    times = {kind: stamps(candles) for kind, candles in seen.items()}
    assert [float(c.close) for c in seen["empty_price"]].count(0.0) == 1
    assert times["stray_bar"][-1] > at("2026-11-11T00:00:00+08:00")
    assert times["duplicate_bar"][0] == times["duplicate_bar"][1]
    assert times["descending"] == sorted(times["descending"], reverse=True)
    assert (
        times["unsorted"] != sorted(times["unsorted"])
        and sorted(times["unsorted"]) == times["descending"][::-1]
    )
    assert any(c.low > c.high for c in seen["low_above_high"]) and times["empty_page"] == []


@BOTH
def test_adjusted_answers_are_restated_when_the_date_crosses_an_ex_date(box: Sandbox, transport: str) -> None:
    def adjusted(c: Any) -> Awaitable[Any]:
        return c.history_candlesticks_by_offset(
            symbol="AAPL.US", period=Period.Day, adjust_type=AdjustType.ForwardAdjust, forward=False, count=1,
            time=datetime(2020, 8, 3),
        )  # fmt: skip

    box.clock.put(datetime(2020, 8, 28, 21, tzinfo=UTC))
    before = asked(config(box, transport), adjusted)[0][0]
    box.clock.put(datetime(2020, 8, 31, 21, tzinfo=UTC))
    after = asked(config(box, transport), adjusted)[0][0]

    assert float(before.close) / float(after.close) == pytest.approx(4.0, rel=1e-3)


def test_the_newest_candle_is_the_running_one(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 2, 0, 30, tzinfo=UTC))
    early = asked(config(box, "http"), offset("700.HK", Period.Day, 1), offset("700.HK", Period.Min_1, 1))
    box.clock.advance(20)
    late = asked(config(box, "http"), offset("700.HK", Period.Day, 1), offset("700.HK", Period.Min_1, 1))

    assert stamps(early[1]) == stamps(late[1]) == [at("2026-11-20T10:00:00+08:00")]
    assert early[0][0].volume < late[0][0].volume and early[1][0].volume < late[1][0].volume


@BOTH
def test_instruments_and_trading_days_are_told(box: Sandbox, transport: str) -> None:
    info, days, long = asked(
        config(box, transport),
        lambda c: c.static_info(["700.HK", "AAPL.US", "NONE.US"]),
        lambda c: c.trading_days(Market.HK, date(2025, 12, 20), date(2025, 12, 31)),
        lambda c: c.trading_days(Market.HK, date(2026, 1, 1), date(2026, 3, 1)),
    )

    assert [(i.symbol, i.lot_size, i.name_cn) for i in info] == [
        ("700.HK", 100, "腾讯控股"),
        ("AAPL.US", 1, "苹果"),
    ]
    assert days.half_trading_days == [date(2025, 12, 24), date(2025, 12, 31)]
    assert date(2025, 12, 25) not in days.trading_days
    assert long.code == 301600


BODY = """{"adjust_type":1,"offset_request":{"count":10,"date":"20240102","direction":0,"minute":"0935"},
"period":1,"query_type":1,"symbol":"700.HK","trade_session":100}"""


def test_bodies_as_the_vendors_file_has_them_are_understood() -> None:
    by_offset = _query("/quote/history-candlesticks", json.loads(BODY))
    by_date = _query("/quote/history-candlesticks", {
        "adjust_type": 0, "date_request": {"end_date": "", "start_date": "20240102"}, "period": 1000,
        "query_type": 2, "symbol": "700.HK", "trade_session": 0,
    })  # fmt: skip
    latest = _query(
        "/quote/candlesticks",
        {"adjust_type": 0, "count": 7, "period": 2000, "symbol": "700.HK", "trade_session": 0},
    )

    assert by_offset == Query("700.HK", 1, "offset", 10, 1, 100, False, "20240102", "0935")
    assert by_date == Query("700.HK", 1000, "date", start="20240102")
    assert latest == Query("700.HK", 2000, "latest", 7)


def test_packets_are_laid_out_as_the_vendors_file_has_them() -> None:
    request = bytes.fromhex("01 1b 00000003 7530 000004 0a02 4849")

    assert _read(request) == _Packet(27, 3, b"\x0a\x02HI")
    assert _response(_Packet(27, 3, b""), b"\x08\x01", 7) == bytes.fromhex("02 1b 00000003 07 000002 0801")


def test_the_blocking_sdk_works_against_a_sandbox_in_its_own_process() -> None:
    command = [
        sys.executable,
        "-m",
        "klake",
        "sandbox",
        "run",
        "--instruments",
        "5",
        "--vendors",
        "longbridge",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            about = json.loads(process.stdout.readline())
            secrets = about["secrets"]["longbridge"]
            script = (
                "import sys, json; from longbridge.openapi import *\n"
                "a = json.loads(sys.argv[1]); s = a['secrets']['longbridge']\n"
                "c = QuoteContext(Config.from_apikey(s['default.app_key'], s['default.app_secret'], "
                "s['default.access_token'], http_url=a['longbridge'], quote_ws_url=a['longbridge_quote'], "
                "enable_print_quote_packages=False))\n"
                "print(len(c.candlesticks('700.HK', Period.Day, 7, AdjustType.NoAdjust, TradeSessions.Intraday)))"
            )
            done = subprocess.run(
                [sys.executable, "-c", script, json.dumps(about)], check=False, capture_output=True, text=True
            )
        finally:
            process.terminate()
    assert done.stdout.strip() == "7", done.stderr
    assert all(value.startswith("sandbox-") for value in secrets.values())


def test_control_turns_the_dials_and_shows_no_secret(box: Sandbox) -> None:
    with httpx.Client(trust_env=False) as client:
        url = f"{box.control_url}/faults"
        shown = client.post(
            url, json={"longbridge": {"anchor": "exclusive", "accounts": {"poor": {"symbols": 3}}}}
        )
        wrong = client.post(url, json={"longbridge": {"anchors": 1}})

    assert shown.json()["longbridge"]["anchor"] == "exclusive"
    assert box.longbridge.accounts["poor"].symbols == 3
    assert "sandbox-longbridge" not in shown.text and wrong.status_code == 400


def streamed(
    box: Sandbox, symbol: str, steps: list[float], period: Any = Period.Min_1, mode: Any = PushCandlestickMode.Realtime,
    spoil: dict[str, Any] | None = None,
) -> list[tuple[int, tuple[float, ...], bool]]:  # fmt: skip
    """Return what the SDK's callback got while the clock went on by `steps`: (start, OHLCV, confirmed)."""
    got: list[tuple[int, tuple[float, ...], bool]] = []

    def heard(code: str, event: Any) -> None:
        c = event.candlestick
        prices = (float(c.open), float(c.high), float(c.low), float(c.close), float(c.volume))
        got.append((int(c.timestamp.timestamp()), prices, event.is_confirmed))

    async def go() -> None:
        context = AsyncQuoteContext.create(config(box, "ws", mode=mode))
        context.set_on_candlestick(heard)
        await context.subscribe_candlesticks(symbol, period, TradeSessions.Intraday)
        box.faults.put([spoil] if spoil else [], {})
        for step in steps:
            box.clock.advance(step)
            await asyncio.sleep(0.35)  # the stand-in looks at the clock ten times a second
        if spoil and spoil["kind"] == "close":
            await asyncio.sleep(2.5)
            box.clock.advance(60)
            await asyncio.sleep(0.5)

    asyncio.run(go())
    return got


def minute(box: Sandbox, symbol: str, start: int) -> tuple[float, ...]:
    begin = datetime.fromtimestamp(start, UTC)
    row = box.market.truth(symbol, Freq.M1, begin, begin + timedelta(minutes=1), box.clock.now()).to_pylist()[
        0
    ]
    return tuple(row[n] for n in ("open", "high", "low", "close", "volume"))


def test_candles_that_the_sdk_builds_from_pushed_trades_are_the_markets(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 2, 0, 40, tzinfo=UTC))

    got = streamed(box, "700.HK", [30, 20, 20, 30, 50, 20])

    confirmed = {start: values for start, values, done in got if done}
    assert {at("2026-11-20T10:01:00+08:00"), at("2026-11-20T10:02:00+08:00")} <= confirmed.keys()
    for start in (at("2026-11-20T10:01:00+08:00"), at("2026-11-20T10:02:00+08:00")):
        assert confirmed[start] == minute(box, "00700.HK", start)
    assert [values[4] for start, values, _ in got if start == at("2026-11-20T10:01:00+08:00")] == sorted(
        values[4] for start, values, _ in got if start == at("2026-11-20T10:01:00+08:00")
    )


def test_in_confirmed_mode_only_ended_candles_are_told_and_never_the_last(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 6, 58, 30, tzinfo=UTC))

    got = streamed(box, "600519.SH", [60, 60, 600], mode=PushCandlestickMode.Confirmed)

    assert got and all(done for _, _, done in got)
    assert at("2026-11-20T15:00:00+08:00") not in {
        start for start, _, _ in got
    }  # nothing younger confirms it


def test_the_closing_auction_is_a_candle_at_the_sessions_end(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 6, 55, 30, tzinfo=UTC))

    got = streamed(box, "600519.SH", [60, 240])

    assert got[-1][0] == at("2026-11-20T15:00:00+08:00") and not got[-1][2]


def test_a_late_trade_is_dropped_by_the_sdk(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 2, 10, 40, tzinfo=UTC))

    got = streamed(box, "700.HK", [30, 60, 60], spoil={"kind": "late_trade", "probability": 1.0})

    start = at("2026-11-20T10:11:00+08:00")
    assert next(values for at_, values, done in got if done and at_ == start) == minute(
        box, "00700.HK", start
    )


def test_an_outage_leaves_a_hole_that_the_sdk_does_not_fill(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 2, 20, 40, tzinfo=UTC))

    got = streamed(box, "700.HK", [20, 60], spoil={"kind": "close", "next": 1})

    assert got
    later = {start for start, _, _ in got}
    assert max(later) >= at("2026-11-20T10:22:00+08:00")  # it subscribed again
    assert [r.endpoint for r in box.journal.rows()].count("/quote/candlesticks") == 1  # and pulled nothing


def test_a_quote_after_the_close_corrects_the_day(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 7, 59, 30, tzinfo=UTC))

    got = streamed(
        box, "700.HK", [60, 900], period=Period.Day, spoil={"kind": "eod_quote", "probability": 1.0}
    )

    truth = box.market.truth(
        "00700.HK", Freq.D1, date(2026, 11, 20), date(2026, 11, 20), box.clock.now()
    ).to_pylist()[0]
    assert got[-1][1][3] == pytest.approx(truth["close"] + 0.2) and not got[-1][2]
