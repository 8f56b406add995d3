"""`klake history`: the versions of the bars, and the way back to one."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .render import count, instant, say_table, size, tongue
from .session import session_of
from .work import JsonOption

if TYPE_CHECKING:
    from ..jobs.desk import Desk

__all__ = ["history"]


def history(
    ctx: typer.Context,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many versions.")] = 20,
    restore: Annotated[
        int | None, typer.Option("--restore", metavar="VERSION", min=0, help="Bring the bars of this version back, in a new commit; nothing known since is forgotten.")
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """List the newest versions of the bars, or go back to one of them."""
    session = session_of(ctx)
    desk = session.desk()
    if restore is not None:
        _restore(desk, restore, as_json)
        return
    found = desk.store().history(n)
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


def _restore(desk: "Desk", version: int, as_json: bool) -> None:
    from ..jobs.restore import restore

    done = restore(desk, version)
    if as_json:
        print(json.dumps({"restored": version} | asdict(done)))
        return
    changed, returned, withdrawn = (count(n) for n in (done.changed, done.returned, done.withdrawn))
    print(tongue(
        f"version {done.version} holds what version {version} held: {changed} bars as they were, "
        f"{returned} back again, {withdrawn} withdrawn",
        f"版本 {done.version} 与版本 {version} 的内容相同：{changed} 根恢复原值，{returned} 根重新出现，{withdrawn} 根撤回",
    ))  # fmt: skip
    if done.withdrawn:
        print(tongue("what was withdrawn counts as missing: the next sync asks for it",
                     "撤回的部分记为缺失：下次 sync 会重新请求"))  # fmt: skip
