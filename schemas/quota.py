"""Quotas: how many requests an account may send in a window, and who keeps count."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

__all__ = ["Quota", "Quotas", "Slot"]

Scope = Literal["account", "ip", "connection", "month-symbols"]


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `n` requests in any `window_s` seconds; for `month-symbols`, n distinct symbols a month."""

    n: int
    window_s: float
    scope: Scope = "account"


@dataclass(frozen=True, slots=True)
class Slot:
    """One reserved request: it may be sent from `at` on."""

    id: int
    account: str
    at: datetime


class Quotas(Protocol):
    """Keeps count for an account, shared by every process of the machine (or of the farm).

    A slot is taken before sending and becomes free one window after its reply.
    """

    def reserve(self, account: str, quotas: tuple[Quota, ...]) -> Slot:
        """Return a slot, after waiting (by the clock) until every window has room."""
        ...

    def settle(self, slot: Slot) -> None:
        """Say that the reply to `slot` came, or that it timed out: its windows start now."""
        ...

    def push_back(self, account: str, seconds: float) -> None:
        """Let nobody send for `account` before `seconds` have passed: the vendor said so."""
        ...

    def free_at(self, account: str, quotas: tuple[Quota, ...], requests: int) -> datetime:
        """Return when the last of `requests` further requests could be sent; takes no slot."""
        ...

    def symbols_left(self, account: str, quota: Quota) -> int:
        """Return how many further symbols this month's allowance holds."""
        ...

    def take_symbols(self, account: str, quota: Quota, symbols: Iterable[str]) -> tuple[str, ...]:
        """Return those of `symbols`, in their order, that may be asked for this month, and count them."""
        ...
