"""Writes: bulk load, the daily upsert through a month, and how both grow with the lake."""

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from klake.schemas.bar import TIME
from klake.schemas.clock import ManualClock
from klake.schemas.compute import pc
from klake.storage.store import Store

from .data import NOW, Scale, daily, parts, sessions
from .peers import arctic
from .timing import Row, once

__all__ = ["bulk", "growing", "upserts"]

_MONTH = sessions(23, "2026-09-01")  # August 2026 has 21 weekdays; two of July come first
_RUNS = 7


def bulk(scale: Scale) -> Iterator[Row]:
    """Bulk load of the daily bars, against delta-rs on the same table."""
    tables = list(parts(scale.symbols, sessions(scale.days)))
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(_RUNS):
        with tempfile.TemporaryDirectory() as folder:
            store = Store.open(f"{folder}/lake", ManualClock(NOW), create=True)
            ours.append(once(partial(_each, store.upsert, tables)))
            theirs.append(once(partial(_each, partial(_delta, f"{folder}/delta"), tables)))
    del tables
    other = arctic(scale)
    peers = {"ArcticDB": other.write_ms} if other else {}
    yield Row(f"bulk load, {scale.symbols * scale.days / 1e6:.1f} M daily bars", "delta-rs on the same table",
              statistics.median(ours), statistics.median(theirs), "ms", 1 / 0.8, peers)  # fmt: skip


def upserts(scale: Scale) -> Iterator[Row]:
    """The daily upsert, new and replaced bars, on the 12th session of a month and on the last."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store = _lake(home / "lake", scale.symbols, years=1)
        for number in range(1, 23):
            if number in {13, 22}:
                took, bound, wrote = _daily(home, store, number, scale.symbols)
                name, times, least = (
                    ("12th session", 6.0, 1.2) if number == 13 else ("last of the month", 8.0, 2.2)
                )
                mega = least * scale.symbols / 5_000
                yield Row(f"daily upsert, {name}", "append-only commit of the same", took, bound, "ms", times)
                yield Row(
                    f"daily upsert, {name}: bytes", f"{least} MB per 5,000", wrote / 1e6, mega, "MB", 1.0
                )
            store.upsert(_batch(number, scale.symbols))


def growing(scale: Scale) -> Iterator[Row]:
    """The same upsert in a lake of four times the history, vendors or symbols."""
    count = scale.symbols // 4
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        base = _lake(home / "base", count, years=1)
        longer = _lake(home / "longer", count, years=4)
        broader = _lake(home / "broader", count, years=1)
        for n in range(3):
            for table in parts(count, sessions(250), vendor=f"other{n}"):
                broader.upsert(table)
        larger = _lake(home / "larger", scale.symbols, years=1)
        for store, symbols in ((base, count), (longer, count), (broader, count), (larger, scale.symbols)):
            for number in range(1, 13):
                store.upsert(_batch(number, symbols))
        one, _, wrote = _daily(home, base, 13, count)
        history, _, _ = _daily(home, longer, 13, count)
        vendors, _, _ = _daily(home, broader, 13, count)
        _, _, wrote_larger = _daily(home, larger, 13, scale.symbols)
    yield Row("daily upsert, ×4 history", "×1", history, one, "ms", 1.2)
    yield Row("daily upsert, ×4 vendors", "×1", vendors, one, "ms", 1.2)
    yield Row(
        "daily upsert, ×4 symbols: bytes",
        "4 × the bytes of ×1",
        wrote_larger / 1e6,
        4 * wrote / 1e6,
        "MB",
        1.1,
    )


def _lake(path: Path, symbols: int, *, years: int) -> Store:
    store = Store.open(str(path), ManualClock(NOW), create=True)
    for table in parts(symbols, sessions(250 * years)):
        store.upsert(table)
    return store


def _batch(number: int, symbols: int) -> pa.Table:
    """Return session `number` of the month, still open, and the one before it, final now: new and replaced bars."""
    new = daily(symbols, _MONTH[number : number + 1], state="open", seed=number)
    old = daily(symbols, _MONTH[number - 1 : number], seed=100 + number)
    at = NOW + timedelta(days=number)
    stamp = pa.repeat(pa.scalar(at, TIME), 2 * symbols)
    both = pa.concat_tables([new, old])
    return both.set_column(both.schema.get_field_index("fetched_at"), both.schema.field("fetched_at"), stamp)


def _daily(home: Path, store: Store, number: int, symbols: int) -> tuple[float, float, int]:
    """Return the median ms of upserting session `number`, of appending the same with delta-rs, and the bytes."""
    batch, at = _batch(number, symbols), NOW + timedelta(days=number)
    ours: list[float] = []
    theirs: list[float] = []
    sizes: list[int] = []
    _delta(f"{home}/append", daily(symbols, _MONTH[:1]))
    for run in range(_RUNS):
        copy = home / f"copy{run}"
        shutil.copytree(store.path, copy)
        opened = Store.open(str(copy), ManualClock(at))
        before = opened.snapshot().files
        ours.append(once(partial(opened.upsert, batch)))
        theirs.append(once(partial(_delta, f"{home}/append", batch)))
        sizes.append(sum(file.size_bytes for file in set(opened.snapshot().files) - set(before)))
        shutil.rmtree(copy)
    return statistics.median(ours), statistics.median(theirs), int(statistics.median(sizes))


def _each(write: Callable[[pa.Table], object], tables: Sequence[pa.Table]) -> None:
    for table in tables:
        write(table)


def _delta(path: str, table: pa.Table) -> None:
    years = pc.strftime(table["session"], "%Y")
    write_deltalake(
        path, table.append_column("period", years), mode="append", partition_by=["vendor", "freq", "period"]
    )
