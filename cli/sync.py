"""`klake sync`: the main job."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import Drawn
from .render import count, duration, instant, plural, size, tongue
from .session import Session, session_of
from .words import reasons
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors, as before the verb.")] = False,
) -> int:  # fmt: skip
    """Fetch what is missing and store it; run it again whenever you like."""
    session = session_of(ctx)
    session.quiet = session.quiet or quiet
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


def tell(session: Session, report: "RunReport", last: str = "") -> None:
    """Say what a run did; its last line has bars, requests, seconds and holes left (or is `last`)."""
    for parked in report.parked[:_SPELLED]:
        at = instant(parked.retry_at)
        again = tongue(f"; tried again after {at}", f"；{at} 之后重试") if parked.retry_at else ""
        series = " ".join(filter(None, (parked.symbol, parked.freq)))
        session.say(tongue(f"parked: {series}: ", f"已搁置：{series}：") + f"{parked.error}{again}")
    if len(report.parked) > _SPELLED:
        more = len(report.parked) - _SPELLED
        session.say(tongue(
            f"parked: and {more} more; `klake status` has them all", f"已搁置：另有 {more} 个，见 `klake status`"
        ))  # fmt: skip
    if report.error:
        session.say(tongue(f"stopped early: {report.error}", f"提前停止：{report.error}"))
    empty = reasons(report.empty)
    expected, stored, missing = count(report.expected), count(report.stored), count(report.missing)
    session.say(tongue(
        f"sessions: {expected} expected, {stored} stored{f', empty: {empty}' if empty else ''}, {missing} missing",
        f"交易日：应有 {expected}，已存 {stored}{f'，无数据：{empty}' if empty else ''}，缺 {missing}",
    ))  # fmt: skip
    session.say(last or _last_line(report))


def _last_line(report: "RunReport") -> str:
    written, news = report.written, []
    for number, en, zh in (
        (written.new, "new", "新增"), (written.updated, "updated", "更新"), (written.settled, "settled", "定稿"),
        (written.revised, "revised", "修订"), (written.quarantined, "quarantined", "隔离"),
    ):  # fmt: skip
        if number:
            news.append(tongue(f"{count(number)} {en}", f"{zh} {count(number)}"))
    received, stored, took = (
        size(report.bytes_received),
        size(written.bytes_written),
        duration(report.seconds),
    )
    probes = tongue(f" and {report.canaries} to check units", f"（另有 {report.canaries} 次核对单位）")
    return tongue(
        f"done: {', '.join(news) + ' bars' if news else 'nothing new'}, {plural(report.requests_sent, 'request')}"
        f"{probes if report.canaries else ''}, {received} received, {stored} written in "
        f"{plural(written.commits, 'commit')}, {took}, holes left: {count(report.missing)}",
        f"完成：{'，'.join(news) + ' 根' if news else '没有新数据'}，请求 {count(report.requests_sent)} 次"
        f"{probes if report.canaries else ''}，接收 {received}，{written.commits} 次提交写入 {stored}，"
        f"用时 {took}，剩余缺口：{count(report.missing)}",
    )
