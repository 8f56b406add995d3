"""What comes in, by partition: row numbers only, so that a batch of any size is held once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import polars as pl
import pyarrow as pa

from ..errors import BadRequest
from ..schemas.bar import INCOMING, STATE_RANK, VALUES, State, key_of
from ..schemas.freq import Freq
from ..schemas.vendor import vendor_name
from .layout import CURRENT, Partition

__all__ = ["Batch", "batches", "rank", "short_key"]

_SLICE: Final = 1_048_576
_CRUMBS: Final = 262_144  # smaller chunks are put together, or the work per chunk would count
_STORED: Final = [name for name in INCOMING.names if name not in {"vendor", "freq"}]
_BODY: Final = pa.schema([INCOMING.field(name) for name in _STORED])
_Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class _Share:
    """The rows of one partition in one slice of the input, ascending by symbol."""

    rows: pa.RecordBatch
    places: _Numbers
    symbols: _Numbers


@dataclass(slots=True)
class Batch:
    """The rows that came in for one partition of era current.

    `symbols` are those of the whole input, ascending; `counts` are the rows of each here.
    `low` and `high` are keys as the manifest holds them.
    """

    partition: Partition
    symbols: Sequence[str]
    counts: _Numbers
    low: int
    high: int
    shared_by: list[_Share] = field(default_factory=list[_Share])

    @property
    def rows(self) -> int:
        """How many rows there are, repeated keys counted."""
        return int(self.counts.sum())

    def held(self) -> set[str]:
        """Return the symbols that have a row here."""
        return {self.symbols[place] for place in np.flatnonzero(self.counts).tolist()}

    def take(self, after: str | None, upto: str | None) -> pa.Table:
        """Return the rows with after < symbol <= upto (None: no bound), one per key: the one that wins.

        n rows × the columns of INCOMING inside a partition, ascending by (symbol, time of the key).
        """
        first = 0 if after is None else int(np.searchsorted(self.symbols, after, "right"))
        last = len(self.symbols) if upto is None else int(np.searchsorted(self.symbols, upto, "right"))
        parts, codes = list[pa.RecordBatch](), list[_Numbers]()
        for share in self.shared_by:
            begin, end = np.searchsorted(share.symbols, [first, last])
            if end > begin:
                parts.append(_typed(share.rows, _STORED, share.places[begin:end]))
                codes.append(share.symbols[begin:end])
        if not parts:
            return _BODY.empty_table()
        return _ordered(pa.Table.from_batches(parts, _BODY), np.concatenate(codes), self.partition.freq)


def batches(bars: pa.Table) -> list[Batch]:
    """Return `bars` by partition, in order of partition.

    Parameters
    ----------
    bars : pyarrow.Table
        The columns of `schemas.bar.INCOMING` in any order; any vendors, freqs, symbols and
        order; keys may repeat.

    Raises
    ------
    BadRequest
        A column is missing or null, or a vendor, freq or state is unknown.
    """
    slices = [_checked(rows) for rows in _slices(bars)]
    symbols = sorted({name for rows in slices for name in _distinct(rows, "symbol")})
    places = {name: place for place, name in enumerate(symbols)}
    out: dict[Partition, Batch] = {}
    for rows in slices:
        codes = _codes(rows, "symbol", places)
        for partition, numbers in _split(rows).items():
            mine = codes[numbers]
            order = (
                numbers if bool((mine[1:] >= mine[:-1]).all()) else numbers[np.argsort(mine, kind="stable")]
            )
            low, high = _span(rows, partition.freq, order)
            counts = np.bincount(codes[order], minlength=len(symbols))
            share = _Share(rows, order.astype(np.uint32), codes[order])
            if partition in out:
                batch = out[partition]
                batch.counts += counts
                batch.low, batch.high = min(batch.low, low), max(batch.high, high)
                batch.shared_by.append(share)
            else:
                out[partition] = Batch(partition, symbols, counts, low, high, [share])
    return [out[partition] for partition in sorted(out)]


def short_key(freq: Freq) -> list[str]:
    """Return the key columns inside a partition."""
    return [name for name in key_of(freq) if name not in {"vendor", "freq"}]


def rank(state: str) -> pl.Expr:
    """Return the rank of the column `state`: open before closed and final."""
    ranks = {member.value: place for member, place in STATE_RANK.items()}
    return pl.col(state).replace_strict(ranks, return_dtype=pl.Int8)


def _slices(bars: pa.Table) -> Iterator[pa.RecordBatch]:
    absent = [name for name in INCOMING.names if name not in bars.column_names]
    if absent:
        raise BadRequest("columns", ", ".join(bars.column_names), hint=f"missing: {', '.join(absent)}")
    crumbs, waiting = list[pa.RecordBatch](), 0
    for part in bars.select(INCOMING.names).to_batches(max_chunksize=_SLICE):
        large = part.num_rows >= _CRUMBS  # never put together with others, which would copy it
        if not large and part.num_rows:
            crumbs.append(part)
            waiting += part.num_rows
        if crumbs and (large or waiting >= _CRUMBS):
            yield pa.concat_batches(crumbs) if len(crumbs) > 1 else crumbs[0]
            crumbs, waiting = [], 0
        if large:
            yield part
    if crumbs:
        yield pa.concat_batches(crumbs) if len(crumbs) > 1 else crumbs[0]


def _checked(rows: pa.RecordBatch) -> pa.RecordBatch:
    _typed(rows.slice(0, 1), INCOMING.names)
    for column in INCOMING:
        if not column.nullable and rows.column(column.name).null_count:
            raise BadRequest(column.name, None, hint="this column holds no nulls")
    for name, known in (("freq", [f.value for f in Freq]), ("state", [s.value for s in State])):
        for value in _distinct(rows, name):
            if value not in known:
                raise BadRequest(name, value, tuple(known))
    for vendor in _distinct(rows, "vendor"):
        vendor_name(vendor)
    return rows


def _typed(rows: pa.RecordBatch, names: Sequence[str], places: _Numbers | None = None) -> pa.RecordBatch:
    """Return columns of some rows with the types of INCOMING."""
    schema = pa.schema([INCOMING.field(name) for name in names])
    picked = rows.select(list(names))
    if places is not None:
        picked = _taken(picked, places)
    if picked.schema.equals(schema):
        return picked
    if picked.schema.types == schema.types:
        return pa.RecordBatch.from_arrays(picked.columns, schema=schema)
    try:
        columns = [column.cast(kind.type) for column, kind in zip(picked.columns, schema, strict=True)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise BadRequest(
            "bars", str(picked.schema.names), hint=f"not as schemas.bar.INCOMING: {error}"
        ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _taken(rows: pa.RecordBatch, places: _Numbers) -> pa.RecordBatch:
    first, n = int(places[0]), len(places)
    if int(places[-1]) - first == n - 1 and bool((places[1:] > places[:-1]).all()):
        return rows.slice(first, n)
    return rows.take(pa.array(places))


def _distinct(rows: pa.RecordBatch, name: str) -> list[str]:
    return [str(value) for value in rows.column(name).unique().to_pylist()]


def _codes(rows: pa.RecordBatch, name: str, places: dict[str, int]) -> _Numbers:
    column = rows.column(name)
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    own = np.array([places[str(value)] for value in coded.dictionary.to_pylist()], np.int32)
    return cast(_Numbers, own[coded.indices.to_numpy(zero_copy_only=False)])


def _split(rows: pa.RecordBatch) -> dict[Partition, _Numbers]:
    """Return the row numbers of each partition."""
    days = _typed(rows, ["session"]).column("session").cast(pa.int32()).to_numpy()
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int32)
    vendors, freqs = (rows.column(name).dictionary_encode() for name in ("vendor", "freq"))
    names, kinds = vendors.dictionary.to_pylist(), [Freq(text) for text in freqs.dictionary.to_pylist()]
    kind = freqs.indices.to_numpy()
    periods = np.where(np.array([freq.intraday for freq in kinds])[kind], months, months // 12 * 12)
    first, width = int(periods.min()), int(periods.max() - periods.min()) + 1
    whole = (vendors.indices.to_numpy().astype(np.int64) * len(kinds) + kind) * width + (periods - first)
    order, ends = _grouped(whole)
    out: dict[Partition, _Numbers] = {}
    for code, begin, end in ends:
        series, month = divmod(code, width)
        vendor, freq = names[series // len(kinds)], kinds[series % len(kinds)]
        period = str(np.datetime64(first + month, "M"))
        where = Partition(CURRENT, vendor, freq, period if freq.intraday else period[:4])
        out[where] = order[begin:end]
    return out


def _grouped(codes: _Numbers) -> tuple[_Numbers, list[tuple[int, int, int]]]:
    """Return the places in order of code, and (code, begin, end) for each code that occurs."""
    highest = int(codes.max())
    narrow = codes.astype(np.uint16) if highest < 2**16 else codes  # 16 bits are sorted by radix
    order = np.argsort(narrow, kind="stable") if highest else np.arange(len(codes))
    found, counts = np.unique(narrow[order], return_counts=True) if highest else ([0], [len(codes)])
    ends = np.cumsum(counts)
    return order, [(int(c), int(e - n), int(e)) for c, n, e in zip(found, counts, ends, strict=True)]


def _span(rows: pa.RecordBatch, freq: Freq, places: _Numbers) -> tuple[int, int]:
    name = "ts" if freq.intraday else "session"
    column = _typed(rows, [name], places).column(name)
    numbers = column.cast(pa.int64() if freq.intraday else pa.int32()).to_numpy()
    return int(numbers.min()), int(numbers.max())


def _ordered(rows: pa.Table, codes: _Numbers, freq: Freq) -> pa.Table:
    """Return one row per key, ascending; `codes` order the symbols."""
    times = (
        rows["ts" if freq.intraday else "session"]
        .cast(pa.int64() if freq.intraday else pa.int32())
        .to_numpy()
    )
    order = None
    if not _ascending(codes, times):
        order = np.lexsort((times, codes))
        codes, times = codes[order], times[order]
    if ((codes[1:] == codes[:-1]) & (times[1:] == times[:-1])).any():
        frame = _best(cast(pl.DataFrame, pl.from_arrow(rows)), freq).sort(short_key(freq))
        return frame.to_arrow().cast(_BODY)
    return rows if order is None else rows.take(pa.array(order))


def _ascending(codes: _Numbers, times: _Numbers) -> bool:
    same = codes[1:] == codes[:-1]
    return bool(((codes[1:] > codes[:-1]) | (same & (times[1:] >= times[:-1]))).all())


def _best(rows: pl.DataFrame, freq: Freq) -> pl.DataFrame:
    """Return one row per key, the winner; a tie of rank and time is broken by the row itself, whatever the order."""
    key = short_key(freq)
    order = [rank("state"), pl.col("fetched_at"), pl.col("state") == State.FINAL.value]
    values = [pl.col(name) for name in (*VALUES, "flags", "ts", "session") if name not in key]
    return rows.sort(*key, *order, *values, nulls_last=False).unique(key, keep="last", maintain_order=True)
