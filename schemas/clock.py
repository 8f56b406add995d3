"""Time as one object, made at the door and passed down."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """What every part of klake asks for the time and for a pause."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after `seconds` of this clock's time; at once when that is 0 or less."""
        ...


class SystemClock:
    """The clock of the machine: the only place in klake that reads it."""

    def now(self) -> datetime:
        """Return the machine's present instant, aware, in UTC."""
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        """Sleep for `seconds`."""
        if seconds > 0:
            time.sleep(seconds)


class ManualClock:
    """A clock that stands still until somebody waits: waiting moves it, nothing sleeps."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """Return the instant that the clock was last moved to."""
        return self._now

    def wait(self, seconds: float) -> None:
        """Move the clock forward by `seconds`."""
        if seconds > 0:
            self._now += timedelta(seconds=seconds)
