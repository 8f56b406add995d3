"""`klake init`: a klake.toml and an empty lake."""

import json
from typing import Annotated

import typer

from .session import session_of
from .work import JsonOption

__all__ = ["init"]


def init(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where; made if absent.")] = ".",
    sandbox: Annotated[
        str, typer.Option("--sandbox", metavar="CONTROL_URL", help="The control URL of a running `klake sandbox run`.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a klake.toml that is there.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Write a klake.toml and make the empty lake that it names."""
    from pathlib import Path

    from ..jobs.setup import sandbox_facts, set_up

    session = session_of(ctx)
    facts = sandbox_facts(sandbox) if sandbox else None
    if facts is not None:
        session.sandbox(facts.control)
    made = set_up(Path(folder), facts, replace=force)
    if as_json:
        print(
            json.dumps(
                {"config": str(made.config), "lake": made.lake, "sandbox": made.sandbox}, ensure_ascii=False
            )
        )
        return
    session.say(f"wrote {made.config}; the lake is {made.lake}")
    if not made.sandbox:
        session.say("next: export QOS_KEY=..., then `klake plan` and `klake sync` in that folder")
    else:
        session.say("next: `klake plan` and `klake sync` in that folder")
