"""The published `lake.duckdb`, read by plain DuckDB in processes that know nothing of klake."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from klake.schemas.bar import COLUMNS, INCOMING
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage import datafiles
from klake.storage.layout import file_name, listing
from klake.storage.publisher import Publisher
from klake.storage.store import Store
from klake.storage.tables import TABLES, DeltaLog

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
OLDER = Path(sys.prefix) / "duckdb15"
ENGINES = {"installed": None, "1.5": OLDER}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Store:
    return Store.open(str(tmp_path / "lake"), clock, create=True)


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Path | None:
    path = ENGINES[request.param]
    if path is not None and not path.exists():
        pytest.skip(f"no second DuckDB: pip install --target {path.name} 'duckdb<2' into the venv")
    return path


def bars(
    symbols: list[str],
    sessions: list[date],
    close: float = 10.0,
    *,
    vendor: str = "qos",
    state: str = "final",
    at: datetime = NOW,
) -> pa.Table:
    keys = [(s, d) for s in symbols for d in sessions]
    n = len(keys)
    columns = {
        "vendor": [vendor] * n, "freq": ["1d"] * n, "symbol": [s for s, _ in keys],
        "ts": [datetime(d.year, d.month, d.day, 1, 30, tzinfo=UTC) for _, d in keys],
        "session": [d for _, d in keys], "open": [close] * n, "high": [close] * n, "low": [close] * n,
        "close": [close] * n, "volume": [100.0] * n, "amount": [None] * n, "state": [state] * n,
        "flags": [0] * n, "fetched_at": [at] * n,
    }  # fmt: skip
    return pa.table(columns, schema=INCOMING)


def asked(engine: Path | None, lake: str, *queries: str) -> list[list[list[object]]]:
    """The rows of each query, from a process that has DuckDB only."""
    code = (
        "import json, sys\n"
        f"{f'sys.path.insert(0, {str(engine)!r})' if engine else ''}\n"
        "import duckdb\n"
        "con = duckdb.connect(sys.argv[1] + '/lake.duckdb', read_only=True)\n"
        "con.execute(\"SET TimeZone = 'UTC'\")\n"
        "print(json.dumps([con.execute(q).fetchall() for q in sys.argv[2:]], default=str))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, lake, *queries],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers: list[list[list[object]]] = json.loads(done.stdout)
    return answers


def test_every_view_of_an_empty_lake_has_its_columns_and_no_rows(store: Store, engine: Path | None) -> None:
    names = (
        "bars",
        "bars_best",
        "bars_1m",
        "bars_final",
        "revisions",
        "actions",
        "requests",
        "coverage",
        "sessions",
    )

    counts = asked(engine, store.path, *(f"SELECT count(*) FROM {name}" for name in names))
    described = asked(engine, store.path, "DESCRIBE bars")[0]

    assert counts == [[[0]]] * len(names)
    assert [row[0] for row in described] == list(COLUMNS)
    assert {r[0]: r[1] for r in described}["ts"] == "TIMESTAMP WITH TIME ZONE"
    assert {r[0]: r[1] for r in described}["period"] == "VARCHAR"


def test_a_file_opened_yesterday_shows_todays_bars(store: Store) -> None:
    con = duckdb.connect(f"{store.path}/lake.duckdb", read_only=True)
    before = con.execute("SELECT count(*) FROM bars").fetchall()

    store.upsert(bars(["600519.SH"], [date(2026, 1, 5)]))

    assert before == [(0,)]
    assert con.execute("SELECT count(*), max(period) FROM bars_1d").fetchall() == [(1, "2026")]
    con.close()


def test_the_file_is_not_rewritten_while_the_set_of_views_is_the_same(
    store: Store, clock: ManualClock
) -> None:
    file = Path(store.path) / "lake.duckdb"
    before = (file.stat().st_ino, file.stat().st_mtime_ns)

    store.upsert(bars(["600519.SH"], [date(2026, 1, 5)]))
    store.publish()
    Store.open(store.path, clock).publish()

    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before


def test_the_file_works_attached_under_another_name(store: Store) -> None:
    store.upsert(bars(["600519.SH"], [date(2026, 1, 5)]))

    con = duckdb.connect()
    con.execute(f"ATTACH '{store.path}/lake.duckdb' AS other (READ_ONLY)")

    for view in ("bars", "bars_best", "bars_final", "bars_as_of(now())"):
        assert con.execute(f"SELECT count(*) FROM other.{view}").fetchall() == [(1,)], view
    con.close()


def empty_commits(store: Store, count: int) -> None:
    log = DeltaLog(store.path, TABLES["bars"])
    for number in range(count):
        log.version()
        log.commit([], [], None, number)


def test_more_than_a_hundred_commits_leave_the_views_readable(store: Store, engine: Path | None) -> None:
    empty_commits(store, 96)
    days = [date(2026, 1, 1) + timedelta(days=i) for i in range(8)]

    for day in days:  # at commit 99 a checkpoint is made, a Parquet file too
        store.upsert(bars(["600519.SH"], [day]))

    assert list((Path(store.path) / "bars" / "_delta_log").glob("*.parquet"))
    assert asked(engine, store.path, "SELECT count(*) FROM bars") == [[[8]]]


def test_a_torn_file_outside_the_manifest_hurts_nobody(store: Store) -> None:
    store.upsert(bars(["600519.SH"], [date(2026, 1, 5)]))
    partition = next(Path(store.path).glob("bars/era=current/vendor=qos/freq=1d/period=2026"))

    (partition / "zzz.writing").write_bytes(b"PAR1 half")

    assert asked(None, store.path, "SELECT count(*) FROM bars") == [[[1]]]


def test_views_open_no_listing_but_the_newest(store: Store, engine: Path | None) -> None:
    # An older one may be deleted at any moment, so no view may depend on it.
    for number in range(12):
        store.upsert(bars(["600519.SH"], [date(2026, 1, 5)], 10.0 + number, at=NOW + timedelta(hours=number)))
    newest, *older = sorted(Path(store.path).glob("_manifest/*.parquet"))
    for old in older:
        old.write_bytes(b"torn")

    queries = [
        f"SELECT count(*) FROM {view}" for view in ("bars", "bars_best", "revisions", "bars_as_of(now())")
    ]
    twice = "SELECT count(*) FROM bars a JOIN bars b USING (vendor, symbol, freq, session)"

    assert len(older) == 12 and newest.stat().st_size > 0
    assert asked(engine, store.path, *queries, twice) == [[[1]], [[1]], [[11]], [[1]], [[1]]]


def test_revisions_stand_beside_what_replaced_them(store: Store, engine: Path | None) -> None:
    day = date(2026, 1, 5)
    for number, close in enumerate((10.0, 11.0, 12.0)):
        store.upsert(bars(["600519.SH"], [day], close, at=NOW + timedelta(hours=number)))

    rows = asked(
        engine, store.path, "SELECT close, new_close, replaced_at > known_at FROM revisions ORDER BY known_at"
    )[0]

    assert rows == [[10.0, 11.0, True], [11.0, 12.0, True]]


def test_as_of_rebuilds_each_earlier_state(store: Store, clock: ManualClock, engine: Path | None) -> None:
    days = [date(2026, 1, 5), date(2026, 1, 6)]
    told, instants = [], []
    for number, (day, close) in enumerate(
        [(days[0], 10.0), (days[1], 10.0), (days[0], 11.0), (days[0], 12.0)]
    ):
        clock.wait(3600)
        store.upsert(bars(["600519.SH"], [day], close, at=NOW + timedelta(hours=number)))
        told.append(sorted((str(r["session"]), r["close"]) for r in held(store)))
        instants.append(clock.now().isoformat())

    answers = asked(
        engine, store.path,
        *(f"SELECT session, close FROM bars_as_of('{at}') ORDER BY ALL" for at in instants),
    )  # fmt: skip

    assert [[tuple(row) for row in answer] for answer in answers] == told


def held(store: Store) -> list[dict[str, object]]:
    con = store.connect()
    try:
        rows: list[dict[str, object]] = (
            con.sql("SELECT session, close FROM bars").to_arrow_table().to_pylist()
        )
        return rows
    finally:
        con.close()


def test_best_takes_the_first_vendor_until_a_choice_is_made(store: Store, engine: Path | None) -> None:
    days = [date(2026, 1, 5), date(2026, 1, 6)]
    store.upsert(bars(["600519.SH"], days, 10.0, vendor="qos"))
    store.upsert(bars(["600519.SH"], days, 20.0, vendor="longbridge"))
    store.upsert(bars(["AAPL.US"], days, 30.0, vendor="qos"))
    query = "SELECT symbol, session, close FROM bars_best ORDER BY ALL"

    first = asked(engine, store.path, query)[0]
    store.append(
        "choice", pa.table({"symbol": ["600519.SH"], "freq": ["1d"], "vendor": ["qos"], "since": [days[1]]})
    )
    chosen = asked(engine, store.path, query)[0]

    assert [row[2] for row in first] == [20.0, 20.0, 30.0, 30.0]
    assert [row[2] for row in chosen] == [20.0, 10.0, 30.0, 30.0]


READER = """
import json, pathlib, sys, time
if sys.argv[2]: sys.path.insert(0, sys.argv[2])
import duckdb
lake, told = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
con = duckdb.connect(str(lake / "lake.duckdb"), read_only=True)
queries = {
    "select": "SELECT count(*) FROM (SELECT DISTINCT symbol, session FROM bars)",
    "rows": "SELECT count(*) FROM bars",
    "join": "SELECT count(*) FROM bars a JOIN bars b USING (vendor, symbol, freq, session)",
    "group": "SELECT coalesce(sum(n), 0) FROM (SELECT symbol, count(*) AS n, max(close) FROM bars_1d GROUP BY symbol)",
    "union": "SELECT min(n) FROM (SELECT count(*) AS n FROM bars UNION ALL SELECT count(*) FROM bars_final)",
    "best": "SELECT count(*) FROM bars_best",
    "as_of": "SELECT count(*) FROM bars_as_of(TIMESTAMPTZ '2100-01-01')",
    "where": "SELECT count(*) FROM bars WHERE symbol IN (SELECT symbol FROM bars_final)",
}
def committed():
    return int(told.read_text())
runs, wrong = {name: 0 for name in queries}, []
print("ready", flush=True)
while not (lake / "stop").exists():
    for name, query in queries.items():
        least = committed()
        try:
            found = con.execute(query).fetchall()[0][0]
        except Exception as error:
            wrong.append([name, repr(error)]); continue
        most = committed() + ROWS
        if not least <= found <= most: wrong.append([name, least, found, most])
        runs[name] += 1
print(json.dumps([runs, wrong]))
"""


@contextmanager
def reader(store: Store, engine: Path | None, told: Path, rows: int) -> Iterator[subprocess.Popen[str]]:
    code = READER.replace("ROWS", str(rows))
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", code, store.path, str(engine or ""), str(told)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        (Path(store.path) / "stop").touch()
        if process.poll() is None:
            process.wait(30)


@pytest.mark.parametrize("seconds, least", [(3, 20), pytest.param(60, 260, marks=pytest.mark.proof)])
def test_a_reader_beside_a_writer_never_sees_an_error_or_a_row_too_few(
    store: Store, clock: ManualClock, engine: Path | None, tmp_path: Path, seconds: int, least: int
) -> None:
    symbols = [f"{i:06d}.SZ" for i in range(1, 11)]
    told = tmp_path / "committed"
    first = date(2025, 1, 1)
    store.upsert(bars(symbols, [first], 1.0))
    told.write_text(str(len(symbols)))

    with reader(store, engine, told, len(symbols)) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        commits, until = 1, time.perf_counter() + seconds
        while (
            time.perf_counter() < until or commits <= least
        ):  # each commit adds a day and revises the one before
            clock.wait(6)  # old listings are deleted all the time, 100 commits after they were the newest
            day = first + timedelta(days=commits)
            both = [
                bars(symbols, [day], 1.0, at=clock.now()),
                bars(symbols, [day - timedelta(days=1)], 2.0, at=clock.now()),
            ]
            store.upsert(pa.concat_tables(both))
            commits += 1
            draft = told.with_suffix(".draft")
            draft.write_text(str(commits * len(symbols)))
            draft.replace(told)
        (Path(store.path) / "stop").touch()
        out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    runs, wrong = json.loads(out.splitlines()[-1])  # a slow query shows its progress before
    assert not wrong
    assert min(runs.values()) > 5 and commits > least


PACED = """
import json, pathlib, sys
if sys.argv[2]: sys.path.insert(0, sys.argv[2])
import duckdb
lake, told = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
con = duckdb.connect(str(lake / "lake.duckdb"), read_only=True)
queries = [
    "SELECT count(*), min(close), max(close) FROM bars",
    "SELECT count(*), min(a.close), max(b.close) FROM bars_1d a JOIN bars_1d b USING (vendor, symbol, session)"
    " WHERE a.close <> b.close + 100 OR a.close = b.close + 100",
    "SELECT count(*), min(close), max(close) FROM bars_best",
]
runs, wrong = 0, []
print("ready", flush=True)
while not (lake / "stop").exists():
    for number, query in enumerate(queries):
        least = int(told.read_text())
        try:
            rows, low, high = con.execute(query).fetchall()[0]
        except Exception as error:
            wrong.append([number, repr(error)]); continue
        most = int(told.read_text()) + 1
        # The join may meet two versions: its views are two readings, each of them whole.
        if rows != ROWS or not least <= low <= high <= most or (number != 1 and low != high):
            wrong.append([number, rows, low, high, least, most])
        runs += 1
print(json.dumps([runs, wrong]))
"""


def opened(engine: Path | None, lake: str, tmp_path: Path, query: str) -> set[str]:
    """The data files that DuckDB opens for a query, as the system sees it."""
    trace = tmp_path / "trace"
    code = (
        f"import sys\n{f'sys.path.insert(0, {str(engine)!r})' if engine else ''}\nimport duckdb\n"
        "con = duckdb.connect(sys.argv[1] + '/lake.duckdb', read_only=True)\ncon.execute(sys.argv[2]).fetchall()\n"
    )
    subprocess.run(
        ["strace", "-f", "-e", "trace=openat", "-o", str(trace), sys.executable, "-I", "-c", code, lake, query],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    lines = trace.read_text(errors="replace").splitlines()
    return {
        name
        for line in lines
        if (name := line.partition(lake + "/")[2].partition('"')[0]).endswith(".parquet")
    }


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize(
    "view",
    [
        "bars",
        "bars_1d",
        "bars_final",
        "bars_best",
        "bars_as_of(now())",
        "revisions",
        "bars WHERE vendor = 'qos'",
        "bars WHERE freq = '1d' AND period = '2016'",
    ],
)
def test_no_view_opens_a_file_that_may_be_deleted(
    store: Store, engine: Path | None, tmp_path: Path, view: str
) -> None:
    for year in (2015, 2016, 2017):
        store.upsert(bars(["600519.SH", "AAPL.US"], [date(year, 1, 5), date(year, 1, 6)]))
    store.append(
        "choice", pa.table({"symbol": ["x"], "freq": ["1d"], "vendor": ["qos"], "since": [date(2020, 1, 1)]})
    )
    for file in [
        *Path(store.path).glob("bars/era=current/*/*/period=2*/*.parquet"),
        *Path(store.path).glob("choice/*.parquet"),
    ]:
        if file.name[0] == "0":
            (file.parent / file_name(1)).hardlink_to(file)  # dead, first of the listing of files
            (file.parent / file_name(2**60)).hardlink_to(file)  # of a write that fails, the last of it

    for query in (
        f"SELECT count(*) FROM {view}",
        f"SELECT symbol[1], count(DISTINCT session), max(close) FROM {view} GROUP BY 1",
    ):
        found = opened(engine, store.path, tmp_path, query)

        dead = {
            name
            for name in found
            if name.rsplit("/", 1)[-1].startswith(("0000000000000001", "1000000000000000"))
        }
        assert not dead and len(found) > 2


@pytest.mark.parametrize("commits", [30, pytest.param(1_000, marks=pytest.mark.proof)])
def test_a_commit_every_20_ms_past_many_checkpoints_is_seen_whole(
    store: Store, clock: ManualClock, engine: Path | None, tmp_path: Path, commits: int
) -> None:
    symbols, days = (
        [f"{i:06d}.SZ" for i in range(10)],
        [date(2026, 1, 1) + timedelta(days=i) for i in range(5)],
    )
    told, publisher = tmp_path / "committed", Publisher(store.path, clock)
    store.upsert(bars(symbols, days, 0.0))
    empty_commits(store, 80)
    store.publish()
    told.write_text("0")
    log = publisher.logs["bars"]
    log.version()
    live = log.paths()
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", PACED.replace("ROWS", "50"), store.path, str(engine or ""), str(told)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        due = time.perf_counter()
        for generation in range(1, commits + 1):  # all bars replaced by the next generation
            rows = pa.table(bars(symbols, days, float(generation))).append_column(
                "known_at", pa.array([NOW] * 50, INCOMING.field("ts").type)
            )
            made = datafiles.write(store.path, live[0].rsplit("/", 1)[0] + f"/{file_name(generation)}",
                                   rows.select(TABLES["bars"].file_schema.names))  # fmt: skip
            log.commit([made], live, log.last_known_at() + 1, generation)
            publisher.publish([made])
            clock.wait(6)
            live = [made.path]
            draft = told.with_suffix(".draft")
            draft.write_text(str(generation))
            draft.replace(told)
            due = max(due + 0.02, time.perf_counter() - 0.02)
            time.sleep(max(0.0, due - time.perf_counter()))
    finally:
        (Path(store.path) / "stop").touch()
        out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    runs, wrong = json.loads(out.splitlines()[-1])  # a slow query shows its progress before
    assert not wrong
    assert runs > 5 and len(list((Path(store.path) / "bars/_delta_log").glob("*.checkpoint.parquet")))


def unpublished(store: Store, close: float) -> None:
    """Commit bars that replace all, as a process does that dies before it writes the manifest."""
    log = DeltaLog(store.path, TABLES["bars"])
    log.version()
    live = log.paths()
    known = pa.array([NOW], INCOMING.field("ts").type)
    rows = bars(["600519.SH"], [date(2026, 1, 5)], close).append_column("known_at", known)
    path = f"{live[0].rsplit('/', 1)[0]}/{file_name(2**50)}"
    made = datafiles.write(store.path, path, rows.select(TABLES["bars"].file_schema.names))
    log.commit([made], live, log.last_known_at() + 1, 0)


def test_after_a_crash_between_commit_and_manifest_readers_see_the_old_whole_until_the_next_open(
    store: Store, clock: ManualClock, engine: Path | None
) -> None:
    query = "SELECT count(*), min(close), max(close) FROM bars"
    store.upsert(bars(["600519.SH", "AAPL.US"], [date(2026, 1, 5), date(2026, 1, 6)], 1.0))

    unpublished(store, 2.0)

    assert asked(engine, store.path, query) == [[[4, 1.0, 1.0]]]
    assert store.bars(symbols=None, freq=Freq.D1)["close"].to_pylist() == [1.0] * 4
    Store.open(store.path, clock)
    assert asked(engine, store.path, query) == [[[1, 2.0, 2.0]]]


def test_after_a_crash_between_manifest_and_listing_the_next_open_lists_it(
    store: Store, clock: ManualClock, engine: Path | None
) -> None:
    store.upsert(bars(["600519.SH"], [date(2026, 1, 5)], 1.0))
    store.upsert(bars(["600519.SH"], [date(2026, 1, 5)], 2.0, at=NOW + timedelta(hours=1)))
    (Path(store.path) / listing(store.version)).unlink()

    before = asked(engine, store.path, "SELECT close FROM bars")
    Store.open(store.path, clock)

    assert before == [[[1.0]]]
    assert asked(engine, store.path, "SELECT close FROM bars") == [[[2.0]]]


def test_a_week_of_dead_minute_files_changes_no_answer(store: Store, engine: Path | None) -> None:
    days = [date(2026, 11, 16) + timedelta(days=n) for n in range(5)]
    minutes = [
        bars([f"{n:06d}.SZ" for n in range(5)], [day], 10.0).set_column(0, "vendor", pa.array(["qos"] * 5)).to_pylist()
        for day in days
    ]  # fmt: skip
    rows = [{**row, "freq": "1m"} for day in minutes for row in day]
    store.upsert(pa.Table.from_pylist(rows, schema=INCOMING))
    (live,) = Path(store.path).glob("bars/era=current/*/freq=1m/*/*.parquet")
    for number in range(7_200):  # what a commit a minute, 24 hours a day, leaves in five days
        (live.parent / file_name(number)).hardlink_to(live)

    found = asked(
        engine, store.path, "SELECT count(*), count(DISTINCT (symbol, ts)) FROM bars",
        "SELECT count(*) FROM bars_1m WHERE symbol = '000001.SZ'", "SELECT count(*) FROM bars_1d",
        "SELECT count(*) FROM bars_best", "SELECT count(*) FROM bars_as_of(now())",
    )  # fmt: skip

    assert found == [[[25, 25]], [[5]], [[0]], [[25]], [[25]]]


def test_a_moved_lake_is_found_by_the_first_command_and_by_its_new_views(
    store: Store, clock: ManualClock, engine: Path | None, tmp_path: Path
) -> None:
    store.upsert(bars(["600519.SH"], [date(2026, 1, 5)]))
    moved, mount = tmp_path / "it's [moved] 湖", tmp_path / "mount"
    Path(store.path).rename(moved)

    again = Store.open(str(moved), clock)
    again.upsert(bars(["600519.SH"], [date(2026, 1, 6)]))
    mount.symlink_to(moved)
    (tmp_path / "elsewhere").mkdir()
    again.views_at(str(mount), str(tmp_path / "elsewhere" / "lake.duckdb"))

    for lake in (moved, tmp_path / "elsewhere"):
        assert asked(engine, str(lake), "SELECT count(*) FROM bars_1d") == [[[2]]]
