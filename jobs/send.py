"""Sending: a slot of the quota, one request, the page made durable and read; retries, halves, breaker."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from ..errors import (
    BadPage,
    Interrupted,
    KlakeError,
    MonthQuota,
    RateLimited,
    SymbolRefused,
    VendorDown,
    VendorError,
    VendorRefused,
)
from ..ingest.vendor import Vendor
from ..schemas.clock import Clock
from ..schemas.page import Entry, Page, PageRequest, SeriesPage
from ..schemas.quota import Quotas

__all__ = ["Answer", "Refused", "Sender", "Stop"]

_TRIES: Final = 5
_PART_TRIES: Final = 3  # of a part of a request that failed whole: its cause is half known
_BREAKER: Final = 3  # requests given up in a row: the vendor is down, save the quota
_BACKOFF_S: Final = 2.0

T = TypeVar("T")


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
    """One entry that the vendor does not give, however it is asked; the others go on."""

    def __init__(self, entry: Entry, cause: VendorError) -> None:
        self.entry, self.cause = entry, cause
        super().__init__(cause.en, cause.zh)


@dataclass(slots=True)
class Answer:
    """What came of one request, all of it durable.

    `pages`: each with what it says. `unread`: pages that nobody can read, with the reason.
    `refused`: entries given up. `trouble`: why the rest was not asked; None: all was.
    """

    pages: list[tuple[Page, list[SeriesPage]]] = field(default_factory=list[tuple[Page, list[SeriesPage]]])
    unread: list[tuple[Page, str]] = field(default_factory=list[tuple[Page, str]])
    refused: list[Refused] = field(default_factory=list[Refused])
    trouble: KlakeError | None = None


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

    def answer(self, request: PageRequest) -> Answer:
        """Return what `request` brought.

        A request that is refused, or answered by something that nobody can use, is asked
        again in halves, so that one bad symbol costs one line and not the batch. Where the
        vendor is down, forbids everything or does not accept the key, or the clock was told
        to stop, `trouble` says so, and what had come until then is there.
        """
        answer = Answer()
        try:
            paid = self._paid(request, answer)
            if paid is not None:
                self._ask(paid, answer, _TRIES)
        except (VendorError, Interrupted) as error:
            answer.trouble = error
        return answer

    def page(self, call: Callable[[], Page]) -> Page:
        """Return the page that `call` fetches, under the quota and retried like any request.

        Raises VendorError when the last try failed, or at once where another is of no use.
        """
        return self._retried(lambda: self._counted(call), _TRIES)

    def _paid(self, request: PageRequest, answer: Answer) -> PageRequest | None:
        """Return the request without the symbols that this month's allowance does not hold; None: without any."""
        quotas, vendor = self._vendor.capability.quotas, self._vendor
        month = next((q for q in quotas if q.scope == "month-symbols"), None)
        if month is None:
            return request
        held = self._quotas.take_symbols(vendor.account, month, (e.symbol for e in request.entries))
        spent = MonthQuota(
            vendor.name, f"the {month.n} symbols that this month allows are spent; those asked before go on",
            f"本月允许的 {month.n} 个标的已用完；已查询过的不受影响",
        )  # fmt: skip
        answer.refused += [Refused(e, spent) for e in request.entries if e.symbol not in held]
        entries = tuple(e for e in request.entries if e.symbol in held)
        if len(entries) == len(request.entries):
            return request
        return vendor.request(entries) if entries else None

    def _ask(self, request: PageRequest, answer: Answer, tries: int) -> None:
        try:
            answer.pages.append(self._retried(lambda: self._read(request, answer), tries))
        except (SymbolRefused, VendorRefused, MonthQuota, BadPage, VendorDown) as error:
            if isinstance(error, VendorDown) and not error.replied:
                raise
            if isinstance(error, SymbolRefused | MonthQuota):
                self._went_well()  # a plain answer: the vendor works
            self._divide(request, answer, error)
        else:
            self._went_well()

    def _divide(self, request: PageRequest, answer: Answer, error: VendorError) -> None:
        """Ask both halves of a request that failed; an entry that fails alone is given up."""
        entries = request.entries
        if len(entries) == 1:
            answer.refused.append(Refused(entries[0], error))
            if not isinstance(error, SymbolRefused | MonthQuota):
                self._gave_up(error)
            return
        middle = len(entries) // 2
        for part in (entries[:middle], entries[middle:]):
            self._ask(self._vendor.request(part), answer, _PART_TRIES)

    def _read(self, request: PageRequest, answer: Answer) -> tuple[Page, list[SeriesPage]]:
        page = self._counted(lambda: self._vendor.send(request))
        self._keeper.append([page])
        try:
            return page, self._vendor.parse(page)
        except BadPage as error:
            answer.unread.append((page, str(error)))
            raise

    def _counted(self, call: Callable[[], Page]) -> Page:
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

    def _retried(self, call: Callable[[], T], tries: int) -> T:
        attempt = 1
        while True:
            try:
                return call()
            except VendorError as error:
                # Being told to go slower says nothing against the request: it keeps all its tries.
                most = _TRIES if isinstance(error, RateLimited) else tries
                if not error.retryable or attempt >= most:
                    raise
                self._pause(error, attempt)
            attempt += 1

    def _pause(self, error: VendorError, attempt: int) -> None:
        seconds = _BACKOFF_S * 2 ** (attempt - 1)
        if isinstance(error, RateLimited):
            self._quotas.push_back(self._vendor.account, error.wait_s or seconds)
        else:
            self._clock.wait(seconds)

    def _went_well(self) -> None:
        with self._lock:
            self._given_up = 0

    def _gave_up(self, error: VendorError) -> None:
        """Trip the breaker when nothing gets through any more."""
        with self._lock:
            self._given_up += 1
            broken = self._given_up >= _BREAKER
        if broken:
            raise VendorDown(
                self._vendor.name, f"{_BREAKER} requests in a row failed, the last one with: {error.en}",
                f"连续 {_BREAKER} 个请求失败，最后一次：{error.zh}",
            ) from error  # fmt: skip
