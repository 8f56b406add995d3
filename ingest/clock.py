"""The sandbox's clock, for processes whose config names a sandbox."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

import httpx
import msgspec

from ..errors import VendorDown
from ..schemas.clock import Clock, SystemClock

__all__ = ["SandboxClock"]

_FRESH_S: Final = 0.02  # how long a reading counts, in real seconds
_SLICE_S: Final = 0.25  # longest real sleep between two readings: the rate may change meanwhile


class _Reading(msgspec.Struct):
    now: datetime
    rate: float


class SandboxClock:
    """A Clock that reads and, where the sandbox stands still, moves the time of a sandbox.

    Parameters
    ----------
    control : str
        URL of the sandbox's control face.
    real : Clock
        Does the real sleeping while the sandbox's time runs.
    elapsed : callable
        Real seconds since some moment.
    """

    def __init__(
        self, control: str, real: Clock | None = None, client: httpx.Client | None = None,
        elapsed: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        self._url = f"{control.rstrip('/')}/clock"
        self._real: Clock = real or SystemClock()
        self._client = client or httpx.Client(timeout=10.0, trust_env=False)
        self._elapsed = elapsed
        self._read: tuple[float, _Reading] | None = None

    def now(self) -> datetime:
        """Return the sandbox's present instant, aware, in UTC.

        A reading counts for 20 ms and goes on at the sandbox's rate meanwhile: an instant
        that is too early would free a quota's slot too early.
        """
        reading = self._reading()
        since = self._elapsed() - self._read[0] if self._read else 0.0
        return reading.now + timedelta(seconds=reading.rate * since)

    def wait(self, seconds: float) -> None:
        """Return once the sandbox's time has moved by `seconds`; moves it where it stands still."""
        if seconds <= 0:
            return
        self._read = None
        target = self.now() + timedelta(seconds=seconds)
        while (reading := self._reading()).now < target:
            if reading.rate <= 0:
                self._ask("POST", {"reach": target.isoformat()})
            else:
                left_s = (target - reading.now).total_seconds() / reading.rate
                self._real.wait(min(_SLICE_S, max(left_s, 0.001)))
            self._read = None

    def close(self) -> None:
        """Give up the connection; the clock cannot be asked after."""
        self._client.close()

    def _reading(self) -> _Reading:
        moment = self._elapsed()
        if self._read is None or moment - self._read[0] > _FRESH_S:
            self._read = (moment, self._ask("GET", None))
        return self._read[1]

    def _ask(self, method: str, body: dict[str, str] | None) -> _Reading:
        try:
            response = self._client.request(method, self._url, json=body)
            response.raise_for_status()
            reading = msgspec.json.decode(response.content, type=_Reading)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise VendorDown(
                "sandbox", f"its clock at {self._url} does not answer ({error}): is `klake sandbox run` still up?",
                f"时钟 {self._url} 无应答（{error}）：`klake sandbox run` 是否仍在运行？",
            ) from error  # fmt: skip
        now = reading.now if reading.now.tzinfo else reading.now.replace(tzinfo=UTC)
        return _Reading(now.astimezone(UTC), reading.rate)
