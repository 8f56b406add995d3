"""The sandbox as a whole: one market, one clock, a door for control and one for each vendor."""

import json
import signal
import sys
import threading
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import Any, Final, Self

from ..errors import BadRequest
from .clock import SandboxClock
from .control import Control
from .faults import Faults
from .http import Door, Face
from .journal import Journal
from .market import Market
from .multimarkets import PATH, MultiMarkets
from .multimarkets_products import ProductApi
from .qos import Qos
from .websocket import WebSocketDoor

__all__ = ["START", "VENDORS", "Sandbox", "serve"]

START: Final = datetime(2026, 11, 20, 8, tzinfo=UTC)
VENDORS: Final = ("qos", "multimarkets")


class Sandbox:
    """A running sandbox on 127.0.0.1; a context manager, or `close()` it.

    `market`, `clock`, `journal`, `faults` and `qos` are there for tests in the same process.

    Parameters
    ----------
    seed, instruments : int
        The market; the same pair gives the same bars.
    clock_start : datetime
        The sandbox's first instant, aware.
    rate : float
        Sandbox seconds per second of the wall; 0: time stands still until it is moved.
    vendors : tuple of str
        Which stand-ins to open.
    port : int
        Of the control face; the vendors take the next ones. 0: any free ports.
    """

    def __init__(
        self, seed: int = 1, instruments: int = 40, clock_start: datetime = START, rate: float = 0.0,
        vendors: tuple[str, ...] = VENDORS, port: int = 0,
    ) -> None:  # fmt: skip
        for name in vendors:
            if name not in VENDORS:
                raise BadRequest("vendors", name, VENDORS)
        self.market, self.clock = Market(seed, instruments), SandboxClock(clock_start, rate)
        self.journal, self.faults = Journal(), Faults(seed)
        self.qos = Qos(self.market, self.clock, self.journal, self.faults)
        self.multimarkets = MultiMarkets(self.market, self.clock, self.journal, self.faults)
        control = Control(self.market, self.clock, self.journal, self.faults, self.qos)
        control.faces["multimarkets"] = self.multimarkets
        self._doors: list[Door | WebSocketDoor] = [Door(control, port)]
        self.control_url = self._doors[0].url
        self.secrets: dict[str, dict[str, str]] = {}
        self.urls: dict[str, str] = {}
        if "qos" in vendors:
            self._open_next(self.qos, port)
            self.urls["qos"] = self._doors[-1].url
            self.secrets["qos"] = {plan.name: plan.key for plan in self.qos.plans.values()}
        if "multimarkets" in vendors:
            self._open_multimarkets(port)
        control.about = self.about

    def _open_next(self, face: Face | MultiMarkets, port: int) -> None:
        """Open a vendor's door; where its port is taken, leave none open."""
        at = port and port + len(self._doors)
        try:
            if isinstance(face, MultiMarkets):
                self._doors.append(WebSocketDoor(face.talk, face.admit, PATH, at))
            else:
                self._doors.append(Door(face, at))
        except OSError:
            self.close()
            raise

    def _open_multimarkets(self, port: int) -> None:
        for name, face in (
            ("multimarkets", self.multimarkets),
            ("multimarkets_products", ProductApi(self.multimarkets)),
        ):
            self._open_next(face, port)
            self.urls[name] = self._doors[-1].url
        self.secrets["multimarkets"] = self.multimarkets.tokens

    @property
    def qos_url(self) -> str:
        """Return the base URL of the QOS stand-in, without a trailing slash."""
        return self.urls["qos"]

    @property
    def about(self) -> dict[str, Any]:
        """Return every URL and the secrets, as `serve` prints them."""
        return {"control": self.control_url, **self.urls, "secrets": self.secrets, "seed": self.market.seed,
                "instruments": len(self.market.instruments)}  # fmt: skip

    def close(self) -> None:
        """Stop every door."""
        for door in self._doors:
            door.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    seed: int = 1, instruments: int = 40, clock_start: datetime = START, rate: float = 0.0,
    vendors: tuple[str, ...] = VENDORS, port: int = 0,
) -> None:  # fmt: skip
    """Run a sandbox until Ctrl-C or SIGTERM, after printing one JSON line: URLs, secrets and seed."""
    ended = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, stop)
    with Sandbox(seed, instruments, clock_start, rate, vendors, port) as sandbox:
        sys.stdout.write(json.dumps(sandbox.about) + "\n")
        sys.stdout.flush()
        try:
            while not ended.wait(0.5):  # in slices: Windows delivers Ctrl-C only between waits
                pass
        except KeyboardInterrupt:
            return
