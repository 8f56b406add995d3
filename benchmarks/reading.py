"""Reads through `lake.bars`, `lake.sql` and the published views, beside a native table and the peers."""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import duckdb
import polars as pl

import klake
from klake.research.lake import Lake
from klake.schemas.freq import Freq
from klake.storage.rowgroups import shared

from .data import Scale, fill, names
from .peers import Arctic, Flat, Native, arctic, polars_scan
from .timing import Row, beside, in_turn, once

__all__ = ["reading"]

_RESAMPLE = (
    "SELECT symbol, date_trunc('month', session) AS m, arg_min(open, ts), max(high), min(low), arg_max(close, ts), "
    "sum(volume) FROM {} GROUP BY ALL"
)
_BAR = ("symbol", "ts", "session", "open", "high", "low", "close", "volume")
_DEAD = 7_200
"""Files that a week of minute commits leaves when nobody vacuums."""

_ROOT = Path(__file__).parents[1]
_WRITER = """
import sys, time
from benchmarks.data import daily, sessions
import klake
lake = klake.open(sys.argv[1])
print("ready", flush=True)
until, number = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < until:
    number += 1
    lake.store.upsert(daily(500, sessions(1, "2026-08-05"), seed=number))
    time.sleep(float(sys.argv[3]))
"""


def reading(scale: Scale) -> Iterator[Row]:
    """Every read of DESIGN section 12."""
    with tempfile.TemporaryDirectory() as folder, klake.open(f"{folder}/lake", create=True) as lake:
        fill(lake.store, scale)
        native = Native(Path(folder) / "native.duckdb")
        held = lake.bars(None, "1d").arrow()
        native.fill("bars", held)
        native.fill("minutes", lake.bars(None, "1m").arrow())
        flat = Flat(Path(folder) / "flat", held)
        other = arctic(scale)
        del held
        files = _files(lake, "1d")
        yield from _one_symbol(lake, native, flat, files, other, scale)
        yield from _panels(lake, native, files, scale)
        yield from _wide(lake, native, files, scale)
        yield _dead_files(lake)  # before the writer, which leaves a thousand manifests in a minute
        yield from _beside_a_writer(lake, scale)
        native.close()


def _files(lake: Lake, freq: str) -> list[Path]:
    live = lake.store.snapshot().names["bars"]
    return [Path(lake.store.path) / path for path in live if f"/freq={freq}/" in path]


def _turning(symbols: list[str]) -> Callable[[], str]:
    """Return a function that gives another symbol each time, the same order on every run."""
    order = cycle(random.Random(7).sample(symbols, len(symbols)))
    return lambda: next(order)


def _one_symbol(
    lake: Lake, native: Native, flat: Flat, files: list[Path], other: Arctic | None, scale: Scale
) -> Iterator[Row]:
    every = names(scale.symbols)
    mine, theirs, bare, raw = (_turning(every) for _ in range(4))
    for name in every[:: max(1, scale.symbols // 200)]:  # every row group has been read once
        lake.bars(name)
    took = beside({
        "ours": lambda: lake.bars(mine()).arrow(),
        "native": lambda: native.ask(f"SELECT * FROM bars WHERE symbol = '{theirs()}' ORDER BY ts"),
        "polars": lambda: polars_scan(files, pl.col("symbol") == bare()),
        "flat arrays": lambda: flat.read(raw()),
    }, runs=25)  # fmt: skip
    peers = {
        "polars": took["polars"],
        "flat arrays": took["flat arrays"],
        **({"ArcticDB": other.read_ms} if other else {}),
    }
    warm = took["native"]
    yield Row(
        "one symbol, all daily history", "native DuckDB table", took["ours"], took["native"], "ms", 2.0, peers
    )

    took = beside(
        {
            "ours": lambda: lake.bars(mine()).pl(),
            "polars": lambda: polars_scan(files, pl.col("symbol") == bare()),
        }
    )
    yield Row("lake.bars().pl(), one symbol", "bare polars scan", took["ours"], took["polars"], "ms", 1.3)

    some = names(scale.minute_symbols)
    mine, theirs = _turning(some), _turning(some)
    for name in some:
        lake.bars(name, "1m", start="2026-07-01", end="2026-07-31")
    low, high = "TIMESTAMPTZ '2026-07-01'", "TIMESTAMPTZ '2026-08-01'"
    ours, bound = in_turn(
        lambda: lake.bars(mine(), "1m", start="2026-07-01", end="2026-07-31").arrow(),
        lambda: native.ask(
            f"SELECT * FROM minutes WHERE symbol = '{theirs()}' AND ts >= {low} AND ts < {high} ORDER BY ts"
        ),
        runs=15,
    )
    yield Row("one symbol, one month of 1m", "native DuckDB table", ours, bound, "ms", 1.8)

    turn, cold = _turning(every), list[float]()
    for _ in range(9):
        shared().clear()
        cold.append(once(lambda: lake.bars(turn())))
    yield Row(
        "one symbol, daily, nothing in memory yet",
        "native DuckDB table",
        statistics.median(cold),
        warm,
        "ms",
        None,
    )


def _panels(lake: Lake, native: Native, files: list[Path], scale: Scale) -> Iterator[Row]:
    days = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in (8, 9, 10, 11)]
    days = [day for day in days if lake.bars("600000.SH", start=day, end=day)]
    mine, theirs, bare = _turning(days), _turning(days), _turning(days)

    def panel() -> object:
        day = mine()
        return lake.bars(None, start=day, end=day).arrow()

    took = beside({
        "ours": panel,
        "native": lambda: native.ask(f"SELECT * FROM bars WHERE session = DATE '{theirs()}' ORDER BY symbol"),
        "polars": lambda: polars_scan(files, pl.col("session") == pl.lit(bare()).str.to_date()),
    })  # fmt: skip
    measure = f"panel of one day, {scale.symbols} symbols"
    yield Row(
        measure, "native DuckDB table", took["ours"], took["native"], "ms", 0.4, {"polars": took["polars"]}
    )

    cold: list[float] = []
    for _ in range(9):
        shared().clear()
        cold.append(once(panel))
    measure = "panel of one day, nothing in memory yet"
    yield Row(measure, "native DuckDB table", statistics.median(cold), took["native"], "ms", None)

    sets = [random.Random(n).sample(names(scale.symbols), 50) for n in range(20)]
    mine_sets, their_sets = cycle(sets), cycle(sets)

    def theirs_of_some() -> object:
        some = ", ".join(f"'{name}'" for name in next(their_sets))
        when = "session >= DATE '2023-01-01' AND session < DATE '2025-01-01'"
        return native.ask(f"SELECT * FROM bars WHERE symbol IN ({some}) AND {when} ORDER BY symbol, ts")

    ours, bound = in_turn(
        lambda: lake.bars(next(mine_sets), start="2023-01-01", end="2024-12-31").arrow(), theirs_of_some
    )
    yield Row("50 symbols × 2 years", "native DuckDB table", ours, bound, "ms", 1.0)


def _wide(lake: Lake, native: Native, files: list[Path], scale: Scale) -> Iterator[Row]:
    ours, bound = in_turn(
        lambda: lake.sql(_RESAMPLE.format("bars_1d")).arrow(),
        lambda: native.ask(_RESAMPLE.format("bars")),
        runs=7,
    )
    yield Row("resample everything to months by SQL", "native DuckDB table", ours, bound, "ms", 1.0)
    ours, bound = in_turn(
        lambda: lake.store.resampled(Freq.MO1, Freq.D1, columns=_BAR),
        lambda: native.ask(_RESAMPLE.format("bars")),
        runs=7,
    )
    yield Row("resample everything to months by session", "native DuckDB table", ours, bound, "ms", 1.0)
    took = beside({
        "ours": lambda: lake.bars(None, "1d").pl(),
        "polars": lambda: polars_scan(files),
        "native": lambda: native.ask("SELECT * FROM bars ORDER BY symbol, ts"),
    }, runs=7)  # fmt: skip
    peers = {"native DuckDB table": took["native"]}
    yield Row(
        "lake.bars().pl(), everything daily",
        "bare polars scan, sorted",
        took["ours"],
        took["polars"],
        "ms",
        1.3,
        peers,
    )


def _beside_a_writer(lake: Lake, scale: Scale) -> Iterator[Row]:
    turn = _turning(names(scale.symbols))

    def p99(seconds: float) -> float:
        took: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            took.append(once(lambda: lake.bars(turn())))
        return sorted(took)[int(len(took) * 0.99) - 1]

    for name in names(scale.symbols)[:: max(1, scale.symbols // 200)]:
        lake.bars(name)
    for pause, name, aim in (("0.5", "a commit every 0.5 s", 2.0), ("0", "commits back to back", None)):
        idle = p99(3)
        argv = [sys.executable, "-c", _WRITER, lake.store.path, "7", pause]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            busy = p99(6)
            writer.wait()
        yield Row(f"p99 of one-symbol reads, {name}", "idle", busy, idle, "ms", aim)


def _dead_files(lake: Lake) -> Row:
    """The published view with dead minutes beside it, against an explicit list of files."""
    store = lake.store
    store.publish()
    source, home = _files(lake, "1m")[-1], _files(lake, "1m")[-1].parent
    for number in range(_DEAD):
        os.link(source, home / f"{number:016x}-{'d' * 32}.parquet")
    con = duckdb.connect(f"{store.path}/lake.duckdb", read_only=True)
    con.execute("SET TimeZone = 'UTC'")
    listed = ", ".join(f"'{file}'" for file in _files(lake, "1d"))
    where = "WHERE symbol = '600007.SH' ORDER BY ts"
    ours, bound = in_turn(
        lambda: con.sql(f"SELECT * FROM bars_1d {where}").to_arrow_table(),
        lambda: con.sql(
            f"SELECT * FROM read_parquet([{listed}], hive_partitioning = true) {where}"
        ).to_arrow_table(),
    )
    con.close()
    return Row(
        f"published view bars_1d, {_DEAD} dead minute files", "explicit list of files", ours, bound, "ms", 1.5
    )
