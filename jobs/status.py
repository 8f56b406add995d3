"""Status: how the lake stands against what the jobs want; sends nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ..errors import BadRequest, KlakeError, VendorDown
from ..ingest.registry import open_vendor
from ..ingest.vendor import Vendor
from ..schemas.coverage import Covered, Series, Standing
from ..schemas.freq import Freq
from ..schemas.session import calendar
from ..schemas.span import Span
from ..schemas.symbol import Symbol
from ..storage.layout import Partition
from ..storage.runs import Run
from ..storage.store import Store
from .account import balance
from .desk import Books, Desk
from .plan import wanted

__all__ = [
    "Freshness",
    "LastRun",
    "Shelf",
    "StatusReport",
    "Stuck",
    "Unverified",
    "declared",
    "status",
    "unverified",
]

Wants = dict[Series, Span[date]]
_EPOCH: Final = date(1970, 1, 1)
_DAY_US: Final = 86_400_000_000
_NOT_BEHAVIOUR: Final = ("platform", "evidence", "venues", "classes", "volume_factor")


@dataclass(frozen=True, slots=True)
class Freshness:
    """How many series have all sessions that have ended, and how far the worst of the others is."""

    current: int
    behind: int
    worst_sessions: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """One vendor and freq: sessions over all its symbols, expected = stored + empty + missing."""

    vendor: str
    freq: str
    symbols: int
    bars: int
    expected: int
    stored: int
    open: int
    empty: Mapping[str, int]
    missing: int
    first: date | None
    newest: date | None
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class Stuck:
    """A series that is set aside: why, and when it is tried again."""

    vendor: str
    symbol: str
    freq: str
    error: str
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run of a job; `exit_code` None: it runs still, or was cut off."""

    job: str
    vendor: str
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    requests: int
    new: int
    error: str


@dataclass(frozen=True, slots=True)
class Unverified:
    """Fields of a vendor's Capability that nobody has documented or observed: the lake relies on them."""

    vendor: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StatusReport:
    """How a lake stands at `now`; `clock` says where that instant came from."""

    lake: str
    version: int
    sandbox: bool
    now: datetime
    clock: str
    size_bytes: int
    shelves: tuple[Shelf, ...] = ()
    runs: tuple[LastRun, ...] = ()
    stuck: tuple[Stuck, ...] = ()
    unverified: tuple[Unverified, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def missing(self) -> int:
        """Return the sessions that nobody accounts for."""
        return sum(shelf.missing for shelf in self.shelves)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values, for `--json`."""
        plain: dict[str, Any] = _plain(asdict(self))
        return {**plain, "missing": self.missing}


def status(desk: Desk) -> StatusReport:
    """Return how the lake of the configuration stands; reads only what is on disk, and the clock.

    Raises
    ------
    LakeError
        There is no lake, or it cannot be read.
    """
    books = desk.books()
    now, where = _now(desk, books)
    notes: list[str] = []
    vendors = {name: declared(desk, name) for name in desk.settings.vendors}
    covered = books.ledger.covered(_known(books))
    wants = _wants(desk, vendors, covered, now, notes)
    for name, vendor in vendors.items():
        until = getattr(vendor, "expires_at", None)
        if until is not None:
            notes.append(f"{name}: its access {'ends' if until > now else 'ended'} {until:%Y-%m-%d %H:%MZ}")
    shelves = [
        _shelf(vendor, freq, books.store, covered, wants, now) for vendor, freq in _kinds(books.store, wants)
    ]
    found = StatusReport(
        lake=books.store.path, version=books.store.version, sandbox=books.store.origin == "sandbox", now=now,
        clock=where, size_bytes=_size(Path(books.store.path)), shelves=tuple(shelves),
        runs=tuple(_last_runs(books)), stuck=tuple(_stuck(books)),
        unverified=tuple(
            Unverified(name, told) for name, vendor in vendors.items()
            if vendor and (told := (*unverified(vendor), *_unchecked(vendor, wants, books)))
        ),
        notes=tuple(notes),
    )  # fmt: skip
    for vendor in vendors.values():
        if vendor is not None:
            vendor.close()
    return found


def declared(desk: Desk, name: str) -> Vendor | None:
    """Return a vendor for what it declares, without its secrets; None where the table does not allow even that.

    It must not be asked to send: the names of secrets stand where secrets belong.
    """
    try:
        return open_vendor(name, desk.settings.vendors[name], desk.clock, where=desk.settings.where)
    except KlakeError:
        return None


def unverified(vendor: Vendor) -> tuple[str, ...]:
    """Return the fields of a vendor's Capability that are only assumed, ascending.

    The volume unit is not among them: canaries check it group by group.
    """
    names = [name for name in type(vendor.capability).__dataclass_fields__ if name not in _NOT_BEHAVIOUR]
    return tuple(sorted(name for name in names if vendor.capability.known(name).basis == "assumed"))


def _unchecked(vendor: Vendor, wants: Wants, books: Books) -> tuple[str, ...]:
    """Return the groups of symbols whose volume unit no canary could confirm yet."""
    symbols = {Symbol.parse(series.symbol) for series in wants if series.vendor == vendor.name}
    names = sorted({f"volume {s.venue}.{s.klass.value}" for s in symbols})
    return tuple(name for name in names if books.ledger.fact(vendor.name, name) is None)


def _known(books: Books) -> list[Series]:
    """Return every series of which the ledger knows anything."""
    table = books.ledger.table().select(["vendor", "symbol", "freq"])
    rows = table.group_by(["vendor", "symbol", "freq"]).aggregate([]).to_pylist()
    return sorted(Series(row["vendor"], row["symbol"], Freq(row["freq"])) for row in rows)


def _now(desk: Desk, books: Books) -> tuple[datetime, str]:
    """Return the instant to judge by: the clock's, or the last run's where a sandbox is not up any more."""
    try:
        return desk.clock.now(), "sandbox" if desk.sandbox else "machine"
    except VendorDown:
        ends = [run.ended_at or run.started_at for run in books.runs.last(n=1)]
        if not ends:
            raise
        return ends[0], "last run (the sandbox does not answer)"


def _wants(
    desk: Desk, vendors: Mapping[str, Vendor | None], covered: Mapping[Series, Sequence[Covered]], now: datetime,
    notes: list[str],
) -> Wants:  # fmt: skip
    """Return what the jobs want of each series, and of series outside all jobs what is covered."""
    out: Wants = {}
    for name, job in desk.settings.jobs.items():
        vendor = vendors.get(job.vendor)
        try:
            symbols = desk.symbols(job)
        except BadRequest as error:
            notes.append(f"job {name}: {error}")
            continue
        for symbol in symbols:
            if vendor is not None and vendor.spell(symbol) is None:
                notes.append(f"job {name}: {job.vendor} cannot spell {symbol}")
                continue
            for freq in job.freq:
                if vendor is None or freq in vendor.capability.freqs:
                    span = wanted(calendar(symbol.place.calendar), freq, job.start, job.end, now)
                    series = Series(job.vendor, str(symbol), freq)
                    held = out.get(series, span)
                    out[series] = Span(min(held.start, span.start), max(held.end, span.end))
    for series, stretches in covered.items():
        if series not in out:
            spans = [stretch.sessions for stretch in stretches]
            out[series] = Span(min(s.start for s in spans), max(s.end for s in spans))
    return out


def _kinds(store: Store, wants: Wants) -> list[tuple[str, Freq]]:
    """Return every (vendor, freq) that is wanted or held."""
    held = {(vendor, Freq(freq)) for vendor, freq in store.snapshot().series()}
    order = {freq: place for place, freq in enumerate(Freq)}
    return sorted(held | {(s.vendor, s.freq) for s in wants}, key=lambda k: (k[0], -order[k[1]]))


def _shelf(
    vendor: str,
    freq: Freq,
    store: Store,
    covered: Mapping[Series, Sequence[Covered]],
    wants: Wants,
    now: datetime,
) -> Shelf:
    mine = {s: span for s, span in wants.items() if s.vendor == vendor and s.freq is freq}
    total = balance(mine.items(), covered)
    manifest = store.snapshot()
    files = [
        f for f in manifest.files
        if f.table == "bars" and (p := Partition.parse(f.path)).vendor == vendor and p.freq is freq and p.era == "current"
    ]  # fmt: skip
    held = manifest.series().get((vendor, freq.value), frozenset[str]())
    spans = [c.sessions for s in mine for c in covered.get(s, ()) if c.standing is not Standing.EMPTY]
    ends = [_newest(s, covered.get(s, ())) for s in mine]
    return Shelf(
        vendor=vendor, freq=freq.value, symbols=len({s.symbol for s in mine} | held), bars=sum(f.rows for f in files),
        expected=total.expected, stored=total.stored, open=total.open, empty=dict(total.empty), missing=total.missing,
        first=min((s.start for s in spans), default=_day(freq, [f.low for f in files], min)),
        newest=max((d for d in ends if d), default=_day(freq, [f.high for f in files], max)),
        freshness=_freshness(mine, covered, now),
    )  # fmt: skip


def _day(freq: Freq, keys: Sequence[int | str], pick: Callable[[list[int]], int]) -> date | None:
    """Return the day of the outermost key that files hold: microseconds below one day, days from one day up."""
    known = [key for key in keys if isinstance(key, int)]
    if not known:
        return None
    days = pick(known) // _DAY_US if freq.intraday else pick(known)
    return _EPOCH + timedelta(days=days)


def _newest(series: Series, stretches: Iterable[Covered]) -> date | None:
    """Return the newest session of which bars are held."""
    ends = [c.sessions.end for c in stretches if c.standing is not Standing.EMPTY]
    if not ends:
        return None
    last = calendar(Symbol.parse(series.symbol).place.calendar).previous(max(ends))
    return series.freq.anchor(last)


def _freshness(mine: Wants, covered: Mapping[Series, Sequence[Covered]], now: datetime) -> Freshness:
    """Judge each series by the last session that has ended; one that is accounted for is current."""
    late: list[int] = []
    for series, span in mine.items():
        days = calendar(Symbol.parse(series.symbol).place.calendar)
        ended = series.freq.anchor(days.last_ended(now))
        known = max((c.sessions.end for c in covered.get(series, ())), default=span.start)
        sessions = days.sessions(known, min(span.end, series.freq.following(ended)))
        late.append(len({series.freq.anchor(day) for day in sessions}))
    behind = [n for n in late if n]
    return Freshness(len(late) - len(behind), len(behind), max(behind, default=0))


def _last_runs(books: Books) -> Iterable[LastRun]:
    """Yield the newest run of each job, newest first."""
    seen = set[str]()
    for run in books.runs.last(n=200):
        if run.job not in seen:
            seen.add(run.job)
            yield _last_run(run)


def _last_run(run: Run) -> LastRun:
    report = run.report
    return LastRun(
        run.job, run.vendor, run.started_at, run.ended_at, report.exit_code if report else None,
        report.requests_sent + report.canaries if report else 0, report.written.new if report else 0,
        report.error if report else "",
    )  # fmt: skip


def _stuck(books: Books) -> Iterable[Stuck]:
    for series, parking in books.ledger.parked().items():
        yield Stuck(series.vendor, series.symbol, series.freq.value, parking.error, parking.retry_at)


def _size(folder: Path) -> int:
    """Return the bytes of all files below `folder`; files that go away meanwhile count as 0."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value
