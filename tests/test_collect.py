"""Two machines: one collects pages into a folder, the other takes them into its lake."""

import os
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal
from stand import Stand
from test_replay import bars, stands
from test_sync import held, job, truth
from verbs import Klake

import klake as package
from klake.errors import LakeHolds
from klake.jobs.desk import Books, open_desk
from klake.schemas.action import Kind
from klake.schemas.freq import Freq
from klake.schemas.page import Entry, Page, PageRequest
from klake.storage.raw import RawZone
from klake.storage.store import Store

JOB = job(["600519.SH", "AAPL.US", "BTCUSDT.P.QOS"], ["1d", "1h"], "2026-11-02")


@pytest.fixture
def out(stand: Stand) -> Path:
    return stand.folder / "collected"


@pytest.fixture
def other(stand: Stand) -> Path:
    """The other machine's configuration: its own lake, the vendor's table without a key, no job."""
    config = stand.folder / "other" / "klake.toml"
    config.parent.mkdir()
    config.write_text(
        f'[lake]\npath = "lake"\n[sandbox]\ncontrol = "{stand.sandbox.control_url}"\n[vendors.qos]\nkind = "qos"\n'
    )
    return config


def books(config: Path) -> Books:
    return open_desk(config).books()


def read_only(folder: Path, yes: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o555 if path.is_dir() else 0o444) if yes else (0o755 if path.is_dir() else 0o644))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file() and "_state" not in p.parts  # SQLite's side files come and go with connections
    }


def test_a_folder_collected_here_gives_there_the_bars_of_a_sync(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    collected = klake("collect", "--out", str(out), "--json")
    sent = len(stand.requests())
    stood = listing(out)

    took = klake("replay", str(out), "--json", config=other)

    assert (collected.code, collected.json["written"]["commits"]) == (0, 0)
    assert not list(out.rglob("bars/**/freq=1*/**/*.parquet")) and not (out / "lake.duckdb").exists()
    assert (took.code, took.json["pages"]) == (0, collected.json["requests_sent"])
    assert len(stand.requests()) == sent
    assert listing(out) == stood
    there = books(other)
    direct = klake("sync", "--json").json
    assert direct["stored"] == collected.json["stored"]
    theirs = package.open(str(other.parent / "lake"))
    for freq in ("1d", "1h"):
        mine = bars(stand, freq)
        got = theirs.bars(["600519.SH", "AAPL.US"], freq).pl()
        assert_frame_equal(got.drop("known_at", "fetched_at"), mine.drop("known_at", "fetched_at"))
    assert stands(there) == stands(books(stand.config))


def test_what_was_taken_is_not_asked_for_again_where_there_is_a_key(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    klake("collect", "--out", str(out))
    klake("replay", str(out), config=other)
    sent = len(stand.requests("/kline", "/history"))
    text = stand.config.read_text().replace('path = "lake"', 'path = "other/lake"')
    other.write_text(text)
    stand.config.write_text(text)

    synced = klake("sync", "--json")

    assert synced.code == 0
    assert (synced.json["requests_sent"], synced.json["replayed"]) == (0, 0)
    assert len(stand.requests("/kline", "/history")) == sent


def test_taking_a_folder_twice_changes_nothing_and_more_pages_are_taken_as_they_come(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    klake("collect", "--out", str(out))
    first = klake("replay", str(out), "--json", config=other)
    version, pages = books(other).store.version, len(list((other.parent / "lake").glob("raw/*/*/*.kraw")))

    second = klake("replay", str(out), "--json", config=other)
    unchanged = books(other).store.version
    stand.advance(86400 * 3)
    more = klake("collect", "--out", str(out), "--json")
    third = klake("replay", str(out), "--json", config=other)

    assert first.json["pages"] > 0
    assert (second.code, second.json["pages"], second.json["written"]["commits"]) == (0, 0, 0)
    assert (unchanged, len(list((other.parent / "lake").glob("raw/*/*/*.kraw"))) - pages) == (version, 1)
    assert third.json["pages"] == more.json["requests_sent"] > 0
    assert third.json["written"]["new"] > 0
    lake = package.open(str(other.parent / "lake"))
    assert lake.bars("600519.SH").pl()["session"].max() == date(2026, 11, 23)


def test_a_second_collect_sends_nothing_and_its_quota_is_the_account_s(
    stand: Stand, klake: Klake, out: Path
) -> None:
    klake("collect", "--out", str(out), "--vendor", "qos", "--symbols", "600519.SH", "--start", "2026-11-02")
    sent = len(stand.requests())

    again = klake(
        "collect", "--out", str(out), "--vendor", "qos", "--symbols", "600519.SH", "--start", "2026-11-02"
    )

    assert (again.code, len(stand.requests())) == (0, sent)
    assert f"0 requests, 0 B received in {out}" in again.err


def test_a_read_only_folder_is_taken(stand: Stand, klake: Klake, out: Path, other: Path) -> None:
    klake("collect", "--out", str(out))
    read_only(out, True)
    try:
        took = klake("replay", str(out), "--json", config=other)
    finally:
        read_only(out, False)

    assert (took.code, took.json["pages"] > 0) == (0, True)


def test_a_folder_that_still_grows_gives_its_whole_pages(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    klake("collect", "--out", str(out))
    taken = klake("replay", str(out), "--json", config=other).json["pages"]
    growing = Store.open(str(out), stand.desk().clock, holds="pages").raw
    entry = Entry("600519.SH", Freq.D1, None, 5)
    now = stand.desk().clock.now()
    growing.append([Page(f"p{n}", "r0", "qos", "a", PageRequest("qos", "/kline", (entry,)), now, 200, "c",
                         b'{"msg":"OK","data":[]}') for n in (1, 2)])  # fmt: skip
    (segment,) = out.glob("_spool/*.spool")
    with segment.open("ab") as file:
        file.write(b"\xabKR1 torn")

    during = klake("replay", str(out), "--json", config=other)
    growing.seal()
    after = klake("replay", str(out), "--json", config=other)

    assert taken > 0
    assert (during.code, during.json["pages"]) == (0, 2)
    assert (after.json["pages"]) == 0


def test_a_take_that_is_killed_is_completed_by_the_next_and_nothing_comes_twice(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    klake("collect", "--out", str(out))
    code = (
        "import os, signal, sys\nfrom klake.jobs.desk import open_desk\nfrom klake.jobs import collect\n"
        "from klake.storage.store import Store\n"
        "def dying(*a, **k):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if sys.argv[1] == 'bars':\n    Store.upsert = dying\nelse:\n    collect.Work.read = dying\n"
        f"collect.take(open_desk({str(other)!r}), {str(out)!r})\n"
    )
    for moment in ("pages", "bars"):
        died = subprocess.run([sys.executable, "-c", code, moment], env=dict(os.environ), check=False)
        assert died.returncode == -signal.SIGKILL

    took = klake("replay", str(out), "--json", config=other)

    lake = package.open(str(other.parent / "lake"))
    ids = [page.id for page in RawZone(str(other.parent / "lake"), stand.desk().clock).pages()]
    assert took.code == 0
    assert len(ids) == len(set(ids)) == took.json["pages"]
    assert lake.sql("SELECT count(*) - count(DISTINCT (symbol, freq, ts)) FROM bars").rows() == [(0,)]
    assert klake("replay", str(out), "--json", config=other).json["pages"] == 0
    assert klake("sync", "--json").code == 0
    assert stands(books(other)) == stands(books(stand.config))


def test_a_take_that_was_killed_is_completed_by_a_sync_too(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    klake("sync")  # this lake has settled everything before the folder comes
    stand.advance(86400 * 3)
    klake("collect", "--out", str(out), "--symbols", "00700.HK", "--start", "2026-11-02")
    stand.advance(3600)
    klake("sync")
    code = (
        "import os, signal\nfrom klake.jobs.desk import open_desk\nfrom klake.jobs import collect\n"
        "collect.Work.read = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"collect.take(open_desk({str(stand.config)!r}), {str(out)!r})\n"
    )
    died = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False)

    synced = klake("sync", "--json")

    assert died.returncode == -signal.SIGKILL
    assert synced.json["replayed"] > 0
    wanted = held(stand, "00700.HK", "1d").filter(pl.col("session") >= date(2026, 11, 2))
    theirs = truth(stand, "00700.HK", "1d", "2026-11-02", "2026-11-23")
    assert wanted["close"].to_list() == pytest.approx(theirs["close"].to_list())


def test_actions_and_instruments_come_along(stand: Stand, klake: Klake, out: Path, other: Path) -> None:
    klake("collect", "--out", str(out))
    folder = Store.open(str(out), stand.desk().clock, holds="pages")
    action = {
        "vendor": "qos",
        "symbol": "600519.SH",
        "ex_date": date(2026, 6, 19),
        "kind": Kind.DIVIDEND.value,
        "cash": 30.876,
    }
    made = pa.table({name: [value] for name, value in action.items()})
    assert folder.append("actions", _whole(made)) == 1

    first = klake("replay", str(out), "--json", config=other)
    second = klake("replay", str(out), "--json", config=other)

    assert (first.json["rows"], second.json["rows"]) == (1, 0)
    lake = package.open(str(other.parent / "lake"))
    assert lake.sql("SELECT symbol, cash FROM actions").rows() == [("600519.SH", 30.876)]


def _whole(rows: pa.Table) -> pa.Table:
    from klake.schemas.action import SCHEMA

    frame = pl.DataFrame(pl.from_arrow(rows))
    stamp = pl.lit("2026-11-20T08:00:00Z").str.to_datetime(time_unit="us", time_zone="UTC")
    texts = [
        f.name for f in SCHEMA if f.type == pa.string() and not f.nullable and f.name not in rows.column_names
    ]
    times = [f.name for f in SCHEMA if pa.types.is_timestamp(f.type) and not f.nullable]
    return frame.with_columns(
        *(pl.lit("").alias(n) for n in texts), *(stamp.alias(n) for n in times)
    ).to_arrow()


def test_a_collected_folder_is_no_lake_and_a_lake_is_no_collected_folder(
    stand: Stand, klake: Klake, out: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    klake("collect", "--out", str(out))
    klake("sync")
    pages_as_lake = stand.folder / "wrong.toml"
    pages_as_lake.write_text(stand.config.read_text().replace('path = "lake"', f'path = "{out}"'))

    for verb in (("sync",), ("sql", "SELECT 1"), ("bars", "600519.SH"), ("status",)):
        said = klake(*verb, config=pages_as_lake)
        assert said.code == 2 and f"klake replay {out}" in said.sentence
    with pytest.raises(LakeHolds, match="klake replay"):
        package.open(str(out))
    onto_lake = klake("collect", "--out", str(stand.folder / "lake"))
    from_lake = klake("replay", str(stand.folder / "lake"), config=other)
    nowhere = klake("replay", str(stand.folder / "nowhere"), config=other)
    monkeypatch.setenv("KLAKE_LANG", "zh")
    chinese = [
        klake("replay", str(place), config=other)
        for place in (stand.folder / "lake", stand.folder / "nowhere")
    ]

    assert [s.code for s in (onto_lake, from_lake, nowhere)] == [2, 2, 1]
    assert "this is a lake of bars" in onto_lake.sentence and "this is a lake of bars" in from_lake.sentence
    assert "nothing was collected here" in nowhere.sentence
    assert "请换一个目录" in chinese[0].sentence and "klake collect" in chinese[1].sentence
    assert not (stand.folder / "nowhere").exists()


def test_real_and_sandbox_pages_do_not_meet(stand: Stand, klake: Klake, out: Path) -> None:
    klake("collect", "--out", str(out))
    real = stand.folder / "real" / "klake.toml"
    real.parent.mkdir()
    real.write_text('[lake]\npath = "lake"\n[vendors.qos]\nkind = "qos"\n')

    said = klake("replay", str(out), config=real)

    assert said.code == 2 and "holds sandbox" in said.sentence
    assert not (real.parent / "lake").exists()


def test_a_folder_without_pages_and_options_that_mean_nothing_there_are_said_so(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    Store.open(str(out), stand.desk().clock, origin="sandbox", create=True, holds="pages")

    empty = klake("replay", str(out), config=other)
    mixed = klake("replay", str(out), "--since", "2026-11-02", config=other)

    assert (empty.code, mixed.code) == (1, 2)
    assert "no page was collected here yet" in empty.sentence
    assert "leave it out" in mixed.sentence


def test_pages_of_a_vendor_that_the_other_machine_does_not_know_stay_where_they_are(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    klake("collect", "--out", str(out))
    text = other.read_text()
    other.write_text(text.replace("vendors.qos", "vendors.qos-hk"))

    without = klake("replay", str(out), "--json", config=other)
    other.write_text(text)
    then = klake("replay", str(out), "--json", config=other)

    assert (without.code, without.json["pages"]) == (1, 0)
    assert "vendors.qos" in without.sentence
    assert (then.code, then.json["pages"] > 0) == (0, True)


def test_retention_never_touches_a_collected_folder(stand: Stand, klake: Klake, out: Path) -> None:
    text = stand.config.read_text()
    stand.config.write_text(text.replace('path = "lake"', 'path = "lake"\nraw_days = 1'))
    for _ in range(6):
        klake("collect", "--out", str(out))
        stand.advance(86400)

    assert len(list(out.glob("raw/*/*/*.kraw"))) >= 5
    shutil.rmtree(out)


def test_a_folder_that_was_copied_in_part_gives_the_rest_when_it_is_whole(
    stand: Stand, klake: Klake, out: Path, other: Path
) -> None:
    klake("collect", "--out", str(out))
    (segment,) = out.glob("raw/qos/*/*.kraw")
    whole = segment.read_bytes()
    segment.write_bytes(whole[: len(whole) * 2 // 3])

    part = klake("replay", str(out), "--json", config=other)
    segment.write_bytes(whole)
    rest = klake("replay", str(out), "--json", config=other)

    assert part.code == 1 and segment.name in part.sentence
    assert (rest.code, rest.json["pages"] > 0) == (0, True)
    assert klake("sync").code == 0
    assert stands(books(other)) == stands(books(stand.config))
