"""The MultiMarkets parser: bytes as the vendor's pages describe and print them, written without the sandbox."""

import contextlib
import gzip
import json
import random
import tracemalloc
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klake.errors import BadPage, ConfigError, KlakeError
from klake.ingest.registry import open_vendor
from klake.ingest.vendor import Vendor
from klake.ingest.vendors import multimarkets_frames as frames
from klake.ingest.vendors import multimarkets_wire as wire
from klake.schemas.bar import INCOMING
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page, PageRequest
from klake.schemas.symbol import Symbol

NOW = datetime(2020, 11, 16, 7, 0, tzinfo=UTC)
# Every value stands in the vendor's pages: the samples of 14013 and 14001, and the sibling's K-line rows.
TICK = 1605509068000001
SECOND = 1605509068
SIBLING = "1677829200"
PUSH = "p(4,5,1,1605509068000001,34545435345,7290.41,7290.4,7290.5,5,10);"
BAR = {
    "timestamp": SECOND - SECOND % 60, "open_price": "7291.4", "close_price": "7290.41", "high_price": "7295.5",
    "low_price": "7290.2", "last_tick_time": TICK, "last_tick_seq": TICK, "transactions_number": "12.5",
}  # fmt: skip


def reply(*bars: Any, number: int = 7, kind: int = 1, **more: Any) -> dict[str, Any]:
    data = {
        "symbol_id": 4,
        "trade_type": 5,
        "trade_mode": 0,
        "kline_type": kind,
        "price_digits": 2,
        "kline_list": list(bars),
    }
    return {"ret": 200, "msg": "ok", "cmd_id": 14013, "seq_id": number, "ext": "7f3e", "data": data} | more


def raw(text: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(text) + stream.flush()


PACKINGS = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bare": raw,
    "plain": bytes,
    "percent": lambda text: zlib.compress(quote(text.decode(), safe="").encode()),
    "percent, plain": lambda text: quote(text.decode(), safe="").lower().replace("%7b", "%7B", 1).encode(),
}


@pytest.fixture
def vendor(tmp_path: Any) -> Vendor:
    return mapped(tmp_path, "BTCUSDT.MULTIMARKETS,4,5,1\nAAPL.US,6,6,1\n")


def mapped(folder: Any, lines: str) -> Vendor:
    (folder / "mm.csv").write_text(f"symbol,symbol_id,trade_type,trade_mode\n{lines}", encoding="utf-8")
    table = {
        "kind": "multimarkets", "url": "wss://x.invalid/apiQuote", "token": "t-1", "products_file": str(folder / "mm.csv"),
        "capability": {"adjusts": ["none"]},
    }  # fmt: skip
    return open_vendor("mm", table, ManualClock(NOW))


def page(
    body: bytes, freq: Freq = Freq.M1, symbol: str = "BTCUSDT.MULTIMARKETS", product: str = "4:5:1"
) -> Page:
    request = PageRequest("mm", f"14012 {product}", (Entry(symbol, freq, None, 10),))
    return Page("p1", "r1", "multimarkets", "a1", request, NOW, 200, wire.CLIENT, body)


@pytest.mark.parametrize("packing", list(PACKINGS))
def test_the_printed_sample_is_one_bar_in_whatever_it_is_packed(vendor: Vendor, packing: str) -> None:
    body = PACKINGS[packing](json.dumps(reply(BAR)).encode())

    (series,) = vendor.parse(page(body))

    assert frames.heard(body).number == 7
    (row,) = series.bars.to_pylist()
    assert row["ts"] == datetime(2020, 11, 16, 6, 44, tzinfo=UTC)
    assert [row[n] for n in ("open", "high", "low", "close", "volume", "amount")] == [
        7291.4,
        7295.5,
        7290.2,
        7290.41,
        12.5,
        None,
    ]
    assert (row["symbol"], row["freq"], row["state"]) == ("BTCUSDT.MULTIMARKETS", "1m", "final")


def test_integers_as_text_mean_the_same_as_integers(vendor: Vendor) -> None:
    worded = {k: str(v) for k, v in BAR.items()}
    text = reply(worded, seq_id="7", ret="200", cmd_id="14013")
    text["data"] |= {"symbol_id": "4", "trade_type": "5", "kline_type": "1"}

    series = [vendor.parse(page(json.dumps(one).encode()))[0] for one in (reply(BAR), text)]

    assert series[0].bars.equals(series[1].bars)
    assert frames.heard(json.dumps(text)).number == 7


@pytest.mark.parametrize(
    ("time", "second"),
    [
        (SIBLING, 1677829200),
        (1677829200000, 1677829200),
        (1677829200000000, 1677829200),
        (1677829200000000000, 1677829200),
    ],
)
def test_the_size_of_a_time_tells_its_unit(vendor: Vendor, time: Any, second: int) -> None:
    kept = page(json.dumps(reply(BAR | {"timestamp": time})).encode())

    (series,) = vendor.parse(replace(kept, received_at=datetime(2023, 3, 4, tzinfo=UTC)))

    assert series.bars["ts"][0].as_py() == datetime.fromtimestamp(second, UTC)


@pytest.mark.parametrize("time", [0, -60, 60, 10**30, 4102444800, 1677829200, "soon", None, 1.5])
def test_a_bar_without_a_possible_time_is_refused_and_the_others_stay(vendor: Vendor, time: Any) -> None:
    (series,) = vendor.parse(page(json.dumps(reply(BAR, BAR | {"timestamp": time})).encode()))

    assert series.bars.num_rows == 1
    assert [r.rule in {"impossible time", "unreadable"} for r in series.rejects] == [True]


@pytest.mark.parametrize("odd", [None, "x", 1.5, {}, -1, 10**25])
def test_an_implausible_last_tick_never_costs_the_bar(vendor: Vendor, odd: Any) -> None:
    (series,) = vendor.parse(
        page(json.dumps(reply(BAR | {"last_tick_time": odd, "last_tick_seq": odd})).encode())
    )

    assert series.bars.num_rows == 1


def test_of_two_copies_of_a_bar_the_one_with_the_later_tick_counts(vendor: Vendor) -> None:
    old = BAR | {"last_tick_seq": TICK - 1, "close_price": "7291"}
    for order in ([old, BAR], [BAR, old], [BAR, old, BAR]):
        (series,) = vendor.parse(page(json.dumps(reply(*order)).encode()))

        assert series.bars["close"].to_pylist() == [7290.41]
        assert not series.rejects


def test_two_copies_that_no_tick_tells_apart_are_both_refused(vendor: Vendor) -> None:
    (series,) = vendor.parse(page(json.dumps(reply(BAR, BAR | {"close_price": "7291"})).encode()))

    assert series.outcome == "failed"
    assert {r.rule for r in series.rejects} == {"key twice"}


def test_integers_of_64_bits_stay_exact() -> None:
    big = 2**53 + 1
    text = json.dumps(
        reply(BAR | {"last_tick_seq": big}, BAR | {"last_tick_seq": big - 1, "close_price": "7291"})
    )

    found = wire.klines_of(bytes(frames.head_of(text.encode(), "mm").data), "mm")

    assert found.rows.close.tolist() == [7290.41]
    assert wire.Product.parse(f"{2**64 - 1}:1:3") == wire.Product(2**64 - 1, 1, 3)


def test_a_printed_push_is_no_reply() -> None:
    for frame in (
        PUSH,
        PUSH * 2,
        PUSH.encode(),
        "pr(4,5,1,1,2,3,0.5,10,20)",
        "pt(4,5,1,9,1605509068000,1,2,1)",
        "pd(4;(1,2);(3,4))",
    ):
        assert frames.heard(frame).kind == "push"


def test_rolling_pushes_are_read_and_what_is_none_is_left_out() -> None:
    body = (
        b"pr(4,5,1,7290.41,7000,7300,6900,1200,8700000);pr(5,5,1,x,1,1,1,1,1);pr(6,6);pr(7,6,1,nan,1,1,1,1,1)"
    )

    (one,) = wire.rolling_of(body)

    assert one == wire.Rolling(wire.Product(4, 5, 1), 7290.41, 7300.0, 6900.0, 1200.0, 8700000.0)


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        ({"kline_list": []}, "empty"), ({"kline_list": None}, "empty"), ({}, "empty"),
        ({"symbol_id": 9, "kline_list": [BAR]}, "absent"), ({"trade_type": 1, "kline_list": [BAR]}, "absent"),
        ({"kline_type": 2, "kline_list": [BAR]}, "absent"), ({"trade_mode": 2, "kline_list": [BAR]}, "absent"),
        ({"trade_mode": 1, "kline_list": [BAR]}, "bars"),
    ],
)  # fmt: skip
def test_an_empty_list_counts_only_for_the_product_that_was_asked(
    vendor: Vendor, data: dict[str, Any], outcome: str
) -> None:
    whole = {"symbol_id": 4, "trade_type": 5, "trade_mode": 0, "kline_type": 1} | data

    (series,) = vendor.parse(page(json.dumps(reply() | {"data": whole}).encode()))

    assert series.outcome == outcome


@pytest.mark.parametrize("data", [None, {}, [], "x", {"symbol_id": 4}, {"kline_list": []}])
def test_a_good_word_without_a_product_is_no_end_of_history(vendor: Vendor, data: Any) -> None:
    with pytest.raises(BadPage):
        vendor.parse(page(json.dumps(reply() | {"data": data}).encode()))


@pytest.mark.parametrize(
    "body", [b"", b"x", zlib.compress(b"{}")[:-3], zlib.compress(b"hello"), b"\x1f\x8b", b"{", b"[]", b"null"]
)
def test_what_cannot_be_unpacked_is_a_bad_page(vendor: Vendor, body: bytes) -> None:
    with pytest.raises(BadPage):
        vendor.parse(page(body))


def test_bytes_behind_a_whole_stream_do_no_harm(vendor: Vendor) -> None:
    body = zlib.compress(json.dumps(reply(BAR)).encode()) + b"\0\0tail"

    assert vendor.parse(page(body))[0].bars.num_rows == 1


@given(st.text(max_size=60), st.binary(max_size=40))
def test_escapes_are_undone_as_the_standard_library_does_it(text: str, noise: bytes) -> None:
    body = b"%7B" + quote(text).encode() + noise + b"%4" + noise

    assert frames.text_of(body, "mm") == unquote_to_bytes(body)


def test_an_escape_at_the_edge_of_a_piece_is_whole() -> None:
    for shift in range(4):
        body = b"%7B" + b"a" * ((1 << 18) - 6 + shift) + b"%E6%B6%A8"

        assert frames.text_of(body, "mm") == unquote_to_bytes(body)


def test_a_percent_sign_inside_the_text_is_only_a_percent_sign(vendor: Vendor) -> None:
    body = zlib.compress(json.dumps(reply(BAR, msg="100% %41 涨")).encode())

    assert frames.head_of(body, "mm").msg == "100% %41 涨"
    assert vendor.parse(page(body))[0].bars.num_rows == 1


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, raw])
def test_a_bomb_stops_at_the_cap(pack: Any) -> None:
    body = pack(b"{" + b" " * (60 * 1024 * 1024))
    tracemalloc.start()

    with pytest.raises(BadPage, match="inflates to more than"):
        frames.text_of(body, "mm")

    assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    tracemalloc.stop()


@pytest.mark.parametrize("text", [
    b"%7B" + b"%41" * 1_390_000, b'{"seq_id":1,"data":{"symbol_id":4,"trade_type":5,"kline_list":[' + b"1," * 2_000_000 + b"1]}}",
    b'{"data":' + b"[" * 2_000_000, b'{"seq_id":1,"data":{"data_list":[' + b"{}," * 1_300_000 + b"{}]}}",
    b'{"seq_id":1,"data":{"symbol_id":4,"trade_type":5,"kline_list":[' + b"1," * 500_000 + b"1]}}",
])  # fmt: skip
def test_the_worst_texts_below_the_cap_stay_below_64_megabytes(vendor: Vendor, text: bytes) -> None:
    frame = zlib.compress(text, 1)
    began = perf_counter()
    tracemalloc.start()

    frames.heard(frame)
    for one in (
        page(frame),
        replace(page(frame), request=PageRequest("mm", "14014 4:5:1", page(b"").request.entries)),
    ):
        with contextlib.suppress(BadPage):
            vendor.parse(one)

    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 64 * 1024 * 1024
    assert perf_counter() - began < 10


@pytest.mark.parametrize("label", ["2020-03-09T04:00:00Z", "2020-03-09T00:00:00Z", "2020-03-09T13:30:00Z"])
def test_three_ways_to_label_a_day_in_new_york_mean_one(vendor: Vendor, label: str) -> None:
    bar = BAR | {"timestamp": int(datetime.fromisoformat(label).timestamp())}

    (series,) = vendor.parse(page(json.dumps(reply_of(6, 6, 8, bar)).encode(), Freq.D1, "AAPL.US", "6:6:1"))

    assert [str(s) for s in series.bars["session"].to_pylist()] == ["2020-03-09"]


def reply_of(symbol_id: int, trade_type: int, kind: int, *bars: Any) -> dict[str, Any]:
    whole = reply(*bars, kind=kind)
    whole["data"] |= {"symbol_id": symbol_id, "trade_type": trade_type}
    return whole


@pytest.mark.parametrize(
    ("freq", "kind", "start", "why"),
    [
        (Freq.D1, 8, "2020-11-15T16:00:00Z", "days do not begin"), (Freq.W1, 9, "2020-11-15T00:00:00Z", "Monday"),
        (Freq.MO1, 10, "2020-10-31T16:00:00Z", "days do not begin"), (Freq.MO1, 10, "2020-11-02T00:00:00Z", "first"),
    ],
)  # fmt: skip
def test_days_of_another_zone_are_refused_where_trade_goes_round_the_clock(
    vendor: Vendor, freq: Freq, kind: int, start: str, why: str
) -> None:
    bar = BAR | {"timestamp": int(datetime.fromisoformat(start).timestamp())}

    (series,) = vendor.parse(page(json.dumps(reply(bar, kind=kind)).encode(), freq))

    assert series.outcome == "refused" and why in series.reason


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        ("AAPL.US,6,6,1\nAAPL.US,7,6,1\n", "twice"), ("AAPL.US,6,6,1\nMSFT.US,6,6,1\n", "twice"), ("AAPL.US,x,6,1\n", "line 2"),
        ("AAPL.US,0,6,1\n", "above 0"), ("hello world,5,6,1\n", "line 2"), ("AAPL.US\n", "above 0"),
    ],
)  # fmt: skip
def test_a_map_that_makes_no_sense_names_its_line(tmp_path: Any, csv: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        mapped(tmp_path, csv)


def test_a_map_may_hold_remarks_blank_lines_spaces_and_a_mark_of_windows(tmp_path: Any) -> None:
    text = "\ufeffSymbol, symbol_id ,trade_type,name\r\n# shares\r\n\r\n sh600519 , 11 ,6,茅台\r\n00700.HK,12,6,腾讯 # two\r\n"
    (tmp_path / "m.csv").write_bytes(text.encode())
    table = {"kind": "multimarkets", "url": "wss://x.invalid", "token": "t", "products_file": "m.csv"}

    one = open_vendor("mm", table, ManualClock(NOW), where=str(tmp_path / "klake.toml"))

    assert one.spell(Symbol("600519", "SH")) == "11:6:0"
    assert one.symbol("12:6:0") == Symbol("00700", "HK")
    assert one.spell(Symbol("AAPL", "US")) is one.symbol("13:6:0") is one.symbol("12:6") is None


HOSTILE = st.one_of(
    st.binary(max_size=400), st.text(max_size=200).map(str.encode),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                 lambda c: st.lists(c, max_size=4) | st.dictionaries(st.sampled_from(["ret", "seq_id", "data", "kline_list", "symbol_id", "timestamp", "x"]), c, max_size=5),
                 max_leaves=20).map(lambda v: json.dumps(v).encode()),
)  # fmt: skip


@given(HOSTILE, st.sampled_from([bytes, zlib.compress, gzip.compress, raw]))
def test_whatever_comes_only_bad_page_is_raised(body: bytes, pack: Any) -> None:
    frame = pack(body)

    frames.heard(frame)
    wire.rolling_of(body)
    for read in (
        lambda: frames.head_of(frame, "v"),
        lambda: wire.klines_of(body, "v"),
        lambda: wire.batch_of(body, "v"),
    ):
        try:
            read()
        except BadPage:
            pass


def mutants(count: int, seed: int = 20261120) -> Any:
    """Yield hostile frames: good ones torn, flipped, spliced, nested, swollen, in every packing."""
    draw = random.Random(seed)
    good = [
        json.dumps(reply(*({**BAR, "timestamp": BAR["timestamp"] + 60 * i} for i in range(n)))).encode()
        for n in (1, 3, 40)
    ]
    spice = [
        b"null",
        b"1e999",
        b"-1",
        b'""',
        b"[[[[",
        b"{}",
        b"18446744073709551616",
        b"\xff",
        b'"nan"',
        b'"inf"',
        b"1e-320",
        b"true",
    ]
    for _ in range(count):
        text = bytearray(draw.choice(good))
        for _ in range(draw.choice((0, 1, 1, 2, 6))):
            at = draw.randrange(len(text) + 1)
            match draw.randrange(5):
                case 0:
                    del text[at : at + draw.randrange(1, 30)]
                case 1:
                    text[at:at] = draw.choice(spice)
                case 2:
                    text[at : at + 1] = bytes([draw.randrange(256)])
                case 3:
                    text[at:at] = b"[" * draw.choice((3, 50, 3000))
                case _:
                    text[at : at + 12] = draw.choice(spice)
            text = text or bytearray(b"{")
        frame = bytearray(PACKINGS[draw.choice(list(PACKINGS)[:4])](bytes(text)))
        if draw.random() < 0.4 and frame:
            at = draw.randrange(len(frame))
            frame[at : at + draw.randrange(4)] = draw.randbytes(draw.randrange(4))
        if draw.random() < 0.2:
            del frame[draw.randrange(len(frame) + 1) :]
        if draw.random() < 0.005:
            frame = bytearray(zlib.compress(b"{" + b" " * (40 << 20), 1))
        yield bytes(frame)


def fuzz(vendor: Vendor, count: int) -> tuple[int, float, int]:
    """Feed hostile frames; return (how many gave bars, the slowest one's seconds, the most bytes one took).

    Memory is looked at for one frame in ten (of many: in a hundred), and for the largest.
    """
    slowest, fruitful, most = 0.0, 0, 0
    for number, frame in enumerate(mutants(count)):
        watched = number % (10 if count < 10_000 else 100) == 0 or len(frame) > 20_000
        if watched:
            tracemalloc.start()
        began = perf_counter()
        frames.heard(frame)
        try:
            (series,) = vendor.parse(page(frame))
        except KlakeError as error:
            assert isinstance(error, BadPage)
        else:
            assert series.bars.schema.equals(INCOMING)
            fruitful += series.outcome == "bars"
            assert all(t.second == 0 and t.microsecond == 0 for t in series.bars["ts"].to_pylist())
        slowest = max(slowest, perf_counter() - began)
        if watched:
            most = max(most, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    return fruitful, slowest, most


def test_two_thousand_hostile_frames_neither_crash_nor_hang_nor_swell(vendor: Vendor) -> None:
    fruitful, slowest, most = fuzz(vendor, 2_000)

    assert fruitful > 100
    assert slowest < 2
    assert most < 64 * 1024 * 1024


@pytest.mark.proof
def test_a_hundred_thousand_hostile_frames_neither_crash_nor_hang(vendor: Vendor) -> None:
    fruitful, slowest, most = fuzz(vendor, 100_000)

    assert fruitful > 5_000
    assert slowest < 2
    assert most < 64 * 1024 * 1024
