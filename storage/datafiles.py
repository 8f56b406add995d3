"""Parquet files of a lake: written whole and durable, or not there at all."""

import json
import math
import os
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ..errors import LakeDamaged
from .layout import ROW_GROUP, Partition, writer_options
from .objects import sync_directory

_compute: Final[Any] = pyarrow.compute  # its functions are made at run time: no checker knows them

__all__ = ["DataFile", "Facts", "facts", "put", "read", "write"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What one file holds: rows, bytes, its lowest and highest key, and every symbol.

    Keys are us of `ts` (intraday bars), days of `session` (daily and longer), or `id` (other
    tables). `symbols` is exact for bars and empty for other tables.
    """

    rows: int
    size_bytes: int
    low: int | str
    high: int | str
    symbols: frozenset[str]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file that was written and is ready to be committed; `path` is relative to the lake."""

    path: str
    size_bytes: int
    partition: Partition | None
    stats: str
    facts: Facts


def write(lake: str, path: str, rows: pa.Table) -> DataFile:
    """Return the file that now holds `rows`, durable, under a name that no glob saw before it was whole.

    Parameters
    ----------
    lake : str
        The lake's folder.
    path : str
        Where the file goes, relative to the lake.
    rows : pyarrow.Table
        The columns of a data file, sorted as they shall be stored.
    """
    target = put(lake, path, rows)
    partition = Partition.parse(path) if path.startswith("bars/") else None
    size = target.stat().st_size
    return DataFile(path, size, partition, _stats(rows), _facts(rows, size, partition))


def put(lake: str, path: str, rows: pa.Table) -> Path:
    """Return where `rows` are durable now, as `write` does, for files that no commit names."""
    target = Path(lake) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{uuid4().hex}.writing")
    try:
        with draft.open("wb") as file:
            pq.write_table(rows, file, row_group_size=ROW_GROUP, **writer_options(rows.schema))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(target.parent)
    return target


def read(lake: str, path: str, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of one file, without its partition columns; LakeDamaged when it cannot be read."""
    try:
        # Not pq.read_table: it would take partition columns from the path as dictionaries.
        with pq.ParquetFile(Path(lake) / path) as file:
            return cast(pa.Table, file.read(columns=columns))
    except (OSError, pa.ArrowException) as error:
        raise LakeDamaged(
            f"{path}: the lake names this file but it cannot be read ({error})",
            f"{path}：数据湖引用了该文件，但无法读取（{error}）",
        ) from error


def facts(lake: str, path: str) -> Facts:
    """Return what a file of the lake holds, by reading its key columns."""
    partition = Partition.parse(path) if path.startswith("bars/") else None
    key = _key(partition)
    rows = read(lake, path, ["symbol", key] if partition else [key])
    return _facts(rows, (Path(lake) / path).stat().st_size, partition)


def _key(partition: Partition | None) -> str:
    if partition is None:
        return "id"
    return "ts" if partition.freq.intraday else "session"


def _facts(rows: pa.Table, size: int, partition: Partition | None) -> Facts:
    key = _key(partition)
    if key not in rows.column_names or rows.num_rows == 0:
        return Facts(rows.num_rows, size, "", "", frozenset())
    column = rows[key]
    if partition is not None:
        column = column.cast(pa.int64() if key == "ts" else pa.int32())
    span = _compute.min_max(column).as_py()
    symbols = frozenset(rows["symbol"].unique().to_pylist()) if partition else frozenset[str]()
    return Facts(rows.num_rows, size, span["min"], span["max"], symbols)


def _stats(rows: pa.Table) -> str:
    """Return Delta's statistics of a file, by which other readers skip it."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    for name in rows.column_names if rows.num_rows else ():
        span = _compute.min_max(rows[name]).as_py()
        if (least := _plain(span["min"])) is not None and (most := _plain(span["max"])) is not None:
            low[name], high[name] = least, most
    nulls = {name: rows[name].null_count for name in rows.column_names}
    return json.dumps({"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls})


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
