"""The seam where vendors plug in: one Protocol, and the records that cross it besides pages."""

import hashlib
import itertools
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, Final, Literal, Protocol

from ..schemas.capability import Capability
from ..schemas.page import Entry, Page, PageRequest, SeriesPage
from ..schemas.settings import VendorOptions
from ..schemas.symbol import Class, Symbol

__all__ = ["Answer", "Instrument", "MarketDay", "PageIds", "Snapshot", "Vendor", "account_of", "is_sandbox"]

_ROUNDS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Instrument:
    """What a vendor says of one instrument; empty text and None where it does not say."""

    symbol: Symbol
    spelling: str
    klass: Class
    name_en: str = ""
    name_zh: str = ""
    exchange: str = ""
    currency: str = ""
    lot: int | None = None


@dataclass(frozen=True, slots=True)
class MarketDay:
    """One trading day as the vendor's own calendar has it: a check of ours, never its source."""

    venue: str
    session: date
    half: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Today's totals of one symbol: prices and turnover in quote currency, volume in the vendor's unit."""

    symbol: Symbol
    last: float
    high: float
    low: float
    volume: float
    turnover: float
    at: datetime
    suspended: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe found out: `question` as numbered in the vendor's file, and the evidence for it.

    `value` is what may override the Capability's `field` (empty: nothing there to override).
    """

    question: str
    text: str
    evidence: str
    basis: Literal["observed", "assumed"]
    field: str = ""
    value: str = ""


class Vendor(Protocol):
    """One account of one vendor kind: declares what it can do, turns page requests into pages.

    Made as `kind_class(name, options, clock, run, client)`. Synchronous; a vendor whose SDK
    is not hides that inside its file. Nothing here retries or waits for a quota.
    """

    kind: ClassVar[str]
    options: ClassVar[type[VendorOptions]]
    name: str
    capability: Capability
    account: str
    sandbox: bool

    def spell(self, symbol: Symbol) -> str | None:
        """Return the vendor's spelling, or None when it cannot have this symbol."""
        ...

    def symbol(self, spelling: str) -> Symbol | None:
        """Return the symbol that a vendor's spelling means, padded or not; None when unmapped."""
        ...

    def request(self, entries: tuple[Entry, ...]) -> PageRequest:
        """Return the one request that asks for `entries`; BadRequest when it cannot be one."""
        ...

    def send(self, request: PageRequest) -> Page:
        """Return the reply to one network request; a VendorError says how it failed."""
        ...

    def parse(self, page: Page) -> list[SeriesPage]:
        """Return what a page says, one SeriesPage per entry asked, in that order.

        Pure and deterministic: also used by replay. One bad bar never loses the page;
        BadPage when nothing of it can be read.
        """
        ...

    def instruments(self, symbols: Sequence[Symbol]) -> list[Instrument]:
        """Return what the vendor knows of `symbols`, those it omits left out; one request."""
        ...

    def find(self, text: str) -> list[Instrument]:
        """Return instruments whose code or name holds `text`, any case; at most one request."""
        ...

    def product_list(self) -> list[Instrument]:
        """Return the instruments that the vendor lists: perhaps only a part; one request."""
        ...

    def market_calendar(self) -> list[MarketDay]:
        """Return the trading days that the vendor announces, ascending per venue; one request."""
        ...

    def snapshot(self, symbols: Sequence[Symbol]) -> Page | None:
        """Return the page that holds today's totals of `symbols`; None: the kind has none. One request."""
        ...

    def snapshots(self, page: Page) -> list[Snapshot]:
        """Return what a snapshot page says, those left out or unreadable omitted."""
        ...

    def probe(self, symbols: Sequence[Symbol] = ()) -> Iterator[tuple[Answer, ...]]:
        """Yield answers to the kind's open questions, one request per step, five at most.

        The caller takes a quota slot before each step.
        """
        ...

    def close(self) -> None:
        """Give up connections; the vendor cannot be used after."""
        ...


class PageIds:
    """Page ids: unique over processes, ascending by time inside one.

    Examples
    --------
    >>> from datetime import UTC
    >>> PageIds("ab12cd34").next(datetime(2026, 11, 20, 8, tzinfo=UTC))
    '20261120T080000.000000Z-ab12cd34-000001'
    """

    def __init__(self, token: str = "") -> None:
        self._token = token or secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def next(self, now: datetime) -> str:
        """Return the id of a page received at `now` (UTC)."""
        return f"{now:%Y%m%dT%H%M%S.%fZ}-{self._token}-{next(self._numbers):06d}"


def account_of(kind: str, credential: str) -> str:
    """Return the short name of an account: the same everywhere, and never reversible."""
    return hashlib.pbkdf2_hmac("sha256", credential.encode(), f"klake:{kind}".encode(), _ROUNDS, 6).hex()


def is_sandbox(credential: str) -> bool:
    """Return whether a credential was made by `klake sandbox`."""
    return credential.startswith("sandbox-")
