"""A sandbox with a configuration beside it, as tests need it."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from klake.jobs.desk import Desk, open_desk
from klake.sandbox.server import Sandbox


@dataclass
class Stand:
    """A sandbox with a configuration beside it."""

    sandbox: Sandbox
    folder: Path
    key: str = "default"
    extra: str = ""
    vendor: str = ""
    jobs: str = ""
    config: Path = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.folder / "klake.toml"
        self.write()

    def write(self) -> None:
        """Write klake.toml as the fields say."""
        key = self.sandbox.secrets["qos"][self.key]
        depth = "depth = 0\n" if self.key == "deep" else ""
        text = (
            f'[lake]\npath = "lake"\n[sandbox]\ncontrol = "{self.sandbox.control_url}"\n'
            f'[vendors.qos]\nkind = "qos"\nkey = "{key}"\nurl = "{self.sandbox.qos_url}"\n{depth}{self.vendor}\n{self.jobs}\n{self.extra}\n'
        )
        self.config.write_text(text, encoding="utf-8")

    def desk(self) -> Desk:
        """Open a desk on that configuration."""
        return open_desk(self.config)

    def control(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> Any:
        """Talk to the sandbox's control face."""
        with httpx.Client(trust_env=False, timeout=30) as client:
            reply = client.request(method, self.sandbox.control_url + path, json=body, params=query or None)
            reply.raise_for_status()
            return reply.json()

    def requests(self, *endpoints: str) -> list[dict[str, Any]]:
        """Return the sandbox's log of requests, of some endpoints or all."""
        rows = self.control("GET", "/requests")
        return [r for r in rows if not endpoints or r["endpoint"] in endpoints]

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock forward."""
        self.control("POST", "/clock", {"advance_s": seconds})


def signals_as_usual() -> None:
    """Let a child hear the signals that a terminal sends, whatever whoever runs the tests ignores (nohup, cron)."""
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
