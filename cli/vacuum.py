"""`klake vacuum`: delete files that nobody can need any more."""

import json
from typing import Annotated

import typer

from .render import plural, size
from .session import session_of
from .work import JsonOption

__all__ = ["vacuum"]


def vacuum(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete files that are in no kept version: hot ones after 1 hour, others after 7 days, a crash's at once."""
    session = session_of(ctx)
    done = session.desk().store().vacuum(dry_run=dry_run)
    if as_json:
        print(json.dumps({"deleted": not dry_run, "paths": done.paths, "size_bytes": done.size_bytes}))
        return
    if dry_run:
        print("\n".join(done.paths), end="\n" if done.paths else "")
    session.say(
        f"{'would delete' if dry_run else 'deleted'} {plural(len(done.paths), 'file')}, {size(done.size_bytes)}"
    )
