"""Two writers, a compaction with its vacuum, and four readers at once: every answer is one whole version.

A batch gives all bars of a writer's own symbols (A or B), and all bars of the symbols that both
write (S), a close that counts its batches, and adds one session of a symbol that only grows
(GA or GB). So a mixed answer shows two closes, a short one too few rows, a lost update a close
below one that was acknowledged, and a lost insert too few sessions.
"""

import json
import multiprocessing
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from stand import Stand
from tally import Tally, wrong

import klake
from klake.errors import CommitConflict, KlakeError
from klake.schemas.bar import INCOMING
from klake.schemas.clock import SystemClock
from klake.schemas.freq import Freq
from klake.storage import compact, manifest, tiers, vacuum
from klake.storage.store import Store
from klake.storage.writer import Writer

OLDER = Path(sys.prefix) / "duckdb15"
BASE = datetime(2026, 11, 20, 8, tzinfo=UTC)
SESSIONS = [date(2025, 12, 26) + timedelta(days=n) for n in range(12)]  # of two partitions
GROUP = 6
WHOLE = GROUP * len(SESSIONS)
JOB = ""

ASKED = (
    "SELECT CASE WHEN symbol[1] = 'G' THEN symbol[1:2] ELSE symbol[1] END AS g, count(*),"
    " count(DISTINCT (symbol, session)), min(close), max(close) FROM {} GROUP BY 1"
)

STOCK = """
import json, os, sys
if sys.argv[2]: sys.path.insert(0, sys.argv[2])
import duckdb
sys.path.append(sys.argv[5])
from tally import Tally, wrong
lake, folder, whole = sys.argv[1], sys.argv[3], int(sys.argv[6])
tally, queries = Tally(folder + "/tally"), json.loads(sys.argv[4])
con = duckdb.connect(lake + "/lake.duckdb", read_only=True)
asked, bad, last = 0, [], [dict() for _ in queries]
while not os.path.exists(folder + "/stop"):
    for place, query in enumerate(queries):
        before = tally.read()
        try:
            seen = con.execute(query).fetchall()
        except Exception as error:
            bad.append(["failed", query, repr(error)]); continue
        bad += wrong(seen, whole, before, tally.read(), last[place])
        asked += 1
print(json.dumps({"asked": asked, "version": duckdb.__version__, "bad": bad[:10]}))
"""


def batch(symbols: list[str], sessions: list[date], close: float, at: datetime) -> pa.Table:
    keys = [(s, d) for s in symbols for d in sessions]
    n = len(keys)
    columns: dict[str, Any] = {
        "vendor": ["qos"] * n, "freq": ["1d"] * n, "symbol": [s for s, _ in keys],
        "ts": [datetime(d.year, d.month, d.day, 14, 30, tzinfo=UTC) for _, d in keys],
        "session": [d for _, d in keys], "open": [1.0] * n, "high": [1e9] * n, "low": [1.0] * n,
        "close": [close] * n, "volume": [1.0] * n, "amount": [None] * n, "state": ["final"] * n,
        "flags": [0] * n, "fetched_at": [at] * n,
    }  # fmt: skip
    return pa.table(columns, schema=INCOMING)


def names(group: str) -> list[str]:
    return [f"{group}{n}.US" for n in range(GROUP)]


def generation(writer: int, own: int, shared: int, grown: int) -> pa.Table:
    """One batch: own symbols, shared symbols (the later fetch wins), and one session more."""
    return pa.concat_tables([
        batch(names("AB"[writer]), SESSIONS, float(own), BASE + timedelta(microseconds=own)),
        batch(names("S"), SESSIONS, float(shared), BASE + timedelta(microseconds=shared)),
        batch([f"G{'AB'[writer]}.US"], [date(2015, 1, 1) + timedelta(days=3 * grown)], 1.0, BASE),
    ])  # fmt: skip


def patched(kept_s: float) -> None:
    """Let small lakes be folded, and what is dead go after seconds, in this process."""
    tiers.SMALL = compact.SMALL = 16  # type: ignore[misc]
    if kept_s:
        manifest.KEPT = vacuum.HOT = vacuum.KEPT = timedelta(seconds=kept_s)  # type: ignore[misc]


def writes(path: str, folder: str, kept_s: float, writer: int, turns: bool) -> None:
    patched(kept_s)
    store, tally = Store.open(path, SystemClock()), Tally(f"{folder}/tally")
    if not turns:  # the lock saves work only: what is right must not rest on it
        store._writer = Writer(path, store._publisher, store.clock, takes_turns=False)
    own, grown = 1, 1
    while not os.path.exists(f"{folder}/stop"):
        counts = tally.read()
        own, grown = own + 1, grown + 1
        shared = 2 * (max(counts[1], counts[7]) // 2 + 1) + writer  # even or odd: never the other's
        tally.put(writer, 0, (own, shared, grown))
        rows = generation(writer, own, shared, grown)
        while not stored(store, rows):
            pass
        tally.put(writer, 1, (own, shared, grown))


def stored(store: Store, rows: pa.Table) -> bool:
    try:
        store.upsert(rows)
    except CommitConflict:
        return False  # the others were first ten times over
    return True


def folds(path: str, folder: str, kept_s: float, turns: bool) -> None:
    patched(kept_s)
    store = Store.open(path, SystemClock())
    if not turns:
        store._writer = Writer(path, store._publisher, store.clock, takes_turns=False)
    folded = deleted = 0
    while not os.path.exists(f"{folder}/stop"):
        with suppress(CommitConflict):
            folded += store.compact().partitions
        deleted += len(store.vacuum().paths)
    Path(folder, "folds.json").write_text(json.dumps({"folded": folded, "deleted": deleted}))


Answer = list[tuple[str, int, int, float, float]]


def grouped(rows: pa.Table) -> Answer:
    with duckdb.connect() as con:
        return con.register("r", rows).execute(ASKED.format("r")).fetchall()


def follows(path: str) -> list[Callable[[], Answer]]:
    """`lake.sql` and `lake.bars`, as a notebook asks them."""
    lake = klake.open(path)
    everything = [*names("A"), *names("B"), *names("S"), "GA.US", "GB.US"]
    return [
        lambda: lake.sql(ASKED.format("bars")).rows(),
        lambda: grouped(lake.bars(everything, "1d").arrow()),
        lambda: lake.connection().execute(ASKED.format("bars_best")).fetchall(),
    ]


def cuts(path: str) -> list[Callable[[], Answer]]:
    """`Store.bars`, by row groups in memory, with and without symbols."""
    store = Store.open(path, SystemClock())
    everything = [*names("A"), *names("B"), *names("S"), "GA.US", "GB.US"]
    whole = {"start": date(2010, 1, 1), "end": date(2100, 1, 1)}
    return [
        lambda: grouped(store.bars(symbols=everything, freq=Freq.D1)),
        lambda: grouped(store.bars(symbols=None, freq=Freq.D1)),
        lambda: grouped(store.bars(symbols=None, freq=Freq.D1, vendor="qos", **whole)),
    ]


def reads(path: str, folder: str, name: str) -> None:
    ways = {"follows": follows, "cuts": cuts}[name](path)
    tally, bad, asked = Tally(f"{folder}/tally"), list[Any](), 0
    last: list[dict[str, float]] = [{} for _ in ways]
    while not os.path.exists(f"{folder}/stop"):
        for place, way in enumerate(ways):
            before = tally.read()
            try:
                seen = way()
            except (KlakeError, duckdb.Error, OSError) as error:
                bad.append(["failed", place, repr(error)])
                continue
            bad += wrong(seen, WHOLE, before, tally.read(), last[place])
            asked += 1
    Path(folder, f"{name}.json").write_text(json.dumps({"asked": asked, "bad": bad[:10]}))


def stock(path: str, folder: str, engine: Path | None) -> subprocess.Popen[str]:
    queries = [ASKED.format(view) for view in ("bars", "bars_1d", "bars_best", "bars_final")]
    return subprocess.Popen(
        [sys.executable, "-I", "-c", STOCK, path, str(engine or ""), folder, json.dumps(queries),
         str(Path(__file__).parent), str(WHOLE)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("turns", [True, False])
@pytest.mark.parametrize("seconds, kept_s", [(6, 0), pytest.param(60, 10, marks=pytest.mark.proof)])
def test_two_writers_a_compaction_and_four_readers_at_once_lose_and_mix_nothing(
    tmp_path: Path, seconds: int, kept_s: float, turns: bool
) -> None:
    path, folder = str(tmp_path / "lake"), str(tmp_path)
    store = Store.open(path, SystemClock(), create=True)
    for writer in range(2):
        store.upsert(generation(writer, 1, 1, 1))
    Path(folder, "tally").write_bytes(struct.pack("<12q", *[1] * 12))
    context = multiprocessing.get_context("spawn")
    work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (writes, (path, folder, kept_s, 0, turns)), (writes, (path, folder, kept_s, 1, turns)),
        (folds, (path, folder, kept_s, turns)),
        (reads, (path, folder, "follows")), (reads, (path, folder, "cuts")),
    ]  # fmt: skip

    readers = [stock(path, folder, engine) for engine in (None, OLDER) if engine is None or engine.exists()]
    workers = [context.Process(target=target, args=args) for target, args in work]
    try:
        for worker in workers:
            worker.start()
        end = time.monotonic() + 60
        while min(Tally(f"{folder}/tally").read()[3::6]) < 4 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(seconds)
    finally:
        Path(folder, "stop").touch()
        for worker in workers:
            worker.join(120)
    told = [reader.communicate(timeout=120) for reader in readers]

    assert [w.exitcode for w in workers] == [0] * len(workers)
    answers = [json.loads(out.splitlines()[-1]) for out, _ in told]
    answers += [json.loads(Path(folder, f"{name}.json").read_text()) for name in ("follows", "cuts")]
    assert [a["bad"] for a in answers] == [[]] * len(answers), told
    assert min(a["asked"] for a in answers) >= 5
    counts = Tally(f"{folder}/tally").read()
    assert counts[:3] == counts[3:6] and counts[6:9] == counts[9:]  # all that was begun was stored
    folded = json.loads(Path(folder, "folds.json").read_text())
    assert folded["folded"] and (folded["deleted"] or not kept_s)
    final = grouped(Store.open(path, SystemClock()).bars(symbols=None, freq=Freq.D1))
    shared = max(counts[1], counts[7])
    assert sorted(final) == [
        ("A", WHOLE, WHOLE, counts[0], counts[0]), ("B", WHOLE, WHOLE, counts[6], counts[6]),
        ("GA", counts[2], counts[2], 1.0, 1.0), ("GB", counts[8], counts[8], 1.0, 1.0),
        ("S", WHOLE, WHOLE, shared, shared),
    ]  # fmt: skip
    with store.connect() as con:
        past = (
            "SELECT symbol[1], count(*), count(DISTINCT (symbol, session, close)) FROM revisions GROUP BY 1"
        )
        revised = {name: (rows, keys) for name, rows, keys in con.execute(past).fetchall()}
    for name, count in (("A", counts[0]), ("B", counts[6])):  # each own batch revised every bar, once
        assert revised[name] == ((count - 1) * WHOLE,) * 2


SYNCED = """
import json, os, sys, duckdb
con = duckdb.connect(sys.argv[1] + "/lake.duckdb", read_only=True)
asked, bad, last = 0, [], 0
while not os.path.exists(sys.argv[2]):
    rows, keys = con.execute("SELECT count(*), count(DISTINCT (vendor, symbol, freq, ts)) FROM bars").fetchall()[0]
    if rows != keys or rows < last: bad.append((last, rows, keys))
    asked, last = asked + 1, rows
print(json.dumps([asked, bad]))
"""


def test_two_syncs_and_compactions_at_once_store_every_bar_once(stand: Stand, tmp_path: Path) -> None:
    both = [["600519.SH", "00700.HK", "AAPL.US"], ["AAPL.US", "600519.SH", "000001.SZ"]]  # overlapping
    stand.jobs = "".join(
        f'[jobs.j{n}]\nvendor = "qos"\nsymbols = {json.dumps(symbols)}\nfreq = ["1d", "1m"]\n'
        'start = "2026-11-18"\n' for n, symbols in enumerate(both)
    )  # fmt: skip
    stand.write()
    command = [sys.executable, "-m", "klake", "--config", str(stand.config), "--quiet"]
    with stand.desk() as desk:
        path = desk.store(create=True).path

    reader = subprocess.Popen(
        [sys.executable, "-I", "-c", SYNCED, path, str(tmp_path / "stop")], stdout=subprocess.PIPE, text=True
    )
    syncs = [subprocess.Popen([*command, "sync", "--job", f"j{n}"]) for n in range(2)]
    folding = []
    while any(sync.poll() is None for sync in syncs):
        folding.append(subprocess.run([*command, "compact"], check=False, capture_output=True).returncode)
    (tmp_path / "stop").touch()
    asked, bad = json.loads(reader.communicate(timeout=60)[0].splitlines()[-1])

    assert [sync.returncode for sync in syncs] == [0, 0] and set(folding) == {0}
    assert asked and not bad
    sent = len(stand.requests())
    again = [subprocess.run([*command, "sync", "--job", f"j{n}"], check=False).returncode for n in range(2)]
    assert again == [0, 0] and len(stand.requests()) <= sent + 2 * 4  # the clock stands: canaries at most
    with stand.desk() as desk, desk.store().connect() as con:
        twice = (
            "SELECT count(*) - count(DISTINCT (vendor, symbol, freq, ts)), count(DISTINCT symbol) FROM bars"
        )
        assert con.execute(twice).fetchall() == [(0, 4)]
        assert con.execute("SELECT count(*) FROM revisions").fetchall() == [(0,)]
