"""What a run says while it goes: a bar with its finish time on a terminal, plain lines elsewhere."""

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest

from klake.cli.progress import Drawn
from klake.cli.session import Session
from klake.schemas.clock import ManualClock
from klake.schemas.events import Event, Fetched, Finding, Planned, Replayed, RunEnded, Waiting
from klake.schemas.report import RunReport

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
