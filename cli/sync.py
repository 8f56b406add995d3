"""`klake sync`: the main job."""

import json
from typing import TYPE_CHECKING

import typer

from .progress import Drawn
from .render import count, duration, instant, plural, size
from .session import Session, session_of
from .work import (
    EndOption,
    FreqOption,
    JobOption,
    JsonOption,
    StartOption,
    SymbolsOption,
    UniverseOption,
    VendorOption,
    Work,
)  # fmt: skip

if TYPE_CHECKING:
    from ..schemas.report import RunReport

__all__ = ["sync", "tell"]

_SPELLED = 10


def sync(
    ctx: typer.Context,
    job: JobOption = "",
    vendor: VendorOption = "",
    symbols: SymbolsOption = "",
    universe: UniverseOption = "",
    freq: FreqOption = "",
    start: StartOption = "",
    end: EndOption = "",
    as_json: JsonOption = False,
) -> int:
    """Fetch what is missing and store it; run it again whenever you like."""
    session = session_of(ctx)
    with Drawn(session) as drawn:
        desk = session.desk(drawn)
        drawn.clock = desk.clock
        name, wanted = Work(job, vendor, symbols, universe, freq, start, end).of(desk)
        from ..jobs.sync import sync as run

        report = run(desk, name, wanted)
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
    tell(session, report)
    return report.exit_code


def tell(session: Session, report: "RunReport") -> None:
    """Say what a run did; its last line has bars, requests, seconds and holes left."""
    for parked in report.parked[:_SPELLED]:
        again = f"; tried again after {instant(parked.retry_at)}" if parked.retry_at else ""
        session.say(f"parked: {' '.join(filter(None, (parked.symbol, parked.freq)))}: {parked.error}{again}")
    if len(report.parked) > _SPELLED:
        session.say(f"parked: and {len(report.parked) - _SPELLED} more; `klake status` has them all")
    if report.error:
        session.say(f"stopped early: {report.error}")
    empty = ", ".join(f"{count(n)} {reason}" for reason, n in sorted(report.empty.items()))
    session.say(
        f"sessions: {count(report.expected)} expected, {count(report.stored)} stored"
        f"{f', empty: {empty}' if empty else ''}, {count(report.missing)} missing"
    )
    session.say(_last_line(report))


def _last_line(report: "RunReport") -> str:
    written, news = report.written, []
    for number, word in (
        (written.new, "new"), (written.updated, "updated"), (written.settled, "settled"),
        (written.revised, "revised"), (written.quarantined, "quarantined"),
    ):  # fmt: skip
        if number:
            news.append(f"{count(number)} {word}")
    what = f"{', '.join(news)} bars" if news else "nothing new"
    probes = f" and {report.canaries} to check units" if report.canaries else ""
    return (
        f"done: {what}, {plural(report.requests_sent, 'request')}{probes}, {size(report.bytes_received)} received, "
        f"{size(written.bytes_written)} written in {plural(written.commits, 'commit')}, "
        f"{duration(report.seconds)}, holes left: {count(report.missing)}"
    )

