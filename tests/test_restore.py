"""Restore as a verb: what it takes away is missing from then on, whatever happens on the way."""

import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from stand import Stand
from verbs import Klake

from klake.errors import CommitConflict
from klake.jobs import restore as verb
from klake.jobs.desk import Desk
from klake.jobs.status import status
from klake.jobs.sync import sync
from klake.schemas.report import RunReport
from klake.storage.store import Store
from klake.storage.writer import Writer

JOB = (
    '[jobs.daily]\nvendor = "qos"\nsymbols = ["600519.SH", "AAPL.US"]\nfreq = ["1d"]\nstart = "2026-11-02"\n'
)
LATER = JOB.replace("2026-11-02", "2026-10-12")


@pytest.fixture
def twice(stand: Stand) -> Stand:
    """A lake that two runs filled, the second with October, so that version 1 lacks October."""
    for jobs in (JOB, LATER):
        stand.jobs = jobs
        stand.write()
        assert run(stand.desk()).exit_code == 0
    return stand


def run(desk: Desk) -> RunReport:
    return sync(desk, "daily", desk.job("daily"))


def bars(desk: Desk) -> list[tuple[Any, ...]]:
    con = desk.store().connect()
    try:
        query = "SELECT symbol, session, open, high, low, close, volume, state FROM bars ORDER BY ALL"
        return con.sql(query).fetchall()
    finally:
        con.close()


def missing(desk: Desk) -> int:
    return status(desk).missing


def test_what_a_restore_takes_away_is_missing_and_the_next_sync_brings_it_back(
    twice: Stand, klake: Klake
) -> None:
    twice.jobs = LATER
    twice.write()
    whole, asked = bars(twice.desk()), len(twice.requests("/kline", "/history"))

    said = klake("history", "--restore", "1", "--json").json
    gone = klake("status", "--json").json["missing"]
    holes = klake(
        "sql", "--json", "SELECT symbol, proved_start, proved_end, outcome, reason FROM requests WHERE standing = 'missing'"
        " ORDER BY symbol",
    ).json  # fmt: skip
    report = run(twice.desk())

    assert said["restored"] == 1 and (said["changed"], said["returned"]) == (0, 0)
    assert said["withdrawn"] == gone == 30
    assert [(h["symbol"], h["proved_start"], h["outcome"], h["reason"]) for h in holes] == [
        (symbol, "2026-10-12", "withdrawn", "restore 1") for symbol in ("600519.SH", "AAPL.US")
    ]
    assert (report.exit_code, report.written.new, missing(twice.desk())) == (0, 30, 0)
    assert bars(twice.desk()) == whole
    assert 1 <= len(twice.requests("/kline", "/history")) - asked <= 2


def test_the_verb_says_what_it_did_in_both_languages(
    twice: Stand, klake: Klake, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = klake("history", "--restore", "1").out
    again = klake("history", "--restore", "1").out
    monkeypatch.setenv("KLAKE_LANG", "zh")
    chinese = klake("history", "--restore", "2").out

    assert "holds what version 1 held: 0 bars as they were, 0 back again, 30 withdrawn" in english
    assert "the next sync asks for it" in english and "next sync" not in again
    assert "30 根重新出现" in chinese


class Killed(BaseException):
    """The process ends here."""


def dies(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize(
    ("where", "what", "held"),
    [(Store, "restore", True), (Writer, "commit", True), (verb._Loss, "record", False)],
    ids=["before anything", "before the commit", "after the commit"],
)
def test_a_restore_that_dies_on_the_way_leaves_no_bar_held_that_is_gone(
    twice: Stand, monkeypatch: pytest.MonkeyPatch, where: type, what: str, held: bool
) -> None:
    whole = bars(twice.desk())
    with monkeypatch.context() as patch:
        patch.setattr(where, what, _only_of_bars(where, what))
        with pytest.raises(Killed):
            verb.restore(twice.desk(), 1)

    stays, lacking = bars(twice.desk()) == whole, missing(twice.desk())
    report = run(twice.desk())

    assert stays is held and lacking == (0 if what == "restore" else 30)
    assert report.written.new == (0 if held else 30)
    assert bars(twice.desk()) == whole and missing(twice.desk()) == 0


def _only_of_bars(where: type, what: str) -> Callable[..., object]:
    honest = getattr(where, what)

    def method(self: object, *given: object, **named: object) -> object:
        if what == "commit" and given[0] != "bars":
            return honest(self, *given, **named)
        return dies()

    return method


def test_a_restored_lake_has_the_same_coverage_when_the_state_is_lost(twice: Stand) -> None:
    verb.restore(twice.desk(), 1)
    before = twice.desk().books().ledger.table().to_pylist()

    for file in (twice.folder / "lake" / "_state").iterdir():
        file.unlink()

    assert twice.desk().books().ledger.table().to_pylist() == before
    assert min(row["start"] for row in before) == date(2026, 10, 31)  # a Saturday; Friday is gone


def test_pages_are_not_stored_while_a_restore_is_at_work(twice: Stand) -> None:
    twice.jobs = LATER.replace("2026-10-12", "2026-10-01")
    twice.write()
    reports: list[RunReport] = []
    storing = threading.Thread(target=lambda: reports.append(run(twice.desk())))

    with twice.desk().store().booking() as mine:
        storing.start()
        storing.join(1)
        waited, before = storing.is_alive(), len(bars(twice.desk()))
    storing.join(60)

    assert mine and waited
    assert reports[0].exit_code == 0 and len(bars(twice.desk())) > before


def test_a_restore_gives_up_where_pages_are_stored_without_an_end(
    twice: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = Store.booking
    monkeypatch.setattr(Store, "booking", lambda store: patient(store, 0.01))
    whole = bars(twice.desk())

    with patient(twice.desk().store()), pytest.raises(CommitConflict, match="try again"):
        verb.restore(twice.desk(), 1)

    assert bars(twice.desk()) == whole
