"""Who holds a long connection to Longbridge: one-time passwords, sessions, and how many stand at once."""

import itertools
import threading

__all__ = ["Sessions"]


class Sessions:
    """Passwords that open a connection, and the sessions that were opened; by name of account."""

    def __init__(self) -> None:
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._passwords: dict[str, str] = {}
        self._sessions: dict[str, str] = {}
        self._online: dict[str, int] = {}

    def password(self, account: str) -> tuple[str, int]:
        """Return a password for one connection, and how many stand already."""
        with self._lock:
            otp = f"otp-{next(self._numbers)}"
            self._passwords[otp] = account
            return otp, self._online.get(account, 0)

    def opened(self, otp: str) -> tuple[str, str] | None:
        """Return (account, session) for a password, which is spent by it; None where it is none."""
        with self._lock:
            account = self._passwords.pop(otp, None)
            return None if account is None else self._begun(account)

    def resumed(self, session: str) -> tuple[str, str] | None:
        """Return (account, session) for the session of a connection that broke; None where it is none."""
        with self._lock:
            account = self._sessions.get(session)
            return None if account is None else self._begun(account)

    def closed(self, account: str) -> None:
        """Note that a connection is gone; its session can be resumed."""
        with self._lock:
            self._online[account] = max(0, self._online.get(account, 0) - 1)

    def online(self, account: str) -> int:
        """Return how many connections stand."""
        with self._lock:
            return self._online.get(account, 0)

    def _begun(self, account: str) -> tuple[str, str]:
        session = f"session-{next(self._numbers)}"
        self._sessions[session] = account
        self._online[account] = self._online.get(account, 0) + 1
        return account, session
