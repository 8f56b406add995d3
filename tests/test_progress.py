"""What a run says while it goes: a bar with its finish time on a terminal, plain lines elsewhere."""

import io
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from klake.cli.progress import Drawn
from klake.cli.session import Session
from klake.schemas.clock import ManualClock
from klake.schemas.events import Event, Fetched, Finding, Planned, Replayed, Reread, RunEnded, Waiting
from klake.schemas.report import Parked, RunReport

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
RUN: tuple[Event, ...] = (
    Replayed(2),
    Planned(requests=40, fewest=40, bars=400_000, series=400, finish_at=NOW + timedelta(minutes=4)),
    Fetched(done=10, total=40, rows=100_000, size_bytes=9),
    Waiting(42.0, "10 in 60 s"),
    Finding("jump", "600519.SH", "far"),
    Fetched(done=40, total=40, rows=300_000, size_bytes=9),
    RunEnded(RunReport("r", "daily", "qos")),
)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _told(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, quiet: bool = False) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with Drawn(Session(quiet=quiet)) as drawn:
        drawn.clock = ManualClock(NOW)
        for event in RUN:
            drawn.emit(event)
    return stream.getvalue()


def test_without_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, io.StringIO())

    assert "\x1b" not in told and "\r" not in told
    assert "400 series, about 400,000 bars, 40 requests, done about" in told
    assert "waiting 42 s: 10 in 60 s" in told and "600519.SH jump" in told
    assert "2 page(s) of an earlier run" in told


def test_a_terminal_sees_a_bar_with_its_finish_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")

    told = _told(monkeypatch, _Terminal())

    assert "40/40" in told and "400,000 bars" in told and "done about" in told


def test_a_narrow_terminal_sees_every_number_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys, "stderr", stream := _Terminal())

    with Drawn(Session()) as drawn:
        drawn.clock = ManualClock(NOW)
        for event in RUN[:4]:
            drawn.emit(event)
        assert drawn._bar is not None
        drawn._bar.refresh()  # what the terminal gets eight times a second

    told = stream.getvalue()
    assert "10/40" in told and "100,000 bars" in told and "\u2026" not in told


def test_quiet_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, _Terminal(), quiet=True)

    assert told == ""


def test_a_clock_that_has_gone_never_stops_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from klake.errors import VendorDown

    class _Gone(ManualClock):
        def now(self) -> datetime:
            raise VendorDown("sandbox", "gone")

    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with Drawn(Session()) as drawn:
        drawn.clock = _Gone(NOW)
        drawn.emit(RUN[1])

    assert "40 requests" in stream.getvalue()


def _lines(monkeypatch: pytest.MonkeyPatch, *events: Event) -> list[str]:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with Drawn(Session()) as drawn:
        drawn.clock = ManualClock(NOW)
        for event in events:
            drawn.emit(event)
    return stream.getvalue().splitlines()


def test_findings_of_one_rule_are_told_three_times_and_then_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = [Finding("jump", "600519.SH", f"2026-11-{day:02d}: far") for day in range(1, 21)]

    told = _lines(
        monkeypatch,
        *jumps,
        Finding("volume unit", "", "not verified"),
        RunEnded(RunReport("r", "daily", "qos")),
    )

    assert [line for line in told if "jump" in line] == [
        *(f"finding: 600519.SH jump: 2026-11-0{day}: far" for day in (1, 2, 3)),
        "finding: and 17 more of jump: see the view `findings`",
    ]
    assert "finding: volume unit: not verified" in told


def test_nothing_to_ask_for_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Planned(requests=0, fewest=0, bars=0, series=0, finish_at=NOW)
    waiting = replace(planned, parked=2, retry_at=NOW + timedelta(hours=2))
    parked = [Parked("ZZZZ.US", "1d", "no such symbol", None)]

    whole = _lines(monkeypatch, planned, RunEnded(RunReport("r", "daily", "qos", expected=9, stored=9)))
    aside = _lines(monkeypatch, waiting, RunEnded(RunReport("r", "daily", "qos", expected=9, missing=9)))
    refused = _lines(
        monkeypatch, planned, RunEnded(RunReport("r", "daily", "qos", expected=9, parked=parked))
    )
    cut = _lines(
        monkeypatch, planned, RunEnded(RunReport("r", "daily", "qos", expected=9, missing=9, error="down"))
    )
    died = _lines(monkeypatch, planned, RunEnded(RunReport("r", "daily", "qos")))

    assert whole == ["nothing to ask for: everything wanted is accounted for"]
    assert aside == ["nothing to ask for now: 2 series are set aside until 2026-11-20 10:00Z"]
    assert refused == ["nothing to ask for now: 1 series is set aside"]
    assert cut == ["nothing was asked for"] and died == []


@pytest.mark.parametrize(("language", "word"), [("en", "pages"), ("zh", "数据页")])
def test_a_replay_shows_the_pages_it_has_read(
    monkeypatch: pytest.MonkeyPatch, language: str, word: str
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("KLAKE_LANG", language)
    monkeypatch.setattr(sys, "stderr", stream := _Terminal())

    with Drawn(Session()) as drawn:
        for done in range(1, 13):
            drawn.emit(Reread(done, 12, 1_000))

    told = stream.getvalue()
    assert "12/12" in told and "12,000" in told and word in told
