"""`klake symbols find`: which symbols a text can mean, at the vendors and in the lake."""

import json
from typing import Annotated

import typer

from .render import say_table
from .session import session_of
from .work import JsonOption

__all__ = ["app"]

app = typer.Typer(help="Find symbols.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `find` a verb of its own."""


@app.command("find")
def find(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A code, or a part of a name in any language.")],
    vendor: Annotated[
        str, typer.Option("--vendor", metavar="NAME", help="Ask only this one. Default: all.")
    ] = "",
    as_json: JsonOption = False,
) -> int:
    """Find symbols by code or name; costs one request per vendor at most."""
    session = session_of(ctx)
    desk = session.desk()
    from ..jobs.find import find as found_by

    result = found_by(desk, text, vendor)
    for trouble in result.troubles:
        session.say(f"klake: {trouble}")
    if as_json:
        print(json.dumps(result.as_json(), ensure_ascii=False))
    elif result.found:
        say_table(
            ("symbol", "class", "name", "name (zh)", "vendor", "its spelling"),
            [(f.symbol, f.klass, f.name_en, f.name_zh, f.vendor, f.spelling) for f in result.found],
        )
    else:
        session.say(
            f"nothing that any vendor lists holds {text!r}; vendors may list only a part of what they have"
        )
    return 0 if result.found else 1
