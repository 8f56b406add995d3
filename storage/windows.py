"""Sliding windows: when there is room for one more request, and for many more. Arithmetic only.

All times are UTC epoch microseconds.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from ..errors import BadRequest
from ..schemas.quota import Quota

__all__ = ["SECOND", "TIMEOUT", "Taken", "Window", "forecast", "longest", "room", "windows_of"]

SECOND: Final = 1_000_000
TIMEOUT: Final = 60 * SECOND  # a request that nobody settled by then is given up
_GUARD: Final = 1_000  # a server may count both ends of its window
_FORECAST: Final = 5_000  # beyond so many requests a forecast goes on in a straight line


class Window(NamedTuple):
    """At most `n` requests in any `length` microseconds."""

    n: int
    length: int

    def __str__(self) -> str:
        return f"{self.n} in {self.length / SECOND:g} s"


class Taken(NamedTuple):
    """A request that counts from `at` on; `settled` is when its reply came, None: not yet."""

    at: int
    settled: int | None

    def latest_end(self, window: Window) -> int:
        """Return when it stops counting at the latest."""
        return (self.at + TIMEOUT if self.settled is None else self.settled) + window.length + _GUARD

    def soonest_end(self, window: Window, now: int) -> int:
        """Return when it stops counting if its reply comes as soon as it can."""
        if self.settled is not None:
            return self.latest_end(window)
        return min(max(self.at, now) + window.length + _GUARD, self.latest_end(window))


def windows_of(quotas: tuple[Quota, ...]) -> tuple[Window, ...]:
    """Return the sliding windows among the quotas; those of the month count symbols, not requests."""
    sliding = [quota for quota in quotas if quota.scope != "month-symbols"]
    for quota in sliding:
        if quota.n < 1:
            raise BadRequest(
                "quota", f"[{quota.n}, {quota.window_s:g}s]", hint="a window lets at least one request through",
                hint_zh="每个时间窗至少允许一次请求",
            )  # fmt: skip
    return tuple(Window(quota.n, round(quota.window_s * SECOND)) for quota in sliding)


def longest(windows: tuple[Window, ...]) -> int:
    """Return the µs after its reply when a request counts in none of the windows."""
    return max((window.length for window in windows), default=0) + _GUARD


def room(
    taken: list[Taken], windows: tuple[Window, ...], start: int, end: Callable[[Taken, Window], int]
) -> tuple[int, Window]:
    """Return the earliest instant from `start` on after which no window is ever full, and who decided."""
    found = [(_window_room(taken, w, start, end), w) for w in windows]
    return max(found, default=(start, Window(0, 0)))


def _window_room(taken: list[Taken], window: Window, start: int, end: Callable[[Taken, Window], int]) -> int:
    if len(taken) < window.n:
        return start
    steps = [(one.at, True) for one in taken] + [(end(one, window), False) for one in taken]
    count = 0
    # Backwards from the far future; at one instant a beginning is undone before an end.
    for at, begins in sorted(steps, reverse=True):
        if at <= start:
            break
        count += -1 if begins else 1
        if count >= window.n:
            return at
    return start


def forecast(taken: list[Taken], windows: tuple[Window, ...], start: int, now: int, requests: int) -> int:
    """Return when the last of `requests` further ones could go, from `start` on, if replies take no time."""
    ends = [[one.soonest_end(window, now) for one in taken] for window in windows]
    for heap in ends:
        heapify(heap)
    at = start
    for _ in range(min(requests, _FORECAST)):
        for window, heap in zip(windows, ends, strict=True):
            while len(heap) >= window.n:
                at = max(at, heappop(heap))
        for window, heap in zip(windows, ends, strict=True):
            heappush(heap, at + window.length + _GUARD)
    pace = max(((w.length + _GUARD) / w.n for w in windows), default=0.0)
    return at + round(max(requests - _FORECAST, 0) * pace)
