"""Row groups in memory: footers and decoded columns, kept per immutable file for the whole process.

Data files are sorted by (symbol, ts), so the bars of one symbol are a contiguous slice of one
or two row groups of each file. A decoded row group also answers for its some hundred other
symbols, which makes a loop over a universe cost one decoding per row group. Nothing can be
stale: a data file never changes, and a new commit names new files.
"""

import os
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import LakeDamaged
from ..schemas.bar import PARTITION, SCHEMA, TIME

__all__ = ["BUDGET", "Footer", "RowGroup", "RowGroups", "shared"]

BUDGET: Final = 2**30
"""Bytes of decoded columns that a process keeps at most, or an eighth of the machine's memory if that
is less; the least lately used go first."""

_FOOTERS: Final = 4_096
_STORED: Final = {field.name: field.type for field in SCHEMA if field.name not in PARTITION}
_TEXTS: Final = ("symbol", "state")
_OFTEN_ALIKE: Final = ("state", "flags", "fetched_at", "known_at")
_Column = Any  # a pyarrow Array, or a Scalar where all rows are alike


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file's end says: for each row group its lowest and highest symbol.

    `regular`: the columns are those of a data file and the row groups are in order of symbol,
    as klake writes them; files of other writers need not be, and are read by SQL.
    """

    meta: Any
    lows: tuple[str, ...]
    highs: tuple[str, ...]
    regular: bool

    def size_of(self, place: int) -> int:
        """Return the compressed bytes of a row group."""
        group = self.meta.row_group(place)
        return sum(int(group.column(n).total_compressed_size) for n in range(self.meta.num_columns))

    def holding(self, symbol: str) -> range:
        """Return the row groups that can hold `symbol`; of a regular file only."""
        first = bisect_left(self.highs, symbol)
        last = first
        while last < len(self.lows) and self.lows[last] <= symbol:
            last += 1
        return range(first, last)


@dataclass(slots=True)
class RowGroup:
    """One decoded row group: where each symbol's rows lie, and the columns read so far.

    A column that holds one value only is a scalar.
    """

    path: str
    place: int
    symbols: list[str]
    starts: list[int]
    columns: dict[str, _Column] = field(default_factory=dict[str, _Column])
    keys: dict[str, Any] = field(default_factory=dict[str, Any])
    size: int = 0

    def rows_of(self, symbol: str, key: str, low: int | None, high: int | None) -> tuple[int, int]:
        """Return the half-open rows of `symbol` with `low` ≤ `key` < `high`."""
        at = bisect_left(self.symbols, symbol)
        if at == len(self.symbols) or self.symbols[at] != symbol:
            return 0, 0
        start, end = self.starts[at], self.starts[at + 1]
        keys = self.keys[key][start:end]
        first = 0 if low is None else int(np.searchsorted(keys, low))
        last = len(keys) if high is None else int(np.searchsorted(keys, high))
        return start + first, start + max(first, last)

    def rows_between(self, key: str, low: int, high: int) -> Any:
        """Return the places (a NumPy array) of all rows with `low` ≤ `key` < `high`, ascending."""
        keys = self.keys[key]
        return np.flatnonzero((keys >= low) & (keys < high))

    def symbols_at(self, rows: Any) -> pa.Array:
        """Return the symbols of the rows at these places."""
        runs = np.searchsorted(np.asarray(self.starts), rows, side="right") - 1
        return pa.array(self.symbols).take(pa.array(runs))


class RowGroups:
    """Footers and row groups read so far; threads may share it."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._guard = Lock()
        self._footers: OrderedDict[str, Footer] = OrderedDict()
        self._held: OrderedDict[tuple[str, int], RowGroup] = OrderedDict()
        self._asked: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._size = 0

    def footer(self, path: str) -> Footer:
        """Return the footer of the file at `path`; LakeDamaged when it cannot be read."""
        with self._guard:
            if (found := self._footers.get(path)) is not None:
                self._footers.move_to_end(path)
                return found
        made = _footer(path)
        with self._guard:
            self._footers[path] = made
            while len(self._footers) > _FOOTERS:
                self._footers.popitem(last=False)
        return made

    def lacking(self, wanted: Iterable[tuple[str, int]], columns: Sequence[str]) -> int:
        """Return how many of the row groups (path, place) would have to be read first."""
        with self._guard:
            return sum((held := self._held.get(one)) is None or not _has(held, columns) for one in wanted)

    def asked(self, wanted: Iterable[tuple[str, int]]) -> bool:
        """Return whether every one of the row groups was noted lately."""
        with self._guard:
            return all(one in self._asked for one in wanted)

    def note(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Remember that the row groups were asked for: who asks again may go on asking."""
        with self._guard:
            for one in wanted:
                self._asked[one] = None
                self._asked.move_to_end(one)
            while len(self._asked) > _FOOTERS:
                self._asked.popitem(last=False)

    def read(
        self, wanted: Iterable[tuple[str, int]], columns: Sequence[str], key: str
    ) -> dict[tuple[str, int], RowGroup] | None:
        """Return row groups by (path, place) with `columns` and `key`; None: one is not in order."""
        names = [key, *(name for name in columns if name not in {*PARTITION, key, "symbol"})]
        out: dict[tuple[str, int], RowGroup] = {}
        missing: list[tuple[str, int]] = []
        with self._guard:
            for one in wanted:
                found = self._held.get(one)
                if found is not None and _has(found, names):
                    self._held.move_to_end(one)
                    out[one] = found
                else:
                    missing.append(one)
        for one in missing:
            made = self._made(one, names, key)
            if made is None:
                return None
            out[one] = made
        return out

    def clear(self) -> None:
        """Forget everything, as a new process would."""
        with self._guard:
            self._footers.clear()
            self._held.clear()
            self._asked.clear()
            self._size = 0

    def _made(self, one: tuple[str, int], names: Sequence[str], key: str) -> RowGroup | None:
        path, place = one
        before = self._held.get(one)
        lacking = [name for name in names if before is None or name not in before.columns]
        made = _decoded(path, place, self.footer(path), lacking, before)
        if made is None or not _ascending(made, key):
            return None
        with self._guard:
            old = self._held.pop(one, None)
            self._size += made.size - (0 if old is None else old.size)
            self._held[one] = made
            while self._size > self._budget and len(self._held) > 1:
                self._size -= self._held.popitem(last=False)[1].size
        return made


@cache
def shared() -> RowGroups:
    """Return the one that all lakes of this process share."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        memory = 4 * BUDGET
    return RowGroups(min(BUDGET, memory // 8))


if hasattr(os, "register_at_fork"):  # a child may have been forked while a thread held the lock
    os.register_at_fork(after_in_child=shared.cache_clear)


def _has(held: RowGroup, columns: Iterable[str]) -> bool:
    return all(name in held.columns or name in PARTITION or name == "symbol" for name in columns)


def _footer(path: str) -> Footer:
    try:
        meta = pq.read_metadata(path)
        schema = meta.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    lows, highs = list[str](), list[str]()
    regular = all(name in schema.names for name in _STORED) and schema.field("ts").type == TIME
    at = schema.names.index("symbol") if regular else 0
    for place in range(meta.num_row_groups if regular else 0):
        bounds = meta.row_group(place).column(at).statistics
        if bounds is None or not bounds.has_min_max:
            regular = False
            break
        lows.append(str(bounds.min))
        highs.append(str(bounds.max))
    ordered = all(low <= high for low, high in zip(lows, highs, strict=True)) and all(
        high <= low for high, low in zip(highs, lows[1:], strict=False)
    )
    return Footer(meta, tuple(lows), tuple(highs), regular and ordered)


def _decoded(
    path: str, place: int, footer: Footer, names: Sequence[str], before: RowGroup | None
) -> RowGroup | None:
    """Return the row group with `names` beside what was read before; None where its symbols are not in order."""
    alike = _alike(footer, place, [name for name in names if name in _OFTEN_ALIKE])
    asked = [name for name in names if name not in alike] + ([] if before else ["symbol"])
    try:
        with pq.ParquetFile(
            path, metadata=footer.meta, memory_map=True, pre_buffer=False, read_dictionary=list(_TEXTS)
        ) as file:
            rows = file.read_row_group(place, columns=asked, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    if before is None:
        symbols, starts = _runs(rows["symbol"])
        if any(left >= right for left, right in pairwise(symbols)):
            return None
        made = RowGroup(path, place, symbols, starts)
    else:
        made = RowGroup(path, place, before.symbols, before.starts, {**before.columns}, {**before.keys})
    for name in asked:
        if name != "symbol":
            made.columns[name] = _plain(rows[name], _STORED[name])
    made.columns.update(alike)
    made.size = sum(c.nbytes for c in made.columns.values() if isinstance(c, pa.Array)) + 100 * len(
        made.symbols
    )
    return made


def _alike(footer: Footer, place: int, names: Sequence[str]) -> dict[str, _Column]:
    """Return those columns that the footer proves to hold one value; they need not be read."""
    group, columns = footer.meta.row_group(place), footer.meta.schema.names
    out: dict[str, _Column] = {}
    for name in names:
        bounds = group.column(columns.index(name)).statistics
        if bounds is not None and bounds.has_min_max and bounds.null_count == 0 and bounds.min == bounds.max:
            out[name] = pa.scalar(bounds.min, _STORED[name])
    return out


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        return array
    return array if array.type == kind else array.cast(kind)


def _runs(column: pa.ChunkedArray) -> tuple[list[str], list[int]]:
    """Return the symbols as they follow each other, and where each begins, with the end last."""
    array = _plain(column.unify_dictionaries(), pa.string())
    codes = array.indices.to_numpy()
    begins = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1])[: len(codes)]
    symbols = array.dictionary.take(pa.array(codes[begins])).to_pylist()
    return symbols, [*begins.tolist(), len(codes)]


def _ascending(made: RowGroup, key: str) -> bool:
    """Say whether the keys ascend within every symbol; keeps them for searching."""
    if key in made.keys:
        return True
    column = made.columns[key]
    keys = column.cast(pa.int32() if key == "session" else pa.int64()).to_numpy()
    rises = np.diff(keys) > 0
    rises[np.asarray(made.starts[1:-1], dtype=np.int64) - 1] = True
    made.keys[key] = keys
    return bool(rises.all())


def _unreadable(path: str, error: Exception) -> LakeDamaged:
    return LakeDamaged(
        f"{path}: the lake names this file but it cannot be read ({error}): `klake doctor --repair` mends the lake",
        f"{path}：数据湖引用了该文件，但无法读取（{error}）：`klake doctor --repair` 可以修复",
    )
