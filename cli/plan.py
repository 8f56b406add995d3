"""`klake plan`: what a sync would send, without sending anything."""

import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import typer

from .render import count, duration, instant, plural, say_table, spread, tongue
from .session import Session, session_of
from .words import label, words
from .work import (
    EndOption,
    FreqOption,
    JobOption,
    JsonOption,
    StartOption,
    SymbolsOption,
    UniverseOption,
    VendorOption,
    Work,
)  # fmt: skip

if TYPE_CHECKING:
    from ..jobs.plan import Plan

__all__ = ["plan", "tell"]


def plan(
    ctx: typer.Context,
    job: JobOption = "",
    vendor: VendorOption = "",
    symbols: SymbolsOption = "",
    universe: UniverseOption = "",
    freq: FreqOption = "",
    start: StartOption = "",
    end: EndOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say what a sync would send, how long it takes and what it brings; sends nothing."""
    session = session_of(ctx)
    desk = session.desk()
    name, wanted = Work(job, vendor, symbols, universe, freq, start, end).of(desk)
    from ..jobs.sync import plan as planned

    made = planned(desk, name, wanted)
    if as_json:
        print(json.dumps({"sandbox": desk.sandbox, **made.as_json()}, ensure_ascii=False))
    else:
        tell(session, made)


def tell(session: Session, made: "Plan") -> None:
    """Print a plan for people."""
    series = Counter(w.series.freq.value for w in made.wants)
    bars: Counter[str] = Counter()
    for want in made.wants:
        bars[want.series.freq.value] += want.bars
    if made.wants:
        rows = [(f, count(n), count(bars[f]), _dates(made, f)) for f, n in series.items()]
        say_table(words("freq", "chains", "bars", "sessions"), rows, right=words("chains", "bars"))
    fewest = tongue(f"(the fewest possible: {count(made.fewest)})", f"（最少可能：{count(made.fewest)}）")
    print(f"{label('requests')}{count(made.requests)} {fewest}")
    for quota in made.quotas:
        if quota.scope != "month-symbols" and made.requests:
            windows = -(-made.requests // quota.n)
            print(label("quota") + tongue(
                f"{quota.n} per {duration(quota.window_s)}: {plural(windows, 'window')}",
                f"每 {duration(quota.window_s)} {quota.n} 次：{count(windows)} 个窗口",
            ))  # fmt: skip
        elif quota.scope == "month-symbols" and made.requests:
            asked = len({w.series.symbol for w in made.wants})
            print(label("quota") + tongue(
                f"{count(quota.n)} symbols a month: {count(asked)} are asked here",
                f"每月 {count(quota.n)} 个标的：本次涉及 {count(asked)} 个",
            ))  # fmt: skip
    if made.requests:
        print(f"{label('finish')}{_finish(made)}")
        for sent, done in made.ready:
            total = count(len(made.wants))
            print(label("usable") + tongue(
                f"{count(done)} of {total} chains after {plural(sent, 'request')}",
                f"请求 {count(sent)} 次后完成 {count(done)}/{total} 条任务链",
            ))  # fmt: skip
    else:
        print(label("finish") + tongue("now: there is nothing to ask for", "现在：没有需要请求的数据"))
    for text in made.unspelled:
        print(
            label("unspelled")
            + tongue(f"{text}: {made.vendor} cannot have it", f"{text}：{made.vendor} 没有这种标的")
        )


def _dates(made: "Plan", freq: str) -> str:
    spans = [w.sessions for w in made.wants if w.series.freq.value == freq]
    return spread(min(s.start for s in spans), max(s.end for s in spans) - timedelta(days=1))


def _finish(made: "Plan") -> str:
    early, late = ((at - made.now).total_seconds() for at in made.finish)
    first, last = instant(made.finish[0]), instant(made.finish[1])
    to = tongue(" to ", " 至 ")
    span = f"{first}{f'{to}{last}' if last != first else ''}"
    return tongue(
        f"{span} (in {duration(early)} to {duration(late)})",
        f"{span}（{duration(early)} 至 {duration(late)} 后）",
    )
