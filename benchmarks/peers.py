"""The others at the same tasks: a native DuckDB table, polars on bare Parquet, flat binary arrays, ArcticDB."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from .data import Scale, parts, sessions

__all__ = ["Arctic", "Flat", "Native", "arctic", "polars_scan"]

_FLAT = ("ts", "open", "high", "low", "close", "volume", "amount")

_ARCTIC = """
import json, random, statistics, sys, time
sys.path.insert(0, sys.argv[1])
import arcticdb, pyarrow.parquet as pq
table = pq.read_table(sys.argv[2]).to_pandas(date_as_object=False)
library = arcticdb.Arctic("lmdb://" + sys.argv[3]).create_library("bars")
parts = [
    arcticdb.WritePayload(name, rows.drop(columns="symbol").set_index("ts"))
    for name, rows in table.groupby("symbol", sort=False)
]
start = time.perf_counter()
for at in range(0, len(parts), 500):
    library.write_batch(parts[at : at + 500])
wrote = time.perf_counter() - start
names = [part.symbol for part in parts]
took = []
for name in random.Random(1).sample(names, min(len(names), 40)):
    start = time.perf_counter()
    library.read(name).data
    took.append(time.perf_counter() - start)
print(json.dumps({"read_ms": statistics.median(took) * 1000, "write_ms": wrote * 1000}))
"""


@dataclass(frozen=True, slots=True)
class Arctic:
    """What ArcticDB took: the median read of one symbol, and writing all of them, 500 at a time."""

    read_ms: float
    write_ms: float


class Native:
    """A DuckDB file with one table per freq, sorted by (symbol, ts)."""

    def __init__(self, path: Path) -> None:
        self._con = duckdb.connect(str(path))
        self._con.execute("SET TimeZone = 'UTC'")

    def fill(self, table: str, rows: pa.Table) -> None:
        """Store `rows` as `table`."""
        self._con.register("given", rows)
        self._con.execute(f"CREATE TABLE {table} AS SELECT * FROM given ORDER BY symbol, ts")
        self._con.unregister("given")

    def ask(self, query: str) -> pa.Table:
        """Return the answer as Arrow."""
        return self._con.sql(query).to_arrow_table()

    def close(self) -> None:
        """Close the file."""
        self._con.close()


def polars_scan(files: Sequence[Path], *conditions: pl.Expr) -> pl.DataFrame:
    """Return what polars reads from bare files, sorted as bars are."""
    found = pl.scan_parquet(list(files), hive_partitioning=False).filter(*conditions)
    return found.sort("symbol", "ts").collect()


class Flat:
    """One file per symbol and column, mapped into memory, as Qlib keeps them."""

    def __init__(self, folder: Path, rows: pa.Table) -> None:
        self._folder = folder
        symbols = rows["symbol"].combine_chunks().dictionary_encode()
        codes = symbols.indices.to_numpy()
        begins = np.flatnonzero(np.diff(codes, prepend=-1))
        ends = [*begins[1:], len(codes)]
        for start, end in zip(begins, ends, strict=True):
            home = folder / str(symbols.dictionary[codes[start]])
            home.mkdir(parents=True)
            part = rows.slice(start, end - start)
            for name in _FLAT:
                column = part[name].cast(pa.int64()) if name == "ts" else part[name]
                column.to_numpy().tofile(home / name)

    def read(self, symbol: str) -> dict[str, np.ndarray]:
        """Return one symbol's arrays, touched."""
        kinds = {name: np.int64 if name == "ts" else np.float64 for name in _FLAT}
        made = {name: np.memmap(self._folder / symbol / name, kinds[name], "r") for name in _FLAT}
        return {name: np.array(column) for name, column in made.items()}


@cache
def arctic(scale: Scale) -> Arctic | None:
    """Return what ArcticDB takes for the daily bars of a scale, measured once; None where it is not installed.

    It needs an older pandas than ours, so it lives in a folder of its own that
    KLAKE_BENCH_ARCTICDB names (`pip install --target DIR arcticdb`), and runs in a process of its own.
    """
    where = os.environ.get("KLAKE_BENCH_ARCTICDB")
    if not where:
        return None
    with tempfile.TemporaryDirectory() as folder:
        given = f"{folder}/given.parquet"
        rows = pa.concat_tables(parts(scale.symbols, sessions(scale.days)))
        names = ["symbol", "session", *_FLAT]
        pq.write_table(rows.select(names).sort_by([("symbol", "ascending"), ("ts", "ascending")]), given)
        del rows
        argv = [sys.executable, "-c", _ARCTIC, where, given, f"{folder}/arctic"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"KLAKE_BENCH_ARCTICDB={where}: {done.stderr[-2000:]}")
    return Arctic(**json.loads(done.stdout.splitlines()[-1]))
