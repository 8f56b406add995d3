"""Runs: when each job ran, what it reported, and which ones never came back."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Row, Select, delete, insert, select, update

from ..schemas.clock import Clock
from ..schemas.report import RunReport
from .state import RUNS, State, from_us, to_us

__all__ = ["Run", "Runs", "run_id"]


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a job; `ended_at` and `report` are None while it runs, and if it was cut off."""

    run: str
    job: str
    vendor: str
    started_at: datetime
    ended_at: datetime | None
    report: RunReport | None


def run_id(clock: Clock, entropy: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new run's id, such as `20261120T083000-ab12cd`: sorts by start, unique among machines."""
    return f"{clock.now().astimezone(UTC):%Y%m%dT%H%M%S}-{entropy(3).hex()}"


class Runs:
    """The runs of one lake, in its state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def start(self, run: str, job: str, vendor: str, started_at: datetime) -> None:
        """Note that a run has begun; saying so again begins it anew."""
        row = {"run": run, "job": job, "vendor": vendor, "started_us": to_us(started_at)}
        with self._state.writing() as connection:
            connection.execute(delete(RUNS).where(RUNS.c.run == run))
            connection.execute(insert(RUNS).values(row))

    def finish(self, report: RunReport, ended_at: datetime) -> None:
        """Keep the report of a run; one whose beginning the state has lost counts as begun now."""
        done = {"ended_us": to_us(ended_at), "report": msgspec.json.encode(report).decode()}
        with self._state.writing() as connection:
            known = connection.execute(update(RUNS).where(RUNS.c.run == report.run).values(done)).rowcount
            if not known:
                row = {"run": report.run, "job": report.job, "vendor": report.vendor}
                connection.execute(insert(RUNS).values({**row, "started_us": to_us(ended_at), **done}))

    def last(self, job: str | None = None, n: int = 10) -> list[Run]:
        """Return the newest `n` runs (of one job), newest first."""
        query = select(RUNS).order_by(RUNS.c.started_us.desc(), RUNS.c.run.desc()).limit(n)
        return self._all(query if job is None else query.where(RUNS.c.job == job))

    def interrupted(self) -> list[Run]:
        """Return the runs that began and never finished, oldest first; one that still runs is among them."""
        return self._all(
            select(RUNS).where(RUNS.c.ended_us.is_(None)).order_by(RUNS.c.started_us, RUNS.c.run)
        )

    def _all(self, query: Select[Any]) -> list[Run]:
        with self._state.reading() as connection:
            return [_run(row) for row in connection.execute(query)]


def _run(row: Row[Any]) -> Run:
    return Run(
        run=row.run,
        job=row.job,
        vendor=row.vendor,
        started_at=from_us(row.started_us),
        ended_at=None if row.ended_us is None else from_us(row.ended_us),
        report=None if row.report is None else msgspec.json.decode(row.report, type=RunReport),
    )
