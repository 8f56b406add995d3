"""The benchmarks run, at a size that takes seconds, and say what they measured."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import __main__ as bench
from benchmarks.data import NOW, Scale, daily, fill, sessions
from benchmarks.reading import reading
from benchmarks.timing import Row, beside
from klake.schemas.bar import INCOMING
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage.batches import batches
from klake.storage.store import Store

TINY = Scale("tiny", 60, 900, 3, 25)


def test_the_bars_are_as_the_lake_wants_them(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "lake"), ManualClock(NOW), create=True)

    fill(store, TINY)

    assert daily(2, sessions(3)).schema.equals(INCOMING)
    assert store.bars(symbols=None, freq=Freq.D1).num_rows == 60 * 900
    assert store.bars(symbols=None, freq=Freq.M1).num_rows == 3 * 25 * 240


def test_every_read_is_measured_beside_its_bound() -> None:
    rows = list(reading(TINY))

    assert len(rows) == 13
    assert all(row.ours > 0 and row.theirs > 0 for row in rows)
    assert rows[0].peers.keys() == {"polars", "flat arrays"}


def test_a_run_leaves_a_table_and_json_that_say_on_what_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "DEFAULT", TINY)

    assert bench.main(["size", "--out", str(tmp_path)]) == 0

    told = json.loads((tmp_path / "results.json").read_text())
    page = (tmp_path / "RESULTS.md").read_text()
    assert [row["measure"] for row in told["rows"][:2]] == ["bytes per row, daily", "bytes per row, 1m"]
    assert all(row["verdict"] == "reached" for row in told["rows"][2:])  # real bars, where there are any
    assert told["about"]["scale"] == "tiny" and told["about"]["duckdb"] in page
    assert "| bytes per row, daily |" in page and "bytes per row, daily" in capsys.readouterr().out


def test_a_measure_that_is_not_there_is_refused() -> None:
    with pytest.raises(SystemExit):
        bench.main(["sizes"])


def test_calls_are_taken_in_turn_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    took = beside({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=2)

    assert order == ["a", "b"] * 3 and took.keys() == {"a", "b"}


def test_large_chunks_that_come_in_are_never_copied() -> None:
    chunk = daily(300, sessions(1_000))
    bars = pa.concat_tables([chunk, chunk.slice(0, 10), chunk.slice(10, 20), chunk])

    shares = [share.rows.num_rows for batch in batches(bars) for share in batch.shared_by]

    assert set(shares) == {300_000, 30}


def test_a_row_says_whether_it_reached_its_aim() -> None:
    assert Row("m", "b", 3.0, 2.0, "ms", 1.5).verdict == "reached"
    assert Row("m", "b", 3.1, 2.0, "ms", 1.5).verdict == "MISSED"
    assert Row("m", "b", 3.1, 2.0, "ms", None).verdict == ""
