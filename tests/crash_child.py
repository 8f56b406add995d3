"""Operations on a prepared lake, each in a process of its own that `test_crash` kills.

Run as a program it imports what takes long, then makes one child per line of its input; the
child stops itself when it is ready, so that whoever kills can take its time. As a module it
holds the same operations for whoever runs them to their end.
"""

import ctypes
import gc
import json
import os
import random
import signal
import sys
import traceback
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from klake.schemas.bar import INCOMING
from klake.schemas.clock import Clock, ManualClock
from klake.schemas.coverage import Covered, Reason, Series, Standing
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page, PageRequest
from klake.schemas.requests import Asked, rows
from klake.schemas.span import Span

Ack = Callable[[str], None]
NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
FETCHED = NOW - timedelta(days=10)
DAYS = Span(date(2026, 11, 9), date(2026, 11, 21))
SERIES = Series("qos", "600519.SH", Freq.D1)
OTHER = Series("qos", "000001.SZ", Freq.D1)
NEWCOMER = Series("qos", "300750.SZ", Freq.D1)
# What takes long to import and starts no thread that a child would miss; the rest each child does.
HEAVY = ("pandas", "polars", "duckdb", "deltalake", "httpx", "sqlalchemy.dialects.sqlite", "pyarrow.parquet",
         "klake.storage.tables", "klake.storage.coverage", "klake.storage.raw", "klake.storage.views",
         "klake.ingest.registry", "klake.jobs.config", "klake.storage.quotas")  # fmt: skip


def small_tiers() -> None:
    """Tiers of a few rows, so that a lake of a hundred rows has all of them."""
    for name in ("tiers", "compact", "upsert"):
        import_module(f"klake.storage.{name}").SMALL = 16  # type: ignore[attr-defined]


def bars(
    symbols: list[str],
    first: date,
    days: int,
    *,
    close: float = 10.0,
    vendor: str = "qos",
    at: datetime = FETCHED,
) -> pa.Table:
    """Daily bars of each symbol on `days` days."""
    n, sessions = days * len(symbols), [first + timedelta(days=k) for k in range(days)]
    return pa.table({
        "vendor": [vendor] * n, "freq": ["1d"] * n, "symbol": [name for name in symbols for _ in sessions],
        "ts": [datetime(d.year, d.month, d.day, 1, 30, tzinfo=UTC) for d in sessions] * len(symbols),
        "session": sessions * len(symbols), "open": [10.0] * n, "high": [90.0] * n, "low": [1.0] * n,
        "close": [close] * n, "volume": [100.0] * n, "amount": [None] * n, "state": ["final"] * n,
        "flags": [0] * n, "fetched_at": [at] * n,
    }, schema=INCOMING)  # fmt: skip


def minutes(symbol: str, day: date, count: int, *, close: float = 10.0, at: datetime = FETCHED) -> pa.Table:
    """The first `count` bars of one minute of a day."""
    begin = datetime(day.year, day.month, day.day, 1, 30, tzinfo=UTC)
    columns: dict[str, Any] = bars([symbol], day, 1, close=close, at=at).to_pydict()
    grown = {name: values * count for name, values in columns.items()}
    grown |= {"freq": ["1m"] * count, "ts": [begin + timedelta(minutes=k) for k in range(count)]}
    return pa.table(grown, schema=INCOMING)


def asked(*pages: str) -> pa.Table:
    """One row of `requests` for each page."""
    return rows(
        Asked(
            vendor="qos", symbol="600519.SH", freq=Freq.D1, endpoint="/kline", asked_end=None, asked_count=10,
            adjust="none", proved=DAYS, standing=Standing.FINAL, rows=1, outcome="bars", reason="", account="a1",
            page_id=page, stretch=0, run="run-1", fetched_at=NOW, received_bytes=9,
        )
        for page in pages
    )  # fmt: skip


def page(number: int, body: bytes, vendor: str = "qos") -> Page:
    """One page of a vendor."""
    entry = Entry(NEWCOMER.symbol, Freq.D1, datetime(2026, 11, 21, tzinfo=UTC), 10)
    request = PageRequest(vendor, "/kline", (entry,))
    return Page(f"{vendor}-{number}", "run-1", "qos", "a1", request, NOW, 200, "klake/0.1", body)


_MAY_TRACE = 0x59616D61  # PR_SET_PTRACER: where only a parent may trace, our parent's sibling may, too
BATCH = pa.concat_tables([
    bars(["600519.SH"], date(2025, 3, 3), 2, close=20.0, at=NOW),  # revises a closed year
    bars(["600519.SH"], date(2026, 11, 10), 3, close=20.0, at=NOW),  # and the hot month
    bars(["000001.SZ", "300750.SZ"], date(2026, 11, 18), 3),  # new bars, of a new symbol too
    bars(["600519.SH"], date(2026, 11, 2), 5, vendor="other", close=30.0),  # which stands back behind qos
    minutes("600519.SH", date(2026, 11, 20), 20, close=21.0, at=NOW),
])  # fmt: skip
PAGES = [page(1, b"9 10 11"), page(2, b"12 13"), page(3, b"16 17 18 19")]
RAW = [[page(1, b"one"), page(2, b"two")], [page(3, b"one"), page(4, b"four", "other")], [page(5, b"five")]]


def write(root: str, clock: Clock, ack: Ack) -> None:
    store = _store(root, clock)
    store.upsert(BATCH)
    ack("bars")
    store.append("requests", asked("p-new-1", "p-new-2"))
    ack("requests")


def compact(root: str, clock: Clock, ack: Ack) -> None:
    _store(root, clock).compact()
    ack("compact")


def vacuum(root: str, clock: Clock, ack: Ack) -> None:
    _store(root, clock).vacuum()
    ack("vacuum")


def create(root: str, clock: Clock, ack: Ack) -> None:
    from klake.storage.store import Store

    Store.open(root, clock, create=True)
    ack("create")


def raw(root: str, clock: Clock, ack: Ack) -> None:
    from klake.storage.raw import RawZone

    zone = RawZone(root, clock)
    held = {kept.id for kept in zone.pages()}
    for pages in RAW:
        if wanted := [one for one in pages if one.id not in held]:
            zone.append(wanted)
        for one in pages:
            ack(one.id)
    zone.seal()
    ack("sealed")


def ledger(root: str, clock: Clock, ack: Ack) -> None:
    from klake.schemas.report import RunReport

    books = _books(root, clock)
    books.runs.start("run-2", "daily", "qos", clock.now())
    ack("started")
    books.ledger.record([Covered(OTHER, DAYS, Standing.FINAL, Reason.NONE, "p-1", "p-1", NOW)])
    ack("recorded")
    books.state.set_tag(books.store.id, books.store.version_of("requests"))
    books.runs.finish(RunReport(run="run-2", job="daily", vendor="qos"), clock.now())
    ack("finished")
    books.state.close()


def flush(root: str, clock: Clock, ack: Ack) -> None:
    """What a sync does with its pages: keep, harvest, commit, cover, seal, publish, maintain."""
    from klake.jobs.harvest import Harvest
    from klake.jobs.maintain import maintain
    from klake.schemas.events import Quiet

    books = _books(root, clock)
    store, harvest = books.store, Harvest(books, clock, Quiet())
    settled = set(store.table("requests", ["page_id"])["page_id"].to_pylist())
    kept = {one.id: one for one in store.raw.unsettled(settled, None, store.raw.living())}
    for one in PAGES:
        if one.id in settled:
            continue
        if one.id not in kept:
            store.raw.append([one])
            ack(one.id)
        harvest.add(one, _taken(one))
    harvest.flush()
    ack("flushed")
    store.raw.seal()
    store.publish_extra("coverage", books.ledger.table())
    maintain(store)
    books.state.close()


OPERATIONS = {op.__name__: op for op in (write, compact, vacuum, create, raw, ledger, flush)}


def _store(root: str, clock: Clock) -> Any:
    from klake.storage.store import Store

    return Store.open(root, clock)


def _books(root: str, clock: Clock) -> Any:
    from klake.jobs.desk import Desk
    from klake.schemas.settings import LakeSettings, Settings

    return Desk(Settings(lake=LakeSettings(path=root)), clock).books()


def _taken(one: Page) -> list[Any]:
    from klake.ingest.fetch import Taken
    from klake.schemas.page import SeriesPage

    sessions = [date(2026, 11, int(day)) for day in one.body.split()]
    table = pa.concat_tables([bars([NEWCOMER.symbol], day, 1, close=40.0) for day in sessions])
    span = Span(sessions[0], sessions[-1] + timedelta(days=1))
    proof = Covered(NEWCOMER, span, Standing.FINAL, Reason.NONE, one.id, one.id, one.received_at)
    return [(SeriesPage(one.request.entries[0], "bars", table), Taken(table, (proof,)))]


def _child(root: str, op: str, at: str, acks: str, seed: str, steady: bool) -> None:
    """Run one operation; names are drawn from `seed`, so that a tracer can be told a file's name beforehand.

    `steady`: on one processor and without DuckDB's threads, so that the same thread does the same each time.
    """
    if steady:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        ctypes.CDLL(None).prctl(_MAY_TRACE, ctypes.c_ulong(-1), 0, 0, 0)
        duckdb = import_module("duckdb")
        duckdb.connect = partial(_alone, duckdb.connect)  # type: ignore[attr-defined]
    for name in ("storage.store", "storage.raw", "jobs.harvest", "jobs.desk", "jobs.maintain"):
        import_module(f"klake.{name}")
    small_tiers()
    uuid.os = SimpleNamespace(urandom=random.Random(seed).randbytes)  # type: ignore[attr-defined]
    out = os.open(acks, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 2)
    os.kill(os.getpid(), signal.SIGSTOP)
    clock = ManualClock(datetime.fromisoformat(at))
    OPERATIONS[op](root, clock, lambda what: print(f"ACK {what}", file=sys.stderr, flush=True))


def _alone(connect: Callable[..., Any], path: str, config: dict[str, Any] | None = None) -> Any:
    return connect(path, config={**(config or {}), "threads": 1})


def _serve() -> None:
    for name in HEAVY:
        import_module(name)
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _child(*json.loads(line))
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                sys.stderr.flush()
                os._exit(code)
        os.waitpid(pid, os.WUNTRACED)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
