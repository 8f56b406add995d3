"""Damage: whatever is done to a lake's files, it answers rightly or says one sentence, and there is a way back."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from stand import Stand
from verbs import Klake, Said

from klake.jobs.repair import repair
from klake.sandbox.server import Sandbox
from klake.schemas.clock import ManualClock
from klake.storage.raw import RawZone
from klake.storage.store import Store

JOB = """[jobs.daily]
vendor = "qos"
symbols = ["600519.SH", "AAPL.US", "000001.SZ"]
freq = ["1d", "1m"]
start = "2026-10-05"
"""
BARS = (
    "SELECT vendor, symbol, freq, session, ts, open, high, low, close, volume, state FROM bars ORDER BY ALL"
)
DAYS = "bars/era=current/vendor=qos/freq=1d/**/[0-9]*.parquet"
MINUTES = "bars/era=current/vendor=qos/freq=1m/**/[0-9]*.parquet"
NOON, MONDAY = "2026-11-20T08:30:00Z", 3 * 86_400.0


@dataclass(frozen=True)
class Made:
    """A lake after two syncs, kept aside, and what it answers."""

    folder: Path
    bars: Any


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One sandbox for all tests here; each has its own copy of the lake that two syncs made."""
    with Sandbox(clock_start=datetime.fromisoformat(NOON), rate=0) as sandbox:
        yield Stand(sandbox, tmp_path_factory.mktemp("damage"))


_MADE: list[Made] = []


@pytest.fixture
def lake(klake: Klake, stand: Stand) -> Path:
    """The lake of the configuration: synced on a Friday and on the Monday after."""
    root = stand.folder / "lake"
    if not _MADE or _MADE[0].folder.parent != stand.folder:
        assert klake("sync").code == 0
        stand.advance(MONDAY)
        assert klake("sync").code == 0
        shutil.copytree(root, stand.folder / "made")
        _MADE[:] = [Made(stand.folder / "made", _bars(klake))]
    else:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(_MADE[0].folder, root)
        stand.advance(61)  # the sandbox's quota is free again
    return root


def _bars(klake: Klake) -> Any:
    return klake("sql", BARS, "--json").json


def _same(klake: Klake) -> bool:
    return bool(_bars(klake) == _MADE[0].bars)


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _emptied(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _gone(path: Path) -> Path:
    path.unlink()
    return path


def _flipped(path: Path) -> Path:
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 0x10
    path.write_bytes(body)
    return path


def _one(root: Path, pattern: str) -> Path:
    """Return the last file of a pattern by name: the newest."""
    return max(root.glob(pattern))


def _checkpointed(root: Path, table: str) -> Path:
    DeltaTable(str(root / table)).create_checkpoint()
    return _one(root, f"{table}/_delta_log/*.checkpoint.parquet")


Damage = Callable[[Path], Path]

TOLD: dict[str, Damage] = {
    "days truncated": lambda root: _cut(_one(root, DAYS)),
    "days empty": lambda root: _emptied(_one(root, DAYS)),
    "days gone": lambda root: _gone(_one(root, DAYS)),
    "minutes truncated": lambda root: _cut(_one(root, MINUTES)),
    "requests truncated": lambda root: _cut(_one(root, "requests/[0-9]*.parquet")),
    "newest log entry truncated": lambda root: _cut(_one(root, "bars/_delta_log/*.json")),
    "newest log entry empty": lambda root: _emptied(_one(root, "bars/_delta_log/*.json")),
    "newest log entry gone": lambda root: _gone(_one(root, "bars/_delta_log/*.json")),
    "older log entry truncated": lambda root: _cut(root / f"bars/_delta_log/{1:020d}.json"),
    "older log entry gone": lambda root: _gone(root / f"bars/_delta_log/{1:020d}.json"),
    "first log entry truncated": lambda root: _cut(root / f"bars/_delta_log/{0:020d}.json"),
    "log of requests truncated": lambda root: _cut(_one(root, "requests/_delta_log/*.json")),
    "checkpoint truncated": lambda root: _cut(_checkpointed(root, "bars")),
}
"""What klake cannot make good by itself: verbs that need it say so, with the file and the command."""

HEALED: dict[str, Damage] = {
    "manifest truncated": lambda root: _cut(_one(root, "_manifest/*.json")),
    "manifest empty": lambda root: _emptied(_one(root, "_manifest/*.json")),
    "manifest gone": lambda root: _gone(_one(root, "_manifest/*.json")),
    "older manifest truncated": lambda root: _cut(sorted(root.glob("_manifest/*.json"))[-2]),
    "all manifests gone": lambda root: _folder_gone(root / "_manifest"),
    "an entry that a crash cut off": lambda root: _emptied(root / f"bars/_delta_log/{3:020d}.json"),
    "state gone": lambda root: _folder_gone(root / "_state"),
    "state garbage": lambda root: _garbage(root / "_state" / "state.sqlite"),
    "spool gone": lambda root: _folder_gone(root / "_spool"),
    "raw gone": lambda root: _folder_gone(root / "raw"),
    "raw record corrupt": lambda root: _flipped(_one(root, "raw/**/*.kraw")),
    "catalog gone": lambda root: _gone(root / "lake.duckdb"),
}
"""What is made of other things, or not needed for answers: made good on the way, or passed over."""


QUICK = (
    "days truncated", "requests truncated", "newest log entry truncated", "newest log entry empty",
    "older log entry gone", "checkpoint truncated", "manifest truncated", "all manifests gone", "state garbage",
)  # fmt: skip
"""A kind of damage each; `make proof` tries all."""


def _short(names: Iterable[str]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.proof) for name in names]


def _folder_gone(folder: Path) -> Path:
    shutil.rmtree(folder)
    return folder


def _garbage(path: Path) -> Path:
    path.write_bytes(b"no database" * 400)
    return path


def _tells(said: Said, table: str) -> bool:
    """Say whether a verb that failed said one sentence with the table's file in it, and the way back."""
    return said.code == 1 and f"{table}/" in said.sentence and "`klake doctor --repair`" in said.sentence


@pytest.mark.parametrize("name", _short(TOLD))
def test_what_is_damaged_is_said_with_the_file_and_the_way_back(
    klake: Klake, stand: Stand, lake: Path, name: str
) -> None:
    table = TOLD[name](lake).relative_to(lake).parts[0]
    before = len(stand.requests())

    asked, shown = klake("sql", BARS, "--json"), klake("bars", "600519.SH", "--json")
    status, synced, doctor = klake("status"), klake("sync"), klake("doctor")

    assert _tells(asked, table) or asked.json == _MADE[0].bars
    assert _tells(shown, table) or (shown.code == 0 and len(shown.json) > 20)
    assert _tells(status, table) and _tells(synced, table)
    assert "holes left" not in synced.err
    assert doctor.code == 1 and f"{table}/" in doctor.out and "klake doctor --repair" in doctor.out
    assert len(stand.requests()) == before


@pytest.mark.parametrize("name", _short([*TOLD, *HEALED]))
def test_repair_brings_everything_back_without_a_request(
    klake: Klake, stand: Stand, lake: Path, name: str
) -> None:
    (TOLD | HEALED)[name](lake)
    before = len(stand.requests())

    mended = klake("doctor", "--repair", "--deep")
    synced, again = klake("sync", "--json"), klake("doctor", "--deep")

    assert mended.code == 0, mended.out
    assert _same(klake)
    assert len(stand.requests()) == before
    assert (synced.code, synced.json["missing"], synced.json["written"]["commits"]) == (0, 0, 0)
    assert again.code == 0 and "bad " not in again.out


@pytest.mark.parametrize("name", _short(HEALED))
def test_what_is_made_of_other_things_is_made_again(
    klake: Klake, stand: Stand, lake: Path, name: str
) -> None:
    HEALED[name](lake)
    before = len(stand.requests())

    answers = _same(klake)
    verbs = [klake(*line) for line in (["bars", "600519.SH", "--json"], ["status"], ["sync"], ["doctor"])]

    assert answers
    assert [said.code for said in verbs] == [0, 0, 0, 0]
    assert "holes left: 0" in verbs[2].err and len(stand.requests()) == before
    assert klake("sql", "SELECT count(*) AS n FROM coverage", "--json").json[0]["n"] > 5


@pytest.mark.parametrize("name", ["coverage", "sessions"])
def test_published_tables_are_published_again_by_the_next_run(klake: Klake, lake: Path, name: str) -> None:
    _cut(_one(lake, f"{name}/[0-9]*.parquet"))

    asked, synced = klake("sql", f"SELECT * FROM {name}", "--json"), klake("sync")
    after = klake("sql", f"SELECT count(*) AS n FROM {name}", "--json")

    assert _tells(asked, name)
    assert synced.code == 0 and after.json[0]["n"] > 0 and klake("doctor").code == 0


def test_a_bit_that_turned_is_found_by_decoding_everything(klake: Klake, stand: Stand, lake: Path) -> None:
    _flipped(_one(lake, MINUTES))
    before = len(stand.requests())

    shallow, deep = klake("doctor"), klake("doctor", "--deep")
    mended = klake("doctor", "--deep", "--repair")

    assert shallow.code == 0
    assert (
        deep.code == 1
        and "freq=1m" in deep.out
        and "bars of qos 1m (000001.SZ, 600519.SH, AAPL.US" in deep.out
    )
    assert mended.code == 0 and _same(klake) and len(stand.requests()) == before


def test_a_corrupt_raw_record_is_listed_and_what_it_held_is_asked_again(
    klake: Klake, stand: Stand, lake: Path
) -> None:
    for segment in lake.glob("raw/**/*.kraw"):
        _flipped(segment)
    _gone(_one(lake, DAYS))
    before = len(stand.requests())

    listed, mended = klake("doctor"), klake("doctor", "--repair")
    synced = klake("sync", "--json")

    assert ".kraw: a record at byte" in listed.out and "cannot be read" in mended.out
    assert synced.code == 0 and synced.json["missing"] == 0
    assert 1 <= len(stand.requests()) - before <= 3
    daily = "SELECT symbol, session, close FROM bars WHERE freq = '1d' ORDER BY ALL"
    was = [(r["symbol"], r["session"], r["close"]) for r in _MADE[0].bars if r["freq"] == "1d"]
    assert [tuple(row.values()) for row in klake("sql", daily, "--json").json] == sorted(was)
    assert klake("sync", "--json").json["requests_sent"] == 0


def test_a_torn_entry_and_no_manifest_still_lose_nothing(klake: Klake, stand: Stand, lake: Path) -> None:
    _cut(_one(lake, "bars/_delta_log/*.json"))
    _folder_gone(lake / "_manifest")
    before = len(stand.requests())

    mended = klake("doctor", "--repair")

    assert mended.code == 0 and "sessions were called held" in mended.out
    assert _same(klake) and len(stand.requests()) == before


def test_a_file_that_no_manifest_describes_and_nobody_can_read_is_let_go_of(
    klake: Klake, stand: Stand, lake: Path
) -> None:
    _cut(_one(lake, DAYS))
    _folder_gone(lake / "_manifest")
    before = len(stand.requests())

    told, mended = klake("status"), klake("doctor", "--repair")

    assert _tells(told, "bars")
    assert mended.code == 0 and _same(klake) and len(stand.requests()) == before


def test_imported_bars_that_are_lost_are_named_with_the_command_that_brings_them(
    klake: Klake, lake: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("date,open,high,low,close,volume\n2024-01-02,1,2,1,2,5\n2024-01-03,2,3,2,3,6\n")
    line = ("import", str(file), "--freq", "1d", "--symbol", "00700.HK", "--vendor", "mine")
    klake(*line)
    _gone(_one(lake, "bars/era=current/vendor=mine/**/[0-9]*.parquet"))

    mended = klake("doctor", "--repair", "--json").json["steps"]
    again = klake(*line)

    (step,) = [step for step in mended if step["name"] == "bars"]
    assert "2 bars of mine 1d (00700.HK; 2024-01-02 to before 2024-01-04)" in step["told"]
    assert "klake import FILE --vendor mine --freq 1d" in step["do"]
    assert again.code == 0
    assert klake("sql", "SELECT count(*) AS n FROM bars WHERE vendor = 'mine'", "--json").json == [{"n": 2}]


def test_a_repair_that_is_cut_off_is_ended_by_the_next(
    klake: Klake, stand: Stand, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut(_one(lake, DAYS))
    before = len(stand.requests())

    def cut_off(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, stand.desk() as desk, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            Store, "let_go", lambda self, found: cut_off() if any(f.table == "bars" for f in found) else 0
        )
        list(repair(desk))
    missing = klake("status", "--json").json["missing"]
    mended = klake("doctor", "--repair")

    assert missing > 20
    assert mended.code == 0 and _same(klake) and len(stand.requests()) == before


def test_the_state_is_rebuilt_on_demand_and_says_what_it_found(
    klake: Klake, stand: Stand, lake: Path
) -> None:
    known = "SELECT symbol, freq, start, standing, reason FROM coverage ORDER BY ALL"
    covered = klake("sql", known, "--json").json
    before = len(stand.requests())

    said = klake("doctor", "--rebuild-state")
    again = klake("sync", "--json")

    assert said.code == 0 and "stretches of 6 series" in said.out
    assert klake("sql", known, "--json").json == covered
    assert (again.json["missing"], len(stand.requests()) - before) == (0, 0)


def test_sessions_that_coverage_claims_and_bars_lack_are_found_and_come_back(
    klake: Klake, stand: Stand, lake: Path, clock: ManualClock
) -> None:
    store = Store.open(str(lake), clock)
    store.let_go([one for one in _as_damage(store) if "freq=1d" in one.path])
    before = len(stand.requests())

    silent = klake("sync")
    said = klake("doctor", "--rebuild-state")

    assert "holes left: 0" in silent.err
    assert "101 sessions were called held and have no bar" in said.out
    assert _same(klake) and len(stand.requests()) == before


def _as_damage(store: Store) -> list[Any]:
    """Every file of bars, as if it were damaged."""
    folder = Path(store.path) / "bars" / "era=current"
    folder.rename(folder.with_name("away"))
    try:
        return store.damage(footers=False)
    finally:
        folder.with_name("away").rename(folder)


def test_a_state_of_an_earlier_day_is_brought_up_to_date_without_a_request(
    klake: Klake, stand: Stand, lake: Path, tmp_path: Path
) -> None:
    shutil.copytree(lake / "_state", tmp_path / "old")
    stand.advance(86_400)
    klake("sync")
    shutil.rmtree(lake / "_state")
    shutil.copytree(tmp_path / "old", lake / "_state")
    before = len(stand.requests())

    synced = klake("sync", "--json")
    stand.control("POST", "/clock", {"advance_s": -86_400.0})

    assert synced.json["missing"] == 0 and synced.json["written"]["commits"] == 0
    assert len(stand.requests()) == before


@contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _may_mount() -> bool:
    return (
        os.name == "posix"
        and hasattr(os, "geteuid")
        and os.geteuid() == 0
        and shutil.which("mount") is not None
    )


@pytest.mark.skipif(_may_mount() or not shutil.which("unshare"), reason="runs as root, or has no unshare")
def test_the_full_disk_is_tried_in_a_name_space_where_nobody_is_root() -> None:
    line = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-q", __file__, "-k", "full_disk_costs"]
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this system lets nobody but root mount a disk")

    done = subprocess.run(["unshare", "-rm", *line], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not _may_mount(), reason="only root may mount a small disk; see the test before")
@pytest.mark.parametrize("step", [36, pytest.param(4, marks=pytest.mark.proof)])
def test_a_full_disk_costs_one_sentence_and_no_page_twice(
    klake: Klake, stand: Stand, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    made, ready = _MADE[0].folder, tmp_path / "ready"
    with _small_disk(tmp_path / "disk", "16m") as disk:
        monkeypatch.setenv("KLAKE_LAKE__PATH", str(disk / "lake"))
        _renewed(stand, disk, made)
        assert klake("status").code == 0  # writes the views for this place
        shutil.copytree(disk / "lake", ready)
        codes = [_full_then_free(klake, stand, disk, *at) for at in ((made, 48), (made, 200))]
        codes += [_full_then_free(klake, stand, disk, ready, spare) for spare in range(0, 200, step)]

    assert set(codes[:3]) == {1} and codes[-1] == 0, codes


def _renewed(stand: Stand, disk: Path, source: Path) -> None:
    """Put the lake of Monday on the disk, on Tuesday: one page is to be asked for."""
    shutil.rmtree(disk / "lake", ignore_errors=True)
    shutil.copytree(source, disk / "lake")
    if datetime.fromisoformat(stand.control("GET", "/clock")["now"]).day < 24:
        stand.advance(86_400)
    stand.advance(61)


def _filled(disk: Path, spare: int) -> None:
    free = os.statvfs(disk)
    (disk / "ballast").write_bytes(b"x" * max(0, free.f_bavail * free.f_bsize - spare))


def _full_then_free(klake: Klake, stand: Stand, disk: Path, source: Path, spare_kb: int) -> int:
    """Return the exit code of a sync on a full disk, after the one that follows with room again."""
    _renewed(stand, disk, source)
    _filled(disk, spare_kb * 1024)
    start = len(stand.requests())
    full = klake("sync")
    read = klake("sql", "SELECT count(*) AS n FROM bars", "--json")
    (disk / "ballast").unlink()
    paid = len(stand.requests()) - start
    durable = _pages(disk / "lake") > _pages(source)
    then = klake("sync", "--json")
    asked = len(stand.requests()) - start - paid

    assert full.code == 0 or "cannot be written" in full.sentence, full.err
    assert read.code == 0 and read.json[0]["n"] >= len(_MADE[0].bars)
    assert then.code == 0 and then.json["missing"] == 0
    assert asked == (0 if durable else 1)
    assert klake("sync", "--json").json["requests_sent"] == 0
    assert all(
        check["level"] != "bad"
        for check in klake("doctor", "--deep", "--json").json["checks"]
        if check["name"] != "disk"
    )
    return full.code


def _pages(root: Path) -> int:
    return sum(1 for _ in RawZone(str(root), ManualClock(datetime.fromisoformat(NOON))).pages())


@pytest.mark.skipif(
    os.name != "posix" or not shutil.which("setpriv"), reason="needs setpriv to be somebody else"
)
def test_a_lake_that_may_only_be_read_answers_and_says_why_it_takes_nothing(stand: Stand, lake: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        place = Path(folder)
        place.chmod(0o755)
        shutil.copytree(lake, place / "lake")
        shutil.copy(stand.config, place / "klake.toml")
        (place / "state").mkdir()
        (place / "state").chmod(0o777)
        for path in (place / "lake", *(place / "lake").rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        environment = {**os.environ, "KLAKE_STATE": str(place / "state"), "HOME": str(place / "state")}

        def run(*argv: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*other, sys.executable, "-m", "klake", *argv], check=False, cwd=place,
                                  env=environment, capture_output=True, text=True)  # fmt: skip

        asked = run("sql", BARS, "--json")
        failed = [run("sync"), run("doctor", "--repair")]
        for path in (place / "lake", *(place / "lake").rglob("*")):
            path.chmod(0o755)

    assert asked.returncode == 0 and json.loads(asked.stdout) == _MADE[0].bars
    for said in failed:
        assert said.returncode == 1 and "Traceback" not in said.stderr, said.stderr
        assert "cannot be written" in said.stderr
