"""What an incoming batch changes: new, same, updated, settled and revised bars.

An incoming bar wins by (state rank, fetched_at), open < closed = final. Whole bars are
replaced. When the values of a closed or final bar change, the old row moves to the past.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, cast

import polars as pl
import pyarrow as pa

from ..errors import BadRequest
from ..schemas.bar import INCOMING, STATE_RANK, VALUES, State, key_of
from ..schemas.freq import Freq
from ..schemas.report import WriteReport
from .layout import CURRENT, PAST, Partition, vendor_name
from .manifest import LiveFile, Manifest

__all__ = ["SMALL", "Change", "Parts", "batches", "change"]

SMALL: Final = 32_768
"""A live file with fewer rows is folded into the next write of its partition.

So increments do not leave a file each, and new rows never stretch a large file, which
would then be rewritten by every increment.
"""

Parts = dict[Partition, pl.DataFrame]
"""A batch by partition."""

Write = tuple[Partition, pa.Table]
"""One file to be written."""

_STORED: Final = [name for name in INCOMING.names if name not in {"vendor", "freq"}]
_KNOWN: Final = "known_at"


@dataclass(frozen=True, slots=True)
class Change:
    """What a batch does to one partition: files to write, files that go, counts.

    `writes` is empty when the batch brings nothing new. Rows have the columns of a data
    file (no partition columns), sorted by (symbol, ts).
    """

    writes: tuple[Write, ...] = ()
    removed: tuple[str, ...] = ()
    report: WriteReport = field(default_factory=WriteReport)


def batches(bars: pa.Table) -> Parts:
    """Return `bars` by partition of era current, one row per key: the one that wins.

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
    frame = cast(pl.DataFrame, pl.from_arrow(_checked(bars)))
    out: Parts = {}
    for (vendor, freq_text), series in frame.group_by("vendor", "freq"):
        freq = Freq(freq_text)
        best = _best(series.drop("vendor", "freq"), freq)
        pattern = "%Y-%m" if freq.intraday else "%Y"
        for (period,), rows in best.group_by(pl.col("session").dt.strftime(pattern)):
            out[Partition(CURRENT, vendor_name(str(vendor)), freq, str(period))] = rows
    return dict(sorted(out.items()))


def change(
    partition: Partition,
    batch: pl.DataFrame,
    manifest: Manifest,
    read: Callable[[str], pa.Table],
    known_at: Any,
) -> Change:
    """Return what `batch` does to its partition.

    Parameters
    ----------
    partition : Partition
        Of era current.
    batch : polars.DataFrame
        As `batches` gives it.
    manifest : Manifest
        The newest; only its files that may hold a key of the batch are read.
    read : callable
        Gives the rows of one live file.
    known_at : datetime
        Stamps the rows that are new knowledge.
    """
    live = manifest.partition(partition)
    held = {f.path: _frame(read(f.path)) for f in _candidates(live, batch, manifest, partition.freq)}
    judged = _judge(batch, held, partition.freq)
    report = _counted(judged)
    wins = judged.filter(pl.col("verdict") != "same")
    if wins.is_empty():
        return Change(report=report)
    key, fresh = _key(partition.freq), _stamped(wins, known_at)
    touched = set(wins["file"].drop_nulls().unique())
    writes, removed, hot = list[Write](), list[str](), [fresh]
    for file in live:
        if file.path not in touched and file.rows >= SMALL:
            continue
        frame = held[file.path] if file.path in held else _frame(read(file.path))
        staying = frame.join(fresh, on=key, how="anti").select(fresh.columns)
        removed.append(file.path)
        if file.rows < SMALL:
            hot.append(staying)
        elif not staying.is_empty():
            writes.append((partition, _table(staying)))
    writes.append((partition, _table(pl.concat(hot))))
    revised = wins.filter(pl.col("verdict") == "revised")
    if not revised.is_empty():
        past = Partition(PAST, partition.vendor, partition.freq, partition.period)
        small = [file.path for file in manifest.partition(past) if file.rows < SMALL]
        old = [frame.join(revised, on=key, how="semi") for frame in held.values()]
        old += [_frame(read(path)) for path in small]
        removed += small
        writes.append((past, _table(pl.concat([frame.select(fresh.columns) for frame in old]))))
    return Change(tuple(writes), tuple(removed), report)


def _stamped(wins: pl.DataFrame, known_at: Any) -> pl.DataFrame:
    """Return the winners as they are stored; one that only settles keeps its known_at."""
    settled = pl.col("verdict") == "settled"
    stamp = pl.when(settled).then(pl.col("known_at_old")).otherwise(pl.lit(known_at))
    return wins.select(*_STORED, stamp.cast(pl.Datetime("us", "UTC")).alias(_KNOWN))


def _key(freq: Freq) -> list[str]:
    return [name for name in key_of(freq) if name not in {"vendor", "freq"}]


def _checked(bars: pa.Table) -> pa.Table:
    absent = [name for name in INCOMING.names if name not in bars.column_names]
    if absent:
        raise BadRequest("columns", ", ".join(bars.column_names), hint=f"missing: {', '.join(absent)}")
    try:
        table = bars.select(INCOMING.names).cast(INCOMING)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise BadRequest(
            "bars", str(bars.schema.names), hint=f"not as schemas.bar.INCOMING: {error}"
        ) from error
    for column in INCOMING:
        if not column.nullable and table[column.name].null_count:
            raise BadRequest(column.name, None, hint="this column holds no nulls")
    for name, known in (("freq", [f.value for f in Freq]), ("state", [s.value for s in State])):
        for value in table[name].unique().to_pylist():
            if value not in known:
                raise BadRequest(name, value, tuple(known))
    for vendor in table["vendor"].unique().to_pylist():
        vendor_name(vendor)
    return table


def _rank(state: str) -> pl.Expr:
    ranks = {member.value: rank for member, rank in STATE_RANK.items()}
    return pl.col(state).replace_strict(ranks, return_dtype=pl.Int8)


def _best(rows: pl.DataFrame, freq: Freq) -> pl.DataFrame:
    """Return one row per key, the winner; a tie of rank and time is broken by the row itself, whatever the order."""
    key = _key(freq)
    if rows.select(key).n_unique() == rows.height:
        return rows
    order = [_rank("state"), pl.col("fetched_at"), pl.col("state") == State.FINAL.value]
    values = [pl.col(name) for name in (*VALUES, "flags", "ts", "session") if name not in key]
    return rows.sort(*key, *order, *values, nulls_last=False).unique(key, keep="last", maintain_order=True)


def _candidates(
    live: Sequence[LiveFile], batch: pl.DataFrame, manifest: Manifest, freq: Freq
) -> list[LiveFile]:
    """Return the live files that may hold a key of the batch, by exact symbols and key ranges."""
    if not live:
        return []
    key = pl.col("ts").dt.epoch("us") if freq.intraday else pl.col("session").dt.epoch("d")
    low, high = batch.select(key.min().alias("low"), key.max().alias("high")).row(0)
    wanted = set(batch["symbol"].unique())
    return [
        file for file in live
        if cast(int, file.low) <= high and low <= cast(int, file.high)
        and not wanted.isdisjoint(manifest.symbols_of(file))
    ]  # fmt: skip


def _frame(table: pa.Table) -> pl.DataFrame:
    return cast(pl.DataFrame, pl.from_arrow(table)).with_columns(
        pl.col("ts", "fetched_at", _KNOWN).cast(pl.Datetime("us", "UTC"))
    )


def _table(frame: pl.DataFrame) -> pa.Table:
    return frame.sort("symbol", "ts").to_arrow()


def _judge(batch: pl.DataFrame, held: dict[str, pl.DataFrame], freq: Freq) -> pl.DataFrame:
    """Return the batch with a verdict per row, the stored row's columns (`…_old`) and its file."""
    key = _key(freq)
    wanted = batch.select(key)
    parts = [
        frame.join(wanted, on=key, how="semi").with_columns(pl.lit(path).alias("file"))
        for path, frame in held.items()
    ]
    if not parts:
        return batch.with_columns(
            pl.lit("new").alias("verdict"),
            pl.lit(None, pl.Datetime("us", "UTC")).alias("known_at_old"),
            pl.lit(None, pl.String).alias("file"),
        )
    stored = pl.concat(parts)
    renamed = stored.rename({name: f"{name}_old" for name in stored.columns if name not in {*key, "file"}})
    both = batch.join(renamed, on=key, how="left")
    rank, rank_old = _rank("state"), _rank("state_old")
    equal = _all([pl.col(name).eq_missing(pl.col(f"{name}_old")) for name in VALUES])
    later = _later(["fetched_at", *VALUES])
    wins = (rank > rank_old) | ((rank == rank_old) & later)
    was_open = pl.col("state_old") == State.OPEN.value
    settles = (pl.col("state_old") == State.CLOSED.value) & (pl.col("state") == State.FINAL.value)
    not_older = pl.col("fetched_at") >= pl.col("fetched_at_old")
    verdict = (
        pl.when(pl.col("file").is_null()).then(pl.lit("new"))
        .when(was_open & (rank > rank_old)).then(pl.lit("updated"))
        .when(equal & settles & not_older).then(pl.lit("settled"))
        .when(equal | ~wins).then(pl.lit("same"))
        .when(was_open).then(pl.lit("updated"))
        .otherwise(pl.lit("revised"))
    )  # fmt: skip
    return both.with_columns(verdict.alias("verdict"))


def _all(conditions: list[pl.Expr]) -> pl.Expr:
    return reduce(lambda left, right: left & right, conditions)


def _later(names: list[str]) -> pl.Expr:
    """Say whether the incoming row is greater by the first of `names` that differs; null is least."""
    verdict = pl.lit(False)
    for name in reversed(names):
        new, old = pl.col(name), pl.col(f"{name}_old")
        greater = (new > old).fill_null(new.is_not_null() & old.is_null())
        verdict = pl.when(new.eq_missing(old)).then(verdict).otherwise(greater)
    return verdict


def _counted(judged: pl.DataFrame) -> WriteReport:
    counts = dict(judged.group_by("verdict").len().iter_rows())
    return WriteReport(**{str(name): int(count) for name, count in counts.items()})
