"""Bars of a higher freq from all bars of a lower one, made file by file: nothing is sorted as a whole.

A file is sorted by (symbol, ts), so what one bar of the higher freq is made of stands together in
it; what two files share of one is joined at the end.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import LakeDamaged
from ..schemas.bar import PARTITION, SCHEMA
from ..schemas.compute import pc
from ..schemas.freq import Freq
from ..schemas.resample import EXTENDED, joined, part, resample
from . import read
from .index import Held, index_of
from .manifest import Manifest
from .rowgroups import shared

__all__ = ["resampled"]

_NEEDED: Final = ("symbol", "ts", "session", "open", "high", "low", "close", "volume")
_AT_ONCE: Final = 24
"""Row groups that are decoded at once, about 1.5 M rows."""


def resampled(
    con: duckdb.DuckDBPyConnection,
    root: str,
    manifest: Manifest,
    wanted: read.Wanted,
    freq: Freq,
    columns: Sequence[str],
) -> pa.Table:
    """Return the bars of `freq` that the wanted bars of one lake version add up to.

    n rows × `columns`, ascending by (symbol, ts), as `schemas.resample.resample` makes them of
    `read.bars`; see there for what is asked and raised. Columns that decide of
    nothing asked for are not read: fetched_at without state, flags where none keeps a bar out of a day.
    """
    names = _inner(columns, freq)
    live = read.held(index_of(manifest), wanted)
    made = None
    if live and wanted.symbols is None and wanted.states is None and read.alone(manifest, live, wanted):
        made = _by_file(root, live, wanted, freq, names)
    if made is None:
        bars = read.bars(con, root, manifest, wanted, list(dict.fromkeys([*names, "flags"])))
        made = resample(bars, freq, source=wanted.freq)
    return made.select(list(columns)).cast(pa.schema([SCHEMA.field(name) for name in columns]))


def _inner(columns: Sequence[str], freq: Freq) -> list[str]:
    """Return the columns that must be read for `columns`."""
    more = ("fetched_at",) if "state" in columns else ()
    asked = {*columns, *_NEEDED, *more}
    return [name for name in SCHEMA.names if name in asked]


def _by_file(
    root: str, live: Sequence[Held], wanted: read.Wanted, freq: Freq, names: Sequence[str]
) -> pa.Table | None:
    """Return the bars made of each file by itself, joined; None where a file is not in order, or they interleave."""
    if not all(shared().footer(f"{root}/{held.file.path}").regular for held in live):
        return None
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(live))) as pool:
        found = list(pool.map(lambda held: _of_file(root, held, wanted, freq, names), live))
    parts = [one for one in found if one is not None]
    if not parts:
        return pa.schema([SCHEMA.field(name) for name in names]).empty_table()
    return joined(pa.concat_tables(parts), freq)


def _of_file(root: str, held: Held, wanted: read.Wanted, freq: Freq, names: Sequence[str]) -> pa.Table | None:
    extended = not freq.intraday and not _regular_hours(shared().footer(f"{root}/{held.file.path}").meta)
    parts: list[pa.Table] = []
    for rows in _pieces(root, held, wanted, list(dict.fromkeys([*names, *(["flags"] if extended else [])]))):
        if extended:
            inside = pc.equal(pc.bit_wise_and(rows["flags"], pa.scalar(EXTENDED, pa.int32())), 0)
            rows = rows.filter(inside).select(list(names))
        if rows.num_rows:
            parts.append(part(rows, freq, wanted.freq))
    return pa.concat_tables(parts) if parts else None


def _regular_hours(meta: pq.FileMetaData) -> bool:
    """Say whether a file's statistics prove that none of its bars is of extended hours."""
    place = meta.schema.names.index("flags")
    found = [meta.row_group(n).column(place).statistics for n in range(meta.num_row_groups)]
    return all(s is not None and s.has_min_max and s.min == s.max and not s.min & EXTENDED for s in found)


def _pieces(root: str, held: Held, wanted: read.Wanted, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the wanted rows of a file."""
    path = f"{root}/{held.file.path}"
    footer = shared().footer(path)
    stored = [name for name in names if name not in PARTITION]
    try:
        with pq.ParquetFile(
            path, metadata=footer.meta, memory_map=True, pre_buffer=False, read_dictionary=["symbol", "state"]
        ) as file:
            for first in range(0, len(footer.lows), _AT_ONCE):
                groups = range(first, min(first + _AT_ONCE, len(footer.lows)))
                rows = _within(file.read_row_groups(list(groups), columns=stored, use_threads=False), wanted)
                columns = [
                    pa.repeat(held.where.values[name], rows.num_rows) if name in PARTITION else rows[name]
                    for name in names
                ]
                yield pa.table(columns, names=list(names))
    except (OSError, pa.ArrowException) as error:
        raise LakeDamaged(
            f"{path}: the lake names this file but it cannot be read ({error})",
            f"{path}：数据湖引用了该文件，但无法读取（{error}）",
        ) from error


def _within(rows: pa.Table, wanted: read.Wanted) -> pa.Table:
    """Return the rows whose keys are in bounds."""
    low, high = wanted.bounds
    if low is None and high is None:
        return rows
    keys = rows[wanted.key].cast(pa.int64() if wanted.key == "ts" else pa.int32())
    inside = pc.greater_equal(keys, low) if low is not None else pc.is_valid(keys)
    if high is not None:
        inside = pc.and_(inside, pc.less(keys, high))
    return rows.filter(inside)
