"""Freqs, spans, symbols and states: small values, exact rules."""

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klake.errors import AmbiguousSymbol, BadRequest, UnknownSymbol
from klake.schemas.bar import State, state_of
from klake.schemas.freq import Freq
from klake.schemas.span import Span, merged, missing, overlap
from klake.schemas.symbol import Class, Symbol
from klake.schemas.venue import VENUES

DAYS = st.dates(date(1990, 1, 1), date(2100, 1, 1))
SPANS = st.builds(lambda a, n: Span(a, a + n), st.integers(0, 60), st.integers(0, 20))


@pytest.mark.parametrize(
    "text, freq", [("1m", Freq.M1), ("60min", Freq.H1), ("daily", Freq.D1), ("1MO", Freq.MO1)]
)
def test_a_freq_is_read_in_any_usual_spelling(text: str, freq: Freq) -> None:
    assert Freq.parse(text) is freq


def test_one_capital_m_is_refused_with_a_hint() -> None:
    with pytest.raises(BadRequest, match="1mo for a month, 1m for a minute"):
        Freq.parse("1M")


@given(DAYS, st.sampled_from(list(Freq)))
def test_a_bar_holds_the_day_that_anchors_it(day: date, freq: Freq) -> None:
    anchor = freq.anchor(day)

    assert anchor <= day < freq.following(anchor)
    assert freq.anchor(anchor) == anchor
    assert freq.anchor(freq.following(anchor)) == freq.following(anchor)


@given(DAYS, st.sampled_from(list(Freq)))
def test_a_period_is_a_pure_function_of_the_session(day: date, freq: Freq) -> None:
    expected = f"{day:%Y-%m}" if freq.intraday else f"{day:%Y}"

    assert freq.period(day) == expected


@given(st.lists(SPANS), SPANS)
def test_what_is_missing_and_what_is_held_make_the_whole(held: list[Span[int]], wanted: Span[int]) -> None:
    holes = missing(held, wanted)

    points = {p for s in held for p in range(s.start, s.end)}
    assert [p for h in holes for p in range(h.start, h.end)] == [
        p for p in range(wanted.start, wanted.end) if p not in points
    ]


@given(st.lists(SPANS))
def test_merging_keeps_every_point_and_leaves_nothing_touching(spans: list[Span[int]]) -> None:
    out = merged(spans)

    assert {p for s in out for p in range(s.start, s.end)} == {
        p for s in spans for p in range(s.start, s.end)
    }
    assert all(a.end < b.start for a, b in itertools.pairwise(out))


@given(SPANS, SPANS)
def test_an_overlap_is_what_both_hold(left: Span[int], right: Span[int]) -> None:
    shared = overlap(left, right)

    both = set(range(left.start, left.end)) & set(range(right.start, right.end))
    assert (set(range(shared.start, shared.end)) if shared else set()) == both


@pytest.mark.parametrize(
    "text, canonical",
    [
        ("600519.SH", "600519.SH"), ("SH:600519", "600519.SH"), ("sh600519", "600519.SH"), ("600519", "600519.SH"),
        ("600519.SS", "600519.SH"), ("600519.XSHG", "600519.SH"), ("SH.600519", "600519.SH"), ("sh.600000", "600000.SH"),
        ("300750", "300750.SZ"), ("430047", "430047.BJ"), ("920001", "920001.BJ"), ("SZSE.000001", "000001.SZ"),
        ("700.HK", "00700.HK"), ("0700.HK", "00700.HK"), ("HK:700", "00700.HK"), ("HK00700", "00700.HK"),
        ("HK.00700", "00700.HK"), ("AAPL.US", "AAPL.US"), ("US:AAPL", "AAPL.US"), ("AAPL.XNAS", "AAPL.US"),
        ("BRK-B.US", "BRK.B.US"), ("BRK/B.US", "BRK.B.US"), ("brk.b.us", "BRK.B.US"), ("CON.US", "CON.US"),
        ("BTC/USDT.BINANCE", "BTCUSDT.BINANCE"), ("BINANCE:BTC/USDT:USDT", "BTCUSDT.P.BINANCE"),
        ("BTC-USDT-SWAP.OKX", "BTCUSDT.P.OKX"), ("BTCUSDT.P.QOS", "BTCUSDT.P.QOS"), ("EURUSD.FX", "EURUSD.FX"),
        ("US.CM", "CM.US"), ("US.SS", "SS.US"), ("SH.US", "SH.US"), ("US.GATE", "GATE.US"), ("US.HK", "HK.US"),
        ("BRK B.US", "BRK.B.US"), ("HSTECH.HK", "HSTECH.HK"), ("^HSI", "HSI.HK"), ("900901", "900901.SH"),
    ],
)  # fmt: skip
def test_every_spelling_of_a_symbol_is_understood(text: str, canonical: str) -> None:
    assert str(Symbol.parse(text)) == canonical


@pytest.mark.parametrize("code", ["000001", "113050", "019547", "204001", "880001", "399001"])
def test_a_code_that_means_two_things_is_refused(code: str) -> None:
    with pytest.raises(AmbiguousSymbol, match=rf"{code}\.SH, {code}\.SZ"):
        Symbol.parse(code)


@pytest.mark.parametrize(
    "text",
    [
        "../../x",
        "x/../y.US",
        "",
        ".",
        "AAPL.NOWHERE",
        "C:\\x.US",
        "a b;c.US",
        "..US",
        "ABC.SH",
        "7000000.HK",
        "US",
    ],
)
def test_what_is_no_symbol_is_refused(text: str) -> None:
    with pytest.raises(UnknownSymbol):
        Symbol.parse(text)


@given(st.from_regex(r"[A-Z][A-Z0-9]{0,9}(\.[A-Z])?", fullmatch=True), st.sampled_from(sorted(VENUES)))
def test_a_canonical_symbol_parses_to_itself(code: str, venue: str) -> None:
    try:
        symbol = Symbol.parse(f"{code}.{venue}")
    except UnknownSymbol:
        return
    assert Symbol.parse(str(symbol)) == symbol


@pytest.mark.parametrize(
    "text, klass",
    [("000300.SH", Class.INDEX), ("000001.SZ", Class.STOCK), ("510300.SH", Class.FUND), ("399001.SZ", Class.INDEX),
     ("BTCUSDT.P.QOS", Class.CRYPTO), ("EURUSD.FX", Class.FX), ("XAUUSD.CM", Class.COMMODITY),
     ("113050.SH", Class.BOND), ("204001.SH", Class.BOND), ("123001.SZ", Class.BOND), ("900901.SH", Class.STOCK),
     ("880001.SH", Class.INDEX), ("180101.SZ", Class.FUND), ("HSTECH.HK", Class.INDEX), ("688981.SH", Class.STOCK)],
)  # fmt: skip
def test_the_code_tells_the_class_where_it_can(text: str, klass: Class) -> None:
    assert Symbol.parse(text).klass is klass


def test_a_bar_is_open_then_closed_then_final() -> None:
    end = datetime(2026, 11, 20, 7, tzinfo=UTC)

    states = [state_of(end, end + timedelta(seconds=s), 3600) for s in (-1, 0, 3599, 3600)]

    assert states == [State.OPEN, State.CLOSED, State.CLOSED, State.FINAL]


@given(st.decimals(min_value="0.00001", max_value="9999999", places=5))
def test_a_price_of_up_to_fifteen_digits_survives_float64(price: object) -> None:
    text = f"{price:f}".rstrip("0").rstrip(".")

    assert f"{float(text):.15g}" == text or float(f"{float(text):.15g}") == float(text)
