"""Bytes per row of the files that bars are stored in."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from klake.schemas.clock import ManualClock
from klake.storage.store import Store

from .data import NOW, Scale, daily, minutes, sessions
from .timing import Row

__all__ = ["sizes"]


def sizes(scale: Scale) -> Iterator[Row]:
    """Bytes per row of a year of daily bars and a month of minutes, against a dictionary for every column."""
    year, month = sessions(250, "2026-01-01"), sessions(20, "2026-08-01")
    cases = {"daily": daily(scale.symbols, year), "1m": minutes(scale.minute_symbols, month)}
    for name, table in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            store = Store.open(f"{folder}/lake", ManualClock(NOW), create=True)
            store.upsert(table)
            live = [Path(store.path) / file.path for file in store.snapshot().of("bars")]
            stored = pa.concat_tables([pq.ParquetFile(path).read() for path in live])
            plain = Path(folder) / "plain.parquet"
            pq.write_table(
                stored.sort_by([("symbol", "ascending"), ("ts", "ascending")]), plain,
                compression="zstd", compression_level=3, row_group_size=131_072,
            )  # fmt: skip
            ours, bound = sum(path.stat().st_size for path in live), plain.stat().st_size
            rows = stored.num_rows
        yield Row(
            f"bytes per row, {name}",
            "pyarrow zstd 3, dictionary everywhere",
            ours / rows,
            bound / rows,
            "B",
            0.88,
        )
