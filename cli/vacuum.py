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
    """Delete files in no kept version: hot ones after 1 hour, others after 7 days; raw pages by [lake] raw_days."""
    session = session_of(ctx)
    desk = session.desk()
    store, raw_days = desk.store(), desk.settings.lake.raw_days
    from ..jobs.maintain import expire

    done = store.vacuum(dry_run=dry_run)
    expired = expire(store, raw_days, dry_run=dry_run)
    if as_json:
        raw = {"paths": expired.paths, "size_bytes": expired.size_bytes}
        print(
            json.dumps(
                {"deleted": not dry_run, "paths": done.paths, "size_bytes": done.size_bytes, "raw": raw}
            )
        )
        return
    verb, paths = "would delete" if dry_run else "deleted", (*done.paths, *expired.paths)
    if dry_run:
        print("\n".join(paths), end="\n" if paths else "")
    session.say(f"{verb} {plural(len(done.paths), 'file')}, {size(done.size_bytes)}")
    if raw_days is not None:
        session.say(
            f"{verb} {plural(len(expired.paths), 'raw segment')} older than {plural(raw_days, 'day')}, "
            f"{size(expired.size_bytes)}"
        )
