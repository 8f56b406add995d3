"""The QOS stand-in, driven by the vendor's own SDK (qos-api 0.2.1, unmodified) and by bare HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from qos_api import QOSClient
from qos_api.exceptions import QOSAPIError

from klake.sandbox.grid import grid
from klake.sandbox.journal import account_of
from klake.sandbox.server import Sandbox
from klake.schemas.freq import Freq

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
FAR = 4_000_000_000


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(instruments=45) as sandbox:
        yield sandbox


@pytest.fixture
def box(running: Sandbox) -> Sandbox:
    httpx.post(f"{running.control_url}/reset", trust_env=False)
    running.clock.put(NOW)
    return running


@pytest.fixture
def sdk(box: Sandbox) -> Iterator[QOSClient]:
    client = QOSClient(box.secrets["qos"]["default"])
    client.http.base_url = box.qos_url
    client.http.session.trust_env = False
    yield client
    client.http.session.close()


def dial(box: Sandbox, **body: Any) -> None:
    with httpx.Client(verify=False, trust_env=False) as client:
        client.post(f"{box.control_url}/faults", json=body).raise_for_status()


def post(box: Sandbox, path: str, body: Any, key: str = "default", timeout_s: float = 5.0) -> httpx.Response:
    """One bare request: a connection of its own, so that a broken one harms nobody."""
    params = {"key": box.secrets["qos"][key]}
    with httpx.Client(verify=False, trust_env=False, timeout=timeout_s) as client:
        return client.post(f"{box.qos_url}{path}", params=params, json=body)


def klines(
    box: Sandbox, *entries: dict[str, Any], key: str = "default", path: str = "/history"
) -> dict[str, Any]:
    reply = post(box, path, {"kline_reqs": list(entries)}, key).json()
    assert reply["msg"] == "OK", reply
    return {item["c"]: item["k"] for item in reply["data"]}


def entry(code: str, kt: int = 1001, co: int = 5, **more: Any) -> dict[str, Any]:
    return {"c": code, "kt": kt, "co": co, "a": 0, **more}


def at(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp())  # type: ignore[arg-type, misc]


def test_the_sdk_reads_klines_of_every_market_and_gets_what_the_truth_says(
    box: Sandbox, sdk: QOSClient
) -> None:
    codes = ["US:AAPL,BRK.B", "HK:700", "SH:600519", "SZ:000001", "CF:BTCUSDT"]

    bars = sdk.get_kline(codes, 1001, 3)

    lots = {"SH:600519": 100, "SZ:000001": 100}
    names = {"US:AAPL": "AAPL.US", "US:BRK.B": "BRK.B.US", "HK:700": "00700.HK", "SH:600519": "600519.SH",
             "SZ:000001": "000001.SZ", "CF:BTCUSDT": "BTCUSDT.P.QOS"}  # fmt: skip
    for code, symbol in names.items():
        got = [
            [float(x) for x in (b.o, b.h, b.l, b.cl)] + [float(b.v) * lots.get(code, 1)]
            for b in bars
            if b.c == code
        ]
        truth = box.market.truth(
            symbol, Freq.D1, NOW.date() - timedelta(days=9), NOW.date(), NOW
        ).to_pylist()[-3:]
        assert got == [[t[n] for n in ("open", "high", "low", "close", "volume")] for t in truth], code


def test_the_sdk_pages_back_with_an_end(sdk: QOSClient) -> None:
    first = sdk.get_history_kline(["HK:700"], 1001, FAR, 4)

    second = sdk.get_history_kline(["HK:700"], 1001, first[0].ts, 3)

    assert second[-1] == first[0]
    assert [b.ts for b in second] == sorted({b.ts for b in second})


def test_the_sdk_reads_instruments_snapshots_books_and_trades(box: Sandbox, sdk: QOSClient) -> None:
    codes = ["SH:600519", "US:AAPL", "CF:BTCUSDT", "SZ:000333"]

    info = {i.c: i for i in sdk.get_instrument_info(codes)}
    quotes = {q.c: q for q in sdk.get_snapshot(codes)}
    books = {b.c: b for b in sdk.get_depth(codes)}
    trades = sdk.get_trades(["US:AAPL"], 60)

    assert (
        info["SH:600519"].nc == "贵州茅台" and info["SH:600519"].ls == 100 and info["CF:BTCUSDT"].nc is None
    )
    assert quotes["CF:BTCUSDT"].yp is None and quotes["US:AAPL"].tt == 1 and quotes["US:AAPL"].aq is not None
    assert (quotes["SZ:000333"].s, quotes["SH:600519"].s) == (1, 0)
    day = box.market.truth("600519.SH", Freq.D1, NOW.date(), NOW.date(), NOW).to_pylist()[0]
    assert (
        float(quotes["SH:600519"].t) == day["amount"] and float(quotes["SH:600519"].v) * 100 == day["volume"]
    )
    assert (len(books["SH:600519"].b), len(books["US:AAPL"].a)) == (5, 1)
    assert float(books["US:AAPL"].b[0].p) < float(quotes["US:AAPL"].lp) < float(books["US:AAPL"].a[0].p)
    assert len(trades) == 50 and {t.d for t in trades} <= {0, 1, 2}


def test_an_expired_key_is_refused_in_the_words_of_the_vendor(box: Sandbox, sdk: QOSClient) -> None:
    sdk.http.api_key = box.secrets["qos"]["expired"]

    with pytest.raises(QOSAPIError, match=r"Key expired\."):
        sdk.get_kline(["US:AAPL"], 1001, 1)


def test_types_are_strings_for_numbers_and_integers_for_times(box: Sandbox) -> None:
    bar = klines(box, entry("SH:600519", co=1))["SH:600519"][0]

    assert {name: type(value) for name, value in bar.items()} == {
        **dict.fromkeys(("c", "o", "cl", "h", "l", "v"), str), "ts": int, "kt": int,
    }  # fmt: skip
    assert list(bar) == ["c", "o", "cl", "h", "l", "v", "ts", "kt"]


def test_labels_are_those_of_the_vendors_own_samples(box: Sandbox) -> None:
    day = 86_400
    wanted = {
        ("SH:600519", 1001): 1741881600, ("HK:700", 1001): 1741881600, ("US:AAPL", 1001): 1741924800,
        ("CF:BTCUSDT", 1001): 1741910400, ("SH:600519", 2001): 1704038400,
        ("US:BRK.B", 1001): 1741237200, ("US:BRK.B", 1007): 1741579200 - 7 * day + 3600,
    }  # fmt: skip

    for (code, kt), label in wanted.items():
        bars = klines(box, entry(code, kt, 1, e=label), key="deep")
        assert [b["ts"] for b in bars[code]] == [label], (code, kt)
        box.clock.advance(60)


def test_the_closing_auction_of_new_york_is_a_minute_of_its_own(box: Sandbox) -> None:
    close = at(2026, 11, 19, 21)

    bars = klines(box, entry("US:AAPL", 1, 3, e=close))["US:AAPL"]
    fives = klines(box, entry("US:AAPL", 5, 2, e=close))["US:AAPL"]

    assert [b["ts"] for b in bars] == [close - 120, close - 60, close]
    assert bars[-1]["o"] == bars[-1]["h"] == bars[-1]["l"] == bars[-1]["cl"]
    folded = box.market.truth("AAPL.US", Freq.M1, NOW - timedelta(hours=11, minutes=1), NOW, NOW).to_pylist()[
        -1
    ]
    assert folded["volume"] == int(bars[-1]["v"]) + int(bars[-2]["v"]) and folded["close"] == float(
        bars[-1]["cl"]
    )
    assert [b["ts"] for b in fives] == [close - 300, close]


def test_padded_and_joined_codes_are_read_and_answered_unpadded(box: Sandbox) -> None:
    found = klines(box, entry("HK:00700,00005", co=1), entry("SZ:000001", co=1))

    assert set(found) == {"HK:700", "HK:5", "SZ:000001"}


def test_items_come_shuffled_but_the_same_request_always_alike(box: Sandbox) -> None:
    codes = ["US:AAPL", "US:MSFT", "US:TSLA", "US:SPY", "HK:700", "HK:5", "SH:600519", "SH:600000"]
    body = {"kline_reqs": [entry(code, co=1) for code in codes]}

    orders = [[item["c"] for item in post(box, "/kline", body).json()["data"]] for _ in range(2)]

    assert orders[0] == orders[1] != codes
    assert sorted(orders[0]) == sorted(codes)


def test_entries_keep_their_own_type_count_and_end(box: Sandbox) -> None:
    found = klines(box, entry("US:AAPL", 1007, 4), entry("HK:700", 1, 7, e=at(2026, 11, 18, 3)))

    assert (len(found["US:AAPL"]), len(found["HK:700"])) == (4, 7)
    assert found["HK:700"][-1]["ts"] == at(2026, 11, 18, 3)


@pytest.mark.parametrize("kt", [1, 5, 15, 30, 60, 120, 240, 1001, 1007, 1030, 2001])
def test_every_type_comes_ascending_and_at_most_a_thousand_of_it(box: Sandbox, kt: int) -> None:
    bars = klines(box, entry("US:AAPL", kt, 5_000), key="deep")["US:AAPL"]

    assert [b["ts"] for b in bars] == sorted({b["ts"] for b in bars})
    assert 20 < len(bars) <= 1000 and {b["kt"] for b in bars} == {kt}


def test_unknown_codes_are_left_out_or_empty_as_the_dial_says(box: Sandbox) -> None:
    left_out = klines(box, entry("US:NOPE"), entry("US:AAPL", co=1), entry("nonsense"))
    dial(box, dials={"unknown_codes": "empty"})
    empty = klines(box, entry("US:NOPE"), entry("US:AAPL", co=1))

    assert set(left_out) == {"US:AAPL"}
    assert empty["US:NOPE"] == [] and empty["US:AAPL"]


def test_the_key_may_ride_in_a_header_and_only_post_is_served(box: Sandbox) -> None:
    key, body = {"key": box.secrets["qos"]["default"]}, {"kline_reqs": [entry("US:AAPL", co=1)]}
    with httpx.Client(base_url=box.qos_url, trust_env=False) as client:
        header = client.post("/kline", headers=key, json=body).json()["msg"]
        got = client.get("/kline", params=key).json()["msg"]
        none = client.post("/kline", json=body).json()["msg"]
        false = client.post("/kline", params={"key": "sandbox-no"}, json=body).json()["msg"]

    assert (header, got, none, false) == ("OK", "Method not allowed.", "Key required.", "Invalid key.")


@pytest.mark.parametrize(
    "body", [{}, {"kline_reqs": 7}, {"kline_reqs": [{"kt": 1}]}, {"kline_reqs": [entry("US:AAPL", 7)]}, [1]]
)
def test_a_body_without_sense_gets_a_message_and_no_data(box: Sandbox, body: Any) -> None:
    reply = post(box, "/kline", body).json()

    assert reply == {"msg": "Invalid params."}


def test_the_calendar_reaches_three_months_and_marks_half_days(box: Sandbox) -> None:
    data = post(box, "/market-calendar", {"market": ["US", "SH", "XX"]}).json()["data"]

    assert set(data) == {"US", "SH"}
    assert data["US"][0] == "20261120,F" and "20261127,H" in data["US"]
    assert "20261126,F" not in data["US"] and data["US"][-1][:8] <= "20270220"


def test_the_product_list_is_a_popular_part_with_padded_codes(box: Sandbox) -> None:
    data = post(box, "/product-list", {"market": ["HK", "US"]}).json()["data"]

    assert {"code": "HK:00700", "name": "腾讯控股"} in data["HK"]
    assert "US:TWTR" not in [p["code"] for p in data["US"]]


def test_an_end_is_inclusive_exclusive_or_ignored_by_key(box: Sandbox) -> None:
    end = at(2026, 11, 18, 3)
    dial(box, keys={"deep": {"end_mode": "exclusive"}})

    inclusive, exclusive, ignored = (
        klines(box, entry("HK:700", 1, 2, e=end), key=key)["HK:700"][-1]["ts"]
        for key in ("default", "deep", "recent")
    )

    assert (inclusive, exclusive) == (end, end - 60)
    assert ignored == at(2026, 11, 20, 7, 59)


def test_the_bar_that_holds_the_end_comes_whole(box: Sandbox) -> None:
    noon, evening = at(2026, 11, 18, 3, 30), at(2026, 11, 18, 12)

    assert klines(box, entry("HK:700", 1001, 1, e=noon)) == klines(box, entry("HK:700", 1001, 1, e=evening))


def test_a_future_end_means_now(box: Sandbox) -> None:
    assert klines(box, entry("HK:700", 1, 3, e=FAR)) == klines(box, entry("HK:700", 1, 3), path="/kline")


@pytest.mark.parametrize(("code", "kt"), [("US:AAPL", 1), ("HK:700", 1001), ("CF:BTCUSDT", 15)])
def test_a_plain_key_sees_a_thousand_bars_and_a_deep_one_all(box: Sandbox, code: str, kt: int) -> None:
    newest = klines(box, entry(code, kt, 1000))[code]

    at_horizon = klines(box, entry(code, kt, 1000, e=newest[0]["ts"]))[code]
    beyond = klines(box, entry(code, kt, 1000, e=newest[0]["ts"] - 1))[code]
    deep = klines(box, entry(code, kt, 1000, e=newest[0]["ts"]), key="deep")[code]

    assert (len(newest), at_horizon, beyond) == (1000, newest[:1], [])
    assert len(deep) == 1000 and deep[-1] == newest[0]


def test_paging_back_with_a_deep_key_meets_every_minute_once(box: Sandbox) -> None:
    dial(box, dials={"limits": False})
    pages, end = [], FAR
    for _ in range(6):
        page = klines(box, entry("US:NAN", 1, 50, e=end), key="deep")["US:NAN"]
        pages = [b["ts"] for b in page[: len(page) - bool(pages)]] + pages
        end = page[0]["ts"]

    whole = klines(box, entry("US:NAN", 1, len(pages)), key="deep")["US:NAN"]
    assert pages == [b["ts"] for b in whole] and len(pages) == 50 + 5 * 49


def test_a_later_action_changes_old_adjusted_pages_but_not_raw_ones(box: Sandbox) -> None:
    ex = next(d for d in box.market.instrument("600519.SH").actions if d.ex.year == 2026).ex
    end, soon = (
        at(2026, 3, 10, 20),
        datetime(ex.year, ex.month, ex.day, 7, 30, tzinfo=UTC) + timedelta(days=4),
    )

    def seen(adjust: int, when: datetime) -> list[Any]:
        box.clock.put(when)
        return klines(box, {**entry("SH:600519", e=end), "a": adjust})["SH:600519"]

    box.clock.put(soon - timedelta(days=40))
    raw, adjusted = ([seen(a, soon - timedelta(days=d)) for d in (40, 0)] for a in (0, 1))

    assert raw[0] == raw[1]
    ratios = {round(float(new["cl"]) / float(old["cl"]), 4) for old, new in zip(*adjusted, strict=True)}
    assert len(ratios) == 1 and 0.97 < ratios.pop() < 0.99
    assert [b["v"] for b in adjusted[1]] == [b["v"] for b in raw[1]]


def test_the_current_bar_moves_with_the_clock(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 2, 30, 20, tzinfo=UTC))
    before = klines(box, entry("SH:600519", 1001, 1), entry("SH:600000", 1, 1), path="/kline")
    box.clock.advance(30)

    after = klines(box, entry("SH:600519", 1001, 1), entry("SH:600000", 1, 1), path="/kline")

    for code in ("SH:600519", "SH:600000"):
        (old,), (new,) = before[code], after[code]
        assert old["ts"] == new["ts"] and int(old["v"]) < int(new["v"])


def test_the_eleventh_request_of_a_minute_is_refused_until_the_window_has_moved(box: Sandbox) -> None:
    body = {"kline_reqs": [entry("US:AAPL", co=1)]}

    def ask() -> str:
        return str(post(box, "/kline", body).json()["msg"])

    first = []
    for _ in range(10):
        first.append(ask())
        box.clock.advance(1)
    refused = ask()
    box.clock.advance(49.999)
    still = ask()
    box.clock.advance(0.001)
    again, full = ask(), ask()

    assert first == ["OK"] * 10
    assert refused == still == full == "Request frequency exceeded." and again == "OK"


def test_windows_hold_at_once_each_key_has_its_own_and_the_refusal_is_a_dial(box: Sandbox) -> None:
    dial(
        box,
        keys={"default": {"quotas": [[4, 30], [2, 1]]}},
        dials={"limit_status": 429, "limit_text": "请求过于频繁"},
    )
    body = {"kline_reqs": [entry("US:AAPL", co=1)]}

    replies = [post(box, "/kline", body) for _ in range(3)]
    box.clock.advance(1)
    replies += [post(box, "/kline", body) for _ in range(2)]
    box.clock.advance(1)
    replies.append(post(box, "/kline", body))

    assert [r.status_code for r in replies] == [200, 200, 429, 200, 200, 429]
    assert replies[-1].json() == {"msg": "请求过于频繁"}
    assert post(box, "/kline", body, "deep").status_code == 200


def test_eleven_products_are_too_many_and_the_dial_lifts_every_limit(box: Sandbox) -> None:
    codes = [code for code in ("SH:600519,600000,601398,601318,600036", "US:AAPL,MSFT,TSLA,SPY,CON,NAN")]
    body = {"kline_reqs": [entry(code, co=1) for code in codes]}

    refused = post(box, "/kline", body).json()
    dial(box, dials={"limits": False})
    served = [post(box, "/kline", body).json() for _ in range(12)]

    assert refused == {"msg": "Product count exceeded."}
    assert {reply["msg"] for reply in served} == {"OK"} and len(served[0]["data"]) == 11


def test_the_log_names_endpoint_account_and_outcome_but_never_the_key(box: Sandbox) -> None:
    klines(box, entry("US:AAPL,TSLA", co=1), entry("HK:700", co=1))
    box.clock.advance(1.5)
    post(box, "/kline", {}, "expired")

    text = httpx.get(f"{box.control_url}/requests", trust_env=False).text
    rows = httpx.get(f"{box.control_url}/requests", trust_env=False).json()

    assert [(r["vendor"], r["endpoint"], r["entries"], r["status"], r["msg"]) for r in rows] == [
        ("qos", "/history", 3, 200, "OK"), ("qos", "/kline", 0, 200, "Key expired."),
    ]  # fmt: skip
    assert [r["arrived"] for r in rows] == ["2026-11-20T08:00:00.000000Z", "2026-11-20T08:00:01.500000Z"]
    assert rows[0]["account"] == account_of("qos", box.secrets["qos"]["default"])
    assert not [key for key in box.secrets["qos"].values() if key in text]


def fault(box: Sandbox, kind: str, **more: Any) -> None:
    dial(box, rules=[{"kind": kind, "next": 1, **more}])


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("http_504", QOSAPIError), ("reset", QOSAPIError), ("cut", QOSAPIError), ("corrupt", Exception),
        ("error", QOSAPIError), ("http_429", QOSAPIError), ("no_data", KeyError), ("null_data", TypeError),
        ("no_k", KeyError), ("null_k", TypeError), ("numeric_price", ValidationError),
    ],
)  # fmt: skip
def test_a_fault_breaks_the_sdk_as_the_real_one_did_and_only_once(
    box: Sandbox, sdk: QOSClient, kind: str, error: type[Exception]
) -> None:
    fault(box, kind)

    with pytest.raises(error):
        sdk.get_kline(["US:AAPL", "HK:700"], 1001, 2)

    assert len(sdk.get_kline(["US:AAPL", "HK:700"], 1001, 2)) == 4


def test_a_status_500_with_ok_inside_is_taken_for_success_by_the_sdk(box: Sandbox, sdk: QOSClient) -> None:
    fault(box, "http_500_ok")

    assert len(sdk.get_kline(["US:AAPL"], 1001, 2)) == 2
    assert box.journal.rows()[-1].status == 500


def test_bars_come_twice_backwards_or_not_at_all(box: Sandbox) -> None:
    good = klines(box, entry("US:AAPL"))["US:AAPL"]

    seen = {}
    for kind in ("duplicate_bar", "descending", "empty_page"):
        fault(box, kind)
        seen[kind] = klines(box, entry("US:AAPL"))["US:AAPL"]

    assert seen == {"duplicate_bar": good[:1] + good, "descending": good[::-1], "empty_page": []}


def test_a_wrong_page_holds_the_neighbours_bars_under_the_right_code(box: Sandbox) -> None:
    right = klines(box, entry("SH:600519"), entry("SH:600000"), entry("US:AAPL"))
    fault(box, "wrong_page", codes=["SH:600519"])

    wrong = klines(box, entry("SH:600519"), entry("SH:600000"), entry("US:AAPL"))

    assert [{**b, "c": ""} for b in wrong["SH:600519"]] == [{**b, "c": ""} for b in right["SH:600000"]]
    assert wrong["SH:600519"][0]["c"] == "SH:600519" and wrong["US:AAPL"] == right["US:AAPL"]


def test_an_item_can_go_missing(box: Sandbox) -> None:
    fault(box, "missing_item", codes=["HK:700"])

    assert set(klines(box, entry("HK:700"), entry("US:AAPL"))) == {"US:AAPL"}


def test_a_slow_reply_outlasts_the_patience_of_its_caller(box: Sandbox) -> None:
    dial(box, rules=[{"kind": "slow", "next": 1}], dials={"slow_s": 0.4})

    with pytest.raises(httpx.ReadTimeout):
        post(box, "/kline", {"kline_reqs": [entry("US:AAPL")]}, timeout_s=0.1)


def test_a_reset_and_a_cut_reply_look_so_on_the_wire(box: Sandbox) -> None:
    body = {"kline_reqs": [entry("US:AAPL", co=900)]}
    fault(box, "reset")
    with pytest.raises(httpx.ReadError):
        post(box, "/kline", body)

    fault(box, "cut")
    with pytest.raises(httpx.RemoteProtocolError, match="complete"):
        post(box, "/kline", body)

    fault(box, "corrupt")
    with pytest.raises(ValueError):
        post(box, "/kline", body).json()


def test_latency_is_sandbox_time(box: Sandbox) -> None:
    dial(box, dials={"latency_s": 0.25})

    klines(box, entry("US:AAPL"))

    assert box.clock.now() == NOW + timedelta(seconds=0.25)
    assert box.journal.rows()[-1].arrived == "2026-11-20T08:00:00.000000Z"


def test_faults_by_chance_strike_the_same_requests_after_every_reset(box: Sandbox) -> None:
    def struck() -> list[int]:
        httpx.post(f"{box.control_url}/reset", trust_env=False)
        dial(
            box,
            rules=[{"kind": "http_504", "probability": 0.4, "endpoint": "/kline"}],
            dials={"limits": False},
        )
        replies = [
            post(box, path, {"kline_reqs": [entry("US:AAPL", co=1)]}) for path in ["/kline", "/history"] * 12
        ]
        return [place for place, reply in enumerate(replies) if reply.status_code == 504]

    first, second = struck(), struck()

    assert first == second and 2 <= len(first) <= 10
    assert not [place for place in first if place % 2]


def test_replies_are_compressed_when_the_dial_says_so(box: Sandbox, sdk: QOSClient) -> None:
    plain = sdk.get_kline(["US:AAPL"], 1001, 50)
    dial(box, dials={"gzip": True})

    reply = post(box, "/kline", {"kline_reqs": [entry("US:AAPL", co=50)]})

    assert reply.headers["content-encoding"] == "gzip"
    assert sdk.get_kline(["US:AAPL"], 1001, 50) == plain


def test_a_late_closing_auction_and_a_restatement_reach_the_pages(box: Sandbox) -> None:
    box.clock.put(datetime(2026, 11, 20, 7, 0, 30, tzinfo=UTC))
    dial(box, closing_delay_s=60)
    early = klines(box, entry("SH:600519", 1001, 2))["SH:600519"]
    box.clock.advance(60)
    late = klines(box, entry("SH:600519", 1001, 2))["SH:600519"]
    dial(box, restate=[{"symbol": "600519.SH", "start": "2026-11-19", "end": "2026-11-19"}])
    restated = klines(box, entry("SH:600519", 1001, 2))["SH:600519"]

    assert early[0] == late[0] != restated[0]
    assert int(early[1]["v"]) < int(late[1]["v"]) and late[1] == restated[1]


def test_the_stand_in_knows_no_session_that_has_not_opened(box: Sandbox) -> None:
    opening = grid("HK").segments(int(grid("HK").days[grid("HK").session_at(NOW.timestamp())]))[0][0]
    box.clock.put(datetime.fromtimestamp(opening - 1, UTC))

    bars = klines(box, entry("HK:700", 1001, 1), entry("SH:600519", 1, 1))

    assert bars["HK:700"][0]["ts"] < opening - 86_400
    assert bars["SH:600519"][0]["ts"] < opening - 43_200


def test_a_delisted_name_ends_and_an_unlisted_one_is_known_but_empty(box: Sandbox) -> None:
    gone = klines(box, entry("US:TWTR", 1001, 2), entry("US:TWTR", 1, 2))["US:TWTR"]
    box.clock.put(datetime(2026, 9, 1, 8, tzinfo=UTC))

    unborn = klines(box, entry("US:TRUE", 1001, 5), entry("SH:688999", 1, 5))
    quotes = [post(box, path, {"codes": ["US:TRUE"]}).json()["data"] for path in ("/snapshot", "/depth")]

    assert {datetime.fromtimestamp(bar["ts"], UTC).date().isoformat() for bar in gone[-1:]} == {"2022-10-27"}
    assert unborn == {"US:TRUE": [], "SH:688999": []} and quotes == [[], []]
