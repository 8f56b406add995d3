"""Bytes per row of the files that bars are stored in."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from klake.schemas.clock import ManualClock
from klake.storage.layout import ROW_GROUP, writer_options
from klake.storage.store import Store

from .data import NOW, Scale, daily, minutes, sessions
from .encodings import real
from .timing import Row

__all__ = ["sizes"]


def sizes(scale: Scale) -> Iterator[Row]:
    """Bytes per row against a dictionary for every column: made up bars in a lake, real ones (if any) in a file.

    A lake of one real series has files of a year, 250 rows, whose footers outweigh them.
    """
    year, month = sessions(250, "2026-01-01"), sessions(20, "2026-08-01")
    cases = {"daily": daily(scale.symbols, year), "1m": minutes(scale.minute_symbols, month)}
    for name, table in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            store = Store.open(f"{folder}/lake", ManualClock(NOW), create=True)
            store.upsert(table)
            live = [Path(store.path) / file.path for file in store.snapshot().of("bars")]
            stored = pa.concat_tables([pq.ParquetFile(path).read() for path in live])
            ours = sum(path.stat().st_size for path in live)
        yield _row(name, stored.sort_by([("symbol", "ascending"), ("ts", "ascending")]), ours)
    for name, freq, table in real():
        stored = table.drop_columns(["vendor", "freq"])
        shape = {"row_group_size": ROW_GROUP, **writer_options(stored.schema, freq)}
        yield _row(f"{freq} of {Path(name).name}", stored, _size(stored, **shape))


def _row(name: str, stored: pa.Table, ours: int) -> Row:
    bound = _size(stored, compression="zstd", compression_level=3, row_group_size=131_072)
    rows = stored.num_rows
    return Row(
        f"bytes per row, {name}",
        "pyarrow zstd 3, dictionary everywhere",
        ours / rows,
        bound / rows,
        "B",
        0.88,
    )


def _size(rows: pa.Table, **options: object) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, **options)
    return int(sink.getvalue().size)
