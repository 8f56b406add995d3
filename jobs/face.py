"""`klake.plan` and `klake.sync`: the main job from Python, by the name it has in `klake.toml`."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ..schemas.events import Events
from ..schemas.report import RunReport
from ..schemas.settings import Job
from . import sync as verbs
from .desk import Desk, ad_hoc, open_desk
from .plan import Plan

__all__ = ["plan", "sync"]


def plan(
    job: str = "", *, config: str | Path | None = None, vendor: str = "", symbols: str | Sequence[str] = (),
    universe: str = "", freq: str | Sequence[str] = (), start: date | None = None, end: date | None = None,
) -> Plan:  # fmt: skip
    """Return what `sync` would send, without sending anything; arguments as in `sync`."""
    with open_desk(config) as desk:
        return verbs.plan(desk, job or "ad hoc", _job(desk, job, vendor, symbols, universe, freq, start, end))


def sync(
    job: str = "", *, config: str | Path | None = None, vendor: str = "", symbols: str | Sequence[str] = (),
    universe: str = "", freq: str | Sequence[str] = (), start: date | None = None, end: date | None = None,
    events: Events | None = None,
) -> RunReport:  # fmt: skip
    """Run a job once and return its report. Blocks; also inside a notebook's event loop.

    Parameters
    ----------
    job : str
        A `[jobs.NAME]`; empty: the only one there is, or an ad hoc job when `vendor` is given.
    config : str, Path or None
        None: the nearest `klake.toml` upwards.
    vendor, symbols, universe, freq, start, end
        An ad hoc job; `start` and `end` are inclusive dates.
    events : Events or None
        Where progress goes; None: nowhere.

    Raises
    ------
    KlakeError
        Configuration, credentials or the lake do not allow a run at all; what single symbols
        did is in the report.
    """
    with open_desk(config, events) as desk:
        return verbs.sync(desk, job or "ad hoc", _job(desk, job, vendor, symbols, universe, freq, start, end))


def _job(
    desk: Desk, name: str, vendor: str, symbols: str | Sequence[str], universe: str, freq: str | Sequence[str],
    start: date | None, end: date | None,
) -> Job:  # fmt: skip
    if not vendor:
        return desk.job(name)
    freqs = [freq] if isinstance(freq, str) else list(freq)
    symbols = [symbols] if isinstance(symbols, str) else symbols
    first = start if start is not None else date(1990, 1, 1)
    return ad_hoc(
        desk, vendor=vendor, symbols=symbols, universe=universe, freq=freqs or ["1d"], start=first, end=end
    )
