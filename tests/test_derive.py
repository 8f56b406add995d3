"""Tables as people hold them become bar rows, or say why not."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klake.errors import AmbiguousSymbol, BadRequest, UnknownSymbol
from klake.schemas.bar import INCOMING, Flag
from klake.schemas.derive import Declared, Derived, derived
from klake.schemas.frame import as_arrow
from klake.schemas.freq import Freq
from klake.schemas.session import calendar

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
SHANGHAI = Declared(zone="Asia/Shanghai")
SHANGHAI_END = Declared(zone="Asia/Shanghai", label="end")
NEW_YORK = Declared(zone="America/New_York")


def rows(stamps: list[Any], symbol: str = "600519.SH", **columns: list[Any]) -> pa.Table:
    n = len(stamps)
    values = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 100.0}
    table = {"symbol": [symbol] * n, "ts": stamps, **{name: [v] * n for name, v in values.items()}}
    return as_arrow(pl.DataFrame({**table, **columns}, strict=False))


def made(table: pa.Table, freq: Freq, said: Declared | None = None, now: datetime = NOW) -> Derived:
    return derived(table, vendor="mine", freq=freq, now=now, declared=said)


def starts(result: Derived, zone: str = "Asia/Shanghai") -> list[str]:
    return [f"{ts.astimezone(ZoneInfo(zone)):%H:%M}" for ts in result.bars["ts"].to_pylist()]


def rules(result: Derived) -> list[str]:
    return [reject.rule for reject in result.rejected]


@pytest.mark.parametrize(
    "stamps",
    [
        ["2026-11-18", "2026-11-19"],
        ["2026-11-18 15:00:00", "2026-11-19 15:00:00"],
        ["20261118", "20261119"],
        [20261118, 20261119],
        [date(2026, 11, 18), date(2026, 11, 19)],
        [datetime(2026, 11, 18), datetime(2026, 11, 19)],
        [datetime(2026, 11, 18, tzinfo=UTC), datetime(2026, 11, 19, tzinfo=UTC)],
        [datetime(2026, 11, 17, 16, tzinfo=UTC), datetime(2026, 11, 18, 16, tzinfo=UTC)],
    ],
)
def test_daily_stamps_of_every_usual_type_mean_the_trading_date(stamps: list[Any]) -> None:
    table = rows(stamps)

    result = made(table, Freq.D1)

    assert result.bars.schema.equals(INCOMING)
    assert result.bars["session"].to_pylist() == [date(2026, 11, 18), date(2026, 11, 19)]
    assert starts(result) == ["09:30", "09:30"]
    assert not result.rejected


def test_a_date_written_as_utc_midnight_is_not_shifted_to_the_evening_before_in_new_york() -> None:
    table = rows([datetime(2026, 11, 18, tzinfo=UTC)], "AAPL.US")

    result = made(table, Freq.D1)

    assert result.bars["session"].to_pylist() == [date(2026, 11, 18)]


def test_a_local_midnight_of_new_york_is_its_own_date() -> None:
    table = rows([datetime(2026, 11, 18, tzinfo=ZoneInfo("America/New_York"))], "AAPL.US")

    result = made(table, Freq.D1)

    assert result.bars["session"].to_pylist() == [date(2026, 11, 18)]


def test_naive_minutes_without_a_zone_are_refused() -> None:
    table = rows(["2026-11-19 09:30:00"])

    with pytest.raises(BadRequest, match="no zone"):
        made(table, Freq.M1)


def test_minutes_carry_the_session_of_their_venue() -> None:
    table = rows(["2026-11-19 9:30", "2026-11-19 14:59"])

    result = made(table, Freq.M1, SHANGHAI)

    assert result.bars["ts"].to_pylist()[0] == datetime(2026, 11, 19, 1, 30, tzinfo=UTC)
    assert result.bars["session"].to_pylist() == [date(2026, 11, 19)] * 2
    assert result.bars["flags"].to_pylist() == [0, 0]


def test_timestamps_of_any_unit_and_zone_are_the_same_instants() -> None:
    at = datetime(2026, 11, 19, 1, 30, tzinfo=UTC)
    kinds = [pa.timestamp(u, z) for u in ("s", "ms", "us", "ns") for z in ("UTC", "Asia/Shanghai")]

    results = [made(rows([at]).set_column(1, "ts", pa.array([at], kind)), Freq.M1) for kind in kinds]

    assert {r.bars["ts"].to_pylist()[0] for r in results} == {at}


@pytest.mark.parametrize("freq", [f for f in Freq if f.intraday])
@pytest.mark.parametrize(
    ("symbol", "day"),
    [("600519.SH", date(2026, 11, 19)), ("00700.HK", date(2026, 11, 19)), ("AAPL.US", date(2026, 11, 18)),
     ("AAPL.US", date(2025, 11, 28)), ("BTCUSDT.BINANCE", date(2026, 11, 18))],
)  # fmt: skip
def test_end_labels_become_the_starts_of_the_grid(freq: Freq, symbol: str, day: date) -> None:
    name = {"SH": "XSHG", "HK": "XHKG", "US": "XNYS"}.get(symbol.rpartition(".")[2], "24/7")
    book = calendar(name)
    grid = book.starts(day, freq)
    ends = [book.bar_end(day, freq, ts) for ts in grid]

    result = made(rows(ends, symbol), freq, Declared(label="end"))

    assert result.bars["ts"].to_pylist() == grid
    assert set(result.bars["session"].to_pylist()) == {day}
    assert not result.rejected


def test_an_end_label_at_the_end_of_lunch_is_refused_unless_it_is_said_whose_it_is() -> None:
    table = rows(["2026-11-19 11:29", "2026-11-19 13:00", "2026-11-19 13:02"])
    said = Declared(zone="Asia/Shanghai", label="end", break_end_is_last=True)

    unsaid, told = made(table, Freq.M1, SHANGHAI_END), made(table, Freq.M1, said)

    assert starts(unsaid) == ["11:28", "13:01"]
    assert rules(unsaid) == ["closed"] and unsaid.rejected_rows == (1,)
    assert starts(told) == ["11:28", "11:29", "13:01"]
    assert not told.rejected


def test_start_labels_at_lunch_at_night_and_on_holidays_are_rejected_with_their_values() -> None:
    table = rows(["2026-11-19 11:30", "2026-11-19 03:00", "2026-11-21 10:00", "2026-11-19 10:00"])

    result = made(table, Freq.M1, SHANGHAI)

    assert starts(result) == ["10:00"]
    assert rules(result) == ["closed"] * 3
    assert json.loads(result.rejected[0].values)["ts"] == "2026-11-19 11:30"
    assert result.rejected_rows == (0, 1, 2)


def test_an_end_label_between_the_grid_is_rejected() -> None:
    result = made(rows(["2026-11-19 09:32", "2026-11-19 09:35"]), Freq.M5, SHANGHAI_END)

    assert starts(result) == ["09:30"]
    assert rules(result) == ["not an end"]


def test_days_without_trading_are_rejected_but_weeks_and_months_take_any_day() -> None:
    saturday = rows(["2026-11-21"])
    later = NOW + timedelta(days=30)

    day, week, month = (made(saturday, f, now=later) for f in (Freq.D1, Freq.W1, Freq.MO1))

    assert rules(day) == ["no session"]
    assert week.bars["session"].to_pylist() == [date(2026, 11, 16)]
    assert month.bars["session"].to_pylist() == [date(2026, 11, 1)]


def test_bars_that_begin_later_than_now_are_rejected() -> None:
    result = made(rows(["2026-11-20", "2026-11-23"]), Freq.D1)

    assert result.bars["session"].to_pylist() == [date(2026, 11, 20)]
    assert rules(result) == ["in the future"]


def test_a_bar_that_has_not_ended_is_open_and_one_that_has_is_final() -> None:
    during = datetime(2026, 11, 19, 2, 0, 30, tzinfo=UTC)

    minutes = made(rows(["2026-11-19 09:59", "2026-11-19 10:00"]), Freq.M1, SHANGHAI, during)
    days = made(rows(["2026-11-18", "2026-11-19"]), Freq.D1, now=during)

    assert minutes.bars["state"].to_pylist() == ["final", "open"]
    assert days.bars["state"].to_pylist() == ["final", "open"]


def test_states_and_flags_of_the_table_are_kept() -> None:
    table = rows(["2026-11-18", "2026-11-19"], state=["closed", None], flags=[16, None])

    result = made(table, Freq.D1)

    assert result.bars["state"].to_pylist() == ["closed", "final"]
    assert result.bars["flags"].to_pylist() == [int(Flag.DERIVED), 0]


def test_an_unknown_state_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadRequest, match="open, closed, final"):
        made(rows(["2026-11-18"], state=["done"]), Freq.D1)


def test_extended_hours_are_left_out_or_flagged_as_asked() -> None:
    stamps = ["2026-11-18 09:29", "2026-11-18 09:30", "2026-11-18 16:00", "2026-11-17 21:00"]
    table = rows(stamps, "AAPL.US")

    regular = made(table, Freq.M1, NEW_YORK)
    whole = made(table, Freq.M1, Declared(zone="America/New_York", hours="all"))

    assert starts(regular, "America/New_York") == ["09:30"] and regular.left_out == 3
    assert not regular.rejected
    assert starts(whole, "America/New_York") == ["21:00", "09:29", "09:30", "16:00"]
    assert whole.bars["flags"].to_pylist() == [Flag.OVERNIGHT, Flag.PRE_MARKET, 0, Flag.POST_MARKET]
    assert set(whole.bars["session"].to_pylist()) == {date(2026, 11, 18)}


def test_auction_prints_are_folded_into_the_first_and_the_last_bar() -> None:
    table = rows(
        ["2026-11-19 09:30", "2026-11-19 09:31", "2026-11-19 14:59", "2026-11-19 15:00", "2026-11-19 15:01"],
        open=[8.0, 10.0, 10.0, 10.5, 11.0], high=[8.0, 12.0, 12.0, 12.0, 14.0], low=[8.0, 9.0, 9.0, 9.0, 11.0],
        close=[8.0, 11.0, 11.0, 11.0, 13.0], volume=[5.0, 100.0, 100.0, 100.0, 7.0],
        amount=[1.0, 2.0, 3.0, 4.0, None],
    )  # fmt: skip

    result = made(table, Freq.M1, SHANGHAI_END)

    bars = {s: row for s, row in zip(starts(result), result.bars.to_pylist(), strict=True)}
    assert list(bars) == ["09:30", "14:58", "14:59"]
    first, last = bars["09:30"], bars["14:59"]
    assert [first[c] for c in ("open", "high", "low", "close", "volume", "amount")] == [8, 12, 8, 11, 105, 3]
    assert [last[c] for c in ("open", "high", "low", "close", "volume", "amount")] == [
        10.5,
        14,
        9,
        13,
        107,
        None,
    ]
    assert first["flags"] == last["flags"] == Flag.AUCTION and bars["14:58"]["flags"] == 0
    assert result.rows.to_pylist() == [1, 2, 3]


def test_a_closing_print_makes_the_last_slot_where_the_table_has_none() -> None:
    table = rows(["2026-11-19 14:57", "2026-11-19 15:00"])

    result = made(table, Freq.M1, SHANGHAI)

    assert starts(result) == ["14:57", "14:59"]
    assert result.bars["flags"].to_pylist() == [0, Flag.AUCTION]


def test_a_lone_print_is_rejected_instead_of_replacing_a_stored_bar() -> None:
    result = made(rows(["2026-11-19 15:00"]), Freq.M1, SHANGHAI)

    assert result.bars.num_rows == 0
    assert rules(result) == ["lone auction"]


def test_a_print_without_trade_and_one_long_after_the_close_are_rejected() -> None:
    table = rows(["2026-11-19 14:59", "2026-11-19 15:00", "2026-11-19 15:15"], volume=[100.0, 0.0, 5.0])

    result = made(table, Freq.M1, SHANGHAI)

    assert result.bars["volume"].to_pylist() == [100.0] and result.bars["flags"].to_pylist() == [0]
    assert rules(result) == ["no trade", "closed"]


def test_the_same_print_twice_counts_once_and_two_different_ones_are_rejected() -> None:
    stamps = ["2026-11-19 09:30", "2026-11-19 09:30", "2026-11-19 09:31"]

    same = made(rows(stamps, volume=[5.0, 5.0, 100.0]), Freq.M1, SHANGHAI_END)
    different = made(rows(stamps, volume=[5.0, 6.0, 100.0]), Freq.M1, SHANGHAI_END)

    assert same.bars["volume"].to_pylist() == [105.0]
    assert different.bars["volume"].to_pylist() == [100.0]
    assert rules(different) == ["key twice"] * 2


def test_missing_prices_and_unreadable_times_are_rejected_row_by_row() -> None:
    table = rows(["2026-11-16", "soon", "2026-11-18", "2026-11-19"], close=[1.0, 1.0, None, float("nan")])

    result = made(table, Freq.D1)

    assert result.bars["session"].to_pylist() == [date(2026, 11, 16)]
    assert rules(result) == ["unreadable time", "missing value", "missing value"]


def test_symbols_are_parsed_and_one_unknown_one_does_not_stop_the_others() -> None:
    names = pa.array(["sh600519", "XX!", "700.HK"])
    table = rows(["2026-11-18"] * 3).set_column(0, "symbol", names)

    result = made(table, Freq.D1)

    assert result.bars["symbol"].to_pylist() == ["00700.HK", "600519.SH"]
    assert rules(result) == ["unknown symbol"] and result.rejected[0].symbol == "XX!"


@pytest.mark.parametrize(("text", "error"), [("XX!", UnknownSymbol), ("000001", AmbiguousSymbol)])
def test_a_table_without_any_known_symbol_raises(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        made(rows(["2026-11-18"], text), Freq.D1)


def test_columns_that_are_not_understood_are_refused_and_missing_ones_named() -> None:
    table = rows(["2026-11-18"])

    with pytest.raises(BadRequest, match=r"vwap.*is not one of symbol"):
        made(table.append_column("vwap", pa.array([1.0])), Freq.D1)
    with pytest.raises(BadRequest, match="missing: low, volume"):
        made(table.drop_columns(["low", "volume"]), Freq.D1)


def test_names_of_columns_are_taken_in_any_case() -> None:
    table = rows(["2026-11-18"])

    result = made(table.rename_columns([n.title() for n in table.column_names]), Freq.D1)

    assert result.bars.num_rows == 1


def test_an_amount_of_nothing_beside_a_volume_is_unknown() -> None:
    result = made(rows(["2026-11-18", "2026-11-19"], amount=[0.0, 5.0]), Freq.D1)

    assert result.bars["amount"].to_pylist() == [None, 5.0]


def test_an_hour_that_clocks_repeat_is_rejected_instead_of_guessed() -> None:
    table = rows(["2026-11-01 01:30", "2026-11-01 03:30"], "BTCUSDT.BINANCE")

    result = made(table, Freq.M1, NEW_YORK)

    assert result.bars.num_rows == 1
    assert rules(result) == ["unreadable time"]


def test_a_table_of_no_rows_gives_no_bars() -> None:
    result = made(rows(["2026-11-18"]).slice(0, 0), Freq.D1)

    assert result.bars.num_rows == 0 and result.bars.schema.equals(INCOMING)


FRAME = pl.DataFrame(
    {"symbol": ["600519.SH"], "date": [date(2026, 11, 18)], "open": [1], "high": [1], "low": [1], "close": [1],
     "volume": [1]}
)  # fmt: skip


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.lazy(),
        FRAME.to_arrow(),
        FRAME.to_arrow().to_batches()[0],
        FRAME.to_arrow().to_reader(),
        FRAME.to_pandas(),
        FRAME.to_pandas().set_index("date"),
        FRAME.to_pandas().set_index(["symbol", "date"]),
        FRAME.to_pandas().assign(date=pd.to_datetime(["2026-11-18"])).set_index("date").rename_axis(None),
        FRAME.to_pandas().assign(date=pd.to_datetime(["2026-11-18"]).tz_localize("Asia/Shanghai")),
    ],
    ids=["polars", "lazy", "arrow", "batch", "reader", "pandas", "index", "levels", "nameless", "aware"],
)
def test_every_kind_of_frame_gives_the_same_bar(frame: object) -> None:
    result = made(as_arrow(frame), Freq.D1)

    assert result.bars.to_pylist() == made(FRAME.to_arrow(), Freq.D1).bars.to_pylist()
    assert result.bars.num_rows == 1


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(BadRequest, match="Arrow table"):
        as_arrow([1, 2, 3])


@given(st.decimals(min_value=Decimal("0.0001"), max_value=Decimal(99999999999), places=4))
def test_a_price_of_fifteen_digits_comes_out_as_it_was(price: Decimal) -> None:
    kinds: list[pa.Array] = [pa.array([price], pa.decimal128(20, 4)), pa.array([str(price)])]

    results = [made(rows(["2026-11-18"]).set_column(2, "open", kind), Freq.D1) for kind in kinds]

    assert {r.bars["open"].to_pylist()[0] for r in results} == {float(price)}


@given(st.permutations(range(6)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    stamps = ["09:30", "09:31", "09:32", "14:59", "15:00", "15:01"]
    volumes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    table = rows([f"2026-11-19 {stamps[i]}" for i in order], volume=[volumes[i] for i in order])

    result = made(table, Freq.M1, SHANGHAI_END)

    assert starts(result) == ["09:30", "09:31", "14:58", "14:59"]
    assert result.bars["volume"].to_pylist() == [3.0, 4.0, 8.0, 48.0]
