"""`python -m benchmarks.encodings`: bytes and nanoseconds per value of each column, by encoding and codec.

What `storage.layout` chose is marked. Real bars are read from the folder that KLAKE_REAL_DATA
names (see tests/conftest.py); without it only the synthetic ones are measured.
"""

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from klake.ingest.files.mapping import Mapping
from klake.ingest.files.reading import Kind, mapping_of, pieces
from klake.schemas.derive import derived
from klake.schemas.freq import Freq
from klake.storage.layout import ROW_GROUP, writer_options

from .data import NOW, daily, minutes, sessions
from .timing import once

__all__ = ["main", "measured", "real", "synthetic"]

_MINUTES = Mapping(Freq.M1, label="end", zone="Asia/Shanghai")
_REAL: dict[str, tuple[Kind, Mapping | None]] = {
    "cn/czsc/000001.XSHG_1min.zip": ("csv", _MINUTES),
    "us/lean/hour/aapl.zip": ("lean", None),
    "us/lean/daily/aapl.zip": ("lean", None),
    "us/lean/daily/spy.zip": ("lean", None),
    "cn/hikyuu/sh600000.day": ("tdx", None),
}
_COLUMNS = ("ts", "session", "open", "close", "volume", "amount")
_CHOICES = [
    ("RLE_DICTIONARY", "zstd"), ("RLE_DICTIONARY", "snappy"), ("BYTE_STREAM_SPLIT", "zstd"),
    ("DELTA_BINARY_PACKED", "zstd"), ("PLAIN", "zstd"), ("PLAIN", "snappy"),
]  # fmt: skip
_RUNS = 9


def real() -> Iterator[tuple[str, Freq, pa.Table]]:
    """Yield the name, the freq and the bars of every real source that is there, sorted as they are stored."""
    home = Path(os.environ.get("KLAKE_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data")
    for name, (kind, said) in _REAL.items():
        if (home / name).exists():
            mapping = said or mapping_of(home / name, kind)
            bars = [_bars(part.table, mapping) for part in pieces(home / name, mapping, kind)]
            yield (
                name,
                mapping.freq,
                pa.concat_tables(bars).sort_by([("symbol", "ascending"), ("ts", "ascending")]),
            )


def synthetic() -> Iterator[tuple[str, Freq, pa.Table]]:
    """Yield the same of made up bars."""
    days = sessions(250, "2026-01-01")
    yield "synthetic, 800 symbols", Freq.D1, daily(800, days)
    yield "synthetic, 60 symbols", Freq.M1, minutes(60, days[:20])


def measured(rows: pa.Table, column: str, encoding: str, codec: str) -> tuple[float, float] | None:
    """Return bytes and nanoseconds (DuckDB, one thread) per value of one column; None: it cannot be so."""
    kind = rows.schema.field(column).type
    if rows[column].null_count == len(rows) or (
        encoding == "DELTA_BINARY_PACKED" and pa.types.is_floating(kind)
    ):
        return None
    options = writer_options(rows.schema)
    options |= {
        "use_dictionary": encoding == "RLE_DICTIONARY",
        "compression": codec,
        "row_group_size": ROW_GROUP,
    }
    options["column_encoding"] = None if encoding == "RLE_DICTIONARY" else {column: encoding}
    options["compression_level"] = 3 if codec == "zstd" else None
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/one.parquet"
        pq.write_table(rows.select([column]), path, **options)
        meta = pq.read_metadata(path)
        size = sum(meta.row_group(n).column(0).total_compressed_size for n in range(meta.num_row_groups))
        return size / len(rows), _decoding_ns(path, column) / len(rows)


def _decoding_ns(path: str, column: str) -> float:
    plain = {"ts": "epoch_us(ts)", "session": "session - DATE '1970-01-01'"}.get(column, column)
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SET parquet_metadata_cache = true")
        # Sixteen times, because a small file takes less than the query around it.
        listed = ", ".join([f"'{path}'"] * 16)

        def ask() -> object:
            return con.sql(f"SELECT sum({plain}) FROM read_parquet([{listed}])").fetchall()

        ask()
        return min(_cpu_ns(ask) for _ in range(_RUNS)) / 16


def _cpu_ns(call: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    once(call)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e9


def _bars(table: pa.Table, mapping: Mapping) -> pa.Table:
    return derived(table, vendor="real", freq=mapping.freq, now=NOW, declared=mapping.declared).bars


def main() -> None:
    """Print the table."""
    for name, freq, rows in chain(synthetic(), real()):
        print(f"\n{name}: {freq}, {rows.num_rows} rows")
        chosen = writer_options(rows.schema, freq)
        for column in _COLUMNS:
            for encoding, codec in _CHOICES:
                if (found := measured(rows, column, encoding, codec)) is not None:
                    ours = _is_ours(chosen, column, encoding, codec)
                    print(f"  {column:8} {encoding:20} {codec:7} {found[0]:7.3f} B {found[1]:6.1f} ns {ours}")


def _is_ours(chosen: dict[str, Any], column: str, encoding: str, codec: str) -> str:
    codecs = chosen["compression"]
    mine = codecs[column] if isinstance(codecs, dict) else cast(str, codecs)
    return (
        "<- ours"
        if chosen["column_encoding"].get(column, "RLE_DICTIONARY") == encoding and mine == codec
        else ""
    )


if __name__ == "__main__":
    main()
