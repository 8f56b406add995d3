"""What a key may do, and the sliding windows that hold it to it."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import BadRequest
from .noise import key

__all__ = ["EndMode", "Plan", "Windows", "secret"]

EndMode = Literal["inclusive", "exclusive", "ignored"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What was bought with a key.

    `products`: distinct codes per request. `quotas`: (n, seconds) pairs, all in force at
    once. `depth`: newest bars of each type, 0 for all. `end_mode`: what `e` does.
    `expires_s`: the UTC second from which the key is dead.
    """

    name: str
    key: str
    products: int = 10
    quotas: tuple[tuple[int, float], ...] = ((10, 60.0),)
    depth: int = 1000
    end_mode: EndMode = "inclusive"
    expires_s: float | None = None

    def __post_init__(self) -> None:
        if self.end_mode not in get_args(EndMode):
            raise BadRequest("end_mode", self.end_mode, get_args(EndMode))


class Windows:
    """Sliding windows by arrival; a refused request takes no room."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, deque[float]] = {}

    def admit(self, account: str, quotas: tuple[tuple[int, float], ...], now_s: float) -> bool:
        """Return whether a request that arrives at `now_s` fits into every window, and count it if so."""
        longest = max((window for _, window in quotas), default=0.0)
        with self._lock:
            seen = self._seen.setdefault(account, deque())
            while seen and seen[0] <= now_s - longest:
                seen.popleft()
            for n, window in quotas:
                if sum(1 for at in seen if at > now_s - window) >= n:
                    return False
            seen.append(now_s)
            return True

    def clear(self) -> None:
        """Forget every arrival."""
        with self._lock:
            self._seen = {}


def secret(seed: int, vendor: str, name: str) -> str:
    """Return the key called `name`; it begins with `sandbox-`, so that nobody takes it for a real one."""
    return f"sandbox-{vendor}-{name}-{key(seed, vendor, name):016x}"
