"""What a job says while it runs: typed events to one sink; jobs never print."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from .report import RunReport

__all__ = [
    "Committed", "Event", "Events", "Fetched", "Finding", "Gave", "Planned", "Quiet", "Replayed", "Reread", "RunEnded",
    "RunStarted", "Waiting",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins."""

    run: str
    job: str
    vendor: str
    sandbox: bool


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan is made: nothing was sent yet. `finish_at`: when the quota lets it end, at best.

    `parked` counts wanted series that are set aside; `retry_at`: when the first of them is
    tried again; None: not by itself.
    """

    requests: int
    fewest: int
    bars: int
    series: int
    finish_at: datetime
    parked: int = 0
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """Pages of an earlier run, received but not stored then, were stored without a request."""

    pages: int


@dataclass(frozen=True, slots=True)
class Reread:
    """One page of the raw zone was read: `done` of `total` of one vendor."""

    done: int
    total: int
    rows: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The quota (or the vendor) makes the run wait `seconds`."""

    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """One page came: `done` of `total` requests; `total` is what the plan says now."""

    done: int
    total: int
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Gave:
    """A series was given up for now."""

    symbol: str
    freq: str
    why: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A quality rule or a canary has something to say."""

    rule: str
    symbol: str
    text: str


@dataclass(frozen=True, slots=True)
class Committed:
    """Bars are in the lake, and every reader sees them."""

    rows: int
    version: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is over; the report says what it did."""

    report: RunReport


Event = RunStarted | Planned | Replayed | Reread | Waiting | Fetched | Gave | Finding | Committed | RunEnded


class Events(Protocol):
    """Where a job's events go: progress bar, log, metrics, web."""

    def emit(self, event: Event) -> None:
        """Take one event; must be quick and must not raise."""
        ...


class Quiet:
    """A sink that says nothing."""

    def emit(self, event: Event) -> None:
        """Drop the event."""
