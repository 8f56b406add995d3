"""Fair timing on a noisy machine: two calls in turn, medians of each."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Row", "in_turn"]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure: ours and the bound in the same unit; `reach` is the ratio aimed at."""

    measure: str
    bound: str
    ours: float
    theirs: float
    unit: str
    reach: float

    @property
    def ratio(self) -> float:
        """Return ours ÷ bound."""
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def reached(self) -> bool:
        """Return whether the ratio is at or below what is aimed at."""
        return self.ratio <= self.reach


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], runs: int = 9) -> tuple[float, float]:
    """Return the median milliseconds of both calls, taken A B A B …, after one of each for warmth."""
    took: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for place, call in enumerate((ours, theirs)):
            start = time.perf_counter()
            call()
            if turn:
                took[place].append((time.perf_counter() - start) * 1000)
    return statistics.median(took[0]), statistics.median(took[1])
