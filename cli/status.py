"""`klake status`: freshness, coverage, holes, size."""

import json
from typing import TYPE_CHECKING

import typer

from .render import count, instant, plural, say_table, size, spread, tongue
from .session import session_of
from .words import label, reasons, word, words
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
    desk.store().refuse_damage()  # coverage stands all the same


def tell(found: "StatusReport") -> None:
    """Print a status for people."""
    kind, disk = word("sandbox lake" if found.sandbox else "lake"), size(found.size_bytes)
    print(tongue(
        f"{kind} {found.lake}: version {found.version}, {disk} on disk",
        f"{kind} {found.lake}：第 {found.version} 版，占用 {disk}",
    ))  # fmt: skip
    now, clock = instant(found.now), word(found.clock)
    print(tongue(f"as of {now} (clock: {clock})\n", f"截至 {now}（时钟：{clock}）\n"))
    if found.shelves:
        header = words(
            "vendor", "freq", "symbols", "bars", "sessions", "expected", "stored", "empty", "missing", "fresh"
        )
        right = words("symbols", "bars", "expected", "stored", "empty", "missing")
        say_table(header, [_row(shelf) for shelf in found.shelves], right=right)
    else:
        print(tongue(
            "nothing is stored and no job wants anything: see [jobs.NAME] in klake.toml",
            "库中没有数据，也没有任务：请看 klake.toml 的 [jobs.NAME]",
        ))  # fmt: skip
    for shelf in found.shelves:
        if shelf.empty:
            print(f"{label('empty', 8)}{shelf.vendor} {shelf.freq}: {reasons(dict(shelf.empty))}")
    for run in found.runs:
        print(f"{label('run', 8)}{_run(run)}")
    for stuck in found.stuck[:_SPELLED]:
        at = instant(stuck.retry_at)
        again = tongue(f"; again after {at}", f"；{at} 之后重试") if stuck.retry_at else ""
        print(f"{label('parked', 8)}{stuck.symbol} {stuck.freq} ({stuck.vendor}): {stuck.error}{again}")
    if len(found.stuck) > _SPELLED:
        more = len(found.stuck) - _SPELLED
        print(
            label("parked", 8)
            + tongue(f"and {more} more; --json has them all", f"另有 {more} 个；--json 列出全部")
        )
    for one in found.unverified:
        print(
            f"{label('unverified', 12)}{one.vendor}: {', '.join(one.fields)} ({tongue('see', '见')} `klake vendors`)"
        )
    for note in found.notes:
        print(f"{label('note', 8)}{note}")


def _row(shelf: "Shelf") -> tuple[object, ...]:
    fresh = shelf.freshness
    if fresh.behind:
        behind, worst = count(fresh.behind), count(fresh.worst_sessions)
        told = tongue(f"{behind} behind, up to {worst} sessions", f"{behind} 个落后，最多 {worst} 个交易日")
    else:
        told = word("up to date" if fresh.current else "not synced")
    return (
        shelf.vendor, shelf.freq, count(shelf.symbols), count(shelf.bars), spread(shelf.first, shelf.newest),
        count(shelf.expected), count(shelf.stored), count(sum(shelf.empty.values())), count(shelf.missing), told,
    )  # fmt: skip


def _run(run: "LastRun") -> str:
    if run.ended_at is None:
        began = instant(run.started_at)
        return tongue(
            f"{run.job}: began {began} and has not ended: it still runs, or was cut off",
            f"{run.job}：{began} 开始，尚未结束：仍在运行，或被中断",
        )
    ended, new, sent = instant(run.ended_at), count(run.new), count(run.requests)
    failed = f"{tongue('exit', '退出码')} {run.exit_code}{f', {run.error}' if run.error else ''}"
    how = tongue("done", "完成") if run.exit_code == 0 else failed
    return tongue(
        f"{run.job}: {ended}, {how}, {new} new bars, {plural(run.requests, 'request')}",
        f"{run.job}：{ended}，{how}，新增 {new} 根，请求 {sent} 次",
    )
