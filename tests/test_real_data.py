"""Truths that klake did not make: real files in, bars out, compared with what is known of them."""

import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pytest

from klake.ingest.files.mapping import Mapping
from klake.ingest.files.reading import Kind, mapping_of, pieces
from klake.jobs.bring import bring
from klake.schemas.clock import ManualClock
from klake.schemas.derive import derived
from klake.schemas.freq import Freq
from klake.schemas.resample import resample
from klake.schemas.session import calendar
from klake.storage.store import Store

DATA = Path(os.environ.get("KLAKE_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data")
NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
VALUES = ("open", "high", "low", "close", "volume")
SSE = {"symbol": "000001.SH", "columns": {"volume": "count", "ts": "date"}}

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"no real K-lines at {DATA}: name their folder in KLAKE_REAL_DATA"
    ),
]


def bars_of(name: str, kind: Kind, mapping: Mapping | None = None) -> pa.Table:
    """Return what a file holds as bars; every row of it must be readable."""
    path = DATA / name
    said = mapping or mapping_of(path, kind)
    tables: list[pa.Table] = []
    for part in pieces(path, said, kind):
        assert not part.broken
        made = derived(part.table, vendor="real", freq=said.freq, now=NOW, declared=said.declared)
        assert not made.rejected
        tables.append(made.bars)
    return pa.concat_tables(tables)


def framed(bars: pa.Table) -> pl.DataFrame:
    return cast("pl.DataFrame", pl.from_arrow(bars))


def days_that_differ(left: pa.Table, right: pa.Table) -> pl.DataFrame:
    both = framed(left).join(framed(right), on="session", how="full", suffix="_right")
    same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}_right")) for c in VALUES)
    return both.filter(~same)


def test_the_sse_composite_has_a_bar_on_every_session_of_the_calendar_and_on_no_other_day() -> None:
    bars = bars_of("cn/hikyuu/sh000001.day", "tdx")

    assert bars.num_rows == 8_455
    assert bars["session"].to_pylist() == calendar("XSHG").sessions(date(1990, 12, 19), date(2025, 8, 6))


def test_hours_of_aapl_make_exactly_its_days() -> None:
    days = bars_of("us/lean/daily/aapl.zip", "lean")
    hours = bars_of("us/lean/hour/aapl.zip", "lean")

    made = resample(hours, Freq.D1)

    assert hours.num_rows == 40_831
    assert days.num_rows == made.num_rows == 5_849
    assert days_that_differ(days, made).height == 0


def test_two_files_of_one_stock_in_different_units_hold_the_same_bars(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: it reads the twin of the .day file")
    with h5py.File(DATA / "cn/hikyuu/sh_day.h5") as file:
        raw = {name: file["data"]["SH600000"][name] for name in file["data"]["SH600000"].dtype.names}
    twin = pl.DataFrame(raw).rename({n: n.removesuffix("Price") for n in raw if n.endswith("Price")})
    twin.write_parquet(tmp_path / "twin.parquet")
    said = Mapping(
        Freq.D1, {"ts": "datetime", "volume": "transCount", "amount": "transAmount"}, symbol="600000.SH",
        label="date", time_format="%Y%m%d%H%M", price_factor=0.001, volume_factor=100, amount_factor=1000,
    )  # fmt: skip

    ours = framed(bars_of("cn/hikyuu/sh600000.day", "tdx"))
    theirs = framed(bars_of(str(tmp_path / "twin.parquet"), "parquet", said))

    both = ours.join(theirs, on="session", suffix="_twin")
    alone = theirs.join(ours, on="session", how="anti")
    # One row of the twin is a filler: flat, without volume, in a suspension.
    assert alone.select("session", "volume").rows() == [(date(2006, 4, 4), 0.0)]
    assert both.height == 2_835
    # The twin counts whole lots and whole thousands; on six days the two sources disagree.
    volume, amount = ((both[c] - both[f"{c}_twin"]).abs() for c in ("volume", "amount"))
    disagree = volume > 100
    assert disagree.sum() == 6 and disagree.equals(amount > 2_000)
    alike = both.filter(~disagree)
    for column in ("open", "high", "low", "close"):
        ours_cents, theirs_cents = ((alike[c] * 100).round() for c in (column, f"{column}_twin"))
        assert ours_cents.equals(theirs_cents), column


def test_the_lunch_bar_that_hikyuu_stamps_at_13_00_is_stored_only_where_it_is_said_whose_it_is() -> None:
    said = Mapping(Freq.M1, label="end", zone="Asia/Shanghai", **cast("Any", SSE))
    path = DATA / "cn/hikyuu/test_min_data.csv"
    (part,) = pieces(path, said, "csv")

    unsaid = derived(part.table, vendor="real", freq=Freq.M1, now=NOW, declared=said.declared)
    told = framed(bars_of("cn/hikyuu/test_min_data.csv", "csv", replace(said, break_end_is_last=True)))

    assert unsaid.bars.num_rows == 23_900
    assert [r.rule for r in unsaid.rejected] == ["closed"] * 100
    assert told.height == 24_000
    local = told["ts"].dt.convert_time_zone("Asia/Shanghai").dt.strftime("%H:%M")
    assert (local == "11:29").sum() == 100
    assert (local == "13:00").sum() == 1  # 13:01 END is in the file on one day only
    assert told["amount"].null_count() == 23_760  # 0 is what the file writes for unknown; one day has some


def test_minutes_of_the_sse_composite_lie_on_the_grid_through_circuit_breakers() -> None:
    said = Mapping(Freq.M1, label="end", zone="Asia/Shanghai")

    bars = framed(bars_of("cn/czsc/000001.XSHG_1min.zip", "csv", said))

    per_day = bars.group_by("session").len().sort("session")
    assert bars.height == 239_550 and per_day["len"].max() == 240
    assert dict(per_day.filter(pl.col("len") < 200).iter_rows()) == {
        date(2016, 1, 4): 142,
        date(2016, 1, 7): 17,
    }
    assert bars["symbol"].unique().to_list() == ["000001.SH"]


def test_minutes_add_up_to_the_days_of_the_same_index_in_their_units() -> None:
    minutes = bars_of(
        "cn/czsc/000001.XSHG_1min.zip", "csv", Mapping(Freq.M1, label="end", zone="Asia/Shanghai")
    )
    days = bars_of("cn/czsc/000001.SH_D.csv", "csv", Mapping(Freq.D1, label="date", volume_factor=100))

    both = framed(resample(minutes, Freq.D1)).join(framed(days), on="session", suffix="_day")

    ratio = (both["volume"] / both["volume_day"]).median()
    assert both.height > 990
    assert ratio is not None and abs(cast("float", ratio) - 1) < 0.001
    assert (both["close"] - both["close_day"]).abs().median() == 0


def test_daily_bars_of_hikyuu_csv_equal_the_days_of_tdx() -> None:
    said = Mapping(Freq.D1, label="date", volume_factor=100, amount_factor=1000, **cast("Any", SSE))

    csv = framed(bars_of("cn/hikyuu/test_day_data.csv", "csv", said))
    tdx = framed(bars_of("cn/hikyuu/sh000001.day", "tdx"))

    both = csv.join(tdx, on="session", suffix="_tdx")
    assert both.height == csv.height == 100
    assert both.select((pl.col("close") - pl.col("close_tdx")).abs().max()).item() < 0.006


@pytest.mark.parametrize(
    ("day", "rows"), [("20170903", 1_440), ("20180404", 1_007), ("20180405", 1_440), ("20180406", 1_440)]
)
def test_crypto_minutes_of_lean_are_utc_and_unscaled(day: str, rows: int) -> None:
    bars = framed(bars_of(f"crypto/lean/crypto/coinbase/minute/btcusd/{day}_trade.zip", "lean"))

    assert bars.height == rows
    assert bars["symbol"].unique().to_list() == ["BTCUSD.COINBASE"]
    assert bars["session"].unique().to_list() == [datetime.strptime(day, "%Y%m%d").date()]
    assert 3_000 < cast("float", bars["close"].mean()) < 8_000


def test_crypto_hours_and_days_of_lean_are_on_the_grid() -> None:
    hours = bars_of("crypto/lean/crypto/binance/hour/btcusdt_trade.zip", "lean")
    days = bars_of("crypto/lean/crypto/coinbase/daily/btcusd_trade.zip", "lean")
    future = bars_of("crypto/lean/cryptofuture/binance/hour/adausdt_trade.zip", "lean")

    assert hours.num_rows == 120 and days.num_rows == 1_318
    assert future["symbol"].unique().to_pylist() == ["ADAUSDT.P.BINANCE"]


def test_regular_minutes_of_a_half_day_are_210() -> None:
    path = DATA / "us/lean/minute/goog/20151224_trade.zip"
    said = mapping_of(path, "lean")

    regular = framed(bars_of("us/lean/minute/goog/20151224_trade.zip", "lean"))
    whole = framed(bars_of("us/lean/minute/goog/20151224_trade.zip", "lean", replace(said, hours="all")))

    assert regular.height == 210 and regular["flags"].sum() == 0
    assert whole.height == 227 and (whole["flags"] != 0).sum() == 17


def test_the_adjusted_close_of_yahoo_is_never_taken_for_a_price() -> None:
    said = Mapping(Freq.D1, symbol="AAPL.US", label="date")

    bars = framed(bars_of("us/mplfinance/yahoofinance-AAPL-20040819-20180120.csv", "csv", said))

    assert bars.height == 3_379
    assert bars["close"][0] == 2.193571


def test_real_rows_come_back_from_feather_as_they_went(tmp_path: Path) -> None:
    bars = bars_of("cn/hikyuu/sh600000.day", "tdx")
    file = tmp_path / "600000.feather"
    framed(bars).select("symbol", "session", *VALUES, "amount").write_ipc(file)

    back = bars_of(str(file), "feather", Mapping(Freq.D1, {"ts": "session"}, label="date"))

    assert back.equals(bars)


def test_files_of_four_markets_go_into_one_lake_and_come_out_the_same(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "lake"), ManualClock(NOW), create=True)
    tdx = [DATA / "cn/hikyuu/sh000001.day", DATA / "cn/hikyuu/sh600000.day"]
    lean = [DATA / "us/lean/daily/aapl.zip", DATA / "crypto/lean/crypto/coinbase/daily/btcusd_trade.zip"]

    clock = ManualClock(NOW)
    reports = [
        bring(store, tdx, vendor="real", clock=clock, kind="tdx"),
        bring(store, lean, vendor="real", clock=clock, kind="lean"),
    ]

    # 16 days of the index, 1991 to 1995, have an open or close outside low and high.
    assert [r.exit_code for r in reports] == [1, 0]
    assert reports[0].files[0].bars + reports[0].files[0].rejected == 8_455
    assert sum(r.written.new + r.written.quarantined for r in reports) == 8_455 + 6_119 + 5_849 + 1_318
    with store.connect() as con:
        stored = con.sql("SELECT * FROM bars WHERE symbol = '600000.SH' ORDER BY ts").to_arrow_table()
    ours = bars_of("cn/hikyuu/sh600000.day", "tdx")
    assert [stored[c].to_pylist() for c in (*VALUES, "amount")] == [
        ours[c].to_pylist() for c in (*VALUES, "amount")
    ]


@pytest.mark.parametrize(
    ("name", "more"),
    [("cn/hikyuu/test_min_data.csv", SSE), ("cn/czsc/000001.XSHG_1min.zip", {})],
    ids=["hikyuu", "czsc"],
)
def test_minutes_stamped_with_their_end_are_refused_as_starts(
    tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    store = Store.open(str(tmp_path / "lake"), ManualClock(NOW), create=True)
    said = Mapping(Freq.M1, label="start", zone="Asia/Shanghai", **more)

    report = bring(store, [DATA / name], vendor="real", clock=ManualClock(NOW), mapping=said)

    assert "other end of the bar" in report.files[0].error
    assert report.written.new == 0
