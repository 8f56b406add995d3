"""Half-open ranges `[start, end)` and their arithmetic."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Generic, TypeVar

__all__ = ["Span", "merged", "missing", "overlap"]

T = TypeVar("T", int, date, datetime)


@dataclass(frozen=True, slots=True, order=True)
class Span(Generic[T]):
    """A half-open range: UTC instants for intraday, sessions (dates) for daily and longer."""

    start: T
    end: T

    def __bool__(self) -> bool:
        return self.start < self.end


def merged(spans: Iterable[Span[T]]) -> list[Span[T]]:
    """Return the union of `spans`: ascending, disjoint, no two of them touching.

    Examples
    --------
    >>> merged([Span(4, 6), Span(1, 2), Span(2, 4), Span(9, 9)])
    [Span(start=1, end=6)]
    """
    out: list[Span[T]] = []
    for span in sorted(s for s in spans if s):
        if out and span.start <= out[-1].end:
            if span.end > out[-1].end:
                out[-1] = Span(out[-1].start, span.end)
        else:
            out.append(span)
    return out


def missing(held: Iterable[Span[T]], wanted: Span[T]) -> list[Span[T]]:
    """Return the parts of `wanted` that no span of `held` covers.

    Parameters
    ----------
    held : iterable of Span, length h
        What the lake has; half-open, any order, may overlap.
    wanted : Span
        What the caller asks for; half-open.

    Returns
    -------
    list of Span, length 0 to h + 1
        Ascending, disjoint, each inside `wanted`. Empty: nothing to fetch.

    Examples
    --------
    >>> missing([Span(2, 4), Span(3, 5)], Span(0, 6))
    [Span(start=0, end=2), Span(start=5, end=6)]
    """
    out: list[Span[T]] = []
    cursor = wanted.start
    for span in merged(held):
        if span.end <= cursor:
            continue
        if span.start >= wanted.end:
            break
        if span.start > cursor:
            out.append(Span(cursor, span.start))
        cursor = span.end
    if cursor < wanted.end:
        out.append(Span(cursor, wanted.end))
    return out


def overlap(left: Span[T], right: Span[T]) -> Span[T] | None:
    """Return the part that both hold, or None when they share nothing.

    Examples
    --------
    >>> overlap(Span(1, 5), Span(3, 9))
    Span(start=3, end=5)
    """
    shared = Span(max(left.start, right.start), min(left.end, right.end))
    return shared or None
