"""`klake replay`: pages brought into the lake without a request."""

import json
import sys
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import BadRequest
from .progress import Drawn
from .render import count, duration, plural, tongue
from .session import Session, session_of
from .work import JsonOption, SymbolsOption, VendorOption, day, listed

if TYPE_CHECKING:
    from ..schemas.report import ReplayReport

__all__ = ["replay"]

_SPELLED: Final = 10


def replay(
    ctx: typer.Context,
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help="A folder of `klake collect`; without it the lake's own raw pages.")
    ] = "",
    vendor: VendorOption = "",
    since: Annotated[
        str, typer.Option("--since", metavar="DATE", help="Only pages received on that date (UTC) or later.")
    ] = "",
    symbols: SymbolsOption = "",
    as_json: JsonOption = False,
) -> int:  # fmt: skip
    """Read raw pages anew, as after a mended parser, or take those of DIR; no request is sent."""
    session = session_of(ctx)
    given = {"vendor": vendor, "since": since, "symbols": symbols}
    for name, value in given.items():
        if folder and value:
            raise BadRequest(name, value, hint="with a folder all of its new pages are taken: leave it out",
                             hint_zh="指定目录时会存入其中所有新的数据页：请去掉该选项")  # fmt: skip
    first = day("since", since)
    with Drawn(session) as drawn:
        desk = session.desk(drawn)
        drawn.clock = desk.clock
        if folder:
            from ..jobs.collect import take

            report = take(desk, folder)
        else:
            from ..jobs.replay import replay_again
            from ..schemas.symbol import Symbol

            named = [str(Symbol.parse(text)) for text in listed(symbols)]
            at = datetime.combine(first, time(), UTC) if first else None
            report = replay_again(desk, vendor, at, named or None)
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
    _tell(session, report)
    return report.exit_code


def _tell(session: Session, report: "ReplayReport") -> None:
    for problem in report.problems[:_SPELLED]:
        print(f"klake: {problem}", file=sys.stderr, flush=True)
    if len(report.problems) > _SPELLED:
        more = count(len(report.problems) - _SPELLED)
        print(
            tongue(f"klake: and {more} more, see --json", f"klake: 另有 {more} 条，见 --json"),
            file=sys.stderr,
        )
    if report.left:
        session.say(tongue(
            f"{plural(report.left, 'page')} left to the run of another process that is storing them",
            f"{count(report.left)} 页正由另一个进程存入，留给它处理",
        ))  # fmt: skip
    if report.unreadable:
        session.say(tongue(
            f"of {plural(report.unreadable, 'page')} nothing can be made; the view `requests` says why",
            f"有 {count(report.unreadable)} 页内容无法解析，原因见视图 `requests`",
        ))  # fmt: skip
    session.say(_last_line(report))


def _last_line(report: "ReplayReport") -> str:
    written, news = report.written, []
    for number, en, zh in (
        (written.new, "new", "新增"), (written.updated, "updated", "更新"), (written.settled, "settled", "定稿"),
        (written.revised, "revised", "修订"), (written.same, "the same", "不变"), (written.quarantined, "quarantined", "隔离"),
    ):  # fmt: skip
        if number:
            news.append(tongue(f"{count(number)} {en}", f"{zh} {count(number)}"))
    rows = (
        tongue(f"{plural(report.rows, 'other row')}, ", f"其他 {count(report.rows)} 行，")
        if report.rows
        else ""
    )
    return tongue(
        f"done: {plural(report.pages, 'page')} read, {', '.join(news) + ' bars' if news else 'no bars'}, {rows}"
        f"{plural(written.commits, 'commit')}, no request, {duration(report.seconds)}",
        f"完成：读取 {count(report.pages)} 页，{'，'.join(news) + ' 根' if news else '没有 K 线'}，{rows}"
        f"{written.commits} 次提交，没有发出请求，用时 {duration(report.seconds)}",
    )
