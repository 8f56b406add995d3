"""What was deleted by hand: what can be made again is, what cannot is said, and sandbox bars never become real."""

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest

import klake
from klake.errors import BadRequest, LakeDamaged
from klake.research.lake import SeveralVendors
from klake.schemas.action import Kind

BARS = pl.DataFrame({
    "symbol": ["600519.SH"] * 3, "session": [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)],
    "open": [1.0, 2, 3], "high": [2.0, 3, 4], "low": [0.5, 1, 2], "close": [1.5, 2, 3], "volume": [100, 200, 300],
})  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with klake.open(str(tmp_path / "lake"), create=True) as lake:
        lake.write(BARS, vendor="mine", freq="1d")
    return tmp_path / "lake"


@pytest.mark.parametrize("gone", ["_manifest", "lake.duckdb", "_spool", "_state"])
def test_what_can_be_made_again_is_made_again(path: Path, gone: str) -> None:
    found = path / gone
    if found.is_dir():
        shutil.rmtree(found)
    else:
        found.unlink(missing_ok=True)

    with klake.open(str(path)) as lake:
        assert lake.bars("600519.SH").pl().height == 3
        assert lake.sql("SELECT count(*) FROM bars_1d").rows() == [(3,)]
        lake.write(BARS.with_columns(close=pl.col("close") + 0.25), vendor="mine", freq="1d")
        assert lake.sql("SELECT count(*) FROM revisions").rows() == [(3,)]


def test_tables_without_their_marker_are_refused_whoever_asks(path: Path) -> None:
    (path / "klake-lake.json").unlink()

    with pytest.raises(LakeDamaged, match=r"klake-lake\.json"):
        klake.open(str(path), create=True)


@pytest.mark.parametrize(
    "kind, lacking",
    [
        (Kind.SPLIT, "shares"),
        (Kind.DIVIDEND, "cash"),
        (Kind.ALLOTMENT, "shares, price"),
        (Kind.RATIO, "ratio"),
    ],
)
def test_an_action_without_its_numbers_is_refused(path: Path, kind: Kind, lacking: str) -> None:
    table = pl.DataFrame({"symbol": ["600519.SH"], "ex_date": ["2024-06-19"], "kind": [kind.value]})

    with klake.open(str(path)) as lake, pytest.raises(BadRequest, match=f"needs {lacking}"):
        lake.write_actions(table, vendor="mine")


def test_the_same_action_twice_is_one_row(path: Path) -> None:
    table = pl.DataFrame(
        {"symbol": ["600519.SH"], "ex_date": ["2024-06-19"], "kind": ["dividend"], "cash": [30.876]}
    )

    with klake.open(str(path)) as lake:
        first, second = lake.write_actions(table, vendor="mine"), lake.write_actions(table, vendor="mine")
        rows = lake.sql("SELECT symbol, ex_date, kind, cash FROM actions").rows()

    assert (first.new, second.new, second.same) == (1, 0, 1)
    assert rows == [("600519.SH", date(2024, 6, 19), "dividend", 30.876)]


def test_a_lake_whose_making_was_cut_off_is_finished_by_the_next(tmp_path: Path) -> None:
    klake.open(str(tmp_path / "lake"), create=True).close()
    (tmp_path / "lake" / "klake-lake.json").unlink()

    with klake.open(str(tmp_path / "lake"), create=True) as lake:
        assert lake.write(BARS, vendor="mine", freq="1d").new == 3


def test_several_who_make_a_lake_at_once_make_one(tmp_path: Path) -> None:
    code = f"import klake; print(klake.open({str(tmp_path / 'lake')!r}, create=True).store.id)"

    makers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = {maker.communicate()[0] for maker in makers}

    assert [maker.returncode for maker in makers] == [0] * 4
    assert len(said) == 1


def test_plain_dates_are_each_market_s_own(tmp_path: Path) -> None:
    minutes = [(symbol, f"{day}T{hour}:{minute:02d}:00Z") for symbol, day, hour in (
        ("600519.SH", "2026-11-18", "02"), ("AAPL.US", "2026-11-18", "20"), ("AAPL.US", "2026-11-19", "15"),
    ) for minute in range(3)]  # fmt: skip
    table = pl.DataFrame({
        "symbol": [m[0] for m in minutes], "ts": [m[1] for m in minutes],
        **{name: [1.0] * len(minutes) for name in ("open", "high", "low", "close", "volume")},
    }).with_columns(pl.col("ts").str.to_datetime(time_unit="us", time_zone="UTC"))  # fmt: skip

    with klake.open(str(tmp_path / "lake"), create=True) as lake:
        lake.write(table, vendor="mine", freq="1m")
        both = lake.bars(["600519.SH", "AAPL.US"], "1m", start="2026-11-18", end="2026-11-18").pl()
        alone = lake.bars("AAPL.US", "1m", start="2026-11-18", end="2026-11-18").pl()

    assert both.filter(pl.col("symbol") == "AAPL.US").equals(alone)
    assert (both.height, alone.height) == (6, 3)


def test_a_symbol_that_two_vendors_hold_is_told(path: Path) -> None:
    with klake.open(str(path)) as lake:
        lake.write(BARS, vendor="other", freq="1d")

        with pytest.warns(SeveralVendors, match="held by mine, other: mine is read"):
            assert lake.bars("600519.SH").pl()["vendor"].unique().to_list() == ["mine"]
        with pytest.raises(BadRequest, match="mine, other"):
            lake.bars("600519.SH", vendor="nope")
        with pytest.raises(BadRequest, match="complete"):
            lake.bars("600519.SH", require="all")  # type: ignore[arg-type]
        with pytest.raises(BadRequest, match="answers nothing"):
            lake.sql("")
