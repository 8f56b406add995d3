"""At whatever hour somebody first syncs, all is accounted for, nothing is half-formed, and a second run costs little."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal
from stand import Stand
from test_sync import truth

import klake
from klake.jobs.sync import sync
from klake.sandbox.server import Sandbox

SYMBOLS = ["600519.SH", "00700.HK", "AAPL.US", "BTCUSDT.P.QOS"]
JOBS = "".join(
    f'[jobs.{name}]\nvendor = "qos"\nsymbols = {str(SYMBOLS).replace(chr(39), chr(34))}\nfreq = ["{freq}"]\nstart = "{start}"\n'
    for name, freq, start in (
        ("days", "1d", "2026-08-03"),
        ("minutes", "5m", "2026-10-26"),
        ("weeks", "1w", "2026-01-05"),
    )
)

HOURS = [
    "2026-11-20T01:29:30Z",  # a minute before Shanghai opens
    "2026-11-20T03:45:00Z",  # lunch in Shanghai and Hong Kong
    "2026-11-20T07:00:00Z",  # Shanghai closes this second
    "2026-11-20T08:05:00Z",  # Hong Kong's closing auction is still to be printed
    "2026-11-20T14:30:01Z",  # New York has opened
    "2026-11-20T21:00:30Z",  # New York has just closed
    "2026-11-21T12:00:00Z",  # Saturday
    "2026-11-01T05:30:00Z",  # the hour that New York has twice
    "2026-11-27T18:00:00Z",  # the half day after Thanksgiving ends
    "2026-11-30T23:59:59Z",  # the last second of a month
]
EVERY = [(datetime(2026, 10, 28, tzinfo=UTC) + timedelta(minutes=97 * n)).isoformat() for n in range(160)]


@pytest.fixture(params=[*HOURS, *(pytest.param(at, marks=pytest.mark.proof) for at in EVERY)])
def stand_at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with Sandbox(clock_start=datetime.fromisoformat(request.param), rate=0) as sandbox:
        yield Stand(sandbox, tmp_path, jobs=JOBS)


def test_a_first_and_a_second_sync_at_any_hour(stand_at: Stand) -> None:
    desk = stand_at.desk()

    first = [sync(desk, name, job) for name, job in desk.settings.jobs.items()]
    before = len(stand_at.requests())
    second = [sync(desk, name, job) for name, job in desk.settings.jobs.items()]

    assert [(r.exit_code, r.missing, r.error) for r in first] == [(0, 0, "")] * 3
    assert [(r.exit_code, r.missing) for r in second] == [(0, 0)] * 3
    assert len(stand_at.requests()) - before <= 2
    with klake.open(str(stand_at.folder / "lake")) as lake:
        for symbol in SYMBOLS:
            for freq, start in (("1d", "2026-08-03"), ("1w", "2026-01-05")):
                ours = (
                    lake.bars(symbol, freq, state="closed")
                    .pl()
                    .select("session", "open", "high", "low", "close", "volume")
                )
                theirs = truth(stand_at, symbol, freq, start, "2026-12-31")
                finished = theirs.filter(theirs["session"].is_in(ours["session"].implode())).select(
                    ours.columns
                )
                assert_frame_equal(ours, finished.cast(dict(ours.schema)), rel_tol=1e-12)
