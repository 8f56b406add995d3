"""The sandbox's own time: it stands still, or runs at a rate, and can be set."""

import threading
import time
from datetime import UTC, datetime, timedelta

from ..schemas.clock import SystemClock

__all__ = ["SandboxClock"]


class SandboxClock:
    """A clock that runs `rate` times as fast as the wall; at 0 it stands still until it is moved.

    It is a `schemas.clock.Clock`: waiting moves it when it stands, and sleeps when it runs.
    """

    def __init__(self, start: datetime, rate: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._base, self._rate, self._mark = start.astimezone(UTC), rate, time.monotonic()

    @property
    def rate(self) -> float:
        """Return how many seconds pass here in one second of the wall."""
        return self._rate

    def now(self) -> datetime:
        """Return the sandbox's present instant, aware, in UTC."""
        with self._lock:
            return self._read()

    def wait(self, seconds: float) -> None:
        """Return after `seconds` of sandbox time."""
        if seconds <= 0:
            return
        if self._rate == 0:
            self.advance(seconds)
        else:
            SystemClock().wait(seconds / self._rate)

    def put(self, now: datetime | None = None, rate: float | None = None) -> None:
        """Set the instant, the rate, or both; the clock may be put back."""
        with self._lock:
            base = self._read() if now is None else now.astimezone(UTC)
            self._base, self._mark = base, time.monotonic()
            self._rate = self._rate if rate is None else rate

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        with self._lock:
            self._base, self._mark = self._read() + timedelta(seconds=seconds), time.monotonic()

    def reach(self, instant: datetime) -> None:
        """Move forward to `instant`; where it has passed, do nothing."""
        with self._lock:
            self._base, self._mark = max(self._read(), instant.astimezone(UTC)), time.monotonic()

    def _read(self) -> datetime:
        return self._base + timedelta(seconds=(time.monotonic() - self._mark) * self._rate)
