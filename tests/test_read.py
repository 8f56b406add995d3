"""Reading bars back: which ones, in what order, from which files."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klake.errors import BadRequest
from klake.schemas.bar import INCOMING, SCHEMA, State
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage.read import Wanted, files
from klake.storage.store import Store

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
OPEN = datetime(2026, 1, 5, 1, 30, tzinfo=UTC)
SYMBOLS = ("000001.SZ", "600519.SH", "AAPL.US")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three symbols; daily bars of 2024 to 2026 from two vendors, minutes of three days from one."""
    lake = Store.open(str(tmp_path_factory.mktemp("lake")), ManualClock(NOW), create=True)
    days = [date(2024, 12, 1) + timedelta(days=n) for n in range(0, 500, 7)]
    rows = [
        row(s, d, vendor=v)
        for s in SYMBOLS
        for d in days
        for v in ("qos", "mm")
        if (s, v) != ("AAPL.US", "mm")
    ]
    minutes = [
        row(s, OPEN.date() + timedelta(days=n), freq="1m", ts=OPEN + timedelta(days=n, minutes=m), state=state)
        for s in SYMBOLS for n in range(3) for m, state in enumerate(("final", "closed", "open"))
    ]  # fmt: skip
    lake.upsert(pa.Table.from_pylist(rows[::-1] + minutes, schema=INCOMING))
    return lake


def row(symbol: str, day: date, *, vendor: str = "qos", **other: object) -> dict[str, object]:
    price = 10.0 + day.toordinal() % 97 + (100.0 if vendor == "mm" else 0.0)
    return {
        "vendor": vendor, "freq": "1d", "symbol": symbol, "session": day,
        "ts": datetime(day.year, day.month, day.day, 1, 30, tzinfo=UTC), "open": price, "high": price,
        "low": price, "close": price, "volume": 1.0, "amount": None, "state": "final", "flags": 0,
        "fetched_at": NOW, **other,
    }  # fmt: skip


def test_bars_come_sorted_in_the_lakes_schema(store: Store) -> None:
    table = store.bars(symbols=None, freq=Freq.D1, vendor="qos")

    keys = list(zip(table["symbol"].to_pylist(), table["ts"].to_pylist(), strict=True))
    assert table.schema.equals(SCHEMA)
    assert keys == sorted(keys) and len(keys) == len(set(keys)) == 3 * 72


def test_columns_come_in_the_order_asked_for(store: Store) -> None:
    table = store.bars(symbols=["AAPL.US"], freq=Freq.D1, columns=["close", "symbol"])

    assert table.column_names == ["close", "symbol"]
    with pytest.raises(BadRequest):
        store.bars(symbols=None, freq=Freq.D1, columns=["clsoe"])


def test_nothing_held_is_an_empty_table_of_the_same_form(store: Store) -> None:
    for empty in (
        store.bars(symbols=["NONE.US"], freq=Freq.D1),
        store.bars(symbols=[], freq=Freq.D1),
        store.bars(symbols=None, freq=Freq.W1),
        store.bars(symbols=None, freq=Freq.D1, vendor="nobody"),
        store.bars(symbols=None, freq=Freq.D1, start=date(2030, 1, 1)),
    ):
        assert empty.num_rows == 0 and empty.schema.equals(SCHEMA)


def test_without_a_vendor_each_symbol_comes_from_one(store: Store) -> None:
    table = store.bars(symbols=None, freq=Freq.D1)

    vendors = {(r["symbol"], r["vendor"]) for r in table.select(["symbol", "vendor"]).to_pylist()}
    assert vendors == {("000001.SZ", "mm"), ("600519.SH", "mm"), ("AAPL.US", "qos")}
    assert table.num_rows == 3 * 72


def test_bounds_are_half_open(store: Store) -> None:
    days = store.bars(symbols=["AAPL.US"], freq=Freq.D1, start=date(2024, 12, 8), end=date(2024, 12, 22))
    minutes = store.bars(symbols=["AAPL.US"], freq=Freq.M1, start=OPEN, end=OPEN + timedelta(minutes=2))

    assert days["session"].to_pylist() == [date(2024, 12, 8), date(2024, 12, 15)]
    assert minutes["ts"].to_pylist() == [OPEN, OPEN + timedelta(minutes=1)]


@pytest.mark.parametrize(
    ("freq", "start"),
    [(Freq.D1, OPEN), (Freq.M1, date(2026, 1, 5)), (Freq.M1, datetime(2026, 1, 5))],
)
def test_a_bound_of_the_wrong_kind_is_refused(store: Store, freq: Freq, start: date) -> None:
    with pytest.raises(BadRequest):
        store.bars(symbols=None, freq=freq, start=start)


def test_states_can_be_left_out(store: Store) -> None:
    table = store.bars(symbols=None, freq=Freq.M1, states=[State.CLOSED, State.FINAL])

    assert set(table["state"].to_pylist()) == {"closed", "final"} and table.num_rows == 18


def test_only_files_that_can_hold_the_answer_are_opened(store: Store) -> None:
    manifest = store.snapshot()

    def opened(**wanted: object) -> set[str]:
        asked = Wanted(Freq.D1, **wanted)  # type: ignore[arg-type]
        return {"/".join(Path(file.path).parts[2:5:2]) for file in files(manifest, asked)}

    assert opened(vendor="qos", start=date(2025, 6, 1)) == {
        "vendor=qos/period=2025",
        "vendor=qos/period=2026",
    }
    assert opened(symbols=["AAPL.US"], end=date(2025, 1, 1)) == {"vendor=qos/period=2024"}
    assert opened(symbols=["NONE.US"]) == set()


DAYS = st.dates(date(2024, 11, 1), date(2026, 6, 1))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.none() | st.lists(st.sampled_from([*SYMBOLS, "NO.US"])),
    st.none() | DAYS,
    st.none() | DAYS,
    st.sampled_from([None, "qos", "mm"]),
)
def test_an_answer_is_what_a_plain_filter_of_everything_gives(
    store: Store, symbols: list[str] | None, start: date | None, end: date | None, vendor: str | None
) -> None:
    everything = [
        r for v in ("qos", "mm") for r in store.bars(symbols=None, freq=Freq.D1, vendor=v).to_pylist()
    ]

    found = store.bars(symbols=symbols, freq=Freq.D1, start=start, end=end, vendor=vendor).to_pylist()

    best = {s: vendor or ("qos" if s == "AAPL.US" else "mm") for s in SYMBOLS}
    expected = [
        r for r in everything
        if r["vendor"] == best[r["symbol"]]
        and (symbols is None or r["symbol"] in symbols)
        and (start is None or r["session"] >= start)
        and (end is None or r["session"] < end)
    ]  # fmt: skip
    assert found == sorted(expected, key=lambda r: (r["symbol"], r["ts"]))
