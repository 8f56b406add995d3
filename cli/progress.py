"""A run as it goes: a bar with its finish time on a terminal, plain lines elsewhere."""

import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from ..errors import KlakeError
from ..schemas.events import (
    Committed,
    Event,
    Fetched,
    Finding,
    Gave,
    Planned,
    Replayed,
    Reread,
    RunEnded,
    RunStarted,
    Waiting,
)  # fmt: skip
from ..schemas.report import RunReport
from .render import clock_time, console, count, duration, instant, plural, tongue
from .session import Session
from .words import word

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..schemas.clock import Clock

__all__ = ["Drawn"]

_LINE_S: Final = 10.0  # without a terminal: at most one progress line in so many seconds
_SOON: Final = timedelta(seconds=5)
_TOLD: Final = 3  # findings of one rule that are spelled out


class Drawn:
    """An event sink that draws. Use it as a context manager: it tidies the terminal up."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._live = not session.quiet and sys.stderr.isatty()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self.clock: Clock | None = None  # whose time the finish is told in; set when the desk is open
        self._finish: datetime | None = None
        self._began = self._last_line = time.monotonic()
        self._findings = Counter[str]()
        self._nothing: Planned | None = None
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def emit(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Fetched):
            self._fetched(event)
        elif isinstance(event, Reread):
            self._reread(event)
        elif isinstance(event, Waiting):
            self._waiting(event)
        elif isinstance(event, Planned):
            self._planned(event)
        elif isinstance(event, Replayed):
            self._line(tongue(
                f"{event.pages} page(s) of an earlier run are stored now, without a request",
                f"上次运行收到的 {event.pages} 页现已存入，没有发出请求",
            ))  # fmt: skip
        elif isinstance(event, Finding):
            self._found(event)
        elif isinstance(event, Committed):
            self._say_state(word("stored"))
        elif isinstance(event, RunEnded):
            self._close()
            self._ended(event.report)
        else:
            assert isinstance(
                event, RunStarted | Gave
            )  # what is given up stands in the report, with its reason

    def _planned(self, event: Planned) -> None:
        if not event.requests:
            self._nothing = event  # the report will say whether that is because all is there
            return
        self._finish, self._began = event.finish_at, time.monotonic()
        ends = self._ends(0, event.requests)
        self._line(tongue(
            f"{count(event.series)} series, about {count(event.bars)} bars, {plural(event.requests, 'request')}"
            f"{f', {ends}' if ends else ''}",
            f"{count(event.series)} 个序列，约 {count(event.bars)} 根 K 线，请求 {count(event.requests)} 次"
            f"{f'，{ends}' if ends else ''}",
        ))  # fmt: skip
        if self._live:
            self._open(event.requests, ends)

    def _fetched(self, event: Fetched) -> None:
        self._rows += event.rows
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=event.done, total=event.total, rows=count(self._rows), state=word("fetching"),
                ends=self._ends(event.done, event.total),
            )  # fmt: skip
        elif not self._live and time.monotonic() - self._last_line >= _LINE_S:
            self._last_line = time.monotonic()
            ends = self._ends(event.done, event.total)
            self._session.say(tongue(
                f"{event.done} of {event.total} requests, {count(self._rows)} bars{f', {ends}' if ends else ''}",
                f"请求 {event.done}/{event.total}，{count(self._rows)} 根{f'，{ends}' if ends else ''}",
            ))  # fmt: skip

    def _reread(self, event: Reread) -> None:
        self._rows = event.rows + (self._rows if event.done > 1 else 0)
        if self._live and event.total > 1:
            if self._bar is None:
                self._open(event.total, "", "pages")
            if self._bar is not None and self._task is not None:
                self._bar.update(
                    self._task, completed=event.done, total=event.total, rows=count(self._rows), state=word("reading")
                )  # fmt: skip
        elif time.monotonic() - self._last_line >= _LINE_S:
            self._last_line = time.monotonic()
            self._session.say(tongue(
                f"{event.done} of {event.total} pages, {count(self._rows)} bars",
                f"数据页 {event.done}/{event.total}，{count(self._rows)} 根",
            ))  # fmt: skip

    def _waiting(self, event: Waiting) -> None:
        if event.seconds < 1:
            return
        told = tongue(
            f"waiting {duration(event.seconds)}: {event.why}", f"等待 {duration(event.seconds)}：{event.why}"
        )
        if self._bar is not None:
            self._say_state(told)
        elif not self._live:
            self._session.say(told)

    def _ends(self, done: int, total: int) -> str:
        """Return when the run should end: what the quota allows, or what its pace so far says, if later."""
        if self.clock is None or self._finish is None or done >= total:
            return ""
        try:
            now = self.clock.now()
        except KlakeError:  # a sandbox that went away is the run's trouble, not the sink's
            return ""
        pace_s = (time.monotonic() - self._began) / done if done else 0.0
        at = max(self._finish, now + timedelta(seconds=pace_s * (total - done)))
        when = clock_time(now, at)
        return tongue(f"done about {when}", f"约 {when} 完成") if at - now > _SOON else ""

    def _open(self, total: int, ends: str, what: str = "requests") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        def text(form: str) -> TextColumn:  # wraps on a narrow terminal, where rich would cut numbers
            return TextColumn(form, markup=False, table_column=Column(overflow="fold"))

        out = console(sys.stderr)
        columns: tuple[Any, ...] = (
            TextColumn(word(what), markup=False), BarColumn(max(8, min(32, out.width - 72))), MofNCompleteColumn(),
            TextColumn("{task.fields[rows]} " + word("bars"), markup=False), text("{task.fields[ends]}"),
            text("{task.fields[state]}"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=out, refresh_per_second=8, transient=False)
        self._task = self._bar.add_task("", total=total, rows="0", ends=ends, state="")
        self._bar.start()

    def _say_state(self, text: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, state=text)

    def _found(self, event: Finding) -> None:
        """Spell the first findings of each rule out, and count the others."""
        self._findings[event.rule] += 1
        if self._findings[event.rule] <= _TOLD:
            what = " ".join(filter(None, (event.symbol, event.rule)))
            self._line(tongue(f"finding: {what}: {event.text}", f"质检：{what}：{event.text}"))

    def _ended(self, report: RunReport) -> None:
        """Say what only the end of a run knows: how many findings there were, why nothing was asked."""
        for rule, number in self._findings.items():
            if number > _TOLD:
                more = count(number - _TOLD)
                self._line(tongue(
                    f"finding: and {more} more of {rule}: see the view `findings`", f"质检：{rule} 另有 {more} 条，见视图 `findings`"
                ))  # fmt: skip
        self._findings.clear()
        if self._nothing is not None and report.expected:
            self._line(_why_nothing(self._nothing, report))
        self._nothing = None

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, soft_wrap=True)
        else:
            self._session.say(text)

    def _close(self) -> None:
        if self._bar is not None:
            if self._task is not None:
                self._bar.update(self._task, state="", ends="")
            self._bar.stop()
            self._bar = None


def _why_nothing(planned: Planned, report: RunReport) -> str:
    """Return why a run had nothing to ask for: all is there, or what is missing has to wait."""
    aside = planned.parked or len(report.parked)
    if aside:
        at = instant(planned.retry_at) if planned.retry_at else ""
        return tongue(
            f"nothing to ask for now: {aside} series {'is' if aside == 1 else 'are'} set aside{f' until {at}' if at else ''}",
            f"现在没有需要请求的数据：{aside} 个序列已搁置{f'，{at} 之后重试' if at else ''}",
        )
    if report.missing or report.error:
        return tongue("nothing was asked for", "没有发出请求")
    return tongue(
        "nothing to ask for: everything wanted is accounted for", "没有需要请求的数据：所要的都已有着落"
    )
