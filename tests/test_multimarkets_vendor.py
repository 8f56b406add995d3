"""The MultiMarkets client on its WebSocket: who it is, how it waits, what it does when the other side is odd."""

import json
import logging
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from faces import SYMBOLS, Nothing, dial
from faces import MultiMarkets as Operator
from pydantic import ValidationError

import klake
from klake.errors import (
    BadCredentials,
    BadPage,
    BadRequest,
    ConfigError,
    RateLimited,
    UnitMismatch,
    VendorDown,
    VendorRefused,
)
from klake.ingest.canary import Fact, Unverified, canaries
from klake.ingest.registry import open_vendor
from klake.ingest.vendor import Vendor
from klake.ingest.vendors.multimarkets import MultiMarkets, MultiMarketsOptions
from klake.jobs.desk import open_desk
from klake.jobs.sync import plan, sync
from klake.jobs.vendors import known, probe
from klake.sandbox.server import Sandbox
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry
from klake.schemas.symbol import Symbol

NOW = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)
AAPL, BTC = "AAPL.US", "BTCUSDT.P.QOS"


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(clock_start=NOW, rate=0, vendors=("multimarkets",)) as sandbox:
        yield sandbox


@pytest.fixture
def box(running: Sandbox) -> Sandbox:
    running.faults.reset()
    running.multimarkets.reset()
    running.journal.clear()
    running.clock.put(NOW)
    return running


def opened(box: Sandbox, folder: Path, **more: Any) -> MultiMarkets:
    table = Operator().table(box, folder) | more
    return open_vendor("mm", {k: v for k, v in table.items() if v is not None}, box.clock, run="r1")  # type: ignore[return-value]


@pytest.fixture
def vendor(box: Sandbox, tmp_path: Path) -> Iterator[MultiMarkets]:
    one = opened(box, tmp_path)
    yield one
    one.close()


def ask(
    vendor: Vendor, symbol: str = AAPL, freq: Freq = Freq.M5, end: datetime | None = None, count: int = 5
) -> Any:
    request = vendor.request((Entry(symbol, freq, end, count),))
    return vendor.parse(vendor.send(request))[0]


def endpoints(box: Sandbox) -> list[str]:
    return [row.endpoint for row in box.journal.rows()]


# Where it goes


@pytest.mark.parametrize(
    ("token", "symbol", "path"),
    [("yes", AAPL, "/quote_stock?token="), ("yes", BTC, "/quote?token="), (None, BTC, "/quote_guest")],
)
def test_the_address_follows_the_kind_of_product(
    box: Sandbox, tmp_path: Path, token: str | None, symbol: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    vendor = opened(box, tmp_path, **({} if token else {"token": None}))

    with caplog.at_level(logging.DEBUG, "websockets.client"):
        assert ask(vendor, symbol).bars.num_rows == 5

    assert f"/apiQuote{path}" in caplog.text
    vendor.close()


def test_a_guest_has_no_shares(box: Sandbox, tmp_path: Path) -> None:
    vendor = opened(box, tmp_path, token=None)

    assert vendor.spell(Symbol.parse(AAPL)) is None
    assert vendor.spell(Symbol.parse(BTC)) is not None
    assert vendor.sandbox  # on this machine, so it is no operator
    with pytest.raises(BadRequest):
        vendor.request((Entry(AAPL, Freq.D1, None, 5),))


def test_shares_and_all_else_take_turns_on_one_connection(box: Sandbox, vendor: MultiMarkets) -> None:
    for symbol in (AAPL, BTC, AAPL, "00700.HK", BTC):
        assert ask(vendor, symbol).bars.num_rows == 5

    assert len(box.multimarkets._sessions) <= 1


def test_with_two_connections_both_stay(box: Sandbox, tmp_path: Path) -> None:
    box.multimarkets.turn({"connections": 2})
    vendor = opened(box, tmp_path, connections=2)

    for symbol in (AAPL, BTC, AAPL, BTC):
        ask(vendor, symbol)

    assert {s.path for s in box.multimarkets._sessions} == {"/apiQuote/quote", "/apiQuote/quote_stock"}
    vendor.close()


def test_what_is_asked_is_what_the_protocol_wants(
    box: Sandbox, vendor: MultiMarkets, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[dict[str, Any]] = []
    heard, box.multimarkets._hear = (
        box.multimarkets._hear,
        lambda s, m: (sent.append(json.loads(m)), heard(s, m))[1],
    )  # type: ignore[method-assign]

    ask(vendor, AAPL, Freq.MO1, datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), 7)
    ask(vendor, AAPL)

    box.multimarkets._hear = heard  # type: ignore[method-assign]
    number, kind, mode = box.multimarkets.ids(AAPL)
    assert sent[0]["data"] == {
        "symbol_id": number, "trade_type": kind, "trade_mode": mode, "kline_type": 10, "kline_timestamp_end": 1767323045,
        "query_kline_num": 7,
    }  # fmt: skip
    assert sent[1]["data"]["kline_timestamp_end"] == 0
    assert (sent[0]["cmd_id"], sent[1]["seq_id"] > sent[0]["seq_id"] > 0) == (14012, True)
    assert sent[0]["ext"] != sent[1]["ext"] and len(sent[0]["ext"]) <= 64


# How it waits


@pytest.mark.parametrize(
    ("way", "wanted"), [("http_401", BadCredentials), ("ret_401", BadCredentials), ("close", VendorDown)]
)
def test_a_false_token_is_told_in_three_ways(box: Sandbox, tmp_path: Path, way: str, wanted: type) -> None:
    box.multimarkets.turn({"bad_token": way})
    vendor = opened(box, tmp_path, token="sandbox-no-such-token")

    with pytest.raises(wanted, match="token") as raised:
        ask(vendor)

    assert "sandbox-no-such-token" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("rule", "wanted"), [("http_504", VendorDown), ("http_429", RateLimited)]
)  # fmt: skip
def test_a_handshake_that_is_refused_is_classed_too(
    box: Sandbox, vendor: MultiMarkets, rule: str, wanted: type
) -> None:
    dial(box, rules=[{"kind": rule, "next": 1, "endpoint": "connect"}])

    with pytest.raises(wanted):
        ask(vendor)

    assert ask(vendor).bars.num_rows == 5


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9/apiQuote", "ftp://x", "nonsense", "{base}/nowhere"])
def test_an_address_that_is_none_says_so(box: Sandbox, tmp_path: Path, url: str) -> None:
    vendor = opened(box, tmp_path, url=url.format(base=box.urls["multimarkets"]))

    with pytest.raises((VendorDown, VendorRefused)) as raised:
        ask(vendor)

    assert Operator().secret(box) not in "".join(traceback.format_exception(raised.value))


def test_the_heartbeat_keeps_a_connection_that_waits(box: Sandbox, tmp_path: Path) -> None:
    box.multimarkets.turn({"silence_s": 0.6, "late_s": 1.5})
    dial(box, rules=[{"kind": "late", "next": 1, "endpoint": "14012"}])
    vendor = opened(box, tmp_path, heartbeat_s=0.1, timeout_s=10)

    assert ask(vendor).bars.num_rows == 5

    assert endpoints(box).count("14008") > 3
    vendor.close()


def test_without_a_heartbeat_the_connection_is_lost_and_opened_again(box: Sandbox, tmp_path: Path) -> None:
    box.multimarkets.turn({"silence_s": 0.3, "late_s": 1.0})
    dial(box, rules=[{"kind": "late", "next": 1, "endpoint": "14012"}])
    vendor = opened(box, tmp_path, heartbeat_s=100)
    with pytest.raises(VendorDown, match="no heartbeat"):
        ask(vendor)

    box.multimarkets.reset()

    assert ask(vendor).bars.num_rows == 5
    vendor.close()


@pytest.mark.parametrize("kind", ["twice", "late"])
def test_replies_that_come_twice_or_late_are_told_apart_by_number(
    box: Sandbox, vendor: MultiMarkets, kind: str
) -> None:
    dial(box, rules=[{"kind": kind, "next": 3, "endpoint": "14012"}])

    pages = [ask(vendor, symbol, freq) for symbol in (AAPL, "00700.HK") for freq in (Freq.M1, Freq.D1)]

    assert [p.bars["symbol"][0].as_py() for p in pages] == [AAPL, AAPL, "00700.HK", "00700.HK"]


def test_a_reply_that_came_too_late_is_not_the_next_one_s(box: Sandbox, tmp_path: Path) -> None:
    vendor = opened(box, tmp_path, timeout_s=0.4)
    ask(vendor)
    box.multimarkets.turn({"late_s": 0.8})
    dial(box, rules=[{"kind": "late", "next": 1, "endpoint": "14012"}])
    with pytest.raises(VendorDown, match="no answer within") as raised:
        ask(vendor)

    assert ask(vendor, "00700.HK").bars["symbol"][0].as_py() == "00700.HK"
    assert not raised.value.replied
    vendor.close()


@pytest.mark.parametrize("glued", [False, True])
def test_pushes_between_question_and_answer_do_no_harm(
    box: Sandbox, vendor: MultiMarkets, glued: bool
) -> None:
    box.multimarkets.turn({"pushes": True, "glued": glued})

    assert [ask(vendor).bars.num_rows for _ in range(3)] == [5, 5, 5]


def test_errors_come_packed_or_plain_named_or_not(box: Sandbox, vendor: MultiMarkets) -> None:
    for packed in (True, False):
        for named in (True, False):
            box.multimarkets.turn({"errors_packed": packed, "errors_named": named})
            dial(box, rules=[{"kind": "error", "text": "429 slow down", "next": 1, "endpoint": "14012"}])
            with pytest.raises(RateLimited, match="429 slow down"):
                ask(vendor)
            assert ask(vendor).bars.num_rows == 5


def test_asking_too_fast_is_told_then_cut_and_a_wait_mends_it(box: Sandbox, vendor: MultiMarkets) -> None:
    box.multimarkets.turn({"rate_s": 1.0})
    ask(vendor)

    for said in ("429", "429", "606"):
        with pytest.raises(RateLimited, match=said):
            ask(vendor)

    assert ask(vendor).bars.num_rows == 5  # another connection, another count


def test_threads_share_one_connection_and_get_their_own_answers(box: Sandbox, vendor: MultiMarkets) -> None:
    got: dict[str, set[str]] = {}

    def work(symbol: str) -> None:
        got[symbol] = {ask(vendor, symbol).bars["symbol"][0].as_py() for _ in range(5)}

    threads = [threading.Thread(target=work, args=(s,)) for s in (AAPL, "00700.HK", "600519.SH", BTC)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert got == {s: {s} for s in (AAPL, "00700.HK", "600519.SH", BTC)}


# Shares, and whether their prices are as traded


def test_shares_of_unknown_adjustment_are_not_asked_for_as_bars(box: Sandbox, tmp_path: Path) -> None:
    vendor = opened(box, tmp_path, capability={})

    with pytest.raises(BadRequest, match="adjusts") as raised:
        vendor.request((Entry(AAPL, Freq.D1, None, 5),))

    assert "复权" in raised.value.zh
    for symbol in (BTC,):
        assert vendor.request((Entry(symbol, Freq.D1, None, 5),)).entries
    assert vendor.request((Entry(AAPL, Freq.D1, None, 5, "unknown"),)).entries
    with pytest.raises(BadRequest):  # an index has no splits, but this one is not mapped
        vendor.request((Entry("000300.SH", Freq.D1, None, 5),))


def configured(box: Sandbox, folder: Path, symbols: list[str], extra: str = "") -> Any:
    table = Operator().table(box, folder)
    lines = "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items() if not isinstance(v, dict))
    job = (
        f'[jobs.daily]\nvendor = "mm"\nsymbols = {json.dumps(symbols)}\nfreq = ["1d"]\nstart = "2026-11-02"\n'
    )
    text = f'[lake]\npath = "lake"\n[sandbox]\ncontrol = "{box.control_url}"\n[vendors.mm]\n{lines}{extra}\n{job}'
    (folder / "klake.toml").write_text(text, encoding="utf-8")
    return open_desk(folder / "klake.toml")


def test_a_sync_stores_them_only_after_a_probe_has_seen_splits_fall(box: Sandbox, tmp_path: Path) -> None:
    box.multimarkets.turn({"end": "inclusive"})
    desk = configured(box, tmp_path, [AAPL, "00700.HK", BTC])
    lines = [f"{s},{','.join(map(str, box.multimarkets.ids(s)))}" for s in (AAPL, "00700.HK", BTC)]
    (tmp_path / "products.csv").write_text(
        "\n".join(["symbol,symbol_id,trade_type,trade_mode", *lines]), encoding="utf-8"
    )
    before = sync(desk, "daily", desk.job("daily"))

    learned = probe(desk, "mm")
    after = sync(desk, "daily", desk.job("daily"))

    assert before.exit_code == 1 and {p.symbol for p in before.parked} == {AAPL, "00700.HK"}
    assert before.written.new > 0
    assert learned.requests <= 5
    assert [(a.field, a.value) for a in learned.answers if a.question == "M13"][-1] == ("adjusts", "none"), (
        learned
    )
    assert after.exit_code == 0, after
    assert (after.stored, after.missing) == (after.expected, 0)
    (told,) = known(desk)
    assert {"probe M4", "probe M5", "probe M13"} <= {fact.field for fact in told.facts}


def test_adjusted_prices_are_found_out_and_stay_out(box: Sandbox, tmp_path: Path) -> None:
    box.multimarkets.turn({"adjusted": True})
    desk = configured(box, tmp_path, [AAPL])

    learned = probe(desk, "mm")

    (told,) = [a for a in learned.answers if a.question == "M13"]
    assert told.text == "prices of shares are adjusted" and not told.field
    assert sync(desk, "daily", desk.job("daily")).parked


@pytest.mark.parametrize("end", ["inclusive", "exclusive", "ignored", "ignored_for_stocks"])
def test_a_probe_finds_out_what_the_end_means(
    box: Sandbox, tmp_path: Path, vendor: MultiMarkets, end: str
) -> None:
    box.multimarkets.turn({"end": end})

    told = {a.question: a.value for step in vendor.probe((Symbol.parse(AAPL),)) for a in step}

    wanted = {"inclusive": ("", "true"), "exclusive": ("", "false")}.get(end, ("HK SH SZ US", None))
    assert (told["M5"], told.get("M4")) == wanted


def test_an_end_that_is_ignored_is_noticed_and_never_loops(box: Sandbox, tmp_path: Path) -> None:
    box.multimarkets.turn({"end": "ignored", "most": 10})
    desk = configured(box, tmp_path, [BTC])

    report = sync(desk, "daily", desk.job("daily"))

    assert report.requests_sent <= 4
    assert report.exit_code == 1 and "no progress" in report.parked[0].error


def test_where_shares_alone_ignore_the_end_all_else_is_still_paged_back(box: Sandbox, tmp_path: Path) -> None:
    box.multimarkets.turn({"end": "ignored_for_stocks", "most": 10})
    desk = configured(
        box, tmp_path, [BTC, AAPL], '[vendors.mm.capability]\nadjusts = ["none"]\npage_limit = 10\n'
    )
    first = sync(desk, "daily", desk.job("daily"))
    assert {p.symbol for p in first.parked} == {AAPL}
    box.clock.advance(7 * 3600)

    second = sync(desk, "daily", desk.job("daily"))

    assert not second.parked and second.exit_code == 0, second
    assert second.empty == {"beyond the vendor's horizon": 5}  # what lies behind the newest ten
    with klake.open(str(tmp_path / "lake")) as lake:
        assert [lake.bars(s, "1d", vendor="mm").pl().height for s in (BTC, AAPL)] == [20, 10]


# Labels


@pytest.mark.parametrize(
    ("symbol", "freq"), [(AAPL, Freq.M1), ("600519.SH", Freq.M5), ("00700.HK", Freq.M30), (BTC, Freq.M15)]
)
def test_bars_that_are_labelled_with_their_end_are_refused_until_it_is_said(
    box: Sandbox, tmp_path: Path, vendor: MultiMarkets, symbol: str, freq: Freq
) -> None:
    box.multimarkets.turn({"label": "end"})
    box.clock.put(NOW + timedelta(minutes=1))
    refused = ask(vendor, symbol, freq, count=480)
    wide = Operator().table(box, tmp_path)["capability"] | {
        "label": {f.value: "end" for f in (Freq.M1, Freq.M5, Freq.M15, Freq.M30)}
    }
    told = opened(box, tmp_path, capability=wide)

    got = ask(told, symbol, freq, count=480)

    assert refused.outcome == "refused" and f'label = {{ "{freq}" = "end" }}' in refused.reason
    assert got.outcome == "bars" and not got.rejects
    truth = box.market.truth(
        symbol, freq, NOW - timedelta(days=90), NOW + timedelta(minutes=1), NOW + timedelta(minutes=1)
    )
    assert got.bars["ts"].to_pylist() == truth["ts"].to_pylist()[-480:]
    told.close()


def test_a_label_that_is_none_is_refused_in_the_config(box: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label"):
        opened(box, tmp_path, capability={"label": {"1m": "middle"}})


# Units


def test_rolling_pushes_confirm_the_unit_of_volume(box: Sandbox, vendor: MultiMarkets) -> None:
    told = list(
        canaries(
            vendor, [Symbol.parse(s) for s in ("600519.SH", AAPL, "00700.HK")], Nothing(), lambda call: call()
        )
    )

    assert {f.name for f in told} == {"volume SH.stock", "volume US.stock", "volume HK.stock"}
    assert all(isinstance(f, Fact) and f.value.startswith("1 (") for f in told)
    assert endpoints(box).count("14016") == 1
    assert ask(vendor).bars.num_rows == 5


def test_lots_are_not_taken_for_shares(box: Sandbox, vendor: MultiMarkets) -> None:
    box.multimarkets.turn({"volume": "lots"})

    with pytest.raises(UnitMismatch, match=r'volume_factor = \{ "SH.stock" = 100 \}'):
        list(canaries(vendor, [Symbol.parse("600519.SH")], Nothing(), lambda call: call()))


def test_without_pushes_the_unit_is_unverified_and_says_so(
    box: Sandbox, vendor: MultiMarkets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klake.ingest.vendors.multimarkets._ROLLING_S", 0.2)
    box.multimarkets.turn({"rolling": False})

    (told,) = canaries(vendor, [Symbol.parse("600519.SH")], Nothing(), lambda call: call())

    assert isinstance(told, Unverified) and "no snapshot" in told.why


# Batches


def test_where_the_operator_allows_batches_several_series_ride_in_one_request(
    box: Sandbox, tmp_path: Path
) -> None:
    box.multimarkets.turn({"batch": "on"})
    desk = configured(
        box,
        tmp_path,
        [AAPL, "00700.HK", "600519.SH", BTC],
        'products = 3\n[vendors.mm.capability]\nadjusts = ["none"]\n',
    )
    job = desk.job("daily").model_copy(update={"freq": (Freq.D1, Freq.H1)})

    report = sync(desk, "odd", job)

    assert report.exit_code == 0, report
    sent = [e for e in endpoints(box) if e in ("14012", "14014")]
    assert "14014" in sent and len(sent) < 8  # never two freqs of one symbol, never shares beside all else
    with klake.open(str(tmp_path / "lake")) as lake:
        for symbol in (AAPL, BTC):
            truth = box.market.truth(symbol, Freq.D1, date(2026, 11, 2), NOW.date(), box.clock.now())
            assert (
                lake.bars(symbol, "1d", vendor="mm").pl()["close"].to_list()[:-1]
                == truth["close"].to_pylist()[:-1]
            )


def test_a_batch_that_is_refused_is_asked_one_by_one(box: Sandbox, tmp_path: Path) -> None:
    desk = configured(
        box, tmp_path, [AAPL, "00700.HK"], 'products = 2\n[vendors.mm.capability]\nadjusts = ["none"]\n'
    )

    report = sync(desk, "daily", desk.job("daily"))

    assert (report.exit_code, report.missing) == (0, 0), report


def test_a_batch_of_the_two_newest_bars_is_not_taken_for_a_history(box: Sandbox, tmp_path: Path) -> None:
    box.multimarkets.turn({"batch": "newest", "end": "ignored"})
    desk = configured(
        box, tmp_path, [AAPL, "00700.HK"], 'products = 2\n[vendors.mm.capability]\nadjusts = ["none"]\n'
    )

    report = sync(desk, "daily", desk.job("daily"))

    assert report.exit_code == 1 and report.missing > 20
    assert {p.symbol for p in report.parked} == {AAPL, "00700.HK"}


# Products


def test_the_product_api_tells_what_is_what(box: Sandbox, tmp_path: Path) -> None:
    api = {"products_file": None, "products_url": box.urls["multimarkets_products"], "company_id": "c1"}
    vendor = opened(box, tmp_path, **api)

    listed = {str(one.symbol): one for one in vendor.product_list()}

    number, _, mode = box.multimarkets.ids(BTC)
    assert (
        listed["BTCUSDT.P.MULTIMARKETS"].spelling == f"{number}:1:{mode}"
    )  # the cross contract, not the isolated one
    assert "BTCUSDT.MULTIMARKETS" not in listed  # it has no dealMode
    assert {"600519.SH", "00700.HK", "AAPL.US", "BRK.B.US"} <= set(listed)
    assert len(listed) == len(box.market.instruments)
    assert [str(one.symbol) for one in vendor.find("brk")] == ["BRK.B.US"]
    assert [one.spelling for one in vendor.instruments([Symbol.parse(AAPL)])] == [
        vendor.spell(Symbol.parse(AAPL))
    ]
    assert endpoints(box).count("/openapi-c/global/config.app.AppSymbolDubboService.getSymbolBaseList") == 1
    assert ask(vendor, "BTCUSDT.P.MULTIMARKETS").bars.num_rows == 5
    vendor.close()


def test_a_product_api_that_refuses_says_why(box: Sandbox, tmp_path: Path) -> None:
    vendor = opened(box, tmp_path, products_file=None, products_url=box.urls["multimarkets_products"])

    with pytest.raises(BadCredentials, match="00012003"):
        vendor.spell(Symbol.parse(AAPL))


def test_another_trade_type_of_one_id_is_another_series(box: Sandbox, tmp_path: Path) -> None:
    number, _, mode = box.multimarkets.ids(BTC)
    lines = [f"BTCUSDT.P.QOS,{number},1,{mode}", f"BTCUSDT.P.MULTIMARKETS,{number},2,{mode}"]
    (tmp_path / "two.csv").write_text(
        "\n".join(["symbol,symbol_id,trade_type,trade_mode", *lines]), encoding="utf-8"
    )
    vendor = opened(box, tmp_path, products_file=str(tmp_path / "two.csv"))
    end = NOW - timedelta(days=1)

    cross, isolated = ask(vendor, BTC, end=end).bars, ask(vendor, "BTCUSDT.P.MULTIMARKETS", end=end).bars

    assert all(b > a for a, b in zip(cross["close"].to_pylist(), isolated["close"].to_pylist(), strict=True))
    vendor.close()


@pytest.mark.parametrize(
    "table", [{}, {"url": ""}, {"url": "wss://x", "timeout_s": 0}, {"url": "wss://x", "kay": 1}]
)
def test_options_that_make_no_sense_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValidationError)):
        open_vendor("mm", {"kind": "multimarkets", **table}, ManualClock(NOW))


def test_without_any_map_the_table_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match="products_file"):
        open_vendor("mm", {"kind": "multimarkets", "url": "wss://x", "token": "t"}, ManualClock(NOW))
    assert MultiMarketsOptions.model_fields["connections"].default == 1


def test_currencies_have_minutes_and_no_days_yet(tmp_path: Path) -> None:
    (tmp_path / "fx.csv").write_text("symbol,symbol_id,trade_type\nEURUSD.FX,5,1\n", encoding="utf-8")
    table = {"kind": "multimarkets", "url": "wss://x", "token": "t", "products_file": "fx.csv"}
    vendor = open_vendor("mm", table, ManualClock(NOW), where=str(tmp_path / "klake.toml"))

    assert vendor.request((Entry("EURUSD.FX", Freq.M1, None, 5),)).endpoint == "14012 5:1:0"
    with pytest.raises(BadRequest, match="where a day of"):
        vendor.request((Entry("EURUSD.FX", Freq.D1, None, 5),))


def test_a_plan_asks_nobody(box: Sandbox, tmp_path: Path) -> None:
    desk = configured(box, tmp_path, [BTC])

    said = plan(desk, "daily", desk.job("daily"))

    assert said.requests == 1 and not endpoints(box)
    assert date(2026, 11, 2) == said.wants[0].sessions.start
    assert set(SYMBOLS) >= {BTC}


def test_a_message_above_the_cap_costs_the_page_and_not_the_session(
    box: Sandbox, vendor: MultiMarkets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klake.ingest.vendors.multimarkets_frames.LARGEST", 2_000)
    box.multimarkets.turn({"packing": "text"})

    with pytest.raises(BadPage, match="larger than 2000 bytes"):
        ask(vendor, count=400)

    assert ask(vendor, count=3).bars.num_rows == 3
