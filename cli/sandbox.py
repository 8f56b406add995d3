"""`klake sandbox run`: stand-ins of the vendors on this machine, no key and no network needed."""

import os
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadRequest
from .session import session_of
from .work import listed

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["app"]

app = typer.Typer(
    help="Stand-ins of the vendors on this machine, to practise and to test.", no_args_is_help=True
)


@app.callback()
def _group() -> None:
    """Keep `run` a verb of its own."""


@app.command("run")
def run(
    ctx: typer.Context,
    vendors: Annotated[str, typer.Option("--vendors", metavar="A,B", help="Which ones. Default: all.")] = "",
    clock: Annotated[
        str, typer.Option("--clock", metavar="INSTANT", help="Its first instant, or `now`. Default: 2026-11-20T08:00:00Z.")
    ] = "",
    rate: Annotated[
        float, typer.Option("--rate", min=0.0, metavar="N", help="Its seconds per real second; 0: time stands until a wait moves it.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same bars.")] = 1,
    instruments: Annotated[int, typer.Option("--instruments", min=1, metavar="N", help="How many it lists.")] = 40,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, metavar="P", help="Of the control face; 0: a free one.")
    ] = 0,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True, help="End when stdin does.")] = False,
) -> None:  # fmt: skip
    """Print one JSON line with every URL and the keys it accepts, then serve until Ctrl-C."""
    from ..sandbox.server import START, VENDORS, serve

    first = _instant(clock) if clock else START
    names = tuple(listed(vendors)) or VENDORS
    session_of(ctx).sandbox()
    if until_eof:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        serve(seed, instruments, first, rate, names, port)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadRequest(
            "port", port, hint=f"cannot be listened on: {why}", hint_zh=f"无法监听：{why}"
        ) from None


def _end_with_stdin() -> None:
    """End this process when whoever started it is gone, however that came about."""
    while os.read(0, 1024):  # not through sys.stdin: its lock would be held when the program ends
        pass
    os._exit(0)


def _instant(text: str) -> "datetime":
    from datetime import UTC, datetime

    from ..schemas.clock import SystemClock

    if text == "now":
        return SystemClock().now()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(
            "clock", text, hint="write an instant such as 2026-11-20T08:00:00Z, or now"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
