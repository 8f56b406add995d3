"""Crash: whatever the moment at which a process is killed, readers see old or new, and the next run completes.

A disk changes by system calls only, so a process that is killed before each of its file-changing calls
in turn leaves behind every state that a kill can leave. `strace` lists these calls in one run and kills
each further run at one of them. It counts calls thread by thread and mixes in what runtimes write to
themselves, so each call is told by its name, the path that it is about, and its number among the calls
of that name on that path; the children draw file names from a seed, which makes paths the same each time.
That it was this call that a run died at is read from its trace.

Not shown here: a loss of power, after which the disk may have forgotten what was not synced.
"""

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import crash_child
import duckdb
import pyarrow as pa
import pytest
from crash_child import FETCHED, NEWCOMER, NOW, OPERATIONS, OTHER, RAW, SERIES, asked, bars, minutes

from klake.errors import KlakeError
from klake.schemas.clock import ManualClock
from klake.schemas.freq import Freq
from klake.storage.layout import SPOOL, file_name, listing, seed
from klake.storage.publisher import microseconds
from klake.storage.raw import RawZone
from klake.storage.state import State
from klake.storage.store import Store
from klake.storage.tables import TABLES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills and forks are those of POSIX")

# Every call of Linux by which a file or a name changes, and those that make a change durable; flock and
# close change nothing on the disk, and SQLite's shared memory is rebuilt from its log.
CHANGING: Final = (
    "openat", "creat", "write", "pwrite64", "writev", "pwritev", "fsync", "fdatasync", "sync_file_range",
    "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir",
    "mkdir", "mkdirat", "truncate", "ftruncate", "fallocate", "copy_file_range", "sendfile", "splice",
)  # fmt: skip
PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "klake")  # seeds the random moments
DAY_S: Final = 86_400
KEY: Final = "vendor, symbol, freq, ts, session"
VALUES: Final = "open, high, low, close, volume, amount, state"
NEW: Final = ", ".join(f"new_{name}" for name in VALUES.split(", "))
QUERIES: Final = {
    "bars": f"SELECT {KEY}, {VALUES}, flags, fetched_at FROM bars ORDER BY ALL",
    "revisions": f"SELECT {KEY}, {VALUES}, fetched_at, {NEW} FROM revisions ORDER BY ALL",
    "requests": "SELECT * EXCLUDE (known_at) FROM requests ORDER BY ALL",
    "earlier": f"SELECT * FROM bars_as_of(TIMESTAMPTZ '{NOW - timedelta(days=9)}') ORDER BY ALL",
    "doubled": f"SELECT {KEY} FROM bars GROUP BY ALL HAVING count(*) > 1",
}
Content = dict[str, list[tuple[Any, ...]]]


def seen(root: str) -> Content:
    """What any DuckDB sees that knows nothing of klake."""
    with duckdb.connect(f"{root}/lake.duckdb", read_only=True) as con:
        con.execute("SET TimeZone='UTC'")
        found = {name: con.execute(query).fetchall() for name, query in QUERIES.items()}
    assert found["doubled"] == []
    return found


def ours(root: str, clock: ManualClock) -> Content:
    """What a Python reader sees, who opens the lake; it must agree with itself, however it asks."""
    store = Store.open(root, clock)
    with store.connect() as con:
        found = {name: con.execute(query).fetchall() for name, query in QUERIES.items()}
    for freq in (Freq.D1, Freq.M1):
        vendors = {row[0] for row in found["bars"]}
        kept = [store.bars(symbols=None, freq=freq, vendor=vendor) for vendor in vendors]
        assert sum(table.num_rows for table in kept) == sum(row[2] == freq.value for row in found["bars"])
    return found


# --- lakes as they are before the operation ---


def put(root: str, since: datetime, *tables: pa.Table) -> Store:
    """Store one table a minute; each changes something."""
    clock = ManualClock(since)
    store = Store.open(root, clock, create=True)
    for table in tables:
        clock.wait(60)
        assert store.upsert(table).commits == 1
    return store


def lake(root: str) -> None:
    """A closed year, an open one in two tiers, minutes, superseded rows; eight small files of requests."""
    two = ["600519.SH", "000001.SZ"]
    put(root, FETCHED, bars(two, date(2025, 3, 1), 10), bars(two, date(2026, 10, 1), 45))
    store = put(
        root, FETCHED + timedelta(days=1), minutes("600519.SH", date(2026, 11, 19), 30),
        bars(["600519.SH"], date(2026, 11, 9), 2, close=11.0, at=FETCHED + timedelta(days=1)),
    )  # fmt: skip
    for n in range(8):
        store.clock.wait(60)
        store.append("requests", asked(f"p-{n}"))


def untidy(root: str) -> None:
    """Files that compaction folds: new symbols beside large files, in both eras."""
    lake(root)
    made, since = list[pa.Table](), FETCHED + timedelta(days=2)
    for n in range(3):
        made += [
            bars([f"00000{n}.BJ"], date(2026, 10, 1), 18),
            minutes(f"00000{n}.BJ", date(2026, 11, 19), 18),
        ]
    made += [bars([name], date(2026, 10, 1), 30, close=12.0, at=since) for name in ("600519.SH", "000001.SZ")]
    put(root, since, *made)


def dirty(root: str) -> None:
    """Dead files that are due, and what crashes leave: a file and a draft under a claim that nobody holds."""
    lake(root)
    since = FETCHED + timedelta(days=2)
    store = put(
        root, since, *(bars(["600519.SH"], date(2025, 3, 1), 3, close=13.0 + n, at=since) for n in range(2))
    )
    live = Path(root) / store.snapshot().of("bars")[0].path
    name = file_name(microseconds(since), "0123456789ab")
    shutil.copy(live, live.with_name(name))
    live.with_name(f".{name}.00.writing").write_bytes(b"torn")
    (Path(root) / SPOOL / "claims" / name[:29]).touch()
    (Path(root) / "_manifest" / ".foreign").write_bytes(b"x")
    os.utime(Path(root) / "_manifest" / ".foreign", (0, 0))


def long_ago(root: str) -> None:
    """A log whose next commit writes a checkpoint and forgets entries that are older than a month."""
    lake(root)
    since, day = FETCHED + timedelta(days=2), date(2026, 11, 10)
    left = 98 - Store.open(root, ManualClock(since)).version_of("bars")
    put(root, since, *(bars(["600519.SH"], day, 1, close=14.0 + n, at=since) for n in range(left)))
    for path in (Path(root) / "bars" / "_delta_log").iterdir():
        os.utime(path, (path.stat().st_mtime - 40 * DAY_S,) * 2)


def spooled(root: str) -> None:
    """A lake in whose spool a dead process left a page and a torn one."""
    lake(root)
    RawZone(root, ManualClock(NOW - timedelta(days=1))).append([crash_child.page(0, b"zero", "late")])
    (left,) = (Path(root) / SPOOL).glob("*.spool")
    with left.open("ab") as file:
        file.write(left.read_bytes()[:20])


def booked(root: str) -> None:
    """A lake whose ledger says what its requests prove."""
    lake(root)
    crash_child._books(root, ManualClock(NOW - timedelta(days=1))).state.close()


def nothing(root: str) -> None:
    Path(root).mkdir()


# --- what must hold after a kill ---


@dataclass
class Case:
    """One operation on one lake, with the content before and after it."""

    root: str
    op: str
    pristine: Path
    old: Content = field(default_factory=dict)
    new: Content = field(default_factory=dict)
    files: int = 0
    lasts_s: float = 0.0

    def fresh(self) -> None:
        """Put the lake back to what it was before the operation."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.pristine, self.root)

    def run(self, clock: ManualClock) -> None:
        """Run the operation to its end, in this process."""
        OPERATIONS[self.op](self.root, clock, lambda what: None)

    def wrong(self, when: str, acked: Sequence[str]) -> list[str]:
        """Return what does not hold of the lake, whose user was killed at that moment; one line, or none."""
        try:
            self.judge(acked)
        except (AssertionError, KlakeError, duckdb.Error, OSError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = str(error).split("\n  Use -v")[0][:600]
            return [f"{self.op} killed {when} after {acked}: {place.name}: {type(error).__name__}: {text}"]
        return []

    def judge(self, acked: Sequence[str]) -> None:
        """Hold everything that was promised of a lake whose user was killed after `acked`."""
        clock = ManualClock(NOW + timedelta(minutes=1))
        before = JUDGES.get(self.op, _nothing_more)
        before(self, acked)
        if self.op != "create":
            _old_or_new(self, seen(self.root), acked)
            after = ours(self.root, clock)
            _old_or_new(self, after, acked)
        clock.wait(60)
        self.run(clock)
        assert seen(self.root) == self.new
        assert len(Store.open(self.root, clock).snapshot().files) <= self.files
        _cleaned(self, clock)


# Of what an acknowledgement says that it is there from now on.
PROMISED: Final = {"bars": ("bars", "revisions"), "requests": ("requests",), "flushed": ("bars", "requests")}


def _old_or_new(case: Case, found: Content, acked: Sequence[str]) -> None:
    for name, rows in found.items():
        assert rows in (case.old[name], case.new[name]), name
    for name in {name for word in acked for name in PROMISED.get(word, ())}:
        assert found[name] == case.new[name], name
    sides = {
        found[name] == case.new[name] for name in ("bars", "revisions") if case.old[name] != case.new[name]
    }
    assert len(sides) < 2, "bars and revisions are of two generations"
    if case.old["requests"] != case.new["requests"] == found["requests"]:
        assert found["bars"] == case.new["bars"], "requests vouch for bars that are not there"


def _cleaned(case: Case, clock: ManualClock) -> None:
    """Once time has passed, by the lake's clock and the disk's, one vacuum leaves what is named and nothing else."""
    clock.wait(9 * DAY_S)
    root, old = Path(case.root), time.time() - 9 * DAY_S
    for path in root.rglob("*"):
        os.utime(path, (old, old))
    store = Store.open(case.root, clock)
    store.vacuum()
    manifest = store.snapshot()
    named = (
        {file.path for file in manifest.files} | set(manifest.extras.values()) | {listing(manifest.version)}
    )
    named |= {seed(name) for name in ("bars", "past", *TABLES, "coverage", "sessions", "yields")}
    named |= {f"_manifest/{manifest.version:020d}.json", "_manifest/views", "klake-lake.json", "lake.duckdb"}
    kept = re.compile(r"\w+/_delta_log/(\d{20}\.(json|checkpoint\.parquet)|_last_checkpoint)"
                      r"|_spool/((booking|commit|keep)\.lock|vacuumed)|_state/.*|raw/\w+/[-\d]+/\w+\.\w+\.kraw")  # fmt: skip
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert [path for path in sorted(found - named) if not kept.fullmatch(path)] == []
    assert {path for path in named - found if not path.endswith("_seed.parquet")} == set()
    assert seen(case.root) == case.new


def _nothing_more(case: Case, acked: Sequence[str]) -> None:
    pass


def _every_page(case: Case, acked: Sequence[str]) -> None:
    """Each page that was acknowledged is there once, whole, before and after the next process has opened it."""
    clock = ManualClock(NOW + timedelta(minutes=1))
    given = {page.id: page for some in RAW for page in some}
    before = RawZone(case.root, clock)
    pages = list(before.pages())
    held = Counter(page.id for page in pages)
    assert set(held.values()) == {1} and held.keys() >= {*acked, "late-0"} - {"sealed"}
    assert all(page == given[page.id] for page in pages if page.id in given)
    assert before.problems() == () and before.living() == frozenset()
    again = RawZone(case.root, clock)
    again.seal()
    assert sorted(again.pages(), key=lambda p: p.id) == sorted(pages, key=lambda p: p.id)
    assert {page.id for page in again.unsettled(set())} == set(held)


def _every_entry(case: Case, acked: Sequence[str]) -> None:
    """The ledger is sound to any SQLite, holds what was acknowledged, and nobody has to rebuild it."""
    path = Store.open(case.root, ManualClock(NOW)).state_path
    con = sqlite3.connect(path)
    try:
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        covered = con.execute("SELECT count(*) FROM coverage WHERE symbol = ?", [OTHER.symbol]).fetchone()[0]
        runs = dict(con.execute("SELECT run, ended_us IS NOT NULL FROM runs").fetchall())
    finally:
        con.close()
    assert covered == 1 or "recorded" not in acked
    assert "run-2" in runs or "started" not in acked
    assert runs.get("run-2") or "finished" not in acked
    state = State.open(path, "another")
    assert state.broken is None
    state.close()
    books = crash_child._books(case.root, ManualClock(NOW))
    known = books.ledger.covered([OTHER, SERIES])
    assert (len(known[OTHER]), len(known[SERIES])) == (covered, 1)
    books.state.close()


def _what_is_claimed_is_held(case: Case, acked: Sequence[str]) -> None:
    """Each page that was received is kept once; no session is covered whose bar is not there."""
    held = Counter(page.id for page in RawZone(case.root, ManualClock(NOW)).pages())
    assert set(held.values()) <= {1}
    assert held.keys() >= {word for word in acked if word != "flushed"}
    books = crash_child._books(case.root, ManualClock(NOW))
    claimed = books.ledger.covered([NEWCOMER])[NEWCOMER]
    books.state.close()
    assert not claimed or seen(case.root)["bars"] == case.new["bars"]
    assert claimed or "flushed" not in acked


def _one_lake(case: Case, acked: Sequence[str]) -> None:
    """A lake that was acknowledged keeps its identity."""
    if acked:
        Store.open(case.root, ManualClock(NOW))


JUDGES: Final[dict[str, Callable[[Case, Sequence[str]], None]]] = {
    "raw": _every_page, "ledger": _every_entry, "flush": _what_is_claimed_is_held, "create": _one_lake,
}  # fmt: skip
CASES: Final[dict[str, tuple[str, Callable[[str], None]]]] = {
    "write": ("write", lake), "compact": ("compact", untidy), "vacuum": ("vacuum", dirty),
    "raw": ("raw", spooled), "ledger": ("ledger", booked), "flush": ("flush", booked),
    "create": ("create", nothing), "checkpoint": ("write", long_ago),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _small_tiers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tiers", "compact", "upsert"):
            patch.setattr(f"klake.storage.{name}.SMALL", 16)
        yield


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.proof] if name == "checkpoint" else []) for name in CASES],
)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _small_tiers: None
) -> Case:
    """A lake made for an operation, and what the operation makes of it."""
    folder = tmp_path_factory.mktemp(request.param)
    root, (op, prepare) = str(folder / "lake"), CASES[request.param]
    prepare(root)
    shutil.copytree(root, folder / "pristine")
    case = Case(root, op, folder / "pristine")
    if op != "create":
        case.old = seen(root)
    began = time.monotonic()
    case.run(ManualClock(NOW))
    case.lasts_s = time.monotonic() - began
    case.new, case.files = seen(root), len(Store.open(root, ManualClock(NOW)).snapshot().files)
    return case


# --- children, traced and killed ---


@dataclass
class Child:
    """A process that is about to run an operation; it stands still until `go`."""

    pid: int
    acks: Path
    nursery: "Nursery"

    def go(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def ended(self) -> tuple[int, list[str]]:
        """Return how it ended (0, or minus a signal) and what it had acknowledged."""
        code = self.nursery.code()
        said = self.acks.read_text().splitlines()
        assert code in (0, -signal.SIGKILL), "\n".join(said)
        return code, [line.removeprefix("ACK ") for line in said if line.startswith("ACK ")]


class Nursery:
    """A process that makes children which have imported everything already."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crash_child.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def code(self) -> int:
        """Return how the child that runs has ended, once it has."""
        code, self._running = self._number(), 0
        return code

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def child(self, case: Case, *, steady: bool = False, nth: int = 0) -> Child:
        """Return the `nth` child that works on one lake, which is put back to what it was for the first."""
        assert self._process.stdin is not None
        if not nth:
            case.fresh()
        acks = self._folder / "acks"
        acks.unlink(missing_ok=True)
        order = [case.root, case.op, NOW.isoformat(), str(acks), f"{case.op} {nth}", steady]
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._running = self._number()
        return Child(self._running, acks, self)

    def close(self) -> None:
        """End the process, and a child whose test ended before it."""
        if self._process.poll() is None and self._running:
            with suppress(ProcessLookupError):
                os.kill(self._running, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


@dataclass(frozen=True)
class Call:
    """One system call on the lake: the `number`th of its name on `path` in its thread."""

    name: str
    path: str
    number: int

    def told(self, root: str) -> str:
        return f"{self.name} {self.path.removeprefix(root)} {self.number}"


_LINE: Final = re.compile(r"(\w+)\((.*)\) += (\?|-?\d+)")
_OPENED: Final = re.compile(r"O_(CREAT|TRUNC)")


class Tracer:
    """strace, attached to a child."""

    def __init__(self, strace: str, folder: Path) -> None:
        self._strace, self._folder = strace, folder

    def run(self, child: Child, *options: str) -> list[list[tuple[str, list[str], str, str]]]:
        """Let a traced child run; return its calls by thread: name, paths, arguments, result."""
        for old in self._folder.glob("trace.*"):
            old.unlink()
        tracer = subprocess.Popen(
            [self._strace, "-ff", "-y", "-s", "1", "-o", str(self._folder / "trace"), *options, "-p", str(child.pid)],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert tracer.stderr is not None
        while "attached" not in (line := tracer.stderr.readline()):
            assert line, "strace did not attach"
        child.go()
        tracer.communicate(timeout=120)
        return [_parsed(path.read_text()) for path in sorted(self._folder.glob("trace.*"))]

    def calls(self, child: Child, root: str) -> list[Call]:
        """Return every call of a whole run that changed something in the lake."""
        found = list[Call]()
        for thread in self.run(child, "-e", f"trace={','.join('?' + name for name in CHANGING)}"):
            counts = Counter[tuple[str, str]]()
            for name, paths, arguments, result in thread:
                mine = [path for path in paths if path.startswith(root)]
                counts.update((name, path) for path in set(mine))
                if mine and not result.startswith("-") and (name != "openat" or _OPENED.search(arguments)):
                    found.append(Call(name, mine[0], counts[name, mine[0]]))
        return found

    def kill(self, child: Child, call: Call) -> bool:
        """Let a child run until it is about to make `call`, and kill it there; return whether it was that call."""
        threads = self.run(
            child, "-P", call.path, "-e", f"trace={call.name}",
            "-e", f"inject={call.name}:signal=SIGKILL:when={call.number}",
        )  # fmt: skip
        unfinished = [(thread, entry) for thread in threads for entry in thread if entry[3] == "?"]
        return len(unfinished) == 1 and unfinished[0][0][call.number - 1] == unfinished[0][1]


def _parsed(text: str) -> list[tuple[str, list[str], str, str]]:
    found = list[tuple[str, list[str], str, str]]()
    for line in text.splitlines():
        if match := _LINE.match(line):
            name, arguments, result = match.groups()
            quoted = re.findall(r'"([^"]*)"(?!\.\.\.)', arguments) if "write" not in name else []
            handles = re.findall(r"\d+<(/[^>]*)>", arguments)
            found.append((name, quoted + handles, arguments, result))
    return found


@pytest.fixture(scope="session")
def strace() -> str:
    """The path of strace, which is installed where that can be done; skips where nobody may trace."""
    if not (found := shutil.which("strace")) and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(
            ["apt-get", "install", "-qq", "-y", "strace"], capture_output=True, check=False, timeout=300
        )
        found = shutil.which("strace")
    if not found:
        pytest.skip("no strace here, and it cannot be installed: apt-get install strace")
    tried = subprocess.run(
        [found, "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()}")
    return found


def killed_at_each(case: Case, nursery: Nursery, tracer: Tracer, some: int = 0) -> Counter[str]:
    """Kill the operation at each of its calls, or at `some` of them, and judge; return its calls by name."""
    first = nursery.child(case, steady=True)
    calls = tracer.calls(first, case.root)
    assert first.ended()[0] == 0 and len(calls) == len(set(calls)) > 3
    step, wrong = len(calls) // some if some else 1, list[str]()
    for call in calls[step // 2 :: step]:
        child = nursery.child(case, steady=True)
        hit = tracer.kill(child, call)
        code, acked = child.ended()
        assert hit and code == -signal.SIGKILL, f"{call.told(case.root)} was not what the run died at"
        wrong += case.wrong(f"at {call.told(case.root)}", acked)
    assert not wrong, "\n".join(wrong)
    return Counter(call.name for call in calls)


def killed_at_random(case: Case, nursery: Nursery, kills: int) -> int:
    """Kill the operation at random moments, up to thrice in a row, and judge; return how many runs that took.

    Runs that had come to their end by then do not count; the moments are drawn from about as long as they take.
    """
    dice = random.Random(f"{PROFILE} {case.pristine.parent.name}")
    done, runs, wrong = 0, 0, list[str]()
    while done < kills:
        moments, acked = list[str](), list[str]()
        for nth in range(min(kills - done, dice.choice((1, 1, 2, 3)))):
            child, after = nursery.child(case, nth=nth), dice.uniform(0, case.lasts_s)
            child.go()
            time.sleep(after)
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            code, more = child.ended()
            done, runs = done + (code != 0), runs + 1
            case.lasts_s *= 1.05 if code else 0.8
            acked += more
            moments.append(f"{after:.4f} s")
        wrong += case.wrong(f"after {' and '.join(moments)}", acked)
    assert not wrong, "\n".join(wrong)
    return runs


def test_killed_at_some_of_its_file_operations(
    case: Case, nursery: Nursery, strace: str, tmp_path: Path
) -> None:
    killed_at_each(
        case, nursery, Tracer(strace, tmp_path), some=2 if case.op in {"write", "compact", "flush"} else 1
    )


def test_killed_at_random_moments(case: Case, nursery: Nursery) -> None:
    killed_at_random(case, nursery, 1)


@pytest.mark.proof
def test_killed_at_every_file_operation(case: Case, nursery: Nursery, strace: str, tmp_path: Path) -> None:
    began = time.monotonic()
    calls = killed_at_each(case, nursery, Tracer(strace, tmp_path))

    print(f"{calls.total()} kills in {time.monotonic() - began:.0f} s:", dict(calls.most_common()))


@pytest.mark.proof
def test_killed_at_many_random_moments(case: Case, nursery: Nursery) -> None:
    began = time.monotonic()
    runs = killed_at_random(case, nursery, 25)

    print(f"25 kills at random in {time.monotonic() - began:.0f} s, {runs} runs")
