"""Checks: what `klake doctor` says of one thing that it looked at."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Check", "Level"]

Level = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: how it is, and what to do where it is not well (`do` empty: nothing)."""

    name: str
    level: Level
    told: str
    do: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        return asdict(self)
