"""What is measured today: start-up, decoding, requests, time under a quota, reading, bytes per row."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import klake
from klake.ingest.vendors import qos_wire
from klake.ingest.vendors.qos import Qos, QosOptions
from klake.jobs.desk import open_desk
from klake.jobs.sync import sync
from klake.sandbox.server import Sandbox
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.schemas.page import Entry
from klake.schemas.quality import check

from .timing import Row, in_turn

__all__ = ["MEASURES"]

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
SYMBOLS, DAYS = 500, 2_500


def help_cpu() -> Iterator[Row]:
    """CPU seconds of `klake --help`, as the median of nine."""
    took: list[float] = []
    for _ in range(9):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "klake", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    yield Row("klake --help", "0.25 s of CPU", sorted(took)[4], 0.25, "s", 1.0)


def decoding() -> Iterator[Row]:
    """A page's bytes to a normalised, checked table, against the typed decode of the same bytes."""
    with Sandbox(clock_start=NOW, rate=0) as sandbox:
        options = QosOptions.model_validate(
            {"key": sandbox.secrets["qos"]["default"], "url": sandbox.qos_url}
        )
        vendor = Qos("qos", options, ManualClock(NOW))
        names = ["600519.SH", "000001.SZ", "00700.HK", "AAPL.US", "MSFT.US", "BTCUSDT.P.QOS"]
        page = vendor.send(vendor.request(tuple(Entry(n, Freq.D1, None, 1000) for n in names)))
        vendor.close()
    typed = msgspec.json.Decoder(qos_wire._Reply, strict=False)

    def whole() -> None:
        bars = pa.concat_tables([part.bars for part in vendor.parse(page)])
        check(bars, page_id=page.id, run="", now=NOW)

    ours, theirs = in_turn(whole, lambda: typed.decode(page.body), 15)
    yield Row("page bytes to checked table", "typed msgspec decode", ours, theirs, "ms", 2.5)


def requests_and_time() -> Iterator[Row]:
    """Requests against the fewest possible, and time against requests ÷ quota, on a standing clock."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(clock_start=NOW, rate=0, instruments=400) as sandbox,
    ):
        os.environ["KLAKE_STATE"] = folder
        config = Path(folder) / "klake.toml"
        stocks = [str(i["symbol"]) for i in sandbox_instruments(sandbox)][:300]
        config.write_text(
            f'[lake]\npath = "lake"\n[sandbox]\ncontrol = "{sandbox.control_url}"\n[vendors.qos]\nkind = "qos"\n'
            f'key = "{sandbox.secrets["qos"]["deep"]}"\nurl = "{sandbox.qos_url}"\ndepth = 0\n'
            f'[jobs.j]\nvendor = "qos"\nsymbols = {json.dumps(stocks)}\nfreq = ["1d"]\nstart = "2020-01-01"\n'
        )
        desk = open_desk(config)
        report = sync(desk, "j", desk.job("j"))
        again = sync(desk, "j", desk.job("j"))
    yield Row("requests sent", "fewest possible", report.requests_sent, report.requests_fewest, "", 1.02)
    quota_s = (-(-(report.requests_sent + report.canaries) // 10) - 1) * 60.0
    yield Row("time to finish", "requests ÷ quota", report.seconds, quota_s, "s", 1.03)
    yield Row("re-sync that brings nothing: commits", "none", again.written.commits, 1, "", 0.0)


def sandbox_instruments(sandbox: Sandbox) -> list[dict[str, object]]:
    """Return what the sandbox trades."""
    import httpx

    with httpx.Client(trust_env=False) as client:
        found: list[dict[str, object]] = client.get(f"{sandbox.control_url}/instruments").json()
    return found


def reading() -> Iterator[Row]:
    """Reads through `lake.bars` and SQL against a native DuckDB table sorted by (symbol, ts), and polars."""
    with tempfile.TemporaryDirectory() as folder:
        lake = klake.open(str(Path(folder) / "lake"), create=True)
        table = synthetic()
        lake.write(table, vendor="bench", freq="1d")
        con = duckdb.connect(str(Path(folder) / "native.duckdb"))
        con.execute("SET TimeZone = 'UTC'")
        held = lake.bars(None, "1d").arrow()
        con.register("held", held)
        con.execute("CREATE TABLE bars AS SELECT * FROM held ORDER BY symbol, ts")
        con.unregister("held")
        one, day = "600007.SH", held["session"][len(held) // 2].as_py()

        def native(query: str) -> Callable[[], object]:
            return lambda: con.sql(query).to_arrow_table()

        ours, theirs = in_turn(
            lambda: lake.bars(one).arrow(), native(f"SELECT * FROM bars WHERE symbol = '{one}' ORDER BY ts")
        )
        yield Row("one symbol, all daily history", "native DuckDB table", ours, theirs, "ms", 2.0)
        ours, theirs = in_turn(
            lambda: lake.bars(None, start=day, end=day).arrow(),
            native(f"SELECT * FROM bars WHERE session = DATE '{day}' ORDER BY symbol"),
        )
        yield Row(f"panel of one day, {SYMBOLS} symbols", "native DuckDB table", ours, theirs, "ms", 0.4)
        months = (
            "SELECT symbol, date_trunc('month', session) AS m, arg_min(open, ts), max(high), min(low), arg_max(close, ts), "
            "sum(volume) FROM {} GROUP BY ALL"
        )
        ours, theirs = in_turn(
            lambda: lake.sql(months.format("bars_1d")).arrow(), native(months.format("bars")), 5
        )
        yield Row("resample everything to months", "native DuckDB table", ours, theirs, "ms", 1.0)
        files = sorted((Path(folder) / "lake" / "bars" / "era=current" / "vendor=bench").rglob("*.parquet"))
        ours, theirs = in_turn(
            lambda: lake.bars(one).pl(),
            lambda: pl.scan_parquet(files).filter(pl.col("symbol") == one).sort("ts").collect(),
        )
        yield Row("lake.bars().pl(), one symbol", "bare polars scan", ours, theirs, "ms", 1.3)
        bound = Path(folder) / "bound.parquet"
        pq.write_table(
            held.sort_by([("symbol", "ascending"), ("ts", "ascending")]),
            bound,
            compression="zstd",
            compression_level=3,
        )
        size = sum(f.stat().st_size for f in files)
        yield Row(
            "bytes per row",
            "pyarrow zstd 3, dictionary",
            size / len(held),
            bound.stat().st_size / len(held),
            "B",
            0.88,
        )
        lake.close()
        con.close()


def synthetic() -> pa.Table:
    """Return SYMBOLS × DAYS daily bars: random walks with two digits, volume in lots of 100."""
    random = np.random.default_rng(1)
    sessions = [
        d for d in (date(2017, 1, 2) + timedelta(days=n) for n in range(DAYS * 2)) if d.weekday() < 5
    ][:DAYS]
    close = np.round(20 * np.exp(np.cumsum(random.normal(0, 0.02, (SYMBOLS, DAYS)), axis=1)), 2).clip(1)
    opened = np.round(close * (1 + random.normal(0, 0.01, close.shape)), 2).clip(1)
    volume = random.integers(1_000, 100_000, close.shape) * 100.0
    return pa.table({
        "symbol": np.repeat([f"{600000 + n}.SH" for n in range(SYMBOLS)], DAYS), "session": sessions * SYMBOLS,
        "open": opened.ravel(), "high": np.maximum(opened, close).ravel(), "low": np.minimum(opened, close).ravel(),
        "close": close.ravel(), "volume": volume.ravel(), "amount": np.round(volume * (opened + close) / 2, 2).ravel(),
    })  # fmt: skip


MEASURES: tuple[Callable[[], Iterator[Row]], ...] = (help_cpu, decoding, requests_and_time, reading)
