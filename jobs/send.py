"""Sending: a slot of the quota, one request, the page made durable; retries, halves, breaker."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from ..errors import (
    Interrupted,
    KlakeError,
    RateLimited,
    SymbolRefused,
    VendorDown,
    VendorError,
    VendorRefused,
)
from ..ingest.vendor import Vendor
from ..schemas.clock import Clock
from ..schemas.page import Entry, Page, PageRequest
from ..schemas.quota import Quotas

__all__ = ["Refused", "Sender", "Stop"]

_TRIES: Final = 5
_BREAKER: Final = 3  # requests given up in a row: the vendor is down, save the quota
_BACKOFF_S: Final = 2.0


class Keeper(Protocol):
    """Where pages are made durable before they are used."""

    def append(self, pages: list[Page]) -> None:
        """Return only when the pages would survive a crash."""
        ...


class Stop:
    """A clock that can be told to stop: every wait then ends with Interrupted."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._told = clock, threading.Event()

    def now(self) -> datetime:
        """Return the present instant of the clock below, aware, in UTC."""
        return self._clock.now()

    def tell(self) -> None:
        """Make all present and later waits end."""
        self._told.set()

    def wait(self, seconds: float) -> None:
        """Wait in slices, so that Ctrl-C is answered soon; raises Interrupted when told to stop."""
        end = self.now() + timedelta(seconds=seconds)
        while not self._told.is_set():
            left = (end - self.now()).total_seconds()
            if left <= 0:
                return
            self._clock.wait(min(left, max(0.25, seconds / 100)))
        raise Interrupted


class Refused(KlakeError):
    """One entry that the vendor refuses, however it is asked; the others go on."""

    def __init__(self, entry: Entry, cause: VendorError) -> None:
        self.entry, self.cause = entry, cause
        super().__init__(cause.en, cause.zh)


class Sender:
    """Sends page requests of one vendor account; used by several threads at once.

    `sent` counts requests, retries included; `received` counts bytes.
    """

    def __init__(self, vendor: Vendor, quotas: Quotas, keeper: Keeper, clock: Clock) -> None:
        self._vendor, self._quotas, self._keeper, self._clock = vendor, quotas, keeper, clock
        self._lock = threading.Lock()
        self._given_up = 0
        self.sent = 0
        self.received = 0

    def pages(self, request: PageRequest) -> tuple[list[Page], list[Refused]]:
        """Return the pages that answer `request`, durable, and the entries that are refused.

        A request that is refused as a whole is asked again in halves, so that one bad
        symbol costs one line and not the batch.

        Raises
        ------
        VendorError
            The vendor is down, forbids everything, or the key is not accepted.
        Interrupted
            The clock was told to stop.
        """
        try:
            page = self._one(request)
        except (SymbolRefused, VendorRefused) as error:
            if len(request.entries) == 1:
                self._breaker(error)
                return [], [Refused(request.entries[0], error)]
            middle = len(request.entries) // 2
            pages: list[Page] = []
            refused: list[Refused] = []
            for part in (request.entries[:middle], request.entries[middle:]):
                more, bad = self.pages(self._vendor.request(part))
                pages += more
                refused += bad
            return pages, refused
        self._given_up = 0
        return [page], []

    def counted(self, call: Callable[[], Page]) -> Page:
        """Return the page that `call` fetches, under the quota; no retry."""
        slot = self._quotas.reserve(self._vendor.account, self._vendor.capability.quotas)
        with self._lock:
            self.sent += 1
        try:
            page = call()
        finally:
            self._quotas.settle(slot)
        with self._lock:
            self.received += len(page.body)
        return page

    def _one(self, request: PageRequest) -> Page:
        for attempt in range(1, _TRIES + 1):
            try:
                page = self.counted(lambda: self._vendor.send(request))
            except VendorError as error:
                if not error.retryable:
                    raise
                if attempt == _TRIES:
                    self._breaker(error)
                    raise
                self._pause(error, attempt)
            else:
                self._keeper.append([page])
                return page
        raise AssertionError("unreachable")

    def _pause(self, error: VendorError, attempt: int) -> None:
        seconds = _BACKOFF_S * 2 ** (attempt - 1)
        if isinstance(error, RateLimited):
            self._quotas.push_back(self._vendor.account, error.wait_s or seconds)
        else:
            self._clock.wait(seconds)

    def _breaker(self, error: VendorError) -> None:
        """Stop the run when nothing gets through any more."""
        with self._lock:
            self._given_up += 1
            broken = self._given_up >= _BREAKER
        if broken:
            raise VendorDown(
                self._vendor.name, f"{_BREAKER} requests in a row failed, the last one with: {error.en}",
                f"连续 {_BREAKER} 个请求失败，最后一次：{error.zh}",
            ) from error  # fmt: skip
