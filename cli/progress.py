"""A run as it goes: a bar with its finish time on a terminal, plain lines elsewhere."""

import sys
import time
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
    RunEnded,
    RunStarted,
    Waiting,
)  # fmt: skip
from .render import clock_time, console, count, duration, plural
from .session import Session

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..schemas.clock import Clock

__all__ = ["Drawn"]

_LINE_S: Final = 10.0  # without a terminal: at most one progress line in so many seconds
_SOON: Final = timedelta(seconds=5)
_TOLD: Final = 20  # findings and given-up series that are spelled out


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
        self._told = 0
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def emit(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Fetched):
            self._fetched(event)
        elif isinstance(event, Waiting):
            self._waiting(event)
        elif isinstance(event, Planned):
            self._planned(event)
        elif isinstance(event, Replayed):
            self._line(f"{event.pages} page(s) of an earlier run are stored now, without a request")
        elif isinstance(event, Finding):
            self._tell(f"finding: {event.symbol} {event.rule}: {event.text}")
        elif isinstance(event, Committed):
            self._say_state("stored")
        elif isinstance(event, RunEnded):
            self._close()
        else:
            assert isinstance(
                event, RunStarted | Gave
            )  # what is given up stands in the report, with its reason

    def _planned(self, event: Planned) -> None:
        if not event.requests:
            self._line("nothing to ask for: everything wanted is accounted for")
            return
        self._finish, self._began = event.finish_at, time.monotonic()
        ends = self._ends(0, event.requests)
        self._line(
            f"{count(event.series)} series, about {count(event.bars)} bars, {plural(event.requests, 'request')}"
            f"{f', {ends}' if ends else ''}"
        )
        if self._live:
            self._open(event.requests, ends)

    def _fetched(self, event: Fetched) -> None:
        self._rows += event.rows
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=event.done, total=event.total, rows=count(self._rows), state="fetching",
                ends=self._ends(event.done, event.total),
            )  # fmt: skip
        elif not self._live and time.monotonic() - self._last_line >= _LINE_S:
            self._last_line = time.monotonic()
            ends = self._ends(event.done, event.total)
            self._session.say(
                f"{event.done} of {event.total} requests, {count(self._rows)} bars{f', {ends}' if ends else ''}"
            )

    def _waiting(self, event: Waiting) -> None:
        if event.seconds < 1:
            return
        if self._bar is not None:
            self._say_state(f"waiting {duration(event.seconds)} for {event.why}")
        elif not self._live:
            self._session.say(f"waiting {duration(event.seconds)}: {event.why}")

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
        return f"done about {clock_time(now, at)}" if at - now > _SOON else ""

    def _open(self, requests: int, ends: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns: tuple[Any, ...] = (
            TextColumn("requests", markup=False), BarColumn(32), MofNCompleteColumn(),
            TextColumn("{task.fields[rows]} bars", markup=False),
            TextColumn("{task.fields[ends]}", markup=False), TextColumn("{task.fields[state]}", markup=False),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console(sys.stderr), refresh_per_second=8, transient=False)
        self._task = self._bar.add_task("", total=requests, rows="0", ends=ends, state="")
        self._bar.start()

    def _say_state(self, text: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, state=text)

    def _tell(self, text: str) -> None:
        self._told += 1
        if self._told < _TOLD:
            self._line(text)
        elif self._told == _TOLD:
            self._line("more of the same is not spelled out here: see `klake status` and the view `findings`")

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
