"""Fair timing on a noisy machine: calls in turn, medians of each."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Row", "beside", "in_turn", "once"]

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure: ours and the bound in the same unit; `reach` is the ratio aimed at.

    `reach` None: told for comparison, nothing is aimed at. `peers`: others at the same task.
    """

    measure: str
    bound: str
    ours: float
    theirs: float
    unit: str
    reach: float | None
    peers: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def ratio(self) -> float:
        """Return ours ÷ bound."""
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def verdict(self) -> str:
        """Return `reached`, `MISSED`, or nothing where nothing is aimed at."""
        if self.reach is None:
            return ""
        return "reached" if self.ratio <= self.reach else "MISSED"


def in_turn(ours: Call, theirs: Call, runs: int = 9) -> tuple[float, float]:
    """Return the median milliseconds of both calls, taken A B A B …, after one of each for warmth."""
    took = beside({"ours": ours, "theirs": theirs}, runs)
    return took["ours"], took["theirs"]


def beside(calls: Mapping[str, Call], runs: int = 9) -> dict[str, float]:
    """Return the median milliseconds of each call, taken in turn, after one of each for warmth."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs + 1):
        for name, call in calls.items():
            spent = once(call)
            if turn:
                took[name].append(spent)
    return {name: statistics.median(times) for name, times in took.items()}


def once(call: Call) -> float:
    """Return the milliseconds of one call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000
