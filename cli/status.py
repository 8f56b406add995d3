"""`klake status`: freshness, coverage, holes, size."""

import json
from typing import TYPE_CHECKING

import typer

from .render import count, instant, say_table, size, spread
from .session import session_of
from .work import JsonOption

if TYPE_CHECKING:
    from ..jobs.status import LastRun, Shelf, StatusReport

__all__ = ["status", "tell"]

_SPELLED = 10


def status(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Say how the lake stands: freshness, coverage, holes, size, last runs."""
    session = session_of(ctx)
    desk = session.desk()
    from ..jobs.status import status as stands

    found = stands(desk)
    if found.sandbox:
        session.sandbox()
    if as_json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        tell(found)


def tell(found: "StatusReport") -> None:
    """Print a status for people."""
    kind = "sandbox lake" if found.sandbox else "lake"
    print(f"{kind} {found.lake}: version {found.version}, {size(found.size_bytes)} on disk")
    print(f"as of {instant(found.now)} (clock: {found.clock})\n")
    if found.shelves:
        header = (
            "vendor",
            "freq",
            "symbols",
            "bars",
            "sessions",
            "expected",
            "stored",
            "empty",
            "missing",
            "fresh",
        )
        right = ("symbols", "bars", "expected", "stored", "empty", "missing")
        say_table(header, [_row(shelf) for shelf in found.shelves], right=right)
    else:
        print("nothing is stored and no job wants anything: see [jobs.NAME] in klake.toml")
    for shelf in found.shelves:
        if shelf.empty:
            why = ", ".join(f"{count(n)} {reason}" for reason, n in sorted(shelf.empty.items()))
            print(f"empty   {shelf.vendor} {shelf.freq}: {why}")
    for run in found.runs:
        print(f"run     {_run(run)}")
    for stuck in found.stuck[:_SPELLED]:
        again = f"; again after {instant(stuck.retry_at)}" if stuck.retry_at else ""
        print(f"parked  {stuck.symbol} {stuck.freq} ({stuck.vendor}): {stuck.error}{again}")
    if len(found.stuck) > _SPELLED:
        print(f"parked  and {len(found.stuck) - _SPELLED} more; --json has them all")
    for one in found.unverified:
        print(f"unverified  {one.vendor}: {', '.join(one.fields)} (see `klake vendors`)")
    for note in found.notes:
        print(f"note    {note}")


def _row(shelf: "Shelf") -> tuple[object, ...]:
    fresh = shelf.freshness
    if fresh.behind:
        word = f"{count(fresh.behind)} behind, up to {count(fresh.worst_sessions)} sessions"
    else:
        word = "up to date" if fresh.current else "not synced"
    return (
        shelf.vendor, shelf.freq, count(shelf.symbols), count(shelf.bars), spread(shelf.first, shelf.newest),
        count(shelf.expected), count(shelf.stored), count(sum(shelf.empty.values())), count(shelf.missing), word,
    )  # fmt: skip


def _run(run: "LastRun") -> str:
    if run.ended_at is None:
        return f"{run.job}: began {instant(run.started_at)} and has not ended: it still runs, or was cut off"
    how = "done" if run.exit_code == 0 else f"exit {run.exit_code}{f', {run.error}' if run.error else ''}"
    return f"{run.job}: {instant(run.ended_at)}, {how}, {count(run.new)} new bars, {count(run.requests)} requests"
