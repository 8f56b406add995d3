"""`klake collect`: fetch pages for the lake of another machine."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import Drawn
from .render import count, duration, plural, size, tongue
from .session import session_of
from .sync import tell
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

__all__ = ["collect"]


def collect(
    ctx: typer.Context,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder that takes the pages; made when it is not there.")],
    job: JobOption = "",
    vendor: VendorOption = "",
    symbols: SymbolsOption = "",
    universe: UniverseOption = "",
    freq: FreqOption = "",
    start: StartOption = "",
    end: EndOption = "",
    as_json: JsonOption = False,
) -> int:  # fmt: skip
    """Fetch what the folder lacks and keep it as pages, for `klake replay DIR` where the lake is."""
    session = session_of(ctx)
    with Drawn(session) as drawn:
        desk = session.desk(drawn)
        drawn.clock = desk.clock
        name, wanted = Work(job, vendor, symbols, universe, freq, start, end).of(desk)
        from ..jobs.collect import collect as run

        report = run(desk, out, name, wanted)
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
    tell(session, report, _last_line(report, out))
    return report.exit_code


def _last_line(report: "RunReport", out: str) -> str:
    received, took = size(report.bytes_received), duration(report.seconds)
    return tongue(
        f"done: {plural(report.requests_sent, 'request')}, {received} received in {out}, {took}, "
        f"holes left: {count(report.missing)}",
        f"完成：请求 {count(report.requests_sent)} 次，接收 {received}，存于 {out}，用时 {took}，"
        f"剩余缺口：{count(report.missing)}",
    )
