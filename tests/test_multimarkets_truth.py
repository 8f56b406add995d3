"""One truth: what MultiMarkets gives is the market, however its operator orders, packs and writes it."""

import itertools
import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from paging import VALUES, Paged, rows
from polars.testing import assert_frame_equal

import klake
from klake.ingest.registry import open_vendor
from klake.ingest.vendor import Vendor
from klake.jobs.desk import open_desk
from klake.jobs.sync import sync
from klake.sandbox.server import Sandbox
from klake.schemas.freq import Freq

NOW = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)  # every share venue has closed, auctions included
SERIES = (
    ("600519.SH", Freq.M1), ("000300.SH", Freq.H1), ("000333.SZ", Freq.D1), ("301777.SZ", Freq.M15), ("00700.HK", Freq.W1),
    ("08609.HK", Freq.M5), ("AAPL.US", Freq.MO1), ("CON.US", Freq.M1), ("NAN.US", Freq.D1), ("BTCUSDT.P.QOS", Freq.H4),
)  # fmt: skip
SYMBOLS = [symbol for symbol, _ in SERIES]
SWITCHES: dict[str, tuple[Any, ...]] = {
    "order": ("ascending", "descending", "rotated"),
    "end": ("inclusive", "exclusive"),
    "packing": ("zlib", "gzip", "deflate", "text", "plain", "percent"),
    "integers": ("number", "wide_text", "text"),
    "twins": ("none", "same", "stale"),
    "padding": (False, True),
    "tick_unit": ("us", "s", "ms"),
    "day_label": ("local", "utc", "open"),
    "most": (500, 97),
    "pushes": (False, True),
}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(clock_start=NOW, rate=0) as running:
        yield running


def products(box: Sandbox, folder: Path, symbols: list[str]) -> Path:
    """Write the map of an operator, as a user would."""
    file = folder / "mm.csv"
    lines = [",".join(map(str, (symbol, *box.multimarkets.ids(symbol)))) for symbol in symbols]
    file.write_text("\n".join(["symbol,symbol_id,trade_type,trade_mode", *lines]), encoding="utf-8")
    return file


def vendor(box: Sandbox, folder: Path, **more: Any) -> Vendor:
    file = products(box, folder, SYMBOLS)
    table = {
        "kind": "multimarkets", "url": box.urls["multimarkets"], "token": box.secrets["multimarkets"]["default"],
        "products_file": str(file), "capability": {"adjusts": ["none"]}, "connections": 2, "timeout_s": 5, **more,
    }  # fmt: skip
    return open_vendor("mm", table, box.clock)


def covering() -> list[dict[str, Any]]:
    """Some combinations in which every pair of choices occurs; the same ones every time."""
    draw = random.Random(4)
    names = list(SWITCHES)
    left = {
        (a, x, b, y) for a, b in itertools.combinations(names, 2) for x in SWITCHES[a] for y in SWITCHES[b]
    }
    made: list[dict[str, Any]] = []
    while left:
        tried = [{name: draw.choice(SWITCHES[name]) for name in names} for _ in range(60)]
        best = max(tried, key=lambda c: len(pairs(c) & left))
        left -= pairs(best)
        made.append(best)
    return made


def pairs(choice: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {(a, choice[a], b, choice[b]) for a, b in itertools.combinations(choice, 2)}


ODD: dict[str, dict[str, Any]] = {  # one way to be odd under each zone of the machine
    "UTC": {"order": "rotated", "twins": "stale", "integers": "text", "padding": True, "day_label": "utc"},
    "Asia/Shanghai": {"order": "descending", "end": "exclusive", "packing": "percent", "day_label": "open"},
    "America/New_York": {
        "packing": "deflate",
        "twins": "same",
        "integers": "wide_text",
        "most": 211,
        "pushes": True,
    },
}
HALTED = {"000333.SZ"}


@pytest.fixture(params=list(ODD))
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A machine somewhere in the world."""
    with monkeypatch.context() as here:
        here.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def lake(box: Sandbox, folder: Path, jobs: str, symbols: list[str]) -> Path:
    """Write a configuration with the market's two doors."""
    products(box, folder, symbols)
    config = folder / "klake.toml"
    config.write_text(
        f'''[lake]
path = "lake"
[sandbox]
control = "{box.control_url}"
[vendors.qos]
kind = "qos"
key = "{box.secrets["qos"]["deep"]}"
url = "{box.qos_url}"
depth = 0
[vendors.mm]
kind = "multimarkets"
url = "{box.urls["multimarkets"]}"
token = "{box.secrets["multimarkets"]["default"]}"
products_file = "mm.csv"
[vendors.mm.capability]
adjusts = ["none"]
{jobs}''',
        encoding="utf-8",
    )
    return config


def job(vendor: str, symbols: list[str], freqs: list[str], start: str) -> str:
    text = f"[jobs.{vendor}-{freqs[0]}]\nvendor = '{vendor}'\nsymbols = {symbols}\nfreq = {freqs}\nstart = '{start}'\n"
    return text.replace("'", '"')


def settled(frame: Any, symbol: str, freq: str) -> Any:
    """Return the bars that had ended at NOW: a clock that stands is moved by whoever waits for a quota."""
    if not symbol.endswith(".QOS"):
        return frame  # its venue has closed
    if Freq(freq).intraday:
        return frame.filter(pl.col("ts") <= NOW - timedelta(minutes=Freq(freq).minutes))
    return frame.filter(pl.col("session") < Freq(freq).anchor(NOW.date()))


def same_through_both(box: Sandbox, folder: Path, symbols: list[str], starts: dict[str, str]) -> None:
    """Sync every freq through QOS and MultiMarkets, and compare what the lake holds, and the market."""
    jobs = "".join(job(v, symbols, [f], start) for v in ("qos", "mm") for f, start in starts.items())
    desk = open_desk(lake(box, folder, jobs, symbols))
    for name, one in desk.settings.jobs.items():
        report = sync(desk, name, one)
        assert report.exit_code == 0, (name, report)

    held = klake.open(str(folder / "lake"))
    columns = ["ts", "session", *VALUES, "amount"]
    for symbol, freq in itertools.product(symbols, starts):
        ours, theirs = (
            settled(held.bars(symbol, freq, vendor=v).pl().select(columns), symbol, freq)
            for v in ("mm", "qos")
        )
        assert_frame_equal(ours, theirs)
        day = date.fromisoformat(starts[freq])
        first: Any = (
            datetime(day.year, day.month, day.day, tzinfo=UTC)
            if Freq(freq).intraday
            else Freq(freq).anchor(day)
        )
        truth = box.market.truth(symbol, Freq(freq), first, NOW if Freq(freq).intraday else NOW.date(), NOW)
        assert rows(ours.to_arrow()) == rows(settled(pl.from_arrow(truth), symbol, freq).to_arrow()), (
            symbol,
            freq,
        )
    desk.close()


def is_the_market(box: Sandbox, vendor: Vendor, symbol: str, freq: Freq, start: date) -> None:
    got = Paged(vendor, symbol, freq, start, NOW)

    first: Any = (
        freq.anchor(start) if not freq.intraday else datetime(start.year, start.month, start.day, tzinfo=UTC)
    )
    last: Any = NOW.date() if not freq.intraday else NOW
    truth = box.market.truth(symbol, freq, first, last, NOW)
    assert got.chain.done and not got.chain.stopped, got.chain.stopped
    assert got.rows == rows(truth)
    assert got.bars["amount"].null_count == got.bars.num_rows
    assert truth.num_rows > 3


@pytest.mark.parametrize("choice", covering(), ids=lambda c: "-".join(str(v) for v in c.values()))
def test_every_pair_of_switches_gives_the_market(
    box: Sandbox, tmp_path: Path, choice: dict[str, Any]
) -> None:
    box.multimarkets.reset()
    box.multimarkets.turn(choice)
    one = vendor(box, tmp_path)

    for symbol, freq in SERIES:
        start = date(2026, 11, 17) if freq.intraday else date(2026, 3, 2)
        is_the_market(box, one, symbol, freq, start)
    one.close()


def test_the_lake_holds_the_same_through_multimarkets_and_qos(tmp_path: Path, zone: str) -> None:
    with Sandbox(clock_start=NOW, rate=0) as box:
        box.multimarkets.turn(ODD[zone])

        starts = {
            "1m": "2026-11-18",
            "1h": "2026-10-12",
            "1d": "2025-12-01",
            "1w": "2025-06-02",
            "1mo": "2024-06-01",
        }
        same_through_both(
            box, tmp_path, ["600519.SH", "301777.SZ", "00700.HK", "AAPL.US", "BTCUSDT.P.QOS"], starts
        )


@pytest.mark.proof
def test_every_combination_of_the_switches_that_change_bytes_gives_the_market(
    box: Sandbox, tmp_path: Path
) -> None:
    names = ("order", "end", "packing", "integers", "twins", "padding")
    for values in itertools.product(*(SWITCHES[name] for name in names)):
        test_every_pair_of_switches_gives_the_market(box, tmp_path, dict(zip(names, values, strict=True)))


@pytest.mark.proof
def test_forty_instruments_in_every_freq_are_the_same_through_both(tmp_path: Path) -> None:
    with Sandbox(clock_start=NOW, rate=0) as box:
        alive = [s for s, i in box.market.instruments.items() if i.delisted is None and s not in HALTED]
        days = dict.fromkeys(("1m", "5m", "15m", "30m"), "2026-11-16") | dict.fromkeys(
            ("1h", "2h", "4h"), "2026-10-05"
        )

        same_through_both(
            box, tmp_path, alive, days | {"1d": "2024-01-01", "1w": "2024-01-01", "1mo": "2024-01-01"}
        )
