"""Reports: what a write did, what a run did."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["Parked", "ReplayReport", "RunReport", "WriteReport"]


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What one write did, counted in bars.

    `revised` counts closed or final bars whose values changed (the old ones moved to the
    past); `updated` counts open bars that were overwritten; `settled` counts bars that only
    went from closed to final; `same` changed nothing. `version` is the lake version after it.
    """

    new: int = 0
    same: int = 0
    updated: int = 0
    settled: int = 0
    revised: int = 0
    quarantined: int = 0
    bytes_written: int = 0
    commits: int = 0
    version: int = 0

    def __add__(self, other: "WriteReport") -> "WriteReport":
        """Return both together; the version is the later one."""
        mine, theirs = asdict(self), asdict(other)
        total = {name: mine[name] + theirs[name] for name in mine if name != "version"}
        return WriteReport(**total, version=max(self.version, other.version))


@dataclass(frozen=True, slots=True)
class Parked:
    """A series that was given up for now: its error, and when it is tried again."""

    symbol: str
    freq: str
    error: str
    retry_at: datetime | None


@dataclass(slots=True)
class RunReport:
    """What a run did. Bars and sessions are counts; times are seconds of the run's clock."""

    run: str
    job: str
    vendor: str
    sandbox: bool = False
    expected: int = 0  # sessions asked for, over all series
    stored: int = 0  # sessions that have bars now
    empty: dict[str, int] = field(default_factory=dict[str, int])  # reason → sessions
    missing: int = 0  # sessions that nobody accounts for
    written: WriteReport = field(default_factory=WriteReport)
    findings: int = 0
    parked: list[Parked] = field(default_factory=list[Parked])
    requests_planned: int = 0
    requests_sent: int = 0
    requests_fewest: int = 0
    canaries: int = 0  # requests of probes, canaries and samples, not in requests_sent
    replayed: int = 0  # pages taken from the raw zone instead of the vendor
    waited_s: float = 0.0
    bytes_received: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    error: str = ""  # why the run stopped early; empty: it did not
    stopped_with: int = 0  # the exit code of that error; 0: it did not

    @property
    def exit_code(self) -> int:
        """0: every expected session is accounted for; 1: some work failed; else what stopped the run."""
        return self.stopped_with or (1 if self.missing or self.parked or self.error else 0)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values, for `--json`."""
        plain = asdict(self)
        plain["parked"] = [
            {**p, "retry_at": p["retry_at"].isoformat() if p["retry_at"] else None} for p in plain["parked"]
        ]
        return {**plain, "exit_code": self.exit_code}


@dataclass(slots=True)
class ReplayReport:
    """What a replay did: pages of a raw zone read and stored without a request.

    `source` is the folder that they were taken from; empty: the lake's own raw zone.
    """

    source: str = ""
    sandbox: bool = False
    pages: int = 0
    unreadable: int = 0  # pages that came whole, and of which the parser can make nothing
    written: WriteReport = field(default_factory=WriteReport)
    proved: int = 0  # stretches of sessions that are accounted for now and were not before
    findings: int = 0
    rows: int = 0  # of other tables that came along: actions, instruments
    left: int = 0  # pages that a run of another process is storing
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list[str])  # one sentence for each record that cannot be read

    @property
    def exit_code(self) -> int:
        """0: every page was read; 1: some record was not."""
        return 1 if self.problems else 0

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values, for `--json`."""
        return {**asdict(self), "exit_code": self.exit_code}
