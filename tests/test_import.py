"""Files with bars come into the lake: what can be read is stored, what cannot is told."""

import gzip
import json
import struct
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from klake.errors import BadRequest
from klake.ingest.files import columnar as columnar_module
from klake.ingest.files import text as text_module
from klake.ingest.files.lean import lean_mapping
from klake.ingest.files.mapping import Mapping
from klake.ingest.files.piece import Broken
from klake.ingest.files.reading import kind_of, mapping_of, pieces
from klake.ingest.files.tdx import tdx_mapping
from klake.jobs.bring import BringReport, bring
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage.store import Store

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
DAILY = Mapping(Freq.D1, symbol="600519.SH", label="date")
MINUTES = Mapping(Freq.M1, symbol="600519.SH", label="end", zone="Asia/Shanghai")
HEAD = "date,open,high,low,close,volume\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "lake"), ManualClock(NOW), create=True)


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def read(path: Path, mapping: Mapping) -> tuple[pl.DataFrame, list[Broken]]:
    parts = list(pieces(path, mapping, kind_of(path)))
    frame = pl.concat([cast("pl.DataFrame", pl.from_arrow(p.table)) for p in parts])
    return frame, [broken for p in parts for broken in p.broken]


def brought(store: Store, path: Path, mapping: Mapping | None = None, **more: Any) -> BringReport:
    return bring(store, [path], vendor="mine", clock=ManualClock(NOW), mapping=mapping, **more)


def stored(store: Store, table: str = "bars") -> list[dict[str, Any]]:
    with store.connect() as con:
        return list(con.sql(f"SELECT * FROM {table} ORDER BY symbol, ts").to_arrow_table().to_pylist())


# --- readers -----------------------------------------------------------------------------------


def test_a_broken_row_is_told_by_line_and_text_and_the_rest_is_read(tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.csv",
        HEAD
        + "2026-11-16,1,2,0.5,1.5,100\n"
        + "2026-11-17,1,2,oops,1.5,100\n"  # line 3
        + "\n"
        + "2026-11-18,1,2\n"  # line 5
        + '2026-11-18,"1,2,0.5,1.5,100\n'  # line 6
        + "never,1,2,0.5,1.5,100\n"  # line 7
        + "2026-11-19,1,2,0.5,1.5,100\n",
    )

    frame, broken = read(file, DAILY)

    assert frame["session"].to_list() == [date(2026, 11, 16), date(2026, 11, 19)]
    assert [b.line for b in broken] == [3, 5, 6, 7]
    assert broken[0] == Broken(3, "2026-11-17,1,2,oops,1.5,100", "low cannot be read")
    assert broken[1].why == "3 columns instead of 6"
    assert broken[2].why == "a quote is not closed"
    assert broken[3].why == "the time cannot be read"


def test_line_numbers_go_on_from_chunk_to_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "ROWS", 3)
    lines = [f"2026-11-{day:02d},1,2,0.5,1.5,{'x' if day in (5, 9) else 100}" for day in range(1, 11)]
    file = written(tmp_path / "a.csv", HEAD + "\n".join(lines))

    frame, broken = read(file, DAILY)

    assert frame.height == 8
    assert [b.line for b in broken] == [6, 10]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_chinese_headers_are_read_in_the_encodings_of_chinese_tools(tmp_path: Path, encoding: str) -> None:
    text = "日期,开盘,最高,最低,收盘,成交量,成交额\n2026/11/18,1,2,0.5,1.5,100,150\n"
    file = written(tmp_path / "a.csv", text, encoding)

    frame, broken = read(file, DAILY)

    assert not broken
    assert frame.row(0) == ("600519.SH", date(2026, 11, 18), 1.0, 2.0, 0.5, 1.5, 100.0, 150.0)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".zip"])
def test_packed_text_reads_like_plain_text(tmp_path: Path, suffix: str) -> None:
    text = HEAD + "2026-11-18,1,2,0.5,1.5,100\n"
    file = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.csv", text)
    else:
        file.write_bytes(gzip.compress(text.encode()) if suffix == ".csv.gz" else text.encode())

    frame, _ = read(file, DAILY)

    assert frame["close"].to_list() == [1.5]


def test_date_and_time_may_stand_in_two_columns_and_hours_need_no_padding(tmp_path: Path) -> None:
    columns: dict[str, str | int] = {"date": "d", "time": "t"}
    said = Mapping(Freq.M1, columns, symbol="600519.SH", label="end", zone="Asia/Shanghai")
    file = written(
        tmp_path / "a.csv",
        "d,t,open,high,low,close,volume\n2026-11-19,9:31,1,2,.5,1,1\n20261119,932,1,2,.5,1,1\n"
        "2026/11/19,09:33:00,1,2,.5,1,1\n20261119,93400,1,2,.5,1,1\n",
    )

    frame, broken = read(file, said)

    assert not broken
    assert [f"{t:%H:%M}" for t in frame["ts"].to_list()] == ["01:31", "01:32", "01:33", "01:34"]


def test_a_file_without_header_is_mapped_by_numbers(tmp_path: Path) -> None:
    columns: dict[str, str | int] = {
        "symbol": 0,
        "ts": 1,
        "open": 2,
        "close": 3,
        "high": 4,
        "low": 5,
        "volume": 6,
    }
    file = written(tmp_path / "a.txt", "700.HK\t1763510400000\t1\t2\t3\t0.5\t100\n")
    said = Mapping(Freq.D1, columns, time_format="ms", label="date", header=False, delimiter="\t")

    frame, _ = read(file, said)

    assert frame["close"].to_list() == [2.0] and frame["symbol"].to_list() == ["700.HK"]
    assert frame["ts"].to_list() == [datetime(2025, 11, 19, tzinfo=UTC)]


def test_factors_make_quote_currency_and_shares_and_prices_stay_exact(tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.csv", "date,open,high,low,close,volume,amount\n20261118,1363000,1625123,1,4,7,3\n"
    )
    said = Mapping(
        Freq.D1, symbol="600519.SH", label="date", price_factor=0.0001, volume_factor=100, amount_factor=1000
    )

    frame, _ = read(file, said)

    assert frame.row(0)[2:] == (136.3, 162.5123, 0.0001, 0.0004, 700.0, 3000.0)


def test_thousands_separators_are_read_where_they_are_quoted(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", HEAD + '2026-11-18,"1,234.5",1300,1200,1250,"1,000,000"\n')

    frame, broken = read(file, DAILY)

    assert not broken
    assert frame["open"].to_list() == [1234.5] and frame["volume"].to_list() == [1_000_000.0]


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_parquet_and_feather_read_like_text(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    frame = pl.DataFrame(
        {"more": ["x", "y"], "date": [date(2026, 11, 18), None], "open": [1, 1], "high": [2, 2], "low": [1, 1],
         "close": [1, 1], "vol": [5, 5]}
    )  # fmt: skip
    frame.write_parquet(file) if suffix == ".parquet" else frame.write_ipc(file)

    bars, broken = read(file, DAILY)

    assert bars["volume"].to_list() == [5.0] and bars["session"].to_list() == [date(2026, 11, 18)]
    assert [(b.line, b.why) for b in broken] == [(2, "the time cannot be read")]


def test_row_numbers_go_on_from_batch_to_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar_module, "ROWS", 2)
    file = tmp_path / "a.parquet"
    closes = [1.0, 1.0, 1.0, None, 1.0]
    same = {name: [1.0] * 5 for name in ("open", "high", "low", "volume")}
    pl.DataFrame({"date": [f"2026-11-{d}" for d in range(16, 21)], **same, "close": closes}).write_parquet(
        file
    )

    bars, broken = read(file, DAILY)

    assert bars.height == 4
    assert [b.line for b in broken] == [4]


def test_columns_by_number_mean_the_columns_of_a_parquet_file(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pl.DataFrame(
        {"x": [1], "date": ["20261118"], "p": [9], "o": [2], "h": [3], "l": [1], "c": [2], "v": [7]}
    ).write_parquet(file)
    columns: dict[str, str | int] = {"volume": 7}

    bars, _ = read(file, Mapping(Freq.D1, columns, symbol="600519.SH", label="date"))

    assert bars["volume"].to_list() == [7.0] and bars["high"].to_list() == [3.0]


def test_records_of_a_tdx_file_are_read_and_a_torn_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "sh600000.day"
    record = struct.pack("<IIIIIfII", 20261118, 2950, 2980, 2740, 2775, 4_859_102_208.0, 174_085_000, 0)
    file.write_bytes(record + record[:7])

    frame, broken = read(file, mapping_of(file, "tdx"))

    assert frame.row(0) == (
        "600000.SH",
        date(2026, 11, 18),
        29.5,
        29.8,
        27.4,
        27.75,
        174085000.0,
        4859102208.0,
    )
    assert [(b.line, b.why) for b in broken] == [(2, "a record of 7 bytes instead of 32")]


@pytest.mark.parametrize(
    ("name", "symbol", "factor"),
    [("sh600000", "600000.SH", 1.0), ("sh000001", "000001.SH", 100.0), ("sz399001", "399001.SZ", 100.0),
     ("sz000001", "000001.SZ", 1.0), ("sz300750", "300750.SZ", 1.0), ("sh688001", "688001.SH", 1.0)],
)  # fmt: skip
def test_a_tdx_file_tells_its_volume_unit_by_its_class(name: str, symbol: str, factor: float) -> None:
    said = tdx_mapping(Path(f"{name}.day"))

    assert (said.symbol, said.volume_factor, said.price_factor) == (symbol, factor, 0.01)


@pytest.mark.parametrize("name", ["sh510050", "sh900901", "sz200011", "sz123001"])
def test_tdx_units_that_are_not_known_must_be_declared(name: str) -> None:
    with pytest.raises(BadRequest, match="declare price_factor"):
        tdx_mapping(Path(f"{name}.day"))


@pytest.mark.parametrize(
    ("path", "symbol", "freq", "factor", "anchor"),
    [
        ("equity/usa/daily/aapl.zip", "AAPL.US", Freq.D1, 0.0001, "session"),
        ("equity/usa/hour/brk.b.zip", "BRK.B.US", Freq.H1, 0.0001, "clock"),
        ("equity/usa/minute/spy/20131007_trade.zip", "SPY.US", Freq.M1, 0.0001, "session"),
        (
            "crypto/lean/crypto/coinbase/minute/btcusd/20180404_trade.zip",
            "BTCUSD.COINBASE",
            Freq.M1,
            1.0,
            "session",
        ),
        ("cryptofuture/binance/hour/adausdt_trade.zip", "ADAUSDT.P.BINANCE", Freq.H1, 1.0, "session"),
    ],
)
def test_a_lean_path_tells_symbol_freq_and_units(
    path: str, symbol: str, freq: Freq, factor: float, anchor: str
) -> None:
    said = lean_mapping(Path("/data") / path)

    assert (said.symbol, said.freq, said.price_factor, said.anchor) == (symbol, freq, factor, anchor)


@pytest.mark.parametrize("path", ["aapl.zip", "minute/spy/20131007_quote.zip", "minute/spy/spy_trade.zip"])
def test_a_lean_path_that_does_not_tell_is_refused(path: str) -> None:
    with pytest.raises(BadRequest):
        lean_mapping(Path(path))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"freq": Freq.M1}, "label"),
        ({"freq": Freq.M1, "label": "date"}, "start, end"),
        ({"freq": Freq.D1, "label": "end"}, "date"),
        ({"freq": Freq.D1, "adjust": "qfq"}, "as traded"),
        ({"freq": Freq.D1, "columns": {"price": "p"}}, "symbol, ts, date"),
        ({"freq": Freq.D1, "volume_factor": 0.0}, "above 0"),
    ],
)
def test_a_mapping_that_cannot_mean_anything_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        Mapping(**wrong)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("date,open,high,low,close\n", "which column is volume"),
        (HEAD + "12/31/26,1,2,1,1,1\n", "time_format"),
        (HEAD + "2026-11-18,a,b,c,d,e\n", "no row can be read; line 2"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_says_why(tmp_path: Path, text: str, says: str) -> None:
    file = written(tmp_path / "a.csv", text)

    with pytest.raises(BadRequest, match=says):
        read(file, DAILY)


def test_a_torn_zip_and_a_false_parquet_are_refused(tmp_path: Path) -> None:
    for name in ("a.zip", "a.parquet", "a.feather"):
        file = written(tmp_path / name, "not what it says")

        with pytest.raises(BadRequest, match=r"zip|cannot be read"):
            read(file, DAILY)


# --- the job -----------------------------------------------------------------------------------


def test_bars_of_a_file_are_in_the_lake_and_a_second_time_changes_nothing(
    store: Store, tmp_path: Path
) -> None:
    file = written(tmp_path / "a.csv", HEAD + "2026-11-18,1,2,0.5,1.5,100\n2026-11-19,1,2,0.5,1.5,100\n")

    first = brought(store, file, DAILY)
    version = store.version
    second = brought(store, file, DAILY)

    assert first.exit_code == 0 and first.written.new == 2
    assert [row["close"] for row in stored(store)] == [1.5, 1.5]
    assert {row["vendor"] for row in stored(store)} == {"mine"}
    assert second.written.new == 0 and second.written.same == 2
    assert store.version == version


def test_what_cannot_be_stored_is_quarantined_with_line_and_rule(store: Store, tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.csv",
        HEAD + "2026-11-18,1,2,0.5,1.5,100\n2026-11-19,1,2,x,1.5,100\n2026-11-14,1,2,0.5,1.5,100\n"
        "2026-11-17,1,2,9.5,1.5,100\n",
    )

    report = brought(store, file, DAILY)
    again = brought(store, file, DAILY)

    assert report.exit_code == 1 and report.written.new == 1
    told = report.files[0]
    assert (told.read, told.bars, told.broken, told.rejected) == (3, 1, 1, 2)
    assert any("line 3: low cannot be read: 2026-11-19,1,2,x" in problem for problem in told.problems)
    kept = {row["rule"]: row for row in stored(store, "quarantine")}
    assert len(kept) == 3
    assert json.loads(kept["unreadable row"]["values"])["line"] == 3
    assert json.loads(kept["no session"]["values"])["line"] == 4
    assert again.written.quarantined == 0


def test_a_rejected_row_alone_is_a_failure_that_the_exit_code_tells(store: Store, tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", HEAD + "2026-11-18,1,2,1,1,1\n2026-11-14,1,2,1,1,1\n")

    report = brought(store, file, DAILY)

    assert (report.files[0].broken, report.files[0].rejected) == (0, 1)
    assert report.exit_code == 1


def test_one_file_that_cannot_be_read_does_not_stop_the_next(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    written(folder / "a.csv", "nonsense\n")
    written(folder / "b.csv", HEAD + "2026-11-18,1,2,0.5,1.5,100\n")
    written(folder / "c.pdf", "?")

    report = brought(store, folder, DAILY)

    assert report.exit_code == 1
    assert [bool(f.error) for f in report.files] == [True, False]
    assert len(stored(store)) == 1


def test_a_session_is_never_cut_between_two_pieces(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_module, "ROWS", 3)
    clocks = ["9:30", "9:31", "9:32", "14:59", "15:00", "15:01"]
    lines = [f"2026-11-{day} {clock},1,2,0.5,1.5,10" for day in (17, 18, 19) for clock in clocks]
    file = written(tmp_path / "a.csv", HEAD + "\n".join(lines))

    report = brought(store, file, MINUTES)

    assert report.exit_code == 0
    assert [row["volume"] for row in stored(store)] == [20.0, 10.0, 10.0, 20.0] * 3


def test_amounts_that_contradict_the_declared_units_stop_the_file(store: Store, tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.csv", "date,open,high,low,close,volume,amount\n2026-11-18,10,10,10,10,7,7000\n"
    )
    lots = Mapping(Freq.D1, symbol="600519.SH", label="date", volume_factor=100)

    wrong, right = brought(store, file, DAILY), brought(store, file, lots)

    assert "100" in wrong.files[0].error and wrong.exit_code == 1
    assert right.exit_code == 0
    assert [row["volume"] for row in stored(store)] == [700.0]


@pytest.mark.parametrize(("label", "first"), [("start", 31), ("end", 30)])
def test_a_label_that_the_stamps_contradict_stops_the_file(
    store: Store, tmp_path: Path, label: Any, first: int
) -> None:
    opened = datetime(2026, 11, 18, 9, first)
    morning = [opened + timedelta(minutes=i) for i in range(120)]
    stamps = [*morning, *(t + timedelta(hours=3, minutes=30) for t in morning)]
    file = written(tmp_path / "a.csv", HEAD + "\n".join(f"{t:%Y-%m-%d %H:%M},1,2,1,1,1" for t in stamps))
    other: Any = "end" if label == "start" else "start"

    wrong = brought(store, file, replace(MINUTES, label=label))
    right = brought(store, file, replace(MINUTES, label=other))

    assert "other end of the bar" in wrong.files[0].error
    assert right.exit_code == 0 and right.written.new == 240


def test_a_false_zone_stops_the_file_instead_of_filling_the_quarantine(store: Store, tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.csv", HEAD + "\n".join(f"2026-11-18 10:{m:02d},1,2,1,1,1" for m in range(20))
    )

    report = brought(store, file, replace(MINUTES, zone="America/New_York"))

    assert "20 of 20 rows" in report.files[0].error
    assert stored(store, "quarantine") == []


def test_hours_that_count_from_midnight_are_refused_unless_days_are_made_of_them(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "hour"
    folder.mkdir()
    file = folder / "aapl.zip"
    lines = [f"20261118 {hour:02d}:00,{hour}0000,200000,80000,{hour}0000,100" for hour in range(9, 16)]
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("aapl.csv", "\n".join(lines))

    refused = brought(store, file, kind="lean")
    made = brought(store, file, kind="lean", to=Freq.D1)

    assert "count from midnight" in refused.files[0].error
    assert made.exit_code == 0
    (day,) = stored(store)
    assert (day["open"], day["high"], day["low"], day["close"], day["volume"]) == (
        9.0,
        20.0,
        8.0,
        15.0,
        700.0,
    )
    assert day["freq"] == "1d" and day["session"] == date(2026, 11, 18)


def test_bars_outside_regular_hours_are_counted_and_no_failure(store: Store, tmp_path: Path) -> None:
    said = Mapping(Freq.M1, symbol="AAPL.US", label="start", zone="America/New_York")
    file = written(tmp_path / "a.csv", HEAD + "2026-11-18 08:00,1,2,1,1,1\n2026-11-18 10:00,1,2,1,1,1\n")

    report = brought(store, file, said)

    assert report.exit_code == 0 and report.files[0].left_out == 1
    assert len(stored(store)) == 1


def test_a_kind_that_tells_nothing_needs_a_mapping(store: Store, tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", HEAD)

    report = brought(store, file)

    assert "declare" in report.files[0].error


def test_nothing_to_bring_and_longer_freqs_are_wrong_use(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(BadRequest, match="no file"):
        brought(store, tmp_path / "empty", DAILY)
    with pytest.raises(BadRequest, match="1w"):
        brought(store, tmp_path, DAILY, to=Freq.W1)


def test_a_file_of_an_unknown_symbol_says_so(store: Store, tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", HEAD + "2026-11-18,1,2,1,1,1\n")

    report = brought(store, file, Mapping(Freq.D1, symbol="XX!", label="date"))

    assert "XX!" in report.files[0].error


def test_a_folder_is_read_without_its_lakes_and_what_is_hidden(store: Store, tmp_path: Path) -> None:
    row = HEAD + "2026-11-18,1,2,0.5,1.5,100\n"
    for place in (".trash", "sub", "sub/.git", "sub/lake/bars"):
        (tmp_path / "in" / place).mkdir(parents=True)
        written(tmp_path / "in" / place / "a.csv", row)
    written(tmp_path / "in" / "sub" / "lake" / "klake-lake.json", "{}")
    written(tmp_path / "in" / "sub" / "lake" / "b.csv", row)
    written(tmp_path / "in" / "._b.csv", row)

    report = brought(store, tmp_path / "in", DAILY)

    assert [f.path for f in report.files] == [str(tmp_path / "in" / "sub" / "a.csv")]
    for inside in ("sub/lake", "sub/lake/bars"):
        with pytest.raises(BadRequest, match="lakes"):
            brought(store, tmp_path / "in" / inside, DAILY)


@pytest.mark.parametrize("column", ["symbol", "code", "代码"])
def test_a_symbol_never_overrides_the_column_that_names_it(store: Store, tmp_path: Path, column: str) -> None:
    file = written(
        tmp_path / "a.csv",
        f"{column},date,open,high,low,close,volume\n000001.SZ,2026-11-18,1,2,0.5,1.5,100\n",
    )

    report = brought(store, file, DAILY)
    right = brought(store, file, replace(DAILY, symbol=""))

    assert f"column {column}" in report.files[0].error and right.written.new == 1
    assert [row["symbol"] for row in stored(store)] == ["000001.SZ"]


def test_columns_of_a_file_without_header_are_asked_for_by_number(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", "2026-11-18,1,2,0.5,1.5,100\n")

    with pytest.raises(BadRequest, match="numbers from 0"):
        read(file, replace(DAILY, header=False))


@pytest.mark.parametrize("delimiter", [";;", "", "，", '"', "1", "\n"])
def test_a_delimiter_that_cannot_be_one_is_refused(delimiter: str) -> None:
    with pytest.raises(BadRequest, match="one character"):
        replace(DAILY, delimiter=delimiter)


@pytest.mark.parametrize("zone", ["Mars/X", "Asia", "../etc", "上海"])
def test_a_zone_that_is_none_is_refused_for_days_too(zone: str) -> None:
    with pytest.raises(BadRequest, match="Asia/Shanghai"):
        replace(DAILY, zone=zone)


def test_many_rows_of_one_kind_are_told_by_the_first_and_a_count(store: Store, tmp_path: Path) -> None:
    bad = "".join("2026-11-18,x,2,0.5,1.5,100\n" for _ in range(100))
    low = "".join(f"2026-11-{day:02d},1,2,9.5,1.5,100\n" for day in (9, 10, 11, 12))
    file = written(
        tmp_path / "a.csv", HEAD + "2026-11-19,1,2,0.5,1.5,100\n" + bad + low + "2026-11-14,1,2,1,1,1\n"
    )

    told = brought(store, file, DAILY).files[0]

    assert told.reasons["open cannot be read"] == told.broken == 100
    assert sum(told.reasons.values()) == told.broken + told.rejected
    assert len([p for p in told.problems if "open cannot be read" in p]) == 3
    assert len(told.problems) == 3 + 3 + 1
    assert any(p.startswith("600519.SH 2026-11-09: ") for p in told.problems)
    assert any("no session: symbol=600519.SH, session=2026-11-14, open=1.0" in p for p in told.problems)


def test_a_row_of_a_parquet_file_is_told_in_plain_text(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    same = {name: [1.0] * 2 for name in ("open", "high", "low", "volume")}
    days = [date(2026, 11, 18), date(2026, 11, 19)]
    pl.DataFrame({"date": days, **same, "close": [None, 1.0]}).write_parquet(file)

    _, broken = read(file, DAILY)

    assert broken[0].text == "ts=2026-11-18, open=1.0, high=1.0, low=1.0, close=, volume=1.0"


def test_a_report_names_the_lakes_true_version_also_when_nothing_came(store: Store, tmp_path: Path) -> None:
    good = written(tmp_path / "a.csv", HEAD + "2026-11-18,1,2,0.5,1.5,100\n")
    brought(store, good, DAILY)

    report = brought(store, tmp_path / "none.csv", DAILY)

    assert report.written.version == store.version == 1
    assert report.files[0].error == "there is no such file"
