"""`klake views`: the SQL views, and the DuckDB file that holds them for other programs."""

import json
from typing import Annotated

import typer

from ..errors import BadRequest
from .session import session_of
from .work import JsonOption

__all__ = ["views"]


def views(
    ctx: typer.Context,
    at: Annotated[
        str, typer.Option("--at", metavar="PATH", help="Write lake.duckdb for a machine that mounts the lake at PATH.")
    ] = "",
    out: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="Where to write it; default: lake.at.duckdb in the lake.")
    ] = "",
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """List the SQL views, or write the DuckDB file that holds them for another mount."""
    from pathlib import Path

    if out and not at:
        raise BadRequest("output", out, hint="only with --at PATH is a file written",
                         hint_zh="只有给出 --at PATH 时才写文件")  # fmt: skip
    session = session_of(ctx)
    with session.lake() as lake:
        if at:
            target = out or str(Path(lake.store.path) / "lake.at.duckdb")
            lake.store.views_at(at, target)
            if as_json:
                print(json.dumps({"written": target, "lake_at": at}, ensure_ascii=False))
            else:
                session.say(f"wrote {target}: any DuckDB opens it where the lake is mounted at {at}")
            return
        names = [
            row[0]
            for row in lake.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1").rows()
        ]
        catalog = str(Path(lake.store.path) / "lake.duckdb")
        if as_json:
            print(json.dumps({"catalog": catalog, "views": names}, ensure_ascii=False))
        else:
            print("\n".join(names))
            session.say(f"any DuckDB opens them with: ATTACH '{catalog}' (READ_ONLY)")
