"""The desk: what every verb needs, opened once: settings, clock, lake, state, vendors, quotas."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ..errors import BadRequest, ConfigError
from ..ingest.clock import SandboxClock
from ..ingest.registry import open_vendor
from ..ingest.vendor import Vendor
from ..schemas.clock import Clock, SystemClock
from ..schemas.events import Events, Quiet
from ..schemas.freq import Freq
from ..schemas.settings import Job, Settings
from ..schemas.symbol import Symbol
from ..storage.coverage import Ledger
from ..storage.quotas import SharedQuotas, quotas_path
from ..storage.runs import Runs
from ..storage.state import State
from ..storage.store import Store
from .config import load, vendor_table

__all__ = ["Books", "Desk", "ad_hoc", "open_desk"]

Origin = Literal["real", "sandbox"]


@dataclass(frozen=True, slots=True)
class Books:
    """A lake and what is known about it: coverage, runs."""

    store: Store
    state: State
    ledger: Ledger
    runs: Runs


@dataclass(slots=True)
class Desk:
    """Settings, clock and event sink of one process; opens the rest when it is asked for.

    `out`: a folder that takes pages instead of the lake of the configuration; see `jobs.collect`.
    """

    settings: Settings
    clock: Clock
    events: Events = field(default_factory=Quiet)
    out: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection to a sandbox's clock."""
        if isinstance(self.clock, SandboxClock):
            self.clock.close()

    @property
    def sandbox(self) -> bool:
        """True when the configuration names a sandbox: its clock rules, and its lake is marked."""
        return self.settings.sandbox is not None

    @property
    def origin(self) -> Origin:
        """Return which kind of bars this configuration is for."""
        return "sandbox" if self.sandbox else "real"

    def store(self, *, create: bool = False) -> Store:
        """Return the lake's tables; LakeError where there is no lake and `create` is False."""
        if self.out:
            return Store.open(self.out, self.clock, origin=self.origin, create=create, holds="pages")
        return Store.open(self.settings.lake_path, self.clock, origin=self.origin, create=create)

    def books(self, *, create: bool = False) -> Books:
        """Return lake, coverage and runs.

        Coverage is an index over the table `requests`: where it is tagged with another lake or
        another version of that table (a restore, a lost file, a crash, another machine's
        commit), it is rebuilt before anything is planned on it.
        """
        store = self.store(create=create)
        state = State.open(store.state_path, store.id)
        ledger = Ledger(state)
        if not state.matches(store.id):
            state.reset(store.id)
        version = store.version_of("requests")  # read before the table: who commits meanwhile is then noticed
        if not state.matches(store.id, version):
            ledger.rebuild(store.table("requests"), tag=(store.id, version))
        return Books(store, state, ledger, Runs(state))

    def vendor(self, name: str, run: str = "") -> Vendor:
        """Return the vendor `[vendors.NAME]`, its secrets put in.

        Raises
        ------
        ConfigError
            A sandbox key without `[sandbox]`, or the other way round: their bars must not meet.
        """
        vendor = open_vendor(
            name, vendor_table(self.settings, name), self.clock, where=self.settings.where, run=run
        )
        if vendor.sandbox != self.sandbox:
            vendor.close()
            raise _mixed(self.settings.where, name, sandbox_key=vendor.sandbox)
        return vendor

    def quotas(
        self, clock: Clock | None = None, on_wait: Callable[[float, str], None] | None = None
    ) -> SharedQuotas:
        """Return the counters that all processes of this user share; they wait by `clock`."""
        return SharedQuotas(quotas_path(), clock or self.clock, on_wait)

    def job(self, name: str) -> Job:
        """Return `[jobs.NAME]`; with an empty name the only one there is."""
        jobs = self.settings.jobs
        if not name and len(jobs) == 1:
            return next(iter(jobs.values()))
        if name not in jobs:
            raise BadRequest("job", name, tuple(jobs), hint=f"see [jobs.…] in {self.settings.where}")
        return jobs[name]

    def symbols(self, job: Job) -> list[Symbol]:
        """Return the symbols of a job's universe: canonical, each once, ascending, without the excluded."""
        texts, out = list(job.symbols), set[str]()
        if job.universe:
            universe = self.settings.universe[job.universe]
            texts += universe.symbols
            if universe.file is not None:
                texts += _listed(self.settings.base / universe.file, self.settings.where, job.universe)
            out = {str(Symbol.parse(text)) for text in universe.exclude}
        found = {symbol for text in texts if str(symbol := Symbol.parse(text)) not in out}
        return sorted(found)


def open_desk(config: str | Path | None = None, events: Events | None = None) -> Desk:
    """Return the desk for a configuration file (None: the nearest `klake.toml` upwards)."""
    settings = load(config)
    clock: Clock = SystemClock()
    if settings.sandbox is not None:
        clock = SandboxClock(settings.sandbox.control)
    return Desk(settings, clock, events or Quiet())


def ad_hoc(
    desk: Desk, *, vendor: str, symbols: Sequence[str] = (), universe: str = "", freq: Sequence[str],
    start: date, end: date | None = None,
) -> Job:  # fmt: skip
    """Return a job that stands in no file: `--vendor qos --symbols a,b --freq 1d --start …`.

    `start` and `end` are inclusive dates.
    """
    if vendor not in desk.settings.vendors:
        raise BadRequest(
            "vendor", vendor, tuple(desk.settings.vendors), hint=f"add it to {desk.settings.where}"
        )
    if universe and universe not in desk.settings.universe:
        raise BadRequest("universe", universe, tuple(desk.settings.universe))
    if not universe and not symbols:
        raise BadRequest("symbols", "", hint="name symbols, or a universe")
    if end is not None and end < start:
        raise BadRequest("end", str(end), hint=f"lies before start={start}", hint_zh=f"早于 start={start}")
    freqs = tuple(Freq.parse(text) for text in freq)
    return Job(vendor=vendor, universe=universe, symbols=tuple(symbols), freq=freqs, start=start, end=end)


def _mixed(where: str, name: str, *, sandbox_key: bool) -> ConfigError:
    """Return the error for a key that does not fit the configuration's origin; never shows the key."""
    if sandbox_key:
        return ConfigError(
            where, f"vendors.{name}.key", "***", "this is a sandbox key, but the configuration names no [sandbox]: "
            "give it a real key, or another lake with [sandbox] control; sandbox and real bars never meet",
            "这是沙盒密钥，但配置里没有 [sandbox]：请填真实密钥，或为沙盒另设数据湖；沙盒数据与真实数据绝不混放",
        )  # fmt: skip
    return ConfigError(
        where, f"vendors.{name}.key", "***", "this is a real key, but the configuration names a [sandbox]: "
        "take [sandbox] out and give [lake] another path; sandbox and real bars never meet",
        "这是真实密钥，但配置里有 [sandbox]：请删除 [sandbox] 并为 [lake] 换一个 path；沙盒数据与真实数据绝不混放",
    )  # fmt: skip


def _listed(file: Path, where: str, universe: str) -> list[str]:
    """Return the symbols of a file: one per line, or the column `symbol` of a CSV; `#` begins a remark."""
    key = f"universe.{universe}.file"
    try:
        text = _decoded(file.read_bytes())
    except OSError as error:
        raise ConfigError(where, key, str(file), f"cannot be read: {error.strerror}") from None
    lines = [line for row in text.splitlines() if (line := row.partition("#")[0].strip())]
    header = [cell.strip().lower() for cell in lines[0].split(",")] if lines else []
    if "symbol" not in header:
        return lines
    rows = [row for row in csv.reader(lines[1:]) if row]
    for row in rows:
        if len(row) < len(header):
            raise ConfigError(
                where, key, ",".join(row), f"this row of {file} has fewer columns than its header"
            )
    return [row[header.index("symbol")].strip() for row in rows]


def _decoded(body: bytes) -> str:
    """Return the text of a list as UTF-8, with or without BOM, else as the GB 18030 of Chinese Windows."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return body.decode("gb18030", errors="replace")
