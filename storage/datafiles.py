"""Parquet files of a lake: written whole and durable, or not there at all."""

import json
import math
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ..errors import LakeDamaged
from .layout import ROW_GROUP, Partition, writer_options
from .objects import sync_directory

_compute: Final[Any] = pyarrow.compute  # its functions are made at run time: no checker knows them

__all__ = [
    "DataFile",
    "Facts",
    "Sink",
    "examine",
    "facts",
    "is_whole",
    "put",
    "read",
    "read_between",
    "write",
]


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


class Sink:
    """One data file being written; rows come sorted, in any number of pieces, and are cut into row groups here.

    Nobody sees the file before `close`; `abandon` leaves nothing.
    """

    def __init__(self, lake: str, path: str, schema: pa.Schema, partition: Partition | None = None) -> None:
        self.path, self._partition = path, partition
        self._target = Path(lake) / path
        self._target.parent.mkdir(parents=True, exist_ok=True)
        # The name says when and for which write it was made, and two writers of one target never meet.
        self._draft = self._target.with_name(f".{self._target.stem}.{uuid4().hex}.writing")
        self._file = self._draft.open("wb")
        self._footers: list[pq.FileMetaData] = []
        freq = partition.freq if partition else None
        self._writer = pq.ParquetWriter(
            self._file, schema, metadata_collector=self._footers, **writer_options(schema, freq)
        )
        self._rest = schema.empty_table()
        self._symbols: set[str] = set()
        self._encoder: ThreadPoolExecutor | None = None
        self._encoding: Future[None] | None = None
        self.rows = 0

    def write(self, rows: pa.Table) -> None:
        """Add rows at the end; they are in memory until a row group is full."""
        if self._partition is not None:
            self._symbols.update(rows["symbol"].unique().to_pylist())
        self.rows += rows.num_rows
        together = pa.concat_tables([self._rest, rows]) if self._rest.num_rows else rows
        whole = together.num_rows // ROW_GROUP * ROW_GROUP
        if whole:
            self._encode(together.slice(0, whole))
        # Copied where a slice would keep many more rows in memory than its own.
        rest = together.slice(whole)
        self._rest = rest.take(pa.array(np.arange(rest.num_rows))) if whole > 4 * ROW_GROUP else rest

    def _encode(self, rows: pa.Table) -> None:
        """Encode whole row groups while the caller makes the next ones, which takes about as long."""
        self._encoded()
        self._encoder = self._encoder or ThreadPoolExecutor(1)
        self._encoding = self._encoder.submit(self._writer.write_table, rows, ROW_GROUP)

    def _encoded(self) -> None:
        if self._encoding is not None:
            self._encoding.result()
            self._encoding = None

    def close(self) -> DataFile:
        """Return the file, durable and whole under its name."""
        try:
            self._encoded()
            if self._rest.num_rows:
                self._writer.write_table(self._rest, row_group_size=ROW_GROUP)
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._draft.replace(self._target)
        finally:
            self.abandon()
        sync_directory(self._target.parent)
        size = self._target.stat().st_size
        spans = _spans(self._footers[0])
        made = _facts_of(self.rows, size, spans.get(_key(self._partition)), frozenset(self._symbols))
        return DataFile(self.path, size, self._partition, _stats(self.rows, spans), made)

    def abandon(self) -> None:
        """Leave no draft; does nothing after `close`."""
        if self._encoder is not None:
            self._encoder.shutdown(wait=True)
        self._writer.is_open = False  # else its finaliser writes a footer into the closed file, and complains
        self._file.close()
        self._draft.unlink(missing_ok=True)


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
    partition = Partition.parse(path) if path.startswith("bars/") else None
    return _whole(Sink(lake, path, rows.schema, partition), rows)


def put(lake: str, path: str, rows: pa.Table) -> Path:
    """Return where `rows` are durable now, as `write` does, for files that no commit names."""
    _whole(Sink(lake, path, rows.schema), rows)
    return Path(lake) / path


def _whole(sink: Sink, rows: pa.Table) -> DataFile:
    try:
        sink.write(rows)
        return sink.close()
    finally:
        sink.abandon()


def read(lake: str, path: str, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of one file, without its partition columns; LakeDamaged when it cannot be read."""
    try:
        # Not pq.read_table: it would take partition columns from the path as dictionaries.
        # Checksums, because what is read here is mostly written again: damage would become good data.
        with pq.ParquetFile(Path(lake) / path, page_checksum_verification=True) as file:
            return cast(pa.Table, file.read(columns=columns))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_between(
    lake: str, path: str, after: str | None, upto: str | None, columns: list[str] | None = None
) -> pa.Table:
    """Return the rows of a file of bars with after < symbol <= upto (None: no bound), in the file's order.

    Only the row groups that can hold such a symbol are read.
    """
    if after is None and upto is None:
        return read(lake, path, columns)
    names = columns if columns is None or "symbol" in columns else [*columns, "symbol"]
    try:
        with pq.ParquetFile(Path(lake) / path, page_checksum_verification=True) as file:
            rows = cast(pa.Table, file.read_row_groups(_groups(file.metadata, after, upto), columns=names))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    symbol, inside = rows["symbol"], pa.scalar(True)
    if after is not None:
        inside = _compute.and_(_compute.greater(symbol, after), inside)
    if upto is not None:
        inside = _compute.and_(_compute.less_equal(symbol, upto), inside)
    return rows.filter(inside)


def _groups(footer: pq.FileMetaData, after: str | None, upto: str | None) -> list[int]:
    place = footer.schema.names.index("symbol")
    spans = [footer.row_group(n).column(place).statistics for n in range(footer.num_row_groups)]
    return [
        n for n, span in enumerate(spans)
        if span is None or not span.has_min_max
        or ((after is None or span.max > after) and (upto is None or span.min <= upto))
    ]  # fmt: skip


def facts(lake: str, path: str) -> Facts:
    """Return what a file of the lake holds, by its footer and its symbols."""
    return examine(lake, path).facts


def is_whole(lake: str, path: str) -> bool:
    """Say whether a file is there and its footer can be read."""
    try:
        pq.read_metadata(Path(lake) / path)
    except (OSError, pa.ArrowException):
        return False
    return True


def examine(lake: str, path: str, *, symbols: bool = True) -> DataFile:
    """Return a file of the lake as `write` gave it; its footer tells all but the symbols, left out on demand."""
    partition = Partition.parse(path) if path.startswith("bars/") else None
    target = Path(lake) / path
    try:
        footer = pq.read_metadata(target)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    held = read(lake, path, ["symbol"])["symbol"].unique().to_pylist() if partition and symbols else []
    size, spans = target.stat().st_size, _spans(footer)
    made = _facts_of(footer.num_rows, size, spans.get(_key(partition)), frozenset(held))
    return DataFile(path, size, partition, _stats(footer.num_rows, spans), made)


def _unreadable(path: str, error: Exception) -> LakeDamaged:
    return LakeDamaged(
        f"{path}: the lake names this file but it cannot be read ({error}): `klake doctor --repair` mends the lake",
        f"{path}：数据湖引用了该文件，但无法读取（{error}）：`klake doctor --repair` 可以修复",
    )


def _key(partition: Partition | None) -> str:
    if partition is None:
        return "id"
    return "ts" if partition.freq.intraday else "session"


def _facts_of(rows: int, size: int, span: "_Span | None", symbols: frozenset[str]) -> Facts:
    if span is None or span.low_key is None or span.high_key is None:
        return Facts(rows, size, "", "", frozenset())
    return Facts(rows, size, span.low_key, span.high_key, symbols)


@dataclass(slots=True)
class _Span:
    """The least and greatest value of one column, also as a key of the manifest, and its nulls."""

    low: Any = None
    high: Any = None
    low_key: int | str | None = None
    high_key: int | str | None = None
    nulls: int = 0


def _spans(footer: pq.FileMetaData) -> dict[str, _Span]:
    """Return the span of every column, by the statistics of its row groups."""
    found = {name: _Span() for name in footer.schema.names}
    for group in range(footer.num_row_groups):
        for place, name in enumerate(footer.schema.names):
            part, span = footer.row_group(group).column(place).statistics, found[name]
            if part is None:
                continue
            span.nulls += part.null_count or 0
            if not part.has_min_max:
                continue
            if span.low is None or part.min < span.low:
                span.low, span.low_key = part.min, _plain_key(part.min_raw)
            if span.high is None or part.max > span.high:
                span.high, span.high_key = part.max, _plain_key(part.max_raw)
    return found


def _plain_key(raw: object) -> int | str | None:
    if isinstance(raw, bytes):
        return raw.decode()
    return raw if isinstance(raw, (int, str)) else None


def _stats(rows: int, spans: dict[str, _Span]) -> str:
    """Return Delta's statistics of a file, by which other readers skip it."""
    plain = {name: (_plain(span.low), _plain(span.high)) for name, span in spans.items()}
    both = {name: pair for name, pair in plain.items() if None not in pair}
    low, high = ({name: pair[end] for name, pair in both.items()} for end in (0, 1))
    nulls = {name: span.nulls for name, span in spans.items()}
    return json.dumps({"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls})


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
