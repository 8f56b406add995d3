"""Golden bytes: rows printed in the vendor's own samples, read without the stand-in."""

import json
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klake.errors import BadPage, BadRequest
from klake.ingest.normalise import fold
from klake.ingest.registry import open_vendor
from klake.ingest.vendors.qos_wire import meaning_of, names
from klake.schemas.bar import INCOMING, Flag
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page, PageRequest

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
QOS = open_vendor("qos", {"kind": "qos", "key": "sandbox-golden"}, ManualClock(NOW))


def bar(code: str, ts: int, kt: int, v: object = "1000", **other: object) -> dict[str, object]:
    return {
        "c": code,
        "o": "10.10",
        "cl": "10.40",
        "h": "10.50",
        "l": "10.00",
        "v": v,
        "ts": ts,
        "kt": kt,
        **other,
    }


def page(body: object, *entries: Entry, received: datetime = NOW) -> Page:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Page(
        "p1", "r1", "qos", "acc", PageRequest("qos", "/kline", entries), received, 200, "klake-qos/1", raw
    )


def reply(*items: object) -> dict[str, object]:
    return {"msg": "OK", "data": list(items)}


def one(code: str, symbol: str, freq: Freq, *bars: dict[str, object], received: datetime = NOW):
    asked = Entry(symbol, freq, None, 10)
    return QOS.parse(page(reply({"c": code, "k": list(bars)}), asked, received=received))[0]


@pytest.mark.parametrize(
    ("code", "symbol", "label", "session", "start"),
    [
        ("SH:600519", "600519.SH", 1741881600, date(2025, 3, 14), datetime(2025, 3, 14, 1, 30, tzinfo=UTC)),
        ("HK:700", "00700.HK", 1741881600, date(2025, 3, 14), datetime(2025, 3, 14, 1, 30, tzinfo=UTC)),
        ("US:AAPL", "AAPL.US", 1741237200, date(2025, 3, 6), datetime(2025, 3, 6, 14, 30, tzinfo=UTC)),
        ("US:AAPL", "AAPL.US", 1741924800, date(2025, 3, 14), datetime(2025, 3, 14, 13, 30, tzinfo=UTC)),
        ("CF:BTCUSDT", "BTCUSDT.P.QOS", 1741910400, date(2025, 3, 14), datetime(2025, 3, 14, tzinfo=UTC)),
    ],
)
def test_a_daily_label_is_local_midnight_of_its_session(code, symbol, label, session, start):
    got = one(code, symbol, Freq.D1, bar(code, label, 1001))

    rows = got.bars.select(["session", "ts"]).to_pylist()

    assert rows == [{"session": session, "ts": start}]


def test_both_sides_of_a_dst_change_are_one_series():
    labels = (1741237200, 1741924800)  # 2025-03-06 EST and 2025-03-14 EDT

    got = one("US:AAPL", "AAPL.US", Freq.D1, *(bar("US:AAPL", ts, 1001) for ts in labels))

    assert got.bars["session"].to_pylist() == [date(2025, 3, 6), date(2025, 3, 14)]
    assert got.bars["state"].to_pylist() == ["final", "final"]


def test_a_yearly_bar_is_anchored_on_a_day_without_trade():
    got = one(
        "SH:600519", "600519.SH", Freq.Y1, *(bar("SH:600519", ts, 2001) for ts in (1672502400, 1704038400))
    )

    assert got.bars["session"].to_pylist() == [date(2023, 1, 1), date(2024, 1, 1)]
    assert got.bars["ts"][0].as_py() == datetime(2023, 1, 1, 1, 30, tzinfo=UTC)


def test_the_bar_of_16_00_new_york_is_the_closing_auction_and_is_folded_into_15_59():
    last = bar("US:AAPL", 1731531540, 1, "500000")
    auction = bar("US:AAPL", 1731531600, 1, "8870000", o="10.60", h="10.60", l="10.60", cl="10.60")

    got = one("US:AAPL", "AAPL.US", Freq.M1, last, auction)
    folded = fold(got.bars).to_pylist()

    assert got.bars["flags"].to_pylist() == [0, int(Flag.AUCTION)]
    assert len(folded) == 1
    row = folded[0]
    assert row["ts"] == datetime(2024, 11, 13, 20, 59, tzinfo=UTC)
    assert (row["open"], row["high"], row["low"], row["close"]) == (10.1, 10.6, 10.0, 10.6)
    assert (row["volume"], row["flags"]) == (9_370_000.0, int(Flag.AUCTION))


@pytest.mark.parametrize(
    ("code", "symbol", "shares"),
    [("SH:600519", "600519.SH", 9_291_300.0), ("SH:000300", "000300.SH", 9_291_300.0),
     ("HK:700", "00700.HK", 92_913.0), ("US:AAPL", "AAPL.US", 92_913.0), ("CF:BTCUSDT", "BTCUSDT.P.QOS", 92_913.0)],
)  # fmt: skip
def test_volume_is_lots_in_shanghai_and_shares_or_coins_elsewhere(code, symbol, shares):
    got = one(code, symbol, Freq.D1, bar(code, 1741881600, 1001, "92913"))

    assert got.bars["volume"].to_pylist() == [shares]
    assert got.bars["amount"].to_pylist() == [None]


@given(st.decimals("0.00000001", "9999999", places=8).map(lambda d: f"{d:.8f}"[:16].rstrip(".")))
def test_a_price_of_up_to_15_digits_prints_back_the_same(text):
    got = one("CF:BTCUSDT", "BTCUSDT.P.QOS", Freq.D1, bar("CF:BTCUSDT", 1741910400, 1001, o=text))

    stored = got.bars["open"][0].as_py()

    assert stored == float(text)
    assert f"{stored:.{len(text.partition('.')[2])}f}" == text


def test_shuffled_items_of_four_markets_find_their_entries():
    asked = [Entry(s, Freq.D1, None, 5) for s in ("600519.SH", "00700.HK", "AAPL.US", "BTCUSDT.P.QOS")]
    codes = ("CF:BTCUSDT", "US:AAPL", "HK:00700", "SH:600519")

    got = QOS.parse(page(reply(*({"c": c, "k": [bar(c, 1741881600, 1001)]} for c in codes)), *asked))

    assert [p.entry.symbol for p in got] == [e.symbol for e in asked]
    assert [p.outcome for p in got] == ["bars"] * 4
    assert [p.bars["symbol"][0].as_py() for p in got] == [e.symbol for e in asked]
    assert all(p.bars.schema.equals(INCOMING) for p in got)


def test_two_types_of_one_code_are_told_apart():
    asked = (Entry("AAPL.US", Freq.M1, None, 5), Entry("AAPL.US", Freq.D1, None, 5))
    items = (
        {"c": "US:AAPL", "k": [bar("US:AAPL", 1741924800, 1001)]},
        {"c": "US:AAPL", "k": [bar("US:AAPL", 1731531540, 1)]},
    )

    got = QOS.parse(page(reply(*items), *asked))

    assert [p.bars["freq"].to_pylist() for p in got] == [["1m"], ["1d"]]


def test_an_empty_item_beside_a_missing_one_proves_nothing():
    asked = (Entry("AAPL.US", Freq.M1, None, 5), Entry("AAPL.US", Freq.D1, None, 5))

    got = QOS.parse(page(reply({"c": "US:AAPL", "k": []}), *asked))

    assert [p.outcome for p in got] == ["absent", "absent"]


GOOD = {"c": "SH:600519", "k": [bar("SH:600519", 1741881600, 1001)]}


@pytest.mark.parametrize(
    ("item", "outcome"),
    [
        (None, "absent"),
        ({"c": "US:AAPL", "k": []}, "empty"),
        ({"c": "US:AAPL"}, "failed"),
        ({"c": "US:AAPL", "k": None}, "failed"),
        ({"c": "US:AAPL", "k": [{"c": "US:AAPL", "ts": 1741924800}]}, "failed"),
        ({"c": "US:AAPL", "k": [bar("US:MSFT", 1741924800, 1001)]}, "failed"),
        ({"c": "US:AAPL", "k": [bar("US:AAPL", 1741924800000, 1001)]}, "failed"),
        ({"c": "US:AAPL", "k": [bar("US:AAPL", 1741924800, 1)]}, "absent"),
        ("garbage", "absent"),
        ({"k": []}, "absent"),
    ],
)
def test_a_bad_item_costs_itself_and_never_its_neighbour(item, outcome):
    asked = (Entry("AAPL.US", Freq.D1, None, 5), Entry("600519.SH", Freq.D1, None, 5))

    got = QOS.parse(page(reply(*([] if item is None else [item]), GOOD), *asked))

    assert [p.outcome for p in got] == [outcome, "bars"]
    assert got[0].bars.num_rows == 0
    assert outcome in ("empty",) or got[0].reason


def test_a_row_without_volume_is_refused_and_the_rest_of_its_item_kept():
    broken = {k: v for k, v in bar("US:AAPL", 1741924800, 1001).items() if k != "v"}

    got = one("US:AAPL", "AAPL.US", Freq.D1, bar("US:AAPL", 1741237200, 1001), broken)

    assert got.bars["session"].to_pylist() == [date(2025, 3, 6)]
    assert [(r.rule, r.ts) for r in got.rejects] == [("unreadable", datetime.fromtimestamp(1741924800, UTC))]
    assert json.loads(got.rejects[0].values) == broken


def test_numbers_may_come_as_numbers():
    got = one("US:AAPL", "AAPL.US", Freq.D1, bar("US:AAPL", 1741924800, 1001, 250, cl=10.25, ts2=1))

    assert got.bars.select(["close", "volume"]).to_pylist() == [{"close": 10.25, "volume": 250.0}]


def test_a_descending_page_with_a_repeated_bar_comes_out_ascending_and_once():
    labels = (1741924800, 1741237200, 1741237200)

    got = one("US:AAPL", "AAPL.US", Freq.D1, *(bar("US:AAPL", ts, 1001) for ts in labels))

    assert got.bars["session"].to_pylist() == [date(2025, 3, 6), date(2025, 3, 14)]
    assert got.rejects == ()


def test_one_key_with_two_values_is_refused_twice():
    twins = (bar("US:AAPL", 1741924800, 1001), bar("US:AAPL", 1741924800, 1001, "1001"))

    got = one("US:AAPL", "AAPL.US", Freq.D1, bar("US:AAPL", 1741237200, 1001), *twins)

    assert got.bars["session"].to_pylist() == [date(2025, 3, 6)]
    assert [r.rule for r in got.rejects] == ["key twice", "key twice"]


def test_the_unfinished_bar_is_open_then_closed_then_final():
    close = datetime(2025, 3, 14, 7, tzinfo=UTC)  # 15:00 in Shanghai
    fetched = [close.replace(hour=6), close, close.replace(hour=10, minute=59), close.replace(hour=11)]

    states = [
        one("SH:600519", "600519.SH", Freq.D1, bar("SH:600519", 1741881600, 1001), received=at)
        .bars["state"][0]
        .as_py()
        for at in fetched
    ]

    assert states == ["open", "closed", "closed", "final"]


def test_daily_bars_of_a_market_whose_label_nobody_has_seen_are_refused():
    got = one("FX:EURUSD", "EURUSD.FX", Freq.D1, bar("FX:EURUSD", 1741881600, 1001))

    assert got.outcome == "refused"
    assert "U11" in got.reason
    with pytest.raises(BadRequest, match="U11"):
        QOS.request((Entry("EURUSD.FX", Freq.W1, None, 5),))
    assert QOS.request((Entry("EURUSD.FX", Freq.H1, None, 5),)).entries


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"<html></html>", b'{"msg":"OK"}', b'{"msg":"OK","data":null}', b'{"msg":"OK","data":[{"c"'],
)
def test_a_reply_without_a_list_of_items_is_a_bad_page(body):
    asked = page(body, Entry("AAPL.US", Freq.D1, None, 5))

    with pytest.raises(BadPage):
        QOS.parse(asked)


def test_parsing_a_page_again_gives_the_same_bars():
    asked = page(reply(GOOD), Entry("600519.SH", Freq.D1, None, 5))

    first, second = QOS.parse(asked)[0], QOS.parse(asked)[0]

    assert first.bars.equals(second.bars)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Key expired.", "key"), ("Key required.", "key"), ("Invalid key", "key"), ("密钥无效", "key"), ("key does not exist", "key"),
        ("Request frequency exceeded.", "rate"), ("Too many requests", "rate"), ("请求过于频繁", "rate"),
        ("Product count exceeded.", "products"), ("exceed the limit of symbols", "products"), ("超过品种数量上限", "products"),
        ("code US:ZZZZ not found", "symbol"), ("no permission for this product", "symbol"), ("Internal error.", "unknown"),
    ],
)  # fmt: skip
def test_a_message_is_classed_by_its_words(text, meaning):
    assert meaning_of(text) == meaning


@pytest.mark.parametrize(
    ("text", "codes", "status", "meaning"),
    [
        ("US:KEY not found", ["US:KEY"], 200, "symbol"), ("invalid code US:KEY", [], 200, "symbol"),
        ("KEY not found", ["US:KEY"], 200, "symbol"), ("Key expired.", ["US:KEY"], 200, "key"),
        ("Symbol TURKEY invalid", [], 200, "symbol"), ("no data for US:KEY", ["US:KEY"], 200, "symbol"),
        ("HK:RATE no permission", [], 200, "symbol"), ("Invalid api_key", [], 200, "key"), ("API-key wrong", [], 200, "key"),
        ("Too many requests for these codes", [], 200, "rate"), ("too many codes", [], 200, "products"),
        ("Rate limit exceeded: 10 product requests per minute", [], 200, "rate"),
        ("Request frequency limit of product US exceeded", [], 200, "rate"),
        ("slow down with these symbols", [], 429, "rate"), ("Key expired.", [], 429, "key"),
    ],
)  # fmt: skip
def test_what_a_code_is_called_and_what_a_rate_counts_misleads_nobody(text, codes, status, meaning):
    assert meaning_of(text, codes, status) == meaning


def test_a_message_names_a_code_padded_or_not():
    assert names("code HK:00700 not found", "HK:700")
    assert names("700 has no permission", "HK:700")
    assert not names("code HK:0700x not found", "HK:700")
