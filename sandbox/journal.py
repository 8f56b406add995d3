"""Every request that a stand-in received, in order of arrival; never a key."""

import hashlib
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["Journal", "Received", "account_of", "stamp"]


@dataclass(frozen=True, slots=True)
class Received:
    """One request: what was asked, when it arrived, and what went back.

    `arrived` is sandbox time (ISO 8601, UTC, microseconds), `monotonic_s` the wall's own;
    `entries` counts codes or K-line requests; `msg` is the vendor's word ("OK").
    """

    vendor: str
    account: str
    endpoint: str
    entries: int
    arrived: str
    status: int
    msg: str
    monotonic_s: float


class Journal:
    """The log of requests, newest last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: list[Received] = []

    def add(self, vendor: str, account: str, endpoint: str, arrived: datetime) -> int:
        """Note an arrival, before it is answered; return its place in the log."""
        row = Received(vendor, account, endpoint, 0, stamp(arrived), 0, "", time.monotonic())
        with self._lock:
            self._rows.append(row)
            return len(self._rows) - 1

    def answer(self, place: int, entries: int, status: int, msg: str) -> None:
        """Complete the row at `place` with what was sent back."""
        with self._lock:
            if place < len(self._rows):  # a reset may have come in between
                row = self._rows[place]
                self._rows[place] = Received(
                    row.vendor, row.account, row.endpoint, entries, row.arrived, status, msg, row.monotonic_s
                )

    def rows(self) -> list[Received]:
        """Return a copy of the log."""
        with self._lock:
            return list(self._rows)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows = []


def account_of(vendor: str, secret: str) -> str:
    """Return what stands for a key in the log: a hash of vendor and key."""
    return hashlib.sha256(f"{vendor}\0{secret}".encode()).hexdigest()[:16]


def stamp(instant: datetime) -> str:
    """Return an instant as ISO 8601 in UTC, with microseconds and Z."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
