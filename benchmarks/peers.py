"""The others at the same tasks: a native DuckDB table, polars on bare Parquet, flat binary arrays, ArcticDB."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

__all__ = ["Flat", "Native", "arctic", "polars_scan"]

_FLAT = ("ts", "open", "high", "low", "close", "volume", "amount")

_ARCTIC = """
import json, random, statistics, sys, time
sys.path.insert(0, sys.argv[1])
import arcticdb, pandas as pd, pyarrow.parquet as pq
table = pq.read_table(sys.argv[2]).to_pandas()
library = arcticdb.Arctic("lmdb://" + sys.argv[3]).create_library("bars")
for name, rows in table.groupby("symbol", sort=False):
    library.write(name, rows.drop(columns="symbol").set_index("ts"))
names = random.Random(1).sample(library.list_symbols(), 20)
took = []
for name in names:
    start = time.perf_counter(); library.read(name).data; took.append((time.perf_counter() - start) * 1000)
print(json.dumps(statistics.median(took)))
"""


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


def arctic(folder: Path, parquet: Path) -> float | None:
    """Return ArcticDB's median milliseconds for one symbol; None where it is not installed.

    It needs an older pandas than ours, so it lives in a folder of its own that
    KLAKE_BENCH_ARCTICDB names (`pip install --target DIR arcticdb`), and runs in a process of its own.
    """
    where = os.environ.get("KLAKE_BENCH_ARCTICDB")
    if not where:
        return None
    argv = [sys.executable, "-c", _ARCTIC, where, str(parquet), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))
