"""`klake history`: the versions of the bars, and the way back to one."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .render import count, instant, say_table, size
from .session import session_of
from .work import JsonOption

__all__ = ["history"]


def history(
    ctx: typer.Context,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many versions.")] = 20,
    restore: Annotated[
        int | None, typer.Option("--restore", metavar="VERSION", min=0, help="Make this version the newest again, in a new commit.")
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """List the newest versions of the bars, or go back to one of them."""
    session = session_of(ctx)
    store = session.desk().store()
    if restore is not None:
        made = store.restore(restore)
        if as_json:
            print(json.dumps({"restored": restore, "version": made}))
        else:
            print(f"version {made} holds what version {restore} held")
        return
    found = store.history(n)
    if as_json:
        print(
            json.dumps(
                {"versions": [asdict(v) | {"at": v.at.isoformat()} for v in found]}, ensure_ascii=False
            )
        )
        return
    header = ("version", "at", "operation", "bars", "size", "run", "")
    rows = [
        (str(v.version), instant(v.at), v.operation, count(v.rows), size(v.size_bytes), v.run or "-",
         "" if v.restorable else "files are deleted")
        for v in found
    ]  # fmt: skip
    say_table(header, rows, right=("version", "bars", "size"))
