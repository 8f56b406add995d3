"""Pages read anew: what a better parser says wins over what the same page gave before, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest
from stand import Stand
from test_sync import job, same
from verbs import Klake

import klake as package
from klake.errors import BadPage, BadRequest
from klake.ingest.vendors.qos import Qos
from klake.jobs.desk import Books
from klake.jobs.replay import replay_again
from klake.jobs.sync import sync
from klake.schemas.compute import pc
from klake.schemas.coverage import Covered, Reason, Series, Standing
from klake.schemas.freq import Freq
from klake.schemas.page import Page, SeriesPage
from klake.schemas.requests import Asked, rows
from klake.schemas.span import Span
from klake.storage.segment import frames

JOB = job(["600519.SH", "AAPL.US"], ["1d", "1h"], "2026-11-02")
COLUMNS = ["start", "end", "standing", "reason"]
Spoil = Callable[[SeriesPage], SeriesPage]


@pytest.fixture
def stand(stand: Stand) -> Stand:
    stand.jobs = JOB
    stand.write()
    return stand


def synced(stand: Stand) -> None:
    desk = stand.desk()
    assert sync(desk, "daily", desk.job("daily")).exit_code == 0


def bars(stand: Stand, freq: str = "1d") -> pl.DataFrame:
    return package.open(str(stand.folder / "lake")).bars(["600519.SH", "AAPL.US"], freq).pl()


def ask(stand: Stand, query: str) -> list[tuple[object, ...]]:
    return package.open(str(stand.folder / "lake")).sql(query).rows()


def stands(books: Books) -> list[tuple[object, ...]]:
    """How sessions stand, neighbours that stand alike put together."""
    table = books.ledger.table().select(["vendor", "symbol", "freq", *COLUMNS])
    out: list[tuple[object, ...]] = []
    for row in table.to_pylist():
        *series, start, end, standing, reason = row.values()
        if out and out[-1][:3] == tuple(series) and out[-1][4:] == (start, standing, reason):
            start = out.pop()[3]
        out.append((*series, start, end, standing, reason))
    return out


def parsing(monkeypatch: pytest.MonkeyPatch, spoil: Spoil) -> None:
    """Let the vendor's parser be wrong until the patch is undone."""
    parse = Qos.parse
    monkeypatch.setattr(Qos, "parse", lambda self, page: [spoil(part) for part in parse(self, page)])


def dearer(part: SeriesPage) -> SeriesPage:
    """Prices that are a quarter too high."""
    table = part.bars
    for name in ("open", "high", "low", "close"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pc.multiply(table[name], 1.25))
    return replace(part, bars=table)


def lose(books: Books, series: Series, days: Span[date]) -> None:
    """Say that the bars of some sessions are not held any more, as repair and restore do."""
    now = books.store.clock.now()
    gone = Covered(series, days, Standing.MISSING, Reason.NONE, "lost", "lost", now)
    row = Asked(
        vendor=series.vendor, symbol=series.symbol, freq=series.freq, endpoint="", asked_end=None, asked_count=0,
        adjust="none", proved=days, standing=Standing.MISSING, rows=0, outcome="bars", reason="", account="",
        page_id=f"lost {series}", stretch=0, run="r", fetched_at=now, received_bytes=0,
    )  # fmt: skip
    books.store.append("requests", rows([row]))
    books.ledger.record([gone])
    books.state.set_tag(books.store.id, books.store.version_of("requests"))


def test_a_mended_parser_wins_over_what_the_same_pages_gave_before(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        parsing(broken, dearer)
        synced(stand)
    wrong, sent, before = bars(stand), len(stand.requests()), stands(stand.desk().books())

    report = replay_again(stand.desk())

    assert (report.exit_code, report.pages > 0, report.written.new) == (0, True, 0)
    closed = wrong.filter(pl.col("state") != "open").height
    closed += bars(stand, "1h").filter(pl.col("state") != "open").height
    assert report.written.revised == closed
    same(stand, "600519.SH", "1d", "2026-11-02", "2026-11-20")
    same(stand, "AAPL.US", "1d", "2026-11-02", "2026-11-20")
    assert len(stand.requests()) == sent
    assert ask(stand, "SELECT count(*), min(new_close / close) BETWEEN 0.79 AND 0.81 FROM revisions") == [
        (closed, True)
    ]
    assert stands(stand.desk().books()) == before


def test_without_a_change_of_the_parser_a_replay_changes_nothing(stand: Stand) -> None:
    synced(stand)
    stand.advance(86400)
    synced(stand)
    store = stand.desk().store()
    version, before = store.version, stands(stand.desk().books())

    first, second = replay_again(stand.desk()), replay_again(stand.desk())

    assert first.pages == second.pages > 0
    assert first.written.same == second.written.same > 0
    assert [r.written.commits + r.proved + r.findings for r in (first, second)] == [0, 0]
    assert stand.desk().store().version == version
    assert stands(stand.desk().books()) == before


def test_a_bar_that_was_fetched_later_stays(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    synced(stand)
    held = bars(stand).with_columns(pl.col("fetched_at") + timedelta(seconds=1), close=pl.col("high"))
    store = stand.desk().store()
    columns = [name for name in held.columns if name not in {"era", "period", "known_at"}]
    store.upsert(held.select(columns).to_arrow())
    later = bars(stand)

    with monkeypatch.context() as broken:
        parsing(broken, dearer)
        report = replay_again(stand.desk(), symbols=["600519.SH", "AAPL.US"])

    assert bars(stand).equals(later)
    assert report.written.revised > 0  # hourly bars, which nothing newer stands above


def test_a_page_that_could_not_be_read_is_read_by_a_mended_parser(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_self: Qos, page: Page) -> list[SeriesPage]:
        raise BadPage("qos", "a form that nobody knows")

    desk = stand.desk()
    with monkeypatch.context() as broken:
        broken.setattr(Qos, "parse", never)
        assert sync(desk, "daily", desk.job("daily")).exit_code == 1
        unread = replay_again(stand.desk())
    sent = len(stand.requests())

    report = replay_again(stand.desk())

    assert (unread.unreadable, unread.exit_code) == (unread.pages, 0)
    assert (report.unreadable, report.written.new > 0, report.proved > 0) == (0, True, True)
    same(stand, "600519.SH", "1d", "2026-11-02", "2026-11-20")
    books = stand.desk().books()
    live = stands(books)
    books.ledger.rebuild(books.store.table("requests"))
    assert stands(books) == live
    assert len(stand.requests()) == sent


def test_what_was_lost_is_stored_and_accounted_for_again_without_a_request(stand: Stand) -> None:
    synced(stand)
    before, books = stands(stand.desk().books()), stand.desk().books()
    series = Series("qos", "600519.SH", Freq.D1)
    lose(books, series, Span(date(2026, 11, 5), date(2026, 11, 12)))
    lacking, sent = stands(stand.desk().books()), len(stand.requests())

    report, again = replay_again(stand.desk()), replay_again(stand.desk())

    assert lacking != before
    assert (report.proved, again.proved) == (1, 0)
    live = stand.desk().books()
    assert stands(live) == before
    live.ledger.rebuild(live.store.table("requests"))
    assert stands(live) == before
    synced(stand)
    assert len(stand.requests()) == sent


def test_only_the_pages_that_are_meant_are_read(stand: Stand, klake: Klake) -> None:
    stand.jobs = JOB
    stand.write()
    synced(stand)
    stand.advance(86400)
    synced(stand)

    every = klake("replay", "--json").json
    later = klake("replay", "--since", "2026-11-21", "--json").json
    apple = klake("replay", "--symbols", "AAPL.US", "--vendor", "qos", "--json").json

    assert 0 < later["pages"] < every["pages"]
    assert apple["written"]["same"] < every["written"]["same"]
    assert klake("replay", "--vendor", "nobody").code == 2
    assert "no request" in klake("replay").err


def test_a_record_that_cannot_be_read_is_one_sentence_and_the_others_are_read(
    stand: Stand, klake: Klake, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.jobs = JOB
    stand.write()
    synced(stand)
    stand.advance(86400)
    synced(stand)
    segment = min((stand.folder / "lake").glob("raw/qos/*/*.kraw"))
    whole = bytearray(segment.read_bytes())
    one = next(frames(bytes(whole)))
    whole[one.at + 40] ^= 0xFF
    segment.write_bytes(whole)

    said = klake("replay", "--json")
    monkeypatch.setenv("KLAKE_LANG", "zh")
    chinese = klake("replay")

    assert (said.code, said.json["exit_code"]) == (1, 1)
    assert said.json["pages"] > 0
    assert segment.name in said.sentence and "cannot be read" in said.sentence
    assert "无法读取" in chinese.sentence and "重" not in chinese.sentence


def test_pages_are_replayed_where_no_key_is(stand: Stand, klake: Klake) -> None:
    stand.jobs = JOB
    stand.write()
    synced(stand)
    text = stand.config.read_text()
    key = stand.sandbox.secrets["qos"]["default"]

    stand.config.write_text(text.replace(f'key = "{key}"', ""))
    without = klake("replay", "--json")
    stand.config.write_text(text.replace(f'key = "{key}"', 'key = "env:NO_SUCH_KEY"'))
    unset = klake("replay", "--json")
    stand.config.write_text(
        text.replace("vendors.qos", "vendors.other").replace('vendor = "qos"', 'vendor = "other"')
    )
    unknown = klake("replay", "--json")

    assert [(s.code, s.json["pages"] > 0) for s in (without, unset)] == [(0, True), (0, True)]
    assert (unknown.code, unknown.json["pages"]) == (1, 0)
    assert "vendors.qos" in unknown.sentence and "a key is not needed" in unknown.sentence


def test_a_vendor_without_pages_is_no_vendor_to_replay(stand: Stand) -> None:
    synced(stand)

    with pytest.raises(BadRequest, match="holds no page"):
        replay_again(stand.desk(), "nope")


def test_a_page_says_now_that_its_bar_had_not_ended(stand: Stand) -> None:
    synced(stand)
    store, at = stand.desk().store(), datetime(2026, 11, 20, 3, tzinfo=UTC)
    wrong = bars(stand).filter(pl.col("symbol") == "600519.SH").tail(1)
    wrong = wrong.with_columns(vendor=pl.lit("mine"), state=pl.lit("closed"), fetched_at=pl.lit(at))
    columns = [name for name in wrong.columns if name not in {"era", "period", "known_at"}]
    table = wrong.select(columns).to_arrow()
    store.upsert(table)

    opened = table.set_column(table.schema.get_field_index("state"), "state", pa.array(["open"]))
    as_ever, again, twice = (
        store.upsert(opened),
        store.upsert(opened, again=True),
        store.upsert(opened, again=True),
    )

    assert (as_ever.same, again.revised, twice.same) == (1, 1, 1)


def test_a_body_that_only_its_hash_is_kept_of_is_replayed(stand: Stand) -> None:
    synced(stand)
    raw, at = stand.desk().books().store.raw, stand.desk().clock.now() + timedelta(hours=1)
    first = next(page for page in raw.pages() if page.request.entries[0].symbol in {"600519.SH", "AAPL.US"})
    raw.append([replace(first, id="repeated", run="r2", received_at=at)])
    raw.seal()
    size = (
        max((stand.folder / "lake").glob("raw/qos/*/*.kraw"), key=lambda p: p.stat().st_mtime_ns)
        .stat()
        .st_size
    )

    report = replay_again(stand.desk())

    found = {page.id: page.body for page in stand.desk().books().store.raw.pages()}
    assert size < len(first.body) / 4
    assert found["repeated"] == found[first.id]
    assert (report.exit_code, report.pages) == (0, len(found))
    same(stand, "600519.SH", "1d", "2026-11-02", "2026-11-20")


def test_raw_pages_are_kept_as_long_as_the_configuration_says(stand: Stand, klake: Klake) -> None:
    text = stand.config.read_text()
    for _ in range(8):
        klake("sync")
        stand.advance(86400)
    forever = len(list((stand.folder / "lake").glob("raw/*/*/*.kraw")))
    asked = ask(stand, "SELECT count(*) FROM requests")
    stand.config.write_text(text.replace('path = "lake"', 'path = "lake"\nraw_days = 2'))

    would = klake("vacuum", "--dry-run")
    went = klake("sync", "--json")
    left = sorted((stand.folder / "lake").glob("raw/*/*/*.kraw"))
    for file in (stand.folder / "lake").rglob("state.sqlite*"):
        file.unlink()
    rebuilt, replayed = klake("sync", "--json"), klake("replay", "--json")

    assert forever == 7  # of a Sunday nothing is asked
    assert "would delete 3 raw segments older than 2 days" in would.err
    assert "/qos/2026-11-20/" in would.out
    assert (went.code, len(left)) == (0, 4)
    assert ask(stand, "SELECT count(*) FROM requests") >= asked
    assert (rebuilt.code, rebuilt.json["requests_sent"], rebuilt.json["replayed"]) == (0, 0, 0)
    assert (replayed.code, replayed.json["written"]["commits"]) == (0, 0)


def test_a_retention_that_means_nothing_is_one_sentence(stand: Stand, klake: Klake) -> None:
    stand.config.write_text(stand.config.read_text().replace('path = "lake"', 'path = "lake"\nraw_days = 0'))

    said = klake("sync")

    assert said.code == 2 and "lake.raw_days = 0" in said.sentence


def test_a_page_that_no_run_stored_is_not_stored_in_part(stand: Stand, klake: Klake) -> None:
    synced(stand)
    raw = stand.desk().books().store.raw
    first = next(iter(raw.pages()))
    raw.append(
        [replace(first, id="late", run="r2", received_at=stand.desk().clock.now() + timedelta(hours=1))]
    )
    raw.seal()

    part = klake("replay", "--symbols", first.request.entries[0].symbol, "--json")
    before = ask(stand, "SELECT count(*) FROM requests WHERE page_id = 'late'")
    whole = klake("replay", "--json")

    assert whole.json["pages"] == part.json["pages"] + 1
    assert before == [(0,)]
    assert ask(stand, "SELECT count(DISTINCT (symbol, freq)) FROM requests WHERE page_id = 'late'") == [
        (len(first.request.entries),)
    ]


def test_a_row_that_was_refused_for_the_parser_s_fault_becomes_a_bar(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upside_down(part: SeriesPage) -> SeriesPage:
        """A low above the high, on one day."""
        table, day = part.bars, pa.scalar(date(2026, 11, 10), pa.date32())
        place = table.schema.get_field_index("low")
        wrong = pc.if_else(pc.equal(table["session"], day), pc.multiply(table["high"], 2.0), table["low"])
        return replace(part, bars=table.set_column(place, table.schema.field("low"), wrong))

    desk = stand.desk()
    with monkeypatch.context() as broken:
        parsing(broken, upside_down)
        first = sync(desk, "daily", desk.job("daily"))
        still = replay_again(stand.desk())
    sent = len(stand.requests())

    report = replay_again(stand.desk())

    assert first.written.quarantined > 0 and first.missing > 0
    assert (still.written.quarantined, still.written.commits, still.proved) == (0, 0, 0)
    assert report.written.new == first.written.quarantined
    same(stand, "600519.SH", "1d", "2026-11-02", "2026-11-20")
    assert sync(desk, "daily", desk.job("daily")).missing == 0
    assert len(stand.requests()) == sent
