"""Harvest: what pages brought, checked, gathered, and brought into the lake in few commits.

Order of a flush: quarantine and findings, bars, requests, coverage. Each step may be
repeated: a crash between two of them is healed by replaying the raw pages.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Final

import pyarrow as pa

from ..ingest.fetch import Taken
from ..ingest.proof import session_of
from ..schemas.bar import INCOMING
from ..schemas.clock import Clock
from ..schemas.coverage import Covered, Series
from ..schemas.events import Committed, Events, Finding
from ..schemas.freq import Freq
from ..schemas.page import Page, SeriesPage
from ..schemas.quality import check, quarantined
from ..schemas.report import WriteReport
from ..schemas.requests import KEY, Asked, rows
from ..schemas.span import Span, missing
from ..storage.store import Store
from .desk import Books

__all__ = ["Harvest"]

_ROWS: Final = 1_000_000
_SECONDS: Final = 60.0
_ROW: Final = ("vendor", "symbol", "freq", "ts", "rule", "values")
_Row = tuple[str, str, str, datetime | None, str, str]  # what makes a refused row the same row


class Harvest:
    """Gathers what pages bring and commits it: every 60 s of the clock, every 1,000,000 rows, at the end.

    `again`: the ids of the pages that the lake has stored already, where pages are read anew by
    `run`. Their bars replace what the same page gave before, and of what they prove only what
    changes how a session stands is recorded, in the name of `run`.
    """

    def __init__(
        self, books: Books, clock: Clock, events: Events, *, again: Collection[str] | None = None, run: str = ""
    ) -> None:  # fmt: skip
        self._store, self._ledger, self._state = books.store, books.ledger, books.state
        self._clock, self._events = clock, events
        self._bars: list[pa.Table] = []
        self._quarantine: list[pa.Table] = []
        self._findings: list[pa.Table] = []
        self._asked: list[Asked] = []
        self._stretches: list[Covered] = []
        self._again, self._run = again, run
        self._retold: list[tuple[Covered, Asked]] = []
        self._pages = 0
        self._rows = 0
        self._refused = _Refused(books.store)
        self._since = clock.now()
        self.written = WriteReport()
        self.findings = 0
        self.proved = 0  # stretches of sessions that were recorded

    def add(self, page: Page, taken: Sequence[tuple[SeriesPage, Taken]]) -> None:
        """Take what one page brought, series by series, after the rules have seen it whole."""
        whole = pa.concat_tables([INCOMING.empty_table(), *(t.bars for _, t in taken)])
        checked = check(whole, page_id=page.id, run=page.run, now=page.received_at)
        refused = quarantined(
            [r for sp, t in taken for r in (*sp.rejects, *t.rejects)],
            vendor=page.request.vendor, page_id=page.id, run=page.run, now=page.received_at,
        )  # fmt: skip
        self._bars.append(checked.kept)
        self._quarantine += [checked.rejected, refused]
        self._findings.append(checked.findings)
        self._rows += checked.kept.num_rows
        self._pages += 1
        bad = self._refused.sessions(page, taken, checked.rejected)
        for sp, part in taken:
            proved = _proved(part.stretches, bad)
            asked = _asked(page, sp, part.bars.num_rows, proved)
            if page.id in (self._again or ()):
                self._retold += zip(proved, asked, strict=False)  # a row that proves nothing stands alone
            else:
                self._asked += asked
                self._stretches += proved
        if self._rows >= _ROWS or (self._clock.now() - self._since).total_seconds() >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what was gathered; afterwards every reader sees it and coverage says so."""
        self._since = self._clock.now()
        if not self._pages:
            return
        quarantine, findings = pa.concat_tables(self._quarantine), pa.concat_tables(self._findings)
        refused = self._store.append("quarantine", quarantine) if quarantine.num_rows else 0
        if findings.num_rows:
            self.findings += self._store.append("findings", findings)
        bars = pa.concat_tables(self._bars)
        done = WriteReport(version=self._store.version)
        if bars.num_rows and self._store.holds == "bars":
            done = self._store.upsert(bars, again=self._again is not None)
        self._record()
        self.written = self.written + done + WriteReport(quarantined=refused, version=done.version)
        if done.commits:
            self._events.emit(Committed(bars.num_rows, done.version))
        for row in findings.select(["rule", "symbol", "freq", "session", "text"]).to_pylist():
            text = f"{row['freq']} {row['session']}: {row['text']}"
            self._events.emit(Finding(row["rule"], row["symbol"], text))
        for gathered in (self._bars, self._quarantine, self._findings):
            gathered.clear()
        self._rows = self._pages = 0

    def _record(self) -> None:
        """Write down what was asked and what it proves; the ledger ends as if it were rebuilt from that."""
        self._store.append("requests", rows(self._asked))
        self._ledger.record(self._stretches)
        news = [self._retold[place] for place in self._ledger.news([proof for proof, _ in self._retold])]
        if news:
            told = rows([replace(asked, run=self._run) for _, asked in news])
            self._store.append("requests", told.append_column("id", pa.array(_ids(told), pa.string())))
            self._ledger.record([proof for proof, _ in news])
        self.proved += len(news) + len(self._stretches)
        self._state.set_tag(self._store.id, self._store.version_of("requests"))
        for gathered in (self._asked, self._stretches, self._retold):
            gathered.clear()


class _Refused:
    """Sessions that lack a refused row, as far as asking again may bring it.

    A row that an earlier run refused, too, just as it is, will not get better: it is a
    finding, and no reason to ask for its session for ever.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[_Row, set[str]] | None = None  # read when the first row is refused

    def sessions(
        self, page: Page, taken: Sequence[tuple[SeriesPage, Taken]], rejected: pa.Table
    ) -> dict[Series, set[date]]:
        """Return the sessions that stay missing, whatever the stretches of `taken` say.

        `rejected`: rows that a rule refused, with the columns of `QUARANTINE`.
        """
        lost: dict[tuple[Series, date], list[_Row]] = defaultdict(list)
        vendor = page.request.vendor
        for sp, part in taken:
            symbol, freq = sp.entry.symbol, sp.entry.freq
            for session, rejects in part.untold.items():
                rows = [(vendor, symbol, freq.value, r.ts, r.rule, r.values) for r in rejects]
                lost[Series(vendor, symbol, freq), session] += rows
        for row in _rows(rejected):
            _, symbol, name, ts, *_ = row
            day = session_of(symbol, Freq(name), ts) if ts else None
            if day:
                lost[Series(vendor, symbol, Freq(name)), day].append(row)
        found: dict[Series, set[date]] = defaultdict(set)
        for (series, session), rows in lost.items():
            if not all(self._came_before(row, page.run) for row in rows):
                found[series].add(session)
        return found

    def _came_before(self, row: _Row, run: str) -> bool:
        if self._runs is None:
            self._runs = defaultdict(set)
            known = self._store.table("quarantine", [*_ROW, "run"])
            for one, by in zip(_rows(known), known["run"].to_pylist(), strict=True):
                self._runs[one].add(by)
        return bool(self._runs.get(row, set[str]()) - {run})


def _rows(table: pa.Table) -> list[_Row]:
    return list(zip(*(table[name].to_pylist() for name in _ROW), strict=True))


def _proved(stretches: Sequence[Covered], refused: Mapping[Series, set[date]]) -> list[Covered]:
    """Return what is proven of the sessions, without those that lack a refused row."""
    out: list[Covered] = []
    for one in stretches:
        freq = one.series.freq
        holes = [Span(day, freq.following(day)) for day in refused.get(one.series, ())]
        out += [replace(one, sessions=part) for part in missing(holes, one.sessions)] if holes else [one]
    return out


def _ids(told: pa.Table) -> list[str]:
    """Return ids for rows that a replay tells again: the same for one run, others for the next."""
    keys = zip(*(told[name].to_pylist() for name in (*KEY, "run")), strict=True)
    return [hashlib.sha256(repr(key).encode()).hexdigest()[:32] for key in keys]


def _asked(page: Page, sp: SeriesPage, bars: int, proved: Sequence[Covered]) -> list[Asked]:
    """Return the rows of `requests` for one series of a page: one per stretch, or one that proves nothing."""
    entry = sp.entry
    proofs: list[Covered | None] = [*proved] or [None]
    return [
        Asked(
            vendor=page.request.vendor, symbol=entry.symbol, freq=entry.freq, endpoint=page.request.endpoint,
            asked_end=entry.end, asked_count=entry.count, adjust=entry.adjust,
            proved=proof.sessions if proof else None, standing=proof.standing if proof else None,
            rows=bars if number == 0 else 0, outcome=sp.outcome,
            reason=proof.reason.value if proof else sp.reason, account=page.account, page_id=page.id,
            stretch=number, run=page.run, fetched_at=page.received_at, received_bytes=len(page.body),
        )
        for number, proof in enumerate(proofs)
    ]  # fmt: skip
