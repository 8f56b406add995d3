"""`klake plan`: what a sync would send, without sending anything."""

import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import typer

from .render import count, duration, instant, plural, say_table, spread
from .session import Session, session_of
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
        say_table(("freq", "chains", "bars", "sessions"), rows, right=("chains", "bars"))
    print(f"requests  {count(made.requests)} (the fewest possible: {count(made.fewest)})")
    for quota in made.quotas:
        if quota.scope != "month-symbols" and made.requests:
            windows = -(-made.requests // quota.n)
            print(f"quota     {quota.n} per {duration(quota.window_s)}: {plural(windows, 'window')}")
    if made.requests:
        print(f"finish    {_finish(made)}")
        for sent, done in made.ready:
            print(
                f"usable    {count(done)} of {count(len(made.wants))} chains after {plural(sent, 'request')}"
            )
    else:
        print("finish    now: everything wanted is accounted for")
    for text in made.unspelled:
        print(f"unspelled {text}: {made.vendor} cannot have it")


def _dates(made: "Plan", freq: str) -> str:
    spans = [w.sessions for w in made.wants if w.series.freq.value == freq]
    return spread(min(s.start for s in spans), max(s.end for s in spans) - timedelta(days=1))


def _finish(made: "Plan") -> str:
    early, late = ((at - made.now).total_seconds() for at in made.finish)
    first, last = instant(made.finish[0]), instant(made.finish[1])
    return f"{first}{f' to {last}' if last != first else ''} (in {duration(early)} to {duration(late)})"
