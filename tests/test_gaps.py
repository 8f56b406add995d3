"""What an answer lacks is said: sessions nobody asked for, and those beyond the vendor's horizon."""

import warnings
from datetime import date

import pytest
from stand import Stand

import klake
from klake.errors import Incomplete
from klake.jobs.desk import ad_hoc
from klake.jobs.sync import sync
from klake.research.lake import Lake


@pytest.fixture
def lake(stand: Stand) -> Lake:
    """A lake with daily bars of November of one symbol, and its minutes as far as the vendor goes back."""
    desk = stand.desk()
    for freq, start in (("1d", date(2026, 11, 2)), ("1m", date(2026, 10, 1))):
        job = ad_hoc(desk, vendor="qos", symbols=["600519.SH"], freq=[freq], start=start)
        sync(desk, freq, job)
    return klake.open(stand.folder / "lake")


def warned(lake: Lake, freq: str, start: str | None) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        lake.bars("600519.SH", freq, start=start)
    return [str(one.message) for one in found if issubclass(one.category, klake.ShortAnswer)]


def test_what_was_never_asked_for_is_said_with_the_command_that_asks(lake: Lake) -> None:
    (text,) = warned(lake, "1d", "2026-10-26")

    assert "nothing is known of 2026-10-26 to 2026-10-30" in text
    assert "klake sync --vendor qos --symbols 600519.SH --freq 1d --start 2026-10-26 --end 2026-10-30" in text


def test_an_answer_that_is_whole_says_nothing(lake: Lake) -> None:
    assert warned(lake, "1d", "2026-11-02") == []
    assert warned(lake, "1d", None) == []


def test_bars_beyond_the_horizon_are_missing_though_nobody_can_fetch_them(lake: Lake) -> None:
    (text,) = warned(lake, "1m", "2026-10-01")

    assert "600519.SH 1m from qos: 2026-10-08 to " in text
    assert "beyond the vendor's horizon" in text
    with pytest.raises(Incomplete, match="horizon"):
        lake.bars("600519.SH", "1m", start="2026-10-01", require="complete")


def test_without_a_start_the_horizon_is_where_history_begins(lake: Lake) -> None:
    assert warned(lake, "1m", None) == []
    assert len(lake.bars("600519.SH", "1m", require="complete")) > 0
