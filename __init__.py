"""klake: historical K-lines (OHLCV bars), kept in a lake of your own.

`open` a lake, read `bars` or ask `sql`, `write` your own; `plan` and `sync` fill it from
the vendors in `klake.toml`.
"""

from typing import TYPE_CHECKING

__all__ = [
    "Bars", "Freq", "KlakeError", "Lake", "Plan", "RunReport", "ShortAnswer", "Symbol", "WriteReport",
    "open", "plan", "sync",
]  # fmt: skip

if TYPE_CHECKING:
    from .errors import KlakeError
    from .jobs.face import plan, sync
    from .jobs.plan import Plan
    from .research.bars import Bars
    from .research.lake import Lake, ShortAnswer
    from .research.lake import open_lake as open
    from .schemas.freq import Freq
    from .schemas.report import RunReport, WriteReport
    from .schemas.symbol import Symbol
else:
    from importlib import import_module

    _ROOM_OF = {
        "Bars": "research.bars", "Freq": "schemas.freq", "KlakeError": "errors", "Lake": "research.lake",
        "Plan": "jobs.plan", "RunReport": "schemas.report", "ShortAnswer": "research.lake",
        "Symbol": "schemas.symbol", "WriteReport": "schemas.report", "open": "research.lake",
        "plan": "jobs.face", "sync": "jobs.face",
    }  # fmt: skip
    _NAME_THERE = {"open": "open_lake"}

    def __getattr__(name):
        """Open a room only when one of its names is asked for."""
        if name not in _ROOM_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_ROOM_OF[name]}", __name__), _NAME_THERE.get(name, name))

    def __dir__():
        """List the public names."""
        return sorted(__all__)
