"""One command line at work: which configuration, how talkative, and what it opens on demand."""

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from .render import tongue

if TYPE_CHECKING:
    from ..jobs.desk import Desk
    from ..research.lake import Lake
    from ..schemas.events import Events
    from ..schemas.settings import Settings

__all__ = ["Session", "session_of"]


@dataclass(slots=True)
class Session:
    """What stands before the verb: `--config`, `--quiet`; and the desks that the verb opened."""

    config: str | None = None
    quiet: bool = False
    said_sandbox: bool = False
    _desks: list["Desk"] = field(default_factory=list["Desk"])

    def close(self) -> None:
        """Give back what the desks of this verb hold."""
        while self._desks:
            self._desks.pop().close()

    def say(self, text: str = "") -> None:
        """Talk: one line on stderr, unless `--quiet`."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def sandbox(self, control: str = "") -> None:
        """Say once that all of this is about the sandbox's invented bars."""
        if not self.said_sandbox:
            self.said_sandbox = True
            at = f" ({control})" if control else ""
            told = tongue(
                "these bars are invented, none of them was ever traded", "这些 K 线是虚构的，从未真实成交"
            )
            self.say(f"SANDBOX{at}: {told}")

    def settings(self) -> "Settings":
        """Return the configuration; says SANDBOX when it is one for the sandbox."""
        from ..jobs.config import load

        settings = load(self.config)
        if settings.sandbox is not None:
            self.sandbox(settings.sandbox.control)
        return settings

    def desk(self, events: "Events | None" = None) -> "Desk":
        """Return settings, clock, lake and vendors, each opened when it is asked for."""
        from ..jobs.desk import open_desk

        desk = open_desk(self.config, events)
        self._desks.append(desk)
        if desk.settings.sandbox is not None:
            self.sandbox(desk.settings.sandbox.control)
        return desk

    def lake(self) -> "Lake":
        """Return the lake of the configuration; needs no clock and no vendor, only the files."""
        from ..research.lake import open_lake

        lake = open_lake(self.settings().lake_path)
        if lake.store.origin == "sandbox":
            self.sandbox()
        return lake


def session_of(ctx: typer.Context) -> Session:
    """Return the session that the options before the verb made."""
    found: Any = ctx.find_root().obj
    assert isinstance(found, Session)
    return found
